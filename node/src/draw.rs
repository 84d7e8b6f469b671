//! Drawing blocks from the pool: Redis picks so that nodes do not collide, the Take in
//! partition 0 decides. Without Redis, or when it knows less than this node's fold, the fold
//! picks: a collision then costs another draw and nothing else.

use std::cell::RefCell;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Instant;

use inventory::entry::{PoolEntry, Take};
use inventory::pool::pool_record;
use inventory::stock::BlockId;
use inventory::words::{ClassId, Digest128, Request, RunId, ShareId};
use lua::{Draw, Failure, PoolStock};

use crate::station::{Mail, Station};

/// The way to the pool's stock.
#[derive(Debug, Default)]
pub(crate) struct Drawer {
    address: Option<String>,
    /// Made when the ledger is known, since its name is in every key.
    stock: RefCell<Option<PoolStock>>,
}

impl Drawer {
    pub(crate) fn new(address: Option<String>) -> Self {
        Self { address, stock: RefCell::default() }
    }

    /// Connects, in the background, once it is known which ledger this is.
    pub(crate) fn start(&self, ledger: Digest128) {
        let Some(address) = &self.address else { return };
        match PoolStock::start(address, ledger) {
            Ok(stock) => *self.stock.borrow_mut() = Some(stock),
            Err(why) => tracing::error!(%why, "Redis cannot be used; draws go without it"),
        }
    }

    /// Whether a Redis is used, and how long ago it last answered, in milliseconds.
    #[expect(clippy::option_option, reason = "no Redis is not one that never answered")]
    pub(crate) fn health(&self) -> Option<Option<u64>> {
        self.address.as_ref()?;
        let answered = self.stock.borrow().as_ref().and_then(PoolStock::answered);
        Some(answered.map(|at: Instant| at.elapsed().as_millis() as u64))
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
    let want = u16::try_from(want).ok().and_then(NonZeroU16::new).unwrap_or(NonZeroU16::MIN);
    let blocks = match pick_from_redis(&station, run, class, want).await {
        Some(blocks) => blocks,
        None => {
            station.metrics.draws_direct.inc();
            station.world.borrow().pool.pick(run, class, want.get().into(), random())
        }
    };
    let record = {
        let world = station.world.borrow();
        let Some(ledger) = world.pool.ledger().filter(|_| !blocks.is_empty()) else { return };
        let take = PoolEntry::Take(Take { share, request: Request(random()), blocks });
        pool_record(ledger, station.me.incarnation, station.now().wall, &[take])
    };
    if let Ok(record) = record {
        station.post(Mail::AppendToPool(record, None));
    }
}

/// What Redis gives, if it knows as much as this node's fold; it is told once what it lacks.
async fn pick_from_redis(
    station: &Station,
    run: RunId,
    class: ClassId,
    want: NonZeroU16,
) -> Option<Vec<BlockId>> {
    let stock = station.drawer.stock.borrow().clone()?;
    for told in [false, true] {
        let floor = station.world.borrow().pool.floor(run, class);
        station.metrics.redis_commands.inc();
        match stock.draw(run, class, want, floor).await {
            Ok(Draw::Drawn { blocks, .. }) => {
                station.metrics.draws_redis.inc();
                return Some(blocks);
            }
            Ok(Draw::Empty { .. }) => return None,
            Ok(Draw::Missing | Draw::Stale { .. }) if !told => {
                let (blocks, at): (Vec<BlockId>, _) = {
                    let world = station.world.borrow();
                    (world.pool.blocks(run, class).collect(), world.pool.position())
                };
                station.metrics.redis_commands.inc();
                if let Err(why) = stock.restock(run, class, blocks, at).await {
                    complain(&why);
                    return None;
                }
            }
            Ok(Draw::Missing | Draw::Stale { .. }) => return None,
            Err(why) => {
                complain(&why);
                return None;
            }
        }
    }
    None
}

fn complain(why: &Failure) {
    let kind: &str = why.into();
    tracing::debug!(kind, %why, "Redis gave nothing; drawing without it");
}

/// A random number; of no use to anyone who could guess it.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}
