//! What the operator wants appended to partition 0.
//!
//! The operator has no way into Kafka: it posts to any ready node, which checks the version,
//! appends, and answers where. What counts is still decided by the fold alone: of two records
//! with the same version the first wins, whoever wrote them, and so a posting may be repeated,
//! or sent to two nodes, without harm.

use std::collections::BTreeMap;

use inventory::entry as of;
use inventory::words::{BadName, Epoch, Millis, ShareId};
use serde::{Deserialize, Serialize};

/// A record to append, with who wants it and why (for the node's log; the ledger has no use
/// for it).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Posting {
    /// The operator's pod, or `local`.
    pub operator: String,
    /// Why, in a sentence.
    pub reason: String,
    /// What.
    pub record: Record,
}

/// What to append.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Record {
    /// Who should own what.
    Assign(Assign),
    /// Whether and how the sale goes on.
    Policy(Policy),
    /// More to sell, or other times and fares.
    Amend(Amend),
}

/// Which node should own which share. See [`of::Assign`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assign {
    /// The version in force plus 1.
    pub version: u64,
    /// The node that should own each share.
    pub nodes: BTreeMap<u16, String>,
    /// Owners held to be dead: the share may be claimed over this epoch.
    pub evict: BTreeMap<u16, u32>,
}

/// Whether and how the sale goes on. See [`of::Policy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// The version in force plus 1.
    pub version: u64,
    /// Whether new orders are taken.
    pub state: SaleState,
    /// From when on, in milliseconds since the Unix epoch. None: at once.
    pub open_ms: Option<u64>,
    /// Until when. None: for ever.
    pub close_ms: Option<u64>,
    /// How much one may buy, and how long one may think.
    pub limits: Limits,
}

/// Whether new orders are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SaleState {
    /// Between opening and closing.
    Active,
    /// No new orders; paying and cancelling work.
    Suspended,
    /// The fleet is about to go.
    Stopped,
}

/// Limits of a sale. See [`of::Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Passengers of one order.
    pub passengers_per_order: u8,
    /// Orders that one buyer may hold unpaid on one run.
    pub live_holds_per_buyer_per_run: u16,
    /// Orders that one buyer may have on one run.
    pub orders_per_buyer_per_run: u16,
    /// How long an order is held for payment.
    pub payment_ms: u32,
    /// How much longer it is really held.
    pub grace_ms: u32,
    /// Draw more blocks when fewer seats than this are wholly free.
    pub low_water_seats: u16,
}

/// A new definition in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Amend {
    /// The version in force plus 1.
    pub version: u64,
    /// All that is sold from then on.
    pub definition: crate::definition::Definition,
}

/// The answer to a posting: the record is in partition 0. Whether it counts is known when a
/// report says its version is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Posted {
    /// Where it is; none if the broker confirmed it without saying.
    pub offset: Option<u64>,
}

impl From<of::Assign> for Assign {
    fn from(a: of::Assign) -> Self {
        Self {
            version: a.version,
            nodes: a.nodes.into_iter().map(|(s, n)| (s.0, n.to_string())).collect(),
            evict: a.evict.into_iter().map(|(s, e)| (s.0, e.0)).collect(),
        }
    }
}

impl TryFrom<Assign> for of::Assign {
    type Error = BadName;

    fn try_from(a: Assign) -> Result<Self, BadName> {
        let node = |(share, name): (u16, String)| Ok((ShareId(share), name.parse()?));
        Ok(Self {
            version: a.version,
            nodes: a.nodes.into_iter().map(node).collect::<Result<_, BadName>>()?,
            evict: a.evict.into_iter().map(|(s, e)| (ShareId(s), Epoch(e))).collect(),
        })
    }
}

impl From<of::Policy> for Policy {
    fn from(p: of::Policy) -> Self {
        Self {
            version: p.version,
            state: match p.state {
                of::SaleState::Active => SaleState::Active,
                of::SaleState::Suspended => SaleState::Suspended,
                of::SaleState::Stopped => SaleState::Stopped,
            },
            open_ms: p.open.map(|t| t.0),
            close_ms: p.close.map(|t| t.0),
            limits: Limits {
                passengers_per_order: p.limits.passengers_per_order,
                live_holds_per_buyer_per_run: p.limits.live_holds,
                orders_per_buyer_per_run: p.limits.orders,
                payment_ms: p.limits.payment_ms,
                grace_ms: p.limits.grace_ms,
                low_water_seats: p.limits.low_water_seats,
            },
        }
    }
}

impl From<Policy> for of::Policy {
    fn from(p: Policy) -> Self {
        Self {
            version: p.version,
            state: match p.state {
                SaleState::Active => of::SaleState::Active,
                SaleState::Suspended => of::SaleState::Suspended,
                SaleState::Stopped => of::SaleState::Stopped,
            },
            open: p.open_ms.map(Millis),
            close: p.close_ms.map(Millis),
            limits: of::Limits {
                passengers_per_order: p.limits.passengers_per_order,
                live_holds: p.limits.live_holds_per_buyer_per_run,
                orders: p.limits.orders_per_buyer_per_run,
                payment_ms: p.limits.payment_ms,
                grace_ms: p.limits.grace_ms,
                low_water_seats: p.limits.low_water_seats,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through_json(record: Record) -> Record {
        let posting = Posting { operator: "o".into(), reason: "r".into(), record };
        let json = serde_json::to_string(&posting).unwrap();
        serde_json::from_str::<Posting>(&json).unwrap().record
    }

    #[test]
    fn an_assignment_survives_the_way_through_json() {
        let assign = of::Assign {
            version: 7,
            nodes: [(ShareId(1), "a".parse().unwrap()), (ShareId(2), "b".parse().unwrap())].into(),
            evict: [(ShareId(2), Epoch(3))].into(),
        };
        let Record::Assign(read) = through_json(Record::Assign(assign.clone().into())) else {
            panic!("another record")
        };
        assert_eq!(of::Assign::try_from(read).unwrap(), assign);
    }

    #[test]
    fn a_policy_survives_the_way_through_json() {
        let policy = of::Policy {
            version: 2,
            state: of::SaleState::Suspended,
            open: Some(Millis(1)),
            close: None,
            limits: of::Limits {
                passengers_per_order: 5,
                live_holds: 1,
                orders: 10,
                payment_ms: 900_000,
                grace_ms: 2_000,
                low_water_seats: 2,
            },
        };
        let Record::Policy(read) = through_json(Record::Policy(policy.clone().into())) else {
            panic!("another record")
        };
        assert_eq!(of::Policy::from(read), policy);
    }

    #[test]
    fn a_node_s_name_that_is_none_is_refused() {
        let assign =
            Assign { version: 1, nodes: [(1, String::new())].into(), evict: BTreeMap::new() };
        assert!(of::Assign::try_from(assign).is_err());
    }
}
