//! Promise: operators see what they need, nobody else does, and nothing secret is shown to anybody.

use std::collections::HashSet;
use std::net::SocketAddr;

use serde_json::{Value, json};
use weirkeeper::admin::{Page, PageFile};
use weirkeeper::config::key;

use crate::blocking::{Answer, Client, ask};
use crate::process::{Setup, Simulator, TOKEN, bearer, config, free_address, run};

/// What one line of Prometheus's text format is.
fn check_metrics(text: &str) -> usize {
    let is_name = |name: &str| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let (mut families, mut seen) = (HashSet::new(), HashSet::new());
    let mut family = String::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty(), "{line}");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned()), "{name} twice");
            name.clone_into(&mut family);
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(series.to_owned()), "{series} twice");
        let name = series.split('{').next().unwrap();
        let suffix = name.strip_prefix(&family).unwrap_or_else(|| panic!("{line} stands under {family}"));
        assert!(["", "_bucket", "_sum", "_count"].contains(&suffix), "{line}");
        if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
            let labels = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).unwrap();
            for label in labels.split("\",") {
                let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                assert!(is_name(name) && !value.trim_end_matches('"').contains(['"', '\n']), "{line}");
            }
        }
    }
    seen.len()
}

fn has_security_headers(answer: &Answer) {
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    assert!(answer.header("content-security-policy").unwrap().starts_with("default-src 'none'"));
}

