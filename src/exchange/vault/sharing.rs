//! One replica logs in for all: what an identity asks of the store that replicas share, and what it tells it.
//!
//! The store is asked only where otherwise a log-in would be made, so no call waits for it that has a token. Where it
//! does not answer, an identity logs in for itself, and tells the others once it can.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use super::answer::{Grant, User};
use super::ask::Endpoint;
use super::common::{self, Lent, Me, Minted, Record, START, Wish, millis};
use super::core::Trouble;
use super::flow::{Flow, Hidden};
use super::identity::LOGINS_PER_HOUR;
use super::seal::{Purpose, Seal, fingerprint};
use crate::clock::Clock;
use crate::seal::NoSeal;

/// The first and the longest wait between two looks while another replica logs in.
const WAITS: (Duration, Duration) = (Duration::from_millis(30), Duration::from_millis(500));
/// How often, and for how long, a store that does not answer is asked before an identity logs in for itself.
const TRIES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before it is asked again.
const BREATH: Duration = Duration::from_millis(100);
/// The longest an errand may take: several claimers have died in a row by then.
const LONGEST: Duration = Duration::from_secs(40);
/// How often something is written that others were faster than.
const WRITES: u32 = 8;

/// The store gave no answer: what was asked may have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store gave no answer")]
pub struct NoAnswer;

/// What the store holds for an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The value.
    pub value: Option<Vec<u8>>,
    /// Tells it from what was there before and what comes later.
    pub version: u64,
    /// Which run of the store this is.
    pub run: u64,
    /// The store's time, since the Unix epoch.
    pub now: Duration,
}

/// What came of replacing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Swapped {
    /// It is replaced.
    Done(Seen),
    /// Somebody was first.
    Lost(Seen),
}

/// The place of one identity in the store that replicas share.
pub trait Shelf: Send + Sync {
    /// Tells this process from the other replicas.
    fn replica(&self) -> &str;
    /// What it holds.
    fn look(&self) -> BoxFuture<'_, Result<Seen, NoAnswer>>;
    /// Replaces what was `seen`, for so long.
    fn swap(&self, seen: Seen, value: Vec<u8>, keep: Duration) -> BoxFuture<'_, Result<Swapped, NoAnswer>>;
}

/// How an identity shares its tokens with its like in other replicas.
pub struct Sharing {
    shelf: Box<dyn Shelf>,
    seal: Seal,
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sharing").field("seal", &self.seal).finish_non_exhaustive()
    }
}

/// What came of sharing, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Shares {
    /// Tokens taken from other replicas.
    pub adopted: u64,
    /// Tokens given to them.
    pub published: u64,
    /// Tokens that were there and could not be opened.
    pub unreadable: u64,
    /// Log-ins made without asking the others, for the store did not answer.
    pub store_down: u64,
}

/// How often what happened.
#[derive(Debug, Default)]
pub(super) struct Counts {
    adopted: AtomicU64,
    published: AtomicU64,
    unreadable: AtomicU64,
    store_down: AtomicU64,
}

impl Counts {
    /// A token of another replica is in force.
    pub(super) fn adopted(&self) {
        self.adopted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Shares {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Shares {
            adopted: read(&self.adopted),
            published: read(&self.published),
            unreadable: read(&self.unreadable),
            store_down: read(&self.store_down),
        }
    }
}

/// What ties an identity's own state to the shared record.
#[derive(Debug, Default)]
pub(super) struct Bond {
    /// The token in force, by both its numbers; 0: none.
    epoch: u64,
    held: u64,
    /// As in [`Me`].
    spent: u64,
    rejected: u64,
    unreadable: u64,
    pardoned: u64,
    /// The last refusal it knows of.
    refused: u64,
    /// The refresh token that replaced the configured one, and the log-in it is from.
    rotated: Option<(u64, Hidden)>,
}

impl Bond {
    /// There is a new token.
    pub(super) fn holds(&mut self, epoch: u64, generation: u64) {
        (self.epoch, self.held) = (epoch, generation);
    }

