//! What replicas know together of one identity, and the rules by which one of them logs in for all (pure).
//!
//! They share one [`Record`]. Whoever needs a token that is not in it claims the log-in by writing the claim there, which
//! only the first can do; the rest wait and find the token. A claim ends with its log-in, or by itself if the claimer has
//! died. Every claim has a number, higher than all before; the token it brings has the same one, so that a token that
//! was rejected is told from its successor. All times are the store's, in milliseconds since the Unix epoch.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::core::{SETTLED, Trouble, step};

/// How long a claim holds: the log-in has begun within [`START`] and ended within [`LOG_IN`] after it was written.
pub(super) const CLAIM: Duration = Duration::from_secs(15);
/// The longest a log-in may take that was claimed.
pub(super) const LOG_IN: Duration = Duration::from_secs(12);
/// How soon after the look at the record a claimed log-in has to begin.
pub(super) const START: Duration = Duration::from_secs(2);
/// How long a refusal holds back replicas that have not tried themselves.
pub(super) const REFUSAL: Duration = Duration::from_mins(15);
/// How long a record is kept after it was last written: a rotated refresh token lives there.
pub(super) const KEPT: Duration = Duration::from_hours(30 * 24);

/// Longest record that is looked at.
const LONGEST: usize = 64 * 1_024;
/// A number further ahead of the store's clock than this was not given by a replica.
const FAR: Duration = Duration::from_hours(24);
/// Minutes in which log-ins are counted: one more than an hour has, for the running one.
const MINUTES: u64 = 61;

/// Milliseconds since the Unix epoch.
type Millis = u64;

/// What there is to know of an identity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    /// The highest number of a claim or token so far.
    turn: u64,
    claim: Option<Claim>,
    token: Option<Lent>,
    refresh: Option<Sealed>,
    refusal: Option<Refusal>,
    /// Log-ins that failed in a row.
    failures: u32,
    /// Tokens in a row that were rejected before they had settled.
    strikes: u32,
    pause: Option<Pause>,
    /// Log-ins by minute.
    logins: Vec<(u64, u32)>,
}

/// Who logs in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Claim {
    turn: u64,
    by: String,
    until: Millis,
}

/// A token for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lent {
    /// The number of the log-in that brought it.
    pub(super) generation: u64,
    pub(super) issued: Millis,
    pub(super) renew: Millis,
    pub(super) ends: Option<Millis>,
    pub(super) sealed: String,
}

/// Something that only this identity's replicas can read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    /// The number of the log-in it is from.
    pub(super) turn: u64,
    pub(super) sealed: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Refusal {
    at: Millis,
    why: Trouble,
    /// Opens with the credentials that were refused only.
    proof: Sealed,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Pause {
    until: Millis,
    why: Trouble,
}

/// Who asks, and what it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Me<'a> {
    /// Tells this process from every other.
    pub(super) replica: &'a str,
    /// The generation of the token it has; 0: none.
    pub(super) held: u64,
    /// Tokens up to this generation are of no use to it.
    pub(super) spent: u64,
    /// Salesforce rejected the token of this generation.
    pub(super) rejected: u64,
    /// The token of this generation is there and cannot be opened.
    pub(super) unreadable: u64,
    /// Refusals up to this number are forgiven: its configuration was loaded again since.
    pub(super) pardoned: u64,
    /// What the record says to be refused are its own credentials.
    pub(super) barred: bool,
    /// It may look and not log in.
    pub(super) looks_only: bool,
    /// Log-ins the user may make in an hour.
    pub(super) per_hour: u32,
}

/// What a replica that needs a token has to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wish {
    /// Use this one.
    Use(Lent),
    /// Look again: another one logs in, until then at the latest.
    Wait(Duration),
    /// Write this record; if nobody else was first, the log-in of this number is claimed.
    LogIn { turn: u64, next: Box<Record> },
    /// Write this record if there is one; no log-in is to be made before then.
    Back { until: Duration, why: Trouble, next: Option<Box<Record>> },
    /// The credentials are not accepted, as the log-in of this number found out.
    Never { turn: u64, why: Trouble },
}

