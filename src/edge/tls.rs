//! TLS towards callers: certificates from PEM files, reloaded while running, and what a client's certificate says.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, crypto};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use crate::edge::connection::{Connection, PeerCertificate};

/// No certificate or key file is larger.
const FILE_BYTES: u64 = 4 * 1024 * 1024;

/// Where a listener's certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM (PKCS #8, PKCS #1 or SEC 1).
    pub key: PathBuf,
    /// Whether callers show certificates, too.
    pub clients: ClientCertificates,
}

/// Whether callers show certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are not asked.
    NotAsked,
    /// One that is shown must be from these authorities (PEM).
    Optional(PathBuf),
    /// Each caller must show one from these authorities (PEM).
    Required(PathBuf),
}

/// Why a listener cannot speak TLS. Names the file and the reason; never shows what is in a key file.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {reason}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        reason: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
}

/// The TLS side of one listener.
#[derive(Debug)]
pub struct Tls {
    loaded: ArcSwap<Loaded>,
}

/// What was made of a listener's files.
#[derive(Debug)]
pub struct Loaded {
    files: TlsFiles,
    config: Arc<ServerConfig>,
    not_after: SystemTime,
    content: [u8; 32],
}

impl Tls {
    /// Loads the files.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        Ok(Self { loaded: ArcSwap::from_pointee(Loaded::from_files(files)?) })
    }

    /// Reads `files`, which may be other ones than before; `None` if they say what is in force already. Changes nothing.
    pub fn fresh(&self, files: TlsFiles) -> Result<Option<Loaded>, TlsError> {
        let fresh = Loaded::from_files(files)?;
        let present = self.loaded.load();
        let same = fresh.content == present.content && fresh.files == present.files;
        Ok((!same).then_some(fresh))
    }

    /// Puts what [`Self::fresh`] has read in force. Connections that are open keep what they were opened with.
    pub fn put(&self, fresh: Loaded) {
        self.loaded.store(Arc::new(fresh));
    }

    /// The files in force.
    pub fn files(&self) -> TlsFiles {
        self.loaded.load().files.clone()
    }

    /// When the certificate in force expires.
    pub fn not_after(&self) -> SystemTime {
        self.loaded.load().not_after
    }

    /// Shakes hands on `io`, and completes the facts of `connection`. The caller bounds the time.
    pub async fn accept<IO>(&self, io: IO, connection: Connection) -> io::Result<(TlsStream<IO>, Connection)>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let config = Arc::clone(&self.loaded.load().config);
        let stream = TlsAcceptor::from(config).accept(io).await?;
        let (_, session) = stream.get_ref();
        let certificate = match session.peer_certificates().and_then(<[_]>::first) {
            Some(shown) => Some(facts_of(shown).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "the client's certificate cannot be read")
            })?),
            None => None,
        };
        let http2 = session.alpn_protocol() == Some(b"h2");
        let connection = connection.secured(certificate);
        Ok((stream, if http2 { connection.speaking_http2() } else { connection }))
    }
}

impl Loaded {
    /// The file of the certificate.
    pub fn certificate(&self) -> &Path {
        &self.files.certificate
    }

    fn from_files(files: TlsFiles) -> Result<Self, TlsError> {
        let mut content = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        let mut read = |path: &Path| -> Result<Zeroizing<Vec<u8>>, TlsError> {
            let bytes = read_file(path)?;
            content.update(&(bytes.len() as u64).to_be_bytes());
            content.update(&bytes);
            Ok(bytes)
        };
        let chain = certificates(&files.certificate, &read(&files.certificate)?)?;
        let not_after = chain
            .first()
            .and_then(|leaf| expiry_of(leaf))
            .ok_or_else(|| content_error(&files.certificate, "the first certificate cannot be read"))?;
        let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?)
            .map_err(|reason| content_error(&files.key, &format!("no private key in PEM form: {reason}")))?;
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let verifier = match &files.clients {
            ClientCertificates::NotAsked => WebPkiClientVerifier::no_client_auth(),
            ClientCertificates::Optional(path) | ClientCertificates::Required(path) => {
                let roots = roots(path, &read(path)?)?;
                let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
                let builder = match &files.clients {
                    ClientCertificates::Optional(_) => builder.allow_unauthenticated(),
                    _ => builder,
                };
                builder.build().map_err(|reason| content_error(path, &reason.to_string()))?
            }
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|reason| content_error(&files.certificate, &reason.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|reason| {
                let both = format!("the certificate and the key in {} do not fit: {reason}", files.key.display());
                content_error(&files.certificate, &both)
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Tickets keep no state here, and end with a reload: a client whose authority was taken out cannot resume.
        if let Ok(ticketer) = crypto::aws_lc_rs::Ticketer::new() {
            config.ticketer = ticketer;
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(content.finish().as_ref());
        Ok(Self { files, config: Arc::new(config), not_after, content: digest })
    }
}

fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let failed = |reason| TlsError::Read { path: path.to_owned(), reason };
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut bytes)).map_err(failed)?;
    Ok(bytes)
}

fn content_error(path: &Path, reason: &str) -> TlsError {
    TlsError::Content { path: path.to_owned(), reason: reason.to_owned() }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(content_error(path, "no certificate in PEM form")),
        Ok(chain) => Ok(chain),
        Err(reason) => Err(content_error(path, &format!("not a certificate in PEM form: {reason}"))),
    }
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(path, pem)? {
        roots.add(authority).map_err(|reason| content_error(path, &format!("not usable as an authority: {reason}")))?;
    }
    Ok(roots)
}

fn expiry_of(der: &[u8]) -> Option<SystemTime> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let seconds = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// What a verified certificate says about who shows it.
fn facts_of(der: &CertificateDer<'_>) -> Option<PeerCertificate> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    let common_name =
        certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok()).map(str::to_owned);
    let mut facts = PeerCertificate { common_name, ..PeerCertificate::default() };
    facts.fingerprint.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der).as_ref());
    if let Ok(Some(names)) = certificate.subject_alternative_name() {
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => facts.dns_names.push((*name).to_owned()),
                GeneralName::URI(uri) => facts.uris.push((*uri).to_owned()),
                _ => {}
            }
        }
    }
    Some(facts)
}

#[cfg(feature = "demo")]
#[cfg(test)]
mod tests;
