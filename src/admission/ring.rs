//! Calls of the trailing 24 hours, by the minute in which they were sent.
//!
//! The window is 1,441 one-minute buckets, the running minute included: a call sent at the very end of a minute
//! is still counted 24 h later, so the window is never shorter than 24 h and at most a minute longer. Buckets live
//! in pages of 64 that exist only where something was counted, one byte for each minute until a minute needs more.
//! Running sums, integers, no clock. The past is kept a while beyond the window, because Salesforce releases later
//! than we do (facts 1.1).

use super::time::Minute;

/// Minutes that count: 24 h and the running minute.
pub const WINDOW_MINUTES: u32 = 1_441;
/// Minutes beyond the window that can still be read.
pub const AFTERMATH_MINUTES: u32 = 90;

const PAGE_MINUTES: u32 = 64;
const PAGES: usize = 25;
/// From the latest minute back to the earliest that is sure to be kept. The page of the latest minute may have
/// just begun, so one page of the ring does not count.
const KEPT_MINUTES: u32 = PAGE_MINUTES * (PAGES as u32 - 1);
const _: () = assert!(KEPT_MINUTES >= WINDOW_MINUTES + AFTERMATH_MINUTES);

#[derive(Debug, Clone, Default)]
enum Page {
    #[default]
    Empty,
    Narrow(Box<[u8; PAGE_MINUTES as usize]>),
    Wide(Box<[u32; PAGE_MINUTES as usize]>),
}

impl Page {
    fn get(&self, offset: usize) -> u32 {
        match self {
            Self::Empty => 0,
            Self::Narrow(cells) => u32::from(cells[offset]),
            Self::Wide(cells) => cells[offset],
        }
    }

    fn set(&mut self, offset: usize, calls: u32) {
        if let Self::Empty = self {
            *self = Self::Narrow(Box::new([0; PAGE_MINUTES as usize]));
        }
        if let Self::Narrow(cells) = self {
            if let Ok(small) = u8::try_from(calls) {
                cells[offset] = small;
                return;
            }
            *self = Self::Wide(Box::new(cells.map(u32::from)));
        }
        if let Self::Wide(cells) = self {
            cells[offset] = calls;
        }
    }

    /// The sum of `count` minutes from `offset` on.
    fn sum(&self, offset: usize, count: usize) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Narrow(cells) => cells.iter().skip(offset).take(count).map(|calls| u64::from(*calls)).sum(),
            Self::Wide(cells) => cells.iter().skip(offset).take(count).map(|calls| u64::from(*calls)).sum(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::Narrow(cells) => size_of_val(&**cells),
            Self::Wide(cells) => size_of_val(&**cells),
        }
    }
}

/// A sparse ring of one-minute buckets with the sum of those in the window.
///
/// The ring has a latest minute (moved by [`Ring::extend`], which releases nothing) and a first minute that still
/// counts (moved by [`Ring::release`]). The two are apart so that many rings can be released together: until then
/// a ring counts too much, never too little.
#[derive(Debug, Clone)]
pub struct Ring {
    latest: u32,
    first: u32,
    sum: u64,
    pages: [Page; PAGES],
}

impl Ring {
    /// An empty ring whose latest minute is `now`.
    pub fn new(now: Minute) -> Self {
        Self { latest: now.0, first: window_start(now.0), sum: 0, pages: Default::default() }
    }

    /// Calls in the window.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// The latest minute the ring has seen.
    pub fn latest(&self) -> Minute {
        Minute(self.latest)
    }

    /// The first minute that still counts.
    pub fn first(&self) -> Minute {
        Minute(self.first)
    }

    /// Makes room for `now` and the minutes before it. Releases nothing, unless `now` is so far ahead that what
    /// counts would have to be overwritten.
    pub fn extend(&mut self, now: Minute) {
        if now.0 <= self.latest {
            return;
        }
        if now.0 - self.first >= KEPT_MINUTES {
            self.release(now);
            return;
        }
        self.turn_to(now.0);
    }

    /// Releases everything sent 24 h or longer before `now` begins; returns how many calls that were.
    pub fn release(&mut self, now: Minute) -> u64 {
        let until = window_start(now.0);
        let mut released = 0;
        if self.sum > 0 {
            released = self.between(self.first, until.min(self.latest.saturating_add(1)));
        }
        self.sum -= released;
        self.first = self.first.max(until);
        if now.0 > self.latest {
            self.turn_to(now.0);
        }
        released
    }

