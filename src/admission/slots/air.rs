//! The calls in the air, and how old they are.
//!
//! All calls grow old after the same time, so they do so in the order in which they were sent: a list in that order, and
//! growing old is a look at its head. Coming, going and growing old cost the same however many calls are in the air.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::admission::AccountId;
use crate::call::{Class, Family};

/// No place.
const NONE: u32 = u32::MAX;
/// Calls whose end nobody will tell that are remembered.
const MOST_LOST: usize = 4_096;

/// What is to be known of a call in the air.
#[derive(Debug, Clone, Copy)]
pub(super) struct About {
    pub(super) fingerprint: u64,
    pub(super) account: AccountId,
    pub(super) class: Class,
    pub(super) family: Family,
    pub(super) template: &'static str,
    /// It holds a slot.
    pub(super) slot: bool,
    /// Its caller may have only so many in the air.
    pub(super) capped: bool,
    /// Nothing was known of its kind.
    pub(super) unknown: bool,
}

/// Who still waits for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    /// Its caller.
    Caller,
    /// Nobody but us.
    Us,
    /// Nobody: when it ends will not be known.
    Nobody,
}

/// A call in the air.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) about: About,
    pub(super) since: Instant,
    awaited: Awaited,
    /// It has reached the age from which Salesforce counts it.
    pub(super) old: bool,
    /// It counts no longer, for Salesforce has ended it by now.
    expired: bool,
    prev: u32,
    next: u32,
}

impl Flight {
    /// Its caller has left.
    pub(super) fn is_ghost(&self) -> bool {
        self.awaited != Awaited::Caller
    }

    /// Salesforce counts it, and it holds no slot.
    pub(super) fn is_overdraft(&self) -> bool {
        self.old && !self.about.slot && !self.expired
    }

    /// It holds a slot, or Salesforce counts it.
    pub(super) fn counts(&self) -> bool {
        (self.about.slot || self.old) && !self.expired
    }
}

/// How long Salesforce lets a call run (facts 1.4).
fn longest(family: Family) -> Duration {
    match family {
        Family::Query => Duration::from_mins(32),
        _ => Duration::from_mins(10),
    }
}

/// The calls in the air.
#[derive(Debug)]
pub(super) struct Air {
    after: Duration,
    flights: Vec<Option<Flight>>,
    free: Vec<u32>,
    /// The places of those that hold a slot or are old: few of many.
    counting: BTreeSet<u32>,
    first_young: u32,
    last_young: u32,
    /// When a call without its caller has surely ended; in this order.
    expiries: BTreeSet<(Instant, u32)>,
    lost: usize,
    flying: usize,
    /// Calls that hold a slot, by class.
    held: [usize; Class::ALL.len()],
    /// Old calls without a slot that somebody waits for, and those that nobody waits for.
    overdraft: usize,
    lost_overdraft: usize,
}

impl Air {
    pub(super) fn new(after: Duration) -> Self {
        Self {
            after,
            flights: Vec::new(),
            free: Vec::new(),
            counting: BTreeSet::new(),
            first_young: NONE,
            last_young: NONE,
            expiries: BTreeSet::new(),
            lost: 0,
            flying: 0,
            held: [0; Class::ALL.len()],
            overdraft: 0,
            lost_overdraft: 0,
        }
    }

    /// Calls that hold a slot, of one class.
    pub(super) fn held_by(&self, class: Class) -> usize {
        let [interactive, standard, batch] = self.held;
        match class {
            Class::Interactive => interactive,
            Class::Standard => standard,
            Class::Batch => batch,
        }
    }

    /// Calls that hold a slot.
    pub(super) fn held(&self) -> usize {
        self.held.iter().sum()
    }

    /// Old calls without a slot that somebody waits for.
    pub(super) fn overdraft(&self) -> usize {
        self.overdraft
    }

    /// Old calls without a slot of which nobody knows whether Salesforce still works on them.
    pub(super) fn lost_overdraft(&self) -> usize {
        self.lost_overdraft
    }

    /// Calls that somebody waits for.
    pub(super) fn flying(&self) -> usize {
        self.flying
    }

    /// The call at `place`.
    pub(super) fn get(&self, place: u32) -> Option<&Flight> {
        self.flights.get(place as usize)?.as_ref()
    }

