//! What failed inside an answer: the records of a collection, the subrequests of a composite, batch or graph, the entries
//! of a tree (facts 3.6, 3.7).

use smol_str::SmolStr;

use super::said::{self, Said, Shape};
use super::walk::Walk;
use super::{Executed, Kind, Verdict, classify};
use crate::call::Family;

/// Failures that are told apart in one answer; Salesforce takes 500 subrequests in a graph, and fewer anywhere else.
const MOST: usize = 500;

/// What became of the parts of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partial {
    /// Parts that were answered.
    pub total: u32,
    /// Parts that failed.
    pub failed: u32,
    /// The first of those that failed, in their order.
    pub list: Vec<Failed>,
    /// The answer was read to its end.
    pub whole: bool,
}

/// One part that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its place in the request, counted from 0.
    pub at: u32,
    /// Its code; empty if it has none.
    pub code: SmolStr,
    /// What that means.
    pub verdict: Verdict,
}

impl Partial {
    /// Whether nothing at all was done, and nothing but locks is why: the whole request can be sent again, whether it was
    /// all or none or not.
    pub fn is_locked(&self) -> bool {
        let mut locked = false;
        let undone = self.list.iter().all(|failed| {
            locked |= failed.verdict.kind == Kind::Lock;
            matches!(failed.verdict.kind, Kind::Lock | Kind::Partial) && failed.verdict.executed == Executed::No
        });
        let all = self.whole && self.failed == self.total && self.list.len() as u32 == self.failed;
        locked && undone && all
    }

    fn note(&mut self, family: Family, status: u16, said: &Said<'_>) {
        let verdict = classify(family, status, said);
        self.add(Failed { at: self.total, code: SmolStr::new(said.code), verdict });
    }

    /// One part failed.
    pub(super) fn add(&mut self, failed: Failed) {
        if self.list.len() < MOST {
            self.list.push(failed);
        }
        self.failed += 1;
    }
}

/// Looks for what failed in the plain body of an answer to a call of `family`, which may be cut off; `None` if such calls
/// have no parts, or the body is none with parts.
pub fn scan(family: Family, body: &[u8]) -> Option<Partial> {
    let mut found = Partial::default();
    let mut walk = Walk::new(body);
    let (mut seen, first) = (false, walk.peek()?);
    let whole = match family {
        Family::Collections if first == b'[' => {
            seen = true;
            walk.items(|walk| record(walk, family, &mut found))
        }
        Family::Composite | Family::Batch | Family::Tree | Family::Graph if first == b'{' => {
            walk.members(|name, walk| match (family, name) {
                (Family::Composite, b"compositeResponse") => {
                    seen = true;
                    walk.items(|walk| subrequest(walk, family, &mut found))
                }
                (Family::Batch, b"results") => {
                    seen = true;
                    walk.items(|walk| subrequest(walk, family, &mut found))
                }
                (Family::Tree, b"results") => {
                    seen = true;
                    walk.items(|walk| record(walk, family, &mut found))
                }
                (Family::Graph, b"graphs") => {
                    seen = true;
                    walk.items(|walk| graph(walk, &mut found))
                }
                _ => walk.skip(),
            })
        }
        _ => return None,
    };
    found.whole = whole.is_some();
    seen.then_some(found)
}

/// `{"graphId": "1", "graphResponse": {"compositeResponse": [...]}, "isSuccessful": false}`
fn graph(walk: &mut Walk<'_>, found: &mut Partial) -> Option<()> {
    if walk.peek()? != b'{' {
        return walk.skip();
    }
    walk.members(|name, walk| {
        if name != b"graphResponse" || walk.peek()? != b'{' {
            return walk.skip();
        }
        walk.members(|name, walk| {
            if name != b"compositeResponse" || walk.peek()? != b'[' {
                return walk.skip();
            }
            walk.items(|walk| subrequest(walk, Family::Graph, found))
        })
    })
}

/// `{"body": ..., "httpStatusCode": 400, ...}` or `{"statusCode": 400, "result": ...}`. The body may come before the
/// status, so it is passed over and gone back to, once.
fn subrequest(walk: &mut Walk<'_>, family: Family, found: &mut Partial) -> Option<()> {
    if walk.peek()? != b'{' {
        found.total += 1;
        return walk.skip();
    }
    let (mut status, mut body) = (None, None);
    walk.members(|name, walk| match name {
        b"httpStatusCode" | b"statusCode" => {
            status = number(walk.value()?);
            Some(())
        }
        b"body" | b"result" => {
            walk.peek()?;
            body = Some(walk.clone());
            walk.skip()
        }
        _ => walk.skip(),
    })?;
    let status: u16 = status.unwrap_or_default();
    if status >= 400 {
        let mut said = Said { shape: Shape::Json, ..Said::default() };
        if let Some(mut body) = body {
            said::hear(&mut body, &mut said);
        }
        found.note(family, status, &said);
    } else if let Some(mut body) = body.filter(|body| body.clone().peek() == Some(b'[')) {
        // A collection of its own, perhaps.
        let mut inside = Partial::default();
        let _ = body.items(|walk| record(walk, family, &mut inside));
        if let Some(first) = inside.list.into_iter().next() {
            found.add(Failed { at: found.total, ..first });
        }
    }
    found.total += 1;
    Some(())
}

/// `{"id": "...", "success": false, "errors": [{"statusCode": "...", ...}]}`, or a tree's, which has no `success`.
fn record(walk: &mut Walk<'_>, family: Family, found: &mut Partial) -> Option<()> {
    if walk.peek()? != b'{' {
        found.total += 1;
        return walk.skip();
    }
    let (mut success, mut errors) = (None, None);
    walk.members(|name, walk| match name {
        b"success" => {
            success = match walk.value()? {
                b"true" => Some(true),
                b"false" => Some(false),
                _ => None,
            };
            Some(())
        }
        b"errors" => {
            walk.peek()?;
            errors = Some(walk.clone());
            walk.skip()
        }
        _ => walk.skip(),
    })?;
    // A record that is read has neither; one that has a field of that name says nothing of success.
    let failed = match success {
        Some(success) => !success,
        None => family == Family::Tree && errors.is_some(),
    };
    if failed {
        let mut said = Said { shape: Shape::Json, ..Said::default() };
        if let Some(mut errors) = errors {
            said::hear(&mut errors, &mut said);
        }
        found.note(family, 400, &said);
    }
    found.total += 1;
    Some(())
}

fn number(text: &[u8]) -> Option<u16> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
