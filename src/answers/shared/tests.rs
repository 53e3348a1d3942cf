//! Replicas that tell each other of their changes, step by step; with faults at random in `world`.

mod world;

use std::time::Duration;

use smallvec::smallvec;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::super::generations::{DOUBT, Generations, JOB};
use super::super::touch::{Deps, RowId, Touch, Touches, lower};
use super::{Event, HEARTBEAT, Message, Order, Outbox, PRESENCE, Peers, SILENCE, Wanted};
use crate::clock::Clock;

fn id(number: usize) -> RowId {
    RowId::parse(&format!("001{number:012}")).unwrap()
}

fn row(number: usize) -> Deps {
    Deps::Row(lower("account"), id(number))
}

fn touch(number: usize) -> Touches {
    smallvec![Touch::Row(lower("account"), id(number))]
}

fn ms(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// One replica: what it changed and heard.
struct Replica {
    generations: Generations,
    outbox: Outbox,
    peers: Peers,
}

impl Replica {
    fn new(name: &str, now: Instant) -> Self {
        let mut generations = Generations::default();
        generations.certain(now);
        Self { generations, outbox: Outbox::new(name.into(), now), peers: Peers::default() }
    }

    fn join(&mut self, now: Instant) {
        self.peers.joined(now, &mut self.generations);
    }

    fn begin(&mut self, touches: Touches, now: Instant) -> (u64, Touches) {
        let begun = self.generations.begin(touches, now);
        (self.outbox.begin(&begun), begun)
    }

    fn end(&mut self, (call, touches): &(u64, Touches), doubt: bool, now: Instant) {
        self.generations.end(touches, doubt, now);
        self.outbox.end(*call, doubt);
    }

    fn messages(&mut self, bye: bool, now: Instant) -> Vec<Message> {
        let wanted = Wanted { from: self.peers.wants(), peers: self.peers.vouched(), bye };
        self.outbox.messages(wanted, &self.generations, now)
    }

    fn hear(&mut self, message: Message, now: Instant) -> Vec<Order> {
        let me = self.outbox.name().clone();
        if message.from == me {
            self.peers.echo(self.outbox.sent_at(message.sent), now, &mut self.generations);
            return Vec::new();
        }
        let orders = self.peers.heard(&me, message, now, &mut self.generations);
        if orders.contains(&Order::Tell) {
            self.outbox.asked();
        }
        orders
    }

    fn busy(&mut self, number: usize, now: Instant) -> bool {
        self.generations.standing(&row(number), now).busy
    }
}

/// Several replicas on a channel without faults; every message is heard by all at once.
struct Quiet {
    now: Instant,
    all: Vec<Replica>,
}

impl Quiet {
    fn new(names: &[&str]) -> Self {
        let now = Clock::start().now();
        let mut all: Vec<Replica> = names.iter().map(|name| Replica::new(name, now)).collect();
        for replica in &mut all {
            replica.join(now);
        }
        Self { now, all }
    }

    /// What `from` has to tell is heard by all but `deaf`.
    fn pass(&mut self, from: usize, deaf: &[usize]) -> Vec<Order> {
        let messages = self.all[from].messages(false, self.now);
        self.deliver(&messages, deaf)
    }

    fn deliver(&mut self, messages: &[Message], deaf: &[usize]) -> Vec<Order> {
        let (now, mut orders) = (self.now, Vec::new());
        for message in messages {
            for (place, replica) in self.all.iter_mut().enumerate() {
                if !deaf.contains(&place) {
                    orders.extend(replica.hear(message.clone(), now));
                }
            }
        }
        orders
    }

    /// Time passes in heartbeats; those who are `silent` neither tell nor hear.
    fn run(&mut self, time: Duration, silent: &[usize]) -> Vec<Order> {
        let (end, mut orders) = (self.now + time, Vec::new());
        while self.now < end {
            self.now += ms(250);
            for place in (0..self.all.len()).filter(|place| !silent.contains(place)) {
                if self.all[place].outbox.due(self.now) <= self.now {
                    orders.extend(self.pass(place, silent));
                }
                let (now, replica) = (self.now, &mut self.all[place]);
                orders.extend(replica.peers.tick(now, &mut replica.generations));
            }
        }
        orders
    }

    fn certain(&self, place: usize) -> bool {
        !self.all[place].generations.is_uncertain(self.now)
    }
}

#[test]
fn nothing_is_certain_until_all_who_live_can_have_been_heard() {
    let mut quiet = Quiet::new(&["a", "b"]);
    assert!(!quiet.certain(0) && quiet.all[0].busy(1, quiet.now));
    quiet.run(PRESENCE, &[]);
    assert!(!quiet.certain(0));
    quiet.run(ms(750), &[]);
    assert!(quiet.certain(0) && quiet.certain(1) && !quiet.all[0].busy(1, quiet.now));
    // Nothing has to happen for it to end.
    quiet.now += SILENCE;
    assert!(!quiet.certain(0) && !quiet.certain(1));
    assert_eq!(quiet.all[0].peers.why_uncertain(quiet.now), Some("own messages do not come back"));
}

#[test]
fn a_write_is_known_to_all_from_its_begin_to_its_end() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    let as_of = quiet.all[1].generations.count();
    let now = quiet.now;
    let call = quiet.all[0].begin(touch(1), now);
    assert!(!quiet.all[1].busy(1, now), "nobody has said so yet");
    quiet.pass(0, &[]);
    assert!(quiet.all[1].busy(1, now) && !quiet.all[1].busy(2, now));
    let during = quiet.all[1].generations.count();
    quiet.all[0].end(&call, false, now);
    quiet.pass(0, &[]);
    let standing = quiet.all[1].generations.standing(&row(1), now);
    assert!(!standing.busy && standing.moved > during && during > as_of);
    assert!(quiet.all[1].generations.standing(&row(2), now).moved <= as_of);
}

