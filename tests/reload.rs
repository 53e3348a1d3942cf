//! Promise: a changed configuration or certificate takes effect without a lost connection, a lost count or a restart, and
//! a mistake in it changes nothing.

use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::sync::Arc;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::blocking::{Client, ask, trusting};
use crate::pki::Authority;
use crate::process::{Gateway, Setup, Simulator, bearer, config, free_address, until};

const QUERY: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+LIMIT+1";
const REPORTS: &str =
    "callers:\n- {name: anyone, match: any}\n- {name: reports, match: {call_options_client: reports}, ";

fn reports(client: &mut Client, path: &str) -> u16 {
    let authorization = bearer();
    let headers = [("authorization", authorization.as_str()), ("sforce-call-options", "client=reports")];
    client.ask("GET", path, &headers, b"").unwrap().status
}

fn config_of(gateway: &Gateway) -> Value {
    gateway.status()["config"].clone()
}

/// Waits until `count` reloads have been tried.
fn tried(gateway: &Gateway, count: u64) -> Value {
    until("the reload", || {
        let config = config_of(gateway);
        let tried = config["reloads_succeeded"].as_u64()? + config["reloads_failed"].as_u64()?;
        (tried >= count).then_some(config)
    })
}

#[test]
fn a_new_rule_is_in_force_after_a_signal_and_nothing_is_lost() {
    let simulator = Simulator::start();
    let setup = Setup::new(simulator.address, "");
    let gateway = setup.serve();
    let mut open = Client::plain(gateway.address()).unwrap();
    assert_eq!(reports(&mut open, QUERY), 200);
    assert_eq!(gateway.count("weirkeeper_requests_total", &["caller=\"anyone\""]), 1);

    setup.write("weirkeeper.yaml", &config(simulator.address, &format!("{REPORTS}allow: {{objects: [Contact]}}}}\n")));
    gateway.process.signal(Signal::HUP);
    let config = tried(&gateway, 1);
    assert_eq!((&config["last_reload_successful"], &config["reloads_succeeded"]), (&json!(true), &json!(1)));
    assert_eq!(reports(&mut open, QUERY), 403, "the same connection, the new rule");
    assert_eq!(reports(&mut open, &QUERY.replace("Account", "Contact")), 200);
    let counted = |caller: &str| gateway.count("weirkeeper_requests_total", &[caller]);
    assert_eq!((counted("caller=\"anyone\""), counted("caller=\"reports\"")), (1, 2));
    assert_eq!(gateway.count("weirkeeper_upstream_connects_total", &["result=\"ok\""]), 1, "nor the way out");
    assert_eq!(simulator.counts()["charged"], 2);
    gateway.event("config_reloaded");
}

#[test]
fn a_bad_file_keeps_the_old_one_and_shows_everywhere() {
    let simulator = Simulator::start();
    let setup = Setup::new(simulator.address, "");
    let gateway = setup.serve();
    assert_eq!(gateway.count("weirkeeper_config_last_reload_successful", &[]), 1);
    setup.write("weirkeeper.yaml", &config(simulator.address, "calers: []\nlimits: {drain: 1}\n"));
    gateway.process.signal(Signal::HUP);
    let state = tried(&gateway, 1);
    assert_eq!((&state["last_reload_successful"], &state["reloads_failed"]), (&json!(false), &json!(1)));
    let error = state["last_reload_error"].as_str().unwrap();
    assert!(error.contains(":5:1: calers: ") && error.contains(":6:17: limits.drain: "), "{error}");
    assert_eq!(gateway.count("weirkeeper_config_last_reload_successful", &[]), 0);
    assert_eq!(gateway.count("weirkeeper_config_reloads_total", &["result=\"failed\""]), 1);
    assert_eq!(gateway.admin("/readyz").unwrap().status, 200, "what is in force is still good");
    assert_eq!(gateway.get(QUERY).unwrap().status, 200);
    gateway.event("config_rejected");

    setup.write("weirkeeper.yaml", &config(simulator.address, ""));
    gateway.process.signal(Signal::HUP);
    let state = tried(&gateway, 2);
    assert_eq!((&state["last_reload_successful"], &state["last_reload_error"]), (&json!(true), &Value::Null));
    assert_eq!(gateway.count("weirkeeper_config_last_reload_successful", &[]), 1);
}

