//! Strange bytes for whatever reads bytes.
//!
//! Every harness takes bytes and nothing else, so that one serves libFuzzer, which grows them
//! towards new code, and `cargo test`, which draws them at random for a second each and tries
//! the kept corpus first. `make fuzz` runs all of them for longer. Two ways to use the bytes:
//! as what a decoder is given, and as [`Dice`] that decide how a valid history goes on and
//! where it is damaged; what is only random never gets past a checksum.
//!
//! - [`dice`]: decisions out of bytes.
//! - [`say`]: frames and entries of a small ledger, well-formed and damaged.
//! - [`rivals`]: the product's folds and the checker's over the same records. Neither knows the
//!   other's code, so that where they differ one of them is wrong.
//!
//! `tests/wire.rs` tries decoders, `tests/folds.rs` the rivals, `tests/sale.rs` TrainSales. What
//! is private to a crate has its harness there: Redis' replies in `lua`, order bodies in `node`.

pub mod dice;
pub mod rivals;
pub mod say;
