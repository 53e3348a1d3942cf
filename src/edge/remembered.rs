//! What a connection remembers of the requests it has carried.

use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use crate::call::{OrgId, Principal};
use crate::edge::callers::Proof;

/// What a connection remembers of the requests it has carried, so that the same proof and the same credential are not
/// hashed again for each. Bytes are copied: a header value would keep the whole read buffer alive.
#[derive(Default)]
pub struct Remembered {
    host: Option<RememberedHost>,
    proof: Option<RememberedProof>,
    principal: Option<RememberedPrincipal>,
}

struct RememberedHost {
    shown: Box<[u8]>,
    generation: u64,
    org: OrgId,
    name: Arc<str>,
}

struct RememberedProof {
    shown: Zeroizing<Box<[u8]>>,
    generation: u64,
    until: Option<Duration>,
    proof: Proof,
}

struct RememberedPrincipal {
    shown: Zeroizing<Box<[u8]>>,
    generation: u64,
    principal: Principal,
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.principal.as_ref().map(|known| known.principal);
        f.debug_struct("Remembered").field("principal", &known).finish_non_exhaustive()
    }
}

impl Remembered {
    /// The org that the `Host` `shown` means under the configuration of `generation`, and its name in lower case.
    pub fn host(&self, shown: &[u8], generation: u64) -> Option<(OrgId, Arc<str>)> {
        let known = self.host.as_ref()?;
        (known.generation == generation && *known.shown == *shown).then(|| (known.org, Arc::clone(&known.name)))
    }

    /// Keeps what the `Host` `shown` means.
    pub fn remember_host(&mut self, shown: &[u8], generation: u64, org: OrgId, name: Arc<str>) {
        self.host = Some(RememberedHost { shown: shown.into(), generation, org, name });
    }

    /// What `shown` proved under the configuration of `generation`, if that still holds at `wall`.
    pub fn proof(&self, shown: &[u8], generation: u64, wall: Duration) -> Option<Proof> {
        let known = self.proof.as_ref()?;
        let holds = known.generation == generation && known.until.is_none_or(|until| wall < until);
        (holds && same(&known.shown, shown)).then(|| known.proof.clone())
    }

    /// Keeps what `shown` proved.
    pub fn remember_proof(&mut self, shown: &[u8], generation: u64, until: Option<Duration>, proof: Proof) {
        self.proof = Some(RememberedProof { shown: Zeroizing::new(shown.into()), generation, until, proof });
    }

    /// The principal that the credential `shown` meant under the configuration of `generation`.
    pub fn principal(&self, shown: &[u8], generation: u64) -> Option<Principal> {
        let known = self.principal.as_ref()?;
        (known.generation == generation && same(&known.shown, shown)).then_some(known.principal)
    }

    /// Keeps the principal that `shown` means.
    pub fn remember_principal(&mut self, shown: &[u8], generation: u64, principal: Principal) {
        self.principal = Some(RememberedPrincipal { shown: Zeroizing::new(shown.into()), generation, principal });
    }
}

/// Compares secrets in a time that depends on their lengths only.
fn same(one: &[u8], other: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::CallerId;

    #[test]
    fn a_remembered_proof_ends_with_its_configuration_and_its_time() {
        let mut remembered = Remembered::default();
        let proof = Proof::Caller(CallerId(3));
        remembered.remember_proof(b"key", 1, Some(Duration::from_secs(100)), proof.clone());
        assert_eq!(remembered.proof(b"key", 1, Duration::from_secs(99)), Some(proof));
        assert_eq!(remembered.proof(b"key", 1, Duration::from_secs(100)), None, "expired");
        assert_eq!(remembered.proof(b"key", 2, Duration::ZERO), None, "reloaded");
        assert_eq!(remembered.proof(b"kez", 1, Duration::ZERO), None, "another key");
    }

    #[test]
    fn a_host_is_remembered_as_it_was_spelt_and_for_its_configuration() {
        let mut remembered = Remembered::default();
        remembered.remember_host(b"SF.internal:80", 1, OrgId(2), "sf.internal".into());
        assert_eq!(remembered.host(b"SF.internal:80", 1), Some((OrgId(2), "sf.internal".into())));
        assert_eq!(remembered.host(b"sf.internal:80", 1), None);
        assert_eq!(remembered.host(b"SF.internal:80", 2), None, "reloaded");
    }

    #[test]
    fn a_principal_is_remembered_for_its_credential_and_configuration() {
        let mut remembered = Remembered::default();
        remembered.remember_principal(b"Bearer canary", 1, Principal([1; 16]));
        assert_eq!(remembered.principal(b"Bearer canary", 1), Some(Principal([1; 16])));
        assert_eq!(remembered.principal(b"Bearer other", 1), None);
        assert_eq!(remembered.principal(b"Bearer canary", 2), None, "reloaded");
        assert!(!format!("{remembered:?}").contains("canary"));
    }
}
