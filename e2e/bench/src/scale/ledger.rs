//! What a definition weighs, what partition 0 costs to read, and how fast a share is folded.

use std::time::Instant;

use control::config::{FoundingConfig, Kafka, Step, VERSION};
use e2e::{Error, Result};
use inventory::definition::Definition;
use inventory::entry::{PoolEntry, Take};
use inventory::pool::{Pool, PoolVerdict};
use inventory::words::{ClassId, Offset, Request, ShareId};
use serde::Serialize;

use super::fleet::{DATES, Fleet, LEDGER, definition, genesis, record};
use super::{grown, median_millis};
use crate::replay;

/// What the API server takes as the data of a ConfigMap, in bytes; the definition comes to the
/// founding Job in one.
const CONFIG_MAP_BYTES_MAX: usize = 1_048_576;
/// As an owner draws.
const DRAW_BLOCKS: usize = 3;
/// Shares of which the first stock is worked out.
const INITIALS: u16 = 8;
/// The largest log of a share that is folded here; a longer one is folded no faster.
const FOLDED_MAX: u32 = 1_000_000;

/// Partition 0 of a sale.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Founding {
    /// Bytes of the record that is Genesis, and of any Amend.
    pub(crate) genesis_bytes: usize,
    /// Bytes of the ConfigMap by which the founding Job is told.
    pub(crate) config_map_bytes: usize,
    /// Bytes of the record that is a plan.
    pub(crate) assign_bytes: usize,
    /// Milliseconds to write Genesis.
    pub(crate) write_ms: f64,
    /// Milliseconds to fold it.
    pub(crate) fold_ms: f64,
    /// Milliseconds to work the first stock of one share out.
    pub(crate) initial_ms: f64,
    /// The same for every share of the ledger, one after the other: the product.
    pub(crate) initial_of_all_s: f64,
    /// Takes by which all of the pool's stock is drawn.
    pub(crate) takes: usize,
    /// Takes that are folded in a second.
    pub(crate) takes_per_second: f64,
    /// Bytes of memory of a pool that has read Genesis.
    pub(crate) founded_bytes: u64,
    /// Bytes of memory of a pool from which all was drawn.
    pub(crate) drawn_bytes: u64,
}

/// How many runs fit, of trains that run on so many dates.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fits {
    pub(crate) dates: usize,
    /// Into one record of partition 0.
    pub(crate) record_runs: usize,
    /// Into the ConfigMap of the founding Job.
    pub(crate) config_map_runs: usize,
}

/// Measures partition 0.
///
/// # Errors
/// When Genesis does not fit a record, or a record does not count.
pub(super) fn founding(fleet: &Fleet) -> Result<Founding> {
    let written = || genesis(&fleet.definition);
    let record_of = written().ok_or_else(|| Error::Refused("Genesis is too long".to_owned()))?;
    let founded = || -> Result<Pool> {
        let mut pool = Pool::new(LEDGER);
        counted(&pool.fold(Offset(0), &record_of))?;
        Ok(pool)
    };
    let pool = founded()?;
    let takes = takes(&fleet.definition, &pool)?;
    let drawn = || -> Result<Pool> {
        let mut pool = founded()?;
        for (at, take) in (1..).zip(&takes) {
            counted(&pool.fold(Offset(at), take))?;
        }
        Ok(pool)
    };
    let mut draws = founded()?;
    let begun = Instant::now();
    for (at, take) in (1..).zip(&takes) {
        counted(&draws.fold(Offset(at), take))?;
    }
    let seconds = begun.elapsed().as_secs_f64();
    drop(draws);
    let mut share = 0;
    let initial_ms = median_millis(INITIALS.min(fleet.size.shares()).into(), || {
        share += 1;
        std::hint::black_box(pool.initial(ShareId(share)));
    });
    Ok(Founding {
        genesis_bytes: record_of.len(),
        config_map_bytes: config_map(&fleet.definition)?,
        assign_bytes: record(PoolEntry::Assign(fleet.assign()))?.len(),
        write_ms: median_millis(3, || {
            std::hint::black_box(written());
        }),
        fold_ms: median_millis(3, || {
            let _ = std::hint::black_box(founded());
        }),
        initial_ms,
        initial_of_all_s: initial_ms * f64::from(fleet.size.shares()) / 1_000.0,
        takes_per_second: takes.len() as f64 / seconds,
        takes: takes.len(),
        founded_bytes: grown(founded)?,
        drawn_bytes: grown(drawn)?,
    })
}

