//! Failures that are remembered: a request that fails the same permanent way again and again is answered with what
//! Salesforce said the last time, so that a loop that repeats it blindly costs no calls.
//!
//! A failure counts only if its request was sent after the one before had been answered, and if nothing it depends on has
//! changed since the first: so whoever corrects what was wrong is asked about at once. What is remembered ends after half a
//! minute at the latest; if Salesforce then says the same, it is remembered anew.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ahash::{AHashMap, RandomState};
use aws_lc_rs::digest::{Context, SHA256};
use http::Method;
use http::header::HeaderMap;
use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::effect::{ROW, last_segment};
use super::kept::Whole;
use super::question;
use super::touch::{Deps, RowId, lower};
use crate::call::{Call, Idempotency, Principal};
use crate::salesforce::taxonomy::{Executed, Kind, Verdict};

/// So often the same request fails the same way before it is answered from memory.
const TIMES: u32 = 3;
/// Failures that are told apart in one org.
const MOST: usize = 1_000;
/// Requests that differ by nothing but head and body.
const MOST_ALIKE: usize = 8;
/// A failure that came to its end is still known for so long: the next one like it is remembered at once.
const LINGERS: Duration = Duration::from_secs(30);

/// Codes about the form of a request, or about the API itself, whatever rows there are (facts 2.3).
const OF_FORM: [&str; 8] = [
    "API_CURRENTLY_DISABLED",
    "API_DISABLED_FOR_ORG",
    "INVALID_QUERY_FILTER_OPERATOR",
    "JSON_PARSER_ERROR",
    "MALFORMED_ID",
    "MALFORMED_QUERY",
    "MALFORMED_SEARCH",
    "METHOD_NOT_ALLOWED",
];

/// Request headers that decide nothing of a failure: they name the connection, the caller, or the credential, which is the
/// principal. All others do.
const IRRELEVANT: [&str; 14] = [
    "authorization",
    "cache-control",
    "connection",
    "content-length",
    "date",
    "host",
    "pragma",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-request-id",
    "x-request-timeout-ms",
    "x-sfdc-request-id",
    "x-sfdc-session",
];

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembering {
    /// Requests are answered from memory; else it is only counted that they could be.
    pub answers: bool,
    /// Writes are remembered too.
    pub writes: bool,
    /// How long.
    pub lasts: Duration,
}

impl Remembering {
    /// Whether failures of such calls are remembered. The answer to HEAD does not say all there is to say.
    pub fn covers(&self, call: &Call) -> bool {
        let meaning = &call.meaning;
        call.principal != Principal::NOBODY
            && !meaning.long_poll
            && meaning.method != Method::HEAD
            && (self.writes || meaning.idempotency == Idempotency::Safe)
    }
}

/// Who asks for what; requests of one spot differ by head and body only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spot(u64);

/// One request among those of a spot.
pub type Exact = [u8; 32];

/// What decides of a request beside its spot. It costs a hash of the body: worth it where there is something to find, or
/// to remember.
pub fn exact(headers: &HeaderMap, body: &[u8]) -> Exact {
    let mut hash = Context::new(&SHA256);
    let mut part = |bytes: &[u8]| {
        hash.update(&(bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    for (name, value) in headers {
        let name = name.as_str();
        if name == "sforce-call-options" {
            // The client's name is the gateway's to say.
            for option in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if !option.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"client=")) && !option.is_empty() {
                    part(option);
                }
            }
        } else if !IRRELEVANT.contains(&name) {
            part(name.as_bytes());
            part(value.as_bytes());
        }
    }
    part(b"");
    part(body);
    let mut exact = Exact::default();
    exact.copy_from_slice(hash.finish().as_ref());
    exact
}

/// One failure, told in the words of the taxonomy.
#[derive(Debug, Clone)]
pub struct Failure {
    /// What it means.
    pub verdict: Verdict,
    /// Its code.
    pub code: SmolStr,
    /// When its request was sent.
    pub sent: Instant,
    /// API calls it cost.
    pub cost: u32,
    /// The answer itself.
    pub whole: Arc<Whole>,
}

impl Failure {
    /// Whether the same request fails like this again, whenever it is sent.
    pub fn is_permanent(verdict: Verdict) -> bool {
        matches!(verdict.kind, Kind::Permanent | Kind::Schema | Kind::Version) && verdict.executed == Executed::No
    }

    fn is_like(&self, other: &Self) -> bool {
        self.code == other.code && self.verdict == other.verdict && self.whole.status() == other.whole.status()
    }

