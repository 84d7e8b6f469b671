//! Which seats a wish gets: best fit by legs, parties together.
//!
//! The fold never calls this: entries name their seats, so a better choice tomorrow does not
//! rewrite what was sold yesterday.

use arrayvec::ArrayVec;

use crate::definition::Place;
use crate::legs::{Journey, Legs};
use crate::stock::Stock;

/// Passengers of one order at most: a block's worth.
pub const PARTY_MAX: usize = 16;

/// Seats of one order, in the order of its passengers.
pub type Seats = ArrayVec<u16, PARTY_MAX>;

/// What a buyer wants of one (run, class).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// From where to where.
    pub journey: Journey,
    /// For how many, `1..=PARTY_MAX`.
    pub party: u8,
    /// Where they would like to sit.
    pub prefer: Option<Place>,
}

/// Picks seats for `wish`, or none if fewer than `party` seats are free on its legs.
///
/// The tightest stretches go first, so that long ones survive for long journeys; among equals
/// the preferred place, then the lowest seat. A party gets neighbours in one row if there are
/// any, else one row, else as few rows as possible. `place_of` tells where a seat is in its row.
#[must_use]
pub fn choose(stock: &Stock, wish: &Wish, place_of: impl Fn(u16) -> Place) -> Option<Seats> {
    if wish.party == 1 {
        return choose_one(stock, wish, place_of).map(|s| Seats::from_iter([s]));
    }
    let fits = candidates(stock, wish.journey);
    let party = usize::from(wish.party);
    if party == 0 || party > PARTY_MAX || fits.len() < party {
        return None;
    }
    let mut rows: Vec<&[Fit]> = fits.chunk_by(|a, b| a.row == b.row).collect();
    if let Some(best) = neighbours(&rows, party) {
        return Some(best.iter().map(|f| f.seat).collect());
    }
    // No neighbours: the fullest rows first, so that the party sits in as few as possible.
    // The sort is stable, so equal rows stay in train order and the party close together.
    rows.sort_by_key(|row| std::cmp::Reverse(row.len().min(party)));
    let mut seats: Seats = rows.into_iter().flatten().take(party).map(|f| f.seat).collect();
    seats.sort_unstable();
    Some(seats)
}

/// A seat that fits, and how much of its stretch would be left over.
struct Fit {
    seat: u16,
    row: u16,
    slack: u8,
}

fn candidates(stock: &Stock, journey: Journey) -> Vec<Fit> {
    let legs = Legs::of(journey);
    let columns = stock.free_legs().iter().zip(stock.seats()).zip(stock.rows());
    columns
        .filter(|((free, _), _)| free.hold(legs))
        .filter_map(|((free, seat), row)| {
            let slack = free.stretch_around(journey)?.leg_count() - journey.leg_count();
            Some(Fit { seat: *seat, row: *row, slack })
        })
        .collect()
}

/// `party` adjacent seats of one row with the least slack in sum.
fn neighbours<'a>(rows: &[&'a [Fit]], party: usize) -> Option<&'a [Fit]> {
    let together = |w: &&[Fit]| usize::from(w[w.len() - 1].seat - w[0].seat) + 1 == w.len();
    let slack = |w: &&[Fit]| w.iter().map(|f| u32::from(f.slack)).sum::<u32>();
    rows.iter().flat_map(|row| row.windows(party)).filter(together).min_by_key(slack)
}

