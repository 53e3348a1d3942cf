//! SOQL text to tokens.

use crate::sim::errors::ApiError;

/// One token.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// A name, path, keyword or date literal such as `LAST_N_DAYS:3`.
    Word(String),
    /// A quoted string, unescaped; the wildcards of LIKE keep their backslash.
    Text(String),
    /// Whatever begins with a digit or sign: a number, a date or a time.
    Bare(String),
    Comma,
    Open,
    Close,
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`.
    Operator(&'static str),
}

/// Longest statement in characters (facts 1.8).
const LONGEST: usize = 100_000;

/// Splits a statement.
pub(super) fn lex(text: &str) -> Result<Vec<Token>, ApiError> {
    if text.chars().count() > LONGEST {
        return Err(ApiError::malformed_query("SOQL statement too long"));
    }
    let mut tokens = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        if first.is_whitespace() {
            rest = rest.trim_start();
            continue;
        }
        let (token, length) = match first {
            ',' => (Token::Comma, 1),
            '(' => (Token::Open, 1),
            ')' => (Token::Close, 1),
            '\'' => quoted(rest)?,
            '=' | '!' | '<' | '>' => operator(rest)?,
            '0'..='9' | '+' | '-' => {
                let length = length_of(rest, |c| c.is_ascii_alphanumeric() || "+-.:".contains(c));
                (Token::Bare(rest[..length].to_owned()), length)
            }
            c if c.is_alphabetic() || c == '_' => {
                let length = length_of(rest, |c| c.is_alphanumeric() || "_.:".contains(c));
                (Token::Word(rest[..length].to_owned()), length)
            }
            other => return Err(ApiError::malformed_query(format!("line 1: unexpected character '{other}'"))),
        };
        tokens.push(token);
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn length_of(text: &str, belongs: impl Fn(char) -> bool) -> usize {
    text.char_indices().find(|(_, c)| !belongs(*c)).map_or(text.len(), |(at, _)| at)
}

fn operator(text: &str) -> Result<(Token, usize), ApiError> {
    for (spelling, name) in [("!=", "!="), ("<>", "!="), ("<=", "<="), (">=", ">="), ("=", "="), ("<", "<"), (">", ">")]
    {
        if text.starts_with(spelling) {
            return Ok((Token::Operator(name), spelling.len()));
        }
    }
    Err(ApiError::malformed_query("unexpected token: '!'"))
}

fn quoted(text: &str) -> Result<(Token, usize), ApiError> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Ok((Token::Text(value), at + 1)),
            '\\' => {
                let escaped = chars.next().map(|(_, c)| c);
                match escaped {
                    Some('n' | 'N') => value.push('\n'),
                    Some('r' | 'R') => value.push('\r'),
                    Some('t' | 'T') => value.push('\t'),
                    Some('b' | 'B') => value.push('\u{8}'),
                    Some('f' | 'F') => value.push('\u{c}'),
                    Some(plain @ ('"' | '\'')) => value.push(plain),
                    // A backslash that LIKE must still see as one.
                    Some('\\') => value.push_str("\\\\"),
                    Some(wild @ ('_' | '%')) => value.extend(['\\', wild]),
                    Some('u' | 'U') => {
                        let digits: String = chars.by_ref().take(4).map(|(_, c)| c).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        value.push(code.ok_or_else(illegal)?);
                    }
                    _ => return Err(illegal()),
                }
            }
            other => value.push(other),
        }
    }
    Err(ApiError::malformed_query("unterminated string literal"))
}

fn illegal() -> ApiError {
    ApiError::malformed_query("Illegal string literal: invalid escape sequence")
}
