//! What is known of the durations of calls, by fingerprint, in bounded memory.
//!
//! A table of sets of eight. It doubles as long as it may; then the entry that has said least for longest makes room, so that
//! a flood of fingerprints seen once never displaces one whose duration is known.

use std::collections::HashMap;
use std::time::Duration;

use super::sketch::Sketch;

const WAYS: usize = 8;
const FEWEST_SETS: usize = 4;
/// 4,096 fingerprints, some 190 KiB.
const MOST_SETS: usize = 512;

/// Eight fingerprints, 0 for none; when each was last used, and what is known of it.
#[derive(Debug, Clone, Copy, Default)]
struct Set {
    fingerprints: [u64; WAYS],
    used: [u32; WAYS],
    sketches: [Sketch; WAYS],
}

/// Kinds of which nothing is known yet, whose calls in the air are counted.
const MOST_PROBED: usize = 1_024;

/// Durations by fingerprint.
#[derive(Debug, Default)]
pub(super) struct Estimates {
    sets: Vec<Set>,
    turn: u32,
    /// Calls in the air of kinds of which nothing is known.
    probing: HashMap<u64, usize, ahash::RandomState>,
}

/// 0 stands for nothing.
const fn named(fingerprint: u64) -> u64 {
    if fingerprint == 0 { 1 } else { fingerprint }
}

impl Set {
    fn find(&self, fingerprint: u64) -> Option<usize> {
        self.fingerprints.iter().position(|known| *known == fingerprint)
    }

    fn put(&mut self, way: usize, fingerprint: u64, used: u32, sketch: Sketch) {
        if let (Some(known), Some(when), Some(what)) =
            (self.fingerprints.get_mut(way), self.used.get_mut(way), self.sketches.get_mut(way))
        {
            (*known, *when, *what) = (fingerprint, used, sketch);
        }
    }

    /// The one that has said least for longest.
    fn least(&self, turn: u32) -> usize {
        let said = |(_, (used, sketch)): &(usize, (&u32, &Sketch))| {
            (sketch.is_known(), std::cmp::Reverse(turn.wrapping_sub(**used)))
        };
        self.used.iter().zip(&self.sketches).enumerate().min_by_key(said).map_or(0, |(way, _)| way)
    }

    fn entries(&self) -> impl Iterator<Item = (u64, u32, Sketch)> + '_ {
        let all = self.fingerprints.iter().zip(&self.used).zip(&self.sketches);
        all.filter(|((fingerprint, _), _)| **fingerprint != 0).map(|((f, used), sketch)| (*f, *used, *sketch))
    }
}

impl Estimates {
    fn place(&self, fingerprint: u64) -> usize {
        fingerprint as usize & self.sets.len().wrapping_sub(1)
    }

    /// What is known of `fingerprint`.
    pub(super) fn get(&mut self, fingerprint: u64) -> Option<&mut Sketch> {
        let fingerprint = named(fingerprint);
        self.turn = self.turn.wrapping_add(1);
        let place = self.place(fingerprint);
        let set = self.sets.get_mut(place)?;
        let way = set.find(fingerprint)?;
        *set.used.get_mut(way)? = self.turn;
        set.sketches.get_mut(way)
    }

    /// The same, without it counting as used.
    pub(super) fn peek(&self, fingerprint: u64) -> Option<&Sketch> {
        let fingerprint = named(fingerprint);
        let set = self.sets.get(self.place(fingerprint))?;
        set.sketches.get(set.find(fingerprint)?)
    }

    /// A call of this kind took this long; says whether it may be judged otherwise now.
    pub(super) fn add(&mut self, fingerprint: u64, took: Duration) -> bool {
        if let Some(sketch) = self.get(fingerprint) {
            return sketch.add(took);
        }
        let fingerprint = named(fingerprint);
        let mut sketch = Sketch::default();
        sketch.add(took);
        let turn = self.turn;
        loop {
            let (place, full) = (self.place(fingerprint), self.sets.len() >= MOST_SETS);
            if let Some(set) = self.sets.get_mut(place) {
                if let Some(free) = set.find(0) {
                    set.put(free, fingerprint, turn, sketch);
                    return false;
                }
                if full {
                    set.put(set.least(turn), fingerprint, turn, sketch);
                    return true;
                }
            }
            self.grow();
        }
    }

    /// How many calls of a kind of which nothing is known are in the air.
    pub(super) fn probing(&self, fingerprint: u64) -> usize {
        self.probing.get(&fingerprint).copied().unwrap_or_default()
    }

    /// One more call of a kind of which nothing is known is in the air; says whether it is counted.
    pub(super) fn probe(&mut self, fingerprint: u64) -> bool {
        if self.probing.len() >= MOST_PROBED && !self.probing.contains_key(&fingerprint) {
            return false;
        }
        *self.probing.entry(fingerprint).or_default() += 1;
        true
    }

    /// One that was counted has ended.
    pub(super) fn probed(&mut self, fingerprint: u64) {
        if let Some(calls) = self.probing.get_mut(&fingerprint) {
            *calls -= 1;
            if *calls == 0 {
                self.probing.remove(&fingerprint);
            }
        }
    }

    /// Doubles the table; what shared a set is spread over two, so all of it fits.
    fn grow(&mut self) {
        let sets = (self.sets.len() * 2).clamp(FEWEST_SETS, MOST_SETS);
        let old = std::mem::replace(&mut self.sets, vec![Set::default(); sets]);
        for (fingerprint, used, sketch) in old.iter().flat_map(Set::entries) {
            let place = self.place(fingerprint);
            if let Some(set) = self.sets.get_mut(place)
                && let Some(free) = set.find(0)
            {
                set.put(free, fingerprint, used, sketch);
            }
        }
    }

    /// How many fingerprints have a known duration.
    pub(super) fn known(&self) -> usize {
        self.sets.iter().flat_map(Set::entries).filter(|(_, _, sketch)| sketch.is_known()).count()
    }

    /// Bytes it takes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.sets.capacity() * size_of::<Set>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(20);
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_million_fingerprints_take_bounded_memory_and_displace_nothing_that_is_known() {
        let mut estimates = Estimates::default();
        assert_eq!(estimates.bytes(), 0, "an org without calls costs nothing");
        let mut random = fastrand::Rng::with_seed(1);
        let regular: Vec<u64> = (0..200).map(|_| random.u64(..)).collect();
        for fingerprint in &regular {
            for _ in 0..5 {
                estimates.add(*fingerprint, LONG);
            }
        }
        for _ in 0..1_000_000 {
            estimates.add(random.u64(..), Duration::from_millis(10));
        }
        assert!(estimates.bytes() < 256 * 1_024, "{}", estimates.bytes());
        let known = regular.iter().filter(|fingerprint| estimates.get(**fingerprint).is_some()).count();
        assert_eq!(known, regular.len());
    }

    #[test]
    fn what_grows_keeps_everything() {
        let mut estimates = Estimates::default();
        let mut random = fastrand::Rng::with_seed(2);
        let all: Vec<u64> = (0..500).map(|_| random.u64(..)).collect();
        for fingerprint in &all {
            for _ in 0..5 {
                estimates.add(*fingerprint, LONG);
            }
        }
        assert_eq!(estimates.known(), all.len());
        assert!(all.iter().all(|f| estimates.peek(*f).and_then(|sketch| sketch.is_long(AFTER)) == Some(true)));
    }

    #[test]
    fn zero_is_a_fingerprint_like_any_other() {
        let mut estimates = Estimates::default();
        for _ in 0..5 {
            estimates.add(0, LONG);
        }
        assert_eq!(estimates.known(), 1);
    }
}
