//! GraphQL over the UI API: connections of visible objects, each charged as a call (facts 1.3, 3.8).

use std::collections::HashMap;

use super::answer::Answer;
use super::errors::ApiError;
use super::json::{Json, obj};
use super::request::Req;
use super::soql;
use super::world::World;

/// Most subqueries in one query.
const MOST: usize = 10;
/// Rows of a connection that does not say.
const FIRST: usize = 10;
/// Selections deeper than this are refused.
const DEEPEST: usize = 30;

/// One field with what is selected of it.
#[derive(Debug, Clone)]
struct Selection {
    name: String,
    alias: Option<String>,
    first: Option<usize>,
    inner: Vec<Selection>,
    /// A fragment to be put in here.
    spread: bool,
}

impl Selection {
    fn label(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.name)
    }

    fn find(&self, name: &str) -> Option<&Selection> {
        self.inner.iter().find(|inner| inner.name == name)
    }
}

/// Runs a query. Whatever is wrong with it is told in a 200 (facts 2.1).
pub(super) fn handle(world: &World, req: &Req<'_>) -> Result<Answer, ApiError> {
    let body = Json::parse(req.body).map_err(ApiError::parser)?;
    let text = body.text("query").unwrap_or_default();
    let wanted = body.text("operationName");
    let Some(selections) = parse(text, wanted) else { return Ok(failure("InvalidSyntax", "Invalid Syntax")) };
    let connections: Vec<&Selection> = selections
        .iter()
        .filter(|root| root.name == "uiapi")
        .flat_map(|root| root.inner.iter().filter(|inner| inner.name == "query"))
        .flat_map(|query| &query.inner)
        .collect();
    if connections.len() > MOST {
        let mut answer = failure("ValidationError", "A query can contain at most 10 subqueries");
        answer.calls = 1;
        return Ok(answer);
    }
    let mut found = Json::Obj(Vec::new());
    let mut errors = Vec::new();
    for connection in &connections {
        match run(world, req, connection) {
            Ok(result) => found.push(connection.label(), result),
            Err(error) => {
                found.push(connection.label(), Json::Null);
                errors.push(entry("DataFetchingException", &error.message));
            }
        }
    }
    let data = obj! {"uiapi": obj! {"query": found}};
    let mut answer = Answer::ok(obj! {"data": data, "errors": Json::Arr(errors)});
    answer.calls = connections.len().max(1) as u64;
    Ok(answer)
}

fn entry(kind: &str, message: &str) -> Json {
    // The member names of an entry were never captured (facts 2.1); these are GraphQL's own.
    obj! {"message": message, "locations": Json::Arr(Vec::new()), "extensions": obj! {"ErrorType": kind}}
}

fn failure(kind: &str, message: &str) -> Answer {
    Answer::ok(obj! {"data": obj! {}, "errors": Json::Arr(vec![entry(kind, message)])})
}

fn run(world: &World, req: &Req<'_>, connection: &Selection) -> Result<Json, ApiError> {
    let node = connection.find("edges").and_then(|edges| edges.find("node"));
    let fields: Vec<&str> =
        node.map(|node| node.inner.iter().map(|field| field.name.as_str()).collect()).unwrap_or_default();
    let mut columns: Vec<&str> =
        fields.iter().copied().filter(|name| !name.starts_with("__") && *name != "Id").collect();
    columns.push("Id");
    let limit = connection.first.unwrap_or(FIRST).min(2_000);
    let statement = format!("SELECT {} FROM {} LIMIT {limit}", columns.join(", "), connection.name);
    let context = world.context(req.user, req.now, req.version).ok_or_else(ApiError::session)?;
    let found = soql::run(&context, &soql::parse(&statement)?)?;
    let edges: Vec<Json> = found
        .records
        .iter()
        .map(|record| {
            let mut shown = Json::Obj(Vec::new());
            for field in node.map(|node| node.inner.as_slice()).unwrap_or_default() {
                let value = record.members().iter().find(|(name, _)| name.eq_ignore_ascii_case(&field.name));
                let value = value.map(|(_, value)| value.clone()).unwrap_or_default();
                let value = if field.inner.is_empty() {
                    value
                } else {
                    obj! {"value": value.clone(), "displayValue": Json::Null}
                };
                shown.push(field.label(), value);
            }
            obj! {"node": shown}
        })
        .collect();
    Ok(obj! {"edges": Json::Arr(edges), "totalCount": found.total})
}

