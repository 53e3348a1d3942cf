//! Bytes as a caller may send them: the guard never panics, and how they were cut never changes its verdict.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weirkeeper::edge::framing::{Guard, HeadLimits};

const LIMITS: HeadLimits = HeadLimits { bytes: 2048, count: 20 };

fuzz_target!(|data: &[u8]| {
    let Some((&seed, input)) = data.split_first() else { return };
    let mut whole = Guard::new(LIMITS);
    let verdict = whole.feed(input);
    assert!(verdict.passed <= input.len());
    let mut cut = Guard::new(LIMITS);
    let mut fault = None;
    for piece in input.chunks(usize::from(seed % 64) + 1) {
        let fed = cut.feed(piece);
        assert!(fed.passed <= piece.len());
        fault = fed.fault;
        if fault.is_some() {
            break;
        }
    }
    assert_eq!(fault, verdict.fault);
    assert_eq!(cut.heads(), whole.heads());
});
