//! The YAML text as a tree in which every node knows where it stands.
//!
//! Serde stops at the first mistake and forgets places; this tree is what lets the reader go on and the check
//! point back. It is bounded in bytes, depth and nodes, so that aliases cannot multiply without end.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use serde_saphyr::granit_parser::{self, Event, Marker, Parser, ScalarStyle, Span};
use smol_str::SmolStr;

use super::problem::{Fault, Place, Problem};

/// The longest text that is read.
pub const MAX_BYTES: usize = 4 << 20;
/// The most nodes a document may have, aliases expanded.
const MAX_NODES: u32 = 200_000;
/// How deep flow and block collections may each be nested.
const MAX_DEPTH: usize = 24;

/// Names a node in its tree.
pub type NodeId = u32;

/// One value.
#[derive(Debug, Clone)]
pub struct Node {
    /// Unique in its tree.
    pub id: NodeId,
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Value {
    /// A text; `plain` if it has no quotes, so that it may also be a number, a truth value or nothing.
    Scalar {
        /// Its text, escapes resolved.
        text: String,
        /// Whether it stands without quotes.
        plain: bool,
    },
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order of the text, repeated keys included.
    Map(Vec<Entry>),
}

/// One key of a mapping and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

impl Node {
    /// Whether nothing is written here: no text, `~` or `null`.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar { text, plain } => *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"),
            Value::List(_) | Value::Map(_) => false,
        }
    }

    /// What this is called in a message.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a map of keys",
        }
    }
}

/// One step from a node to another: how the check names what it speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Into a map.
    Key(SmolStr),
    /// Into a list, counted from 0 among the elements that could be read.
    Index(usize),
}

/// A parsed text, and which of its nodes proved unusable.
#[derive(Debug)]
pub struct Tree {
    root: Node,
    unusable: HashSet<NodeId>,
}

impl Tree {
    /// Parses `text`. A text that is no YAML has one problem, for nothing can be said of what follows it; repeated
    /// keys are all returned beside the tree, in which the first of each counts.
    pub fn parse(text: &str) -> Result<(Self, Vec<Problem>), Problem> {
        if text.len() > MAX_BYTES {
            return Err(problem(Place::START, Fault::new(format!("longer than {MAX_BYTES} bytes"))));
        }
        let root = Builder::default().build(text)?;
        let mut tree = Self { root, unusable: HashSet::new() };
        let repeated = tree.repeated_keys();
        Ok((tree, repeated))
    }

    /// The whole document.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// Whether a node was set aside.
    pub fn is_unusable(&self, id: NodeId) -> bool {
        self.unusable.contains(&id)
    }

    /// Sets a node aside: readers pass it by. Returns false if it already was.
    pub fn set_aside(&mut self, id: NodeId) -> bool {
        self.unusable.insert(id)
    }

    /// The key path of a node, and the places of its key (its own, if it has none) and of itself.
    pub fn locate(&self, id: NodeId) -> Option<Located> {
        let mut found = None;
        walk(&self.root, self.root.place, &mut String::new(), &mut |path, key, node| {
            if node.id == id {
                found = Some(Located { path: path.to_owned(), key, value: node.place });
            }
        });
        found
    }

    /// Follows `steps` as far as they lead: the key path as written, and the place of the last node there is.
    pub fn follow(&self, steps: &[Step]) -> (String, Place) {
        let mut path = String::new();
        let mut place = self.root.place;
        let mut node = Some(&self.root);
        for step in steps {
            match step {
                Step::Key(key) => {
                    push_key(&mut path, key);
                    let entry = match node.map(|node| &node.value) {
                        Some(Value::Map(entries)) => {
                            entries.iter().find(|entry| entry.key == *key && !self.is_unusable(entry.node.id))
                        }
                        _ => None,
                    };
                    place = entry.map_or(place, |entry| entry.place);
                    node = entry.map(|entry| &entry.node);
                }
                Step::Index(wanted) => {
                    let item = match node.map(|node| &node.value) {
                        Some(Value::List(items)) => {
                            items.iter().enumerate().filter(|(_, item)| !self.is_unusable(item.id)).nth(*wanted)
                        }
                        _ => None,
                    };
                    let _ = write!(path, "[{}]", item.map_or(*wanted, |(written, _)| written));
                    place = item.map_or(place, |(_, item)| item.place);
                    node = item.map(|(_, item)| item);
                }
            }
        }
        (path, node.map_or(place, |node| node.place))
    }

