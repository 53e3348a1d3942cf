//! Several replicas of one identity in one runtime, over a store that loses messages and a token endpoint that is slow.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::clock::Clock;
use crate::exchange::{Connector, Origin};
use crate::salesforce::PrincipalKey;
use crate::tasks::Tasks;

const WALL: Duration = Duration::from_hours(500_000);
const SESSION: Duration = Duration::from_hours(2);
/// A store that works answers at least so many questions between two that it does not answer.
const RARELY: u32 = 3;
const SECRET: &[u8] = b"a secret that all replicas have in common";

/// What all replicas share: the store and Salesforce.
#[derive(Default)]
struct Common {
    value: Option<Vec<u8>>,
    version: u64,
    /// The store does not answer.
    down: bool,
    /// One message of so many is lost.
    losses: Option<u32>,
    chance: fastrand::Rng,
    /// Replicas that are logging in.
    busy: Vec<usize>,
    most_busy: usize,
    logins: usize,
    /// What was posted.
    forms: Vec<String>,
    /// How the next log-ins end, if not with a token.
    ends: Vec<&'static str>,
    /// How long the next log-in takes, if not a second.
    lasts: Option<Duration>,
    issued: usize,
    revoked: HashSet<String>,
}

type Everything = Arc<Mutex<Common>>;

/// One replica.
struct Replica {
    place: usize,
    identity: Arc<Identity>,
    tasks: Tasks,
    clock: Clock,
    dead: Arc<AtomicBool>,
}

struct VirtualShelf {
    name: String,
    all: Everything,
    clock: Clock,
    dead: Arc<AtomicBool>,
    /// Questions that were answered since the last one that was not.
    answered: Mutex<u32>,
}

impl VirtualShelf {
    /// One message: it may be late or lost, though rarely unless the store is down.
    async fn message(&self) -> Result<(), NoAnswer> {
        let (late, lost) = {
            let mut all = self.all.lock();
            let late = Duration::from_millis(all.chance.u64(0..20));
            let losses = all.losses;
            (late, all.down || losses.is_some_and(|one_of| all.chance.u32(0..one_of) == 0))
        };
        tokio::time::sleep(late).await;
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if !lost {
            return Ok(());
        }
        if *self.answered.lock() < RARELY && !self.all.lock().down {
            return Ok(());
        }
        *self.answered.lock() = 0;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(NoAnswer)
    }

    fn now(&self) -> Duration {
        self.clock.wall(self.clock.now())
    }

    fn heard(&self) {
        *self.answered.lock() += 1;
    }
}

impl Shelf for VirtualShelf {
    fn replica(&self) -> &str {
        &self.name
    }

    fn look(&self) -> BoxFuture<'_, Result<Seen, NoAnswer>> {
        Box::pin(async {
            self.message().await?;
            let seen = {
                let all = self.all.lock();
                Seen { value: all.value.clone(), version: all.version, run: 1, now: self.now() }
            };
            self.message().await?;
            self.heard();
            Ok(seen)
        })
    }

    fn swap(&self, seen: Seen, value: Vec<u8>, _: Duration) -> BoxFuture<'_, Result<Swapped, NoAnswer>> {
        Box::pin(async move {
            self.message().await?;
            let swapped = {
                let mut all = self.all.lock();
                let first = seen.version == all.version;
                if first {
                    all.version += 1;
                    all.value = Some(value);
                }
                let there = Seen { value: all.value.clone(), version: all.version, run: 1, now: self.now() };
                if first { Swapped::Done(there) } else { Swapped::Lost(there) }
            };
            // Here the answer is lost, and what was asked is done.
            self.message().await?;
            self.heard();
            Ok(swapped)
        })
    }
}

