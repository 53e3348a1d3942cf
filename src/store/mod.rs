//! The store that several replicas share: Redis or Valkey, single, behind Sentinels, or a Cluster.
//!
//! It is asked in the background only. Every exchange is bounded in time, and a failure is an answer like any other: who
//! asks decides what it means. A connection that failed is made anew at the next question, though not more often than
//! every tenth of a second to every two seconds. All keys of one org have the same hash tag, so that a Cluster keeps them
//! together and one script may use several of them.
//!
//! | file | what it does |
//! |---|---|
//! | `link` | connections: how they are made, when they are given up |
//! | `cell` | one value that is replaced only by who knows what it replaces |
//! | `listening` | what others publish |

mod cell;
mod link;
mod listening;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol_str::SmolStr;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::config;
use crate::tasks::Tasks;

pub use cell::{Seen, Swap};
pub use listening::{Heard, Listening};

use link::{Address, Link};

/// The store of one process. Cloning is one reference count.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    link: Link,
    replica: Arc<str>,
    prefix: SmolStr,
    timeout: Duration,
    tasks: Tasks,
    up: watch::Sender<bool>,
    counts: Mutex<BTreeMap<SmolStr, Counts>>,
}

/// Exchanges for one purpose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that were answered.
    pub answered: u64,
    /// Those that failed.
    pub failed: u64,
}

/// Why the store gave no answer. It names no key and no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It could not be reached, or the connection broke: what was asked may have been done.
    #[error("the store cannot be reached: {0}")]
    Unreachable(Box<str>),
    /// It did not answer in time: what was asked may have been done.
    #[error("the store did not answer in time")]
    Late,
    /// It refused.
    #[error("the store refused: {0}")]
    Refused(Box<str>),
    /// Its answer makes no sense.
    #[error("the store's answer makes no sense")]
    Garbage,
}

/// Why no store can be used at all.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A certificate or key cannot be read.
    #[error("{path}: {why}")]
    File {
        /// The file.
        path: Box<str>,
        /// What is wrong with it.
        why: String,
    },
    /// The address or its certificates are no good.
    #[error("{0}")]
    Client(Box<str>),
    /// The system gave no random number.
    #[error("no random number")]
    Random,
}

/// What the store answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing there.
    Nil,
    /// A number.
    Int(i64),
    /// A text.
    Bytes(Vec<u8>),
    /// Several answers.
    Many(Vec<Value>),
}

impl Value {
    /// The number it is, or that its text says.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            Self::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            Self::Nil | Self::Many(_) => None,
        }
    }

    /// The text it is.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(text) => Some(text),
            _ => None,
        }
    }

    /// The answers it is made of.
    pub fn many(&self) -> Option<&[Value]> {
        match self {
            Self::Many(values) => Some(values),
            _ => None,
        }
    }
}

/// A script that the store runs as one step.
pub struct Script {
    purpose: &'static str,
    script: redis::Script,
}

impl Script {
    /// The script `code`; what it is for names it in metrics.
    pub fn new(purpose: &'static str, code: &str) -> Self {
        Self { purpose, script: redis::Script::new(code) }
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Script").field(&self.purpose).finish()
    }
}

impl Store {
    /// The store that `settings` name. It is not connected yet: the first question does that. Runs inside a runtime.
    pub fn open(settings: &config::Redis, clock: Clock, tasks: &Tasks) -> Result<Self, Unusable> {
        let mut id = [0; 8];
        aws_lc_rs::rand::fill(&mut id).map_err(|_| Unusable::Random)?;
        let replica = format!("{:016x}", u64::from_be_bytes(id)).into();
        let link = Link::new(Address::of(settings)?, clock, settings.timeout);
        let (up, _) = watch::channel(false);
        Ok(Self(Arc::new(Inner {
            link,
            replica,
            prefix: settings.prefix.clone(),
            timeout: settings.timeout,
            tasks: tasks.clone(),
            up,
            counts: Mutex::default(),
        })))
    }

    /// What tells this process from the other replicas: made up anew at each start.
    pub fn replica(&self) -> &Arc<str> {
        &self.0.replica
    }

    /// The name of the key for `what` of `org`.
    pub fn key(&self, org: &str, what: &str) -> String {
        format!("{{{}:{org}}}:{what}", self.0.prefix)
    }

