//! Drawing blocks from the pool, as [`inventory::draw`] says, with Redis if there is one.

use std::cell::RefCell;
use std::num::NonZeroU16;
use std::rc::Rc;
use std::time::Instant;

use inventory::draw::{Drawing, Step, Told};
use inventory::words::{Digest128, Request};
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

/// Carries a draw out to its Take.
pub(crate) async fn draw(station: Rc<Station>, mut drawing: Drawing) {
    let stock = station.drawer.stock.borrow().clone();
    let mut step = drawing.begin(station.world.borrow().pool(), stock.is_some(), random());
    let mut from_redis = false;
    let blocks = loop {
        let told = match (step, &stock) {
            (Step::Take(blocks), _) => break blocks,
            (Step::Ask { want, floor }, Some(stock)) => {
                station.metrics.redis_commands.inc();
                let want = NonZeroU16::new(want).unwrap_or(NonZeroU16::MIN);
                match stock.draw(drawing.run, drawing.class, want, floor).await {
                    Ok(Draw::Drawn { blocks, .. }) => Told::Drawn(blocks),
                    Ok(Draw::Empty { .. }) => Told::Empty,
                    Ok(Draw::Missing | Draw::Stale { .. }) => Told::Behind,
                    Err(why) => nothing(&why),
                }
            }
            (Step::Restock { blocks, at }, Some(stock)) => {
                station.metrics.redis_commands.inc();
                match stock.restock(drawing.run, drawing.class, blocks, at).await {
                    Ok(_) => Told::Restocked,
                    Err(why) => nothing(&why),
                }
            }
            (_, None) => Told::Nothing,
        };
        from_redis = matches!(told, Told::Drawn(_));
        step = drawing.go_on(station.world.borrow().pool(), told, random());
    };
    let draws =
        if from_redis { &station.metrics.draws_redis } else { &station.metrics.draws_direct };
    draws.inc();
    let record = {
        let world = station.world.borrow();
        let (now, mark) = (station.now().wall, Request(random()));
        drawing.record(world.pool(), station.me.incarnation, now, blocks, mark)
    };
    if let Some(record) = record {
        station.post(Mail::AppendToPool(record, None));
    }
}

fn nothing(why: &Failure) -> Told {
    let kind: &str = why.into();
    tracing::debug!(kind, %why, "Redis gave nothing; drawing without it");
    Told::Nothing
}

/// A random number; of no use to anyone who could guess it.
pub(crate) fn random() -> u64 {
    getrandom::u64().unwrap_or(0)
}
