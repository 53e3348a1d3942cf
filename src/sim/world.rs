//! Everything the org remembers. One lock guards it; no handler waits while holding it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use smol_str::SmolStr;

use super::access::User;
use super::apis::ChatterRates;
use super::clock::{DAY, Micros, SECOND};
use super::cometd::Cometd;
use super::config::SimConfig;
use super::counts::{SimRequest, Tally};
use super::cursors::Cursors;
use super::faults::Faults;
use super::jobs::Jobs;
use super::locks::Locks;
use super::meter::Meter;
use super::oauth::Grants;
use super::schema::Schema;
use super::seed;
use super::soql::Context;
use super::store::Store;

/// A logged-in session.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) user: usize,
    /// Last time the idle timer was moved.
    pub(super) active: Micros,
    /// Idle time after which it ends; `None`: never.
    pub(super) idle: Option<Micros>,
}

/// What the org refuses because it is being maintained (facts 2.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Maintenance {
    #[default]
    None,
    /// Everything is answered with 503 and a page.
    Down,
    /// Writes and Bulk reads are refused.
    ReadOnly,
}

/// The state of the org.
pub(super) struct World {
    pub(super) config: Arc<SimConfig>,
    pub(super) schema: Arc<Schema>,
    pub(super) store: Store,
    pub(super) users: Vec<User>,
    pub(super) sessions: HashMap<String, Session>,
    pub(super) meter: Meter,
    pub(super) faults: Faults,
    pub(super) tally: Tally,
    pub(super) cursors: Cursors,
    pub(super) rng: fastrand::Rng,
    pub(super) requests: VecDeque<SimRequest>,
    pub(super) maintenance: Maintenance,
    pub(super) latency_ms: u64,
    /// By how many seconds the header lags.
    pub(super) lag_seconds: u64,
    pub(super) jitter_ms: u64,
    /// When the metadata of each object changed last, to the second.
    pub(super) metadata: Vec<Micros>,
    pub(super) grants: Grants,
    pub(super) jobs: Jobs,
    pub(super) cometd: Cometd,
    pub(super) chatter: ChatterRates,
    pub(super) locks: Locks,
}

impl World {
    /// A new org at `now`.
    pub(super) fn new(config: Arc<SimConfig>, now: Micros) -> Self {
        let schema = Arc::new(Schema::standard());
        let users: Vec<User> =
            config.users.iter().enumerate().map(|(number, user)| User::new(number, user, &schema)).collect();
        let sessions = config
            .users
            .iter()
            .enumerate()
            .filter(|(_, user)| !user.token.is_empty())
            .map(|(number, user)| (user.token.clone(), Session { user: number, active: now, idle: None }))
            .collect();
        let store = seed::fill(&schema, &users, &config, now);
        let day = now.saturating_sub(DAY) / SECOND * SECOND;
        let mut world = Self {
            store,
            users,
            sessions,
            meter: Meter::new(&config, now),
            faults: Faults::default(),
            tally: Tally::default(),
            cursors: Cursors::default(),
            rng: fastrand::Rng::with_seed(config.seed ^ 0x5eed),
            requests: VecDeque::new(),
            maintenance: Maintenance::None,
            latency_ms: config.latency_ms,
            lag_seconds: config.header.lag_seconds,
            jitter_ms: config.jitter_ms,
            metadata: vec![day; schema.objects.len()],
            grants: Grants::default(),
            jobs: Jobs::default(),
            cometd: Cometd::default(),
            chatter: ChatterRates::default(),
            locks: Locks::default(),
            schema,
            config,
        };
        for app in &world.config.clone().apps {
            for (token, username) in &app.refresh_tokens {
                if let Some(user) = world.user_named(username) {
                    world.add_refresh(token, user, &app.client_id);
                }
            }
        }
        world
    }

    /// The user of a session, and the session's life prolonged: the idle timer is moved only when half of it has
    /// passed (facts 5.3).
    pub(super) fn authenticate(&mut self, token: &str, now: Micros) -> Option<usize> {
        let session = self.sessions.get_mut(token)?;
        if let Some(idle) = session.idle {
            let quiet = now.saturating_sub(session.active);
            if quiet >= idle {
                self.sessions.remove(token);
                return None;
            }
            if quiet * 2 >= idle {
                session.active = now;
            }
        }
        Some(session.user)
    }

    /// What a statement of this user runs against.
    pub(super) fn context(&self, user: usize, now: Micros, version: u16) -> Option<Context<'_>> {
        Some(Context {
            schema: &self.schema,
            store: &self.store,
            user: self.users.get(user)?,
            now,
            version,
            with_deleted: false,
        })
    }

    /// The name of a user for the counts.
    pub(super) fn username(&self, user: Option<usize>) -> SmolStr {
        user.and_then(|user| self.users.get(user)).map_or(SmolStr::new_static("none"), |user| user.username.clone())
    }
}
