//! The slice of the allowance that this process may spend without asking the bank.
//!
//! The bank has written down that these calls may be spent before the first of them is: if the process dies, what
//! it did not report counts as spent. So a lease is kept small where calls are scarce, and large where they are
//! spent fast, since a lease that runs dry makes calls wait.

use super::time::Minute;

/// A lease is not spent from in the last minutes before it ends, so that what was reserved can still be sent.
pub const LEASE_RESERVE_MINUTES: u32 = 3;
/// How many seconds of spending at the present rate a lease should last.
const LASTS_SECONDS: u64 = 5;
/// A lease takes at most this part of what is left.
const PART_OF_HEADROOM: u64 = 16;
/// With plenty left a lease is at least this large.
const USUAL_LEASE: u64 = 100;

/// What happens when the lease is spent and the bank cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnLoss {
    /// Nothing is admitted until the bank is back: no call can be forgotten. Where the bank is shared by several replicas,
    /// what is leased is not spent either.
    Refuse,
    /// What is leased is spent until the lease ends.
    SpendLease,
    /// The same, and then a share of what was left when the bank was last heard, as far as that share was set aside for this
    /// replica.
    SafeShare,
    /// Calls are admitted and counted in memory only: a crash now forgets them.
    Continue,
}

/// Where the right to spend comes from.
#[derive(Debug, Clone)]
pub(super) enum Lease {
    /// No bank: nothing to be restored after a restart.
    Unbounded,
    /// Granted by the bank.
    Held(Held),
}

#[derive(Debug, Clone)]
pub(super) struct Held {
    /// Calls that may still be reserved.
    left: u64,
    /// Last minute in which they may be sent.
    until: Minute,
    /// What the lease should be filled up to.
    target: u64,
    lost: Option<OnLoss>,
    /// The bank has other replicas.
    shared: bool,
    /// Calls beyond the lease that are set aside for this replica in case the bank is lost.
    reserve: u64,
}

/// Who spends from the common lease.
#[derive(Debug, Default)]
pub(super) struct Common {
    /// Some caller does.
    pub(super) spends: bool,
    /// One asked since the bank was last asked.
    pub(super) asked: bool,
}

/// What the lease says to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Funds {
    Enough,
    Empty,
    Lost,
}

impl Lease {
    pub(super) fn unopened() -> Self {
        Self::Held(Held { left: 0, until: Minute(0), target: 1, lost: None, shared: false, reserve: 0 })
    }

    /// Whether `cost` calls may be spent; `allotted` is what the caller has in its own name, if it spends from that.
    pub(super) fn ask(&self, cost: u64, allotted: Option<u64>, now: Minute) -> Funds {
        let Self::Held(held) = self else { return Funds::Enough };
        if held.shared && held.lost == Some(OnLoss::Refuse) {
            return Funds::Lost;
        }
        if allotted.unwrap_or(held.left) >= cost && now.plus(LEASE_RESERVE_MINUTES) <= held.until {
            return Funds::Enough;
        }
        match held.lost {
            Some(OnLoss::Continue) => Funds::Enough,
            Some(OnLoss::Refuse | OnLoss::SpendLease | OnLoss::SafeShare) => Funds::Lost,
            None => Funds::Empty,
        }
    }

    /// Takes `cost` out, or what there is of it; returns how many calls that were.
    pub(super) fn reserve(&mut self, cost: u32) -> u32 {
        let Self::Held(held) = self else { return 0 };
        let taken = u32::try_from(held.left).unwrap_or(u32::MAX).min(cost);
        held.left -= u64::from(taken);
        taken
    }

    /// Puts back what [`Self::reserve`] took.
    pub(super) fn refund(&mut self, taken: u32) {
        if let Self::Held(held) = self {
            held.left += u64::from(taken);
        }
    }

    /// Whether it is time to fill up.
    pub(super) fn is_low(&self) -> bool {
        matches!(self, Self::Held(held) if held.left * 2 < held.target)
    }

    /// Whether a reserved call may still be sent.
    pub(super) fn may_send(&self, now: Minute) -> bool {
        match self {
            Self::Unbounded | Self::Held(Held { lost: Some(OnLoss::Continue), .. }) => true,
            Self::Held(held) => now <= held.until,
        }
    }

