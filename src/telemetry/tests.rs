//! What a process full of requests shows: in the metrics, in the log and in the status.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use smol_str::SmolStr;

use super::snapshot::BudgetSnapshot;
use super::*;
use crate::admission::bank::Standing;
use crate::admission::slots::{SlotSettings, Slots};
use crate::admission::{Funding, Hurry, Ledger, Minute, OrgBudget, OrgSettings, PaceBudget, Reading, Share, Timeline};
use crate::call::{ApiCalls, ApiVersion, CallerId, Class, Family, Operation, OrgId, Principal};
use crate::config::{BreakerMode, DailyMode, PaceMode, SlotMode};
use crate::exchange::breaker::BreakerState;
use crate::exchange::vault::{Shares, State, Trouble};
use crate::outcome::{
    CacheResult, Ending, Errand, Exchange, FailureKind, Failures, PollResult, Purse, Queued, Remembered, RequestId,
    RetryResult, Source as AnswerSource,
};
use crate::refusal::Reason;
use crate::salesforce::taxonomy;

struct World {
    clock: Clock,
    telemetry: Telemetry,
    recorder: Recorder,
    memory: Memory,
    names: Arc<Names>,
}

impl World {
    fn new(options: TelemetryOptions) -> Self {
        let clock = Clock::at(Duration::from_hours(498_698));
        let (log, memory) = Log::in_memory(clock, 64 << 20);
        let telemetry = Telemetry::new(clock, log, options);
        let names = telemetry.set_names(["prod", "test"], ["storefront", "billing"]);
        Self { clock, recorder: telemetry.recorder(), telemetry, memory, names }
    }

    fn finish(&self) -> Finish<'_> {
        Finish {
            names: &self.names,
            now: self.clock.now(),
            remote: Some([10, 1, 2, 3].into()),
            http: http::Version::HTTP_11,
        }
    }

    /// A read of an Account that took 30 ms, 28 of them at Salesforce.
    fn read(&self) -> Outcome {
        let started = self.clock.now();
        let mut outcome = Outcome::new(RequestId(7), started, http::Method::GET);
        outcome.org = Some(OrgId(0));
        outcome.caller = Some(CallerId(1));
        outcome.principal = Principal([0xab; 16]);
        outcome.class = Class::Batch;
        outcome.family = Family::Rest;
        outcome.operation = Operation::Read;
        outcome.object = Some("Account".into());
        outcome.template = "/services/data/{version}/sobjects/{object}/{id}";
        outcome.version = Some(ApiVersion(620));
        outcome.client = Some("billing/2.1".into());
        outcome.status = 200;
        outcome.source = AnswerSource::Upstream;
        outcome.ending = Ending::Complete;
        outcome.ended = Some(started + Duration::from_millis(30));
        outcome.bytes_out = 2_048;
        outcome.exchanges.push(Exchange {
            head: Some(started + Duration::from_millis(20)),
            ended: Some(started + Duration::from_millis(29)),
            status: Some(200),
            ..Exchange::sent(started + Duration::from_millis(1), ApiCalls(1))
        });
        outcome
    }

    fn series(&self, name: &str) -> Vec<String> {
        let lines = self.telemetry.render();
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        lines.lines().filter(of_name).map(str::to_owned).collect()
    }

    fn last_line(&self) -> serde_json::Value {
        serde_json::from_str(self.memory.text().lines().last().unwrap()).unwrap()
    }
}

