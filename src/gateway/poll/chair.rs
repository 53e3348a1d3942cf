//! Who of several replicas asks what an org has used: pure. One of them sits in the chair for a bounded time; the record of
//! it is compared and set in the store, so two that reach for it at the same time do not both get it.
//!
//! Nobody's wall clock is believed. Whoever sits counts its time by its own monotonic clock from before it asked for the
//! chair; whoever stands takes the chair for empty once the store's clock says so, or once the record has not changed for a
//! whole lease by its own clock, which is right even where the store's clock was set or is another one after a failover.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How long the chair is taken at a time.
pub const LEASE: Duration = Duration::from_secs(20);
/// How often whoever sits takes it anew.
pub const RENEW: Duration = Duration::from_secs(6);
/// So long before the lease ends its holder asks nothing any more: more than clocks and processes stray in a lease.
pub const MARGIN: Duration = Duration::from_secs(5);
/// The shortest pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest name of a holder.
const LONGEST: usize = 64;

/// What the store knows of the chair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The replica that sits.
    pub holder: Arc<str>,
    /// Counts those who sat: what was begun under a lower one is of no use under a higher one.
    pub fence: u64,
    /// When its time is over, by the store's clock since the epoch.
    pub until: Duration,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.fence, self.until.as_millis(), self.holder)
    }
}

impl Record {
    /// Reads what [`Display`](fmt::Display) writes; `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut words = text.splitn(3, ' ');
        let (fence, until, holder) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
        let fits = !holder.is_empty() && holder.len() <= LONGEST;
        fits.then(|| Self { holder: holder.into(), fence, until: Duration::from_millis(until) })
    }
}

/// What to do about the chair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Move {
    /// Write this record; if that succeeds, the chair is ours.
    Sit(Record),
    /// Somebody else sits; look again after so long.
    Stand(Duration),
}

/// One replica's view of the chair.
#[derive(Debug)]
pub struct Chair {
    me: Arc<str>,
    /// The record of somebody else, and since when it has not changed.
    watched: Option<(Record, Instant)>,
    /// The highest fence ever met.
    highest: u64,
}

impl Chair {
    /// The view of the replica `me`, which has seen nothing yet.
    pub fn new(me: Arc<str>) -> Self {
        Self { me, watched: None, highest: 0 }
    }

    /// What to do, if the store says `record` at `clock` of its own and it is `now` here.
    pub fn decide(&mut self, record: Option<Record>, clock: Duration, now: Instant) -> Move {
        self.highest = self.highest.max(record.as_ref().map_or(0, |record| record.fence));
        let Some(record) = record else { return self.sit(clock) };
        if record.holder == self.me {
            // A chair that was ours and ran out was nobody else's in between: the fence can stay.
            self.watched = None;
            return Move::Sit(Record { until: clock + LEASE, ..record });
        }
        let since = match &self.watched {
            Some((watched, since)) if *watched == record => *since,
            _ => now,
        };
        let stood = now.saturating_duration_since(since);
        let left = record.until.saturating_sub(clock).min(LEASE.saturating_sub(stood));
        if left.is_zero() {
            return self.sit(clock);
        }
        self.watched = Some((record, since));
        Move::Stand(left.max(PAUSE))
    }

    /// The record that gives the chair back.
    pub fn leave(held: &Record) -> Record {
        Record { until: Duration::ZERO, ..held.clone() }
    }