fn counted(verdict: &PoolVerdict) -> Result<()> {
    match verdict {
        PoolVerdict::Accepted(_) => Ok(()),
        other => Err(Error::Refused(format!("a record of partition 0 does not count: {other:?}"))),
    }
}

/// Records by which the homes of each run draw all that the pool has of it.
fn takes(definition: &Definition, pool: &Pool) -> Result<Vec<Vec<u8>>> {
    let mut records = Vec::new();
    for run in definition.run_ids() {
        let blocks = pool.pick(run, ClassId(0), usize::MAX, 0);
        let homes: Vec<ShareId> = definition.homes(run).collect();
        for (share, blocks) in homes.iter().cycle().zip(blocks.chunks(DRAW_BLOCKS)) {
            let request = Request(records.len() as u64);
            let take = Take { share: *share, request, blocks: blocks.to_vec() };
            records.push(record(PoolEntry::Take(take))?);
        }
    }
    Ok(records)
}

/// Bytes of the founding Job's configuration, as the operator writes it.
fn config_map(definition: &Definition) -> Result<usize> {
    let config = FoundingConfig {
        version: VERSION,
        step: Step::Topics,
        topic: LEDGER.to_owned(),
        board_topic: format!("{LEDGER}.board"),
        kafka: Kafka { bootstrap_servers: "kafka-bootstrap.kafka.svc:9092".to_owned() },
        partitions: definition.shares + 1,
        replicas: 3,
        min_in_sync_replicas: 2,
        topic_id: None,
        genesis_hash: None,
        timeout_ms: 8_000,
        definition: definition.clone().into(),
    };
    let text = serde_json::to_string(&config).map_err(|e| Error::Refused(e.to_string()))?;
    Ok(text.len())
}

/// The largest sales that can be written down, for trains that run on `dates` dates.
///
/// # Errors
/// When a definition cannot be written at all: a defect.
pub(super) fn fits(shares: u16, dates: usize) -> Result<Fits> {
    let most = |fits: &dyn Fn(&Definition) -> Result<bool>| -> Result<usize> {
        // A definition that breaks another limit does not fit either.
        let fits = |runs| definition(runs, shares, dates).map_or(Ok(false), |d| fits(&d));
        let (mut low, mut high) = (1, inventory::definition::RUNS_MAX + 1);
        while high - low > 1 {
            let middle = usize::midpoint(low, high);
            if fits(middle)? { low = middle } else { high = middle }
        }
        Ok(low)
    };
    Ok(Fits {
        dates,
        record_runs: most(&|d| Ok(genesis(d).is_some()))?,
        config_map_runs: most(&|d| Ok(config_map(d)? <= CONFIG_MAP_BYTES_MAX))?,
    })
}

/// Folding the log of one share of a sale that is divided into so many.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Folding {
    pub(crate) shares: u16,
    pub(crate) orders_of_a_share: u32,
    pub(crate) orders_per_second: f64,
    /// Milliseconds to fold one share.
    pub(crate) share_ms: f64,
}

/// Folds a share's log; orders are spread evenly.
///
/// # Errors
/// When a record does not count: a defect.
pub(super) fn folding(orders: u32, shares: u16) -> Result<Folding> {
    let orders_of_a_share = (orders / u32::from(shares)).max(1);
    let replayed = replay::replay(orders_of_a_share.min(FOLDED_MAX), 1)?;
    Ok(Folding {
        shares,
        orders_of_a_share,
        orders_per_second: replayed.orders_per_second,
        share_ms: f64::from(orders_of_a_share) / replayed.orders_per_second * 1_000.0,
    })
}

/// Every shape of sale whose largest is looked for: each train on some weeks of dates, and on one.
pub(super) const SHAPES: [usize; 2] = [DATES, 1];
