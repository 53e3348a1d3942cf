//! A throw-away certificate authority and a certificate for loopback, made anew for each demo.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;

/// The authority of this demo.
pub struct Authority {
    /// Its certificate as a PEM file.
    pub path: PathBuf,
    /// The same, for the demo's own apps.
    pub roots: RootCertStore,
}

/// Writes `ca.pem`, `tls.crt` and `tls.key` into `folder`.
pub fn write(folder: &Path) -> Result<Authority, String> {
    let failed = |error: rcgen::Error| format!("cannot make a certificate: {error}");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.distinguished_name.push(DnType::CommonName, "Weirkeeper demo");
    let ca_key = KeyPair::generate().map_err(failed)?;
    let ca_certificate = ca.self_signed(&ca_key).map_err(failed)?;
    let issuer = Issuer::new(ca, ca_key);

    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = CertificateParams::new(names).map_err(failed)?.signed_by(&key, &issuer).map_err(failed)?;

    let path = folder.join("ca.pem");
    for (file, text) in [
        (path.clone(), ca_certificate.pem()),
        (folder.join("tls.crt"), certificate.pem()),
        (folder.join("tls.key"), key.serialize_pem()),
    ] {
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))?;
    }
    let mut roots = RootCertStore::empty();
    roots.add(ca_certificate.der().clone()).map_err(|error| error.to_string())?;
    Ok(Authority { path, roots })
}
