//! Proves from a raw ledger that nothing was sold twice and nothing was left over.
//!
//! Written from `docs/ledger-format.md` alone; it shares no code with what it checks, and Cargo
//! keeps that promise: this crate depends on none of ours. In reading order:
//!
//! - `words`, `bytes`, `ids`: small values, reading fields, hashes.
//! - `definition`, `frame`, `entry`: what records say.
//! - `kept`, `pool`, `share`: the folds, which records count.
//! - `source`, `file`, `kafka`: where records come from.
//! - `answers`: what buyers were told.
//! - `audit`, `book`, `travel`, `told`, `soldout`, `seats`: what must hold beyond the folds.
//! - `settled`: the topic of orders.
//! - `report`, `verify`, `cat`: what is said of it.

pub mod answers;
pub mod audit;
pub mod book;
pub mod bytes;
pub mod cat;
pub mod definition;
pub mod entry;
pub mod file;
pub mod frame;
pub mod ids;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod kept;
pub mod pool;
pub mod report;
pub mod seats;
pub mod settled;
pub mod share;
pub mod soldout;
pub mod source;
pub mod told;
pub mod travel;
pub mod verify;
pub mod words;
