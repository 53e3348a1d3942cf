//! What went wrong lately: refusals, failures of Salesforce and records that failed inside good answers, for an operator who
//! asks "who, why, since when".
//!
//! Equal troubles of one caller are one line with a count, so that a flood of one hides no other. The list is bounded; the
//! line that was quiet for longest makes room. It holds names, words of closed or capped lists and route templates, nothing
//! else of a request.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Serialize;
use smol_str::SmolStr;

use crate::call::Family;
use crate::refusal::Reason;

/// Lines kept.
const PLACES: usize = 256;
/// After this long without another one a line is not shown any more.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(24);
/// Seconds of a pane; three of them are what "lately" means.
const PANE_SECONDS: u64 = 300;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Trouble {
    /// The gateway refused calls.
    Refused {
        /// Why.
        reason: Reason,
    },
    /// The gateway would have, did the mode not say `observe`.
    WouldRefuse {
        /// Why.
        reason: Reason,
    },
    /// Salesforce answered with an error, or not at all.
    Failed {
        /// What kind of failure, a word of the taxonomy or of how an attempt is lost.
        kind: &'static str,
        /// Salesforce's `errorCode`, or `none`.
        code: SmolStr,
    },
    /// Records failed inside an answer that looks well.
    Partial {
        /// The records' object.
        object: SmolStr,
        /// Salesforce's `errorCode`, or `none`.
        code: SmolStr,
    },
    /// A write was sent and nobody knows whether it was done.
    UnknownOutcome,
}

/// One line: one trouble of one caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RecentTrouble {
    /// The org's name.
    pub org: SmolStr,
    /// The caller's name.
    pub caller: SmolStr,
    /// What went wrong.
    #[serde(flatten)]
    pub trouble: Trouble,
    /// The API of the last one.
    pub family: Family,
    /// The route of the last one; empty if it was not understood.
    pub template: &'static str,
    /// How many since the first.
    pub count: u64,
    /// How many in the last 10 to 15 minutes.
    pub lately: u64,
    /// When the first was, in seconds since the Unix epoch.
    pub first_seconds: u64,
    /// When the last was.
    pub last_seconds: u64,
}

/// Whose trouble, and of what kind of call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Whose<'a> {
    pub(super) org: &'a str,
    pub(super) caller: &'a str,
    pub(super) family: Family,
    pub(super) template: &'static str,
}

/// The lines.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<Key, Line, ahash::RandomState>>);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    org: SmolStr,
    caller: SmolStr,
    trouble: Trouble,
}

#[derive(Debug)]
struct Line {
    family: Family,
    template: &'static str,
    count: u64,
    first: u64,
    last: u64,
    /// The number of the latest pane, and the counts of it and the two before.
    pane: u64,
    panes: [u64; 3],
}

impl Recent {
    /// `count` more of a trouble at `wall`.
    pub(super) fn note(&self, whose: &Whose<'_>, trouble: Trouble, count: u64, wall: Duration) {
        let now = wall.as_secs();
        let key = Key { org: whose.org.into(), caller: whose.caller.into(), trouble };
        let mut lines = self.0.lock();
        if lines.len() >= PLACES && !lines.contains_key(&key) {
            let quietest = lines.iter().min_by_key(|(_, line)| line.last).map(|(key, _)| key.clone());
            if let Some(quietest) = quietest {
                lines.remove(&quietest);
            }
        }
        let line = lines.entry(key).or_insert_with(|| Line {
            family: whose.family,
            template: whose.template,
            count: 0,
            first: now,
            last: now,
            pane: now / PANE_SECONDS,
            panes: [0; 3],
        });
        line.turn_to(now);
        (line.family, line.template) = (whose.family, whose.template);
        line.last = line.last.max(now);
        line.count += count;
        line.panes[0] += count;
    }

    /// The lines of the last 24 hours, the latest first.
    pub(super) fn list(&self, wall: Duration) -> Vec<RecentTrouble> {
        let now = wall.as_secs();
        let mut list: Vec<_> = self
            .0
            .lock()
            .iter_mut()
            .filter(|(_, line)| now.saturating_sub(line.last) < FORGOTTEN_AFTER.as_secs())
            .map(|(key, line)| {
                line.turn_to(now);
                RecentTrouble {
                    org: key.org.clone(),
                    caller: key.caller.clone(),
                    trouble: key.trouble.clone(),
                    family: line.family,
                    template: line.template,
                    count: line.count,
                    lately: line.panes.iter().sum(),
                    first_seconds: line.first,
                    last_seconds: line.last,
                }
            })
            .collect();
        list.sort_by(|one, other| {
            let newer = other.last_seconds.cmp(&one.last_seconds);
            newer.then_with(|| (&one.org, &one.caller).cmp(&(&other.org, &other.caller)))
        });
        list
    }
}

impl Line {
    fn turn_to(&mut self, now: u64) {
        let pane = now / PANE_SECONDS;
        let [a, b, _] = self.panes;
        self.panes = match pane.saturating_sub(self.pane) {
            0 => return,
            1 => [0, a, b],
            2 => [0, 0, a],
            _ => [0; 3],
        };
        self.pane = pane;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Duration = Duration::from_hours(500_004);

    fn whose(caller: &str) -> Whose<'_> {
        Whose { org: "prod", caller, family: Family::Rest, template: "/services/data" }
    }

    fn refused(reason: Reason) -> Trouble {
        Trouble::Refused { reason }
    }

    #[test]
    fn equal_troubles_are_one_line_with_what_happened_lately() {
        let recent = Recent::default();
        for minute in 0..20 {
            recent.note(&whose("shop"), refused(Reason::Paused), 2, NOON + Duration::from_mins(minute));
        }
        recent.note(&whose("etl"), refused(Reason::Paused), 1, NOON);
        let list = recent.list(NOON + Duration::from_mins(19));
        assert_eq!(list.len(), 2);
        let shop = &list[0];
        assert_eq!((&*shop.caller, shop.count, shop.lately), ("shop", 40, 30));
        assert_eq!(shop.last_seconds - shop.first_seconds, 19 * 60);
        // A quarter of an hour later nothing of it is new, a day later it is history.
        let later = recent.list(NOON + Duration::from_mins(36));
        assert_eq!((later[0].count, later[0].lately), (40, 0));
        assert_eq!(recent.list(NOON + Duration::from_hours(25)), []);
    }

    #[test]
    fn a_flood_of_callers_takes_no_more_room_and_hides_no_running_trouble() {
        let recent = Recent::default();
        for number in 0..10_000_u64 {
            let at = NOON + Duration::from_secs(number / 100);
            recent.note(&whose(&format!("caller-{number}")), refused(Reason::OrgAllowance), 1, at);
            recent.note(&whose("shop"), Trouble::UnknownOutcome, 1, at);
        }
        let list = recent.list(NOON + Duration::from_secs(100));
        assert_eq!(list.len(), PLACES);
        let shop = list.iter().find(|line| line.caller == "shop").unwrap();
        assert_eq!(shop.count, 10_000);
    }

    #[test]
    fn a_line_is_written_with_its_words_side_by_side() {
        let recent = Recent::default();
        let partial = Trouble::Partial { object: "Account".into(), code: "UNABLE_TO_LOCK_ROW".into() };
        recent.note(&whose("etl"), partial, 3, NOON);
        let line = serde_json::to_value(&recent.list(NOON)[0]).unwrap();
        assert_eq!(
            (&line["what"], &line["object"], &line["lately"]),
            (&"partial".into(), &"Account".into(), &3.into())
        );
    }
}
