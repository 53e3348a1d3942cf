//! Sending again only what failed of a request, and putting what comes of it into the answer: for collections and composites
//! that are not all or none, of which some records were locked (facts 2.6, 3.6, 3.7).
//!
//! Bytes are cut and joined; nothing else of request or answer is touched. Whatever is in doubt is left as it is.

use std::ops::Range;

use memchr::memmem;
use smallvec::SmallVec;

use super::walk::Walk;
use super::{Executed, Kind, Partial};
use crate::call::Family;

/// Where the parts of a request or an answer stand in it, and where the list of them does, brackets included.
struct List {
    inside: Range<usize>,
    items: Vec<Range<usize>>,
}

/// The places of the parts of an answer that only found a record locked, and were rolled back. None if the answer was not read
/// to its end.
pub fn locked(found: &Partial) -> Vec<u32> {
    let whole = found.whole && found.list.len() as u32 == found.failed;
    let locked = found
        .list
        .iter()
        .filter(|failed| whole && failed.verdict.kind == Kind::Lock && failed.verdict.executed == Executed::No);
    locked.map(|failed| failed.at).collect()
}

/// The places among `places` of a request that can be sent again by themselves, and a request that holds only those.
/// `answer` is what came of the whole one. `None` if there are none, or the request is all or none.
pub fn only(family: Family, request: &[u8], answer: &[u8], places: &[u32]) -> Option<(Vec<u32>, Vec<u8>)> {
    let (asked, answered) = (asked(family, request)?, answered(family, answer)?);
    if asked.items.len() != answered.items.len() {
        return None;
    }
    let places: Vec<u32> = places
        .iter()
        .copied()
        .filter(|place| {
            let at = *place as usize;
            let (Some(item), Some(said)) = (asked.part(request, at), answered.part(answer, at)) else { return false };
            family == Family::Collections || stands_alone(request, item, said)
        })
        .collect();
    let items: Vec<&[u8]> = places.iter().filter_map(|place| asked.part(request, *place as usize)).collect();
    if items.is_empty() {
        return None;
    }
    let mut made = Vec::with_capacity(request.len());
    made.extend_from_slice(request.get(..asked.inside.start + 1)?);
    made.extend_from_slice(&items.join(&b','));
    made.extend_from_slice(request.get(asked.inside.end - 1..)?);
    Some((places, made))
}

/// The same for `?ids=a,b,c`.
pub fn only_ids(target: &str, total: u32, places: &[u32]) -> Option<String> {
    let (path, query) = target.split_once('?')?;
    let mut made: SmallVec<[String; 4]> = SmallVec::new();
    let mut seen = false;
    for member in query.split('&') {
        let (name, value) = member.split_once('=').unwrap_or((member, ""));
        match name {
            "ids" if !seen => {
                seen = true;
                let value = value.replace("%2C", ",").replace("%2c", ",");
                let ids: Vec<&str> = value.split(',').collect();
                if ids.len() != total as usize || value.contains('%') {
                    return None;
                }
                let chosen: Vec<&str> = places.iter().filter_map(|place| ids.get(*place as usize).copied()).collect();
                made.push(format!("ids={}", chosen.join(",")));
            }
            "allOrNone" if value.eq_ignore_ascii_case("false") => made.push(member.to_owned()),
            // All or none, or spelt in a way nobody can be sure of.
            _ => return None,
        }
    }
    (seen && !places.is_empty()).then(|| format!("{path}?{}", made.join("&")))
}

/// `answer` with the parts at `places` replaced by those of `part`, which came of a request that held only them.
pub fn merged(family: Family, answer: &[u8], places: &[u32], part: &[u8]) -> Option<Vec<u8>> {
    let (whole, parts) = (answered(family, answer)?, answered(family, part)?);
    if parts.items.len() != places.len() || !places.is_sorted_by(|one, next| one < next) {
        return None;
    }
    let mut made = Vec::with_capacity(answer.len() + part.len());
    let mut from = 0;
    for (at, place) in places.iter().enumerate() {
        let old = whole.items.get(*place as usize)?;
        let new = parts.part(part, at)?;
        if family == Family::Composite && text(answer.get(old.clone())?, b"referenceId") != text(new, b"referenceId") {
            return None;
        }
        made.extend_from_slice(answer.get(from..old.start)?);
        made.extend_from_slice(new);
        from = old.end;
    }
    made.extend_from_slice(answer.get(from..)?);
    Some(made)
}

impl List {
    fn part<'a>(&self, bytes: &'a [u8], at: usize) -> Option<&'a [u8]> {
        bytes.get(self.items.get(at)?.clone())
    }
}

