//! Real sockets, TLS, HTTP/2, and what goes wrong with them.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{config, token};
use crate::sim::tasks::Tasks;
use crate::sim::{Fault, FaultAction, Sim};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: sim\r\nauthorization: OAuth {}\r\nconnection: close\r\n\r\n", token("admin"))
}

#[tokio::test]
async fn a_taken_port_is_named_and_a_freed_one_can_be_taken() {
    let sim = Sim::new(config());
    let first = sim.listen(ANY).await.unwrap();
    let address = first.local_addr;
    let error = sim.listen(address).await.unwrap_err();
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request("/services/data/v62.0/").as_bytes()).await.unwrap();
    let mut seen = String::new();
    stream.read_to_string(&mut seen).await.unwrap();
    assert!(seen.starts_with("HTTP/1.1 200 OK") && seen.contains("\"http://sim/id/00D"), "{seen}");
    first.shutdown();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let sim = Sim::new(config());
    let listening = sim.listen(ANY).await.unwrap();
    let action = FaultAction::Close { apply: false, reset: true };
    sim.script().fault(Fault { action, times: Some(1), ..Fault::default() });
    let mut stream = TcpStream::connect(listening.local_addr).await.unwrap();
    stream.write_all(request("/services/data/v62.0/").as_bytes()).await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn tls_is_spoken() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .unwrap();
    let sim = Sim::new(config());
    let listening = sim.listen_tls(ANY, Arc::new(server)).await.unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let stream = TcpStream::connect(listening.local_addr).await.unwrap();
    let mut stream = connector.connect("localhost".try_into().unwrap(), stream).await.unwrap();
    stream.write_all(request("/services/data/v62.0/").as_bytes()).await.unwrap();
    let mut seen = String::new();
    stream.read_to_string(&mut seen).await.unwrap();
    assert!(seen.contains("https://sim/id/00D"), "{seen}");
}

#[tokio::test(start_paused = true)]
async fn http2_is_understood_with_prior_knowledge() {
    let sim = Sim::new(config());
    let io = TokioIo::new(sim.connect_in_memory());
    let (mut send, connection) =
        hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(Tasks::default(), io).await.unwrap();
    Tasks::default().spawn(async move {
        let _ended = connection.await;
    });
    let ask = |path: &str| {
        Request::get(format!("https://sim.my.salesforce.com{path}"))
            .header("authorization", format!("Bearer {}", token("admin")))
            .body(Full::new(Bytes::new()))
            .unwrap()
    };
    let (first, second) =
        (send.send_request(ask("/services/data/v62.0/limits")), send.clone().send_request(ask("/services/data/")));
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert_eq!((first.status().as_u16(), second.status().as_u16()), (200, 200));
    assert_eq!(first.headers()["sforce-limit-info"], "api-usage=1/100000");
    assert!(!first.into_body().collect().await.unwrap().to_bytes().is_empty());
    assert_eq!(sim.requests()[0].version, "HTTP/2.0");
}

#[tokio::test]
async fn long_blobs_and_uploads_pass_without_being_held() {
    let sim = Sim::new(config());
    let listening = sim.listen(ANY).await.unwrap();
    let mut stream = TcpStream::connect(listening.local_addr).await.unwrap();
    let size = 40 << 20;
    let head = format!(
        "POST /services/apexrest/sink HTTP/1.1\r\nhost: sim\r\nauthorization: Bearer {}\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n",
        token("admin")
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..40 {
        stream.write_all(&piece).await.unwrap();
    }
    let mut seen = String::new();
    stream.read_to_string(&mut seen).await.unwrap();
    assert!(seen.contains(&format!("\"bytes\":{size}")), "{seen}");
}
