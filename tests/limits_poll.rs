//! Promise: where the operator wants it, the gateway asks Salesforce itself what is used: seldom, counted, and never past the
//! ceiling.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use weirkeeper::clock::Clock;
use weirkeeper::gateway::poll::{Right, Ticket};
use weirkeeper::sim::{SimConfig, SimCosts, SimDaily};

use crate::client::{Answer as _, read_until};
use crate::identities::SECRET;
use crate::world::{ORIGIN, World, small};

const POLLER: &str = "(limits poll)";

/// One org whose identity may ask; `daily` and `costs` are further members.
fn polled(daily: &str, costs: &str) -> String {
    format!(
        "orgs:
- name: prod
  instance_url: 'http://{ORIGIN}'
  hosts: [sf.internal]
  auth: {{integration: {SECRET}}}
  daily: {{limit: from_salesforce, keep_free: 0%{daily}}}
  costs: {{{costs}}}
callers: [{{name: app, match: any, class: interactive}}]
"
    )
}

fn simulated(limit: u64) -> SimConfig {
    SimConfig { daily: SimDaily { limit, ..SimDaily::default() }, ..small() }
}

fn asked(world: &World, result: &str) -> f64 {
    world.metric("weirkeeper_limits_polls_total", &[("org", "prod"), ("result", result)])
}

fn whole(measured: f64) -> u64 {
    assert!(measured >= 0.0 && measured.fract() < f64::EPSILON, "{measured}");
    measured as u64
}

async fn minutes(minutes: u64) {
    tokio::time::sleep(Duration::from_mins(minutes)).await;
}