/// A token that a log-in brought, ready to be written down.
#[derive(Debug, Clone)]
pub(super) struct Minted {
    pub(super) lent: Lent,
    /// The refresh token that came with it, sealed.
    pub(super) refresh: Option<String>,
}

impl Record {
    /// Reads what the store holds. What cannot be read is not there.
    pub(super) fn read(bytes: Option<&[u8]>) -> Self {
        let bytes = bytes.filter(|bytes| bytes.len() <= LONGEST);
        bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }

    /// What the store is to hold.
    pub(super) fn written(&self) -> Vec<u8> {
        // A record holds no map with other keys than text, and so cannot fail to be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The newest refresh token.
    pub(super) fn refresh(&self) -> Option<&Sealed> {
        self.refresh.as_ref()
    }

    /// What says whose credentials were refused.
    pub(super) fn refused(&self) -> Option<&Sealed> {
        self.refusal.as_ref().map(|refusal| &refusal.proof)
    }

    /// Log-ins in the hour before `now`.
    pub(super) fn logins(&self, now: Duration) -> u32 {
        let minute = now.as_secs() / 60;
        self.logins.iter().filter(|(at, _)| at + MINUTES > minute).map(|(_, count)| count).sum()
    }

    fn count_login(&mut self, now: Duration) {
        let minute = now.as_secs() / 60;
        self.logins.retain(|(at, _)| at + MINUTES > minute && *at < minute + MINUTES);
        match self.logins.iter_mut().find(|(at, _)| *at == minute) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.logins.push((minute, 1)),
        }
    }

    /// When the oldest log-in leaves the hour.
    fn frees_at(&self, now: Duration) -> Duration {
        let oldest = self.logins.iter().map(|(at, _)| at + MINUTES).filter(|at| at * 60 > now.as_secs()).min();
        oldest.map_or(now, |minute| Duration::from_secs(minute * 60))
    }

    /// What whoever has the claim may do with it is over.
    fn release(&mut self, turn: u64) -> bool {
        let ours = self.claim.as_ref().is_some_and(|claim| claim.turn == turn);
        if ours {
            self.claim = None;
        }
        ours
    }
}

/// Decides at store time `now` for a replica that needs a token.
pub(super) fn wish(record: &Record, now: Duration, me: &Me<'_>) -> Wish {
    let time = millis(now);
    let usable = |lent: &&Lent| {
        let alive = lent.ends.is_none_or(|ends| time < ends);
        let known = lent.generation > me.spent && lent.generation != me.unreadable;
        // One that is due for renewal still serves who has an older one.
        known && alive && (time < lent.renew || lent.generation > me.held)
    };
    if let Some(lent) = record.token.as_ref().filter(usable) {
        return Wish::Use(lent.clone());
    }
    // A claim that ends later than one can was written before the store's clock went back.
    let claimed = record.claim.as_ref().filter(|claim| time < claim.until && claim.until <= time + millis(CLAIM));
    if let Some(claim) = claimed.filter(|claim| claim.by != me.replica) {
        return Wish::Wait(Duration::from_millis(claim.until));
    }
    if let Some(Refusal { at, why, proof }) = record.refusal.as_ref().filter(|_| me.barred)
        && proof.turn > me.pardoned
        && time < at + millis(REFUSAL)
    {
        return Wish::Never { turn: proof.turn, why: *why };
    }
    if me.looks_only {
        return Wish::Never { turn: 0, why: Trouble::Refused };
    }
    let longest = Duration::from_secs((MINUTES + 1) * 60);
    if let Some(Pause { until, why }) = record.pause.as_ref()
        && time < *until
        && *until <= time + millis(longest)
    {
        return Wish::Back { until: Duration::from_millis(*until), why: *why, next: None };
    }
    if record.logins(now) >= me.per_hour {
        return Wish::Back { until: record.frees_at(now), why: Trouble::LoginBudget, next: None };
    }
    let mut next = Box::new(record.clone());
    if let Some(lent) = next.token.take_if(|lent| lent.generation == me.rejected) {
        let settled = time.saturating_sub(lent.issued) >= millis(SETTLED);
        next.strikes = if settled { 0 } else { next.strikes.saturating_add(1) };
        // One such token may be bad luck; more of them mean that logging in does not help.
        if next.strikes > 1 {
            let (until, why) = (now + step(next.strikes - 1), Trouble::Rejected);
            next.pause = Some(Pause { until: millis(until), why });
            return Wish::Back { until, why, next: Some(next) };
        }
    }
    let before = Some(record.turn).filter(|turn| *turn <= millis(now + FAR)).unwrap_or_default();
    let turn = time.max(before + 1).max(me.spent.saturating_add(1));
    next.turn = turn;
    next.claim = Some(Claim { turn, by: me.replica.to_owned(), until: millis(now + CLAIM) });
    next.count_login(now);
    Wish::LogIn { turn, next }
}

