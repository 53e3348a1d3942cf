//! Promise: the gateway starts, reloads, drains and ends as an operator expects, and says clearly why if it cannot.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use weirkeeper::clock::Clock;
use weirkeeper::telemetry::{Log, LogOptions};

use crate::blocking::{Client, ask};
use crate::process::{Gateway, PATIENCE, Process, Setup, Simulator, TOKEN, bearer, config, free_address, run, until};

const LIMITS: &str = "/services/data/v62.0/limits";
const QUERY: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+LIMIT+1";

fn query(client: &mut Client) -> u16 {
    client.ask("GET", QUERY, &[("authorization", &bearer())], b"").unwrap().status
}

#[test]
fn an_org_and_no_file_is_enough() {
    let simulator = Simulator::start();
    let org = format!("http://{}", simulator.address);
    let any = "127.0.0.1:0";
    let gateway = Gateway::ready(Process::start(&["serve", "--org", &org, "--listen", any, "--admin", any]));
    let answer = gateway.get(QUERY).unwrap();
    assert_eq!((answer.status, &answer.json()["totalSize"]), (200, &json!(1)), "{}", answer.text());
    assert_eq!(gateway.get(LIMITS).unwrap().status, 200);
    assert_eq!(simulator.counts()["charged"], 2);
    let spent = gateway.status()["totals"]["api_calls_spent"].clone();
    assert_eq!(spent, 2);
    assert_eq!(simulator.counts()["by_client"]["anyone"], 2, "{}", simulator.counts());
    assert!(!gateway.process.out.text().contains(TOKEN));
}

#[test]
fn a_taken_port_is_named_and_ends_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let org = free_address();
    for text in [
        config(org, "").replacen("127.0.0.1:0", &address.to_string(), 1),
        config(org, "").replace("admin: {address: 127.0.0.1:0}", &format!("admin: {{address: '{address}'}}")),
    ] {
        let ended = run(&["serve", "--config", Setup::written(&text).config_str()]);
        assert_eq!(ended.code, Some(1), "{text}");
        let said = format!("weirkeeper: cannot listen on {address}: another process listens there already");
        assert_eq!(ended.err, said);
    }
}

#[test]
fn two_gateways_cannot_share_a_port() {
    let setup = Setup::new(free_address(), "");
    let first = setup.serve();
    let address = first.address();
    let second = Setup::written(&config(free_address(), "").replacen("127.0.0.1:0", &address.to_string(), 1));
    let ended = run(&["serve", "--config", second.config_str()]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains(&format!("cannot listen on {address}")), "{}", ended.err);
    assert_eq!(first.admin("/readyz").unwrap().status, 200, "the first one goes on");
}

#[test]
fn a_killed_gateway_is_replaced_at_once_on_the_same_ports() {
    let simulator = Simulator::start();
    let (listen, admin) = (free_address(), free_address());
    let text = config(simulator.address, "").replacen("127.0.0.1:0", &listen.to_string(), 1);
    let text = text.replace("admin: {address: 127.0.0.1:0}", &format!("admin: {{address: '{admin}'}}"));
    let setup = Setup::written(&text);
    let first = setup.serve();
    let mut open = Client::plain(listen).unwrap();
    assert_eq!(query(&mut open), 200);
    first.process.signal(Signal::KILL);
    assert_eq!(first.process.ended().code, None);
    let second = setup.serve();
    assert_eq!(second.get(QUERY).unwrap().status, 200);
    assert!(open.ask("GET", QUERY, &[], b"").is_err());
}

#[test]
fn a_configuration_with_mistakes_starts_nothing() {
    let text = "listeners: [{address: here}]\nadmin: {address: 0.0.0.0:0}\norgs: [{name: prod, instance_url: 'ftp://x'}]\nclaers: 1\n";
    let setup = Setup::written(text);
    let ended = run(&["serve", "--config", setup.config_str()]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""));
    let file = setup.config_str();
    let places: Vec<_> =
        ended.err.lines().map(|line| line.strip_prefix(file).unwrap().split(':').nth(3).unwrap().trim()).collect();
    assert_eq!(places, ["listeners[0].address", "admin.key_sha256", "orgs[0].instance_url", "claers"], "{}", ended.err);
    assert!(ended.err.starts_with(&format!("{file}:1:")), "{}", ended.err);
}

#[test]
fn a_key_file_that_cannot_be_read_is_named_and_not_shown() {
    let listeners = "listeners: [{address: 127.0.0.1:0, tls: {certificate: tls.crt, key: tls.key}}]";
    let text = config(free_address(), "").replace("listeners: [{address: 127.0.0.1:0}]", listeners);
    let setup = Setup::written(&text);
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    setup.write("tls.crt", &made.cert.pem());
    let serve = || run(&["serve", "--config", setup.config_str()]);

    let ended = serve();
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("tls.key: No such file"), "{}", ended.err);
    std::fs::create_dir(setup.path("tls.key")).unwrap();
    let ended = serve();
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("listeners[0].tls.key: cannot read ") && ended.err.contains("tls.key"), "{}", ended.err);
    std::fs::remove_dir(setup.path("tls.key")).unwrap();
    setup.write("tls.key", "canary-of-a-key");
    let ended = serve();
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("holds no PEM private key") && !ended.err.contains("canary"), "{}", ended.err);
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    setup.write("tls.key", &other.signing_key.serialize_pem());
    let ended = serve();
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("tls.crt") && ended.err.contains("do not fit"), "{}", ended.err);
}