#[tokio::test(start_paused = true)]
async fn it_says_what_is_used_before_anybody_calls_and_is_counted_like_a_call() {
    let world = World::with(simulated(1_000), &polled(", poll: {every: 5m}", ""));
    world.sim.script().spend_dark(700);
    world.poll();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (ledger, now) = (world.in_force.load().orgs()[0].ledger.clone(), Clock::start().now());
    assert_eq!(json!(ledger.org(now).reading), json!({"used": 701, "limit": 1_000}));
    assert_eq!((world.sim.counts().charged, whole(asked(&world, "read"))), (1, 1));
    assert_eq!(whole(world.metric("weirkeeper_caller_used", &[("caller", POLLER)])), 1);
    assert_eq!(whole(world.metric("weirkeeper_api_calls_spent_total", &[("caller", POLLER)])), 1);
    let line = world.last_line().await;
    assert_eq!((&line["caller"], &line["operation"], &line["charged"]), (&json!(POLLER), &json!("limits"), &json!(1)));
    assert_eq!(world.sim.requests().last().unwrap().target, "/services/data/v62.0/limits");
    // While nobody calls it asks every five minutes.
    minutes(60).await;
    let polls = whole(asked(&world, "read"));
    assert!((10..=13).contains(&polls), "{polls} in an hour");
    assert_eq!(world.sim.counts().charged, polls);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn it_is_silent_while_answers_say_what_is_used_and_without_configuration() {
    let world = World::with(simulated(1_000), &polled(", poll: {every: 5m}", ""));
    world.poll();
    let mut app = world.client();
    for _ in 0..60 {
        assert_eq!(app.get("limits").await.code(), 200);
        minutes(1).await;
    }
    assert_eq!(whole(asked(&world, "read")), 1, "at the start");
    // A reload ends it, and another begins it again.
    world.reload(&polled("", ""));
    minutes(60).await;
    assert_eq!(whole(asked(&world, "read")), 1);
    world.reload(&polled(", poll: {every: 1h}", ""));
    minutes(90).await;
    assert_eq!(whole(asked(&world, "read")), 3);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn after_failures_it_waits_longer_and_longer_and_says_so_once() {
    let world = World::with(simulated(1_000), &polled(", poll: {every: 1m}", ""));
    world.poll();
    minutes(1).await;
    let before = whole(asked(&world, "read"));
    world.sim.script().take_down();
    minutes(126).await;
    let failed = whole(asked(&world, "failed"));
    assert!((6..=8).contains(&failed), "{failed} in two hours");
    assert_eq!(whole(asked(&world, "read")), before);
    world.sim.script().end_maintenance();
    minutes(70).await;
    assert!(whole(asked(&world, "read")) > before);
    let log = world.log.text();
    let said = |event: &str| log.matches(&format!("\"event\":\"{event}\"")).count();
    assert_eq!((said("limits_poll_failed"), said("limits_poll_back")), (1, 1), "{log}");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn it_never_passes_the_ceiling_but_may_look_for_nothing_where_it_is_free() {
    for free in [false, true] {
        let costs = SimCosts { limits: u64::from(!free), ..SimCosts::default() };
        let world = World::with(
            SimConfig { costs, ..simulated(1_000) },
            &polled(", poll: {every: 5m}", if free { "limits: 0" } else { "" }),
        );
        world.poll();
        minutes(2).await;
        // Others alone use more than all; a day later they have gone.
        world.sim.script().set_overage(5_000);
        world.sim.script().spend_dark(1_100);
        minutes(10).await;
        let (charged, mut app) = (world.sim.counts().charged, world.client());
        for _ in 0..22 {
            app.get("query?q=SELECT+Id+FROM+Account").await.is_refusal(403, "org_allowance", "REQUEST_LIMIT_EXCEEDED");
            minutes(60).await;
        }
        assert_eq!(world.sim.counts().charged, charged, "nothing of ours while others are past it, free: {free}");
        assert_eq!(asked(&world, "refused") > 0.0, !free);
        minutes(3 * 60).await;
        let served = app.get("query?q=SELECT+Id+FROM+Account").await.code();
        assert!(!free || served == 200, "a free look saw that they had gone: {served}");
        // Otherwise the last word has to grow too old to mean anything.
        minutes(2 * 60).await;
        assert_eq!(app.get("query?q=SELECT+Id+FROM+Account").await.code(), 200);
        world.close().await;
    }
}

/// A right to ask that the test gives and takes: 0 is none, else it is the fence.
#[derive(Debug, Default)]
struct Given(AtomicU64);

impl Right for Given {
    fn ticket(&self, _: tokio::time::Instant) -> Option<Ticket> {
        Some(self.0.load(Ordering::SeqCst)).filter(|fence| *fence > 0).map(Ticket::Fence)
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_replicas_only_the_elected_one_asks_and_what_comes_too_late_is_not_taken() {
    let world = World::with(small(), &polled(", poll: {every: 5m}", ""));
    silent_heads(&world, Duration::from_secs(10));
    let given = Arc::new(Given::default());
    let right = Arc::clone(&given);
    let polls = world.poll_if(Some(Box::new(move |_, _| Arc::clone(&right) as Arc<dyn Right>)));
    minutes(30).await;
    assert_eq!(polls.asks("prod"), Some(false), "it is another one's turn");
    assert_eq!(["read", "superseded", "silent", "failed"].map(|result| whole(asked(&world, result))), [0; 4]);
    // It is elected and asks; before it has its answer, another one was elected, and then it again.
    given.0.store(7, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(polls.asks("prod"), Some(true));
    given.0.store(9, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let reading = || world.in_force.load().orgs()[0].ledger.org(Clock::start().now()).reading;
    assert_eq!((whole(asked(&world, "superseded")), reading().is_none()), (1, true));
    minutes(2).await;
    assert_eq!((whole(asked(&world, "read")), json!(reading())), (1, json!({"used": 1_050, "limit": 1_000})));
    world.counts_more(2);
    world.close().await;
}

/// An org whose answers say only in the body of `/limits` what is used, and take `long`.
fn silent_heads(world: &World, long: Duration) {
    world.origin(move |mut stream| async move {
        loop {
            let head = read_until(&mut stream, "\r\n\r\n").await;
            if head.is_empty() {
                break;
            }
            let body = if head.contains("/oauth2/token") {
                r#"{"access_token":"00D000000000001!x","instance_url":"https://a.my.salesforce.com","token_type":"Bearer"}"#
            } else {
                tokio::time::sleep(long).await;
                r#"{"DailyApiRequests":{"Max":1000,"Remaining":-50},"ActiveScratchOrgs":{"Max":3,"Remaining":3}}"#
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            if stream.write_all(answer.as_bytes()).await.is_err() {
                break;
            }
        }
    });
    world.secret("00D000000000001!x");
}

#[tokio::test(start_paused = true)]
async fn where_heads_say_nothing_the_body_does() {
    let world = World::with(small(), &polled(", poll: {every: 5m}", ""));
    silent_heads(&world, Duration::ZERO);
    world.poll();
    minutes(1).await;
    let (ledger, now) = (world.in_force.load().orgs()[0].ledger.clone(), Clock::start().now());
    assert_eq!(json!(ledger.org(now).reading), json!({"used": 1_050, "limit": 1_000}));
    world.client().get("limits").await.is_refusal(403, "org_allowance", "REQUEST_LIMIT_EXCEEDED");
    world.counts_more(1);
    world.close().await;
}