#[test]
fn a_message_that_was_missed_makes_everything_old_until_its_sender_has_told_all() {
    let mut quiet = Quiet::new(&["a", "b", "c"]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    let now = quiet.now;
    let gone = quiet.all[0].begin(touch(1), now);
    quiet.pass(0, &[1]);
    let lost = quiet.all[0].begin(touch(2), now);
    quiet.all[0].generations.doubt(touch(0), now + DOUBT, now);
    quiet.all[0].outbox.post(Event::Doubt(touch(0), 600_000));
    quiet.all[0].generations.job("750", smallvec![Touch::Object(lower("lead"))], now);
    quiet.all[0].outbox.post(Event::Job("750".into(), smallvec![Touch::Object(lower("lead"))], 60_000));
    quiet.pass(0, &[1]);
    assert!(quiet.certain(1), "it cannot know yet");
    let as_of = quiet.all[1].generations.count();
    quiet.all[0].end(&gone, false, now);
    let orders = quiet.pass(0, &[]);
    assert!(orders.contains(&Order::Gap("a".into())) && orders.contains(&Order::SessionsEnded));
    assert!(!quiet.certain(1) && quiet.all[1].generations.standing(&Deps::Metadata(None), now).moved > as_of);
    assert_eq!(quiet.all[1].peers.wants(), [SmolStr::new("a")]);
    // It asks, and is told. Who missed nothing has heard nothing new.
    assert_eq!(quiet.pass(1, &[]), [Order::Tell]);
    let count = quiet.all[2].generations.count();
    let told = quiet.all[0].messages(false, now);
    assert!(told.iter().any(|message| message.state.is_some()));
    quiet.deliver(&told, &[]);
    assert_eq!(quiet.all[2].generations.count(), count);
    assert!(quiet.certain(1));
    for place in [1, 2] {
        assert!(quiet.all[place].busy(0, now), "in doubt");
        assert!(!quiet.all[place].busy(1, now), "it has ended");
        assert!(quiet.all[place].busy(2, now), "it goes on");
        assert!(quiet.all[place].generations.knows_job("750"));
    }
    quiet.all[0].end(&lost, false, now);
    quiet.pass(0, &[]);
    assert!(!quiet.all[1].busy(2, now));
}

#[test]
fn many_things_are_told_in_parts_and_a_part_that_is_lost_begins_it_anew() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    let now = quiet.now;
    let calls: Vec<_> = (0..700).map(|number| quiet.all[0].begin(touch(number), now)).collect();
    quiet.all[0].messages(false, now);
    quiet.pass(0, &[]);
    assert!(!quiet.certain(1));
    quiet.pass(1, &[]);
    let mut told = quiet.all[0].messages(false, now);
    assert_eq!(told.len(), 4, "what happened, and three parts");
    told.remove(2);
    quiet.deliver(&told, &[]);
    assert!(!quiet.certain(1));
    quiet.run(HEARTBEAT * 2, &[]);
    assert!(quiet.certain(1) && (0..700).all(|number| quiet.all[1].busy(number, now)));
    for call in &calls {
        quiet.all[0].end(call, false, now);
    }
    quiet.pass(0, &[]);
    assert!(quiet.certain(1) && (0..700).all(|number| !quiet.all[1].busy(number, now)));
}

