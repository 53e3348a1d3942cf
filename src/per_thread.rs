//! One handle for each thread, so that threads that clone it do not take its reference count from each other.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Handles; with more threads, some share one.
const HANDLES: usize = 16;

static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % HANDLES;
}

/// Handles of one thing, of which each thread sees its own.
pub struct PerThread<T>([T; HANDLES]);

impl<T> PerThread<T> {
    /// As many handles as are needed; `handle` has to make one that shares no count with the others.
    pub fn of(handle: impl Fn() -> T) -> Self {
        Self(std::array::from_fn(|_| handle()))
    }
}

impl<T> Deref for PerThread<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0[MINE.with(|mine| *mine)]
    }
}

impl<T: fmt::Debug> fmt::Debug for PerThread<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.deref().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_thread_keeps_its_handle_and_others_have_others() {
        let handles = PerThread::of(|| Arc::new(()));
        let mine = || Arc::as_ptr(&handles) as usize;
        assert_eq!(mine(), mine());
        let others = (0..8).map(|_| std::thread::scope(|scope| scope.spawn(mine).join().ok()));
        assert!(others.collect::<std::collections::HashSet<_>>().len() > 1);
    }
}
