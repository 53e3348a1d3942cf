//! One identity: its token in force, and everybody who waits for it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use http::HeaderValue;
use parking_lot::Mutex;
use serde::Serialize;
use smol_str::SmolStr;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::answer::User;
use super::ask::Endpoint;
use super::core::{Core, State, Trouble, Want};
use super::errand::LogIn;
use super::flow::Flow;
use super::sharing::{Bond, Counts, Shares, Sharing};
use crate::call::Principal;
use crate::clock::Clock;
use crate::salesforce::PrincipalKey;
use crate::tasks::Tasks;

/// Callers that may wait for one identity's log-in.
const MOST_WAITING: usize = 2_000;
/// How long a caller without a deadline waits: longer than a log-in may take.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Log-ins a user may make in an hour (facts 1.5).
pub(super) const LOGINS_PER_HOUR: u32 = 3_600;

/// What makes an identity.
#[derive(Debug)]
pub struct Settings {
    /// Its name in the configuration.
    pub name: SmolStr,
    /// The org's name.
    pub org: SmolStr,
    /// How it logs in.
    pub flow: Flow,
    /// Where.
    pub endpoint: Endpoint,
    /// How long its sessions are expected to live.
    pub session: Duration,
    /// Keys the hash of its user.
    pub principal_key: PrincipalKey,
    /// How it shares its tokens with other replicas, if there may be any.
    pub sharing: Option<Arc<Sharing>>,
}

/// An access token in force, ready to be put into requests. It is wiped when nobody holds it any more.
pub struct Token {
    pub(super) epoch: u64,
    pub(super) authorization: HeaderValue,
    pub(super) session: HeaderValue,
    pub(super) renew_at: Instant,
    pub(super) jwt: bool,
}

impl Token {
    /// Which of the identity's tokens this is.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// `Bearer` and the token.
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// The token alone, for `X-SFDC-Session` and SOAP; it needs no escape in XML.
    pub fn session(&self) -> &HeaderValue {
        &self.session
    }

    /// A JSON Web Token, which SOAP refuses as an invalid session however new it is (facts 2.5).
    pub fn is_jwt(&self) -> bool {
        self.jwt
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoToken {
    /// What is wrong.
    pub why: Trouble,
    /// When to come back; `None`: not before somebody has changed something.
    pub again: Option<Duration>,
}

/// A Salesforce user whose credentials the gateway holds. Share it by `Arc`.
pub struct Identity {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    pub(super) shared: Arc<Shared>,
}

/// What outlives a reload that leaves the identity as it is.
pub(super) struct Shared {
    pub(super) current: ArcSwapOption<Token>,
    pub(super) who: ArcSwap<Who>,
    /// Never locked while `bond` is.
    pub(super) core: Mutex<Core>,
    pub(super) bond: Mutex<Bond>,
    /// Everybody who waits looks again.
    pub(super) changed: Notify,
    waiting: AtomicUsize,
    /// Salesforce's clock less ours, in seconds.
    pub(super) skew: AtomicI64,
    pub(super) ok: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) shares: Counts,
}

/// Whose identity this is, as far as known.
#[derive(Debug)]
pub(super) struct Who {
    pub(super) principal: Principal,
    pub(super) user: Option<User>,
}

/// One identity at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IdentitySnapshot {
    /// The org's name.
    pub org: String,
    /// The identity's name.
    pub identity: String,
    /// What it is doing.
    pub state: State,
    /// Why it has no token.
    pub trouble: Option<Trouble>,
    /// Seconds until it tries again; absent if it does not wait for that.
    pub tries_again_in_seconds: Option<f64>,
    /// Callers that wait for its log-in.
    pub waiting: u64,
    /// Log-ins in the last hour.
    pub logins_used: u32,
    /// Log-ins it may make in an hour.
    pub logins_limit: u32,
    /// Log-ins that brought a token, since the start.
    pub refreshed: u64,
    /// Log-ins that failed and may work later, since the start.
    pub failed: u64,
    /// Log-ins that were refused, since the start.
    pub refused: u64,
    /// What was shared with other replicas; absent if there are none.
    pub shares: Option<Shares>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("org", &self.settings.org)
            .field("name", &self.settings.name)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// An identity that has not logged in yet.
    pub fn new(settings: Settings, clock: Clock) -> Arc<Self> {
        let principal = settings.principal_key.identity(&settings.org, &settings.name);
        let shared = Shared {
            current: ArcSwapOption::empty(),
            who: ArcSwap::from_pointee(Who { principal, user: None }),
            core: Mutex::new(Core::new(LOGINS_PER_HOUR)),
            changed: Notify::new(),
            waiting: AtomicUsize::new(0),
            bond: Mutex::default(),
            skew: AtomicI64::new(0),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            shares: Counts::default(),
        };
        Arc::new(Self { settings, clock, shared: Arc::new(shared) })
    }

