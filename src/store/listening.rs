//! What others publish.
//!
//! A subscription of its own connection, kept up in the background. Messages that were published while it was down are
//! lost, so whoever listens is told when it is down and when it is back. Silence is no sign: the connection is asked every
//! second whether it is alive.

use std::fmt;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::{Store, StoreError, failed};

/// How often a silent connection is asked whether it is alive.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long a new connection waits after one was lost.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);
/// Messages that may wait to be taken; more, and the subscription begins anew.
const WAITING: usize = 4_096;

/// What happened to a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It stands: what is published from now on is heard. What was published before may not have been.
    Joined,
    /// A message.
    Message(Vec<u8>),
    /// It is down.
    Left,
}

/// A subscription. Dropping it ends it.
pub struct Listening(mpsc::Receiver<Heard>);

impl Listening {
    pub(super) fn start(store: Store, channel: String) -> Self {
        let (tell, heard) = mpsc::channel(WAITING);
        let tasks = store.0.tasks.clone();
        tasks.spawn_background(async move {
            let mut pause = FIRST_PAUSE;
            while !tell.is_closed() {
                let mut joined = false;
                let ended = listen(&store, &channel, &tell, &mut joined).await;
                if joined {
                    pause = FIRST_PAUSE;
                    // A full queue is no reason to lose the news that the subscription is down.
                    if tell.send(Heard::Left).await.is_err() {
                        return;
                    }
                }
                if ended.is_ok() {
                    return;
                }
                tokio::select! {
                    () = tell.closed() => return,
                    () = tokio::time::sleep(pause) => {}
                }
                pause = (pause * 2).min(LAST_PAUSE);
            }
        });
        Self(heard)
    }

    /// What happened next. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Heard {
        match self.0.recv().await {
            Some(heard) => heard,
            // The task ends only with its runtime.
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listening").finish_non_exhaustive()
    }
}

/// One connection's life; `Ok` if nobody listens any more.
async fn listen(store: &Store, channel: &str, tell: &mpsc::Sender<Heard>, joined: &mut bool) -> Result<(), StoreError> {
    let mut connection = store.within(store.0.link.pubsub()).await?;
    store.within(async { connection.subscribe(channel).await.map_err(|error| failed(&error)) }).await?;
    let (mut ask, mut messages) = connection.split();
    if tell.send(Heard::Joined).await.is_err() {
        return Ok(());
    }
    *joined = true;
    loop {
        tokio::select! {
            () = tell.closed() => return Ok(()),
            message = messages.next() => {
                let Some(message) = message else { return Err(StoreError::Unreachable("the connection broke".into())) };
                let heard = Heard::Message(message.get_payload_bytes().to_vec());
                tell.try_send(heard).map_err(|_| StoreError::Refused("messages come faster than they are taken".into()))?;
            }
            () = tokio::time::sleep(ASK_EVERY) => {
                let asked = async { ask.ping::<redis::Value>().await.map_err(|error| failed(&error)) };
                store.within(asked).await?;
            }
        }
    }
}
