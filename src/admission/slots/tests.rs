//! The slots as a whole: who flies, who waits, and what comes back.

use std::time::Duration;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::admission::AccountId;
use crate::call::{CallerId, Class, Family};

const LONG: u64 = 1_000;
const SHORT: u64 = 2_000;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn ask(fingerprint: u64, class: Class) -> Ask {
    Ask {
        fingerprint,
        account: AccountId::from(CallerId(class.index() as u16)),
        weight: 1,
        caller_at_most: None,
        class,
        family: Family::Rest,
        template: "",
        deadline: None,
    }
}

/// Calls of `LONG` are known to take 30 s, calls of `SHORT` 200 ms; nothing is in the air.
fn taught(settings: SlotSettings, start: Instant) -> Book {
    let mut book = Book::new(settings, start);
    for _ in 0..10 {
        book.estimates.add(LONG, seconds(30));
        book.estimates.add(SHORT, Duration::from_millis(200));
    }
    book
}

/// Asks for a call of a kind that nobody has to presume anything of.
fn enter(book: &mut Book, ask: &Ask, now: Instant) -> Said {
    book.enter(ask, || unreachable!("the kind is known"), now)
}

fn goes(said: Said) -> u32 {
    match said {
        Said::Go { place, .. } => place,
        other => panic!("{other:?}"),
    }
}

