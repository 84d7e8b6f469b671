//! What a user asks for: the spec of a TrainSale.
//!
//! Every default is stated here once, in [`Default`] or in a field's `default`; the schema of the
//! custom resource, and so the API server, takes it from there. Fields never refuse what they do
//! not know, since an older operator must read what a newer schema admits; reading a file
//! ([`TrainSale::from_yaml`]) is strict instead.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ResourceRequirements, Toleration, TopologySpreadConstraint,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::status::TrainSaleStatus;

/// host:port, where the host may be an IPv6 address in brackets.
const ADDRESS: &str = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):[0-9]{1,5}$";

fn addresses() -> String {
    let one = ADDRESS.trim_matches(['^', '$']);
    format!("^{one}(,{one})*$")
}

// The names of a list-map: what server-side apply merges by, and what may not appear twice.
macro_rules! keys {
    ($($key:literal),+) => { vec![$($key),+] };
}

/// A sale of train tickets: the runs on sale, and the fleet of nodes that sells them.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "stationmaster.dev",
    version = "v1alpha1",
    kind = "TrainSale",
    namespaced,
    status = "TrainSaleStatus",
    derive = "PartialEq",
    doc = "A sale of train tickets: the runs on sale, and the fleet of nodes that sells them.",
    shortname = "tsale",
    category = "stationmaster",
    selectable = ".spec.state",
    scale(
        spec_replicas_path = ".spec.fleet.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether everything that the spec asks for is in force."
    ),
    printcolumn(
        name = "Sale",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Selling")].reason"#,
        description = "Whether buyers can buy now."
    ),
    // A column of type date shows a time to come as <invalid>.
    printcolumn(
        name = "Opens",
        type_ = "string",
        json_path = ".spec.openTime",
        description = "When the sale opens; empty: when first ready."
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.readyNodes",
        description = "Nodes that are ready."
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".status.desiredNodes",
        description = "Nodes that should be."
    ),
    printcolumn(
        name = "Shares",
        type_ = "integer",
        json_path = ".status.shares.owned",
        description = "Shares of the stock that a living node owns."
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why the sale is ready or not."
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "The same in words."
    ),
    printcolumn(
        name = "Ledger",
        type_ = "string",
        priority = 1,
        json_path = ".status.ledger.topic",
        description = "The Kafka topic of the ledger."
    ),
    printcolumn(
        name = "Image",
        type_ = "string",
        priority = 1,
        json_path = ".status.image",
        description = "The image of the nodes."
    )
)]
#[serde(rename_all = "camelCase")]
pub struct TrainSaleSpec {
    /// Whether the sale takes orders. Takes effect within two seconds on all nodes.
    #[serde(default)]
    pub state: SaleState,
    /// When orders are first taken. Unset: when the sale is first Ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_time: Option<Time>,
    /// When the last order is taken; paying and cancelling go on. Unset: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub close_time: Option<Time>,
    /// How long before openTime the fleet has its full size and warm caches.
    #[serde(default = "preheat_seconds")]
    #[schemars(range(max = 86_400))]
    pub preheat_seconds: u32,
    /// IANA name of the time zone of all stop times, such as Asia/Shanghai. Cannot be changed.
    #[serde(default = "time_zone")]
    #[schemars(
        length(min = 1, max = 64),
        regex(pattern = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$")
    )]
    pub time_zone: String,
    /// ISO 4217 code of all amounts, such as CNY. Cannot be changed.
    // The length is what the API server reckons the cost of comparing by.
    #[schemars(length(min = 3, max = 3), regex(pattern = "^[A-Z]{3}$"))]
    pub currency: String,
    /// Stops, classes and coaches that runs have in common. None may be removed; more may be
    /// added.
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = keys!["name"])
    )]
    pub timetables: Vec<Timetable>,
    /// The runs on sale: one train on one date. None may be removed; more may be added.
    #[schemars(
        length(min = 1, max = 1000),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = keys!["train", "date"]
        )
    )]
    pub runs: Vec<Run>,
    /// How the seats are divided over the nodes.
    #[serde(default)]
    pub stock: Stock,
    /// How long a seat is held for an order that is not paid.
    #[serde(default)]
    pub holds: Holds,
    /// What one buyer may do.
    #[serde(default)]
    pub limits: Limits,
    /// Who is let in when more come than can be served.
    #[serde(default)]
    pub admission: Admission,
    /// How a node knows who the buyer is.
    #[serde(default)]
    pub auth: Auth,
    /// How a node knows that an order is paid.
    #[serde(default)]
    pub payment: Payment,
    /// The nodes.
    #[serde(default)]
    pub fleet: Fleet,
    /// The Kafka cluster that keeps the ledger.
    pub kafka: Kafka,
    /// The topic that holds every order, and decides what is sold.
    #[serde(default)]
    pub ledger: Ledger,
    /// The Redis that keeps the buffer stock. Losing it loses nothing.
    pub redis: Redis,
    /// Where settled orders go besides the ledger. Unset: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settlement: Option<Settlement>,
    /// How buyers reach the nodes.
    #[serde(default)]
    pub traffic: Traffic,
    /// What watches the nodes.
    #[serde(default)]
    pub monitoring: Monitoring,
}