    /// What would have to change for `call`, to `target`, to fail no more; `None`: anything.
    pub fn depends(&self, call: &Call, target: &str) -> Option<Deps> {
        let meaning = &call.meaning;
        let metadata = || Deps::Metadata(meaning.object.as_deref().map(lower));
        // A write changes its own rows' generation each time it is tried.
        if self.verdict.kind != Kind::Permanent
            || OF_FORM.contains(&self.code.as_str())
            || meaning.idempotency != Idempotency::Safe
        {
            return Some(metadata());
        }
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        if meaning.template == ROW
            && let (Some(object), Some(id)) = (meaning.object.as_deref(), last_segment(path).and_then(RowId::parse))
        {
            return Some(Deps::Row(lower(object), id));
        }
        question::objects(meaning).map(Deps::Objects)
    }
}

/// What is known of one request that fails.
#[derive(Debug)]
struct Entry {
    who: Principal,
    exact: Exact,
    failure: Failure,
    deps: Option<Deps>,
    /// The number of the last change when the first of these failures was known.
    as_of: u64,
    times: u32,
    /// When the last of them was known.
    noted: Instant,
    /// It is answered from memory until then, if it failed often enough.
    until: Instant,
}

/// An answer from memory.
#[derive(Debug, Clone)]
pub struct Recalled {
    /// The answer.
    pub whole: Arc<Whole>,
    /// API calls it cost.
    pub cost: u32,
    /// Its age.
    pub age: Duration,
    /// How long it will be given out still.
    pub left: Duration,
}

/// The failures of one org.
#[derive(Debug)]
pub struct Memory {
    hasher: RandomState,
    entries: AHashMap<Spot, SmallVec<[Entry; 1]>>,
    count: usize,
}

impl Default for Memory {
    fn default() -> Self {
        Self { hasher: RandomState::new(), entries: AHashMap::new(), count: 0 }
    }
}

impl Memory {
    /// How many failures are known.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The spot of a request.
    pub fn spot(&self, who: Principal, method: &Method, target: &str) -> Spot {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(&who.0);
        hasher.write(method.as_str().as_bytes());
        hasher.write_u8(0);
        hasher.write(target.as_bytes());
        Spot(hasher.finish())
    }

    /// Whether requests of `spot` are known to fail.
    pub fn knows(&self, spot: Spot) -> bool {
        self.entries.contains_key(&spot)
    }

    /// What Salesforce said to this very request, if it failed often enough. `stands` says whether what a failure depends on
    /// has not changed since a number of change.
    pub fn recall(
        &self,
        spot: Spot,
        who: Principal,
        exact: &Exact,
        now: Instant,
        stands: impl FnOnce(Option<&Deps>, u64) -> bool,
    ) -> Option<Recalled> {
        let entry = self.entries.get(&spot)?.iter().find(|entry| entry.exact == *exact && entry.who == who)?;
        let good = entry.times >= TIMES && now < entry.until && stands(entry.deps.as_ref(), entry.as_of);
        good.then(|| Recalled {
            whole: Arc::clone(&entry.failure.whole),
            cost: entry.failure.cost,
            age: now.saturating_duration_since(entry.failure.sent),
            left: entry.until.saturating_duration_since(now),
        })
    }

    /// A request failed; that is known at `now`, when `as_of` was the last change. Says whether it is answered from memory from
    /// now on, and was not before.
    #[expect(clippy::too_many_arguments, reason = "all that is known of one failure")]
    pub fn note(
        &mut self,
        spot: Spot,
        who: Principal,
        exact: Exact,
        failure: Failure,
        deps: Option<Deps>,
        lasts: Duration,
        now: Instant,
        as_of: u64,
        stands: impl FnOnce(Option<&Deps>, u64) -> bool,
    ) -> bool {
        let until = failure.sent + lasts;
        if let Some(entry) =
            self.entries.get_mut(&spot).and_then(|list| list.iter_mut().find(|entry| entry.exact == exact))
        {
            let goes_on = entry.who == who
                && entry.failure.is_like(&failure)
                && now < entry.until + LINGERS
                && stands(entry.deps.as_ref(), entry.as_of);
            if !goes_on {
                *entry = Entry { who, exact, failure, deps, as_of, times: 1, noted: now, until };
                return false;
            }
            // One of several that were sent at once says nothing new.
            if failure.sent < entry.noted {
                return false;
            }
            entry.times = entry.times.saturating_add(1);
            (entry.failure, entry.noted, entry.until) = (failure, now, until);
            return entry.times >= TIMES;
        }
        self.make_room(now);
        let list = self.entries.entry(spot).or_default();
        if list.len() >= MOST_ALIKE {
            list.remove(0);
            self.count -= 1;
        }
        list.push(Entry { who, exact, failure, deps, as_of, times: 1, noted: now, until });
        self.count += 1;
        false
    }

