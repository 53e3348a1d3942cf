//! How fast callers may send.

use super::*;

fn caller(pace: &str) -> String {
    format!("{ORG}callers: [{{name: etl, match: any, pace: {{{pace}}}}}]\n")
}

#[test]
fn a_pace_is_what_is_written_and_has_defaults() {
    let pace = |text: &str| good(&caller(text)).callers[0].pace.unwrap();
    let whole = pace("mode: observe, per_second: 50, burst: 80, queue: 0, wait: 1s");
    let shown = (whole.mode, whole.per_second.get(), whole.burst.get(), whole.queue, whole.wait);
    assert_eq!(shown, (PaceMode::Observe, 50, 80, 0, Duration::from_secs(1)));
    let least = pace("per_second: 7");
    let shown = (least.mode, least.burst.get(), least.queue, least.wait);
    assert_eq!(shown, (PaceMode::Enforce, 7, 100, Duration::from_secs(5)));
    assert_eq!(pace("mode: off, per_second: 1").mode, PaceMode::Off);
    assert_eq!(good(ORG).callers[0].pace, None);
}

#[test]
fn a_pace_nobody_could_keep_is_refused() {
    one(&caller("burst: 5"), "pace.per_second: this key is missing; say how many calls it may send in a second");
    one(&caller("per_second: 0"), "pace.per_second: ");
    one(&caller("per_second: 5, burst: 0"), "pace.burst: ");
    one(&caller("per_second: 5, wait: 11m"), "pace.wait: 11m is longer than most clients wait; 10m is the most");
    one(&caller("per_second: 5, places: 7"), "unknown key \"places\"");
    one(&caller("per_second: 5, mode: of"), "did you mean \"off\"?");
}
