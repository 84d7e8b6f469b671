//! Drawing blocks from the pool: Redis picks so that nodes do not collide, the Take in
//! partition 0 decides.

use std::rc::Rc;

use inventory::entry::{PoolEntry, Take};
use inventory::pool::pool_record;
use inventory::stock::BlockId;
use inventory::words::{ClassId, Millis, Request, RunId, ShareId};

use crate::station::{Mail, Station};

/// The way to the pool's stock.
#[derive(Debug, Default)]
pub(crate) struct Drawer {}

impl Drawer {
    /// Whether a Redis is used, and how long ago it last answered.
    #[expect(clippy::option_option, reason = "no Redis, or one that never answered")]
    pub(crate) fn health(&self, _now: Millis) -> Option<Option<u64>> {
        None
    }
}

/// Picks up to `want` blocks for a share and asks the log for them.
pub(crate) async fn draw(
    station: Rc<Station>,
    share: ShareId,
    run: RunId,
    class: ClassId,
    want: u32,
) {
    let blocks = pick(&station, run, class, want);
    let record = {
        let world = station.world.borrow();
        let Some(ledger) = world.pool.ledger().filter(|_| !blocks.is_empty()) else { return };
        let request = Request(random());
        let take = PoolEntry::Take(Take { share, request, blocks });
        pool_record(ledger, station.me.incarnation, station.now().wall, &[take])
    };
    if let Ok(record) = record {
        station.post(Mail::AppendToPool(record, None));
    }
}

fn pick(station: &Station, run: RunId, class: ClassId, want: u32) -> Vec<BlockId> {
    station.metrics.draws_direct.inc();
    station.world.borrow().pool.pick(run, class, want as usize, random())
}

/// A random number; of no use to anyone who could guess it.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}
