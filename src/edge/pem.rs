//! Certificates and keys from PEM files, with errors that name the file.

use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// All certificates in the file at `path`, at least one.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(certificates) if certificates.is_empty() => Err(format!("{}: holds no certificate", path.display())),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The first private key in the file at `path`.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    // The error of the parser says what is wrong with the form; it never quotes the key.
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| format!("{}: no private key can be read: {error}", path.display()))
}
