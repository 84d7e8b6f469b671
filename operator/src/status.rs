//! What is said of a sale: its conditions, numbers and nodes. Pure.
//!
//! A condition is said only if it is known. Each carries the generation that it was found for,
//! so that `kubectl wait` is never satisfied by the past.

use std::collections::BTreeMap;

use crds::TrainSale;
use crds::sale::SaleState as SpecState;
use crds::status::{Endpoint, NodeStatus, ShareCounts, TrainSaleStatus};
use inventory::entry::SaleState;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use crate::fleet::{RedisSeen, Seen};
use crate::founding::InitJob;
use crate::names::{DEFAULT_POOL, ROLE, SETTLE, is_node, selector_text};
use crate::pods;
use crate::validate::{Invalid, Phase, ValidatedSale};

/// Nodes that are listed by name. A status is read by people and kept in etcd; the rest are
/// counted, and `kubectl get pods` has them.
const NODES_MAX: usize = 256;

/// How long nobody must be heard before the fleet is called unreachable: a roll-out or a
/// fail-over of the operator takes less.
pub const UNREACHABLE: SignedDuration = SignedDuration::from_secs(10);

/// How far this reconcile came.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// The spec cannot be built.
    Invalid(&'a Invalid),
    /// Objects of another owner have the names that this sale needs.
    Conflict(&'a [String]),
    /// The ledger is not founded yet.
    Founding(&'a InitJob),
    /// The fleet's objects are as they should be.
    Applied,
    /// The sale is about to go.
    Deleting,
}

/// Everything that a status is made from.
#[derive(Debug)]
pub struct Facts<'a> {
    /// The sale, with the status that it has.
    pub sale: &'a TrainSale,
    /// The sale as it is built, unless it cannot be.
    pub valid: Option<&'a ValidatedSale>,
    /// How far this reconcile came.
    pub outcome: Outcome<'a>,
    /// The sale's Deployments, as they were found: of nodes, and of settlers.
    pub deployments: &'a [Deployment],
    /// Whether this operator would make newer pods, if it were asked; none if it was not found
    /// out this time.
    pub update_pending: Option<bool>,
    /// Whether the user keeps the operator from writing objects.
    pub paused: bool,
    /// The sale's pods.
    pub pods: &'a [Pod],
    /// What the fleet loop sees; none before it runs.
    pub fleet: Option<&'a Seen>,
    /// The time.
    pub now: Timestamp,
}

/// A condition without its times.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    status: &'static str,
    reason: String,
    message: String,
}

fn yes(reason: &str, message: impl Into<String>) -> Said {
    Said { status: "True", reason: reason.to_owned(), message: message.into() }
}

fn no(reason: &str, message: impl Into<String>) -> Said {
    Said { status: "False", reason: reason.to_owned(), message: message.into() }
}

fn unknown(reason: &str, message: impl Into<String>) -> Said {
    Said { status: "Unknown", reason: reason.to_owned(), message: message.into() }
}

/// The status of a generation that was just found: nothing of it is in force yet. Written
/// before any object is touched, so that nobody takes the last generation's success for this
/// one's.
#[must_use]
pub fn first(sale: &TrainSale, now: Timestamp) -> TrainSaleStatus {
    let mut status = sale.status.clone().unwrap_or_default();
    let generation = sale.metadata.generation.unwrap_or(0);
    status.observed_generation = generation;
    let message = format!("Generation {generation} was found and is being brought into force.");
    let said = BTreeMap::from([
        ("Ready", no("Progressing", message.clone())),
        ("Reconciling", yes("Progressing", message.clone())),
        ("Stalled", no("Progressing", message)),
    ]);
    for (kind, said) in said {
        put(&mut status.conditions, sale, kind, said, generation, now);
    }
    status
}

/// The status as it is now.
#[must_use]
pub fn status(facts: &Facts<'_>) -> TrainSaleStatus {
    let sale = facts.sale;
    let mut status = sale.status.clone().unwrap_or_default();
    let generation = sale.metadata.generation.unwrap_or(0);
    status.observed_generation = generation;
    numbers(facts, &mut status);
    let parts = [
        ("Accepted", accepted(facts)),
        ("LedgerReady", ledger_ready(facts)),
        ("FleetReady", fleet_ready(facts)),
        ("SharesOwned", shares_owned(facts)),
        ("RouteReady", route_ready(facts)),
    ];
    let redis = redis_ready(facts);
    let ready = ready(facts, &parts, &redis);
    let stalled = stalled(facts);
    let reconciling = reconciling(facts, &ready, &stalled);
    let all = parts.into_iter().chain([
        ("RedisReady", redis),
        ("Selling", selling(facts)),
        ("Ready", ready),
        ("Reconciling", reconciling),
        ("Stalled", stalled),
    ]);
    match settled(facts) {
        Some(said) => put(&mut status.conditions, sale, "Settled", said, generation, facts.now),
        None => status.conditions.retain(|c| c.type_ != "Settled" || facts.valid.is_none()),
    }
    let all = all.chain(facts.update_pending.map(|p| ("UpdatePending", update_pending(p))));
    for (kind, said) in all {
        put(&mut status.conditions, sale, kind, said, generation, facts.now);
    }
    status
}