    /// Sets what it should hold, given spending `per_second` and `headroom` under the ceiling; gives back what is
    /// far too much. `needed` calls are waiting in one piece.
    pub(super) fn adapt(&mut self, per_second: u64, headroom: u64, needed: u64) -> u64 {
        let Self::Held(held) = self else { return 0 };
        let wished = Self::usual(per_second).min(headroom / PART_OF_HEADROOM);
        held.target = wished.max(needed).max(1);
        // What nobody can be given back is kept, for it has to last.
        if !(held.shared && held.lost.is_some()) {
            held.left = held.left.min(held.target.saturating_mul(2));
        }
        held.target.saturating_sub(held.left)
    }

    /// What a lease should last at the present rate of spending.
    pub(super) fn usual(per_second: u64) -> u64 {
        (per_second * LASTS_SECONDS).max(USUAL_LEASE)
    }

    pub(super) fn granted(&mut self, calls: u64, until: Minute) {
        if let Self::Held(held) = self {
            held.left += calls;
            held.until = held.until.max(until);
            held.lost = None;
        }
    }

    /// Whether it has to be renewed.
    pub(super) fn ends_within(&self, minutes: u32, now: Minute) -> bool {
        matches!(self, Self::Held(held) if held.until < now.plus(minutes) || held.lost.is_some())
    }

    pub(super) fn lost(&mut self, policy: OnLoss) {
        if let Self::Held(held) = self {
            held.lost = Some(policy);
            if policy == OnLoss::SafeShare {
                held.left += std::mem::take(&mut held.reserve);
            }
        }
    }

    /// The bank has other replicas, and sets `calls` more aside for this one.
    pub(super) fn set_aside(&mut self, calls: u64) {
        if let Self::Held(held) = self {
            held.shared = true;
            held.reserve += calls;
        }
    }

    /// Gives back what is too much of what is set aside, where `wanted` is enough; returns what is kept, and how much there
    /// should be more.
    pub(super) fn adapt_reserve(&mut self, wanted: u64) -> (u64, u64) {
        let Self::Held(held) = self else { return (0, 0) };
        held.reserve = held.reserve.min(wanted);
        (held.reserve, wanted - held.reserve)
    }

    pub(super) fn give_up(&mut self) {
        if let Self::Held(held) = self {
            held.left = 0;
        }
    }

    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Unbounded => None,
            Self::Held(held) => Some(held.left),
        }
    }

    /// Whether other replicas can neither be given anything back nor be asked for anything.
    pub(super) fn is_cut_off(&self) -> bool {
        matches!(self, Self::Held(Held { shared: true, lost: Some(_), .. }))
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Held(Held { lost: Some(_), .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Minute = Minute(1_000);

    #[test]
    fn it_lasts_some_seconds_and_shrinks_to_one_near_the_ceiling() {
        let mut lease = Lease::unopened();
        assert_eq!(lease.adapt(0, 1_000_000, 0), 100);
        assert_eq!(lease.adapt(1_000, 1_000_000, 0), 5_000);
        assert_eq!(lease.adapt(1_000, 1_600, 0), 100);
        assert_eq!(lease.adapt(1_000, 20, 0), 1);
        assert_eq!(lease.adapt(1_000, 0, 0), 1);
        assert_eq!(lease.adapt(1_000, 20, 7), 7, "a call that costs more than the lease is not stuck for ever");
    }

    #[test]
    fn it_gives_back_what_is_far_too_much() {
        let mut lease = Lease::unopened();
        lease.granted(5_000, NOW);
        assert_eq!(lease.adapt(0, 16_000, 0), 0);
        assert_eq!(lease.left(), Some(200));
    }

    #[test]
    fn it_ends_for_new_calls_before_it_ends_for_reserved_ones() {
        let mut lease = Lease::unopened();
        lease.granted(10, NOW.plus(LEASE_RESERVE_MINUTES));
        assert_eq!(lease.ask(1, None, NOW), Funds::Enough);
        assert_eq!(lease.ask(11, None, NOW), Funds::Empty);
        assert_eq!(lease.ask(1, None, NOW.plus(1)), Funds::Empty);
        assert!(lease.may_send(NOW.plus(LEASE_RESERVE_MINUTES)));
        assert!(!lease.may_send(NOW.plus(LEASE_RESERVE_MINUTES + 1)));
    }

    #[test]
    fn a_lost_bank_stops_or_does_not_stop_by_name() {
        let mut lease = Lease::unopened();
        lease.lost(OnLoss::Refuse);
        assert_eq!(lease.ask(1, None, NOW), Funds::Lost);
        lease.lost(OnLoss::Continue);
        assert_eq!(lease.ask(1, None, NOW), Funds::Enough);
        assert!(lease.may_send(NOW));
        lease.granted(0, NOW);
        assert_eq!(lease.ask(1, None, NOW), Funds::Empty);
    }
}
