//! What may be kept, for how long, and for whom: the operator's rules, arranged for looking up.

use std::time::Duration;

use ahash::AHashMap;

use super::failures::Remembering;
use super::question::{Kind, Question};
use super::touch::{Lower, lower};
use crate::call::{Call, CallerId, Family, ObjectName, Operation, OrgId, Principal};

/// Standard objects whose writes change rows, or the right to see rows, of others: amounts and counts that are summed up,
/// the last activity, and access to what belongs to an account.
const STANDARD: [(&str, &[&str]); 11] = [
    ("account", &["contact", "opportunity", "case", "contract", "order", "asset"]),
    ("campaignmember", &["campaign", "lead", "contact"]),
    ("casecomment", &["case"]),
    ("emailmessage", &["case"]),
    ("event", &["account", "contact", "lead", "opportunity", "case"]),
    ("opportunity", &["campaign"]),
    ("opportunitylineitem", &["opportunity", "campaign"]),
    ("orderitem", &["order"]),
    ("quote", &["opportunity"]),
    ("quotelineitem", &["quote", "opportunity", "opportunitylineitem"]),
    ("task", &["account", "contact", "lead", "opportunity", "case"]),
];

/// One entry of the operator's list. A list that is absent matches all.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// To which orgs.
    pub orgs: Option<Vec<OrgId>>,
    /// Of whom.
    pub callers: Option<Vec<CallerId>>,
    /// By which APIs.
    pub families: Option<Vec<Family>>,
    /// About which objects; every object a query reads must be among them.
    pub objects: Option<Vec<ObjectName>>,
    /// Which reads.
    pub operations: Option<Vec<Operation>>,
    /// How long an answer is given out.
    pub fresh: Duration,
    /// How much longer, if Salesforce cannot be asked.
    pub stale_if_error: Duration,
    /// How much longer, while Salesforce is asked for a newer one.
    pub stale_while_revalidate: Duration,
}

/// The operator's rules.
#[derive(Debug)]
pub struct Rules {
    entries: Vec<(Entry, Option<Vec<Lower>>)>,
    /// How long a session is entitled after Salesforce accepted it.
    pub recheck: Duration,
    /// Longer answers are not kept, in bytes.
    pub largest: usize,
    /// Request headers, in lower case, that change no answer besides those that are known.
    pub harmless: Vec<Box<str>>,
    /// Descriptions the gateway itself may ask for in an hour, of each org.
    pub describes: usize,
    along: AHashMap<Lower, Vec<Lower>>,
    keeps_rows: bool,
    /// Which failures are remembered; `None`: none.
    pub failures: Option<Remembering>,
    /// The number of the group a caller shares answers with.
    groups: AHashMap<CallerId, u32>,
}

impl Rules {
    /// Rules in the order in which they are tried. `along` names objects whose writes change others.
    pub fn new(
        entries: Vec<Entry>,
        along: &[(ObjectName, Vec<ObjectName>)],
        harmless: Vec<Box<str>>,
        recheck: Duration,
        largest: usize,
        describes: usize,
    ) -> Self {
        let along = changes_along(along);
        let keeps_rows = entries.iter().any(|entry| {
            entry
                .operations
                .as_ref()
                .is_none_or(|list| list.iter().any(|operation| matches!(operation, Operation::Read | Operation::Query)))
        });
        let entries = entries
            .into_iter()
            .map(|entry| {
                let objects = entry.objects.as_ref().map(|names| names.iter().map(|name| lower(name)).collect());
                (entry, objects)
            })
            .collect();
        Self {
            entries,
            recheck,
            largest,
            harmless,
            describes,
            along,
            keeps_rows,
            failures: None,
            groups: AHashMap::new(),
        }
    }

    /// The same rules, under which the callers of each group share answers.
    #[must_use]
    pub fn with_same_rights(mut self, groups: &[Vec<CallerId>]) -> Self {
        for (number, callers) in (0..).zip(groups) {
            self.groups.extend(callers.iter().map(|caller| (*caller, number)));
        }
        self
    }

    /// The same rules, under which failures are remembered.
    #[must_use]
    pub fn with_failures(mut self, failures: Option<Remembering>) -> Self {
        self.failures = failures;
        self
    }

    /// For whom the answers of `call` are kept: its principal, or all of a group of callers with the same rights.
    pub fn kept_for(&self, call: &Call) -> Principal {
        match self.groups.get(&call.caller) {
            Some(number) if call.principal != Principal::NOBODY => {
                // No hash: those are equal to it as seldom as to each other.
                let mut group = *b"same rights:____";
                if let Some(end) = group.last_chunk_mut::<4>() {
                    *end = number.to_be_bytes();
                }
                Principal(group)
            }
            _ => call.principal,
        }
    }

    /// Whether anything but descriptions is kept.
    pub fn keeps_rows(&self) -> bool {
        self.keeps_rows
    }

    /// Whether changes of rows matter to anything that is remembered.
    pub fn follows_rows(&self) -> bool {
        self.keeps_rows || self.failures.is_some()
    }

