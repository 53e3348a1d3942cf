//! Faults by script: what goes wrong, for which requests, how often.

use serde::{Deserialize, Serialize};

use super::request::Head;

/// One scripted fault. An absent condition matches everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Effective method.
    pub method: Option<String>,
    /// Beginning of the path.
    pub path: Option<String>,
    /// Text anywhere in the path.
    pub contains: Option<String>,
    /// Object named in the path.
    pub object: Option<String>,
    /// User name of the session.
    pub user: Option<String>,
    /// Client of `Sforce-Call-Options`.
    pub client: Option<String>,
    /// Family, in the words of the counts.
    pub family: Option<String>,
    /// Share of the matching requests that are hit, 0 to 1.
    pub probability: f64,
    /// Matching requests that pass before the first is hit.
    pub skip: u64,
    /// How many requests are hit before the fault ends; absent: no end.
    pub times: Option<u64>,
    /// Time the request takes beforehand, milliseconds of simulated time.
    pub latency_ms: u64,
    /// Time added at random up to this.
    pub jitter_ms: u64,
    /// What goes wrong.
    pub action: FaultAction,
}

impl Default for Fault {
    fn default() -> Self {
        Self {
            method: None,
            path: None,
            contains: None,
            object: None,
            user: None,
            client: None,
            family: None,
            probability: 1.0,
            skip: 0,
            times: None,
            latency_ms: 0,
            jitter_ms: 0,
            action: FaultAction::None,
        }
    }
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultAction {
    /// Nothing but the latency.
    None,
    /// This answer instead of the real one; nothing is executed.
    Answer {
        /// HTTP status.
        status: u16,
        /// Body as it is.
        body: String,
        /// Its content type.
        content_type: String,
        /// Further headers, `Location` or `Retry-After` for example.
        #[serde(default)]
        headers: Vec<(String, String)>,
    },
    /// A REST error array (or the family's own form) with this status and code.
    Error {
        /// HTTP status.
        status: u16,
        /// `errorCode`.
        code: String,
        /// `message`.
        message: String,
    },
    /// 503 with `SERVER_UNAVAILABLE`, as JSON or as an HTML page.
    Unavailable {
        /// Whether the body is the edge's HTML page.
        html: bool,
        /// Adds `Retry-After` in seconds.
        retry_after_seconds: Option<u64>,
    },
    /// 400 `UNABLE_TO_LOCK_ROW`, or inside a trigger's wrapper (facts 2.3).
    LockRow {
        /// Whether the code stands inside `CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY`.
        wrapped: bool,
    },
    /// Executes the request, then answers with this status and an HTML page: a write whose outcome is unknown.
    ApplyThenStatus {
        /// HTTP status.
        status: u16,
    },
    /// Ends the connection before the response head.
    Close {
        /// Whether the request is executed first.
        apply: bool,
        /// Whether the end is a reset (TCP only) instead of an orderly close.
        reset: bool,
    },
    /// Sends the head with the full length but only so many bytes of the body, then closes.
    Truncate {
        /// Bytes of the body that are sent.
        body_bytes: usize,
    },
    /// Sends more body than `Content-Length` says.
    Overlong {
        /// Bytes too many.
        extra_bytes: usize,
    },
    /// Sends this text instead of HTTP and closes.
    Garbage {
        /// What is sent.
        text: String,
    },
    /// Never answers; the connection is closed after this time.
    Hang {
        /// Milliseconds of simulated time, at most an hour.
        milliseconds: u64,
    },
    /// Sends the body in pieces with pauses.
    Trickle {
        /// Bytes of each piece.
        piece_bytes: usize,
        /// Pause before each piece, milliseconds of simulated time.
        pause_ms: u64,
    },
}

/// What happens to one request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) latency_ms: u64,
    pub(super) action: FaultAction,
}

#[derive(Debug)]
struct Armed {
    id: u64,
    fault: Fault,
    seen: u64,
    hit: u64,
}

/// All faults in force.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    last_id: u64,
    pub(super) fired: u64,
}