    fn get_mut(&mut self, place: u32) -> Option<&mut Flight> {
        self.flights.get_mut(place as usize)?.as_mut()
    }

    /// Every call that holds a slot or is old.
    pub(super) fn counted(&self) -> impl Iterator<Item = &Flight> {
        self.counting.iter().filter_map(|place| self.get(*place))
    }

    /// By when every call that holds a slot or is old has surely ended.
    pub(super) fn all_end(&self) -> Option<Instant> {
        self.counted().map(|flight| flight.since + longest(flight.about.family)).max()
    }

    /// Adds or takes away (`by`) what the call at `place` is in every number.
    fn count(&mut self, place: u32, flight: &Flight, by: isize) {
        if !flight.counts() {
            return;
        }
        if by > 0 {
            self.counting.insert(place);
        } else {
            self.counting.remove(&place);
        }
        if flight.about.slot {
            if let Some(held) = self.held.get_mut(flight.about.class.index()) {
                *held = held.saturating_add_signed(by);
            }
        } else {
            let sum = if flight.awaited == Awaited::Nobody { &mut self.lost_overdraft } else { &mut self.overdraft };
            *sum = sum.saturating_add_signed(by);
        }
    }

    /// A call that is admitted at `now`.
    pub(super) fn enter(&mut self, about: About, now: Instant) -> u32 {
        let flight =
            Flight { about, since: now, awaited: Awaited::Caller, old: false, expired: false, prev: NONE, next: NONE };
        self.flying += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.flights.push(None);
            self.flights.len() as u32 - 1
        });
        self.count(place, &flight, 1);
        if let Some(room) = self.flights.get_mut(place as usize) {
            *room = Some(flight);
        }
        self.append(place, now);
        place
    }

    /// Puts `place` at the end of the young. Times of several runtimes may come a little out of order; a call is then taken
    /// for that much younger.
    fn append(&mut self, place: u32, now: Instant) {
        let last = self.last_young;
        let latest = self.get(last).map_or(now, |flight| flight.since.max(now));
        if let Some(before) = self.get_mut(last) {
            before.next = place;
        } else {
            self.first_young = place;
        }
        if let Some(flight) = self.get_mut(place) {
            (flight.since, flight.prev, flight.next) = (latest, last, NONE);
        }
        self.last_young = place;
    }

    fn unlink(&mut self, flight: &Flight) {
        if flight.old {
            return;
        }
        let (prev, next) = (flight.prev, flight.next);
        match self.get_mut(prev) {
            Some(before) => before.next = next,
            None => self.first_young = next,
        }
        match self.get_mut(next) {
            Some(after) => after.prev = prev,
            None => self.last_young = prev,
        }
    }

    /// The next call to have grown old by `now`; to be called until there is none.
    pub(super) fn grow_old(&mut self, now: Instant) -> Option<About> {
        let place = self.first_young;
        let mut flight = *self.get(place)?;
        if flight.since + self.after > now {
            return None;
        }
        self.unlink(&flight);
        self.count(place, &flight, -1);
        flight.old = true;
        self.count(place, &flight, 1);
        if let Some(known) = self.get_mut(place) {
            *known = flight;
        }
        Some(flight.about)
    }

    /// The message of the call at `place` is handed over at `now`: that is when its age begins.
    pub(super) fn sent(&mut self, place: u32, now: Instant) {
        let Some(mut flight) = self.get(place).copied().filter(|flight| !flight.is_ghost()) else { return };
        self.unlink(&flight);
        self.count(place, &flight, -1);
        flight.old = false;
        self.count(place, &flight, 1);
        if let Some(known) = self.get_mut(place) {
            *known = flight;
        }
        self.append(place, now);
    }

    /// The caller of the call at `place` has left; somebody tells its end.
    pub(super) fn left(&mut self, place: u32) {
        if let Some(flight) = self.get_mut(place)
            && flight.awaited == Awaited::Caller
        {
            flight.awaited = Awaited::Us;
            let expires = flight.since + longest(flight.about.family);
            self.expiries.insert((expires, place));
        }
    }

    /// Nobody will tell when the call at `place` ends.
    pub(super) fn lost(&mut self, place: u32, now: Instant) {
        self.left(place);
        let Some(mut flight) = self.get(place).copied().filter(|flight| flight.awaited == Awaited::Us) else {
            return;
        };
        let expires = flight.since + longest(flight.about.family);
        self.count(place, &flight, -1);
        flight.awaited = Awaited::Nobody;
        self.count(place, &flight, 1);
        if let Some(known) = self.get_mut(place) {
            *known = flight;
        }
        self.flying = self.flying.saturating_sub(1);
        self.lost += 1;
        if expires <= now {
            self.remove(place);
        } else if self.lost > MOST_LOST {
            // The oldest, which is the likeliest to have ended.
            let nobody = |place: &u32| self.get(*place).is_some_and(|flight| flight.awaited == Awaited::Nobody);
            let oldest = self.expiries.iter().map(|(_, place)| *place).find(nobody);
            if let Some(place) = oldest {
                self.remove(place);
            }
        }
    }

    /// Lets go of calls without a caller that Salesforce has surely ended; says whether there were any.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((expires, place)) = self.expiries.first().copied()
            && expires <= now
        {
            any = true;
            self.expiries.pop_first();
            let Some(flight) = self.get(place).copied() else { continue };
            if flight.awaited == Awaited::Nobody {
                self.remove(place);
                continue;
            }
            // Whoever waits for it still speaks of its place.
            self.count(place, &flight, -1);
            if let Some(known) = self.get_mut(place) {
                known.expired = true;
            }
        }
        any
    }

    /// Takes the call at `place` out of the air.
    pub(super) fn remove(&mut self, place: u32) -> Option<Flight> {
        let flight = self.flights.get_mut(place as usize)?.take()?;
        self.unlink(&flight);
        self.count(place, &flight, -1);
        match flight.awaited {
            Awaited::Caller | Awaited::Us => self.flying = self.flying.saturating_sub(1),
            Awaited::Nobody => self.lost = self.lost.saturating_sub(1),
        }
        if flight.is_ghost() {
            self.expiries.remove(&(flight.since + longest(flight.about.family), place));
        }
        self.free.push(place);
        Some(flight)
    }

    /// Changes the age from which Salesforce counts a call. What is in the air is judged anew.
    pub(super) fn set_after(&mut self, after: Duration) {
        if after == self.after {
            return;
        }
        self.after = after;
        let mut all: Vec<(Instant, u32)> = self
            .flights
            .iter()
            .enumerate()
            .filter_map(|(place, flight)| flight.as_ref().map(|flight| (flight.since, place as u32)))
            .collect();
        all.sort_unstable();
        (self.first_young, self.last_young) = (NONE, NONE);
        for (since, place) in all {
            if let Some(flight) = self.get(place).copied() {
                self.count(place, &flight, -1);
                let young = Flight { old: false, ..flight };
                self.count(place, &young, 1);
                if let Some(known) = self.get_mut(place) {
                    *known = young;
                }
            }
            self.append(place, since);
        }
    }

    /// Whether every number agrees with what is there, for tests.
    #[cfg(test)]
    pub(super) fn is_sound(&self) -> bool {
        let all = || self.flights.iter().flatten();
        let held = Class::ALL.iter().all(|class| {
            let held = |flight: &&Flight| flight.about.slot && !flight.expired && flight.about.class == *class;
            all().filter(held).count() == self.held_by(*class)
        });
        let mut young = 0;
        let mut place = self.first_young;
        while let Some(flight) = self.get(place) {
            young += 1;
            place = flight.next;
        }
        let overdraft = all().filter(|flight| flight.is_overdraft()).count();
        let counting = all().filter(|flight| flight.counts()).count();
        held && counting == self.counting.len()
            && self.counted().count() == counting
            && overdraft == self.overdraft + self.lost_overdraft
            && all().filter(|flight| !flight.old).count() == young
            && all().filter(|flight| flight.awaited == Awaited::Nobody).count() == self.lost
            && all().filter(|flight| flight.awaited != Awaited::Nobody).count() == self.flying
            && all().count() + self.free.len() == self.flights.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const AFTER: Duration = Duration::from_secs(20);

    fn about(slot: bool) -> About {
        About {
            fingerprint: 7,
            account: AccountId::NOBODY,
            class: Class::Batch,
            family: Family::Rest,
            template: "",
            slot,
            capped: false,
            unknown: false,
        }
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test]
    async fn only_old_calls_without_a_slot_are_overdrafts() {
        let start = Clock::start().now();
        let mut air = Air::new(AFTER);
        let (with, without) = (air.enter(about(true), start), air.enter(about(false), start + seconds(1)));
        assert!(air.grow_old(start + seconds(19)).is_none());
        assert!(air.grow_old(start + seconds(20)).is_some());
        assert_eq!((air.held(), air.overdraft()), (1, 0));
        assert!(air.grow_old(start + seconds(21)).is_some());
        assert!(air.grow_old(start + seconds(90)).is_none());
        assert_eq!((air.held_by(Class::Batch), air.overdraft()), (1, 1));
        air.remove(without);
        air.remove(with);
        assert_eq!((air.held(), air.overdraft(), air.flying()), (0, 0, 0));
        assert!(air.is_sound());
    }

    #[tokio::test]
    async fn age_counts_from_the_sending() {
        let start = Clock::start().now();
        let mut air = Air::new(AFTER);
        let waited = air.enter(about(false), start);
        let other = air.enter(about(false), start + seconds(5));
        air.sent(waited, start + seconds(8));
        assert!(air.grow_old(start + seconds(25)).is_some(), "the other one");
        assert!(air.grow_old(start + seconds(27)).is_none());
        assert!(air.grow_old(start + seconds(28)).is_some());
        assert!(air.is_sound());
        air.remove(other);
        air.remove(waited);
        assert!(air.is_sound());
    }

    #[tokio::test]
    async fn a_ghost_keeps_its_slot_until_its_end_or_ten_minutes() {
        let start = Clock::start().now();
        let mut air = Air::new(AFTER);
        let (left, lost) = (air.enter(about(true), start), air.enter(about(true), start));
        let query = air.enter(About { family: Family::Query, ..about(true) }, start);
        air.left(left);
        air.lost(lost, start + seconds(30));
        air.lost(query, start + seconds(30));
        assert_eq!((air.held(), air.flying()), (3, 1));
        assert!(!air.expire(start + seconds(599)));
        assert!(air.expire(start + seconds(600)));
        assert_eq!(air.held(), 1, "a query may run for 32 minutes");
        assert!(air.is_sound());
        assert!(air.expire(start + seconds(32 * 60)));
        assert_eq!((air.held(), air.flying()), (0, 1));
        air.remove(left);
        assert_eq!((air.held(), air.flying()), (0, 0));
        assert!(air.is_sound());
    }

    #[tokio::test]
    async fn lost_calls_are_bounded() {
        let start = Clock::start().now();
        let mut air = Air::new(AFTER);
        for _ in 0..MOST_LOST + 100 {
            let place = air.enter(about(true), start);
            air.lost(place, start);
        }
        assert_eq!(air.held(), MOST_LOST);
        assert!(air.is_sound());
    }

    #[tokio::test]
    async fn another_age_judges_what_is_there_anew() {
        let start = Clock::start().now();
        let mut air = Air::new(AFTER);
        for second in 0..10 {
            air.enter(about(false), start + seconds(second));
        }
        while air.grow_old(start + seconds(24)).is_some() {}
        assert_eq!(air.overdraft(), 5);
        air.set_after(seconds(16));
        while air.grow_old(start + seconds(24)).is_some() {}
        assert_eq!(air.overdraft(), 9);
        assert!(air.is_sound());
    }

    proptest::proptest! {
        /// Whatever happens in whatever order, no number drifts from what is there.
        #[test]
        fn its_numbers_never_drift(steps in proptest::collection::vec((0_u8..8, 0_usize..30, 0_u64..200), 1..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut now = runtime.block_on(async { Clock::start().now() });
            let mut air = Air::new(AFTER);
            let mut places: Vec<u32> = Vec::new();
            for (what, which, wait) in steps {
                now += seconds(wait);
                let pick = which % places.len().max(1);
                match (what, places.get(pick).copied()) {
                    (0..=2, _) | (_, None) => places.push(air.enter(about(which % 2 == 0), now)),
                    (3, Some(place)) => air.left(place),
                    (4, Some(place)) => {
                        air.lost(place, now);
                        places.swap_remove(pick);
                    }
                    (5, Some(place)) => air.sent(place, now),
                    (_, Some(place)) => {
                        proptest::prop_assert!(air.remove(place).is_some());
                        places.swap_remove(pick);
                    }
                }
                while air.grow_old(now).is_some() {}
                air.expire(now);
                proptest::prop_assert!(air.is_sound());
            }
        }
    }
}
