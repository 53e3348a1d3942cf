//! What failed inside an answer, found while it passes in pieces: the same that [`super::scan`] finds in a whole body, and
//! the errors of GraphQL, in room that does not grow with the answer.
//!
//! It follows the few containers that lead to a part, and counts brackets in all others. What is no JSON is passed over in
//! the same time; nothing is ever looked at twice.

use memchr::memchr2;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::said::{Said, Shape, plausible};
use super::{Failed, Partial, classify};
use crate::call::Family;

/// Containers around the code of a record in a collection in a graph, and one to spare.
const DEEPEST: usize = 11;
/// Names and values that matter are shorter.
const LONGEST_WORD: usize = 80;

/// What a container on the way to a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The whole answer.
    Root,
    /// `graphs`.
    Graphs,
    /// One of them.
    Graph,
    /// Its `graphResponse`.
    Response,
    /// A list of parts.
    Parts,
    /// One part: a record, a subrequest, an error of GraphQL.
    Part,
    /// What a subrequest says: errors, or records.
    Says,
    /// One of them.
    Entry,
    /// `errors` of a record.
    Errors,
    /// One of them.
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lex {
    /// Between two words.
    Between,
    /// Inside a text; whether the next byte is escaped.
    Text { escaped: bool },
    /// Inside a number, `true`, `false` or `null`.
    Bare,
    /// Inside a container that leads nowhere; how many are open in it.
    Past { open: u32 },
    /// Inside a text in there.
    PastText { open: u32, escaped: bool },
}

/// What is known so far of one part.
#[derive(Debug, Default)]
struct Part {
    status: Option<u16>,
    success: Option<bool>,
    errors: bool,
    code: SmolStr,
    /// Of one record of a subrequest.
    entry_success: Option<bool>,
    entry_code: SmolStr,
    /// The code of the first record of it that failed.
    inside: Option<SmolStr>,
}

/// Looks through one answer.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is known on its own")]
pub struct Stream {
    family: Family,
    lex: Lex,
    /// The containers that are open, and whether each is an object.
    roles: SmallVec<[(Role, bool); DEEPEST]>,
    /// The next text is a name.
    at_name: bool,
    name: SmallVec<[u8; 24]>,
    word: SmallVec<[u8; LONGEST_WORD]>,
    too_long: bool,
    part: Part,
    found: Partial,
    /// The list of parts was seen.
    seen: bool,
    over: bool,
}

impl Stream {
    /// For an answer to a call of `family`; `None` if such calls have no parts.
    pub fn new(family: Family) -> Option<Self> {
        let known = matches!(
            family,
            Family::Composite | Family::Collections | Family::Tree | Family::Graph | Family::Batch | Family::Graphql
        );
        known.then(|| Self {
            family,
            lex: Lex::Between,
            roles: SmallVec::new(),
            at_name: false,
            name: SmallVec::new(),
            word: SmallVec::new(),
            too_long: false,
            part: Part::default(),
            found: Partial::default(),
            seen: false,
            over: false,
        })
    }

    /// Whether nothing more can be found.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// What was found so far; `None` if it is no answer with parts.
    pub fn found(self) -> Option<Partial> {
        self.seen.then_some(Partial { whole: self.over, ..self.found })
    }

    /// The next piece.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.over {
            let taken = match self.lex {
                Lex::Between => self.between(bytes),
                Lex::Text { escaped } => self.text(bytes, escaped),
                Lex::Bare => self.bare(bytes),
                Lex::Past { open } => self.past(bytes, open),
                Lex::PastText { open, escaped } => {
                    let (taken, end) = text_end(bytes, escaped);
                    self.lex = match end {
                        TextEnd::Closed => Lex::Past { open },
                        TextEnd::Open { escaped } => Lex::PastText { open, escaped },
                    };
                    taken
                }
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
    }

