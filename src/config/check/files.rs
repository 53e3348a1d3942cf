//! Files and secrets that the configuration refers to: they must be there and be what they are said to be.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::{At, Check};
use crate::config::model::KeyPair;
use crate::config::problem::Fault;
use crate::config::secret::{Secret, SecretRef};
use crate::config::value::{Phrase, Text};

impl Check<'_> {
    /// Resolves a secret. Its text never enters a problem.
    pub(super) fn secret(&mut self, at: &At, reference: &SecretRef) -> Option<Secret> {
        let text = match reference {
            SecretRef::Env(name) => {
                let Some(value) = self.outside.variable(name) else {
                    self.wrong(at, Fault::new(format!("{reference} is not set, or no UTF-8")));
                    return None;
                };
                Zeroizing::new(value)
            }
            SecretRef::File(path) => {
                let path = self.base.join(path);
                let bytes = self.file(at, &path)?;
                let Ok(text) = std::str::from_utf8(&bytes) else {
                    self.wrong(at, Fault::new(format!("{} is not UTF-8", path.display())));
                    return None;
                };
                Zeroizing::new(text.strip_suffix('\n').map_or(text, |line| line.trim_end_matches('\r')).to_owned())
            }
        };
        if text.is_empty() {
            self.wrong(at, Fault::new(format!("{reference} is empty")));
            return None;
        }
        Some(Secret::new(text.as_str().to_owned()))
    }

    /// Reads a file and remembers that this configuration depends on it.
    pub(super) fn file(&mut self, at: &At, path: &Path) -> Option<Zeroizing<Vec<u8>>> {
        self.referenced.push(path.to_owned());
        match self.outside.read(path) {
            Ok(bytes) => Some(Zeroizing::new(bytes)),
            Err(error) => {
                let fault = Fault::new(format!("cannot read {}: {error}", path.display()));
                self.wrong(at, fault.hint("paths are relative to the configuration's directory"));
                None
            }
        }
    }

    /// A PEM file with at least one certificate.
    pub(super) fn certificates(&mut self, at: &At, written: &Text<Phrase>) -> PathBuf {
        let path = self.path(written);
        if let Some(pem) = self.file(at, &path) {
            let mut certificates = CertificateDer::pem_slice_iter(&pem);
            if !matches!(certificates.next(), Some(Ok(_))) || certificates.any(|next| next.is_err()) {
                let fault = Fault::new(format!("{} holds no PEM certificate, or a damaged one", path.display()));
                self.wrong(at, fault.hint("it begins with -----BEGIN CERTIFICATE-----"));
            }
        }
        path
    }

    /// A PEM file with a private key.
    fn private_key(&mut self, at: &At, written: &Text<Phrase>) -> PathBuf {
        let path = self.path(written);
        if let Some(pem) = self.file(at, &path)
            && PrivateKeyDer::from_pem_slice(&pem).is_err()
        {
            let fault = Fault::new(format!("{} holds no PEM private key", path.display()));
            self.wrong(at, fault.hint("it begins with -----BEGIN PRIVATE KEY----- and is not encrypted"));
        }
        path
    }

    /// A certificate and its key, both of which must be given.
    pub(super) fn key_pair(
        &mut self,
        at: &At,
        certificate: Option<&Text<Phrase>>,
        key: Option<&Text<Phrase>>,
    ) -> Option<KeyPair> {
        if certificate.is_none() {
            self.missing(&at.key("certificate"), "name the PEM file of the certificate chain");
        }
        if key.is_none() {
            self.missing(&at.key("key"), "name the PEM file of the private key");
        }
        let certificate = certificate.map(|written| self.certificates(&at.key("certificate"), written));
        let key = key.map(|written| self.private_key(&at.key("key"), written));
        Some(KeyPair { certificate: certificate?, key: key? })
    }
}
