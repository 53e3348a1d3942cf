//! Promise: the dashboards are as Grafana wants them, say what each panel shows, and no panel is ever empty: every expression
//! is put to a real Prometheus that scrapes a demo and a gateway with everything switched on.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use weirkeeper::clock::Clock;
use weirkeeper::config::key;

use super::{chart, files, known, ours, said};
use crate::blocking;
use crate::process::{Gateway, Process, Setup, Simulator, bearer, free_address, until};
use crate::redis::Redis;
use crate::tools::{Home, output};

/// Longer than Prometheus takes to see everything on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// File name and content of each dashboard.
fn boards() -> Vec<(String, Value)> {
    let boards = files(&chart().join("dashboards"), ".json");
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    };
    boards.into_iter().map(read).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Panel and expression of each query of a dashboard.
fn queries(board: &Value) -> Vec<(&Value, &str)> {
    let targets =
        list(&board["panels"]).iter().flat_map(|panel| list(&panel["targets"]).iter().map(move |t| (panel, t)));
    targets.map(|(panel, target)| (panel, target["expr"].as_str().unwrap())).collect()
}

#[test]
fn dashboards_are_as_grafana_wants_them() {
    let node = Home::new("charts").node(&ours(""));
    let script = ours("dashboards.cjs");
    // The modules stand where they were installed, so the script must stand there too.
    let there = node.join("dashboards.cjs");
    fs::copy(script, &there).unwrap();
    let check = |paths: &[PathBuf]| {
        let mut arguments = vec![there.to_str().unwrap(), node.to_str().unwrap()];
        arguments.extend(paths.iter().map(|path| path.to_str().unwrap()));
        output("node".as_ref(), &arguments, &node)
    };
    let all = files(&chart().join("dashboards"), ".json");
    assert_eq!(all.len(), 6);
    let checked = check(&all);
    assert!(checked.status.success(), "{}", said(&checked));

    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.json");
    let mut board = boards().remove(0).1;
    board["panels"][0]["descripton"] = "misspelt".into();
    fs::write(&broken, board.to_string()).unwrap();
    let checked = check(&[broken]);
    assert!(!checked.status.success() && said(&checked).contains("descripton"), "{}", said(&checked));
}

#[test]
fn every_panel_says_what_it_shows() {
    let mut titles = BTreeSet::new();
    for (name, board) in boards() {
        let variables: Vec<_> =
            list(&board["templating"]["list"]).iter().map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(variables, ["datasource", "org", "caller"], "{name}");
        assert!(titles.insert(board["uid"].to_string()) && name == format!("{}.json", board["uid"].as_str().unwrap()));
        let mut ids = BTreeSet::new();
        let mut places = BTreeSet::new();
        for panel in list(&board["panels"]) {
            let title = panel["title"].as_str().unwrap();
            let place = format!("{name}: {title}");
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{place}: id twice");
            assert!(
                panel["description"].as_str().is_some_and(|text| text.len() > 20 && text.ends_with('.')),
                "{place}"
            );
            let defaults = &panel["fieldConfig"]["defaults"];
            assert!(defaults["unit"].is_string(), "{place}: unit");
            assert!(!list(&defaults["thresholds"]["steps"]).is_empty(), "{place}: thresholds");
            assert!(!list(&panel["targets"]).is_empty(), "{place}: shows nothing");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{place}");
            let grid = &panel["gridPos"];
            let number = |key: &str| grid[key].as_u64().unwrap();
            for (x, y) in (number("x")..number("x") + number("w")).flat_map(|x| {
                let rows = number("y")..number("y") + number("h");
                rows.map(move |y| (x, y))
            }) {
                assert!(x < 24 && places.insert((x, y)), "{place}: lies over another at {x}, {y}");
            }
        }
        for (panel, expression) in queries(&board) {
            known(&format!("{name}: {}", panel["title"]), expression);
        }
    }
}

/// Ends a program that is not ours when dropped.
struct Ending(Child);

