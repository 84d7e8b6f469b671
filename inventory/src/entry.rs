//! The ledger's vocabulary: everything that can be said in a partition.
//!
//! [`Entry`] is what a share's owner writes, [`PoolEntry`] what any node writes to partition 0.
//! What a word means is decided in `state` and `pool`; how it lies in bytes, in `wire`.

use std::collections::BTreeMap;

use smallvec::SmallVec;

use crate::allocate::Seats;
use crate::definition::{Definition, Place};
use crate::legs::Journey;
use crate::stock::{Block, BlockId};
use crate::words::{
    Address, Attempt, BodyHash, BuyerHash, ClassId, Digest128, Epoch, KeyHash, Millis, NodeId,
    Offset, OrderId, PassengerHash, Request, RunId, ShareId,
};

/// The passengers of one order, at most [`PARTY_MAX`], in the order of the request. One or two
/// lie in the order itself, which is moved from hand to hand.
pub type Passengers = SmallVec<[PassengerHash; 2]>;

/// What the owner of a share says in the share's partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// From here on the claimant owns the share. Alone in its frame.
    Claim {
        /// Who claims.
        node: NodeId,
        /// Where its peers reach it.
        address: Address,
    },
    /// The blocks that a `Take` in the pool gave to this share enter its stock, free.
    Accept {
        /// The offset of the `Take` in partition 0.
        take: Offset,
        /// The blocks that it gave, whole, so that this log folds without the pool.
        blocks: Vec<Block>,
    },
    /// Seats are held for an order.
    Held(Held),
    /// A held order was paid.
    Paid {
        /// Which order.
        order: OrderId,
        /// The provider's payment, hashed.
        payment: Digest128,
        /// In minor units.
        amount: u64,
    },
    /// A payment that came too late, or twice, is to be returned.
    Refunded {
        /// Which order.
        order: OrderId,
        /// The provider's payment, hashed.
        payment: Digest128,
        /// In minor units.
        amount: u64,
    },
    /// The order is over; its legs are free at once.
    Ended {
        /// Which order.
        order: OrderId,
        /// How it ended.
        why: End,
    },
    /// The order goes to look for seats on another share.
    Sent(Sent),
    /// The order holds seats on the share it was sent to, and lives there.
    Placed {
        /// Which order.
        order: OrderId,
        /// The try that found seats.
        attempt: Attempt,
        /// The seats that are held there.
        seats: Seats,
        /// Until when.
        deadline: Millis,
    },
    /// The share it was sent to said no, for ever.
    Returned {
        /// Which order.
        order: OrderId,
        /// The try that found none.
        attempt: Attempt,
    },
    /// The share where it lived ended it.
    Closed {
        /// Which order.
        order: OrderId,
        /// The try that had placed it.
        attempt: Attempt,
        /// How it ended there.
        why: End,
    },
    /// This share will never hold seats for that try.
    Refused {
        /// Which order.
        order: OrderId,
        /// The try that is refused.
        attempt: Attempt,
    },
    /// The owner gives the share up; the last entry of its epoch.
    Yield {
        /// Who should claim next.
        to: Option<NodeId>,
    },
}

/// Seats held for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which order; its home may be another share.
    pub order: OrderId,
    /// 0 at home, else the try by which it came here.
    pub attempt: Attempt,
    /// What was asked, by whom.
    pub request: OrderRequest,
    /// The seats, one for each passenger.
    pub seats: Seats,
    /// Until when it is held unless it is paid.
    pub deadline: Millis,
}

/// An order on its way to another share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Which order; its home is the share that says this.
    pub order: OrderId,
    /// Which try this is, from 1 on.
    pub attempt: Attempt,
    /// The share it goes to.
    pub to: ShareId,
    /// What was asked, by whom.
    pub request: OrderRequest,
}

/// What a buyer asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRequest {
    /// The idempotency key, scoped to (buyer, run).
    pub key: KeyHash,
    /// What the body said.
    pub body: BodyHash,
    /// Who asks.
    pub buyer: BuyerHash,
    /// Which run.
    pub run: RunId,
    /// Which class.
    pub class: ClassId,
    /// From where to where.
    pub journey: Journey,
    /// Where they would like to sit.
    pub prefer: Option<Place>,
    /// For whom, one seat each.
    pub passengers: Passengers,
    /// The whole price, in minor units.
    pub price: u64,
}

impl OrderRequest {
    /// How many passengers.
    #[must_use]
    pub fn party(&self) -> u8 {
        u8::try_from(self.passengers.len()).expect("PARTY_MAX fits a byte")
    }
}

/// How an order ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::FromRepr)]
#[strum(serialize_all = "kebab-case")]
#[repr(u8)]
pub enum End {
    /// Its buyer gave it up before paying.
    Cancelled = 1,
    /// It was not paid in time.
    Expired = 2,
    /// Its buyer gave it back after paying.
    Refunded = 3,
    /// The railway withdrew its seats.
    Withdrawn = 4,
}

/// What anyone says in partition 0. The first valid record wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolEntry {
    /// The ledger begins. Nothing counts before it.
    Genesis(Box<Genesis>),
    /// More to sell, other times and fares, or runs that are off sale.
    Amend {
        /// The definition's version: the present one plus 1 (Genesis is 1).
        version: u64,
        /// The whole definition that is in force from here on.
        definition: Box<Definition>,
    },
    /// Blocks leave the pool for a share, each if it is still there.
    Take(Take),
    /// Which node should own which share: a hint that claims obey.
    Assign(Assign),
    /// Whether and how the sale goes on.
    Policy(Policy),
}

/// The first record that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// Kafka's id of the topic (KIP-516), so that a topic made again under the same name is
    /// noticed; random in other logs.
    pub topic_id: [u8; 16],
    /// What is sold.
    pub definition: Definition,
}

/// Blocks leave the pool for a share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The share that draws.
    pub share: ShareId,
    /// The drawing node's mark.
    pub request: Request,
    /// The blocks it wants.
    pub blocks: Vec<BlockId>,
}

/// Which node should own which share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assign {
    /// The present version plus 1; from 1 on.
    pub version: u64,
    /// The node that should own each share.
    pub nodes: BTreeMap<ShareId, NodeId>,
    /// Owners held to be dead: the share may be claimed over this epoch.
    pub evict: BTreeMap<ShareId, Epoch>,
}

/// Whether and how the sale goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The present version plus 1; from 1 on.
    pub version: u64,
    /// Whether new orders are taken.
    pub state: SaleState,
    /// From when on.
    pub open: Option<Millis>,
    /// Until when.
    pub close: Option<Millis>,
    /// How much one may buy, and how long one may think.
    pub limits: Limits,
}

/// Whether new orders are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::FromRepr)]
#[repr(u8)]
pub enum SaleState {
    /// Between `open` and `close`.
    Active = 1,
    /// No new orders; paying and cancelling work.
    Suspended = 2,
    /// The fleet is about to go.
    Stopped = 3,
}

/// Limits of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Passengers of one order, `1..=PARTY_MAX`.
    pub passengers_per_order: u8,
    /// Orders that one buyer may hold unpaid on one run.
    pub live_holds: u16,
    /// Orders that one buyer may have, held or paid, on one run.
    pub orders: u16,
    /// How long an order is held for payment, in milliseconds.
    pub payment_ms: u32,
    /// How much longer it is really held, in milliseconds.
    pub grace_ms: u32,
    /// Draw more blocks when fewer seats than this are wholly free.
    pub low_water_seats: u16,
}
