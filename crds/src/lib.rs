//! The TrainSale custom resource: what users write, checked and turned into what a ledger sells.
//!
//! In reading order:
//! - [`sale`]: the spec, its defaults and bounds; [`status`]: what the operator saw.

#[allow(clippy::duplicated_attributes, reason = "two columns may have the same type")]
pub mod sale;
pub mod status;

pub use sale::{TrainSale, TrainSaleSpec};
pub use status::TrainSaleStatus;
