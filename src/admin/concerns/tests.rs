//! Tests of what deserves attention.

use std::sync::Arc;

use super::*;
use crate::admission::slots::{SlotSettings, Slots};
use crate::admission::{Funding, Ledger, OrgSettings, Reading, Share, Timeline};
use crate::call::{ApiCalls, CallerId, Class, Family};
use crate::clock::Clock;
use crate::telemetry::{BulkBatches, ConfigSnapshot, TopClients};

const NOON: Duration = Duration::from_hours(500_004);

fn ready() -> Readiness {
    Readiness { ready: true, degraded: false, draining: false, checks: Vec::new() }
}

fn fine() -> Snapshot {
    let config = ConfigSnapshot { last_reload_successful: true, ..ConfigSnapshot::default() };
    Snapshot { config, ..Snapshot::default() }
}

/// The budget of an org of 1,000 calls of which a caller has used `used` in this minute.
fn budget(used: u32, paused: bool) -> BudgetSnapshot {
    let clock = Clock::at(NOON);
    let now = clock.now();
    let timeline = Timeline::start(clock, now, Duration::ZERO);
    let ledger = Ledger::new(OrgSettings::default(), &[Share::borrower("etl")], Funding::Unbounded, timeline, now);
    ledger.read(Reading { used: 0, limit: 1_000 }, now).unwrap();
    for _ in 0..used {
        let held = ledger.reserve(CallerId(0), Class::Interactive, ApiCalls(1), now).unwrap();
        held.spend(now).unwrap().answered(ApiCalls(1), now);
    }
    ledger.pause_caller("etl", paused, now);
    BudgetSnapshot {
        org: "prod".to_owned(),
        mode: DailyMode::Enforce,
        budget: ledger.org(now),
        returning_by_hour: [0; 24],
        shared: None,
        callers: ledger.callers(now),
        paces: Vec::new(),
        top_clients: TopClients::default(),
        bulk_batches: BulkBatches::default(),
    }
}

fn said(snapshot: &Snapshot, recent: &[RecentTrouble]) -> Vec<Concern> {
    concerns(snapshot, recent, &ready(), LogCounts::default(), NOON.as_secs())
}

fn line(caller: &str, trouble: Trouble, lately: u64) -> RecentTrouble {
    RecentTrouble {
        org: "prod".into(),
        caller: caller.into(),
        trouble,
        family: Family::Rest,
        template: "",
        count: lately,
        lately,
        first_seconds: 0,
        last_seconds: 0,
    }
}

fn check(name: &'static str, ok: bool, degraded: bool, reason: &str) -> super::super::CheckResult {
    super::super::CheckResult { name, ok, degraded, reason: Some(reason.to_owned()) }
}

#[test]
fn nothing_is_said_when_nothing_is_wrong() {
    let snapshot = Snapshot { budgets: vec![budget(0, false)], ..fine() };
    assert_eq!(said(&snapshot, &[]), []);
}

#[tokio::test]
async fn exhaustion_is_foretold_with_its_time_and_then_said() {
    let at_pace = said(&Snapshot { budgets: vec![budget(600, false)], ..fine() }, &[]);
    let first = &at_pace[0];
    assert_eq!((first.severity, first.org.as_deref()), (Severity::Urgent, Some("prod")), "{at_pace:?}");
    assert!(first.what.contains("run out about {at}"), "{}", first.what);
    // 40 a minute, 350 or 400 left.
    let minutes = (first.at_seconds.unwrap() - NOON.as_secs()) / 60;
    assert!((8..=11).contains(&minutes), "{minutes}");
    let nearly = said(&Snapshot { budgets: vec![budget(900, false)], ..fine() }, &[]);
    assert!(nearly.iter().any(|one| one.what.ends_with("% of the calls are used.")), "{nearly:?}");
    assert!(nearly.iter().any(|one| one.what.contains("scarce")), "{nearly:?}");
}

