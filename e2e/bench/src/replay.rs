//! How fast a share's log is folded, and what its orders weigh in memory: what a node that takes a
//! share over waits for.
//!
//! In process and on one core. The log is that of one share that sells single seats on random
//! journeys, in frames of as many orders as a busy share has in one.

use std::time::Instant;

use e2e::process::ProcessId;
use e2e::{Error, Result};
use inventory::allocate::{Seats, Wish, choose};
use inventory::definition::Place;
use inventory::entry::{Entry, Held, OrderRequest, Passengers};
use inventory::fold::{Verdict, fold};
use inventory::legs::{Journey, Legs};
use inventory::state::ShareState;
use inventory::stock::{Block, BlockId};
use inventory::wire::{Draft, FRAME_BYTES_MAX};
use inventory::words::{
    Attempt, ClassId, Digest128, Incarnation, Millis, Offset, OrderId, RunId, ShareId,
};
use serde::Serialize;

use crate::cpu;
use crate::dice::Dice;
use crate::sale::{ORDERS_PER_RUN, SEATS, STOPS};

/// Orders of a frame, as one busy share has them.
const ORDERS_PER_FRAME: u32 = 30;
const ROW: u16 = 5;
const BLOCK: u16 = 10;
const SHARE: ShareId = ShareId(1);
const START: Millis = Millis(1_800_000_000_000);

/// What folding came to.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replayed {
    pub(crate) orders: u32,
    pub(crate) orders_per_second: f64,
    pub(crate) log_bytes_per_order: f64,
    /// Of the folded share, its stock of sold seats included.
    pub(crate) memory_bytes_per_order: f64,
}

/// Writes the log of so many orders, and folds it `times` times; the middle one counts.
///
/// # Errors
/// When a record does not count: a defect.
pub(crate) fn replay(orders: u32, times: u32) -> Result<Replayed> {
    let runs = u16::try_from(orders / ORDERS_PER_RUN + 1).unwrap_or(u16::MAX);
    let blocks: Vec<Block> = (0..runs).flat_map(blocks_of).collect();
    let empty = ShareState::new(Digest128([7; 16]), SHARE, &blocks);
    let log = written(&empty, orders)?;
    let own = ProcessId::of(i32::try_from(std::process::id()).unwrap_or(0));
    let own = own.ok_or_else(|| Error::Refused("this process is not in /proc".to_owned()))?;
    let folded = || {
        let mut state = empty.clone();
        let (before, begun) = (cpu::resident(own)?, Instant::now());
        for (at, record) in log.iter().enumerate() {
            counted(fold(&mut state, Offset(at as u64), record))?;
        }
        let (seconds, after) = (begun.elapsed().as_secs_f64(), cpu::resident(own)?);
        if state.orders().len() != orders as usize {
            return Err(Error::Refused("the fold has lost orders".to_owned()));
        }
        Ok((state, seconds, after.saturating_sub(before) as f64))
    };
    // Each gets the memory that the one before gave back: a machine may take its time to give out
    // new memory, and that is not the fold's.
    let seconds = (0..times.max(1)).map(|_| folded().map(|(_, seconds, _)| seconds));
    let mut seconds = seconds.collect::<Result<Vec<f64>>>()?;
    seconds.sort_by(f64::total_cmp);
    // So that only one that comes while another is kept says what it takes.
    let kept = folded()?;
    let most = folded()?.2;
    drop(kept);
    let each = |sum: f64| sum / f64::from(orders.max(1));
    Ok(Replayed {
        orders,
        orders_per_second: f64::from(orders) / seconds[seconds.len() / 2],
        log_bytes_per_order: each(log.iter().map(Vec::len).sum::<usize>() as f64),
        memory_bytes_per_order: each(most),
    })
}

