//! What connections read into and write from, and the shapes of what they read.
//!
//! A connection holds a buffer only while there is something in it: one that waits, for an answer or for its next call,
//! holds none. The few that are in use at a moment go round.

use bytes::BytesMut;
use parking_lot::{Mutex, MutexGuard};

use super::shapes::Shapes;

/// A buffer written from is kept if it is no larger.
const LARGEST_KEPT: usize = 16 * 1_024;
/// As many of each kind are kept.
const KEPT: usize = 8;

/// The buffers nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Buffers(Mutex<Spare>, Mutex<Shapes>);

#[derive(Debug, Default)]
struct Spare {
    read: Vec<BytesMut>,
    write: Vec<Vec<u8>>,
}

impl Buffers {
    /// An empty buffer to read into; it may have no room yet.
    pub(crate) fn take_read(&self) -> BytesMut {
        self.0.lock().read.pop().unwrap_or_default()
    }

    /// Takes back a buffer of the usual size that is empty now.
    pub(crate) fn put_read(&self, buffer: BytesMut) {
        let mut spare = self.0.lock();
        if spare.read.len() < KEPT {
            spare.read.push(buffer);
        }
    }

    /// The shapes of heads, for as long as one is read.
    pub(crate) fn shapes(&self) -> MutexGuard<'_, Shapes> {
        self.1.lock()
    }

    /// An empty buffer to write from.
    pub(crate) fn take_write(&self) -> Vec<u8> {
        self.0.lock().write.pop().unwrap_or_default()
    }

    /// Takes back a buffer that has been written.
    pub(crate) fn put_write(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() > LARGEST_KEPT {
            return;
        }
        buffer.clear();
        let mut spare = self.0.lock();
        if spare.write.len() < KEPT {
            spare.write.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_bounded_and_empty() {
        let buffers = Buffers::default();
        for _ in 0..3 * KEPT {
            buffers.put_write(vec![1; 100]);
            buffers.put_write(vec![1; LARGEST_KEPT + 1]);
            buffers.put_read(BytesMut::with_capacity(1_024));
        }
        let spare = buffers.0.lock();
        assert_eq!((spare.read.len(), spare.write.len()), (KEPT, KEPT));
        assert!(spare.write.iter().all(|buffer| buffer.is_empty() && buffer.capacity() <= LARGEST_KEPT));
    }
}
