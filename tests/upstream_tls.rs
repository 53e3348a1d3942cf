//! Promise: what stands between the gateway and Salesforce is either trusted and used, or named with what is wrong with it.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::oneshot;
use weirkeeper::sim::{Sim, SimConfig};

use crate::blocking::{Answer, ask};
use crate::pki::{Authority, Leaf};
use crate::process::{Gateway, PATIENCE, Setup, bearer, config, free_address, until};

const QUERY: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+LIMIT+1";

/// A simulated Salesforce that speaks TLS, on a thread of its own until dropped.
struct Origin {
    sim: Sim,
    address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Origin {
    /// Shows `leaf`; asks for certificates of `clients`, if they are given.
    fn start(leaf: &Leaf, clients: Option<&Authority>) -> Self {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let (chain, key) = leaf.identity();
        let tls = Arc::new(builder.with_single_cert(chain, key).unwrap());
        let (stop, stopped) = oneshot::channel();
        let (started, starts) = channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let sim = Sim::new(SimConfig::default());
                let listening = sim.listen_tls(SocketAddr::from(([127, 0, 0, 1], 0)), tls).await.unwrap();
                started.send((sim, listening.local_addr)).unwrap();
                // Ends with the test, which drops the other end.
                let _ = stopped.await;
            });
        });
        let (sim, address) = starts.recv_timeout(PATIENCE).unwrap();
        Self { sim, address, _stop: stop }
    }

    /// A gateway in front of it that trusts `authority`; `upstream` are further keys.
    fn gateway(&self, authority: &Authority, upstream: &str, prepare: impl FnOnce(&Setup)) -> Gateway {
        let upstream = format!("upstream: {{ca: ca.pem{upstream}}}\n");
        let setup = Setup::written(&config_for(&format!("https://localhost:{}", self.address.port()), &upstream));
        setup.write("ca.pem", &authority.pem());
        prepare(&setup);
        setup.serve()
    }

    fn charged(&self) -> u64 {
        self.sim.counts().charged
    }
}

fn config_for(instance: &str, more: &str) -> String {
    let placeholder = SocketAddr::from(([127, 0, 0, 1], 1));
    config(placeholder, more).replace("http://127.0.0.1:1", instance)
}

fn unavailable(answer: &Answer, reason: &str, words: &[&str]) {
    let message = answer.refused(502, "SERVER_UNAVAILABLE", reason);
    for words in words {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(answer.header("retry-after").is_some());
}

fn connects(gateway: &Gateway, result: &str) -> u64 {
    gateway.count("weirkeeper_upstream_connects_total", &[&format!("result=\"{result}\"")])
}

#[test]
fn an_origin_of_a_trusted_authority_is_used() {
    let authority = Authority::new("company root");
    let origin = Origin::start(&authority.issue("localhost"), None);
    for roots in ["", ", roots: bundled"] {
        let gateway = origin.gateway(&authority, roots, |_| {});
        let answer = gateway.get(QUERY).unwrap();
        assert_eq!((answer.status, &answer.json()["totalSize"]), (200, &1.into()), "{}", answer.text());
        assert_eq!(gateway.get(QUERY).unwrap().status, 200);
        assert_eq!(connects(&gateway, "ok"), 1, "one connection carries both");
    }
    assert_eq!(origin.charged(), 4);
}

#[test]
fn an_origin_that_cannot_be_trusted_is_named_with_the_reason() {
    let (trusted, unknown) = (Authority::new("company root"), Authority::new("somebody"));
    for (leaf, words) in [
        (unknown.issue("localhost"), "its certificate is not signed by a trusted authority"),
        (trusted.issue_until("localhost", 2001), "its certificate has expired"),
        (trusted.issue("other.internal"), "its certificate is for another name"),
    ] {
        let origin = Origin::start(&leaf, None);
        for roots in ["", ", roots: bundled"] {
            let gateway = origin.gateway(&trusted, roots, |_| {});
            let answer = gateway.get(QUERY).unwrap();
            unavailable(&answer, "upstream_tls", &["No TLS connection to localhost", words]);
            assert_eq!(connects(&gateway, "tls"), 1);
            assert_eq!(gateway.status()["totals"]["api_calls_spent"], 0);
            assert_eq!(gateway.admin("/readyz").unwrap().status, 200, "never because of Salesforce");
        }
        assert_eq!(origin.charged(), 0);
    }
}

#[test]
fn an_origin_without_tls_is_told_from_one_with_a_bad_certificate() {
    let plain = crate::process::Simulator::start();
    let setup = Setup::written(&config_for(&format!("https://localhost:{}", plain.address.port()), ""));
    let gateway = setup.serve();
    unavailable(&gateway.get(QUERY).unwrap(), "upstream_tls", &["localhost", "does not speak TLS"]);
}

#[test]
fn the_gateway_shows_its_certificate_to_an_origin_that_asks() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let origin = Origin::start(&servers.issue("localhost"), Some(&clients));
    let own = clients.issue("gateway.internal");
    let with = origin.gateway(&servers, ", client_certificate: {certificate: own.crt, key: own.key}", |setup| {
        setup.write("own.crt", &own.pem());
        setup.write("own.key", &own.key_pem());
    });
    assert_eq!(with.get(QUERY).unwrap().status, 200);
    assert_eq!(origin.charged(), 1);

    let without = origin.gateway(&servers, "", |_| {});
    let answer = without.get(QUERY).unwrap();
    unavailable(&answer, "upstream_tls", &["localhost", "client certificate"]);
    let path = "/services/data/v62.0/sobjects/Account";
    let body = br#"{"Name": "new"}"#;
    let authorization = bearer();
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let answer = ask(without.address(), "POST", path, &headers, body).unwrap();
    unavailable(&answer, "upstream_tls", &["client certificate"]);
    assert_eq!((origin.charged(), &without.status()["totals"]["api_calls_spent"]), (1, &0.into()));
}

