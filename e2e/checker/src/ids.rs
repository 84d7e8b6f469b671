//! Ids and hashes of the page's sections 7 and 8.

use crate::bytes::Hash;

fn head<const N: usize>(hash: blake3::Hash) -> [u8; N] {
    let mut head = [0; N];
    head.copy_from_slice(&hash.as_bytes()[..N]);
    head
}

/// The key under which a ledger's ids are made.
#[derive(Clone, Copy, Debug)]
pub struct Key([u8; 32]);

impl Key {
    /// The key that follows from a topic id and a ledger's name.
    #[must_use]
    pub fn of(topic: &Hash, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("stationmaster 2026 ledger key");
        hasher.update(topic).update(name.as_bytes());
        Self(head(hasher.finalize()))
    }

    fn hash(&self, domain: u8, parts: &[&[u8]]) -> Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&[domain]);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        head(hasher.finalize())
    }

    /// The ledger's id.
    #[must_use]
    pub fn ledger(&self) -> Hash {
        self.hash(0, &[b"ledger"])
    }

    /// A buyer's hash.
    #[must_use]
    pub fn buyer(&self, identity: &str) -> Hash {
        self.hash(1, &[identity.as_bytes()])
    }

    /// The hash of a buyer's idempotency key for a run.
    #[must_use]
    pub fn idempotency(&self, buyer: &Hash, run: u16, key: &str) -> Hash {
        self.hash(2, &[buyer, &run.to_le_bytes(), key.as_bytes()])
    }

    /// A passenger's hash.
    #[must_use]
    pub fn passenger(&self, document: &str) -> Hash {
        self.hash(3, &[document.as_bytes()])
    }
}

/// The hash that places a run on its shares.
#[must_use]
pub fn run_hash(ledger: &str, train: &str, date: &str) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key("stationmaster 2026 run home");
    for part in [ledger, train, date] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    u64::from_le_bytes(head(hasher.finalize()))
}
