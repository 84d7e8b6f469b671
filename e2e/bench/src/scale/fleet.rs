//! A sale and a fleet of some size, made up: the same for every part of the study.
//!
//! Each node owns as many shares as any other. A train has a timetable of its own and runs on
//! [`DATES`] dates. What is free is what buyers of random journeys leave when all orders of the
//! sale are spread evenly over its runs.

use e2e::{Error, Result};
use inventory::allocate::{Wish, choose};
use inventory::board::{Beat, NodeState, Row, ShareBeat, ShareStage};
use inventory::definition::{Definition, Place, Run, homes_of};
use inventory::digest::Digest;
use inventory::entry::{Assign, Genesis, Limits, Policy, PoolEntry, SaleState};
use inventory::legs::Legs;
use inventory::pool::{ledger_id, pool_record};
use inventory::stock::Stock;
use inventory::words::{
    Address, ClassId, Digest128, Epoch, Incarnation, Millis, NodeId, Offset, RunId, ShareId,
};

use super::Size;
use crate::dice::Dice;
use crate::sale::{self, SEATS, STOPS};

/// On so many dates a train is on sale at the same time: railways sell some weeks ahead.
pub(super) const DATES: usize = 20;

pub(super) const LEDGER: &str = "tickets.spring-2027";
const TOPIC_ID: [u8; 16] = [7; 16];
const CLASS: ClassId = ClassId(0);
/// The time of day at which all this happens.
pub(super) const START: Millis = Millis(1_800_000_000_000);
/// Runs that are really sold from; the others look like one of them.
const RUNS_SOLD: u16 = 24;

/// What a beat says of stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tells {
    /// Every row, in full.
    All,
    /// Nothing has changed.
    Nothing,
    /// Every row has changed.
    Changes,
}

/// A sale and those who sell it.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) size: Size,
    pub(super) definition: Definition,
    pub(super) ledger: Digest128,
    pub(super) nodes: Vec<NodeId>,
    /// Runs that live on each share.
    runs: Vec<Vec<RunId>>,
    /// What is free of a run on one of its homes, for some of the runs.
    free: Vec<Digest>,
}

/// A sale of so many runs, with a timetable for every `dates` of them.
///
/// # Errors
/// When it cannot be sold: more than a definition may hold.
pub(super) fn definition(runs: usize, shares: u16, dates: usize) -> Result<Definition> {
    let refused = |e: inventory::definition::BadDefinition| Error::Refused(e.to_string());
    let mut definition =
        Definition::try_from(sale::definition(LEDGER, sale::Terms::of(shares))).map_err(refused)?;
    let mut timetable = definition.timetables.remove(0);
    for (at, stop) in timetable.stops.iter_mut().enumerate() {
        stop.name = format!("Station {at:02}");
    }
    let trains = runs.div_ceil(dates);
    definition.timetables = vec![timetable; trains];
    for (at, timetable) in definition.timetables.iter_mut().enumerate() {
        timetable.name = format!("g{at}");
    }
    let run = |at: usize| Run {
        train: format!("G{}", at / dates),
        date: format!("2027-02-{:02}", at % dates + 1),
        timetable: u16::try_from(at / dates).unwrap_or(u16::MAX),
        homes: homes_of(SEATS.into(), shares),
        withdrawn: false,
    };
    definition.runs = (0..runs).map(run).collect();
    definition.check().map_err(refused)?;
    Ok(definition)
}

/// Genesis of a definition, as the ledger has it; none if it does not fit one record.
pub(super) fn genesis(definition: &Definition) -> Option<Vec<u8>> {
    let definition = definition.clone();
    let entry = PoolEntry::Genesis(Box::new(Genesis { topic_id: TOPIC_ID, definition }));
    record(entry).ok()
}

/// A record of partition 0.
///
/// # Errors
/// When the entry does not fit one.
pub(super) fn record(entry: PoolEntry) -> Result<Vec<u8>> {
    let record = pool_record(ledger_id(LEDGER, TOPIC_ID), Incarnation(1), START, &[entry]);
    record.map_err(|e| Error::Refused(format!("a record of partition 0: {e}")))
}

/// A policy under which everything is sold.
pub(super) fn policy() -> Policy {
    let limits = Limits {
        passengers_per_order: 5,
        live_holds: 1,
        orders: 10,
        payment_ms: 900_000,
        grace_ms: 2_000,
        low_water_seats: 2,
    };
    Policy { version: 1, state: SaleState::Active, open: None, close: None, limits }
}

