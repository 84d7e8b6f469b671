//! How much is free, in one structure: the histogram of free stretches.
//!
//! A group of `k` fits a journey iff at least `k` stretches contain it: stretches of one seat
//! are disjoint, so each counts a different seat. The same sums are the counts in queries.

use std::collections::BTreeMap;

use crate::codec::{Malformed, Reader, Writer};
use crate::legs::{Journey, Legs};
use crate::stock::Stock;

/// Free stretches of one (share, run, class): `(start, end) → seats`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Digest(BTreeMap<(u8, u8), u32>);

impl Digest {
    /// The digest of a stock.
    #[must_use]
    pub fn of(stock: &Stock) -> Self {
        let mut digest = Self::default();
        for free in stock.free_legs() {
            digest.add(*free);
        }
        digest
    }

    fn add(&mut self, free: Legs) {
        for stretch in free.stretches() {
            let seats = self.0.entry((stretch.from(), stretch.to())).or_default();
            *seats = seats.saturating_add(1);
        }
    }

    /// Follows a seat whose free legs changed.
    pub fn change(&mut self, before: Legs, after: Legs) {
        for stretch in before.stretches() {
            let key = (stretch.from(), stretch.to());
            if let Some(seats) = self.0.get_mut(&key) {
                *seats = seats.saturating_sub(1);
                if *seats == 0 {
                    self.0.remove(&key);
                }
            }
        }
        self.add(after);
    }

    /// Seats that are free on the whole journey: the largest group that fits.
    #[must_use]
    pub fn seats(&self, journey: Journey) -> u32 {
        let holds = |(from, to): &(u8, u8)| *from <= journey.from() && *to >= journey.to();
        self.0
            .iter()
            .filter(|(stretch, _)| holds(stretch))
            .map(|(_, seats)| *seats)
            .fold(0, u32::saturating_add)
    }

    /// Whether nothing is free at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn put(&self, w: &mut Writer<'_>) {
        w.list(self.0.iter(), |w, ((from, to), seats)| {
            w.u8(*from).u8(*to).u32(*seats);
        });
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let items = r.list(|r| Ok(((r.u8()?, r.u8()?), r.u32()?)))?;
        let valid = |((from, to), seats): &((u8, u8), u32)| from < to && *seats > 0;
        if !items.iter().all(valid) || !items.windows(2).all(|w| w[0].0 < w[1].0) {
            return Err(Malformed::Range("digest"));
        }
        Ok(Self(items.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::{Block, BlockId};
    use crate::words::{ClassId, RunId};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn following_changes_equals_counting_anew(
            moves in prop::collection::vec((0u16..10, 0u8..8, 1u8..8, any::<bool>()), 0..80),
            from in 0u8..8, len in 1u8..8,
        ) {
            let mut stock = Stock::new(9);
            let id = BlockId { run: RunId(0), index: 0 };
            stock.enter(&Block { id, class: ClassId(0), seats: 0..10, row: 5, stops: 9 }).unwrap();
            let mut digest = Digest::of(&stock);
            for (seat, from, len, take) in moves {
                let Some(j) = Journey::new(from, (from + len).min(8)) else { continue };
                let legs = Legs::of(j);
                let moved = if take { stock.take(seat, legs) } else { stock.free(seat, legs) };
                if let Ok((before, after)) = moved {
                    digest.change(before, after);
                }
            }
            prop_assert_eq!(&digest, &Digest::of(&stock));
            if let Some(j) = Journey::new(from, (from + len).min(8)) {
                let free = stock.free_legs().iter().filter(|f| f.hold(Legs::of(j))).count();
                prop_assert_eq!(digest.seats(j) as usize, free);
            }
            let mut bytes = Vec::new();
            digest.put(&mut Writer(&mut bytes));
            let mut reader = Reader::new(&bytes, "digest");
            prop_assert_eq!(Digest::read(&mut reader).unwrap(), digest);
            prop_assert!(reader.end().is_ok());
        }
    }
}