    fn sit(&mut self, clock: Duration) -> Move {
        self.watched = None;
        // The store may have lost the record, and this replica may never have seen it. Time goes on all the same.
        let by_time = u64::try_from(clock.as_millis()).unwrap_or(u64::MAX);
        self.highest = self.highest.saturating_add(1).max(by_time);
        Move::Sit(Record { holder: Arc::clone(&self.me), fence: self.highest, until: clock + LEASE })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Clock;

    const START: Duration = Duration::from_secs(1_700_000_000);

    fn chair(name: &str) -> Chair {
        Chair::new(name.into())
    }

    fn seated(asked: Move) -> Record {
        match asked {
            Move::Sit(record) => record,
            Move::Stand(wait) => panic!("it stands for {wait:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_sits_the_others_stand_until_its_time_is_over() {
        let (now, mut a, mut b) = (Clock::start().now(), chair("a"), chair("b"));
        let first = seated(a.decide(None, START, now));
        assert_eq!((&*first.holder, first.until), ("a", START + LEASE));
        assert_eq!(b.decide(Some(first.clone()), START, now), Move::Stand(LEASE));
        let later = |seconds| (START + Duration::from_secs(seconds), now + Duration::from_secs(seconds));
        let (clock, at) = later(6);
        let again = seated(a.decide(Some(first.clone()), clock, at));
        assert_eq!((again.fence, again.until), (first.fence, clock + LEASE), "the same time goes on");
        assert_eq!(b.decide(Some(again.clone()), clock, at), Move::Stand(LEASE));
        let (clock, at) = later(25);
        assert_eq!(b.decide(Some(again.clone()), clock, at), Move::Stand(PAUSE));
        let (clock, at) = later(26);
        let second = seated(b.decide(Some(again), clock, at));
        assert!(second.fence > first.fence && &*second.holder == "b");
        assert!(matches!(a.decide(Some(second), clock, at), Move::Stand(_)), "who comes too late stands");
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_is_followed_at_once() {
        let (now, mut a, mut b) = (Clock::start().now(), chair("a"), chair("b"));
        let first = seated(a.decide(None, START, now));
        let second = seated(b.decide(Some(Chair::leave(&first)), START, now));
        assert!(second.fence > first.fence);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_forgot_or_whose_clock_was_set_holds_up_nobody_for_longer_than_a_lease() {
        let (now, mut a, mut b) = (Clock::start().now(), chair("a"), chair("b"));
        let ahead = START + Duration::from_hours(1);
        let first = seated(a.decide(None, ahead, now));
        // Another clock after a failover: the record ends in an hour.
        assert_eq!(b.decide(Some(first.clone()), START, now), Move::Stand(LEASE));
        let second = seated(b.decide(Some(first.clone()), START + LEASE, now + LEASE));
        assert!(second.fence > first.fence, "higher, though by the clock it would be lower");
        // And nothing at all.
        let third = seated(a.decide(None, START + LEASE, now + LEASE));
        assert!(third.fence > first.fence);
        let stranger = seated(chair("c").decide(None, START + 2 * LEASE, now));
        assert!(stranger.fence >= 1_700_000_000_000, "a newcomer goes by the time");
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let record = Record { holder: "0123456789abcdef".into(), fence: 7, until: START };
        assert_eq!(Record::parse(record.to_string().as_bytes()), Some(record));
        for wrong in ["", "1", "1 2", "1 2 ", "a 2 b", "1 -2 b", "1 99999999999999999999 b"] {
            assert_eq!(Record::parse(wrong.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(Record::parse(&[0xff; 9]), None);
        assert_eq!(Record::parse(format!("1 2 {}", "x".repeat(65)).as_bytes()), None);
    }

    /// One step of the world: who acts, how much time passes before, how long its request takes, what happens to the store.
    #[derive(Debug, Clone)]
    struct Step {
        who: usize,
        passes: u64,
        delay: u64,
        /// 0 forgets the record, 1 sets the store's clock.
        fate: u8,
        shift: i64,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..3_usize, 0..9_000_u64, 0..4_000_u64, 0..40_u8, -300..300_i64)
            .prop_map(|(who, passes, delay, fate, shift)| Step { who, passes, delay, fate, shift });
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

        /// While the store keeps its data and its clock, at most one replica may ask at any time, however long requests
        /// take; fences never fall. Where it does not, nobody asks for longer than a lease after another sat down.
        #[test]
        fn at_most_one_sits(steps in steps()) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            let begin = runtime.block_on(async { Clock::start().now() });
            let mut chairs = [chair("a"), chair("b"), chair("c")];
            // Until when each may ask, by the clock that all share here.
            let mut allowed: [Option<(Instant, u64)>; 3] = [None; 3];
            let (mut at, mut record, mut skew, mut sound) = (begin, None::<Record>, 600_i64, begin);
            let mut top = 0;
            for step in steps {
                at += Duration::from_millis(step.passes);
                match step.fate {
                    0 => (record, sound) = (None, at + LEASE),
                    1 => (skew, sound) = (600 + step.shift, at + LEASE),
                    _ => {}
                }
                let sent = at;
                at += Duration::from_millis(step.delay);
                let clock = START + at.saturating_duration_since(begin);
                let clock = clock.checked_add_signed(skew);
                match chairs[step.who].decide(record.clone(), clock, at) {
                    Move::Stand(wait) => {
                        prop_assert!(wait >= PAUSE && wait <= LEASE);
                        allowed[step.who] = None;
                    }
                    Move::Sit(new) => {
                        prop_assert!(new.fence >= record.as_ref().map_or(0, |record| record.fence));
                        top = top.max(new.fence);
                        allowed[step.who] = Some((sent + LEASE.saturating_sub(MARGIN), new.fence));
                        record = Some(new);
                    }
                }
                let asking: Vec<_> = allowed.iter().flatten().filter(|(until, _)| at < *until).collect();
                if at >= sound {
                    prop_assert!(asking.len() <= 1, "{asking:?}");
                }
            }
            prop_assert!(top >= record.map_or(0, |record| record.fence));
        }
    }

    /// Adds seconds that may be negative.
    trait Signed {
        fn checked_add_signed(self, seconds: i64) -> Self;
    }

    impl Signed for Duration {
        fn checked_add_signed(self, seconds: i64) -> Self {
            let by = Self::from_secs(seconds.unsigned_abs());
            if seconds < 0 { self.saturating_sub(by) } else { self + by }
        }
    }
}