fn preheat_seconds() -> u32 {
    300
}

fn time_zone() -> String {
    "UTC".to_owned()
}

/// Whether a sale takes orders.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display,
)]
pub enum SaleState {
    /// Orders are taken between openTime and closeTime.
    #[default]
    Active,
    /// No new orders; paying and cancelling work.
    Suspended,
    /// No pods. The ledger is kept.
    Stopped,
}

/// Stops, classes and coaches that runs have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timetable {
    /// Its name, by which runs refer to it.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// Stops in travel order. Their codes cannot be changed; their times can.
    #[schemars(
        length(min = 2, max = 128),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = keys!["code"])
    )]
    pub stops: Vec<Stop>,
    /// Classes with their fares. None may be removed.
    #[schemars(
        length(min = 1, max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = keys!["name"])
    )]
    pub classes: Vec<Class>,
    /// Coaches in train order. They cannot be changed or removed; more may be added at the end.
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = keys!["name"])
    )]
    pub coaches: Vec<Coach>,
}

/// A stop. Times are HH:MM from midnight of the run's date and may pass 24:00.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stop {
    /// The station's code, as buyers' requests name it.
    #[schemars(length(min = 1, max = 16), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub code: String,
    /// What people call the station. Unset: its code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub name: Option<String>,
    /// When the train arrives, HH:MM. Unset at the first stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = "^([0-9]{2}|[1-9][0-9]{2}):[0-5][0-9]$"))]
    pub arrives: Option<String>,
    /// When the train departs, HH:MM. Unset at the last stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), regex(pattern = "^([0-9]{2}|[1-9][0-9]{2}):[0-5][0-9]$"))]
    pub departs: Option<String>,
}

/// A class of seats.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Class {
    /// Its name, such as Second.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^\S(.*\S)?$"))]
    pub name: String,
    /// What a journey costs per passenger.
    pub fare: Fare,
}

/// What a journey costs per passenger, in minor units of the currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fare {
    /// Which of the members below is set.
    #[serde(rename = "type")]
    pub kind: FareType,
    /// Flat: one amount for every journey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000_000u64))]
    pub amount_minor: Option<u64>,
    /// PerLeg: an amount for each leg; a journey costs the sum of its legs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 127),
        inner(range(min = 0, max = 1_000_000_000_000u64)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub leg_amounts_minor: Option<Vec<u64>>,
    /// Table: the key of a ConfigMap with an amount for every pair of stops. Not implemented yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<KeyReference>,
}

/// How a fare is reckoned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FareType {
    /// One amount for every journey.
    Flat,
    /// The sum of the legs' amounts.
    PerLeg,
    /// Looked up in a ConfigMap. Not implemented yet.
    Table,
}

/// A coach: whole rows of one class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Coach {
    /// Its name on the ticket, such as 01.
    #[schemars(
        length(min = 1, max = 16),
        regex(pattern = "^[A-Za-z0-9]([A-Za-z0-9 _-]*[A-Za-z0-9])?$")
    )]
    pub name: String,
    /// The class of all its seats.
    #[schemars(length(min = 1, max = 63))]
    pub class: String,
    /// How many seats it has; the last row may be short.
    #[schemars(range(min = 1, max = 1000))]
    pub seats: u16,
    /// Letters of a row, with - for an aisle.
    #[serde(default = "row_layout")]
    #[schemars(length(min = 1, max = 16), regex(pattern = "^[A-Z]+(-[A-Z]+)*$"))]
    pub row_layout: String,
}

