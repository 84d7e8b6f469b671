//! What dividing the seats costs: seat-legs sold by shares, beside one undivided allocator that
//! hears the same buyers in the same order.
//!
//! Modelled as the product does it: home by a hash of the buyer, Genesis' split, draws of blocks
//! below the low-water mark or when nothing fits, and travelling to the share that offers most.
//! Not modelled: time. Each buyer is served before the next asks, and every share knows at once
//! what the others have free, where the board takes tens of milliseconds. Nobody cancels.

use std::collections::BTreeMap;

use inventory::allocate::{Wish, choose};
use inventory::catalogue::Catalogue;
use inventory::definition::{Definition, Place};
use inventory::digest::Digest;
use inventory::legs::{Journey, Legs};
use inventory::stock::{Block, Stock};
use inventory::words::{Digest128, RunId, ShareId};
use serde::Serialize;

use crate::dice::Dice;
use crate::sale::STOPS;

/// Buyers for each seat: with journeys of a third of the way they want a tenth more than there is.
/// Where many more want something, all legs are sold however they are divided.
const BUYERS_PER_SEAT: u64 = 3;
/// As the product draws.
const DRAW_BLOCKS: usize = 3;
const LOW_WATER_SEATS: u32 = 2;
const RUN: RunId = RunId(0);

/// Sold by so many shares, and by one allocator that has all seats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Packed {
    pub(crate) shares: u16,
    pub(crate) divided: u64,
    pub(crate) undivided: u64,
}

impl Packed {
    pub(crate) fn ratio(self) -> f64 {
        self.divided as f64 / self.undivided.max(1) as f64
    }
}

/// Sells the first run of a definition to a crowd, in both ways.
pub(crate) fn packed(definition: &Definition, seed: u64) -> Packed {
    let catalogue = Catalogue::new(definition.clone());
    let seats = definition.timetables[0].seats();
    let mut house = House::of(&catalogue);
    let mut whole = Stock::new(STOPS);
    definition.blocks(RUN).for_each(|block| enter(&mut whole, &block));
    let mut dice = Dice::new(seed);
    let mut sold = Packed { shares: definition.shares, divided: 0, undivided: 0 };
    for _ in 0..u64::from(seats) * BUYERS_PER_SEAT {
        let journey = dice.journey(STOPS);
        let mut buyer = [0; 16];
        buyer[..8].copy_from_slice(&dice.next().to_le_bytes());
        let legs = u64::from(journey.leg_count());
        let home = catalogue.home(RUN, Digest128(buyer));
        sold.divided += if house.sell(home, journey) { legs } else { 0 };
        sold.undivided += if sell(&mut whole, journey) { legs } else { 0 };
    }
    sold
}

/// Shares and their pool.
struct House {
    shares: BTreeMap<ShareId, Stock>,
    /// In the order in which they are drawn.
    pool: Vec<Block>,
}

impl House {
    fn of(catalogue: &Catalogue) -> Self {
        let homes = catalogue.homes(RUN).map(|share| (share, Stock::new(STOPS)));
        let mut house = Self { shares: homes.collect(), pool: Vec::new() };
        for (share, block) in catalogue.initial_split(RUN) {
            match house.shares.get_mut(&share) {
                Some(stock) => enter(stock, &block),
                None => house.pool.push(block),
            }
        }
        house.pool.reverse();
        house
    }

    fn sell(&mut self, home: ShareId, journey: Journey) -> bool {
        loop {
            let Some(stock) = self.shares.get_mut(&home) else { return false };
            if sell(stock, journey) {
                self.draw_if_low(home);
                return true;
            }
            if !self.draw(home) {
                break;
            }
        }
        let offers =
            self.shares.iter().map(|(share, stock)| (Digest::of(stock).seats(journey), *share));
        let best = offers.filter(|(seats, _)| *seats > 0).max_by_key(|(seats, _)| *seats);
        let stock = best.and_then(|(_, share)| self.shares.get_mut(&share));
        stock.is_some_and(|stock| sell(stock, journey))
    }

    fn draw_if_low(&mut self, share: ShareId) {
        let whole = Journey::new(0, STOPS - 1);
        let left = whole.zip(self.shares.get(&share)).map_or(0, |(whole, stock)| {
            let free = stock.free_legs().iter().filter(|free| free.hold(Legs::of(whole)));
            u32::try_from(free.count()).unwrap_or(u32::MAX)
        });
        if left < LOW_WATER_SEATS {
            self.draw(share);
        }
    }

    fn draw(&mut self, share: ShareId) -> bool {
        let Some(stock) = self.shares.get_mut(&share) else { return false };
        let left = self.pool.len().saturating_sub(DRAW_BLOCKS);
        let drawn = self.pool.split_off(left);
        drawn.iter().for_each(|block| enter(stock, block));
        !drawn.is_empty()
    }
}

fn enter(stock: &mut Stock, block: &Block) {
    stock.enter(block).expect("blocks of a run are disjoint");
}

fn sell(stock: &mut Stock, journey: Journey) -> bool {
    let wish = Wish { journey, party: 1, prefer: None };
    let Some(seats) = choose(stock, &wish, |_| Place::Middle) else { return false };
    stock.take(seats[0], Legs::of(journey)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sale;

    #[test]
    fn one_share_sells_what_an_undivided_allocator_sells_when_it_has_all_blocks() {
        let mut definition = sale::definition("packing", sale::Terms::of(1));
        definition.buffer_percent = 0;
        let packed = packed(&Definition::try_from(definition).unwrap(), 1);
        assert_eq!(packed.divided, packed.undivided);
        assert!((1_200 * 19 * 7 / 10..1_200 * 19).contains(&packed.undivided), "{packed:?}");
    }
}
