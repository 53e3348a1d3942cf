//! What happened here: queued, numbered, and told whole to who missed something.

use std::time::Duration;

use ahash::AHashMap;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::super::generations::Generations;
use super::super::touch::Touches;
use super::HEARTBEAT;
use super::message::{Event, Message, Part, Vouched, bounded, millis};

/// Events that wait to be sent. Beyond, all are given up, and the others see that they missed something.
const MAX_QUEUED: usize = 4_096;
/// Events in one message.
const MAX_EVENTS: usize = 256;
/// Entries in one part of what is going on.
const MAX_ENTRIES: usize = 256;
/// What is going on is told no more often than this.
const TELL_APART: Duration = Duration::from_millis(500);

/// What this replica has to tell.
#[derive(Debug)]
pub struct Outbox {
    from: SmolStr,
    /// What its clock counts from.
    started: Instant,
    number: u64,
    queue: Vec<Event>,
    /// Some of what happened was given up.
    lost: bool,
    last_call: u64,
    /// Own calls in the air.
    air: AHashMap<u64, Touches>,
    /// Somebody missed something.
    asked: bool,
    /// When what is going on was told last.
    told: Option<Instant>,
    /// When a message was sent last.
    sent: Option<Instant>,
}

/// What is to be sent now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// From whom something was missed.
    pub from: Vec<SmolStr>,
    /// What is known of the others.
    pub peers: Vec<Vouched>,
    /// This replica takes its leave.
    pub bye: bool,
}

impl Outbox {
    /// Nothing has happened yet to `from`.
    pub fn new(from: SmolStr, now: Instant) -> Self {
        Self {
            from,
            started: now,
            number: 0,
            queue: Vec::new(),
            lost: false,
            last_call: 0,
            air: AHashMap::new(),
            asked: false,
            told: None,
            sent: None,
        }
    }

    /// Under which name this replica is heard.
    pub fn name(&self) -> &SmolStr {
        &self.from
    }

    /// When something was sent that came back with `sent` in it.
    pub fn sent_at(&self, sent: u64) -> Instant {
        self.started + Duration::from_millis(sent)
    }

    /// A call that may change `touches` is about to be sent. Returns its number.
    pub fn begin(&mut self, touches: &Touches) -> u64 {
        self.last_call += 1;
        let touches = bounded(touches);
        self.air.insert(self.last_call, touches.clone());
        self.post(Event::Begin(self.last_call, touches));
        self.last_call
    }

    /// It is over; or nobody knows whether it is.
    pub fn end(&mut self, call: u64, doubt: bool) {
        self.air.remove(&call);
        self.post(Event::End(call, doubt));
    }

    /// Something happened. Never waits; what there is no room for is given up, with all before it.
    pub fn post(&mut self, event: Event) {
        if self.queue.len() >= MAX_QUEUED {
            self.queue.clear();
            self.lost = true;
        }
        self.queue.push(event);
    }

    /// Somebody missed something.
    pub fn asked(&mut self) {
        self.asked = true;
    }

    /// When there is something to send at the latest.
    pub fn due(&self, now: Instant) -> Instant {
        if !self.queue.is_empty() || self.lost {
            return now;
        }
        let beat = self.sent.map_or(now, |sent| sent + HEARTBEAT);
        let tell = self.asked.then(|| self.told.map_or(now, |told| told + TELL_APART));
        tell.map_or(beat, |tell| beat.min(tell))
    }

    /// What is to be sent now, in order; one message at least. A message that is not sent, or not heard, leaves a gap.
    pub fn messages(&mut self, wanted: Wanted, generations: &Generations, now: Instant) -> Vec<Message> {
        if std::mem::take(&mut self.lost) {
            self.number += 1;
        }
        let mut messages = Vec::new();
        let events = std::mem::take(&mut self.queue);
        let mut chunks = events.chunks(MAX_EVENTS).map(<[Event]>::to_vec);
        let first = chunks.next().unwrap_or_default();
        messages.push(Message { wants: wanted.from, events: first, ..Message::default() });
        messages.extend(chunks.map(|events| Message { events, ..Message::default() }));
        let rested = self.told.is_none_or(|told| now >= told + TELL_APART);
        if wanted.bye || self.asked && rested {
            (self.asked, self.told) = (false, Some(now));
            messages.extend(
                self.state(wanted.peers, generations, now)
                    .map(|part| Message { state: Some(part), ..Message::default() }),
            );
        }
        if let Some(last) = messages.last_mut() {
            last.bye = wanted.bye;
        }
        self.sent = Some(now);
        let sent = u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(u64::MAX);
        for message in &mut messages {
            self.number += 1;
            (message.from, message.number, message.sent) = (self.from.clone(), self.number, sent);
        }
        messages
    }

    /// All that is going on, in parts.
    fn state(
        &self,
        peers: Vec<Vouched>,
        generations: &Generations,
        now: Instant,
    ) -> impl Iterator<Item = Part> + use<> {
        let (mut parts, mut part, mut room) = (Vec::new(), Part { first: true, ..Part::default() }, MAX_ENTRIES);
        let mut next = |part: &mut Part, takes: usize| {
            if room < takes && room < MAX_ENTRIES {
                parts.push(std::mem::take(part));
                room = MAX_ENTRIES;
            }
            room = room.saturating_sub(takes);
        };
        for (call, touches) in &self.air {
            next(&mut part, 1);
            part.air.push((*call, touches.clone()));
        }
        for peer in peers {
            // In one piece, because what it says itself may come in between.
            next(&mut part, 1 + peer.air.len());
            part.peers.push(peer);
        }
        for (touch, left) in generations.doubts(now) {
            next(&mut part, 1);
            part.doubts.push((touch, millis(left)));
        }
        for (id, touches, left) in generations.jobs(now) {
            next(&mut part, 1);
            part.jobs.push((id, bounded(&touches), millis(left)));
        }
        part.last = true;
        parts.push(part);
        parts.into_iter()
    }
}
