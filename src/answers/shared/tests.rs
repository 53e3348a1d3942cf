//! Replicas that tell each other of their changes, over a channel that delays, loses, breaks and stops.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use smallvec::smallvec;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::super::generations::{DOUBT, Generations, JOB};
use super::super::touch::{Deps, RowId, Touch, Touches, lower};
use super::{Event, HEARTBEAT, Message, Order, Outbox, PRESENCE, Peers, SILENCE, Wanted};
use crate::clock::Clock;

const ROWS: usize = 3;

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
    quiet.run(SILENCE.saturating_sub(ms(250)), &[]);
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
    quiet.run(SILENCE + HEARTBEAT, &[]);
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
    quiet.run(SILENCE + HEARTBEAT, &[]);
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
    quiet.run(SILENCE + HEARTBEAT, &[]);
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
    quiet.run(SILENCE + HEARTBEAT, &[]);
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
    quiet.run(SILENCE + HEARTBEAT, &[]);
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
    quiet.run(SILENCE + HEARTBEAT, &[]);
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
    quiet.run(SILENCE + HEARTBEAT, &[]);
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
    quiet.run(SILENCE + HEARTBEAT, &[2]);
    let now = quiet.now;
    quiet.all[0].begin(touch(1), now);
    quiet.pass(0, &[2]);
    quiet.run(PRESENCE + SILENCE, &[0, 2]);
    let now = quiet.now;
    quiet.all[2] = Replica::new("c", now);
    quiet.all[2].join(now);
    quiet.run(SILENCE + HEARTBEAT, &[0]);
    assert!(quiet.certain(1) && quiet.certain(2));
    assert!(quiet.all[2].busy(1, quiet.now), "a write that a dead replica left behind");
}

#[test]
fn one_that_takes_the_place_of_a_dead_one_is_told_what_that_had_in_the_air() {
    let mut quiet = Quiet::new(&["a", "b", "c"]);
    quiet.run(SILENCE + HEARTBEAT, &[2]);
    let now = quiet.now;
    quiet.all[0].begin(touch(1), now);
    quiet.pass(0, &[2]);
    quiet.now += ms(500);
    let now = quiet.now;
    quiet.all[2] = Replica::new("c", now);
    quiet.all[2].join(now);
    quiet.run(SILENCE + HEARTBEAT, &[0]);
    assert_eq!(quiet.all[2].peers.count(), 2, "nobody here heard it, but it may live");
    assert_eq!(quiet.all[2].peers.why_uncertain(quiet.now), Some("a replica is not heard"));
    quiet.run(PRESENCE, &[0]);
    assert!(quiet.certain(1) && quiet.certain(2));
    for place in [1, 2] {
        assert!(quiet.all[place].busy(1, quiet.now) && !quiet.all[place].busy(2, quiet.now), "{place}");
    }
}

#[test]
fn a_new_connection_is_doubt() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(SILENCE + HEARTBEAT, &[]);
    let (now, as_of) = (quiet.now, quiet.all[1].generations.count());
    let b = &mut quiet.all[1];
    b.peers.left(now, &mut b.generations);
    assert!(b.generations.is_uncertain(now));
    b.join(now);
    assert!(b.generations.standing(&row(1), now).moved > as_of);
    quiet.run(SILENCE.saturating_sub(ms(250)), &[]);
    assert!(!quiet.certain(1));
    quiet.run(HEARTBEAT, &[]);
    assert!(quiet.certain(1) && quiet.certain(0));
}

#[test]
fn what_nobody_understands_is_doubt_about_everything() {
    let mut quiet = Quiet::new(&["a", "b"]);
    quiet.run(SILENCE + HEARTBEAT, &[]);
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
    quiet.run(SILENCE + HEARTBEAT, &[]);
    assert!(!quiet.all[0].busy(1, now + JOB + SILENCE) || quiet.all[0].generations.is_uncertain(now + JOB + SILENCE));
}

/// A write in Salesforce.
struct Write {
    by: usize,
    row: usize,
    begun: Instant,
    call: (u64, Touches),
    /// The number of the message that announces it.
    announced: Option<u64>,
    /// Which version of its row it made.
    made: Option<u64>,
    over: bool,
}

/// What one replica keeps of one row.
#[derive(Clone, Copy)]
struct Kept {
    as_of: u64,
    version: u64,
    fetched: Instant,
}

/// Replicas, Salesforce, and a channel with faults.
struct World {
    now: Instant,
    replicas: Vec<Replica>,
    alive: Vec<bool>,
    /// Whether it is connected, and how long messages take to it.
    linked: Vec<bool>,
    delay: Vec<Duration>,
    inbox: Vec<VecDeque<(Instant, Message)>>,
    /// The last message of one that another heard.
    heard: HashMap<(usize, SmolStr), u64>,
    /// When one presumed another dead.
    presumed: HashMap<(usize, SmolStr), Instant>,
    kept: Vec<[Option<Kept>; ROWS]>,
    asked: Vec<(usize, usize, Kept)>,
    versions: [u64; ROWS],
    writes: Vec<Write>,
    given: u64,
    born: usize,
}