    /// Whether the last exchange went well.
    pub fn is_up(&self) -> bool {
        *self.0.up.borrow()
    }

    /// Tells when [`Self::is_up`] changes.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.0.up.subscribe()
    }

    /// How many exchanges there were, by what they were for.
    pub fn counts(&self) -> Vec<(SmolStr, Counts)> {
        self.0.counts.lock().iter().map(|(purpose, counts)| (purpose.clone(), *counts)).collect()
    }

    /// Runs a script. If it failed, nobody knows whether it ran, unless it was refused.
    pub async fn run(&self, script: &Script, keys: &[&str], args: &[&[u8]]) -> Result<Value, StoreError> {
        let mut call = script.script.prepare_invoke();
        for key in keys {
            call.key(*key);
        }
        for arg in args {
            call.arg(*arg);
        }
        self.ask(script.purpose, async |connection| call.invoke_async::<redis::Value>(connection).await).await
    }

    /// Tells all who listen to `channel`.
    pub async fn publish(&self, channel: &str, message: &[u8]) -> Result<(), StoreError> {
        let mut command = redis::cmd("PUBLISH");
        command.arg(channel).arg(message);
        self.ask("publish", async |connection| command.query_async::<redis::Value>(connection).await).await.map(|_| ())
    }

    /// Listens to `channel` from now on, in the background, until the answer is dropped.
    pub fn listen(&self, channel: &str) -> Listening {
        Listening::start(self.clone(), channel.to_owned())
    }

    async fn ask(
        &self,
        purpose: &str,
        question: impl AsyncFnOnce(&mut link::Connection) -> redis::RedisResult<redis::Value>,
    ) -> Result<Value, StoreError> {
        let answer = match self.within(self.0.link.connection()).await {
            Ok((mut connection, number)) => {
                let answer =
                    self.within(async { question(&mut connection).await.map_err(|error| failed(&error)) }).await;
                // What did not answer in time may never do so: a connection to a host that is gone looks like one that waits.
                if matches!(answer, Err(StoreError::Unreachable(_) | StoreError::Late)) {
                    self.0.link.give_up(number);
                }
                answer.and_then(|value| understood(value).ok_or(StoreError::Garbage))
            }
            Err(error) => Err(error),
        };
        let well = !matches!(answer, Err(StoreError::Unreachable(_) | StoreError::Late));
        self.0.up.send_if_modified(|up| std::mem::replace(up, well) != well);
        let mut counts = self.0.counts.lock();
        let counts = counts.entry(SmolStr::new(purpose)).or_default();
        match answer {
            Ok(_) => counts.answered += 1,
            Err(_) => counts.failed += 1,
        }
        answer
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(self.0.timeout, work).await.unwrap_or(Err(StoreError::Late))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("replica", &self.0.replica).field("up", &self.is_up()).finish_non_exhaustive()
    }
}

/// Errors of the client repeat neither keys nor values; those of a server begin with a word in capitals.
fn failed(error: &redis::RedisError) -> StoreError {
    use redis::{ErrorKind, ServerErrorKind};
    match error.kind() {
        // A node that lost its place, or has not found it yet: another connection leads to the right one.
        ErrorKind::Server(
            ServerErrorKind::ReadOnly
            | ServerErrorKind::MasterDown
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::TryAgain,
        ) => StoreError::Unreachable(error.code().unwrap_or("no primary").into()),
        ErrorKind::Server(_) | ErrorKind::Extension => StoreError::Refused(
            format!("{} {}", error.code().unwrap_or("ERR"), error.detail().unwrap_or_default()).into(),
        ),
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => StoreError::Garbage,
        _ => StoreError::Unreachable(error.to_string().into()),
    }
}

fn understood(value: redis::Value) -> Option<Value> {
    use redis::Value as Said;
    Some(match value {
        Said::Nil => Value::Nil,
        Said::Int(number) => Value::Int(number),
        Said::BulkString(text) => Value::Bytes(text),
        Said::SimpleString(text) => Value::Bytes(text.into_bytes()),
        Said::Okay => Value::Bytes(b"OK".to_vec()),
        Said::Boolean(truth) => Value::Int(truth.into()),
        Said::Array(values) | Said::Set(values) => {
            Value::Many(values.into_iter().map(understood).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}