impl Fleet {
    /// Makes one up.
    ///
    /// # Errors
    /// When such a sale cannot be.
    pub(super) fn of(size: Size) -> Result<Self> {
        let definition = definition(size.runs.into(), size.shares(), DATES)?;
        let mut runs = vec![Vec::new(); usize::from(size.shares())];
        for run in definition.run_ids() {
            for home in definition.homes(run) {
                runs[usize::from(home.0) - 1].push(run);
            }
        }
        // As long as the names that a Deployment gives to its pods.
        let node = |at: u16| format!("spring-default-6f9c8d7b5d-{at:05}").parse();
        let nodes = (0..size.nodes).map(node).collect::<std::result::Result<_, _>>();
        let nodes = nodes.map_err(|e: inventory::words::BadName| Error::Refused(e.to_string()))?;
        let free = sold(&definition, size);
        let ledger = ledger_id(LEDGER, TOPIC_ID);
        Ok(Self { size, definition, ledger, nodes, runs, free })
    }

    /// Rows of the board, over all shares.
    pub(super) fn rows(&self) -> usize {
        self.runs.iter().map(Vec::len).sum()
    }

    /// The shares of a node.
    pub(super) fn shares_of(&self, node: usize) -> impl Iterator<Item = ShareId> + '_ {
        let shares = (1..=self.size.shares()).map(ShareId);
        shares.filter(move |share| self.owner(*share) == node)
    }

    /// The node that owns a share.
    pub(super) fn owner(&self, share: ShareId) -> usize {
        (usize::from(share.0) - 1) % self.nodes.len()
    }

    pub(super) fn address(node: usize) -> Result<Address> {
        let address =
            format!("10.{}.{}.{}:8080", 100 + node / 65_536, node / 256 % 256, node % 256);
        address.parse().map_err(|e: inventory::words::BadName| Error::Refused(e.to_string()))
    }

    pub(super) fn incarnation(node: usize) -> Incarnation {
        Incarnation(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(node as u64 + 1))
    }

    /// The plan by which every share is owned.
    pub(super) fn assign(&self) -> Assign {
        let shares = (1..=self.size.shares()).map(ShareId);
        let nodes = shares.map(|share| (share, self.nodes[self.owner(share)])).collect();
        Assign { version: 1, nodes, ..Assign::default() }
    }

    /// The beat of this number of a node.
    ///
    /// # Errors
    /// When a made up name is no name: a defect.
    pub(super) fn beat(&self, node: usize, number: u64, tells: Tells) -> Result<Vec<u8>> {
        let share = |share| ShareBeat {
            share,
            epoch: Epoch(1),
            confirmed: Offset(1_000 + number),
            accepted_take: Some(Offset(17)),
            stage: ShareStage::Selling,
        };
        let rows = match tells {
            Tells::Nothing => Vec::new(),
            Tells::All | Tells::Changes => {
                self.shares_of(node).flat_map(|share| self.rows_of(share)).collect()
            }
        };
        let beat = Beat {
            ledger: self.ledger,
            node: self.nodes[node],
            address: Self::address(node)?,
            incarnation: Self::incarnation(node),
            number,
            state: NodeState::Ready,
            full: tells == Tells::All,
            pool: Offset(3),
            seen: Offset(number * self.nodes.len() as u64),
            shares: self.shares_of(node).map(share).collect(),
            folded: Vec::new(),
            rows,
        };
        Ok(beat.encode())
    }

    fn rows_of(&self, share: ShareId) -> impl Iterator<Item = Row> + '_ {
        self.runs[usize::from(share.0) - 1].iter().map(move |run| Row {
            share,
            run: *run,
            class: CLASS,
            digest: self.free[usize::from(run.0 + share.0) % self.free.len()].clone(),
            held: 3,
            next_end: Some(START.plus(60_000)),
        })
    }
}

/// What is left of some runs on each of their homes when the sale's orders are sold.
fn sold(definition: &Definition, size: Size) -> Vec<Digest> {
    let mut dice = Dice::new(1);
    let mut free = Vec::new();
    for run in definition.run_ids().take(RUNS_SOLD.into()) {
        let split = definition.initial_split(run);
        let homes: Vec<ShareId> = definition.homes(run).collect();
        let orders = size.orders / u32::from(size.runs) / homes.len() as u32;
        for home in homes {
            let mut stock = Stock::new(STOPS);
            for (_, block) in split.iter().filter(|(share, _)| *share == home) {
                stock.enter(block).expect("blocks of a run are disjoint");
            }
            for _ in 0..orders {
                let wish = Wish { journey: dice.journey(STOPS), party: 1, prefer: None };
                let Some(seats) = choose(&stock, &wish, |_| Place::Middle) else { continue };
                let taken = stock.take(seats[0], Legs::of(wish.journey));
                taken.expect("what was chosen is free");
            }
            free.push(Digest::of(&stock));
        }
    }
    free
}
