//! What replicas that share state know of each other, and its metrics.

use serde::Serialize;
use smol_str::SmolStr;

use super::metrics::{CommandLabels, Gauges, NoLabels, OrgLabels};

/// This replica and the others. Only where they share state.
#[derive(Debug, Clone, Serialize)]
pub struct ReplicasSnapshot {
    /// This replica's id, new at each start.
    pub replica: String,
    /// Its name, for people.
    pub name: String,
    /// What is shared by way of.
    pub store: StoreSnapshot,
    /// All replicas, this one among them, as they were when the store last answered.
    pub replicas: Vec<MemberSnapshot>,
    /// What is shared of every org.
    pub orgs: Vec<SharedSnapshot>,
}

/// The store that replicas share.
#[derive(Debug, Clone, Serialize)]
pub struct StoreSnapshot {
    /// Whether it answers.
    pub up: bool,
    /// For how long that has been so.
    pub since_seconds: u64,
    /// What happens while it does not.
    pub on_loss: &'static str,
    /// Commands sent to it since the start.
    pub commands: Vec<CommandsSnapshot>,
}

/// Commands sent to the store for one purpose.
#[derive(Debug, Clone, Serialize)]
pub struct CommandsSnapshot {
    /// What they were for.
    pub purpose: SmolStr,
    /// Those that were answered.
    pub answered: u64,
    /// Those that failed.
    pub failed: u64,
}

/// One replica.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MemberSnapshot {
    /// Its id.
    pub replica: String,
    /// Its name.
    pub name: String,
    /// The version it runs.
    pub version: String,
    /// For how long it has been running.
    pub up_seconds: u64,
    /// How long ago it was heard.
    pub heard_seconds_ago: f64,
    /// Whether it is the one that says this.
    pub this: bool,
}

/// What is shared of one org.
#[derive(Debug, Clone, Serialize)]
pub struct SharedSnapshot {
    /// The org's name.
    pub org: String,
    /// Whether the bank can be reached.
    pub bank_up: bool,
    /// Calls that are leased to this replica and not yet spent.
    pub lease: Option<u64>,
    /// Whether this replica is the one that asks what is used; nothing if nobody is to ask.
    pub asks: Option<bool>,
    /// Why this replica answers nothing from memory, if that is so.
    pub doubt: Option<&'static str>,
}

impl Gauges {
    /// Adds what is known of replicas.
    pub(super) fn add_replicas(&mut self, snapshot: &ReplicasSnapshot) {
        self.replicas.set(NoLabels {}, snapshot.replicas.len() as f64);
        self.store_up.set(NoLabels {}, f64::from(u8::from(snapshot.store.up)));
        for commands in &snapshot.store.commands {
            for (result, count) in [("answered", commands.answered), ("failed", commands.failed)] {
                let labels = CommandLabels { purpose: commands.purpose.clone(), result };
                self.store_commands_total.set(labels, count as f64);
            }
        }
        for org in &snapshot.orgs {
            if let Some(asks) = org.asks {
                self.poll_chair.set(OrgLabels { org: SmolStr::from(&org.org) }, f64::from(u8::from(asks)));
            }
        }
    }
}