fn blocks_of(run: u16) -> impl Iterator<Item = Block> {
    (0..SEATS / BLOCK).map(move |index| Block {
        id: BlockId { run: RunId(run), index },
        class: ClassId(0),
        seats: index * BLOCK..(index + 1) * BLOCK,
        row: ROW,
        stops: STOPS,
    })
}

fn counted(verdict: Verdict) -> Result<()> {
    match verdict {
        Verdict::Accepted => Ok(()),
        other => Err(Error::Refused(format!("a record of the log does not count: {other:?}"))),
    }
}

/// A Claim, and frames of held orders, one run after the other.
fn written(empty: &ShareState, orders: u32) -> Result<Vec<Vec<u8>>> {
    let mut state = empty.clone();
    let mut log = Vec::new();
    let mut draft = Draft::new(FRAME_BYTES_MAX);
    let full = |_| Error::Refused("a frame is too small for its orders".to_owned());
    let header = state.writer().claim_header(Incarnation(1), START);
    let (node, address) = ("bench-1".parse(), "127.0.0.1:1".parse());
    let (Ok(node), Ok(address)) = (node, address) else {
        return Err(Error::Refused("a name of the claim".to_owned()));
    };
    draft.push(&Entry::Claim { node, address }).map_err(full)?;
    log.push(draft.seal(&header).0);
    counted(fold(&mut state, Offset(0), &log[0]))?;
    let mut dice = Dice::new(1);
    let mut number = 0;
    let mut stock = None;
    while number < orders {
        let now = START.plus(u64::from(number / ORDERS_PER_FRAME));
        let header = state.writer().next_header(now);
        let header = header.ok_or_else(|| Error::Refused("the epoch is over".to_owned()))?;
        for _ in 0..ORDERS_PER_FRAME.min(orders - number) {
            if number % ORDERS_PER_RUN == 0 {
                stock = state.stock().get(&(run_of(number), ClassId(0))).cloned();
            }
            let nothing = || Error::Refused("a run has no seats left".to_owned());
            let stock = stock.as_mut().ok_or_else(nothing)?;
            let wish = Wish { journey: dice.journey(STOPS), party: 1, prefer: None };
            let seats = choose(stock, &wish, |_| Place::Middle).ok_or_else(nothing)?;
            stock.take(seats[0], Legs::of(wish.journey)).map_err(|_| nothing())?;
            let run = run_of(number);
            number += 1;
            let held = held(&state, number, run, wish.journey, seats, now);
            draft.push(&Entry::Held(held)).map_err(full)?;
        }
        let (record, _) = draft.seal(&header);
        counted(fold(&mut state, Offset(log.len() as u64), &record))?;
        log.push(record);
    }
    Ok(log)
}

fn run_of(number: u32) -> RunId {
    RunId(u16::try_from(number / ORDERS_PER_RUN).unwrap_or(u16::MAX))
}

fn held(
    state: &ShareState,
    number: u32,
    run: RunId,
    journey: Journey,
    seats: Seats,
    now: Millis,
) -> Held {
    // As good as a hash: told apart, and spread.
    let digest = |what: u64| {
        let mut dice = Dice::new(u64::from(number) << 3 | what);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&dice.next().to_le_bytes());
        bytes[8..].copy_from_slice(&dice.next().to_le_bytes());
        Digest128(bytes)
    };
    Held {
        order: OrderId { home: SHARE, epoch: state.writer().epoch(), number },
        attempt: Attempt(0),
        request: OrderRequest {
            key: digest(0),
            body: digest(1),
            buyer: digest(2),
            run,
            class: ClassId(0),
            journey,
            prefer: None,
            passengers: Passengers::from_iter([digest(3)]),
            price: 1_234,
        },
        seats,
        deadline: now.plus(900_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_folded() {
        let replayed = replay(5_000, 1).unwrap();
        assert_eq!(replayed.orders, 5_000);
        assert!((80.0..130.0).contains(&replayed.log_bytes_per_order), "{replayed:?}");
    }
}
