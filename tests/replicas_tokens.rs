//! Promise: replicas log in together, once for all, and what they share of it nobody else can read.

use std::net::SocketAddr;
use std::sync::{Arc, Barrier};
use std::time::Duration;

use weirkeeper::config::key;
use weirkeeper::sim::{ORG_ID, Sim, SimConfig, SimSessions};

use crate::blocking;
use crate::process::{Gateway, Setup, until};
use crate::redis::Redis;
use crate::world::small;

const PATH: &str = "/services/data/v62.0/limits";
const SECRET: &str = "a secret that all replicas have in common";
const REPLICAS: usize = 3;

/// A simulated Salesforce in this process, a store, and an app that has no account at Salesforce.
struct House {
    sim: Sim,
    org: SocketAddr,
    redis: Redis,
    key: String,
    /// Salesforce ends with it.
    _open: tokio::sync::oneshot::Sender<()>,
}

impl House {
    fn new() -> Self {
        let sessions = SimSessions { idle_seconds: 3_600, ..SimSessions::default() };
        let sim = Sim::new(SimConfig { sessions, ..small() });
        let (tell, told) = std::sync::mpsc::channel();
        let (open, ended) = tokio::sync::oneshot::channel::<()>();
        let listening = sim.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listening = listening.listen(([127, 0, 0, 1], 0).into()).await.unwrap();
                tell.send(listening.local_addr).unwrap();
                let _ = ended.await;
            });
        });
        let org = told.recv().unwrap();
        Self { sim, org, redis: Redis::start(), key: key::generate().unwrap().to_string(), _open: open }
    }

    /// One more replica, which has this secret in common with others.
    fn replica(&self, secret: &str) -> Gateway {
        let (org, digest) = (self.org, key::sha256_hex(&self.key));
        let setup = Setup::written(&format!(
            "listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
runtimes: 1
orgs:
- name: prod
  instance_url: 'http://{org}'
  public_url: 'https://sf.acme.internal'
  auth:
    integration: {{flow: client_credentials, client_id: 3MVGsim.app, client_secret: {{file: app-secret}}}}
callers:
- {{name: shop, match: {{key_sha256: '{digest}'}}, act_as: integration}}
state: {{redis: {{url: {{file: url}}, keys: [{{file: secret}}], timeout: 500ms}}}}
log: {{access: off}}
"
        ));
        setup.write("app-secret", "sim-app-secret");
        setup.write("url", &self.redis.url());
        setup.write("secret", secret);
        setup.serve()
    }

    fn replicas(&self) -> Vec<Gateway> {
        (0..REPLICAS).map(|_| self.replica(SECRET)).collect()
    }

    fn logins(&self) -> u64 {
        self.sim.counts().logins
    }

    /// Every session at Salesforce ends.
    fn end_sessions(&self) {
        self.sim.script().advance(Duration::from_hours(2));
    }

    fn call(&self, address: SocketAddr) -> u16 {
        call(address, &self.key)
    }

    /// `count` calls, at the same moment, over all replicas.
    fn calls_at_once(&self, replicas: &[Gateway], count: usize) -> Vec<u16> {
        let barrier = Arc::new(Barrier::new(count));
        let threads: Vec<_> = (0..count)
            .map(|n| {
                let (barrier, key) = (Arc::clone(&barrier), self.key.clone());
                let address = replicas[n % replicas.len()].address();
                std::thread::spawn(move || {
                    barrier.wait();
                    call(address, &key)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    /// All that lies in the store.
    fn everything(&self) -> String {
        let keys = self.redis.command("KEYS *");
        let names: Vec<&str> = keys.lines().filter(|line| line.starts_with('{')).collect();
        assert!(names.iter().any(|name| name.contains("token:integration")), "{names:?}");
        let values = names.iter().map(|name| {
            if self.redis.command(&format!("TYPE {name}")).contains("hash") {
                self.redis.command(&format!("HGETALL {name}"))
            } else {
                self.redis.command(&format!("GET {name}"))
            }
        });
        let values: Vec<String> = values.collect();
        format!("{keys}{}", values.join("\n"))
    }
}

fn call(address: SocketAddr, key: &str) -> u16 {
    blocking::ask(address, "GET", PATH, &[("authorization", &format!("Bearer {key}"))], b"").unwrap().status
}

fn shares(replicas: &[Gateway], result: &str) -> u64 {
    let label = format!("result=\"{result}\"");
    replicas.iter().map(|replica| replica.count("weirkeeper_token_shares_total", &[&label])).sum()
}

#[test]
fn a_hundred_calls_with_an_ended_session_over_three_replicas_make_one_log_in() {
    let house = House::new();
    let replicas = house.replicas();
    assert_eq!(house.calls_at_once(&replicas, REPLICAS), [200; REPLICAS]);
    assert_eq!(house.logins(), 1);
    until("it is told", || (shares(&replicas, "published") == 1).then_some(()));

    house.end_sessions();
    assert_eq!(house.calls_at_once(&replicas, 100), [200; 100]);
    assert_eq!(house.logins(), 2);
    until("it is told", || (shares(&replicas, "published") == 2).then_some(()));
    assert_eq!(shares(&replicas, "adopted"), 4);
    let refreshed = |replica: &Gateway| replica.count("weirkeeper_tokens_refreshed_total", &["result=\"ok\""]);
    assert_eq!(replicas.iter().map(refreshed).sum::<u64>(), 2);

    // What lies in the store names neither the token nor its user, nor anything they are made from.
    let everything = house.everything();
    assert!(everything.contains("sealed"), "{everything}");
    for secret in [ORG_ID, "sim-app-secret", "3MVGsim.app", SECRET, &house.key] {
        assert!(!everything.contains(secret), "{secret} is in {everything}");
    }

    // A new replica needs no log-in; one with another secret reads nothing, and makes its own.
    let late = house.replica(SECRET);
    assert_eq!((house.call(late.address()), house.logins()), (200, 2));
    let stranger = house.replica("another secret that nobody else has got");
    assert_eq!((house.call(stranger.address()), house.logins()), (200, 3));
    assert_eq!(shares(std::slice::from_ref(&stranger), "unreadable"), 1);
}

#[test]
fn without_the_store_calls_go_on_and_afterwards_replicas_log_in_together_again() {
    let mut house = House::new();
    let replicas = house.replicas();
    assert_eq!(house.calls_at_once(&replicas, REPLICAS), [200; REPLICAS]);
    house.redis.kill();
    assert_eq!(house.calls_at_once(&replicas, 30), [200; 30], "who has a token asks nobody");
    assert_eq!(house.logins(), 1);

    house.end_sessions();
    assert_eq!(house.calls_at_once(&replicas, 30), [200; 30]);
    assert_eq!(house.logins(), 1 + REPLICAS as u64, "each for itself");
    assert_eq!(shares(&replicas, "store_down"), REPLICAS as u64);

    house.redis.restart_empty();
    until("they told each other", || (shares(&replicas, "published") > 1).then_some(()));
    // Each looks up a few seconds later what the others told.
    until("all have the same token", || {
        let late = shares(&replicas, "adopted") >= 2 + REPLICAS as u64 - 1;
        if !late {
            std::thread::sleep(Duration::from_secs(1));
        }
        late.then_some(())
    });
    // A second new token in a row that is rejected within ten seconds would make all of them wait.
    std::thread::sleep(Duration::from_secs(11));
    house.end_sessions();
    assert_eq!(house.calls_at_once(&replicas, 30), [200; 30]);
    assert_eq!(house.logins(), 2 + REPLICAS as u64);
}

#[test]
fn a_gateway_token_of_one_replica_is_good_for_the_others_and_for_no_stranger() {
    let house = House::new();
    let (first, second) = (house.replica(SECRET), house.replica(SECRET));
    let stranger = house.replica("another secret that nobody else has got");
    let form = format!("grant_type=client_credentials&client_id=shop&client_secret={}", house.key);
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let path = "/services/oauth2/token";
    let answer = blocking::ask(first.address(), "POST", path, &headers, form.as_bytes()).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let token = answer.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(call(second.address(), &token), 200);
    assert_eq!(call(stranger.address(), &token), 401);
}
