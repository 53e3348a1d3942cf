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

/// What a query reads, by the ways it takes: enough to follow them, where it is known where they lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reads {
    /// The query itself, its child subqueries and its semi-joins; each stands after the one it is in.
    pub scopes: Vec<Scope>,
}

/// One SELECT of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The place of the scope this one is a child subquery of; `None` for one that begins at an object.
    pub within: Option<usize>,
    /// An object's name, or that of the way from the outer scope to its children.
    pub from: ObjectName,
    /// Ways to parents that are taken from there, as in `Owner.Profile`.
    pub paths: Names,
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
    scan(soql)?.finish()
}

/// Finds the ways that `soql` takes between objects.
pub fn reads(soql: &str) -> Result<Reads, QueryDoubt> {
    scan(soql)?.ways()
}

fn scan(soql: &str) -> Result<Scan<'_>, QueryDoubt> {
    let mut lexer = Lexer::new(soql);
    match lexer.next()? {
        Some(Token::Word(word)) if word.eq_ignore_ascii_case("select") => {}
        _ => return Err(QueryDoubt::NotAQuery),
    }
    let mut scan = Scan::default();
    let outer = scan.enter(Role::Outer, 0)?;
    scan.levels.push(outer);
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
    scan.close_outer()?;
    Ok(scan)
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
    /// Between TYPEOF and its END.
    in_typeof: bool,
    /// Its place in [`Scan::scopes`].
    scope: usize,
}

impl Level<'_> {
    fn query(role: Role, paths_at: usize, scope: usize) -> Self {
        let (typeof_next, in_typeof) = (false, false);
        Self {
            role,
            place: Place::Select,
            from: None,
            aliases: SmallVec::new(),
            paths_at,
            typeof_next,
            in_typeof,
            scope,
        }
    }
}

#[derive(Debug, Default)]
struct Scan<'a> {
    levels: SmallVec<[Level<'a>; 4]>,
    /// Paths seen whose first segment may still prove to be an alias.
    paths: SmallVec<[&'a str; 8]>,
    semi_joins: Names,
    relationships: Names,
    /// All queries, in the order in which they begin.
    scopes: SmallVec<[Part<'a>; 2]>,
    /// Some way is taken in a form that is not followed.
    tangled: bool,
}

/// One query, for [`Reads`].
#[derive(Debug)]
struct Part<'a> {
    role: Role,
    within: usize,
    from: &'a str,
    aliases: SmallVec<[&'a str; 2]>,
    ways: SmallVec<[&'a str; 2]>,
}

impl<'a> Scan<'a> {
    /// Begins a query inside of the innermost one.
    fn enter(&mut self, role: Role, paths_at: usize) -> Result<Level<'a>, QueryDoubt> {
        let scope = self.scopes.len();
        if scope >= MAX_NAMES {
            return Err(QueryDoubt::TooMuch);
        }
        let within = self.query().map_or(0, |level| level.scope);
        self.scopes.push(Part { role, within, from: "", aliases: SmallVec::new(), ways: SmallVec::new() });
        Ok(Level::query(role, paths_at, scope))
    }

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
        self.levels.push(Level::query(Role::Plain, self.paths.len(), 0));
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
            let query = self.enter(role, self.paths.len())?;
            if let Some(level) = self.levels.last_mut() {
                *level = query;
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
                let scope = level.scope;
                self.take(scope, word)?;
                self.relate(word)?;
            }
            Place::Select if is("typeof") => (level.typeof_next, level.in_typeof) = (true, true),
            Place::Select if level.in_typeof => {
                level.in_typeof = !is("end");
                // A way from one of the objects it may be.
                self.tangled |= word.contains('.');
                self.note_path(word);
            }
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
                self.tangled = true;
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
        // The same way from another query leads elsewhere.
        let since = self.query().map_or(0, |level| level.paths_at);
        let last = self.paths.get(since..).and_then(<[&str]>::last);
        if word.contains('.') && last != Some(&word) {
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
            let way = match (own(&first), more.is_empty()) {
                (true, true) => continue,
                (true, false) => more,
                (false, _) => relationships,
            };
            self.take(level.scope, way)?;
            self.relate(way)?;
        }
        if let Some(part) = self.scopes.get_mut(level.scope) {
            part.from = from;
            part.aliases.clone_from(&level.aliases);
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

    /// Remembers a way that the query at `scope` takes.
    fn take(&mut self, scope: usize, way: &'a str) -> Result<(), QueryDoubt> {
        let Some(part) = self.scopes.get_mut(scope) else { return Ok(()) };
        if !part.ways.iter().any(|known| known.eq_ignore_ascii_case(way)) {
            if part.ways.len() >= MAX_NAMES {
                return Err(QueryDoubt::TooMuch);
            }
            part.ways.push(way);
        }
        Ok(())
    }

    fn close_outer(&mut self) -> Result<(), QueryDoubt> {
        let outer = self.levels.pop().ok_or(QueryDoubt::Unbalanced)?;
        if outer.role != Role::Outer {
            return Err(QueryDoubt::Unbalanced);
        }
        self.end_query(&outer)
    }

    fn finish(self) -> Result<QueryObjects, QueryDoubt> {
        let from = self.scopes.first().map(|outer| outer.from).filter(|name| is_api_name(name));
        let from = ObjectName::new(from.ok_or(QueryDoubt::Clause)?);
        Ok(QueryObjects { from, semi_joins: self.semi_joins, relationships: self.relationships })
    }

    fn ways(self) -> Result<Reads, QueryDoubt> {
        if self.tangled {
            return Err(QueryDoubt::Clause);
        }
        let mut scopes = Vec::with_capacity(self.scopes.len());
        for part in &self.scopes {
            let (within, from) = match (part.role, part.from.split_once('.')) {
                (Role::Child, None) => (Some(part.within), part.from),
                (Role::Child, Some((first, way))) => {
                    // `FROM a.Contacts`: the outer query, by its name or alias.
                    let outer = self.scopes.get(part.within).ok_or(QueryDoubt::Clause)?;
                    let named = |name: &&str| name.eq_ignore_ascii_case(first);
                    if !named(&outer.from) && !outer.aliases.iter().any(named) {
                        return Err(QueryDoubt::Clause);
                    }
                    (Some(part.within), way)
                }
                _ => (None, part.from),
            };
            if !is_api_name(from) {
                return Err(QueryDoubt::Clause);
            }
            let paths = part.ways.iter().map(ObjectName::new).collect();
            scopes.push(Scope { within, from: ObjectName::new(from), paths });
        }
        Ok(Reads { scopes })
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
