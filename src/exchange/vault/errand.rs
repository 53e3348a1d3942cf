//! The one errand of an identity under way: to another replica's token, or to the token endpoint.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::answer::{self, Answered, Grant, User};
use super::ask::{self, TOTAL};
use super::common::LOG_IN;
use super::core::{Core, State, Trouble};
use super::flow::Hidden;
use super::identity::{Identity, Settings, Shared, Token, Who};
use super::sharing::{Claimed, Loan, News, Sharing, Sought, Times, Told};
use crate::body::wiped;
use crate::clock::Clock;
use crate::tasks::Tasks;

/// Clocks that differ by less are the same: an assertion leaves room for it.
const SKEW_THAT_MATTERS: i64 = 30;
/// The first and the longest wait before others are told again of a token, and how often that is tried.
const TELLS_AGAIN: (Duration, Duration, u32) = (Duration::from_secs(1), Duration::from_mins(1), 120);
/// How often it is looked up afterwards what the others have told, after a second, two, four and so on: in a minute all
/// must have.
const MEETS: u32 = 6;

impl Identity {
    /// Makes the errand that was granted. What is to be told to other replicas later is told in `tasks`.
    pub(super) async fn log_in(self: &Arc<Self>, login: LogIn, tasks: &Tasks) {
        let (shared, settings, clock) = (&self.shared, &self.settings, self.clock);
        let looks_only = shared.core.lock().looks_only();
        let sharing = settings.sharing.as_ref();
        let sought = match sharing {
            Some(sharing) => sharing.seek(clock, &shared.bond, &shared.shares, looks_only).await,
            None => Sought::Alone,
        };
        let claimed = match sought {
            Sought::Found(loan) => return login.adopted(loan, settings),
            Sought::Back(until, why) => return login.held_back(until, why),
            Sought::Never(why) => return login.barred(why),
            Sought::Alone if looks_only => return login.barred(Trouble::Refused),
            Sought::Alone => None,
            Sought::Claimed(claimed) => Some(claimed),
        };
        shared.core.lock().begins(clock.now());
        let turn = match &claimed {
            Some(claimed) => claimed.turn,
            None => shared.bond.lock().own_turn(clock.wall(clock.now())),
        };
        match (self.ask(if claimed.is_some() { LOG_IN } else { TOTAL }).await, sharing) {
            (Answered::Granted(grant), None) => {
                login.granted(*grant, settings, turn);
            }
            (Answered::Granted(grant), Some(sharing)) => {
                let refresh = grant.rotated.clone().or_else(|| shared.bond.lock().refresh());
                let news = sharing.news(turn, &grant, refresh.as_ref());
                let Some(times) = login.granted(*grant, settings, turn) else {
                    return tell_failed(sharing, clock, claimed, Trouble::Garbage).await;
                };
                if let Some(news) = news {
                    self.tell(sharing, claimed, news, times, tasks).await;
                }
            }
            (Answered::Failed(why), sharing) => {
                login.failed(why);
                if let Some(sharing) = sharing {
                    tell_failed(sharing, clock, claimed, why).await;
                }
            }
            (Answered::Refused(why), sharing) => {
                login.refused(why, sharing.is_some());
                if let (Some(sharing), Some(claimed)) = (sharing, claimed) {
                    shared.bond.lock().was_refused(turn);
                    sharing.refused(clock, claimed, why).await;
                }
            }
        }
    }

    /// Asks the token endpoint, for no longer than `total`.
    async fn ask(&self, total: Duration) -> Answered {
        let (shared, settings, clock) = (&self.shared, &self.settings, self.clock);
        let skew = shared.skew.load(Ordering::Relaxed);
        let wall = shifted(clock.wall(clock.now()), skew);
        let rotated = shared.bond.lock().refresh();
        // Signing takes about a millisecond, once in an hour or so.
        let Ok(form) = settings.flow.form(wall, rotated.as_ref()) else {
            return Answered::Refused(Trouble::Refused);
        };
        let reply = match ask::post(&settings.endpoint, clock, form, total).await {
            Ok(reply) => reply,
            Err(why) => return Answered::Failed(why),
        };
        let ours = clock.wall(clock.now());
        let measured = reply.date.map(|theirs| theirs.as_secs().cast_signed() - ours.as_secs().cast_signed());
        if let Some(measured) = measured {
            shared.skew.store(if measured.abs() > SKEW_THAT_MATTERS { measured } else { 0 }, Ordering::Relaxed);
        }
        match answer::read(reply.status, &reply.body, ours) {
            // An assertion made with a wrong clock: the next is made with Salesforce's.
            Answered::Refused(why)
                if settings.flow.tells_time()
                    && measured.is_some_and(|measured| (measured - skew).abs() > SKEW_THAT_MATTERS) =>
            {
                Answered::Failed(why)
            }
            answered => answered,
        }
    }

    /// Tells the other replicas of a token; if the store does not answer, now and then until it does.
    async fn tell(
        self: &Arc<Self>,
        sharing: &Arc<Sharing>,
        claimed: Option<Claimed>,
        news: News,
        times: Times,
        tasks: &Tasks,
    ) {
        let (shared, clock) = (&self.shared, self.clock);
        let alone = claimed.is_none();
        let told = sharing.granted(clock, (&shared.bond, &shared.shares), claimed, &news, times).await;
        if told != Told::Unheard && !alone {
            return;
        }
        let (identity, sharing) = (Arc::clone(self), Arc::clone(sharing));
        tasks.spawn_background(async move { identity.tell_later(&sharing, &news, times, told).await });
    }

