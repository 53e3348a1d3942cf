//! The objects that a SOQL query names.
//!
//! A scanner, not a parser: it follows strings, parentheses and clauses just far enough to tell the FROM object from child
//! relationships and semi-joins (facts 7.2). Whatever it does not recognise ends in a [`QueryDoubt`], never in a guess.

use smallvec::SmallVec;

use super::path::is_api_name;
use crate::call::ObjectName;

/// Nesting of parentheses that is followed.
const MAX_DEPTH: usize = 32;
/// Different names that are remembered of each kind.
const MAX_NAMES: usize = 64;

/// Names of one kind, each once.
pub type Names = SmallVec<[ObjectName; 2]>;

/// What a query reads, as far as its text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryObjects {
    /// The object of the outermost FROM.
    pub from: ObjectName,
    /// The objects of `IN (SELECT ... FROM object)`.
    pub semi_joins: Names,
    /// Relationship names that lead to other objects: child subqueries, parent paths, TYPEOF.
    pub relationships: Names,
}

/// Why the objects of a query cannot be told from its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryDoubt {
    /// It does not begin with SELECT.
    #[error("the text does not begin with SELECT")]
    NotAQuery,
    /// A string or parenthesis does not end.
    #[error("a string or parenthesis does not end")]
    Unbalanced,
    /// Parentheses are nested too deeply, or too many names are used.
    #[error("the query is nested too deeply or names too much")]
    TooMuch,
    /// A character that SOQL has no use for outside strings.
    #[error("a character that SOQL does not know")]
    Character,
    /// A clause where it cannot stand, or none where one must.
    #[error("a clause is missing or misplaced")]
    Clause,
    /// A composite reference that may become any text.
    #[error("a reference may become any text")]
    Reference,
}

/// Finds the objects that `soql` names.
pub fn objects(soql: &str) -> Result<QueryObjects, QueryDoubt> {
    let mut lexer = Lexer::new(soql);
    match lexer.next()? {
        Some(Token::Word(word)) if word.eq_ignore_ascii_case("select") => {}
        _ => return Err(QueryDoubt::NotAQuery),
    }
    let mut scan = Scan::default();
    scan.levels.push(Level::query(Role::Outer, 0));
    let mut opened = false;
    while let Some(token) = lexer.next()? {
        match token {
            Token::Open => scan.open()?,
            Token::Close => scan.close()?,
            Token::Comma => scan.comma(),
            Token::Word(word) => scan.word(word, opened)?,
            Token::Other => {}
        }
        opened = token == Token::Open;
    }
    scan.finish()
}

/// A piece of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// An identifier, with the dots of a path.
    Word(&'a str),
    Open,
    Close,
    Comma,
    /// A string, number, date or operator.
    Other,
}

/// Cuts a query into pieces.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Where the last piece ended.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next piece.
    pub(super) fn next(&mut self) -> Result<Option<Token<'a>>, QueryDoubt> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        let spaces = run(rest, Class::Space as u8);
        self.at += spaces;
        let rest = rest.get(spaces..).unwrap_or_default();
        let Some(&first) = rest.first() else { return Ok(None) };
        let class = class_of(first);
        let (token, length) = if class & Class::WordStart as u8 != 0 {
            let length = run(rest, Class::Word as u8);
            let word = self.text.get(self.at..self.at + length).unwrap_or_default();
            if word.ends_with('.') || word.contains("..") {
                return Err(QueryDoubt::Character);
            }
            (Token::Word(word), length)
        } else if class & Class::Operator as u8 != 0 {
            (Token::Other, 1)
        } else if first == b'\'' {
            (Token::Other, string_length(rest)?)
        } else if first.is_ascii_digit() {
            // Numbers, dates and times; a sign or zone belongs to them. A sign in front is an operator of its own.
            (Token::Other, run(rest, Class::Number as u8))
        } else {
            let token = match first {
                b'(' => Token::Open,
                b')' => Token::Close,
                b',' => Token::Comma,
                _ => return Err(QueryDoubt::Character),
            };
            (token, 1)
        };
        self.at += length;
        Ok(Some(token))
    }
}

