//! The orders of a share, kept by the million.
//!
//! Orders lie in slots that never move, and slot numbers lead to them: in a list by number, as
//! owners count their orders, and in tables by key and by buyer. A slot number and half of a hash
//! cost a table nine to twenty bytes an order, where a tree would repeat the name, half of its
//! nodes empty. The tables are divided into many, since one table of a million orders would stop a
//! sale for the time that it takes to grow.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use hashbrown::HashTable;

use crate::state::Order;
use crate::words::{BuyerHash, Digest128, Epoch, KeyHash, OrderId, ShareId};

/// Parts of a table: one that grows holds a 64th of the orders, for a millisecond at a million.
const PARTS: usize = 64;

/// Orders of one piece of memory.
const CHUNK: usize = 256;

/// Numbers of one owner's orders that may be left out in its list before one is looked for in the
/// table of all others. Frames that do not count leave a few out.
const LEFT_OUT_MAX: usize = 1_024;

/// A place where an order lies.
pub(crate) type Slot = u32;

/// An order in its slot.
#[derive(Debug, Clone)]
struct Kept {
    id: OrderId,
    /// The next older order of the same buyer whose home is here, and the next newer one: the
    /// oldest is forgotten first, and must be found without walking past all others.
    older: Option<Link>,
    newer: Option<Link>,
    order: Order,
}

/// A slot number and one, so that "none" takes no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Link(NonZeroU32);

impl Link {
    fn to(slot: Slot) -> Option<Self> {
        NonZeroU32::new(slot + 1).map(Self)
    }

    fn slot(self) -> Slot {
        self.0.get() - 1
    }
}

/// All orders that a share knows.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    chunks: Vec<Vec<Option<Kept>>>,
    vacant: Vec<Slot>,
    len: usize,
    /// By number, for each owner that counted its orders here or elsewhere.
    counted: BTreeMap<(ShareId, Epoch), Vec<Option<Link>>>,
    /// By id, where the numbers have holes: few orders come from another share.
    ids: Table,
    /// Only of orders whose home is here, as are the buyers.
    keys: Table,
    /// The newest order of each buyer.
    buyers: Table,
}

impl Orders {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All of them, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (OrderId, &Order)> {
        self.chunks.iter().flatten().flatten().map(|kept| (kept.id, &kept.order))
    }

    /// The order of that id.
    #[must_use]
    pub fn get(&self, id: OrderId) -> Option<&Order> {
        Some(&self.kept(self.slot(id)?)?.order)
    }

    pub(crate) fn get_mut(&mut self, id: OrderId) -> Option<&mut Order> {
        self.at_mut(self.slot(id)?)
    }

    pub(crate) fn at_mut(&mut self, slot: Slot) -> Option<&mut Order> {
        Some(&mut self.kept_mut(slot)?.order)
    }

    /// The order that has this key, of those whose home is here.
    pub(crate) fn of_key(&self, key: KeyHash) -> Option<(OrderId, &Order)> {
        let has = |slot| self.kept(slot).is_some_and(|kept| kept.order.key == key);
        let kept = self.kept(self.keys.find(of_digest(key), has)?)?;
        Some((kept.id, &kept.order))
    }

    /// A buyer's orders whose home is here, the newest first.
    pub(crate) fn of_buyer(&self, buyer: BuyerHash) -> impl Iterator<Item = (OrderId, &Order)> {
        let kept = |slot| self.kept(slot);
        let newest = self.newest(buyer).and_then(kept);
        let all = std::iter::successors(newest, move |it| kept(it.older?.slot()));
        all.map(|kept| (kept.id, &kept.order))
    }

    /// Puts an order where there was none of that id, and says where it lies. It leads to it by key
    /// and buyer if its home is `here`; no other order there has its key.
    pub(crate) fn insert(&mut self, id: OrderId, order: Order, here: bool) -> Slot {
        let (key, buyer) = (of_digest(order.key), of_digest(order.buyer));
        let older = if here { self.newest(order.buyer) } else { None };
        let slot = self.place(Kept { id, older: older.and_then(Link::to), newer: None, order });
        if let Some(older) = older.and_then(|older| self.kept_mut(older)) {
            older.newer = Link::to(slot);
        }
        if !count(&mut self.counted, id, slot) {
            self.ids.insert(of_id(id), slot);
        }
        if here {
            self.keys.insert(key, slot);
            match older {
                Some(older) => self.buyers.replace(buyer, older, slot),
                None => self.buyers.insert(buyer, slot),
            }
        }
        self.len += 1;
        slot
    }

    /// Forgets an order.
    pub(crate) fn remove(&mut self, id: OrderId) {
        let Some(slot) = self.slot(id) else { return };
        let (chunk, at) = split(slot);
        let Some(gone) = self.chunks.get_mut(chunk).and_then(|c| c[at].take()) else { return };
        match self.counted.get_mut(&(id.home, id.epoch)).and_then(|c| c.get_mut(id.number as usize))
        {
            Some(link) if link.is_some_and(|link| link.slot() == slot) => *link = None,
            _ => self.ids.remove(of_id(id), slot),
        }
        self.keys.remove(of_digest(gone.order.key), slot);
        self.unlink(&gone, slot);
        self.vacant.push(slot);
        self.len -= 1;
    }

