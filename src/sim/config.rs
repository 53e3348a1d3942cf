//! What a simulated org is like: size, users, limits, and how it treats what Salesforce leaves undocumented.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Everything that can be chosen about a simulated org. All members have defaults.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimConfig {
    /// Seed of the data and of every random choice; the same seed gives the same org.
    pub seed: u64,
    /// How many simulated seconds pass in one real second.
    pub speed: f64,
    /// Wall time at the start, seconds since the Unix epoch; the present if absent.
    pub start_unix_seconds: Option<u64>,
    /// Records of each object.
    pub records: usize,
    /// Records of single objects that have more or fewer.
    pub records_of: BTreeMap<String, usize>,
    /// Who may log in.
    pub users: Vec<SimUser>,
    /// Connected apps, for the OAuth flows.
    pub apps: Vec<SimApp>,
    /// The daily allowance.
    pub daily: SimDaily,
    /// The places for calls that run long.
    pub long_running: SimLongRunning,
    /// What the undocumented cases cost, each 0 or 1 (facts 1.3).
    pub costs: SimCosts,
    /// What `Sforce-Limit-Info` looks like.
    pub header: SimHeader,
    /// Sessions and logins.
    pub sessions: SimSessions,
    /// Time every call takes, milliseconds of simulated time.
    pub latency_ms: u64,
    /// Time added at random up to this many milliseconds.
    pub jitter_ms: u64,
    /// What absolute URLs point to; the request's own scheme and host if absent.
    pub instance_url: Option<String>,
    /// Hosts that lead here; others are answered with the edge's 420 page. Empty: every host does.
    pub hosts: Vec<String>,
    /// Life of a query cursor in seconds (facts 1.8: two days).
    pub cursor_seconds: u64,
    /// Whether query pages are shorter than was asked for, as the real ones may be (facts 1.8).
    pub short_pages: bool,
    /// Whether answers are compressed for callers that accept it.
    pub gzip: bool,
    /// Sizes in bytes of the `ContentVersion` blobs.
    pub blob_bytes: Vec<u64>,
    /// How long a CometD long poll is held, seconds (facts 6.7).
    pub long_poll_seconds: u64,
    /// How long a write waits for a record another one is writing to, milliseconds; then `UNABLE_TO_LOCK_ROW`.
    pub lock_wait_ms: u64,
    /// Time a Bulk job takes once its data is complete, seconds.
    pub bulk_seconds: u64,
    /// Chatter requests per user, app and hour before 503.
    pub chatter_per_hour: u64,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            speed: 1.0,
            start_unix_seconds: None,
            records: 250,
            records_of: BTreeMap::new(),
            users: SimUser::defaults(),
            apps: vec![SimApp::default()],
            daily: SimDaily::default(),
            long_running: SimLongRunning::default(),
            costs: SimCosts::default(),
            header: SimHeader::default(),
            sessions: SimSessions::default(),
            latency_ms: 0,
            jitter_ms: 0,
            instance_url: None,
            hosts: Vec::new(),
            cursor_seconds: 2 * 86_400,
            short_pages: false,
            gzip: true,
            blob_bytes: vec![1 << 10, 1 << 20, 1 << 30],
            long_poll_seconds: 110,
            lock_wait_ms: 10_000,
            bulk_seconds: 2,
            chatter_per_hour: 200,
        }
    }
}

/// The org id every simulated org has.
pub const ORG_ID: &str = "00DWk0000000001MAA";

/// A Salesforce user.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimUser {
    /// User name, also the login name.
    pub username: String,
    /// Password, for the password flow and SOAP login.
    pub password: String,
    /// A session that is valid from the start and never idles out. By convention `00D...!name`.
    pub token: String,
    /// Objects this user does not see at all.
    pub hidden_objects: Vec<String>,
    /// Fields this user does not see, as `Object.Field`.
    pub hidden_fields: Vec<String>,
    /// Objects this user may read but not change.
    pub read_only_objects: Vec<String>,
    /// Which rows of owned objects this user sees.
    pub rows: SimRows,
    /// Whether the user may read `/limits` (*View Setup and Configuration*).
    pub view_setup: bool,
    /// Whether the user may use the API at all.
    pub api_enabled: bool,
}

impl Default for SimUser {
    fn default() -> Self {
        Self {
            username: String::new(),
            password: "secret".to_owned(),
            token: String::new(),
            hidden_objects: Vec::new(),
            hidden_fields: Vec::new(),
            read_only_objects: Vec::new(),
            rows: SimRows::All,
            view_setup: true,
            api_enabled: true,
        }
    }
}

impl SimUser {
    /// A user `name@sim.example` with the token `00D...!name`, who sees everything.
    pub fn named(name: &str) -> Self {
        Self { username: format!("{name}@sim.example"), token: format!("{ORG_ID}!{name}"), ..Self::default() }
    }

