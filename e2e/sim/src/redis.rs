//! The pool's stock in Redis, as `lua/draw.lua` and `lua/restock.lua` keep it.

use std::collections::BTreeMap;

use inventory::draw::Told;
use inventory::stock::BlockId;
use inventory::words::{ClassId, Offset, RunId};

/// How long a draw's lease lasts.
const LEASE_MS: u64 = 10_000;

#[derive(Debug, Clone)]
struct Set {
    at: Offset,
    /// Blocks and the end of their lease, if they are leased.
    blocks: BTreeMap<u16, Option<u64>>,
}

/// One Redis.
#[derive(Debug, Clone, Default)]
pub(crate) struct Redis {
    sets: BTreeMap<(RunId, ClassId), Set>,
}

impl Redis {
    pub(crate) fn draw(
        &mut self,
        now: u64,
        run: RunId,
        class: ClassId,
        want: u16,
        floor: Offset,
    ) -> Told {
        let Some(set) = self.sets.get_mut(&(run, class)) else { return Told::Behind };
        if set.at < floor {
            return Told::Behind;
        }
        let free = set.blocks.iter().filter(|(_, lease)| lease.is_none());
        let free: Vec<u16> = free.map(|(index, _)| *index).take(want.into()).collect();
        if free.is_empty() {
            let ended = set.blocks.values().flatten().any(|end| *end <= now);
            return if ended { Told::Behind } else { Told::Empty };
        }
        for index in &free {
            set.blocks.insert(*index, Some(now + LEASE_MS));
        }
        Told::Drawn(free.into_iter().map(|index| BlockId { run, index }).collect())
    }

    pub(crate) fn restock(
        &mut self,
        now: u64,
        run: RunId,
        class: ClassId,
        blocks: &[BlockId],
        at: Offset,
    ) -> Told {
        let old = self.sets.get(&(run, class));
        if old.is_some_and(|set| set.at > at) {
            return Told::Restocked;
        }
        let lease = |block: &BlockId| {
            let lease = old.and_then(|set| set.blocks.get(&block.index).copied().flatten());
            (block.index, lease.filter(|end| *end > now))
        };
        let blocks = blocks.iter().map(lease).collect();
        self.sets.insert((run, class), Set { at, blocks });
        Told::Restocked
    }
}