#[test]
fn a_request_is_told_in_the_same_words_everywhere() {
    let world = World::new(TelemetryOptions::default());
    world.recorder.finish(&world.read(), &world.finish());
    assert_eq!(
        world.series("weirkeeper_requests_total"),
        [
            "weirkeeper_requests_total{org=\"prod\",caller=\"billing\",class=\"batch\",family=\"rest\",object=\"Account\",\
          operation=\"read\",status=\"200\",source=\"upstream\"} 1"
        ]
    );
    assert_eq!(
        world.series("weirkeeper_api_calls_spent_total"),
        ["weirkeeper_api_calls_spent_total{org=\"prod\",caller=\"billing\",class=\"batch\",family=\"rest\"} 1"]
    );
    assert_eq!(
        world.series("weirkeeper_overhead_seconds_sum"),
        ["weirkeeper_overhead_seconds_sum{org=\"prod\"} 0.002"]
    );
    assert_eq!(
        world.series("weirkeeper_api_version_requests_total"),
        ["weirkeeper_api_version_requests_total{org=\"prod\",caller=\"billing\",version=\"v62.0\"} 1"]
    );
    assert_eq!(
        world.last_line(),
        serde_json::json!({
            "time": "2026-11-22T02:00:00.030Z", "event": "request", "request_id": "00000000000000000000000000000007",
            "org": "prod", "caller": "billing", "class": "batch", "principal": "abababab", "client": "billing/2.1",
            "remote": "10.1.2.3", "http": "1.1", "method": "GET", "family": "rest", "operation": "read",
            "object": "Account", "template": "/services/data/{version}/sobjects/{object}/{id}", "version": "v62.0",
            "status": 200, "source": "upstream", "ending": "complete", "charged": 1, "attempts": 1,
            "upstream_status": 200, "duration_ms": 30.0, "upstream_ms": 28.0, "bytes_in": 0, "bytes_out": 2048,
        })
    );
    let status = world.telemetry.status();
    assert_eq!((status.totals.requests, status.totals.api_calls_spent), (1, 1));
    assert_eq!((status.callers[0].caller.as_str(), status.callers[0].requests), ("billing", 1));
}

#[test]
fn refusals_failures_and_lost_writes_are_counted_by_their_names() {
    let world = World::new(TelemetryOptions::default());
    let mut outcome = world.read();
    outcome.refusal = Some(Reason::OutcomeUnknown);
    outcome.would_refuse = Some(Reason::Forbidden);
    outcome.source = AnswerSource::Gateway;
    outcome.status = 504;
    outcome.exchanges[0].failure = Some(FailureKind::Status);
    outcome.exchanges[0].error_code = Some("SERVER_UNAVAILABLE".into());
    let mut lost = outcome.exchanges[0].clone();
    lost.failure = Some(FailureKind::Reset);
    lost.error_code = None;
    lost.charged = ApiCalls(3);
    outcome.exchanges.push(lost);
    world.recorder.finish(&outcome, &world.finish());

    let caller = "org=\"prod\",caller=\"billing\"";
    assert_eq!(
        world.series("weirkeeper_refusals_total"),
        [format!("weirkeeper_refusals_total{{{caller},reason=\"outcome_unknown\"}} 1")]
    );
    assert_eq!(
        world.series("weirkeeper_would_refuse_total"),
        [format!("weirkeeper_would_refuse_total{{{caller},reason=\"forbidden\"}} 1")]
    );
    assert_eq!(
        world.series("weirkeeper_unknown_outcomes_total"),
        [format!("weirkeeper_unknown_outcomes_total{{{caller}}} 1")]
    );
    let error = "weirkeeper_upstream_errors_total{org=\"prod\",family=\"rest\"";
    assert_eq!(
        world.series("weirkeeper_upstream_errors_total"),
        [
            format!("{error},kind=\"reset\",error_code=\"none\"}} 1"),
            format!("{error},kind=\"status\",error_code=\"SERVER_UNAVAILABLE\"}} 1"),
        ]
    );
    assert_eq!(world.telemetry.status().totals.api_calls_spent, 4);
    let line = world.last_line();
    assert_eq!(line["refusal"], "outcome_unknown");
    assert_eq!(line["would_refuse"], "forbidden");
    assert_eq!((&line["attempts"], &line["charged"], &line["failure"]), (&2.into(), &4.into(), &"reset".into()));
}

#[test]
fn an_ingest_job_that_comes_with_its_data_is_a_bulk_batch() {
    let world = World::new(TelemetryOptions::default());
    let create = |template: &'static str, multipart: bool, status: u16| {
        let mut outcome = world.read();
        outcome.method = http::Method::POST;
        outcome.family = Family::Bulk2;
        outcome.template = template;
        outcome.multipart = multipart;
        outcome.exchanges[0].status = Some(status);
        world.recorder.finish(&outcome, &world.finish());
        let now = Minute::containing(world.clock.wall(world.clock.now()));
        world.names.spenders(Some(OrgId(0))).unwrap().batches(now).used
    };
    let (ingest, query) = ("/services/data/{version}/jobs/ingest", "/services/data/{version}/jobs/query");
    assert_eq!(create(ingest, false, 200), 0, "its data is still to come");
    assert_eq!(create(ingest, true, 400), 0, "refused");
    assert_eq!(create(query, true, 200), 0, "a query makes none");
    assert_eq!(create(ingest, true, 200), 1);
}

