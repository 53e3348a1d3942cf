//! The memory that kept answers take, by the object they are about.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ahash::AHashMap;
use smol_str::SmolStr;

use super::touch::{Lower, lower};

/// Objects that are told apart in one org; the answers about further ones count as `other`.
const MOST: usize = 1_000;

/// The name under which answers count that are about no object, as that of `/limits` is.
const NONE: SmolStr = SmolStr::new_static("none");
/// The name under which the answers about objects count that are not told apart.
const OTHER: SmolStr = SmolStr::new_static("other");

/// What the answers about one object take.
#[derive(Debug, Default)]
pub struct Taken {
    bytes: AtomicU64,
    answers: AtomicU64,
}

impl Taken {
    /// Bytes, and by how many answers.
    pub fn now(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.answers.load(Ordering::Relaxed))
    }
}

/// The room one answer takes, for as long as this lives.
#[derive(Debug)]
pub struct Room {
    taken: Arc<Taken>,
    bytes: u64,
}

impl Room {
    /// Takes `bytes` among what the answers about an object take.
    pub fn take(taken: Arc<Taken>, bytes: usize) -> Self {
        let bytes = bytes as u64;
        taken.bytes.fetch_add(bytes, Ordering::Relaxed);
        taken.answers.fetch_add(1, Ordering::Relaxed);
        Self { taken, bytes }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.taken.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.taken.answers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The objects of one org that answers are about.
#[derive(Debug, Default)]
pub struct Rooms(AHashMap<Lower, Arc<Taken>>);

impl Rooms {
    /// Where answers about `object` are counted.
    pub fn of(&mut self, object: Option<&str>) -> Arc<Taken> {
        let object = object.map_or(NONE, lower);
        if let Some(taken) = self.0.get(&object) {
            return Arc::clone(taken);
        }
        if self.0.len() >= MOST {
            // A name about which nothing is kept any more makes room for this one.
            self.0.retain(|_, taken| Arc::strong_count(taken) > 1);
        }
        let object = if self.0.len() < MOST { object } else { OTHER };
        Arc::clone(self.0.entry(object).or_default())
    }

    /// All objects something is kept about, in lower case, with its bytes and answers.
    pub fn all(&self) -> impl Iterator<Item = (&Lower, u64, u64)> {
        self.0
            .iter()
            .map(|(object, taken)| (object, taken.now()))
            .filter(|(_, (_, answers))| *answers > 0)
            .map(|(object, (bytes, answers))| (object, bytes, answers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_takes_room_for_as_long_as_it_is_kept() {
        let mut rooms = Rooms::default();
        let first = Room::take(rooms.of(Some("Account")), 100);
        let second = Room::take(rooms.of(Some("ACCOUNT")), 20);
        let third = Room::take(rooms.of(None), 3);
        let all = |rooms: &Rooms| {
            let mut all: Vec<_> =
                rooms.all().map(|(object, bytes, answers)| (object.to_string(), bytes, answers)).collect();
            all.sort();
            all
        };
        assert_eq!(all(&rooms), [("account".to_owned(), 120, 2), ("none".to_owned(), 3, 1)]);
        drop((first, third));
        assert_eq!(all(&rooms), [("account".to_owned(), 20, 1)]);
        drop(second);
        assert_eq!(all(&rooms), []);
    }

    #[test]
    fn names_are_bounded_and_those_not_needed_make_room() {
        let mut rooms = Rooms::default();
        let held: Vec<Room> = (0..MOST).map(|number| Room::take(rooms.of(Some(&format!("o{number}"))), 1)).collect();
        let more: Vec<Room> = (0..10).map(|number| Room::take(rooms.of(Some(&format!("p{number}"))), 1)).collect();
        assert_eq!(rooms.all().find(|(object, ..)| **object == OTHER).map(|(_, _, answers)| answers), Some(10));
        assert!(rooms.0.len() <= MOST + 1);
        drop((held, more));
        let _last = Room::take(rooms.of(Some("q")), 1);
        assert_eq!(rooms.all().count(), 1);
    }
}
