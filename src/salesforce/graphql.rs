//! The subqueries of a GraphQL document, each of which Salesforce charges as a call (facts 1.3, 3.8).
//!
//! Only the first three levels are followed, `uiapi`, `query` and the connection fields under it, through aliases and
//! fragments; everything deeper is passed over. Work is bounded: fragments that spread each other end the reading.

use smallvec::SmallVec;

use super::body::{BodyError, Found};
use super::path::is_api_name;
use crate::call::{Family, Idempotency, ObjectName, Operation, Part, Reach};

/// Fragments and inline fragments that may be nested.
const MAX_DEPTH: usize = 32;
/// Bytes that are read, in multiples of the document's; nested and spread selections are read more than once.
const MAX_READS: usize = 16;
/// Definitions in one document.
const MAX_DEFINITIONS: usize = 64;

/// Reads the operation of `document` that `wanted` names, or its only one.
pub(crate) fn subqueries(document: &str, wanted: Option<&str>, found: &mut Found) -> Result<(), BodyError> {
    let definitions = Definitions::read(document)?;
    let operation = match wanted {
        Some(name) => definitions.operations.iter().find(|operation| operation.name == name),
        None if definitions.operations.len() == 1 => definitions.operations.first(),
        None => None,
    }
    .ok_or(BodyError::Graphql)?;
    let mut walk = Walk {
        document,
        fragments: &definitions.fragments,
        budget: document.len().saturating_mul(MAX_READS).saturating_add(1024),
        mutation: operation.mutation,
        found,
    };
    walk.selections(operation.at, Level::Root, 0)?;
    found.weaken(if operation.mutation { Idempotency::Unsafe } else { Idempotency::Safe });
    Ok(())
}

struct Definition<'a> {
    name: &'a str,
    mutation: bool,
    /// Offset of the selection set.
    at: usize,
}

#[derive(Default)]
struct Definitions<'a> {
    operations: SmallVec<[Definition<'a>; 2]>,
    fragments: SmallVec<[(&'a str, usize); 4]>,
}

impl<'a> Definitions<'a> {
    fn read(document: &'a str) -> Result<Self, BodyError> {
        let mut all = Self::default();
        let mut lexer = Lexer { document, at: 0 };
        while let Some(token) = lexer.next()? {
            if all.operations.len() + all.fragments.len() >= MAX_DEFINITIONS {
                return Err(BodyError::Graphql);
            }
            let (name, mutation, fragment) = match token {
                Token::Punctuator(b'{') => {
                    lexer.at -= 1;
                    ("", false, false)
                }
                Token::Name(kind @ ("query" | "mutation" | "fragment")) => {
                    let name = lexer.name_if_next();
                    (name.unwrap_or_default(), kind == "mutation", kind == "fragment")
                }
                _ => return Err(BodyError::Graphql),
            };
            let at = lexer.skip_to_selections()?;
            lexer.skip_balanced()?;
            if !fragment {
                all.operations.push(Definition { name, mutation, at });
            } else if all.fragments.iter().any(|(known, _)| *known == name) {
                return Err(BodyError::Graphql);
            } else {
                all.fragments.push((name, at));
            }
        }
        Ok(all)
    }
}

/// How far below the operation a selection stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Api,
    Query,
}

struct Walk<'a, 'f> {
    document: &'a str,
    fragments: &'f [(&'a str, usize)],
    /// Bytes that may still be read.
    budget: usize,
    mutation: bool,
    found: &'f mut Found,
}

