//! The stages of the road, one file each, thin: the decision is made by a pure core, the stage does the I/O around it.
//!
//! What travels changes its type as more becomes known: [`Seen`] (a request with a record) → [`Known`] (org and caller)
//! → [`Passage`] (understood). What comes back is a [`Reply`] or a [`Refusal`](crate::refusal::Refusal).

use std::sync::Arc;

use tokio::time::Instant;

use crate::answers::Urgency;
use crate::body::{Payload, ReplyBody};
use crate::call::{Call, CallerId, Class, Meaning, OrgId, Principal};
use crate::edge::connection::Connection;
use crate::edge::inbound::Inbound;
use crate::live::Live;
use crate::outcome::Record;
use crate::stages::admit::Fare;
use crate::stages::answer::Answer;
use crate::stages::back::Back;
use crate::stages::breakers::Permit;

pub mod admit;
pub mod answer;
pub mod authorize;
pub mod back;
pub mod breakers;
pub mod changes;
mod concern;
mod errand;
pub mod facade;
pub mod identify;
mod inflate;
mod mend;
pub mod observe;
mod own;
pub mod pace;
mod parts;
pub mod policy;
pub mod poll;
pub mod recall;
mod remember;
pub mod retry;
pub mod rewrite;
pub mod send;
pub mod share;
pub mod tally;
mod turn;
pub mod understand;
pub mod way;

/// Salesforce's answer, or the gateway's own, on its way back.
pub type Reply = http::Response<ReplyBody<Answer>>;

/// A request with its record, before anything is known about it.
pub struct Seen {
    /// Its head, as the caller sent it.
    pub head: http::request::Parts,
    /// Its body.
    pub body: Inbound,
    /// The connection it came on.
    pub connection: Arc<Connection>,
    /// The configuration in force when it came; a reload does not change the rules of a request under way.
    pub live: Arc<Live>,
    /// What is decided and measured about it.
    pub record: Record,
    /// When its head had arrived.
    pub now: Instant,
}

/// A request whose org and caller are known.
pub struct Known {
    /// The request; its head holds only what is for Salesforce.
    pub seen: Seen,
    /// Where it goes.
    pub org: OrgId,
    /// Who asks.
    pub caller: CallerId,
    /// How urgent it is.
    pub class: Class,
    /// When the caller gives up.
    pub deadline: Option<Instant>,
    /// Whether it reached us, or the proxy before us, by TLS.
    pub secure: bool,
    /// What its head says, if that had to be known before.
    pub meaning: Option<Meaning>,
    /// What its head shows of a Salesforce session.
    pub session: Session,
}

/// What a head shows of a Salesforce session.
#[derive(Debug, Clone, Copy)]
pub enum Session {
    /// The same one as before on this connection, and nothing else.
    Remembered(Principal),
    /// `Authorization`, and nothing else.
    One,
    /// None, or more than one.
    Other,
}

/// A request that has been understood: what all later stages speak.
pub struct Passage {
    /// What it means.
    pub call: Call,
    /// Its head, as the caller sent it, without what is not for Salesforce.
    pub head: http::request::Parts,
    /// Its body.
    pub payload: Payload<Inbound>,
    /// The configuration in force when it came.
    pub live: Arc<Live>,
    /// What is decided and measured about it.
    pub record: Record,
    /// When its head had arrived, or it was admitted after a wait.
    pub now: Instant,
    /// What shows, after a wait, whether the breakers still let it go.
    pub permit: Option<Permit>,
    /// Where it is left if its attempt fails, so that it can be made once more.
    pub back: Option<Back>,
    /// What pays for it, once it is admitted.
    pub fare: Option<Fare>,
    /// How urgent those are who wait for its answer, if others may.
    pub urgency: Option<Arc<Urgency>>,
    /// Whether it reached us, or the proxy before us, by TLS.
    pub secure: bool,
}

impl Passage {
    /// A request at the beginning of its way to Salesforce: nothing is decided about it.
    #[inline]
    pub(in crate::stages) fn new(
        call: Call,
        head: http::request::Parts,
        payload: Payload<Inbound>,
        live: Arc<Live>,
        record: Record,
        now: Instant,
        secure: bool,
    ) -> Self {
        Self { call, head, payload, live, record, now, permit: None, back: None, fare: None, urgency: None, secure }
    }
}
