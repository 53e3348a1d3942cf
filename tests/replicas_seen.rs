//! Promise: replicas that share state know of each other, one of them asks Salesforce what is used, and another one does so
//! when it is gone; without their store they stay ready, and say what is missing.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use weirkeeper::clock::Clock;

use crate::process::{Gateway, Setup, Simulator, run, until};
use crate::redis::{Redis, Wire};

/// For so long a replica is elected at a time.
const LEASE: Duration = Duration::from_secs(20);
/// The longest time after which a replica that was killed is not seen any more.
const GONE: Duration = Duration::from_secs(14);

/// Of replicas before one simulator, which is to be asked what is used.
fn replicas(simulator: &Simulator) -> Setup {
    let origin = format!("http://{}", simulator.address);
    let setup = Setup::written(&format!(
        "listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
runtimes: 1
orgs:
- name: prod
  instance_url: '{origin}'
  login_url: '{origin}'
  hosts: [127.0.0.1]
  daily: {{mode: observe, poll: {{every: 1m}}}}
  auth: {{integration: {{flow: client_credentials, client_id: 3MVGsim.app, client_secret: {{file: app.secret}}}}}}
callers: [{{name: anyone, match: any}}]
state: {{redis: {{url: {{env: REDIS_URL}}, keys: [{{file: redis.key}}]}}}}
"
    ));
    setup.write("app.secret", "sim-app-secret");
    setup.write("redis.key", "0123456789abcdef0123456789abcdef");
    setup
}

/// A replica of this name that finds the store at `url`.
fn start(setup: &Setup, name: &str, url: &str) -> Gateway {
    setup.serve_with(|command| {
        command.envs([("HOSTNAME", name), ("REDIS_URL", url)]);
    })
}

fn shown(gateway: &Gateway) -> Value {
    gateway.admin("/api/v1/replicas").unwrap().json()
}