    fn between(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for byte in bytes {
            taken += 1;
            match byte {
                b'"' => {
                    self.word.clear();
                    self.too_long = false;
                    self.lex = Lex::Text { escaped: false };
                }
                b'{' | b'[' => self.open(*byte == b'{'),
                b'}' | b']' => self.close(),
                b',' => self.at_name = self.roles.last().is_some_and(|(_, object)| *object),
                b':' => self.at_name = false,
                byte if byte.is_ascii_whitespace() => {}
                _ => {
                    self.word.clear();
                    self.too_long = false;
                    self.lex = Lex::Bare;
                    return taken - 1;
                }
            }
            if self.lex != Lex::Between || self.over {
                break;
            }
        }
        taken
    }

    fn keep(&mut self, bytes: &[u8]) {
        let room = LONGEST_WORD - self.word.len().min(LONGEST_WORD);
        self.too_long |= bytes.len() > room;
        self.word.extend_from_slice(bytes.get(..room.min(bytes.len())).unwrap_or_default());
    }

    fn text(&mut self, bytes: &[u8], escaped: bool) -> usize {
        let (taken, end) = text_end(bytes, escaped);
        match end {
            TextEnd::Open { escaped } => {
                self.keep(bytes.get(..taken).unwrap_or_default());
                self.lex = Lex::Text { escaped };
            }
            TextEnd::Closed => {
                self.keep(bytes.get(..taken.saturating_sub(1)).unwrap_or_default());
                self.lex = Lex::Between;
                if self.at_name {
                    self.at_name = false;
                    self.name.clear();
                    if self.word.len() <= self.name.inline_size() && !self.too_long {
                        self.name.extend_from_slice(&self.word);
                    }
                } else {
                    self.value(true);
                }
            }
        }
        taken
    }

