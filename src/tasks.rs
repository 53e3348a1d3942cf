//! The only place that spawns.
//!
//! Everything that outlives a request runs in a [`Tasks`]: it is counted, and a drain waits for it.

#![expect(clippy::disallowed_methods, reason = "this module is what the ban points to")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, Semaphore};

/// Works of one runtime that go on at the same time on threads of their own.
const WORKS: usize = 2;

/// The tracked tasks of one runtime. Cloning is one reference count.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    running: AtomicUsize,
    idle: Notify,
    works: Semaphore,
}

impl Default for Shared {
    fn default() -> Self {
        Self { running: AtomicUsize::new(0), idle: Notify::new(), works: Semaphore::new(WORKS) }
    }
}

/// Counts one running task; the count falls when it is dropped, also by a panic or an abort.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        if self.0.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` on the current runtime to its end. [`Self::idle`] waits for it.
    pub fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.shared.running.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(&self.shared));
        tokio::spawn(async move {
            let _running = running;
            future.await;
        })
    }

    /// Runs `future` on the current runtime without a drain waiting for it: for loops that end with the process,
    /// and for connections to Salesforce, which are dropped once nobody uses them.
    pub fn spawn_background<F>(&self, future: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(future)
    }

    /// Runs `work`, which takes the processor for long, on another thread; it waits for its turn, for others may do so too.
    /// `None` if it panicked.
    pub async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _turn = self.shared.works.acquire().await.ok()?;
        tokio::task::spawn_blocking(work).await.ok()
    }

    /// How many tracked tasks are running.
    pub fn running(&self) -> usize {
        self.shared.running.load(Ordering::Acquire)
    }

    /// Returns once no tracked task is running.
    pub async fn idle(&self) {
        loop {
            let notified = self.shared.idle.notified();
            if self.running() == 0 {
                return;
            }
            notified.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_waits_for_the_last_task_even_if_it_panics() {
        let tasks = Tasks::new();
        let (open, gate) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn(async move {
            let _ = gate.await;
        });
        let panicking = tasks.spawn(async { panic!("meant to") });
        assert!(panicking.await.is_err());
        assert_eq!(tasks.running(), 1);
        let _ = open.send(());
        tasks.idle().await;
        assert_eq!(tasks.running(), 0);
    }

    #[tokio::test]
    async fn work_is_done_on_another_thread_and_a_panic_stays_there() {
        let tasks = Tasks::new();
        let here = std::thread::current().id();
        assert_eq!(tasks.work(move || std::thread::current().id() != here).await, Some(true));
        for _ in 0..2 * WORKS {
            assert_eq!(tasks.work(|| -> u8 { panic!("meant to") }).await, None);
        }
        assert_eq!(tasks.work(|| 7).await, Some(7), "its turn was given back");
    }
}