#[test]
fn the_pages_show_what_the_gateway_does_and_no_token() {
    let simulator = Simulator::start();
    let setup = Setup::new(simulator.address, "");
    let gateway = setup.serve();
    for path in ["query?q=SELECT+Id+FROM+Account+WHERE+Name='canary-literal'", "limits", "sobjects/Nothing__c/describe"]
    {
        gateway.get(&format!("/services/data/v62.0/{path}")).unwrap();
    }
    let metrics = gateway.admin("/metrics").unwrap();
    assert_eq!(metrics.header("content-type"), Some("text/plain; version=0.0.4"));
    assert!(check_metrics(&metrics.text()) > 100);
    assert_eq!(gateway.count("weirkeeper_requests_total", &["org=\"prod\""]), 3);
    assert_eq!(gateway.admin("/livez").unwrap().json(), json!({"alive": true}));
    let ready = gateway.admin("/readyz").unwrap().json();
    let checks: Vec<_> =
        ready["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    assert_eq!((&ready["ready"], checks), (&json!(true), vec!["listeners", "workers"]));
    let status = gateway.status();
    assert_eq!(status["totals"]["requests"], 3);
    assert_eq!(status["totals"]["api_calls_spent"], simulator.counts()["charged"]);
    assert_eq!(status["callers"][0]["caller"], "anyone");
    assert_eq!(status["config"]["path"], setup.config_str());
    let index = gateway.admin("/api/v1").unwrap();
    assert!(index.text().contains("/api/v1/status"));
    let recent = gateway.admin("/api/v1/recent").unwrap().json();
    let failed = &recent["troubles"][0];
    assert_eq!((&failed["what"], &failed["caller"], &failed["count"]), (&json!("failed"), &json!("anyone"), &json!(1)));
    assert!(failed["remedy"].as_str().unwrap().ends_with('.'), "{failed}");
    let spent = gateway.admin("/api/v1/spending").unwrap().json();
    assert_eq!(spent["orgs"][0]["callers"], json!(["anyone"]));
    let steps = spent["orgs"][0]["day"]["callers"][0].as_array().unwrap();
    assert_eq!(
        steps.iter().map(|calls| calls.as_u64().unwrap()).sum::<u64>(),
        simulator.counts()["charged"].as_u64().unwrap()
    );
    for path in [
        "/",
        "/metrics",
        "/livez",
        "/readyz",
        "/api/v1",
        "/api/v1/status",
        "/api/v1/config",
        "/api/v1/recent",
        "/api/v1/spending",
        "/page/main.js",
        "/nothing",
    ] {
        let answer = gateway.admin(path).unwrap();
        assert_eq!(answer.status, if path == "/nothing" { 404 } else { 200 }, "{path}");
        has_security_headers(&answer);
        assert!(!answer.text().contains("canary") && !answer.text().contains(TOKEN), "{path}");
    }
    let log = gateway.process.out.text();
    assert!(!log.contains("canary") && !log.contains(TOKEN), "{log}");
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let digest = "03f0d77d1556d45f5c3168abd65c18dea6f654814f97b4b5c82465081729362b";
    let secrets = format!(
        "principal_key: {{file: principal}}\nupstream: {{proxy: 'http://127.0.0.1:1', proxy_credentials: {{file: proxy}}}}\n\
         callers: [{{name: app, match: {{key_sha256: {digest}}}}}]\n"
    );
    let setup = Setup::new("127.0.0.1:1".parse().unwrap(), &secrets);
    setup.write("principal", "canary-principal-key");
    setup.write("proxy", "user:canary-password");
    let gateway = setup.serve();
    let shown = gateway.admin("/api/v1/config").unwrap();
    let config = shown.json();
    assert_eq!(config["principal_key"], json!({"file": "principal"}));
    assert_eq!(config["orgs"][0]["name"], "prod");
    assert_eq!(config["limits"]["drain"], "30s", "defaults are shown, too");
    for page in ["/api/v1/config", "/api/v1/status", "/metrics", "/readyz"] {
        let text = gateway.admin(page).unwrap().text();
        assert!(!text.contains("canary") && !text.contains(digest), "{page}: {text}");
    }
    // What the gateway says about a proxy that does not answer is no secret's business either.
    let answer = gateway.get("/services/data/v62.0/limits").unwrap();
    assert!(!answer.text().contains("canary"), "{}", answer.text());
    assert!(!gateway.process.out.text().contains("canary"));
}

fn made_key() -> (String, String) {
    let made: Value = serde_json::from_str(&run(&["key", "--json"]).out).unwrap();
    (made["key"].as_str().unwrap().to_owned(), made["key_sha256"].as_str().unwrap().to_owned())
}

#[test]
fn from_other_machines_the_key_is_needed_for_all_but_the_probes() {
    let (key, digest) = made_key();
    let text = config("127.0.0.1:1".parse().unwrap(), "").replace(
        "admin: {address: 127.0.0.1:0}",
        &format!("admin: {{address: 0.0.0.0:0, key_sha256: {digest}, hosts: [ops.example]}}"),
    );
    let setup = Setup::written(&text);
    let gateway = setup.serve();
    let admin = SocketAddr::from(([127, 0, 0, 1], gateway.admin.port()));
    let get = |path: &str, headers: &[(&str, &str)]| ask(admin, "GET", path, headers, b"").unwrap();
    let right = format!("Bearer {key}");
    let wrong = format!("{right}x");
    for path in ["/metrics", "/api/v1/status", "/api/v1/config", "/api/v1/recent", "/nothing"] {
        let answer = get(path, &[]);
        assert_eq!((answer.status, &answer.json()["error"]), (401, &json!("key_required")), "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"weirkeeper admin\""));
        has_security_headers(&answer);
        assert_eq!(get(path, &[("authorization", &wrong)]).status, 401, "{path}");
        let status = get(path, &[("authorization", &right)]).status;
        assert_eq!(status, if path == "/nothing" { 404 } else { 200 }, "{path}");
    }
    for path in ["/livez", "/readyz", "/", "/page/main.js"] {
        assert_eq!(get(path, &[]).status, 200, "{path}");
    }
    assert_eq!(get("/livez", &[("host", "ops.example")]).status, 200);
    let log = gateway.process.out.text();
    assert!(!log.contains(&key) && !log.contains(&digest), "{log}");
}