fn waits(said: Said) -> (u64, usize) {
    match said {
        Said::Wait { number, position, .. } => (number, position),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn batch_holds_its_part_and_leaves_the_rest_to_others() {
    let start = Clock::start().now();
    let queue = QueueSettings { patience: [seconds(600); 3], ..QueueSettings::default() };
    let mut book = taught(SlotSettings { queue, ..SlotSettings::default() }, start);
    let batch: Vec<u32> = (0..15).map(|_| goes(enter(&mut book, &ask(LONG, Class::Batch), start))).collect();
    let (batch_waits, position) = waits(enter(&mut book, &ask(LONG, Class::Batch), start));
    assert_eq!(position, 1);
    for _ in 0..4 {
        goes(enter(&mut book, &ask(LONG, Class::Standard), start));
    }
    let (standard_waits, _) = waits(enter(&mut book, &ask(LONG, Class::Standard), start));
    let interactive: Vec<u32> = (0..5).map(|_| goes(enter(&mut book, &ask(LONG, Class::Interactive), start))).collect();
    assert_eq!(book.air.held(), 24, "the last of 25 stays free, or short calls would be refused");
    waits(enter(&mut book, &ask(LONG, Class::Interactive), start));
    // Short calls pass whatever is held.
    for _ in 0..1_000 {
        goes(enter(&mut book, &ask(SHORT, Class::Batch), start));
    }
    let mut granted = |place| {
        book.tell(place, Fate::Ended(start + seconds(1)));
        std::mem::take(&mut book.grants).iter().map(|(number, _)| *number).collect::<Vec<_>>()
    };
    assert_eq!(granted(batch[0]).len(), 1, "the interactive one");
    for place in interactive {
        assert!(granted(place).is_empty(), "five are left to interactive calls");
    }
    assert_eq!(granted(batch[1]), [standard_waits]);
    assert_eq!(granted(batch[2]), [batch_waits]);
}

#[tokio::test]
async fn unexpected_agers_take_from_what_batch_may_hold() {
    let start = Clock::start().now();
    let mut book = taught(SlotSettings::default(), start);
    let agers: Vec<u32> = (0..10).map(|_| goes(enter(&mut book, &ask(SHORT, Class::Interactive), start))).collect();
    let later = start + seconds(20);
    for _ in 0..5 {
        goes(enter(&mut book, &ask(LONG, Class::Batch), later));
    }
    let (number, _) = waits(enter(&mut book, &ask(LONG, Class::Batch), later));
    assert_eq!((book.air.held(), book.air.overdraft()), (5, 10));
    book.tell(agers[0], Fate::Ended(later + seconds(1)));
    assert_eq!(book.grants.iter().map(|(granted, _)| *granted).collect::<Vec<_>>(), [number]);
}

#[tokio::test]
async fn a_kind_that_grows_old_is_learnt_while_it_still_runs() {
    let start = Clock::start().now();
    let mut book = Book::new(SlotSettings::default(), start);
    let unknown = ask(77, Class::Interactive);
    for _ in 0..5 {
        assert!(matches!(book.enter(&unknown, || Presumed::Short, start), Said::Go { length: Length::Short, .. }));
    }
    let said = book.enter(&unknown, || Presumed::Short, start + seconds(20));
    assert!(matches!(said, Said::Go { length: Length::Long, .. }), "{said:?}");
}

#[tokio::test]
async fn a_flood_of_an_unknown_kind_holds_slots_until_a_few_have_told_how_long_it_takes() {
    let start = Clock::start().now();
    let mut book = Book::new(SlotSettings::default(), start);
    let asks = |book: &mut Book, class| book.enter(&ask(77, class), || Presumed::Short, start);
    let said: Vec<Said> = (0..60).map(|_| asks(&mut book, Class::Standard)).collect();
    let places: Vec<u32> =
        said.iter().filter_map(|said| if let Said::Go { place, .. } = said { Some(*place) } else { None }).collect();
    // Five without a slot, and as many with one as there is room for should the five grow old.
    assert_eq!((places.len(), book.air.held()), (5 + 14, 14));
    assert_eq!(book.line.len(), 41);
    for place in &places[..4] {
        book.tell(*place, Fate::Ended(start + Duration::from_millis(100)));
    }
    assert!(book.grants.is_empty());
    // The fifth tells that they are short, and nobody waits any longer.
    book.tell(places[4], Fate::Ended(start + Duration::from_millis(100)));
    assert_eq!((book.grants.len(), book.line.len()), (41, 0));
    let grants = std::mem::take(&mut book.grants);
    for place in places[5..].iter().chain(grants.iter().map(|(_, place)| place)) {
        book.tell(*place, Fate::Gone);
    }
    assert_eq!((book.air.flying(), book.estimates.probing(77)), (0, 0));
}

#[tokio::test]
async fn a_refusal_of_salesforce_shrinks_everybodys_part() {
    let start = Clock::start().now();
    let mut book = taught(SlotSettings::default(), start);
    book.refused(start, start);
    // 12 of 25: 11 to be held, of which 7 by batch.
    for _ in 0..7 {
        goes(enter(&mut book, &ask(LONG, Class::Batch), start));
    }
    let (waiting, _) = waits(enter(&mut book, &ask(LONG, Class::Batch), start));
    book.advance(start + seconds(19));
    assert!(book.grants.is_empty());
    book.advance(start + seconds(80));
    assert_eq!(book.grants[0].0, waiting, "slots come back by themselves");
}

#[tokio::test]
async fn who_would_wait_past_its_deadline_is_told_at_once() {
    let start = Clock::start().now();
    let mut book = taught(SlotSettings::default(), start);
    for _ in 0..15 {
        goes(enter(&mut book, &ask(LONG, Class::Batch), start));
    }
    let now = start + seconds(10);
    let hurried = Ask { deadline: Some(now + seconds(19)), ..ask(LONG, Class::Batch) };
    assert!(matches!(enter(&mut book, &hurried, now), Said::No(_, Busy::WouldTake(wait)) if wait == seconds(20)));
    let patient = Ask { deadline: Some(now + seconds(21)), ..hurried };
    waits(enter(&mut book, &patient, now));
    // 15 are served in each round: the sixteenth waits for the second.
    for _ in 0..14 {
        waits(enter(&mut book, &ask(LONG, Class::Batch), now));
    }
    let next = enter(&mut book, &Ask { deadline: Some(now + seconds(49)), ..hurried }, now);
    assert!(matches!(next, Said::No(_, Busy::WouldTake(wait)) if wait == seconds(50)), "{next:?}");
    let (_, position) = waits(enter(&mut book, &Ask { deadline: Some(now + seconds(51)), ..hurried }, now));
    assert_eq!(position, 16);
}

#[tokio::test]
async fn a_full_queue_sheds_batch_first_then_standard_and_takes_them_again_only_well_below() {
    let start = Clock::start().now();
    let queue = QueueSettings { places: 100, patience: [seconds(600); 3], ..QueueSettings::default() };
    let mut book = taught(SlotSettings { queue, ..SlotSettings::default() }, start);
    for _ in 0..24 {
        goes(enter(&mut book, &ask(LONG, Class::Interactive), start));
    }
    let mut caller = 0;
    // Each call is another caller's, so that nobody has too large a part.
    let mut asks = |book: &mut Book, class| {
        caller += 1;
        let asks = Ask { account: AccountId::from(CallerId(caller)), ..ask(77, class) };
        book.enter(&asks, || Presumed::Long, start)
    };
    let mut numbers: Vec<u64> = (0..90).map(|_| waits(asks(&mut book, Class::Interactive)).0).collect();
    assert!(matches!(asks(&mut book, Class::Batch), Said::No(_, Busy::Shed)));
    numbers.extend((0..7).map(|_| waits(asks(&mut book, Class::Standard)).0));
    assert!(matches!(asks(&mut book, Class::Standard), Said::No(_, Busy::Shed)));
    numbers.extend((0..3).map(|_| waits(asks(&mut book, Class::Interactive)).0));
    assert!(matches!(asks(&mut book, Class::Interactive), Said::No(_, Busy::Full)));
    // Below 90 of 100, where batch was shed, but not by 10.
    numbers.drain(..15).for_each(|number| book.leave(number));
    assert!(matches!(asks(&mut book, Class::Batch), Said::No(_, Busy::Shed)));
    numbers.drain(..6).for_each(|number| book.leave(number));
    waits(asks(&mut book, Class::Batch));
}

#[tokio::test]
async fn one_caller_does_not_keep_others_out_of_the_queue() {
    let start = Clock::start().now();
    let queue = QueueSettings { places: 100, patience: [seconds(600); 3], ..QueueSettings::default() };
    let mut book = taught(SlotSettings { queue, ..SlotSettings::default() }, start);
    for _ in 0..15 {
        goes(enter(&mut book, &ask(LONG, Class::Batch), start));
    }
    let by = |caller| Ask { account: AccountId::from(CallerId(caller)), ..ask(77, Class::Batch) };
    let mut asks = |caller| book.enter(&by(caller), || Presumed::Long, start);
    waits(asks(2));
    for _ in 0..69 {
        waits(asks(1));
    }
    assert!(matches!(asks(1), Said::No(_, Busy::Crowds)), "it has more than half of the places");
    for _ in 0..20 {
        waits(asks(2));
    }
    assert!(matches!(asks(2), Said::No(_, Busy::Shed)), "batch is shed");
}

#[tokio::test]
async fn calls_in_the_air_are_bounded_where_that_is_wanted() {
    let start = Clock::start().now();
    let mut book = taught(SlotSettings { in_flight: Some(4), ..SlotSettings::default() }, start);
    let own = Ask { caller_at_most: Some(2), ..ask(SHORT, Class::Standard) };
    let places: Vec<u32> = (0..2).map(|_| goes(enter(&mut book, &own, start))).collect();
    let (own_waits, _) = waits(enter(&mut book, &own, start));
    let other = ask(SHORT, Class::Batch);
    for _ in 0..2 {
        goes(enter(&mut book, &other, start));
    }
    let (other_waits, _) = waits(enter(&mut book, &other, start));
    book.tell(places[0], Fate::Ended(start + seconds(1)));
    book.tell(places[1], Fate::Gone);
    assert_eq!(book.grants.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [own_waits, other_waits]);
}

#[tokio::test]
async fn nothing_binds_unless_it_is_enforced() {
    let start = Clock::start().now();
    let mut book = taught(SlotSettings { mode: Mode::Observe, ..SlotSettings::default() }, start);
    let said: Vec<Said> = (0..20).map(|_| enter(&mut book, &ask(LONG, Class::Batch), start)).collect();
    let waits = said.iter().filter(|said| matches!(said, Said::Go { would_wait: true, .. })).count();
    assert_eq!((said.len(), waits), (20, 5));
    let slots = Slots::new(SlotSettings { mode: Mode::Off, ..SlotSettings::default() }, start);
    assert!(matches!(
        slots.enter(&ask(LONG, Class::Batch), || unreachable!("nobody looks"), start),
        Entered::Free(Admitted { hold: None, .. })
    ));
}

#[tokio::test]
async fn other_rules_keep_what_is_in_the_air_and_what_was_learnt() {
    let start = Clock::start().now();
    let mut book = taught(SlotSettings::default(), start);
    for _ in 0..15 {
        goes(enter(&mut book, &ask(LONG, Class::Batch), start));
    }
    waits(enter(&mut book, &ask(LONG, Class::Batch), start));
    book.reconfigure(SlotSettings { batch_at_most: 17, ..SlotSettings::default() }, start);
    assert_eq!((book.grants.len(), book.air.held()), (1, 16));
    goes(enter(&mut book, &ask(LONG, Class::Batch), start));
    waits(enter(&mut book, &ask(LONG, Class::Batch), start));
}

#[tokio::test]
async fn the_wait_for_a_place_in_the_air_is_foreseen_too() {
    let start = Clock::start().now();
    let mut book = taught(SlotSettings { in_flight: Some(4), ..SlotSettings::default() }, start);
    let bounded = Ask { caller_at_most: Some(2), ..ask(SHORT, Class::Interactive) };
    for n in 0..5 {
        let place = goes(enter(&mut book, &bounded, start + seconds(2 * n)));
        book.tell(place, Fate::Ended(start + seconds(2 * n + 2)));
    }
    let now = start + seconds(10);
    let within = |ask: Ask, millis: u64| Ask { deadline: Some(now + Duration::from_millis(millis)), ..ask };
    let expects = |book: &mut Book, ask: Ask, millis: u64| {
        let said = enter(book, &within(ask, millis - 1), now);
        assert!(
            matches!(said, Said::No(_, Busy::WouldTake(wait)) if wait == Duration::from_millis(millis)),
            "{said:?}"
        );
    };
    for _ in 0..2 {
        goes(enter(&mut book, &bounded, now));
    }
    // Its caller's second place is free in a second on average.
    expects(&mut book, bounded, 1_000);
    waits(enter(&mut book, &within(bounded, 1_000), now));
    expects(&mut book, bounded, 2_000);
    let other = ask(SHORT, Class::Standard);
    for _ in 0..2 {
        goes(enter(&mut book, &other, now));
    }
    // One is ahead of it.
    expects(&mut book, other, 1_000);
    waits(enter(&mut book, &within(other, 1_000), now));
    expects(&mut book, other, 1_500);
}

#[tokio::test]
async fn batch_has_another_part_at_other_hours() {
    let start = Clock::start().now();
    let night = Hours { from: 22 * 60, to: 6 * 60, batch_at_most: 20, reserve: 1 };
    let noon = Hours { from: 12 * 60, to: 13 * 60, batch_at_most: 5, reserve: 15 };
    let queue = QueueSettings { patience: [Duration::from_hours(48); 3], ..QueueSettings::default() };
    let hours = [Some(night), Some(noon), None, None];
    let daytime = Some((start, seconds(3 * 86_400 + 21 * 3_600)));
    let settings = SlotSettings { hours, daytime, queue, ..SlotSettings::default() };
    let at = |hour: u64| start + seconds(hour * 3_600);
    for (hour, part) in [(0, 15), (1, 20), (8, 20), (9, 15), (15, 5), (16, 15), (25, 20), (39, 5)] {
        assert_eq!(settings.parts(at(hour)).0, part, "{} o'clock", (21 + hour) % 24);
    }
    let mut book = taught(settings, start);
    for _ in 0..15 {
        goes(enter(&mut book, &ask(LONG, Class::Batch), start));
    }
    for _ in 0..8 {
        waits(enter(&mut book, &ask(LONG, Class::Batch), start));
    }
    book.advance(at(1));
    // Unless other hours begin, nothing changes: calls that take an hour are no reason to believe that any has ended.
    assert_eq!((book.grants.len(), book.air.held_by(Class::Batch)), (5, 20));
}

#[tokio::test]
async fn who_waits_goes_when_decisions_bind_no_longer() {
    let start = Clock::start().now();
    for mode in [Mode::Observe, Mode::Off] {
        let mut book = taught(SlotSettings::default(), start);
        for _ in 0..15 {
            goes(enter(&mut book, &ask(LONG, Class::Batch), start));
        }
        for _ in 0..3 {
            waits(enter(&mut book, &ask(LONG, Class::Batch), start));
        }
        book.reconfigure(SlotSettings { mode, ..SlotSettings::default() }, start);
        assert_eq!((book.grants.len(), book.line.len()), (3, 0), "{mode:?}");
    }
}

#[tokio::test]
async fn with_fewer_slots_than_are_held_the_first_to_end_make_room_for_nobody() {
    let start = Clock::start().now();
    let queue = QueueSettings { patience: [seconds(600); 3], ..QueueSettings::default() };
    let mut book = taught(SlotSettings { queue, ..SlotSettings::default() }, start);
    for second in 0..15 {
        goes(enter(&mut book, &ask(LONG, Class::Batch), start + seconds(second)));
    }
    // 7 of 15 are left to batch: nine have to end, the ninth of which was sent at 8 s.
    book.refused(start + seconds(15), start + seconds(16));
    let now = start + seconds(19);
    let hurried = Ask { deadline: Some(now + seconds(18)), ..ask(LONG, Class::Batch) };
    let said = enter(&mut book, &hurried, now);
    assert!(matches!(said, Said::No(_, Busy::WouldTake(wait)) if wait == seconds(19)), "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn a_ticket_is_granted_or_leaves_without_a_trace() {
    let clock = Clock::start();
    let slots = Slots::new(SlotSettings { slots: 2, batch_at_most: 1, ..SlotSettings::default() }, clock.now());
    let long = ask(LONG, Class::Batch);
    let enter = || slots.enter(&long, || Presumed::Long, clock.now());
    let Entered::Free(first) = enter() else { panic!("it is free") };
    let (Entered::Waits(mut next), Entered::Waits(leaves), Entered::Waits(mut last)) = (enter(), enter(), enter())
    else {
        panic!("they wait")
    };
    assert_eq!(next.granted(clock).await.unwrap_err(), Busy::Waited);
    drop(next);
    drop(leaves);
    let waits = async { last.granted(clock).await };
    let ends = async {
        tokio::time::sleep(seconds(3)).await;
        drop(first);
    };
    // The last one came when the first did, so its time is over too.
    let (waited, ()) = tokio::join!(waits, ends);
    assert_eq!(waited.unwrap_err(), Busy::Waited);
    drop(last);
    let Entered::Free(first) = enter() else { panic!("it is free") };
    let Entered::Waits(mut next) = enter() else { panic!("it waits") };
    let ends = async {
        tokio::time::sleep(seconds(3)).await;
        drop(first);
        clock.now()
    };
    let (granted, at) = tokio::join!(next.granted(clock), ends);
    let granted = granted.unwrap();
    assert_eq!(clock.now(), at);
    drop(granted);
    assert_eq!(slots.view(clock.now()).in_the_air, 0);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_nobody_takes_goes_to_the_next() {
    let clock = Clock::start();
    let slots = Slots::new(SlotSettings { slots: 2, batch_at_most: 1, ..SlotSettings::default() }, clock.now());
    let long = ask(LONG, Class::Batch);
    let enter = || slots.enter(&long, || Presumed::Long, clock.now());
    let Entered::Free(first) = enter() else { panic!("it is free") };
    let (Entered::Waits(granted), Entered::Waits(mut next)) = (enter(), enter()) else { panic!("they wait") };
    drop(first);
    // It was told, and leaves without having looked.
    drop(granted);
    assert!(next.granted(clock).await.is_ok());
    drop(next);
    let view = slots.view(clock.now());
    assert_eq!((view.in_the_air, view.predicted, view.queue[2].waiting), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn where_slots_are_shared_a_long_call_waits_for_a_grant_and_a_short_one_for_nothing() {
    let clock = Clock::start();
    let settings = SlotSettings { slots: 4, batch_at_most: 2, reserve: 0, ..SlotSettings::default() };
    let slots = Slots::new(settings, clock.now());
    slots.share("one");
    let (long, short) = (ask(LONG, Class::Batch), ask(SHORT, Class::Batch));
    let Entered::Waits(mut waits) = slots.enter(&long, || Presumed::Long, clock.now()) else { panic!("it waits") };
    assert!(matches!(slots.enter(&short, || Presumed::Quick, clock.now()), Entered::Free(_)));
    // It is told to the others at once.
    slots.news().await;
    let mut store = (None::<Vec<u8>>, 0);
    let mut exchange = |slots: &Slots| {
        let sight = Sight {
            value: store.0.as_deref(),
            version: store.1,
            now: clock.wall(clock.now()),
            run: 1,
            asked: clock.now(),
        };
        let offer = slots.offer(&sight, clock.now()).unwrap().unwrap();
        store = (Some(offer.value.clone()), store.1 + 1);
        slots.confirm(&offer, store.1, clock.now());
    };
    exchange(&slots);
    assert!(slots.sharing().settling && slots.sharing().busy);
    tokio::time::sleep(seconds(11)).await;
    exchange(&slots);
    let hold = waits.granted(clock).await.unwrap();
    let shared = slots.view(clock.now()).shared.unwrap();
    assert_eq!((shared.granted, shared.granted_batch, shared.elsewhere, shared.replicas), (2, 2, 0, 1));
    // Without the store it goes on for a while, or not at all.
    drop(hold);
    slots.unshared(false);
    let Entered::Free(_held) = slots.enter(&long, || Presumed::Long, clock.now()) else { panic!("it is granted") };
    slots.unshared(true);
    assert!(matches!(slots.enter(&long, || Presumed::Long, clock.now()), Entered::Waits(_)));
    exchange(&slots);
    assert!(matches!(slots.enter(&long, || Presumed::Long, clock.now()), Entered::Free(_)));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(slots.view(clock.now()).shared.unwrap().granted, 0);
}

/// What one step of a random day does.
#[derive(Debug, Clone)]
enum Step {
    Comes { class: usize, kind: u64, deadline: Option<u64> },
    Ends(usize),
    IsSent(usize),
    Leaves(usize),
    IsLost(usize),
    StopsWaiting(usize),
    IsRefused,
    TimePasses(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..3_usize, 0..6_u64, proptest::option::of(0..90_u64))
            .prop_map(|(class, kind, deadline)| Step::Comes { class, kind, deadline }),
        4 => (0..50_usize).prop_map(Step::Ends),
        1 => (0..50_usize).prop_map(Step::IsSent),
        1 => (0..50_usize).prop_map(Step::Leaves),
        1 => (0..50_usize).prop_map(Step::IsLost),
        1 => (0..50_usize).prop_map(Step::StopsWaiting),
        1 => Just(Step::IsRefused),
        4 => (0..40_u64).prop_map(Step::TimePasses),
    ];
    proptest::collection::vec(step, 1..300)
}

proptest! {
    /// Whatever happens: batch never holds more than its part, the queue never more than its places, nobody waits while
    /// it could fly, and in the end nothing is held.
    #[test]
    fn nothing_is_overdrawn_and_nothing_leaks(steps in steps(), in_flight in proptest::option::of(Just(60_usize))) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let mut now = runtime.block_on(async { Clock::start().now() });
        let queue = QueueSettings { places: 20, ..QueueSettings::default() };
        let mut book = Book::new(SlotSettings { in_flight, queue, ..SlotSettings::default() }, now);
        let (mut flying, mut waiting): (Vec<u32>, Vec<u64>) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Comes { class, kind, deadline } => {
                    let class = Class::ALL[class];
                    let asks = Ask { deadline: deadline.map(|after| now + seconds(after)), ..ask(kind, class) };
                    let presumed = if kind % 2 == 0 { Presumed::Long } else { Presumed::Short };
                    match book.enter(&asks, || presumed, now) {
                        Said::Go { place, .. } => flying.push(place),
                        Said::Wait { number, .. } => waiting.push(number),
                        Said::No(..) => {}
                    }
                }
                Step::Ends(n) if !flying.is_empty() => {
                    let place = flying.swap_remove(n % flying.len());
                    book.tell(place, Fate::Ended(now));
                }
                Step::IsSent(n) if !flying.is_empty() => book.tell(flying[n % flying.len()], Fate::Sent(now)),
                Step::Leaves(n) if !flying.is_empty() => book.tell(flying[n % flying.len()], Fate::Left(now)),
                Step::IsLost(n) if !flying.is_empty() => {
                    let place = flying.swap_remove(n % flying.len());
                    book.tell(place, Fate::Lost(now));
                }
                Step::StopsWaiting(n) if !waiting.is_empty() => {
                    let number = waiting.swap_remove(n % waiting.len());
                    book.leave(number);
                }
                Step::IsRefused => book.refused(now, now),
                Step::TimePasses(by) => {
                    now += seconds(by);
                    book.advance(now);
                }
                _ => {}
            }
            for (number, place) in std::mem::take(&mut book.grants) {
                let known = waiting.iter().position(|known| *known == number);
                prop_assert!(known.is_some(), "{number} was granted, and does not wait");
                waiting.swap_remove(known.unwrap_or_default());
                flying.push(place);
            }
            prop_assert!(book.air.is_sound());
            prop_assert!(book.air.held_by(Class::Batch) <= 15, "{}", book.air.held_by(Class::Batch));
            prop_assert!(book.air.held() <= 24);
            prop_assert!(in_flight.is_none_or(|most| book.air.flying() <= most));
            prop_assert_eq!(book.line.len(), waiting.len());
            prop_assert!(waiting.len() <= 20);
            let before = book.line.len();
            book.pump();
            prop_assert_eq!(book.line.len(), before, "somebody waits who could fly");
        }
        for number in waiting {
            book.leave(number);
        }
        // Whoever leaves may have let in another one.
        flying.extend(std::mem::take(&mut book.grants).iter().map(|(_, place)| *place));
        for place in flying {
            book.tell(place, Fate::Gone);
        }
        book.advance(now + Duration::from_mins(33));
        let view = SlotsView::of(&book);
        prop_assert_eq!((view.in_the_air, view.live + view.predicted + view.ghost + view.overdraft), (0, 0));
        prop_assert!(book.air.is_sound());
    }
}
