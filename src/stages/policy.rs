//! Policy: may this caller make this call, and every call hidden inside it?
//!
//! A caller's rules list the families, objects and operations it may use; what is not listed is refused, and a caller
//! without rules may do anything its Salesforce user may. Subrequests of composite, batch and graph, and the
//! operation inside a SOAP envelope, are judged one by one: a request is refused if any part of it is.
//! Policy adds to Salesforce's permissions and never replaces them.

use std::task::{Context, Poll};

use tower::{Layer, Service};

use crate::call::{Call, Family, Meaning, ObjectName, Operation, Reach};
use crate::refusal::{Reason, Refusal};
use crate::stages::way::Way;
use crate::stages::{Passage, Reply};

/// Whether rules are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Rules are not looked at.
    Off,
    /// What would be refused is counted and logged, and passes.
    Observe,
    /// What is not allowed is refused.
    #[default]
    Enforce,
}

/// One caller's allow-rules. A list that is absent allows everything of its kind.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    families: Option<u32>,
    operations: Option<u32>,
    /// In lower case, sorted.
    objects: Option<Box<[Box<str>]>>,
}

impl Rules {
    /// Rules that allow only what the given lists name; object names are compared without case.
    pub fn new(families: Option<&[Family]>, objects: Option<&[ObjectName]>, operations: Option<&[Operation]>) -> Self {
        Self {
            families: families.map(|list| list.iter().fold(0, |bits, family| bits | 1 << family.index())),
            operations: operations.map(|list| list.iter().fold(0, |bits, operation| bits | 1 << operation.index())),
            objects: objects.map(|list| {
                let mut names: Box<[_]> = list.iter().map(|name| name.to_ascii_lowercase().into_boxed_str()).collect();
                names.sort_unstable();
                names
            }),
        }
    }

    /// Whether these rules can refuse anything at all.
    pub fn allow_everything(&self) -> bool {
        self.families.is_none() && self.operations.is_none() && self.objects.is_none()
    }

    /// Whether judging needs the subrequests of a composite, batch or graph, which stand in its body.
    pub fn need_parts(&self) -> bool {
        !self.allow_everything()
    }

    /// Judges the call and each of its parts; the text says which rule refuses.
    pub fn judge(&self, call: &Call) -> Result<(), String> {
        // Which API versions exist reveals nothing of the org and costs nothing.
        if self.allow_everything() || call.meaning.family == Family::Versions {
            return Ok(());
        }
        let Meaning { family, operation, object, reach, parts, .. } = &call.meaning;
        if *operation == Operation::Mixed && !parts.is_empty() {
            // An envelope must be allowed as a family; what it does is judged by its parts.
            self.judge_family(*family)?;
        } else {
            self.judge_one(*family, *operation, object.as_deref(), *reach)?;
        }
        parts.iter().enumerate().try_for_each(|(place, part)| {
            // An envelope inside an envelope: what it holds stands among the parts too.
            let judged = match part.operation {
                Operation::Mixed => self.judge_family(part.family),
                _ => self.judge_one(part.family, part.operation, part.object.as_deref(), part.reach),
            };
            judged.map_err(|why| format!("{why} (part {} of the request)", place + 1))
        })
    }

    fn judge_family(&self, family: Family) -> Result<(), String> {
        match self.families {
            Some(bits) if bits & (1 << family.index()) == 0 => {
                Err(format!("This caller's rules do not allow the API family \"{family}\"."))
            }
            _ => Ok(()),
        }
    }

    fn judge_one(
        &self,
        family: Family,
        operation: Operation,
        object: Option<&str>,
        reach: Reach,
    ) -> Result<(), String> {
        self.judge_family(family)?;
        if let Some(bits) = self.operations
            && bits & (1 << operation.index()) == 0
        {
            return Err(format!("This caller's rules do not allow the operation \"{operation}\"."));
        }
        match &self.objects {
            Some(allowed) => judge_objects(allowed, object, reach),
            None => Ok(()),
        }
    }
}

/// Object rules let pass only what they can see whole.
fn judge_objects(allowed: &[Box<str>], object: Option<&str>, reach: Reach) -> Result<(), String> {
    if let Some(object) = object {
        let lower = || object.bytes().map(|byte| byte.to_ascii_lowercase());
        if allowed.binary_search_by(|name| name.bytes().cmp(lower())).is_err() {
            return Err(format!("This caller's rules do not allow the object \"{object}\"."));
        }
    }
    match reach {
        Reach::Nothing | Reach::Named | Reach::Continued => Ok(()),
        Reach::Related => {
            Err("This caller's rules name the objects it may use, and this request reaches others through \
                               relationships."
                .to_owned())
        }
        Reach::Unknown => Err("This caller's rules name the objects it may use, and which ones this request touches \
                               cannot be told."
            .to_owned()),
    }
}

/// Puts [`Policy`] on the road.
#[derive(Debug, Clone, Copy, Default)]
pub struct PolicyLayer;