#[test]
fn a_change_is_noticed_without_a_signal() {
    let simulator = Simulator::start();
    let setup = Setup::new(simulator.address, "");
    let gateway = setup.serve();
    let mut open = Client::plain(gateway.address()).unwrap();
    assert_eq!(reports(&mut open, QUERY), 200);
    setup.write("weirkeeper.yaml", &config(simulator.address, &format!("{REPORTS}allow: {{families: [rest]}}}}\n")));
    tried(&gateway, 1);
    assert_eq!(reports(&mut open, QUERY), 403);
}

#[test]
fn a_swapped_link_of_kubernetes_is_a_change() {
    let simulator = Simulator::start();
    let setup = Setup::written("");
    std::fs::remove_file(&setup.config).unwrap();
    for (volume, rule) in [("..one", "[query]"), ("..two", "[rest]")] {
        std::fs::create_dir(setup.path(volume)).unwrap();
        let text = config(simulator.address, &format!("{REPORTS}allow: {{families: {rule}}}}}\n"));
        setup.write(&format!("{volume}/weirkeeper.yaml"), &text);
    }
    symlink("..one", setup.path("..data")).unwrap();
    symlink("..data/weirkeeper.yaml", &setup.config).unwrap();
    let gateway = setup.serve();
    let mut open = Client::plain(gateway.address()).unwrap();
    assert_eq!(reports(&mut open, QUERY), 200);
    symlink("..two", setup.path("..data_tmp")).unwrap();
    std::fs::rename(setup.path("..data_tmp"), setup.path("..data")).unwrap();
    tried(&gateway, 1);
    assert_eq!(reports(&mut open, QUERY), 403);
}

#[test]
fn what_needs_a_restart_is_said_and_the_rest_is_taken() {
    let simulator = Simulator::start();
    let setup = Setup::new(simulator.address, "");
    let gateway = setup.serve();
    let text =
        config(simulator.address, &format!("{REPORTS}allow: {{families: [rest]}}}}\nlimits: {{connections: 5}}\n"));
    setup.write("weirkeeper.yaml", &text.replace("runtimes: 1", "runtimes: 2"));
    gateway.process.signal(Signal::HUP);
    assert_eq!(tried(&gateway, 1)["last_reload_successful"], true);
    let said = gateway.process.out.text();
    for what in ["limits of connections: ", "runtimes: "] {
        assert!(said.contains(&format!("\"config_needs_restart\",\"what\":\"{what}")), "{what}\n{said}");
    }
    assert_eq!(reports(&mut Client::plain(gateway.address()).unwrap(), QUERY), 403);
}

/// A configuration with one TLS listener; `more` are further keys of it.
fn tls_config(org: SocketAddr, more: &str, rest: &str) -> String {
    let listener = format!("listeners: [{{address: 127.0.0.1:0, tls: {{certificate: tls.crt, key: tls.key{more}}}}}]");
    config(org, rest).replace("listeners: [{address: 127.0.0.1:0}]", &listener)
}

fn tls_setup(org: SocketAddr, authority: &Authority, more: &str, rest: &str) -> Setup {
    let setup = Setup::written(&tls_config(org, more, rest));
    install(&setup, authority);
    setup
}

fn install(setup: &Setup, authority: &Authority) {
    let leaf = authority.issue("localhost");
    setup.write("tls.key", &leaf.key_pem());
    setup.write("tls.crt", &leaf.pem());
}

type Tls = Arc<rustls::ClientConfig>;

