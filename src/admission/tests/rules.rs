//! Floors, ceilings, the ladder and shares, one at a time.

use super::*;

use Class::{Batch, Interactive, Standard};

#[test]
fn a_ceiling_is_reached_exactly_and_calls_come_back_after_24_hours() {
    let mut stage = Stage::new(assumed(100), &[share("app", 100, None)]);
    let (spent, denied) = stage.drain(0, Interactive);
    assert_eq!((spent, denied.cause, denied.missing), (100, Cause::OrgCeiling, 1));
    let wait = stage.ledger.retry_after(denied, CallerId(0), stage.now()).unwrap();
    assert_eq!(wait, Duration::from_mins(1_441));
    stage.minutes(1_440);
    assert!(stage.spend(0, Interactive, 1).is_err());
    stage.minutes(1);
    assert_eq!(stage.drain(0, Interactive).0, 100);
}

#[test]
fn a_reservation_that_is_not_sent_is_given_back() {
    let stage = Stage::new(assumed(10), &[share("app", 10, None)]);
    let held: Vec<_> = (0..10).map(|_| stage.reserve(0, Standard, 1).unwrap()).collect();
    assert_eq!(stage.reserve(0, Standard, 1).unwrap_err().cause, Cause::OrgCeiling);
    assert_eq!(stage.org().reserved, 10);
    drop(held);
    assert_eq!(stage.org().headroom, Some(10));
    let spent = stage.spend(0, Standard, 4).unwrap();
    spent.unsent(stage.now());
    assert_eq!(stage.org().own, 0);
    stage.spend(0, Standard, 4).unwrap().answered(ApiCalls(1), stage.now());
    assert_eq!(stage.org().own, 1);
    stage.spend(0, Standard, 4).unwrap().answered(ApiCalls(9), stage.now());
    assert_eq!(stage.org().own, 5, "a charge is never more than was reserved");
}

#[test]
fn a_call_is_dated_by_its_sending_not_by_its_reservation() {
    let mut stage = Stage::new(assumed(1), &[share("app", 1, None)]);
    let reservation = stage.reserve(0, Standard, 1).unwrap();
    stage.minutes(1_000);
    drop(reservation.spend(stage.now()).unwrap());
    stage.minutes(1_440);
    assert!(stage.reserve(0, Standard, 1).is_err());
    stage.minutes(1);
    assert!(stage.reserve(0, Standard, 1).is_ok());
}

#[test]
fn a_batch_job_cannot_touch_what_is_held_for_others() {
    let stage = Stage::new(assumed(1_000), &[share("shop", 300, None), share("etl", 0, None)]);
    let (borrowed, denied) = stage.drain(1, Batch);
    assert_eq!((borrowed, denied.cause), (700, Cause::Reserved));
    let (guaranteed, denied) = stage.drain(0, Interactive);
    assert_eq!((guaranteed, denied.cause), (300, Cause::OrgCeiling));
}

#[test]
fn the_ladder_sheds_borrowed_calls_by_class_and_never_guaranteed_ones() {
    let shares = [share("etl", 0, None), share("sync", 0, None), share("app", 0, None), share("late", 20, None)];
    let mut stage = Stage::new(assumed(1_000), &shares);
    // Without floors in the way, batch is paced from 800 and stops at 900.
    let (batch, denied) = stage.drain(0, Batch);
    assert_eq!((batch, denied.cause, denied.level), (801, Cause::Paced, Level::PaceBatch));
    assert_eq!(stage.ledger.retry_after(denied, CallerId(0), stage.now()), Some(Duration::from_mins(1)));
    stage.minutes(1);
    assert_eq!(stage.drain(0, Batch).0, 1);
    let (standard, denied) = stage.drain(1, Standard);
    assert_eq!((802 + standard, denied.cause, denied.level), (970, Cause::Shed, Level::StopStandard));
    assert_eq!(stage.drain(0, Batch).1.cause, Cause::Shed);
    let (interactive, denied) = stage.drain(2, Interactive);
    assert_eq!((970 + interactive, denied.cause), (980, Cause::Reserved));
    assert_eq!(stage.drain(3, Batch).0, 20, "below its floor a caller is admitted at every level");
    assert_eq!(stage.org().headroom, Some(0));
}

