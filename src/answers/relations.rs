//! Where relationship names lead: from what Salesforce said of its objects, which objects a query reads.
//!
//! `Owner.Name` or `(SELECT Id FROM Contacts)` names ways between objects, and only a description says where they lead
//! (facts 3.1, 7.2). What one user's descriptions told is believed for that user's queries alone: another may be shown more
//! of the same objects. It is forgotten after a while, and as soon as anything may have changed what objects look like. What
//! cannot be told is said to be unknown, and then nothing is kept.

use std::time::Duration;

use ahash::AHashMap;
use serde::Deserialize;
use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;

use super::touch::{Lower, lower};
use crate::call::Principal;
use crate::salesforce::soql::{Reads, Scope};

/// How long a description is believed.
const BELIEVED: Duration = Duration::from_hours(6);
/// Ways remembered in one org; beyond, all are forgotten and learnt anew.
const MAX_WAYS: usize = 100_000;
/// Objects one query may read.
const MAX_OBJECTS: usize = 32;
/// The time for which questions are counted.
const WINDOW: Duration = Duration::from_hours(1);
/// The same is not asked sooner.
const AGAIN: Duration = Duration::from_mins(1);

/// Objects by name, each once.
pub type Objects = SmallVec<[Lower; 2]>;

/// What a description says of the ways that begin at its object.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shape {
    parents: AHashMap<Lower, Objects>,
    children: AHashMap<Lower, Lower>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    name: String,
    #[serde(default)]
    fields: Vec<Field>,
    #[serde(default)]
    child_relationships: Vec<Child>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Field {
    #[serde(default)]
    relationship_name: Option<String>,
    #[serde(default)]
    reference_to: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Child {
    #[serde(rename = "childSObject")]
    object: String,
    #[serde(default)]
    relationship_name: Option<String>,
}

impl Shape {
    /// Reads the plain bytes of a description; `None` if they are none. With the object's name.
    pub fn read(plain: &[u8]) -> Option<(Lower, Self)> {
        let described: Described = serde_json::from_slice(plain).ok()?;
        let mut shape = Self::default();
        for field in described.fields {
            let Some(name) = field.relationship_name else { continue };
            let objects = shape.parents.entry(lower(&name)).or_default();
            for object in field.reference_to.iter().map(|object| lower(object)) {
                if !objects.contains(&object) {
                    objects.push(object);
                }
            }
        }
        for child in described.child_relationships {
            if let Some(name) = child.relationship_name {
                shape.children.insert(lower(&name), lower(&child.object));
            }
        }
        Some((lower(&described.name), shape))
    }

    fn ways(&self) -> usize {
        self.parents.values().map(SmallVec::len).sum::<usize>() + self.children.len()
    }
}

#[derive(Debug)]
struct Known {
    shape: Shape,
    until: Instant,
    /// The number of the last change when it was asked for.
    as_of: u64,
}

/// What is known of where a query leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolved {
    /// To these objects, its own among them.
    Objects(Objects),
    /// Nobody has described this object yet, or it is too long ago.
    Missing(Lower),
    /// It uses a name that is none, or that nobody can follow.
    Unknown,
}

/// What is known of the ways between the objects of one org.
#[derive(Debug, Default)]
pub struct Relations {
    known: AHashMap<(Principal, Lower), Known>,
    ways: usize,
    asked: AHashMap<(Principal, Lower), Instant>,
    asked_since: Option<Instant>,
    asked_times: usize,
}

impl Relations {
    /// Salesforce described `object` to `who`, in an answer whose call was sent when `as_of` was the last change.
    pub fn learn(&mut self, who: Principal, object: Lower, shape: Shape, as_of: u64, now: Instant) {
        let ways = shape.ways();
        if self.ways + ways > MAX_WAYS {
            self.known.clear();
            self.ways = 0;
            if ways > MAX_WAYS {
                return;
            }
        }
        self.ways += ways;
        let known = Known { shape, until: now + BELIEVED, as_of };
        if let Some(before) = self.known.insert((who, object), known) {
            self.ways = self.ways.saturating_sub(before.shape.ways());
        }
    }

