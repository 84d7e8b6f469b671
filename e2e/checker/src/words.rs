//! Ids and small values that folds and the audit share.

use std::fmt;
use std::str::FromStr;

/// An order: the share that is its home, the epoch that made it, its number in that epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrderId {
    /// The home share.
    pub home: u16,
    /// The home's epoch at its first Held or Sent.
    pub epoch: u32,
    /// From 1.
    pub number: u32,
}

impl fmt::Display for OrderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.home, self.epoch, self.number)
    }
}

/// A text that is no order id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an order id, such as 3-1-42")]
pub struct NotAnOrder;

impl FromStr for OrderId {
    type Err = NotAnOrder;

    fn from_str(text: &str) -> Result<Self, NotAnOrder> {
        let mut parts = text.split('-');
        let mut part = || parts.next().ok_or(NotAnOrder);
        let home = part()?.parse().map_err(|_| NotAnOrder)?;
        let epoch = part()?.parse().map_err(|_| NotAnOrder)?;
        let number = part()?.parse().map_err(|_| NotAnOrder)?;
        if parts.next().is_some() {
            return Err(NotAnOrder);
        }
        Ok(Self { home, epoch, number })
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Place {
    /// 0 is the pool.
    pub partition: u16,
    /// From 0, without gaps.
    pub offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.partition, self.offset)
    }
}

/// Why an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its buyer gave it up before paying.
    Cancelled,
    /// Nobody paid in time.
    Expired,
    /// Its buyer gave it back after paying.
    Refunded,
    /// The seller took it back.
    Withdrawn,
}

impl Why {
    /// The word for figures.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Refunded => "refunded",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// The most seats of one order: what a `few` of the page holds.
pub const PARTY_MAX: usize = 16;

/// The seats of one order, in the order of its passengers. Most parties are small, and a checker
/// keeps millions of orders: up to six seats stay inline, so that the whole is 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seats(Kept);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kept {
    Few(u8, [u16; 6]),
    Many(u8, Box<[u16; PARTY_MAX]>),
}

impl Seats {
    /// No seats.
    #[must_use]
    pub const fn none() -> Self {
        Self(Kept::Few(0, [0; 6]))
    }

    /// Keeps the first `PARTY_MAX` of these; the page allows no more.
    #[must_use]
    pub fn of(seats: &[u16]) -> Self {
        let count = seats.len().min(PARTY_MAX);
        let kept = u8::try_from(count).unwrap_or(0);
        let mut few = [0; 6];
        if count <= few.len() {
            few[..count].copy_from_slice(&seats[..count]);
            return Self(Kept::Few(kept, few));
        }
        let mut many = Box::new([0; PARTY_MAX]);
        many[..count].copy_from_slice(&seats[..count]);
        Self(Kept::Many(kept, many))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[u16] {
        match &self.0 {
            Kept::Few(count, seats) => &seats[..usize::from(*count).min(seats.len())],
            Kept::Many(count, seats) => &seats[..usize::from(*count).min(seats.len())],
        }
    }
}

/// The legs `from..to` as a mask; leg 0 is the lowest bit.
#[must_use]
pub fn legs(from: u8, to: u8) -> u128 {
    let below = |stop: u8| 1u128.checked_shl(u32::from(stop)).map_or(u128::MAX, |bit| bit - 1);
    below(to) & !below(from)
}

/// The maximal ranges of set legs of a mask, as stops `(from, to)`.
pub fn stretches(mut mask: u128) -> impl Iterator<Item = (u8, u8)> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let from = mask.trailing_zeros();
        let to = from + (mask >> from).trailing_ones();
        mask &= u128::MAX.checked_shl(to).unwrap_or(0);
        Some((u8::try_from(from).ok()?, u8::try_from(to).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::{OrderId, Seats, legs, stretches};

    #[test]
    fn an_order_id_reads_back_as_it_is_written() {
        let id = OrderId { home: 3, epoch: 1, number: 42 };
        assert_eq!(id.to_string(), "3-1-42");
        assert_eq!("3-1-42".parse(), Ok(id));
        for wrong in ["", "3-1", "3-1-42-5", "x-1-2", "70000-1-1", "3--1"] {
            assert!(wrong.parse::<OrderId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn legs_and_stretches_agree_up_to_the_last_leg() {
        assert_eq!(legs(0, 2), 0b11);
        assert_eq!(legs(1, 3), 0b110);
        assert_eq!(legs(5, 5), 0);
        assert_eq!(legs(0, 128), u128::MAX);
        let mask = legs(0, 2) | legs(3, 4) | legs(100, 128);
        assert_eq!(stretches(mask).collect::<Vec<_>>(), [(0, 2), (3, 4), (100, 128)]);
        assert_eq!(stretches(u128::MAX).collect::<Vec<_>>(), [(0, 128)]);
        assert_eq!(stretches(0).count(), 0);
    }

    #[test]
    fn seats_are_kept_in_order_inline_or_not() {
        for count in 0..=16 {
            let seats: Vec<u16> = (0..count).collect();
            assert_eq!(Seats::of(&seats).all(), seats);
        }
        assert_eq!(size_of::<Seats>(), 16);
    }
}