fn by_tls(gateway: &Gateway, tls: &Tls) -> std::io::Result<Client> {
    Client::tls(gateway.address(), "localhost", tls)
}

#[test]
fn a_renewed_certificate_is_shown_to_new_connections() {
    let simulator = Simulator::start();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let setup = tls_setup(simulator.address, &first, "", "");
    let gateway = setup.serve();
    let (trusts_first, trusts_second) = (trusting(&[first.der()], None, &[]), trusting(&[second.der()], None, &[]));
    let mut open = by_tls(&gateway, &trusts_first).unwrap();
    assert_eq!(reports(&mut open, QUERY), 200);
    assert!(gateway.measure("weirkeeper_certificate_expiry_seconds", &[]) > 1e9);

    install(&setup, &second);
    let file = gateway.event("certificate_reloaded")["file"].clone();
    assert!(file.as_str().unwrap().ends_with("tls.crt"), "{file}");
    assert_eq!(reports(&mut by_tls(&gateway, &trusts_second).unwrap(), QUERY), 200);
    let refused = by_tls(&gateway, &trusts_first).err().expect("no longer").to_string();
    assert!(refused.contains("UnknownIssuer"), "{refused}");
    assert_eq!(reports(&mut open, QUERY), 200, "an open connection goes on");

    setup.write("tls.crt", "half a certifi");
    let state = until("the failed reload", || {
        let config = config_of(&gateway);
        (config["last_reload_successful"] == false).then_some(config)
    });
    assert!(state["last_reload_error"].as_str().unwrap().contains("tls.crt"), "{state}");
    assert_eq!(reports(&mut by_tls(&gateway, &trusts_second).unwrap(), QUERY), 200, "the last good one stays");
}

#[test]
fn a_certificate_may_be_named_anew() {
    let simulator = Simulator::start();
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let setup = tls_setup(simulator.address, &first, "", "");
    let gateway = setup.serve();
    let leaf = second.issue("localhost");
    setup.write("new.crt", &leaf.pem());
    setup.write("new.key", &leaf.key_pem());
    let text = tls_config(simulator.address, "", "").replace("tls.crt", "new.crt").replace("tls.key", "new.key");
    setup.write("weirkeeper.yaml", &text);
    gateway.process.signal(Signal::HUP);
    gateway.event("certificate_reloaded");
    assert_eq!(reports(&mut by_tls(&gateway, &trusting(&[second.der()], None, &[])).unwrap(), QUERY), 200);
}

#[test]
fn a_caller_is_known_by_its_certificate() {
    let simulator = Simulator::start();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let callers = "callers:\n- {name: billing, match: {certificate: {common_name: billing.internal}}}\n\
                   - {name: portal, match: {certificate: {dns: portal.internal}}}\n";
    for required in [true, false] {
        let more = format!(", client_ca: clients.crt, client_ca_required: {required}");
        let setup = tls_setup(simulator.address, &servers, &more, callers);
        setup.write("clients.crt", &clients.pem());
        let gateway = setup.serve();
        let with =
            |authority: &Authority, name: &str| trusting(&[servers.der()], Some(authority.issue(name).identity()), &[]);
        for (name, caller) in [("billing.internal", "billing"), ("portal.internal", "portal")] {
            let mut client = by_tls(&gateway, &with(&clients, name)).unwrap();
            let answer = client.ask("GET", QUERY, &[("authorization", &bearer())], b"").unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            let labels = [format!("caller=\"{caller}\"")];
            let counted = gateway.count("weirkeeper_requests_total", &[labels[0].as_str()]);
            assert_eq!(counted, 1, "{caller}");
        }
        let mut stranger = by_tls(&gateway, &with(&clients, "stranger.internal")).unwrap();
        let answer = stranger.ask("GET", QUERY, &[("authorization", &bearer())], b"").unwrap();
        answer.refused(403, "INSUFFICIENT_ACCESS", "unknown_caller");

        // With TLS 1.3 the client hears of a refused certificate only when it reads.
        let forged = by_tls(&gateway, &with(&Authority::new("clients"), "billing.internal"));
        assert!(forged.and_then(|mut client| client.ask("GET", QUERY, &[], b"")).is_err());
        let without = by_tls(&gateway, &trusting(&[servers.der()], None, &[]));
        let answer = without.and_then(|mut client| client.ask("GET", QUERY, &[("authorization", &bearer())], b""));
        match answer {
            Err(_) if required => {}
            Ok(answer) if !required => drop(answer.refused(403, "INSUFFICIENT_ACCESS", "unknown_caller")),
            other => panic!("required: {required}, {other:?}"),
        }
        let refused = until("handshakes are counted", || {
            let refused = gateway.count("weirkeeper_connections_refused_total", &[]);
            (refused == 1 + u64::from(required)).then_some(refused)
        });
        assert!(refused > 0);
    }
}