#[test]
fn who_asks_for_objects_that_do_not_exist_makes_no_labels() {
    let world = World::new(TelemetryOptions { max_objects: 3, ..TelemetryOptions::default() });
    let mut outcome = world.read();
    outcome.status = 404;
    for number in 0..100 {
        outcome.object = Some(smol_str::format_smolstr!("Fake{number}__c"));
        world.recorder.finish(&outcome, &world.finish());
    }
    assert_eq!(world.series("weirkeeper_requests_total").len(), 1);
    outcome.status = 200;
    for name in ["Account", "ACCOUNT", "aCCount", "Contact", "Lead", "Case", "Asset"] {
        outcome.object = Some(name.into());
        world.recorder.finish(&outcome, &world.finish());
    }
    let series = world.series("weirkeeper_requests_total");
    assert_eq!(series.len(), 5, "one for 404, three names and other: {series:#?}");
    assert!(series.iter().any(|line| line.contains("object=\"Account\"") && line.ends_with(" 3")), "{series:#?}");
}

#[test]
fn series_stay_bounded_and_no_request_is_lost() {
    let limit = 50;
    let world = World::new(TelemetryOptions { max_series: limit, ..TelemetryOptions::default() });
    let mut outcome = world.read();
    let mut sent = 0;
    for family in Family::ALL {
        for operation in Operation::ALL {
            for object in 0..20 {
                outcome.family = *family;
                outcome.operation = *operation;
                outcome.object = Some(smol_str::format_smolstr!("Object{object}"));
                outcome.version = Some(ApiVersion(object * 97));
                world.recorder.finish(&outcome, &world.finish());
                sent += 1;
            }
        }
    }
    assert!(world.series("weirkeeper_requests_total").len() <= 2 * limit + 1);
    assert!(world.series("weirkeeper_api_version_requests_total").len() <= 81);
    assert_eq!(world.telemetry.status().totals.requests, sent);
}

#[test]
fn a_reload_books_nobodys_calls_to_somebody_else() {
    let world = World::new(TelemetryOptions::default());
    let outcome = world.read();
    let in_flight = world.names.enter(OrgId(0), Class::Batch).unwrap();
    world.recorder.finish(&outcome, &world.finish());
    let later = world.telemetry.set_names(["test", "prod"], ["billing", "storefront"]);
    world.recorder.finish(&outcome, &Finish { names: &later, ..world.finish() });
    world.recorder.finish(&outcome, &world.finish());
    let callers: Vec<_> = world.telemetry.status().callers.into_iter().map(|c| (c.org, c.caller, c.requests)).collect();
    assert_eq!(
        callers,
        [("prod".to_owned(), "billing".to_owned(), 2), ("test".to_owned(), "storefront".to_owned(), 1)]
    );
    let batch = "weirkeeper_in_flight{org=\"prod\",class=\"batch\"}";
    assert!(world.series("weirkeeper_in_flight").contains(&format!("{batch} 1")));
    drop(in_flight);
    assert!(world.series("weirkeeper_in_flight").contains(&format!("{batch} 0")));
    assert!(world.names.enter(OrgId(9), Class::Batch).is_none());
}

/// A caller whose calls wait for its pace.
fn paced(caller: &str) -> PaceSnapshot {
    let refused = vec![(Hurry::Places, 2), (Hurry::Deadline, 1)];
    let pace = PaceBudget { per_second: 5, burst: 10, left: 0, waiting: 3, places: 4, waited: 7, refused };
    PaceSnapshot { caller: caller.to_owned(), mode: PaceMode::Enforce, pace }
}

