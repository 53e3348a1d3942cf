//! Promise: replicas that share one Redis share an org's places for calls that run long: together they never take more than
//! there are, also when one is killed, and nearly all of them when all want some.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::blocking;
use crate::process::{Gateway, Setup, Simulator, bearer, until};
use crate::redis::{Redis, Wire};

/// Of the org; one of them stays free.
const SLOTS: u64 = 5;
const CALLERS: usize = 30;
const PATH: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+WHERE+Name+LIKE+%27A%25%27";

struct Cluster {
    simulator: Simulator,
    redis: Redis,
    wire: Wire,
    setup: Setup,
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("sim.yaml");
        std::fs::write(&config, format!("long_running: {{slots: {SLOTS}, after_ms: 1000}}\n")).unwrap();
        let simulator = Simulator::with(&["--config", config.to_str().unwrap()]);
        simulator.fault(&json!({"latency_ms": 2_500, "family": "query"}));
        let redis = Redis::start();
        let wire = Wire::to(redis.port());
        let org = simulator.address;
        let setup = Setup::written(&format!(
            "listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
runtimes: 1
orgs:
- name: prod
  instance_url: 'http://{org}'
  long_running: {{slots: {SLOTS}, after: 1s, batch_at_most: 4, reserve: 0}}
callers: [{{name: etl, match: any, class: batch}}]
state: {{redis: {{url: {{env: REDIS_URL}}, keys: [{{env: REDIS_KEY}}]}}}}
cache: {{mode: off}}
log: {{access: off}}
"
        ));
        Self { simulator, redis, wire, setup }
    }

    fn replica(&self) -> Gateway {
        self.setup.serve_with(|command: &mut Command| {
            command.env("REDIS_URL", self.wire.url()).env("REDIS_KEY", "a secret of the replicas of this test");
        })
    }

    fn peak(&self) -> u64 {
        self.simulator.counts()["slots_peak"].as_u64().unwrap()
    }
}

/// What one replica says of the sharing.
fn shared(gateway: &Gateway) -> Value {
    gateway.admin("/api/v1/slots").unwrap().json()["orgs"][0]["shared"].clone()
}

fn granted(gateway: &Gateway) -> u64 {
    shared(gateway)["granted"].as_u64().unwrap()
}

/// Threads that make one long call after another.
struct Crowd {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    /// By Salesforce, for want of places.
    refused: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn at(addresses: &Arc<Mutex<Vec<SocketAddr>>>) -> Self {
        let (stop, served, refused) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::default());
        let threads = (0..CALLERS).map(|place| {
            let (stop, addresses) = (Arc::clone(&stop), Arc::clone(addresses));
            let (served, refused) = (Arc::clone(&served), Arc::<AtomicU64>::clone(&refused));
            std::thread::spawn(move || {
                let bearer = bearer();
                while !stop.load(Ordering::Relaxed) {
                    let address = {
                        let addresses = addresses.lock();
                        addresses[place % addresses.len()]
                    };
                    let headers = [("authorization", bearer.as_str())];
                    let Ok(answer) = blocking::ask(address, "GET", PATH, &headers, b"") else {
                        std::thread::sleep(Duration::from_millis(200));
                        continue;
                    };
                    if answer.status == 200 {
                        served.fetch_add(1, Ordering::Relaxed);
                    } else {
                        if answer.header("weirkeeper-refused").is_none() {
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                        std::thread::sleep(Duration::from_millis(200));
                    }
                }
            })
        });
        Self { threads: threads.collect(), stop, served, refused }
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Waits until so many more calls were answered.
    fn goes_on(&self, calls: u64) {
        let before = self.served();
        until("calls go on", || (self.served() >= before + calls).then_some(()));
    }

    fn ends(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.refused.load(Ordering::Relaxed)
    }
}

#[test]
fn three_replicas_take_all_places_but_one_and_never_that_whoever_is_killed() {
    let cluster = Cluster::new();
    let (first, second, third) = (cluster.replica(), cluster.replica(), cluster.replica());
    let addresses = Arc::new(Mutex::new(vec![first.address(), second.address(), third.address()]));
    let crowd = Crowd::at(&addresses);
    crowd.goes_on(24);
    assert_eq!((cluster.peak(), crowd.refused.load(Ordering::Relaxed)), (SLOTS - 1, 0));
    let all = || [&first, &second, &third].map(granted);
    let most = || {
        let all = all();
        (all.iter().sum::<u64>() == SLOTS - 1 && all.iter().all(|granted| *granted >= 1)).then_some(())
    };
    until("everybody has a part", most);
    assert_eq!(first.count("weirkeeper_long_running_granted", &["org=\"prod\""]), granted(&first));

    let gone = granted(&first);
    first.process.signal(Signal::KILL);
    addresses.lock().remove(0);
    // What it sent may still be worked on, so its places stay taken.
    let unheard = until("it is missed", || {
        let unheard = shared(&second)["unheard"].as_u64().unwrap();
        (unheard > 0).then_some(unheard)
    });
    assert!((1..=gone + 1).contains(&unheard), "{unheard} of {gone}");
    let successor = cluster.replica();
    addresses.lock().push(successor.address());
    crowd.goes_on(12);
    let left = [&second, &third, &successor].map(granted).iter().sum::<u64>();
    assert!(left <= SLOTS - 1 - unheard, "{left} beside {unheard}");

    // Who ends in good order leaves nothing behind.
    third.process.signal(Signal::TERM);
    addresses.lock().retain(|address| *address != third.address());
    assert_eq!(third.process.ended().code, Some(0));
    crowd.goes_on(6);
    until("others take what it had", || {
        let one = shared(&second);
        (granted(&second) + granted(&successor) == SLOTS - 1 - one["unheard"].as_u64().unwrap()).then_some(())
    });
    let refused = crowd.ends();
    assert_eq!((refused, cluster.peak()), (0, SLOTS - 1));
}

#[test]
fn long_calls_go_on_while_the_store_is_away_and_after_it_has_lost_its_data() {
    let mut cluster = Cluster::new();
    let (first, second) = (cluster.replica(), cluster.replica());
    let addresses = Arc::new(Mutex::new(vec![first.address(), second.address()]));
    let crowd = Crowd::at(&addresses);
    crowd.goes_on(12);
    cluster.wire.cut();
    first.event("slots_unshared");
    crowd.goes_on(12);
    cluster.wire.mend();
    first.event("slots_shared");
    crowd.goes_on(8);
    cluster.redis.restart_empty();
    let settling = |is: bool| (shared(&first)["settling"] == is).then_some(());
    until("it has lost its data", || settling(true));
    crowd.goes_on(4);
    until("everybody has spoken", || settling(false));
    crowd.goes_on(8);
    let both = || (granted(&first) + granted(&second) == SLOTS - 1).then_some(());
    until("they share again", both);
    let refused = crowd.ends();
    assert_eq!((refused, cluster.peak()), (0, SLOTS - 1));
}
