//! What was heard of the other replicas, and until when it is certain that nothing was missed.

use std::time::Duration;

use ahash::{AHashMap, AHashSet};
use smol_str::SmolStr;
use tokio::time::Instant;

use super::super::generations::{DOUBT, Generations};
use super::super::touch::{Touch, Touches};
use super::message::{Event, Message, Part, Vouched};
use super::{PRESENCE, SILENCE};
use crate::call::Principal;

/// Replicas told apart; while there are more, nothing is certain.
const MAX_PEERS: usize = 1_000;

/// What to do beside what was done to the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// The session of this principal has ended; how long it would have been entitled otherwise.
    SessionEnded(Principal, Duration),
    /// All sessions have, as far as anybody knows.
    SessionsEnded,
    /// What was kept for the principals that are shown like this is old (`true`), or no longer fresh.
    Principal(SmolStr, bool),
    /// Tell all others what is going on here.
    Tell,
    /// A message of this replica was missed.
    Gap(SmolStr),
    /// This replica is presumed dead.
    Dead(SmolStr),
}

/// What is known of what one replica has in the air.
#[derive(Debug)]
enum Known {
    /// Everything.
    All,
    /// Something was missed.
    Lost,
    /// It is saying what it has in the air: so far these calls.
    Told(AHashSet<u64>),
}

#[derive(Debug)]
struct Peer {
    /// The number of its next message.
    next: u64,
    /// When it was heard.
    heard: Instant,
    /// It sent what was heard last after this.
    alive: Option<Instant>,
    /// Its calls in the air. As many as it has: it sends them, and bounds them itself.
    air: AHashMap<u64, Touches>,
    known: Known,
}

/// The others, as one replica hears them.
#[derive(Debug, Default)]
pub struct Peers {
    /// Since when the channel is listened to.
    joined: Option<Instant>,
    /// When the last own message that came back was sent.
    echo: Option<Instant>,
    /// Since when own messages come back without long pauses: before, nobody could be heard.
    hears_since: Option<Instant>,
    /// Nobody who lives can have been silent ever since the channel is listened to.
    settled: bool,
    others: AHashMap<SmolStr, Peer>,
    /// Somebody said something that nobody here understands, or too many speak.
    unclear_until: Option<Instant>,
}

impl Peers {
    /// The channel is listened to from now on. What was said before was missed.
    pub fn joined(&mut self, now: Instant, generations: &mut Generations) -> Vec<Order> {
        (self.joined, self.echo, self.hears_since, self.settled) = (Some(now), None, None, false);
        for peer in self.others.values_mut() {
            (peer.known, peer.alive) = (Known::Lost, None);
        }
        generations.purge(Touch::Everything, now);
        self.judge(now, generations);
        vec![Order::SessionsEnded]
    }

    /// It is no longer.
    pub fn left(&mut self, now: Instant, generations: &mut Generations) {
        self.joined = None;
        self.judge(now, generations);
    }

    /// From whom something was missed.
    pub fn wants(&self) -> Vec<SmolStr> {
        self.others.iter().filter(|(_, peer)| matches!(peer.known, Known::Lost)).map(|(name, _)| name.clone()).collect()
    }

    /// What is known of the others.
    pub fn vouched(&self) -> Vec<Vouched> {
        let one = |(name, peer): (&SmolStr, &Peer)| Vouched {
            name: name.clone(),
            next: peer.next,
            known: matches!(peer.known, Known::All),
            air: peer.air.iter().map(|(call, touches)| (*call, touches.clone())).collect(),
        };
        self.others.iter().map(one).collect()
    }

    /// Whether this one was heard, or may live.
    #[cfg(test)]
    pub fn knows(&self, name: &str) -> bool {
        self.others.contains_key(name)
    }

    /// How many others there are.
    pub fn count(&self) -> usize {
        self.others.len()
    }

