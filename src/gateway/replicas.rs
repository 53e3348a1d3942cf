//! What makes this gateway one of several replicas: the store they share, who is there, who asks what is used, and what
//! operators see of it.

use std::sync::Arc;

use tokio::sync::watch;

use super::poll::seat::Seats;
use super::poll::{Elect, Polls};
use super::presence::Presence;
use crate::admin::Admin;
use crate::admission::Warning;
use crate::clock::Clock;
use crate::config::SharedLoss;
use crate::live::{InForce, LiveOrg};
use crate::store::Store;
use crate::telemetry::{CommandsSnapshot, Log, ReplicasSnapshot, SharedSnapshot, Snapshot, StoreSnapshot, Telemetry};

/// This replica among others. Cloning is a few reference counts.
#[derive(Debug, Clone)]
pub struct Replicas {
    store: Store,
    presence: Presence,
    seats: Seats,
    on_loss: SharedLoss,
}

impl Replicas {
    /// Joins the others that share `store`, which need not be there yet. Runs inside the control runtime.
    pub fn join(store: Store, name: Option<&str>, on_loss: SharedLoss, clock: Clock, log: &Log) -> Self {
        let presence = Presence::begin(store.clone(), name.unwrap_or_default(), clock, log.clone());
        let seats = Seats::new(store.clone(), presence.clone(), clock, log.clone());
        Self { store, presence, seats, on_loss }
    }

    /// Elects one of all to ask what is used.
    pub fn elect(&self) -> Elect {
        let seats = self.seats.clone();
        Box::new(move |org, ended: watch::Receiver<()>| seats.take(org, ended))
    }

    /// Shows all this to operators.
    pub fn show(&self, telemetry: &Telemetry, admin: &Admin, in_force: &InForce, polls: &Polls) {
        let (shown, in_force, polls) = (self.clone(), Arc::clone(in_force), polls.clone());
        telemetry.add_source(move |snapshot| {
            let live = in_force.load();
            let orgs = live.orgs().iter().map(|org| shared(org, snapshot, &polls)).collect();
            snapshot.replicas = Some(shown.snapshot(orgs));
        });
        let lacking = self.clone();
        admin.add_lack("store", move || lacking.lack());
    }

    /// Lets others have what this one holds, and says goodbye.
    pub async fn leave(&self) {
        self.seats.leave().await;
        self.presence.goodbye().await;
    }

    fn snapshot(&self, orgs: Vec<SharedSnapshot>) -> ReplicasSnapshot {
        let (up, since) = self.presence.store();
        let commands = self.store.counts().into_iter().map(|(purpose, counts)| CommandsSnapshot {
            purpose,
            answered: counts.answered,
            failed: counts.failed,
        });
        ReplicasSnapshot {
            replica: self.store.replica().to_string(),
            name: self.presence.name().to_owned(),
            store: StoreSnapshot {
                up,
                since_seconds: since.as_secs(),
                on_loss: self.on_loss.as_str(),
                commands: commands.collect(),
            },
            replicas: self.presence.members(),
            orgs,
        }
    }

    /// What is missing while the store does not answer: calls go on, so that the gateway stays ready.
    fn lack(&self) -> Option<String> {
        let (up, since) = self.presence.store();
        (!up).then(|| {
            format!(
                "degraded: the shared store has not answered for {} s; calls go on as state.on_loss says: {}",
                since.as_secs(),
                self.on_loss.as_str()
            )
        })
    }
}

/// What is shared of `org`, as the parts that share it have told.
fn shared(org: &LiveOrg, snapshot: &Snapshot, polls: &Polls) -> SharedSnapshot {
    let budget = snapshot.budgets.iter().find(|budget| budget.org == org.name).map(|budget| &budget.budget);
    SharedSnapshot {
        org: org.name.to_string(),
        bank_up: budget.is_none_or(|budget| !budget.warnings.contains(&Warning::BankLost)),
        lease: budget.and_then(|budget| budget.lease),
        asks: polls.asks(&org.name),
        doubt: snapshot.generations.iter().find(|of| of.org == org.name).and_then(|of| of.doubt),
    }
}
