//! A subset of SOQL (facts 7.1): fields, parent paths, child subqueries, semi-joins, grouping, ordering, paging.

mod dates;
mod eval;
mod lex;
mod parse;
mod plan;
mod value;

pub(super) use eval::{Found, run};
pub(super) use parse::{Query, parse};
pub(super) use plan::Context;

#[cfg(test)]
mod tests;