    fn bare(&mut self, bytes: &[u8]) -> usize {
        let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b':' | b'"') || byte.is_ascii_whitespace();
        let length = bytes.iter().position(ends);
        self.keep(bytes.get(..length.unwrap_or(bytes.len())).unwrap_or_default());
        if length.is_some() {
            self.lex = Lex::Between;
            self.value(false);
        }
        length.unwrap_or(bytes.len())
    }

    fn past(&mut self, bytes: &[u8], mut open: u32) -> usize {
        let mut taken = 0;
        for byte in bytes {
            taken += 1;
            match byte {
                b'"' => {
                    self.lex = Lex::PastText { open, escaped: false };
                    return taken;
                }
                b'{' | b'[' => open = open.saturating_add(1),
                b'}' | b']' => {
                    open -= 1;
                    if open == 0 {
                        self.lex = Lex::Between;
                        return taken;
                    }
                }
                _ => {}
            }
        }
        self.lex = Lex::Past { open };
        taken
    }

    /// What a container under `name` is, seen from the one around it; `None` if it leads nowhere.
    fn role(&self, object: bool) -> Option<Role> {
        let name = self.name.as_slice();
        let Some((around, _)) = self.roles.last() else {
            return Some(if self.family == Family::Collections { Role::Parts } else { Role::Root })
                .filter(|role| object == (*role == Role::Root));
        };
        match (around, self.family, name, object) {
            (Role::Root, Family::Composite, b"compositeResponse", false)
            | (Role::Root, Family::Batch | Family::Tree, b"results", false)
            | (Role::Root, Family::Graphql, b"errors", false)
            | (Role::Response, _, b"compositeResponse", false) => Some(Role::Parts),
            (Role::Root, Family::Graph, b"graphs", false) => Some(Role::Graphs),
            (Role::Graphs, _, _, true) => Some(Role::Graph),
            (Role::Graph, _, b"graphResponse", true) => Some(Role::Response),
            (Role::Parts, _, _, true) => Some(Role::Part),
            (Role::Part, Family::Collections | Family::Tree, b"errors", false) | (Role::Entry, _, b"errors", false) => {
                Some(Role::Errors)
            }
            (Role::Part, Family::Collections | Family::Tree, b"errors", true)
            | (Role::Part, Family::Graphql, b"extensions", true)
            | (Role::Entry, _, b"errors", true)
            | (Role::Errors, _, _, true) => Some(Role::Error),
            (Role::Part, Family::Composite | Family::Batch | Family::Graph, b"body" | b"result", false) => {
                Some(Role::Says)
            }
            (Role::Part, Family::Composite | Family::Batch | Family::Graph, b"body" | b"result", true)
            | (Role::Says, _, _, true) => Some(Role::Entry),
            _ => None,
        }
    }

    fn open(&mut self, object: bool) {
        let around = self.roles.last().map(|(role, _)| *role);
        let role = self.role(object).filter(|_| self.roles.len() < DEEPEST);
        match (role, around) {
            (Some(Role::Parts | Role::Graphs), _) => self.seen = true,
            (Some(Role::Part), _) => self.part = Part::default(),
            (Some(Role::Errors | Role::Error), Some(Role::Part)) => self.part.errors = true,
            // No part, but one was answered.
            (None, Some(Role::Parts)) => self.found.total += 1,
            // Not the answer that was looked for.
            (None, None) => self.over = true,
            _ => {}
        }
        match role {
            Some(role) => {
                self.roles.push((role, object));
                self.at_name = object;
            }
            None => self.lex = Lex::Past { open: 1 },
        }
        self.name.clear();
    }

    fn close(&mut self) {
        let Some((role, _)) = self.roles.pop() else {
            self.over = true;
            return;
        };
        self.at_name = false;
        match role {
            Role::Entry => {
                let code = std::mem::take(&mut self.part.entry_code);
                let failed = self.part.entry_success.take() == Some(false);
                let listed = self.roles.last().is_some_and(|(role, _)| *role == Role::Says);
                if failed && listed && self.part.inside.is_none() {
                    self.part.inside = Some(code);
                }
            }
            Role::Part => self.part_ended(),
            _ => {}
        }
        self.over |= self.roles.is_empty();
    }

    fn part_ended(&mut self) {
        let Part { status, success, errors, code, inside, .. } = std::mem::take(&mut self.part);
        let failed = match self.family {
            Family::Collections => (success == Some(false)).then_some((400, code)),
            Family::Tree => (!success.unwrap_or(!errors)).then_some((400, code)),
            Family::Graphql => Some((200, code)),
            _ => match status {
                Some(status) if status >= 400 => Some((status, code)),
                _ => inside.map(|code| (400, code)),
            },
        };
        if let Some((status, code)) = failed {
            let said = Said { code: &code, shape: Shape::Json, ..Said::default() };
            let verdict = classify(self.family, status, &said);
            let at = self.found.total;
            self.found.add(Failed { at, code, verdict });
        }
        self.found.total += 1;
    }

    /// A text, number or word that is a value.
    fn value(&mut self, text: bool) {
        let Some((role, _)) = self.roles.last() else { return };
        let word = if self.too_long { &[][..] } else { self.word.as_slice() };
        let said = || plausible(word).map(SmolStr::new).unwrap_or_default();
        let truth = match word {
            b"true" if !text => Some(true),
            b"false" if !text => Some(false),
            _ => None,
        };
        let in_entry = self.roles.iter().any(|(role, _)| *role == Role::Entry);
        match (role, self.name.as_slice()) {
            (Role::Parts, _) => self.found.total += 1,
            (Role::Part, b"httpStatusCode" | b"statusCode") if !text => {
                self.part.status = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
            }
            (Role::Part, b"success") => self.part.success = truth,
            (Role::Part, b"errors") => self.part.errors = true,
            (Role::Part, b"errorType" | b"errorCode")
                if text && self.family == Family::Graphql && self.part.code.is_empty() =>
            {
                self.part.code = said();
            }
            (Role::Entry, b"success") => self.part.entry_success = truth,
            (Role::Entry, b"errorCode" | b"statusCode" | b"exceptionCode" | b"error")
                if text && self.part.code.is_empty() =>
            {
                self.part.code = said();
            }
            (
                Role::Error,
                b"errorCode" | b"statusCode" | b"exceptionCode" | b"error" | b"ErrorType" | b"errorType"
                | b"classification",
            ) if text => {
                let code = if in_entry { &mut self.part.entry_code } else { &mut self.part.code };
                if code.is_empty() {
                    *code = said();
                }
            }
            _ => {}
        }
        self.name.clear();
    }
}

