//! Promise: a caller sends no faster than its pace; what exceeds it waits its turn or is told when to come back.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::Instant;

use crate::client::{Answer as _, Client, envelope, token};
use crate::world::World;

/// A caller `etl` with this pace, and everybody else without.
fn paced(pace: &str) -> String {
    format!(
        "callers:
- {{name: etl, match: {{call_options_client: etl}}, class: batch, pace: {{{pace}}}}}
- {{name: anyone, match: any}}
"
    )
}

fn etl(world: &World) -> Client {
    world.client().with("sforce-call-options", "client=etl")
}

/// Sends `count` calls at once; each answer's status and after how many milliseconds it came.
fn at_once(world: &World, count: usize) -> UnboundedReceiver<(u16, u64)> {
    let (done, answers) = unbounded_channel();
    for _ in 0..count {
        let (mut client, done) = (etl(world), done.clone());
        let began = Instant::now();
        world.beside(async move {
            let answer = client.get("limits").await;
            // Nobody listens any more if the test has seen enough.
            let _ = done.send((answer.code(), began.elapsed().as_millis() as u64));
        });
    }
    answers
}

async fn all(mut answers: UnboundedReceiver<(u16, u64)>) -> Vec<(u16, u64)> {
    let mut seen = Vec::new();
    while let Some(answer) = answers.recv().await {
        seen.push(answer);
    }
    seen.sort_by_key(|(_, time)| *time);
    seen
}

/// What the gateway shows of the pace of `etl`.
fn shown(world: &World) -> Value {
    json!(world.telemetry.snapshot().budgets[0].paces[0])
}