    fn turn_to(&mut self, now: u32) {
        let (from, to) = (self.latest / PAGE_MINUTES, now / PAGE_MINUTES);
        if (to - from) as usize >= PAGES {
            self.pages = Default::default();
        } else {
            for page in from + 1..=to {
                self.pages[page as usize % PAGES] = Page::Empty;
            }
        }
        self.latest = now;
    }

    /// Counts `calls` in `minute`; returns how many were counted. What lies before the window is not, what lies
    /// ahead counts as now.
    pub fn add(&mut self, minute: Minute, calls: u32) -> u32 {
        let minute = minute.0.min(self.latest);
        if calls == 0 || minute < self.first {
            return 0;
        }
        let (page, offset) = place(minute);
        let before = self.pages[page].get(offset);
        let after = before.saturating_add(calls);
        self.pages[page].set(offset, after);
        self.sum += u64::from(after - before);
        after - before
    }

    /// Takes up to `calls` back out of `minute`, if it still counts; returns how many were taken.
    pub fn take(&mut self, minute: Minute, calls: u32) -> u32 {
        if minute.0 < self.first || minute.0 > self.latest {
            return 0;
        }
        let (page, offset) = place(minute.0);
        let before = self.pages[page].get(offset);
        let taken = before.min(calls);
        if taken > 0 {
            self.pages[page].set(offset, before - taken);
            self.sum -= u64::from(taken);
        }
        taken
    }

    /// Takes up to `calls` out of the oldest minutes that count, none of them after `until`.
    pub fn take_oldest(&mut self, calls: u64, until: Minute) -> u64 {
        let mut left = calls;
        let mut minute = self.first;
        while left > 0 && minute <= until.0.min(self.latest) {
            let taken = self.take(Minute(minute), u32::try_from(left).unwrap_or(u32::MAX));
            left -= u64::from(taken);
            minute += 1;
        }
        calls - left
    }

    /// Calls of one minute, also shortly after it has left the window; 0 where nothing is kept.
    pub fn at(&self, minute: Minute) -> u32 {
        if minute.0 > self.latest || self.latest - minute.0 >= KEPT_MINUTES {
            return 0;
        }
        let (page, offset) = place(minute.0);
        self.pages[page].get(offset)
    }

    /// Calls of the minutes `from..until`, also of those that have left the window within [`AFTERMATH_MINUTES`].
    pub fn between(&self, from: u32, until: u32) -> u64 {
        let mut minute = from.max(self.latest.saturating_sub(KEPT_MINUTES - 1));
        let until = until.min(self.latest.saturating_add(1));
        let mut sum = 0;
        while minute < until {
            let (page, offset) = place(minute);
            let end = until.min((minute / PAGE_MINUTES + 1) * PAGE_MINUTES);
            sum += self.pages[page].sum(offset, (end - minute) as usize);
            minute = end;
        }
        sum
    }

    /// Calls of the latest minute.
    pub fn running(&self) -> u64 {
        let (page, offset) = place(self.latest);
        u64::from(self.pages[page].get(offset))
    }

    /// Calls sent in the last `minutes` minutes, the running one included.
    pub fn recent(&self, minutes: u32) -> u64 {
        self.between((self.latest + 1).saturating_sub(minutes).max(self.first), self.latest + 1)
    }

    /// Calls that will have come back `minutes` after `now`.
    pub fn returning(&self, now: Minute, minutes: u32) -> u64 {
        self.between(self.first, window_start(now.0.saturating_add(minutes)))
    }

    /// What comes back when: for each minute in which something does, that minute and how many calls.
    pub fn schedule(&self) -> impl Iterator<Item = (Minute, u32)> + '_ {
        (self.first..=self.latest).filter_map(|minute| {
            let calls = self.at(Minute(minute));
            (calls > 0).then_some((Minute(minute).plus(WINDOW_MINUTES), calls))
        })
    }

    /// The first minute by whose beginning at least `calls` have come back; `None` if the ring holds fewer.
    pub fn next_return(&self, calls: u64) -> Option<Minute> {
        if calls > self.sum {
            return None;
        }
        let mut sum = 0;
        self.schedule().find_map(|(minute, returning)| {
            sum += u64::from(returning);
            (sum >= calls).then_some(minute)
        })
    }

    /// Bytes held, the ring itself included.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.pages.iter().map(Page::bytes).sum::<usize>()
    }
}