/// The parts of a request that is not all or none.
fn asked(family: Family, request: &[u8]) -> Option<List> {
    let name: &[u8] = match family {
        Family::Collections => b"records",
        Family::Composite => b"compositeRequest",
        _ => return None,
    };
    let (mut list, mut each, mut walk) = (None, true, Walk::new(request));
    walk.members(|member, walk| {
        match member {
            b"allOrNone" => each &= walk.value()? == b"false",
            member if member == name => {
                each &= list.is_none();
                list = Some(items(walk)?);
            }
            _ => walk.skip()?,
        }
        Some(())
    })?;
    list.filter(|_| each && walk.peek().is_none())
}

/// The parts of an answer.
fn answered(family: Family, answer: &[u8]) -> Option<List> {
    let mut walk = Walk::new(answer);
    let list = match family {
        Family::Collections => Some(items(&mut walk)?),
        Family::Composite => {
            let mut list = None;
            walk.members(|name, walk| {
                if name != b"compositeResponse" || list.is_some() {
                    return walk.skip();
                }
                list = Some(items(walk)?);
                Some(())
            })?;
            list
        }
        _ => None,
    };
    list.filter(|_| walk.peek().is_none())
}

fn items(walk: &mut Walk<'_>) -> Option<List> {
    let mut items = Vec::new();
    walk.peek()?;
    let start = walk.place();
    walk.items(|walk| {
        items.push(walk.span()?);
        Some(())
    })?;
    Some(List { inside: start..walk.place(), items })
}

/// Whether a subrequest failed by itself, needs nothing of others, and nothing of others needs it.
fn stands_alone(request: &[u8], item: &[u8], said: &[u8]) -> bool {
    let mut status = None;
    let read = Walk::new(said).members(|name, walk| {
        if name == b"httpStatusCode" {
            status = Some(walk.value()? == b"400");
            return Some(());
        }
        walk.skip()
    });
    let Some(name) = text(item, b"referenceId") else { return false };
    let needed = [b"@{", name].concat();
    let own = text(said, b"referenceId") == Some(name);
    read.is_some()
        && status == Some(true)
        && own
        && memmem::find(item, b"@{").is_none()
        && memmem::find(request, &needed).is_none()
}

