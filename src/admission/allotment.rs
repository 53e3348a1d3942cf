//! The part of the lease that is one caller's alone.
//!
//! A caller with a ceiling of its own spends only what was leased in its name. So what a process that died may have
//! spent unreported is charged to the caller that may have spent it, and a crash breaks neither the org's ceiling nor
//! the caller's. Callers without a ceiling share one common lease.

use super::time::Minute;

/// What a caller is allotted at first.
const FIRST: u64 = 8;
/// An allotment takes at most this part of what its caller, or the org, has left.
const PART: u64 = 16;
/// Nobody knows what the bank has on record.
const UNKNOWN: u64 = u64::MAX;

/// One caller's part of the lease.
#[derive(Debug, Default)]
pub(super) struct Allotment {
    /// Calls that may still be reserved.
    left: u64,
    /// Calls of it that are reserved and not yet sent.
    out: u64,
    /// What it should be filled up to.
    target: u64,
    /// Largest cost that found it empty since the bank was last asked.
    needed: u64,
    /// It was asked for calls since then.
    asked: bool,
    /// What the bank has on record.
    told: u64,
    /// When the target was last lowered.
    lowered: Minute,
    /// It stands in the list of allotments.
    pub(super) listed: bool,
}

/// What surrounds an allotment when it is adapted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    /// Calls its caller may hold or send before it reaches its ceiling.
    pub(super) own: u64,
    /// The same, of the org.
    pub(super) org: u64,
    /// The largest allotment that makes sense at the present rate of spending.
    pub(super) usual: u64,
    /// Its caller has not asked for a while.
    pub(super) idle: bool,
    /// Others wait for what is left.
    pub(super) scarce: bool,
}

impl Allotment {
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Calls that may be spent without telling the bank.
    pub(super) fn balance(&self) -> u64 {
        self.left + self.out
    }

    pub(super) fn needed(&self) -> u64 {
        self.needed
    }

    /// Notes that it was asked for `cost` calls.
    pub(super) fn ask(&mut self) {
        self.asked = true;
    }

    /// Notes that it did not have `cost` calls.
    pub(super) fn need(&mut self, cost: u64) {
        self.needed = self.needed.max(cost);
    }

    /// Takes `cost` out, or what there is of it; returns how many calls that were.
    pub(super) fn reserve(&mut self, cost: u32) -> u32 {
        let taken = u32::try_from(self.left).unwrap_or(u32::MAX).min(cost);
        self.left -= u64::from(taken);
        self.out += u64::from(taken);
        taken
    }

    /// What was reserved is sent, or not any more.
    pub(super) fn unreserve(&mut self, taken: u32) {
        self.out -= u64::from(taken);
    }

    /// Puts back what was reserved and not sent.
    pub(super) fn refund(&mut self, taken: u32) {
        self.left += u64::from(taken);
    }

    pub(super) fn granted(&mut self, calls: u64) {
        self.left += calls;
        self.told = self.told.saturating_add(calls);
    }

    /// Whether it is time to fill up.
    pub(super) fn is_low(&self) -> bool {
        self.left * 2 < self.target || self.needed > 0
    }

    /// Sets what it should hold, gives back what is too much, and returns what to ask the bank for.
    pub(super) fn adapt(&mut self, room: Room, now: Minute) -> u64 {
        let (needed, asked) = (std::mem::take(&mut self.needed), std::mem::take(&mut self.asked));
        let most = room.own.saturating_sub(self.out);
        if most == 0 || ((room.idle || (room.scarce && !asked)) && needed == 0) {
            (self.left, self.target) = (0, 0);
            return 0;
        }
        if needed > 0 {
            self.target = (self.target * 2).max(FIRST);
        } else if self.lowered != now {
            self.target -= self.target / 4;
        }
        self.lowered = now;
        let sensible = room.usual.min(room.own / PART).min(room.org / PART).max(1);
        self.target = self.target.clamp(1, sensible).max(needed).min(most);
        self.left = self.left.min(self.target.saturating_mul(2)).min(most);
        self.target.saturating_sub(self.left)
    }

    /// Whether the bank has to be told its balance.
    pub(super) fn has_news(&self) -> bool {
        self.told != self.balance()
    }

    /// Notes that the bank is told its balance.
    pub(super) fn tell(&mut self) {
        self.told = self.balance();
    }

    /// Notes that the bank may not have taken what it was told.
    pub(super) fn untell(&mut self) {
        self.told = UNKNOWN;
    }

    /// Nothing of it is left, here or on record.
    pub(super) fn is_over(&self) -> bool {
        self.balance() == 0 && self.told == 0 && self.needed == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Minute = Minute(1_000);

    fn room(own: u64) -> Room {
        Room { own, org: 1_000_000, usual: 100, idle: false, scarce: false }
    }

    #[test]
    fn it_grows_while_it_runs_dry_and_shrinks_near_the_ceiling() {
        let mut allotment = Allotment::default();
        for wanted in [8, 16, 32, 64, 100, 100] {
            allotment.need(1);
            assert_eq!(allotment.adapt(room(100_000), NOW), wanted);
        }
        assert_eq!(allotment.adapt(room(320), NOW), 20);
        assert_eq!(allotment.adapt(room(3), NOW), 1);
        allotment.need(7);
        assert_eq!(allotment.adapt(room(9), NOW), 7, "a call that costs more is not stuck for ever");
        assert_eq!(allotment.adapt(room(0), NOW), 0);
    }

    #[test]
    fn it_never_holds_more_than_its_caller_may_spend() {
        let mut allotment = Allotment::default();
        allotment.need(1);
        allotment.granted(50);
        assert_eq!(allotment.reserve(10), 10);
        allotment.adapt(room(12), NOW);
        assert!(allotment.balance() <= 12);
    }

    #[test]
    fn who_does_not_ask_gives_it_back() {
        for (idle, scarce) in [(true, false), (false, true)] {
            let mut allotment = Allotment::default();
            allotment.granted(5);
            allotment.reserve(2);
            assert_eq!(allotment.adapt(Room { idle, scarce, ..room(1_000) }, NOW), 0);
            assert_eq!((allotment.left(), allotment.balance()), (0, 2), "what is under way stays");
        }
    }
}