/// A ledger that has heard from Salesforce, and one caller with all rights a caller can have.
fn budget() -> BudgetSnapshot {
    let clock = Clock::at(Duration::from_hours(498_698));
    let now = clock.now();
    let share = Share { name: "storefront".into(), floor: 10, ceiling: Some(500), weight: 1 };
    let settings = OrgSettings { limit: Some(1_000), ..OrgSettings::default() };
    let timeline = Timeline::start(clock, now, Duration::ZERO);
    let ledger = Ledger::new(settings, &[share], Funding::Unbounded, timeline, now);
    ledger.read(Reading { used: 900, limit: 1_000 }, now).unwrap();
    BudgetSnapshot {
        org: "prod".into(),
        mode: DailyMode::Enforce,
        budget: OrgBudget { lease: Some(40), ..ledger.org(now) },
        returning_by_hour: [0; 24],
        shared: Some(Standing { replicas: 3, taken: 7, ..Standing::default() }),
        callers: ledger.callers(now),
        paces: vec![paced("storefront"), paced("billing")],
        top_clients: TopClients::default(),
        bulk_batches: BulkBatches::default(),
    }
}

/// What every part could say, filled in.
fn filled(snapshot: &mut Snapshot) {
    snapshot.budgets.push(budget());
    let slots = Slots::new(SlotSettings::default(), Clock::start().now());
    slots.share("one");
    let view = slots.view(Clock::start().now());
    snapshot.slots.push(SlotsSnapshot { org: "prod".into(), mode: SlotMode::Enforce, apex: Some(view.clone()), view });
    let breaker = BreakerSnapshot {
        family: Family::Connect,
        state: BreakerState::HalfOpen,
        by_hand: false,
        opened: 3,
        finds_out_in_seconds: None,
    };
    let (mode, families) = (BreakerMode::Enforce, vec![breaker]);
    let retries = vec![RetrySnapshot { reason: Purse::Lock, allowed: 100, left: 60 }];
    snapshot.breakers.push(BreakersSnapshot { org: "prod".into(), mode, families, users_held_back: 1, retries });
    snapshot.listeners.push(ListenerSnapshot {
        listener: "0.0.0.0:8443".into(),
        tls: true,
        connections: 3,
        connections_refused: 1,
        certificate_not_after_seconds: Some(1_795_312_900),
    });
    snapshot.runtimes.push(RuntimeSnapshot { runtime: "0".into(), tasks: 2, connections: 3 });
    snapshot.buffered_bytes = BufferedBytes { used: 10, limit: 100 };
    let room =
        |object: &'static str, bytes| ObjectRoom { org: "prod".into(), object: object.into(), bytes, answers: 1 };
    snapshot.cache.objects = vec![room("account", 900), room("none", 40), room("unheard_of", 5), room("of__c", 6)];
    snapshot.upstreams.push(UpstreamSnapshot {
        org: "prod".into(),
        idle: 1,
        abandoned: 4,
        connects_failed: vec![(FailureKind::Dns, 2)],
        ..UpstreamSnapshot::default()
    });
    snapshot.identities.push(IdentitySnapshot {
        org: "prod".into(),
        identity: "integration".into(),
        state: State::BackOff,
        trouble: Some(Trouble::Unreachable),
        tries_again_in_seconds: Some(1.5),
        waiting: 1,
        logins_used: 2,
        logins_limit: 3_600,
        refreshed: 1,
        failed: 1,
        refused: 0,
        shares: Some(Shares { adopted: 2, published: 1, unreadable: 0, store_down: 1 }),
    });
    snapshot.facades.push(FacadeSnapshot { org: "prod".into(), logins_limited: 3, ..FacadeSnapshot::default() });
    let (doubt, replicas) = (None, 2);
    let told = GenerationsSnapshot { org: "prod".into(), doubt, replicas, sent: 3, received: 4, gaps: 1 };
    snapshot.generations.push(told);
    snapshot.replicas = Some(ReplicasSnapshot {
        replica: "00aa".into(),
        name: "gateway-a".into(),
        store: StoreSnapshot {
            up: true,
            since_seconds: 7,
            on_loss: "safe_share",
            commands: vec![CommandsSnapshot { purpose: "look".into(), answered: 5, failed: 1 }],
        },
        replicas: Vec::new(),
        orgs: vec![SharedSnapshot { org: "prod".into(), bank_up: true, lease: Some(3), asks: Some(true), doubt: None }],
    });
    snapshot.config.last_reload_successful = true;
}