/// What a byte may be part of, as bits.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Class {
    Space = 1,
    WordStart = 2,
    /// In an identifier or a path of them.
    Word = 4,
    /// In a number, date or time.
    Number = 8,
    Operator = 16,
}

static CLASSES: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0u8;
    loop {
        let class = match byte {
            b' ' | b'\t' | b'\r' | b'\n' => Class::Space as u8,
            b'A'..=b'Z' | b'a'..=b'z' => Class::WordStart as u8 | Class::Word as u8 | Class::Number as u8,
            b'_' => Class::WordStart as u8 | Class::Word as u8,
            b'0'..=b'9' | b'.' => Class::Word as u8 | Class::Number as u8,
            b':' | b'+' | b'-' => Class::Number as u8 | Class::Operator as u8,
            b'=' | b'<' | b'>' | b'!' | b'%' => Class::Operator as u8,
            _ => 0,
        };
        table[byte as usize] = class;
        if byte == u8::MAX {
            return table;
        }
        byte += 1;
    }
}

fn class_of(byte: u8) -> u8 {
    CLASSES.get(usize::from(byte)).copied().unwrap_or_default()
}

/// How many bytes at the front are of a class.
fn run(bytes: &[u8], class: u8) -> usize {
    bytes.iter().position(|byte| class_of(*byte) & class == 0).unwrap_or(bytes.len())
}

/// Length of the quoted string at the start of `bytes`, quotes included.
fn string_length(bytes: &[u8]) -> Result<usize, QueryDoubt> {
    let mut escaped = false;
    let mut references = false;
    for (at, byte) in bytes.iter().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\'' => {
                if references {
                    references_are_ids(bytes.get(..at).unwrap_or_default())?;
                }
                return Ok(at + 1);
            }
            b'\\' => escaped = true,
            b'@' => references = true,
            _ => {}
        }
    }
    Err(QueryDoubt::Unbalanced)
}

/// A reference of a composite request (`@{ref.field}`) is put into the text before Salesforce parses it: only ids
/// cannot close the string they stand in.
fn references_are_ids(mut text: &[u8]) -> Result<(), QueryDoubt> {
    while let Some(start) = memchr::memmem::find(text, b"@{") {
        text = text.get(start + 2..).unwrap_or_default();
        let end = memchr::memchr(b'}', text).ok_or(QueryDoubt::Reference)?;
        let (reference, rest) = text.split_at(end);
        let tail = reference.len().checked_sub(3).and_then(|at| reference.get(at..)).unwrap_or_default();
        if !tail.eq_ignore_ascii_case(b".id") {
            return Err(QueryDoubt::Reference);
        }
        text = rest;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Outer,
    Child,
    SemiJoin,
    /// Parentheses of a function, list or condition.
    Plain,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Select,
    /// After FROM, or after a comma behind it.
    Name,
    /// After a name of FROM, where its alias may stand.
    Alias,
    /// In the clauses after FROM.
    Clauses,
}

#[derive(Debug)]
struct Level<'a> {
    role: Role,
    place: Place,
    from: Option<&'a str>,
    aliases: SmallVec<[&'a str; 2]>,
    /// Where this query's paths begin in [`Scan::paths`].
    paths_at: usize,
    /// The next word is the field of a TYPEOF.
    typeof_next: bool,
}

impl Level<'_> {
    fn query(role: Role, paths_at: usize) -> Self {
        Self { role, place: Place::Select, from: None, aliases: SmallVec::new(), paths_at, typeof_next: false }
    }
}

