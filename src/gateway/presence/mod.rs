//! Which replicas there are: each says every few seconds that it is there, and learns at the same time of the others.
//!
//! Nothing depends on it but what people see, and whether a replica that cannot reach the store may take itself for the only
//! one. It is one command each time.

mod roll;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use self::roll::{Changes, MOST, Member, Roll, Said, members};
use crate::clock::Clock;
use crate::store::{Script, Store, StoreError};
use crate::tasks::Tasks;
use crate::telemetry::{Level, Log, MemberSnapshot, VERSION};

/// How often a replica says that it is there.
const EVERY: Duration = Duration::from_secs(3);
/// Who was silent for so long is gone.
const GONE: Duration = Duration::from_secs(10);
/// How long the last word may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// One replica's part in it, and what it knows of the others. Cloning is one reference count.
#[derive(Debug, Clone)]
pub struct Presence(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    key: String,
    script: Script,
    name: String,
    clock: Clock,
    log: Log,
    state: Mutex<State>,
    stop: watch::Sender<bool>,
    task: Tasks,
}

#[derive(Debug)]
struct State {
    roll: Roll,
    /// Whether the store answered last, and since when.
    up: bool,
    since: Instant,
}

impl Presence {
    /// Begins to say that this replica, called `name`, is there. Runs inside the control runtime.
    pub fn begin(store: Store, name: &str, clock: Clock, log: Log) -> Self {
        let (stop, _) = watch::channel(false);
        let state = Mutex::new(State { roll: Roll::default(), up: store.is_up(), since: clock.now() });
        let presence = Self(Arc::new(Inner {
            key: store.key("", "replicas"),
            script: Script::new("presence", include_str!("roll.lua")),
            name: if name.is_empty() { store.replica().to_string() } else { name.to_owned() },
            store,
            clock,
            log,
            state,
            stop,
            task: Tasks::new(),
        }));
        let own = presence.clone();
        presence.0.task.spawn(async move { own.keep().await });
        presence
    }

    /// Whether this replica has read the roll, and was alone on it. One that was started without the store does not know.
    pub fn is_alone(&self) -> bool {
        self.0.state.lock().roll.count() == 1
    }

    /// Whether the store can be reached, and since when that is so.
    pub fn store(&self) -> (bool, Instant) {
        let state = self.0.state.lock();
        (state.up, state.since)
    }

    /// All replicas, as last read.
    pub fn members(&self) -> Vec<MemberSnapshot> {
        let (me, now) = (self.0.store.replica(), self.0.clock.now());
        let state = self.0.state.lock();
        let shown = |(member, ago): (&Member, Duration)| MemberSnapshot {
            replica: member.id.clone(),
            name: member.said.name.clone(),
            version: member.said.version.clone(),
            up_seconds: member.said.up_seconds.saturating_add(ago.as_secs()),
            heard_seconds_ago: ago.as_secs_f64(),
            this: *member.id == **me,
        };
        state.roll.members(now).map(shown).collect()
    }

    /// This replica's name, for people.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Says goodbye, so that the others need not wait to see that this replica is gone.
    pub async fn goodbye(&self) {
        self.0.stop.send_replace(true);
        self.0.task.idle().await;
    }

    async fn keep(self) {
        let mut stop = self.0.stop.subscribe();
        loop {
            let answer = self.say(&self.said()).await;
            self.heard(answer);
            // The sender lives as long as this.
            if tokio::time::timeout(EVERY, stop.wait_for(|stop| *stop)).await.is_ok() {
                break;
            }
        }
        // Without it the others see for themselves, a little later.
        let _ = tokio::time::timeout(GOODBYE, self.say("")).await;
    }

    async fn say(&self, said: &str) -> Result<Vec<Member>, StoreError> {
        let (me, gone, most) = (self.0.store.replica(), GONE.as_millis().to_string(), MOST.to_string());
        let arguments: [&[u8]; 4] = [me.as_bytes(), said.as_bytes(), gone.as_bytes(), most.as_bytes()];
        Ok(members(&self.0.store.run(&self.0.script, &[&self.0.key], &arguments).await?))
    }

    fn said(&self) -> String {
        let up_seconds = self.0.clock.uptime(self.0.clock.now()).as_secs();
        let said = Said { name: self.0.name.clone(), version: VERSION.to_owned(), up_seconds };
        serde_json::to_string(&said).unwrap_or_default()
    }

    fn heard(&self, answer: Result<Vec<Member>, StoreError>) {
        let now = self.0.clock.now();
        let changes = {
            let mut state = self.0.state.lock();
            if state.up != answer.is_ok() {
                (state.up, state.since) = (answer.is_ok(), now);
            }
            match answer {
                Ok(members) => state.roll.read(members, now),
                Err(_) => Changes::default(),
            }
        };
        for (event, members) in [("replica_joined", changes.joined), ("replica_left", changes.left)] {
            for Member { id, said, .. } in members {
                let words = [("replica", id.as_str().into()), ("name", said.name.as_str().into())];
                self.0.log.event(Level::Info, event, &words);
            }
        }
    }
}