/// The selections of the operation, fragments put in; `None` if the document cannot be read.
fn parse(text: &str, operation: Option<&str>) -> Option<Vec<Selection>> {
    let tokens = tokens(text)?;
    let mut reader = Reader { tokens: &tokens, at: 0 };
    let mut operations: Vec<(Option<String>, Vec<Selection>)> = Vec::new();
    let mut fragments: HashMap<String, Vec<Selection>> = HashMap::new();
    while reader.peek().is_some() {
        match reader.peek()? {
            "{" => operations.push((None, reader.selections(0)?)),
            "fragment" => {
                reader.at += 1;
                let name = reader.next()?.to_owned();
                while reader.peek()? != "{" {
                    reader.at += 1;
                }
                fragments.insert(name, reader.selections(0)?);
            }
            "query" => {
                reader.at += 1;
                let name = reader.peek().filter(|token| *token != "{" && *token != "(").map(str::to_owned);
                while reader.peek()? != "{" {
                    if reader.peek()? == "(" {
                        reader.skip_arguments()?;
                    } else {
                        reader.at += 1;
                    }
                }
                operations.push((name, reader.selections(0)?));
            }
            _ => return None,
        }
    }
    let found = match operation {
        Some(wanted) => operations.into_iter().find(|(name, _)| name.as_deref() == Some(wanted))?,
        None => operations.into_iter().next()?,
    };
    let mut budget = 10_000;
    fill_in(&found.1, &fragments, 0, &mut budget)
}

/// Puts fragments in; `budget` bounds what fragments inside fragments may grow to.
fn fill_in(
    selections: &[Selection],
    fragments: &HashMap<String, Vec<Selection>>,
    depth: usize,
    budget: &mut usize,
) -> Option<Vec<Selection>> {
    if depth > DEEPEST {
        return None;
    }
    let mut out = Vec::new();
    for selection in selections {
        *budget = budget.checked_sub(1)?;
        if selection.spread {
            out.extend(fill_in(fragments.get(&selection.name)?, fragments, depth + 1, budget)?);
        } else if selection.name.is_empty() {
            out.extend(fill_in(&selection.inner, fragments, depth + 1, budget)?);
        } else {
            let inner = fill_in(&selection.inner, fragments, depth + 1, budget)?;
            out.push(Selection { inner, ..selection.clone() });
        }
    }
    Some(out)
}

