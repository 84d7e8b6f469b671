//! From what a user wrote to what can be built, or the fields that forbid it. Pure.
//!
//! What comes out holds everything that [`crate::build`] needs: no later step looks at a
//! TrainSale again, so none can find another field wrong when half is applied.

use std::collections::BTreeSet;
use std::path::PathBuf;

use control::config;
use crds::checks::Finding;
use crds::sale::{AuthType, KeyReference, PaymentType, PodTemplate, SaleState, ServiceType};
use crds::{TrainSale, checks, definition};
use inventory::definition::Definition;
use inventory::dispatcher::Wish;
use inventory::entry;
use inventory::words::Millis;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use kube::{Resource, ResourceExt};
use serde::Serialize;

use crate::dereference::Dereferenced;
use crate::names::{DEFAULT_POOL, ROLL, SaleKey};
use crate::record::{self, Record, Run};
use crate::settings::Settings;

/// What every sale has from the operator itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// The image of nodes of sales that name none.
    pub node_image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// The operator's public key, in hex.
    pub operator_key: String,
    /// The operator's namespace, from which the control port may be reached.
    pub operator_namespace: String,
}

impl Config {
    /// The parts of the settings that sales are built with.
    #[must_use]
    pub fn new(settings: &Settings, operator_key: String) -> Self {
        Self {
            node_image: settings.node_image.clone(),
            pull_policy: settings.node_image_pull_policy.clone(),
            operator_key,
            operator_namespace: settings.pod_namespace.clone(),
        }
    }
}

/// A sale that can be built.
#[derive(Debug, Clone)]
pub struct ValidatedSale {
    /// Which.
    pub key: SaleKey,
    /// Marks the sale's objects as its own.
    pub owner: OwnerReference,
    /// What is sold by a ledger that is yet to be founded.
    pub definition: Definition,
    /// The ledger.
    pub ledger: Ledger,
    /// How far the founding is.
    pub phase: Phase,
    /// What is left of the ledger when the sale is gone; none before its topic has an id.
    pub record: Option<Record>,
    /// The nodes' image.
    pub image: String,
    /// Whether this operator would take another image, if it were asked.
    pub image_is_older: bool,
    /// Whether the user asks for what is newest.
    pub roll: bool,
    /// When the image is pulled.
    pub pull_policy: String,
    /// Secrets to pull it with.
    pub pull_secrets: Vec<String>,
    /// The pools of nodes, the pool `default` first, the query nodes last.
    pub pools: Vec<Pool>,
    /// Who tells of orders in a topic of their own.
    pub settle: Option<Settle>,
    /// How many more nodes than wanted a roll-out may start at once.
    pub max_surge: u16,
    /// Kafka's first brokers.
    pub kafka: String,
    /// Redis' address.
    pub redis: Option<String>,
    /// How nodes meet buyers.
    pub front: Front,
    /// From where the Service can be reached.
    pub service: ServiceType,
    /// What the nodes should be told by the ledger.
    pub wish: Wish,
    /// The operator's public key, in hex.
    pub operator_key: String,
    /// The operator's namespace.
    pub operator_namespace: String,
}

/// How nodes meet buyers.
#[derive(Debug, Clone, Serialize)]
pub struct Front {
    /// How it is known who a buyer is.
    pub identity: config::Identity,
    /// How it is known that an order is paid.
    pub payment: config::Payment,
    /// Origins of other sites whose pages may ask.
    pub origins: Vec<String>,
    /// Keys of Secrets, and the files in [`KEYS_DIR`] that they are.
    pub keys: Vec<(KeyReference, &'static str)>,
}

/// Where a node finds what it is given of Secrets.
pub const KEYS_DIR: &str = "/etc/stationmaster-keys";

/// The ledger's topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// Its own.
    pub topic: String,
    /// The board's.
    pub board_topic: String,
    /// On how many brokers each record is kept.
    pub replicas: u8,
    /// How many of them must have it.
    pub min_in_sync_replicas: u8,
}

