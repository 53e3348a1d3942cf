//! Who pays for an attempt, as far as an exchange has to know.

use tokio::time::Instant;

use crate::hold::Hold;

/// Is asked right before a message is handed to a connection, and told if the connection gives it back.
pub trait Payer: Send {
    /// The message is about to be handed over at `now`. What comes back is held until Salesforce is done with it, also if
    /// the caller leaves.
    fn hand_over(&mut self, now: Instant) -> Result<Option<Hold>, Unpaid>;

    /// The connection gave the message back at `now`, and with it what is held: nothing was sent.
    fn given_back(&mut self, hold: Option<Hold>, now: Instant);
}

/// The message must not be handed over, for nobody pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unpaid;

/// Pays for calls that nobody counts: the gateway's own, to others than Salesforce.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Payer for Nobody {
    fn hand_over(&mut self, _: Instant) -> Result<Option<Hold>, Unpaid> {
        Ok(None)
    }

    fn given_back(&mut self, _: Option<Hold>, _: Instant) {}
}
