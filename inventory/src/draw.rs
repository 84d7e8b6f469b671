//! Which blocks to draw from the pool: those that Redis gives, if it knows as much as one's own
//! fold, else one's own pick. Redis keeps nodes from naming the same blocks; the Take decides.

use crate::entry::{PoolEntry, Take};
use crate::pool::{Pool, pool_record};
use crate::stock::BlockId;
use crate::words::{ClassId, Incarnation, Millis, Offset, Request, RunId, ShareId};

/// What Redis said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// Draw these.
    Drawn(Vec<BlockId>),
    /// Nothing is free there: what was is on its way to others.
    Empty,
    /// It knows nothing of the class, or less than it has to.
    Behind,
    /// The restock is done.
    Restocked,
    /// Nothing certain: it is away, slow or broken.
    Nothing,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask Redis for up to `want` blocks of a set that has seen at least `floor`.
    Ask {
        /// How many.
        want: u16,
        /// The oldest picture that serves.
        floor: Offset,
    },
    /// Give Redis the whole set as this node has folded it.
    Restock {
        /// All blocks of the class in the pool.
        blocks: Vec<BlockId>,
        /// The fold's position.
        at: Offset,
    },
    /// Append the Take of these blocks; with none there is nothing to do.
    Take(Vec<BlockId>),
}

/// One draw.
#[derive(Debug, Clone)]
pub struct Drawing {
    /// The share that draws.
    pub share: ShareId,
    /// Of which run.
    pub run: RunId,
    /// Of which class.
    pub class: ClassId,
    want: u16,
    told: bool,
}

impl Drawing {
    /// A draw of up to `want` blocks.
    #[must_use]
    pub fn new(share: ShareId, run: RunId, class: ClassId, want: u32) -> Self {
        let want = u16::try_from(want).unwrap_or(u16::MAX).max(1);
        Self { share, run, class, want, told: false }
    }

    /// How it begins; `redis` tells whether there is one to ask. `salt` is random.
    #[must_use]
    pub fn begin(&self, pool: &Pool, redis: bool, salt: u64) -> Step {
        if redis {
            return Step::Ask { want: self.want, floor: pool.floor(self.run, self.class) };
        }
        self.pick(pool, salt)
    }

    /// How it goes on after what Redis said. It is told once what it lacks.
    #[must_use]
    pub fn go_on(&mut self, pool: &Pool, told: Told, salt: u64) -> Step {
        match told {
            Told::Drawn(blocks) => Step::Take(blocks),
            Told::Behind if !self.told => {
                self.told = true;
                let blocks = pool.blocks(self.run, self.class).collect();
                Step::Restock { blocks, at: pool.position() }
            }
            Told::Restocked => self.begin(pool, true, salt),
            Told::Behind | Told::Empty | Told::Nothing => self.pick(pool, salt),
        }
    }

    fn pick(&self, pool: &Pool, salt: u64) -> Step {
        Step::Take(pool.pick(self.run, self.class, usize::from(self.want), salt))
    }

    /// The record that draws `blocks`; none if there is nothing to draw.
    #[must_use]
    pub fn record(
        &self,
        pool: &Pool,
        incarnation: Incarnation,
        now: Millis,
        blocks: Vec<BlockId>,
        mark: Request,
    ) -> Option<Vec<u8>> {
        let ledger = pool.ledger().filter(|_| !blocks.is_empty())?;
        let take = PoolEntry::Take(Take { share: self.share, request: mark, blocks });
        pool_record(ledger, incarnation, now, &[take]).ok()
    }
}
