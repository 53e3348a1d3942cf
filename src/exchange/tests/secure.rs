//! TLS and the egress proxy: who is trusted, and what is said when it fails.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::exchange::{Cause, ClientIdentity, Proxy, Roots, Sent, TlsSettings};

pub(super) type Issuer = CertifiedIssuer<'static, KeyPair>;

pub(super) fn authority(name: &str) -> Issuer {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate of `name`, signed by `issuer`, good until `until` (year), and its key.
fn leaf(issuer: &Issuer, name: &str, until: i32) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2000, 1, 1);
    params.not_after = rcgen::date_time_ymd(until, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    (vec![certificate.der().clone()], key)
}

/// A server of `name`, with such a certificate.
pub(super) fn server(issuer: &Issuer, name: &str, until: i32) -> Arc<ServerConfig> {
    let (chain, key) = leaf(issuer, name, until);
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    Arc::new(config)
}

pub(super) fn world(server: Arc<ServerConfig>, roots: Vec<CertificateDer<'static>>, http2: bool) -> World {
    let tls = TlsSettings { roots: Roots::Bundled, extra_roots: roots, http2, identity: None }.build().unwrap();
    World::at(
        "https://acme.test",
        Limits::default(),
        |connector| connector.with_tls(tls),
        move |_, io| {
            let acceptor = TlsAcceptor::from(Arc::clone(&server));
            async move {
                let Ok(mut io) = acceptor.accept(io).await else { return };
                let mut head = [0; 1_024];
                while io.read(&mut head).await.is_ok_and(|read| read > 0) {
                    io.write_all(OK).await.unwrap();
                    io.flush().await.unwrap();
                }
            }
        },
    )
}

async fn refused(world: &World) -> String {
    let record = world.record();
    let failure = world.send(post("{}"), &record).await.unwrap_err();
    assert_eq!((failure.cause, failure.sent), (Cause::Tls, Sent::Nothing));
    assert!(failure.detail.contains("acme.test"), "{}", failure.detail);
    assert!(attempts(&record).is_empty());
    assert_eq!(world.stats().connects.tls, 1);
    world.assert_settled().await;
    failure.detail.into()
}

