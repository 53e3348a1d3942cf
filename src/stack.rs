//! The road: what happens to a request, in order.
//!
//! ```text
//! edge::serve -> Observe -> Identify -> Understand -> Policy -> Rewrite -> Recall -> Retry ---> Authorize -> Admit ----> Send
//!                record     org and     Call,         may he?   URLs in    from      breaker;   token of     breaker    message,
//!                metrics,   caller,     complete      (and each answers    memory?   once more  the          again;     connection,
//!                log        class       body          part)     that       what is   if it may  identity     ledger:    answer, cost
//!                                                               leave us   old now?  pass and                may it
//!                                                                                    is safe                 now, who
//!                                                                                                            pays;
//!                                                                                                            slots,
//!                                                                                                            queue
//! ```
//!
//! Every stage may end the journey with a `Refusal`, which Observe turns into an answer. All stages are always ready, so a
//! clone of any level is as good as the original; cloning the whole road is a handful of reference counts.

use std::convert::Infallible;
use std::sync::Arc;

use http::Response;
use smol_str::SmolStr;
use tower::{Service, ServiceBuilder};

use crate::body::ByteBudget;
use crate::clock::Clock;
use crate::edge::{Arrival, Drain};
use crate::live::InForce;
use crate::outcome::RequestIds;
use crate::stages::admit::AdmitLayer;
use crate::stages::authorize::AuthorizeLayer;
use crate::stages::facade::Desk;
use crate::stages::identify::IdentifyLayer;
use crate::stages::observe::{ObserveLayer, ObservedBody};
use crate::stages::policy::PolicyLayer;
use crate::stages::poll::PollLayer;
use crate::stages::recall::RecallLayer;
use crate::stages::retry::RetryLayer;
use crate::stages::rewrite::RewriteLayer;
use crate::stages::send::Send;
use crate::stages::understand::UnderstandLayer;
use crate::tasks::Tasks;
use crate::telemetry::Telemetry;

/// What all runtimes share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The configuration in force.
    pub in_force: InForce,
    /// Where outcomes go.
    pub telemetry: Telemetry,
    /// What time it is.
    pub clock: Clock,
    /// The bytes that may be buffered.
    pub buffers: ByteBudget,
    /// Names requests.
    pub ids: Arc<RequestIds>,
}

/// What one runtime has for itself.
#[derive(Debug, Clone)]
pub struct Local {
    /// Its tracked tasks.
    pub tasks: Tasks,
    /// Tells it to finish what it has.
    pub drain: Drain,
}

/// A road for one runtime, and the way to Salesforce at its end (for its figures).
pub fn build(
    shared: &Shared,
    local: &Local,
) -> (
    impl Service<Arrival, Response = Response<ObservedBody>, Error = Infallible, Future: std::marker::Send>
    + Clone
    + std::marker::Send
    + 'static
    + use<>,
    Send,
) {
    let send = Send::new(shared.clock, local, shared.buffers.clone());
    let observe = ObserveLayer {
        in_force: Arc::clone(&shared.in_force),
        recorder: Arc::new(shared.telemetry.recorder()),
        clock: shared.clock,
        ids: Arc::clone(&shared.ids),
    };
    let road = ServiceBuilder::new()
        // Opens the record of the request, and closes it at the last byte; turns refusals into answers.
        .layer(observe.clone())
        // Which org, which caller, which class, which deadline.
        .layer(IdentifyLayer {
            desk: Desk { clock: shared.clock, buffers: shared.buffers.clone(), tasks: local.tasks.clone() },
        })
        // What is asked; waits for a body that has to be complete or says what is asked.
        .layer(UnderstandLayer { buffers: shared.buffers.clone() })
        // May this caller do this, and everything inside it.
        .layer(PolicyLayer)
        // URLs in a few answers point to the gateway, not past it.
        .layer(RewriteLayer)
        // Was it answered a short while ago; what does a write make old.
        .layer(RecallLayer {
            clock: shared.clock,
            buffers: shared.buffers.clone(),
            observe,
            tasks: local.tasks.clone(),
        })
        // Held back while Salesforce is not well; once more, if it failed in a way that may pass and cannot be done twice by
        // that.
        .layer(RetryLayer { clock: shared.clock, buffers: shared.buffers.clone(), tasks: local.tasks.clone() })
        // The token of the identity the caller acts as; a new one, once, if Salesforce rejects it.
        .layer(AuthorizeLayer { clock: shared.clock, tasks: local.tasks.clone() })
        // May it be sent now, and who pays; is there a slot if it runs long; waits for what is on its way and for its turn.
        // A second attempt pays and waits again.
        .layer(AdmitLayer { clock: shared.clock, drain: local.drain.clone() })
        // One attempt at Salesforce.
        .service(send.clone());
    (road, send)
}

/// The road of the gateway's own question what `org` has used: nobody has to be identified, and the rest is the same.
pub fn build_poll(
    shared: &Shared,
    local: &Local,
    org: &SmolStr,
) -> impl Service<Arrival, Response = Response<ObservedBody>, Error = Infallible, Future: std::marker::Send>
+ Clone
+ std::marker::Send
+ 'static
+ use<> {
    ServiceBuilder::new()
        .layer(ObserveLayer {
            in_force: Arc::clone(&shared.in_force),
            recorder: Arc::new(shared.telemetry.recorder()),
            clock: shared.clock,
            ids: Arc::clone(&shared.ids),
        })
        // The gateway itself asks.
        .layer(PollLayer { org: org.clone() })
        .layer(AuthorizeLayer { clock: shared.clock, tasks: local.tasks.clone() })
        .layer(AdmitLayer { clock: shared.clock, drain: local.drain.clone() })
        .service(Send::new(shared.clock, local, shared.buffers.clone()))
}