    /// Somebody wants Salesforce to be asked about requests of `spot`.
    pub fn forget(&mut self, spot: Spot) {
        if let Some(list) = self.entries.remove(&spot) {
            self.count -= list.len();
        }
    }

    /// Keeps what `keep` names.
    pub fn retain(&mut self, keep: impl Fn(Principal) -> bool) {
        self.retain_entries(|entry| keep(entry.who));
    }

    fn retain_entries(&mut self, keep: impl Fn(&Entry) -> bool) {
        self.entries.retain(|_, list| {
            list.retain(|entry| keep(entry));
            !list.is_empty()
        });
        self.count = self.entries.values().map(SmallVec::len).sum();
    }

    /// Forgets what has ended, and all of it if that is not enough: it is learnt anew by three calls.
    fn make_room(&mut self, now: Instant) {
        if self.count >= MOST {
            self.retain_entries(|entry| now < entry.until + LINGERS);
            if self.count >= MOST {
                self.entries.clear();
                self.count = 0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderName, HeaderValue, StatusCode};
    use proptest::prelude::*;

    use super::*;
    use crate::call::{CallerId, Class, Family, OrgId};
    use crate::salesforce::taxonomy::{classify, said};
    use crate::salesforce::{Costs, understand};

    const WHO: Principal = Principal([1; 16]);
    const LASTS: Duration = Duration::from_secs(30);
    const SECOND: Duration = Duration::from_secs(1);

    fn start() -> Instant {
        crate::clock::Clock::start().now()
    }

    fn failure(status: u16, code: &str, sent: Instant) -> Failure {
        let body = Bytes::from(format!(r#"[{{"message":"x","errorCode":"{code}"}}]"#));
        let whole = Whole::new(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), &body);
        let verdict = classify(Family::Rest, status, &said(&body));
        Failure { verdict, code: code.into(), sent, cost: 1, whole: Arc::new(whole) }
    }

    /// Notes a failure that was sent at `sent` and answered half a second later.
    fn fails(memory: &mut Memory, spot: Spot, exact: Exact, code: &str, sent: Instant, stands: bool) -> bool {
        let (now, failure) = (sent + SECOND / 2, failure(400, code, sent));
        memory.note(spot, WHO, exact, failure, None, LASTS, now, 0, |_, _| stands)
    }

    fn knows(memory: &Memory, spot: Spot, exact: Exact, now: Instant) -> bool {
        memory.recall(spot, WHO, &exact, now, |_, _| true).is_some()
    }

    #[test]
    fn the_third_failure_in_a_row_is_remembered_for_half_a_minute_and_then_one_more_call_suffices() {
        let (mut memory, now) = (Memory::default(), start());
        let (spot, exact) = (memory.spot(WHO, &Method::GET, "/x"), [7; 32]);
        for second in 0..3 {
            assert!(!knows(&memory, spot, exact, now + second * SECOND));
            assert_eq!(fails(&mut memory, spot, exact, "INVALID_FIELD", now + second * SECOND, true), second == 2);
        }
        let last = now + 2 * SECOND;
        assert!(knows(&memory, spot, exact, last + LASTS - Duration::from_millis(1)));
        assert!(!knows(&memory, spot, exact, last + LASTS), "counted from when it was sent");
        assert!(!knows(&memory, spot, [8; 32], last + SECOND), "another body");
        assert!(memory.recall(spot, Principal([2; 16]), &exact, last + SECOND, |_, _| true).is_none(), "another user");
        assert!(memory.recall(spot, WHO, &exact, last + SECOND, |_, _| false).is_none(), "something changed");
        assert!(fails(&mut memory, spot, exact, "INVALID_FIELD", last + LASTS, true));
        assert!(knows(&memory, spot, exact, last + LASTS + SECOND));
        memory.forget(spot);
        assert_eq!((memory.len(), knows(&memory, spot, exact, last + LASTS + SECOND)), (0, false));
    }

    #[test]
    fn what_was_sent_at_once_fails_once_and_another_failure_or_a_change_begins_anew() {
        let (mut memory, now) = (Memory::default(), start());
        let (spot, exact) = (memory.spot(WHO, &Method::GET, "/x"), [7; 32]);
        assert!((0..10).all(|_| !fails(&mut memory, spot, exact, "NOT_FOUND", now, true)), "ten at once are one");
        assert!(!fails(&mut memory, spot, exact, "NOT_FOUND", now + SECOND, true));
        assert!(!fails(&mut memory, spot, exact, "INVALID_FIELD", now + 2 * SECOND, true), "another failure");
        assert!(!fails(&mut memory, spot, exact, "INVALID_FIELD", now + 3 * SECOND, true));
        assert!(!fails(&mut memory, spot, exact, "INVALID_FIELD", now + 4 * SECOND, false), "something changed");
        assert!(!fails(&mut memory, spot, exact, "INVALID_FIELD", now + 5 * SECOND, true));
        assert!(!fails(&mut memory, spot, exact, "INVALID_FIELD", now + 80 * SECOND, true), "long ago");
    }

    #[test]
    fn only_what_fails_again_whoever_waits_is_permanent() {
        for (status, code, permanent) in [
            (400, "INVALID_FIELD", true),
            (400, "MALFORMED_QUERY", true),
            (404, "NOT_FOUND", true),
            (410, "UNSUPPORTED_API_VERSION", true),
            (400, "QUERY_TIMEOUT", false),
            (400, "UNABLE_TO_LOCK_ROW", false),
            (401, "INVALID_SESSION_ID", false),
            (403, "REQUEST_LIMIT_EXCEEDED", false),
            (500, "UNKNOWN_EXCEPTION", false),
            (503, "ORG_IN_MAINTENANCE", false),
        ] {
            assert_eq!(Failure::is_permanent(failure(status, code, start()).verdict), permanent, "{code}");
        }
    }

    #[test]
    fn a_failure_depends_on_what_could_mend_it() {
        let call = |target: &str| Call {
            org: OrgId(0),
            caller: CallerId(0),
            principal: WHO,
            class: Class::Standard,
            meaning: understand(&Method::GET, target, &Costs::default()),
            deadline: None,
        };
        let deps = |target: &str, code: &str| failure(400, code, start()).depends(&call(target), target);
        let row = "/services/data/v62.0/sobjects/Account/001D000000IqhSLIAZ";
        assert!(matches!(deps(row, "NOT_FOUND"), Some(Deps::Row(..))));
        assert!(matches!(deps(row, "INVALID_FIELD"), Some(Deps::Metadata(Some(_)))));
        let query = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account";
        assert!(matches!(deps(query, "MALFORMED_QUERY"), Some(Deps::Metadata(_))));
        assert!(matches!(deps(query, "NOT_FOUND"), Some(Deps::Objects(_))));
        assert_eq!(deps("/services/data/v62.0/recent", "NOT_FOUND"), None, "anything may");
    }

    #[test]
    fn what_decides_is_in_the_hash_and_what_the_gateway_adds_is_not() {
        let of = |fields: &[(&str, &str)], body: &[u8]| {
            let field = |(name, value): &(&str, &str)| {
                (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
            };
            exact(&fields.iter().map(field).collect(), body)
        };
        let plain = of(&[("accept", "*/*")], b"{}");
        assert_eq!(
            of(&[("accept", "*/*"), ("sforce-call-options", "client=x"), ("x-sfdc-request-id", "1")], b"{}"),
            plain
        );
        for other in [
            of(&[("accept", "application/xml")], b"{}"),
            of(&[("accept", "*/*")], b"{ }"),
            of(&[("accept", "*/*"), ("sforce-call-options", "client=x, defaultNamespace=y")], b"{}"),
            of(&[("accept", "*/*"), ("cookie", "a=b")], b"{}"),
        ] {
            assert_ne!(other, plain);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_number_of_failures_is_bounded_and_known(requests in prop::collection::vec((0_u16..400, 0_u8..12), 1..2_500)) {
            let (mut memory, now) = (Memory::default(), start());
            for (place, (target, body)) in requests.into_iter().enumerate() {
                let spot = memory.spot(WHO, &Method::GET, &target.to_string());
                fails(&mut memory, spot, [body; 32], "NOT_FOUND", now + place as u32 * SECOND / 100, true);
                prop_assert!(memory.len() <= MOST);
            }
            prop_assert_eq!(memory.len(), memory.entries.values().map(SmallVec::len).sum::<usize>());
            prop_assert!(memory.entries.values().all(|list| (1..=MOST_ALIKE).contains(&list.len())));
            memory.retain(|_| false);
            prop_assert_eq!(memory.len(), 0);
        }
    }
}
