//! Promise: replicas that share one Redis spend one allowance: together never one call beyond it, whatever dies, and close
//! to all of it.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;
use weirkeeper::clock::Clock;

use crate::blocking;
use crate::process::{Gateway, Setup, Simulator, bearer, until};
use crate::redis::{Redis, Wire};

/// Of the org.
const CEILING: u64 = 3_000;
const REPLICAS: usize = 3;
const CALLERS: usize = 300;
const PATH: &str = "/services/data/v62.0/limits";

/// Where a pseudo-random run stands.
struct Chance(u64);

impl Chance {
    /// Says its seed, which `WEIRKEEPER_SEED` sets.
    fn new() -> Self {
        let clock = Clock::start();
        let set = std::env::var("WEIRKEEPER_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = set.unwrap_or(clock.wall(clock.now()).as_nanos() as u64);
        println!("WEIRKEEPER_SEED={seed}");
        Self(seed | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// Simulator, Redis behind a wire, and what every replica is started with.
struct Cluster {
    simulator: Simulator,
    redis: Redis,
    wire: Wire,
    setup: Setup,
}

impl Cluster {
    fn new(daily: &str, share: &str, on_loss: &str) -> Self {
        let simulator = Simulator::with(&["--daily-limit", "1000000"]);
        let redis = Redis::start();
        let wire = Wire::to(redis.port());
        let org = simulator.address;
        let setup = Setup::written(&format!(
            "listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
runtimes: 1
orgs: [{{name: prod, instance_url: 'http://{org}', daily: {{{daily}}}}}]
callers: [{{name: etl, match: any, class: interactive, daily: {{{share}}}}}]
state: {{redis: {{url: {{env: REDIS_URL}}, keys: [{{env: REDIS_KEY}}]}}, on_loss: {on_loss}}}
cache: {{mode: off}}
log: {{access: off}}
"
        ));
        Self { simulator, redis, wire, setup }
    }

    /// A replica that may be used.
    fn replica(&self) -> Gateway {
        self.setup.serve_with(|command| self.tell(command))
    }

    /// One of which nobody knows whether it may.
    fn newborn(&self) -> Gateway {
        self.setup.start_with(|command| self.tell(command))
    }

    fn tell(&self, command: &mut Command) {
        command.env("REDIS_URL", self.wire.url()).env("REDIS_KEY", "a secret of the replicas of this test");
    }

    fn charged(&self) -> u64 {
        self.simulator.counts()["charged"].as_u64().unwrap()
    }
}

fn budget(gateway: &Gateway) -> serde_json::Value {
    gateway.admin("/api/v1/budget").unwrap().json()["orgs"][0].clone()
}

/// Nothing is leased while replicas that remember more than an empty store could still say so.
fn begins(gateway: &Gateway) {
    until("calls go on", || (spend(gateway, 1).0 == 1).then_some(()));
}

fn own(gateway: &Gateway) -> u64 {
    budget(gateway)["own"].as_u64().unwrap()
}

/// Sends calls one after another until one is refused; returns how many were answered and why that one was not.
fn spend(gateway: &Gateway, most: u64) -> (u64, String) {
    for served in 0..most {
        let answer = gateway.get(PATH).unwrap();
        if answer.status != 200 {
            return (served, answer.header("weirkeeper-refused").unwrap_or("by Salesforce").to_owned());
        }
    }
    (most, String::new())
}

/// Threads that send calls to the replicas, each to its own as long as that answers, until they are told to stop.
struct Crowd {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    /// Milliseconds between two calls of one thread.
    pause: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    fn of(size: usize, at: &Arc<Mutex<Vec<SocketAddr>>>, pause: Duration) -> Self {
        let mut crowd = Self {
            stop: Arc::default(),
            served: Arc::default(),
            refused: Arc::default(),
            pause: Arc::new(AtomicU64::new(pause.as_millis() as u64)),
            threads: Vec::new(),
        };
        for nth in 0..size {
            let (stop, at, pause) = (Arc::clone(&crowd.stop), Arc::clone(at), Arc::clone(&crowd.pause));
            let (served, refused) = (Arc::clone(&crowd.served), Arc::clone(&crowd.refused));
            crowd.threads.push(std::thread::spawn(move || {
                let bearer = bearer();
                let (mut line, mut place) = (None, nth);
                // They do not all call at the same time.
                let mut wait = pause.load(Ordering::Relaxed) * nth as u64 / size as u64;
                while !stop.load(Ordering::Relaxed) {
                    while wait > 0 && !stop.load(Ordering::Relaxed) {
                        let step = wait.min(50);
                        std::thread::sleep(Duration::from_millis(step));
                        wait = (wait - step).min(pause.load(Ordering::Relaxed));
                    }
                    wait = pause.load(Ordering::Relaxed);
                    let address = {
                        let at = at.lock();
                        at[place % at.len()]
                    };
                    let Ok(mut client) = line.take().map_or_else(|| blocking::Client::plain(address), Ok) else {
                        // As a Service would: another one is asked.
                        place += 1;
                        wait = wait.max(50);
                        continue;
                    };
                    // A call that was in flight when its replica was killed is neither.
                    if let Ok(answer) = client.ask("GET", PATH, &[("authorization", &bearer)], b"") {
                        line = Some(client);
                        let count = if answer.status == 200 { &served } else { &refused };
                        count.fetch_add(1, Ordering::Relaxed);
                        if answer.status != 200 {
                            wait = wait.max(20);
                        }
                    }
                }
            }));
        }
        crowd
    }

    fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Calls go on until none was served for a while although many asked.
    fn is_dry(&self, patience: Duration) {
        let clock = Clock::start();
        let (mut since, mut served, mut refused) = (clock.now(), self.served(), self.refused());
        until("the allowance is spent", || {
            if self.served() > served {
                (since, served, refused) = (clock.now(), self.served(), self.refused());
            }
            let many = self.refused() >= refused + 2 * CALLERS as u64;
            (many && clock.now() >= since + patience).then_some(())
        });
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
fn three_replicas_and_three_hundred_callers_spend_the_ceiling_and_not_one_call_more() {
    let cluster = Cluster::new(&format!("limit: {CEILING}, keep_free: 0%"), "", "safe_share");
    let replicas: Vec<_> = (0..REPLICAS).map(|_| cluster.replica()).collect();
    let at = Arc::new(Mutex::new(replicas.iter().map(Gateway::address).collect()));
    let crowd = Crowd::of(CALLERS, &at, Duration::ZERO);
    crowd.is_dry(Duration::from_secs(3));
    let (served, refused) = crowd.ends();
    let charged = cluster.charged();
    println!("{charged} of {CEILING} charged, {served} served, {refused} refused");
    assert_eq!(charged, served);
    assert!((CEILING * 98 / 100..=CEILING).contains(&charged), "{charged}");
    // All of them say the same, and it is what Salesforce counted.
    for replica in &replicas {
        until("the replicas agree", || (own(replica) == charged).then_some(()));
    }
}

#[test]
fn one_callers_ceiling_holds_over_three_replicas() {
    const OWN: u64 = 600;
    let cluster = Cluster::new("limit: 50000", &format!("ceiling: {OWN}"), "safe_share");
    let replicas: Vec<_> = (0..REPLICAS).map(|_| cluster.replica()).collect();
    let at = Arc::new(Mutex::new(replicas.iter().map(Gateway::address).collect()));
    let crowd = Crowd::of(60, &at, Duration::ZERO);
    crowd.is_dry(Duration::from_secs(3));
    let (served, refused) = crowd.ends();
    let charged = cluster.charged();
    println!("{charged} of {OWN} charged, {served} served, {refused} refused");
    assert!((OWN * 98 / 100..=OWN).contains(&charged), "{charged}");
}

/// Kills replicas, and does to Redis and the way to it what happens to them.
struct Havoc<'a> {
    cluster: &'a mut Cluster,
    replicas: Vec<Option<Gateway>>,
    at: Arc<Mutex<Vec<SocketAddr>>>,
    chance: Chance,
}

impl Havoc<'_> {
    fn kill_one(&mut self) {
        let place = self.chance.below(REPLICAS as u64) as usize;
        let killed = self.replicas[place].take().unwrap();
        killed.process.signal(Signal::KILL);
        let _killed = killed.process.ended();
        let newborn = self.cluster.newborn();
        self.at.lock()[place] = newborn.address();
        self.replicas[place] = Some(newborn);
    }

    /// Time passes, in which a replica may die, too.
    fn meanwhile(&mut self, time: Duration) {
        std::thread::sleep(time / 2);
        if self.chance.below(3) == 0 {
            println!("    a replica is killed meanwhile");
            self.kill_one();
        }
        std::thread::sleep(time / 2);
    }

    /// Data are lost now and then, for little is granted for long after that.
    fn strikes_anew(&mut self) {
        let kinds = [0, 0, 0, 0, 1, 2, 3, 3, 3, 3];
        let kind = kinds[self.chance.below(kinds.len() as u64) as usize];
        self.strikes(kind);
    }

    fn strikes(&mut self, kind: u64) {
        match kind {
            0 => {
                println!("a replica is killed");
                self.kill_one();
            }
            1 => {
                let time = self.chance.millis(200, 3_000);
                println!("Redis is killed, and is back empty after {time:?}");
                self.cluster.redis.kill();
                self.meanwhile(time);
                self.cluster.redis.restart_empty();
            }
            2 => {
                println!("Redis is paused for 5 s");
                self.cluster.redis.pause();
                self.meanwhile(Duration::from_secs(5));
                self.cluster.redis.resume();
            }
            _ => {
                let time = self.chance.millis(200, 4_000);
                println!("connections to Redis are cut for {time:?}");
                self.cluster.wire.cut();
                self.meanwhile(time);
                self.cluster.wire.mend();
            }
        }
        std::thread::sleep(self.chance.millis(300, 1_500));
    }
}

#[test]
fn whatever_dies_not_one_call_is_sent_beyond_the_ceiling() {
    const KINDS: u64 = 4;
    let mut cluster = Cluster::new(&format!("limit: {CEILING}, keep_free: 0%"), "", "safe_share");
    let replicas: Vec<_> = (0..REPLICAS).map(|_| cluster.replica()).collect();
    let at = Arc::new(Mutex::new(replicas.iter().map(Gateway::address).collect()));
    let clock = Clock::start();
    let begin = clock.now();
    let crowd = Crowd::of(CALLERS, &at, Duration::from_millis(2_500));
    let replicas = replicas.into_iter().map(Some).collect();
    let mut havoc = Havoc { cluster: &mut cluster, replicas, at, chance: Chance::new() };
    std::thread::sleep(Duration::from_secs(1));
    let first = havoc.chance.below(KINDS);
    for nth in 0..KINDS {
        havoc.strikes((first + nth) % KINDS);
    }
    while clock.now() < begin + Duration::from_secs(25) {
        havoc.strikes_anew();
    }
    // What is left is spent in a hurry, while things still happen.
    crowd.pause.store(0, Ordering::Relaxed);
    while clock.now() < begin + Duration::from_secs(40) {
        havoc.strikes_anew();
    }
    let replicas = havoc.replicas;
    let (served, refused) = crowd.ends();
    let charged = cluster.charged();
    println!("{charged} of {CEILING} charged, {served} served, {refused} refused in {:?}", clock.now() - begin);
    assert!(charged <= CEILING, "{charged}");
    assert!(charged >= CEILING / 10, "{charged}: hardly anything was tried");
    drop(replicas);
}

#[test]
fn without_redis_replicas_go_on_for_a_bounded_share_and_nothing_counts_twice_afterwards() {
    let cluster = Cluster::new(&format!("limit: {CEILING}, keep_free: 0%"), "", "safe_share");
    let replicas: Vec<_> = (0..REPLICAS).map(|_| cluster.replica()).collect();
    for replica in &replicas {
        begins(replica);
        assert_eq!(spend(replica, 50).0, 50);
    }
    // All of them know of each other.
    for replica in &replicas {
        until("the replicas agree", || (own(replica) == cluster.charged()).then_some(()));
    }
    cluster.wire.cut();
    let mut shares = Vec::new();
    for replica in &replicas {
        replica.event("bank_lost");
        println!("{} leased, {} set aside", budget(replica)["lease"], budget(replica)["shared"]["safe_share"]);
        let (served, why) = spend(replica, CEILING);
        assert_eq!(why, "budget_unready", "after {served}");
        assert!(served > 0, "nothing was left to go on with");
        shares.push(served);
    }
    println!("without Redis: {shares:?}");
    assert!(cluster.charged() <= CEILING);
    let newborn = cluster.newborn();
    assert_eq!(spend(&newborn, 1), (0, "budget_unready".to_owned()), "who never saw the books has no share");
    cluster.wire.mend();
    for replica in replicas.iter().chain([&newborn]) {
        replica.event("bank_back");
        until("the replicas agree", || (own(replica) == cluster.charged()).then_some(()));
        assert_eq!(spend(replica, 5).0, 5);
    }
    let crowd = Crowd::of(30, &Arc::new(Mutex::new(replicas.iter().map(Gateway::address).collect())), Duration::ZERO);
    crowd.is_dry(Duration::from_secs(3));
    crowd.ends();
    let charged = cluster.charged();
    println!("{charged} of {CEILING} charged");
    assert!((CEILING * 98 / 100..=CEILING).contains(&charged), "{charged}");
}

#[test]
fn a_lease_is_spent_without_redis_and_then_calls_are_refused_or_they_are_refused_at_once() {
    for (on_loss, goes_on) in [("spend_lease", true), ("refuse", false)] {
        let cluster = Cluster::new(&format!("limit: {CEILING}, keep_free: 0%"), "", on_loss);
        let replica = cluster.replica();
        begins(&replica);
        assert_eq!(spend(&replica, 20).0, 20);
        until("a lease", || (budget(&replica)["lease"].as_u64()? > 0).then_some(()));
        cluster.wire.cut();
        replica.event("bank_lost");
        let lease = budget(&replica)["lease"].as_u64().unwrap();
        let (served, why) = spend(&replica, CEILING);
        assert_eq!(why, "budget_unready", "{on_loss}");
        assert_eq!(served, if goes_on { lease } else { 0 }, "{on_loss}");
        cluster.wire.mend();
        replica.event("bank_back");
        until("calls go on", || (spend(&replica, 1).0 == 1).then_some(()));
        until("nothing counts twice", || (own(&replica) == cluster.charged()).then_some(()));
    }
}

#[test]
fn what_an_empty_redis_forgot_is_told_again() {
    let mut cluster = Cluster::new(&format!("limit: {CEILING}, keep_free: 0%"), "", "safe_share");
    let replicas: Vec<_> = (0..REPLICAS).map(|_| cluster.replica()).collect();
    for replica in &replicas {
        begins(replica);
        assert_eq!(spend(replica, 100).0, 100);
    }
    cluster.redis.kill();
    cluster.redis.restart_empty();
    for replica in &replicas {
        replica.event("bank_epoch");
    }
    for replica in &replicas {
        replica.event("bank_recovered");
        until("the replicas agree", || (own(replica) == cluster.charged()).then_some(()));
    }
    // One that comes later learns it, too.
    let later = cluster.replica();
    until("it knows what was spent", || (own(&later) == cluster.charged()).then_some(()));
}

#[test]
fn many_calls_ask_the_store_for_little() {
    let cluster = Cluster::new("limit: 1000000", "", "safe_share");
    let replicas: Vec<_> = (0..REPLICAS).map(|_| cluster.replica()).collect();
    replicas.iter().for_each(begins);
    let crowd = Crowd::of(60, &Arc::new(Mutex::new(replicas.iter().map(Gateway::address).collect())), Duration::ZERO);
    std::thread::sleep(Duration::from_secs(3));
    let clock = Clock::start();
    // What a script does inside is one command of a replica.
    let asked = || {
        let stats = cluster.redis.command("INFO commandstats");
        let calls = |line: &str| line.split_once(":calls=")?.1.split(',').next()?.parse::<u64>().ok();
        stats.lines().filter(|line| line.starts_with("cmdstat_eval")).filter_map(calls).sum::<u64>()
    };
    let (before, served, began) = (asked(), crowd.served(), clock.now());
    std::thread::sleep(Duration::from_secs(10));
    let seconds = (clock.now() - began).as_secs_f64();
    let (commands, calls) = ((asked() - before) as f64 / seconds, (crowd.served() - served) as f64 / seconds);
    crowd.ends();
    println!("{commands:.1} commands a second for {calls:.0} calls a second");
    assert!(commands < 20.0, "{commands}");
}