#[test]
fn other_sites_and_other_names_are_turned_away() {
    let gateway = Setup::new("127.0.0.1:1".parse().unwrap(), "").serve();
    let get = |headers: &[(&str, &str)]| ask(gateway.admin, "GET", "/api/v1/status", headers, b"").unwrap();
    let own = format!("http://{}", gateway.admin);
    assert_eq!(get(&[("origin", &own)]).status, 200);
    for (headers, status, error) in [
        ([("host", "evil.example")].as_slice(), 403, "foreign_host"),
        (&[("origin", "http://evil.example")], 403, "foreign_origin"),
        (&[("origin", "null")], 403, "foreign_origin"),
    ] {
        let answer = get(headers);
        assert_eq!((answer.status, &answer.json()["error"]), (status, &json!(error)), "{headers:?}");
        has_security_headers(&answer);
    }
    for method in ["POST", "DELETE", "PUT"] {
        assert_eq!(ask(gateway.admin, method, "/api/v1/status", &[], b"").unwrap().status, 405, "{method}");
    }
    assert_eq!(gateway.status()["totals"]["requests"], 0, "operators are no traffic");
}

#[test]
fn an_admin_port_is_no_way_to_salesforce() {
    let simulator = Simulator::start();
    let gateway = Setup::new(simulator.address, "").serve();
    let answer = gateway.admin("/services/data/v62.0/limits").unwrap();
    assert_eq!((answer.status, &answer.json()["error"]), (404, &json!("not_found")));
    assert_eq!(simulator.requests(), 0);
}

#[test]
fn a_callers_port_is_no_way_to_the_operators_pages() {
    let simulator = Simulator::start();
    let (_, digest) = made_key();
    let text = config(simulator.address, "")
        .replace("127.0.0.1:0}\nruntimes", &format!("127.0.0.1:0, key_sha256: {digest}}}\nruntimes"));
    let gateway = Setup::written(&text).serve();
    let ours = ["text/css", "text/javascript", "text/event-stream", "text/html", "image/svg+xml"];
    let pages = Page::ALL.iter().map(|page| page.as_str());
    let files = PageFile::ALL.iter().map(|file| file.as_str());
    for path in pages.chain(files).chain(["//", "/.//api/v1/live", "/page/", "/weirkeeper/api/v1"]) {
        for (method, body) in [("GET", b"".as_slice()), ("POST", b"x")] {
            let answer = ask(gateway.address(), method, path, &[("authorization", &bearer())], body).unwrap();
            let kind = answer.header("content-type").unwrap_or_default();
            assert!(!ours.iter().any(|ours| kind.starts_with(ours)), "{method} {path}: {kind}");
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            for word in ["weirkeeper_requests_total", "\"alive\"", "\"readiness\"", "\"paused\"", "\"pages\""] {
                assert!(!text.contains(word), "{method} {path}: {text}");
            }
        }
    }
    assert_eq!(gateway.status()["budgets"][0]["callers"][0]["paused"], false);
}

#[test]
fn an_order_is_written_down_and_shows_on_the_page_without_its_key() {
    let simulator = Simulator::start();
    let (key, digest) = made_key();
    let text = config(simulator.address, "")
        .replace("127.0.0.1:0}\nruntimes", &format!("127.0.0.1:0, key_sha256: {digest}}}\nruntimes"));
    let gateway = Setup::written(&text).serve();
    let right = format!("Bearer {key}");
    let order = |path: &str, authorization: &str| {
        ask(gateway.admin, "POST", path, &[("authorization", authorization)], b"").unwrap()
    };
    let pause = "/api/v1/pause?org=prod&caller=anyone";
    assert_eq!(order(pause, "Bearer guess").status, 401);
    let refused = gateway.event("order_refused");
    assert_eq!((&refused["order"], &refused["reason"]), (&json!("/api/v1/pause"), &json!("key_required")));
    assert_eq!(order(pause, &right).status, 200);
    assert_eq!(gateway.event("paused")["caller"], "anyone");
    gateway.get("/services/data/v62.0/limits").unwrap().refused(503, "SERVER_UNAVAILABLE", "paused");

    let mut viewer = Client::plain(gateway.admin).unwrap();
    viewer.send("GET", "/api/v1/live?org=prod", &[], b"").unwrap();
    let seen = viewer.read_until("\n\n\r\n").unwrap();
    let data = seen.split("data: ").nth(1).unwrap().lines().next().unwrap();
    let view: Value = serde_json::from_str(data).unwrap();
    assert_eq!(view["org"]["callers"][0]["paused"], true);
    let told = view["concerns"].as_array().unwrap().iter().any(|one| one["what"] == "anyone is paused.");
    assert!(told, "{}", view["concerns"]);
    let line = &view["recent"][0];
    assert_eq!(
        (&line["reason"], &line["remedy"]),
        (&json!("paused"), &json!("Resume the caller or class when it may go on."))
    );
    assert_eq!(order(&pause.replace("pause", "resume"), &right).status, 200);
    assert_eq!(gateway.event("resumed")["org"], "prod");
    assert_eq!(gateway.get("/services/data/v62.0/limits").unwrap().status, 200);
    for secret in [key.as_str(), digest.as_str(), TOKEN] {
        assert!(!seen.contains(secret) && !gateway.process.out.text().contains(secret));
    }
}

