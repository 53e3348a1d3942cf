//! What passes between the replicas of one org: the road of [`super::shared`] into and out of one org's changes.

use smol_str::SmolStr;
use tokio::time::Instant;

use super::org::{OrgAnswers, State};
use super::shared::{Event, Message, Order, Outbox, Peers, Wanted};

/// What is told and heard, beside the changes under the same lock.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) outbox: Outbox,
    peers: Peers,
    traffic: Traffic,
}

/// What passed so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Events told.
    pub sent: u64,
    /// Events heard.
    pub received: u64,
    /// How many times messages of another replica were missed, or the connection was made anew.
    pub gaps: u64,
    /// Other replicas that are heard, or were a short while ago.
    pub peers: u64,
}

/// Whether all that others said was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Certainty {
    /// Nobody else changes anything, as far as is configured.
    Alone,
    /// It was.
    Certain,
    /// It may be that it was not, and why.
    Doubt(&'static str),
}

/// What was remarkable about what was heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Messages of this replica were missed.
    Gap(SmolStr),
    /// This replica is presumed dead.
    Dead(SmolStr),
}

impl Shared {
    pub(super) fn new(name: SmolStr, now: Instant) -> Self {
        Self { outbox: Outbox::new(name, now), peers: Peers::default(), traffic: Traffic::default() }
    }
}

impl OrgAnswers {
    /// Whether other replicas are told and heard.
    pub fn is_shared(&self) -> bool {
        self.state.lock().shared.is_some()
    }

    /// Whether something that others changed may not be known here.
    pub fn is_in_doubt(&self, now: Instant) -> bool {
        self.state.lock().generations.is_uncertain(now)
    }

    /// Whether all that others said was heard.
    pub fn certainty(&self, now: Instant) -> Certainty {
        let state = self.state.lock();
        match &state.shared {
            None => Certainty::Alone,
            Some(shared) if state.generations.is_uncertain(now) => {
                Certainty::Doubt(shared.peers.why_uncertain(now).unwrap_or("a replica is not heard"))
            }
            Some(_) => Certainty::Certain,
        }
    }

    /// What passed so far; `None` if there are no other replicas.
    pub fn traffic(&self) -> Option<Traffic> {
        let state = self.state.lock();
        state.shared.as_ref().map(|shared| Traffic { peers: shared.peers.count() as u64, ..shared.traffic })
    }

    /// Returns when there may be something to tell the others; at the latest when there is.
    pub async fn posted(&self) {
        let now = self.clock.now();
        let due = self.state.lock().shared.as_ref().map(|shared| shared.outbox.due(now));
        let Some(due) = due else { return std::future::pending().await };
        tokio::select! {
            () = self.posted.notified() => {}
            () = tokio::time::sleep_until(due) => {}
        }
    }

    /// What to tell the others now, in order, each to be sent as it is; what cannot be sent is to be dropped. With `bye` it
    /// is the last of all.
    pub fn messages(&self, bye: bool) -> Vec<Vec<u8>> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let State { generations, shared: Some(shared), .. } = &mut *state else { return Vec::new() };
        let wanted = Wanted { from: shared.peers.wants(), peers: shared.peers.vouched(), bye };
        let messages = shared.outbox.messages(wanted, generations, now);
        shared.traffic.sent += messages.iter().map(|message| message.events.len() as u64).sum::<u64>();
        drop(state);
        messages.iter().map(Message::write).collect()
    }

    /// The others can be heard from now on; what they said before was missed.
    pub fn joined(&self) {
        self.listen(|shared, state, now| {
            shared.traffic.gaps += 1;
            shared.peers.joined(now, &mut state.generations)
        });
        self.posted.notify_one();
    }

    /// They cannot be heard any more.
    pub fn left(&self) {
        self.listen(|shared, state, now| {
            shared.peers.left(now, &mut state.generations);
            Vec::new()
        });
    }

    /// Somebody, perhaps this replica itself, said this; `None`: something that could not be opened.
    pub fn heard(&self, message: Option<&[u8]>) -> Vec<Heard> {
        let message = message.and_then(Message::read);
        self.listen(|shared, state, now| {
            let generations = &mut state.generations;
            let Some(message) = message else { return shared.peers.unclear(now, generations) };
            let me = shared.outbox.name().clone();
            if message.from == me {
                shared.peers.echo(shared.outbox.sent_at(message.sent), now, generations);
                return Vec::new();
            }
            shared.traffic.received += message.events.len() as u64;
            shared.peers.heard(&me, message, now, generations)
        })
    }

    /// Time has passed.
    pub fn tick(&self) -> Vec<Heard> {
        self.listen(|shared, state, now| shared.peers.tick(now, &mut state.generations))
    }

    /// Changes something by what was heard, and carries out what follows from it.
    fn listen(&self, change: impl FnOnce(&mut Shared, &mut State, Instant) -> Vec<Order>) -> Vec<Heard> {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let Some(mut shared) = state.shared.take() else { return Vec::new() };
        let orders = change(&mut shared, &mut state, now);
        for order in &orders {
            match order {
                Order::Tell => shared.outbox.asked(),
                Order::Gap(_) => shared.traffic.gaps += 1,
                _ => {}
            }
        }
        let wakes = orders.iter().any(|order| matches!(order, Order::Tell | Order::Gap(_)));
        state.shared = Some(shared);
        drop(state);
        if wakes {
            self.posted.notify_one();
        }
        orders.into_iter().filter_map(|order| self.carry_out(order)).collect()
    }

    fn carry_out(&self, order: Order) -> Option<Heard> {
        match order {
            Order::SessionEnded(who, recheck) => self.end_session(who, recheck),
            Order::SessionsEnded => self.end_sessions(),
            Order::Principal(short, true) => {
                self.make_principal_old(&short);
            }
            Order::Principal(short, false) => {
                self.make_principal_soft(&short);
            }
            Order::Tell => {}
            Order::Gap(name) => return Some(Heard::Gap(name)),
            Order::Dead(name) => return Some(Heard::Dead(name)),
        }
        None
    }

    /// Something happened that others must hear of.
    pub(super) fn post(&self, event: impl FnOnce() -> Event) {
        let mut state = self.state.lock();
        if let Some(shared) = &mut state.shared {
            shared.outbox.post(event());
            self.tell(&state);
        }
    }

    /// There may be something to tell the others.
    pub(super) fn tell(&self, state: &State) {
        if state.shared.is_some() {
            self.posted.notify_one();
        }
    }
}