    /// Tells them once the store answers, unless they were `told`. Others that had to log in for themselves do the same
    /// meanwhile, so all end up with the newest of their tokens.
    async fn tell_later(&self, sharing: &Sharing, news: &News, times: Times, mut told: Told) {
        let (shared, clock) = (&self.shared, self.clock);
        let (mut pause, longest, attempts) = TELLS_AGAIN;
        for _ in 0..attempts {
            if told != Told::Unheard {
                break;
            }
            sleep(pause).await;
            if !shared.bond.lock().still_holds(news.turn) {
                return;
            }
            told = sharing.granted(clock, (&shared.bond, &shared.shares), None, news, times).await;
            pause = (pause * 2).min(longest);
        }
        for nth in 0..MEETS {
            sleep(TELLS_AGAIN.0 * (1 << nth)).await;
            let Sought::Found(loan) = sharing.seek(clock, &shared.bond, &shared.shares, true).await else { continue };
            let mut core = shared.core.lock();
            let newer = shared.bond.lock().is_older_than(loan.generation);
            if newer && core.state(clock.now()).0 == State::Fresh {
                adopt(shared, &self.settings, &mut core, loan);
            }
        }
    }
}

async fn tell_failed(sharing: &Sharing, clock: Clock, claimed: Option<Claimed>, why: Trouble) {
    if let Some(claimed) = claimed {
        sharing.failed(clock, claimed, why).await;
    }
}

fn shifted(wall: Duration, seconds: i64) -> Duration {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { wall.saturating_sub(by) } else { wall.saturating_add(by) }
}

/// The one log-in under way. Dropped before its end (its runtime stops, a defect), it counts as failed, so that the next
/// caller can try.
pub(super) struct LogIn {
    shared: Arc<Shared>,
    clock: Clock,
    done: bool,
}

impl LogIn {
    pub(super) fn new(shared: &Arc<Shared>, clock: Clock) -> Self {
        Self { shared: Arc::clone(shared), clock, done: false }
    }

    /// The log-in of `turn` brought a token. Says when it was issued and so on, unless it is of no use.
    fn granted(mut self, grant: Grant, settings: &Settings, turn: u64) -> Option<Times> {
        let (shared, now) = (&self.shared, self.clock.now());
        let Grant { token, user, life, rotated } = grant;
        let Some(values) = values(&token) else {
            self.failed(Trouble::Garbage);
            return None;
        };
        if let Some(rotated) = rotated {
            shared.bond.lock().rotates(turn, rotated);
        }
        know(shared, settings, user);
        let mut core = shared.core.lock();
        let (epoch, renew_at) = core.granted(now, life, settings.session);
        put(shared, epoch, renew_at, &token, values);
        shared.bond.lock().holds(epoch, turn);
        drop(core);
        shared.ok.fetch_add(1, Ordering::Relaxed);
        self.finish();
        Some(Times { since: now, renew_at, ends: life.map(|life| now + life) })
    }

    /// Another replica has a token.
    fn adopted(mut self, loan: Loan, settings: &Settings) {
        let mut core = self.shared.core.lock();
        let well = adopt(&self.shared, settings, &mut core, loan);
        drop(core);
        if well {
            self.finish();
        } else {
            self.failed(Trouble::Garbage);
        }
    }

    /// No log-in is to be made before `until`.
    fn held_back(mut self, until: Instant, why: Trouble) {
        self.shared.core.lock().held_back(until, why);
        self.finish();
    }

    /// Another replica, or this one earlier, was refused.
    fn barred(mut self, why: Trouble) {
        self.shared.core.lock().refused(self.clock.now(), why, true);
        self.finish();
    }

    fn failed(mut self, why: Trouble) {
        self.fail(why);
        self.finish();
    }

    fn refused(mut self, why: Trouble, shared: bool) {
        self.shared.core.lock().refused(self.clock.now(), why, shared);
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

/// Puts a token in force.
fn put(shared: &Shared, epoch: u64, renew_at: Instant, token: &Hidden, values: (HeaderValue, HeaderValue)) {
    let (authorization, session) = values;
    let jwt = answer::is_jwt(token.expose());
    shared.current.store(Some(Arc::new(Token { epoch, authorization, session, renew_at, jwt })));
}

/// Puts the token of another replica in force, if it is one.
fn adopt(shared: &Shared, settings: &Settings, core: &mut Core, loan: Loan) -> bool {
    let Loan { generation, token, user, times: Times { since, renew_at, ends } } = loan;
    let Some(values) = values(&token) else { return false };
    know(shared, settings, user);
    let epoch = core.adopted(since, renew_at, ends);
    put(shared, epoch, renew_at, &token, values);
    shared.bond.lock().holds(epoch, generation);
    shared.shares.adopted();
    true
}

/// Takes in whose identity it is.
fn know(shared: &Shared, settings: &Settings, user: Option<User>) {
    if let Some(user) = user {
        let principal = settings.principal_key.user(&user.org, &user.user);
        shared.who.store(Arc::new(Who { principal, user: Some(user) }));
    }
}

/// What requests carry: `Bearer` with the token, and the token alone.
fn values(token: &Hidden) -> Option<(HeaderValue, HeaderValue)> {
    Some((secret_value("Bearer ", token)?, secret_value("", token)?))
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
