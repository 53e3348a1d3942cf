//! The metrics of circuit breakers and of the budgets for repetitions.

use smol_str::SmolStr;

use super::BreakersSnapshot;
use super::metrics::{BreakerLabels, Gauges, OrgLabels, PurseLabels};
use crate::config::BreakerMode;
use crate::exchange::breaker::BreakerState;

impl Gauges {
    /// Adds those of one org.
    pub(super) fn add_breakers(&mut self, snapshot: &BreakersSnapshot) {
        let org = SmolStr::from(&snapshot.org);
        for budget in &snapshot.retries {
            self.retry_budget_left.set(PurseLabels { org: org.clone(), reason: budget.reason }, budget.left as f64);
        }
        if snapshot.mode == BreakerMode::Off {
            return;
        }
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