impl Drop for Ending {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Prometheus that scrapes these twice a second.
struct Prometheus {
    address: SocketAddr,
    _process: Ending,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn scraping(targets: &[SocketAddr]) -> Self {
        let program = Home::new("charts").debian("prometheus", "prometheus");
        let (folder, address) = (tempfile::tempdir().unwrap(), free_address());
        let targets: Vec<_> = targets.iter().map(SocketAddr::to_string).collect();
        // JSON is YAML.
        let config = json!({"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [
            {"job_name": "weirkeeper", "static_configs": [{"targets": targets}]}]});
        fs::write(folder.path().join("prometheus.yml"), config.to_string()).unwrap();
        let mut command = Command::new(program);
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).args([
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            &format!("--web.listen-address={address}"),
        ]);
        let process = Ending(command.spawn().unwrap());
        let prometheus = Self { address, _process: process, _folder: folder };
        until("Prometheus is ready", || {
            let answer = blocking::ask(address, "GET", "/-/ready", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
        prometheus
    }

    /// The values an expression has now; an error if it cannot be understood.
    fn values(&self, expression: &str) -> Result<Vec<f64>, String> {
        let path = format!("/api/v1/query?query={}", utf8_percent_encode(expression, NON_ALPHANUMERIC));
        let answer = blocking::ask(self.address, "GET", &path, &[], b"").unwrap().json();
        if answer["status"] != "success" {
            return Err(answer["error"].to_string());
        }
        let results = list(&answer["data"]["result"]).iter();
        Ok(results.map(|one| one["value"][1].as_str().unwrap().parse().unwrap()).collect())
    }
}

/// A gateway in which everything happens that dashboards show, in front of a simulator that is not always well.
struct Busy {
    gateway: Gateway,
    key: String,
    _simulator: Simulator,
    _store: Redis,
    _setup: Setup,
}

impl Busy {
    fn start() -> Self {
        let simulator = Simulator::start();
        simulator.fault(&json!({"method": "PATCH", "action": {"close": {"apply": true, "reset": false}}}));
        simulator.fault(&json!({"client": "single", "latency_ms": 100, "action": "none"}));
        let key = key::generate().unwrap().to_string();
        let (origin, store) = (format!("http://{}", simulator.address), Redis::start());
        let setup = Setup::written(&format!(
            "listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
runtimes: 1
state: {{redis: {{url: {{file: redis.url}}, keys: [{{file: redis.key}}]}}}}
policy: {{mode: observe}}
orgs:
- name: busy
  instance_url: '{origin}'
  login_url: '{origin}'
  hosts: [127.0.0.1]
  daily: {{poll: {{every: 1m}}}}
  auth: {{integration: {{flow: client_credentials, client_id: 3MVGsim.app, client_secret: {{file: app.secret}}}}}}
# Nobody calls it, so that it has to be asked what is used.
- name: idle
  instance_url: '{origin}'
  login_url: '{origin}'
  hosts: [idle.internal]
  daily: {{poll: {{every: 1m}}}}
  auth: {{integration: {{flow: client_credentials, client_id: 3MVGsim.app, client_secret: {{file: app.secret}}}}}}
callers:
- {{name: keyed, match: {{key_sha256: '{}'}}, act_as: integration, daily: {{ceiling: 10000}}}}
- {{name: paced, match: {{call_options_client: paced}}, pace: {{per_second: 4, burst: 1, queue: 1, wait: 2s}}}}
- {{name: single, match: {{call_options_client: single}}, in_flight: 1, allow: {{operations: [read]}}}}
- {{name: anyone, match: any}}
",
            key::sha256_hex(&key)
        ));
        setup.write("app.secret", "sim-app-secret");
        setup.write("redis.url", &store.url());
        setup.write("redis.key", "0123456789abcdef0123456789abcdef");
        let gateway = setup.serve();
        Self { gateway, key, _simulator: simulator, _store: store, _setup: setup }
    }

    /// One round of everything.
    fn round(&self) {
        let address = self.gateway.address();
        let query = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+LIMIT+1";
        let ask = |method, path: &str, headers: &[(&str, &str)], body: &str| {
            // How each of these ends is what the metrics tell.
            let _ = blocking::ask(address, method, path, headers, body.as_bytes());
        };
        let bearer = &bearer();
        thread::scope(|scope| {
            for client in ["client=paced", "client=single"].repeat(3) {
                let headers = [("authorization", bearer.as_str()), ("sforce-call-options", client)];
                scope.spawn(move || ask("GET", query, &headers, ""));
            }
        });
        let json = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        ask("PATCH", "/services/data/v62.0/sobjects/Account/001Wk0000000001IAA", &json, "{\"Name\":\"a\"}");
        let secret = utf8_percent_encode(&self.key, NON_ALPHANUMERIC);
        let form = format!("grant_type=client_credentials&client_id=a&client_secret={secret}");
        ask("POST", "/services/oauth2/token", &[("content-type", "application/x-www-form-urlencoded")], &form);
        let own = format!("Bearer {}", self.key);
        ask("GET", "/services/data/v62.0/sobjects/Account/describe", &[("authorization", &own)], "");
    }
}

#[test]
fn no_panel_is_empty() {
    let anywhere = ["--listen", "--listen-tls", "--admin", "--simulator"].map(|name| [name, "127.0.0.1:0"]).concat();
    let demo = Process::start(&[&["demo"], anywhere.as_slice()].concat());
    let operators = |line: &str| -> Option<SocketAddr> {
        line.trim().strip_prefix("operators")?.trim().strip_prefix("http://")?.split('/').next()?.parse().ok()
    };
    let demo_admin = demo.out.find(operators).expect("the demo says where operators connect");
    let busy = Busy::start();
    let prometheus = Prometheus::scraping(&[demo_admin, busy.gateway.admin]);

    let boards = boards();
    let mut open = Vec::new();
    for (name, board) in &boards {
        for (panel, expression) in queries(board) {
            let mut plain = expression.to_owned();
            for (variable, value) in
                [("$__rate_interval", "20s"), ("$__range", "5m"), ("$org", ".*"), ("$caller", ".*")]
            {
                plain = plain.replace(variable, value);
            }
            assert!(!plain.contains('$'), "{name}: {}: a variable nobody has: {plain}", panel["title"]);
            open.push((format!("{name}: {}", panel["title"]), plain));
        }
    }
    assert!(open.len() > 60, "{}", open.len());

    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                busy.round();
                thread::sleep(Duration::from_millis(100));
            }
        });
        let clock = Clock::start();
        let end = clock.now() + PATIENCE;
        while !open.is_empty() && clock.now() < end {
            open.retain(|(_, expression)| {
                let values = prometheus.values(expression);
                // Nothing that is not a number is shown.
                !values.is_ok_and(|values| values.iter().any(|value| value.is_finite()))
            });
            thread::sleep(Duration::from_millis(500));
        }
        ended.store(true, Ordering::Relaxed);
    });
    let empty: Vec<_> =
        open.iter().map(|(place, text)| format!("{place}: {:?}\n  {text}", prometheus.values(text))).collect();
    assert!(empty.is_empty(), "{}", empty.join("\n"));
}
