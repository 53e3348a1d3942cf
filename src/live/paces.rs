//! The paces of callers, from one configuration to the next.

use ahash::AHashMap;
use tokio::time::Instant;

use super::Live;
use crate::admission::{Mode, PaceSettings};
use crate::config::{Caller, Config, PaceMode};
use crate::stages::pace::Pace;

/// The pace of each caller of `config` with the org of this name; nothing if no caller has one. Who had one under
/// `earlier` keeps what it took and who waits; a caller that is gone is forgotten.
pub(super) fn of(org: &str, config: &Config, earlier: Option<&Live>, now: Instant) -> Vec<Option<Pace>> {
    if config.callers.iter().all(|caller| settings(caller).is_none()) {
        return Vec::new();
    }
    let mut known = AHashMap::new();
    if let Some(earlier) = earlier
        && let Some(before) = earlier.orgs.iter().find(|before| before.name == org)
    {
        let paced = earlier.by_caller.iter().zip(&before.paces);
        known.extend(paced.filter_map(|(caller, pace)| Some((caller.name.as_str(), pace.as_ref()?))));
    }
    let one = |caller: &Caller| {
        let settings = settings(caller)?;
        Some(match known.get(caller.name.as_str()) {
            Some(pace) => {
                pace.reconfigure(settings, now);
                Pace::clone(pace)
            }
            None => Pace::new(settings, now),
        })
    };
    config.callers.iter().map(one).collect()
}

/// What the configuration says of a caller's pace, in the pacer's words.
fn settings(caller: &Caller) -> Option<PaceSettings> {
    let pace = caller.pace?;
    let mode = match pace.mode {
        PaceMode::Off => return None,
        PaceMode::Observe => Mode::Observe,
        PaceMode::Enforce => Mode::Enforce,
    };
    Some(PaceSettings { mode, per_second: pace.per_second, burst: pace.burst, places: pace.queue, patience: pace.wait })
}
