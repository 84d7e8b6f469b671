//! Ids and units: one type for one thing, so that a share is never taken for a run.

use std::fmt;
use std::str::FromStr;

use arrayvec::ArrayString;
use smallvec::SmallVec;

/// Milliseconds since the Unix epoch on the writer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

impl Millis {
    /// This time plus `ms` milliseconds; never wraps.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A share of the stock, `1..=S`, and its partition; 0 is the pool.
    ShareId(u16)
}
number! {
    /// Counts the claims of a share; 0 before the first.
    Epoch(u32)
}
number! {
    /// The place of a frame among the frames of its epoch; the Claim is 0.
    Seq(u32)
}
number! {
    /// The place of a record in its partition, from 0 on.
    Offset(u64)
}
number! {
    /// Random, new at every start of a process: tells a restarted node from its former self.
    Incarnation(u64)
}
number! {
    /// A run: its index in the definition. Runs are only ever appended.
    RunId(u16)
}
number! {
    /// A class of a run: its index in the run's timetable.
    ClassId(u8)
}
number! {
    /// Which try to place an order on another share: 1, 2, …
    Attempt(u16)
}
number! {
    /// A draw's mark, by which the drawing node knows its own `Take` again.
    Request(u64)
}

impl ShareId {
    /// The pool: the stock that no share owns yet.
    pub const POOL: Self = Self(0);
}

/// A 128-bit keyed BLAKE3 hash. Tells values apart without telling the values.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Digest128(pub [u8; 16]);

impl fmt::Display for Digest128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest128 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A buyer, keyed by the ledger.
pub type BuyerHash = Digest128;
/// An idempotency key, keyed by the ledger.
pub type KeyHash = Digest128;
/// What a request asked for, so that the same key with another body is noticed.
pub type BodyHash = Digest128;
/// A passenger's document, keyed by the ledger.
pub type PassengerHash = Digest128;

/// The name of a node: a pod's name, at most 63 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(ArrayString<63>);

/// Where a node is reached by its peers: `host:port`, at most 80 bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(ArrayString<80>);

/// A name that does not fit its type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must have 1 to {max} bytes: {text:?}")]
pub struct BadName {
    what: &'static str,
    max: usize,
    text: String,
}

macro_rules! name {
    ($name:ident, $max:literal, $what:literal) => {
        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = BadName;
            fn from_str(text: &str) -> Result<Self, BadName> {
                let bad = || BadName { what: $what, max: $max, text: text.to_owned() };
                if text.is_empty() {
                    return Err(bad());
                }
                ArrayString::from(text).map(Self).map_err(|_| bad())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}
name!(NodeId, 63, "a node's name");
name!(Address, 80, "an address");

/// An order: named by its home share, the epoch that made it and a number within that epoch.
/// A void frame's ids may be given again, since nobody was ever told them as confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId {
    /// The share where the order's key, limits and life are kept.
    pub home: ShareId,
    /// The epoch of `home` that made the order.
    pub epoch: Epoch,
    /// Counts the orders of that epoch, from 1 on.
    pub number: u32,
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.home, self.epoch, self.number)
    }
}

/// Text that is not an order id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an order id has the form SHARE-EPOCH-NUMBER, such as 3-1-42")]
pub struct BadOrderId;

impl FromStr for OrderId {
    type Err = BadOrderId;

    fn from_str(text: &str) -> Result<Self, BadOrderId> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next().ok_or(BadOrderId);
        let id = Self {
            home: ShareId(next()?.parse().map_err(|_| BadOrderId)?),
            epoch: Epoch(next()?.parse().map_err(|_| BadOrderId)?),
            number: next()?.parse().map_err(|_| BadOrderId)?,
        };
        // "+3-01-2" names the same numbers: one order has one name.
        if id.to_string() == text { Ok(id) } else { Err(BadOrderId) }
    }
}

/// The ledger's own key: every hash of a buyer, key or passenger is keyed by it, so that the
/// same person in two ledgers cannot be joined.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LedgerKey([u8; 32]);

impl LedgerKey {
    /// Derives the key from the ledger's name and the random id in its Genesis.
    #[must_use]
    pub fn derive(name: &str, id: [u8; 16]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key("stationmaster 2026 ledger key");
        hasher.update(&id).update(name.as_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// Hashes `parts`, each with its length, so that ("ab","c") differs from ("a","bc").
    #[must_use]
    pub fn hash(&self, domain: u8, parts: &[&[u8]]) -> Digest128 {
        // In one piece: a hasher that is fed in parts has two kilobytes to set up.
        let mut text = SmallVec::<[u8; 512]>::new();
        text.push(domain);
        for part in parts {
            text.extend_from_slice(&(part.len() as u64).to_le_bytes());
            text.extend_from_slice(part);
        }
        let hash = blake3::keyed_hash(&self.0, &text);
        let mut out = [0; 16];
        out.copy_from_slice(&hash.as_bytes()[..16]);
        Digest128(out)
    }

    /// The keyed hash of a buyer's identity.
    #[must_use]
    pub fn buyer(&self, subject: &str) -> BuyerHash {
        self.hash(1, &[subject.as_bytes()])
    }

    /// The keyed hash of an idempotency key, scoped to (buyer, run).
    #[must_use]
    pub fn key(&self, buyer: BuyerHash, run: RunId, key: &str) -> KeyHash {
        self.hash(2, &[&buyer.0, &run.0.to_le_bytes(), key.as_bytes()])
    }

    /// The keyed hash of a passenger's document.
    #[must_use]
    pub fn passenger(&self, document: &str) -> PassengerHash {
        self.hash(3, &[document.as_bytes()])
    }

    /// The keyed hash of what a request asks for.
    #[must_use]
    pub fn body(&self, parts: &[&[u8]]) -> BodyHash {
        self.hash(4, parts)
    }
}

impl fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LedgerKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_has_one_spelling() {
        let id = OrderId { home: ShareId(3), epoch: Epoch(1), number: 42 };
        assert_eq!("3-1-42".parse(), Ok(id));
        assert_eq!(id.to_string(), "3-1-42");
        for bad in ["", "3-1", "3-1-", "+3-1-42", "3-01-42", "3-1-42-1", "3-1--1", "70000-1-1"] {
            assert_eq!(bad.parse::<OrderId>(), Err(BadOrderId), "{bad}");
        }
    }

    #[test]
    fn hashes_of_shifted_parts_differ() {
        let key = LedgerKey::derive("l", [0; 16]);
        assert_ne!(key.hash(0, &[b"ab", b"c"]), key.hash(0, &[b"a", b"bc"]));
    }

    #[test]
    fn a_name_that_is_empty_or_too_long_is_refused_by_name() {
        assert!("".parse::<NodeId>().is_err());
        assert!("x".repeat(64).parse::<NodeId>().unwrap_err().to_string().contains("node's name"));
        assert!("x".repeat(63).parse::<NodeId>().is_ok());
    }
}