    /// `admin` and `integration` see everything, `sales` only its own rows and not all fields, `guest` has no API.
    fn defaults() -> Vec<Self> {
        vec![
            Self::named("admin"),
            Self::named("integration"),
            Self {
                hidden_objects: vec!["Invoice__c".to_owned()],
                hidden_fields: vec!["Account.AnnualRevenue".to_owned(), "Contact.Birthdate".to_owned()],
                read_only_objects: vec!["Product2".to_owned()],
                rows: SimRows::Own,
                view_setup: false,
                ..Self::named("sales")
            },
            Self { api_enabled: false, ..Self::named("guest") },
        ]
    }
}

impl std::fmt::Debug for SimUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimUser").field("username", &self.username).field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Which rows a user sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SimRows {
    /// All of them.
    All,
    /// Only those the user owns.
    Own,
}

/// A connected app.
#[derive(Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimApp {
    /// Consumer key.
    pub client_id: String,
    /// Consumer secret.
    pub client_secret: String,
    /// User the client-credentials flow runs as; absent: the flow is refused.
    pub run_as: Option<String>,
    /// Refresh tokens that are known from the start, and the user names they belong to.
    pub refresh_tokens: BTreeMap<String, String>,
    /// RSA public key (PEM) that signs JWT bearer assertions; absent: signatures are not checked.
    pub public_key_pem: Option<String>,
}

impl Default for SimApp {
    fn default() -> Self {
        Self {
            client_id: "3MVGsim.app".to_owned(),
            client_secret: "sim-app-secret".to_owned(),
            run_as: Some("integration@sim.example".to_owned()),
            refresh_tokens: BTreeMap::new(),
            public_key_pem: None,
        }
    }
}

impl std::fmt::Debug for SimApp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimApp").field("run_as", &self.run_as).finish_non_exhaustive()
    }
}

/// The daily allowance (facts 1.1, 1.2).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimDaily {
    /// Calls per trailing 24 hours.
    pub limit: u64,
    /// Calls a soft limit lets pass beyond it; `0` is a hard limit.
    pub overage: u64,
    /// Old calls come back at multiples of this many seconds; `0`: exactly 24 hours later (facts 1.1, measured hourly).
    pub release_step_seconds: u64,
    /// Calls per minute that other apps spend from the start, without a request that can be seen.
    pub dark_per_minute: f64,
}

impl Default for SimDaily {
    fn default() -> Self {
        Self { limit: 100_000, overage: 0, release_step_seconds: 0, dark_per_minute: 0.0 }
    }
}

/// The places for long-running calls (facts 1.4).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimLongRunning {
    /// How many calls may be older than `after_ms` before new ones are refused.
    pub slots: usize,
    /// Age in milliseconds from which a call takes a slot.
    pub after_ms: u64,
}

impl Default for SimLongRunning {
    fn default() -> Self {
        Self { slots: 25, after_ms: 20_000 }
    }
}

/// Cost in calls of the cases Salesforce does not document (facts 1.3), each 0 or 1.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimCosts {
    /// A 304 answer.
    pub not_modified: u64,
    /// A 4xx answer that is no limit refusal.
    pub client_error: u64,
    /// A 5xx answer, or a connection that ended without one.
    pub server_error: u64,
    /// A limit refusal.
    pub refusal: u64,
    /// A token request.
    pub oauth: u64,
    /// `/limits`.
    pub limits: u64,
}

impl Default for SimCosts {
    fn default() -> Self {
        Self { not_modified: 1, client_error: 1, server_error: 1, refusal: 1, oauth: 0, limits: 1 }
    }
}

/// What `Sforce-Limit-Info` looks like (facts 1.7).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimHeader {
    /// The header shows the usage of this many seconds ago.
    pub lag_seconds: u64,
    /// `/limits` shows the usage of this many seconds ago (facts 1.6: up to 300).
    pub limits_lag_seconds: u64,
    /// Adds `api-bursts`.
    pub bursts: bool,
    /// Adds `per-app-api-usage`: limit for each client name.
    pub per_app: BTreeMap<String, u64>,
}

/// Sessions and logins (facts 1.5, 5.3).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SimSessions {
    /// Sessions made by a login end after this many idle seconds.
    pub idle_seconds: u64,
    /// Logins of one user within an hour.
    pub logins_per_hour: usize,
}

impl Default for SimSessions {
    fn default() -> Self {
        Self { idle_seconds: 7_200, logins_per_hour: 3_600 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_has_a_default_and_what_is_misspelt_is_refused() {
        let text = "seed: 7\ndaily: {limit: 500, release_step_seconds: 3600}\ncosts: {not_modified: 0}\nusers:\n  - {username: a@b.c, token: t, rows: own}\n";
        let config: SimConfig = serde_saphyr::from_str(text).unwrap();
        assert_eq!((config.seed, config.daily.limit, config.daily.overage, config.costs.limits), (7, 500, 0, 1));
        assert_eq!((config.users.len(), config.users[0].rows), (1, SimRows::Own));
        assert!(serde_saphyr::from_str::<SimConfig>("dayly: {}").is_err());
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown = format!("{:?}", SimConfig::default());
        for secret in ["sim-app-secret", "\"secret\"", &SimUser::named("admin").token] {
            assert!(!shown.contains(secret), "{secret} in {shown}");
        }
    }
}
