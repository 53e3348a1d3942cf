//! Policy: may this caller make this call, and every call hidden inside it?
//!
//! A caller's rules list the families, objects and operations it may use; what is not listed is refused, and a caller
//! without rules may do anything its Salesforce user may. Subrequests of composite, batch and graph, and the
//! operation inside a SOAP envelope, are judged one by one: a request is refused if any part of it is.
//! Policy adds to Salesforce's permissions and never replaces them.

use std::task::{Context, Poll};

use ahash::AHashSet;
use tower::{Layer, Service};

use crate::call::{Call, Family, Operation, Part};
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
    objects: Option<AHashSet<Box<str>>>,
}

impl Rules {
    /// Rules that allow only what the given lists name; object names are compared without case.
    pub fn new(families: Option<&[Family]>, objects: Option<&[String]>, operations: Option<&[Operation]>) -> Self {
        Self {
            families: families.map(|list| list.iter().fold(0, |bits, family| bits | 1 << family.index())),
            operations: operations.map(|list| list.iter().fold(0, |bits, operation| bits | 1 << operation.index())),
            objects: objects.map(|list| list.iter().map(|name| name.to_ascii_lowercase().into_boxed_str()).collect()),
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
        if self.allow_everything() {
            return Ok(());
        }
        let meaning = &call.meaning;
        if meaning.parts.is_empty() {
            let whole = Part { family: meaning.family, operation: meaning.operation, object: meaning.object.clone() };
            return self.judge_part(&whole);
        }
        // The envelope itself must be allowed as a family; what it does is judged by its parts.
        self.judge_family(meaning.family)?;
        meaning.parts.iter().enumerate().try_for_each(|(place, part)| {
            self.judge_part(part).map_err(|why| format!("{why} (subrequest {})", place + 1))
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

    fn judge_part(&self, part: &Part) -> Result<(), String> {
        // Discovering which API versions exist reveals nothing of the org and costs nothing.
        if part.family == Family::Versions {
            return Ok(());
        }
        self.judge_family(part.family)?;
        if let Some(bits) = self.operations
            && bits & (1 << part.operation.index()) == 0
        {
            return Err(format!("This caller's rules do not allow the operation \"{}\".", part.operation));
        }
        if let Some(objects) = &self.objects {
            match &part.object {
                Some(object) if objects.contains(object.to_ascii_lowercase().as_str()) => {}
                Some(object) => return Err(format!("This caller's rules do not allow the object \"{object}\".")),
                None if about_objects(part) => {
                    return Err("This caller's rules name the objects it may use, and this request's object cannot be told."
                        .to_owned());
                }
                None => {}
            }
        }
        Ok(())
    }
}

/// Whether a call without a known object may still reach records, so that object rules must refuse it.
fn about_objects(part: &Part) -> bool {
    !matches!(part.operation, Operation::Limits | Operation::Login | Operation::Poll)
        && !matches!(part.family, Family::Versions | Family::Oauth)
        && !(part.family == Family::Rest && matches!(part.operation, Operation::Describe))
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

impl<S> Service<Passage> for Policy<S>
where
    S: Service<Passage, Response = Reply, Error = Refusal>,
{
    type Response = Reply;
    type Error = Refusal;
    type Future = Way<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, passage: Passage) -> Self::Future {
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
    use crate::call::{ApiCalls, CallerId, Class, Idempotency, Meaning, OrgId, Principal};

    fn call(family: Family, operation: Operation, object: Option<&str>, parts: Vec<Part>) -> Call {
        Call {
            org: OrgId(0),
            caller: CallerId(0),
            principal: Principal::NOBODY,
            class: Class::Standard,
            deadline: None,
            meaning: Meaning {
                family,
                operation,
                object: object.map(Into::into),
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

    fn part(operation: Operation, object: &str) -> Part {
        Part { family: Family::Rest, operation, object: Some(object.into()) }
    }

    #[test]
    fn a_caller_without_rules_may_do_anything() {
        assert_eq!(Rules::default().judge(&call(Family::Apex, Operation::Execute, None, vec![])), Ok(()));
    }

    #[test]
    fn an_unlisted_family_object_or_operation_is_refused_by_name() {
        let rules = Rules::new(
            Some(&[Family::Rest]),
            Some(&["Account".to_owned()]),
            Some(&[Operation::Read, Operation::Describe]),
        );
        assert_eq!(rules.judge(&call(Family::Rest, Operation::Read, Some("account"), vec![])), Ok(()));
        for (refused, word) in [
            (call(Family::Query, Operation::Query, Some("Account"), vec![]), "query"),
            (call(Family::Rest, Operation::Delete, Some("Account"), vec![]), "delete"),
            (call(Family::Rest, Operation::Read, Some("Contact"), vec![]), "Contact"),
        ] {
            let why = rules.judge(&refused).unwrap_err();
            assert!(why.contains(word), "{why}");
        }
    }

    #[test]
    fn one_forbidden_subrequest_refuses_the_whole_composite() {
        let rules = Rules::new(None, Some(&["Account".to_owned()]), Some(&[Operation::Read]));
        let good = part(Operation::Read, "Account");
        let fine = call(Family::Composite, Operation::Mixed, None, vec![good.clone(), good.clone()]);
        assert_eq!(rules.judge(&fine), Ok(()));
        let hidden =
            call(Family::Composite, Operation::Mixed, None, vec![good, part(Operation::Delete, "Account")]);
        assert!(rules.judge(&hidden).unwrap_err().contains("subrequest 2"));
    }

    #[test]
    fn object_rules_refuse_what_cannot_be_told() {
        let rules = Rules::new(None, Some(&["Account".to_owned()]), None);
        assert!(rules.judge(&call(Family::Apex, Operation::Execute, None, vec![])).is_err());
        assert!(rules.judge(&call(Family::Other, Operation::Unknown, None, vec![])).is_err());
        assert_eq!(rules.judge(&call(Family::Rest, Operation::Limits, None, vec![])), Ok(()));
        assert_eq!(rules.judge(&call(Family::Versions, Operation::Read, None, vec![])), Ok(()));
    }
}