fn row_layout() -> String {
    "ABC-DF".to_owned()
}

/// One train on one date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The train's number, such as G1.
    #[schemars(length(min = 1, max = 16), regex(pattern = "^[A-Za-z0-9_-]+$"))]
    pub train: String,
    /// The date of its first departure, YYYY-MM-DD.
    #[schemars(length(min = 10, max = 10), regex(pattern = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub date: String,
    /// The name of its timetable. Cannot be changed.
    #[schemars(length(min = 1, max = 63))]
    pub timetable: String,
    /// Whether new orders are taken for this run. Withdrawn takes its unsold seats off sale;
    /// what was sold stays sold, and can be paid and given back. It may become Active again.
    #[serde(default)]
    pub state: RunState,
}

/// Whether a run is on sale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunState {
    /// While the sale is open.
    #[default]
    Active,
    /// No new orders.
    Withdrawn,
}

/// How the seats are divided over the nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Stock {
    /// Into how many shares the stock is divided; a node owns one or more. Twice the cores of
    /// the largest fleet is a good choice. Cannot be changed.
    #[schemars(range(min = 1, max = 1024))]
    pub shares: u16,
    /// How many percent of each class of each run are at first kept back as the buffer stock,
    /// from which shares that run low draw. Cannot be changed.
    #[schemars(range(min = 0, max = 100))]
    pub buffer_percent: u8,
    /// How many seats move together at most, in whole rows. Cannot be changed.
    #[schemars(range(min = 1, max = 16))]
    pub block_seats: u8,
    /// A share with fewer free seats of a class than this draws from the buffer stock.
    #[schemars(range(min = 0, max = 64))]
    pub low_water_seats: u8,
}

impl Default for Stock {
    fn default() -> Self {
        Self { shares: 16, buffer_percent: 20, block_seats: 8, low_water_seats: 2 }
    }
}

/// How long a seat is held for an order that is not paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Holds {
    /// How long a buyer has to pay.
    #[schemars(range(min = 1, max = 86_400))]
    pub payment_seconds: u32,
    /// How much later a payment that was under way is still accepted.
    #[schemars(range(min = 0, max = 600))]
    pub grace_seconds: u32,
}

impl Default for Holds {
    fn default() -> Self {
        Self { payment_seconds: 900, grace_seconds: 2 }
    }
}

/// What one buyer may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Passengers of one order.
    // Sixteen: the largest group that a node seats together.
    #[schemars(range(min = 1, max = 16))]
    pub passengers_per_order: u8,
    /// Orders of a buyer for one run that wait for payment at the same time.
    #[schemars(range(min = 1, max = 1000))]
    pub live_holds_per_buyer_per_run: u16,
    /// Orders of a buyer for one run at the same time, unpaid and paid.
    #[schemars(range(min = 1, max = 10_000))]
    pub orders_per_buyer_per_run: u16,
    /// Requests of one buyer per second. Unset: no limit. Not implemented yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_second_per_buyer: Option<u32>,
    /// Requests from one address per second. Unset: no limit. Not implemented yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub requests_per_second_per_address: Option<u32>,
    /// How long before a train departs from the buyer's first stop orders for it end. Unset:
    /// they do not. Not implemented yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800))]
    pub boarding_cutoff_seconds: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            passengers_per_order: 5,
            live_holds_per_buyer_per_run: 1,
            orders_per_buyer_per_run: 10,
            requests_per_second_per_buyer: None,
            requests_per_second_per_address: None,
            boarding_cutoff_seconds: None,
        }
    }
}

/// Who is let in when more come than can be served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Admission {
    /// How buyers are let in.
    pub mode: AdmissionMode,
    /// WaitingRoom: how many are let in per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub admit_per_second: Option<u32>,
    /// What a buyer must solve first, against scripts.
    pub challenge: Challenge,
}

/// How buyers are let in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdmissionMode {
    /// At once; a node that is full answers "busy".
    #[default]
    Open,
    /// In turn, from a waiting room. Not implemented yet.
    WaitingRoom,
}