impl<'a> Walk<'a, '_> {
    /// Reads the selection set at `at`; returns the offset behind it.
    fn selections(&mut self, at: usize, level: Level, depth: usize) -> Result<usize, BodyError> {
        if depth > MAX_DEPTH {
            return Err(BodyError::TooDeep);
        }
        let mut lexer = Lexer { document: self.document, at };
        lexer.expect(b'{')?;
        loop {
            let before = lexer.at;
            match lexer.next()?.ok_or(BodyError::Graphql)? {
                Token::Punctuator(b'}') => return Ok(lexer.at),
                Token::Spread => self.spread(&mut lexer, level, depth)?,
                Token::Name(name) => self.field(&mut lexer, name, level, depth)?,
                _ => return Err(BodyError::Graphql),
            }
            self.budget = self.budget.checked_sub(lexer.at - before).ok_or(BodyError::TooDeep)?;
        }
    }

    fn spread(&mut self, lexer: &mut Lexer<'a>, level: Level, depth: usize) -> Result<(), BodyError> {
        let named = match lexer.name_if_next() {
            Some("on") => {
                lexer.name_if_next().ok_or(BodyError::Graphql)?;
                None
            }
            other => other,
        };
        lexer.directives()?;
        if let Some(name) = named {
            let at = self.fragments.iter().find(|(known, _)| *known == name).ok_or(BodyError::Graphql)?.1;
            self.selections(at, level, depth + 1)?;
        } else {
            lexer.at = self.selections(lexer.at, level, depth + 1)?;
        }
        Ok(())
    }

    fn field(&mut self, lexer: &mut Lexer<'a>, first: &'a str, level: Level, depth: usize) -> Result<(), BodyError> {
        let mut name = first;
        if lexer.peek()? == Some(Token::Punctuator(b':')) {
            lexer.next()?;
            name = lexer.name_if_next().ok_or(BodyError::Graphql)?;
        }
        if lexer.peek()? == Some(Token::Punctuator(b'(')) {
            lexer.skip_balanced()?;
        }
        lexer.directives()?;
        let below = match (level, name) {
            (Level::Root, "uiapi") => Some(Level::Api),
            (Level::Api, "query" | "aggregate") if !self.mutation => Some(Level::Query),
            _ => None,
        };
        match (level, name) {
            (_, "__typename") => {}
            (Level::Query, _) => self.subquery(Operation::Query, name),
            (Level::Api, _) if self.mutation => {
                let (operation, object) = mutation(name);
                self.subquery(operation, object);
            }
            (Level::Root, name) if name.starts_with("__") => {}
            (Level::Root | Level::Api, _) if below.is_none() => self.found.parts.push(part(Operation::Read, None)),
            _ => {}
        }
        if lexer.peek()? == Some(Token::Punctuator(b'{')) {
            match below {
                Some(below) => lexer.at = self.selections(lexer.at, below, depth)?,
                None => lexer.skip_balanced()?,
            }
        }
        Ok(())
    }

    fn subquery(&mut self, operation: Operation, object: &str) {
        self.found.cost = self.found.cost.saturating_add(1);
        self.found.parts.push(part(operation, is_api_name(object).then(|| ObjectName::new(object))));
    }
}

/// A field may lead through any relationship, so a name is never all that is read.
fn part(operation: Operation, object: Option<ObjectName>) -> Part {
    let reach = if object.is_some() { Reach::Related } else { Reach::Unknown };
    Part { family: Family::Graphql, operation, object, reach }
}