impl Faults {
    /// Arms a fault; earlier ones win. At most 1,000 are kept.
    pub(super) fn add(&mut self, fault: Fault) -> u64 {
        self.last_id += 1;
        if self.armed.len() < 1_000 {
            self.armed.push(Armed { id: self.last_id, fault, seen: 0, hit: 0 });
        }
        self.last_id
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.armed.retain(|armed| armed.id != id);
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    /// The first fault that hits this request. Faults of pure latency add up with the one that follows.
    pub(super) fn plan(&mut self, head: &Head, user: Option<&str>, rng: &mut fastrand::Rng) -> Option<Plan> {
        let mut plan: Option<Plan> = None;
        for armed in &mut self.armed {
            if !matches(&armed.fault, head, user) {
                continue;
            }
            armed.seen += 1;
            let spent = armed.fault.times.is_some_and(|times| armed.hit >= times);
            if spent || armed.seen <= armed.fault.skip || rng.f64() >= armed.fault.probability {
                continue;
            }
            armed.hit += 1;
            self.fired += 1;
            let jitter = if armed.fault.jitter_ms == 0 { 0 } else { rng.u64(0..=armed.fault.jitter_ms) };
            let plan = plan.get_or_insert(Plan { latency_ms: 0, action: FaultAction::None });
            plan.latency_ms = plan.latency_ms.saturating_add(armed.fault.latency_ms).saturating_add(jitter);
            if armed.fault.action != FaultAction::None {
                plan.action = armed.fault.action.clone();
                break;
            }
        }
        self.armed.retain(|armed| armed.fault.times.is_none_or(|times| armed.hit < times));
        plan
    }
}

fn matches(fault: &Fault, head: &Head, user: Option<&str>) -> bool {
    let same = |wanted: &Option<String>, given: Option<&str>| match wanted {
        Some(wanted) => given.is_some_and(|given| given.eq_ignore_ascii_case(wanted)),
        None => true,
    };
    same(&fault.method, Some(head.method.as_str()))
        && fault.path.as_ref().is_none_or(|prefix| head.path.starts_with(prefix.as_str()))
        && fault.contains.as_ref().is_none_or(|text| head.path.contains(text.as_str()))
        && same(&fault.object, head.object())
        && same(&fault.user, user)
        && (fault.client.is_none() || same(&fault.client, Some(head.client().as_str())))
        && same(&fault.family, Some(head.family()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, Method};

    fn get(path: &str) -> Head {
        Head::read(&Method::GET, path, HeaderMap::new())
    }

    #[test]
    fn a_fault_hits_what_it_names_and_ends() {
        let mut faults = Faults::default();
        let mut rng = fastrand::Rng::with_seed(1);
        faults.add(Fault {
            object: Some("account".into()),
            skip: 1,
            times: Some(2),
            action: FaultAction::LockRow { wrapped: false },
            ..Fault::default()
        });
        let mut hits = |path: &str| faults.plan(&get(path), None, &mut rng).is_some();
        assert!(!hits("/services/data/v62.0/sobjects/Contact/1"));
        assert!(!hits("/services/data/v62.0/sobjects/Account/1"));
        assert!(hits("/services/data/v62.0/sobjects/Account/1"));
        assert!(hits("/services/data/v62.0/sobjects/Account/1"));
        assert!(!hits("/services/data/v62.0/sobjects/Account/1"));
    }

    #[test]
    fn latency_adds_up_with_what_follows() {
        let mut faults = Faults::default();
        let mut rng = fastrand::Rng::with_seed(1);
        faults.add(Fault { latency_ms: 50, ..Fault::default() });
        faults.add(Fault { latency_ms: 5, action: FaultAction::ApplyThenStatus { status: 502 }, ..Fault::default() });
        let plan = faults.plan(&get("/x"), None, &mut rng).unwrap();
        assert_eq!(plan, Plan { latency_ms: 55, action: FaultAction::ApplyThenStatus { status: 502 } });
    }

    #[test]
    fn probability_is_a_share() {
        let mut faults = Faults::default();
        let mut rng = fastrand::Rng::with_seed(7);
        faults.add(Fault { probability: 0.25, ..Fault::default() });
        let hits = (0..4_000).filter(|_| faults.plan(&get("/x"), None, &mut rng).is_some()).count();
        assert!((850..1_150).contains(&hits), "{hits}");
    }
}
