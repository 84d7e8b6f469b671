//! Millions of values that carry their own keys.
//!
//! A map would hold each key twice and grow with its values inside. Here an index of four bytes
//! for each value finds it, and a second index by another key costs no more than that again.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// A value that knows its key.
pub trait Keyed {
    /// The key.
    type Key: Hash + Eq;

    /// The value's own.
    fn key(&self) -> Self::Key;
}

/// Where a value is kept. Four billion values would not fit into memory.
pub type Slot = u32;

/// Values, and an index by their keys.
#[derive(Clone, Debug)]
pub struct Kept<T> {
    all: Vec<T>,
    // Slots whose values were removed.
    free: Vec<Slot>,
    index: HashTable<Slot>,
    hasher: RandomState,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            all: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl<T: Keyed + Clone> Kept<T> {
    /// The slot of a key.
    pub fn slot(&self, key: &T::Key) -> Option<Slot> {
        let same = |slot: &Slot| self.at(*slot).is_some_and(|value| value.key() == *key);
        self.index.find(self.hasher.hash_one(key), same).copied()
    }

    /// The value in a slot.
    pub fn at(&self, slot: Slot) -> Option<&T> {
        self.all.get(usize::try_from(slot).ok()?)
    }

    /// The value of a key.
    pub fn get(&self, key: &T::Key) -> Option<&T> {
        self.at(self.slot(key)?)
    }

    /// The value of a key. Its key must stay as it is.
    pub fn get_mut(&mut self, key: &T::Key) -> Option<&mut T> {
        let slot = self.slot(key)?;
        self.all.get_mut(usize::try_from(slot).ok()?)
    }

    /// Keeps a value, in the place of the one that had its key. Gives its slot.
    pub fn insert(&mut self, value: T) -> Slot {
        let key = value.key();
        if let Some(slot) = self.slot(&key) {
            if let Some(old) = usize::try_from(slot).ok().and_then(|at| self.all.get_mut(at)) {
                *old = value;
            }
            return slot;
        }
        let slot = match self.free.pop() {
            Some(slot) => {
                if let Some(old) = usize::try_from(slot).ok().and_then(|at| self.all.get_mut(at)) {
                    *old = value;
                }
                slot
            }
            None => {
                self.all.push(value);
                Slot::try_from(self.all.len() - 1).expect("four billion values fit no memory")
            }
        };
        let Self { all, index, hasher, .. } = self;
        let hash = |slot: &Slot| rehash(all, hasher, *slot);
        index.insert_unique(hasher.hash_one(&key), slot, hash);
        slot
    }

    /// Gives a value back.
    pub fn remove(&mut self, key: &T::Key) -> Option<T> {
        let slot = self.slot(key)?;
        let found = self.index.find_entry(self.hasher.hash_one(key), |other| *other == slot);
        found.ok()?.remove();
        self.free.push(slot);
        self.at(slot).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.index.iter().filter_map(|slot| self.at(*slot))
    }
}

fn rehash<T: Keyed>(all: &[T], hasher: &RandomState, slot: Slot) -> u64 {
    let value = usize::try_from(slot).ok().and_then(|at| all.get(at));
    value.map_or(0, |value| hasher.hash_one(value.key()))
}

/// A second way to some of the values, by a key that they carry as well.
#[derive(Clone, Debug, Default)]
pub struct Index {
    slots: HashTable<Slot>,
    hasher: RandomState,
}

impl Index {
    /// The value under a key, by what each value has for it.
    pub fn find<'k, T: Keyed + Clone, K: Hash + Eq>(
        &self,
        kept: &'k Kept<T>,
        key: &K,
        of: impl Fn(&T) -> K,
    ) -> Option<&'k T> {
        let same = |slot: &Slot| kept.at(*slot).is_some_and(|value| of(value) == *key);
        kept.at(*self.slots.find(self.hasher.hash_one(key), same)?)
    }

    /// Adds a value's slot, unless it is there.
    pub fn insert<T: Keyed + Clone, K: Hash + Eq>(
        &mut self,
        kept: &Kept<T>,
        slot: Slot,
        of: impl Fn(&T) -> K,
    ) {
        let Some(value) = kept.at(slot) else { return };
        let hash = self.hasher.hash_one(of(value));
        if self.slots.find(hash, |other| *other == slot).is_some() {
            return;
        }
        let hasher = &self.hasher;
        let rehash = |slot: &Slot| kept.at(*slot).map_or(0, |value| hasher.hash_one(of(value)));
        self.slots.insert_unique(hash, slot, rehash);
    }

    /// Forgets a slot that has this key.
    pub fn remove<K: Hash>(&mut self, slot: Slot, key: &K) {
        let hash = self.hasher.hash_one(key);
        if let Ok(found) = self.slots.find_entry(hash, |other| *other == slot) {
            found.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::{any, prop, proptest};

    use super::{Index, Kept, Keyed};

    #[derive(Clone, Copy, Debug, PartialEq)]
    struct Value(u8, u16);

    impl Keyed for Value {
        type Key = u8;

        fn key(&self) -> u8 {
            self.0
        }
    }

    proptest! {
        #[test]
        fn it_keeps_what_a_map_keeps(
            steps in prop::collection::vec(any::<(bool, u8, u16)>(), 0..200),
        ) {
            let mut map = HashMap::new();
            let mut kept = Kept::default();
            for (adds, key, value) in steps {
                let key = key % 16;
                if adds {
                    map.insert(key, value);
                    kept.insert(Value(key, value));
                } else {
                    let due = map.remove(&key).map(|value| Value(key, value));
                    assert_eq!(kept.remove(&key), due);
                }
                assert_eq!(kept.len(), map.len());
                for key in 0..16 {
                    let due = map.get(&key).map(|value| Value(key, *value));
                    assert_eq!(kept.get(&key).copied(), due);
                }
                assert!(kept.iter().all(|value| map.get(&value.0) == Some(&value.1)));
            }
        }

        #[test]
        fn a_second_index_finds_what_was_added_to_it(
            keys in prop::collection::btree_set(any::<u8>(), 0..99),
        ) {
            let mut kept = Kept::default();
            let mut index = Index::default();
            let of = |value: &Value| value.1;
            for key in &keys {
                let slot = kept.insert(Value(*key, u16::from(*key) + 1_000));
                index.insert(&kept, slot, of);
                index.insert(&kept, slot, of);
            }
            for key in 0..=u8::MAX {
                let due = keys.contains(&key).then_some(Value(key, u16::from(key) + 1_000));
                assert_eq!(index.find(&kept, &(u16::from(key) + 1_000), of).copied(), due);
            }
            for key in &keys {
                let slot = kept.slot(key).unwrap();
                index.remove(slot, &(u16::from(*key) + 1_000));
                assert_eq!(index.find(&kept, &(u16::from(*key) + 1_000), of), None);
            }
        }
    }
}