/// Says of a ledger that was just founded how that happened; later passes only repeat it.
pub fn ledger_founded(
    status: &mut TrainSaleStatus,
    sale: &TrainSale,
    reason: &'static str,
    now: Timestamp,
) {
    let message = "The ledger's topic and its first record are as they should be.";
    let generation = sale.metadata.generation.unwrap_or(0);
    put(&mut status.conditions, sale, "LedgerReady", yes(reason, message), generation, now);
}

/// Something that people should hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whether somebody should look.
    pub is_warning: bool,
    /// In a word.
    pub reason: String,
    /// In a sentence.
    pub message: String,
}

/// What is new in a status: conditions that a person must know of and that fell or changed
/// their reason, and the sale being ready.
#[must_use]
pub fn events(before: Option<&TrainSaleStatus>, after: &TrainSaleStatus) -> Vec<News> {
    let known = |kind: &str| {
        let conditions = before.map(|s| s.conditions.as_slice()).unwrap_or_default();
        conditions.iter().find(|c| c.type_ == kind).map(|c| (&c.status, &c.reason))
    };
    let is_new = |c: &&Condition| known(&c.type_) != Some((&c.status, &c.reason));
    let told = |c: &&Condition| match c.type_.as_str() {
        "Accepted" | "LedgerReady" => c.status == "False",
        "Ready" => c.status == "True",
        _ => false,
    };
    let news = |c: &Condition| News {
        is_warning: c.status != "True",
        reason: c.reason.clone(),
        message: c.message.clone(),
    };
    after.conditions.iter().filter(told).filter(is_new).map(news).collect()
}

/// Sets a condition; its transition time moves only with its status.
fn put(
    conditions: &mut Vec<Condition>,
    sale: &TrainSale,
    kind: &str,
    said: Said,
    generation: i64,
    now: Timestamp,
) {
    let before = condition(sale, kind).filter(|c| c.status == said.status);
    let since = before.map_or(Time(whole_seconds(now)), |c| c.last_transition_time.clone());
    let next = Condition {
        type_: kind.to_owned(),
        status: said.status.to_owned(),
        reason: said.reason,
        message: said.message,
        observed_generation: Some(generation),
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|c| c.type_ == kind) {
        Some(slot) => *slot = next,
        None => conditions.push(next),
    }
}

/// As the API server writes times; otherwise a status would differ from what is read back.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn condition<'a>(sale: &'a TrainSale, kind: &str) -> Option<&'a Condition> {
    sale.status.as_ref()?.conditions.iter().find(|c| c.type_ == kind)
}

fn accepted(facts: &Facts<'_>) -> Said {
    if let Outcome::Invalid(invalid) = facts.outcome {
        return no(invalid.reason, invalid.message());
    }
    if let Outcome::Conflict(names) = facts.outcome {
        let message = format!("These objects belong to somebody else: {}.", names.join(", "));
        return no("NameConflict", message);
    }
    let refused = facts.fleet.map(|f| f.refused.clone()).unwrap_or_default();
    if !refused.is_empty() {
        let invalid = Invalid::new(refused);
        return no(invalid.reason, invalid.message());
    }
    yes("Valid", "The spec can be built.")
}

fn is_founded(facts: &Facts<'_>) -> bool {
    let ledger = facts.sale.status.as_ref().and_then(|s| s.ledger.as_ref());
    ledger.is_some_and(|l| l.genesis_hash.is_some() && !l.topic_id.is_empty())
}

fn ledger_ready(facts: &Facts<'_>) -> Said {
    match &facts.outcome {
        Outcome::Founding(InitJob::Failed { failure, .. }) => {
            return no(failure.reason(), failure.message());
        }
        Outcome::Founding(InitJob::Running { trouble: Some(trouble) }) => {
            return unknown("Checking", format!("The init Job is held up: {trouble}"));
        }
        Outcome::Founding(InitJob::Outdated) => {
            return unknown("Checking", "The init Job is started anew.");
        }
        Outcome::Founding(_) => {
            // The next try is no reason to forget what the last one found.
            let failed = condition(facts.sale, "LedgerReady").filter(|c| c.status == "False");
            return failed.map_or_else(
                || unknown("Checking", "The init Job looks at Kafka."),
                |c| no(&c.reason, c.message.clone()),
            );
        }
        _ => (),
    }
    if !is_founded(facts) {
        return unknown("Checking", "The ledger is not founded yet.");
    }
    if facts.fleet.and_then(|f| f.kafka) == Some(false) {
        return no("KafkaUnreachable", "No node gets an answer from Kafka.");
    }
    // How it was founded is said for as long as nothing else is to be said.
    let reason = condition(facts.sale, "LedgerReady").map(|c| c.reason.as_str());
    let reason = reason.filter(|r| ["Created", "Adopted"].contains(r)).unwrap_or("Verified");
    yes(reason, "The ledger's topic and its first record are as they should be.")
}

