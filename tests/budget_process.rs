//! Promise: what was spent is remembered, whenever and however a gateway ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use weirkeeper::clock::Clock;

use crate::blocking;
use crate::process::{Setup, Simulator, bearer, run, until};

const CEILING: u64 = 1_000;

/// One caller; what is spent is remembered beside the configuration.
fn setup(simulator: &Simulator, daily: &str, share: &str) -> Setup {
    let org = simulator.address;
    Setup::written(&format!(
        "listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
runtimes: 2
orgs: [{{name: prod, instance_url: 'http://{org}', daily: {{{daily}}}}}]
callers: [{{name: etl, match: any, class: interactive, daily: {{{share}}}}}]
state: {{path: data}}
log: {{access: off}}
"
    ))
}

fn charged(simulator: &Simulator) -> u64 {
    simulator.counts()["charged"].as_u64().unwrap()
}

/// Threads that send calls to wherever the gateway is, until they are told to stop.
struct Crowd {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    /// Calls that were sent and got no answer: they were in flight when the gateway was killed.
    unanswered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn of(size: usize, at: &Arc<Mutex<SocketAddr>>, pause: Duration) -> Self {
        let mut crowd = Self {
            stop: Arc::default(),
            served: Arc::default(),
            refused: Arc::default(),
            unanswered: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..size {
            let (stop, at) = (Arc::clone(&crowd.stop), Arc::clone(at));
            let (served, refused) = (Arc::clone(&crowd.served), Arc::clone(&crowd.refused));
            let unanswered = Arc::clone(&crowd.unanswered);
            crowd.threads.push(std::thread::spawn(move || {
                let bearer = bearer();
                let mut line = None;
                while !stop.load(Ordering::Relaxed) {
                    let address = *at.lock();
                    let Ok(mut client) = line.take().map_or_else(|| blocking::Client::plain(address), Ok) else {
                        std::thread::sleep(Duration::from_millis(20));
                        continue;
                    };
                    let answer = client.ask("GET", "/services/data/v62.0/limits", &[("authorization", &bearer)], b"");
                    let count = match answer {
                        Ok(answer) => {
                            line = Some(client);
                            if answer.status == 200 { &served } else { &refused }
                        }
                        // The gateway was killed: the next one is asked.
                        Err(_) => &unanswered,
                    };
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(pause);
                }
            }));
        }
        crowd
    }

    fn ends(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        (self.served.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

#[test]
fn two_hundred_callers_spend_the_ceiling_and_not_one_call_more() {
    let simulator = Simulator::start();
    let setup = setup(&simulator, "limit: 50000", &format!("ceiling: {CEILING}"));
    let gateway = setup.serve();
    let crowd = Crowd::of(200, &Arc::new(Mutex::new(gateway.address())), Duration::ZERO);
    until("the ceiling is reached", || (crowd.served.load(Ordering::Relaxed) >= CEILING).then_some(()));
    until("many are refused", || (crowd.refused.load(Ordering::Relaxed) >= 500).then_some(()));
    let (served, refused) = crowd.ends();
    println!("{served} served, {refused} refused, {} charged", charged(&simulator));
    assert_eq!((served, charged(&simulator)), (CEILING, CEILING));

    let table = run(&["budget", "--admin", &format!("http://127.0.0.1:{}", gateway.admin.port())]);
    assert_eq!(table.code, Some(0), "{}", table.err);
    assert!(table.out.contains("prod (enforce") && table.out.contains("1,000"), "{}", table.out);
    let budget = gateway.admin("/api/v1/budget").unwrap().json();
    assert_eq!(budget["orgs"][0]["callers"][0]["used"], CEILING, "{budget}");
    let metrics = gateway.admin("/metrics").unwrap().text();
    let shown = |line: &str| line.starts_with("weirkeeper_caller_used{") && line.ends_with(" 1000");
    assert!(metrics.lines().any(shown), "{metrics}");

    // A clean stop gives everything back that was not spent, and forgets nothing that was.
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.ended().code, Some(0));
    let gateway = setup.serve();
    let refused = gateway.get("/services/data/v62.0/limits").unwrap();
    let message = refused.refused(403, "REQUEST_LIMIT_EXCEEDED", "caller_ceiling");
    assert!(message.contains("Enough come back by"), "{message}");
    assert_eq!(charged(&simulator), CEILING);
}

#[test]
fn ten_kills_while_calls_flow_lose_headroom_and_never_overshoot_the_org() {
    ten_kills(&format!("limit: {CEILING}, keep_free: 0%"), "");
}

#[test]
fn ten_kills_while_calls_flow_lose_headroom_and_never_overshoot_a_caller() {
    ten_kills("limit: 50000", &format!("ceiling: {CEILING}"));
}

fn ten_kills(daily: &str, share: &str) {
    const KILLS: usize = 10;
    let simulator = Simulator::start();
    let setup = setup(&simulator, daily, share);
    let mut gateway = setup.serve();
    let at = Arc::new(Mutex::new(gateway.address()));
    let clock = Clock::start();
    let begin = clock.now();
    let crowd = Crowd::of(8, &at, Duration::from_millis(120));
    for _ in 0..KILLS {
        std::thread::sleep(Duration::from_secs(1));
        gateway.process.signal(Signal::KILL);
        let _killed = gateway.process.ended();
        gateway = setup.serve();
        *at.lock() = gateway.address();
    }
    let paced = clock.now() - begin;
    until("the ceiling is reached", || {
        let before = crowd.refused.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(500));
        (crowd.refused.load(Ordering::Relaxed) >= before + 8).then_some(())
    });
    let unanswered = Arc::clone(&crowd.unanswered);
    let (served, refused) = crowd.ends();
    let in_flight = unanswered.load(Ordering::Relaxed);
    let budget = gateway.admin("/api/v1/budget").unwrap().json();
    let lost = budget["orgs"][0]["lost_leases"].as_u64().unwrap();
    let charged = charged(&simulator);
    println!(
        "{charged} of {CEILING} charged, {served} served, {refused} refused, {lost} lost with leases, {in_flight} in \
         flight at {KILLS} kills in {paced:?}"
    );
    assert!(paced >= Duration::from_secs(10), "{paced:?}");
    assert!(charged <= CEILING, "{charged}");
    // What may be missing: what the lost leases held, and calls that were counted and in flight at a kill.
    assert!(charged + lost + in_flight >= CEILING, "{charged} charged, {lost} lost, {in_flight} in flight");
}

#[test]
fn what_is_paused_is_not_sent_until_it_is_resumed_and_a_restart_does_not_resume_it() {
    let simulator = Simulator::start();
    let setup = setup(&simulator, "limit: 50000", "ceiling: 1000");
    let key = "an admin key for this test";
    let (key_file, digest) = (setup.path("key"), weirkeeper::config::key::sha256_hex(key));
    setup.write("key", key);
    let config = std::fs::read_to_string(setup.config_str()).unwrap();
    setup.write("weirkeeper.yaml", &config.replace("admin: {", &format!("admin: {{key_sha256: '{digest}', ")));
    let gateway = setup.serve();
    let order = |gateway: &crate::process::Gateway, verb: &str, whom: &[&str], key: bool| {
        let admin = format!("http://127.0.0.1:{}", gateway.admin.port());
        let mut words = vec![verb, "--admin", &admin, "--org", "prod"];
        words.extend(whom);
        let file = key_file.display().to_string();
        if key {
            words.extend(["--key-file", &file]);
        }
        run(&words)
    };
    assert_eq!(gateway.get("/services/data/v62.0/limits").unwrap().status, 200);
    let refused = order(&gateway, "pause", &["--caller", "etl"], false);
    assert!(refused.code == Some(1) && refused.err.contains("admin key"), "{}", refused.err);
    let unknown = order(&gateway, "pause", &["--caller", "nobody"], true);
    assert!(unknown.code == Some(1) && unknown.err.contains("No caller of this name"), "{}", unknown.err);
    let paused = order(&gateway, "pause", &["--caller", "etl"], true);
    assert_eq!((paused.code, paused.out.trim()), (Some(0), "paused: caller etl of prod"), "{}", paused.err);
    gateway.get("/services/data/v62.0/limits").unwrap().refused(503, "SERVER_UNAVAILABLE", "paused");
    // It is on record within a second; then a kill changes nothing about it.
    std::thread::sleep(Duration::from_millis(1_500));
    gateway.process.signal(Signal::KILL);
    let _killed = gateway.process.ended();
    let gateway = setup.serve();
    gateway.get("/services/data/v62.0/limits").unwrap().refused(503, "SERVER_UNAVAILABLE", "paused");
    assert_eq!(order(&gateway, "pause", &["--class", "interactive"], true).code, Some(0));
    assert_eq!(order(&gateway, "resume", &["--caller", "etl"], true).code, Some(0));
    gateway.get("/services/data/v62.0/limits").unwrap().refused(503, "SERVER_UNAVAILABLE", "paused");
    assert_eq!(order(&gateway, "resume", &["--class", "interactive"], true).code, Some(0));
    assert_eq!(gateway.get("/services/data/v62.0/limits").unwrap().status, 200);
}