/// `AccountCreate` as the operation and its object.
fn mutation(field: &str) -> (Operation, &str) {
    [("Create", Operation::Create), ("Update", Operation::Update), ("Delete", Operation::Delete)]
        .into_iter()
        .find_map(|(end, operation)| field.strip_suffix(end).map(|object| (operation, object)))
        .unwrap_or((Operation::Execute, ""))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token<'a> {
    Name(&'a str),
    Punctuator(u8),
    /// `...`
    Spread,
    /// A number or string.
    Value,
}

#[derive(Clone, Copy)]
struct Lexer<'a> {
    document: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a [u8] {
        self.document.as_bytes().get(self.at..).unwrap_or_default()
    }

    fn next(&mut self) -> Result<Option<Token<'a>>, BodyError> {
        loop {
            let rest = self.rest();
            let Some(&first) = rest.first() else { return Ok(None) };
            match first {
                b' ' | b'\t' | b'\r' | b'\n' | b',' => self.at += 1,
                0xef if rest.starts_with(b"\xef\xbb\xbf") => self.at += 3,
                b'#' => self.at += rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(rest.len()),
                b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                    let end = self.at + run(rest, |byte| byte.is_ascii_alphanumeric() || byte == b'_');
                    let name = self.document.get(self.at..end).unwrap_or_default();
                    self.at = end;
                    return Ok(Some(Token::Name(name)));
                }
                b'-' | b'0'..=b'9' => {
                    self.at += 1 + run(rest.get(1..).unwrap_or_default(), |byte| {
                        byte.is_ascii_alphanumeric() || b".+-".contains(&byte)
                    });
                    return Ok(Some(Token::Value));
                }
                b'"' => {
                    self.at += string_length(rest)?;
                    return Ok(Some(Token::Value));
                }
                b'.' if rest.starts_with(b"...") => {
                    self.at += 3;
                    return Ok(Some(Token::Spread));
                }
                b'!' | b'$' | b'&' | b'(' | b')' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|' | b'}' => {
                    self.at += 1;
                    return Ok(Some(Token::Punctuator(first)));
                }
                _ => return Err(BodyError::Graphql),
            }
        }
    }

    fn peek(&self) -> Result<Option<Token<'a>>, BodyError> {
        let mut ahead = *self;
        ahead.next()
    }

    fn name_if_next(&mut self) -> Option<&'a str> {
        match self.peek() {
            Ok(Some(Token::Name(name))) => {
                self.next().ok()?;
                Some(name)
            }
            _ => None,
        }
    }

    fn expect(&mut self, wanted: u8) -> Result<(), BodyError> {
        if self.next()? == Some(Token::Punctuator(wanted)) { Ok(()) } else { Err(BodyError::Graphql) }
    }

    /// Passes over variables, type conditions and directives; returns the offset of the `{` behind them.
    fn skip_to_selections(&mut self) -> Result<usize, BodyError> {
        loop {
            match self.peek()?.ok_or(BodyError::Graphql)? {
                Token::Punctuator(b'{') => return Ok(self.at),
                Token::Punctuator(b'(') => self.skip_balanced()?,
                Token::Name(_) | Token::Punctuator(b'@') => {
                    self.next()?;
                }
                _ => return Err(BodyError::Graphql),
            }
        }
    }

    fn directives(&mut self) -> Result<(), BodyError> {
        while self.peek()? == Some(Token::Punctuator(b'@')) {
            self.next()?;
            self.name_if_next().ok_or(BodyError::Graphql)?;
            if self.peek()? == Some(Token::Punctuator(b'(')) {
                self.skip_balanced()?;
            }
        }
        Ok(())
    }

    /// Passes over one bracketed group, whatever is nested in it.
    fn skip_balanced(&mut self) -> Result<(), BodyError> {
        let mut closers: SmallVec<[u8; 32]> = SmallVec::new();
        loop {
            match self.next()?.ok_or(BodyError::Graphql)? {
                Token::Punctuator(b'{') => closers.push(b'}'),
                Token::Punctuator(b'(') => closers.push(b')'),
                Token::Punctuator(b'[') => closers.push(b']'),
                Token::Punctuator(close @ (b'}' | b')' | b']')) => {
                    let expected = closers.pop();
                    if expected != Some(close) {
                        return Err(BodyError::Graphql);
                    }
                }
                _ => {}
            }
            if closers.is_empty() {
                return Ok(());
            }
        }
    }
}

fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| !belongs(*byte)).unwrap_or(bytes.len())
}

