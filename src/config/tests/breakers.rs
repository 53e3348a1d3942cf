//! Circuit breakers in a configuration.

use super::*;

#[test]
fn breakers_that_cannot_be_meant_are_refused() {
    let with = |breaker: &str| format!("{ORG}breaker: {{{breaker}}}\n");
    one(&with("open: 2m"), "breaker.open_max: shorter than open");
    one(&with("open_max: 1s"), "breaker.open_max: shorter than open, the shortest time calls are held back");
    one(&with("ratio: 0%"), "breaker.ratio: calls would be held back although none has failed; use a share");
    one(&with("ratio: 101%"), "breaker.ratio: not a share of a whole");
    one(&with("window: 0s"), "breaker.window: this must be longer than nothing");
    one(&with("ramp: 0s"), "breaker.ramp: this must be longer than nothing");
    one(&with("minimum: 0"), "breaker.minimum: 0 is out of range; 1 to 10000");
    one(&with("mode: on"), "breaker.mode: unknown breaker mode");
    one(&with("windwo: 1s"), "breaker.windwo: unknown key \"windwo\"; did you mean \"window\"?");
    let breaker = good(&with("open: 1m, open_max: 1m, ratio: 12.5%")).breaker;
    assert_eq!((breaker.mode, breaker.ratio, breaker.minimum), (BreakerMode::Enforce, 13, 20));
}
