//! The facade of Salesforce's log-in, for orgs whose identities the gateway holds.
//!
//! An app logs in here with its gateway key, by OAuth or SOAP, and gets a gateway token; wherever a Salesforce session may
//! stand, that token or the key itself is accepted. Salesforce's own tokens never leave the vault.
//!
//! ```text
//! token.rs      gateway tokens: sealed, stateless, valid on every replica with the same keys
//! attempts.rs   how often a source may fail to log in, and a caller may log in
//! grant.rs      /services/oauth2/token: which grant, which proof; OAuth's errors
//! envelope.rs   SOAP login: user name and password, and the answer
//! revoked.rs    tokens that were given back before their time
//! through.rs    orgs without identities: which log-ins go to the org's login host
//! ```
//!
//! Everything here is pure; [`crate::stages::facade`] does the waiting.

pub mod attempts;
pub mod envelope;
pub mod grant;
pub mod revoked;
pub mod through;
pub mod token;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use self::attempts::Attempts;
use self::revoked::Revoked;

/// One org's facade: what it has to remember, across reloads.
#[derive(Debug, Default)]
pub struct Facade {
    /// Who tried to log in lately.
    pub attempts: Mutex<Attempts>,
    /// Tokens given back.
    pub revoked: Revoked,
    /// Log-ins that were granted.
    pub granted: AtomicU64,
    /// Log-ins with a proof that proves nothing.
    pub denied: AtomicU64,
    /// Log-ins refused because there were too many.
    pub limited: AtomicU64,
}

/// One org's facade at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct FacadeSnapshot {
    /// The org's name.
    pub org: String,
    /// Log-ins granted since the start.
    pub logins_granted: u64,
    /// Log-ins with a wrong key, password or assertion since the start.
    pub logins_denied: u64,
    /// Log-ins refused because there were too many, since the start.
    pub logins_limited: u64,
}

impl Facade {
    /// The figures, for the org called `org`.
    pub fn snapshot(&self, org: &str) -> FacadeSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FacadeSnapshot {
            org: org.to_owned(),
            logins_granted: read(&self.granted),
            logins_denied: read(&self.denied),
            logins_limited: read(&self.limited),
        }
    }
}
