//! Promise: every verb does what it says, with exit codes and outputs that scripts can rely on.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::process::{Process, Setup, Simulator, config, run};

fn stdout(arguments: &[&str]) -> String {
    let ended = run(arguments);
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{arguments:?}: {}", ended.out);
    ended.out
}

#[test]
fn check_says_that_a_good_file_is_fine() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/weirkeeper.yaml");
    let said = stdout(&["check", shipped]);
    assert!(said.ends_with("weirkeeper.yaml: fine (1 listeners, 1 orgs, 4 callers)"), "{said}");
}

#[test]
fn check_lists_every_mistake_with_its_place_and_exits_2() {
    let setup = Setup::written("orgs:\n- {name: Prod}\ncalers: []\nlimits: {drain: 10}\n");
    let ended = run(&["check", setup.config_str()]);
    assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""));
    let lines: Vec<_> = ended.err.lines().collect();
    for (place, words) in [
        (":2:3: orgs[0].instance_url: ", "missing"),
        (":2:10: orgs[0].name: ", "is not a name"),
        (":3:1: calers: ", "did you mean \"callers\"?"),
        (":4:17: limits.drain: ", "not a duration"),
    ] {
        let file = setup.config_str();
        let found = lines.iter().any(|line| line.starts_with(&format!("{file}{place}")) && line.contains(words));
        assert!(found, "{place}{words}\n{}", ended.err);
    }
    assert_eq!(lines.len(), 4, "{}", ended.err);
}

#[test]
fn check_of_a_file_that_is_not_there_names_it() {
    let ended = run(&["check", "/nowhere/weirkeeper.yaml"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("/nowhere/weirkeeper.yaml") && ended.err.contains("cannot read"), "{}", ended.err);
}

#[test]
fn the_shipped_schema_is_the_one_this_binary_prints() {
    let shipped = include_str!("../config/weirkeeper.schema.json");
    assert_eq!(stdout(&["schema"]).trim_end(), shipped.trim_end());
}

fn sha256(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))
}

#[test]
fn a_key_is_printed_with_its_digest() {
    let text = stdout(&["key"]);
    let field = |name: &str| text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned())).unwrap();
    assert_eq!(field("key_sha256:"), sha256(&field("key:")));
    let made: Value = serde_json::from_str(&stdout(&["key", "--json"])).unwrap();
    assert_eq!(made["key_sha256"], sha256(made["key"].as_str().unwrap()));
    assert_ne!(made["key"], field("key:"), "each is new");
}

fn explained(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(&[&["explain", "--json"], arguments].concat())).unwrap()
}

#[test]
fn explain_tells_what_a_row_and_a_query_are() {
    let row = explained(&["GET", "/services/data/v62.0/sobjects/Account/001000000000001AAA"]);
    assert_eq!(
        [&row["family"], &row["operation"], &row["object"], &row["api_calls"], &row["version"]],
        [&json!("rest"), &json!("read"), &json!("Account"), &json!(1), &json!("v62.0")]
    );
    assert!(!row.to_string().contains("001000000000001AAA"), "{row}");
    let query = explained(&["get", "/services/data/v62.0/query?q=SELECT+Id+FROM+Contact+WHERE+Name='canary'"]);
    assert_eq!([&query["family"], &query["object"]], [&json!("query"), &json!("Contact")]);
    assert!(!query.to_string().contains("canary"), "{query}");
    let table = stdout(&["explain", "GET", "/services/data/v62.0/query?q=SELECT+Id+FROM+Contact"]);
    let breaker = "breaker           of query";
    let lengths = "presumed length   interactive short, standard short, batch long";
    for line in ["family            query", "object            Contact", "costs API calls   1", breaker, lengths] {
        assert!(table.lines().any(|found| found == line), "{line}\n{table}");
    }
}