/// What a buyer must solve first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Challenge {
    /// Nothing.
    #[default]
    None,
    /// Letters in a picture. Not implemented yet.
    Picture,
    /// A slider that fits into a picture. Not implemented yet.
    Slider,
}

/// How a node knows who the buyer is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// Which of the members below is used.
    #[serde(rename = "type")]
    pub kind: AuthType,
    /// Header: a header that a trusted gateway sets. Unset: as if it were empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<HeaderAuth>,
    /// JWT: a signed token of the buyer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtAuth>,
}

/// Who says who the buyer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AuthType {
    /// A gateway in front, in a header.
    #[default]
    Header,
    /// The buyer, with a signed token.
    #[serde(rename = "JWT")]
    Jwt,
}

/// A header that names the buyer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderAuth {
    /// The header's name.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9-]+$"))]
    pub name: String,
    /// From which networks the header is believed, such as 10.0.0.0/8. Unset: from all.
    #[serde(rename = "fromCIDRs", skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 1, max = 64)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub from_cidrs: Option<Vec<String>>,
}

impl Default for HeaderAuth {
    fn default() -> Self {
        Self { name: "X-Buyer-Id".to_owned(), from_cidrs: None }
    }
}

/// Tokens that name the buyer: `iss`, `aud`, `exp` and `sub` are required.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtAuth {
    /// Who must have issued a token.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,
    /// For whom a token must be: one of these.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 256)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub audiences: Vec<String>,
    /// With which algorithms a token may be signed.
    #[serde(default = "algorithms")]
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "set"))]
    pub algorithms: Vec<JwtAlgorithm>,
    /// Where the issuer's keys are fetched; or jwksSecret.
    #[serde(rename = "jwksURL", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048), regex(pattern = "^https://"))]
    pub jwks_url: Option<String>,
    /// The Secret's key that holds the issuer's keys; or jwksURL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_secret: Option<KeyReference>,
}

fn algorithms() -> Vec<JwtAlgorithm> {
    vec![JwtAlgorithm::Es256]
}

/// How a token is signed. Only with keys that a node can check but not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display)]
pub enum JwtAlgorithm {
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    #[strum(to_string = "ES256")]
    Es256,
    /// ECDSA on P-384.
    #[serde(rename = "ES384")]
    #[strum(to_string = "ES384")]
    Es384,
    /// RSA, PKCS 1.
    #[serde(rename = "RS256")]
    #[strum(to_string = "RS256")]
    Rs256,
    /// RSA, PSS.
    #[serde(rename = "PS256")]
    #[strum(to_string = "PS256")]
    Ps256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    #[strum(to_string = "EdDSA")]
    EdDsa,
}

/// How a node knows that an order is paid.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Payment {
    /// Who says it.
    #[serde(rename = "type")]
    pub kind: PaymentType,
    /// Webhook: how it is signed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookPayment>,
}

/// Who says that an order is paid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PaymentType {
    /// Its buyer, without paying anything: for trying out.
    #[default]
    Sandbox,
    /// The payment provider, in a signed webhook (Standard Webhooks).
    Webhook,
}

/// A provider's webhook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookPayment {
    /// The Secret's key with what the provider signs with: `whsec_…`, one a line, more than one
    /// while they are rotated.
    pub secret: KeyReference,
}

/// The nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Fleet {
    /// Selling nodes of the pool `default`, of weight 1. This is what `kubectl scale` sets.
    #[schemars(range(min = 1, max = 1024))]
    pub replicas: u16,
    /// The image of the nodes. Unset: the operator's, kept in the status from then on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^\S+$"))]
    pub image: Option<String>,
    /// Secrets with which the image is pulled.
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = keys!["name"])
    )]
    pub image_pull_secrets: Vec<NameReference>,
    /// The fleet's size before preheating and after closing. Unset: full size always. Not
    /// implemented yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// How nodes are replaced by newer ones.
    pub update: Update,
    /// What the pods of the pool `default` have of their own.
    pub template: PodTemplate,
    /// More selling nodes, of another weight or on other machines.
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = keys!["name"])
    )]
    pub pools: Vec<Pool>,
    /// Nodes that only answer questions.
    pub query: Query,
    /// Nodes that tell of orders, where `settlement` asks for it.
    pub settle: Settle,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            replicas: 3,
            image: None,
            image_pull_secrets: Vec::new(),
            idle: None,
            update: Update::default(),
            template: PodTemplate::default(),
            pools: Vec::new(),
            query: Query::default(),
            settle: Settle::default(),
        }
    }
}