/// The first minute that counts when the running minute is `now`.
const fn window_start(now: u32) -> u32 {
    (now + 1).saturating_sub(WINDOW_MINUTES)
}

const fn place(minute: u32) -> (usize, usize) {
    ((minute / PAGE_MINUTES) as usize % PAGES, (minute % PAGE_MINUTES) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Minute = Minute(29_000_000);

    #[test]
    fn a_call_is_counted_for_the_whole_24_hours_after_the_last_moment_of_its_minute() {
        let mut ring = Ring::new(START);
        ring.add(START, 7);
        ring.release(START.plus(1_440));
        assert_eq!(ring.sum(), 7);
        assert_eq!(ring.release(START.plus(1_441)), 7);
        assert_eq!(ring.sum(), 0);
        assert_eq!(ring.at(START), 7, "what Salesforce may still count can be read");
    }

    #[test]
    fn extending_releases_nothing_until_the_ring_is_full() {
        let mut ring = Ring::new(START);
        ring.add(START, 1);
        ring.release(START.plus(1_400));
        ring.extend(START.plus(1_490));
        assert_eq!(ring.sum(), 1);
        ring.extend(START.plus(100_000));
        assert_eq!(ring.sum(), 0);
    }

    #[test]
    fn the_schedule_says_when_each_call_comes_back() {
        let mut ring = Ring::new(START);
        ring.add(START, 5);
        ring.extend(START.plus(10));
        ring.add(START.plus(10), 300);
        let schedule: Vec<_> = ring.schedule().collect();
        assert_eq!(schedule, [(START.plus(1_441), 5), (START.plus(1_451), 300)]);
        assert_eq!(ring.next_return(5), Some(START.plus(1_441)));
        assert_eq!(ring.next_return(6), Some(START.plus(1_451)));
        assert_eq!(ring.next_return(306), None);
        assert_eq!(ring.returning(START.plus(10), 1_430), 0);
        assert_eq!(ring.returning(START.plus(10), 1_431), 5);
        assert_eq!(ring.returning(START.plus(10), 1_441), 305);
    }

    #[test]
    fn the_oldest_calls_are_taken_first_and_nothing_twice() {
        let mut ring = Ring::new(START);
        ring.add(START, 3);
        ring.extend(START.plus(1));
        ring.add(START.plus(1), 3);
        assert_eq!(ring.take_oldest(4, START.plus(1)), 4);
        assert_eq!((ring.at(START), ring.at(START.plus(1)), ring.sum()), (0, 2, 2));
        assert_eq!(ring.take_oldest(10, START), 0);
        assert_eq!(ring.take(START.plus(1), 9), 2);
        assert_eq!(ring.take(START.plus(1), 9), 0);
    }

    proptest! {
        #[test]
        fn a_ring_agrees_with_a_list_of_sent_calls(
            steps in prop::collection::vec((0u8..4, 0u32..1_700, 1u32..400), 1..120)
        ) {
            let mut ring = Ring::new(START);
            let mut sent: Vec<(u32, u32)> = Vec::new();
            let mut now = START.0;
            for (kind, minutes, calls) in steps {
                match kind {
                    0 => { now += minutes; ring.extend(Minute(now)); ring.release(Minute(now)); }
                    1 => { now += minutes % 5; ring.release(Minute(now)); }
                    2 => { ring.add(Minute(now), calls); sent.push((now, calls)); }
                    _ => {
                        let back = now - minutes % 50;
                        let taken = ring.take(Minute(back), calls);
                        let mut left = taken;
                        for (minute, there) in &mut sent {
                            if *minute == back { let t = left.min(*there); *there -= t; left -= t; }
                        }
                        prop_assert_eq!(left, 0);
                    }
                }
                let model: u64 = sent.iter().filter(|(m, _)| m + 1_441 > now).map(|(_, c)| u64::from(*c)).sum();
                prop_assert_eq!(ring.sum(), model);
                let soon: u64 = sent.iter()
                    .filter(|(m, _)| m + 1_441 > now && m + 1_441 <= now + minutes).map(|(_, c)| u64::from(*c)).sum();
                prop_assert_eq!(ring.returning(Minute(now), minutes), soon);
            }
        }
    }
}
