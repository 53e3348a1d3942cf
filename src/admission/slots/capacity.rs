//! How many slots there seem to be for us: others use the same org.
//!
//! When Salesforce refuses a call because too many run long, the number is halved; it comes back one by one while
//! Salesforce does not refuse.

use std::time::Duration;

use tokio::time::Instant;

/// What was sent before a cut says nothing about its effect; neither does what is refused this soon after it.
const CALM: Duration = Duration::from_secs(5);
/// Time in which one slot comes back.
const STEP: Duration = Duration::from_secs(20);

/// The effective number of slots.
#[derive(Debug, Clone)]
pub(super) struct Capacity {
    slots: u32,
    effective: u32,
    /// When it last changed, while it is below `slots`.
    changed: Option<Instant>,
    cut: Option<Instant>,
    refusals: u64,
}

impl Capacity {
    pub(super) fn new(slots: u32) -> Self {
        Self { slots, effective: slots, changed: None, cut: None, refusals: 0 }
    }

    /// As many as Salesforce seems to leave us.
    pub(super) fn effective(&self) -> u32 {
        self.effective
    }

    /// Calls that Salesforce refused for want of slots.
    pub(super) fn refusals(&self) -> u64 {
        self.refusals
    }

    /// Salesforce refused a call that was sent at `sent`.
    pub(super) fn refused(&mut self, sent: Instant, now: Instant) {
        self.refusals += 1;
        if self.cut.is_some_and(|cut| sent <= cut || now < cut + CALM) {
            // It does not seem to be over yet.
            self.changed = self.changed.map(|changed| changed.max(now));
            return;
        }
        self.effective = (self.effective / 2).max(1);
        self.cut = Some(now);
        self.changed = Some(now);
    }

    /// Gives back what time has given back by `now`; says whether that is anything.
    pub(super) fn recover(&mut self, now: Instant) -> bool {
        let Some(changed) = self.changed else { return false };
        if self.effective >= self.slots {
            self.changed = None;
            return false;
        }
        let steps = now.saturating_duration_since(changed).as_secs() / STEP.as_secs();
        if steps == 0 {
            return false;
        }
        let steps = u32::try_from(steps).unwrap_or(u32::MAX);
        self.effective = self.effective.saturating_add(steps).min(self.slots);
        self.changed = Some(changed + STEP * steps.min(self.slots));
        true
    }

    /// Changes how many there are; what was learnt of the others stays.
    pub(super) fn set(&mut self, slots: u32) {
        let taken = self.slots - self.effective;
        self.slots = slots;
        self.effective = slots.saturating_sub(taken).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[tokio::test]
    async fn a_refusal_halves_and_time_gives_back_one_by_one() {
        let start = Clock::start().now();
        let mut capacity = Capacity::new(25);
        capacity.refused(start, start + seconds(1));
        assert_eq!(capacity.effective(), 12);
        // Sent before the cut, or refused right after it.
        capacity.refused(start + seconds(1), start + seconds(9));
        capacity.refused(start + seconds(4), start + seconds(5));
        assert_eq!(capacity.effective(), 12);
        capacity.refused(start + seconds(8), start + seconds(9));
        assert_eq!((capacity.effective(), capacity.refusals()), (6, 4));
        assert!(!capacity.recover(start + seconds(28)));
        assert!(capacity.recover(start + seconds(29)));
        assert_eq!(capacity.effective(), 7);
        assert!(capacity.recover(start + seconds(29 + 40)));
        assert_eq!(capacity.effective(), 9);
        assert!(capacity.recover(start + seconds(100_000)));
        assert_eq!(capacity.effective(), 25);
        assert!(!capacity.recover(start + seconds(200_000)));
    }

    #[tokio::test]
    async fn one_slot_is_always_left() {
        let start = Clock::start().now();
        let mut capacity = Capacity::new(25);
        for n in 1..20 {
            capacity.refused(start + seconds(n * 10), start + seconds(n * 10 + 1));
        }
        assert_eq!(capacity.effective(), 1);
        capacity.set(5);
        assert_eq!(capacity.effective(), 1);
    }
}
