//! Comparing values the way SOQL does.

use std::cmp::Ordering;

use super::dates;
use super::parse::{Comparison, Literal};
use crate::sim::clock::Micros;
use crate::sim::dates::{date_text, datetime_text, day_of, parse_date, parse_datetime};
use crate::sim::errors::ApiError;
use crate::sim::ids;
use crate::sim::json::Json;
use crate::sim::schema::{Field, Kind};

/// A constant fitted to the type of its field.
#[derive(Debug, Clone)]
pub(super) enum Fitted {
    Value(Json),
    /// From and to, as text of the field's kind: a date literal.
    Range(Json, Json),
}

/// Fits a constant to a field; 400 `INVALID_FIELD` if the types cannot meet.
pub(super) fn fit(field: &Field, operator: Comparison, literal: &Literal, now: Micros) -> Result<Fitted, ApiError> {
    let value = match literal {
        Literal::Null => Json::Null,
        Literal::Bool(flag) if field.kind == Kind::Boolean => Json::Bool(*flag),
        Literal::Text(text) if matches!(field.kind, Kind::Id | Kind::Reference) => fit_id(field, text)?,
        Literal::Text(text) if is_special(field.kind) => return Err(mismatch(field)),
        Literal::Text(text) if operator == Comparison::Like => Json::from(text.as_str()),
        Literal::Text(text) => Json::from(text.replace("\\\\", "\\")),
        Literal::Bare(text) => match field.kind {
            kind if kind.is_number() => Json::Num(text.parse().map_err(|_| mismatch(field))?),
            Kind::Date => Json::from(date_text(parse_date(text).ok_or_else(|| mismatch(field))?)),
            Kind::Datetime => Json::from(datetime_text(parse_datetime(text).ok_or_else(|| mismatch(field))?)),
            _ => return Err(mismatch(field)),
        },
        Literal::Relative(name) => {
            let Some((from, to)) = dates::range(name, now) else {
                return Err(ApiError::malformed_query(format!("unexpected token: '{name}'")));
            };
            return match field.kind {
                Kind::Date => Ok(Fitted::Range(date_text(day_of(from)).into(), date_text(day_of(to)).into())),
                Kind::Datetime => Ok(Fitted::Range(datetime_text(from).into(), datetime_text(to).into())),
                _ => Err(mismatch(field)),
            };
        }
        Literal::Bool(_) => return Err(mismatch(field)),
    };
    Ok(Fitted::Value(value))
}

fn is_special(kind: Kind) -> bool {
    kind.is_number() || matches!(kind, Kind::Boolean | Kind::Date | Kind::Datetime)
}

fn fit_id(field: &Field, text: &str) -> Result<Json, ApiError> {
    if text.is_empty() {
        return Ok(Json::Null);
    }
    ids::to18(text)
        .map(Json::from)
        .ok_or_else(|| ApiError::new(400, "INVALID_QUERY_FILTER_OPERATOR", format!("{}: invalid ID field", field.name)))
}

fn mismatch(field: &Field) -> ApiError {
    ApiError::new(
        400,
        "INVALID_FIELD",
        format!("value of filter criterion for field '{}' must be of type {}", field.name, field.kind.describe()),
    )
}

/// Whether `value` stands in this relation to `literal`.
pub(super) fn compare(value: &Json, operator: Comparison, literal: &Fitted) -> bool {
    match literal {
        Fitted::Value(wanted) => compare_value(value, operator, wanted),
        Fitted::Range(from, to) => {
            if value.is_null() {
                return operator == Comparison::NotEqual;
            }
            let before = order(value, from) == Ordering::Less;
            let after = order(value, to) != Ordering::Less;
            match operator {
                Comparison::Equal => !before && !after,
                Comparison::NotEqual => before || after,
                Comparison::Less => before,
                Comparison::LessOrEqual => !after,
                Comparison::Greater => after,
                Comparison::GreaterOrEqual => !before,
                Comparison::Like => false,
            }
        }
    }
}