    /// Whether any entry may cover a question of this kind, from what is known of every call.
    pub fn may_cover(&self, kind: Kind, call: &Call) -> bool {
        let named = |names: &Vec<Lower>| {
            let object = call.meaning.object.as_deref();
            object.is_some_and(|object| names.iter().any(|name| name.eq_ignore_ascii_case(object)))
        };
        self.of(kind, call).any(|(_, objects)| objects.as_ref().is_none_or(named))
    }

    /// Whether queries that read `name` may be kept.
    pub fn keeps_queries_of(&self, name: &Lower) -> bool {
        let listed = |objects: &Option<Vec<Lower>>| objects.as_ref().is_some_and(|names| names.contains(name));
        let queries = |entry: &Entry| entry.operations.as_ref().is_none_or(|list| list.contains(&Operation::Query));
        self.entries.iter().any(|(entry, objects)| queries(entry) && listed(objects))
    }

    /// The first entry that covers `question`, which is what `call` asks.
    pub fn entry(&self, call: &Call, question: &Question) -> Option<&Entry> {
        let asked = question.deps.objects();
        let covers = |objects: &Option<Vec<Lower>>| {
            objects.as_ref().is_none_or(|names| asked.iter().all(|name| names.contains(name)))
        };
        self.of(question.kind, call).find(|(_, objects)| covers(objects)).map(|(entry, _)| entry)
    }

    /// The entries about such calls, whatever their objects.
    fn of(&self, kind: Kind, call: &Call) -> impl Iterator<Item = &(Entry, Option<Vec<Lower>>)> {
        let (org, caller, family, operation) = (call.org, call.caller, call.meaning.family, call.meaning.operation);
        self.entries.iter().filter(move |(entry, objects)| {
            listed(entry.orgs.as_ref(), &org)
                && listed(entry.callers.as_ref(), &caller)
                && listed(entry.families.as_ref(), &family)
                && listed(entry.operations.as_ref(), &operation)
                // The list of all objects, and what is used, are about no single one; rows are kept of none that is not named.
                && if objects.is_some() { !matches!(kind, Kind::Global | Kind::Limits) } else { !kind.is_of_rows() }
        })
    }

    /// Objects that change along with `name`.
    pub fn changes_along(&self, name: &Lower) -> impl Iterator<Item = &Lower> {
        self.along.get(name).into_iter().flatten()
    }
}

/// By the object that is written: what changes along with it. What the operator says is followed to its end; what Salesforce
/// does by itself is one step.
fn changes_along(said: &[(ObjectName, Vec<ObjectName>)]) -> AHashMap<Lower, Vec<Lower>> {
    let said: AHashMap<Lower, Vec<Lower>> =
        said.iter().map(|(name, others)| (lower(name), others.iter().map(|other| lower(other)).collect())).collect();
    let standard =
        |name: &Lower| STANDARD.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, others)| others);
    let names = said.keys().cloned().chain(STANDARD.iter().map(|(name, _)| lower(name)));
    names
        .map(|name| {
            let mut found: Vec<Lower> = standard(&name).iter().map(|other| lower(other)).collect();
            found.extend(said.get(&name).into_iter().flatten().cloned());
            let mut at = 0;
            while let Some(next) = found.get(at).cloned() {
                for other in said.get(&next).into_iter().flatten() {
                    if !found.contains(other) {
                        found.push(other.clone());
                    }
                }
                at += 1;
            }
            (name, found)
        })
        .collect()
}

fn listed<T: PartialEq>(list: Option<&Vec<T>>, member: &T) -> bool {
    list.is_none_or(|list| list.contains(member))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn what_the_operator_says_is_followed_to_its_end() {
        let name = ObjectName::new_static;
        let along = changes_along(&[
            (name("A__c"), vec![name("B__c")]),
            (name("B__c"), vec![name("C__c"), name("A__c")]),
            (name("Task"), vec![name("A__c")]),
        ]);
        let of = |object: &str| along.get(object).map(|others| others.join(" ")).unwrap_or_default();
        assert_eq!(of("a__c"), "b__c c__c a__c");
        assert_eq!(of("task"), "account contact lead opportunity case a__c b__c c__c");
        assert_eq!(of("account"), "contact opportunity case contract order asset");
        assert_eq!(of("c__c"), "");
    }

    /// Rules that keep rows of every object named here.
    pub(in crate::answers) fn keeping_rows() -> Rules {
        let entry = Entry {
            objects: Some(["Account", "Lead", "Contact"].map(ObjectName::new_static).to_vec()),
            operations: Some(vec![Operation::Read, Operation::Query]),
            fresh: Duration::from_mins(1),
            ..Entry::default()
        };
        let along = [(ObjectName::new_static("Invoice__c"), vec![ObjectName::new_static("Product2")])];
        Rules::new(vec![entry], &along, vec!["x-acme-team".into()], Duration::from_mins(5), 1 << 20, 10)
    }
}
