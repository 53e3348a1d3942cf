//! Tokens to a statement.

use super::lex::{Token, lex};
use crate::sim::errors::ApiError;

/// A SELECT statement.
#[derive(Debug, Clone, Default)]
pub(in crate::sim) struct Query {
    pub(super) select: Vec<Item>,
    /// Object, or child relationship for a subquery.
    pub(in crate::sim) from: String,
    pub(super) alias: Option<String>,
    pub(super) mine: bool,
    pub(super) filter: Option<Expr>,
    pub(super) group: Vec<String>,
    pub(super) having: Option<Expr>,
    pub(super) order: Vec<Order>,
    pub(in crate::sim) limit: Option<usize>,
    pub(super) offset: usize,
}

/// One member of the SELECT list.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Path {
        path: String,
        alias: Option<String>,
    },
    /// A function over a path; no path for `COUNT()`.
    Function {
        name: Function,
        path: Option<String>,
        alias: Option<String>,
    },
    Child(Box<Query>),
    Fields(FieldSet),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Count,
    CountDistinct,
    Sum,
    Avg,
    Min,
    Max,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldSet {
    All,
    Standard,
    Custom,
}

#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) operand: Operand,
    pub(super) descending: bool,
    pub(super) nulls_last: bool,
}

/// What a condition or an order looks at.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    Path(String),
    Function(Function, Option<String>),
}

#[derive(Debug, Clone)]
pub(super) enum Expr {
    All(Vec<Expr>),
    Any(Vec<Expr>),
    Not(Box<Expr>),
    Compare { operand: Operand, operator: Comparison, literal: Literal },
    In { path: String, negated: bool, literals: Vec<Literal> },
    SemiJoin { path: String, negated: bool, query: Box<Query> },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Like,
}

/// A constant; bare words are interpreted when the field is known.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal {
    Null,
    Bool(bool),
    Text(String),
    Bare(String),
    /// A date literal such as `TODAY`.
    Relative(String),
}

/// Reads one statement to its end.
pub(in crate::sim) fn parse(text: &str) -> Result<Query, ApiError> {
    let mut parser = Parser { tokens: lex(text)?, at: 0, depth: 0 };
    let query = parser.query()?;
    match parser.peek() {
        None => Ok(query),
        Some(_) => Err(parser.unexpected()),
    }
}

impl Query {
    /// Whether this is `SELECT COUNT() FROM ...`.
    pub(super) fn counts_rows(&self) -> bool {
        matches!(self.select.as_slice(), [Item::Function { name: Function::Count, path: None, .. }])
    }

    /// Whether the answer has `AggregateResult`s.
    pub(in crate::sim) fn aggregates(&self) -> bool {
        !self.group.is_empty() || self.select.iter().any(|item| matches!(item, Item::Function { .. }))
    }

    /// Whether there are child subqueries.
    pub(in crate::sim) fn has_children(&self) -> bool {
        self.select.iter().any(|item| matches!(item, Item::Child(_)))
    }

    /// Whether OFFSET is used.
    pub(in crate::sim) fn has_offset(&self) -> bool {
        self.offset > 0
    }

    /// The bare fields selected, for CSV headings.
    pub(in crate::sim) fn columns(&self) -> Vec<&str> {
        self.select
            .iter()
            .filter_map(|item| match item {
                Item::Path { path, .. } => Some(path.as_str()),
                _ => None,
            })
            .collect()
    }
}

/// Parentheses and subqueries deeper than this are refused.
const DEEPEST: usize = 50;