/// The size of a fleet that does not sell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    /// Nodes of each pool.
    #[schemars(range(min = 1, max = 1024))]
    pub replicas: u16,
}

/// How nodes are replaced by newer ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Update {
    /// When a newer operator's idea of a pod is rolled out by itself.
    pub automatic: AutomaticUpdate,
    /// How many nodes more than wanted a roll-out may start at once.
    #[schemars(range(min = 1, max = 100))]
    pub max_surge: u16,
}

impl Default for Update {
    fn default() -> Self {
        Self { automatic: AutomaticUpdate::Never, max_surge: 1 }
    }
}

/// When a newer operator's idea of a pod is rolled out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AutomaticUpdate {
    /// Only when the spec changes or the annotation stationmaster.dev/roll=now asks for it.
    #[default]
    Never,
    /// Also by itself, before preheating or after closing. Not implemented yet.
    OutsideSale,
}

/// What the pods of a pool have of their own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTemplate {
    /// Labels that the pods get besides the operator's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pods.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What a pod needs and may use. Unset: no requests and no limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Labels of the machines that the pods may run on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of machines that the pods bear.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
    /// Which machines the pods prefer or need. Unset: no preference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the pods are spread. Unset: over machines, where that is possible.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub topology_spread_constraints: Option<Vec<TopologySpreadConstraint>>,
    /// The pods' priority class. Unset: the cluster's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
}

/// More selling nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Its name; `default` is taken.
    // With "<sale>-sell-" in front, of at most 46 bytes, it must fit a label's 63.
    #[schemars(length(min = 1, max = 16), regex(pattern = "^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// How many nodes.
    #[schemars(range(min = 1, max = 1024))]
    pub replicas: u16,
    /// A node of weight 2 owns twice as many shares as one of weight 1.
    #[serde(default = "weight")]
    #[schemars(range(min = 1, max = 64))]
    pub weight: u16,
    /// What its pods have of their own; nothing is taken from fleet.template.
    #[serde(default)]
    pub template: PodTemplate,
}

fn weight() -> u16 {
    1
}

/// Nodes that only answer questions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Query {
    /// How many.
    #[schemars(range(min = 1, max = 1024))]
    pub replicas: u16,
    /// What their pods have of their own; nothing is taken from fleet.template.
    pub template: PodTemplate,
}

impl Default for Query {
    fn default() -> Self {
        Self { replicas: 2, template: PodTemplate::default() }
    }
}

/// Nodes that settle orders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Settle {
    /// How many; none run of a sale without `settlement`. They divide the shares among them.
    #[schemars(range(min = 0, max = 64))]
    pub replicas: u16,
}

impl Default for Settle {
    fn default() -> Self {
        Self { replicas: 1 }
    }
}

/// A Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Kafka {
    /// Brokers to ask first: host:port, more after commas.
    #[schemars(
        length(min = 3, max = 1024),
        regex(
            pattern = addresses()
        )
    )]
    pub bootstrap_servers: String,
    /// Encryption. Unset: none. Not implemented yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// How nodes prove who they are. Unset: not at all. Not implemented yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<KafkaAuthentication>,
    /// Settings of the client library, where they do not touch what correctness rests on. Not
    /// implemented yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = keys!["name"])
    )]
    pub options: Vec<KafkaOption>,
}

/// Whom to trust when a connection is encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tls {
    /// Secrets with certificates of authorities. Empty: those of the image.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub trusted_certificates: Vec<CertificateReference>,
}

/// A certificate in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateReference {
    /// The Secret's name, in the sale's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key within it.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}

/// How nodes prove to Kafka who they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaAuthentication {
    /// Which of the members below are set.
    #[serde(rename = "type")]
    pub kind: KafkaAuthenticationType,
    /// MutualTLS: the Secret with the client's certificate and key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_and_key: Option<CertificateAndKey>,
    /// ScramSHA512, Plain: the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub username: Option<String>,
    /// ScramSHA512, Plain: the Secret with the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<PasswordReference>,
}

