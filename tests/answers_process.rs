//! Promise: an operator can have Salesforce asked again: by HTTP and by command; for an org, an object, a principal.

use std::time::Duration;

use serde_json::{Value, json};

use crate::blocking;
use crate::process::{Gateway, Setup, Simulator, run};

const ROW: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account";
const OTHER: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Lead";

/// Whether the answer came from memory.
fn is_kept(gateway: &Gateway, path: &str) -> bool {
    let answer = gateway.get(path).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("cache-status").is_some_and(|status| status.starts_with("weirkeeper;hit"))
}

#[test]
fn what_is_purged_by_http_or_command_is_asked_again() {
    let simulator = Simulator::start();
    let org = simulator.address;
    let key = "an admin key for this test";
    let setup = Setup::written(&format!(
        "listeners: [{{address: 127.0.0.1:0}}]
admin: {{key_sha256: '{}', address: 127.0.0.1:0}}
runtimes: 1
orgs: [{{name: prod, instance_url: 'http://{org}'}}]
cache: {{entries: [{{match: {{objects: [Account, Lead], operations: [query]}}, fresh: 1h, stale_if_error: 1h}}]}}
retry: {{mode: off}}
state: memory
",
        weirkeeper::config::key::sha256_hex(key)
    ));
    setup.write("key", key);
    let key_file = setup.path("key").display().to_string();
    let gateway = setup.serve();
    let admin = format!("http://127.0.0.1:{}", gateway.admin.port());
    let bearer = format!("Bearer {key}");
    let post = |query: &str, authorized: bool| {
        let path = format!("/api/v1/cache/purge?{query}");
        let headers: &[(&str, &str)] = if authorized { &[("authorization", &bearer)] } else { &[] };
        blocking::ask(gateway.admin, "POST", &path, headers, b"").unwrap()
    };
    let command = |words: &[&str]| {
        let all = [&["cache", "purge", "--admin", &admin, "--key-file", &key_file, "--org", "prod"], words].concat();
        let ended = run(&all);
        assert_eq!((ended.code, ended.out.trim()), (Some(0), "purged: answers of prod"), "{}", ended.err);
    };
    assert!(!is_kept(&gateway, ROW) && is_kept(&gateway, ROW));
    let line = gateway.process.out.find(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["event"] == "request" && line["source"] == "cache").then_some(line)
    });
    let principal = line.unwrap()["principal"].as_str().unwrap().to_owned();

    // Without the key, without an org, of an org nobody knows.
    assert_eq!(post("org=prod", false).status, 401);
    assert_eq!(post("object=Account", true).status, 400);
    assert_eq!(post("org=dev", true).status, 404);
    let refused = run(&["cache", "purge", "--admin", &admin, "--org", "prod"]);
    assert!(refused.code == Some(1) && refused.err.contains("admin key"), "{}", refused.err);

    for (what, others_too) in [("all", true), ("object", false), ("principal", true)] {
        for by_command in [false, true] {
            for path in [ROW, OTHER] {
                gateway.get(path).unwrap();
                assert!(is_kept(&gateway, path), "{what} {path}");
            }
            match (what, by_command) {
                ("all", true) => command(&[]),
                ("object", true) => command(&["--object", "account"]),
                (_, true) => command(&["--principal", &principal]),
                (what, false) => {
                    let query = match what {
                        "all" => "org=prod".to_owned(),
                        "object" => "org=prod&object=Account".to_owned(),
                        _ => format!("org=prod&principal={principal}"),
                    };
                    let answer = post(&query, true);
                    assert_eq!((answer.status, answer.json()), (200, json!({"purged": what, "soft": false})));
                }
            }
            // What is sent in the very moment of an end does not count for it.
            std::thread::sleep(Duration::from_millis(5));
            assert!(!is_kept(&gateway, ROW), "{what} {by_command}");
            assert_eq!(is_kept(&gateway, OTHER), !others_too, "{what} {by_command}");
        }
    }
    assert_eq!(gateway.event("cache_purged")["what"], "all");

    // Softly: asked again, but there if nobody answers.
    assert!(is_kept(&gateway, ROW));
    command(&["--object", "Account", "--soft"]);
    simulator.fault(&json!({"times": 1, "action": {"unavailable": {"html": false, "retry_after_seconds": null}}}));
    let stale = gateway.get(ROW).unwrap();
    assert_eq!(stale.status, 200);
    assert!(stale.header("cache-status").unwrap().contains("weirkeeper;"), "{:?}", stale.header("cache-status"));
    assert!(!is_kept(&gateway, ROW) && is_kept(&gateway, ROW));
    let shown = gateway.admin("/api/v1/cache").unwrap().json();
    assert_eq!(shown["answers"], 2, "{shown}");
}