    /// An own message came back that was sent at `sent`: all that was said before it has been heard, or is lost.
    pub fn echo(&mut self, sent: Instant, now: Instant, generations: &mut Generations) {
        if self.joined.is_none() {
            return;
        }
        if !self.hears(now) {
            self.hears_since = Some(now);
        }
        self.echo = self.echo.max(Some(sent));
        self.judge(now, generations);
    }

    /// Something was said that nobody here understands: who said it may be changing anything.
    pub fn unclear(&mut self, now: Instant, generations: &mut Generations) -> Vec<Order> {
        self.unclear_until = Some(now + PRESENCE);
        generations.doubt(everything(), now + DOUBT, now);
        self.judge(now, generations);
        vec![Order::SessionsEnded]
    }

    /// Another replica, to which this one is `me`, said something.
    pub fn heard(&mut self, me: &str, message: Message, now: Instant, generations: &mut Generations) -> Vec<Order> {
        if self.joined.is_none() {
            return Vec::new();
        }
        let mut orders = Vec::new();
        if !self.others.contains_key(&message.from) {
            if self.others.len() >= MAX_PEERS {
                return self.unclear(now, generations);
            }
            // Of one that begins to speak nothing can have been missed.
            let peer = Peer { next: 1, heard: now, alive: None, air: AHashMap::new(), known: Known::All };
            self.others.insert(message.from.clone(), peer);
        }
        let Some(peer) = self.others.get_mut(&message.from) else { return orders };
        if message.number < peer.next {
            return orders;
        }
        if message.number > peer.next {
            peer.known = Known::Lost;
            generations.purge(Touch::Everything, now);
            orders.extend([Order::Gap(message.from.clone()), Order::SessionsEnded]);
        }
        peer.next = message.number + 1;
        peer.heard = now;
        peer.alive = self.echo;
        for event in message.events {
            orders.extend(peer.apply(event, now, generations));
        }
        if let Some(mut part) = message.state {
            let vouched = std::mem::take(&mut part.peers);
            peer.told(part, now, generations);
            for other in vouched {
                self.vouch(me, other, now, generations);
            }
        }
        if message.wants.iter().any(|wanted| wanted == me) {
            orders.push(Order::Tell);
        }
        if message.bye
            && let Some(peer) = self.others.remove(&message.from)
        {
            peer.gone(now, generations);
        }
        self.judge(now, generations);
        orders
    }

    /// Another replica hears one that nobody heard here. It lives, or died a short while ago.
    fn vouch(&mut self, me: &str, other: Vouched, now: Instant, generations: &mut Generations) {
        let Vouched { name, next, known, air } = other;
        if name == me || self.others.contains_key(&name) || self.others.len() >= MAX_PEERS {
            return;
        }
        let air = air.into_iter().map(|(call, touches)| (call, generations.begin(touches, now))).collect();
        let known = if known { Known::All } else { Known::Lost };
        self.others.insert(name, Peer { next, heard: now, alive: None, air, known });
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, generations: &mut Generations) -> Vec<Order> {
        let mut orders = Vec::new();
        if self.hears(now)
            && let Some(since) = self.hears_since
        {
            // Who was cut off before is waited for like one that was heard: those who heard it may be gone, too.
            self.settled |= now >= since + PRESENCE;
            let silent = |peer: &Peer| now.saturating_duration_since(peer.heard.max(since)) >= PRESENCE;
            let dead: Vec<SmolStr> =
                self.others.iter().filter(|(_, peer)| silent(peer)).map(|(name, _)| name.clone()).collect();
            for name in dead {
                if let Some(peer) = self.others.remove(&name) {
                    peer.gone(now, generations);
                    // It may have made writes that nobody heard of.
                    generations.purge(Touch::Everything, now);
                    orders.extend([Order::Dead(name), Order::SessionsEnded]);
                }
            }
        }
        self.judge(now, generations);
        orders
    }

