//! What a call may change, from what is known of it before it is sent.
//!
//! Only what is certain is narrow: a row by its id, an object by its name. A delete may take rows of other objects with it, so
//! it touches the rows of all. Who may see what depends on a few objects of the org's own; writing them touches everything,
//! and so does whatever this gateway does not know: Apex, actions, metadata, unknown paths.

use memchr::{memchr, memrchr};
use smallvec::smallvec;

use super::rules::Rules;
use super::touch::{Lower, RowId, Touch, Touches, lower};
use crate::call::{Call, Family, Idempotency, Meaning, Operation, Part, Reach};

/// Objects whose rows decide who may see what, in lower case; also all that end in `share`.
const VISIBILITY: [&str; 20] = [
    "accountteammember",
    "caseteammember",
    "opportunityteammember",
    "territory2model",
    "user",
    "userrole",
    "profile",
    "permissionset",
    "permissionsetassignment",
    "permissionsetgroup",
    "permissionsetgroupcomponent",
    "permissionsetlicenseassign",
    "objectpermissions",
    "fieldpermissions",
    "group",
    "groupmember",
    "queuesobject",
    "userterritory2association",
    "objectterritory2association",
    "territory2",
];

/// More than this is no longer told apart.
const MAX_TOUCHES: usize = 64;

/// What `call`, to `path`, may change, with what the operator says changes along with it.
pub fn effect(call: &Call, path: &str, rules: &Rules) -> Touches {
    let meaning = &call.meaning;
    if meaning.idempotency == Idempotency::Safe {
        return Touches::new();
    }
    with_what_changes_along(direct(meaning, path), rules)
}

/// `touches`, and what the operator or Salesforce's own roll-ups say changes along with them. What nothing that is kept
/// depends on is left out.
pub fn with_what_changes_along(mut touches: Touches, rules: &Rules) -> Touches {
    let along: Touches = touches
        .iter()
        .filter_map(|touch| match touch {
            Touch::Object(name) | Touch::Row(name, _) | Touch::New(name) => Some(name),
            Touch::Everything | Touch::Rows => None,
        })
        .flat_map(|name| rules.changes_along(name))
        .map(|other| Touch::Object(other.clone()))
        .collect();
    along.into_iter().for_each(|touch| add(&mut touches, touch));
    if !rules.follows_rows() {
        touches.retain(|touch| *touch == Touch::Everything);
    }
    touches
}

/// What writing rows of an object that is known by its name alone changes.
pub(super) fn of_object(name: &str) -> Touch {
    let name = lower(name);
    if decides_visibility(&name) { Touch::Everything } else { Touch::Object(name) }
}

fn direct(meaning: &Meaning, path: &str) -> Touches {
    let mut touches = Touches::new();
    match meaning.family {
        Family::Versions | Family::Oauth | Family::Cometd => {}
        Family::Rest => add(&mut touches, row(meaning, path)),
        Family::Composite | Family::Graph | Family::Batch | Family::Collections | Family::Tree | Family::Soap => {
            let metadata = meaning.template.starts_with("/services/Soap/")
                && !matches!(meaning.template, "/services/Soap/u/{version}" | "/services/Soap/c/{version}");
            if metadata {
                return smallvec![Touch::Everything];
            }
            let whole = Part {
                family: meaning.family,
                operation: meaning.operation,
                object: meaning.object.clone(),
                reach: meaning.reach,
            };
            if meaning.parts.is_empty() {
                // A container that could not be read may hold anything.
                let touch = if meaning.operation == Operation::Mixed {
                    Touch::Everything
                } else {
                    part(&whole).unwrap_or(Touch::Everything)
                };
                return smallvec![touch];
            }
            for touch in meaning.parts.iter().filter_map(part) {
                add(&mut touches, touch);
            }
        }
        Family::Ui | Family::Connect => match meaning.operation {
            Operation::Create | Operation::Update | Operation::Upsert | Operation::Delete => touches.push(Touch::Rows),
            _ => touches.push(Touch::Everything),
        },
        // What a job changes, it changes later: see `super::jobs`.
        Family::Bulk1 | Family::Bulk2 if meaning.operation == Operation::Job => {}
        _ => touches.push(Touch::Everything),
    }
    touches
}

/// What a write of rows under `/sobjects/` changes.
fn row(meaning: &Meaning, path: &str) -> Touch {
    let Meaning { operation, object, reach, template, .. } = meaning;
    let whole = Part { family: Family::Rest, operation: *operation, object: object.clone(), reach: *reach };
    match (part(&whole).unwrap_or(Touch::Everything), *operation, *template) {
        (Touch::Object(name), Operation::Create, "/services/data/{version}/sobjects/{object}") => Touch::New(name),
        (Touch::Object(name), Operation::Update, ROW) => match last_segment(path).and_then(RowId::parse) {
            Some(id) => Touch::Row(name, id),
            None => Touch::Object(name),
        },
        (touch, ..) => touch,
    }
}

/// The template of one row by its id.
pub(super) const ROW: &str = "/services/data/{version}/sobjects/{object}/{id}";