/// The record after a log-in that brought a token; `None` if there is nothing to write. A token of the generation
/// `unreadable` is replaced in any case.
pub(super) fn granted(record: &Record, minted: &Minted, unreadable: u64) -> Option<Record> {
    let Minted { lent, refresh } = minted;
    let turn = lent.generation;
    let mut next = record.clone();
    let mut news = next.release(turn);
    let replaces = record.token.as_ref().is_none_or(|known| known.generation < turn || known.generation == unreadable);
    if let Some(sealed) = refresh.as_ref().filter(|_| replaces) {
        next.refresh = Some(Sealed { turn, sealed: sealed.clone() });
    }
    if replaces {
        next.turn = turn;
        next.token = Some(lent.clone());
        next.failures = 0;
        next.pause = None;
        next.refusal = None;
        news = true;
    }
    news.then_some(next)
}

/// The record after the log-in of `turn` failed at `now`; `None` if somebody else has the claim by now.
pub(super) fn failed(record: &Record, turn: u64, now: Duration, why: Trouble) -> Option<Record> {
    let mut next = record.clone();
    if !next.release(turn) {
        return None;
    }
    next.failures = next.failures.saturating_add(1);
    next.pause = Some(Pause { until: millis(now + step(next.failures)), why });
    Some(next)
}

/// The record after the log-in of `turn` was refused; `None` if somebody else has the claim by now.
pub(super) fn refused(record: &Record, turn: u64, now: Duration, why: Trouble, proof: &str) -> Option<Record> {
    let mut next = record.clone();
    if !next.release(turn) {
        return None;
    }
    next.refusal = Some(Refusal { at: millis(now), why, proof: Sealed { turn, sealed: proof.to_owned() } });
    Some(next)
}