    /// Why nothing is certain at `now`; `None` if it is.
    pub fn why_uncertain(&self, now: Instant) -> Option<&'static str> {
        let fresh = |heard: Option<Instant>| heard.is_some_and(|heard| now < heard + SILENCE);
        if self.joined.is_none() {
            return Some("not connected");
        }
        if !fresh(self.echo) {
            return Some("own messages do not come back");
        }
        if !self.settled {
            return Some("just connected");
        }
        if self.unclear_until.is_some_and(|until| now < until) {
            return Some("not understood");
        }
        if self.others.values().any(|peer| !matches!(peer.known, Known::All)) {
            return Some("messages missed");
        }
        self.others.values().any(|peer| !fresh(peer.alive)).then_some("a replica is not heard")
    }

    /// Whether own messages come back.
    fn hears(&self, now: Instant) -> bool {
        self.joined.is_some() && self.echo.is_some_and(|echo| now < echo + SILENCE)
    }

    /// Says until when nothing can have been missed.
    fn judge(&self, now: Instant, generations: &mut Generations) {
        let until = match (self.why_uncertain(now), self.echo) {
            (None, Some(echo)) => self.others.values().filter_map(|peer| peer.alive).fold(echo, Instant::min) + SILENCE,
            _ => now,
        };
        generations.certain(until);
    }
}

impl Peer {
    fn apply(&mut self, event: Event, now: Instant, generations: &mut Generations) -> Option<Order> {
        match event {
            Event::Begin(call, touches) => {
                let begun = generations.begin(touches, now);
                self.air.insert(call, begun);
            }
            Event::Again(call) => {
                if let Some(touches) = self.air.get(&call) {
                    let more = generations.begin(touches.clone(), now);
                    generations.end(&more, false, now);
                }
            }
            Event::End(call, doubt) => {
                if let Some(touches) = self.air.remove(&call) {
                    generations.end(&touches, doubt, now);
                }
            }
            Event::Doubt(touches, left) => generations.doubt(touches, after(now, left), now),
            Event::Job(id, touches, left) => generations.job_until(&id, touches, after(now, left), now),
            Event::JobEnd(id) => generations.job_ended(&id, now),
            Event::Purge(touch) => generations.purge(touch, now),
            Event::Soften(touch) => {
                generations.soften(touch, now);
            }
            Event::Principal(short, old) => return Some(Order::Principal(short, old)),
            Event::SessionEnded(who, recheck) => {
                return Some(Order::SessionEnded(Principal(who), Duration::from_millis(recheck)));
            }
            Event::SessionsEnded => return Some(Order::SessionsEnded),
        }
        None
    }

    /// It says what is going on.
    fn told(&mut self, part: Part, now: Instant, generations: &mut Generations) {
        if matches!(self.known, Known::All) {
            return;
        }
        if part.first {
            self.known = Known::Told(AHashSet::new());
        }
        let Known::Told(calls) = &mut self.known else { return };
        for (call, touches) in part.air {
            calls.insert(call);
            self.air.entry(call).or_insert_with(|| generations.begin(touches, now));
        }
        for (touch, left) in part.doubts {
            generations.doubt(std::iter::once(touch).collect(), after(now, left), now);
        }
        for (id, touches, left) in part.jobs {
            generations.job_until(&id, touches, after(now, left), now);
        }
        if part.last {
            // What it no longer names has ended without being heard.
            self.air.retain(|call, touches| {
                let goes_on = calls.contains(call);
                if !goes_on {
                    generations.end(touches, false, now);
                }
                goes_on
            });
            self.known = Known::All;
            // A question that was under way in the meantime knows nothing of those ends.
            generations.purge(Touch::Everything, now);
        }
    }

    /// It is gone. Nobody will say how its calls end.
    fn gone(self, now: Instant, generations: &mut Generations) {
        for touches in self.air.values() {
            generations.end(touches, true, now);
        }
        if !matches!(self.known, Known::All) {
            generations.doubt(everything(), now + DOUBT, now);
        }
    }
}

fn everything() -> Touches {
    std::iter::once(Touch::Everything).collect()
}

/// The end of a time that another replica's clock said is left. No doubt lasts for longer than a job.
fn after(now: Instant, left: u64) -> Instant {
    now + Duration::from_millis(left).min(super::super::generations::JOB)
}