    /// Whether the token in force is the one of `generation`.
    pub(super) fn still_holds(&self, generation: u64) -> bool {
        self.held == generation
    }

    /// Whether there is a token in force, and one from before `generation`.
    pub(super) fn is_older_than(&self, generation: u64) -> bool {
        self.held > 0 && self.held < generation
    }

    /// The token of `epoch` was rejected.
    pub(super) fn rejects(&mut self, epoch: u64) {
        if self.epoch == epoch {
            self.spent = self.spent.max(self.held);
            self.rejected = std::mem::take(&mut self.held);
        }
    }

    /// The configuration was loaded again.
    pub(super) fn pardons(&mut self) {
        self.pardoned = self.pardoned.max(self.refused);
    }

    /// The log-in of `turn` was refused.
    pub(super) fn was_refused(&mut self, turn: u64) {
        self.refused = self.refused.max(turn);
    }

    /// The log-in of `turn` brought a new refresh token.
    pub(super) fn rotates(&mut self, turn: u64, token: Hidden) {
        if self.rotated.as_ref().is_none_or(|(known, _)| *known < turn) {
            self.rotated = Some((turn, token));
        }
    }

    /// The newest refresh token.
    pub(super) fn refresh(&self) -> Option<Hidden> {
        self.rotated.as_ref().map(|(_, token)| token.clone())
    }

    /// The number of a log-in at wall time `wall` of which the others know nothing.
    pub(super) fn own_turn(&self, wall: Duration) -> u64 {
        millis(wall).max(self.held.max(self.spent).saturating_add(1))
    }

    fn me<'a>(&self, replica: &'a str, barred: bool, looks_only: bool) -> Me<'a> {
        let Self { held, spent, rejected, unreadable, pardoned, .. } = *self;
        Me { replica, held, spent, rejected, unreadable, pardoned, barred, looks_only, per_hour: LOGINS_PER_HOUR }
    }
}

/// What came of asking for a token.
pub(super) enum Sought {
    /// Another replica has one.
    Found(Loan),
    /// This one logs in for all.
    Claimed(Claimed),
    /// There will be none before then.
    Back(Instant, Trouble),
    /// The credentials are not accepted.
    Never(Trouble),
    /// The store does not answer.
    Alone,
}

/// A token of another replica.
pub(super) struct Loan {
    pub(super) generation: u64,
    pub(super) token: Hidden,
    pub(super) user: Option<User>,
    pub(super) times: Times,
}

/// When a token was issued, is to be renewed, and ends.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) since: Instant,
    pub(super) renew_at: Instant,
    pub(super) ends: Option<Instant>,
}

/// The right to log in for all.
pub(super) struct Claimed {
    pub(super) turn: u64,
    seen: Seen,
    at: Instant,
}

impl Claimed {
    /// What was there, with the store's time of now.
    fn seen(self, now: Instant) -> Seen {
        Seen { now: self.seen.now + now.saturating_duration_since(self.at), ..self.seen }
    }
}

/// A token for the others, sealed.
pub(super) struct News {
    pub(super) turn: u64,
    sealed: String,
    refresh: Option<String>,
}

/// What came of telling the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Written,
    /// They know better.
    Needless,
    /// The store does not answer.
    Unheard,
}