    /// Where `reads` leads `who`. `changed` says when the look of an object last changed.
    pub fn resolve(
        &self,
        who: Principal,
        reads: &Reads,
        now: Instant,
        mut changed: impl FnMut(&Lower) -> u64,
    ) -> Resolved {
        let mut shape_of = |object: &Lower| {
            let known = self.known.get(&(who, object.clone()));
            let good = known.filter(|known| now < known.until && changed(object) <= known.as_of);
            good.map(|known| &known.shape).ok_or_else(|| Resolved::Missing(object.clone()))
        };
        let mut walk = || -> Result<Objects, Resolved> {
            let mut all = Objects::new();
            // Where each scope begins; a scope stands after the one it is in.
            let mut starts: Vec<Objects> = Vec::with_capacity(reads.scopes.len());
            for Scope { within, from, paths } in &reads.scopes {
                let start: Objects = match within {
                    None => smallvec![lower(from)],
                    Some(outer) => {
                        let way = lower(from);
                        let mut found = Objects::new();
                        for object in starts.get(*outer).ok_or(Resolved::Unknown)? {
                            found.extend(shape_of(object)?.children.get(&way).cloned());
                        }
                        found
                    }
                };
                add(&mut all, &start)?;
                for path in paths {
                    let mut at = start.clone();
                    for way in path.split('.').map(lower) {
                        let mut found = Objects::new();
                        for object in &at {
                            let parents = shape_of(object)?.parents.get(&way);
                            for parent in parents.into_iter().flatten() {
                                if !found.contains(parent) {
                                    found.push(parent.clone());
                                }
                            }
                        }
                        add(&mut all, &found)?;
                        at = found;
                    }
                }
                starts.push(start);
            }
            Ok(all)
        };
        match walk() {
            Ok(all) => Resolved::Objects(all),
            Err(why) => why,
        }
    }

    /// Whether the gateway may ask Salesforce to describe `object` to `who`: the same once a minute, and no more than `limit`
    /// an hour in all.
    pub fn may_ask(&mut self, who: Principal, object: &Lower, limit: usize, now: Instant) -> bool {
        if self.asked_since.is_none_or(|since| now >= since + WINDOW) {
            self.asked.clear();
            (self.asked_since, self.asked_times) = (Some(now), 0);
        }
        let asked = (who, object.clone());
        if self.asked_times >= limit || self.asked.get(&asked).is_some_and(|last| now < *last + AGAIN) {
            return false;
        }
        self.asked_times += 1;
        self.asked.insert(asked, now);
        true
    }
}