#[test]
fn who_is_paused_is_named_and_many_are_counted() {
    let mut paused = budget(0, true);
    let one = said(&Snapshot { budgets: vec![paused.clone()], ..fine() }, &[]);
    assert_eq!(one[0].what, "etl is paused.");
    let etl = paused.callers[0].clone();
    let many = (0..10_000)
        .map(|number| crate::admission::CallerBudget { name: Arc::from(format!("c{number}")), ..etl.clone() });
    paused.callers = many.collect();
    let many = said(&Snapshot { budgets: vec![paused], ..fine() }, &[]);
    assert_eq!(many[0].what, "10000 callers are paused.");
}

#[test]
fn troubles_of_the_gateway_come_one_by_one_and_the_apps_own_together() {
    let refused = |caller: &str, reason, lately| line(caller, Trouble::Refused { reason }, lately);
    let recent = [
        refused("shop", Reason::Forbidden, 7),
        line("etl", Trouble::Failed { kind: "schema", code: "INVALID_FIELD".into() }, 5),
        refused("etl", Reason::UpstreamUnreachable, 3),
        refused("etl", Reason::Paused, 900),
        refused("etl", Reason::CircuitOpen, 900),
        line("etl", Trouble::Partial { object: "Account".into(), code: "UNABLE_TO_LOCK_ROW".into() }, 40),
        refused("quiet", Reason::Internal, 0),
    ];
    let said = said(&fine(), &recent);
    let whats: Vec<_> = said.iter().map(|one| one.what.as_str()).collect();
    assert_eq!(
        whats,
        [
            "40 records of etl failed inside answers that look well: Account, UNABLE_TO_LOCK_ROW.",
            "3 calls of etl refused in the last minutes: upstream unreachable.",
            "12 calls of etl, shop failed lately by what the apps themselves asked.",
        ]
    );
    assert!(said.iter().all(|one| one.remedy.ends_with('.')));
}

#[test]
fn the_gateways_own_state_is_said() {
    let mut snapshot = fine();
    snapshot.config.last_reload_successful = false;
    snapshot.config.last_reload_error = Some("orgs[0]: no such key".to_owned());
    let ends = |days: u64| Some(NOON.as_secs() + days * 86_400);
    let listener = |days| ListenerSnapshot { certificate_not_after_seconds: ends(days), ..ListenerSnapshot::default() };
    snapshot.listeners = vec![listener(3), listener(20), listener(30)];
    let unready = Readiness {
        ready: false,
        degraded: true,
        draining: true,
        checks: vec![
            check("workers", false, false, "1 of 2 failed"),
            check("store", true, true, "degraded: it has not answered for 3 s"),
        ],
    };
    let list = concerns(&snapshot, &[], &unready, LogCounts { lines: 1, dropped: 2 }, NOON.as_secs());
    let severities: Vec<_> = list.iter().map(|one| one.severity).collect();
    assert_eq!(severities, [[Severity::Urgent; 3].as_slice(), &[Severity::Warning; 4]].concat(), "{list:?}");
    assert!(list.iter().any(|one| one.what.contains("store: degraded: it has not answered for 3 s")), "{list:?}");
    assert!(list[1].what.contains("workers: 1 of 2 failed"), "{list:?}");
    assert!(
        list.iter().any(|one| one.what.contains("no such key"))
            && list.iter().any(|one| one.what.contains("2 log lines were lost"))
    );
}

#[test]
fn full_slots_are_urgent_and_a_guard_that_is_off_says_nothing() {
    let clock = Clock::at(NOON);
    let now = clock.now();
    let mut view = Slots::new(SlotSettings::default(), now).view(now);
    view.live = view.effective as usize;
    let of = |mode| SlotsSnapshot { org: "prod".to_owned(), mode, view: view.clone(), apex: None };
    let full = said(&Snapshot { slots: vec![of(SlotMode::Enforce)], ..fine() }, &[]);
    assert_eq!((full.len(), full[0].severity), (1, Severity::Urgent));
    assert_eq!(said(&Snapshot { slots: vec![of(SlotMode::Off)], ..fine() }, &[]), []);
}
