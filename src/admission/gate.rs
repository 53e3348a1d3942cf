//! What happens after Salesforce itself said that the daily allowance is used up.
//!
//! `TotalRequests Limit exceeded` (facts 1.2) closes the ledger at once: whatever we believed is left is wrong.
//! It reopens by probes: one call, then two, four and so on, each batch only after every call of the one before
//! was answered without that refusal. A refused probe closes it again, for twice as long.

use serde::Serialize;

use super::time::Minute;

const FIRST_WAIT_MINUTES: u32 = 1;
const LONGEST_WAIT_MINUTES: u32 = 32;
/// After a batch of this many calls the ledger is open again.
const LAST_BATCH: u32 = 256;

/// Whether Salesforce lets us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Door {
    /// Salesforce has not refused.
    Open,
    /// Salesforce refused; nothing is sent.
    Closed {
        /// When the first probe may be sent.
        until: Minute,
    },
    /// A batch of calls finds out whether Salesforce answers again.
    Probing {
        /// Calls of the batch.
        batch: u32,
        /// How many of them were reserved.
        sent: u32,
        /// How many of them were answered.
        passed: u32,
    },
}

/// What the gate says to one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Free,
    Probe,
    Closed,
    BatchFull,
}

#[derive(Debug, Clone)]
pub(super) struct Gate {
    door: Door,
    wait: u32,
}

impl Gate {
    pub(super) fn new() -> Self {
        Self { door: Door::Open, wait: FIRST_WAIT_MINUTES }
    }

    pub(super) fn door(&self) -> Door {
        self.door
    }

    /// What it would say, without counting the call.
    pub(super) fn ask(&self, now: Minute) -> Entry {
        match self.door {
            Door::Open => Entry::Free,
            Door::Closed { until } if now < until => Entry::Closed,
            Door::Closed { .. } => Entry::Probe,
            Door::Probing { batch, sent, .. } if sent < batch => Entry::Probe,
            Door::Probing { .. } => Entry::BatchFull,
        }
    }

    /// Counts a call that was told [`Entry::Probe`].
    pub(super) fn probe(&mut self) {
        match &mut self.door {
            Door::Probing { sent, .. } => *sent += 1,
            door => *door = Door::Probing { batch: 1, sent: 1, passed: 0 },
        }
    }

    /// A probe was not sent, or nobody knows how it was answered: another may take its place.
    pub(super) fn unresolved(&mut self) {
        if let Door::Probing { sent, passed, .. } = &mut self.door {
            *sent = (*sent).saturating_sub(1).max(*passed);
        }
    }

    /// A probe was answered without the refusal; says whether that let more calls in.
    pub(super) fn passed(&mut self) -> bool {
        let Door::Probing { batch, passed, .. } = &mut self.door else { return false };
        *passed += 1;
        if *passed < *batch {
            return false;
        }
        if *batch >= LAST_BATCH {
            *self = Self::new();
        } else {
            self.door = Door::Probing { batch: *batch * 2, sent: 0, passed: 0 };
        }
        true
    }

    /// Salesforce refused. While closed, refusals of calls sent before change nothing.
    pub(super) fn refused(&mut self, now: Minute) {
        if let Door::Closed { until } = self.door
            && now < until
        {
            return;
        }
        self.door = Door::Closed { until: now.plus(self.wait) };
        self.wait = (self.wait * 2).min(LONGEST_WAIT_MINUTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Minute = Minute(100);

    fn send_batch(gate: &mut Gate, now: Minute) -> u32 {
        let mut sent = 0;
        while gate.ask(now) == Entry::Probe {
            gate.probe();
            sent += 1;
        }
        sent
    }

    #[test]
    fn it_reopens_with_growing_batches() {
        let mut gate = Gate::new();
        gate.refused(NOW);
        gate.refused(NOW);
        assert_eq!(gate.ask(NOW), Entry::Closed);
        let later = NOW.plus(1);
        for batch in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
            assert_eq!(send_batch(&mut gate, later), batch);
            assert_eq!(gate.ask(later), Entry::BatchFull);
            for nth in 1..=batch {
                assert_eq!(gate.passed(), nth == batch);
            }
        }
        assert_eq!(gate.door(), Door::Open);
    }

    #[test]
    fn a_refused_probe_closes_it_for_twice_as_long() {
        let mut gate = Gate::new();
        let mut now = NOW;
        for wait in [1, 2, 4, 8, 16, 32, 32] {
            gate.refused(now);
            assert_eq!(gate.door(), Door::Closed { until: now.plus(wait) });
            now = now.plus(wait);
            assert_eq!(send_batch(&mut gate, now), 1);
        }
    }

    #[test]
    fn a_probe_that_was_not_sent_gives_its_place_to_another() {
        let mut gate = Gate::new();
        gate.refused(NOW);
        assert_eq!(send_batch(&mut gate, NOW.plus(1)), 1);
        gate.unresolved();
        assert_eq!(gate.ask(NOW.plus(1)), Entry::Probe);
    }
}