    fn repeated_keys(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut repeated = Vec::new();
        walk(&self.root, self.root.place, &mut String::new(), &mut |path, _, node| {
            let Value::Map(entries) = &node.value else { return };
            let mut seen = HashMap::with_capacity(entries.len());
            for entry in entries {
                if let Some(first) = seen.get(entry.key.as_str()) {
                    let mut path = path.to_owned();
                    push_key(&mut path, &entry.key);
                    let Place { line, column } = *first;
                    let fault = Fault::new(format!("this key already stands in line {line}, column {column}"));
                    problems.push(Problem { path, ..problem(entry.place, fault) });
                    repeated.push(entry.node.id);
                } else {
                    seen.insert(entry.key.as_str(), entry.place);
                }
            }
        });
        self.unusable.extend(repeated);
        problems
    }
}

/// Where a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// Its key path, such as `callers[2].class`.
    pub path: String,
    /// Where its key stands.
    pub key: Place,
    /// Where it stands itself.
    pub value: Place,
}

/// Visits every node with its key path and the place of its key.
fn walk<'t>(node: &'t Node, key: Place, path: &mut String, visit: &mut impl FnMut(&str, Place, &'t Node)) {
    visit(path, key, node);
    let length = path.len();
    match &node.value {
        Value::Scalar { .. } => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let _ = write!(path, "[{index}]");
                walk(item, item.place, path, visit);
                path.truncate(length);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                push_key(path, &entry.key);
                walk(&entry.node, entry.place, path, visit);
                path.truncate(length);
            }
        }
    }
}

/// Appends a key to a path; one that could be misread, or is very long, is quoted and cut.
fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !key.is_empty() && key.len() <= 64 && key.chars().all(plain) {
        path.push_str(key);
    } else {
        let short: String = key.chars().take(64).collect();
        let _ = write!(path, "{short:?}");
    }
}

fn problem(place: Place, fault: Fault) -> Problem {
    Problem { place, path: String::new(), reason: fault.reason, hint: fault.hint }
}

fn place(mark: Marker) -> Place {
    Place { line: mark.line(), column: mark.col() + 1 }
}

/// A collection that is not complete yet.
struct Open {
    place: Place,
    anchor: Option<usize>,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Place)> },
}

/// Turns parser events into a tree, without recursion.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    nodes: u32,
    /// Bytes of text that anchors and aliases repeated.
    copied_bytes: usize,
}