#[derive(Debug, Default)]
struct Scan<'a> {
    levels: SmallVec<[Level<'a>; 4]>,
    /// Paths seen whose first segment may still prove to be an alias.
    paths: SmallVec<[&'a str; 8]>,
    semi_joins: Names,
    relationships: Names,
}

impl<'a> Scan<'a> {
    /// The innermost query, whatever parentheses stand inside it.
    fn query(&mut self) -> Result<&mut Level<'a>, QueryDoubt> {
        self.levels.iter_mut().rev().find(|level| level.role != Role::Plain).ok_or(QueryDoubt::Unbalanced)
    }

    fn open(&mut self) -> Result<(), QueryDoubt> {
        if self.levels.len() >= MAX_DEPTH {
            return Err(QueryDoubt::TooMuch);
        }
        if matches!(self.query()?.place, Place::Name) {
            return Err(QueryDoubt::Clause);
        }
        self.levels.push(Level::query(Role::Plain, self.paths.len()));
        Ok(())
    }

    fn close(&mut self) -> Result<(), QueryDoubt> {
        let level = self.levels.pop().ok_or(QueryDoubt::Unbalanced)?;
        if self.levels.is_empty() {
            return Err(QueryDoubt::Unbalanced);
        }
        if level.role != Role::Plain {
            self.end_query(&level)?;
        }
        Ok(())
    }

    fn comma(&mut self) {
        if let Some(level) = self.levels.last_mut()
            && level.role != Role::Plain
            && level.place == Place::Alias
        {
            level.place = Place::Name;
        }
    }

    /// One word; `opened` says that a parenthesis stands right before it.
    fn word(&mut self, word: &'a str, opened: bool) -> Result<(), QueryDoubt> {
        let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
        let innermost = self.levels.last().ok_or(QueryDoubt::Unbalanced)?.role;
        if is("select") {
            if !opened || innermost != Role::Plain {
                return Err(QueryDoubt::Clause);
            }
            let role = match self.query()?.place {
                Place::Select => Role::Child,
                Place::Clauses => Role::SemiJoin,
                Place::Name | Place::Alias => return Err(QueryDoubt::Clause),
            };
            let paths_at = self.paths.len();
            if let Some(level) = self.levels.last_mut() {
                *level = Level::query(role, paths_at);
            }
            return Ok(());
        }
        if innermost == Role::Plain {
            if is("from") {
                return Err(QueryDoubt::Clause);
            }
            self.note_path(word);
            return Ok(());
        }
        let Some(level) = self.levels.last_mut() else { return Err(QueryDoubt::Unbalanced) };
        match level.place {
            Place::Select if is("from") => level.place = Place::Name,
            Place::Select if level.typeof_next => {
                level.typeof_next = false;
                self.relate(word)?;
            }
            Place::Select if is("typeof") => level.typeof_next = true,
            Place::Name if level.from.is_none() => {
                level.from = Some(word);
                level.place = Place::Alias;
            }
            Place::Name => {
                // The old comma form: `FROM Contact c, c.Account a`.
                level.place = Place::Alias;
                if !word.contains('.') {
                    return Err(QueryDoubt::Clause);
                }
                self.relate(word)?;
            }
            Place::Alias | Place::Clauses if is("from") => return Err(QueryDoubt::Clause),
            Place::Alias if CLAUSES.iter().any(|clause| is(clause)) => level.place = Place::Clauses,
            Place::Alias if is("as") => {}
            Place::Alias => {
                if level.aliases.len() >= MAX_NAMES {
                    return Err(QueryDoubt::TooMuch);
                }
                level.aliases.push(word);
            }
            Place::Select | Place::Clauses => self.note_path(word),
        }
        Ok(())
    }

    fn note_path(&mut self, word: &'a str) {
        if word.contains('.') && self.paths.last() != Some(&word) {
            self.paths.push(word);
        }
    }

    fn end_query(&mut self, level: &Level<'a>) -> Result<(), QueryDoubt> {
        if level.place == Place::Select || level.place == Place::Name {
            return Err(QueryDoubt::Clause);
        }
        let from = level.from.ok_or(QueryDoubt::Clause)?;
        let paths: SmallVec<[&'a str; 8]> = self.paths.drain(level.paths_at.min(self.paths.len())..).collect();
        for path in paths {
            let Some((relationships, _field)) = path.rsplit_once('.') else { continue };
            let own = |name: &&str| {
                name.eq_ignore_ascii_case(from) || level.aliases.iter().any(|alias| alias.eq_ignore_ascii_case(name))
            };
            let (first, more) = relationships.split_once('.').unwrap_or((relationships, ""));
            match (own(&first), more.is_empty()) {
                (true, true) => {}
                (true, false) => self.relate(more)?,
                (false, _) => self.relate(relationships)?,
            }
        }
        match level.role {
            Role::Child => self.relate(from)?,
            Role::SemiJoin if is_api_name(from) => remember(&mut self.semi_joins, from)?,
            Role::SemiJoin => return Err(QueryDoubt::Clause),
            Role::Outer | Role::Plain => {}
        }
        Ok(())
    }

    fn relate(&mut self, name: &str) -> Result<(), QueryDoubt> {
        remember(&mut self.relationships, name)
    }

    fn finish(mut self) -> Result<QueryObjects, QueryDoubt> {
        let outer = self.levels.pop().ok_or(QueryDoubt::Unbalanced)?;
        if outer.role != Role::Outer {
            return Err(QueryDoubt::Unbalanced);
        }
        self.end_query(&outer)?;
        let from = outer.from.filter(|name| is_api_name(name)).ok_or(QueryDoubt::Clause)?;
        Ok(QueryObjects { from: ObjectName::new(from), semi_joins: self.semi_joins, relationships: self.relationships })
    }
}

/// Words that end the alias of FROM.
const CLAUSES: &[&str] =
    &["where", "using", "with", "group", "having", "order", "limit", "offset", "for", "update", "all"];

fn remember(names: &mut Names, name: &str) -> Result<(), QueryDoubt> {
    if names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    if names.len() >= MAX_NAMES {
        return Err(QueryDoubt::TooMuch);
    }
    names.push(ObjectName::new(name));
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// FROM object, semi-joins and relationships, joined for a table.
    fn read(soql: &str) -> String {
        let found = objects(soql).unwrap();
        format!("{}|{}|{}", found.from, found.semi_joins.join(","), found.relationships.join(","))
    }

    #[test]
    fn the_objects_of_queries() {
        let table = [
            ("SELECT Id FROM Account", "Account||"),
            ("select id from account where name = 'x from Lead'", "account||"),
            (r"SELECT Id FROM Lead WHERE Name = 'O\'Neil (SELECT Id FROM Case)' LIMIT 1", "Lead||"),
            ("SELECT COUNT() FROM Group", "Group||"),
            ("SELECT Id FROM Order ORDER BY CreatedDate DESC NULLS LAST", "Order||"),
            ("SELECT a.Name, a.Owner.Name FROM Account a", "Account||Owner"),
            ("SELECT Account.Name FROM Account", "Account||"),
            ("SELECT Owner.Profile.Name FROM Account", "Account||Owner.Profile"),
            (
                "SELECT Id, (SELECT Id, Owner.Name FROM Contacts WHERE Email != null) FROM Account",
                "Account||Owner,Contacts",
            ),
            ("SELECT Id, (SELECT Id FROM a.Contacts c) FROM Account a", "Account||a.Contacts"),
            ("SELECT Id FROM Account WHERE Id IN (SELECT AccountId FROM Contact)", "Account|Contact|"),
            (
                "SELECT Id FROM Account WHERE (NOT Id NOT IN (SELECT AccountId FROM Contact)) AND Id IN (SELECT AccountId FROM Case)",
                "Account|Contact,Case|",
            ),
            (
                "SELECT Id, (SELECT Id FROM Contacts WHERE Id IN (SELECT ContactId FROM Secret__c)) FROM Account",
                "Account|Secret__c|Contacts",
            ),
            ("SELECT TYPEOF What WHEN Account THEN Phone ELSE Name END FROM Event", "Event||What"),
            ("SELECT count(c.Id) FROM Contact c, c.Account a WHERE a.Name = 'x'", "Contact||c.Account"),
            ("SELECT FIELDS(ALL) FROM Account USING SCOPE mine LIMIT 200", "Account||"),
            (
                "SELECT Id FROM Account WHERE CreatedDate > 2024-01-01T00:00:00+01:00 AND X__c = LAST_N_DAYS:5",
                "Account||",
            ),
            ("SELECT Id FROM A__c WHERE DISTANCE(L__c, GEOLOCATION(37.7,-122.4), 'mi') < 20", "A__c||"),
            ("SELECT MAX(Amount) m FROM Opportunity GROUP BY ROLLUP(StageName) HAVING COUNT(Id) > 1", "Opportunity||"),
            ("SELECT Id FROM Contact WHERE AccountId = '@{new.id}'", "Contact||"),
            ("SELECT Id FROM Contact AS c FOR VIEW", "Contact||"),
        ];
        for (soql, expected) in table {
            assert_eq!(read(soql), expected, "{soql}");
        }
    }

    #[test]
    fn what_is_not_understood_is_in_doubt() {
        use QueryDoubt::{Character, Clause, NotAQuery, Reference, TooMuch, Unbalanced};
        let deep = format!("SELECT Id FROM A WHERE {}", "(".repeat(40));
        let table = [
            ("", NotAQuery),
            ("FIND {x}", NotAQuery),
            ("SELECT Id", Clause),
            ("SELECT Id FROM", Clause),
            ("SELECT Id FROM Account FROM Contact", Clause),
            ("SELECT Id FROM Account, Contact", Clause),
            ("SELECT Id FROM Account WHERE SELECT Id FROM Contact", Clause),
            ("SELECT f(FROM Contact) FROM Account", Clause),
            ("SELECT Id FROM Account.Contacts", Clause),
            ("SELECT Id FROM (SELECT Id FROM Contact)", Clause),
            ("SELECT Id FROM Account WHERE Id IN (SELECT Id FROM a.b)", Clause),
            ("SELECT Id FROM Account WHERE Name = 'x", Unbalanced),
            (r"SELECT Id FROM Account WHERE Name = 'x\", Unbalanced),
            ("SELECT (Id FROM Account", Clause),
            ("SELECT Id FROM Account)", Unbalanced),
            ("SELECT Id FROM Account WHERE (Id = null", Unbalanced),
            ("SELECT Id /* FROM Lead */ FROM Account", Character),
            ("SELECT \"FROM Lead\" FROM Account", Character),
            ("SELECT Owner. Name FROM Account", Character),
            ("SELECT Owner .Name FROM Account", Character),
            ("SELECT Id FROM Accoünt", Character),
            ("SELECT Id FROM @{x.name}", Character),
            ("SELECT Id FROM Account WHERE Name = '@{x.Name}'", Reference),
            ("SELECT Id FROM Account WHERE Name = '@{x.id", Unbalanced),
            (deep.as_str(), TooMuch),
        ];
        for (soql, expected) in table {
            assert_eq!(objects(soql), Err(expected), "{soql}");
        }
    }

    #[test]
    fn too_many_names_are_in_doubt() {
        use std::fmt::Write as _;
        let mut soql = String::from("SELECT Id");
        for at in 0..70 {
            let _ = write!(soql, ", R{at}__r.Name");
        }
        soql.push_str(" FROM Account");
        assert_eq!(objects(&soql), Err(QueryDoubt::TooMuch));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in ".{0,200}") {
            let _ = objects(&text);
        }

        #[test]
        fn query_like_text_is_survived(words in proptest::collection::vec(
            proptest::sample::select(vec!["SELECT", "FROM", "(", ")", ",", "a.b", "Account", "IN", "WHERE", "'x'", "'", "\\", "TYPEOF"]), 0..40)) {
            let _ = objects(&words.join(" "));
        }

        /// A string literal can hold anything and changes nothing.
        #[test]
        fn literals_change_nothing(literal in "[^'\\\\@]{0,60}") {
            let with = format!("SELECT Id, (SELECT Id FROM Contacts) FROM Account WHERE Name = '{literal}' AND Id IN (SELECT X FROM Case)");
            prop_assert_eq!(read(&with), "Account|Case|Contacts");
        }
    }
}