#[test]
fn what_there_is_no_room_for_is_a_gap() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    for _ in 0..=4_096 {
        quiet.all[0].outbox.post(Event::Again(0));
    }
    assert!(quiet.pass(0, &[]).contains(&Order::Gap("a".into())));
    assert!(!quiet.certain(1));
    quiet.run(HEARTBEAT * 2, &[]);
    assert!(quiet.certain(1));
}

#[test]
fn one_that_is_not_heard_is_waited_for_and_then_presumed_dead() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    let now = quiet.now;
    quiet.all[0].begin(touch(1), now);
    quiet.pass(0, &[]);
    let as_of = quiet.all[1].generations.count();
    assert!(quiet.run(SILENCE, &[0]).is_empty());
    assert_eq!(quiet.all[1].peers.why_uncertain(quiet.now), Some("a replica is not heard"));
    assert!(!quiet.certain(1));
    let orders = quiet.run(PRESENCE.saturating_sub(SILENCE), &[0]);
    assert_eq!(orders, [Order::Dead("a".into()), Order::SessionsEnded]);
    assert!(quiet.certain(1) && quiet.all[1].busy(1, quiet.now) && !quiet.all[1].busy(2, quiet.now));
    assert!(quiet.all[1].generations.standing(&row(2), quiet.now).moved > as_of, "everything is old");
    // One that was taken for dead wrongly comes back.
    let orders = quiet.run(HEARTBEAT * 3, &[]);
    assert!(orders.contains(&Order::Gap("a".into())) && quiet.certain(1));
    assert_eq!(quiet.all[1].peers.count(), 1);
}

#[test]
fn who_hears_nobody_presumes_nobody_dead() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    // Neither tells nor hears, as while the store is stopped.
    for _ in 0..100 {
        quiet.now += ms(250);
        for place in 0..2 {
            let (now, replica) = (quiet.now, &mut quiet.all[place]);
            assert_eq!(replica.peers.tick(now, &mut replica.generations), []);
        }
    }
    assert!(!quiet.certain(0) && !quiet.certain(1));
    let orders = quiet.run(SILENCE, &[]);
    assert_eq!((orders, quiet.certain(0), quiet.certain(1)), (Vec::new(), true, true), "nothing was missed");
}

#[test]
fn who_takes_leave_leaves_no_doubt_but_about_what_it_had_in_the_air() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    let now = quiet.now;
    quiet.all[0].begin(touch(1), now);
    // The others missed that, and have no time to ask.
    quiet.all[0].messages(false, now);
    let last = quiet.all[0].messages(true, now);
    quiet.deliver(&last, &[]);
    assert_eq!(quiet.all[1].peers.count(), 0);
    assert!(quiet.certain(1) && quiet.all[1].busy(1, now) && !quiet.all[1].busy(2, now));
    assert!(quiet.all[1].generations.doubts(now + DOUBT).is_empty());
    quiet.run(PRESENCE * 2, &[0]);
    assert!(quiet.certain(1));
}

#[test]
fn a_newcomer_is_told_what_others_were_left_in_doubt_about() {
    let mut quiet = Quiet::new(&["a", "b", "c"]);
    quiet.run(PRESENCE + HEARTBEAT, &[2]);
    let now = quiet.now;
    quiet.all[0].begin(touch(1), now);
    quiet.pass(0, &[2]);
    quiet.run(PRESENCE + SILENCE, &[0, 2]);
    let now = quiet.now;
    quiet.all[2] = Replica::new("c", now);
    quiet.all[2].join(now);
    quiet.run(PRESENCE + HEARTBEAT, &[0]);
    assert!(quiet.certain(1) && quiet.certain(2));
    assert!(quiet.all[2].busy(1, quiet.now), "a write that a dead replica left behind");
}