impl Sharing {
    /// The name of an identity's place in the store: that of its org, and a text that depends on as whom and where it logs
    /// in.
    pub fn place(identity: &str, flow: &Flow, endpoint: &Endpoint) -> String {
        let print = fingerprint(open_parts(flow, endpoint).iter().map(String::as_bytes));
        let number = print.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first));
        format!("token:{identity}:{number:016x}")
    }

    /// Shares the tokens of `identity` by way of `shelf`, sealed with keys drawn from `secrets`: the first seals, all open.
    pub fn new<'s>(
        shelf: Box<dyn Shelf>,
        secrets: impl IntoIterator<Item = &'s [u8]>,
        (org, identity): (&str, &str),
        flow: &Flow,
        endpoint: &Endpoint,
    ) -> Result<Self, NoSeal> {
        let open = open_parts(flow, endpoint);
        let parts = [org, identity].map(str::as_bytes).into_iter().chain(open.iter().map(String::as_bytes));
        let seal = Seal::new(secrets, &fingerprint(parts.chain(flow.hidden_parts())))?;
        Ok(Self { shelf, seal })
    }

    /// Asks for a token, or for the right to log in. Waits while another replica logs in.
    pub(super) async fn seek(&self, clock: Clock, bond: &Mutex<Bond>, counts: &Counts, looks_only: bool) -> Sought {
        let begun = clock.now();
        let (mut pause, mut found) = (WAITS.0, None);
        let (mut failures, mut failing_since) = (0, begun);
        loop {
            let asked = clock.now();
            if asked.saturating_duration_since(begun) >= LONGEST {
                return Sought::Back(asked + WAITS.1, Trouble::Unreachable);
            }
            let answer = match found.take() {
                Some(answer) => Ok(answer),
                None => self.shelf.look().await.map(|seen| (seen, asked)),
            };
            let outcome = match answer {
                Ok((seen, at)) => self.step(seen, at, clock, bond, counts, looks_only).await,
                Err(NoAnswer) => Err(NoAnswer),
            };
            match outcome {
                Ok(Step::End(sought)) => return sought,
                Ok(Step::Again(seen, at)) => {
                    failures = 0;
                    found = Some((seen, at));
                }
                Ok(Step::Wait(most)) => {
                    failures = 0;
                    sleep(pause.min(most)).await;
                    pause = (pause * 2).min(WAITS.1);
                }
                Err(NoAnswer) => {
                    failures += 1;
                    if failures == 1 {
                        failing_since = asked;
                    }
                    let lasted = clock.now().saturating_duration_since(failing_since);
                    if failures >= TRIES || lasted >= PATIENCE {
                        counts.store_down.fetch_add(1, Ordering::Relaxed);
                        return Sought::Alone;
                    }
                    sleep(BREATH).await;
                }
            }
        }
    }

    /// Does what is to be done about what was `seen`, by a question that was asked `at`.
    async fn step(
        &self,
        seen: Seen,
        at: Instant,
        clock: Clock,
        bond: &Mutex<Bond>,
        counts: &Counts,
        looks_only: bool,
    ) -> Result<Step, NoAnswer> {
        let record = Record::read(seen.value.as_deref());
        let proof = record.refused();
        let barred = proof.is_some_and(|proof| self.seal.open(Purpose::Refusal, proof.turn, &proof.sealed).is_some());
        self.learn_refresh(&record, bond);
        let now = seen.now;
        let instant = |time: Duration| at + time.saturating_sub(now);
        let wish = common::wish(&record, now, &bond.lock().me(self.shelf.replica(), barred, looks_only));
        Ok(match wish {
            Wish::Use(lent) => {
                if let Some(loan) = self.opened(&lent, at, now) {
                    Step::End(Sought::Found(loan))
                } else {
                    counts.unreadable.fetch_add(1, Ordering::Relaxed);
                    bond.lock().unreadable = lent.generation;
                    Step::Again(seen, at)
                }
            }
            Wish::Wait(until) => Step::Wait(until.saturating_sub(now)),
            Wish::Never { turn, why } => {
                bond.lock().was_refused(turn);
                Step::End(Sought::Never(why))
            }
            Wish::Back { until, why, next: None } => Step::End(Sought::Back(instant(until), why)),
            Wish::Back { until, why, next: Some(next) } => {
                let asked = clock.now();
                match self.shelf.swap(seen, next.written(), common::KEPT).await? {
                    Swapped::Done(_) => Step::End(Sought::Back(instant(until), why)),
                    Swapped::Lost(there) => Step::Again(there, asked),
                }
            }
            Wish::LogIn { turn, next } => {
                let asked = clock.now();
                match self.shelf.swap(seen, next.written(), common::KEPT).await? {
                    Swapped::Lost(there) => Step::Again(there, asked),
                    // The claim runs since the look: one that came late might end before its log-in.
                    Swapped::Done(_) if clock.now().saturating_duration_since(at) >= START => return Err(NoAnswer),
                    Swapped::Done(seen) => Step::End(Sought::Claimed(Claimed { turn, seen, at: asked })),
                }
            }
        })
    }

    fn learn_refresh(&self, record: &Record, bond: &Mutex<Bond>) {
        let Some(refresh) = record.refresh() else { return };
        if bond.lock().rotated.as_ref().is_some_and(|(known, _)| *known >= refresh.turn) {
            return;
        }
        if let Some(token) =
            self.seal.open(Purpose::Refresh, refresh.turn, &refresh.sealed).and_then(|plain| text(&plain))
        {
            bond.lock().rotates(refresh.turn, token);
        }
    }

    /// A token as it was lent at `now`, by a look that began `at`.
    fn opened(&self, lent: &Lent, at: Instant, now: Duration) -> Option<Loan> {
        let plain = self.seal.open(Purpose::Token, lent.generation, &lent.sealed)?;
        let (token, user) = unpacked(&plain)?;
        let now = millis(now);
        let ahead = |time: u64| at + Duration::from_millis(time.saturating_sub(now));
        let age = Duration::from_millis(now.saturating_sub(lent.issued));
        let times =
            Times { since: at.checked_sub(age).unwrap_or(at), renew_at: ahead(lent.renew), ends: lent.ends.map(ahead) };
        Some(Loan { generation: lent.generation, token, user, times })
    }

    /// Seals what the log-in of `turn` brought, and the newest refresh token.
    pub(super) fn news(&self, turn: u64, grant: &Grant, refresh: Option<&Hidden>) -> Option<News> {
        let sealed = self.seal.seal(Purpose::Token, turn, packed(&grant.token, grant.user.as_ref())?).ok()?;
        let refresh = refresh
            .map(|token| self.seal.seal(Purpose::Refresh, turn, Zeroizing::new(token.expose().as_bytes().to_vec())));
        Some(News { turn, sealed, refresh: refresh.transpose().ok()? })
    }

    /// Tells the others of a token.
    pub(super) async fn granted(
        &self,
        clock: Clock,
        (bond, counts): (&Mutex<Bond>, &Counts),
        claimed: Option<Claimed>,
        news: &News,
        times: Times,
    ) -> Told {
        let unreadable = bond.lock().unreadable;
        let told = self.write(clock, claimed, |record, now| {
            let instant = clock.now();
            let issued = now.saturating_sub(instant.saturating_duration_since(times.since));
            let later = |at: Instant| millis(now + at.saturating_duration_since(instant));
            let lent = Lent {
                generation: news.turn,
                issued: millis(issued),
                renew: later(times.renew_at),
                ends: times.ends.map(later),
                sealed: news.sealed.clone(),
            };
            common::granted(record, &Minted { lent, refresh: news.refresh.clone() }, unreadable)
        });
        let told = told.await;
        if told == Told::Written {
            counts.published.fetch_add(1, Ordering::Relaxed);
        }
        told
    }

    /// Tells the others that the log-in failed.
    pub(super) async fn failed(&self, clock: Clock, claimed: Claimed, why: Trouble) {
        let turn = claimed.turn;
        self.write(clock, Some(claimed), |record, now| common::failed(record, turn, now, why)).await;
    }

    /// Tells the others that the credentials are not accepted.
    pub(super) async fn refused(&self, clock: Clock, claimed: Claimed, why: Trouble) {
        let turn = claimed.turn;
        let Ok(proof) = self.seal.seal(Purpose::Refusal, turn, Zeroizing::default()) else { return };
        self.write(clock, Some(claimed), |record, now| common::refused(record, turn, now, why, &proof)).await;
    }

    /// Changes the record until it is changed or there is nothing to change.
    async fn write(
        &self,
        clock: Clock,
        claimed: Option<Claimed>,
        change: impl Fn(&Record, Duration) -> Option<Record>,
    ) -> Told {
        let mut known = claimed.map(|claimed| claimed.seen(clock.now()));
        let mut failures = 0;
        for _ in 0..WRITES {
            let seen = match known.take() {
                Some(seen) => Ok(seen),
                None => self.shelf.look().await,
            };
            let swapped = match seen {
                Ok(seen) => {
                    let record = Record::read(seen.value.as_deref());
                    let Some(next) = change(&record, seen.now) else { return Told::Needless };
                    self.shelf.swap(seen, next.written(), common::KEPT).await
                }
                Err(NoAnswer) => Err(NoAnswer),
            };
            match swapped {
                Ok(Swapped::Done(_)) => return Told::Written,
                Ok(Swapped::Lost(there)) => known = Some(there),
                Err(NoAnswer) => {
                    failures += 1;
                    if failures >= TRIES {
                        break;
                    }
                    sleep(BREATH).await;
                }
            }
        }
        Told::Unheard
    }
}