fn choose_one(stock: &Stock, wish: &Wish, place_of: impl Fn(u16) -> Place) -> Option<u16> {
    let mut best: Option<(u8, bool, u16)> = None;
    for (legs, seats) in stock.stretches().around(wish.journey) {
        if best.is_some_and(|(least, ..)| legs > least) {
            break;
        }
        // The lowest seat is the last.
        let liked =
            wish.prefer.and_then(|place| seats.iter().rev().find(|s| place_of(**s) == place));
        let Some(seat) = liked.or(seats.last()) else { continue };
        let rank = (legs, wish.prefer.is_some() && liked.is_none(), *seat);
        if best.is_none_or(|best| rank < best) {
            best = Some(rank);
        }
    }
    best.map(|(.., seat)| seat)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stock::{Block, BlockId};
    use crate::words::{ClassId, RunId};
    use proptest::prelude::*;

    fn stock(rows: u16, stops: u8) -> Stock {
        let mut stock = Stock::new(stops);
        let id = BlockId { run: RunId(0), index: 0 };
        let seats = 0..rows * 5;
        stock.enter(&Block { id, class: ClassId(0), seats, row: 5, stops }).unwrap();
        stock
    }

    fn wish(from: u8, to: u8, party: u8) -> Wish {
        Wish { journey: Journey::new(from, to).unwrap(), party, prefer: None }
    }

    fn pick(stock: &Stock, wish: &Wish) -> Option<Vec<u16>> {
        choose(stock, wish, place_at).map(|s| s.to_vec())
    }

    fn place_at(seat: u16) -> Place {
        if seat.is_multiple_of(5) { Place::Window } else { Place::Middle }
    }

    fn sell(stock: &mut Stock, seat: u16, from: u8, to: u8) {
        stock.take(seat, Legs::of(Journey::new(from, to).unwrap())).unwrap();
    }

    #[test]
    fn the_tightest_stretch_goes_first() {
        let mut stock = stock(1, 10);
        sell(&mut stock, 3, 0, 2);
        sell(&mut stock, 4, 0, 2);
        sell(&mut stock, 4, 5, 9);
        assert_eq!(pick(&stock, &wish(2, 5, 1)), Some(vec![4]));
        assert_eq!(pick(&stock, &wish(2, 6, 1)), Some(vec![3]));
        assert_eq!(pick(&stock, &wish(0, 1, 1)), Some(vec![0]));
    }

    #[test]
    fn a_window_is_preferred_among_equals() {
        let mut stock = stock(2, 10);
        sell(&mut stock, 0, 0, 9);
        let wish = Wish { prefer: Some(Place::Window), ..wish(0, 9, 1) };
        assert_eq!(pick(&stock, &wish), Some(vec![5]));
    }

    #[test]
    fn a_party_sits_side_by_side_then_in_one_row_then_in_few() {
        let mut stock = stock(3, 3);
        sell(&mut stock, 1, 0, 2);
        assert_eq!(pick(&stock, &wish(0, 2, 4)), Some(vec![5, 6, 7, 8]));
        for seat in [6, 8, 11, 13] {
            sell(&mut stock, seat, 0, 2);
        }
        assert_eq!(pick(&stock, &wish(0, 2, 3)), Some(vec![2, 3, 4]));
        sell(&mut stock, 3, 0, 2);
        assert_eq!(pick(&stock, &wish(0, 2, 3)), Some(vec![0, 2, 4]));
        assert_eq!(pick(&stock, &wish(0, 2, 4)).map(|s| s.len()), Some(4));
        assert_eq!(pick(&stock, &wish(0, 2, 10)), None);
    }

    /// By looking at every seat.
    fn scan(stock: &Stock, wish: &Wish) -> Option<Vec<u16>> {
        let seats = stock.free_legs().iter().zip(stock.seats());
        let fits = seats.filter_map(|(free, seat)| {
            let slack = free.stretch_around(wish.journey)?.leg_count();
            let missed = wish.prefer.is_some_and(|place| place_at(*seat) != place);
            Some((slack, missed, *seat))
        });
        fits.min().map(|(.., seat)| vec![seat])
    }

    proptest! {
        #[test]
        fn one_seat_is_found_as_by_looking_at_every_seat(
            moves in prop::collection::vec((0u16..20, 0u8..8, 1u8..8, any::<bool>()), 0..90),
            from in 0u8..8, len in 1u8..8, window in any::<bool>(),
        ) {
            let mut stock = stock(4, 9);
            for (seat, from, len, take) in moves {
                let Some(j) = Journey::new(from, (from + len).min(8)) else { continue };
                let legs = Legs::of(j);
                let _ = if take { stock.take(seat, legs) } else { stock.free(seat, legs) };
            }
            let Some(journey) = Journey::new(from, (from + len).min(8)) else { return Ok(()) };
            let prefer = window.then_some(Place::Window);
            let wish = Wish { journey, party: 1, prefer };
            prop_assert_eq!(pick(&stock, &wish), scan(&stock, &wish));
        }

        #[test]
        fn a_wish_is_met_iff_enough_seats_are_free_on_its_legs(
            sold in prop::collection::vec((0u16..20, 0u8..8, 1u8..8), 0..60),
            from in 0u8..8, len in 1u8..8, party in 1u8..=16,
        ) {
            let mut stock = stock(4, 9);
            for (seat, from, len) in sold {
                let to = (from + len).min(8);
                let Some(j) = Journey::new(from, to) else { continue };
                let _ = stock.take(seat, Legs::of(j));
            }
            let Some(journey) = Journey::new(from, (from + len).min(8)) else { return Ok(()) };
            let legs = Legs::of(journey);
            let free = stock.free_legs().iter().filter(|f| f.hold(legs)).count();
            let got = pick(&stock, &Wish { journey, party, prefer: None });
            prop_assert_eq!(got.is_some(), free >= usize::from(party));
            if let Some(mut seats) = got {
                prop_assert!(seats.iter().all(|s| stock.check(*s, legs).is_ok()));
                seats.sort_unstable();
                seats.dedup();
                prop_assert_eq!(seats.len(), usize::from(party));
            }
        }
    }
}
