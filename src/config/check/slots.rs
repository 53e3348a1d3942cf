//! Slots, the queue and class rules.

use super::{At, Check};
use crate::config::problem::Fault;
use crate::config::slots::{
    Apex, ClassRule, ClassRuleFile, Hours, HoursFile, LongRunning, LongRunningFile, MOST_HOURS, Queue, QueueFile,
};
use crate::config::value::Count;

impl Check<'_> {
    pub(super) fn long_running(&mut self, at: &At, written: &LongRunningFile) -> LongRunning {
        let slots = written.slots.as_u32();
        let (batch_at_most, reserve) = self.parts(at, slots, written.batch_at_most, written.reserve);
        let after = self.positive(&at.key("after"), written.after);
        let apex = written.apex.as_ref().map(|apex| {
            let at = at.key("apex");
            let slots = apex.slots.as_u32();
            let (batch_at_most, reserve) = self.parts(&at, slots, apex.batch_at_most, apex.reserve);
            Apex { slots, after: self.positive(&at.key("after"), apex.after), batch_at_most, reserve }
        });
        let hours = self.hours(&at.key("hours"), slots, reserve, &written.hours);
        LongRunning { mode: written.mode, slots, after, batch_at_most, reserve, hours, apex }
    }

    /// Parts at certain hours; `reserve` is what is left to interactive calls at all others.
    fn hours(&mut self, at: &At, slots: u32, reserve: u32, written: &[HoursFile]) -> [Option<Hours>; MOST_HOURS] {
        if written.len() > MOST_HOURS {
            self.wrong(at, Fault::new(format!("no more than {MOST_HOURS} times of day can have parts of their own")));
        }
        let mut hours = [None; MOST_HOURS];
        for (place, (hours, written)) in hours.iter_mut().zip(written).enumerate() {
            let at = at.index(place);
            let missing = [
                ("from", written.from.is_none(), "say from when, such as 22:00"),
                ("to", written.to.is_none(), "say until when, such as 06:00"),
                ("batch_at_most", written.batch_at_most.is_none(), "say how many slots batch may hold then"),
            ];
            for (key, _, hint) in missing.iter().filter(|(_, missing, _)| *missing) {
                self.missing(&at.key(key), hint);
            }
            let (Some(from), Some(to)) = (written.from, written.to) else { continue };
            if from == to {
                self.wrong(&at.key("to"), Fault::new("this is when it begins, so it would hold at no time"));
            }
            let least = Count(u64::from(reserve));
            let (batch_at_most, reserve) =
                self.parts(&at, slots, written.batch_at_most, Some(written.reserve.unwrap_or(least)));
            *hours = Some(Hours { from: from.0.0, to: to.0.0, batch_at_most, reserve });
        }
        hours
    }

    /// How many of `slots` batch may hold, and how many are left to interactive calls.
    fn parts(
        &mut self,
        at: &At,
        slots: u32,
        batch_at_most: Option<Count<1, 1000>>,
        reserve: Option<Count<0, 1000>>,
    ) -> (u32, u32) {
        let batch_at_most = batch_at_most.map_or(slots * 3 / 5, Count::as_u32).max(1);
        let reserve = reserve.map_or(slots / 5, Count::as_u32);
        if batch_at_most >= slots {
            let fault = Fault::new(format!("batch could hold all of the {slots} slots but the one that stays free"));
            self.wrong(&at.key("batch_at_most"), fault.hint(format!("use at most {}", slots - 1)));
        }
        if reserve >= slots {
            let fault =
                Fault::new(format!("nothing would be left of {slots} slots for other classes than interactive"));
            self.wrong(&at.key("reserve"), fault.hint(format!("use less than {}", slots - 1)));
        }
        (batch_at_most, reserve)
    }

    pub(super) fn queue(&mut self, at: &At, written: &QueueFile) -> Queue {
        let wait = at.key("wait");
        Queue {
            places: written.places.as_usize(),
            interactive: self.positive(&wait.key("interactive"), written.wait.interactive),
            standard: self.positive(&wait.key("standard"), written.wait.standard),
            batch: self.positive(&wait.key("batch"), written.wait.batch),
        }
    }

    pub(super) fn class_rules(&mut self, at: &At, written: &[ClassRuleFile]) -> Vec<ClassRule> {
        let mut rules = Vec::with_capacity(written.len());
        for (index, rule) in written.iter().enumerate() {
            let at = at.index(index);
            if rule.families.is_empty() && rule.paths.is_empty() {
                let fault = Fault::new("this rule matches nothing");
                self.wrong(&at, fault.hint("give it families or paths"));
            }
            for (place, path) in rule.paths.iter().enumerate() {
                if !path.0.0.starts_with('/') {
                    let fault = Fault::new("a path begins with a slash");
                    self.wrong(&at.key("paths").index(place), fault.hint("such as /services/apexrest/Nightly"));
                }
            }
            let Some(class) = rule.class else {
                self.missing(&at.key("class"), "say which class such calls have at most: standard or batch");
                continue;
            };
            let paths = rule.paths.iter().map(|path| path.0.0.trim_end_matches('/').to_ascii_lowercase().into());
            rules.push(ClassRule { families: rule.families.clone(), paths: paths.collect(), class });
        }
        rules
    }
}