#[tokio::test(start_paused = true)]
async fn a_burst_goes_at_once_and_the_rest_one_after_the_other() {
    let world = World::new(&paced("per_second: 10, burst: 5, queue: 6"));
    let seen = all(at_once(&world, 12)).await;
    let refused: Vec<_> = seen.iter().filter(|(code, _)| *code == 429).collect();
    assert_eq!(refused.len(), 1, "five at once, six wait: {seen:?}");
    let went: Vec<u64> = seen.iter().filter(|(code, _)| *code == 200).map(|(_, time)| *time).collect();
    let expected = [0, 0, 0, 0, 0, 100, 200, 300, 400, 500, 600];
    assert_eq!(went.len(), expected.len());
    for (time, wanted) in went.iter().zip(expected) {
        // Timers are good to a millisecond.
        assert!((wanted..=wanted + 5).contains(time), "{went:?}");
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn over_a_minute_of_haste_the_pace_is_kept_and_used() {
    let world = World::new(&paced("per_second: 20, burst: 10, queue: 50, wait: 10s"));
    let (done, mut answers) = unbounded_channel();
    for _ in 0..40 {
        let (mut client, done) = (etl(&world), done.clone());
        world.beside(async move {
            let began = Instant::now();
            while began.elapsed() < Duration::from_mins(1) {
                let code = client.get("limits").await.code();
                assert_eq!(code, 200, "forty apps find room among fifty places");
                done.send(began.elapsed()).unwrap();
            }
        });
    }
    drop(done);
    let mut went = Vec::new();
    while let Some(time) = answers.recv().await {
        went.push(time);
    }
    went.sort();
    let minute = went.iter().filter(|time| **time < Duration::from_mins(1)).count();
    assert!((1_195..=1_211).contains(&minute), "{minute} of 10 + 60 * 20");
    for (first, time) in went.iter().enumerate() {
        if let Some(later) = went.get(first + 10 + 20) {
            // Sent in time; the answers are seen up to a timer's tick apart.
            assert!(*later - *time >= Duration::from_millis(1_040), "31 calls in {:?}", *later - *time);
        }
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_wait_is_refused_in_every_shape_and_told_when_to_come_back() {
    let world = World::new(&paced("per_second: 1, burst: 1, queue: 2, wait: 5s"));
    let mut hasty = etl(&world);
    assert_eq!(hasty.get("limits").await.code(), 200);
    let waiting = at_once(&world, 2);
    world.settle().await;

    let refused = hasty.get("limits").await;
    refused.is_refusal(429, "caller_pace", "REQUEST_LIMIT_EXCEEDED");
    assert_eq!(refused.header("retry-after"), "3", "after the two that wait");
    let message = refused.json()[0]["message"].as_str().unwrap().to_owned();
    let told = "This caller may send 1 calls a second and 1 at once, and 2 more wait already. Go slower.";
    assert_eq!(message, told);
    assert_eq!(refused.json()[0]["gateway"]["caller"], "etl");

    let soap = envelope(&token("admin"), "<urn:getUserInfo/>");
    let fault = hasty.send("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], soap).await;
    assert_eq!((fault.code(), fault.header("weirkeeper-refused")), (500, "caller_pace"));
    assert!(fault.text().contains("<faultcode>sf:REQUEST_LIMIT_EXCEEDED</faultcode>"), "{}", fault.text());
    let bulk = hasty.get("/services/async/62.0/job/750000000000001AAA").await;
    assert_eq!((bulk.code(), bulk.header("content-type")), (429, "application/xml"));
    assert!(bulk.text().contains("<exceptionCode>ExceededQuota</exceptionCode>"), "{}", bulk.text());
    assert_eq!(bulk.header("retry-after"), "3");

    // Nobody else is slowed, and the gateway's own page is not a call.
    assert_eq!(world.client().get("limits").await.code(), 200);
    let page = hasty.get("/weirkeeper/v1/budget").await.json();
    assert_eq!((&page["pace"]["waiting"], &page["pace"]["left"]), (&json!(2), &json!(0)), "{page}");
    assert_eq!(all(waiting).await.iter().map(|(code, _)| *code).collect::<Vec<_>>(), [200, 200]);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_turn_comes_after_its_deadline_is_refused_at_once() {
    let world = World::new(&paced("per_second: 1, burst: 1, queue: 50, wait: 3s"));
    let mut hasty = etl(&world);
    assert_eq!(hasty.get("limits").await.code(), 200);
    let began = Instant::now();
    let refused = hasty.send("GET", "limits", &[("x-request-timeout-ms", "900")], "").await;
    refused.is_refusal(429, "caller_pace", "REQUEST_LIMIT_EXCEEDED");
    assert!(refused.text().contains("turn comes after its deadline"), "{}", refused.text());
    let waiting = at_once(&world, 3);
    world.settle().await;
    let refused = hasty.get("limits").await;
    assert!(refused.text().contains("would wait longer than 3 s"), "{}", refused.text());
    assert!(began.elapsed() < Duration::from_millis(100), "nobody waited in vain");
    drop(waiting);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_leaves_the_queue_has_taken_nothing_and_who_stays_moves_up() {
    let world = World::new(&paced("per_second: 1, burst: 1, queue: 20, wait: 30s"));
    assert_eq!(etl(&world).get("limits").await.code(), 200);
    let head = format!(
        "GET /services/data/v62.0/limits HTTP/1.1\r\nhost: sf.internal\r\nauthorization: Bearer {}\r\n\
         sforce-call-options: client=etl\r\n\r\n",
        token("admin")
    );
    let mut leaving = Vec::new();
    for _ in 0..10 {
        let mut stream = world.raw();
        stream.write_all(head.as_bytes()).await.unwrap();
        leaving.push(stream);
    }
    world.settle().await;
    let mut staying = at_once(&world, 2);
    world.settle().await;
    assert_eq!(shown(&world)["waiting"], 12);
    // The first goes after a second. Then all ten hang up, which counts as leaving after two seconds more, in which two go.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(shown(&world)["waiting"], 11);
    drop(leaving);
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    assert_eq!(shown(&world)["waiting"], 2);
    for wanted in [4_000, 5_000] {
        let (code, time) = staying.recv().await.unwrap();
        assert_eq!(code, 200);
        assert!((wanted - 10..=wanted + 10).contains(&time), "{time} instead of {wanted}");
    }
    assert_eq!(shown(&world)["waiting"], 0);
    // One before, three that left too late, two that stayed: nothing else was sent.
    assert_eq!(world.sim.counts().charged, 6);
    let left: Vec<_> = world.lines().into_iter().filter(|line| line["status"] == 499).collect();
    assert_eq!(left.iter().filter(|line| line["attempts"] == 0).count(), 7, "{left:?}");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn observing_counts_what_enforcing_would_refuse_and_delays_nothing() {
    let world = World::new(&paced("mode: observe, per_second: 1, burst: 2, queue: 3, wait: 1m"));
    let seen = all(at_once(&world, 10)).await;
    assert!(seen.iter().all(|(code, time)| *code == 200 && *time < 50), "{seen:?}");
    world.settle().await;
    let would = world.lines().iter().filter(|line| line["would_refuse"] == "caller_pace").count();
    assert_eq!(would, 5, "two at once, three would have waited");
    let counted = world.metric("weirkeeper_would_refuse_total", &[("caller", "etl"), ("reason", "caller_pace")]);
    assert!((counted - 5.0).abs() < f64::EPSILON, "{counted}");
    assert_eq!(shown(&world)["mode"], "observe");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_changes_the_pace_and_gives_no_second_burst() {
    let world = World::new(&paced("per_second: 1, burst: 10, queue: 5, wait: 30s"));
    assert!(all(at_once(&world, 10)).await.iter().all(|(code, _)| *code == 200));
    let waiting = at_once(&world, 3);
    world.settle().await;
    world.reload(&paced("per_second: 2, burst: 10, queue: 5, wait: 30s"));
    assert_eq!((&shown(&world)["waiting"], &shown(&world)["per_second"]), (&json!(3), &json!(2)));
    let later = at_once(&world, 1);
    let went = all(waiting).await;
    assert!(went.last().unwrap().1 <= 2_010, "two a second, once the first had waited: {went:?}");
    let (code, time) = all(later).await[0];
    assert!(code == 200 && time >= went.last().unwrap().1, "nobody overtakes by a reload: {time} {went:?}");
    world.reload(&paced("mode: 'off', per_second: 2"));
    assert!(all(at_once(&world, 30)).await.iter().all(|(code, _)| *code == 200));
    assert_eq!(json!(world.telemetry.snapshot().budgets[0].paces), json!([]));
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn waits_and_refusals_stand_in_log_and_metrics() {
    let world = World::new(&paced("per_second: 4, burst: 1, queue: 2"));
    let seen = all(at_once(&world, 4)).await;
    assert_eq!(seen.iter().filter(|(code, _)| *code == 429).count(), 1);
    world.settle().await;
    let lines = world.lines();
    let waits: Vec<f64> = lines.iter().filter_map(|line| line["paced_ms"].as_f64()).collect();
    assert_eq!(waits.len(), 2, "only who waited says so");
    assert!((waits[0] - 250.0).abs() < 5.0 && (waits[1] - 500.0).abs() < 5.0, "{waits:?}");
    let is = |name: &str, labels: &[(&str, &str)], value: f64| {
        let measured = world.metric(name, labels);
        assert!((measured - value).abs() < 0.02, "{name} {labels:?}: {measured}");
    };
    is("weirkeeper_pace_wait_seconds_count", &[("org", "prod"), ("caller", "etl")], 2.0);
    is("weirkeeper_pace_wait_seconds_sum", &[("caller", "etl")], 0.75);
    is("weirkeeper_pace_waiting", &[("caller", "etl")], 0.0);
    is("weirkeeper_pace_refusals_total", &[("caller", "etl"), ("cause", "places")], 1.0);
    is("weirkeeper_refusals_total", &[("caller", "etl"), ("reason", "caller_pace")], 1.0);
    assert_eq!((&shown(&world)["waited"], &shown(&world)["refused"]), (&json!(2), &json!([["places", 1]])));
    world.close().await;
}
