//! Promise: a batch job can never starve an interactive app of the places for calls that run long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::time::Instant;
use weirkeeper::sim::{Fault, FaultAction, SimConfig, SimLongRunning};

use crate::client::{Answer as _, Client, head, read_until};
use crate::world::{ORIGIN, World, small};

/// What one kind of caller met.
#[derive(Debug, Default, Clone)]
struct Met {
    answered: usize,
    refused_by_salesforce: usize,
    refused_by_us: usize,
    waits: Vec<Duration>,
}

impl Met {
    fn note(&mut self, answer: &http::Response<bytes::Bytes>, took: Duration) {
        self.waits.push(took);
        match (answer.code(), answer.header("weirkeeper-refused")) {
            (200, _) => self.answered += 1,
            (403, "") if answer.text().contains("ConcurrentRequests") => self.refused_by_salesforce += 1,
            (_, "") => panic!("{}: {}", answer.code(), answer.text()),
            _ => self.refused_by_us += 1,
        }
    }

    fn p99(&self) -> Duration {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        waits.get(waits.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default()
    }
}

/// How the scenario is played.
#[derive(Debug, Clone, Copy)]
struct Play {
    batch_callers: usize,
    batch_takes: Duration,
    interactive_every: Duration,
    interactive_takes: Duration,
    lasts: Duration,
}

const DAY: Play = Play {
    batch_callers: 40,
    batch_takes: Duration::from_secs(30),
    interactive_every: Duration::from_millis(20),
    interactive_takes: Duration::from_millis(200),
    // Three rounds of batch calls, and what it takes to count them.
    lasts: Duration::from_secs(92),
};

const CALLERS: &str = "callers:
- {name: shop, match: {call_options_client: shop}, class: interactive}
- {name: etl, match: {call_options_client: etl}, class: batch}
- {name: anyone, match: any}
";

/// Calls of `etl` and `shop` take as long as the play says.
fn staged(world: &World, play: Play) {
    for (client, takes) in [("etl", play.batch_takes), ("shop", play.interactive_takes)] {
        world.sim.script().fault(Fault {
            client: Some(client.to_owned()),
            latency_ms: u64::try_from(takes.as_millis()).unwrap(),
            ..Fault::default()
        });
    }
}

/// Plays it with clients that `client` makes; what batch and interactive callers met.
async fn played(world: &World, play: Play, client: impl Fn(&str) -> Client) -> (Met, Met) {
    staged(world, play);
    let (batch, interactive) = (Arc::new(Mutex::new(Met::default())), Arc::new(Mutex::new(Met::default())));
    let end = Instant::now() + play.lasts;
    let mut callers = Vec::new();
    for _ in 0..play.batch_callers {
        let (mut client, met) = (client("etl"), Arc::clone(&batch));
        callers.push(world.beside(async move {
            while Instant::now() < end {
                let began = Instant::now();
                let answer = client.query("SELECT Id FROM Account WHERE Name LIKE 'A%'").await;
                if Instant::now() <= end {
                    met.lock().note(&answer, began.elapsed());
                }
                if answer.code() != 200 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }));
    }
    let idle: Arc<Mutex<Vec<Client>>> = Arc::default();
    while Instant::now() < end {
        let waiting = idle.lock().pop();
        let mut client = waiting.unwrap_or_else(|| client("shop"));
        let (met, idle) = (Arc::clone(&interactive), Arc::clone(&idle));
        callers.push(world.beside(async move {
            let began = Instant::now();
            let answer = client.get("sobjects/Account").await;
            met.lock().note(&answer, began.elapsed());
            idle.lock().push(client);
        }));
        tokio::time::sleep(play.interactive_every).await;
    }
    for caller in callers {
        caller.await.unwrap();
    }
    let (batch, interactive) = (batch.lock().clone(), interactive.lock().clone());
    (batch, interactive)
}

const HEADING: &str =
    "                         batch   refused    by us        p99   interact   refused    by us        p99";

fn line(who: &str, batch: &Met, interactive: &Met) -> String {
    format!(
        "{who:<22}{:>8} {:>9} {:>8} {:>10}   {:>8} {:>9} {:>8} {:>10}",
        batch.answered,
        batch.refused_by_salesforce,
        batch.refused_by_us,
        format!("{:.1} s", batch.p99().as_secs_f64()),
        interactive.answered,
        interactive.refused_by_salesforce,
        interactive.refused_by_us,
        format!("{} ms", interactive.p99().as_millis()),
    )
}

#[tokio::test(start_paused = true)]
async fn forty_batch_calls_of_thirty_seconds_never_reach_fifty_interactive_calls_a_second() {
    let alone = World::new(CALLERS);
    let quiet = Play { batch_callers: 0, ..DAY };
    let (none, undisturbed) =
        played(&alone, quiet, |name| alone.client().with("sforce-call-options", &format!("client={name}"))).await;
    alone.close().await;

    let world = World::new(&format!("queue: {{wait: {{batch: 90s}}}}\n{CALLERS}"));
    let (batch, interactive) =
        played(&world, DAY, |name| world.client().with("sforce-call-options", &format!("client={name}"))).await;
    let peak = world.sim.counts().slots_peak;
    world.close().await;

    let open = World::new(CALLERS);
    let (direct_batch, direct_interactive) =
        played(&open, DAY, |name| open.direct().with("sforce-call-options", &format!("client={name}"))).await;

    println!(
        "40 batch callers with calls of 30 s, 50 interactive calls of 200 ms a second, 25 slots, {} s",
        DAY.lasts.as_secs()
    );
    println!("{HEADING}");
    println!("{}", line("interactive alone", &none, &undisturbed));
    println!("{}", line("through the gateway", &batch, &interactive));
    println!("{}", line("direct", &direct_batch, &direct_interactive));
    println!("old calls at the same time, at most: {peak}");

    assert_eq!(batch.refused_by_salesforce + interactive.refused_by_salesforce, 0, "nobody is refused by Salesforce");
    assert_eq!(interactive.refused_by_us, 0, "no interactive call is refused by us");
    assert!(interactive.p99() <= undisturbed.p99() * 11 / 10, "{:?} of {:?}", interactive.p99(), undisturbed.p99());
    // 15 slots, each free again after 30 s.
    let possible = 15.0 * DAY.lasts.as_secs_f64() / DAY.batch_takes.as_secs_f64();
    println!("batch calls answered by then: {} of {possible:.1} that 15 slots allow", batch.answered);
    assert!(batch.answered as f64 >= possible * 0.95);
    assert_eq!(batch.refused_by_us, 0);
    assert!(peak <= 15, "{peak}");
    assert!(direct_interactive.refused_by_salesforce > 1_000, "without the gateway there is damage");
}

/// The same in real time, a hundred times as fast: what is printed is measured on whatever machine this is.
#[tokio::test]
async fn in_real_time_too_nobody_is_refused_by_salesforce() {
    let play = Play {
        batch_callers: 40,
        batch_takes: Duration::from_millis(600),
        interactive_every: Duration::from_millis(20),
        interactive_takes: Duration::from_millis(20),
        lasts: Duration::from_secs(6),
    };
    let scaled = || {
        let long_running = SimLongRunning { after_ms: 400, ..SimLongRunning::default() };
        SimConfig { long_running, ..small() }
    };
    let yaml =
        format!("orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', long_running: {{after: 400ms}}}}]\n{CALLERS}");
    let alone = World::with(scaled(), &yaml);
    let quiet = Play { batch_callers: 0, ..play };
    let (none, undisturbed) =
        played(&alone, quiet, |name| alone.client().with("sforce-call-options", &format!("client={name}"))).await;
    alone.close().await;
    let world = World::with(scaled(), &yaml);
    let (batch, interactive) =
        played(&world, play, |name| world.client().with("sforce-call-options", &format!("client={name}"))).await;
    world.close().await;
    let open = World::with(scaled(), &yaml);
    let (direct_batch, direct_interactive) =
        played(&open, play, |name| open.direct().with("sforce-call-options", &format!("client={name}"))).await;
    println!(
        "the same in real time, 6 s, 25 slots for calls of 400 ms and longer, 40 batch callers with calls of 600 ms"
    );
    println!("{HEADING}");
    println!("{}", line("interactive alone", &none, &undisturbed));
    println!("{}", line("through the gateway", &batch, &interactive));
    println!("{}", line("direct", &direct_batch, &direct_interactive));
    assert_eq!(batch.refused_by_salesforce + interactive.refused_by_salesforce, 0);
    assert_eq!(interactive.refused_by_us, 0);
    assert!(direct_interactive.refused_by_salesforce > 0, "without the gateway there is damage");
}

/// Jain's index: 1 if all are equal, 1/n if one has everything.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    sum * sum / (shares.len() as f64 * squares)
}

/// A caller of the mixed day.
#[derive(Debug, Clone)]
struct Kind {
    name: String,
    class: &'static str,
    soql: &'static str,
    weight: u32,
    workers: usize,
    takes: Duration,
    pause: Duration,
    /// From when to when it works, and from when it counts.
    works: [Duration; 3],
}

/// 30 callers: those that want most want a dozen times what those want that want least. Standard callers work in the first
/// hour, batch callers all the time, and get their turn in the second.
fn thirty() -> Vec<Kind> {
    let minutes = |minutes: [u64; 3]| minutes.map(Duration::from_mins);
    (0..30_usize)
        .map(|place| {
            let (class, soql, weight, workers, takes, pause, works) = match place {
                0..8 => ("interactive", "SELECT Id FROM Account LIMIT 1", 1, 2 + place, 200, 20, minutes([0, 120, 10])),
                8..16 => (
                    "standard",
                    "SELECT Id FROM Contact",
                    1 + place % 2,
                    3 + 3 * (place % 4),
                    30_000,
                    0,
                    minutes([0, 60, 10]),
                ),
                _ => {
                    let workers = 4 + (place % 5) * (place % 5) * 2;
                    ("batch", "SELECT Id FROM Opportunity", 1 + place % 2, workers, 45_000, 0, minutes([0, 120, 70]))
                }
            };
            let (weight, takes, pause) = (weight as u32, Duration::from_millis(takes), Duration::from_secs(pause));
            Kind { name: format!("app-{place:02}"), class, soql, weight, workers, takes, pause, works }
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn on_a_mixed_day_backlogged_callers_share_by_weight_and_nobody_waits_past_its_deadline() {
    const PLACES: usize = 400;
    const DEADLINE: Duration = Duration::from_mins(10);
    let kinds = thirty();
    let mut yaml = format!("queue: {{places: {PLACES}, wait: {{standard: 10m, batch: 6h}}}}\ncallers:\n");
    for Kind { name, class, weight, .. } in &kinds {
        let deadline = if *class == "standard" { "deadline: 10m, " } else { "" };
        yaml.push_str(&format!(
            "- {{name: {name}, match: {{call_options_client: {name}}}, class: {class}, {deadline}daily: {{weight: {weight}}}}}\n"
        ));
    }
    let world = World::with(SimConfig { records: 5, ..small() }, &yaml);
    for Kind { name, takes, .. } in &kinds {
        world.sim.script().fault(Fault {
            client: Some(name.clone()),
            latency_ms: u64::try_from(takes.as_millis()).unwrap(),
            jitter_ms: u64::try_from(takes.as_millis() / 10).unwrap(),
            ..Fault::default()
        });
    }
    let served: Arc<Mutex<BTreeMap<String, (usize, usize)>>> = Arc::default();
    let start = Instant::now();
    let mut workers = Vec::new();
    for kind in &kinds {
        for _ in 0..kind.workers {
            let mut client = world.client().with("sforce-call-options", &format!("client={}", kind.name));
            let (served, kind) = (Arc::clone(&served), kind.clone());
            workers.push(world.beside(async move {
                let [begins, ends, counts] = kind.works.map(|at| start + at);
                tokio::time::sleep_until(begins).await;
                while Instant::now() < ends {
                    let answer = client.query(kind.soql).await;
                    let ok = answer.code() == 200;
                    assert!(ok || !answer.header("weirkeeper-refused").is_empty(), "{}", answer.text());
                    if (counts..ends).contains(&Instant::now()) {
                        let mut served = served.lock();
                        let count = served.entry(kind.name.clone()).or_default();
                        if ok { count.0 += 1 } else { count.1 += 1 }
                    }
                    tokio::time::sleep(if ok { kind.pause } else { Duration::from_secs(5) }).await;
                }
            }));
        }
    }
    let mut deepest = 0;
    for _ in 0..2 * 60 {
        tokio::time::sleep(Duration::from_mins(1)).await;
        let slots = world.telemetry.snapshot().slots;
        deepest = deepest.max(slots[0].view.queue.iter().map(|waiting| waiting.waiting).sum());
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let served = served.lock().clone();
    println!("30 callers, two hours; at most {deepest} of {PLACES} places were taken");
    for class in ["interactive", "standard", "batch"] {
        let of_class: Vec<&Kind> = kinds.iter().filter(|kind| kind.class == class).collect();
        let got = |kind: &Kind| served.get(&kind.name).copied().unwrap_or_default();
        let shares: Vec<f64> = of_class.iter().map(|kind| got(kind).0 as f64 / f64::from(kind.weight)).collect();
        let counts: Vec<String> =
            of_class.iter().map(|kind| format!("{} of {} by {}", got(kind).0, kind.weight, kind.workers)).collect();
        println!("{class:<12} served, of weight, by so many at once: {}", counts.join(", "));
        let refused: usize = of_class.iter().map(|kind| got(kind).1).sum();
        println!("{:<12} Jain's index {:.4}, refused {refused}", "", jain(&shares));
        // Interactive callers have no backlog: each gets what it asks for.
        if class != "interactive" {
            assert!(jain(&shares) >= 0.95, "{class}: {shares:?}");
        }
    }
    assert!(deepest <= PLACES && deepest > 100, "{deepest}");
    for line in world.lines() {
        let queued = line["queued_ms"].as_f64().unwrap_or_default();
        assert!(line["class"] != "standard" || queued <= DEADLINE.as_secs_f64() * 1_000.0 + 1.0, "{line}");
        assert!(line["class"] != "interactive" || (line["status"] == 200 && line["queued_ms"].is_null()), "{line}");
        assert!(line["error_code"].is_null(), "{line}");
    }
    world.close().await;
}

/// The bytes of a query in the name of `client`.
fn query_of(client: &str) -> String {
    head("GET", "query?q=SELECT+Id+FROM+Account", &format!("sforce-call-options: client={client}\r\n"))
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_callers_leaving_at_random_points_leak_nothing() {
    let yaml = format!("orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', in_flight: 60}}]\n{CALLERS}");
    let world = World::new(&yaml);
    // Long enough for the gateway to notice that somebody has left.
    staged(&world, Play { interactive_takes: Duration::from_secs(5), ..DAY });
    let mut random = fastrand::Rng::with_seed(5);
    for _ in 0..100 {
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let name = if random.u8(..) < 100 { "etl" } else { "shop" };
                let mut stream = world.raw();
                // From at once to long after the answer.
                let patience = Duration::from_secs_f64(120.0 * random.f64().powi(6));
                world.beside(async move {
                    stream.write_all(query_of(name).as_bytes()).await.unwrap();
                    let _gone = tokio::time::timeout(patience, read_until(&mut stream, "\r\n\r\n")).await;
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
    }
    let view = world.telemetry.snapshot().slots.remove(0).view;
    let lines = world.lines();
    let ended = |how: &str, queued: bool| {
        lines.iter().filter(|line| line["ending"] == how && line["queued_ms"].is_number() == queued).count()
    };
    let (left, left_queue) = (ended("caller_left", false), ended("caller_left", true));
    println!(
        "of 10,000 callers {left} left before they were answered, {left_queue} more after they had waited in the queue; {} \
         ghosts at the end",
        view.ghost
    );
    assert!(left > 300 && left_queue > 300, "{left} {left_queue}");
    // Ghosts go when Salesforce is done with them, or has surely ended them.
    tokio::time::sleep(Duration::from_mins(33)).await;
    let view = world.telemetry.snapshot().slots.remove(0).view;
    let held = (view.live, view.predicted, view.ghost, view.overdraft, view.in_the_air);
    assert_eq!(held, (0, 0, 0, 0, 0));
    assert_eq!(view.queue.iter().map(|waiting| waiting.waiting).sum::<usize>(), 0);
    assert_eq!(world.telemetry.snapshot().budgets[0].budget.reserved, 0);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_leave_at_every_turn() {
    let yaml = format!(
        "orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', long_running: {{slots: 2, batch_at_most: 1}}}}]\n{CALLERS}"
    );
    let world = World::new(&yaml);
    staged(&world, DAY);
    let mut endings = BTreeMap::new();
    for turns in 0..70 {
        // One call holds the only slot, one waits, and leaves after so many turns of the runtime.
        let mut holder = world.client().with("sforce-call-options", "client=etl");
        let holds = world.beside(async move { drop(holder.get("query?q=SELECT+Id+FROM+Account").await) });
        world.settle().await;
        let mut leaves = world.raw();
        leaves.write_all(query_of("etl").as_bytes()).await.unwrap();
        for turn in 0..turns {
            // A few turns without time passing, then time.
            if turn < 30 {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        }
        drop(leaves);
        holds.await.unwrap();
        tokio::time::sleep(Duration::from_mins(2)).await;
        let snapshot = world.telemetry.snapshot();
        let view = &snapshot.slots[0].view;
        let waiting: usize = view.queue.iter().map(|waiting| waiting.waiting).sum();
        let left = (view.live + view.predicted + view.ghost + view.overdraft, view.in_the_air, waiting);
        assert_eq!(left, (0, 0, 0), "after {turns} turns");
        assert_eq!(snapshot.budgets[0].budget.reserved, 0, "after {turns} turns");
    }
    for line in world.lines() {
        *endings.entry((line["ending"].to_string(), line["attempts"].to_string())).or_insert(0) += 1;
    }
    println!("left after each of 70 turns, by ending and attempts: {endings:?}");
    let left = |attempts: &str| endings.get(&("\"caller_left\"".to_owned(), attempts.to_owned())).copied().unwrap_or(0);
    assert!(left("0") > 5 && left("1") > 5, "while it waits, and after it was sent: {endings:?}");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_sent_call_keeps_its_slot_when_its_caller_leaves_and_salesforce_is_believed() {
    let world = World::new(CALLERS);
    staged(&world, DAY);
    let mut etl = world.raw();
    etl.write_all(query_of("etl").as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(etl);
    // Who only closes its side of the connection looks the same for a while.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let slots = |state| world.metric("weirkeeper_long_running_slots", &[("state", state)]);
    assert!((slots("ghost") - 1.0).abs() < f64::EPSILON);
    let shown = serde_json::to_value(&world.telemetry.snapshot().slots[0]).unwrap();
    assert_eq!(
        (&shown["calls"][0]["caller"], &shown["calls"][0]["class"], &shown["calls"][0]["ghost"], &shown["mode"]),
        (&json!("etl"), &json!("batch"), &json!(true), &json!("enforce"))
    );
    assert_eq!(shown["calls"][0]["template"], "/services/data/{version}/query");
    assert_eq!(shown["held"], json!({"interactive": 0, "standard": 0, "batch": 1}));
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(slots("ghost") < f64::EPSILON);
    world.sim.script().clear_faults();
    world.sim.script().fault(Fault {
        times: Some(1),
        action: FaultAction::Error {
            status: 403,
            code: "REQUEST_LIMIT_EXCEEDED".into(),
            message: "ConcurrentRequests (Concurrent API Requests) Limit exceeded.".into(),
        },
        ..Fault::default()
    });
    let mut shop = world.client().with("sforce-call-options", "client=shop");
    assert_eq!(shop.get("limits").await.code(), 403);
    assert!((world.metric("weirkeeper_long_running_capacity", &[]) - 12.0).abs() < f64::EPSILON);
    assert!((world.metric("weirkeeper_long_running_refused_total", &[]) - 1.0).abs() < f64::EPSILON);
    // Other rules keep what was learnt; without slots nothing is looked at.
    world.reload(CALLERS);
    assert!((world.metric("weirkeeper_long_running_capacity", &[]) - 12.0).abs() < f64::EPSILON);
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert!((world.metric("weirkeeper_long_running_capacity", &[]) - 25.0).abs() < f64::EPSILON);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_why_and_when_to_come_back() {
    let yaml = format!(
        "orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', long_running: {{slots: 2, batch_at_most: 1}}}}]
queue: {{wait: {{batch: 20s}}}}
{CALLERS}"
    );
    let world = World::new(&yaml);
    staged(&world, DAY);
    let etl = || world.client().with("sforce-call-options", "client=etl");
    let (mut first, mut second) = (etl(), etl());
    let holds = world.beside(async move { assert_eq!(first.get("query?q=SELECT+Id+FROM+Account").await.code(), 200) });
    world.settle().await;
    let refused = second.get("query?q=SELECT+Id+FROM+Account").await;
    refused.is_refusal(503, "slots_busy", "SERVER_UNAVAILABLE");
    assert!(
        refused.text().contains("All slots of prod that calls of class batch may hold are held"),
        "{}",
        refused.text()
    );
    let line = world.last_line().await;
    assert_eq!((&line["queue_position"], &line["length"]), (&json!(1), &json!("long")), "{line}");
    assert!((line["queued_ms"].as_f64().unwrap() - 20_000.0).abs() < 5.0, "{line}");
    let counted = world.metric("weirkeeper_queue_wait_seconds_count", &[("class", "batch"), ("org", "prod")]);
    assert!((counted - 1.0).abs() < f64::EPSILON);
    // A caller with less time than the wait is told at once, as soon as it is known how long such calls take.
    holds.await.unwrap();
    for _ in 0..4 {
        assert_eq!(second.get("query?q=SELECT+Id+FROM+Account").await.code(), 200);
    }
    let mut first = etl();
    let holds = world.beside(async move { assert_eq!(first.get("query?q=SELECT+Id+FROM+Account").await.code(), 200) });
    tokio::time::sleep(Duration::from_secs(12)).await;
    let hurried = [("x-request-timeout-ms", "15000")];
    let asked = Instant::now();
    let refused = second.send("GET", "query?q=SELECT+Id+FROM+Account", &hurried, "").await;
    refused.is_refusal(503, "slots_busy", "SERVER_UNAVAILABLE");
    assert!(refused.text().contains("would wait about 1"), "{}", refused.text());
    assert!(asked.elapsed() < Duration::from_millis(5), "{:?}", asked.elapsed());
    assert_eq!(second.get("query?q=SELECT+Id+FROM+Account").await.code(), 200, "18 s are not too long");
    holds.await.unwrap();
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn apex_has_slots_of_its_own_where_that_is_wanted() {
    let yaml = format!(
        "orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', long_running: {{apex: {{slots: 4, batch_at_most: 2}}}}}}]\n{CALLERS}"
    );
    let world = World::new(&yaml);
    world.sim.script().fault(Fault {
        path: Some("/services/apexrest/".into()),
        latency_ms: 8_000,
        action: FaultAction::Answer {
            status: 200,
            body: "1".into(),
            content_type: "application/json".into(),
            headers: Vec::new(),
        },
        ..Fault::default()
    });
    let began = Instant::now();
    let callers: Vec<_> = (0..6)
        .map(|_| {
            let mut etl = world.client().with("sforce-call-options", "client=etl");
            world.beside(async move { assert_eq!(etl.get("/services/apexrest/Nightly").await.code(), 200) })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let slots = world.telemetry.snapshot().slots.remove(0);
    let apex = slots.apex.unwrap();
    assert_eq!((apex.predicted, apex.queue[2].waiting, slots.view.predicted), (2, 4, 2));
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(began.elapsed().as_secs(), 24, "two at a time");
    // Salesforce's refusal is learnt from by this guard alone.
    world.sim.script().clear_faults();
    world.sim.script().fault(Fault {
        times: Some(1),
        action: FaultAction::Error {
            status: 403,
            code: "REQUEST_LIMIT_EXCEEDED".into(),
            message: "ConcurrentPerOrgLongTxn Limit exceeded.".into(),
        },
        ..Fault::default()
    });
    let mut shop = world.client().with("sforce-call-options", "client=shop");
    assert_eq!(shop.get("/services/apexrest/Nightly").await.code(), 403);
    let slots = world.telemetry.snapshot().slots.remove(0);
    assert_eq!((slots.apex.unwrap().effective, slots.view.effective), (2, 25));
    world.close().await;
}
