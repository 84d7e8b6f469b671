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
    keys: Vec<Key>,
    /// The seats of each, descending, so that the lowest is taken off the end. Never empty.
    seats: Vec<Vec<u16>>,
}

impl Stretches {
    /// Follows a seat whose free legs changed.
    pub(crate) fn change(&mut self, seat: u16, before: Legs, after: Legs) {
        let touched = before.touched(after);
        for stretch in before.within(touched).stretches() {
            self.remove(seat, stretch);
        }
        for stretch in after.within(touched).stretches() {
            self.add(seat, stretch);
        }
    }

    fn add(&mut self, seat: u16, stretch: Journey) {
        let key = Key::of(stretch);
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
        let Ok(at) = self.keys.binary_search(&Key::of(stretch)) else { return };
        let seats = &mut self.seats[at];
        if seats.last() == Some(&seat) {
            // Nearly always: it is the lowest that is sold.
            seats.pop();
        } else if let Ok(place) = seats.binary_search_by(|s| seat.cmp(s)) {
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
        let long_enough = self.keys.partition_point(|key| key.legs() < journey.leg_count());
        let keys = self.keys[long_enough..].iter().zip(&self.seats[long_enough..]);
        keys.filter(move |(key, _)| key.from() <= journey.from() && key.to() >= journey.to())
            .map(|(key, seats)| (key.legs(), seats.as_slice()))
    }
}

/// Length in legs above, first stop below: in one number, which is compared at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u16);

impl Key {
    fn of(stretch: Journey) -> Self {
        Self(u16::from(stretch.leg_count()) << 8 | u16::from(stretch.from()))
    }

    fn legs(self) -> u8 {
        (self.0 >> 8) as u8
    }

    fn from(self) -> u8 {
        (self.0 & 0xff) as u8
    }

    fn to(self) -> u8 {
        self.from() + self.legs()
    }
}