#[test]
fn http2_is_agreed_on_by_alpn() {
    let simulator = Simulator::start();
    let authority = Authority::new("root");
    let gateway = tls_setup(simulator.address, &authority, "", "").serve();
    let tls = trusting(&[authority.der()], None, &[b"h2", b"http/1.1"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let address = gateway.address();
    let answered = async {
        let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(tls).connect(name, tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let (mut send, connection) = h2::client::handshake(stream).await.unwrap();
        let exchange = async move {
            let request = http::Request::get(format!("https://localhost{QUERY}"))
                .header("authorization", bearer())
                .body(())
                .unwrap();
            let (response, _) = send.send_request(request, true).unwrap();
            response.await.unwrap().status().as_u16()
        };
        tokio::select! {
            status = exchange => status,
            ended = connection => panic!("{ended:?}"),
        }
    };
    let status = runtime.block_on(async { tokio::time::timeout(crate::process::PATIENCE, answered).await.unwrap() });
    assert_eq!(status, 200);
    assert!(gateway.process.out.find(|line| line.contains("\"http\":\"2\"").then_some(())).is_some());

    let old = trusting(&[authority.der()], None, &[b"http/1.1"]);
    assert_eq!(reports(&mut by_tls(&gateway, &old).unwrap(), QUERY), 200);
}

#[test]
fn a_plain_request_on_a_tls_port_is_told_so_and_each_listener_counts_its_own() {
    let org = free_address();
    let authority = Authority::new("root");
    let text = tls_config(org, "", "").replace("listeners: [", "listeners: [{address: 127.0.0.1:0}, ");
    let setup = Setup::written(&text);
    install(&setup, &authority);
    let gateway = setup.serve();
    let (plain, tls) = (gateway.listeners[0], gateway.listeners[1]);
    let answer = ask(tls, "GET", QUERY, &[], b"").unwrap();
    assert!(answer.refused(400, "INVALID_OPERATION", "malformed_request").contains("HTTPS"));
    let _two = [Client::plain(plain).unwrap(), Client::plain(plain).unwrap()];
    let _one = Client::tls(tls, "localhost", &trusting(&[authority.der()], None, &[])).unwrap();
    let counted = |name: &str, address: SocketAddr| gateway.count(name, &[&format!("listener=\"{address}\"")]);
    until("connections are counted", || {
        let open = |address| counted("weirkeeper_connections", address);
        ((open(plain), open(tls)) == (2, 1)).then_some(())
    });
    let refused = |address| counted("weirkeeper_connections_refused_total", address);
    assert_eq!((refused(plain), refused(tls)), (0, 1));
    let labels = ["reason=\"malformed_request\"", "caller=\"unknown\"", "org=\"unknown\""];
    assert_eq!(gateway.count("weirkeeper_refusals_total", &labels), 1);
    assert_eq!(gateway.count("weirkeeper_refusals_total", &labels), 1, "a second look counts nothing twice");
    assert_eq!(gateway.status()["totals"]["refusals"], 1);
}
