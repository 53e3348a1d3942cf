//! What changes the books besides calls: opening, new configuration, pauses.

use std::sync::Arc;

use crate::call::Class;

use super::account::Account;
use super::book::{Book, LOST};
use super::lease::Lease;
use super::settings::{AccountId, OrgSettings, Share};
use super::time::Minute;

/// Name of the account that holds leases of which nobody knows whether they were spent. No caller can have it.
pub const LOST_LEASES: &str = "(lost leases)";

impl Book {
    pub(super) fn open(settings: OrgSettings, shares: &[Share], lease: Lease, now: Minute) -> Self {
        let lost = Share::borrower(LOST_LEASES);
        let accounts = std::iter::once(&lost).chain(shares).map(|share| Account::new(share, 0, now)).collect();
        Self::new(settings, lease, accounts, now)
    }

    /// Counts what an earlier process spent. Callers that are configured no more are kept until it has come back.
    pub(super) fn restore(&mut self, caller: &str, kind: Option<Class>, minute: Minute, calls: u32) {
        let slot = self.slot_of(caller).unwrap_or_else(|| {
            let slot = self.install(&Share::borrower(caller));
            self.accounts[slot].retire(self.now);
            slot
        });
        self.own.extend(self.now);
        let lost = self.accounts[slot].lost();
        let counted = self.accounts[slot].add(kind, minute, calls, self.now);
        self.unproven = self.unproven + self.accounts[slot].lost() - lost;
        self.own.add(minute, counted);
        self.rehold(slot);
    }

    pub(super) fn slot_of(&self, caller: &str) -> Option<usize> {
        self.accounts.iter().position(|account| &*account.name == caller && !account.vacant(self.now))
    }

    pub(super) fn install(&mut self, share: &Share) -> usize {
        let Some(slot) = self.accounts.iter().position(|account| account.vacant(self.now)) else {
            self.accounts.push(Account::new(share, 0, self.now));
            self.dirty.reserve(self.accounts.len());
            return self.accounts.len() - 1;
        };
        let generation = self.accounts[slot].generation.wrapping_add(1);
        self.held -= self.accounts[slot].held;
        self.accounts[slot] = Account::new(share, generation, self.now);
        slot
    }

    pub(super) fn reconfigure(&mut self, settings: OrgSettings, shares: &[Share]) -> Vec<AccountId> {
        let by_name: std::collections::HashMap<Arc<str>, usize> = self
            .accounts
            .iter()
            .enumerate()
            .filter(|(_, account)| !account.vacant(self.now))
            .map(|(slot, account)| (Arc::clone(&account.name), slot))
            .collect();
        for account in self.accounts.iter_mut().skip(LOST + 1) {
            account.retire(self.now);
        }
        let ids = shares
            .iter()
            .map(|share| match by_name.get(&share.name) {
                Some(slot) => {
                    self.accounts[*slot].set_share(share);
                    AccountId::of_slot(*slot)
                }
                None => AccountId::of_slot(self.install(share)),
            })
            .collect();
        self.settings = settings;
        self.truth.reconfigure(settings);
        self.set_ceiling();
        self.steps.set(settings.ladder, self.ceiling);
        self.common.spends = self.shares_a_lease();
        self.sweep_all();
        ids
    }

    /// Whether any caller has no ceiling of its own, and so spends from the common lease.
    pub(super) fn shares_a_lease(&self) -> bool {
        self.accounts.iter().skip(LOST + 1).any(|account| account.ceiling.is_none() && !account.retired)
    }

    /// Pauses or resumes the caller of this name; `false` if there is none.
    pub(super) fn pause_caller(&mut self, caller: &str, paused: bool) -> bool {
        let known = |account: &&mut Account| !account.retired && &*account.name == caller;
        let Some(account) = self.accounts.iter_mut().skip(LOST + 1).find(known) else { return false };
        account.paused = paused;
        self.pauses_changed = true;
        true
    }

    /// Where the account of a configured caller stands.
    pub(super) fn slot(&self, account: AccountId) -> Option<usize> {
        let slot = account.slot();
        self.accounts.get(slot).is_some_and(|account| !account.retired).then_some(slot)
    }
}