#[test]
fn a_caller_has_its_own_ceiling() {
    let stage = Stage::new(assumed(1_000), &[share("app", 10, Some(25))]);
    let (spent, denied) = stage.drain(0, Standard);
    assert_eq!((spent, denied.cause, denied.missing), (25, Cause::CallerCeiling, 1));
    assert!(stage.ledger.retry_after(denied, CallerId(0), stage.now()).is_some());
}

#[test]
fn an_idle_floor_is_lent_and_its_owner_gets_its_kept_part_at_once() {
    let lending = Some(Lending { idle_after: 1_440, kept: PerMille::percent(25) });
    let settings = OrgSettings { lending, ..assumed(1_000) };
    let mut stage = Stage::new(settings, &[share("seasonal", 400, None), share("app", 0, None)]);
    assert_eq!(stage.org().held, 400, "nothing is idle at the start");
    stage.minutes(1_441);
    assert_eq!(stage.org().held, 100);
    assert_eq!(stage.drain(1, Interactive).0, 900);
    assert_eq!(stage.drain(0, Interactive).0, 100);
    // What comes back is held for the owner first.
    stage.minutes(1_000);
    assert!(stage.reserve(0, Interactive, 1).is_err());
    stage.minutes(441);
    assert_eq!(stage.org().held, 400);
}

#[test]
fn above_saturation_weights_decide() {
    let shares = [Share { weight: 3, ..share("heavy", 0, None) }, share("light", 0, None), share("other", 0, None)];
    let mut stage = Stage::new(assumed(1_000), &shares);
    for _ in 0..600 {
        drop(stage.spend(1, Interactive, 1).unwrap());
    }
    for _ in 0..110 {
        drop(stage.spend(0, Interactive, 1).unwrap());
    }
    stage.minutes(1);
    stage.org();
    let (_, denied) = stage.drain(1, Interactive);
    assert_eq!(denied.cause, Cause::Share, "600 of 1,000 is more than a quarter");
    let (heavy, denied) = stage.drain(0, Interactive);
    assert_eq!((110 + heavy, denied.cause), (400, Cause::OrgCeiling));
}

#[test]
fn one_borrower_alone_may_have_everything() {
    let mut stage = Stage::new(assumed(1_000), &[share("one", 0, None), share("other", 0, None)]);
    for _ in 0..720 {
        drop(stage.spend(0, Interactive, 1).unwrap());
    }
    stage.minutes(1);
    stage.org();
    assert_eq!(stage.drain(0, Interactive).0, 280);
}

#[test]
fn floors_scale_down_together_when_the_limit_shrinks() {
    let shares = [share("a", 600, None), share("b", 300, None)];
    let settings = OrgSettings { lending: None, keep_free: PerMille::percent(0), ..OrgSettings::default() };
    let stage = Stage::new(settings, &shares);
    stage.read(0, 1_000).unwrap();
    assert!(stage.org().warnings.is_empty());
    stage.read(0, 600).unwrap();
    let callers = stage.ledger.callers(stage.now());
    assert_eq!((callers[0].floor, callers[1].floor), (400, 200));
    assert_eq!(stage.org().warnings, [Warning::FloorsScaled { per_mille: 666 }]);
    assert_eq!(stage.drain(0, Interactive).0, 400);
    assert_eq!(stage.drain(1, Interactive).0, 200);
}

#[test]
fn paused_callers_and_classes_wait_for_the_operator() {
    let stage = Stage::new(assumed(100), &[share("app", 50, None)]);
    assert!(stage.ledger.pause_caller("app", true, stage.now()));
    assert!(!stage.ledger.pause_caller("nobody", true, stage.now()));
    assert_eq!(stage.reserve(0, Standard, 1).unwrap_err().cause, Cause::CallerPaused);
    stage.ledger.pause_caller("app", false, stage.now());
    stage.ledger.pause_class(Batch, true, stage.now());
    assert_eq!(stage.reserve(0, Batch, 1).unwrap_err().cause, Cause::ClassPaused);
    assert!(stage.reserve(0, Standard, 1).is_ok());
    assert_eq!(stage.org().paused_classes, [Batch]);
}