#[test]
fn one_that_takes_the_place_of_a_dead_one_is_told_what_that_had_in_the_air() {
    let mut quiet = Quiet::new(&["a", "b", "c"]);
    quiet.run(PRESENCE + HEARTBEAT, &[2]);
    let now = quiet.now;
    quiet.all[0].begin(touch(1), now);
    quiet.pass(0, &[2]);
    quiet.now += ms(500);
    let now = quiet.now;
    quiet.all[2] = Replica::new("c", now);
    quiet.all[2].join(now);
    quiet.run(SILENCE + HEARTBEAT, &[0]);
    assert_eq!(quiet.all[2].peers.count(), 2, "nobody here heard it, but it may live");
    assert!(!quiet.certain(2));
    quiet.run(PRESENCE, &[0]);
    assert!(quiet.certain(1) && quiet.certain(2));
    for place in [1, 2] {
        assert!(quiet.all[place].busy(1, quiet.now) && !quiet.all[place].busy(2, quiet.now), "{place}");
    }
}

#[test]
fn one_that_only_a_dead_one_heard_is_waited_for_by_who_takes_its_place() {
    let mut quiet = Quiet::new(&["a", "b", "c"]);
    quiet.run(PRESENCE + HEARTBEAT, &[2]);
    // All at once `a` is cut off, and goes on writing, and `b` dies.
    let now = quiet.now;
    quiet.all[2] = Replica::new("c", now);
    quiet.all[2].join(now);
    quiet.run(PRESENCE.saturating_sub(ms(250)), &[0, 1]);
    assert_eq!(quiet.all[2].peers.why_uncertain(quiet.now), Some("just connected"));
    // It is back in time: nothing was kept that it made old. It still waits for the dead one, and says so.
    quiet.all[0].begin(touch(1), now);
    quiet.run(HEARTBEAT * 3, &[1]);
    assert_eq!(quiet.all[2].peers.why_uncertain(quiet.now), Some("a replica is not heard"));
    quiet.run(PRESENCE, &[1]);
    assert!(quiet.certain(2) && quiet.all[2].busy(1, quiet.now) && !quiet.all[2].busy(2, quiet.now));
}

#[test]
fn a_new_connection_is_doubt() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    let (now, as_of) = (quiet.now, quiet.all[1].generations.count());
    let b = &mut quiet.all[1];
    b.peers.left(now, &mut b.generations);
    assert!(b.generations.is_uncertain(now));
    b.join(now);
    assert!(b.generations.standing(&row(1), now).moved > as_of);
    quiet.run(PRESENCE, &[]);
    assert!(!quiet.certain(1));
    quiet.run(HEARTBEAT, &[]);
    assert!(quiet.certain(1) && quiet.certain(0));
}

#[test]
fn what_nobody_understands_is_doubt_about_everything() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    let (now, b) = (quiet.now, &mut quiet.all[1]);
    assert_eq!(b.peers.unclear(now, &mut b.generations), [Order::SessionsEnded]);
    assert!(b.generations.is_uncertain(now));
    quiet.run(PRESENCE, &[]);
    assert!(quiet.certain(1) && quiet.all[1].busy(1, quiet.now));
    assert!(quiet.all[1].generations.doubts(now + DOUBT).is_empty());
}

#[test]
fn what_is_told_in_no_order_that_makes_sense_is_survived() {
    let mut quiet = Quiet::new(&["b"]);
    let now = quiet.now;
    for (number, event) in [Event::End(7, true), Event::Again(7), Event::JobEnd("x".into())].into_iter().enumerate() {
        let message =
            Message { from: "a".into(), number: number as u64 + 1, events: vec![event], ..Message::default() };
        quiet.deliver(&[message.clone(), message], &[]);
    }
    let far = Message {
        from: "a".into(),
        number: 4,
        events: vec![Event::Doubt(touch(1), u64::MAX), Event::Job("y".into(), touch(2), u64::MAX)],
        ..Message::default()
    };
    quiet.deliver(&[far], &[]);
    quiet.run(PRESENCE + HEARTBEAT, &[]);
    assert!(!quiet.all[0].busy(1, now + JOB + SILENCE) || quiet.all[0].generations.is_uncertain(now + JOB + SILENCE));
}
