//! Promise: what is changed by way of one replica is not answered from another one's memory; and a replica that may have
//! missed something answers nothing from memory until it knows.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use weirkeeper::clock::Clock;

use crate::blocking::{self, Answer};
use crate::process::{Gateway, Setup, Simulator, bearer, until};
use crate::redis::{Redis, Wire};

const QUERY: &str = "/services/data/v62.0/query?q=SELECT+Id,NumberOfEmployees+FROM+Account+ORDER+BY+Id+LIMIT+1";
const OTHER: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Lead+LIMIT+1";
const ADMIN_KEY: &str = "an admin key for this test";
/// How long it is certain that nothing was missed (`SILENCE` in `src/answers/shared`).
const SILENCE: Duration = Duration::from_secs(3);

/// Salesforce, a store, and replicas with a wire of their own to it.
struct House {
    simulator: Simulator,
    redis: Redis,
    setup: Setup,
}

struct Replica {
    gateway: Gateway,
    wire: Wire,
}

impl House {
    fn new() -> Self {
        let simulator = Simulator::start();
        let org = simulator.address;
        let setup = Setup::written(&format!(
            "listeners: [{{address: 127.0.0.1:0}}]
admin: {{key_sha256: '{}', address: 127.0.0.1:0}}
runtimes: 1
principal_key: {{env: PRINCIPAL_KEY}}
orgs: [{{name: prod, instance_url: 'http://{org}', daily: {{mode: off}}}}]
cache: {{entries: [{{match: {{objects: [Account, Lead], operations: [query, read]}}, fresh: 1h}}]}}
retry: {{mode: off}}
state: {{redis: {{url: {{env: REDIS_URL}}, keys: [{{env: REDIS_KEY}}]}}}}
log: {{access: off}}
",
            weirkeeper::config::key::sha256_hex(ADMIN_KEY)
        ));
        Self { simulator, redis: Redis::start(), setup }
    }

    fn replica(&self) -> Replica {
        let wire = Wire::to(self.redis.port());
        let gateway = self.setup.serve_with(|command| {
            command
                .env("REDIS_URL", wire.url())
                .env("REDIS_KEY", "a secret of the replicas of this test")
                .env("PRINCIPAL_KEY", "another secret of theirs");
        });
        Replica { gateway, wire }
    }
}

fn is_kept(answer: &Answer) -> bool {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("cache-status").is_some_and(|status| status.starts_with("weirkeeper;hit"))
}

impl Replica {
    fn get(&self, path: &str) -> Answer {
        self.gateway.get(path).unwrap()
    }

    fn doubts(&self) -> bool {
        self.gateway.count("weirkeeper_generations_doubt", &["org=\"prod\""]) == 1
    }

    /// Waits until it answers from memory, which it does as soon as it is certain.
    fn remembers(&self) {
        until("it is certain", || (!self.doubts()).then_some(()));
        until("it answers from memory", || (is_kept(&self.get(QUERY)) && is_kept(&self.get(OTHER))).then_some(()));
    }

    /// The record, and how many work there.
    fn read(&self) -> (String, i64, bool) {
        let answer = self.get(QUERY);
        let kept = is_kept(&answer);
        let record = &answer.json()["records"][0];
        (record["Id"].as_str().unwrap().to_owned(), record["NumberOfEmployees"].as_i64().unwrap_or(-1), kept)
    }

    fn write(&self, id: &str, value: i64) {
        let path = format!("/services/data/v62.0/sobjects/Account/{id}");
        let headers = [("authorization", &*bearer()), ("content-type", "application/json")];
        let body = json!({"NumberOfEmployees": value}).to_string();
        let answer = blocking::ask(self.gateway.address(), "PATCH", &path, &headers, body.as_bytes()).unwrap();
        assert_eq!(answer.status, 204, "{}", answer.text());
    }

    /// Nothing is answered from memory, and what is answered is right.
    fn misses(&self, value: i64) {
        for _ in 0..3 {
            let answer = self.get(QUERY);
            assert!(!is_kept(&answer));
            assert_eq!(answer.header("cache-status"), Some("weirkeeper;fwd=miss;detail=doubt"));
            assert_eq!(self.read().1, value);
        }
    }
}