fn names(gateway: &Gateway) -> Vec<String> {
    let shown = shown(gateway);
    shown["replicas"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect()
}

fn asks(gateway: &Gateway) -> bool {
    let asks = shown(gateway)["orgs"][0]["asks"] == true;
    assert_eq!(gateway.measure("weirkeeper_poll_chair", &["org=\"prod\""]) > 0.0, asks);
    asks
}

/// How many questions reached Salesforce.
fn asked(simulator: &Simulator) -> u64 {
    simulator.counts()["charged"].as_u64().unwrap()
}

#[test]
fn three_are_seen_and_one_asks_whoever_is_killed() {
    let (simulator, mut redis) = (Simulator::start(), Redis::start());
    let setup = replicas(&simulator);
    let mut gateways: Vec<Gateway> = ["a", "b", "c"].iter().map(|name| start(&setup, name, &redis.url())).collect();
    for gateway in &gateways {
        until("three are seen", || (names(gateway) == ["a", "b", "c"]).then_some(()));
        assert!(gateway.count("weirkeeper_replicas", &[]) == 3 && gateway.count("weirkeeper_store_up", &[]) == 1);
    }
    until("somebody asks", || (asked(&simulator) > 0).then_some(()));
    let asking = |gateways: &[Gateway]| -> Vec<usize> {
        gateways.iter().enumerate().filter(|(_, gateway)| asks(gateway)).map(|(place, _)| place).collect()
    };
    let [chair] = asking(&gateways)[..] else { panic!("one asks: {:?}", asking(&gateways)) };
    // The others had time enough to ask as well.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((asked(&simulator), asking(&gateways)), (1, vec![chair]));

    let table = run(&["replicas", "--admin", &format!("http://{}", gateways[chair].admin)]);
    assert_eq!(table.code, Some(0), "{}", table.err);
    for words in ["store: up for", "on_loss: safe_share", "  this one", "\n  b  "] {
        assert!(table.out.contains(words), "{words} in\n{}", table.out);
    }

    let clock = Clock::start();
    let killed = gateways.remove(chair);
    let gone = names(&killed)[0..3].to_vec().remove(chair);
    killed.process.signal(Signal::KILL);
    let _ended = killed.process.ended();
    let begin = clock.now();
    for gateway in &gateways {
        until("two are left", || (!names(gateway).contains(&gone)).then_some(()));
        assert_eq!(names(gateway).len(), 2);
        assert!(clock.now() - begin < GONE, "{:?}", clock.now() - begin);
    }
    until("another one asks", || (asking(&gateways).len() == 1).then_some(()));
    println!("after {:?} another one asks", clock.now() - begin);
    until("it has asked", || (asked(&simulator) == 2).then_some(()));

    // One that ends cleanly hands over at once.
    let chair = asking(&gateways)[0];
    let leaving = gateways.remove(chair);
    leaving.process.signal(Signal::TERM);
    let begin = clock.now();
    until("the last one is alone", || (names(&gateways[0]).len() == 1).then_some(()));
    assert_eq!(leaving.process.ended().code, Some(0));
    until("it asks", || asks(&gateways[0]).then_some(()));
    assert!(clock.now() - begin < GONE, "{:?}", clock.now() - begin);
    println!("after {:?} the last one asks", clock.now() - begin);
    until("it has asked", || (asked(&simulator) == 3).then_some(()));

    // Without the store it knows that there was nobody else, and asks on.
    redis.kill();
    until("the loss is seen", || (gateways[0].count("weirkeeper_store_up", &[]) == 0).then_some(()));
    std::thread::sleep(LEASE);
    assert!(asks(&gateways[0]));
}

#[test]
fn who_is_cut_off_stops_asking_before_another_one_begins() {
    let (simulator, redis) = (Simulator::start(), Redis::start());
    let setup = replicas(&simulator);
    let wires = [Wire::to(redis.port()), Wire::to(redis.port())];
    let gateways = [("a", &wires[0]), ("b", &wires[1])].map(|(name, wire)| start(&setup, name, &wire.url()));
    for gateway in &gateways {
        until("two are seen", || (names(gateway).len() == 2).then_some(()));
    }
    let chair = until("one asks", || gateways.iter().position(asks));
    let (old, new) = (&gateways[chair], &gateways[1 - chair]);
    wires[chair].cut();
    let clock = Clock::start();
    let begin = clock.now();
    let mut stopped = None;
    until("the other one asks", || {
        // First the one that should have ended: it may end between the two looks, and not begin.
        let (newer, older) = (asks(new), asks(old));
        assert!(!(newer && older), "both ask after {:?}", clock.now() - begin);
        if !older {
            stopped.get_or_insert(clock.now() - begin);
        }
        newer.then_some(())
    });
    println!("stopped after {stopped:?}, another one asks after {:?}", clock.now() - begin);
    assert!(clock.now() - begin <= LEASE + Duration::from_secs(5));
    until("the other one is alone", || (names(new).len() == 1).then_some(()));
    assert!(!asks(old) && names(old).len() == 2, "it does not take itself for the only one");
    wires[chair].mend();
    for gateway in &gateways {
        until("they see each other again", || (names(gateway).len() == 2).then_some(()));
    }
    assert!(asks(new) && !asks(old));
}

#[test]
fn without_the_store_replicas_stay_ready_and_say_what_is_missing() {
    let (simulator, mut redis) = (Simulator::start(), Redis::start());
    let setup = replicas(&simulator);
    let gateways = ["a", "b"].map(|name| start(&setup, name, &redis.url()));
    for gateway in &gateways {
        until("two are seen", || (names(gateway).len() == 2).then_some(()));
        let ready = gateway.admin("/readyz").unwrap();
        assert_eq!((ready.status, &ready.json()["degraded"]), (200, &Value::Null));
    }
    redis.kill();
    for gateway in &gateways {
        let ready = until("the loss is seen", || {
            let ready = gateway.admin("/readyz").unwrap();
            assert_eq!(ready.status, 200, "{}", ready.text());
            (ready.json()["degraded"] == true).then(|| ready.json())
        });
        let check = ready["checks"].as_array().unwrap().iter().find(|check| check["name"] == "store").unwrap();
        assert!(check["ok"] == true && check["reason"].as_str().unwrap().contains("safe_share"), "{check}");
        assert_eq!(gateway.count("weirkeeper_store_up", &[]), 0);
        let shown = shown(gateway);
        assert_eq!((&shown["store"]["up"], names(gateway).len()), (&Value::Bool(false), 2), "as last known: {shown}");
        gateway.event("store_lost");
        assert_eq!(gateway.get("/services/data/v62.0/limits").unwrap().status, 200);
    }
    // One that is started meanwhile is ready as well, and knows of nobody else; it does not ask either.
    let late = start(&setup, "late", &redis.url());
    until("it is degraded", || (late.admin("/readyz").unwrap().json()["degraded"] == true).then_some(()));
    assert_eq!((names(&late), asks(&late)), (vec!["late".to_owned()], false));
    redis.restart_empty();
    for gateway in gateways.iter().chain([&late]) {
        until("all is well", || (names(gateway).len() == 3).then_some(()));
        until("and ready", || (gateway.admin("/readyz").unwrap().json()["degraded"] == Value::Null).then_some(()));
    }
    gateways[0].event("store_back");
}
