//! Weirkeeper: an API gateway that meters, shares and protects a Salesforce org's API allowance.
//!
//! # The map
//!
//! A request travels one road, which stands in [`stack`] as it is built:
//!
//! ```text
//! caller ─▶ edge::listener ─▶ edge::workers ─▶ edge::serve            one acceptor deals connections to runtimes
//!                                                  │
//!             stages::observe      opens the record, closes it at the last byte, answers refusals
//!             stages::identify     which org, which caller, how urgent, until when
//!             stages::understand   what is asked (salesforce), a complete body
//!             stages::policy       may this caller do this, and everything inside it
//!             stages::recall       may it be answered from memory, what does a write make old (answers)
//!             stages::retry        is Salesforce well (exchange::breaker), once more if it failed and that is safe
//!             stages::authorize    as whom: the token of the caller's identity (exchange::vault)
//!             stages::admit        may it be sent now, and who pays (admission)
//!             stages::send         one attempt: message, connection (exchange), cost
//!                                                  │
//! Salesforce ◀─ exchange::pool ◀───────────────────┘
//! ```
//!
//! The modules, in travel order:
//!
//! | module | what it decides |
//! |---|---|
//! | [`call`], [`hold`], [`outcome`], [`refusal`], [`body`], [`written`], [`clock`], [`tasks`], [`per_thread`], [`http1`] | the words every stage shares |
//! | [`edge`] | how a caller's connection is read, who is calling, how the gateway's own answers look |
//! | [`salesforce`] | what a request means and costs: pure knowledge, no I/O |
//! | [`stages`] | the Tower layers: thin, each around a pure core |
//! | [`answers`] | which answers may be kept, for whom, and when they are old; which failures are remembered: pure rules, and the store |
//! | [`admission`], [`ledgers`] | what may be spent, by whom, and what was: pure books, and the bank that remembers them; who may be in the air, and who waits |
//! | [`exchange`] | how Salesforce is reached: connections, timeouts, what may be sent again, when it is left alone |
//! | `store`, [`seal`] | what replicas share: Redis, asked in the background only, and how what lies there is sealed; the rules stand with what they share (`admission::bank::shared`, `admission::slots::share`, `answers::shared`, `exchange::vault::common`), the loops in `gateway::sharing` |
//! | [`telemetry`] | reads outcomes: metrics, access log, events |
//! | [`admin`] | the second listener, for operators |
//! | [`config`], [`live`] | what was written, what it means, and what is in force now |
//! | [`gateway`], [`cli`] | the running process and its commands |
//! | `sim` | a small Salesforce that is honest about limits; shares no code with the rest |
//!
//! # Invariants
//!
//! - A message is sent to Salesforce twice only if it provably was not sent the first time.
//! - A call that was sent is not cancelled because its caller left; it is settled and counted once.
//! - What Salesforce charges is counted in one place, the [`outcome::Exchange`] of an attempt.
//! - A kept answer is given only to the principal it was fetched for, and never after a write that may have changed it.
//! - No request waits for the store that replicas share, but one whose lease ran empty, one that waits for a place for long
//!   calls, and one that needs a log-in.
//! - Every queue, buffer and wait has a bound in the configuration.
//! - Tokens, bodies, SOQL literals and record ids reach no log, metric, error or `Debug`.
//! - `salesforce` knows only `call`; `exchange` knows neither `edge` nor `telemetry`; `sim` knows nothing of ours. A test
//!   (`tests/arrows.rs`) reads the imports.
//! - Clocks are read in [`clock`] only, tasks are spawned in [`tasks`] only, the environment is read in [`config`] only.

pub mod admin;
pub mod admission;
pub mod answers;
pub mod body;
pub mod call;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edge;
pub mod exchange;
pub mod gateway;
pub mod hold;
pub mod http1;
pub mod ledgers;
pub mod live;
pub mod outcome;
pub mod per_thread;
pub mod refusal;
pub mod salesforce;
pub mod seal;
#[cfg(feature = "demo")]
pub mod sim;
pub mod stack;
pub mod stages;
#[cfg(feature = "redis")]
pub mod store;
pub mod tasks;
pub mod telemetry;
pub mod written;