/// Words that end a name and are no alias (facts 7.1).
const RESERVED: &[&str] = &[
    "AND", "ASC", "DESC", "FROM", "GROUP", "HAVING", "IN", "LIKE", "LIMIT", "NOT", "NULL", "NULLS", "OR", "ORDER",
    "SELECT", "USING", "WHERE", "WITH", "OFFSET", "FOR", "UPDATE",
];

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn unexpected(&self) -> ApiError {
        let shown = match self.peek() {
            None => "<EOF>".to_owned(),
            Some(Token::Word(word)) => word.clone(),
            Some(Token::Text(_)) => "'...'".to_owned(),
            Some(Token::Bare(text)) => text.clone(),
            Some(Token::Comma) => ",".to_owned(),
            Some(Token::Open) => "(".to_owned(),
            Some(Token::Close) => ")".to_owned(),
            Some(Token::Operator(name)) => (*name).to_owned(),
        };
        ApiError::malformed_query(format!("unexpected token: '{shown}'"))
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Some(Token::Word(name)) if name.eq_ignore_ascii_case(word))
    }

    fn take_word(&mut self, word: &str) -> bool {
        let found = self.is_word(word);
        self.at += usize::from(found);
        found
    }

    fn expect_word(&mut self, word: &str) -> Result<(), ApiError> {
        if self.take_word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn take(&mut self, token: &Token) -> bool {
        let found = self.peek() == Some(token);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, token: &Token) -> Result<(), ApiError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn name(&mut self) -> Result<String, ApiError> {
        match self.peek() {
            Some(Token::Word(word)) if !is_reserved(word) => {
                let word = word.clone();
                self.at += 1;
                Ok(word)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn alias(&mut self) -> Option<String> {
        match self.peek() {
            Some(Token::Word(word)) if !is_reserved(word) && !word.contains('.') => {
                let word = word.clone();
                self.at += 1;
                Some(word)
            }
            _ => None,
        }
    }

    fn count(&mut self) -> Result<usize, ApiError> {
        let Some(Token::Bare(text)) = self.peek() else { return Err(self.unexpected()) };
        let count = text.parse().map_err(|_| ApiError::malformed_query("expected a whole number"))?;
        self.at += 1;
        Ok(count)
    }

    fn deeper(&mut self) -> Result<(), ApiError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(ApiError::new(400, "QUERY_TOO_COMPLICATED", "Query is nested too deeply"));
        }
        Ok(())
    }

    fn query(&mut self) -> Result<Query, ApiError> {
        self.deeper()?;
        self.expect_word("SELECT")?;
        let mut query = Query::default();
        loop {
            let item = self.item()?;
            query.select.push(item);
            if !self.take(&Token::Comma) {
                break;
            }
        }
        self.expect_word("FROM")?;
        query.from = self.name()?;
        self.take_word("AS");
        query.alias = self.alias();
        self.clauses(&mut query)?;
        self.depth -= 1;
        Ok(query)
    }

    fn clauses(&mut self, query: &mut Query) -> Result<(), ApiError> {
        if self.take_word("USING") {
            self.expect_word("SCOPE")?;
            query.mine = self.name()?.eq_ignore_ascii_case("mine");
        }
        if self.take_word("WHERE") {
            query.filter = Some(self.condition()?);
        }
        if self.take_word("WITH") {
            // Apex's modes change nothing here: results follow the calling user anyway (facts 7.3).
            self.name()?;
        }
        if self.take_word("GROUP") {
            self.expect_word("BY")?;
            loop {
                let path = self.name()?;
                query.group.push(path);
                if !self.take(&Token::Comma) {
                    break;
                }
            }
            if self.take_word("HAVING") {
                query.having = Some(self.condition()?);
            }
        }
        if self.take_word("ORDER") {
            self.expect_word("BY")?;
            loop {
                let order = self.order()?;
                query.order.push(order);
                if !self.take(&Token::Comma) {
                    break;
                }
            }
        }
        if self.take_word("LIMIT") {
            query.limit = Some(self.count()?);
        }
        if self.take_word("OFFSET") {
            query.offset = self.count()?;
            if query.offset > 2_000 {
                return Err(ApiError::new(400, "NUMBER_OUTSIDE_VALID_RANGE", "Maximum SOQL offset allowed is 2000"));
            }
        }
        while self.take_word("FOR") || self.take_word("UPDATE") {
            self.name()?;
        }
        Ok(())
    }

    fn item(&mut self) -> Result<Item, ApiError> {
        if self.take(&Token::Open) {
            let query = self.query()?;
            self.expect(&Token::Close)?;
            return Ok(Item::Child(Box::new(query)));
        }
        let name = self.name()?;
        if !self.take(&Token::Open) {
            return Ok(Item::Path { path: name, alias: self.alias() });
        }
        if name.eq_ignore_ascii_case("FIELDS") {
            let set = match self.name()?.to_ascii_uppercase().as_str() {
                "ALL" => FieldSet::All,
                "STANDARD" => FieldSet::Standard,
                "CUSTOM" => FieldSet::Custom,
                _ => return Err(self.unexpected()),
            };
            self.expect(&Token::Close)?;
            return Ok(Item::Fields(set));
        }
        if name.eq_ignore_ascii_case("toLabel") || name.eq_ignore_ascii_case("FORMAT") {
            let path = self.name()?;
            self.expect(&Token::Close)?;
            return Ok(Item::Path { path, alias: self.alias() });
        }
        let (name, path) = self.function(&name)?;
        Ok(Item::Function { name, path, alias: self.alias() })
    }

    /// The rest of a function whose name and opening parenthesis were read.
    fn function(&mut self, name: &str) -> Result<(Function, Option<String>), ApiError> {
        let function = match name.to_ascii_uppercase().as_str() {
            "COUNT" => Function::Count,
            "COUNT_DISTINCT" => Function::CountDistinct,
            "SUM" => Function::Sum,
            "AVG" => Function::Avg,
            "MIN" => Function::Min,
            "MAX" => Function::Max,
            _ => return Err(ApiError::malformed_query(format!("unknown function: '{name}'"))),
        };
        let path = if self.take(&Token::Close) {
            None
        } else {
            let path = self.name()?;
            self.expect(&Token::Close)?;
            Some(path)
        };
        if path.is_none() && function != Function::Count {
            return Err(ApiError::malformed_query(format!("function {name} needs a field")));
        }
        Ok((function, path))
    }

    fn operand(&mut self) -> Result<Operand, ApiError> {
        let name = self.name()?;
        if self.take(&Token::Open) {
            let (function, path) = self.function(&name)?;
            return Ok(Operand::Function(function, path));
        }
        Ok(Operand::Path(name))
    }

    fn order(&mut self) -> Result<Order, ApiError> {
        let operand = self.operand()?;
        let descending = !self.take_word("ASC") && self.take_word("DESC");
        let mut nulls_last = false;
        if self.take_word("NULLS") {
            nulls_last = self.take_word("LAST");
            if !nulls_last {
                self.expect_word("FIRST")?;
            }
        }
        Ok(Order { operand, descending, nulls_last })
    }

    fn condition(&mut self) -> Result<Expr, ApiError> {
        let first = self.term()?;
        // AND and OR side by side need parentheses.
        let (word, other) = if self.is_word("AND") { ("AND", "OR") } else { ("OR", "AND") };
        let mut terms = vec![first];
        while self.take_word(word) {
            let term = self.term()?;
            terms.push(term);
        }
        if self.is_word(other) {
            return Err(self.unexpected());
        }
        Ok(if word == "AND" { Expr::All(terms) } else { Expr::Any(terms) })
    }

    fn term(&mut self) -> Result<Expr, ApiError> {
        self.deeper()?;
        let term = if self.take_word("NOT") {
            Expr::Not(Box::new(self.term()?))
        } else if self.take(&Token::Open) {
            let inner = self.condition()?;
            self.expect(&Token::Close)?;
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(term)
    }

    fn comparison(&mut self) -> Result<Expr, ApiError> {
        let operand = self.operand()?;
        if self.take_word("LIKE") {
            let literal = self.literal()?;
            return Ok(Expr::Compare { operand, operator: Comparison::Like, literal });
        }
        let negated = self.take_word("NOT");
        if self.take_word("IN") {
            let Operand::Path(path) = operand else { return Err(self.unexpected()) };
            return self.membership(path, negated);
        }
        if negated {
            return Err(self.unexpected());
        }
        let operator = match self.next() {
            Some(Token::Operator("=")) => Comparison::Equal,
            Some(Token::Operator("!=")) => Comparison::NotEqual,
            Some(Token::Operator("<")) => Comparison::Less,
            Some(Token::Operator("<=")) => Comparison::LessOrEqual,
            Some(Token::Operator(">")) => Comparison::Greater,
            Some(Token::Operator(">=")) => Comparison::GreaterOrEqual,
            _ => {
                self.at -= 1;
                return Err(self.unexpected());
            }
        };
        let literal = self.literal()?;
        Ok(Expr::Compare { operand, operator, literal })
    }

    fn membership(&mut self, path: String, negated: bool) -> Result<Expr, ApiError> {
        self.expect(&Token::Open)?;
        if self.is_word("SELECT") {
            let query = Box::new(self.query()?);
            self.expect(&Token::Close)?;
            return Ok(Expr::SemiJoin { path, negated, query });
        }
        let mut literals = Vec::new();
        loop {
            let literal = self.literal()?;
            literals.push(literal);
            if !self.take(&Token::Comma) {
                break;
            }
        }
        self.expect(&Token::Close)?;
        Ok(Expr::In { path, negated, literals })
    }

    fn literal(&mut self) -> Result<Literal, ApiError> {
        match self.next() {
            Some(Token::Text(text)) if text.chars().count() > 4_000 => {
                Err(ApiError::malformed_query("maximum length of a string literal exceeded"))
            }
            Some(Token::Text(text)) => Ok(Literal::Text(text)),
            Some(Token::Bare(text)) => Ok(Literal::Bare(text)),
            Some(Token::Word(word)) => Ok(match word.to_ascii_uppercase().as_str() {
                "NULL" => Literal::Null,
                "TRUE" => Literal::Bool(true),
                "FALSE" => Literal::Bool(false),
                _ => Literal::Relative(word),
            }),
            _ => {
                self.at -= 1;
                Err(self.unexpected())
            }
        }
    }
}

fn is_reserved(word: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(word))
}
