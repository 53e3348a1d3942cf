//! The only place of the simulator that spawns: its tasks are counted, so that a test can wait for the last one.

#![expect(clippy::disallowed_methods, reason = "this module is what the ban points to, for the simulator")]

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Tracked tasks. Cloning is one reference count.
#[derive(Debug, Clone, Default)]
pub(super) struct Tasks {
    running: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Tasks {
    /// Runs `future` on the current runtime.
    pub(super) fn spawn<F>(&self, future: F) -> tokio::task::JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.running.fetch_add(1, Ordering::AcqRel);
        let running = Running(Arc::clone(&self.running));
        tokio::spawn(async move {
            let _running = running;
            future.await;
        })
    }

    /// How many tasks are running.
    pub(super) fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ended_tasks_are_not_counted() {
        let tasks = Tasks::default();
        let handle = tasks.spawn(async {});
        assert_eq!(tasks.running(), 1);
        handle.await.unwrap();
        assert_eq!(tasks.running(), 0);
    }
}
