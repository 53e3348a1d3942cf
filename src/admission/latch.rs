//! A lock for work of some dozen nanoseconds that several threads ask for.
//!
//! What is guarded travels from core to core with whoever works on it, which takes longer than the work; and whoever looks
//! whether the lock is free takes its cache line from the holder, who then has to wait for it. So a thread that finds it
//! taken looks again soon, and then more and more rarely, before it lets the operating system wait.

use std::hint::spin_loop;

use parking_lot::{Mutex, MutexGuard};

/// Something that shares no cache line, nor the one fetched along with it, with anything else.
#[repr(align(128))]
pub(super) struct Apart<T>(pub(super) T);

/// How many pauses (of some nanoseconds to some dozens, depending on the processor) there are between one look and the
/// next: at first no longer than the work takes, at last so long that whoever holds the lock has been taken off its core.
const PAUSES: [u32; 6] = [8, 16, 100, 200, 400, 800];

/// A mutex that is polite to its holder.
pub(super) struct Latch<T>(Apart<Mutex<T>>);

impl<T> Latch<T> {
    pub(super) const fn new(guarded: T) -> Self {
        Self(Apart(Mutex::new(guarded)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.0.try_lock().unwrap_or_else(|| self.wait())
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, T> {
        for pauses in PAUSES {
            (0..pauses).for_each(|_| spin_loop());
            if let Some(guard) = self.0.0.try_lock() {
                return guard;
            }
        }
        self.0.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_between_threads_and_who_waits_long_gets_its_turn() {
        let latch = Latch::new(0_u64);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|_| *latch.lock() += 1));
            }
        });
        let held = latch.lock();
        assert_eq!(*held, 40_000);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| *latch.lock());
            // Longer than anybody looks.
            std::thread::sleep(std::time::Duration::from_millis(20));
            drop(held);
            assert_eq!(waiter.join().ok(), Some(40_000));
        });
    }
}
