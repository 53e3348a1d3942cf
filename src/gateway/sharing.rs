//! What this replica shares with others, if its state is shared: opened, kept in step and left together.

use std::sync::Arc;

use parking_lot::Mutex;

use super::generations::{self, Generations};
use super::places::Places;
use super::poll::{Elect, Polls};
use super::replicas::Replicas;
use super::{StartError, fill, system};
use crate::admin::Admin;
use crate::answers::Answers;
use crate::clock::Clock;
use crate::config::{Config, Secret, SharedLoss, State};
use crate::ledgers::Ledgers;
use crate::live::tokens::{self, Shelves};
use crate::live::{InForce, Live};
use crate::store::Store;
use crate::tasks::Tasks;
use crate::telemetry::{Log, Telemetry};

/// Everything that is shared.
#[derive(Debug)]
pub(super) struct Sharing {
    store: Store,
    keys: Vec<Secret>,
    on_loss: SharedLoss,
    clock: Clock,
    log: Log,
    places: Places,
    replicas: Replicas,
    generations: Mutex<Option<Generations>>,
}

impl Sharing {
    /// The store that `config` names, if it names one. It need not answer yet. Runs inside the control runtime.
    pub(super) fn open(config: &Config, clock: Clock, log: &Log, tasks: &Tasks) -> Result<Option<Self>, StartError> {
        let State::Redis { redis, on_loss } = &config.state else { return Ok(None) };
        let store = Store::open(redis, clock, tasks)
            .map_err(|error| StartError::System { what: "cannot use the shared store", why: error.to_string() })?;
        Ok(Some(Self {
            places: Places::new(store.clone(), *on_loss, clock, log.clone()),
            replicas: Replicas::join(store.clone(), redis.name.as_deref(), *on_loss, clock, log),
            generations: Mutex::default(),
            keys: redis.keys.clone(),
            on_loss: *on_loss,
            log: log.clone(),
            clock,
            store,
        }))
    }

    /// Ledgers whose bank all replicas share.
    pub(super) fn ledgers(&self) -> Result<Ledgers, StartError> {
        let mut random = [0; 8];
        fill(&mut random)?;
        let random = u64::from_ne_bytes(random);
        Ok(Ledgers::shared(self.store.clone(), self.on_loss, random, self.clock, self.log.clone()))
    }

    /// Kept answers that know of what other replicas change.
    pub(super) fn answers(&self) -> Answers {
        Answers::shared(self.clock, Some(&**self.store.replica()))
    }

    /// Where identities share their tokens with their like in other replicas.
    pub(super) fn shelves(&self) -> Shelves {
        tokens::shelves(self.store.clone())
    }

    /// What is about to be in force uses only what is granted to this replica.
    pub(super) fn adopt(&self, live: &Live) {
        self.places.adopt(live);
    }

    /// Keeps in step with the others for all orgs that are in force, until [`Self::leave`].
    pub(super) fn keep(&self, in_force: &InForce, tasks: &Tasks) -> Result<(), StartError> {
        self.places.keep(Arc::clone(in_force), tasks);
        let parts = generations::Parts {
            store: self.store.clone(),
            secrets: self.keys.clone(),
            in_force: Arc::clone(in_force),
            clock: self.clock,
            log: self.log.clone(),
        };
        let kept = generations::keep(parts, tasks)
            .map_err(|error| system("cannot draw keys")(std::io::Error::other(error)))?;
        *self.generations.lock() = Some(kept);
        Ok(())
    }

    /// Elects one of all replicas to ask what is used.
    pub(super) fn elect(&self) -> Elect {
        self.replicas.elect()
    }

    /// Shows to operators which replicas there are.
    pub(super) fn show(&self, telemetry: &Telemetry, admin: &Admin, in_force: &InForce, polls: &Polls) {
        self.replicas.show(telemetry, admin, in_force, polls);
    }

    /// Says goodbye: nothing is sent to Salesforce any more.
    pub(super) async fn leave(&self) {
        let generations = self.generations.lock().clone();
        if let Some(generations) = generations {
            generations.close().await;
        }
        self.places.leave().await;
        self.replicas.leave().await;
    }
}