impl Builder {
    fn build(mut self, text: &str) -> Result<Node, Problem> {
        let options = granit_parser::options! {
            emit_comments: false,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        let mut documents = 0;
        for next in Parser::new_from_str_with_options(text, options) {
            let (event, span) = next.map_err(|error| {
                let fault = Fault::new(error.info().replace('\n', " "));
                problem(place(*error.marker()), fault)
            })?;
            if let Event::DocumentStart(..) = event {
                documents += 1;
                if documents > 1 {
                    return Err(problem(place(span.start), Fault::new("a configuration is one document, not several")));
                }
            } else {
                self.event(event, span)?;
            }
        }
        if self.root.is_none() {
            let id = self.new_id(Place::START)?;
            return Ok(Node { id, place: Place::START, value: Value::Scalar { text: String::new(), plain: true } });
        }
        self.root.ok_or_else(|| problem(Place::START, Fault::new("not a complete document")))
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let at = place(span.start);
        if event.tag().is_some() {
            return Err(problem(at, Fault::new("tags (!) have no meaning in a configuration")));
        }
        let anchor = event.anchor_id();
        match event {
            Event::Scalar(text, style, ..) => {
                let value = Value::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                let node = Node { id: self.new_id(at)?, place: at, value };
                self.complete(node, anchor)
            }
            Event::Alias(target) => {
                let Some(original) = self.anchors.get(&target).cloned() else {
                    return Err(problem(at, Fault::new("this alias stands inside of what it refers to")));
                };
                let node = self.copy(original, at)?;
                self.complete(node, None)
            }
            Event::SequenceStart(..) => {
                self.open.push(Open { place: at, anchor, inside: Inside::List(Vec::new()) });
                Ok(())
            }
            Event::MappingStart(..) => {
                let inside = Inside::Map { entries: Vec::new(), key: None };
                self.open.push(Open { place: at, anchor, inside });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(Open { place, anchor, inside }) = self.open.pop() else { return Ok(()) };
                let value = match inside {
                    Inside::List(items) => Value::List(items),
                    Inside::Map { entries, .. } => Value::Map(entries),
                };
                let node = Node { id: self.new_id(place)?, place, value };
                self.complete(node, anchor)
            }
            _ => Ok(()),
        }
    }

    /// Puts a complete node where it belongs.
    fn complete(&mut self, node: Node, anchor: Option<usize>) -> Result<(), Problem> {
        if let Some(anchor) = anchor {
            let copy = self.copy(node.clone(), node.place)?;
            self.anchors.insert(anchor, copy);
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(node),
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Map { entries, key }) => match key.take() {
                Some((key, place)) => entries.push(Entry { key, place, node }),
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some((text, node.place)),
                    Value::List(_) | Value::Map(_) => {
                        return Err(problem(node.place, Fault::new("a key must be a single value")));
                    }
                },
            },
        }
        Ok(())
    }

    /// A copy of a subtree with ids of its own. It stands where the alias stands; what is inside of it stands where
    /// it was written.
    fn copy(&mut self, original: Node, at: Place) -> Result<Node, Problem> {
        let value = match original.value {
            Value::Scalar { text, plain } => {
                self.copied_bytes += text.len();
                if self.copied_bytes > MAX_BYTES {
                    return Err(problem(at, Fault::new(format!("more than {MAX_BYTES} bytes, aliases expanded"))));
                }
                Value::Scalar { text, plain }
            }
            Value::List(items) => Value::List(
                items
                    .into_iter()
                    .map(|item| {
                        let place = item.place;
                        self.copy(item, place)
                    })
                    .collect::<Result<_, _>>()?,
            ),
            Value::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|entry| {
                        let place = entry.node.place;
                        Ok(Entry { node: self.copy(entry.node, place)?, ..entry })
                    })
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Node { id: self.new_id(at)?, place: at, value })
    }

    fn new_id(&mut self, at: Place) -> Result<NodeId, Problem> {
        if self.nodes >= MAX_NODES {
            return Err(problem(at, Fault::new(format!("more than {MAX_NODES} values, aliases expanded"))));
        }
        self.nodes += 1;
        Ok(self.nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Tree {
        Tree::parse(text).unwrap().0
    }

    fn mistake(text: &str) -> Problem {
        Tree::parse(text).unwrap_err()
    }

    #[test]
    fn places_are_counted_from_one_in_characters() {
        let tree = parse("é: {ü: 1,\n  b: [x, 'y']}\n");
        let (path, place) = tree.follow(&[Step::Key("é".into()), Step::Key("b".into()), Step::Index(1)]);
        assert_eq!((path.as_str(), place), ("\"é\".b[1]", Place { line: 2, column: 10 }));
    }

    #[test]
    fn a_path_that_ends_early_points_at_the_last_node_there_is() {
        let tree = parse("orgs:\n  - name: prod\n");
        let (path, place) = tree.follow(&[Step::Key("orgs".into()), Step::Index(0), Step::Key("instance_url".into())]);
        assert_eq!((path.as_str(), place), ("orgs[0].instance_url", Place { line: 2, column: 5 }));
    }

    #[test]
    fn indexes_count_what_could_be_read_and_show_what_was_written() {
        let mut tree = parse("[a, b, c]");
        let Value::List(items) = &tree.root().value else { panic!("not a list") };
        let first = items[0].id;
        assert!(tree.set_aside(first));
        assert!(!tree.set_aside(first));
        assert_eq!(tree.follow(&[Step::Index(0)]), ("[1]".to_owned(), Place { line: 1, column: 5 }));
    }

    #[test]
    fn repeated_keys_are_all_found_and_the_first_counts() {
        let (tree, repeated) = Tree::parse("a: 1\nb: {c: 1, c: 2}\na: 2\na: 3\n").unwrap();
        let shown: Vec<_> = repeated.iter().map(|problem| (problem.place.line, problem.path.as_str())).collect();
        assert_eq!(shown, [(3, "a"), (4, "a"), (2, "b.c")]);
        assert_eq!(tree.follow(&[Step::Key("a".into())]).1.line, 1);
    }

    #[test]
    fn aliases_are_expanded_and_bounded() {
        let tree = parse("a: &x {k: v}\nb: *x\n");
        assert_eq!(tree.follow(&[Step::Key("b".into()), Step::Key("k".into())]).1, Place { line: 1, column: 11 });

        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let _ = writeln!(bomb, "a{level}: &a{level} [{}]", vec![format!("*a{}", level - 1); 10].join(", "));
        }
        assert!(mistake(&bomb).reason.contains("aliases expanded"));
        let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 100].join(", "));
        assert!(mistake(&long).reason.contains("aliases expanded"));
        assert!(mistake("a: &a [*a]").reason.contains("inside of what it refers to"));
    }

    #[test]
    fn what_is_no_plain_document_is_refused_with_its_place() {
        assert_eq!(mistake("a: 1\n---\nb: 2\n").place.line, 2);
        assert_eq!(mistake("a: !include x\n").place.line, 1);
        assert!(mistake("? [a, b]\n: c\n").reason.contains("key"));
        assert!(mistake(&"[".repeat(1000)).place.column <= 1000);
        assert_eq!(mistake("a:\n  - b\n c: d\n").place.line, 3);
        assert!(mistake(&" ".repeat(MAX_BYTES + 1)).reason.contains("longer"));
    }

    #[test]
    fn an_empty_text_is_nothing() {
        for text in ["", "# only a comment\n", "---\n", "~"] {
            assert!(parse(text).root().is_null(), "{text:?}");
        }
        assert!(!parse("'null'").root().is_null());
    }
}