/// An egress proxy that answers each CONNECT with this status, and tunnels if it is 200. Tells the heads it has read.
fn proxy(status: u16) -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, heads) = channel();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let seen = seen.clone();
            thread::spawn(move || {
                if let Ok(head) = read_head(&client) {
                    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
                    // The test may be over.
                    let _ = seen.send(head);
                    let _ = answer_connect(client, status, &target);
                }
            });
        }
    });
    (address, heads)
}

fn read_head(mut client: &TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    String::from_utf8(head).map_err(io::Error::other)
}

fn answer_connect(mut client: TcpStream, status: u16, target: &str) -> io::Result<()> {
    if status != 200 {
        return write!(client, "HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
    }
    let mut origin = TcpStream::connect(target)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut up, mut down) = (client.try_clone()?, origin.try_clone()?);
    let upwards = thread::spawn(move || {
        let copied = io::copy(&mut up, &mut down);
        let _ = down.shutdown(Shutdown::Write);
        copied
    });
    io::copy(&mut origin, &mut client)?;
    client.shutdown(Shutdown::Write)?;
    upwards.join().unwrap().map(drop)
}

fn through(proxy: SocketAddr) -> String {
    format!(", proxy: 'http://{proxy}', proxy_credentials: {{file: proxy.secret}}")
}

fn secret(setup: &Setup) {
    setup.write("proxy.secret", "svc:canary-password\n");
}

#[test]
fn all_connections_go_through_the_egress_proxy() {
    let authority = Authority::new("company root");
    let origin = Origin::start(&authority.issue("localhost"), None);
    let (proxy, heads) = proxy(200);
    let gateway = origin.gateway(&authority, &through(proxy), secret);
    for _ in 0..2 {
        assert_eq!(gateway.get(QUERY).unwrap().status, 200);
    }
    let head = heads.recv_timeout(PATIENCE).unwrap();
    assert!(head.starts_with(&format!("CONNECT localhost:{} HTTP/1.1\r\n", origin.address.port())), "{head}");
    assert!(head.contains("\r\nProxy-Authorization: Basic c3ZjOmNhbmFyeS1wYXNzd29yZA==\r\n"), "{head}");
    assert!(heads.recv_timeout(Duration::from_millis(100)).is_err(), "one tunnel carries both");
    assert_eq!(origin.charged(), 2);
    assert!(!gateway.process.out.text().contains("canary"));
}

#[test]
fn a_proxy_that_refuses_or_is_not_there_is_named() {
    let authority = Authority::new("company root");
    let origin = Origin::start(&authority.issue("localhost"), None);
    for (status, hint) in [(403, "its rules"), (407, "its credentials")] {
        let (proxy, _heads) = proxy(status);
        let gateway = origin.gateway(&authority, &through(proxy), secret);
        let answer = gateway.get(QUERY).unwrap();
        let refused = format!("The egress proxy {proxy} refused a tunnel to localhost:{}", origin.address.port());
        unavailable(&answer, "upstream_unreachable", &[&refused, &format!("status {status}"), hint]);
        assert!(!answer.text().contains("canary") && !gateway.process.out.text().contains("canary"));
    }
    let nobody = free_address();
    let gateway = origin.gateway(&authority, &through(nobody), secret);
    let answer = gateway.get(QUERY).unwrap();
    let dead = format!("The egress proxy {nobody} could not be used to reach localhost");
    unavailable(&answer, "upstream_unreachable", &[&dead]);
    assert_eq!(connects(&gateway, "connect"), 3, "nothing was sent, so it was tried again");
    assert_eq!(origin.charged(), 0);
}

#[test]
fn a_dead_origin_is_named_and_comes_back_without_a_restart() {
    let address = free_address();
    let gateway = Setup::new(address, "").serve();
    let answer = gateway.get(QUERY).unwrap();
    let dead = format!("Could not connect to {address}");
    unavailable(&answer, "upstream_unreachable", &[&dead.replacen(&address.to_string(), "127.0.0.1:", 1)]);
    assert_eq!(connects(&gateway, "connect"), 3, "nothing was sent, so it was tried again");
    assert_eq!(gateway.admin("/readyz").unwrap().status, 200);
    let simulator = crate::process::Process::start(&["simulate", "--listen", &address.to_string()]);
    simulator.out.find(|line| line.contains("simulated Salesforce").then_some(())).unwrap();
    until("Salesforce is back", || (gateway.get(QUERY).unwrap().status == 200).then_some(()));
}

#[test]
fn a_name_without_an_address_is_named() {
    let setup = Setup::written(&config_for("https://nonexistent.invalid", "upstream: {connect: 40s}\n"));
    let gateway = setup.serve();
    let answer = gateway.get(QUERY).unwrap();
    unavailable(&answer, "upstream_unreachable", &["The name nonexistent.invalid has no address", "DNS"]);
    assert_eq!(connects(&gateway, "dns"), 3, "nothing was sent, so it was tried again");
}
