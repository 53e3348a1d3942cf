//! Who uses most, found in one pass with a fixed number of places (Space-Saving).
//!
//! Whoever uses more than one part in as many as there are places is sure to be among those kept. What is said of one is never
//! less than what it used; by how much it may be more is known.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;

/// The largest users among many. `Debug` does not name them.
pub(super) struct Heavy<K> {
    places: usize,
    kept: Vec<Use<K>>,
    found: HashMap<K, usize, ahash::RandomState>,
}

/// What one used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Use<K> {
    /// Who.
    pub(super) key: K,
    /// At most this.
    pub(super) most: u64,
    /// By how much that may be too much: what was used by those who had the place before.
    pub(super) over: u64,
}

impl<K> fmt::Debug for Heavy<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Heavy({} of {})", self.kept.len(), self.places)
    }
}

impl<K: Clone + Eq + Hash> Heavy<K> {
    /// Keeps at most `places` of them, one at least.
    pub(super) fn new(places: usize) -> Self {
        Self { places: places.max(1), kept: Vec::new(), found: HashMap::default() }
    }

    /// `key` used `amount` more.
    pub(super) fn add(&mut self, key: K, amount: u64) {
        if let Some(known) = self.found.get(&key).and_then(|place| self.kept.get_mut(*place)) {
            known.most += amount;
            return;
        }
        if self.kept.len() < self.places {
            self.found.insert(key.clone(), self.kept.len());
            self.kept.push(Use { key, most: amount, over: 0 });
            return;
        }
        let Some((place, least)) = self.kept.iter_mut().enumerate().min_by_key(|(_, kept)| kept.most) else { return };
        self.found.remove(&least.key);
        self.found.insert(key.clone(), place);
        *least = Use { key, most: least.most + amount, over: least.most };
    }

    /// Those who are kept, in no order.
    pub(super) fn kept(&self) -> &[Use<K>] {
        &self.kept
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_newcomer_takes_the_place_of_the_least() {
        let mut heavy = Heavy::new(2);
        for (key, amount) in [("a", 5), ("b", 3), ("c", 1), ("a", 1)] {
            heavy.add(key, amount);
        }
        let expected = [Use { key: "a", most: 6, over: 0 }, Use { key: "c", most: 4, over: 3 }];
        assert_eq!(heavy.kept(), expected);
    }

    proptest! {
        #[test]
        fn nobody_large_is_missed_and_nothing_is_said_too_low(
            places in 1_usize..20,
            uses in prop::collection::vec((0_u8..40, 1_u64..50), 0..600),
        ) {
            let mut heavy = Heavy::new(places);
            let mut exact = BTreeMap::<u8, u64>::new();
            for (key, amount) in &uses {
                // Low keys come often.
                let key = (u16::from(*key) * u16::from(*key) / 40) as u8;
                heavy.add(key, *amount);
                *exact.entry(key).or_default() += amount;
            }
            let total: u64 = exact.values().sum();
            prop_assert!(heavy.kept().len() <= places && heavy.found.len() == heavy.kept().len());
            prop_assert_eq!(heavy.kept().iter().map(|kept| kept.most).sum::<u64>(), total);
            for Use { key, most, over } in heavy.kept() {
                let used = exact.get(key).copied().unwrap_or_default();
                prop_assert!(used <= *most && most - over <= used, "{key}: {used} not in {}..={most}", most - over);
            }
            for (key, used) in &exact {
                let kept = heavy.kept().iter().any(|kept| kept.key == *key);
                prop_assert!(kept || used * places as u64 <= total, "{key} used {used} of {total}");
            }
        }
    }
}
