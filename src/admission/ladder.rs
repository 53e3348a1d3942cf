//! How far use has come, and what that means for borrowed calls.
//!
//! Each level is entered at its threshold and left only well below it, so that use that hovers around a threshold
//! does not make the gateway flap. A call below its caller's floor is not borrowed; no level concerns it.

use crate::call::{Class, closed_list};

use super::settings::Ladder;

closed_list! {
    /// How scarce the org's calls are, by org used / ceiling.
    Level {
        /// Plenty is left.
        Normal = "normal",
        /// Borrowers get weighted shares; whoever can do without a fresh answer should.
        Lean = "lean",
        /// Batch borrows no faster than calls come back.
        PaceBatch = "pace_batch",
        /// Batch no longer borrows.
        StopBatch = "stop_batch",
        /// Only interactive calls borrow.
        StopStandard = "stop_standard",
    }
}

impl Level {
    /// Whether a call of `class` may be borrowed at this level.
    pub fn lends_to(self, class: Class) -> bool {
        match class {
            Class::Interactive => true,
            Class::Standard => self < Self::StopStandard,
            Class::Batch => self < Self::StopBatch,
        }
    }
}

/// The thresholds in calls, and the level.
#[derive(Debug, Clone)]
pub(super) struct Steps {
    enter: [u64; 4],
    leave: [u64; 4],
    level: Level,
}

impl Steps {
    pub(super) fn new() -> Self {
        Self { enter: [u64::MAX; 4], leave: [u64::MAX; 4], level: Level::Normal }
    }

    /// Puts the thresholds where they belong for `ceiling`; `None` if no ceiling is known.
    pub(super) fn set(&mut self, ladder: Ladder, ceiling: Option<u64>) {
        let thresholds = [ladder.lean, ladder.pace_batch, ladder.stop_batch, ladder.stop_standard];
        self.enter = thresholds.map(|at| ceiling.map_or(u64::MAX, |calls| at.of_rounded_up(calls)));
        self.leave =
            thresholds.map(|at| ceiling.map_or(u64::MAX, |calls| at.less(ladder.back_below).of_rounded_up(calls)));
    }

    /// The level when `used` calls are used.
    pub(super) fn at(&mut self, used: u64) -> Level {
        let mut level = self.level.index();
        while level < 4 && used >= self.enter[level] {
            level += 1;
        }
        while level > 0 && used < self.enter[level - 1] && used < self.leave[level - 1] {
            level -= 1;
        }
        let level = Level::ALL[level];
        // Nearly always it stays, and what is only read stays with every thread.
        if level != self.level {
            self.level = level;
        }
        level
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Calls at which `level` is entered.
    pub(super) fn entered_at(&self, level: Level) -> u64 {
        match level.index() {
            0 => 0,
            index => self.enter[index - 1],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_left_only_well_below_where_it_was_entered() {
        let mut steps = Steps::new();
        steps.set(Ladder::default(), Some(1_000));
        assert_eq!(steps.at(699), Level::Normal);
        assert_eq!(steps.at(700), Level::Lean);
        assert_eq!(steps.at(600), Level::Lean);
        assert_eq!(steps.at(599), Level::Normal);
        assert_eq!(steps.at(980), Level::StopStandard);
        assert_eq!(steps.at(870), Level::StopStandard);
        assert_eq!(steps.at(869), Level::StopBatch);
        assert_eq!(steps.at(0), Level::Normal);
    }

    #[test]
    fn each_level_sheds_the_less_urgent_first() {
        let lends = |level: Level| Class::ALL.iter().map(|class| level.lends_to(*class)).collect::<Vec<_>>();
        assert_eq!(lends(Level::PaceBatch), [true, true, true]);
        assert_eq!(lends(Level::StopBatch), [true, true, false]);
        assert_eq!(lends(Level::StopStandard), [true, false, false]);
    }

    #[test]
    fn without_a_ceiling_there_is_no_scarcity() {
        let mut steps = Steps::new();
        steps.set(Ladder::default(), None);
        assert_eq!(steps.at(1_000_000), Level::Normal);
    }
}
