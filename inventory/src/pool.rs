//! Partition 0: Genesis, the stock that no share owns, hints and policy.
//!
//! Any node may append here and the first valid record wins, so that no two readers disagree.
//! What this version cannot read freezes the pool: a node that does not understand the ledger
//! must not sell from it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::catalogue::Catalogue;
use crate::codec::Malformed;
use crate::definition::Definition;
use crate::entry::{Assign, Genesis, Policy, PoolEntry, Take};
use crate::fold::Void;
use crate::stock::{Block, BlockId};
use crate::teeth::{self, Bug};
use crate::wire::{Chain, Draft, Frame, Full, Header, POOL_BYTES_MAX};
use crate::words::{
    ClassId, Digest128, Epoch, Incarnation, LedgerKey, Millis, Offset, Request, RunId, Seq, ShareId,
};

/// What an accepted record changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// The ledger began.
    Founded,
    /// There is more to sell, or other times and fares.
    Amended,
    /// Blocks left the pool for a share. Empty if all were gone before.
    Taken {
        /// The share that got them.
        share: ShareId,
        /// The drawing node's mark.
        request: Request,
        /// What it got.
        blocks: Vec<Block>,
    },
    /// The hint changed.
    Assigned,
    /// The policy changed.
    Ruled,
}

/// What a pool record means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolVerdict {
    /// It counts; what it changed.
    Accepted(Vec<Effect>),
    /// It does not count.
    Void(Void),
    /// This version cannot read it: the pool is frozen.
    Fault(String),
}

/// What is known once Genesis was read.
#[derive(Debug, Clone)]
struct Founded {
    id: Digest128,
    key: LedgerKey,
    topic_id: [u8; 16],
    hash: Digest128,
    genesis: Arc<Catalogue>,
    definition: Arc<Catalogue>,
    version: u64,
}

/// Partition 0, folded up to some offset.
#[derive(Debug, Clone)]
pub struct Pool {
    name: String,
    /// The topic that Genesis must name; none takes any.
    expected: Option<[u8; 16]>,
    position: Offset,
    frozen: Option<String>,
    founded: Option<Founded>,
    free: BTreeMap<(RunId, ClassId), BTreeSet<u16>>,
    takes: BTreeMap<ShareId, Vec<(Offset, Vec<Block>)>>,
    /// Shares that were ever given a block of a (run, class).
    sellers: BTreeMap<(RunId, ClassId), BTreeSet<ShareId>>,
    assign: Assign,
    policy: Option<Policy>,
    /// The offset behind the last record that changed what is to sell.
    changed: Offset,
    /// The offset behind the last Take of a class that got less than it named.
    contested: BTreeMap<(RunId, ClassId), Offset>,
}

/// Blocks of one Take at most; one with more does not count. Its Accept must fit a frame.
pub const TAKE_BLOCKS_MAX: usize = 256;

/// What names a ledger in every frame: its name and its topic's id.
#[must_use]
pub fn ledger_id(name: &str, topic_id: [u8; 16]) -> Digest128 {
    LedgerKey::derive(name, topic_id).hash(0, &[b"ledger"])
}

/// A pool record with these entries.
///
/// # Errors
/// [`Full`] if they do not fit one record.
pub fn pool_record(
    ledger: Digest128,
    incarnation: Incarnation,
    now: Millis,
    entries: &[PoolEntry],
) -> Result<Vec<u8>, Full> {
    let mut draft = Draft::new(POOL_BYTES_MAX);
    for entry in entries {
        draft.push_pool(entry)?;
    }
    let header = Header {
        ledger,
        share: ShareId::POOL,
        epoch: Epoch(0),
        incarnation,
        seq: Seq(0),
        now,
        previous: Chain::default(),
    };
    Ok(draft.seal(&header).0)
}