/// In the record's words.
pub(super) fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);

    fn me(replica: &str) -> Me<'_> {
        Me { replica, per_hour: 3_600, ..Me::default() }
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// `replica` claims the log-in at `now`.
    fn claim(record: &Record, now: Duration, me: &Me<'_>) -> (u64, Record) {
        match wish(record, now, me) {
            Wish::LogIn { turn, next } => (turn, *next),
            other => panic!("{other:?}"),
        }
    }

    fn minted(turn: u64, now: Duration) -> Minted {
        let (issued, renew) = (millis(now), millis(now + Duration::from_hours(1)));
        let lent = Lent { generation: turn, issued, renew, ends: None, sealed: "sealed".to_owned() };
        Minted { lent, refresh: None }
    }

    /// A record with a token issued at `now`, and its generation.
    fn with_token(record: &Record, now: Duration) -> (u64, Record) {
        let (turn, claimed) = claim(record, now, &Me { rejected: record.turn, spent: record.turn, ..me("a") });
        (turn, granted(&claimed, &minted(turn, now), 0).unwrap())
    }

    #[test]
    fn the_first_claims_the_rest_wait_and_find_the_token() {
        let (turn, record) = claim(&Record::default(), NOW, &me("a"));
        assert_eq!(wish(&record, NOW, &me("b")), Wish::Wait(NOW + CLAIM));
        let record = granted(&record, &minted(turn, NOW), 0).unwrap();
        let Wish::Use(lent) = wish(&record, NOW, &me("b")) else { panic!("no token") };
        assert_eq!((lent.generation, record.logins(NOW)), (turn, 1));
        assert_eq!(granted(&record, &minted(turn, NOW), 0), None, "nothing new");
    }

    #[test]
    fn the_claim_of_one_that_died_ends_and_its_late_answer_is_not_taken_for_a_failure() {
        let (first, record) = claim(&Record::default(), NOW, &me("a"));
        let later = NOW + CLAIM;
        assert!(matches!(wish(&record, later - Duration::from_millis(1), &me("b")), Wish::Wait(_)));
        let (second, record) = claim(&record, later, &me("b"));
        assert!(second > first);
        assert_eq!(failed(&record, first, later, Trouble::Unreachable), None);
        assert_eq!(refused(&record, first, later, Trouble::Refused, "proof"), None);
        let late = granted(&record, &minted(first, later), 0).unwrap();
        assert!(matches!(wish(&late, later, &me("c")), Wish::Use(lent) if lent.generation == first));
        let both = granted(&late, &minted(second, later), 0).unwrap();
        assert!(matches!(wish(&both, later, &me("c")), Wish::Use(lent) if lent.generation == second));
        assert_eq!(granted(&both, &minted(first, later), 0), None, "an older one replaces no newer one");
    }

    #[test]
    fn a_process_takes_its_own_claim_over() {
        let (first, record) = claim(&Record::default(), NOW, &me("a"));
        assert!(claim(&record, NOW, &me("a")).0 > first);
    }

    #[test]
    fn a_rejected_token_is_replaced_once_whoever_hears_of_it() {
        let (old, record) = with_token(&Record::default(), NOW);
        let later = NOW + secs(60);
        let rejects = |replica| Me { rejected: old, spent: old, ..me(replica) };
        let (new, record) = claim(&record, later, &rejects("a"));
        assert!(matches!(wish(&record, later, &rejects("b")), Wish::Wait(_)));
        let record = granted(&record, &minted(new, later), 0).unwrap();
        assert!(matches!(wish(&record, later, &rejects("c")), Wish::Use(lent) if lent.generation == new));
        assert_eq!(record.logins(later), 2);
    }

    #[test]
    fn a_token_that_is_due_is_renewed_by_one_and_serves_who_has_none() {
        let (turn, record) = with_token(&Record::default(), NOW);
        let due = NOW + Duration::from_hours(1);
        let has = |replica| Me { held: turn, ..me(replica) };
        assert!(matches!(wish(&record, due, &me("new")), Wish::Use(_)));
        let (_, record) = claim(&record, due, &has("a"));
        assert!(matches!(wish(&record, due, &has("b")), Wish::Wait(_)));
        assert!(matches!(wish(&record, due, &me("new")), Wish::Use(_)));
    }

    #[test]
    fn a_token_past_its_end_is_not_there() {
        let mut ends = minted(7, NOW);
        ends.lent.ends = Some(millis(NOW + secs(10)));
        let record = granted(&Record::default(), &ends, 0).unwrap();
        assert!(matches!(wish(&record, NOW + secs(9), &me("a")), Wish::Use(_)));
        assert!(matches!(wish(&record, NOW + secs(10), &me("a")), Wish::LogIn { .. }));
    }

    #[test]
    fn failures_hold_everybody_back_for_longer_and_longer() {
        let (mut record, mut now) = (Record::default(), NOW);
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            let (turn, claimed) = claim(&record, now, &me("a"));
            record = failed(&claimed, turn, now, Trouble::Unavailable).unwrap();
            let until = now + secs(wait);
            let back = Wish::Back { until, why: Trouble::Unavailable, next: None };
            assert_eq!(wish(&record, now, &me("b")), back);
            now = until;
        }
        let (turn, claimed) = claim(&record, now, &me("b"));
        let record = granted(&claimed, &minted(turn, now), 0).unwrap();
        assert_eq!((record.failures, &record.pause), (0, &None));
    }

    #[test]
    fn a_refusal_counts_for_the_same_credentials_and_until_it_is_forgiven() {
        let (turn, claimed) = claim(&Record::default(), NOW, &me("a"));
        let record = refused(&claimed, turn, NOW, Trouble::Refused, "proof").unwrap();
        let same = Me { barred: true, ..me("b") };
        assert_eq!(wish(&record, NOW, &same), Wish::Never { turn, why: Trouble::Refused });
        assert!(matches!(wish(&record, NOW, &me("other credentials")), Wish::LogIn { .. }));
        let reloaded = Me { pardoned: turn, ..same.clone() };
        let (again, claimed) = claim(&record, NOW, &reloaded);
        let record = refused(&claimed, again, NOW, Trouble::Refused, "proof").unwrap();
        assert_eq!(wish(&record, NOW, &reloaded), Wish::Never { turn: again, why: Trouble::Refused });
        assert!(matches!(wish(&record, NOW + REFUSAL, &same), Wish::LogIn { .. }));
        let looks = Me { looks_only: true, ..same.clone() };
        assert!(matches!(wish(&record, NOW + REFUSAL, &looks), Wish::Never { .. }));
        let cured = granted(&record, &minted(again + 1, NOW), 0).unwrap();
        assert!(matches!(wish(&cured, NOW, &looks), Wish::Use(_)));
        assert_eq!(cured.refusal, None);
    }

    #[test]
    fn tokens_that_never_work_hold_everybody_back() {
        let (mut record, mut now, mut logins) = (Record::default(), NOW, 0);
        let mut knows = [0; 3];
        while now < NOW + secs(600) {
            for (replica, knows) in ["a", "b", "c"].iter().zip(&mut knows) {
                let me = Me { rejected: *knows, spent: *knows, ..me(replica) };
                match wish(&record, now, &me) {
                    Wish::LogIn { turn, next } => {
                        logins += 1;
                        record = granted(&next, &minted(turn, now), 0).unwrap();
                        *knows = turn;
                    }
                    Wish::Use(lent) => *knows = lent.generation,
                    Wish::Back { next, .. } => record = next.map_or(record, |next| *next),
                    other => panic!("{other:?}"),
                }
                now += Duration::from_millis(50);
            }
        }
        assert!((5..=18).contains(&logins), "{logins} log-ins in ten minutes");
    }

    #[test]
    fn the_hour_s_log_ins_are_counted_together() {
        let mut record = Record::default();
        for minute in 0..10 {
            let replica = if minute % 2 == 0 { "a" } else { "b" };
            let now = NOW + secs(60 * minute);
            let (turn, claimed) = claim(&record, now, &Me { per_hour: 10, spent: record.turn, ..me(replica) });
            record = granted(&claimed, &minted(turn, now), 0).unwrap();
        }
        let now = NOW + secs(600);
        let late = Me { per_hour: 10, spent: record.turn, ..me("c") };
        let Wish::Back { until, why: Trouble::LoginBudget, next: None } = wish(&record, now, &late) else {
            panic!("past the budget")
        };
        assert_eq!(until, NOW + secs(61 * 60));
        assert!(matches!(wish(&record, until, &late), Wish::LogIn { .. }));
    }

    #[test]
    fn a_store_that_forgot_or_whose_clock_went_back_stops_nobody_for_long() {
        let (turn, record) = with_token(&Record::default(), NOW);
        let spent = Me { spent: turn, rejected: turn, ..me("a") };
        assert!(claim(&Record::default(), NOW - secs(3_600), &spent).0 > turn);
        let (_, claimed) = claim(&record, NOW, &spent);
        assert!(matches!(wish(&claimed, NOW - secs(3_600), &Me { replica: "b", ..spent }), Wish::LogIn { .. }));
    }

    #[test]
    fn a_token_that_cannot_be_opened_is_replaced_whatever_its_number() {
        let mut forged = minted(u64::MAX, NOW);
        forged.lent.sealed = "forged".to_owned();
        let record = granted(&Record::default(), &forged, 0).unwrap();
        let blind = Me { unreadable: u64::MAX, ..me("a") };
        let (turn, claimed) = claim(&record, NOW, &blind);
        assert_eq!(turn, millis(NOW));
        let record = granted(&claimed, &minted(turn, NOW), u64::MAX).unwrap();
        assert!(matches!(wish(&record, NOW, &me("b")), Wish::Use(lent) if lent.generation == turn));
        assert_eq!(claim(&record, NOW, &Me { spent: turn, ..me("b") }).0, turn + 1);
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        for bytes in [&b""[..], b"{", b"[]", b"{\"claim\":7}", b"\xff", &[b' '; LONGEST + 1]] {
            assert_eq!(Record::read(Some(bytes)), Record::default());
        }
        let (_, record) = with_token(&Record::default(), NOW);
        assert_eq!(Record::read(Some(&record.written())), record);
    }
}