/// The token endpoint, as one replica reaches it.
fn endpoint(place: usize, all: &Everything, tasks: &Tasks, dead: &Arc<AtomicBool>) -> Endpoint {
    let (all, tasks, dead) = (Arc::clone(all), tasks.clone(), Arc::clone(dead));
    let dial = move || {
        let (near, far) = tokio::io::duplex(64 * 1024);
        let (all, dead) = (Arc::clone(&all), Arc::clone(&dead));
        tasks.spawn_background(answer_one(place, far, all, dead));
        Box::pin(std::future::ready(Ok(near))) as Pin<Box<dyn Future<Output = _> + Send>>
    };
    Endpoint {
        origin: Origin::parse("http://login.example").unwrap(),
        path: "/services/oauth2/token".parse().unwrap(),
        connector: Connector::memory(Arc::new(dial)),
    }
}

async fn answer_one(place: usize, mut far: tokio::io::DuplexStream, all: Everything, dead: Arc<AtomicBool>) {
    let mut request = vec![0; 16 * 1024];
    let length = far.read(&mut request).await.unwrap_or(0);
    let lasts = {
        let mut all = all.lock();
        all.forms.push(String::from_utf8_lossy(&request[..length]).into_owned());
        all.logins += 1;
        all.busy.push(place);
        all.most_busy = all.most_busy.max(all.busy.len());
        all.lasts.unwrap_or(Duration::from_secs(1))
    };
    let mut left = lasts;
    let given_up = loop {
        let step = left.min(Duration::from_millis(10));
        let hung_up = tokio::time::timeout(step, far.read(&mut request)).await.is_ok();
        left = left.saturating_sub(step);
        if hung_up || dead.load(Ordering::Relaxed) {
            break true;
        }
        if left.is_zero() {
            break false;
        }
    };
    let said = {
        let mut all = all.lock();
        let at = all.busy.iter().position(|busy| *busy == place).unwrap();
        all.busy.swap_remove(at);
        if let Some(error) = all.ends.pop() {
            error.to_owned()
        } else {
            all.issued += 1;
            let n = all.issued;
            format!(
                r#"200 {{"access_token":"00D!CANARY{n}","refresh_token":"CANARY-refresh{n}","id":"https://x/id/00D000000000001/005000000000001"}}"#
            )
        }
    };
    if given_up {
        return std::future::pending().await;
    }
    let (status, body) = said.split_once(' ').unwrap();
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = far.write_all(answer.as_bytes()).await;
}

impl Replica {
    /// One more replica, whose clock is off by some minutes.
    fn new(place: usize, all: &Everything, store_clock: Clock, secret: &[u8]) -> Self {
        let (tasks, dead) = (Tasks::new(), Arc::new(AtomicBool::new(false)));
        let flow =
            Flow::RefreshToken { client_id: "app".into(), client_secret: None, refresh_token: Hidden::new("r0") };
        let endpoint = endpoint(place, all, &tasks, &dead);
        let shelf = VirtualShelf {
            name: format!("replica {place}"),
            all: Arc::clone(all),
            clock: store_clock,
            dead: Arc::clone(&dead),
            answered: Mutex::default(),
        };
        let sharing = Sharing::new(Box::new(shelf), [secret], ("prod", "integration"), &flow, &endpoint).unwrap();
        let settings = Settings {
            name: "integration".into(),
            org: "prod".into(),
            flow,
            endpoint,
            session: SESSION,
            principal_key: PrincipalKey::new(b"0123456789abcdef"),
            sharing: Some(Arc::new(sharing)),
        };
        let off = Duration::from_mins(place as u64 * 7 % 20);
        let clock = Clock::at(store_clock.wall(store_clock.now()) + off);
        Self { place, identity: Identity::new(settings, clock), tasks, clock, dead }
    }

    async fn token(&self) -> Result<String, NoToken> {
        self.identity.token(None, &self.tasks).await.map(|token| said(&token))
    }

    /// A call as the road makes it: once more with another token if the first is rejected.
    async fn call(&self, all: &Everything) -> bool {
        for _ in 0..2 {
            let Ok(token) = self.identity.token(None, &self.tasks).await else { return false };
            if !all.lock().revoked.contains(&said(&token)) {
                return true;
            }
            self.identity.rejected(token.epoch(), self.clock.now());
        }
        false
    }

    fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    fn shares(&self) -> Shares {
        self.identity.snapshot().shares.unwrap()
    }
}

fn said(token: &Token) -> String {
    token.session().to_str().unwrap().to_owned()
}

/// Some replicas.
fn replicas(count: usize) -> (Everything, Vec<Replica>, Clock) {
    let (all, clock) = (Everything::default(), Clock::at(WALL));
    let replicas = (0..count).map(|place| Replica::new(place, &all, clock, SECRET)).collect();
    (all, replicas, clock)
}

#[tokio::test(start_paused = true)]
async fn a_hundred_rejections_in_three_replicas_lead_to_one_log_in() {
    let (all, replicas, clock) = replicas(3);
    for token in join_all(replicas.iter().map(Replica::token)).await {
        assert_eq!(token.unwrap(), "00D!CANARY1");
    }
    assert_eq!(all.lock().logins, 1);
    tokio::time::sleep(Duration::from_mins(1)).await;
    all.lock().revoked.insert("00D!CANARY1".to_owned());
    let calls = (0..100).map(|n| replicas[n % 3].call(&all));
    assert!(join_all(calls).await.into_iter().all(|well| well));
    assert_eq!(all.lock().logins, 2);
    assert_eq!(all.lock().most_busy, 1);
    join_all(replicas.iter().map(|replica| replica.tasks.idle())).await;
    let shares = replicas.iter().map(Replica::shares);
    let (adopted, published) = shares.fold((0, 0), |(a, p), shares| (a + shares.adopted, p + shares.published));
    assert_eq!((adopted, published), (4, 2));

    // A replica born later needs none, and knows whom it acts for.
    let late = Replica::new(3, &all, clock, SECRET);
    assert_eq!(late.token().await.unwrap(), "00D!CANARY2");
    assert_eq!(late.identity.user().unwrap().user, "005000000000001");
    assert_eq!(late.identity.principal(), replicas[0].identity.principal());
    assert_eq!(all.lock().logins, 2);
    let value = String::from_utf8(all.lock().value.clone().unwrap()).unwrap();
    assert!(!value.contains("CANARY") && !value.contains("005000"), "{value}");
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_early_by_one_and_keeps_nobody_waiting() {
    let (all, replicas, clock) = replicas(3);
    join_all(replicas.iter().map(Replica::token)).await;
    tokio::time::sleep(SESSION * 4 / 5).await;
    let before = clock.now();
    for token in join_all(replicas.iter().map(Replica::token)).await {
        assert_eq!(token.unwrap(), "00D!CANARY1");
    }
    assert_eq!(clock.now(), before, "the old one still serves");
    tokio::time::sleep(Duration::from_secs(5)).await;
    for token in join_all(replicas.iter().map(Replica::token)).await {
        assert_eq!(token.unwrap(), "00D!CANARY2");
    }
    assert_eq!(all.lock().logins, 2);
    // Every refresh token serves once: the second log-in was made with the one the first brought.
    assert!(all.lock().forms[1].contains("refresh_token=CANARY-refresh1"));
}

#[tokio::test(start_paused = true)]
async fn another_takes_over_from_a_replica_that_died_while_it_logged_in() {
    let (all, replicas, clock) = replicas(2);
    all.lock().lasts = Some(Duration::from_secs(5));
    let first = replicas[0].identity.token(None, &replicas[0].tasks);
    assert!(tokio::time::timeout(Duration::from_secs(1), first).await.is_err());
    replicas[0].kill();
    let begun = clock.now();
    assert_eq!(replicas[1].token().await.unwrap(), "00D!CANARY2");
    let took = clock.now() - begun;
    assert!(took > Duration::from_secs(10) && took < Duration::from_secs(21), "{took:?}");
    assert_eq!(all.lock().most_busy, 1);
}

#[tokio::test(start_paused = true)]
async fn without_the_store_each_logs_in_for_itself_and_tells_the_others_later() {
    let (all, replicas, clock) = replicas(2);
    all.lock().down = true;
    let begun = clock.now();
    assert_eq!(replicas[0].token().await.unwrap(), "00D!CANARY1");
    assert!(clock.now() - begun < Duration::from_secs(4), "{:?}", clock.now() - begun);
    assert_eq!(replicas[1].token().await.unwrap(), "00D!CANARY2");
    assert_eq!((replicas[0].shares().store_down, replicas[1].shares().store_down), (1, 1));
    tokio::time::sleep(Duration::from_mins(2)).await;
    all.lock().down = false;
    tokio::time::sleep(Duration::from_mins(2)).await;
    let late = Replica::new(2, &all, clock, SECRET);
    assert!(late.token().await.unwrap().starts_with("00D!CANARY"));
    assert_eq!(all.lock().logins, 2, "it was told of one of theirs");
    // By now all have the same one, which is replaced once, and no call fails for it.
    all.lock().revoked.extend(["00D!CANARY1".to_owned(), "00D!CANARY2".to_owned()]);
    for replica in replicas.iter().chain([&late]) {
        assert!(replica.call(&all).await);
    }
    assert_eq!(all.lock().logins, 3);
}

#[tokio::test(start_paused = true)]
async fn a_replica_with_another_key_reads_nothing_and_logs_in_for_itself() {
    let (all, replicas, clock) = replicas(1);
    assert_eq!(replicas[0].token().await.unwrap(), "00D!CANARY1");
    let stranger = Replica::new(1, &all, clock, b"another secret that nobody else has got");
    assert_eq!(stranger.token().await.unwrap(), "00D!CANARY2");
    stranger.tasks.idle().await;
    assert_eq!(stranger.shares(), Shares { unreadable: 1, published: 1, ..Shares::default() });
    assert!(all.lock().forms[1].contains("refresh_token=r0"));
    let spoilt =
        all.lock().value.take().map(|value| String::from_utf8(value).unwrap().replace("sealed\":\"A", "sealed\":\"B"));
    all.lock().value = spoilt.map(String::into_bytes);
    let third = Replica::new(2, &all, clock, SECRET);
    assert_eq!(third.token().await.unwrap(), "00D!CANARY3");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_heard_by_all_and_so_is_its_end() {
    let (all, replicas, _) = replicas(3);
    all.lock().ends.push(r#"400 {"error":"invalid_grant"}"#);
    for none in join_all(replicas.iter().map(Replica::token)).await {
        assert_eq!(none.unwrap_err(), NoToken { why: Trouble::Refused, again: None });
    }
    tokio::time::sleep(Duration::from_mins(5)).await;
    for none in join_all(replicas.iter().map(Replica::token)).await {
        assert_eq!(none.unwrap_err(), NoToken { why: Trouble::Refused, again: None });
    }
    assert_eq!(all.lock().logins, 1);
    // One has its configuration loaded again, and the others hear that it helped.
    let settings = |replica: &Replica| {
        let flow =
            Flow::RefreshToken { client_id: "app".into(), client_secret: None, refresh_token: Hidden::new("r0") };
        let Settings { name, org, endpoint, session, principal_key, sharing, .. } = &replica.identity.settings;
        Settings {
            flow,
            name: name.clone(),
            org: org.clone(),
            endpoint: endpoint.clone(),
            session: *session,
            principal_key: principal_key.clone(),
            sharing: sharing.clone(),
        }
    };
    let reloaded = Identity::continued(settings(&replicas[0]), &replicas[0].identity);
    assert_eq!(said(&reloaded.token(None, &replicas[0].tasks).await.unwrap()), "00D!CANARY1");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(replicas[1].token().await.unwrap(), "00D!CANARY1");
    assert_eq!(all.lock().logins, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failure_holds_all_back_together() {
    let (all, replicas, _) = replicas(3);
    all.lock().ends.push("503 x");
    for none in join_all(replicas.iter().map(Replica::token)).await {
        let none = none.unwrap_err();
        assert_eq!(none.why, Trouble::Unavailable);
        // The same step for all, and what the store's answer took on its way.
        let again = none.again.unwrap();
        assert!(again < Duration::from_millis(1_500), "{again:?}");
    }
    assert_eq!(all.lock().logins, 1);
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(join_all(replicas.iter().map(Replica::token)).await.iter().all(Result::is_ok));
    assert_eq!(all.lock().logins, 2);
}

/// What happens next, to which replica, after how many milliseconds.
#[derive(Debug, Clone, Copy)]
enum Event {
    Call,
    Revoke,
    Kill,
    Fails,
    Slow,
    Passes,
    Down,
}

fn events(outages: bool) -> impl Strategy<Value = Vec<(Event, usize, u64)>> {
    let down = u32::from(outages);
    let event = prop_oneof![
        8 => Just(Event::Call),
        2 => Just(Event::Revoke),
        1 => Just(Event::Kill),
        1 => Just(Event::Fails),
        1 => Just(Event::Slow),
        1 => Just(Event::Passes),
        down => Just(Event::Down),
    ];
    proptest::collection::vec((event, 0_usize..3, 0_u64..4_000), 1..60)
}

async fn chaos(seed: u64, events: Vec<(Event, usize, u64)>) -> (Everything, usize) {
    let (all, mut replicas, clock) = replicas(3);
    let (mut born, callers) = (3, Tasks::new());
    {
        let mut all = all.lock();
        all.chance = fastrand::Rng::with_seed(seed);
        all.losses = Some(8);
    }
    for (event, which, millis) in events {
        tokio::time::sleep(Duration::from_millis(millis)).await;
        match event {
            Event::Call => {
                let Replica { place, identity, tasks, clock, dead } = &replicas[which];
                let (place, identity, tasks) = (*place, Arc::clone(identity), tasks.clone());
                let caller = Replica { place, identity, tasks, clock: *clock, dead: Arc::clone(dead) };
                let all = Arc::clone(&all);
                callers.spawn_background(async move {
                    caller.call(&all).await;
                });
            }
            Event::Revoke => {
                let mut all = all.lock();
                let last = format!("00D!CANARY{}", all.issued);
                all.revoked.insert(last);
            }
            Event::Kill => {
                replicas[which].kill();
                replicas[which] = Replica::new(born, &all, clock, SECRET);
                born += 1;
            }
            Event::Fails => all.lock().ends.push("503 x"),
            Event::Slow => {
                let lasts = Some(Duration::from_millis(millis * 4));
                all.lock().lasts = lasts;
            }
            Event::Passes => tokio::time::sleep(Duration::from_secs(millis)).await,
            Event::Down => {
                let down = !all.lock().down;
                all.lock().down = down;
            }
        }
    }
    {
        let mut all = all.lock();
        (all.down, all.losses, all.lasts) = (false, None, None);
        all.ends.clear();
    }
    let begun = clock.now();
    for replica in &replicas {
        while !replica.call(&all).await {
            assert!(clock.now() - begun < Duration::from_mins(5), "no progress; seed {seed}");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    (all, born)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn never_two_log_ins_at_once_while_the_store_works_and_always_progress(
        seed in any::<u64>(),
        events in events(false),
    ) {
        let (all, _) = run(chaos(seed, events));
        let most = all.lock().most_busy;
        prop_assert!(most <= 1, "{most} at once; seed {seed}");
    }

    #[test]
    fn progress_whatever_the_store_does_and_never_more_log_ins_at_once_than_replicas(
        seed in any::<u64>(),
        events in events(true),
    ) {
        let (all, born) = run(chaos(seed, events));
        let most = all.lock().most_busy;
        prop_assert!(most <= born, "{most} at once of {born}; seed {seed}");
    }
}