/// How far the founding of the ledger is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The topic has no id yet that this sale knows. `topic_id` and `genesis_hash` are what a
    /// sale before this one has left.
    Topics {
        /// The id that it must have.
        topic_id: Option<String>,
        /// The hash that Genesis must have.
        genesis_hash: Option<String>,
    },
    /// The topic's id is in the status: Genesis may be written.
    Genesis {
        /// The topic's id.
        topic_id: String,
        /// The hash that Genesis must have, if one was there before.
        genesis_hash: Option<String>,
    },
    /// The ledger is founded.
    Serve {
        /// The topic's id.
        topic_id: String,
        /// The hash of Genesis.
        genesis_hash: String,
    },
}

/// A pool of nodes.
#[derive(Debug, Clone)]
pub struct Pool {
    /// Its name.
    pub name: String,
    /// What its nodes do.
    pub role: control::config::Role,
    /// How many there should be.
    pub replicas: u16,
    /// The weight of each; 0 for query nodes.
    pub weight: u16,
    /// What its pods have of their own.
    pub template: PodTemplate,
}

/// Nodes that tell of orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Settle {
    /// Where.
    pub orders_topic: String,
    /// How many there should be.
    #[serde(skip)]
    pub replicas: u16,
}

/// Why nothing can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The reason of the condition Accepted.
    pub reason: &'static str,
    /// The fields, at least one.
    pub findings: Vec<Finding>,
}

impl Invalid {
    /// Names the kind of trouble by the first finding.
    #[must_use]
    pub fn new(findings: Vec<Finding>) -> Self {
        let is_time = |f: &Finding| {
            f.path.contains(".stops[")
                && (f.path.ends_with("arrives") || f.path.ends_with("departs"))
        };
        let reason = match findings.first() {
            Some(f) if is_time(f) => "TimesNotInOrder",
            Some(f) if f.path == "spec.runs" && f.message.contains("removed") => "RunRemoved",
            _ => "InvalidSpec",
        };
        Self { reason, findings }
    }

    /// The fields, in a sentence. A condition's message is read by people: five are enough to
    /// start with.
    #[must_use]
    pub fn message(&self) -> String {
        let mut lines: Vec<String> =
            self.findings.iter().take(5).map(ToString::to_string).collect();
        if self.findings.len() > 5 {
            lines.push(format!("and {} more", self.findings.len() - 5));
        }
        lines.join("; ")
    }
}

/// Checks a sale and gathers what is to be built.
///
/// # Errors
/// [`Invalid`] names every field that forbids it.
pub fn validate(
    sale: &TrainSale,
    found: &Dereferenced,
    config: &Config,
) -> Result<ValidatedSale, Invalid> {
    let mut findings = checks::check(sale);
    findings.extend(checks::not_implemented(sale));
    if !findings.is_empty() {
        return Err(Invalid::new(findings));
    }
    let definition = definition::found(sale).map_err(Invalid::new)?;
    check_neighbours(sale, found)?;
    let key = key(sale);
    let topic = sale.ledger_name();
    let phase = phase(sale, found.records.iter().find(|r| r.topic == topic));
    let record = record(sale, &phase, found);
    let roll = sale.annotations().get(ROLL).is_some_and(|value| value == "now");
    let asked = sale.spec.fleet.image.clone();
    let pinned = sale.status.as_ref().and_then(|s| s.image.clone()).filter(|_| !roll);
    let newest = || config.node_image.clone();
    let image = asked.clone().or(pinned).unwrap_or_else(newest);
    Ok(ValidatedSale {
        owner: owner(sale),
        definition,
        ledger: Ledger {
            board_topic: format!("{topic}.board"),
            topic,
            replicas: sale.spec.ledger.replicas,
            min_in_sync_replicas: sale.spec.ledger.min_in_sync_replicas,
        },
        phase,
        record,
        image_is_older: asked.is_none() && image != config.node_image,
        image,
        roll,
        pull_policy: config.pull_policy.clone(),
        pull_secrets: sale.spec.fleet.image_pull_secrets.iter().map(|s| s.name.clone()).collect(),
        pools: pools(sale),
        settle: settle(sale),
        max_surge: sale.spec.fleet.update.max_surge,
        kafka: sale.spec.kafka.bootstrap_servers.clone(),
        redis: sale.spec.redis.standalone.as_ref().map(|s| s.address.clone()),
        front: front(sale),
        service: sale.spec.traffic.service.kind,
        wish: wish(sale),
        operator_key: config.operator_key.clone(),
        operator_namespace: config.operator_namespace.clone(),
        key,
    })
}