/// Length of the string at the start of `bytes`: `"..."` on one line, or `"""..."""`.
fn string_length(bytes: &[u8]) -> Result<usize, BodyError> {
    if let Some(block) = bytes.strip_prefix(b"\"\"\"") {
        let mut at = 0;
        loop {
            let rest = block.get(at..).unwrap_or_default();
            let end = memchr::memmem::find(rest, b"\"\"\"").ok_or(BodyError::Graphql)?;
            // `\"""` inside a block string does not end it.
            let escaped = end.checked_sub(1).and_then(|before| rest.get(before)) == Some(&b'\\');
            at += end + 3;
            if !escaped {
                return Ok(at + 3);
            }
        }
    }
    let mut at = 1;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let offset = memchr::memchr3(b'"', b'\\', b'\n', rest).ok_or(BodyError::Graphql)?;
        match rest.get(offset) {
            Some(b'"') => return Ok(at + offset + 1),
            Some(b'\\') => at += offset + 2,
            _ => return Err(BodyError::Graphql),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(document: &str) -> Result<(u32, Vec<String>), BodyError> {
        let mut found = Found::default();
        subqueries(document, None, &mut found)?;
        let objects = found.parts.iter().map(|part| part.object.clone().unwrap_or_default().to_string()).collect();
        Ok((found.cost, objects))
    }

    #[test]
    fn connection_fields_are_counted() {
        let table: &[(&str, u32, &[&str])] = &[
            ("{uiapi{query{Account{edges{node{Id}}}}}}", 1, &["Account"]),
            (
                "query q($n: Int = 3) @d(a: {b: [1]}) { uiapi { query { a: Account(first: $n, where: {Name: {eq: \"}\"}}) @include(if: true) { edges { node { Id Owner { Name { value } } } } } Contact { totalCount } __typename } } }",
                2,
                &["Account", "Contact"],
            ),
            ("{uiapi{query{a:Account{x} b:Account{x}}}}", 2, &["Account", "Account"]),
            (
                "{uiapi{query{...f ... on Q {Case{x}} ... @skip(if: false) {Lead{x}}}}} fragment f on Q { My__c{x} }",
                3,
                &["My__c", "Case", "Lead"],
            ),
            (
                "{uiapi{...a}} fragment a on U{query{...b}} fragment b on Q{Account{x} Contact{x}}",
                2,
                &["Account", "Contact"],
            ),
            ("{uiapi{aggregate{Account{edges{node{aggregate{Id{count}}}}}}}}", 1, &["Account"]),
            ("{uiapi{objectInfos(apiNames:[\"Account\"]){ApiName}}}", 0, &[""]),
            ("{__schema{types{name}}}", 0, &[]),
            ("# {uiapi\n{uiapi{query{Account(x:\"\"\"a\\\"\"\"{b\"\"\"){x}}}}", 1, &["Account"]),
            (
                "mutation{uiapi{AccountCreate(input:{}){Record{Id}} My__cDelete(input:{}){Id}}}",
                2,
                &["Account", "My__c"],
            ),
        ];
        for (document, cost, objects) in table {
            let objects = objects.iter().map(ToString::to_string).collect();
            assert_eq!(count(document), Ok((*cost, objects)), "{document}");
        }
    }

    #[test]
    fn an_operation_is_chosen_by_its_name() {
        let document = "query a{uiapi{query{Account{x}}}} query b{uiapi{query{Case{x} Lead{x}}}}";
        let mut found = Found::default();
        subqueries(document, Some("b"), &mut found).unwrap();
        assert_eq!(found.cost, 2);
        assert_eq!(count(document), Err(BodyError::Graphql));
        assert_eq!(subqueries(document, Some("c"), &mut found), Err(BodyError::Graphql));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for document in [
            "",
            "{",
            "}",
            "{uiapi{query{Account}",
            "{uiapi{query{...missing}}}",
            "{uiapi{query{Account(x:\"}}}}",
            "subscription{x}",
            "{uiapi{query{...f}}} fragment f on Q{A{x}} fragment f on Q{B{x}}",
            "{a:}",
            "{a)}",
            "é",
        ] {
            assert_eq!(count(document), Err(BodyError::Graphql), "{document}");
        }
        assert_eq!(count("{uiapi{query{...f}}} fragment f on Q{...f}"), Err(BodyError::TooDeep));
    }

    #[test]
    fn fragments_that_multiply_are_cut_off() {
        use std::fmt::Write as _;
        let mut document = String::from("{uiapi{query{...f0}}}");
        for at in 0..25 {
            let _ = write!(document, " fragment f{at} on Q{{...f{n} ...f{n}}}", n = at + 1);
        }
        document.push_str(" fragment f25 on Q{Account{x}}");
        assert_eq!(count(&document), Err(BodyError::TooDeep));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = count(&text);
        }

        /// Each further connection field costs one call more.
        #[test]
        fn cost_grows_with_fields(fields in 0u32..30) {
            let body = (0..fields).map(|at| format!("a{at}: Account{{x}}")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(count(&format!("{{uiapi{{query{{{body}}}}}}}")).unwrap().0, fields);
        }
    }
}
