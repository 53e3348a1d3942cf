//! Replicas tell each other what they change: one channel of the store for each org.
//!
//! Two tasks for each org. One tells what happened here as soon as it happens, and collects what happens within
//! [`APART`]; so one replica publishes at most fifty times a second for one org, and hardly more than once a second where
//! nothing happens. The other hears what is told, its own messages too. What that means for kept answers is decided in
//! [`crate::answers`]; no request waits for any of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use zeroize::Zeroizing;

use crate::answers::{Certainty, Heard, OrgAnswers};
use crate::clock::Clock;
use crate::config::Secret;
use crate::live::InForce;
use crate::seal::{NoSeal, Seal};
use crate::store::{self, Listening, Store};
use crate::tasks::Tasks;
use crate::telemetry::{Level, Log};

/// What happens within this time is told together.
const APART: Duration = Duration::from_millis(20);
/// How soon a silence, a new org or one that is no more is noticed.
const TICK: Duration = Duration::from_millis(250);
/// How long the last messages may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Longest message that is looked at.
const LONGEST: usize = 16 * 1_024 * 1_024;

/// What telling and hearing need.
#[derive(Debug)]
pub struct Parts {
    /// Over which it goes.
    pub store: Store,
    /// The secrets that all replicas have.
    pub secrets: Vec<Secret>,
    /// Of which orgs.
    pub in_force: InForce,
    /// What time it is.
    pub clock: Clock,
    /// Who is told when nothing is certain.
    pub log: Log,
}

/// The telling and hearing of all orgs. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Generations(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    /// The orgs of which it goes on, by their numbers.
    known: Mutex<HashSet<u32>>,
    stop: watch::Sender<bool>,
    tellers: Tasks,
}

/// Tells and hears of every org of which answers are kept, for as long as the process lives.
pub fn keep(parts: Parts, tasks: &Tasks) -> Result<Generations, NoSeal> {
    // What cannot be sealed cannot be told, and that is to stop the start.
    parts.seal()?;
    let (stop, _) = watch::channel(false);
    let generations = Generations(Arc::new(Inner { parts, known: Mutex::default(), stop, tellers: Tasks::new() }));
    let (kept, own) = (generations.clone(), tasks.clone());
    tasks.spawn_background(async move {
        loop {
            kept.begin(&own);
            tokio::time::sleep(TICK).await;
        }
    });
    Ok(generations)
}

impl Generations {
    /// Takes leave of the others. What is in the air now is in doubt for them.
    pub async fn close(&self) {
        self.0.stop.send_replace(true);
        // Without the store there is nobody to take leave of.
        let _ = tokio::time::timeout(LAST_WORDS, self.0.tellers.idle()).await;
    }

    /// Begins with the orgs of which it does not go on yet.
    fn begin(&self, tasks: &Tasks) {
        let live = self.0.parts.in_force.load();
        if live.cache.is_none() {
            return;
        }
        for org in live.orgs().iter().filter(|org| org.answers.is_shared()) {
            if !self.0.known.lock().insert(org.answers.number()) {
                continue;
            }
            let channel = self.0.parts.store.key(&org.name, "generations");
            let Ok(seal) = self.0.parts.seal() else { continue };
            let road = Arc::new(Road { name: org.name.clone(), org: Arc::clone(&org.answers), channel, seal });
            let (end, ended) = watch::channel(false);
            self.0.tellers.spawn(tell(Arc::clone(&road), self.0.parts.store.clone(), self.ended(ended)));
            let kept = self.clone();
            tasks.spawn_background(async move {
                kept.hear(&road).await;
                kept.0.known.lock().remove(&road.org.number());
                end.send_replace(true);
            });
        }
    }