/// Which sale this is.
#[must_use]
pub fn key(sale: &TrainSale) -> SaleKey {
    SaleKey { namespace: sale.namespace().unwrap_or_default(), name: sale.name_any() }
}

fn owner(sale: &TrainSale) -> OwnerReference {
    OwnerReference {
        api_version: TrainSale::api_version(&()).into_owned(),
        kind: TrainSale::kind(&()).into_owned(),
        name: sale.name_any(),
        uid: sale.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn front(sale: &TrainSale) -> Front {
    let spec = &sale.spec;
    let mut keys = Vec::new();
    let mut file = |key: &KeyReference, name: &'static str| {
        keys.push((key.clone(), name));
        PathBuf::from(format!("{KEYS_DIR}/{name}"))
    };
    let identity = match &spec.auth.jwt {
        Some(jwt) if spec.auth.kind == AuthType::Jwt => config::Identity::Token {
            issuer: jwt.issuer.clone(),
            audiences: jwt.audiences.clone(),
            algorithms: jwt.algorithms.iter().map(ToString::to_string).collect(),
            keys: match (&jwt.jwks_secret, &jwt.jwks_url) {
                (Some(secret), _) => config::Keys::File(file(secret, "jwks.json")),
                (None, url) => config::Keys::Url(url.clone().unwrap_or_default()),
            },
        },
        _ => {
            let header = spec.auth.header.clone().unwrap_or_default();
            let from = header.from_cidrs.unwrap_or_default();
            config::Identity::Header { name: header.name, from }
        }
    };
    let payment = match &spec.payment.webhook {
        Some(webhook) if spec.payment.kind == PaymentType::Webhook => {
            config::Payment::Webhook { secrets: file(&webhook.secret, "payment") }
        }
        _ => config::Payment::Sandbox,
    };
    let origins = spec.traffic.cors.as_ref().map(|c| c.allowed_origins.clone());
    Front { identity, payment, origins: origins.unwrap_or_default(), keys }
}

fn settle(sale: &TrainSale) -> Option<Settle> {
    let orders_topic = sale.spec.settlement.as_ref()?.orders_topic.clone()?;
    Some(Settle { orders_topic, replicas: sale.spec.fleet.settle.replicas })
}

fn runs(sale: &TrainSale) -> BTreeSet<Run> {
    sale.spec.runs.iter().map(|r| (r.train.clone(), r.date.clone())).collect()
}

/// A run is sold by one ledger only, and a ledger belongs to one sale only. Of two sales that
/// want the same, the older one has it.
fn check_neighbours(sale: &TrainSale, found: &Dereferenced) -> Result<(), Invalid> {
    let mut findings = Vec::new();
    let topic = sale.ledger_name();
    let age = |s: &TrainSale| (s.creation_timestamp(), s.name_any());
    for other in found.others.iter().filter(|other| age(other) < age(sale)) {
        if other.ledger_name() == topic {
            let message = format!("{topic} is the ledger of the sale {}", other.name_any());
            findings.push(Finding::new("spec.ledger.topic", message));
            continue;
        }
        let theirs = runs(other);
        let by = format!("the sale {}", other.name_any());
        findings.extend(taken(sale, &theirs, &by));
    }
    for record in found.records.iter().filter(|record| record.topic != topic) {
        let by = format!("the ledger {} (ConfigMap {})", record.topic, record.name);
        findings.extend(taken(sale, &record.runs, &by));
    }
    findings.sort();
    findings.dedup_by(|a, b| a.path == b.path);
    if findings.is_empty() { Ok(()) } else { Err(Invalid::new(findings)) }
}

fn taken(sale: &TrainSale, theirs: &BTreeSet<Run>, by: &str) -> Vec<Finding> {
    let runs = sale.spec.runs.iter().enumerate();
    runs.filter(|(_, run)| theirs.contains(&(run.train.clone(), run.date.clone())))
        .map(|(i, run)| {
            let message = format!("{} on {} is sold by {by}", run.train, run.date);
            Finding::new(format!("spec.runs[{i}]"), message)
        })
        .collect()
}

fn phase(sale: &TrainSale, left: Option<&Record>) -> Phase {
    let known = sale.status.as_ref().and_then(|s| s.ledger.as_ref());
    let topic_id = known.map(|l| l.topic_id.clone()).filter(|id| !id.is_empty());
    let genesis_hash = known.and_then(|l| l.genesis_hash.clone());
    let left_hash = left.and_then(|l| l.genesis_hash.clone());
    match (topic_id, genesis_hash) {
        (Some(topic_id), Some(genesis_hash)) => Phase::Serve { topic_id, genesis_hash },
        (Some(topic_id), None) => Phase::Genesis { topic_id, genesis_hash: left_hash },
        (None, _) => {
            Phase::Topics { topic_id: left.map(|l| l.topic_id.clone()), genesis_hash: left_hash }
        }
    }
}

/// The record as it should be: with all runs that were ever sold, also those that the sale
/// names no more because it was made anew.
fn record(sale: &TrainSale, phase: &Phase, found: &Dereferenced) -> Option<Record> {
    let (topic_id, genesis_hash) = match phase {
        Phase::Topics { .. } => return None,
        Phase::Genesis { topic_id, genesis_hash } => (topic_id, genesis_hash.clone()),
        Phase::Serve { topic_id, genesis_hash } => (topic_id, Some(genesis_hash.clone())),
    };
    let topic = sale.ledger_name();
    let before = found.records.iter().find(|r| r.topic == topic && r.topic_id == *topic_id);
    let mut runs = runs(sale);
    runs.extend(before.into_iter().flat_map(|r| r.runs.iter().cloned()));
    Some(Record {
        name: record::name(&topic),
        sale: sale.name_any(),
        topic,
        topic_id: topic_id.clone(),
        genesis_hash,
        runs,
    })
}

fn pools(sale: &TrainSale) -> Vec<Pool> {
    use control::config::Role;
    let fleet = &sale.spec.fleet;
    let first = Pool {
        name: DEFAULT_POOL.to_owned(),
        role: Role::Sell,
        replicas: fleet.replicas,
        weight: 1,
        template: fleet.template.clone(),
    };
    let more = fleet.pools.iter().map(|pool| Pool {
        name: pool.name.clone(),
        role: Role::Sell,
        replicas: pool.replicas,
        weight: pool.weight,
        template: pool.template.clone(),
    });
    let query = Pool {
        name: "query".to_owned(),
        role: Role::Query,
        replicas: fleet.query.replicas,
        weight: 0,
        template: fleet.query.template.clone(),
    };
    std::iter::once(first).chain(more).chain([query]).collect()
}

/// What the nodes should be told by the ledger.
#[must_use]
pub fn wish(sale: &TrainSale) -> Wish {
    let spec = &sale.spec;
    let fleet = &spec.fleet;
    let more: u64 = fleet.pools.iter().map(|p| u64::from(p.replicas)).sum();
    let sellers = u64::from(fleet.replicas) + more;
    let ms = |seconds: u32| seconds.saturating_mul(1000);
    let open = spec.open_time.as_ref().map(millis);
    let preheat = u64::from(spec.preheat_seconds) * 1000;
    Wish {
        sellers: usize::try_from(sellers).unwrap_or(usize::MAX),
        // From here on the fleet should be complete; the sale does not wait for the last pod.
        begin_at: open.map(|at| Millis(at.0.saturating_sub(preheat))),
        state: match (spec.state, sale.metadata.deletion_timestamp.is_some()) {
            (_, true) | (SaleState::Stopped, _) => entry::SaleState::Stopped,
            (SaleState::Active, _) => entry::SaleState::Active,
            (SaleState::Suspended, _) => entry::SaleState::Suspended,
        },
        open,
        close: spec.close_time.as_ref().map(millis),
        limits: entry::Limits {
            passengers_per_order: spec.limits.passengers_per_order,
            live_holds: spec.limits.live_holds_per_buyer_per_run,
            orders: spec.limits.orders_per_buyer_per_run,
            payment_ms: ms(spec.holds.payment_seconds),
            grace_ms: ms(spec.holds.grace_seconds),
            low_water_seats: u16::from(spec.stock.low_water_seats),
        },
    }
}

/// A time of day; what lies before 1970 is 1970.
#[must_use]
pub fn millis(time: &Time) -> Millis {
    Millis(u64::try_from(time.0.as_millisecond()).unwrap_or(0))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use crds::status::{LedgerStatus, TrainSaleStatus};

    use super::*;

    pub(crate) fn config() -> Config {
        Config {
            node_image: "stationmaster/node:1".into(),
            pull_policy: "IfNotPresent".into(),
            operator_key: "ab".repeat(32),
            operator_namespace: "stationmaster".into(),
        }
    }

    /// The example that users start from, as the API server would hand it out.
    pub(crate) fn minimal() -> TrainSale {
        let mut sale = TrainSale::from_yaml(include_str!("../../examples/minimal.yaml")).unwrap();
        sale.metadata.namespace = Some("tickets".into());
        sale.metadata.uid = Some("uid-1".into());
        sale.metadata.generation = Some(1);
        sale
    }

    pub(crate) fn founded(mut sale: TrainSale) -> TrainSale {
        let ledger = LedgerStatus {
            topic: sale.ledger_name(),
            topic_id: "q3ZyGgVJQ5mUfqqTCBnK1A".into(),
            sale_id: Some(sale.ledger_name()),
            genesis_hash: Some("9f".into()),
        };
        let status = TrainSaleStatus { ledger: Some(ledger), ..TrainSaleStatus::default() };
        sale.status = Some(status);
        sale
    }

    fn refused(sale: &TrainSale, found: &Dereferenced) -> (&'static str, String) {
        let invalid = validate(sale, found, &config()).unwrap_err();
        (invalid.reason, invalid.findings[0].path.clone())
    }

    #[test]
    fn the_minimal_example_is_accepted_with_its_defaults() {
        let sale = validate(&minimal(), &Dereferenced::default(), &config()).unwrap();
        let pools: Vec<_> =
            sale.pools.iter().map(|p| (p.name.as_str(), p.replicas, p.weight)).collect();
        assert_eq!(pools, [("default", 3, 1), ("query", 2, 0)]);
        assert_eq!(sale.ledger.topic, "tickets.demo");
        assert_eq!(sale.phase, Phase::Topics { topic_id: None, genesis_hash: None });
        assert_eq!((sale.wish.sellers, sale.wish.open), (3, None));
        let header = config::Identity::Header { name: "X-Buyer-Id".into(), from: Vec::new() };
        assert_eq!(sale.front.identity, header);
        assert_eq!(sale.front.payment, config::Payment::Sandbox);
    }

    #[test]
    fn keys_of_secrets_become_files_of_the_nodes() {
        let mut sale = minimal();
        let key = |name: &str| KeyReference { name: name.into(), key: "k".into() };
        sale.spec.auth.kind = AuthType::Jwt;
        sale.spec.auth.jwt = Some(crds::sale::JwtAuth {
            issuer: "https://id".into(),
            audiences: vec!["tickets".into()],
            algorithms: vec![crds::sale::JwtAlgorithm::EdDsa],
            jwks_url: None,
            jwks_secret: Some(key("issuer")),
        });
        sale.spec.payment = crds::sale::Payment {
            kind: PaymentType::Webhook,
            webhook: Some(crds::sale::WebhookPayment { secret: key("provider") }),
        };
        let front = validate(&sale, &Dereferenced::default(), &self::config()).unwrap().front;
        let files = [(key("issuer"), "jwks.json"), (key("provider"), "payment")];
        assert_eq!(front.keys, files);
        let secrets = PathBuf::from("/etc/stationmaster-keys/payment");
        assert_eq!(front.payment, config::Payment::Webhook { secrets });
        let config::Identity::Token { algorithms, .. } = front.identity else { panic!("a token") };
        assert_eq!(algorithms, ["EdDSA"]);
    }

    #[test]
    fn a_wrong_field_is_named() {
        let none = Dereferenced::default();
        let mut sale = minimal();
        sale.spec.runs[0].timetable = "nowhere".into();
        assert_eq!(refused(&sale, &none), ("InvalidSpec", "spec.runs[0].timetable".into()));
        let mut sale = minimal();
        sale.spec.timetables[0].stops[1].arrives = Some("06:00".into());
        let path = "spec.timetables[0].stops[1].arrives";
        assert_eq!(refused(&sale, &none), ("TimesNotInOrder", path.into()));
    }

    #[test]
    fn a_field_that_is_not_implemented_is_refused_by_name() {
        let mut sale = minimal();
        sale.spec.fleet.idle = Some(crds::sale::Idle { replicas: 1 });
        let none = Dereferenced::default();
        assert_eq!(refused(&sale, &none), ("InvalidSpec", "spec.fleet.idle".into()));
    }

    #[test]
    fn of_two_sales_of_a_run_the_older_one_has_it() {
        let mut older = minimal();
        older.metadata.name = Some("a-first".into());
        older.metadata.uid = Some("uid-0".into());
        let with = |other: TrainSale| Dereferenced {
            others: vec![Arc::new(other)],
            ..Dereferenced::default()
        };
        let (reason, path) = refused(&minimal(), &with(older.clone()));
        assert_eq!((reason, path.as_str()), ("InvalidSpec", "spec.runs[0]"));
        assert!(validate(&older, &with(minimal()), &config()).is_ok());
    }

    #[test]
    fn a_run_of_a_ledger_that_outlived_its_sale_is_refused() {
        let record = Record {
            name: "r".into(),
            sale: "gone".into(),
            topic: "tickets.gone".into(),
            topic_id: "x".into(),
            genesis_hash: None,
            runs: [("G101".into(), "2027-02-01".into())].into(),
        };
        let found = Dereferenced { records: vec![record], ..Dereferenced::default() };
        assert_eq!(refused(&minimal(), &found), ("InvalidSpec", "spec.runs[0]".into()));
    }

    #[test]
    fn a_sale_that_is_made_again_must_find_the_ledger_that_it_left() {
        let before = validate(&founded(minimal()), &Dereferenced::default(), &config()).unwrap();
        let found =
            Dereferenced { records: vec![before.record.unwrap()], ..Dereferenced::default() };
        let again = validate(&minimal(), &found, &config()).unwrap();
        let phase = Phase::Topics {
            topic_id: Some("q3ZyGgVJQ5mUfqqTCBnK1A".into()),
            genesis_hash: Some("9f".into()),
        };
        assert_eq!(again.phase, phase);
    }

    #[test]
    fn the_image_stays_what_it_was_when_the_operator_s_changes() {
        let mut sale = founded(minimal());
        sale.status.as_mut().unwrap().image = Some("stationmaster/node:0".into());
        let valid = validate(&sale, &Dereferenced::default(), &config()).unwrap();
        assert_eq!(valid.image, "stationmaster/node:0");
        assert!(valid.image_is_older && !valid.roll);
        let mut rolled = sale.clone();
        rolled.annotations_mut().insert(ROLL.into(), "now".into());
        let valid = validate(&rolled, &Dereferenced::default(), &config()).unwrap();
        assert_eq!(valid.image, "stationmaster/node:1");
        assert!(!valid.image_is_older);
        sale.spec.fleet.image = Some("mine".into());
        let valid = validate(&sale, &Dereferenced::default(), &config()).unwrap();
        assert_eq!(valid.image, "mine");
    }

    #[test]
    fn a_sale_that_is_deleted_stops_selling() {
        let mut sale = minimal();
        sale.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(wish(&sale).state, entry::SaleState::Stopped);
    }
}
