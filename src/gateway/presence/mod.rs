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
    /// Counts how often somebody came or went.
    changes: watch::Sender<u64>,
    task: Tasks,
}

#[derive(Debug)]
struct State {
    roll: Roll,
    /// Whether the store answered last, if it was asked, and since when that is so.
    up: Option<bool>,
    since: Instant,
}

impl Presence {
    /// Begins to say that this replica, called `name`, is there. Runs inside the control runtime.
    pub fn begin(store: Store, name: &str, clock: Clock, log: Log) -> Self {
        let (stop, _) = watch::channel(false);
        let state = Mutex::new(State { roll: Roll::default(), up: None, since: clock.now() });
        let presence = Self(Arc::new(Inner {
            key: store.key("", "replicas"),
            script: Script::new("presence", include_str!("roll.lua")),
            name: if name.is_empty() { store.replica().to_string() } else { name.to_owned() },
            store,
            clock,
            log,
            state,
            stop,
            changes: watch::Sender::new(0),
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

    /// Whether the store answers, and for how long that has been so.
    pub fn store(&self) -> (bool, Duration) {
        let state = self.0.state.lock();
        (state.up == Some(true), self.0.clock.now().saturating_duration_since(state.since))
    }

    /// This replica, and all others as last read.
    pub fn members(&self) -> Vec<MemberSnapshot> {
        let (me, now) = (self.0.store.replica(), self.0.clock.now());
        let shown = |(member, ago): (&Member, Duration)| MemberSnapshot {
            replica: member.id.clone(),
            name: member.said.name.clone(),
            version: member.said.version.clone(),
            up_seconds: member.said.up_seconds.saturating_add(ago.as_secs()),
            heard_seconds_ago: ago.as_secs_f64(),
            this: *member.id == **me,
        };
        let mut members: Vec<_> = self.0.state.lock().roll.members(now).map(shown).collect();
        if members.iter().all(|member| !member.this) {
            let said = self.said();
            let (name, version, up_seconds) = (said.name, said.version, said.up_seconds);
            let replica = me.to_string();
            members.push(MemberSnapshot { replica, name, version, up_seconds, heard_seconds_ago: 0.0, this: true });
        }
        members
    }

    /// Tells whenever somebody came or went.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
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
            let answer = self.say(&serde_json::to_string(&self.said()).unwrap_or_default()).await;
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

    fn said(&self) -> Said {
        let up_seconds = self.0.clock.uptime(self.0.clock.now()).as_secs();
        Said { name: self.0.name.clone(), version: VERSION.to_owned(), up_seconds }
    }

    fn heard(&self, answer: Result<Vec<Member>, StoreError>) {
        let now = self.0.clock.now();
        let (before, changes, error) = {
            let mut state = self.0.state.lock();
            let before = state.up.replace(answer.is_ok());
            if before != state.up {
                state.since = now;
            }
            match answer {
                Ok(members) => (before, state.roll.read(members, now), None),
                Err(error) => (before, Changes::default(), Some(error.to_string())),
            }
        };
        match &error {
            Some(error) if before != Some(false) => {
                self.0.log.event(Level::Error, "store_lost", &[("error", error.as_str().into())]);
            }
            None if before == Some(false) => self.0.log.event(Level::Info, "store_back", &[]),
            _ => {}
        }
        if changes != Changes::default() {
            self.0.changes.send_modify(|count| *count += 1);
        }
        for (event, members) in [("replica_joined", changes.joined), ("replica_left", changes.left)] {
            for Member { id, said, .. } in members {
                let words = [("replica", id.as_str().into()), ("name", said.name.as_str().into())];
                self.0.log.event(Level::Info, event, &words);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::Redis;
    use crate::store::tests::store;

    fn begin(port: u16, name: &str) -> (Presence, crate::telemetry::Memory) {
        let clock = Clock::start();
        let (log, memory) = Log::in_memory(clock, 1 << 20);
        (Presence::begin(store(port), name, clock, log), memory)
    }

    fn names(presence: &Presence) -> Vec<String> {
        presence.members().into_iter().map(|member| member.name).collect()
    }

    async fn until(what: impl Fn() -> bool) {
        for _ in 0..1_000 {
            if what() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("in vain");
    }

    #[tokio::test]
    async fn replicas_see_each_other_come_and_go() {
        let redis = Redis::start();
        let (first, log) = begin(redis.port(), "one");
        assert!(!first.is_alone() && names(&first) == ["one"], "it knows of nobody yet, but itself");
        until(|| first.is_alone() && first.store().0).await;
        let (second, _) = begin(redis.port(), "two");
        until(|| names(&second) == ["one", "two"]).await;
        until(|| names(&first) == ["one", "two"]).await;
        let shown: Vec<_> = first.members().iter().map(|member| (member.this, member.version == VERSION)).collect();
        assert_eq!(shown, [(true, true), (false, true)]);
        second.goodbye().await;
        until(|| first.is_alone()).await;
        for event in ["replica_joined", "replica_left"] {
            until(|| log.text().contains(&format!("\"event\":\"{event}\""))).await;
        }
    }

    #[tokio::test]
    async fn who_is_silent_is_forgotten_and_strange_entries_hurt_nobody() {
        let redis = Redis::start();
        let store = store(redis.port());
        let (key, script) = (store.key("", "replicas"), Script::new("presence", include_str!("roll.lua")));
        let say = async |who: &str, said: &str, gone: &str, most: &str| {
            let arguments: [&[u8]; 4] = [who.as_bytes(), said.as_bytes(), gone.as_bytes(), most.as_bytes()];
            let found = members(&store.run(&script, &[&key], &arguments).await.unwrap());
            found.into_iter().map(|member| member.id).collect::<Vec<_>>()
        };
        let said = r#"{"name":"x","version":"1","up_seconds":1}"#;
        redis.command(&format!("HSET {key} strange nonsense"));
        redis.command(&format!("HSET {key} ahead 99999999999999"));
        assert_eq!(say("a", said, "200", "2").await, ["a"]);
        assert_eq!(redis.command(&format!("HLEN {key}")).trim(), ":1", "what cannot be read is swept away");
        assert_eq!(say("b", said, "200", "2").await, ["a", "b"]);
        assert_eq!(say("c", said, "200", "2").await, ["a", "b"], "there are as many as may be");
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(say("c", said, "200", "2").await, ["c"]);
        assert_eq!(say("c", "", "200", "2").await, Vec::<String>::new());
        assert_eq!(redis.command(&format!("EXISTS {key}")).trim(), ":0");
    }

    #[tokio::test]
    async fn without_a_store_it_says_since_when_and_takes_itself_for_alone_only_if_it_was() {
        let mut redis = Redis::start();
        let (known, log) = begin(redis.port(), "known");
        until(|| known.is_alone()).await;
        redis.kill();
        until(|| !known.store().0).await;
        assert!(known.is_alone() && names(&known) == ["known"]);
        let (newcomer, _) = begin(redis.port(), "newcomer");
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!newcomer.is_alone() && !newcomer.store().0 && names(&newcomer) == ["newcomer"]);
        redis.restart_empty();
        until(|| names(&known) == ["known", "newcomer"]).await;
        assert!(known.store().0 && !known.is_alone());
        for event in ["store_lost", "store_back"] {
            assert_eq!(log.text().matches(&format!("\"event\":\"{event}\"")).count(), 1, "{}", log.text());
        }
    }
}
