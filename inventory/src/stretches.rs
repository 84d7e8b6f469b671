//! Seats by their free stretches: where the allocator looks.
//!
//! A scan of all seats costs a nanosecond or two for each, and a hot run has a thousand; the
//! different stretches are few, and almost always the first ones of the right length fit.

use crate::legs::{Journey, Legs};

/// Which seats of a stock have which free stretch. A seat is in as many lists as it has
/// stretches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Stretches {
    /// Length in legs and first stop of each stretch, ascending: the tightest that fits a journey
    /// comes first.
    keys: Vec<(u8, u8)>,
    /// The seats of each, descending, so that the lowest is taken off the end. Never empty.
    seats: Vec<Vec<u16>>,
}

impl Stretches {
    /// Follows a seat whose free legs changed.
    pub(crate) fn change(&mut self, seat: u16, before: Legs, after: Legs) {
        let gone = |s: &Journey| after.stretch_around(*s) != Some(*s);
        before.stretches().filter(gone).for_each(|stretch| self.remove(seat, stretch));
        let new = |s: &Journey| before.stretch_around(*s) != Some(*s);
        after.stretches().filter(new).for_each(|stretch| self.add(seat, stretch));
    }

    fn add(&mut self, seat: u16, stretch: Journey) {
        let key = key(stretch);
        match self.keys.binary_search(&key) {
            Ok(at) => {
                let seats = &mut self.seats[at];
                let place = seats.partition_point(|s| *s > seat);
                seats.insert(place, seat);
            }
            Err(at) => {
                self.keys.insert(at, key);
                self.seats.insert(at, vec![seat]);
            }
        }
    }

    fn remove(&mut self, seat: u16, stretch: Journey) {
        let Ok(at) = self.keys.binary_search(&key(stretch)) else { return };
        let seats = &mut self.seats[at];
        let place = seats.partition_point(|s| *s > seat);
        if seats.get(place) == Some(&seat) {
            seats.remove(place);
        }
        if seats.is_empty() {
            self.keys.remove(at);
            self.seats.remove(at);
        }
    }

    /// Stretches that contain the journey, the shortest first: length in legs, and who has one,
    /// descending.
    pub(crate) fn around(&self, journey: Journey) -> impl Iterator<Item = (u8, &[u16])> {
        let long_enough = self.keys.partition_point(|(legs, _)| *legs < journey.leg_count());
        let keys = self.keys[long_enough..].iter().zip(&self.seats[long_enough..]);
        keys.filter(move |((legs, from), _)| *from <= journey.from() && from + legs >= journey.to())
            .map(|((legs, _), seats)| (*legs, seats.as_slice()))
    }
}

fn key(stretch: Journey) -> (u8, u8) {
    (stretch.leg_count(), stretch.from())
}
