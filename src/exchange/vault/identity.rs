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
use zeroize::Zeroizing;

use super::answer::{self, Answered, Grant, User};
use super::ask::{self, Endpoint};
use super::core::{Core, State, Trouble, Want};
use super::flow::{Flow, Hidden};
use crate::body::wiped;
use crate::call::Principal;
use crate::clock::Clock;
use crate::salesforce::PrincipalKey;
use crate::tasks::Tasks;

/// Callers that may wait for one identity's log-in.
const MOST_WAITING: usize = 2_000;
/// How long a caller without a deadline waits: longer than a log-in may take.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Log-ins a user may make in an hour (facts 1.5).
const LOGINS_PER_HOUR: u32 = 3_600;
/// Clocks that differ by less are the same: an assertion leaves room for it.
const SKEW_THAT_MATTERS: i64 = 30;

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
}

/// An access token in force, ready to be put into requests. It is wiped when nobody holds it any more.
pub struct Token {
    epoch: u64,
    authorization: HeaderValue,
    session: HeaderValue,
    renew_at: Instant,
    jwt: bool,
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
    settings: Settings,
    clock: Clock,
    shared: Arc<Shared>,
}

/// What outlives a reload that leaves the identity as it is.
struct Shared {
    current: ArcSwapOption<Token>,
    who: ArcSwap<Who>,
    core: Mutex<Core>,
    /// Everybody who waits looks again.
    changed: Notify,
    waiting: AtomicUsize,
    /// The refresh token that replaced the configured one. It is lost with the process.
    rotated: Mutex<Option<Hidden>>,
    /// Salesforce's clock less ours, in seconds.
    skew: AtomicI64,
    ok: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

/// Whose identity this is, as far as known.
#[derive(Debug)]
struct Who {
    principal: Principal,
    user: Option<User>,
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
            rotated: Mutex::default(),
            skew: AtomicI64::new(0),
            ok: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        };
        Arc::new(Self { settings, clock, shared: Arc::new(shared) })
    }

    /// The same identity after a reload: it keeps its token, its budget and its back-off, but a refusal is forgotten.
    /// Only for settings that mean the same; they may name other files, roots or proxies.
    pub fn continued(settings: Settings, earlier: &Self) -> Arc<Self> {
        earlier.shared.core.lock().reconsider();
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
                    let (login, identity) =
                        (LogIn { shared: Arc::clone(shared), clock: self.clock, done: false }, Arc::clone(self));
                    tasks.spawn(async move { identity.log_in(login).await });
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
        }
    }

    /// Makes the log-in that was granted.
    async fn log_in(&self, login: LogIn) {
        let (shared, settings) = (&self.shared, &self.settings);
        let skew = shared.skew.load(Ordering::Relaxed);
        let wall = shifted(self.clock.wall(self.clock.now()), skew);
        let rotated = shared.rotated.lock().clone();
        // Signing takes about a millisecond, once in an hour or so.
        let Ok(form) = settings.flow.form(wall, rotated.as_ref()) else {
            return login.refused(Trouble::Refused);
        };
        let reply = match ask::post(&settings.endpoint, self.clock, form).await {
            Ok(reply) => reply,
            Err(why) => return login.failed(why),
        };
        let ours = self.clock.wall(self.clock.now());
        let measured = reply.date.map(|theirs| theirs.as_secs().cast_signed() - ours.as_secs().cast_signed());
        if let Some(measured) = measured {
            shared.skew.store(if measured.abs() > SKEW_THAT_MATTERS { measured } else { 0 }, Ordering::Relaxed);
        }
        match answer::read(reply.status, &reply.body, ours) {
            Answered::Granted(grant) => login.granted(*grant, settings),
            Answered::Failed(why) => login.failed(why),
            // An assertion made with a wrong clock: the next is made with Salesforce's.
            Answered::Refused(why)
                if settings.flow.tells_time()
                    && measured.is_some_and(|measured| (measured - skew).abs() > SKEW_THAT_MATTERS) =>
            {
                login.failed(why);
            }
            Answered::Refused(why) => login.refused(why),
        }
    }
}

fn shifted(wall: Duration, seconds: i64) -> Duration {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { wall.saturating_sub(by) } else { wall.saturating_add(by) }
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

/// The one log-in under way. Dropped before its end (its runtime stops, a defect), it counts as failed, so that the next
/// caller can try.
struct LogIn {
    shared: Arc<Shared>,
    clock: Clock,
    done: bool,
}

impl LogIn {
    fn granted(mut self, grant: Grant, settings: &Settings) {
        let (shared, now) = (&self.shared, self.clock.now());
        let Grant { token, user, life, rotated } = grant;
        let (Some(authorization), Some(session)) = (secret_value("Bearer ", &token), secret_value("", &token)) else {
            return self.failed(Trouble::Garbage);
        };
        if let Some(rotated) = rotated {
            *shared.rotated.lock() = Some(rotated);
        }
        if let Some(user) = user {
            let principal = settings.principal_key.user(&user.org, &user.user);
            shared.who.store(Arc::new(Who { principal, user: Some(user) }));
        }
        let mut core = shared.core.lock();
        let (epoch, renew_at) = core.granted(now, life, settings.session);
        let jwt = answer::is_jwt(token.expose());
        shared.current.store(Some(Arc::new(Token { epoch, authorization, session, renew_at, jwt })));
        drop(core);
        shared.ok.fetch_add(1, Ordering::Relaxed);
        self.finish();
    }

    fn failed(mut self, why: Trouble) {
        self.fail(why);
        self.finish();
    }

    fn refused(mut self, why: Trouble) {
        self.shared.core.lock().refused(why);
        self.shared.refused.fetch_add(1, Ordering::Relaxed);
        self.finish();
    }

    fn fail(&self, why: Trouble) {
        self.shared.core.lock().failed(self.clock.now(), why, fastrand::f64());
        self.shared.failed.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(&mut self) {
        self.done = true;
        self.shared.changed.notify_waiters();
    }
}

impl Drop for LogIn {
    fn drop(&mut self) {
        if !self.done {
            self.fail(Trouble::Interrupted);
            self.finish();
        }
    }
}

/// A header value whose bytes are wiped with its last clone, and which hyper never shows or indexes.
fn secret_value(before: &str, secret: &Hidden) -> Option<HeaderValue> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(before.len() + secret.expose().len()));
    bytes.extend_from_slice(before.as_bytes());
    bytes.extend_from_slice(secret.expose().as_bytes());
    let mut value = HeaderValue::from_maybe_shared(wiped(bytes)).ok()?;
    value.set_sensitive(true);
    Some(value)
}