fn redis_ready(facts: &Facts<'_>) -> Said {
    let seen = facts.fleet.map_or(RedisSeen::NoNode, |f| f.redis);
    match seen {
        RedisSeen::NoNode => unknown("NoNode", "No node that uses Redis has answered."),
        RedisSeen::Answers => yes("Answers", "A node reached it within 10 s."),
        RedisSeen::Never | RedisSeen::Silent => {
            no("Unreachable", "No node has reached it within 10 s; nodes draw without it.")
        }
    }
}

/// The Deployments of those who serve buyers.
fn nodes<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = &'a Deployment> {
    facts.deployments.iter().filter(|d| !is_settlers(d))
}

fn is_settlers(deployment: &Deployment) -> bool {
    let selector = deployment.spec.as_ref().and_then(|s| s.selector.match_labels.as_ref());
    selector.and_then(|labels| labels.get(ROLE)).is_some_and(|role| role == SETTLE)
}

/// Whether orders are told of; not said of a sale that does not ask for it. A sale is `Ready`
/// without it: buyers do not wait for it.
fn settled(facts: &Facts<'_>) -> Option<Said> {
    facts.valid?.settle.as_ref()?;
    let Some(settlers) = facts.deployments.iter().find(|d| is_settlers(d)) else {
        return Some(unknown("Pending", "There are no settle nodes yet."));
    };
    let replicas = settlers.spec.as_ref().and_then(|s| s.replicas);
    let pods = facts.pods.iter();
    let mut troubles = pods
        .filter(|p| p.labels().get(ROLE).is_some_and(|role| role == SETTLE))
        .filter_map(pods::trouble);
    Some(match (unsettled(settlers), replicas) {
        (_, Some(0)) => no("NoSettler", "No settle node is wanted."),
        (None, _) => yes("Settling", "Every settle node is ready."),
        (Some(late), _) => match replica_failure(settlers).or_else(|| troubles.next()) {
            Some(trouble) => no(trouble.reason, trouble.message),
            None => no("RollingOut", late),
        },
    })
}

fn desired(facts: &Facts<'_>) -> i32 {
    let replicas = |d: &Deployment| d.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    match facts.valid {
        Some(valid) if !matches!(valid.phase, Phase::Serve { .. }) => {
            valid.pools.iter().map(|p| i32::from(p.replicas)).sum()
        }
        _ => nodes(facts).map(replicas).sum(),
    }
}

fn fleet_ready(facts: &Facts<'_>) -> Said {
    if nodes(facts).next().is_none() {
        return unknown("Pending", "There are no nodes yet.");
    }
    let late = nodes(facts).filter_map(unsettled);
    let late: Vec<String> = late.chain(leaving(facts)).collect();
    if late.is_empty() {
        return yes("AllReady", "Every node is ready and of the newest template.");
    }
    let failed = nodes(facts).find_map(replica_failure);
    let trouble = facts.pods.iter().filter(|p| is_node(p.labels()));
    let trouble = failed.or_else(|| trouble.filter_map(pods::trouble).next());
    if let Some(trouble) = trouble {
        return no(trouble.reason, trouble.message);
    }
    let nodes = facts.fleet.map(|seen| seen.nodes.as_slice()).unwrap_or_default();
    match nodes.iter().find(|n| matches!(n.state, "Dead" | "Unreachable")) {
        Some(node) => {
            let state = node.state.to_lowercase();
            no("NodeLost", format!("{} is {state}; {}", node.name, late.join("; ")))
        }
        None => no("RollingOut", late.join("; ")),
    }
}

/// Pods that are on their way out: they may own shares until they are gone. One that is held to
/// be dead has lost its shares, and its pod may stay for as long as its machine is away.
fn leaving(facts: &Facts<'_>) -> Option<String> {
    let nodes = facts.fleet.map(|seen| seen.nodes.as_slice()).unwrap_or_default();
    let dead = |pod: &Pod| {
        let name = pod.name_any();
        nodes.iter().any(|n| n.name == name && matches!(n.state, "Dead" | "Unreachable"))
    };
    let count = facts.pods.iter().filter(|pod| {
        is_node(pod.labels()) && pod.metadata.deletion_timestamp.is_some() && !dead(pod)
    });
    let count = count.count();
    (count > 0).then(|| format!("{count} nodes are on their way out"))
}

