//! Shares every org's slots with the other replicas: one loop for each limit of an org, which exchanges the table of who has
//! how many with the store. No call waits for it but one that waits for a slot anyway.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::watch;

use crate::admission::slots::{Sight, Slots, Unusable};
use crate::clock::Clock;
use crate::config::SharedLoss;
use crate::live::{InForce, Live};
use crate::store::{Store, StoreError, Swap};
use crate::tasks::Tasks;
use crate::telemetry::{Level, Log};

/// How often a replica is heard of while long calls are in the air or wait: so soon it learns that others want more.
const BUSY: Duration = Duration::from_secs(1);
/// And while there are none.
const IDLE: Duration = Duration::from_millis(2_500);
/// Two exchanges are never closer than this.
const GAP: Duration = Duration::from_millis(500);
/// How often it tries again if another replica was first.
const ATTEMPTS: usize = 5;
/// The table is kept for longer than anything in it counts.
const KEEP: Duration = Duration::from_hours(2);
/// How soon an org of a new configuration is noticed.
const NOTICE: Duration = Duration::from_secs(1);
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_secs(3);

/// One of the limits of an org that replicas share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Limit {
    LongCalls,
    Apex,
}

impl Limit {
    const ALL: [Self; 2] = [Self::LongCalls, Self::Apex];

    /// What the key of its table and its events call it.
    fn as_str(self) -> &'static str {
        match self {
            Self::LongCalls => "slots",
            Self::Apex => "apex-slots",
        }
    }

    fn of(self, live: &Live, org: &str) -> Option<Slots> {
        let org = live.orgs().iter().find(|known| known.name == *org).filter(|org| org.watches)?;
        match self {
            Self::LongCalls => Some(org.slots.clone()),
            Self::Apex => org.apex.clone(),
        }
    }
}

/// Shares the slots of all orgs. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    clock: Clock,
    log: Log,
    on_loss: SharedLoss,
    loops: Tasks,
    stop: watch::Sender<bool>,
}

/// Why there was no exchange.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Unusable(#[from] Unusable),
}

impl Places {
    /// Nothing is shared yet.
    pub fn new(store: Store, on_loss: SharedLoss, clock: Clock, log: Log) -> Self {
        let (stop, _) = watch::channel(false);
        Self(Arc::new(Inner { store, clock, log, on_loss, loops: Tasks::new(), stop }))
    }

    /// From now on the orgs of `live` use only slots that are granted to this replica. To be called before it is in force.
    pub fn adopt(&self, live: &Live) {
        for org in live.orgs() {
            for slots in std::iter::once(&org.slots).chain(&org.apex) {
                slots.share(self.0.store.replica());
            }
        }
    }

    /// Keeps up the sharing for all orgs that are in force, until [`Self::leave`].
    pub fn keep(&self, in_force: InForce, tasks: &Tasks) {
        let places = self.clone();
        tasks.spawn_background(async move {
            let kept: Arc<Mutex<HashSet<(SmolStr, Limit)>>> = Arc::default();
            while !*places.0.stop.borrow() {
                let live = in_force.load_full();
                for (org, limit) in live.orgs().iter().flat_map(|org| Limit::ALL.map(|limit| (org.name.clone(), limit)))
                {
                    if limit.of(&live, &org).is_none() || !kept.lock().insert((org.clone(), limit)) {
                        continue;
                    }
                    let (inner, in_force, kept) = (Arc::clone(&places.0), Arc::clone(&in_force), Arc::clone(&kept));
                    places.0.loops.spawn(async move {
                        inner.share(&org, limit, &in_force).await;
                        kept.lock().remove(&(org, limit));
                    });
                }
                drop(live);
                tokio::time::sleep(NOTICE).await;
            }
        });
    }

    /// Gives back what this replica has, but for what its calls take that may be in the air.
    pub async fn leave(&self) {
        self.0.stop.send_replace(true);
        // What cannot be said now is learnt from silence.
        let _ = tokio::time::timeout(GOODBYE, self.0.loops.idle()).await;
    }
}

impl Inner {
    async fn share(&self, org: &SmolStr, limit: Limit, in_force: &InForce) {
        let key = self.store.key(org, limit.as_str());
        let mut stop = self.stop.subscribe();
        let mut said = Said::default();
        let mut last: Option<Slots> = None;
        loop {
            let slots = limit.of(&in_force.load(), org);
            let (Some(slots), false) = (slots, *stop.borrow()) else {
                if let Some(last) = last {
                    let _ = self.exchange(&key, &last, true).await;
                }
                return;
            };
            last = Some(slots.clone());
            let result = self.exchange(&key, &slots, false).await;
            if let Err(Trouble::Store(_)) = result {
                slots.unshared(self.on_loss == SharedLoss::Refuse);
            }
            let sharing = slots.sharing();
            said.say(&self.log, org, limit, &result, sharing.settling);
            let rest = if sharing.busy { BUSY } else { IDLE }.saturating_sub(GAP);
            let next = async {
                tokio::time::sleep(GAP).await;
                // Whether it was news or time does not matter.
                let _ = tokio::time::timeout(rest, slots.news()).await;
            };
            tokio::select! {
                _ = stop.changed() => {}
                () = next => {}
            }
        }
    }

    /// Says what this replica has and wants, and takes what follows.
    async fn exchange(&self, key: &str, slots: &Slots, goodbye: bool) -> Result<(), Trouble> {
        let clock = self.clock;
        let mut asked = clock.now();
        let mut seen = self.store.look(key).await?;
        for _ in 0..ATTEMPTS {
            let sight =
                Sight { value: seen.value.as_deref(), version: seen.version, now: seen.now, run: seen.run, asked };
            let offer = if goodbye { slots.farewell(&sight, clock.now()) } else { slots.offer(&sight, clock.now()) };
            let Some(offer) = offer.transpose()? else { return Ok(()) };
            asked = clock.now();
            match self.store.swap(key, &seen, &offer.value, KEEP).await? {
                Swap::Done(done) => {
                    slots.confirm(&offer, done.version, clock.now());
                    return Ok(());
                }
                Swap::Lost(there) => seen = there,
            }
        }
        Ok(())
    }
}

/// What the log was told last.
#[derive(Debug, Default)]
struct Said {
    in_vain: bool,
    settling: bool,
}

impl Said {
    fn say(&mut self, log: &Log, org: &str, limit: Limit, result: &Result<(), Trouble>, settling: bool) {
        let event = |level, name, error: &str| {
            let facts = [("org", org.into()), ("limit", limit.as_str().into()), ("error", error.into())];
            log.event(level, name, if error.is_empty() { facts.get(..2).unwrap_or_default() } else { &facts });
        };
        let in_vain = result.is_err();
        if std::mem::replace(&mut self.in_vain, in_vain) != in_vain {
            match result {
                Err(error) => event(Level::Warn, "slots_unshared", &error.to_string()),
                Ok(()) => event(Level::Info, "slots_shared", ""),
            }
        }
        if std::mem::replace(&mut self.settling, settling) != settling {
            event(Level::Info, if settling { "slots_settling" } else { "slots_settled" }, "");
        }
    }
}