    /// The same identity after a reload: it keeps its token, its budget and its back-off, but a refusal is forgotten.
    /// Only for settings that mean the same; they may name other files, roots or proxies.
    pub fn continued(settings: Settings, earlier: &Self) -> Arc<Self> {
        earlier.shared.core.lock().reconsider();
        earlier.shared.bond.lock().pardons();
        Arc::new(Self { settings, clock: earlier.clock, shared: Arc::clone(&earlier.shared) })
    }

    /// Its name in the configuration.
    pub fn name(&self) -> &SmolStr {
        &self.settings.name
    }

    /// As whom Salesforce sees it: its user once that is known, until then itself.
    pub fn principal(&self) -> Principal {
        self.shared.who.load().principal
    }

    /// Whether it is known which Salesforce user it is.
    pub fn is_known(&self) -> bool {
        self.shared.who.load().user.is_some()
    }

    /// Its Salesforce user, once it has logged in.
    pub fn user(&self) -> Option<User> {
        self.shared.who.load().user.clone()
    }

    /// The token in force, if it need not be renewed yet: what nearly every call gets, without a lock.
    pub fn fresh(&self, now: Instant) -> Option<Guard<Option<Arc<Token>>>> {
        let current = self.shared.current.load();
        current.as_ref().is_some_and(|token| now < token.renew_at).then_some(current)
    }

    /// A token, waiting for a log-in only if there is none to use. The log-in runs in `tasks` and goes on if the caller
    /// leaves.
    pub async fn token(self: &Arc<Self>, deadline: Option<Instant>, tasks: &Tasks) -> Result<Arc<Token>, NoToken> {
        let shared = &self.shared;
        let by = self.clock.now() + LONGEST_WAIT;
        let by = deadline.map_or(by, |deadline| deadline.min(by));
        let mut place = None;
        loop {
            let mut changed = std::pin::pin!(shared.changed.notified());
            // From here on no change is missed.
            changed.as_mut().enable();
            let now = self.clock.now();
            let want = shared.core.lock().want(now);
            match want {
                Want::Use | Want::Wait => {}
                Want::UseAndLogIn | Want::LogIn => {
                    let (login, identity) = (LogIn::new(shared, self.clock), Arc::clone(self));
                    let later = tasks.clone();
                    tasks.spawn(async move { identity.log_in(login, &later).await });
                }
                Want::NotBefore(again, why) => {
                    return Err(NoToken { why, again: Some(again.saturating_duration_since(now)) });
                }
                Want::Never(why) => return Err(NoToken { why, again: None }),
            }
            if matches!(want, Want::Use | Want::UseAndLogIn) {
                match shared.current.load_full() {
                    Some(token) => return Ok(token),
                    // Rejected since: the next look finds that out.
                    None => continue,
                }
            }
            if place.is_none() {
                place = Some(
                    Place::take(shared)
                        .ok_or(NoToken { why: Trouble::Crowded, again: Some(Duration::from_secs(1)) })?,
                );
            }
            if timeout_at(by, changed).await.is_err() {
                return Err(NoToken { why: Trouble::Unreachable, again: Some(Duration::from_secs(1)) });
            }
        }
    }

    /// Salesforce rejected the token of `epoch` as an invalid session.
    pub fn rejected(&self, epoch: u64, now: Instant) {
        let mut core = self.shared.core.lock();
        if core.rejected(epoch, now, fastrand::f64()) {
            self.shared.current.store(None);
            self.shared.bond.lock().rejects(epoch);
        }
    }

    /// What it is doing, for metrics and status.
    pub fn snapshot(&self) -> IdentitySnapshot {
        let (shared, now) = (&self.shared, self.clock.now());
        let mut core = shared.core.lock();
        let (state, trouble, again) = core.state(now);
        let (logins_used, logins_limit) = core.logins(now);
        drop(core);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        IdentitySnapshot {
            org: self.settings.org.to_string(),
            identity: self.settings.name.to_string(),
            state,
            trouble,
            tries_again_in_seconds: again.map(|again| again.saturating_duration_since(now).as_secs_f64()),
            waiting: shared.waiting.load(Ordering::Relaxed) as u64,
            logins_used,
            logins_limit,
            refreshed: read(&shared.ok),
            failed: read(&shared.failed),
            refused: read(&shared.refused),
            shares: self.settings.sharing.is_some().then(|| shared.shares.read()),
        }
    }
}

/// A place among those who wait; given back on drop.
struct Place<'a>(&'a Shared);

impl<'a> Place<'a> {
    fn take(shared: &'a Shared) -> Option<Self> {
        let before = shared.waiting.fetch_add(1, Ordering::Relaxed);
        // Dropped at once, and so given back, if there is no room.
        let place = Self(shared);
        (before < MOST_WAITING).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
