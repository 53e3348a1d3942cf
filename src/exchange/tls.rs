//! TLS towards Salesforce: whom we trust, who we are, and why a handshake failed.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use thiserror::Error;

/// Which certificate authorities are trusted before any extra ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Roots {
    /// Those of the operating system.
    #[default]
    Platform,
    /// Mozilla's list, built in, for images without a system store.
    Bundled,
}

/// A certificate we show to Salesforce, with its chain and key.
pub struct ClientIdentity {
    /// The certificate, then its issuers.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientIdentity({} certificates)", self.chain.len())
    }
}

/// How TLS is made.
#[derive(Debug, Default)]
pub struct TlsSettings {
    /// Trusted authorities.
    pub roots: Roots,
    /// Authorities trusted besides these (an inspecting proxy's, a test's).
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// A client certificate, if Salesforce asks for one.
    pub identity: Option<ClientIdentity>,
    /// Offer HTTP/2 as well.
    pub http2: bool,
}

/// Why TLS cannot be set up as configured.
#[derive(Debug, Error)]
pub enum TlsSetupError {
    /// The roots cannot be used.
    #[error("the trusted roots cannot be used: {0}")]
    Roots(rustls::Error),
    /// The client certificate and its key cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    Identity(rustls::Error),
    /// No TLS version is possible.
    #[error("TLS cannot be set up: {0}")]
    Protocol(rustls::Error),
}

impl TlsSettings {
    /// The configuration all connections share.
    pub fn build(self) -> Result<Arc<ClientConfig>, TlsSetupError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(TlsSetupError::Protocol)?;
        let builder = match self.roots {
            Roots::Platform => {
                let verifier = platform(self.extra_roots, provider).map_err(TlsSetupError::Roots)?;
                builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
            }
            Roots::Bundled => {
                let mut store = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
                for root in self.extra_roots {
                    store.add(root).map_err(TlsSetupError::Roots)?;
                }
                builder.with_root_certificates(store)
            }
        };
        let mut config = match self.identity {
            Some(ClientIdentity { chain, key }) => {
                builder.with_client_auth_cert(chain, key).map_err(TlsSetupError::Identity)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols =
            if self.http2 { vec![b"h2".to_vec(), b"http/1.1".to_vec()] } else { vec![b"http/1.1".to_vec()] };
        Ok(Arc::new(config))
    }
}

fn platform(extra: Vec<CertificateDer<'static>>, provider: Arc<CryptoProvider>) -> Result<Verifier, rustls::Error> {
    if extra.is_empty() { Verifier::new(provider) } else { Verifier::new_with_extra_roots(extra, provider) }
}

/// Whether the other side did not accept who we are. With TLS 1.3 it says so when our side of the handshake is over and
/// the first request on its way, which it then has not read: its own side of the handshake never ended.
pub(super) fn refused_us(error: &io::Error) -> bool {
    use AlertDescription as Alert;
    matches!(
        error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()),
        Some(rustls::Error::AlertReceived(
            Alert::AccessDenied
                | Alert::BadCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRequired
                | Alert::CertificateRevoked
                | Alert::CertificateUnknown
                | Alert::HandshakeFailure
                | Alert::UnknownCA
                | Alert::UnsupportedCertificate
        ))
    )
}

/// Why a handshake failed, as the end of a sentence about the host.
pub(super) fn reason(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(fault)) => certificate(fault),
        Some(rustls::Error::AlertReceived(alert)) => {
            format!("it refused the handshake ({alert:?}); a client certificate may be missing or not accepted")
        }
        Some(rustls::Error::InvalidMessage(_)) => "what answers there does not speak TLS".to_owned(),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection was closed during the handshake".to_owned()
        }
        None => format!("the connection broke during the handshake ({})", error.kind()),
    }
}

fn certificate(fault: &CertificateError) -> String {
    match fault {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired (or this machine's clock is wrong)".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet (or this machine's clock is wrong)".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "its certificate is not signed by a trusted authority; if a proxy inspects TLS, add its root as upstream.ca"
                .to_owned()
        }
        CertificateError::NotValidForName => "its certificate is for another name".to_owned(),
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!(
                "its certificate is for another name ({})",
                presented.iter().take(3).cloned().collect::<Vec<_>>().join(", ")
            )
        }
        CertificateError::Revoked => "its certificate has been revoked".to_owned(),
        other => format!("its certificate is not accepted ({other})"),
    }
}
