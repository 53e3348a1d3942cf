//! The metrics of slots and queues.

use smol_str::SmolStr;

use super::SlotsSnapshot;
use super::metrics::{Gauges, OrgLabels, QueueLabels, SlotLabels};
use crate::admission::slots::SlotsView;
use crate::call::Class;
use crate::config::SlotMode;

impl Gauges {
    /// Adds one org's slots and queue.
    pub(super) fn add_slots(&mut self, snapshot: &SlotsSnapshot) {
        if snapshot.mode == SlotMode::Off {
            return;
        }
        let (org, view) = (SmolStr::from(&snapshot.org), &snapshot.view);
        let labels = || OrgLabels { org: org.clone() };
        for (state, calls) in by_state(view) {
            self.long_running_slots.set(SlotLabels { org: org.clone(), state }, calls as f64);
        }
        self.long_running_capacity.set(labels(), f64::from(view.effective));
        if let Some(shared) = &view.shared {
            self.long_running_granted.set(labels(), f64::from(shared.granted));
            self.long_running_elsewhere.set(labels(), f64::from(shared.elsewhere));
        }
        self.long_running_batch_at_most.set(labels(), f64::from(view.batch_at_most));
        self.long_running_refused_total.set(labels(), view.refusals as f64);
        if let Some(apex) = &snapshot.apex {
            for (state, calls) in by_state(apex) {
                self.apex_slots.set(SlotLabels { org: org.clone(), state }, calls as f64);
            }
            self.apex_capacity.set(labels(), f64::from(apex.effective));
            self.apex_refused_total.set(labels(), apex.refusals as f64);
        }
        // A call waits before one of the two at a time.
        let queues = std::iter::once(view).chain(&snapshot.apex).flat_map(|view| &view.queue);
        for class in Class::ALL {
            let waiting: usize = queues.clone().filter(|of| of.class == *class).map(|of| of.waiting).sum();
            self.queue_depth.set(QueueLabels { org: org.clone(), class: *class }, waiting as f64);
        }
    }
}

fn by_state(view: &SlotsView) -> [(&'static str, usize); 4] {
    [("live", view.live), ("predicted", view.predicted), ("ghost", view.ghost), ("overdraft", view.overdraft)]
}
