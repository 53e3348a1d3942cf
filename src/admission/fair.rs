//! Weighted shares of what may be borrowed, once calls are scarce.
//!
//! Water-filling: everyone who asked to borrow lately gets what it is likely to ask for in the next hour, as long
//! as that is below its weighted share; what they leave is divided by weight among the others. Computed once a
//! minute, so that a decision is one comparison.

use super::account::CONTENDING_MINUTES;
use super::book::{Book, FAIR_UNIT};
use super::ladder::Level;

/// Quarters of an hour in the time for which a borrower's needs are foreseen.
const FORESEEN: u64 = 4;
/// A borrower is expected to need at least this many more calls.
const LEAST_NEED: u64 = 16;

impl Book {
    /// How many borrowed calls each unit of weight may hold, times [`FAIR_UNIT`]; `None` if all needs can be met.
    pub(super) fn level_of_borrowing(&self) -> Option<u64> {
        let spendable = self.spendable()?;
        if self.steps.level() < Level::Lean && self.used() < self.steps.entered_at(Level::Lean) {
            return None;
        }
        let free = spendable.saturating_sub(self.used() + self.held);
        let contenders = self.accounts.iter().filter(|account| account.contends(self.now));
        let (mut pool, mut needs) = (free, Vec::new());
        for account in contenders {
            pool += account.borrowed();
            let foreseen = (account.recent(self.now, CONTENDING_MINUTES) * FORESEEN).max(LEAST_NEED);
            needs.push((account.borrowed() + foreseen, u64::from(account.weight)));
        }
        water_level(pool, &mut needs)
    }
}

/// The level at which `pool` is divided among `(need, weight)`; `None` if all needs can be met.
fn water_level(mut pool: u64, needs: &mut [(u64, u64)]) -> Option<u64> {
    if needs.iter().map(|(need, _)| need).sum::<u64>() <= pool {
        return None;
    }
    // By need per weight, least first: each in turn is either met whole or, with all after it, gets its share.
    needs.sort_unstable_by(|(need, weight), (other, its)| {
        (u128::from(*need) * u128::from(*its)).cmp(&(u128::from(*other) * u128::from(*weight)))
    });
    let mut weights: u64 = needs.iter().map(|(_, weight)| weight).sum();
    for (need, weight) in needs.iter() {
        if u128::from(*need) * u128::from(weights) > u128::from(pool) * u128::from(*weight) {
            break;
        }
        pool -= need;
        weights -= weight;
    }
    Some((u128::from(pool) * u128::from(FAIR_UNIT) / u128::from(weights.max(1))) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_limited_while_all_needs_can_be_met() {
        assert_eq!(water_level(100, &mut [(60, 1), (40, 1)]), None);
    }

    #[test]
    fn equal_weights_share_equally_and_a_small_need_is_met_whole() {
        assert_eq!(water_level(100, &mut [(90, 1), (90, 1)]), Some(50 * FAIR_UNIT));
        assert_eq!(water_level(100, &mut [(90, 1), (10, 1), (90, 1)]), Some(45 * FAIR_UNIT));
    }

    #[test]
    fn weights_decide_among_those_whose_needs_cannot_be_met() {
        // 30 to the light one, 90 to the one of weight 3.
        assert_eq!(water_level(120, &mut [(500, 1), (500, 3)]), Some(30 * FAIR_UNIT));
    }
}