/// What a Deployment still lacks.
fn unsettled(deployment: &Deployment) -> Option<String> {
    let name = deployment.name_any();
    let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else {
        return Some(format!("{name} was not looked at yet"));
    };
    if status.observed_generation < deployment.metadata.generation {
        return Some(format!("{name} was not looked at yet"));
    }
    let (all, updated, ready) = (
        status.replicas.unwrap_or(0),
        status.updated_replicas.unwrap_or(0),
        status.ready_replicas.unwrap_or(0),
    );
    let settled = all == wanted && updated == wanted && ready == wanted;
    (!settled).then(|| {
        format!("{name}: {ready} of {wanted} nodes are ready, {updated} of them new, {all} in all")
    })
}

fn replica_failure(deployment: &Deployment) -> Option<pods::Trouble> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failure = conditions.iter().find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    let message = failure.message.clone().unwrap_or_default();
    let reason = if message.contains("quota") { "QuotaExceeded" } else { "RollingOut" };
    Some(pods::Trouble { reason, message: format!("{}: {message}", deployment.name_any()) })
}

/// Whether nobody has been heard for long enough to say so.
fn is_unreachable(facts: &Facts<'_>, seen: &Seen) -> bool {
    let since = seen.unreachable_since;
    since.is_some_and(|since| facts.now.duration_since(since) >= UNREACHABLE)
}

/// Whether the sale is stopped, and its pods are gone or about to go.
fn is_without_pods(facts: &Facts<'_>) -> bool {
    let mut nodes = facts.deployments.iter().map(|d| d.spec.as_ref().and_then(|s| s.replicas));
    facts.sale.spec.state == SpecState::Stopped && nodes.all(|n| n == Some(0))
}

fn shares_owned(facts: &Facts<'_>) -> Said {
    let Some(seen) = facts.fleet else {
        return unknown("Pending", "There are no nodes yet.");
    };
    if is_without_pods(facts) {
        return no("Stopped", "The sale has no pods, so nobody owns a share.");
    }
    if is_unreachable(facts, seen) {
        return unknown("FleetUnreachable", "No node has answered the operator for 10 s.");
    }
    if seen.owned == seen.shares {
        return yes("AllOwned", format!("All {} shares have a living owner.", seen.shares));
    }
    let message = format!("{} of {} shares have a living owner.", seen.owned, seen.shares);
    if seen.deferred {
        return no("NoSurvivor", message);
    }
    let reason = if seen.assign_version == 0 { "Assigning" } else { "Moving" };
    no(reason, message)
}

fn route_ready(facts: &Facts<'_>) -> Said {
    let sells = |p: &&Pod| p.labels().get(ROLE).is_some_and(|r| r == "sell");
    if facts.pods.iter().filter(sells).any(pods::is_ready) {
        return yes("EndpointsReady", "The sale's Service has endpoints.");
    }
    no("NoEndpoints", "No selling node is ready, so the Service has no endpoint.")
}

/// When the sale opens, preheats or closes next.
#[must_use]
pub fn next_moment(sale: &TrainSale, now: Timestamp) -> Option<Timestamp> {
    let open = sale.spec.open_time.as_ref().map(|t| t.0);
    let preheat = SignedDuration::from_secs(i64::from(sale.spec.preheat_seconds));
    let warm = open.and_then(|t| t.checked_sub(preheat).ok());
    let close = sale.spec.close_time.as_ref().map(|t| t.0);
    [warm, open, close].into_iter().flatten().filter(|t| *t > now).min()
}

fn selling(facts: &Facts<'_>) -> Said {
    let Some(seen) = facts.fleet else {
        return no("NotReady", "There are no nodes yet.");
    };
    if is_without_pods(facts) {
        return no("Stopped", "The sale has no pods; its ledger is kept.");
    }
    if is_unreachable(facts, seen) {
        return unknown("FleetUnreachable", "No node has answered the operator for 10 s.");
    }
    let Some(policy) = &seen.policy else {
        return no("NotReady", "The fleet was never complete; nodes answer that it is not open.");
    };
    let at = |ms: u64| i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let open = policy.open.and_then(|t| at(t.0));
    let close = policy.close.and_then(|t| at(t.0));
    let preheat = SignedDuration::from_secs(i64::from(facts.sale.spec.preheat_seconds));
    match policy.state {
        SaleState::Suspended => return no("Suspended", "No new orders; paying works."),
        SaleState::Stopped => return no("Stopped", "No new orders; the fleet is stopped."),
        SaleState::Active => (),
    }
    if let Some(close) = close
        && facts.now >= close
    {
        return no("Closed", format!("It closed at {close}."));
    }
    match open {
        Some(open) if facts.now < open => {
            let warms = facts.now.duration_until(open) <= preheat;
            let reason = if warms { "Preheating" } else { "Scheduled" };
            no(reason, format!("It opens at {open}."))
        }
        _ if seen.owned == 0 => no("NotReady", "No share has a living owner."),
        _ => yes("Open", "Orders are taken."),
    }
}