fn compare_value(value: &Json, operator: Comparison, wanted: &Json) -> bool {
    let equal = order(value, wanted) == Ordering::Equal;
    match operator {
        Comparison::Equal => equal,
        Comparison::NotEqual => !equal,
        Comparison::Like => match (value.as_str(), wanted.as_str()) {
            (Some(value), Some(pattern)) => like(&value.to_lowercase(), &pattern.to_lowercase()),
            _ => false,
        },
        _ if value.is_null() || wanted.is_null() => false,
        Comparison::Less => order(value, wanted) == Ordering::Less,
        Comparison::LessOrEqual => order(value, wanted) != Ordering::Greater,
        Comparison::Greater => order(value, wanted) == Ordering::Greater,
        Comparison::GreaterOrEqual => order(value, wanted) != Ordering::Less,
    }
}

/// Orders two values: null first, numbers by size, text without regard to case.
pub(super) fn order(left: &Json, right: &Json) -> Ordering {
    match (left, right) {
        (Json::Null, Json::Null) => Ordering::Equal,
        (Json::Null, _) => Ordering::Less,
        (_, Json::Null) => Ordering::Greater,
        (Json::Bool(left), Json::Bool(right)) => left.cmp(right),
        (Json::Str(left), Json::Str(right)) => {
            if left == right {
                Ordering::Equal
            } else {
                left.chars().flat_map(char::to_lowercase).cmp(right.chars().flat_map(char::to_lowercase))
            }
        }
        _ => match (left.as_f64(), right.as_f64()) {
            (Some(left), Some(right)) => left.total_cmp(&right),
            _ => Ordering::Equal,
        },
    }
}

/// `%` any text, `_` one character, `\` takes their meaning away.
fn like(value: &str, pattern: &str) -> bool {
    let value: Vec<char> = value.chars().collect();
    let pattern = wildcards(pattern);
    // Greedy with one point of return, linear but for pathological patterns.
    let (mut at, mut place) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at < value.len() {
        match pattern.get(place) {
            Some(Wild::Any) => {
                retry = Some((place + 1, at));
                place += 1;
            }
            Some(Wild::One) => {
                at += 1;
                place += 1;
            }
            Some(Wild::Char(c)) if *c == value[at] => {
                at += 1;
                place += 1;
            }
            _ => match retry {
                Some((back, from)) => {
                    retry = Some((back, from + 1));
                    at = from + 1;
                    place = back;
                }
                None => return false,
            },
        }
    }
    pattern[place..].iter().all(|wild| *wild == Wild::Any)
}

#[derive(Debug, PartialEq)]
enum Wild {
    Any,
    One,
    Char(char),
}

fn wildcards(pattern: &str) -> Vec<Wild> {
    let mut wilds = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        wilds.push(match c {
            '%' => Wild::Any,
            '_' => Wild::One,
            '\\' => Wild::Char(chars.next().unwrap_or('\\')),
            other => Wild::Char(other),
        });
    }
    wilds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_knows_wildcards() {
        for (value, pattern, expected) in [
            ("acme", "ac%", true),
            ("acme", "%m_", true),
            ("acme", "a_e", false),
            ("50% off", "50\\%%", true),
            ("500 off", "50\\%%", false),
            ("aXbXc", "a%b%c", true),
            ("", "%", true),
            ("", "_", false),
        ] {
            assert_eq!(like(value, pattern), expected, "{value} LIKE {pattern}");
        }
    }

    #[test]
    fn text_compares_without_case_and_null_comes_first() {
        assert_eq!(order(&"ABC".into(), &"abc".into()), Ordering::Equal);
        assert_eq!(order(&Json::Null, &"".into()), Ordering::Less);
        assert_eq!(order(&Json::Int(2), &Json::Num(2.0)), Ordering::Equal);
        assert!(compare_value(&Json::Null, Comparison::NotEqual, &"x".into()));
        assert!(!compare_value(&Json::Null, Comparison::Less, &Json::Num(1.0)));
    }
}