#[test]
fn what_one_replica_changes_another_does_not_answer_from_memory() {
    let house = House::new();
    let (a, b) = (house.replica(), house.replica());
    a.remembers();
    b.remembers();
    let (id, ..) = b.read();
    let clock = Clock::start();
    let (mut at_once, mut longest) = (0, Duration::ZERO);
    for value in 1..=30 {
        until("it is kept", || b.read().2.then_some(()));
        a.write(&id, value);
        let written = clock.now();
        at_once += u8::from(b.read().1 == value);
        until("the other knows", || (b.read().1 == value).then_some(()));
        longest = longest.max(clock.now().saturating_duration_since(written));
        assert!(is_kept(&b.get(OTHER)), "nothing else is old");
    }
    println!("{at_once} of 30 right at once, the last after {longest:?}");
    assert!(longest < SILENCE, "{longest:?}");
    until("all of it is counted", || {
        let events = |replica: &Replica, direction| {
            replica.gateway.count("weirkeeper_generation_events_total", &["org=\"prod\"", direction]) >= 60
        };
        (events(&a, "direction=\"sent\"") && events(&b, "direction=\"received\"")).then_some(())
    });

    // What an operator orders, and a session that ends.
    b.remembers();
    let purge = "/api/v1/cache/purge?org=prod&object=Account";
    let key = format!("Bearer {ADMIN_KEY}");
    let purged = blocking::ask(a.gateway.admin, "POST", purge, &[("authorization", &key)], b"").unwrap();
    assert_eq!(purged.status, 200, "{}", purged.text());
    until("the purge is known", || (!is_kept(&b.get(QUERY))).then_some(()));
    assert!(is_kept(&b.get(OTHER)));
    b.remembers();
    let over = json!({"error": {"status": 401, "code": "INVALID_SESSION_ID", "message": "Session expired or invalid"}});
    house.simulator.fault(&json!({"times": 1, "action": over}));
    assert_eq!(a.get("/services/data/v62.0/sobjects/Contact").status, 401);
    until("the end of the session is known", || (!is_kept(&b.get(OTHER))).then_some(()));

    // Who leaves in order leaves no doubt.
    b.remembers();
    a.gateway.process.signal(Signal::TERM);
    until("it is gone", || a.gateway.admin("/readyz").is_err().then_some(()));
    let (clock, gone) = (Clock::start(), Clock::start().now());
    while clock.now() < gone + SILENCE * 2 {
        assert!(is_kept(&b.get(QUERY)) && !b.doubts());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(b.gateway.status()["generations"][0]["replicas"], 0);
}

#[test]
fn a_replica_that_hears_nothing_answers_nothing_from_memory() {
    let house = House::new();
    let (a, b) = (house.replica(), house.replica());
    a.remembers();
    b.remembers();
    let (id, ..) = b.read();
    b.wire.cut();
    until("it knows that it hears nothing", || b.doubts().then_some(()));
    a.write(&id, 71);
    b.misses(71);
    // Neither does who is left, until it presumes that nobody else is there.
    until("the other one waits for it", || a.doubts().then_some(()));
    b.write(&id, 72);
    a.misses(72);
    b.wire.mend();
    b.remembers();
    a.remembers();
    assert_eq!((a.read().1, b.read().1), (72, 72));
    a.write(&id, 73);
    until("the other knows", || (b.read().1 == 73).then_some(()));
    let why = b.gateway.event("generations_certain");
    assert_eq!(why["org"], "prod");

    // The store stops for a while, and all know that they hear nothing. Nothing was missed.
    house.redis.pause();
    until("both know", || (a.doubts() && b.doubts()).then_some(()));
    a.write(&id, 74);
    b.misses(74);
    house.redis.resume();
    b.remembers();
    assert_eq!(b.read().1, 74);
}

#[test]
fn a_replica_that_dies_is_waited_for_and_its_writes_are_in_doubt() {
    let mut house = House::new();
    let (a, b) = (house.replica(), house.replica());
    a.remembers();
    b.remembers();
    let (id, ..) = b.read();
    // It dies while a write of it is in the air.
    house.simulator.fault(&json!({"times": 1, "method": "PATCH", "latency_ms": 6000, "action": "none"}));
    let headers = [("authorization", &*bearer()), ("content-type", "application/json")];
    let path = format!("/services/data/v62.0/sobjects/Account/{id}");
    let mut writer = blocking::Client::plain(a.gateway.address()).unwrap();
    writer.send("PATCH", &path, &headers, json!({"NumberOfEmployees": 81}).to_string().as_bytes()).unwrap();
    until("the other knows that it is in the air", || {
        (b.get(QUERY).header("cache-status") == Some("weirkeeper;fwd=miss;detail=changing")).then_some(())
    });
    a.gateway.process.signal(Signal::KILL);
    until("it is missed", || b.doubts().then_some(()));
    assert!(!is_kept(&b.get(OTHER)));
    b.gateway.event("replica_presumed_dead");
    until("the rest is certain again", || (!b.doubts() && is_kept(&b.get(OTHER))).then_some(()));
    let answer = b.get(QUERY);
    assert_eq!(answer.header("cache-status"), Some("weirkeeper;fwd=miss;detail=changing"), "nobody knows its end");
    // Who takes its place is told.
    let c = house.replica();
    until("it is certain", || (!c.doubts() && is_kept(&c.get(OTHER))).then_some(()));
    assert_eq!(c.get(QUERY).header("cache-status"), Some("weirkeeper;fwd=miss;detail=changing"));

    // The store loses everything, which is not much.
    house.redis.restart_empty();
    b.gateway.event("generations_missed");
    until("all are certain", || (!b.doubts() && !c.doubts()).then_some(()));
    until("they remember", || (is_kept(&b.get(OTHER)) && is_kept(&c.get(OTHER))).then_some(()));
    assert!(b.gateway.count("weirkeeper_generation_gaps_total", &[]) >= 2);
}
