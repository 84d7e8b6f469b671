//! What the operator saw: the status of a TrainSale. Never live stock, which metrics and the
//! nodes' API tell.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator saw of a sale.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrainSaleStatus {
    /// The generation of the spec that this describes; -1 before any operator saw it.
    #[schemars(range(min = -1))]
    pub observed_generation: i64,
    /// Selling nodes of the pool `default`, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Selects those nodes' pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Nodes of all pools and roles that should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub desired_nodes: Option<i32>,
    /// Of these, how many are ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready_nodes: Option<i32>,
    /// Of these, how many are of the newest template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_nodes: Option<i32>,
    /// Who owns the shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shares: Option<ShareCounts>,
    /// The version of the last assignment of shares to nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignment_version: Option<i64>,
    /// The version of the last policy: state, times and limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<i64>,
    /// The ledger, once it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger: Option<LedgerStatus>,
    /// The image of the nodes, kept over upgrades of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// A hash of what the user asked of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template_hash: Option<String>,
    /// The nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub nodes: Vec<NodeStatus>,
    /// Where buyers reach the sale.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub endpoints: Vec<Endpoint>,
    /// What is true of the sale, by type.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Who owns the shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShareCounts {
    /// All shares.
    pub total: i32,
    /// Those whose last claim is a living node's.
    pub owned: i32,
    /// Those on their way from one node to another.
    pub moving: i32,
}

/// The ledger of a sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerStatus {
    /// Its Kafka topic.
    pub topic: String,
    /// The topic's id: another topic of the same name is not this ledger.
    #[serde(rename = "topicID")]
    pub topic_id: String,
    /// The ledger's name.
    #[serde(rename = "saleID", default, skip_serializing_if = "Option::is_none")]
    pub sale_id: Option<String>,
    /// A hash of its first record; unset until that is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genesis_hash: Option<String>,
}

/// A node, as the operator last saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its pod's name.
    pub name: String,
    /// Its pool; unset for a node that does not sell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    /// What it does: Sell or Query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// How it does.
    pub state: String,
    /// How many shares it owns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<i32>,
    /// Its pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
}

/// Where buyers reach the sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// What it is for, such as sell.
    pub name: String,
    /// Its URL.
    pub url: String,
}