/// How one look went on.
enum Step {
    End(Sought),
    /// Decide about this, by a question that was asked then.
    Again(Seen, Instant),
    /// Look again, so much later at the latest.
    Wait(Duration),
}

fn open_parts(flow: &Flow, endpoint: &Endpoint) -> Vec<String> {
    let Endpoint { origin, path, .. } = endpoint;
    let place = [format!("{:?} {} {}", origin.scheme(), origin.host(), origin.port()), path.to_string()];
    flow.open_parts().into_iter().map(str::to_owned).chain(place).collect()
}

fn text(bytes: &[u8]) -> Option<Hidden> {
    std::str::from_utf8(bytes).ok().map(Hidden::new)
}

/// The token and the record ids of org and user, each behind its length.
fn packed(token: &Hidden, user: Option<&User>) -> Option<Zeroizing<Vec<u8>>> {
    let (org, user) = user.map_or(("", ""), |user| (&user.org, &user.user));
    let parts = [token.expose(), org, user];
    // It has room enough never to move.
    let mut bytes = Zeroizing::new(Vec::with_capacity(parts.iter().map(|part| 2 + part.len()).sum()));
    for part in parts {
        bytes.extend_from_slice(&u16::try_from(part.len()).ok()?.to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    Some(bytes)
}

fn unpacked(bytes: &[u8]) -> Option<(Hidden, Option<User>)> {
    let mut rest = bytes;
    let mut part = || -> Option<&str> {
        let (length, after) = rest.split_first_chunk::<2>()?;
        let (part, after) = after.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        rest = after;
        std::str::from_utf8(part).ok()
    };
    let (token, org, user) = (Hidden::new(part()?), part()?, part()?);
    let known = !org.is_empty() && !user.is_empty();
    Some((token, known.then(|| User { org: org.into(), user: user.into() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_packed_with_whose_it_is() {
        let user = User { org: "00D000000000001".into(), user: "005000000000001".into() };
        for user in [Some(user), None] {
            let bytes = packed(&Hidden::new("00D!token"), user.as_ref()).unwrap();
            assert_eq!(unpacked(&bytes), Some((Hidden::new("00D!token"), user)));
        }
        for bytes in [&b""[..], b"\0", b"\0\x05ab", b"\0\x01\xff\0\0\0\0"] {
            assert_eq!(unpacked(bytes), None);
        }
    }
}