impl Pool {
    /// Before the first record of the ledger with this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            expected: None,
            position: Offset(0),
            frozen: None,
            founded: None,
            free: BTreeMap::new(),
            takes: BTreeMap::new(),
            sellers: BTreeMap::new(),
            assign: Assign::default(),
            policy: None,
            changed: Offset(0),
            contested: BTreeMap::new(),
        }
    }

    /// Takes only the Genesis of the topic with this id.
    #[must_use]
    pub fn expecting(self, topic_id: [u8; 16]) -> Self {
        Self { expected: Some(topic_id), ..self }
    }

    /// Folds the record at `at`. Total: any bytes give a verdict, none panics.
    pub fn fold(&mut self, at: Offset, record: &[u8]) -> PoolVerdict {
        if let Some(why) = &self.frozen {
            return PoolVerdict::Fault(why.clone());
        }
        self.position = Offset(at.0 + 1);
        let frame = match Frame::read(record) {
            Ok(frame) => frame,
            Err(why @ Malformed::Unknown { .. }) => {
                self.frozen = Some(why.to_string());
                return PoolVerdict::Fault(why.to_string());
            }
            Err(_) => return PoolVerdict::Void(Void::Malformed),
        };
        let foreign = self.founded.as_ref().is_some_and(|f| f.id != frame.header.ledger);
        if frame.header.share != ShareId::POOL || foreign {
            return PoolVerdict::Void(Void::Foreign);
        }
        let entries = match frame.pool_entries() {
            Ok(entries) => entries,
            Err(why) => {
                self.frozen = Some(why.to_string());
                return PoolVerdict::Fault(why.to_string());
            }
        };
        let apply = |entry| self.apply(at, &frame, entry);
        let effects: Vec<Effect> = entries.into_iter().filter_map(apply).collect();
        if effects.is_empty() {
            return PoolVerdict::Void(Void::WrongVersion);
        }
        PoolVerdict::Accepted(effects)
    }

    fn apply(&mut self, at: Offset, frame: &Frame<'_>, entry: PoolEntry) -> Option<Effect> {
        match entry {
            PoolEntry::Genesis(genesis) => self.found(frame, *genesis),
            _ if self.founded.is_none() => None,
            PoolEntry::Amend { version, definition } => self.amend(version, *definition),
            PoolEntry::Take(take) => self.take(at, take),
            PoolEntry::Assign(assign) => {
                let next = assign.version == self.assign.version + 1;
                next.then(|| {
                    self.assign = assign;
                    Effect::Assigned
                })
            }
            PoolEntry::Policy(policy) => {
                let next = policy.version == self.policy_version() + 1;
                next.then(|| {
                    self.policy = Some(policy);
                    Effect::Ruled
                })
            }
        }
    }

    fn found(&mut self, frame: &Frame<'_>, genesis: Genesis) -> Option<Effect> {
        let id = ledger_id(&self.name, genesis.topic_id);
        let own = genesis.definition.ledger == self.name && frame.header.ledger == id;
        let strange = self.expected.is_some_and(|id| id != genesis.topic_id);
        let founded = self.founded.is_some() && !teeth::has(Bug::GenesisAgain);
        if founded || !own || strange || genesis.definition.check().is_err() {
            return None;
        }
        let definition = Arc::new(Catalogue::new(genesis.definition));
        for run in definition.run_ids() {
            for (share, block) in definition.initial_split(run) {
                self.give(share, &block);
            }
        }
        self.founded = Some(Founded {
            id,
            key: LedgerKey::derive(&self.name, genesis.topic_id),
            topic_id: genesis.topic_id,
            hash: frame.chain.0,
            genesis: Arc::clone(&definition),
            definition,
            version: 1,
        });
        self.changed = self.position;
        Some(Effect::Founded)
    }

    fn give(&mut self, share: ShareId, block: &Block) {
        let key = (block.id.run, block.class);
        if share == ShareId::POOL {
            self.free.entry(key).or_default().insert(block.id.index);
        } else {
            self.sellers.entry(key).or_default().insert(share);
        }
    }

    fn amend(&mut self, version: u64, definition: Definition) -> Option<Effect> {
        let founded = self.founded.as_ref()?;
        let (genesis, old) = (Arc::clone(&founded.genesis), Arc::clone(&founded.definition));
        if version != founded.version + 1 || old.allows(&definition).is_err() {
            return None;
        }
        for run in definition.run_ids() {
            // Coaches are only appended, so the new blocks are those behind the old ones.
            let old = if teeth::has(Bug::AmendTwice) { &genesis } else { &old };
            let known = if old.timetable(run).is_some() { old.blocks(run).count() } else { 0 };
            for block in definition.blocks(run).skip(known) {
                self.give(ShareId::POOL, &block);
            }
        }
        let founded = self.founded.as_mut()?;
        founded.definition = Arc::new(Catalogue::new(definition));
        founded.version = version;
        self.changed = self.position;
        Some(Effect::Amended)
    }

    fn take(&mut self, at: Offset, take: Take) -> Option<Effect> {
        let definition = Arc::clone(&self.founded.as_ref()?.definition);
        let ours = take.share != ShareId::POOL && take.share.0 <= definition.shares;
        if !ours || take.blocks.len() > TAKE_BLOCKS_MAX {
            return None;
        }
        let mut blocks = Vec::new();
        for id in take.blocks {
            let Some(block) = definition.blocks(id.run).nth(usize::from(id.index)) else {
                continue;
            };
            let free = self.free.get_mut(&(id.run, block.class));
            if free.is_some_and(|free| free.remove(&id.index)) {
                self.give(take.share, &block);
                blocks.push(block);
            } else {
                self.contested.insert((id.run, block.class), self.position);
            }
        }
        if !blocks.is_empty() {
            let takes = self.takes.entry(take.share).or_default();
            match takes.last_mut() {
                // The Takes of one record have its offset in common: one Accept repeats them all.
                Some((last, given)) if *last == at => given.extend_from_slice(&blocks),
                _ => takes.push((at, blocks.clone())),
            }
        }
        Some(Effect::Taken { share: take.share, request: take.request, blocks })
    }

    /// The offset of the next record to fold.
    #[must_use]
    pub fn position(&self) -> Offset {
        self.position
    }

    /// Why this version cannot go on reading.
    #[must_use]
    pub fn frozen(&self) -> Option<&str> {
        self.frozen.as_deref()
    }

    /// What names this ledger in every frame, once Genesis was read.
    #[must_use]
    pub fn ledger(&self) -> Option<Digest128> {
        self.founded.as_ref().map(|f| f.id)
    }

    /// The key of all hashes, once Genesis was read.
    #[must_use]
    pub fn key(&self) -> Option<LedgerKey> {
        self.founded.as_ref().map(|f| f.key)
    }

    /// The topic id in Genesis.
    #[must_use]
    pub fn topic_id(&self) -> Option<[u8; 16]> {
        self.founded.as_ref().map(|f| f.topic_id)
    }

    /// The checksum of the record with Genesis.
    #[must_use]
    pub fn genesis_hash(&self) -> Option<Digest128> {
        self.founded.as_ref().map(|f| f.hash)
    }

    /// What is sold now.
    #[must_use]
    pub fn definition(&self) -> Option<&Arc<Catalogue>> {
        self.founded.as_ref().map(|f| &f.definition)
    }

    /// The version of the definition; 0 before Genesis, which is 1.
    #[must_use]
    pub fn definition_version(&self) -> u64 {
        self.founded.as_ref().map_or(0, |f| f.version)
    }

    /// How much of this partition a picture of a class's free blocks must have seen to be of
    /// use: what there is to sell changed there, or somebody drew without that picture.
    #[must_use]
    pub fn floor(&self, run: RunId, class: ClassId) -> Offset {
        self.contested.get(&(run, class)).copied().unwrap_or(Offset(0)).max(self.changed)
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// The version of the policy; 0 before the first.
    #[must_use]
    pub fn policy_version(&self) -> u64 {
        self.policy.as_ref().map_or(0, |p| p.version)
    }

    /// The hint in force; version 0 before the first.
    #[must_use]
    pub fn assign(&self) -> &Assign {
        &self.assign
    }

    /// All shares of the ledger; none before Genesis.
    pub fn shares(&self) -> impl Iterator<Item = ShareId> + use<> {
        let count = self.founded.as_ref().map_or(0, |f| f.genesis.shares);
        (1..=count).map(ShareId)
    }

    /// The stock that Genesis gave to a share.
    #[must_use]
    pub fn initial(&self, share: ShareId) -> Vec<Block> {
        let Some(founded) = &self.founded else { return Vec::new() };
        let genesis = &founded.genesis;
        // To split a run costs a hundred times as much as to see that it does not live here.
        let here = genesis.run_ids().filter(|run| genesis.lives_on(*run, share));
        let split = here.flat_map(|run| genesis.initial_split(run));
        split.filter(|(to, _)| *to == share).map(|(_, block)| block).collect()
    }

    /// Takes of a share behind `accepted`, oldest first: what its owner has to accept.
    pub fn takes_after(
        &self,
        share: ShareId,
        accepted: Option<Offset>,
    ) -> impl Iterator<Item = &(Offset, Vec<Block>)> {
        let takes = self.takes.get(&share).map_or(&[][..], Vec::as_slice);
        let first = takes.partition_point(|(at, _)| Some(*at) <= accepted);
        takes[first..].iter()
    }

    /// The last Take of a share, if it ever drew.
    #[must_use]
    pub fn last_take(&self, share: ShareId) -> Option<Offset> {
        self.takes.get(&share).and_then(|t| t.last()).map(|(at, _)| *at)
    }

    /// Shares that were ever given a block of this run and class.
    pub fn sellers(&self, run: RunId, class: ClassId) -> impl Iterator<Item = ShareId> + '_ {
        self.sellers.get(&(run, class)).into_iter().flatten().copied()
    }

    /// Blocks of this run and class that are still in the pool, by index.
    pub fn blocks(&self, run: RunId, class: ClassId) -> impl Iterator<Item = BlockId> + '_ {
        let free = self.free.get(&(run, class)).into_iter().flatten();
        free.map(move |index| BlockId { run, index: *index })
    }

    /// Whether any block of this run and class is still in the pool.
    #[must_use]
    pub fn has_blocks(&self, run: RunId, class: ClassId) -> bool {
        self.free.get(&(run, class)).is_some_and(|f| !f.is_empty())
    }

    /// Seats of this run and class that are still in the pool.
    #[must_use]
    pub fn seats(&self, run: RunId, class: ClassId) -> u32 {
        let Some(founded) = &self.founded else { return 0 };
        let Some(free) = self.free.get(&(run, class)) else { return 0 };
        if free.is_empty() {
            return 0;
        }
        let blocks = founded.definition.blocks(run).filter(|b| free.contains(&b.id.index));
        blocks.map(|b| b.seats.len() as u32).sum()
    }

    /// Up to `want` blocks to draw. `salt` spreads nodes that pick at the same time, so that
    /// they rarely pick the same ones.
    #[must_use]
    pub fn pick(&self, run: RunId, class: ClassId, want: usize, salt: u64) -> Vec<BlockId> {
        let blocks: Vec<BlockId> = self.blocks(run, class).collect();
        if blocks.is_empty() {
            return blocks;
        }
        let start = usize::try_from(salt % blocks.len() as u64).unwrap_or(0);
        let around = blocks[start..].iter().chain(&blocks[..start]);
        around.take(want).copied().collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::definition::tests::one_run;
    use crate::entry::{Limits, SaleState};

    pub(crate) const TOPIC: [u8; 16] = [9; 16];

    pub(crate) fn limits() -> Limits {
        Limits {
            passengers_per_order: 5,
            live_holds: 1,
            orders: 10,
            payment_ms: 900_000,
            grace_ms: 2_000,
            low_water_seats: 2,
        }
    }

    pub(crate) fn policy(version: u64) -> Policy {
        let state = SaleState::Active;
        Policy { version, state, open: None, close: None, limits: limits() }
    }

    pub(crate) fn say(pool: &mut Pool, entry: PoolEntry) -> PoolVerdict {
        let id = ledger_id("test", TOPIC);
        let record = pool_record(id, Incarnation(1), Millis(1), &[entry]).unwrap();
        pool.fold(pool.position(), &record)
    }

    /// A founded pool over `definition`.
    pub(crate) fn founded(definition: Definition) -> Pool {
        let mut pool = Pool::new("test");
        let genesis = Box::new(Genesis { topic_id: TOPIC, definition });
        let verdict = say(&mut pool, PoolEntry::Genesis(genesis));
        assert_eq!(verdict, PoolVerdict::Accepted(vec![Effect::Founded]));
        pool
    }

    fn take(share: u16, index: u16) -> PoolEntry {
        let blocks = vec![BlockId { run: RunId(0), index }];
        PoolEntry::Take(Take { share: ShareId(share), request: Request(1), blocks })
    }

    #[test]
    fn two_takes_of_one_record_are_one_for_the_share_that_accepts_them() {
        let mut pool = founded(one_run(3, 1, 1, 100));
        let at = pool.position();
        let id = ledger_id("test", TOPIC);
        let record = pool_record(id, Incarnation(1), Millis(1), &[take(1, 2), take(1, 5)]).unwrap();
        pool.fold(at, &record);
        let takes: Vec<_> = pool.takes_after(ShareId(1), None).collect();
        let indexes = |blocks: &[Block]| blocks.iter().map(|b| b.id.index).collect::<Vec<_>>();
        assert_eq!(takes.len(), 1, "the second would never be accepted: {takes:?}");
        assert_eq!((takes[0].0, indexes(&takes[0].1)), (at, vec![2, 5]));
    }

    #[test]
    fn nothing_counts_before_genesis_and_a_second_genesis_does_not() {
        let mut pool = Pool::new("test");
        let void = PoolVerdict::Void(Void::WrongVersion);
        assert_eq!(say(&mut pool, PoolEntry::Policy(policy(1))), void);
        let mut pool = founded(one_run(5, 2, 4, 20));
        let other = Genesis { topic_id: TOPIC, definition: one_run(9, 9, 4, 20) };
        assert_eq!(say(&mut pool, PoolEntry::Genesis(Box::new(other))), void);
        assert_eq!(pool.definition().unwrap().timetables[0].stops.len(), 5);
    }

    #[test]
    fn a_genesis_of_another_topic_or_name_does_not_found() {
        let mut pool = Pool::new("test");
        let genesis = Genesis { topic_id: [1; 16], definition: one_run(5, 2, 4, 20) };
        let void = PoolVerdict::Void(Void::WrongVersion);
        assert_eq!(say(&mut pool, PoolEntry::Genesis(Box::new(genesis))), void);
        assert!(pool.ledger().is_none());
    }

    #[test]
    fn a_block_leaves_the_pool_once() {
        // 180 seats in 18 blocks of 10: the last 3 stay in the pool.
        let mut pool = founded(one_run(5, 2, 4, 20));
        let (run, class) = (RunId(0), ClassId(0));
        assert_eq!(pool.blocks(run, class).map(|b| b.index).collect::<Vec<_>>(), [15, 16, 17]);
        assert_eq!(pool.seats(run, class), 30);
        let got = |verdict| match verdict {
            PoolVerdict::Accepted(effects) => match &effects[0] {
                Effect::Taken { blocks, .. } => blocks.len(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        assert_eq!(got(say(&mut pool, take(3, 16))), 1);
        assert_eq!(got(say(&mut pool, take(2, 16))), 0);
        assert_eq!(got(say(&mut pool, take(2, 3))), 0, "that block is a share's");
        assert_eq!(got(say(&mut pool, take(2, 99))), 0, "there is no such block");
        assert_eq!(pool.last_take(ShareId(3)), Some(Offset(1)));
        assert_eq!(pool.last_take(ShareId(2)), None);
        assert_eq!(pool.takes_after(ShareId(3), None).count(), 1);
        assert_eq!(pool.takes_after(ShareId(3), Some(Offset(1))).count(), 0);
        assert!(pool.sellers(run, class).any(|s| s == ShareId(3)));
    }

    #[test]
    fn versions_count_and_the_first_wins() {
        let mut pool = founded(one_run(5, 2, 4, 20));
        let ruled = PoolVerdict::Accepted(vec![Effect::Ruled]);
        assert_eq!(say(&mut pool, PoolEntry::Policy(policy(1))), ruled);
        let void = PoolVerdict::Void(Void::WrongVersion);
        assert_eq!(say(&mut pool, PoolEntry::Policy(policy(1))), void);
        assert_eq!(say(&mut pool, PoolEntry::Policy(policy(3))), void);
        assert_eq!(say(&mut pool, PoolEntry::Policy(policy(2))), ruled);
    }

    #[test]
    fn an_amend_s_blocks_enter_the_pool_once() {
        let mut pool = founded(one_run(5, 2, 4, 0));
        let longer = Box::new(one_run(5, 3, 4, 0));
        let mut longer_same_homes = longer.clone();
        longer_same_homes.runs = pool.definition().unwrap().runs.clone();
        let amend =
            |v, d: &Definition| PoolEntry::Amend { version: v, definition: Box::new(d.clone()) };
        assert_eq!(pool.seats(RunId(0), ClassId(0)), 0);
        let amended = PoolVerdict::Accepted(vec![Effect::Amended]);
        assert_eq!(say(&mut pool, amend(2, &longer_same_homes)), amended);
        assert_eq!(pool.seats(RunId(0), ClassId(0)), 90);
        let void = PoolVerdict::Void(Void::WrongVersion);
        assert_eq!(say(&mut pool, amend(2, &longer_same_homes)), void);
        assert_eq!(say(&mut pool, amend(3, &one_run(6, 3, 4, 0))), void, "stops never change");
        assert_eq!(
            pool.initial(ShareId(1)).len()
                + pool.initial(ShareId(2)).len()
                + pool.initial(ShareId(3)).len()
                + pool.initial(ShareId(4)).len(),
            18
        );
    }

    #[test]
    fn an_unreadable_word_freezes_the_pool_and_stray_bytes_do_not() {
        let mut pool = founded(one_run(5, 2, 4, 0));
        assert_eq!(pool.fold(Offset(1), b"junk"), PoolVerdict::Void(Void::Malformed));
        let id = ledger_id("test", TOPIC);
        let mut draft = Draft::new(1_000);
        draft.push(&crate::entry::Entry::Yield { to: None }).unwrap();
        let header = Header {
            ledger: id,
            share: ShareId::POOL,
            epoch: Epoch(0),
            incarnation: Incarnation(1),
            seq: Seq(0),
            now: Millis(0),
            previous: Chain::default(),
        };
        assert!(matches!(pool.fold(Offset(2), &draft.seal(&header).0), PoolVerdict::Fault(_)));
        assert!(pool.frozen().is_some());
        assert!(matches!(say(&mut pool, PoolEntry::Policy(policy(1))), PoolVerdict::Fault(_)));
    }
}
