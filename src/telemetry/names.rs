//! Which names the numbers of orgs and callers stand for, and what each org has in the air.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use smol_str::SmolStr;

use super::spenders::Spenders;
use crate::call::{CallerId, Class, OrgId};

/// The word for an org or caller that was not found out.
pub const UNKNOWN: &str = "unknown";

/// The names of one configuration. A request keeps the table it began with, so that a reload in between does not book it
/// to somebody else.
#[derive(Debug, Default)]
pub struct Names {
    pub(super) orgs: Vec<Org>,
    pub(super) callers: Vec<SmolStr>,
}

/// One org's name and its cells, which outlive a reload.
#[derive(Debug, Clone)]
pub(super) struct Org {
    pub(super) name: SmolStr,
    pub(super) occupancy: Arc<OrgOccupancy>,
}

impl Names {
    /// The name of `org`.
    pub fn org(&self, org: Option<OrgId>) -> &str {
        org.and_then(|org| self.orgs.get(usize::from(org.0))).map_or(UNKNOWN, |org| org.name.as_str())
    }

    /// The name of `caller`.
    pub fn caller(&self, caller: Option<CallerId>) -> &str {
        caller.and_then(|caller| self.callers.get(usize::from(caller.0))).map_or(UNKNOWN, SmolStr::as_str)
    }

    /// Who spends the calls of `org`.
    pub(super) fn spenders(&self, org: Option<OrgId>) -> Option<&Spenders> {
        self.orgs.get(usize::from(org?.0)).map(|org| &org.occupancy.spenders)
    }

    /// Counts one call of `class` as in flight to `org` until the guard is dropped.
    pub fn enter(&self, org: OrgId, class: Class) -> Option<InFlight> {
        let occupancy = Arc::clone(&self.orgs.get(usize::from(org.0))?.occupancy);
        occupancy.cell(class).fetch_add(1, Ordering::Relaxed);
        Some(InFlight { occupancy, class })
    }
}

/// What one org has in the air, and who spends its calls.
#[derive(Debug, Default)]
pub(super) struct OrgOccupancy {
    in_flight: [AtomicUsize; Class::ALL.len()],
    pub(super) spenders: Spenders,
}

impl OrgOccupancy {
    fn cell(&self, class: Class) -> &AtomicUsize {
        let [interactive, standard, batch] = &self.in_flight;
        match class {
            Class::Interactive => interactive,
            Class::Standard => standard,
            Class::Batch => batch,
        }
    }

    pub(super) fn in_flight(&self, class: Class) -> usize {
        self.cell(class).load(Ordering::Relaxed)
    }
}

/// Counts one call as in the air until it is dropped.
#[derive(Debug)]
#[must_use = "the call counts as in the air only while this lives"]
pub struct InFlight {
    occupancy: Arc<OrgOccupancy>,
    class: Class,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.occupancy.cell(self.class).fetch_sub(1, Ordering::Relaxed);
    }
}
