//! The metrics of budgets.

use std::collections::BTreeMap;

use smol_str::SmolStr;

use super::BudgetSnapshot;
use super::metrics::{CallerLabels, Gauges, OrgLabels, PaceRefusalLabels, SettleLabels, ViewLabels, WithinLabels};
use crate::admission::{Hurry, Warning};

/// The name of all callers beyond the bound.
const OTHER: &str = "other";

impl Gauges {
    /// Adds one org's budget; `max_callers` are named.
    pub(super) fn add_budget(&mut self, snapshot: &BudgetSnapshot, max_callers: usize) {
        let (org, budget) = (SmolStr::from(&snapshot.org), &snapshot.budget);
        let labels = || OrgLabels { org: org.clone() };
        if let Some(limit) = budget.limit {
            self.budget_limit.set(labels(), limit as f64);
        }
        if let Some(headroom) = budget.headroom {
            self.budget_headroom.set(labels(), headroom as f64);
        }
        let views = [
            ("own", Some(budget.own)),
            ("salesforce", budget.reading.map(|reading| reading.used)),
            ("estimate", Some(budget.used)),
        ];
        for (view, used) in views {
            if let Some(used) = used {
                self.budget_used.set(ViewLabels { org: org.clone(), view }, used as f64);
            }
        }
        let forecast = &budget.forecast;
        for (within, calls) in
            [("1h", forecast.returning_1h), ("6h", forecast.returning_6h), ("24h", forecast.returning_24h)]
        {
            self.budget_returning.set(WithinLabels { org: org.clone(), within }, calls as f64);
        }
        if let Some(at) = forecast.runs_out {
            let left = at.begins().saturating_sub(budget.now.begins());
            self.budget_exhaustion_seconds.set(labels(), left.as_secs_f64());
        }
        self.dark_api_calls.set(labels(), budget.dark as f64);
        self.degradation_level.set(labels(), budget.level.index() as f64);
        self.bulk_batches_used.set(labels(), snapshot.bulk_batches.used as f64);
        let lost = budget.warnings.contains(&Warning::BankLost);
        self.bank_up.set(labels(), f64::from(u8::from(!lost)));
        if let Some(lease) = budget.lease {
            self.bank_lease.set(labels(), lease as f64);
        }
        if let Some(standing) = &snapshot.shared {
            self.bank_safe_share.set(labels(), standing.safe_share as f64);
            self.bank_recovering.set(labels(), f64::from(u8::from(standing.recovering)));
            self.bank_replicas.set(labels(), standing.replicas as f64);
            self.bank_epochs_total.set(labels(), standing.epochs as f64);
            for (result, count) in [("taken", standing.taken), ("failed", standing.failed)] {
                self.bank_settles_total.set(SettleLabels { org: org.clone(), result }, count as f64);
            }
        }

        let mut others = 0;
        for (place, caller) in snapshot.callers.iter().enumerate() {
            if place >= max_callers {
                others += caller.used;
                continue;
            }
            let labels = || CallerLabels { org: org.clone(), caller: SmolStr::from(&*caller.name) };
            self.caller_used.set(labels(), caller.used as f64);
            self.caller_floor.set(labels(), caller.floor as f64);
            if let Some(ceiling) = caller.ceiling {
                self.caller_ceiling.set(labels(), ceiling as f64);
            }
        }
        if others > 0 {
            self.caller_used.set(CallerLabels { org, caller: OTHER.into() }, others as f64);
        }
        self.add_paces(snapshot, max_callers);
    }

    /// Adds the paces of one org's callers. They are in the order of the configuration, so each keeps its name or not.
    fn add_paces(&mut self, snapshot: &BudgetSnapshot, max_callers: usize) {
        let org = SmolStr::from(&snapshot.org);
        let mut others: (u64, BTreeMap<Hurry, u64>) = Default::default();
        for (place, paced) in snapshot.paces.iter().enumerate() {
            let (waiting, refused) = (u64::from(paced.pace.waiting), &paced.pace.refused);
            if place >= max_callers {
                others.0 += waiting;
                for (cause, count) in refused {
                    *others.1.entry(*cause).or_default() += count;
                }
                continue;
            }
            self.add_pace(&org, &SmolStr::from(&paced.caller), waiting, refused.iter().copied());
        }
        if snapshot.paces.len() > max_callers {
            self.add_pace(&org, &OTHER.into(), others.0, others.1);
        }
    }

    fn add_pace(
        &mut self,
        org: &SmolStr,
        caller: &SmolStr,
        waiting: u64,
        refused: impl IntoIterator<Item = (Hurry, u64)>,
    ) {
        self.pace_waiting.set(CallerLabels { org: org.clone(), caller: caller.clone() }, waiting as f64);
        for (cause, count) in refused {
            let labels = PaceRefusalLabels { org: org.clone(), caller: caller.clone(), cause };
            self.pace_refusals_total.set(labels, count as f64);
        }
    }
}
