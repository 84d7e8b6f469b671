//! Seats by their free stretches: where the allocator looks.
//!
//! A scan of all seats costs a nanosecond or two for each, and a hot run has a thousand; the
//! different stretches are few, and almost always the first ones of the right length fit.

use crate::legs::{Journey, Legs};

/// A list that had more seats gives its memory back when it is empty.
const KEPT_SEATS_MAX: usize = 64;

/// Which seats of a stock have which free stretch. A seat is in as many lists as it has
/// stretches.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stretches {
    /// For each length in legs, from 1 on: the first stops of those that some seat has.
    starts: Vec<u128>,
    /// Where a stretch's seats are among `seats`, and one, by [`number`]; 0 is nowhere.
    places: Vec<u16>,
    /// The seats of each, descending, so that the lowest is taken off the end. A list stays when it
    /// is empty: it is soon needed again.
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
        let (length, number) = (usize::from(stretch.leg_count()), number(stretch));
        if self.starts.len() < length {
            self.starts.resize(length, 0);
        }
        self.starts[length - 1] |= 1 << stretch.from();
        if self.places.len() <= number {
            self.places.resize(number + 1, 0);
        }
        let place = &mut self.places[number];
        if *place == 0 {
            self.seats.push(Vec::new());
            // There are 8,128 stretches at most.
            *place = self.seats.len() as u16;
        }
        let seats = &mut self.seats[usize::from(*place) - 1];
        // Usually it is the highest: those below it were sold from before.
        let is_highest = seats.first().is_none_or(|first| *first < seat);
        let at = if is_highest { 0 } else { seats.partition_point(|s| *s > seat) };
        seats.insert(at, seat);
    }

    fn remove(&mut self, seat: u16, stretch: Journey) {
        let place = self.places.get(number(stretch)).filter(|place| **place > 0);
        let Some(place) = place else { return };
        let seats = &mut self.seats[usize::from(*place) - 1];
        if seats.last() == Some(&seat) {
            // Nearly always: it is the lowest that is sold.
            seats.pop();
        } else if let Ok(at) = seats.binary_search_by(|s| seat.cmp(s)) {
            seats.remove(at);
        }
        if seats.is_empty() {
            self.starts[usize::from(stretch.leg_count()) - 1] &= !(1 << stretch.from());
            if seats.capacity() > KEPT_SEATS_MAX {
                *seats = Vec::new();
            }
        }
    }

    /// Stretches that contain the journey, the shortest first, and of those as long the first:
    /// length in legs, and who has one, descending.
    pub(crate) fn around(&self, journey: Journey) -> impl Iterator<Item = (u8, &[u16])> {
        (journey.leg_count()..)
            .zip(self.starts.iter().skip(usize::from(journey.leg_count()) - 1))
            .flat_map(move |(legs, starts)| {
                // From where it still reaches the journey's end, to where that begins.
                let least = journey.to().saturating_sub(legs);
                let most = u128::MAX >> (127 - journey.from());
                let starts = starts & most & (u128::MAX << least);
                bits(starts).map(move |from| (legs, self.of(from, from + legs)))
            })
    }

    fn of(&self, from: u8, to: u8) -> &[u16] {
        let place = Journey::new(from, to).and_then(|stretch| self.places.get(number(stretch)));
        let seats = place.and_then(|place| self.seats.get(usize::from(*place).wrapping_sub(1)));
        seats.map_or(&[], Vec::as_slice)
    }

    /// All that some seat has.
    fn all(&self) -> impl Iterator<Item = (u8, u8, &[u16])> {
        (1..).zip(&self.starts).flat_map(move |(legs, starts)| {
            bits(*starts).map(move |from| (legs, from, self.of(from, from + legs)))
        })
    }
}

/// The same seats have the same stretches, however they came to them.
impl PartialEq for Stretches {
    fn eq(&self, other: &Self) -> bool {
        self.all().eq(other.all())
    }
}

impl Eq for Stretches {}

/// The set bits, from the lowest on.
fn bits(mut set: u128) -> impl Iterator<Item = u8> {
    std::iter::from_fn(move || {
        let lowest = set.trailing_zeros();
        set &= set.checked_sub(1)?;
        Some(lowest as u8)
    })
}

/// Numbers stretches without a gap, those that end first before others.
fn number(stretch: Journey) -> usize {
    let to = usize::from(stretch.to());
    to * (to - 1) / 2 + usize::from(stretch.from())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a list of all stretches of all seats.
        #[test]
        fn stretches_are_those_that_seats_have(
            stops in prop_oneof![Just(2_u8), 3..9_u8, Just(128_u8)],
            steps in prop::collection::vec((0..12_u16, any::<(u8, u8)>()), 0..80),
        ) {
            let mut stretches = Stretches::default();
            let mut free: BTreeMap<u16, Legs> = BTreeMap::new();
            let journey = |(a, b): (u8, u8)| {
                let (a, b) = (a % stops, b % stops);
                Journey::new(a.min(b), a.max(b)).unwrap_or(Journey::new(0, stops - 1).unwrap())
            };
            for (seat, ends) in steps {
                let before = free.get(&seat).copied();
                let legs = Legs::of(journey(ends));
                let after = match before {
                    None => Legs::all(stops),
                    Some(before) if before.hold(legs) => before.without(legs),
                    Some(before) => before.with(legs),
                };
                stretches.change(seat, before.unwrap_or(Legs::NONE), after);
                free.insert(seat, after);
                let mut all: BTreeMap<(u8, u8), Vec<u16>> = BTreeMap::new();
                for (seat, free) in free.iter().rev() {
                    for stretch in free.stretches() {
                        all.entry((stretch.leg_count(), stretch.from())).or_default().push(*seat);
                    }
                }
                let found: Vec<_> = stretches.all().map(|(l, f, s)| ((l, f), s.to_vec())).collect();
                prop_assert_eq!(&found, &all.clone().into_iter().collect::<Vec<_>>());
                let wanted = journey(ends);
                let around: Vec<_> =
                    stretches.around(wanted).map(|(l, s)| (l, s.to_vec())).collect();
                let holds = |(legs, from): (u8, u8)| {
                    from <= wanted.from() && from + legs >= wanted.to()
                };
                let expected: Vec<_> =
                    all.into_iter().filter(|(k, _)| holds(*k)).map(|((l, _), s)| (l, s)).collect();
                prop_assert_eq!(around, expected);
            }
            let mut again = Stretches::default();
            for (seat, free) in &free {
                again.change(*seat, Legs::NONE, *free);
            }
            prop_assert_eq!(again, stretches);
        }
    }
}
