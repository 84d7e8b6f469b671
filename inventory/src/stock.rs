//! Which seats are here, and which of their legs are free.
//!
//! One [`Stock`] holds the seats of one (run, class) on one share. It knows no orders: taking
//! legs that are not free, or freeing legs that are not held, is an error and changes nothing.

use std::ops::Range;

use crate::legs::Legs;
use crate::stretches::Stretches;
use crate::words::{ClassId, RunId};

/// The name of a block: its run, and its place among that run's blocks in seat order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId {
    /// The run whose seats these are.
    pub run: RunId,
    /// Its place among the run's blocks.
    pub index: u16,
}

/// Whole adjacent rows of one class: the unit in which stock moves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its name.
    pub id: BlockId,
    /// The class of all its seats.
    pub class: ClassId,
    /// Its seats, as indexes within the run.
    pub seats: Range<u16>,
    /// Seats of a full row; rows start at `seats.start`.
    pub row: u16,
    /// Stops of the run, so that a share's log can be folded without the definition.
    pub stops: u8,
}

/// A change of stock that the stock does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StockError {
    /// The seat is not on this share.
    #[error("seat {0} is not here")]
    Absent(u16),
    /// Some of the legs are held already.
    #[error("seat {0} is not free on these legs")]
    Busy(u16),
    /// Some of the legs are not held.
    #[error("seat {0} is not held on these legs")]
    Free(u16),
    /// The block's seats are here already, or its stops are not this run's.
    #[error("block {0:?} cannot enter")]
    Block(BlockId),
}

/// The seats of one (run, class) on one share, in seat order.
///
/// Columns rather than rows: who looks for a party scans `free` alone, sixteen bytes a seat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    stops: u8,
    /// Index of each seat within the run, ascending.
    seats: Vec<u16>,
    /// First seat of each seat's row: equal means the same row.
    rows: Vec<u16>,
    /// Free legs of each seat.
    free: Vec<Legs>,
    /// The same by stretches.
    stretches: Stretches,
}

impl Stock {
    /// No seat yet, of a run with this many stops.
    #[must_use]
    pub fn new(stops: u8) -> Self {
        Self {
            stops,
            seats: Vec::new(),
            rows: Vec::new(),
            free: Vec::new(),
            stretches: Stretches::default(),
        }
    }

    /// Lets a block's seats enter, free on all legs.
    ///
    /// # Errors
    /// [`StockError::Block`] if one of its seats is here already, or the stops differ.
    pub fn enter(&mut self, block: &Block) -> Result<(), StockError> {
        let at = self.seats.partition_point(|s| *s < block.seats.start);
        let clash = self.seats.get(at).is_some_and(|next| *next < block.seats.end);
        if clash || block.stops != self.stops || block.seats.is_empty() || block.row == 0 {
            return Err(StockError::Block(block.id));
        }
        let all = Legs::all(self.stops);
        let row_of = |seat: u16| seat - (seat - block.seats.start) % block.row;
        self.seats.splice(at..at, block.seats.clone());
        self.rows.splice(at..at, block.seats.clone().map(row_of));
        self.free.splice(at..at, block.seats.clone().map(|_| all));
        for seat in block.seats.clone() {
            self.stretches.change(seat, Legs::NONE, all);
        }
        Ok(())
    }

    fn place(&self, seat: u16) -> Result<usize, StockError> {
        let absent = StockError::Absent(seat);
        // As far from the first as its number says, unless some between them are elsewhere.
        let far = self.seats.first().and_then(|first| seat.checked_sub(*first)).ok_or(absent)?;
        let far = usize::from(far).min(self.seats.len() - 1);
        if self.seats[far] == seat {
            return Ok(far);
        }
        self.seats[..far].binary_search(&seat).map_err(|_| absent)
    }

