//! The metrics of slots and queues.

use smol_str::SmolStr;

use super::SlotsSnapshot;
use super::metrics::{Gauges, OrgLabels, QueueLabels, SlotLabels};
use crate::config::SlotMode;

impl Gauges {
    /// Adds one org's slots and queue.
    pub(super) fn add_slots(&mut self, snapshot: &SlotsSnapshot) {
        if snapshot.mode == SlotMode::Off {
            return;
        }
        let (org, view) = (SmolStr::from(&snapshot.org), &snapshot.view);
        for (state, calls) in
            [("live", view.live), ("predicted", view.predicted), ("ghost", view.ghost), ("overdraft", view.overdraft)]
        {
            self.long_running_slots.set(SlotLabels { org: org.clone(), state }, calls as f64);
        }
        for waiting in &view.queue {
            self.queue_depth.set(QueueLabels { org: org.clone(), class: waiting.class }, waiting.waiting as f64);
        }
        self.long_running_capacity.set(OrgLabels { org: org.clone() }, f64::from(view.effective));
        self.long_running_refused_total.set(OrgLabels { org }, view.refusals as f64);
    }
}