    /// Resolves when the process stops, or the org is no more.
    fn ended(&self, mut ended: watch::Receiver<bool>) -> impl Future<Output = ()> + Send + 'static {
        let mut stop = self.0.stop.subscribe();
        async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                _ = ended.wait_for(|ended| *ended) => {}
            }
        }
    }

    /// Hears what is told of one org, until nothing is kept of it any more.
    async fn hear(&self, road: &Road) {
        let Parts { store, in_force, clock, log, .. } = &self.0.parts;
        let mut listening: Listening = store.listen(&road.channel);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut doubt = Doubt::default();
        loop {
            let remarkable = tokio::select! {
                heard = listening.next() => match heard {
                    store::Heard::Joined => {
                        road.org.joined();
                        Vec::new()
                    }
                    store::Heard::Left => {
                        road.org.left();
                        Vec::new()
                    }
                    store::Heard::Message(sealed) => road.org.heard(road.open(&sealed).as_ref().map(|plain| plain.as_slice())),
                },
                _ = tick.tick() => {
                    let live = in_force.load();
                    let kept = |number| live.orgs().iter().any(|org| org.answers.number() == number);
                    if live.cache.is_none() || !kept(road.org.number()) {
                        road.org.left();
                        return;
                    }
                    road.org.tick()
                }
            };
            for what in remarkable {
                let (event, replica) = match what {
                    Heard::Gap(replica) => ("generations_missed", replica),
                    Heard::Dead(replica) => ("replica_presumed_dead", replica),
                };
                let members = [("org", road.name.as_str().into()), ("replica", replica.as_str().into())];
                log.event(Level::Warn, event, &members);
            }
            let now = clock.now();
            doubt.tell(road.org.certainty(now), now, &road.name, log);
        }
    }
}

impl Parts {
    fn seal(&self) -> Result<Seal, NoSeal> {
        Seal::new(self.secrets.iter().map(|secret| secret.expose().as_bytes()), b"generations")
    }
}

/// The way between one org's changes and its channel.
#[derive(Debug)]
struct Road {
    name: SmolStr,
    org: Arc<OrgAnswers>,
    channel: String,
    seal: Seal,
}

impl Road {
    /// What was said on this channel by who has the secret; nothing of a message longer than any is.
    fn open(&self, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let sealed = Some(sealed).filter(|sealed| sealed.len() <= LONGEST)?;
        self.seal.open(self.channel.as_bytes(), sealed)
    }

    /// Publishes what there is to tell. A message that fails is given up: the others see that it is missing.
    async fn publish(&self, store: &Store, bye: bool) {
        for message in self.org.messages(bye) {
            let Ok(sealed) = self.seal.seal(self.channel.as_bytes(), message.into()) else { return };
            if store.publish(&self.channel, &sealed).await.is_err() {
                return;
            }
        }
    }
}

/// Tells what happens to one org, until `ended`; then takes leave.
async fn tell(road: Arc<Road>, store: Store, ended: impl Future<Output = ()>) {
    let mut ended = std::pin::pin!(ended);
    loop {
        tokio::select! {
            () = &mut ended => break,
            () = road.org.posted() => {}
        }
        road.publish(&store, false).await;
        tokio::time::sleep(APART).await;
    }
    road.publish(&store, true).await;
}

/// Since when nothing is certain, and why.
#[derive(Debug, Default)]
struct Doubt(Option<(&'static str, Instant)>);

impl Doubt {
    /// Says when doubt begins, when its reason changes, and when it is over.
    fn tell(&mut self, certainty: Certainty, now: Instant, org: &str, log: &Log) {
        match (certainty, self.0) {
            (Certainty::Doubt(why), known) if known.is_none_or(|(before, _)| before != why) => {
                self.0 = Some((why, known.map_or(now, |(_, since)| since)));
                log.event(Level::Warn, "generations_doubt", &[("org", org.into()), ("why", why.into())]);
            }
            (Certainty::Alone | Certainty::Certain, Some((_, since))) => {
                self.0 = None;
                let lasted = now.saturating_duration_since(since).as_millis();
                let lasted = u64::try_from(lasted).unwrap_or(u64::MAX);
                let members = [("org", org.into()), ("after_milliseconds", lasted.into())];
                log.event(Level::Info, "generations_certain", &members);
            }
            _ => {}
        }
    }
}