#[test]
fn observing_admits_everything_and_says_what_it_would_have_refused() {
    let settings = OrgSettings { mode: Mode::Observe, ..assumed(10) };
    let stage = Stage::new(settings, &[share("app", 0, Some(5))]);
    for n in 0..20 {
        let reservation = stage.reserve(0, Standard, 1).unwrap();
        let cause = reservation.would_deny().map(|denied| denied.cause);
        assert_eq!(cause, (n >= 5).then_some(Cause::CallerCeiling));
        drop(reservation.spend(stage.now()).unwrap());
    }
    assert_eq!(stage.org().own, 20);
    assert_eq!(stage.ledger.callers(stage.now())[0].denied, [(Cause::CallerCeiling, 15)]);
}

#[test]
fn a_reload_changes_shares_without_losing_use() {
    let mut stage = Stage::new(assumed(100), &[share("a", 10, None), share("b", 0, None)]);
    drop(stage.spend(0, Standard, 8).unwrap());
    drop(stage.spend(1, Standard, 5).unwrap());
    let under_way = stage.reserve(1, Standard, 2).unwrap();
    let shares = [share("c", 5, None), share("a", 20, Some(9))];
    let accounts = stage.ledger.reconfigure(assumed(100), &shares, stage.now());
    let callers = stage.ledger.callers(stage.now());
    let seen: Vec<_> = callers.iter().map(|c| (&*c.name, c.used, c.floor, c.retired)).collect();
    assert_eq!(seen, [("a", 8, 20, false), ("b", 5, 0, true), ("c", 0, 5, false)]);
    drop(under_way.spend(stage.now()).unwrap());
    assert_eq!(stage.org().own, 15);
    let denied = stage.ledger.reserve(accounts[1], Standard, ApiCalls(2), stage.now()).unwrap_err();
    assert_eq!(denied.cause, Cause::CallerCeiling);
    // The caller that left ages out, and its place is used again.
    stage.minutes(1_441);
    assert_eq!(stage.ledger.callers(stage.now()).len(), 2);
}

#[test]
fn a_request_that_began_before_a_reload_is_charged_to_whom_it_came_from() {
    let stage = Stage::new(assumed(100), &[share("a", 0, None), share("b", 0, None), share("c", 0, None)]);
    let reordered = [share("new", 0, None), share("b", 0, None), share("a", 0, None)];
    let accounts = stage.ledger.reconfigure(assumed(100), &reordered, stage.now());
    // The places of the earlier configuration.
    drop(stage.spend(0, Standard, 3).unwrap());
    drop(stage.spend(1, Standard, 5).unwrap());
    assert_eq!(stage.reserve(2, Standard, 1).unwrap_err().cause, Cause::UnknownCaller, "it is configured no more");
    // Those of the present one.
    for (account, calls) in accounts.into_iter().zip([7, 11, 13]) {
        drop(
            stage.ledger.reserve(account, Standard, ApiCalls(calls), stage.now()).unwrap().spend(stage.now()).unwrap(),
        );
    }
    let callers = stage.ledger.callers(stage.now());
    let mut seen: Vec<_> = callers.iter().map(|caller| (&*caller.name, caller.used)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [("a", 16), ("b", 16), ("new", 7)]);
}

#[test]
fn a_pause_binds_where_decisions_do_not() {
    for mode in [Mode::Off, Mode::Observe] {
        let stage = Stage::new(OrgSettings { mode, ..assumed(10) }, &[share("app", 0, None)]);
        assert!(stage.ledger.pause_caller("app", true, stage.now()));
        assert_eq!(stage.reserve(0, Standard, 1).unwrap_err().cause, Cause::CallerPaused);
    }
}