#[test]
fn what_is_kept_is_told_by_object_under_the_names_of_requests() {
    let world = World::new(TelemetryOptions::default());
    world.telemetry.add_source(filled);
    world.telemetry.learn_objects(["Account"]);
    let mut bytes = world.series("weirkeeper_cache_object_bytes");
    bytes.sort();
    let line = |object, bytes| format!("weirkeeper_cache_object_bytes{{org=\"prod\",object=\"{object}\"}} {bytes}");
    assert_eq!(bytes, [line("Account", 900), line("none", 40), line("other", 11)]);
    let mut outcome = world.read();
    (outcome.source, outcome.saved) = (AnswerSource::Cache, 1);
    world.recorder.finish(&outcome, &world.finish());
    world.recorder.finish(&world.read(), &world.finish());
    let objects = world.telemetry.cache_status().objects;
    let account = objects.first().unwrap();
    assert_eq!((account.object.as_str(), account.asked, account.from_memory, account.joined), ("Account", 1, 1, 0));
    assert_eq!((account.hit_ratio, account.bytes, account.answers), (Some(0.5), 900, 1));
    assert_eq!(objects.last().unwrap().hit_ratio, None);
}

#[test]
fn every_metric_has_help_type_and_valid_samples() {
    let world = World::new(TelemetryOptions::default());
    world.telemetry.add_source(filled);
    let mut outcome = world.read();
    outcome.refusal = Some(Reason::OutcomeUnknown);
    outcome.would_refuse = Some(Reason::Forbidden);
    outcome.queued = Some(Queued { wait: Duration::from_secs(3), position: 2 });
    outcome.cache = Some(CacheResult::Stale);
    outcome.errand = Some(Errand::Revalidate);
    outcome.remembered = Some(Remembered::WouldGive);
    (outcome.source, outcome.saved) = (AnswerSource::Stale, 2);
    outcome.paced = Duration::from_millis(30);
    outcome.retried = Some((Purse::Lock, RetryResult::Budget));
    let body = br#"[{"success":false,"errors":[{"statusCode":"UNABLE_TO_LOCK_ROW"}]}]"#;
    let found = taxonomy::scan(Family::Collections, body).unwrap();
    let failures =
        Failures { total: found.total, failed: found.failed, list: found.list, each: 1, objects: Vec::new() };
    outcome.failures = Some(Box::new(failures));
    outcome.exchanges[0].failure = Some(FailureKind::Timeout);
    world.recorder.finish(&outcome, &world.finish());
    world.telemetry.add_poll("prod", PollResult::Refused);

    let text = world.telemetry.render();
    let mut seen = std::collections::HashSet::new();
    for metric in metrics::descriptions() {
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
        let kind = format!("{:?}", metric.kind).to_lowercase();
        assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{}", metric.name);
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        assert!(seen.insert(series.to_owned()), "{series} twice");
    }
    let expiry = world.series("weirkeeper_certificate_expiry_seconds");
    let left: f64 = expiry[0].rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!((0.0..=100.0).contains(&left), "{left}");
    assert!(text.contains("weirkeeper_cache_events_total{org=\"prod\",result=\"stale\"} 1\n"));
    assert!(text.contains("by=\"stale\"} 2\n"));
    assert!(text.contains("weirkeeper_abandoned_calls{org=\"prod\"} 4\n"));
    assert!(text.contains("weirkeeper_upstream_connects_total{org=\"prod\",result=\"dns\"} 2\n"));
}

#[test]
fn callers_beyond_the_bound_are_other_in_the_metrics_of_paces_too() {
    let world = World::new(TelemetryOptions { max_callers: 1, ..TelemetryOptions::default() });
    world.telemetry.add_source(|snapshot| {
        snapshot.budgets.push(BudgetSnapshot { paces: ["a", "b", "c"].map(paced).into(), ..budget() });
    });
    assert_eq!(
        world.series("weirkeeper_pace_waiting"),
        [
            "weirkeeper_pace_waiting{org=\"prod\",caller=\"a\"} 3",
            "weirkeeper_pace_waiting{org=\"prod\",caller=\"other\"} 6"
        ]
    );
    let refused = world.series("weirkeeper_pace_refusals_total");
    let other = |cause: &str, count: u32| {
        format!("weirkeeper_pace_refusals_total{{org=\"prod\",caller=\"other\",cause=\"{cause}\"}} {count}")
    };
    assert!(refused.contains(&other("places", 4)) && refused.contains(&other("deadline", 2)), "{refused:?}");
}

