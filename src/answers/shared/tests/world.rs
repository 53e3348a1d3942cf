//! Replicas that tell each other of their changes, over a channel that delays, loses, breaks and stops.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::super::super::generations::DOUBT;
use super::super::super::touch::Touches;
use super::super::{Event, Message, Order, PRESENCE, SILENCE};
use super::{Replica, ms, row, touch};
use crate::clock::Clock;

const ROWS: usize = 3;

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
    /// When each said something that was lost to nobody who listened.
    spoke: Vec<Vec<Instant>>,
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
            spoke: vec![Vec::new(); count],
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
                if lost.is_none() {
                    self.spoke[from].push(self.now);
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
            // One that said nothing for so long that it was presumed dead is not known to who came new, until it is back.
            let mut spoke = self.spoke[write.by].iter().skip_while(|at| **at + PRESENCE <= kept.fetched);
            let back = spoke.next().is_none_or(|at| *at > kept.fetched && self.now < *at + SILENCE);
            let stranger = back && !self.replicas[by].peers.knows(&name);
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
        self.spoke.push(Vec::new());
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
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever a replica gives out from memory reflects every write whose announcement it heard, could have heard, or
    /// should have heard three seconds ago; and once the faults are over, all is certain again.
    #[test]
    fn nothing_is_given_out_that_somebody_could_know_to_be_old(
        steps in proptest::collection::vec((0..22_u8, any::<usize>(), 0..ROWS, 0..400_u64), 200..600),
    ) {
        let mut world = World::new(3);
        for step in 0..48 {
            world.now += ms(250);
            world.publish(None);
            world.deliver();
            prop_assert!(step < 43 || world.replicas.iter().all(|one| !one.generations.is_uncertain(world.now)));
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
