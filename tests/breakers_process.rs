//! Promise: an operator sees the circuit breakers, and opens and closes them: by HTTP and by command, with the key.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::blocking;
use crate::process::{Gateway, Setup, Simulator, run};

const QUERY: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account";
const LIMITS: &str = "/services/data/v62.0/limits";
const KEY: &str = "an admin key for this test";

fn config(simulator: &Simulator, breaker: &str) -> String {
    format!(
        "listeners: [{{address: 127.0.0.1:0}}]
admin: {{key_sha256: '{}', address: 127.0.0.1:0}}
runtimes: 1
orgs: [{{name: prod, instance_url: 'http://{}'}}]
cache: {{mode: off}}
state: memory
breaker: {{{breaker}}}
",
        weirkeeper::config::key::sha256_hex(KEY),
        simulator.address
    )
}

fn post(gateway: &Gateway, path: &str) -> blocking::Answer {
    let bearer = format!("Bearer {KEY}");
    blocking::ask(gateway.admin, "POST", &format!("/api/v1/breakers/{path}"), &[("authorization", &bearer)], b"")
        .unwrap()
}

fn shown(gateway: &Gateway, family: &str) -> Value {
    let all = gateway.admin("/api/v1/breakers").unwrap().json();
    let families = all["orgs"][0]["families"].as_array().unwrap().clone();
    families.into_iter().find(|breaker| breaker["family"] == family).unwrap_or_default()
}

fn event(gateway: &Gateway, name: &str) -> Value {
    let found = gateway.process.out.find(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["event"] == name).then_some(line)
    });
    found.unwrap_or_else(|| panic!("no event {name} in\n{}", gateway.process.out.text()))
}

#[test]
fn breakers_are_opened_and_closed_by_http_and_by_command() {
    let simulator = Simulator::start();
    let setup = Setup::written(&config(&simulator, "mode: enforce"));
    setup.write("key", KEY);
    let key_file = setup.path("key").display().to_string();
    let gateway = setup.serve();
    let admin = format!("http://127.0.0.1:{}", gateway.admin.port());
    let command = |words: &[&str]| run(&[&["breaker"], words, &["--admin", &admin, "--key-file", &key_file]].concat());
    assert_eq!(gateway.get(QUERY).unwrap().status, 200);

    // Without the key, of an org nobody knows, of an API there is not, or that is never held back.
    let without = blocking::ask(gateway.admin, "POST", "/api/v1/breakers/open?org=prod", &[], b"").unwrap();
    assert_eq!(without.status, 401);
    let refused = run(&["breaker", "open", "--admin", &admin, "--org", "prod"]);
    assert!(refused.code == Some(1) && refused.err.contains("admin key"), "{}", refused.err);
    for (order, status, error) in [
        ("open?org=dev", 404, "unknown_org"),
        ("open?org=prod&family=qurey", 400, "bad_order"),
        ("open?org=prod&family=versions", 409, "no_breaker"),
        ("close?org=prod&for=1h", 400, "bad_order"),
    ] {
        let answer = post(&gateway, order);
        assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(error)), "{order}");
    }
    assert_eq!(gateway.get(QUERY).unwrap().status, 200, "nothing has happened");

    let opened = post(&gateway, "open?org=prod&family=query");
    assert_eq!((opened.status, opened.json()), (200, json!({"open": true})));
    let answer = gateway.get(QUERY).unwrap();
    assert!(answer.text().contains("by order of the operator"), "{}", answer.text());
    answer.refused(503, "SERVER_UNAVAILABLE", "circuit_open");
    assert_eq!(gateway.get(LIMITS).unwrap().status, 200, "another API");
    let held = json!({"family": "query", "state": "open", "by_hand": true, "opened": 1, "finds_out_in_seconds": null});
    assert_eq!(shown(&gateway, "query"), held);
    assert_eq!(gateway.count("weirkeeper_breaker_state", &["family=\"query\""]), 2);
    let retries = gateway.admin("/api/v1/breakers").unwrap().json()["orgs"][0]["retries"].clone();
    let full = |reason| json!({"reason": reason, "allowed": 100, "left": 100});
    assert_eq!(retries, json!([full("usual"), full("lock")]), "the floor of both budgets");
    assert_eq!(gateway.count("weirkeeper_retry_budget_left", &["reason=\"lock\""]), 100);
    let order = event(&gateway, "breaker_opened");
    assert_eq!((&order["org"], &order["family"], &order["for_seconds"]), (&json!("prod"), &json!("query"), &json!(0)));
    let change = event(&gateway, "breaker");
    assert_eq!(
        (&change["family"], &change["state"], &change["of_user"]),
        (&json!("query"), &json!("open"), &json!(false))
    );
    let table = command(&["show"]);
    assert!(table.out.contains("query") && table.out.contains("when it is closed"), "{}{}", table.out, table.err);

    // A reload changes nothing about it, not even one of the breakers.
    setup.write("weirkeeper.yaml", &config(&simulator, "mode: enforce, ratio: 60%, window: 20s"));
    gateway.process.signal(Signal::HUP);
    let _reloaded = event(&gateway, "config_reloaded");
    gateway.get(QUERY).unwrap().refused(503, "SERVER_UNAVAILABLE", "circuit_open");

    let closed = command(&["close", "--org", "prod", "--family", "query"]);
    assert_eq!((closed.code, closed.out.trim()), (Some(0), "closed: breaker query of prod"), "{}", closed.err);
    assert_eq!(gateway.get(QUERY).unwrap().status, 200);
    assert_eq!(event(&gateway, "breaker_closed")["family"], "query");

    // All, for a second; then it finds out by itself.
    let opened = command(&["open", "--org", "prod", "--for", "1s"]);
    assert_eq!((opened.code, opened.out.trim()), (Some(0), "opened: all breakers of prod"), "{}", opened.err);
    gateway.get(LIMITS).unwrap().refused(503, "SERVER_UNAVAILABLE", "circuit_open");
    std::thread::sleep(Duration::from_millis(1_100));
    assert_eq!(gateway.get(LIMITS).unwrap().status, 200);
    assert_eq!(shown(&gateway, "rest")["state"], "half_open");
    assert_eq!(post(&gateway, "close?org=prod").status, 200);
    assert_eq!(shown(&gateway, "rest")["state"], "closed");
    assert_eq!(gateway.get(QUERY).unwrap().status, 200);
}

#[test]
fn what_holds_nothing_back_is_not_opened() {
    let simulator = Simulator::start();
    for mode in ["off", "observe"] {
        let gateway = Setup::written(&config(&simulator, &format!("mode: {mode}"))).serve();
        let answer = post(&gateway, "open?org=prod");
        assert_eq!((answer.status, &answer.json()["error"]), (409, &json!("no_breaker")), "{mode}");
        assert_eq!(post(&gateway, "close?org=prod").status, 200, "{mode}");
        assert_eq!(gateway.get(QUERY).unwrap().status, 200, "{mode}");
    }
}