#[test]
fn each_identity_says_what_it_is_doing_and_shows_no_secret() {
    let simulator = Simulator::start();
    let nobody = free_address();
    let keys = ["good", "wrong", "down"].map(|_| key::generate().unwrap().to_string());
    let caller = |identity: &str, key: &str| {
        format!("- {{name: {identity}, match: {{key_sha256: '{}'}}, act_as: {identity}}}\n", key::sha256_hex(key))
    };
    let identity = |secret: &str, more: &str| {
        format!("{{flow: client_credentials, client_id: 3MVGsim.app, client_secret: {{file: {secret}}}{more}}}")
    };
    let text = format!(
        "listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
runtimes: 1
orgs:
- name: prod
  instance_url: 'http://{0}'
  public_url: 'https://gateway.internal'
  auth:
    good: {1}
    wrong: {2}
    down: {3}
callers:
{4}",
        simulator.address,
        identity("app.secret", ""),
        identity("wrong.secret", ""),
        identity("app.secret", &format!(", token_url: 'http://{nobody}/services/oauth2/token'")),
        ["good", "wrong", "down"].iter().zip(&keys).map(|(name, key)| caller(name, key)).collect::<String>()
    );
    let setup = Setup::written(&text);
    setup.write("app.secret", "sim-app-secret");
    setup.write("wrong.secret", "CANARY-of-a-client-secret");
    let gateway = setup.serve();
    let states = || {
        let status = gateway.status();
        let of = |identity: &Value| {
            let text = |member: &str| identity[member].as_str().unwrap_or("none").to_owned();
            (text("identity"), text("state"), text("trouble"))
        };
        let mut all: Vec<_> = status["identities"].as_array().unwrap().iter().map(of).collect();
        all.sort();
        all
    };
    let told = |states: [(&str, &str, &str); 3]| states.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    assert_eq!(states(), told([("down", "empty", "none"), ("good", "empty", "none"), ("wrong", "empty", "none")]));
    for (key, status) in keys.iter().zip([200, 403, 503]) {
        let headers = [("authorization", &*format!("Bearer {key}"))];
        let answer = ask(gateway.address(), "GET", "/services/data/v62.0/limits", &headers, b"").unwrap();
        assert_eq!(answer.status, status, "{}", answer.text());
    }
    let expected = [("down", "back_off", "unreachable"), ("good", "fresh", "none"), ("wrong", "refused", "refused")];
    assert_eq!(states(), told(expected));
    let status = gateway.status();
    let down = status["identities"].as_array().unwrap().iter().find(|each| each["identity"] == "down").unwrap();
    assert!(down["tries_again_in_seconds"].as_f64().unwrap() > 0.0, "{down}");
    for (identity, state, _) in expected {
        for (other, value) in [(state, 1), ("empty", 0)] {
            let labels = [&*format!("identity=\"{identity}\""), &*format!("state=\"{other}\"")];
            assert_eq!(gateway.count("weirkeeper_identity_state", &labels), value, "{identity} {other}");
        }
    }
    let pages = ["/metrics", "/api/v1/status", "/api/v1/config"].map(|page| gateway.admin(page).unwrap().text());
    let logged = gateway.process.out.text() + &gateway.process.err.text();
    for secret in keys.iter().map(String::as_str).chain(["sim-app-secret", "CANARY", "00DWk0000000001!"]) {
        assert!(!logged.contains(secret) && !pages.iter().any(|page| page.contains(secret)), "{secret}");
    }
}
