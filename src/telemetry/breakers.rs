//! The metrics of circuit breakers.

use smol_str::SmolStr;

use super::BreakersSnapshot;
use super::metrics::{BreakerLabels, Gauges, OrgLabels};
use crate::config::BreakerMode;
use crate::exchange::breaker::BreakerState;

impl Gauges {
    /// Adds one org's breakers.
    pub(super) fn add_breakers(&mut self, snapshot: &BreakersSnapshot) {
        if snapshot.mode == BreakerMode::Off {
            return;
        }
        let org = SmolStr::from(&snapshot.org);
        for breaker in &snapshot.families {
            let labels = BreakerLabels { org: org.clone(), family: breaker.family };
            let state = match breaker.state {
                BreakerState::Closed => 0.0,
                BreakerState::HalfOpen => 1.0,
                BreakerState::Open => 2.0,
            };
            self.breaker_state.set(labels.clone(), state);
            self.breaker_opened_total.set(labels, breaker.opened as f64);
        }
        self.breaker_users_held_back.set(OrgLabels { org }, snapshot.users_held_back as f64);
    }
}