    /// Takes an order out of the chain of its buyer's. One that is in none has no neighbours, and
    /// no buyer leads to it.
    fn unlink(&mut self, gone: &Kept, slot: Slot) {
        let buyer = of_digest(gone.order.buyer);
        match (gone.newer.and_then(|newer| self.kept_mut(newer.slot())), gone.older) {
            (Some(newer), older) => newer.older = older,
            (None, Some(older)) => self.buyers.replace(buyer, slot, older.slot()),
            (None, None) => self.buyers.remove(buyer, slot),
        }
        if let Some(older) = gone.older.and_then(|older| self.kept_mut(older.slot())) {
            older.newer = gone.newer;
        }
    }

    fn place(&mut self, kept: Kept) -> Slot {
        if let Some(slot) = self.vacant.pop() {
            let (chunk, at) = split(slot);
            self.chunks[chunk][at] = Some(kept);
            return slot;
        }
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let chunk = self.chunks.len() - 1;
        self.chunks[chunk].push(Some(kept));
        u32::try_from(chunk * CHUNK + self.chunks[chunk].len() - 1).expect("four billion orders")
    }

    /// Where the order of that id lies.
    pub(crate) fn slot(&self, id: OrderId) -> Option<Slot> {
        let counted = self.counted.get(&(id.home, id.epoch));
        if let Some(Some(link)) = counted.and_then(|c| c.get(id.number as usize)) {
            return Some(link.slot());
        }
        self.ids.find(of_id(id), |slot| self.kept(slot).is_some_and(|kept| kept.id == id))
    }

    /// The order that lies there.
    pub(crate) fn at(&self, slot: Slot) -> Option<(OrderId, &Order)> {
        self.kept(slot).map(|kept| (kept.id, &kept.order))
    }

    fn newest(&self, buyer: BuyerHash) -> Option<Slot> {
        let has = |slot| self.kept(slot).is_some_and(|kept| kept.order.buyer == buyer);
        self.buyers.find(of_digest(buyer), has)
    }

    /// Looks where an order of this key and buyer will be looked for: whoever does so for many
    /// before the first waits for memory once, where one look after the other would wait for each.
    pub(crate) fn look_ahead(&self, key: KeyHash, buyer: BuyerHash) {
        let (keys, buyers) = (self.keys.has(of_digest(key)), self.buyers.has(of_digest(buyer)));
        std::hint::black_box(keys | buyers);
    }

    fn kept(&self, slot: Slot) -> Option<&Kept> {
        let (chunk, at) = split(slot);
        self.chunks.get(chunk)?.get(at)?.as_ref()
    }

    fn kept_mut(&mut self, slot: Slot) -> Option<&mut Kept> {
        let (chunk, at) = split(slot);
        self.chunks.get_mut(chunk)?.get_mut(at)?.as_mut()
    }
}

/// The same orders, wherever they lie.
impl PartialEq for Orders {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().all(|(id, order)| other.get(id) == Some(order))
    }
}

impl Eq for Orders {}

fn split(slot: Slot) -> (usize, usize) {
    (slot as usize / CHUNK, slot as usize % CHUNK)
}

/// Puts an order into the list of its owner's, unless too many would be left out.
fn count(
    counted: &mut BTreeMap<(ShareId, Epoch), Vec<Option<Link>>>,
    id: OrderId,
    slot: Slot,
) -> bool {
    let (number, owner) = (id.number as usize, (id.home, id.epoch));
    let list = match counted.get_mut(&owner) {
        Some(list) => list,
        None if number <= LEFT_OUT_MAX => counted.entry(owner).or_default(),
        None => return false,
    };
    if number > list.len() + LEFT_OUT_MAX {
        return false;
    }
    if list.len() <= number {
        list.resize(number + 1, None);
    }
    list[number] = Link::to(slot);
    true
}

/// Digests are keyed hashes already: nobody without the ledger's key can make two meet.
fn of_digest(digest: Digest128) -> u64 {
    let [first, ..] = *digest.0.as_chunks::<8>().0 else { return 0 };
    u64::from_le_bytes(first)
}

/// Ids are given out by owners, one after the other (one step of SplitMix64 over them).
fn of_id(id: OrderId) -> u64 {
    let all = u64::from(id.home.0) << 48 ^ u64::from(id.epoch.0) << 32 ^ u64::from(id.number);
    let z = all.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}

/// What a table knows of a hash: the seven bits by which it tells places apart at a glance, and the
/// 25 by which it finds them, which is enough for parts of thirty million. So a part that grows
/// does not have to look at the orders themselves, which lie all over the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Half(u32);

