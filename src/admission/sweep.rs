//! How calls come back: account after account is released, and the org's total last.
//!
//! Until a sweep is through, the org's total is too high, never too low. It goes a few accounts at a time, so that nobody
//! waits long for the lock.

use super::book::Book;
use super::ring::WINDOW_MINUTES;
use super::time::Minute;

impl Book {
    pub(super) fn sweep_due(&self) -> bool {
        self.swept < self.now
    }

    /// Begins the sweep again, for the running minute.
    pub(super) fn sweep_all(&mut self) {
        self.cursor = 0;
        self.swept = Minute(0);
        self.sweep(usize::MAX);
    }

    /// Releases what has left the window in up to `accounts` accounts; says whether everything is released.
    pub(super) fn sweep(&mut self, accounts: usize) -> bool {
        if !self.sweep_due() {
            return true;
        }
        self.post();
        if self.cursor == 0 {
            self.sweeping = self.now;
            self.floor_scale = self.scale();
        }
        let idle_after = self.settings.lending.map(|lending| lending.idle_after.max(WINDOW_MINUTES - 1));
        let until = self.cursor.saturating_add(accounts).min(self.accounts.len());
        for slot in self.cursor..until {
            let scale = self.floor_scale;
            let account = &mut self.accounts[slot];
            let lost = account.lost();
            account.release(self.sweeping);
            self.unproven = self.unproven + account.lost() - lost;
            account.rest(idle_after, self.sweeping);
            account.floor = match scale {
                Some((pool, floors)) => (u128::from(account.floor_set) * u128::from(pool) / u128::from(floors)) as u64,
                None => account.floor_set,
            };
            self.rehold(slot);
        }
        self.cursor = until;
        if until < self.accounts.len() {
            return false;
        }
        self.cursor = 0;
        self.own.release(self.sweeping);
        self.truth.elapse(&self.own, self.silenced, self.sweeping);
        self.swept = self.sweeping;
        self.set_ceiling();
        self.fair = self.level_of_borrowing();
        // It may have been a sweep begun in an earlier minute.
        !self.sweep_due()
    }

    /// The pool that floors share, if it is smaller than all floors together: the pool and the floors' sum.
    fn scale(&self) -> Option<(u64, u64)> {
        let floors: u64 = self.accounts.iter().map(|account| account.floor_set).sum();
        let foreign = self.truth.used(self.own.sum()) - self.own.sum();
        let pool = self.spendable()?.saturating_sub(foreign);
        (floors > pool).then_some((pool, floors))
    }
}