#[test]
fn a_drain_finishes_what_is_under_way_and_takes_nothing_new() {
    let simulator = Simulator::start();
    let setup = Setup::new(simulator.address, "limits: {drain_notice: 2s, drain: 20s}\n");
    let gateway = setup.serve();
    simulator.fault(&json!({"contains": "/sobjects/Contact", "latency_ms": 5_000, "action": "none"}));
    let mut slow = Client::plain(gateway.address()).unwrap();
    slow.send("GET", "/services/data/v62.0/sobjects/Contact/describe", &[("authorization", &bearer())], b"").unwrap();
    until("the slow request arrives", || (simulator.requests() == 1).then_some(()));
    let mut idle = Client::plain(gateway.address()).unwrap();
    assert_eq!(query(&mut idle), 200);

    gateway.process.signal(Signal::TERM);
    gateway.event("draining");
    let readiness = gateway.admin("/readyz").unwrap();
    assert_eq!((readiness.status, &readiness.json()["draining"]), (503, &json!(true)));
    assert_eq!(gateway.admin("/livez").unwrap().status, 200);
    // Not ready any more, but still serving those who have not noticed.
    assert_eq!(gateway.get(QUERY).unwrap().status, 200);
    until("new connections are refused", || Client::plain(gateway.address()).err());
    assert!(idle.is_closed());
    let answer = slow.receive().unwrap();
    assert_eq!((answer.status, &answer.json()["name"]), (200, &json!("Contact")));
    let Gateway { process, .. } = gateway;
    let ended = process.ended();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""));
    assert!(ended.out.contains("\"event\":\"stopped\",\"requests_cut\":0"), "{}", ended.out);
    assert_eq!(ended.out.lines().filter(|line| line.contains("\"status\":200")).count(), 3, "{}", ended.out);
}

#[test]
fn an_endless_request_is_cut_when_the_drain_is_over() {
    let simulator = Simulator::start();
    let gateway = Setup::new(simulator.address, "limits: {drain: 1s}\n").serve();
    simulator.fault(&json!({"action": {"hang": {"milliseconds": 600_000}}}));
    let mut endless = Client::plain(gateway.address()).unwrap();
    endless.send("GET", QUERY, &[("authorization", &bearer())], b"").unwrap();
    until("the request arrives", || (simulator.requests() == 1).then_some(()));
    gateway.process.signal(Signal::TERM);
    let clock = Clock::start();
    let begun = clock.now();
    let ended = gateway.process.ended();
    let took = clock.now() - begun;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(took >= Duration::from_millis(900) && took < PATIENCE / 4, "{took:?}");
    assert!(ended.out.contains("\"event\":\"stopped\",\"requests_cut\":1"), "{}", ended.out);
    assert!(endless.receive().is_err());
}

#[test]
#[ignore = "the next test runs it in a process of its own, because it changes what a panic does"]
fn panics() {
    let log = Log::start(Clock::start(), LogOptions::default()).unwrap();
    weirkeeper::gateway::panics::log_to(&log);
    let thread = std::thread::Builder::new().name("worker-7".to_owned()).spawn(|| panic!("canary")).unwrap();
    assert!(thread.join().is_err());
    assert!(log.flush(PATIENCE));
}

#[test]
fn a_panic_leaves_its_place_and_not_its_words() {
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--nocapture", "--exact", "serve::panics"])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\"event\":\"panic\",\"place\":\"tests/serve.rs:"), "{said}");
    assert!(said.contains("\"thread\":\"worker-7\"") && !said.contains("canary"), "{said}");
}

#[test]
fn a_bind_to_port_zero_tells_what_was_chosen() {
    let gateway = Setup::new(free_address(), "").serve();
    assert!(gateway.address().port() != 0 && gateway.admin.port() != 0);
    assert_eq!(gateway.status()["listeners"][0]["listener"], gateway.address().to_string());
}

#[test]
fn a_path_of_the_gateways_own_is_not_sent_to_salesforce() {
    let simulator = Simulator::start();
    let gateway = Setup::new(simulator.address, "").serve();
    for path in ["/weirkeeper/v1/nothing", "/weirkeeper", "//weirkeeper/"] {
        let answer = gateway.get(path).unwrap();
        answer.refused(404, "NOT_FOUND", "no_such_page");
    }
    for path in ["/metrics", "/livez", "/readyz", "/api/v1/status", "/api/v1/config"] {
        let answer = ask(gateway.address(), "GET", path, &[("authorization", &bearer())], b"").unwrap();
        assert!(!answer.text().contains("weirkeeper") && answer.status >= 400, "{path}: {}", answer.text());
    }
    let labels = ["org=\"prod\"", "caller=\"anyone\"", "reason=\"no_such_page\""];
    let refused = gateway.count("weirkeeper_refusals_total", &labels);
    assert_eq!(refused, 3);
}
