//! The TrainSale custom resource: what users write, checked and turned into what a ledger sells.
//!
//! In reading order:
//! - [`sale`]: the spec, its defaults and bounds; [`status`]: what the operator saw.
//! - [`rules`]: what the API server checks besides; [`crd`]: the definition made of both.
//! - [`checks`]: all that is wrong with a sale, or with a change of it, said in Rust.
//! - [`definition`]: what the ledger of a sale sells.
//! - [`file`]: a sale read from YAML, for local mode.

pub mod checks;
pub mod crd;
pub mod definition;
pub mod file;
pub mod rules;
#[allow(clippy::duplicated_attributes, reason = "two columns may have the same type")]
pub mod sale;
mod schema;
pub mod status;

pub use sale::{TrainSale, TrainSaleSpec};
pub use status::TrainSaleStatus;