#[test]
fn after_salesforce_refused_it_reopens_by_growing_probes() {
    let mut stage = Stage::new(assumed(10_000), &[share("app", 10_000, None)]);
    stage.spend(0, Standard, 1).unwrap().limit_exceeded(ApiCalls(0), stage.now());
    assert_eq!(stage.org().own, 0, "a refused request is not charged");
    let denied = stage.reserve(0, Standard, 1).unwrap_err();
    assert_eq!(denied.cause, Cause::OrgClosed);
    assert_eq!(stage.ledger.retry_after(denied, CallerId(0), stage.now()), Some(Duration::from_mins(1)));
    stage.minutes(1);
    let probe = stage.reserve(0, Standard, 1).unwrap();
    assert_eq!(stage.reserve(0, Standard, 1).unwrap_err().cause, Cause::AwaitProbe);
    drop(probe);
    let probe = stage.spend(0, Standard, 1).unwrap();
    assert_eq!(stage.reserve(0, Standard, 1).unwrap_err().cause, Cause::AwaitProbe);
    drop(probe);
    let probe = stage.spend(0, Standard, 1).unwrap();
    probe.answered(ApiCalls(1), stage.now());
    let two: Vec<_> = (0..2).map(|_| stage.spend(0, Standard, 1).unwrap()).collect();
    assert_eq!(stage.reserve(0, Standard, 1).unwrap_err().cause, Cause::AwaitProbe);
    drop(two);
    assert_eq!(stage.org().warnings, [Warning::Assumed, Warning::LimitExceeded]);
}

#[test]
fn a_call_that_costs_nothing_needs_nothing() {
    let stage = Stage::new(assumed(1), &[share("app", 0, Some(0))]);
    assert!(stage.spend(0, Batch, 0).is_ok());
    assert_eq!(stage.spend(0, Batch, 1).unwrap_err().cause, Cause::CallerCeiling);
}

#[test]
fn while_a_sweep_is_under_way_the_org_counts_too_much_and_never_too_little() {
    let shares: Vec<Share> = (0..40).map(|n| share(&format!("caller {n}"), 10, None)).collect();
    let mut stage = Stage::new(assumed(500), &shares);
    for caller in 0..40 {
        drop(stage.spend(caller, Standard, 10).unwrap());
    }
    // Swept shortly before, or everything would be released at once.
    stage.minutes(1_430);
    assert_eq!((stage.org().own, stage.org().held), (400, 0));
    stage.minutes(11);
    let mut steps = 0;
    loop {
        steps += 1;
        let done = stage.ledger.with(stage.now(), |book| {
            let done = book.sweep(7);
            let (used, held): (u64, u64) =
                book.accounts.iter().fold((0, 0), |(used, held), account| (used + account.used, held + account.held));
            assert!(book.own.sum() >= used, "{} < {used}", book.own.sum());
            assert_eq!(book.held, held);
            done
        });
        if done {
            break;
        }
    }
    assert_eq!(steps, 6);
    assert_eq!((stage.org().own, stage.org().held), (0, 400));
}

#[test]
fn an_unknown_caller_is_refused() {
    let stage = Stage::new(assumed(10), &[]);
    assert_eq!(stage.reserve(3, Standard, 1).unwrap_err().cause, Cause::UnknownCaller);
}

#[test]
fn the_forecast_says_when_it_runs_out() {
    let mut stage = Stage::new(assumed(1_000), &[share("app", 0, Some(500))]);
    for _ in 0..15 {
        stage.minutes(1);
        drop(stage.spend(0, Interactive, 10).unwrap());
    }
    let org = stage.org();
    assert_eq!(org.forecast.pace_per_hour, 600);
    assert_eq!(org.forecast.runs_out, Some(org.now.plus(86)));
    let (budget, forecast) = stage.ledger.caller(CallerId(0), stage.now()).unwrap();
    assert_eq!((budget.used, budget.pace_per_hour), (150, 600));
    assert_eq!(forecast.runs_out, Some(org.now.plus(36)));
    stage.minutes(1_436);
    let org = stage.org();
    assert_eq!((org.forecast.returning_1h, org.own), (50, 50));
}