/// Adds objects to which a way leads. One that leads nowhere is not known.
fn add(all: &mut Objects, found: &[Lower]) -> Result<(), Resolved> {
    if found.is_empty() {
        return Err(Resolved::Unknown);
    }
    for object in found {
        if !all.contains(object) {
            if all.len() >= MAX_OBJECTS {
                return Err(Resolved::Unknown);
            }
            all.push(object.clone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::salesforce::soql;

    const WHO: Principal = Principal([1; 16]);

    const ACCOUNT: &str = r#"{"name":"Account","fields":[
        {"name":"OwnerId","relationshipName":"Owner","referenceTo":["Group","User"]},
        {"name":"ParentId","relationshipName":"Parent","referenceTo":["Account"]},
        {"name":"Name","relationshipName":null,"referenceTo":[]}],
        "childRelationships":[{"childSObject":"Contact","field":"AccountId","relationshipName":"Contacts"},
        {"childSObject":"AccountHistory","field":"AccountId","relationshipName":null}]}"#;
    const CONTACT: &str = r#"{"name":"Contact","fields":[
        {"relationshipName":"Account","referenceTo":["Account"]},{"relationshipName":"Owner","referenceTo":["User"]}],
        "childRelationships":[{"childSObject":"Case","relationshipName":"Cases"}]}"#;
    const USER: &str = r#"{"name":"User","fields":[{"relationshipName":"Profile","referenceTo":["Profile"]}]}"#;
    const GROUP: &str =
        r#"{"name":"Group","fields":[{"relationshipName":"Owner","referenceTo":["Organization","User"]}]}"#;

    fn taught(texts: &[&str], now: Instant) -> Relations {
        let mut relations = Relations::default();
        for text in texts {
            let (object, shape) = Shape::read(text.as_bytes()).unwrap();
            relations.learn(WHO, object, shape, 5, now);
        }
        relations
    }

    fn resolve(relations: &Relations, who: Principal, soql: &str, now: Instant) -> String {
        let Ok(reads) = soql::reads(soql) else { return "doubt".to_owned() };
        match relations.resolve(who, &reads, now, |_| 5) {
            Resolved::Objects(objects) => objects.join(" "),
            Resolved::Missing(object) => format!("missing {object}"),
            Resolved::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn a_query_reads_what_its_ways_lead_to() {
        let now = Clock::start().now();
        let all = taught(&[ACCOUNT, CONTACT, USER, GROUP], now);
        for (soql, objects) in [
            ("SELECT Id FROM Account", "account"),
            ("SELECT Owner.Name FROM Account", "account group user"),
            ("SELECT owner.profile.name FROM ACCOUNT", "account group user profile"),
            ("SELECT a.Parent.Owner.Name FROM Account a", "account group user"),
            ("SELECT Id FROM Contact WHERE Account.Parent.Name = 'x' ORDER BY Owner.Name", "contact account user"),
            ("SELECT COUNT(Account.Name) FROM Contact GROUP BY Account.Owner.Name", "contact account group user"),
            ("SELECT Id, (SELECT Id, Owner.Name FROM Contacts) FROM Account", "account contact user"),
            ("SELECT Id, (SELECT Id FROM a.Contacts c) FROM Account a", "account contact"),
            ("SELECT Id, (SELECT Id FROM Account.Contacts) FROM Account", "account contact"),
            ("SELECT Id, (SELECT Id, (SELECT Id FROM Cases) FROM Contacts) FROM Account", "account contact case"),
            (
                "SELECT Owner.Name FROM Contact WHERE AccountId IN (SELECT Id FROM Account WHERE Owner.Name = 'x')",
                "contact user account group",
            ),
            ("SELECT TYPEOF Owner WHEN User THEN Phone ELSE Name END FROM Account", "account group user"),
            ("SELECT TYPEOF Parent.Owner WHEN User THEN Phone END FROM Account", "account group user"),
            // What leads nowhere, or is not said where it leads.
            ("SELECT Nope.Name FROM Account", "unknown"),
            ("SELECT Id, (SELECT Id FROM Nopes) FROM Account", "unknown"),
            ("SELECT Id, (SELECT Id FROM x.Contacts) FROM Account a", "doubt"),
            ("SELECT TYPEOF Owner WHEN User THEN Profile.Name END FROM Account", "doubt"),
            ("SELECT a.Name FROM Contact c, c.Account a", "doubt"),
            ("SELECT Cases.Id FROM Contact", "unknown"),
            ("SELECT Account.Contacts.Id FROM Contact", "unknown"),
        ] {
            assert_eq!(resolve(&all, WHO, soql, now), objects, "{soql}");
        }
        let few = taught(&[CONTACT], now);
        assert_eq!(resolve(&few, WHO, "SELECT Account.Owner.Name FROM Contact", now), "missing account");
        assert_eq!(resolve(&few, WHO, "SELECT Owner.Name FROM Lead", now), "missing lead");
        assert_eq!(resolve(&few, WHO, "SELECT Id FROM Lead WHERE Id IN (SELECT Id FROM Case)", now), "lead case");
    }

    #[test]
    fn what_one_was_told_is_not_believed_for_another_nor_for_ever() {
        let now = Clock::start().now();
        let told = taught(&[CONTACT], now);
        let soql = "SELECT Account.Name FROM Contact";
        assert_eq!(resolve(&told, WHO, soql, now), "contact account");
        assert_eq!(resolve(&told, Principal([2; 16]), soql, now), "missing contact");
        assert_eq!(resolve(&told, WHO, soql, now + BELIEVED), "missing contact");
        let reads = soql::reads(soql).unwrap();
        assert_eq!(
            told.resolve(WHO, &reads, now, |_| 6),
            Resolved::Missing(lower("Contact")),
            "it may look otherwise now"
        );
    }

    #[test]
    fn questions_and_what_is_remembered_are_bounded() {
        let now = Clock::start().now();
        let mut relations = Relations::default();
        let object = |number: usize| lower(&format!("O{number}__c"));
        let asked = (0..10).filter(|number| relations.may_ask(WHO, &object(*number), 4, now)).count();
        assert_eq!(asked, 4);
        assert!(!relations.may_ask(WHO, &object(0), 100, now), "just asked");
        assert!(relations.may_ask(WHO, &object(0), 100, now + AGAIN));
        assert!(relations.may_ask(WHO, &object(0), 4, now + WINDOW));
        for number in 0..300 {
            let parents = (0..1_000).map(|way| (lower(&format!("W{way}__r")), smallvec![lower("Account")])).collect();
            relations.learn(WHO, object(number), Shape { parents, ..Shape::default() }, 0, now);
            assert!(relations.ways <= MAX_WAYS);
            assert_eq!(relations.ways, relations.known.values().map(|known| known.shape.ways()).sum::<usize>());
        }
        relations.learn(WHO, object(299), Shape::default(), 0, now);
        assert_eq!(relations.ways, relations.known.values().map(|known| known.shape.ways()).sum::<usize>());
    }

    #[test]
    fn what_is_no_description_teaches_nothing() {
        for text in ["", "[]", "{}", "<x/>", r#"{"name":5}"#] {
            assert_eq!(Shape::read(text.as_bytes()), None, "{text}");
        }
    }
}