impl<S> Layer<S> for PolicyLayer {
    type Service = Policy<S>;

    fn layer(&self, inner: S) -> Policy<S> {
        Policy { inner }
    }
}

/// The stage: asks the caller's rules, refuses or passes on.
#[derive(Debug, Clone)]
pub struct Policy<S> {
    inner: S,
}

impl<S> Service<Box<Passage>> for Policy<S>
where
    S: Service<Box<Passage>, Response = Reply, Error = Refusal>,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Way<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, passage: Box<Passage>) -> Self::Future {
        let mode = passage.live.policy_mode;
        if mode != Mode::Off
            && let Some(caller) = passage.live.caller(passage.call.caller)
            && let Err(why) = caller.rules.judge(&passage.call)
        {
            if mode == Mode::Enforce {
                return Way::refused(Refusal::new(Reason::Forbidden, why));
            }
            passage.record.lock().would_refuse = Some(Reason::Forbidden);
        }
        Way::onward(self.inner.call(passage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{ApiCalls, CallerId, Class, Idempotency, OrgId, Part, Principal};

    fn part(family: Family, operation: Operation, object: Option<&str>, reach: Reach) -> Part {
        Part { family, operation, object: object.map(Into::into), reach }
    }

    fn call(whole: Part, parts: Vec<Part>) -> Call {
        Call {
            org: OrgId(0),
            caller: CallerId(0),
            principal: Principal::NOBODY,
            class: Class::Standard,
            deadline: None,
            meaning: Meaning {
                family: whole.family,
                operation: whole.operation,
                object: whole.object,
                reach: whole.reach,
                template: "",
                version: None,
                cost: ApiCalls(1),
                idempotency: Idempotency::Safe,
                method: http::Method::GET,
                long_poll: false,
                parts: parts.into(),
            },
        }
    }

    fn row(operation: Operation, object: &str) -> Part {
        part(Family::Rest, operation, Some(object), Reach::Named)
    }

    #[test]
    fn a_caller_without_rules_may_do_anything() {
        let apex = part(Family::Apex, Operation::Execute, None, Reach::Unknown);
        assert_eq!(Rules::default().judge(&call(apex, vec![])), Ok(()));
    }

    #[test]
    fn an_unlisted_family_object_or_operation_is_refused_by_name() {
        let rules =
            Rules::new(Some(&[Family::Rest]), Some(&["Account".into()]), Some(&[Operation::Read, Operation::Describe]));
        assert_eq!(rules.judge(&call(row(Operation::Read, "account"), vec![])), Ok(()));
        for (refused, word) in [
            (part(Family::Query, Operation::Query, Some("Account"), Reach::Named), "query"),
            (row(Operation::Delete, "Account"), "delete"),
            (row(Operation::Read, "Contact"), "Contact"),
        ] {
            let why = rules.judge(&call(refused, vec![])).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn one_forbidden_subrequest_refuses_the_whole_composite() {
        let rules = Rules::new(None, Some(&["Account".into()]), Some(&[Operation::Read]));
        let envelope = part(Family::Composite, Operation::Mixed, None, Reach::Named);
        let good = row(Operation::Read, "Account");
        assert_eq!(rules.judge(&call(envelope.clone(), vec![good.clone(), good.clone()])), Ok(()));
        let nested = call(envelope.clone(), vec![envelope.clone(), good.clone()]);
        assert_eq!(rules.judge(&nested), Ok(()), "what a nested envelope holds stands beside it");
        let hidden = call(envelope, vec![good, row(Operation::Delete, "Account")]);
        assert!(rules.judge(&hidden).unwrap_err().contains("part 2"));
    }

    #[test]
    fn a_query_is_judged_by_every_object_it_names() {
        let rules = Rules::new(None, Some(&["Account".into()]), None);
        let query = part(Family::Query, Operation::Query, Some("Account"), Reach::Named);
        let joined = part(Family::Query, Operation::Query, Some("Contact"), Reach::Named);
        assert_eq!(rules.judge(&call(query.clone(), vec![])), Ok(()));
        assert!(rules.judge(&call(query, vec![joined])).unwrap_err().contains("Contact"));
    }

    #[test]
    fn object_rules_refuse_what_cannot_be_told() {
        let rules = Rules::new(None, Some(&["Account".into()]), None);
        for refused in [
            part(Family::Apex, Operation::Execute, None, Reach::Unknown),
            part(Family::Query, Operation::Query, Some("Account"), Reach::Related),
        ] {
            assert!(rules.judge(&call(refused, vec![])).is_err());
        }
        for passes in [
            part(Family::Rest, Operation::Limits, None, Reach::Nothing),
            part(Family::Query, Operation::Query, None, Reach::Continued),
            part(Family::Versions, Operation::Read, None, Reach::Nothing),
        ] {
            assert_eq!(rules.judge(&call(passes, vec![])), Ok(()));
        }
    }
}