fn ready(facts: &Facts<'_>, parts: &[(&str, Said)], redis: &Said) -> Said {
    if matches!(facts.outcome, Outcome::Deleting) {
        return no("Deleting", "The sale is being deleted; its ledger is kept.");
    }
    if let Some((kind, said)) = parts.iter().find(|(_, said)| said.status != "True") {
        let message = format!("{kind}: {}", said.message);
        return match said.reason.as_str() {
            "FleetUnreachable" => unknown(&said.reason, message),
            reason => no(reason, message),
        };
    }
    let generation = facts.sale.metadata.generation;
    let was = condition(facts.sale, "Ready").filter(|c| c.observed_generation == generation);
    if facts.paused && was.is_none_or(|c| c.status != "True") {
        let message = "The annotation stationmaster.dev/paused keeps this generation from being \
                       brought into force.";
        return no("Paused", message);
    }
    // Losing Redis later loses nothing; never having met it means that its address is wrong.
    let met = facts.fleet.is_some_and(|f| f.redis != RedisSeen::Never);
    if !met && redis.status != "True" && was.is_none_or(|c| c.status != "True") {
        return no(&redis.reason, format!("RedisReady: {}", redis.message));
    }
    let in_force = |seen: &Seen| {
        let newest = Some(seen.generation) == generation;
        newest && seen.policy_in_force && seen.definition_in_force
    };
    if !facts.fleet.is_some_and(in_force) {
        let message = "Not every node has read what the ledger says of this generation.";
        return no("Progressing", message);
    }
    // Once it was in force, shares that move for another reason are no step back.
    let moving = facts.fleet.map_or(0, |seen| seen.moving);
    if moving > 0 && was.is_none_or(|c| c.status != "True") {
        return no("Moving", format!("SharesOwned: {moving} shares are on their way."));
    }
    yes("Ready", "Everything that the spec asks for is in force.")
}

fn stalled(facts: &Facts<'_>) -> Said {
    let by_person = |what: &str| yes("NeedsAttention", format!("Only a person can help: {what}"));
    let accepted = accepted(facts);
    if accepted.status == "False" {
        return by_person(&accepted.message);
    }
    match facts.outcome {
        Outcome::Founding(InitJob::Failed { failure, .. }) if !failure.heals() => {
            by_person(&failure.message())
        }
        Outcome::Founding(InitJob::Absent | InitJob::Running { .. }) => {
            // The next try has not helped yet.
            match condition(facts.sale, "Stalled").filter(|c| c.status == "True") {
                Some(before) => yes(&before.reason, before.message.clone()),
                None => no("Progressing", "Nothing waits for a person."),
            }
        }
        _ => no("Progressing", "Nothing waits for a person."),
    }
}

fn reconciling(facts: &Facts<'_>, ready: &Said, stalled: &Said) -> Said {
    if stalled.status == "True" {
        return no("Stalled", "The operator has done what it can.");
    }
    let generation = facts.sale.metadata.generation;
    let before = condition(facts.sale, "Reconciling");
    let settled = before.is_some_and(|c| {
        c.observed_generation == generation && c.status == "False" && c.reason == "Settled"
    });
    // A fleet that loses a node later is not being reconciled: its spec was in force.
    if ready.status == "True" || settled {
        return no("Settled", "The spec is in force.");
    }
    yes("Progressing", ready.message.clone())
}

fn update_pending(is_pending: bool) -> Said {
    if is_pending {
        let message = "This operator would make the nodes' pods otherwise. They stay as they are \
                       until the spec asks for other pods, or the annotation \
                       stationmaster.dev/roll=now for the newest.";
        return yes("NewerTemplate", message);
    }
    no("UpToDate", "The nodes' pods are as this operator makes them.")
}

fn numbers(facts: &Facts<'_>, status: &mut TrainSaleStatus) {
    let sale = facts.sale;
    let name = sale.name_any();
    status.selector = Some(selector_text(&name, "sell", DEFAULT_POOL));
    let of = |f: fn(&Deployment) -> Option<i32>| -> i32 { nodes(facts).filter_map(f).sum() };
    let default = format!("{name}-sell-{DEFAULT_POOL}");
    let first = facts.deployments.iter().find(|d| d.name_any() == default);
    let replicas = first.and_then(|d| d.status.as_ref()?.replicas);
    status.replicas = Some(replicas.unwrap_or(0));
    status.desired_nodes = Some(desired(facts));
    status.ready_nodes = Some(of(|d| d.status.as_ref()?.ready_replicas));
    status.updated_nodes = Some(of(|d| d.status.as_ref()?.updated_replicas));
    if let Some(valid) = facts.valid {
        status.image = Some(valid.image.clone());
        status.template_hash = Some(template_hash(valid));
        status.endpoints = ["", "-query"]
            .iter()
            .zip(["sell", "query"])
            .map(|(suffix, kind)| Endpoint {
                name: kind.to_owned(),
                url: format!("http://{name}{suffix}.{}.svc", valid.key.namespace),
            })
            .collect();
    }
    let Some(seen) = facts.fleet else { return };
    let count = |n: u16| i32::from(n);
    status.shares = Some(ShareCounts {
        total: count(seen.shares),
        owned: count(seen.owned),
        moving: count(seen.moving),
    });
    status.assignment_version = i64::try_from(seen.assign_version).ok();
    status.policy_version =
        seen.policy.as_ref().and_then(|policy| i64::try_from(policy.version).ok());
    status.nodes = seen.nodes.iter().take(NODES_MAX).map(node).collect();
}