enum TextEnd {
    Closed,
    Open { escaped: bool },
}

/// How many bytes belong to a text, its end included, and whether that is among them.
fn text_end(bytes: &[u8], escaped: bool) -> (usize, TextEnd) {
    let mut at = usize::from(escaped);
    loop {
        match bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
            None => return (bytes.len(), TextEnd::Open { escaped: false }),
            Some(found) => {
                at += found + 1;
                if bytes.get(at - 1) == Some(&b'"') {
                    return (at, TextEnd::Closed);
                }
                if at >= bytes.len() {
                    return (bytes.len(), TextEnd::Open { escaped: true });
                }
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::scan;
    use super::*;

    const FAMILIES: [Family; 5] = [Family::Composite, Family::Collections, Family::Tree, Family::Graph, Family::Batch];

    fn streamed<'a>(family: Family, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Partial> {
        let mut stream = Stream::new(family).unwrap();
        pieces.into_iter().for_each(|piece| stream.feed(piece));
        stream.found()
    }

    /// What both have to agree on: the words, which only one hears, decide of nothing else.
    fn told(found: Option<Partial>) -> Option<Partial> {
        let list = |found: &Partial| {
            let said = |code: &SmolStr| classify(Family::Rest, 400, &Said { code, ..Said::default() });
            found.list.iter().map(|failed| Failed { verdict: said(&failed.code), ..failed.clone() }).collect()
        };
        found.map(|found| Partial { list: list(&found), ..found })
    }

    #[test]
    fn errors_of_graphql_are_found_wherever_they_stand() {
        let error = |kind: &str| json!({"message": "x", "locations": [{"line": 1}], "extensions": {"ErrorType": kind}});
        let errors = json!([error("DataFetchingException"), error("ValidationError")]);
        let data = json!({"uiapi": {"query": {"Account": {"edges": [{"node": {"errors": [{"a": 1}]}}]}}}});
        for answer in [json!({"data": data, "errors": errors}), json!({"errors": errors, "data": data})] {
            let found = streamed(Family::Graphql, [answer.to_string().as_bytes()]).unwrap();
            let codes: Vec<&str> = found.list.iter().map(|failed| failed.code.as_str()).collect();
            assert_eq!((found.failed, codes), (2, vec!["DataFetchingException", "ValidationError"]), "{answer}");
        }
        assert_eq!(streamed(Family::Graphql, [json!({"data": data}).to_string().as_bytes()]), None);
        let none = json!({"data": data, "errors": []}).to_string();
        assert_eq!(streamed(Family::Graphql, [none.as_bytes()]).unwrap().failed, 0);
    }

    #[test]
    fn what_is_no_answer_with_parts_is_passed_over() {
        for (family, body) in [
            (Family::Collections, r#"{"success":false}"#),
            (Family::Composite, r#"[{"success":false}]"#),
            (Family::Graph, "]]]"),
            (Family::Tree, "plain"),
        ] {
            assert_eq!(streamed(family, [body.as_bytes()]), None, "{body}");
        }
        assert!(Stream::new(Family::Query).is_none());
    }

    fn any_code() -> impl Strategy<Value = Value> + Clone {
        prop_oneof![Just("UNABLE_TO_LOCK_ROW"), Just("DUPLICATE_VALUE"), Just("no code"), Just("a\"b\\")]
            .prop_map(|code| json!({"statusCode": code, "message": "un\"able\\", "fields": [{"errorCode": "NO"}]}))
    }

    fn any_record() -> impl Strategy<Value = Value> + Clone {
        let errors = prop::collection::vec(any_code(), 0..3);
        prop_oneof![
            Just(Value::Null),
            Just(json!(7)),
            Just(json!({"id": "001", "success": true, "errors": []})),
            errors.clone().prop_map(|errors| json!({"success": false, "errors": errors})),
            errors.prop_map(|errors| json!({"errors": errors, "referenceId": "r", "success": false})),
            Just(json!({"referenceId": "r", "id": "001"})),
            any_code().prop_map(|error| json!({"referenceId": "r", "errors": error})),
        ]
    }

    fn any_subrequest() -> impl Strategy<Value = Value> + Clone {
        let error = any_code().prop_map(|error| json!({"errorCode": error["statusCode"], "message": "x"}));
        let body = prop_oneof![
            Just(Value::Null),
            Just(json!("text")),
            prop::collection::vec(error.clone(), 0..3).prop_map(Value::from),
            error,
            prop::collection::vec(any_record(), 0..4).prop_map(Value::from),
            Just(json!({"records": [{"errors": [1]}], "done": true})),
        ];
        (body, prop_oneof![Just(200), Just(204), Just(400), Just(503)], any::<bool>()).prop_map(|(body, status, batch)| {
            if batch {
                json!({"statusCode": status, "result": body})
            } else {
                json!({"body": body, "httpHeaders": {"Location": "x"}, "httpStatusCode": status, "referenceId": "a"})
            }
        })
    }

    fn any_answer() -> impl Strategy<Value = (Family, Value)> {
        let records = prop::collection::vec(any_record(), 0..6);
        let parts = prop::collection::vec(any_subrequest(), 0..6);
        let graph = parts.clone().prop_map(
            |parts| json!({"graphId": "1", "graphResponse": {"compositeResponse": parts}, "isSuccessful": false}),
        );
        prop_oneof![
            records.clone().prop_map(|records| (Family::Collections, Value::from(records))),
            records.prop_map(|records| (Family::Tree, json!({"hasErrors": true, "results": records}))),
            parts.clone().prop_map(|parts| (Family::Composite, json!({"x": [[{}]], "compositeResponse": parts}))),
            parts.prop_map(|parts| (Family::Batch, json!({"hasErrors": true, "results": parts}))),
            prop::collection::vec(graph, 0..3).prop_map(|graphs| (Family::Graph, json!({"graphs": graphs}))),
        ]
    }

    fn cut<'a>(body: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (body.len() + 1)).collect();
        places.extend([0, body.len()]);
        places.sort_unstable();
        places.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
    }

    proptest! {
        #[test]
        fn in_pieces_the_same_is_found_as_in_one(
            (family, answer) in any_answer(), pretty in any::<bool>(), cuts in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let body = if pretty { serde_json::to_string_pretty(&answer) } else { serde_json::to_string(&answer) }.unwrap();
            let found = streamed(family, cut(body.as_bytes(), &cuts));
            prop_assert_eq!(told(found), told(scan(family, body.as_bytes())), "{}", body);
        }

        #[test]
        fn any_bytes_are_survived_and_pieces_do_not_matter(
            family in prop::sample::select(FAMILIES.to_vec()),
            words in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"", "\\", " ", "1", "true", "\"errors\"", "\"body\"", "\"results\"", "\"success\"",
                "false", "\"compositeResponse\"", "\"graphs\"", "\"graphResponse\"", "\"statusCode\"", "\"X\"", "\u{e9}",
            ]), 0..60),
            cuts in prop::collection::vec(any::<usize>(), 0..8),
        ) {
            let body = words.concat();
            let whole = streamed(family, [body.as_bytes()]);
            prop_assert_eq!(&streamed(family, cut(body.as_bytes(), &cuts)), &whole);
            if let Some(found) = whole {
                prop_assert!(found.failed <= found.total && found.list.len() <= found.failed as usize);
            }
        }
    }
}