#[tokio::test(start_paused = true)]
async fn a_trusted_server_is_spoken_to() {
    let issuer = authority("Trusted");
    let world = world(server(&issuer, "acme.test", 2999), vec![issuer.der().clone()], false);
    for _ in 0..3 {
        assert_eq!(world.get().await.unwrap(), (200, Some(Bytes::from_static(b"ok"))));
    }
    assert_eq!(world.connections(), 1);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_says_goodbye_and_a_busy_one_is_cut() {
    let issuer = authority("Trusted");
    let roots = vec![issuer.der().clone()];
    let tls = TlsSettings { roots: Roots::Bundled, extra_roots: roots, http2: false, identity: None }.build().unwrap();
    let server = server(&issuer, "acme.test", 2999);
    let (ended, mut ends) = mpsc::unbounded_channel();
    let world = World::at(
        "https://acme.test",
        Limits::default(),
        |connector| connector.with_tls(tls),
        move |number, io| {
            let (acceptor, ended) = (TlsAcceptor::from(Arc::clone(&server)), ended.clone());
            async move {
                let mut io = acceptor.accept(io).await.unwrap();
                let mut head = [0; 1_024];
                let end = loop {
                    match io.read(&mut head).await {
                        Ok(0) => break Ok(()),
                        Ok(_) if number == 0 => io.write_all(OK).await.unwrap(),
                        Ok(_) => {}
                        Err(error) => break Err(error.kind()),
                    }
                };
                ended.send(end).unwrap();
            }
        },
    );
    world.get().await.unwrap();
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(ends.recv().await.unwrap(), Ok(()));
    let plan = Plan { long_poll: true, ..world.plan() };
    let record = world.record();
    let leaving = tokio::time::timeout(Duration::from_secs(1), world.upstream.send(get(), &plan, &record));
    assert!(leaving.await.is_err());
    assert_eq!(ends.recv().await.unwrap(), Err(io::ErrorKind::UnexpectedEof));
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_untrusted_expired_or_misnamed_server_is_not() {
    let issuer = authority("Trusted");
    let trusted = vec![issuer.der().clone()];
    let untrusted = refused(&world(server(&authority("Unknown"), "acme.test", 2999), trusted.clone(), false)).await;
    assert!(untrusted.contains("not signed by a trusted authority"), "{untrusted}");
    let expired = refused(&world(server(&issuer, "acme.test", 2001), trusted.clone(), false)).await;
    assert!(expired.contains("has expired"), "{expired}");
    let misnamed = refused(&world(server(&issuer, "other.test", 2999), trusted, false)).await;
    assert!(misnamed.contains("for another name") && misnamed.contains("other.test"), "{misnamed}");
}

#[tokio::test(start_paused = true)]
async fn a_server_without_tls_is_named_as_such() {
    let tls = TlsSettings { roots: Roots::Bundled, ..TlsSettings::default() }.build().unwrap();
    let plain = World::at(
        "https://acme.test",
        Limits::default(),
        |connector| connector.with_tls(tls),
        |_, mut io| async move {
            let _ = io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        },
    );
    let detail = refused(&plain).await;
    assert!(detail.contains("does not speak TLS"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let issuer = authority("Trusted");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut clients = rustls::RootCertStore::empty();
    clients.add(issuer.der().clone()).unwrap();
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(clients), Arc::clone(&provider))
            .build()
            .unwrap();
    let (chain, key) = leaf(&issuer, "acme.test", 2999);
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    for shown in [true, false] {
        let identity = shown.then(|| {
            let (chain, key) = leaf(&issuer, "gateway.test", 2999);
            ClientIdentity { chain, key }
        });
        let extra_roots = vec![issuer.der().clone()];
        let tls = TlsSettings { roots: Roots::Bundled, extra_roots, identity, http2: false }.build().unwrap();
        let config = Arc::clone(&config);
        let world = World::at(
            "https://acme.test",
            Limits::default(),
            |connector| connector.with_tls(tls),
            move |_, io| {
                let acceptor = TlsAcceptor::from(Arc::clone(&config));
                async move {
                    let Ok(mut io) = acceptor.accept(io).await else { return };
                    let mut head = [0; 1_024];
                    let _ = io.read(&mut head).await;
                    let _ = io.write_all(OK).await;
                }
            },
        );
        let record = world.record();
        let answer = world.send(post("{}"), &record).await;
        if shown {
            assert!(answer.is_ok());
        } else {
            // With TLS 1.3 the client learns of the refusal only after its handshake, with the request on its way.
            let failure = answer.unwrap_err();
            assert_eq!((failure.cause, failure.sent), (Cause::Tls, Sent::Nothing));
            assert!(
                failure.detail.contains("acme.test") && failure.detail.contains("client certificate"),
                "{failure:?}"
            );
            assert!(attempts(&record).is_empty(), "nothing is charged");
            assert_eq!(world.stats().connects.tls, 1);
        }
        world.assert_settled().await;
    }
}

fn through_proxy(answer: &'static [u8]) -> (World, mpsc::UnboundedReceiver<String>) {
    let (asked, seen) = mpsc::unbounded_channel();
    let proxy = Proxy::new("egress.test", 3128, Some("svc:canary-secret"));
    let world = World::at("http://acme.test", Limits::default(), |connector| connector.with_proxy(Some(proxy)), {
        move |_, mut io| {
            let asked = asked.clone();
            async move {
                let head = read_request(&mut io).await.unwrap();
                asked.send(String::from_utf8(head).unwrap()).unwrap();
                io.write_all(answer).await.unwrap();
                answer_all(io, OK).await;
            }
        }
    });
    (world, seen)
}

#[tokio::test(start_paused = true)]
async fn a_proxy_is_asked_for_a_tunnel_once() {
    let (world, mut seen) = through_proxy(b"HTTP/1.1 200 Connection established\r\n\r\n");
    for _ in 0..2 {
        assert_eq!(world.get().await.unwrap().0, 200);
    }
    let head = seen.recv().await.unwrap();
    assert!(head.starts_with("CONNECT acme.test:80 HTTP/1.1\r\nHost: acme.test:80\r\n"), "{head}");
    assert!(head.contains("Proxy-Authorization: Basic c3ZjOmNhbmFyeS1zZWNyZXQ=\r\n"));
    assert_eq!(world.connections(), 1);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_refuses_is_named_with_its_status_and_never_with_its_password() {
    for (answer, words) in [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n".as_slice(), "status 407"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "status 403"),
        (b"220 smtp.test ready\r\n\r\n", "is no HTTP proxy"),
    ] {
        let (world, _seen) = through_proxy(answer);
        let failure = world.get().await.unwrap_err();
        assert_eq!((failure.cause, failure.sent), (Cause::Proxy, Sent::Nothing));
        assert!(failure.detail.contains(words) && failure.detail.contains("egress.test:3128"), "{}", failure.detail);
        assert!(!format!("{failure:?}").contains("canary"));
        assert_eq!(world.stats().connects.proxy, 1);
        world.assert_settled().await;
    }
}