fn node(node: &crate::fleet::NodeSeen) -> NodeStatus {
    NodeStatus {
        name: node.name.clone(),
        pool: node.pool.clone(),
        role: node.role.map(|role| role.to_string()),
        state: node.state.to_owned(),
        shares: node.pool.is_some().then(|| i32::from(node.shares)),
        address: node.address.clone(),
    }
}

/// Of what the user asked of the pods, and of nothing that an operator adds.
fn template_hash(valid: &ValidatedSale) -> String {
    let templates: Vec<_> = valid.pools.iter().map(|p| (&p.name, &p.template)).collect();
    let text = serde_json::to_string(&(&valid.image, &valid.pull_secrets, templates));
    blake3::hash(text.unwrap_or_default().as_bytes()).to_hex()[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use inventory::entry::Policy;
    use inventory::words::Millis;
    use serde_json::json;

    use super::*;
    use crate::build::build;
    use crate::dereference::Dereferenced;
    use crate::founding::InitFailure;
    use crate::validate::tests::{config, founded, minimal};
    use crate::validate::{validate, wish};

    fn now() -> Timestamp {
        "2027-01-15T00:00:00Z".parse().unwrap()
    }

    fn seen() -> Seen {
        let wish = wish(&minimal());
        let policy = Policy {
            version: 1,
            state: wish.state,
            open: wish.open,
            close: wish.close,
            limits: wish.limits,
        };
        Seen {
            generation: 1,
            unreachable_since: None,
            shares: 16,
            owned: 16,
            moving: 0,
            deferred: false,
            assign_version: 1,
            policy: Some(policy),
            policy_in_force: true,
            definition_in_force: true,
            refused: Vec::new(),
            kafka: Some(true),
            redis: RedisSeen::Answers,
            nodes: Vec::new(),
        }
    }

    fn deployments(sale: &ValidatedSale, ready: i32) -> Vec<Deployment> {
        let settle = |mut d: Deployment| {
            let wanted = d.spec.as_ref().unwrap().replicas.unwrap();
            d.status = serde_json::from_value(json!({
                "observedGeneration": 1, "replicas": wanted, "updatedReplicas": wanted,
                "readyReplicas": wanted.min(ready)
            }))
            .unwrap();
            d
        };
        build(sale, false).deployments.into_iter().map(settle).collect()
    }

    fn ready_pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "labels": {ROLE: "sell"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}
        }))
        .unwrap()
    }

    struct Case {
        sale: TrainSale,
        ready: i32,
        seen: Option<Seen>,
    }

    fn good() -> Case {
        Case { sale: founded(minimal()), ready: 9, seen: Some(seen()) }
    }

    impl Case {
        fn status(&self) -> TrainSaleStatus {
            let valid = validate(&self.sale, &Dereferenced::default(), &config()).unwrap();
            status(&Facts {
                sale: &self.sale,
                valid: Some(&valid),
                outcome: Outcome::Applied,
                deployments: &deployments(&valid, self.ready),
                update_pending: Some(false),
                paused: false,
                pods: &[ready_pod()],
                fleet: self.seen.as_ref(),
                now: now(),
            })
        }
    }

    #[test]
    fn a_fleet_is_not_ready_while_a_node_is_on_its_way_out_unless_it_is_dead() {
        let case = good();
        let valid = validate(&case.sale, &Dereferenced::default(), &config()).unwrap();
        let mut leaving = ready_pod();
        leaving.metadata.deletion_timestamp = Some(Time(now()));
        let with = |seen: &Seen| {
            let status = status(&Facts {
                sale: &case.sale,
                valid: Some(&valid),
                outcome: Outcome::Applied,
                deployments: &deployments(&valid, 9),
                update_pending: None,
                paused: false,
                pods: &[leaving.clone()],
                fleet: Some(seen),
                now: now(),
            });
            said(&status, "FleetReady").1.to_owned()
        };
        assert_eq!(with(&seen()), "RollingOut");
        let dead = crate::fleet::NodeSeen {
            name: "p".into(),
            pool: None,
            role: None,
            state: "Dead",
            shares: 0,
            address: None,
        };
        assert_eq!(with(&Seen { nodes: vec![dead], ..seen() }), "AllReady");
    }

    fn said<'a>(status: &'a TrainSaleStatus, kind: &str) -> (&'a str, &'a str) {
        let condition = status.conditions.iter().find(|c| c.type_ == kind).unwrap();
        assert_eq!(condition.observed_generation, Some(1), "{kind}");
        (&condition.status, &condition.reason)
    }

    #[test]
    fn a_sale_is_ready_when_all_of_it_is_in_force() {
        let status = good().status();
        for kind in ["Accepted", "LedgerReady", "FleetReady", "SharesOwned", "RouteReady", "Ready"]
        {
            assert_eq!(said(&status, kind).0, "True", "{kind}");
        }
        assert_eq!(said(&status, "Selling"), ("True", "Open"));
        assert_eq!(said(&status, "Reconciling"), ("False", "Settled"));
        assert_eq!(said(&status, "Stalled").0, "False");
        let counts = (status.desired_nodes, status.ready_nodes, status.assignment_version);
        assert_eq!(counts, (Some(5), Some(5), Some(1)));
    }

    #[test]
    fn a_sale_says_whether_its_orders_are_told_of_if_they_are_to_be() {
        let mut case = good();
        let unasked = case.status();
        assert!(unasked.conditions.iter().all(|c| c.type_ != "Settled"));
        case.sale.spec.settlement =
            serde_json::from_value(serde_json::json!({"ordersTopic": "told"})).unwrap();
        let status = case.status();
        assert_eq!(said(&status, "Settled"), ("True", "Settling"));
        assert_eq!(status.desired_nodes, unasked.desired_nodes, "they are not of the fleet");
        case.ready = 0;
        assert_eq!(said(&case.status(), "Settled"), ("False", "RollingOut"));
        case.ready = 9;
        case.sale.status = Some(status);
        case.sale.spec.fleet.settle.replicas = 0;
        assert_eq!(said(&case.status(), "Settled"), ("False", "NoSettler"));
        assert_eq!(said(&case.status(), "Ready").0, "True", "buyers do not wait for it");
        case.sale.spec.settlement = None;
        assert!(case.status().conditions.iter().all(|c| c.type_ != "Settled"));
    }

    #[test]
    fn ready_says_the_first_thing_that_is_missing() {
        let with = |edit: &dyn Fn(&mut Case)| {
            let mut case = good();
            edit(&mut case);
            let status = case.status();
            let (status, reason) = said(&status, "Ready");
            (status.to_owned(), reason.to_owned())
        };
        let fleet = |edit: &dyn Fn(&mut Seen)| with(&|case| edit(case.seen.as_mut().unwrap()));
        let is = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(with(&|c| c.ready = 1), is("False", "RollingOut"));
        assert_eq!(with(&|c| c.seen = None), is("False", "Pending"));
        assert_eq!(fleet(&|s| s.owned = 15), is("False", "Moving"));
        assert_eq!(fleet(&|s| s.moving = 1), is("False", "Moving"));
        assert_eq!(fleet(&|s| s.generation = 0), is("False", "Progressing"));
        assert_eq!(fleet(&|s| s.kafka = Some(false)), is("False", "KafkaUnreachable"));
        assert_eq!(fleet(&|s| s.policy_in_force = false), is("False", "Progressing"));
        assert_eq!(fleet(&|s| s.definition_in_force = false), is("False", "Progressing"));
        assert_eq!(fleet(&|s| s.redis = RedisSeen::Never), is("False", "Unreachable"));
        assert_eq!(fleet(&|s| s.redis = RedisSeen::Silent), is("True", "Ready"));
        let lost = now() - SignedDuration::from_secs(11);
        let gone = is("Unknown", "FleetUnreachable");
        assert_eq!(fleet(&|s| s.unreachable_since = Some(lost)), gone);
    }

    #[test]
    fn a_paused_sale_is_as_ready_as_it_was() {
        let case = good();
        let valid = validate(&case.sale, &Dereferenced::default(), &config()).unwrap();
        let paused = |sale: &TrainSale| {
            let status = status(&Facts {
                sale,
                valid: Some(&valid),
                outcome: Outcome::Applied,
                deployments: &deployments(&valid, 9),
                update_pending: None,
                paused: true,
                pods: &[ready_pod()],
                fleet: case.seen.as_ref(),
                now: now(),
            });
            said(&status, "Ready").1.to_owned()
        };
        let mut before = case.sale.clone();
        before.status = Some(case.status());
        assert_eq!(paused(&before), "Ready");
        assert_eq!(paused(&case.sale), "Paused");
    }

    #[test]
    fn a_stopped_sale_says_so() {
        let mut case = good();
        case.sale.spec.state = SpecState::Stopped;
        let valid = validate(&case.sale, &Dereferenced::default(), &config()).unwrap();
        let status = status(&Facts {
            sale: &case.sale,
            valid: Some(&valid),
            outcome: Outcome::Applied,
            deployments: &build(&valid, true).deployments,
            update_pending: None,
            paused: false,
            pods: &[],
            fleet: case.seen.as_ref(),
            now: now(),
        });
        assert_eq!(said(&status, "Selling"), ("False", "Stopped"));
        assert_eq!(said(&status, "SharesOwned"), ("False", "Stopped"));
    }

    #[test]
    fn a_run_that_was_removed_is_refused_by_the_ledger_s_word() {
        let mut case = good();
        let finding = crds::checks::Finding::new("spec.runs", "G1 2027-02-01 cannot be removed");
        case.seen.as_mut().unwrap().refused = vec![finding];
        let status = case.status();
        assert_eq!(said(&status, "Accepted"), ("False", "RunRemoved"));
        assert_eq!(said(&status, "Stalled").0, "True");
    }

    #[test]
    fn a_new_generation_is_not_ready_before_anything_is_touched() {
        let mut sale = founded(minimal());
        sale.status = Some(good().status());
        sale.metadata.generation = Some(2);
        let status = first(&sale, now());
        let of = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).unwrap();
        assert_eq!(
            (of("Ready").status.as_str(), of("Ready").observed_generation),
            ("False", Some(2))
        );
        assert_eq!(of("FleetReady").observed_generation, Some(1));
        assert_eq!(status.observed_generation, 2);
    }

    #[test]
    fn a_transition_time_moves_only_with_its_status() {
        let mut case = good();
        case.sale.status = Some(case.status());
        let later = |case: &Case| {
            let valid = validate(&case.sale, &Dereferenced::default(), &config()).unwrap();
            status(&Facts {
                sale: &case.sale,
                valid: Some(&valid),
                outcome: Outcome::Applied,
                deployments: &deployments(&valid, case.ready),
                update_pending: Some(false),
                paused: false,
                pods: &[ready_pod()],
                fleet: case.seen.as_ref(),
                now: now() + SignedDuration::from_secs(60),
            })
        };
        assert_eq!(Some(&later(&case)), case.sale.status.as_ref());
        case.ready = 1;
        let since = |status: &TrainSaleStatus, kind: &str| {
            status.conditions.iter().find(|c| c.type_ == kind).unwrap().last_transition_time.0
        };
        let next = later(&case);
        assert_eq!(since(&next, "Ready").duration_since(now()).as_secs(), 60);
        assert_eq!(since(&next, "Accepted"), now());
        assert_eq!(said(&next, "Reconciling"), ("False", "Settled"));
    }

    #[test]
    fn the_sale_s_clock_is_told_by_the_policy_in_force() {
        let with = |edit: &dyn Fn(&mut Policy)| {
            let mut case = good();
            edit(case.seen.as_mut().unwrap().policy.as_mut().unwrap());
            let status = case.status();
            said(&status, "Selling").1.to_owned()
        };
        let ms = |seconds: i64| {
            let at = now() + SignedDuration::from_secs(seconds);
            Some(Millis(u64::try_from(at.as_millisecond()).unwrap()))
        };
        assert_eq!(with(&|p| p.open = ms(301)), "Scheduled");
        assert_eq!(with(&|p| p.open = ms(300)), "Preheating");
        assert_eq!(with(&|p| p.open = ms(0)), "Open");
        assert_eq!(with(&|p| p.close = ms(0)), "Closed");
        assert_eq!(with(&|p| p.state = SaleState::Suspended), "Suspended");
    }

    #[test]
    fn a_ledger_that_cannot_be_founded_says_why_until_it_can() {
        let mut sale = minimal();
        let valid = validate(&sale, &Dereferenced::default(), &config()).unwrap();
        let failure = InitFailure::Told(control::founding::Failure {
            kind: control::founding::FailureKind::LedgerLost,
            message: "the topic is gone".into(),
            differences: Vec::new(),
        });
        let with = |sale: &TrainSale, init: &InitJob| {
            status(&Facts {
                sale,
                valid: Some(&valid),
                outcome: Outcome::Founding(init),
                deployments: &[],
                update_pending: Some(false),
                paused: false,
                pods: &[],
                fleet: None,
                now: now(),
            })
        };
        let status = with(&sale, &InitJob::Failed { failure, at: now() });
        assert_eq!(said(&status, "LedgerReady"), ("False", "LedgerLost"));
        assert_eq!(said(&status, "Ready"), ("False", "LedgerLost"));
        assert_eq!(said(&status, "Stalled").0, "True");
        assert_eq!(status.desired_nodes, Some(5));
        sale.status = Some(status);
        let again = with(&sale, &InitJob::Running { trouble: None });
        assert_eq!(said(&again, "LedgerReady"), ("False", "LedgerLost"));
        assert_eq!(said(&again, "Stalled").0, "True");
        assert!(events(sale.status.as_ref(), &again).is_empty(), "nothing is new");
    }
}