/// The last segment of a path without escapes.
pub(super) fn last_segment(path: &str) -> Option<&str> {
    let path = memchr(b'?', path.as_bytes()).and_then(|end| path.get(..end)).unwrap_or(path);
    if memchr(b'%', path.as_bytes()).is_some() {
        return None;
    }
    let mut path = path;
    while let Some(shorter) = path.strip_suffix('/') {
        path = shorter;
    }
    memrchr(b'/', path.as_bytes()).map_or(Some(path), |at| path.get(at + 1..))
}

/// What one part of a request changes.
fn part(part: &Part) -> Option<Touch> {
    use Operation as Op;

    match part.family {
        Family::Rest
        | Family::Composite
        | Family::Graph
        | Family::Batch
        | Family::Collections
        | Family::Tree
        | Family::Soap => {}
        Family::Query | Family::Search | Family::Versions => return None,
        // A subrequest of another API may do whatever that API can.
        _ if matches!(part.operation, Op::Read | Op::Query | Op::Search | Op::Describe | Op::Limits) => return None,
        _ => return Some(Touch::Everything),
    }
    match part.operation {
        // An envelope inside an envelope: what it holds stands among the parts too.
        Op::Read | Op::Query | Op::Search | Op::Describe | Op::Limits | Op::Login | Op::Mixed => None,
        Op::Delete => Some(Touch::Rows),
        Op::Create | Op::Update | Op::Upsert => {
            let Some(name) = part.object.as_deref().filter(|_| part.reach == Reach::Named) else {
                return Some(Touch::Everything);
            };
            // Behind a path of rows a POST may be meant for one that is there.
            let new = part.operation == Op::Create && part.family != Family::Rest;
            Some(match of_object(name) {
                Touch::Object(name) if new => Touch::New(name),
                touch => touch,
            })
        }
        Op::Execute | Op::Job | Op::Poll | Op::Unknown => Some(Touch::Everything),
    }
}

fn decides_visibility(name: &Lower) -> bool {
    VISIBILITY.contains(&name.as_str()) || name.ends_with("share")
}