/// A way to prove to Kafka who one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KafkaAuthenticationType {
    /// With a client certificate.
    #[serde(rename = "MutualTLS")]
    MutualTls,
    /// With a password that is not sent.
    #[serde(rename = "ScramSHA512")]
    ScramSha512,
    /// With a password that is sent.
    Plain,
}

/// A certificate and its key in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateAndKey {
    /// The Secret's name, in the sale's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key of the certificate within it.
    #[serde(default = "certificate_key")]
    #[schemars(length(min = 1, max = 253))]
    pub certificate: String,
    /// The key of the private key within it.
    #[serde(default = "private_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn certificate_key() -> String {
    "user.crt".to_owned()
}

fn private_key() -> String {
    "user.key".to_owned()
}

/// A password in a Secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordReference {
    /// The Secret's name, in the sale's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key within it.
    #[serde(default = "password_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn password_key() -> String {
    "password".to_owned()
}

/// A setting of the Kafka client library.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaOption {
    /// Its name, such as client.rack.
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[a-z0-9._]+$"))]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 1024))]
    pub value: String,
}

/// The topic that holds every order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Ledger {
    /// Its name. Unset: namespace.name of the sale. Cannot be changed.
    // Kafka allows 249; the topics beside it have longer names.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200), regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$"))]
    pub topic: Option<String>,
    /// Who creates it.
    pub provisioning: Provisioning,
    /// KafkaTopic: the Strimzi Kafka cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka_cluster_ref: Option<KafkaClusterReference>,
    /// On how many brokers each order is kept.
    #[schemars(range(min = 1, max = 9))]
    pub replicas: u8,
    /// How many of them must have an order before it is confirmed.
    #[schemars(range(min = 1, max = 8))]
    pub min_in_sync_replicas: u8,
    /// What happens to the topic when the sale is deleted.
    pub deletion_policy: DeletionPolicy,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            topic: None,
            provisioning: Provisioning::Create,
            kafka_cluster_ref: None,
            replicas: 3,
            min_in_sync_replicas: 2,
            deletion_policy: DeletionPolicy::Retain,
        }
    }
}

/// Who creates the ledger's topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Provisioning {
    /// The init Job, where the topic does not exist yet.
    #[default]
    Create,
    /// Strimzi, from a KafkaTopic that the operator writes. Not implemented yet.
    KafkaTopic,
    /// The user: it must exist. Not implemented yet.
    Existing,
}

/// What happens to the ledger when the sale is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// It is kept; a sale of the same name adopts it.
    #[default]
    Retain,
    /// It is deleted. Not implemented yet.
    Delete,
}

/// A Kafka cluster of Strimzi.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KafkaClusterReference {
    /// The Kafka resource's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Unset: the sale's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
}

/// A Redis or Valkey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// Which of the members below is set.
    pub mode: RedisMode,
    /// Standalone: the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standalone: Option<RedisStandalone>,
    /// Sentinel: the master's name and who knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentinel: Option<RedisSentinel>,
    /// Cluster: servers to ask first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<RedisCluster>,
    /// Encryption. Unset: none. Not implemented yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The user. Unset: the default one. Not implemented yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub username: Option<String>,
    /// The Secret with the password. Unset: no password. Not implemented yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<PasswordReference>,
}

/// How Redis runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedisMode {
    /// One server.
    Standalone,
    /// A master that sentinels know. Not implemented yet.
    Sentinel,
    /// A Redis cluster. Not implemented yet.
    Cluster,
}

/// One Redis server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisStandalone {
    /// host:port.
    #[schemars(
        length(min = 3, max = 260),
        regex(pattern = ADDRESS)
    )]
    pub address: String,
}

/// A Redis master that sentinels know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisSentinel {
    /// The master's name.
    #[schemars(length(min = 1, max = 128))]
    pub master_name: String,
    /// The sentinels: host:port each.
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(min = 3, max = 260),
            regex(pattern = ADDRESS)
        ),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub addresses: Vec<String>,
}

