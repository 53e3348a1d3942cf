//! The signal that a runtime shall finish what it has and take nothing new.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Set once, never unset. Cloning is one reference count.
#[derive(Debug, Clone, Default)]
pub struct Drain(Arc<Signal>);

#[derive(Debug, Default)]
struct Signal {
    begun: AtomicBool,
    notify: Arc<Notify>,
}

impl Drain {
    /// A signal that has not been given.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives the signal.
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }

    /// Whether the signal was given.
    pub fn begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Returns once the signal was given.
    pub async fn wait(&self) {
        let notified = self.0.notify.notified();
        if !self.begun() {
            notified.await;
        }
    }

    /// A future that is woken by the signal. Check [`Self::begun`] after making it: a signal given before is not seen.
    pub fn listen(&self) -> OwnedNotified {
        Arc::clone(&self.0.notify).notified_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_is_seen_by_those_before_and_after_it() {
        let drain = Drain::new();
        let early = drain.clone();
        let waiting = async move { early.wait().await };
        let giving = async {
            tokio::task::yield_now().await;
            drain.begin();
        };
        tokio::join!(waiting, giving);
        assert!(drain.begun());
        drain.wait().await;
    }
}
