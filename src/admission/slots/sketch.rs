//! How long calls of one kind take: a small histogram that forgets.
//!
//! Once it holds as many samples as it may all counts are halved, so that what happened lately counts more. It says nothing before
//! it has seen [`ENOUGH`].

use std::time::Duration;

/// Samples before it says anything.
pub const ENOUGH: u8 = 5;
/// Samples at which the old ones lose half their weight.
const MOST: u8 = 120;
/// Upper bounds of all cells but the last, in milliseconds; closest where it matters: around 20 s.
const BOUNDS: [u32; 23] = [
    25, 50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 7_500, 10_000, 12_500, 15_000, 17_500, 20_000, 25_000, 30_000,
    40_000, 60_000, 120_000, 300_000, 600_000, 1_800_000,
];
const CELLS: usize = BOUNDS.len() + 1;

/// Durations of calls of one kind.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sketch {
    cells: [u8; CELLS],
    total: u8,
    /// The cell of the 90th percentile.
    high: u8,
    /// Exponentially weighted, in milliseconds.
    mean: u32,
}

fn cell(took: Duration) -> usize {
    let millis = took.as_millis();
    BOUNDS.partition_point(|bound| u128::from(*bound) <= millis)
}

fn millis(took: Duration) -> i64 {
    i64::from(u32::try_from(took.as_millis()).unwrap_or(u32::MAX))
}

impl Sketch {
    /// One more call took this long; says whether [`Self::is_long`] may say something else now.
    pub fn add(&mut self, took: Duration) -> bool {
        let before = (self.is_known(), self.high);
        if self.total >= MOST {
            self.cells.iter_mut().for_each(|count| *count /= 2);
            self.total = self.cells.iter().sum();
        }
        self.total += 1;
        if let Some(count) = self.cells.get_mut(cell(took)) {
            *count += 1;
        }
        self.lean(millis(took) - i64::from(self.mean));
        self.rank();
        before != (self.is_known(), self.high)
    }

    /// A call that was added with `known` so far has ended, and took this long.
    pub fn correct(&mut self, known: Duration, took: Duration) {
        let (from, to) = (cell(known), cell(took));
        if let Some(count) = self.cells.get_mut(from).filter(|count| **count > 0) {
            *count -= 1;
            if let Some(count) = self.cells.get_mut(to) {
                *count += 1;
            }
            self.lean(millis(took) - millis(known));
            self.rank();
        }
    }

    /// Moves the mean by its share of `by`.
    fn lean(&mut self, by: i64) {
        let mean = i64::from(self.mean) + by / i64::from(self.total.clamp(1, 8));
        self.mean = u32::try_from(mean.max(0)).unwrap_or(u32::MAX);
    }

    fn rank(&mut self) {
        let mut below = 0_u16;
        for (place, count) in self.cells.iter().enumerate() {
            below += u16::from(*count);
            if below * 10 >= u16::from(self.total) * 9 {
                self.high = place as u8;
                return;
            }
        }
    }

    /// Whether it has seen enough to say anything.
    pub fn is_known(&self) -> bool {
        self.total >= ENOUGH
    }

    /// The duration below which nine in ten calls stay, rounded up; `None` before it is known.
    pub fn high(&self) -> Option<Duration> {
        let bound = BOUNDS.get(usize::from(self.high)).copied().unwrap_or(u32::MAX);
        self.is_known().then(|| Duration::from_millis(u64::from(bound)))
    }

    /// The mean of the latest calls; `None` before it is known.
    pub fn mean(&self) -> Option<Duration> {
        self.is_known().then(|| Duration::from_millis(u64::from(self.mean)))
    }

    /// Whether at least one in ten calls takes `after` or longer; `None` before it is known.
    pub fn is_long(&self, after: Duration) -> Option<bool> {
        self.high().map(|high| high > after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(20);

    fn of(durations: impl IntoIterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::default();
        for millis in durations {
            sketch.add(Duration::from_millis(millis));
        }
        sketch
    }

    #[test]
    fn it_says_nothing_before_five_samples() {
        assert_eq!(of([30_000; 4]).is_long(AFTER), None);
        assert_eq!(of([30_000; 5]).is_long(AFTER), Some(true));
        assert_eq!(of([200; 5]).is_long(AFTER), Some(false));
        assert_eq!(of([200; 5]).high(), Some(Duration::from_millis(400)));
    }

    #[test]
    fn one_in_ten_decides() {
        let mixed = |long: usize, all: usize| of((0..all).map(|n| if n < long { 30_000 } else { 200 }));
        assert_eq!(mixed(1, 10).is_long(AFTER), Some(false));
        assert_eq!(mixed(2, 10).is_long(AFTER), Some(true));
        assert_eq!(of([19_999; 9]).is_long(AFTER), Some(false));
        assert_eq!(of([20_000; 9]).is_long(AFTER), Some(true));
    }

    #[test]
    fn the_past_is_forgotten() {
        let mut sketch = of([60_000; 1_000]);
        for n in 0..400 {
            sketch.add(Duration::from_millis(100));
            if n == 5 {
                assert_eq!(sketch.is_long(AFTER), Some(true), "but not at once");
            }
        }
        assert_eq!(sketch.is_long(AFTER), Some(false));
        assert_eq!(sketch.mean(), Some(Duration::from_millis(107)));
    }

    #[test]
    fn what_is_known_of_a_running_call_is_corrected_when_it_ends() {
        let mut sketch = of([20_000; 5]);
        for _ in 0..5 {
            sketch.correct(AFTER, Duration::from_secs(90));
        }
        assert_eq!(sketch.high(), Some(Duration::from_mins(2)));
        let before = sketch;
        sketch.correct(AFTER, Duration::from_secs(90));
        assert_eq!((before.cells, before.total), (sketch.cells, sketch.total), "nothing is left to correct");
    }

    proptest::proptest! {
        /// The counts agree with a list of what was added, as long as nothing was forgotten.
        #[test]
        fn it_agrees_with_a_sorted_list(mut durations in proptest::collection::vec(0_u64..3_000_000, 5..110)) {
            let sketch = of(durations.iter().copied());
            durations.sort_unstable();
            let rank = (durations.len() * 9).div_ceil(10);
            let high = sketch.high().unwrap().as_millis();
            proptest::prop_assert!(u128::from(durations[rank - 1]) < high.max(1) || high == u128::from(u32::MAX));
            let below = BOUNDS.iter().rev().find(|bound| u128::from(**bound) < high).copied().unwrap_or(0);
            proptest::prop_assert!(durations[rank - 1] >= u64::from(below));
        }

        #[test]
        fn nothing_overflows(durations in proptest::collection::vec(proptest::prelude::any::<u64>(), 0..300)) {
            let sketch = of(durations.iter().copied());
            proptest::prop_assert!(sketch.total <= MOST);
            let all: usize = sketch.cells.iter().map(|count| usize::from(*count)).sum();
            proptest::prop_assert_eq!(usize::from(sketch.total), all);
        }
    }
}