/// A Redis cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisCluster {
    /// Servers to ask first: host:port each.
    #[schemars(
        length(min = 1, max = 32),
        inner(
            length(min = 3, max = 260),
            regex(pattern = ADDRESS)
        ),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub addresses: Vec<String>,
}

/// Where settled orders go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settlement {
    /// A topic of one CloudEvents record per change of an order, created if it is missing. Unset:
    /// none. Another topic is told everything again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]*$"))]
    pub orders_topic: Option<String>,
    /// A database of orders. Unset: none. Not implemented yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<Database>,
}

/// A database of orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// What it is.
    #[serde(rename = "type")]
    pub kind: DatabaseType,
    /// Its parts; a buyer's orders are in one of them. Cannot be changed.
    #[schemars(
        length(min = 1, max = 64),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = keys!["name"])
    )]
    pub shards: Vec<DatabaseShard>,
}

/// What a database is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DatabaseType {
    /// PostgreSQL.
    PostgreSQL,
    /// MySQL or MariaDB.
    MySQL,
}

/// A part of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseShard {
    /// Its name.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// The Secret's key that holds its URL.
    pub url_secret: KeyReference,
}

/// How buyers reach the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Traffic {
    /// The Service of the nodes.
    pub service: ServiceOptions,
    /// A route of the Gateway API. Unset: none. Not implemented yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,
    /// Which other sites' pages may ask. Unset: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors: Option<Cors>,
}

/// Which other sites' pages may ask (CORS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cors {
    /// Their origins, such as <https://tickets.example.com>; `*` for all.
    #[schemars(
        length(min = 1, max = 32),
        inner(length(min = 1, max = 255), regex(pattern = r"^(\*|https?://[a-z0-9.:\[\]-]+)$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub allowed_origins: Vec<String>,
}

/// The Service of the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceOptions {
    /// From where it can be reached.
    #[serde(rename = "type")]
    pub kind: ServiceType,
}

/// From where a Service can be reached.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display,
)]
pub enum ServiceType {
    /// From within the cluster.
    #[default]
    ClusterIP,
    /// At a port of every machine.
    NodePort,
    /// Through the cloud's load balancer.
    LoadBalancer,
}

/// A route of the Gateway API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// The Gateways that it is bound to.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub parent_refs: Vec<ParentReference>,
    /// Host names that it answers to.
    #[schemars(
        length(min = 1, max = 16),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub hostnames: Vec<String>,
}

/// A Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ParentReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Unset: the sale's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub namespace: Option<String>,
    /// The listener of it. Unset: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub section_name: Option<String>,
}

/// What watches the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// Whether the Prometheus operator gets a PodMonitor.
    pub pod_monitor: PodMonitor,
    /// Labels of the PodMonitor.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pod_monitor_labels: BTreeMap<String, String>,
}

/// Whether there is a PodMonitor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodMonitor {
    /// No.
    #[default]
    Disabled,
    /// Yes. Not implemented yet.
    Enabled,
}

/// A key of a ConfigMap or Secret in the sale's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyReference {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key within it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

/// An object in the sale's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NameReference {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl TrainSaleSpec {
    /// Selling nodes times their weights: no node is without a share while this is at most
    /// `stock.shares`.
    #[must_use]
    pub fn weight_total(&self) -> u64 {
        let pools = self.fleet.pools.iter();
        let more: u64 = pools.map(|p| u64::from(p.replicas) * u64::from(p.weight)).sum();
        u64::from(self.fleet.replicas) + more
    }

    /// The header that names the buyer; none where tokens do.
    #[must_use]
    pub fn buyer_header(&self) -> Option<String> {
        match self.auth.kind {
            AuthType::Header => Some(self.auth.header.clone().unwrap_or_default().name),
            AuthType::Jwt => None,
        }
    }
}

impl TrainSale {
    /// The ledger's name: `spec.ledger.topic`, or namespace.name.
    #[must_use]
    pub fn ledger_name(&self) -> String {
        self.spec.ledger.topic.clone().unwrap_or_else(|| {
            let namespace = self.metadata.namespace.as_deref().unwrap_or("default");
            format!("{namespace}.{}", self.metadata.name.as_deref().unwrap_or_default())
        })
    }
}