impl Half {
    const FINDS: u32 = (1 << 25) - 1;

    fn of(hash: u64) -> Self {
        Self(((hash >> 57) as u32) << 25 | hash as u32 & Self::FINDS)
    }

    fn hash(self) -> u64 {
        u64::from(self.0 >> 25) << 57 | u64::from(self.0 & Self::FINDS)
    }
}

/// Where an order lies, and half of the hash that leads there.
#[derive(Debug, Clone, Copy)]
struct Place {
    half: Half,
    slot: Slot,
}

/// Slot numbers by a hash of what lies there.
#[derive(Debug, Clone, Default)]
struct Table(Vec<HashTable<Place>>);

impl Table {
    fn find(&self, hash: u64, is: impl Fn(Slot) -> bool) -> Option<Slot> {
        let half = Half::of(hash);
        let found = |place: &Place| place.half == half && is(place.slot);
        Some(self.0.get(part(hash))?.find(half.hash(), found)?.slot)
    }

    /// Whether there may be something of that hash.
    fn has(&self, hash: u64) -> bool {
        self.find(hash, |_| true).is_some()
    }

    fn insert(&mut self, hash: u64, slot: Slot) {
        if self.0.is_empty() {
            self.0.resize_with(PARTS, HashTable::new);
        }
        let half = Half::of(hash);
        let place = Place { half, slot };
        self.0[part(hash)].insert_unique(half.hash(), place, |place| place.half.hash());
    }

    fn replace(&mut self, hash: u64, old: Slot, new: Slot) {
        let half = Half::of(hash).hash();
        let part = self.0.get_mut(part(hash));
        if let Some(found) = part.and_then(|p| p.find_mut(half, |place| place.slot == old)) {
            found.slot = new;
        }
    }

    fn remove(&mut self, hash: u64, slot: Slot) {
        if let Some(part) = self.0.get_mut(part(hash))
            && let Ok(found) = part.find_entry(Half::of(hash).hash(), |place| place.slot == slot)
        {
            found.remove();
        }
    }
}

/// By bits that [`Half`] leaves out.
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::legs::Journey;
    use crate::state::OrderState;
    use crate::words::{Attempt, ClassId, Epoch, Millis, RunId, ShareId};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Some of them count from one on, some begin far away, as a damaged log may.
    fn id(number: u32) -> OrderId {
        let number_of_owner = if number < 40 { number } else { number << 24 };
        OrderId { home: ShareId(1), epoch: Epoch(number % 3), number: number_of_owner }
    }

    fn order(number: u32, buyer: u8) -> Order {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&number.to_le_bytes());
        Order {
            buyer: Digest128([buyer; 16]),
            key: Digest128(key),
            body: Digest128::default(),
            run: RunId(0),
            class: ClassId(0),
            journey: Journey::new(0, 1).unwrap(),
            party: 1,
            price: u64::from(number),
            state: OrderState::Seeking { attempt: Attempt(1), since: Millis(0) },
            returned: Box::default(),
        }
    }

    proptest! {
        #[test]
        fn orders_are_found_by_id_key_and_buyer_until_they_are_forgotten(
            steps in prop::collection::vec((any::<bool>(), 0u32..60, 0u8..4, any::<bool>()), 0..200),
        ) {
            let mut orders = Orders::default();
            let mut told: BTreeMap<u32, (u8, bool, usize)> = BTreeMap::new();
            for (time, (comes, number, buyer, here)) in steps.into_iter().enumerate() {
                if comes && !told.contains_key(&number) {
                    orders.insert(id(number), order(number, buyer), here);
                    told.insert(number, (buyer, here, time));
                } else if !comes {
                    orders.remove(id(number));
                    told.remove(&number);
                }
                prop_assert_eq!(orders.len(), told.len());
                prop_assert_eq!(orders.iter().count(), told.len());
                for (number, (buyer, here, _)) in &told {
                    let kept = order(*number, *buyer);
                    prop_assert_eq!(orders.get(id(*number)), Some(&kept));
                    let of_key = orders.of_key(kept.key).map(|(id, _)| id);
                    prop_assert_eq!(of_key, here.then_some(id(*number)));
                }
                for buyer in 0..4 {
                    let mut of_buyer: Vec<(usize, u32)> = told
                        .iter()
                        .filter(|(_, (of, here, _))| *of == buyer && *here)
                        .map(|(number, (.., time))| (*time, *number))
                        .collect();
                    of_buyer.sort_unstable();
                    let newest_first: Vec<OrderId> =
                        of_buyer.into_iter().rev().map(|(_, number)| id(number)).collect();
                    let found: Vec<OrderId> =
                        orders.of_buyer(Digest128([buyer; 16])).map(|(id, _)| id).collect();
                    prop_assert_eq!(found, newest_first);
                }
            }
        }
    }

    #[test]
    fn a_kept_order_is_small() {
        assert!(size_of::<Option<Kept>>() <= 152, "{}", size_of::<Option<Kept>>());
    }
}