    /// Whether the seat is here and free on all of `legs`.
    ///
    /// # Errors
    /// [`StockError::Absent`] or [`StockError::Busy`].
    pub fn check(&self, seat: u16, legs: Legs) -> Result<(), StockError> {
        if self.free[self.place(seat)?].hold(legs) { Ok(()) } else { Err(StockError::Busy(seat)) }
    }

    /// Takes legs of a seat off sale. Returns the seat's free legs before and after.
    ///
    /// # Errors
    /// [`StockError::Absent`] or [`StockError::Busy`]; nothing changes.
    pub fn take(&mut self, seat: u16, legs: Legs) -> Result<(Legs, Legs), StockError> {
        let at = self.place(seat)?;
        let before = self.free[at];
        if !before.hold(legs) {
            return Err(StockError::Busy(seat));
        }
        Ok(self.set(at, before.without(legs)))
    }

    /// Puts legs of a seat on sale again. Returns the seat's free legs before and after.
    ///
    /// # Errors
    /// [`StockError::Absent`], or [`StockError::Free`] if one of the legs was free; nothing
    /// changes.
    pub fn free(&mut self, seat: u16, legs: Legs) -> Result<(Legs, Legs), StockError> {
        let at = self.place(seat)?;
        let before = self.free[at];
        if before.meet(legs) {
            return Err(StockError::Free(seat));
        }
        Ok(self.set(at, before.with(legs)))
    }

    fn set(&mut self, at: usize, after: Legs) -> (Legs, Legs) {
        let before = std::mem::replace(&mut self.free[at], after);
        self.stretches.change(self.seats[at], before, after);
        (before, after)
    }

    /// How many stops the run has.
    #[must_use]
    pub fn stops(&self) -> u8 {
        self.stops
    }

    /// Indexes of the seats within the run, ascending.
    #[must_use]
    pub fn seats(&self) -> &[u16] {
        &self.seats
    }

    /// Free legs, in the order of [`Stock::seats`].
    #[must_use]
    pub fn free_legs(&self) -> &[Legs] {
        &self.free
    }

    /// Its seats by their free stretches.
    pub(crate) fn stretches(&self) -> &Stretches {
        &self.stretches
    }

    /// First seat of each seat's row, in the order of [`Stock::seats`].
    #[must_use]
    pub fn rows(&self) -> &[u16] {
        &self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legs::Journey;

    fn block(index: u16, seats: Range<u16>) -> Block {
        Block { id: BlockId { run: RunId(0), index }, class: ClassId(0), seats, row: 5, stops: 10 }
    }

    fn legs(from: u8, to: u8) -> Legs {
        Legs::of(Journey::new(from, to).unwrap())
    }

    #[test]
    fn blocks_enter_in_any_order_and_once() {
        let mut stock = Stock::new(10);
        stock.enter(&block(1, 10..20)).unwrap();
        stock.enter(&block(0, 0..10)).unwrap();
        assert_eq!(stock.seats(), (0..20).collect::<Vec<_>>());
        assert_eq!(stock.rows()[7], 5);
        let before = stock.clone();
        assert!(stock.enter(&block(1, 10..20)).is_err());
        assert!(stock.enter(&block(2, 19..21)).is_err());
        assert!(stock.enter(&Block { stops: 9, ..block(3, 30..40) }).is_err());
        assert_eq!(stock, before);
    }

    #[test]
    fn a_leg_is_taken_once_and_freed_once() {
        let mut stock = Stock::new(10);
        stock.enter(&block(0, 0..10)).unwrap();
        stock.take(3, legs(2, 5)).unwrap();
        assert_eq!(stock.take(3, legs(4, 6)), Err(StockError::Busy(3)));
        stock.take(3, legs(5, 6)).unwrap();
        assert_eq!(stock.free(3, legs(1, 5)), Err(StockError::Free(3)));
        stock.free(3, legs(2, 5)).unwrap();
        assert_eq!(stock.take(10, legs(2, 5)), Err(StockError::Absent(10)));
        assert!(stock.check(3, legs(0, 5)).is_ok());
    }
}
