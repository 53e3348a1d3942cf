//! Where the last stage leaves a request whose attempt failed, so that it can be made once more.
//!
//! A request travels down the road by value and is used up on the way. What may have to be sent again is handed back by
//! this side door, only when an attempt has failed: an attempt that goes well copies nothing.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::exchange::{Cause, Sent};
use crate::stages::Passage;

/// Places that wait to be used again, for each runtime.
const MOST_SPARE: usize = 64;

/// A place for one request. Cloning is one reference count.
#[derive(Clone, Default)]
pub struct Back(Arc<Mutex<Option<Left>>>);

/// A request whose attempt failed.
pub struct Left {
    /// As it was sent.
    pub passage: Box<Passage>,
    /// Why there is no answer; `None`: there is one.
    pub failure: Option<(Cause, Sent)>,
}

impl Back {
    /// Leaves a request.
    pub fn leave(&self, passage: Box<Passage>, failure: Option<(Cause, Sent)>) {
        *self.0.lock() = Some(Left { passage, failure });
    }

    /// Takes it.
    pub fn take(&self) -> Option<Left> {
        self.0.lock().take()
    }
}

/// Places of one runtime: to allocate one for each call would cost more than all that is done with it.
#[derive(Default)]
pub struct Places(Mutex<Vec<Back>>);

impl Places {
    /// An empty place.
    pub fn place(&self) -> Back {
        self.0.lock().pop().unwrap_or_default()
    }

    /// Takes one back that is empty and that nobody else holds.
    pub fn take_back(&self, mut back: Back) {
        if Arc::get_mut(&mut back.0).is_some_and(|place| place.get_mut().is_none()) {
            let mut spare = self.0.lock();
            if spare.len() < MOST_SPARE {
                spare.push(back);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_used_again_only_by_one() {
        let places = Places::default();
        let (one, other) = (places.place(), places.place());
        let held = other.clone();
        places.take_back(one);
        places.take_back(other);
        assert_eq!(places.0.lock().len(), 1, "one is held by somebody");
        drop(held);
        (0..2 * MOST_SPARE).for_each(|_| places.take_back(Back::default()));
        assert_eq!(places.0.lock().len(), MOST_SPARE);
    }
}