/// Adds `touch` unless it is there; what is too much is anything.
fn add(touches: &mut Touches, touch: Touch) {
    if touches.contains(&touch) {
        return;
    }
    if touches.len() >= MAX_TOUCHES {
        touches.clear();
        touches.push(Touch::Everything);
        return;
    }
    touches.push(touch);
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::super::rules::tests::keeping_rows;
    use super::*;
    use crate::call::{CallerId, Class, OrgId, Principal};
    use crate::salesforce::{Costs, read_body, understand};

    fn call(method: &Method, path: &str, body: &str) -> Call {
        let mut meaning = understand(method, path, &Costs::default());
        let _ = read_body(&mut meaning, body.as_bytes(), &Costs::default());
        Call {
            org: OrgId(0),
            caller: CallerId(0),
            principal: Principal::NOBODY,
            class: Class::Standard,
            meaning,
            deadline: None,
        }
    }

    fn of(method: &Method, path: &str, body: &str) -> Vec<Touch> {
        let path = format!("/services/data/v62.0/{path}");
        effect(&call(method, &path, body), &path, &keeping_rows()).into_vec()
    }

    fn object(name: &str) -> Touch {
        Touch::Object(lower(name))
    }

    #[test]
    fn rows_are_touched_as_narrowly_as_they_are_named() {
        let id = "001D000000IqhSLIAZ";
        let row = Touch::Row(lower("Lead"), RowId::parse(id).unwrap());
        assert_eq!(of(&Method::PATCH, &format!("sobjects/LEAD/{id}"), "{}"), std::slice::from_ref(&row));
        assert_eq!(of(&Method::POST, &format!("sobjects/Lead/{id}?_HttpMethod=PATCH"), "{}"), [row]);
        assert_eq!(of(&Method::POST, "sobjects/Lead", "{}"), [Touch::New(lower("lead"))]);
        assert_eq!(of(&Method::DELETE, &format!("sobjects/Lead/{id}"), ""), [Touch::Rows]);
        assert_eq!(of(&Method::PATCH, "sobjects/Lead/Key__c/7", "{}"), [object("lead")]);
        assert_eq!(of(&Method::PATCH, "sobjects/Lead/%30%30%31D000000IqhSL", "{}"), [object("lead")]);
        assert_eq!(of(&Method::PATCH, &format!("sobjects/Lead/{id}/Owner"), "{}"), [Touch::Everything]);
    }

    #[test]
    fn containers_touch_what_their_parts_touch() {
        let composite = |parts: &str| of(&Method::POST, "composite", &format!("{{\"compositeRequest\":[{parts}]}}"));
        let part = |method: &str, url: &str| {
            format!(
                "{{\"method\":\"{method}\",\"url\":\"/services/data/v62.0/{url}\",\"referenceId\":\"r\",\"body\":{{}}}}"
            )
        };
        assert_eq!(composite(&part("GET", "sobjects/Lead/001D000000IqhSL")), []);
        assert_eq!(composite(&part("PATCH", "sobjects/Lead/001D000000IqhSL")), [object("lead")]);
        assert_eq!(composite(&part("POST", "sobjects/Lead")), [object("lead")]);
        assert_eq!(composite(&part("DELETE", "sobjects/Lead/001D000000IqhSL")), [Touch::Rows]);
        assert_eq!(composite(&part("PATCH", "tooling/sobjects/ApexClass/01pD000000IqhSL")), [Touch::Everything]);
        assert_eq!(composite(&part("POST", "actions/custom/flow/F")), [Touch::Everything]);
        assert_eq!(composite("garbage"), [Touch::Everything]);
        let records = r#"{"records":[{"attributes":{"type":"Lead"}},{"attributes":{"type":"Product2"}}]}"#;
        assert_eq!(of(&Method::PATCH, "composite/sobjects", records), [object("lead"), object("product2")]);
        assert_eq!(of(&Method::PATCH, "composite/sobjects", "{"), [Touch::Everything]);
        assert_eq!(of(&Method::DELETE, "composite/sobjects?ids=001D000000IqhSL", ""), [Touch::Rows]);
        let tree = r#"{"records":[{"attributes":{"type":"Lead","referenceId":"a"},"Xs":{"records":[{"attributes":{"type":"X__c","referenceId":"b"}}]}}]}"#;
        assert_eq!(
            of(&Method::POST, "composite/tree/Lead", tree),
            [Touch::New(lower("lead")), Touch::New(lower("x__c"))]
        );
        assert_eq!(of(&Method::POST, "composite/tree/Lead", "["), [Touch::Everything]);
    }

    #[test]
    fn what_is_not_known_touches_everything() {
        for (method, path) in [
            (Method::POST, "actions/standard/emailSimple"),
            (Method::POST, "tooling/sobjects/ApexClass"),
            (Method::GET, "tooling/executeAnonymous?anonymousBody=x"),
            (Method::POST, "nonsense"),
            (Method::POST, "graphql"),
            (Method::PATCH, "sobjects/User/005D000000IqhSL"),
            (Method::POST, "sobjects/PermissionSetAssignment"),
            (Method::POST, "sobjects/AccountShare"),
            (Method::POST, "metadata/deployRequest"),
        ] {
            assert_eq!(of(&method, path, ""), [Touch::Everything], "{method} {path}");
        }
        for path in
            ["/services/apexrest/x", "/services/Soap/class/X", "/services/Soap/m/62.0", "/services/Soap/T/62.0", "/"]
        {
            assert_eq!(
                effect(&call(&Method::POST, path, ""), path, &keeping_rows()).as_slice(),
                [Touch::Everything],
                "{path}"
            );
        }
        assert_eq!(of(&Method::PATCH, "ui-api/records/001D000000IqhSL", "{}"), [Touch::Rows]);
    }

    #[test]
    fn what_only_reads_touches_nothing() {
        for (method, path, body) in [
            (Method::GET, "sobjects/Lead/001D000000IqhSL", ""),
            (Method::GET, "query?q=SELECT+Id+FROM+Lead", ""),
            (Method::POST, "parameterizedSearch", r#"{"q":"x"}"#),
            (Method::POST, "graphql", r#"{"query":"query { uiapi { query { Account { edges { node { Id } } } } } }"}"#),
            (Method::POST, "composite/sobjects/Lead", r#"{"ids":[],"fields":[]}"#),
        ] {
            assert_eq!(of(&method, path, body), [], "{method} {path}");
        }
    }

    #[test]
    fn soap_touches_what_its_operations_name() {
        let soap = |body: &str| {
            let envelope = format!("<Envelope><Header/><Body>{body}</Body></Envelope>");
            let path = "/services/Soap/u/62.0";
            effect(&call(&Method::POST, path, &envelope), path, &keeping_rows()).into_vec()
        };
        assert_eq!(soap("<query><queryString>SELECT Id FROM Lead</queryString></query>"), []);
        assert_eq!(soap("<create><sObjects><type>Lead</type></sObjects></create>"), [Touch::New(lower("lead"))]);
        assert_eq!(soap("<update><sObjects><type>Lead</type></sObjects></update>"), [object("lead")]);
        assert_eq!(soap("<delete><ids>001D000000IqhSL</ids></delete>"), [Touch::Rows]);
        assert_eq!(soap("<undelete><ids>001D000000IqhSL</ids></undelete>"), [Touch::Everything]);
        assert_eq!(soap("<merge><request/></merge>"), [Touch::Everything]);
    }

    #[test]
    fn what_changes_along_is_touched_too() {
        // Standard roll-ups, and then those the operator names.
        let touched = of(&Method::POST, "sobjects/OpportunityLineItem", "{}");
        assert!(touched.contains(&object("opportunity")), "{touched:?}");
        let touched = of(&Method::PATCH, "sobjects/Invoice__c/a00D000000IqhSL", "{}");
        assert!(touched.contains(&object("product2")), "{touched:?}");
    }
}
