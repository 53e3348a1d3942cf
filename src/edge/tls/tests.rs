//! Handshakes in memory, with certificates made for the purpose.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

use super::*;
use crate::edge::serve::rig::{Rig, refusal_in};

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

struct Leaf {
    pem: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    fn issue(&self, common_name: &str) -> Leaf {
        let mut params = CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names.push(SanType::URI("spiffe://acme/billing".try_into().unwrap()));
        let key = KeyPair::generate().unwrap();
        Leaf { pem: params.signed_by(&key, &self.issuer).unwrap().pem(), key: key.serialize_pem() }
    }
}

struct Files {
    dir: TempDir,
}

impl Files {
    fn new(leaf: &Leaf) -> Self {
        let files = Self { dir: TempDir::new().unwrap() };
        files.write(leaf);
        files
    }

    fn write(&self, leaf: &Leaf) {
        std::fs::write(self.path("tls.crt"), &leaf.pem).unwrap();
        std::fs::write(self.path("tls.key"), &leaf.key).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, clients: ClientCertificates) -> TlsFiles {
        TlsFiles { certificate: self.path("tls.crt"), key: self.path("tls.key"), clients }
    }
}

fn client(authority: &Authority, alpn: &[&[u8]], own: Option<&Leaf>) -> TlsConnector {
    let provider = Arc::new(crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(leaf) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(leaf.pem.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

/// Shakes hands and sends one request; what the gateway knows of the caller, and the answer.
async fn ask(tls: &Tls, connector: TlsConnector, request: &str) -> io::Result<(Connection, String)> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connecting = async {
        let mut stream = connector.connect(ServerName::try_from("gateway.test").unwrap(), near).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        Ok::<_, io::Error>(stream)
    };
    let accepting = tls.accept(far, Connection::new(([192, 0, 2, 1], 1).into(), 0));
    let (client, server) = tokio::join!(connecting, accepting);
    let (server, connection) = server?;
    let mut client = client?;
    let rig = Rig::new();
    let facts = Connection::new(connection.peer, 0).secured(connection.certificate.clone());
    let facts = if connection.http2() { facts.speaking_http2() } else { facts };
    rig.edge.tasks.spawn(crate::edge::serve(server, Arc::new(connection), rig.road.clone(), Arc::clone(&rig.edge)));
    let mut answer = Vec::new();
    if !facts.http2() {
        client.read_to_end(&mut answer).await?;
    }
    Ok((facts, String::from_utf8_lossy(&answer).into_owned()))
}

const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn requests_over_tls_are_answered_and_protocols_agreed_on() {
    let authority = Authority::new("root");
    let files = Files::new(&authority.issue("gateway"));
    let tls = Tls::load(files.config(ClientCertificates::NotAsked)).unwrap();
    let (facts, answer) = ask(&tls, client(&authority, &[], None), LAST).await.unwrap();
    assert!(facts.secure && facts.certificate.is_none() && !facts.http2());
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{answer}");
    let (facts, _) = ask(&tls, client(&authority, &[b"h2", b"http/1.1"], None), "").await.unwrap();
    assert!(facts.http2());
    let (_, answer) = ask(&tls, client(&authority, &[b"http/1.1"], None), "GET / HTTP/1.1\r\n\r\n").await.unwrap();
    refusal_in(&answer, 400, "malformed_request");
    let (_, answer) =
        ask(&tls, client(&authority, &[b"http/1.1"], None), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    refusal_in(&answer, 400, "malformed_request");
}

#[tokio::test]
async fn the_facts_of_a_client_certificate_are_known() {
    let authority = Authority::new("root");
    let clients = Authority::new("clients");
    let files = Files::new(&authority.issue("gateway"));
    std::fs::write(files.path("ca.crt"), &clients.pem).unwrap();
    let tls = Tls::load(files.config(ClientCertificates::Required(files.path("ca.crt")))).unwrap();
    let own = clients.issue("billing");
    let (facts, _) = ask(&tls, client(&authority, &[], Some(&own)), LAST).await.unwrap();
    let certificate = facts.certificate.unwrap();
    assert_eq!(certificate.common_name.as_deref(), Some("billing"));
    assert_eq!(certificate.dns_names, ["gateway.test"]);
    assert_eq!(certificate.uris, ["spiffe://acme/billing"]);
    assert_ne!(certificate.fingerprint, [0; 32]);
    assert!(ask(&tls, client(&authority, &[], None), LAST).await.is_err(), "one must be shown");
    let stranger = Authority::new("strangers").issue("billing");
    assert!(ask(&tls, client(&authority, &[], Some(&stranger)), LAST).await.is_err(), "of that authority");
    let optional = Tls::load(files.config(ClientCertificates::Optional(files.path("ca.crt")))).unwrap();
    let (facts, _) = ask(&optional, client(&authority, &[], None), LAST).await.unwrap();
    assert!(facts.certificate.is_none());
    assert!(
        ask(&optional, client(&authority, &[], Some(&stranger)), LAST).await.is_err(),
        "if shown, of that authority"
    );
}

#[tokio::test]
async fn new_files_are_taken_and_bad_ones_change_nothing() {
    let first = Authority::new("first");
    let second = Authority::new("second");
    let files = Files::new(&first.issue("gateway"));
    let tls = Tls::load(files.config(ClientCertificates::NotAsked)).unwrap();
    let reload = || tls.fresh(tls.files()).map(|fresh| fresh.map(|fresh| tls.put(fresh)).is_some());
    assert!(!reload().unwrap(), "nothing changed");
    files.write(&second.issue("gateway"));
    assert!(ask(&tls, client(&first, &[], None), LAST).await.is_ok(), "not before a reload");
    assert!(reload().unwrap());
    assert!(ask(&tls, client(&second, &[], None), LAST).await.is_ok());
    assert!(ask(&tls, client(&first, &[], None), LAST).await.is_err());
    std::fs::write(files.path("tls.crt"), "not a certificate").unwrap();
    let error = reload().unwrap_err().to_string();
    assert!(error.contains("tls.crt") && error.contains("no certificate in PEM form"), "{error}");
    assert!(ask(&tls, client(&second, &[], None), LAST).await.is_ok(), "the old one stays");
    let elsewhere = Files::new(&first.issue("gateway"));
    let moved = tls.fresh(elsewhere.config(ClientCertificates::NotAsked)).unwrap();
    tls.put(moved.expect("other files"));
    assert!(ask(&tls, client(&first, &[], None), LAST).await.is_ok(), "files may be named anew");
}

#[test]
fn errors_name_the_file_and_the_reason_and_no_key() {
    let authority = Authority::new("root");
    let leaf = authority.issue("gateway");
    let files = Files::new(&leaf);
    let load = || Tls::load(files.config(ClientCertificates::NotAsked)).unwrap_err().to_string();
    std::fs::write(files.path("tls.key"), authority.issue("other").key).unwrap();
    let error = load();
    assert!(error.contains("tls.crt") && error.contains("tls.key") && error.contains("do not fit"), "{error}");
    std::fs::write(files.path("tls.key"), "canary").unwrap();
    let error = load();
    assert!(error.contains("tls.key") && error.contains("no private key") && !error.contains("canary"), "{error}");
    std::fs::remove_file(files.path("tls.key")).unwrap();
    let error = load();
    assert!(error.contains("tls.key") && error.contains("No such file"), "{error}");
    files.write(&leaf);
    let error = Tls::load(files.config(ClientCertificates::Required(files.path("ca.crt")))).unwrap_err().to_string();
    assert!(error.contains("ca.crt"), "{error}");
}

#[test]
fn the_expiry_of_a_certificate_is_known() {
    let authority = Authority::new("root");
    let mut params = CertificateParams::new(vec!["gateway.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let key = KeyPair::generate().unwrap();
    let leaf = Leaf { pem: params.signed_by(&key, &authority.issuer).unwrap().pem(), key: key.serialize_pem() };
    let files = Files::new(&leaf);
    let tls = Tls::load(files.config(ClientCertificates::NotAsked)).unwrap();
    assert_eq!(tls.not_after().duration_since(UNIX_EPOCH).unwrap().as_secs(), 1_893_456_000);
}