#[test]
fn explain_tells_what_an_answer_means_and_whether_the_call_is_repeated() {
    let setup = Setup::new("127.0.0.1:1".parse().unwrap(), "");
    let answer = |name: &str, body: &str| {
        setup.write(name, body);
        setup.path(name).to_str().unwrap().to_owned()
    };
    let lock = answer("lock.json", r#"[{"message":"canary","errorCode":"UNABLE_TO_LOCK_ROW","fields":[]}]"#);
    let create = ["POST", "/services/data/v62.0/sobjects/Account"];
    let of = |rest: &[&str]| explained(&[&create[..], rest].concat());
    let told = of(&["--status", "400", "--answer", &lock]);
    let means = |told: &Value| ["kind", "repeated", "outcome_unknown"].map(|key| told["answer"][key].clone());
    assert_eq!(means(&told), [json!("lock"), json!(true), json!(false)], "{told}");
    assert!(told["repeated_if_lost"] == json!(false) && !told.to_string().contains("canary"), "{told}");
    assert_eq!(means(&of(&["--status", "502"])), [json!("transient"), json!(false), json!(true)]);
    let table = stdout(&["explain", "GET", "/services/data/v62.0/limits", "--status", "503"]);
    for line in ["answer: means            transient", "answer: is repeated      true", "repeated if lost  true"] {
        assert!(table.lines().any(|found| found == line), "{line}\n{table}");
    }
    let half = answer("half.json", r#"[{"success":true},{"success":false,"errors":[]}]"#);
    let collection = ["PATCH", "/services/data/v62.0/composite/sobjects", "--status", "200", "--answer", &half];
    assert_eq!(explained(&collection)["answer"], json!({"parts": 2, "parts_failed": 1}));
}

#[test]
fn explain_reads_the_body_of_a_composite_and_applies_rules() {
    let setup = Setup::new(
        "127.0.0.1:1".parse().unwrap(),
        "callers:\n- {name: reader, match: {host: a.example}, allow: {operations: [read]}}\n- {name: anyone, match: any, class: batch, pace: {per_second: 5, burst: 9}}\n",
    );
    let body = json!({"compositeRequest": [
        {"method": "GET", "url": "/services/data/v62.0/sobjects/Account/001000000000001AAA", "referenceId": "a"},
        {"method": "DELETE", "url": "/services/data/v62.0/sobjects/Contact/003000000000001AAA", "referenceId": "b"},
    ]});
    setup.write("body.json", &body.to_string());
    let file = setup.path("body.json");
    let (method, path) = ("POST", "/services/data/v62.0/composite");
    let with_body = ["--body", file.to_str().unwrap(), "--config", setup.config_str()];

    let told = explained(&[&[method, path], with_body.as_slice()].concat());
    assert_eq!(told["family"], "composite");
    assert_eq!(told["breaker"], "of composite: opens if 50 % of 20 calls or more fail in 10 s");
    let chatter = explained(&["GET", "/services/data/v62.0/chatter/users/me", "--config", setup.config_str()]);
    assert!(chatter["breaker"].as_str().unwrap().starts_with("of connect, and of each user: "), "{chatter}");
    assert_eq!(explained(&["GET", "/services/data/"])["breaker"], Value::Null);
    let parts: Vec<_> =
        told["subrequests"].as_array().unwrap().iter().map(|part| (&part["operation"], &part["object"])).collect();
    assert_eq!(parts, [(&json!("read"), &json!("Account")), (&json!("delete"), &json!("Contact"))]);
    let callers = told["callers"].as_array().unwrap();
    assert_eq!((&callers[0]["caller"], &callers[0]["allowed"]), (&json!("reader"), &json!(false)));
    assert_eq!((&callers[1]["caller"], &callers[1]["allowed"]), (&json!("anyone"), &json!(true)));

    let table = stdout(&[&["explain", method, path], with_body.as_slice()].concat());
    assert!(table.contains("caller reader     refused: "), "{table}");
    let pace = "5 a second, 9 at once, 100 may wait up to 5 s";
    assert!(table.contains(&format!("caller anyone     allowed (batch, presumed long; {pace})")), "{table}");
    let without = stdout(&["explain", method, path]);
    assert!(without.contains("note: its body says what it does; give it with --body"), "{without}");

    let mut child = Command::new(env!("CARGO_BIN_EXE_weirkeeper"))
        .args(["explain", method, path, "--json", "--body", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(body.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["subrequests"].as_array().unwrap().len(), 2);
}

#[test]
fn explain_says_what_it_cannot_use() {
    for (arguments, words) in
        [(["G T", "/services/data/"], "is not an HTTP method"), (["GET", "services/data/"], "it must start with /")]
    {
        let ended = run(&[&["explain"], arguments.as_slice()].concat());
        assert_eq!(ended.code, Some(2));
        assert!(ended.err.contains(words), "{}", ended.err);
    }
    let setup = Setup::written("orgs: 7\n");
    let ended = run(&["explain", "GET", "/services/data/", "--config", setup.config_str()]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("weirkeeper.yaml:1:7: orgs: "), "{}", ended.err);
}

#[test]
fn the_version_is_told_both_ways() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(stdout(&["version"]).starts_with(&format!("weirkeeper {version} (")));
    assert_eq!(stdout(&["--version"]), format!("weirkeeper {version}"));
}

#[test]
fn a_wrong_command_is_explained_with_exit_code_2() {
    for arguments in [["sevre"].as_slice(), &["serve"], &["serve", "--config", "a", "--org", "b"], &["check"]] {
        let ended = run(arguments);
        assert_eq!((ended.code, ended.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(ended.err.contains("Usage: weirkeeper"), "{arguments:?}: {}", ended.err);
    }
    assert!(run(&["sevre"]).err.contains("serve"), "the verb that was meant is suggested");
}

#[test]
fn a_reader_that_stops_reading_is_no_reason_to_panic() {
    for verb in ["schema", "key", "version"] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weirkeeper"))
            .arg(verb)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""), "{verb}");
    }
}

const FREE_PORTS: [&str; 8] =
    ["--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--simulator", "127.0.0.1:0"];

#[test]
fn the_demo_runs_its_seconds_and_both_books_agree() {
    let ended = run(&[&["demo", "--seconds", "3"], FREE_PORTS.as_slice()].concat());
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.out);
    let books = ended.out.lines().last().unwrap();
    let numbers: Vec<u64> =
        books.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    assert!(books.contains("calls counted by the gateway"), "{books}");
    assert!(numbers.len() == 2 && numbers[0] == numbers[1] && numbers[0] > 10, "{books}");
    for caller in ["storefront", "billing", "nightly-sync"] {
        assert!(ended.out.contains(caller), "{}", ended.out);
    }
}

#[test]
fn the_demo_ends_cleanly_on_ctrl_c_and_leaves_no_folder() {
    let process = Process::start(&[&["demo"], FREE_PORTS.as_slice()].concat());
    let prefix = "  configuration, log   ";
    let folder = process.out.find(|line| line.strip_prefix(prefix).map(str::to_owned)).unwrap();
    assert!(std::fs::exists(&folder).unwrap());
    process.out.find(|line| line.contains("storefront").then_some(()));
    process.signal(rustix::process::Signal::INT);
    let ended = process.ended();
    assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{}", ended.out);
    assert!(!std::fs::exists(&folder).unwrap(), "{folder}");
}

#[test]
fn the_simulator_is_set_up_by_arguments_and_says_what_it_did() {
    let simulator = Simulator::with(&["--daily-limit", "7", "--records", "3", "--seed", "9"]);
    let counts = simulator.counts();
    assert_eq!((&counts["limit"], &counts["used"]), (&json!(7), &json!(0)));
    simulator.process.signal(rustix::process::Signal::TERM);
    let ended = simulator.process.ended();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.out.contains("user admin@sim.example"), "{}", ended.out);
    assert!(ended.out.ends_with("0 requests, 0 calls charged"), "{}", ended.out);

    let ended = run(&["simulate", "--listen", "127.0.0.1:0", "--speed", "-1"]);
    assert_ne!(ended.code, Some(0));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ended = run(&["simulate", "--listen", &address]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains(&address), "{}", ended.err);
}

#[test]
fn the_harness_writes_configurations_that_check_calls_fine() {
    let setup = Setup::written(&config("127.0.0.1:1".parse().unwrap(), ""));
    assert!(stdout(&["check", setup.config_str()]).contains(": fine"));
}
