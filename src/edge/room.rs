//! Room for a body that is gathered until it is complete, counted by the memory it really takes.
//!
//! A large body is kept in pieces of one size. Thousands of bodies grow and end in any order; were each one buffer that is
//! enlarged again and again, their old buffers would leave holes that stay with the process and fit nothing that comes
//! later. A piece fits where a piece was.

use bytes::Bytes;

use crate::body::{ByteBudget, HeldBytes, Pieces};
use crate::edge::http1::BUFFER;

/// A full piece.
const PIECE: usize = 16 * 1024;
/// What a request holds besides while its body is under way: the buffers its head and its body are read into, and as much
/// for its connection and the stages it waits in.
pub(super) const UNDER_WAY: usize = 3 * BUFFER;

/// The bound on buffered bytes is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// A body as far as it has come, and the hold on its memory.
#[derive(Debug)]
pub(super) struct Room {
    /// Full ones, in order.
    pieces: Vec<Bytes>,
    /// The one that is being filled.
    open: Vec<u8>,
    /// Bytes that have come.
    len: usize,
    /// Bytes that will come, if that was announced.
    announced: Option<usize>,
    held: HeldBytes,
}

impl Room {
    /// For a body with `announced` bytes that is under way.
    pub(super) fn new(budget: &ByteBudget, announced: Option<u64>) -> Result<Self, Full> {
        let mut held = budget.hold();
        count(&mut held, UNDER_WAY)?;
        let announced = announced.and_then(|length| usize::try_from(length).ok());
        Ok(Self { pieces: Vec::new(), open: Vec::new(), len: 0, announced, held })
    }

    /// Bytes that have come.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Adds bytes, and counts the memory for them before it is taken.
    pub(super) fn append(&mut self, mut data: &[u8]) -> Result<(), Full> {
        while !data.is_empty() {
            if self.open.len() == self.open.capacity() {
                self.make_room(data.len())?;
            }
            let fits = data.len().min(self.open.capacity() - self.open.len());
            let (now, later) = data.split_at(fits);
            self.open.extend_from_slice(now);
            self.len += fits;
            data = later;
        }
        Ok(())
    }

    /// Enlarges the open piece, which is full, or opens another: for what was announced, or else for as much again as has
    /// come.
    fn make_room(&mut self, coming: usize) -> Result<(), Full> {
        let ahead = self.announced.map_or(self.len, |length| length.saturating_sub(self.len));
        let more = ahead.max(coming).min(PIECE);
        let capacity = self.open.capacity();
        if capacity < PIECE {
            let enlarged = capacity.saturating_add(more).min(PIECE);
            count(&mut self.held, enlarged - capacity)?;
            self.open.reserve_exact(enlarged - self.open.len());
        } else {
            count(&mut self.held, more)?;
            let full = std::mem::replace(&mut self.open, Vec::with_capacity(more));
            self.pieces.push(Bytes::from(full));
        }
        Ok(())
    }

    /// What has come, and the hold on it.
    pub(super) fn finish(mut self) -> (Pieces, HeldBytes) {
        self.held.shrink(UNDER_WAY);
        self.pieces.push(Bytes::from(self.open));
        (Pieces::from(self.pieces), self.held)
    }
}

fn count(held: &mut HeldBytes, more: usize) -> Result<(), Full> {
    if held.grow(more) { Ok(()) } else { Err(Full) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_body_is_one_piece_of_its_length() {
        let budget = ByteBudget::new(1 << 20);
        let mut room = Room::new(&budget, Some(10_000)).expect("room");
        for _ in 0..5 {
            room.append(&[b'x'; 2_000]).expect("room");
        }
        assert_eq!(budget.used(), UNDER_WAY + 10_000);
        let (pieces, held) = room.finish();
        assert_eq!(pieces.clone().joined(), vec![b'x'; 10_000]);
        assert_eq!((pieces.number(), held.bytes(), budget.used()), (1, 10_000, 10_000));
    }

    #[test]
    fn a_full_budget_ends_it_and_gets_everything_back() {
        let budget = ByteBudget::new(UNDER_WAY + 100_000);
        let mut room = Room::new(&budget, None).expect("room");
        assert_eq!((0..100).find(|_| room.append(&[b'x'; 3_000]).is_err()).map(|at| at > 16), Some(true));
        assert!(budget.used() <= UNDER_WAY + 100_000);
        drop(room);
        assert_eq!(budget.used(), 0);
        assert_eq!(Room::new(&ByteBudget::new(UNDER_WAY - 1), None).err(), Some(Full));
    }

    proptest! {
        #[test]
        fn what_comes_is_kept_and_little_more_is_held(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..9_000), 1..30),
            announced in any::<bool>(),
        ) {
            let whole = frames.concat();
            let budget = ByteBudget::new(usize::MAX);
            let mut room = Room::new(&budget, announced.then_some(whole.len() as u64)).expect("room");
            let mut came = 0;
            for frame in &frames {
                room.append(frame).expect("room");
                came += frame.len();
                prop_assert_eq!(room.len(), came);
                let taken = budget.used() - UNDER_WAY;
                prop_assert!(taken >= came && taken <= 2 * came.max(PIECE), "{} for {}", taken, came);
            }
            let (pieces, held) = room.finish();
            prop_assert_eq!(pieces.joined(), whole);
            prop_assert!(!announced || held.bytes() == came);
        }
    }
}
