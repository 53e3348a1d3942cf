//! Where no store is built in, nothing is shared: the counterpart of `sharing`.

use super::StartError;
use super::poll::{Elect, Polls};
use crate::admin::Admin;
use crate::answers::Answers;
use crate::clock::Clock;
use crate::config::{Config, State};
use crate::ledgers::Ledgers;
use crate::live::tokens::Shelves;
use crate::live::{InForce, Live};
use crate::tasks::Tasks;
use crate::telemetry::{Log, Telemetry};

/// There is none.
#[derive(Debug)]
pub(super) enum Sharing {}

impl Sharing {
    /// Refuses a configuration that names a store.
    pub(super) fn open(config: &Config, _: Clock, _: &Log, _: &Tasks) -> Result<Option<Self>, StartError> {
        match config.state {
            State::Redis { .. } => Err(StartError::System {
                what: "state.redis",
                why: "this program was built without the feature `redis`".to_owned(),
            }),
            State::Memory | State::Folder { .. } => Ok(None),
        }
    }

    pub(super) fn ledgers(&self) -> Result<Ledgers, StartError> {
        match *self {}
    }

    pub(super) fn answers(&self) -> Answers {
        match *self {}
    }

    pub(super) fn shelves(&self) -> Shelves {
        match *self {}
    }

    pub(super) fn adopt(&self, _: &Live) {
        match *self {}
    }

    pub(super) fn keep(&self, _: &InForce, _: &Tasks) -> Result<(), StartError> {
        match *self {}
    }

    pub(super) fn elect(&self) -> Elect {
        match *self {}
    }

    pub(super) fn show(&self, _: &Telemetry, _: &Admin, _: &InForce, _: &Polls) {
        match *self {}
    }

    pub(super) async fn leave(&self) {
        match *self {}
    }
}
