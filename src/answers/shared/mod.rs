//! Changes that replicas tell each other of: the pure core.
//!
//! ```text
//! Message  message.rs   what one replica tells all others at once
//! Outbox   outbox.rs    what happened here: queued, numbered, and told whole to who missed something
//! Peers    peers.rs     what was heard of the others, and until when it is certain that nothing was missed
//! ```
//!
//! One channel for each org, over which everything is heard in one order, one's own messages too. Every message of a
//! replica has the next number, and there is one at least every [`HEARTBEAT`]. What is heard is applied to the changes of
//! this process as if it had happened here.
//!
//! **What is promised.** An answer from memory that a write of another replica has made wrong is given out only while the
//! message that announces the write is under way, and in no case for longer than [`SILENCE`] after it was due. Three things
//! see to that. A number that is left out means that something was missed: everything of the org is old, and nothing is
//! kept or given out until the replica in question has said what it has in the air. So does a new connection. And certainty
//! is a lease: it ends [`SILENCE`] after the last own message that came back was sent, and after the last one that is known
//! to have been sent before something was heard of each of the others; nothing has to happen for it to end.
//!
//! **What is presumed.** A replica that is not heard for [`PRESENCE`], while others are, is presumed dead: what it had in
//! the air is in doubt from then on as after any answer that was lost, and everything that was kept is old. One that takes
//! its leave finishes its calls first. Who comes new, or is connected anew, is told by the others whom they hear, and what
//! those have in the air; and because those who could tell may be gone, too, it gives out nothing for the first
//! [`PRESENCE`]. A replica that lives, makes writes, and cannot reach the channel for longer than [`PRESENCE`] is taken for
//! dead wrongly; the others hear of its writes when it is back, and make everything old.

mod message;
mod outbox;
mod peers;

use std::time::Duration;

pub(super) use message::millis;
pub use message::{Event, Message};
pub use outbox::{Outbox, Wanted};
pub use peers::{Order, Peers};

/// There is a message of each replica at least this often.
pub const HEARTBEAT: Duration = Duration::from_millis(750);
/// How long it is certain that nothing was missed after somebody was heard.
pub const SILENCE: Duration = Duration::from_secs(3);
/// After how long a replica that is not heard is presumed dead.
pub const PRESENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
