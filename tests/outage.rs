//! Promise: while Salesforce is down it is left alone, and when it is back it is loaded slowly; one user's trouble is nobody
//! else's.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::client::{Answer as _, Client};
use crate::world::World;

const ENFORCED: &str = "retry: {mode: enforce}\nbreaker: {mode: enforce}";
const CLIENTS: u64 = 50;

/// An app that asks once a second, and repeats like jsforce what fails: each call up to six times over 15.6 s (facts 11).
async fn app(mut client: Client, number: u64, stop: Arc<AtomicBool>) {
    sleep(Duration::from_millis(1_000 * number / CLIENTS)).await;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        for attempt in 0..6 {
            let answer = client.query("SELECT Id FROM Account LIMIT 1").await;
            if answer.code() == 200 || stop.load(Ordering::Relaxed) {
                break;
            }
            if attempt < 5 {
                sleep(Duration::from_millis(500 << attempt)).await;
            }
        }
        sleep(Duration::from_secs(1).saturating_sub(began.elapsed())).await;
    }
}

/// What an outage of 20 minutes looks like from Salesforce: calls during it, and calls in each second after it.
async fn outage(through: bool) -> (u64, Vec<u64>, f64) {
    let world = World::new(ENFORCED);
    let stop = Arc::new(AtomicBool::new(false));
    let apps: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let client = if through { world.client() } else { world.direct() };
            tokio::spawn(app(client, number, Arc::clone(&stop)))
        })
        .collect();
    sleep(Duration::from_mins(2)).await;
    let calls = || world.sim.counts().charged;
    let before = calls();
    sleep(Duration::from_mins(1)).await;
    let usual = (calls() - before) as f64 / 60.0;
    world.sim.script().take_down();
    let down = calls();
    sleep(Duration::from_mins(20)).await;
    let wasted = calls() - down;
    world.sim.script().end_maintenance();
    let mut seconds = Vec::new();
    for _ in 0..180 {
        let before = calls();
        sleep(Duration::from_secs(1)).await;
        seconds.push(calls() - before);
    }
    stop.store(true, Ordering::Relaxed);
    for app in apps {
        app.await.unwrap();
    }
    if through {
        assert_eq!(world.metric("weirkeeper_breaker_opened_total", &[("family", "query")]) as u64, 1);
        assert!(world.log.text().contains("\"event\":\"breaker\""), "{}", world.log.text());
        let ours: u64 = world.lines().iter().filter_map(|line| line["charged"].as_u64()).sum();
        world.counts_more(ours as i64 - world.sim.counts().charged as i64);
        world.close().await;
    }
    (wasted, seconds, usual)
}

#[tokio::test(start_paused = true)]
async fn twenty_minutes_of_503_cost_next_to_nothing_and_end_without_a_spike() {
    let (direct, _, usual) = outage(false).await;
    let (wasted, after, same) = outage(true).await;
    let highest = after.iter().copied().max().unwrap_or_default();
    let back = after.iter().position(|calls| *calls as f64 >= 0.9 * same);
    println!(
        "20 minutes of 503, 50 apps that retry: {direct} calls wasted directly, {wasted} through the gateway ({:.2} %); \
         usual {same:.0}/s, at most {highest}/s afterwards ({:.2} times), back at 90 % after {back:?} s",
        wasted as f64 * 100.0 / direct as f64,
        highest as f64 / same
    );
    assert!((usual - same).abs() < 2.0, "{usual} {same}");
    assert!(wasted * 100 < direct, "{wasted} of {direct}");
    assert!(highest as f64 <= 1.2 * same, "{after:?}");
    assert!(back.is_some(), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn one_users_quota_holds_nobody_else_back() {
    let world = World::new(ENFORCED);
    let (stopped, fine) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut others = Vec::new();
    for user in ["integration", "sales"] {
        let (mut client, fine) = (world.client().user(user), Arc::clone(&fine));
        others.push(tokio::spawn(async move {
            for _ in 0..150 {
                for target in ["chatter/users/me", "query?q=SELECT+Id+FROM+Account+LIMIT+1"] {
                    let answer = client.get(target).await;
                    assert_eq!(answer.code(), 200, "{target}: {}", answer.text());
                    fine.fetch_add(1, Ordering::Relaxed);
                }
                sleep(Duration::from_secs(1)).await;
            }
        }));
    }
    // Its 200 calls of the hour are soon used up, and it does not stop asking.
    let mut greedy = world.client();
    for _ in 0..1_500 {
        let answer = greedy.get("chatter/users/me").await;
        stopped.fetch_add(u64::from(answer.header("weirkeeper-refused") == "circuit_open"), Ordering::Relaxed);
        assert_eq!(greedy.get("sobjects/Account/describe").await.code(), 200, "its other calls go on");
        sleep(Duration::from_millis(100)).await;
    }
    for other in others {
        other.await.unwrap();
    }
    let stopped = stopped.load(Ordering::Relaxed);
    println!(
        "one user beyond its Chatter quota: {stopped} of its 1,300 calls too many were not sent; {} of others went well",
        fine.load(Ordering::Relaxed)
    );
    assert!(stopped > 1_200, "{stopped}");
    assert!(world.metric("weirkeeper_breaker_opened_total", &[]) < 0.5, "no API is held back");
    assert!(world.metric("weirkeeper_breaker_users_held_back", &[]) > 0.5);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_only_observes_holds_nothing_back() {
    let world = World::new("retry: {mode: off}\nbreaker: {mode: observe}");
    world.sim.script().take_down();
    let mut client = world.client();
    for _ in 0..100 {
        let answer = client.get("sobjects/Account").await;
        assert_eq!((answer.code(), answer.header("weirkeeper-refused")), (503, ""));
    }
    assert_eq!(world.sim.counts().requests, 100);
    assert!(world.metric("weirkeeper_would_refuse_total", &[("reason", "circuit_open")]) > 70.0);
    assert!(world.metric("weirkeeper_breaker_state", &[("family", "rest")]) > 1.5);
    world.reload("retry: {mode: off}\nbreaker: {mode: enforce}");
    for _ in 0..30 {
        client.get("sobjects/Account").await;
    }
    client.get("sobjects/Account").await.is_refusal(503, "circuit_open", "SERVER_UNAVAILABLE");
    world.close().await;
}