struct Reader<'a> {
    tokens: &'a [String],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.at).map(String::as_str)
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    fn selections(&mut self, depth: usize) -> Option<Vec<Selection>> {
        if depth > DEEPEST || self.next()? != "{" {
            return None;
        }
        let mut out = Vec::new();
        loop {
            match self.peek()? {
                "}" => {
                    self.at += 1;
                    return Some(out);
                }
                "..." => {
                    self.at += 1;
                    out.push(self.spread(depth)?);
                }
                _ => out.push(self.field(depth)?),
            }
        }
    }

    fn spread(&mut self, depth: usize) -> Option<Selection> {
        let mut selection =
            Selection { name: String::new(), alias: None, first: None, inner: Vec::new(), spread: false };
        if self.peek()? == "on" {
            self.at += 2;
        } else if self.peek()? != "{" && self.peek()? != "@" {
            self.next()?.clone_into(&mut selection.name);
            selection.spread = true;
        }
        self.directives()?;
        if !selection.spread {
            selection.inner = self.selections(depth + 1)?;
        }
        Some(selection)
    }

    fn directives(&mut self) -> Option<()> {
        while self.peek() == Some("@") {
            self.at += 2;
            if self.peek() == Some("(") {
                self.skip_arguments()?;
            }
        }
        Some(())
    }

    fn field(&mut self, depth: usize) -> Option<Selection> {
        let mut name = self.name()?;
        let mut alias = None;
        if self.peek() == Some(":") {
            self.at += 1;
            alias = Some(std::mem::replace(&mut name, self.name()?));
        }
        let mut first = None;
        if self.peek() == Some("(") {
            let from = self.at;
            self.skip_arguments()?;
            let given = self.tokens.get(from..self.at)?;
            first = given.windows(3).find(|w| w[0] == "first" && w[1] == ":").and_then(|w| w[2].parse().ok());
        }
        self.directives()?;
        let inner = if self.peek() == Some("{") { self.selections(depth + 1)? } else { Vec::new() };
        Some(Selection { name, alias, first, inner, spread: false })
    }

    fn name(&mut self) -> Option<String> {
        let token = self.next()?;
        token.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_').then(|| token.to_owned())
    }

    fn skip_arguments(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            match self.next()? {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.checked_sub(1)?,
                _ => {}
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

fn tokens(text: &str) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '#' => {
                rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
                continue;
            }
            c if c.is_whitespace() || c == ',' || c == '\u{feff}' => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
            '.' if rest.starts_with("...") => 3,
            '"' if rest.starts_with("\"\"\"") => rest[3..].find("\"\"\"")? + 6,
            '"' => {
                let mut escaped = false;
                let end = rest.char_indices().skip(1).find(|(_, c)| {
                    let closes = *c == '"' && !escaped;
                    escaped = *c == '\\' && !escaped;
                    closes
                });
                end?.0 + 1
            }
            '{' | '}' | '(' | ')' | '[' | ']' | ':' | '!' | '$' | '@' | '=' | '|' | '&' => 1,
            c if c.is_ascii_alphanumeric() || c == '_' || c == '-' => {
                let belongs = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
                rest.find(|c| !belongs(c)).unwrap_or(rest.len())
            }
            _ => return None,
        };
        out.push(rest[..length].to_owned());
        rest = &rest[length..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_fragments_and_arguments_are_understood() {
        let text = "query X($n: Int) { uiapi { query { a: Account(first: 3, where: {Name: {eq: \"x}\"}}) { ...f } Contact { edges { node { Id } } } } } } fragment f on AccountConnection { edges { node { Id Name { value } } } }";
        let selections = parse(text, Some("X")).unwrap();
        let query = selections[0].find("query").unwrap();
        assert_eq!(query.inner.len(), 2);
        assert_eq!((query.inner[0].label(), query.inner[0].first), ("a", Some(3)));
        assert!(query.inner[0].find("edges").is_some());
    }

    #[test]
    fn nonsense_and_bombs_are_refused() {
        assert!(parse("{ a", None).is_none());
        assert!(parse("{ a ...nope }", None).is_none());
        assert!(parse(&"{a".repeat(1_000), None).is_none());
        let bomb = "{ ...a } fragment a on X { ...b ...b ...b ...b } fragment b on X { ...c ...c ...c ...c } fragment c on X { ...d ...d ...d ...d } fragment d on X { ...e ...e ...e ...e } fragment e on X { ...g ...g ...g ...g } fragment g on X { ...h ...h ...h ...h } fragment h on X { x x x x x }";
        assert!(parse(bomb, None).is_none());
        assert!(parse("{ ...a } fragment a on X { ...a }", None).is_none());
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(\\{|\\}|\\(|\\)|:|\\.\\.\\.|@|a|on|query|fragment|\"|\\\\|#|\\$|é){0,60}") {
            let _read = parse(&text, None);
        }
    }
}