impl World {
    fn new(count: usize) -> Self {
        let now = Clock::start().now();
        let mut replicas: Vec<_> = (0..count).map(|place| Replica::new(&format!("r{place}"), now)).collect();
        for replica in &mut replicas {
            replica.join(now);
        }
        Self {
            now,
            replicas,
            alive: vec![true; count],
            linked: vec![true; count],
            delay: vec![ms(0); count],
            inbox: vec![VecDeque::new(); count],
            heard: HashMap::new(),
            presumed: HashMap::new(),
            kept: vec![[None; ROWS]; count],
            asked: Vec::new(),
            versions: [0; ROWS],
            writes: Vec::new(),
            given: 0,
            born: count,
        }
    }

    /// Publishes what is due. `lost` to all, or to one.
    fn publish(&mut self, lost: Option<usize>) {
        let count = self.replicas.len();
        for from in (0..count).filter(|from| self.alive[*from]) {
            if self.replicas[from].outbox.due(self.now) > self.now {
                continue;
            }
            for message in self.replicas[from].messages(false, self.now) {
                for event in &message.events {
                    if let Event::Begin(call, _) = event {
                        let one = self.writes.iter_mut().find(|write| write.by == from && write.call.0 == *call);
                        one.unwrap().announced = Some(message.number);
                    }
                }
                if !self.linked[from] || lost == Some(count) {
                    continue;
                }
                for to in (0..count).filter(|to| self.linked[*to] && self.alive[*to] && lost != Some(*to)) {
                    let at = self.now + self.delay[to];
                    let at = self.inbox[to].back().map_or(at, |(last, _)| at.max(*last));
                    self.inbox[to].push_back((at, message.clone()));
                }
            }
        }
    }

    fn deliver(&mut self) {
        for place in (0..self.replicas.len()).filter(|place| self.alive[*place]) {
            while let Some((_, message)) = self.inbox[place].pop_front_if(|(at, _)| *at <= self.now) {
                let (from, number) = (message.from.clone(), message.number);
                self.replicas[place].hear(message, self.now);
                self.presumed.remove(&(place, from.clone()));
                self.heard.insert((place, from), number);
            }
            let replica = &mut self.replicas[place];
            for order in replica.peers.tick(self.now, &mut replica.generations) {
                if let Order::Dead(name) = order {
                    self.presumed.insert((place, name), self.now);
                }
            }
        }
    }

    fn begin(&mut self, by: usize, row: usize) {
        let call = self.replicas[by].begin(touch(row), self.now);
        let write = Write { by, row, begun: self.now, call, announced: None, made: None, over: false };
        self.writes.push(write);
    }

    /// Salesforce carries out a write.
    fn carry_out(&mut self, pick: usize) {
        let now = self.now;
        let can = |write: &Write| write.made.is_none() && now < write.begun + DOUBT;
        let mut waiting: Vec<_> = self.writes.iter_mut().filter(|write| can(write)).collect();
        let count = waiting.len();
        if let Some(write) = waiting.get_mut(pick % count.max(1)) {
            self.versions[write.row] += 1;
            write.made = Some(self.versions[write.row]);
        }
    }

    /// A writer has its answer, or will get none.
    fn end(&mut self, pick: usize) {
        let alive = &self.alive;
        let mut open: Vec<_> = self.writes.iter_mut().filter(|write| !write.over && alive[write.by]).collect();
        let count = open.len();
        if let Some(write) = open.get_mut(pick % count.max(1)) {
            write.over = true;
            let doubt = write.made.is_none();
            self.replicas[write.by].end(&write.call, doubt, self.now);
        }
    }

    /// Someone reads a row by way of a replica.
    fn read(&mut self, by: usize, row_number: usize) -> Result<(), TestCaseError> {
        let replica = &mut self.replicas[by];
        let standing = replica.generations.standing(&row(row_number), self.now);
        match self.kept[by][row_number] {
            Some(kept) if !standing.busy && standing.moved <= kept.as_of => {
                self.given += 1;
                self.check(by, row_number, kept)?;
            }
            _ if !standing.busy => {
                let as_of = replica.generations.count();
                let kept = Kept { as_of, version: self.versions[row_number], fetched: self.now };
                self.asked.push((by, row_number, kept));
            }
            _ => {}
        }
        Ok(())
    }

