//! The buckets of histograms.

use super::cells::Buckets;

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

/// 5 ms to 600 s; 20 s is where Salesforce begins to count a call as long-running (facts 1.1).
#[derive(Debug)]
pub struct RequestBuckets;

impl Buckets for RequestBuckets {
    const BOUNDS_NS: &'static [u64] = &[
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        S,
        2_500 * MS,
        5 * S,
        10 * S,
        20 * S,
        30 * S,
        60 * S,
        120 * S,
        300 * S,
        600 * S,
    ];
}

/// 50 µs to 5 s.
#[derive(Debug)]
pub struct OverheadBuckets;

impl Buckets for OverheadBuckets {
    const BOUNDS_NS: &'static [u64] = &[
        MS / 20,
        MS / 10,
        MS / 4,
        MS / 2,
        MS,
        2 * MS + MS / 2,
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        S,
        5 * S,
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_ascend() {
        assert!(RequestBuckets::BOUNDS_NS.is_sorted_by(|a, b| a < b));
        assert!(OverheadBuckets::BOUNDS_NS.is_sorted_by(|a, b| a < b));
    }
}
