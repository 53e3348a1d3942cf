//! Who pays for an attempt, as far as an exchange has to know.

use tokio::time::Instant;

/// Is asked right before a message is handed to a connection, and told if the connection gives it back.
pub trait Payer: Send {
    /// The message is about to be handed over at `now`. `false`: it must not be, for nobody pays.
    fn hand_over(&mut self, now: Instant) -> bool;

    /// The connection gave the message back at `now`: nothing was sent.
    fn given_back(&mut self, now: Instant);
}

/// Pays for calls that nobody counts: the gateway's own, to others than Salesforce.
#[derive(Debug, Clone, Copy)]
pub struct Nobody;

impl Payer for Nobody {
    fn hand_over(&mut self, _: Instant) -> bool {
        true
    }

    fn given_back(&mut self, _: Instant) {}
}