#[test]
fn status_has_its_documented_members() {
    let world = World::new(TelemetryOptions::default());
    world.telemetry.add_source(filled);
    let status = serde_json::to_value(world.telemetry.status()).unwrap();
    let members: Vec<_> = status.as_object().unwrap().keys().map(String::as_str).collect();
    for member in [
        "version",
        "uptime_seconds",
        "config",
        "listeners",
        "runtimes",
        "in_flight",
        "buffered_bytes",
        "upstreams",
        "callers",
        "totals",
        "log",
        "process",
    ] {
        assert!(members.contains(&member), "{member} not in {members:?}");
    }
    assert_eq!(status["totals"]["connections"], 3);
    assert_eq!(status["upstreams"][0]["connects_failed"][0], serde_json::json!(["dns", 2]));
}

const CANARY: &str = "00D5g000004CANARY!AQ4AQCANARY";

fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        Just(CANARY.to_owned()),
        Just("a0B5g000CANARY1".to_owned()),
        ".{0,20}00D5g000004CANARY!AQ.{0,20}",
        "[A-Za-z_]{1,90}",
    ]
}

proptest! {
    #[test]
    fn hostile_words_reach_neither_metrics_nor_log(
        object in hostile(), client in hostile(), code in hostile(), method in "[!-~]{1,20}",
        version in any::<u16>(), status in any::<u16>(), id in any::<u128>(),
    ) {
        let world = World::new(TelemetryOptions::default());
        let mut outcome = world.read();
        outcome.id = RequestId(id);
        outcome.object = Some(SmolStr::from(&object));
        outcome.client = Some(SmolStr::from(&client));
        outcome.version = Some(ApiVersion(version));
        outcome.exchanges[0].failure = Some(FailureKind::Status);
        outcome.exchanges[0].error_code = Some(SmolStr::from(&code));
        if let Ok(method) = http::Method::from_bytes(method.as_bytes()) {
            outcome.method = method;
        }
        for status in [200, status] {
            outcome.status = status;
            world.recorder.finish(&outcome, &world.finish());
        }
        let log = world.memory.text();
        prop_assert_eq!(log.lines().count(), 2);
        for line in log.lines() {
            prop_assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{}", line);
        }
        for text in [&log, &world.telemetry.render()] {
            prop_assert!(!text.contains("CANARY"), "{}", text);
        }
    }
}

#[tokio::test]
async fn what_went_wrong_lately_is_told_by_caller_and_names_nothing_of_a_request() {
    let world = World::new(TelemetryOptions::default());
    world.recorder.finish(&world.read(), &world.finish());
    assert_eq!(world.telemetry.recent(), [], "what went well is not in the list");
    for _ in 0..3 {
        let mut refused = world.read();
        refused.exchanges.clear();
        refused.refusal = Some(Reason::CallerCeiling);
        world.recorder.finish(&refused, &world.finish());
    }
    let mut failed = world.read();
    failed.exchanges[0].failure = Some(FailureKind::Status);
    failed.exchanges[0].error_code = Some("ab:a0B5e00000XyZ12EAF is not a code".into());
    world.recorder.finish(&failed, &world.finish());
    let told: Vec<_> =
        world.telemetry.recent().into_iter().map(|line| (line.trouble, line.count, line.lately)).collect();
    let refused = (super::Trouble::Refused { reason: Reason::CallerCeiling }, 3, 3);
    let failed = (super::Trouble::Failed { kind: "status", code: "other".into() }, 1, 1);
    assert!(told.len() == 2 && told.contains(&refused) && told.contains(&failed), "{told:?}");
    assert!(world.telemetry.recent().iter().all(|line| line.org == "prod" && line.caller == "billing"));
}