    /// What is given out from memory lacks only writes that nobody could know of.
    fn check(&self, by: usize, row_number: usize, kept: Kept) -> Result<(), TestCaseError> {
        let lacking = |write: &&Write| write.row == row_number && write.made.is_some_and(|made| made > kept.version);
        for write in self.writes.iter().filter(lacking) {
            let name = self.replicas[write.by].outbox.name().clone();
            let presumed = self.presumed.get(&(by, name.clone())).is_some_and(|since| kept.fetched >= *since);
            let heard = self.heard.get(&(by, name.clone())).copied().unwrap_or_default();
            let under_way = write.announced.is_none_or(|number| heard < number) && self.now < write.begun + SILENCE;
            // One that is cut off, and that nobody who is there has heard for long, is not known to who comes new.
            let there = self.linked[write.by] && self.alive[write.by];
            let stranger = !there && !self.replicas[by].peers.knows(&name);
            prop_assert!(
                write.by != by && (under_way || presumed || stranger),
                "{by} gives out what {} made old",
                write.by
            );
        }
        Ok(())
    }

    /// The answer to a question comes.
    fn land(&mut self, pick: usize) {
        if self.asked.is_empty() {
            return;
        }
        let (by, row_number, kept) = self.asked.swap_remove(pick % self.asked.len());
        let standing = self.replicas[by].generations.standing(&row(row_number), self.now);
        if self.alive[by] && !standing.busy && standing.moved <= kept.as_of {
            self.kept[by][row_number] = Some(kept);
        }
    }

    /// Dies at once; another takes its place.
    fn kill(&mut self, place: usize) {
        self.alive[place] = false;
        let name = format!("r{}", self.born);
        self.born += 1;
        let mut replica = Replica::new(&name, self.now);
        replica.join(self.now);
        self.replicas.push(replica);
        self.alive.push(true);
        self.linked.push(true);
        self.delay.push(ms(0));
        self.inbox.push(VecDeque::new());
        self.kept.push([None; ROWS]);
    }

    fn cut(&mut self, place: usize, noticed: bool) {
        self.linked[place] = false;
        self.inbox[place].clear();
        if noticed {
            let replica = &mut self.replicas[place];
            replica.peers.left(self.now, &mut replica.generations);
        }
    }

    fn mend(&mut self, place: usize) {
        if !self.linked[place] {
            self.linked[place] = true;
            let replica = &mut self.replicas[place];
            replica.peers.left(self.now, &mut replica.generations);
            replica.join(self.now);
        }
    }

    fn one(&self, pick: usize) -> usize {
        let alive: Vec<_> = (0..self.replicas.len()).filter(|place| self.alive[*place]).collect();
        alive[pick % alive.len()]
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Whatever a replica gives out from memory reflects every write whose announcement it heard, could have heard, or
    /// should have heard three seconds ago; and once the faults are over, all is certain again.
    #[test]
    fn nothing_is_given_out_that_somebody_could_know_to_be_old(
        steps in proptest::collection::vec((0..22_u8, any::<usize>(), 0..ROWS, 0..400_u64), 200..600),
    ) {
        let mut world = World::new(3);
        for step in 0..20 {
            world.now += ms(250);
            world.publish(None);
            world.deliver();
            prop_assert!(step < 13 || world.replicas.iter().all(|one| !one.generations.is_uncertain(world.now)));
        }
        for (what, pick, row_number, passes) in steps {
            world.now += ms(passes);
            let one = world.one(pick);
            let mut lost = None;
            match what {
                0..=2 => world.begin(one, row_number),
                3..=4 => world.carry_out(pick),
                5..=7 => world.end(pick),
                8..=13 => world.land(pick),
                14 => lost = Some(pick % (world.replicas.len() + 1)),
                15 => world.delay[one] = ms(if pick % 3 == 0 { passes * 12 } else { 0 }),
                16 if pick % 4 == 0 => world.cut(one, pick % 8 == 0),
                17..=18 => world.mend(one),
                19 if pick % 16 == 0 && world.replicas.len() < 6 => world.kill(one),
                20 if pick % 8 == 0 => world.now += PRESENCE,
                _ => {}
            }
            world.publish(lost);
            world.deliver();
            for place in 0..world.replicas.len() {
                if world.alive[place] {
                    world.read(place, row_number)?;
                    world.read(place, pick % ROWS)?;
                }
            }
        }
        for place in 0..world.replicas.len() {
            world.mend(place);
            world.delay[place] = ms(0);
        }
        for _ in 0..80 {
            world.now += ms(250);
            world.publish(None);
            world.deliver();
        }
        for place in 0..world.replicas.len() {
            let why = world.replicas[place].peers.why_uncertain(world.now);
            prop_assert!(!world.alive[place] || why.is_none(), "{place}: {why:?}");
        }
    }
}