/// The text of a member, if it is written without escapes.
fn text<'a>(object: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let mut found = None;
    Walk::new(object).members(|name, walk| {
        if name == wanted && walk.peek()? == b'"' {
            found = Some(walk.string()?);
            return Some(());
        }
        walk.skip()
    })?;
    found.filter(|text| !text.contains(&b'\\'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::super::scan;
    use super::*;

    fn bytes(value: &Value) -> Vec<u8> {
        value.to_string().into_bytes()
    }

    fn lock(id: usize) -> Value {
        json!({"success": false, "id": id, "errors": [{"statusCode": "UNABLE_TO_LOCK_ROW", "message": "x", "fields": []}]})
    }

    #[test]
    fn only_requests_that_are_not_all_or_none_are_cut() {
        let answer = bytes(&json!([lock(0), {"success": true}]));
        let cut = |request: Value| only(Family::Collections, &bytes(&request), &answer, &[0]).is_some();
        let records = json!([{"Name": "a"}, {"Name": "b"}]);
        assert!(cut(json!({"records": records})) && cut(json!({"allOrNone": false, "records": records})));
        assert!(
            !cut(json!({"allOrNone": true, "records": records}))
                && !cut(json!({"allOrNone": "false", "records": records}))
        );
        assert!(!cut(json!({"records": [1, 2, 3]})) && !cut(json!({"records": {}})) && !cut(json!([])));
        let twice = br#"{"records":[1,2],"records":[1,2]}"#;
        assert!(only(Family::Collections, twice, &answer, &[0]).is_none());
        assert!(only(Family::Tree, &bytes(&json!({"records": records})), &answer, &[0]).is_none());
    }

    #[test]
    fn subrequests_are_sent_again_only_if_they_stand_alone() {
        let sub = |name: &str, body: &str| json!({"method": "PATCH", "url": "/x", "referenceId": name, "body": {"Name": body}});
        let said = |name: &str, status: u16| json!({"httpStatusCode": status, "referenceId": name, "body": [{"errorCode": "UNABLE_TO_LOCK_ROW"}]});
        let request = bytes(
            &json!({"compositeRequest": [sub("a", ""), sub("b", "@{a.id}"), sub("c", ""), sub("d", ""), sub("e", "")]}),
        );
        let answer = json!({"compositeResponse": [said("a", 400), said("b", 400), said("c", 200), said("d", 400), said("x", 400)]});
        let (places, made) = only(Family::Composite, &request, &bytes(&answer), &[0, 1, 2, 3, 4]).unwrap();
        assert_eq!(places, [3], "a is needed, b needs, c was done, e is another");
        assert_eq!(serde_json::from_slice::<Value>(&made).unwrap(), json!({"compositeRequest": [sub("d", "")]}));
        let again = |name: &str| {
            bytes(&json!({"compositeResponse": [{"body": null, "httpStatusCode": 204, "referenceId": name}]}))
        };
        let done = merged(Family::Composite, &bytes(&answer), &places, &again("d")).unwrap();
        let mut wanted = answer.clone();
        wanted["compositeResponse"][3] = json!({"body": null, "httpStatusCode": 204, "referenceId": "d"});
        assert_eq!(serde_json::from_slice::<Value>(&done).unwrap(), wanted);
        assert_eq!(merged(Family::Composite, &bytes(&answer), &places, &again("a")), None, "the answer to another");
    }

    #[test]
    fn ids_in_a_query_string_are_chosen() {
        let path = "/services/data/v62.0/composite/sobjects";
        let chosen = |query: &str| only_ids(&format!("{path}?{query}"), 3, &[0, 2]);
        assert_eq!(chosen("ids=a,b,c"), Some(format!("{path}?ids=a,c")));
        assert_eq!(chosen("ids=a%2Cb%2cc&allOrNone=false"), Some(format!("{path}?ids=a,c&allOrNone=false")));
        for doubtful in ["ids=a,b,c&allOrNone=true", "ids=a,b", "ids=a,b,c&ids=d", "x=1&ids=a,b,c", "ids=a,%62,c", ""] {
            assert_eq!(chosen(doubtful), None, "{doubtful}");
        }
    }

    proptest! {
        #[test]
        fn a_merge_changes_nothing_but_what_was_sent_again(
            records in prop::collection::vec((any::<bool>(), any::<bool>(), "[ -~]{0,12}"), 1..30), pretty in any::<bool>(),
        ) {
            let write = |value: &Value| if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) }.unwrap();
            let request = write(&json!({
                "records": records.iter().enumerate().map(|(at, (_, _, name))| json!({"Name": name, "at": at})).collect::<Vec<_>>(),
                "allOrNone": false,
            }));
            let before: Vec<Value> = records.iter().enumerate()
                .map(|(at, (locked, _, name))| if *locked { lock(at) } else { json!({"success": true, "id": at, "note": name}) })
                .collect();
            let answer = write(&Value::from(before.clone()));
            let found = scan(Family::Collections, answer.as_bytes()).unwrap();
            let wanted: Vec<u32> = (0..records.len() as u32).filter(|at| records[*at as usize].0).collect();
            prop_assert_eq!(&locked(&found), &wanted);
            let Some((places, made)) = only(Family::Collections, request.as_bytes(), answer.as_bytes(), &wanted) else {
                prop_assert!(wanted.is_empty());
                return Ok(());
            };
            prop_assert_eq!(&places, &wanted);
            // Salesforce does what it is sent, in its order.
            let sent: Value = serde_json::from_slice(&made).unwrap();
            prop_assert_eq!(&sent["allOrNone"], &json!(false));
            let again: Vec<Value> = sent["records"].as_array().unwrap().iter()
                .map(|record| {
                    let at = record["at"].as_u64().unwrap() as usize;
                    if records[at].1 { json!({"success": true, "id": at, "again": true}) } else { lock(at) }
                })
                .collect();
            let done = merged(Family::Collections, answer.as_bytes(), &places, write(&Value::from(again)).as_bytes()).unwrap();
            let done: Vec<Value> = serde_json::from_slice(&done).unwrap();
            prop_assert_eq!(done.len(), before.len());
            for (at, (was_locked, done_now, _)) in records.iter().enumerate() {
                let expected = match (was_locked, done_now) {
                    (true, true) => json!({"success": true, "id": at, "again": true}),
                    _ => before[at].clone(),
                };
                prop_assert_eq!(&done[at], &expected, "record {}", at);
            }
        }

        #[test]
        fn any_bytes_are_survived(
            words in prop::collection::vec(prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\"records\"", "\"allOrNone\"", "false", "1", "\"", "\"compositeRequest\"", "\"compositeResponse\"",
            ]), 0..40),
            answer in prop::collection::vec(prop::sample::select(b"{}[]\",:1 ".to_vec()), 0..40),
            places in prop::collection::vec(0_u32..9, 0..4),
        ) {
            let request = words.concat();
            for family in [Family::Collections, Family::Composite] {
                let _ = only(family, request.as_bytes(), &answer, &places);
                let _ = only(family, &answer, request.as_bytes(), &places);
                let _ = merged(family, request.as_bytes(), &places, &answer);
            }
        }
    }
}
