//! The other loop: asks every node of a sale four times a second, tells the dispatcher, and
//! does what it decides. Runs beside the reconciles and never waits for one.
//!
//! It has no opinion of its own: who is dead, who owns what and when the sale begins is decided
//! in [`inventory::dispatcher`]; whether more may be sold, in [`crds::definition`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use control::config::Role;
use control::posting::{Amend, Posted, Posting, Record};
use control::report::{InForce, NodeState, Report};
use crds::TrainSale;
use crds::checks::Finding;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use inventory::definition::Definition;
use inventory::dispatcher::{self, Dispatcher, Output, Reason, Sign, Wish};
use inventory::entry::Policy;
use inventory::words::{Millis, NodeId};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Api, ResourceExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::names::{POOL, ROLE, SALE, SaleKey, is_node};
use crate::probe::{ProbeError, Prober, time_of_day};
use crate::telemetry::{Metrics, Post, Result as Counted};

/// How often each node is asked.
const PROBE_MS: u64 = 250;

/// How often everything is decided: often enough that a verdict does not wait for the next
/// round of probes.
const TICK: Duration = Duration::from_millis(100);

/// An Amend is posted again after so long without being in force. The dispatcher has the same
/// patience with plans and policies.
const AMEND_AGAIN_MS: u64 = 1_000;

/// How often at most the sale is reconciled because its fleet has changed: people read its
/// status, and nothing that must be quick waits for it.
const WAKE_MS: u64 = 1_000;

/// How often a node that refuses or fails is logged.
const LOG_MS: u64 = 10_000;

/// Requests under way at most, above one probe for each node: postings, deletions, events.
const ERRANDS_MAX: usize = 64;

/// What a fleet should be like.
#[derive(Debug, Clone)]
pub struct Orders {
    /// The generation of the spec that they follow from.
    pub generation: i64,
    /// How many shares there are. Fixed for a ledger.
    pub shares: u16,
    /// What the ledger should say. None while the spec cannot be built: then shares are still
    /// looked after, and nothing else changes.
    pub wish: Option<Wish>,
    /// The sale, for what it sells; none likewise.
    pub sale: Option<Arc<TrainSale>>,
}

/// What is seen of a fleet. Coarse, since every change of it reconciles the sale.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// The generation whose orders this was seen under: what is in force of an older one says
    /// nothing of the newest.
    pub generation: i64,
    /// Since when no node has answered.
    pub unreachable_since: Option<Timestamp>,
    /// All shares.
    pub shares: u16,
    /// Those with a living owner.
    pub owned: u16,
    /// Those that are not where the plan has them.
    pub moving: u16,
    /// Whether a death could not be judged.
    pub deferred: bool,
    /// The plan in force; 0 before the first.
    pub assign_version: u64,
    /// The policy in force.
    pub policy: Option<Policy>,
    /// Whether that is what the spec asks for, and every node that answers has read it.
    pub policy_in_force: bool,
    /// The same of what is sold.
    pub definition_in_force: bool,
    /// Why the spec's runs and seats cannot be sold by this ledger.
    pub refused: Vec<Finding>,
    /// Whether any node gets an answer from Kafka; none if none was asked.
    pub kafka: Option<bool>,
    /// How nodes do with Redis.
    pub redis: RedisSeen,
    /// The nodes, by name.
    pub nodes: Vec<NodeSeen>,
}

/// How nodes do with Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisSeen {
    /// No node that uses it has answered.
    NoNode,
    /// No node has reached it since it started.
    Never,
    /// A node reached it within 10 s.
    Answers,
    /// It was reached, but not within 10 s.
    Silent,
}

/// A node, for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub name: String,
    /// Its pool, if it sells.
    pub pool: Option<String>,
    /// What it does, once it has said so.
    pub role: Option<Role>,
    /// How it does.
    pub state: &'static str,
    /// How many shares it owns.
    pub shares: u16,
    /// Its pod's address.
    pub address: Option<String>,
}

/// A running loop. Dropping it ends the loop.
#[derive(Debug)]
pub struct Handle {
    /// The sale's uid: another sale of the same name has another loop.
    pub uid: String,
    orders: watch::Sender<Orders>,
    seen: watch::Receiver<Option<Seen>>,
    task: JoinHandle<()>,
}

impl Handle {
    /// What is seen now; none in the first moment.
    #[must_use]
    pub fn seen(&self) -> Option<Seen> {
        self.seen.borrow().clone()
    }

    /// Gives other orders.
    pub fn order(&self, orders: Orders) {
        self.orders.send_replace(orders);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a loop works with.
#[derive(Clone)]
pub struct Tools {
    /// The pods of all sales.
    pub pods: Store<Pod>,
    /// To delete dead ones.
    pub api: Api<Pod>,
    /// To reach nodes.
    pub prober: Prober,
    /// To tell people.
    pub recorder: Recorder,
    /// Of whom.
    pub reference: ObjectReference,
    /// To have the sale reconciled.
    pub wake: mpsc::Sender<ObjectRef<TrainSale>>,
    /// To count.
    pub metrics: Metrics,
    /// The operator's name, for the nodes' logs.
    pub operator: String,
}

/// Starts a loop.
#[must_use]
pub fn start(key: SaleKey, uid: String, tools: Tools, orders: Orders) -> Handle {
    let (orders_sender, orders_receiver) = watch::channel(orders);
    let (seen_sender, seen) = watch::channel(None);
    let fleet = Fleet::new(key, tools, orders_receiver, seen_sender);
    let task = tokio::spawn(fleet.run());
    Handle { uid, orders: orders_sender, seen, task }
}

/// What has come back.
enum Done {
    Probed { node: NodeId, asked: Millis, result: Box<Result<Report, ProbeError>> },
    Told { result: Box<Result<InForce, ProbeError>> },
    Posted { record: &'static str, node: String, result: Result<Posted, ProbeError> },
    Errand,
}

/// A node with a pod.
struct Watched {
    ip: Option<String>,
    uid: String,
    pool: Option<String>,
    leaving: bool,
    busy: bool,
    asked: Option<Millis>,
    report: Option<Report>,
    logged: Option<Millis>,
}

struct Fleet {
    key: SaleKey,
    tools: Tools,
    orders: watch::Receiver<Orders>,
    seen: watch::Sender<Option<Seen>>,
    clock: Clock,
    dispatcher: Dispatcher,
    nodes: BTreeMap<NodeId, Watched>,
    definition: Option<(u64, Definition)>,
    /// What the sale's definition is to become, or why it cannot.
    amend: Result<Option<Definition>, Vec<Finding>>,
    amend_posted: Option<Millis>,
    work: FuturesUnordered<BoxFuture<'static, Done>>,
    telling: bool,
    /// Records on their way, by kind: one of each at a time.
    posting: BTreeMap<&'static str, ()>,
    posts: usize,
    unreachable_since: Option<Timestamp>,
    woken: Option<Millis>,
    changed: bool,
}

/// The time of day, but never going back.
struct Clock {
    started: Instant,
    at: Millis,
}

impl Clock {
    fn now(&self) -> Millis {
        let passed = self.started.elapsed().as_millis();
        self.at.plus(u64::try_from(passed).unwrap_or(u64::MAX))
    }
}

impl Fleet {
    fn new(
        key: SaleKey,
        tools: Tools,
        orders: watch::Receiver<Orders>,
        seen: watch::Sender<Option<Seen>>,
    ) -> Self {
        let shares = orders.borrow().shares;
        Self {
            key,
            tools,
            orders,
            seen,
            clock: Clock { started: Instant::now(), at: time_of_day() },
            dispatcher: Dispatcher::new(shares),
            nodes: BTreeMap::new(),
            definition: None,
            amend: Ok(None),
            amend_posted: None,
            work: FuturesUnordered::new(),
            telling: false,
            posting: BTreeMap::new(),
            posts: 0,
            unreachable_since: Some(Timestamp::now()),
            woken: None,
            changed: false,
        }
    }

    async fn run(mut self) {
        tracing::info!(sale = %self.key, "the fleet is looked after");
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.take_orders();
        loop {
            tokio::select! {
                _ = ticks.tick() => self.tick(),
                Some(done) = self.work.next(), if !self.work.is_empty() => self.take(done),
                changed = self.orders.changed() => match changed {
                    Ok(()) => self.take_orders(),
                    Err(_) => return,
                },
            }
        }
    }

    fn take_orders(&mut self) {
        let wish = self.orders.borrow_and_update().wish;
        if let Some(wish) = wish {
            self.sign(Sign::Wish(wish));
        }
        self.compare();
    }

    /// Signs decide nothing, so nothing comes of them but at a tick.
    fn sign(&mut self, sign: Sign) {
        self.dispatcher.handle(self.clock.now(), sign, &mut Vec::new());
    }

    fn tick(&mut self) {
        self.look_at_pods();
        self.probe();
        let mut out = Vec::new();
        self.dispatcher.handle(self.clock.now(), Sign::Tick, &mut out);
        for output in out {
            self.act(output);
        }
        self.post_amend();
        self.publish();
    }

    fn look_at_pods(&mut self) {
        let pods = self.tools.pods.state();
        let key = self.key.clone();
        let ours = |pod: &&Arc<Pod>| {
            pod.namespace().as_deref() == Some(&key.namespace)
                && pod.labels().get(SALE) == Some(&key.name)
                && is_node(pod.labels())
                && !is_over(pod)
        };
        let mut gone: Vec<NodeId> = self.nodes.keys().copied().collect();
        for pod in pods.iter().filter(ours) {
            let Ok(node) = pod.name_any().parse::<NodeId>() else { continue };
            gone.retain(|name| *name != node);
            let sells = pod.labels().get(ROLE).is_some_and(|role| role == "sell");
            let ip = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
            let uid = pod.uid().unwrap_or_default();
            let pool = pod.labels().get(POOL).filter(|_| sells).cloned();
            let new = || Watched {
                ip: None,
                uid: String::new(),
                pool,
                leaving: false,
                busy: false,
                asked: None,
                report: None,
                logged: None,
            };
            let watched = self.nodes.entry(node).or_insert_with(new);
            (watched.ip, watched.uid) = (ip, uid);
            let leaving = pod.metadata.deletion_timestamp.is_some();
            watched.leaving = leaving;
            self.sign(Sign::PodSeen { node, sells, leaving });
        }
        for node in gone {
            self.nodes.remove(&node);
            self.sign(Sign::PodGone { node });
        }
    }

    /// Asks every node that has an address, and has not been asked lately.
    fn probe(&mut self) {
        let now = self.clock.now();
        for (node, watched) in &mut self.nodes {
            let due = watched.asked.is_none_or(|asked| now.since(asked) >= PROBE_MS);
            let Some(ip) = watched.ip.clone().filter(|_| due && !watched.busy) else { continue };
            (watched.busy, watched.asked) = (true, Some(now));
            let (prober, node) = (self.tools.prober.clone(), *node);
            let ask = async move {
                let result = Box::new(prober.report(node.as_str(), &ip).await);
                Done::Probed { node, asked: now, result }
            };
            self.work.push(ask.boxed());
        }
    }

    fn take(&mut self, done: Done) {
        match done {
            Done::Probed { node, asked, result } => self.probed(node, asked, *result),
            Done::Told { result } => {
                self.telling = false;
                match *result {
                    Ok(state) => self.told(state),
                    Err(error) => tracing::debug!(sale = %self.key, %error, "no state"),
                }
            }
            Done::Posted { record, node, result } => {
                self.posting.remove(record);
                let label = result.as_ref().err().map_or("ok", Into::into);
                let post = Post { record, result: label };
                self.tools.metrics.posts.get_or_create(&post).inc();
                match result {
                    Ok(posted) => {
                        tracing::info!(sale = %self.key, record, node, offset = ?posted.offset,
                            "posted");
                    }
                    Err(error) => {
                        tracing::warn!(sale = %self.key, record, node, %error, "not posted");
                    }
                }
            }
            Done::Errand => (),
        }
    }

    fn probed(&mut self, node: NodeId, asked: Millis, result: Result<Report, ProbeError>) {
        let now = self.clock.now();
        let Some(watched) = self.nodes.get_mut(&node) else { return };
        watched.busy = false;
        let label = result.as_ref().err().map_or("ok", Into::into);
        self.tools.metrics.probes.get_or_create(&Counted { result: label }).inc();
        // Another pod may have the address by now.
        let result = result.and_then(|report| {
            let sign = dispatcher::Report::try_from(&report);
            let sign = sign.map_err(|e| ProbeError::Unreadable(e.to_string()))?;
            let named = sign.node == node;
            let wrong = || ProbeError::Unreadable(format!("it is {}, not {node}", report.node));
            if named { Ok((report, sign)) } else { Err(wrong()) }
        });
        let (report, sign) = match result {
            Ok(heard) => heard,
            Err(error) => {
                let quiet = watched.logged.is_some_and(|at| now.since(at) < LOG_MS);
                // One that starts does not answer yet, and one that leaves will no more.
                if !quiet && !watched.leaving && watched.report.is_some() {
                    watched.logged = Some(now);
                    tracing::warn!(sale = %self.key, %node, %error, "a probe failed");
                }
                let refused = matches!(error, ProbeError::Closed);
                return self.sign(Sign::Unanswered { node, asked, refused });
            }
        };
        let ip = watched.ip.clone();
        watched.report = Some(report.clone());
        self.sign(Sign::Answered(Box::new(sign)));
        if let Some(ip) = ip.filter(|_| !self.telling && self.is_behind(&report)) {
            self.telling = true;
            let prober = self.tools.prober.clone();
            let ask = async move {
                Done::Told { result: Box::new(prober.state(node.as_str(), &ip).await) }
            };
            self.work.push(ask.boxed());
        }
    }

    /// Whether a node has read more of partition 0 than is known here.
    fn is_behind(&self, report: &Report) -> bool {
        let pool = &report.pool;
        let assign = self.dispatcher.plan().map(|plan| plan.version);
        let policy = self.dispatcher.policy().map_or(0, |policy| policy.version);
        let definition = self.definition.as_ref().map_or(0, |(version, _)| *version);
        let more = assign.is_none_or(|version| version < pool.assign_version);
        let more = more || policy < pool.policy_version || definition < pool.definition_version;
        more && report.state != NodeState::Starting && pool.definition_version > 0
    }

    fn told(&mut self, state: InForce) {
        let plan = match state.assign.map(inventory::entry::Assign::try_from).transpose() {
            Ok(plan) => plan.unwrap_or_default(),
            Err(error) => {
                tracing::warn!(sale = %self.key, %error, "a plan in force cannot be read");
                return;
            }
        };
        self.sign(Sign::InForce { plan, policy: state.policy.map(Into::into) });
        let known = self.definition.as_ref().map_or(0, |(version, _)| *version);
        if state.definition_version <= known {
            return;
        }
        match Definition::try_from(state.definition) {
            Ok(definition) => {
                self.definition = Some((state.definition_version, definition));
                self.amend_posted = None;
                self.compare();
            }
            Err(error) => {
                tracing::warn!(sale = %self.key, %error, "a definition in force cannot be read");
            }
        }
    }

    /// What the ledger should sell besides, or why it cannot.
    fn compare(&mut self) {
        let sale = self.orders.borrow().sale.clone();
        let (Some((_, old)), Some(sale)) = (&self.definition, sale) else {
            self.amend = Ok(None);
            return;
        };
        self.amend = crds::definition::amend(old, &sale).map(|new| Some(new).filter(|n| n != old));
    }

    fn post_amend(&mut self) {
        let now = self.clock.now();
        let (Ok(Some(definition)), Some((version, _))) = (&self.amend, &self.definition) else {
            return;
        };
        if self.amend_posted.is_some_and(|at| now.since(at) < AMEND_AGAIN_MS) {
            return;
        }
        let amend = Amend { version: version + 1, definition: definition.clone().into() };
        self.amend_posted = Some(now);
        self.post("amend", Record::Amend(amend), "the sale's spec sells more or otherwise");
    }

    fn act(&mut self, output: Output) {
        match output {
            Output::Post(plan) => {
                let why = format!("plan {} follows from the nodes that live", plan.version);
                self.post("assign", Record::Assign(plan.into()), &why);
            }
            Output::Policy(policy) => {
                let why = format!("policy {} is what the sale's spec asks for", policy.version);
                self.post("policy", Record::Policy(policy.into()), &why);
            }
            Output::DeletePod(node) => self.delete(node),
            Output::Event { reason, message } => self.tell(reason, message),
        }
    }

    /// Has a record appended by a node that is ready and has Kafka: another one each time,
    /// since one that does not get through is not the one to ask again.
    fn post(&mut self, record: &'static str, body: Record, reason: &str) {
        if self.posting.contains_key(record) || self.work.len() > self.errands_max() {
            return;
        }
        let view = self.dispatcher.view(self.clock.now());
        let able = self.nodes.iter().filter(|(name, watched)| {
            let answers = view.nodes.get(name).is_some_and(|n| n.answers);
            let report = watched.report.as_ref();
            answers && report.is_some_and(|r| r.state == NodeState::Ready && r.kafka_ok)
        });
        let able: Vec<_> = able.filter_map(|(n, w)| Some((*n, w.ip.clone()?))).collect();
        if able.is_empty() {
            tracing::info!(sale = %self.key, record, "no node is ready to append this");
            return;
        }
        self.posts += 1;
        let (node, ip) = able[self.posts % able.len()].clone();
        let posting = Posting {
            operator: self.tools.operator.clone(),
            reason: reason.to_owned(),
            record: body,
        };
        self.posting.insert(record, ());
        let prober = self.tools.prober.clone();
        let post = async move {
            let result = prober.post(node.as_str(), &ip, &posting).await;
            Done::Posted { record, node: node.to_string(), result }
        };
        self.work.push(post.boxed());
    }

    fn errands_max(&self) -> usize {
        self.nodes.len() + ERRANDS_MAX
    }

    fn delete(&mut self, node: NodeId) {
        let Some(watched) = self.nodes.get(&node) else { return };
        let preconditions =
            Preconditions { uid: Some(watched.uid.clone()), ..Preconditions::default() };
        let params = DeleteParams::default().preconditions(preconditions);
        let (api, key) = (self.tools.api.clone(), self.key.clone());
        let delete = async move {
            match api.delete(node.as_str(), &params).await {
                Ok(_) => tracing::info!(sale = %key, %node, "the dead node's pod is deleted"),
                Err(kube::Error::Api(status)) if status.is_not_found() => (),
                Err(error) => tracing::warn!(sale = %key, %node, %error, "pod not deleted"),
            }
            Done::Errand
        };
        self.work.push(delete.boxed());
    }

    fn tell(&mut self, reason: Reason, message: String) {
        let word: &'static str = reason.into();
        match reason {
            Reason::NodeEvicted => {
                self.tools.metrics.evictions.inc();
            }
            Reason::EvictionDeferred => {
                self.tools.metrics.deferrals.inc();
            }
            _ => (),
        }
        if reason.is_warning() {
            tracing::warn!(sale = %self.key, reason = word, message);
        } else {
            tracing::info!(sale = %self.key, reason = word, message);
        }
        if self.work.len() > self.errands_max() {
            return;
        }
        let type_ = if reason.is_warning() { EventType::Warning } else { EventType::Normal };
        let event = Event {
            type_,
            reason: word.to_owned(),
            note: Some(message),
            action: "Dispatch".to_owned(),
            secondary: None,
        };
        let (recorder, reference) = (self.tools.recorder.clone(), self.tools.reference.clone());
        let publish = async move {
            if let Err(error) = recorder.publish(&event, &reference).await {
                tracing::warn!(%error, "an event was not published");
            }
            Done::Errand
        };
        self.work.push(publish.boxed());
    }

    fn publish(&mut self) {
        let now = self.clock.now();
        let seen = self.look();
        let is_new = self.seen.send_if_modified(|slot| {
            let is_new = slot.as_ref() != Some(&seen);
            if is_new {
                *slot = Some(seen);
            }
            is_new
        });
        self.changed |= is_new;
        if self.changed && self.woken.is_none_or(|at| now.since(at) >= WAKE_MS) {
            // Full means that this sale, or a thousand others, will be looked at anyway; it
            // is tried again at the next tick.
            if self.tools.wake.try_send(self.key.object_ref()).is_ok() {
                (self.woken, self.changed) = (Some(now), false);
            }
        }
    }

    fn look(&mut self) -> Seen {
        let view = self.dispatcher.view(self.clock.now());
        self.unreachable_since = match (view.reachable, self.unreachable_since) {
            (true, _) => None,
            (false, since) => since.or_else(|| Some(Timestamp::now())),
        };
        let orders = self.orders.borrow().clone();
        let answering: Vec<&Report> = self
            .nodes
            .iter()
            .filter(|(name, _)| view.nodes.get(name).is_some_and(|n| n.answers))
            .filter_map(|(_, watched)| watched.report.as_ref())
            .collect();
        let policy = self.dispatcher.policy().cloned();
        let wished = |p: &Policy| {
            let same = |w: &Wish| {
                (p.state, p.open, p.close, p.limits) == (w.state, w.open, w.close, w.limits)
            };
            orders.wish.as_ref().is_some_and(same)
        };
        let read = |p: &Policy| answering.iter().all(|r| r.pool.policy_version >= p.version);
        let known = |version: u64| answering.iter().all(|r| r.pool.definition_version >= version);
        let definition = self.definition.as_ref().map(|(version, _)| *version);
        Seen {
            generation: orders.generation,
            unreachable_since: self.unreachable_since,
            shares: view.shares,
            owned: view.owned,
            moving: view.moving,
            deferred: view.deferred,
            assign_version: self.dispatcher.plan().map_or(0, |plan| plan.version),
            policy_in_force: policy.as_ref().is_some_and(|p| wished(p) && read(p)),
            policy,
            definition_in_force: self.amend == Ok(None)
                && orders.sale.is_some()
                && definition.is_some_and(known),
            refused: self.amend.clone().err().unwrap_or_default(),
            kafka: (!answering.is_empty()).then(|| answering.iter().any(|r| r.kafka_ok)),
            redis: redis(&answering),
            nodes: self.nodes_seen(&view),
        }
    }

    fn nodes_seen(&self, view: &dispatcher::View) -> Vec<NodeSeen> {
        let seen = |(name, watched): (&NodeId, &Watched)| {
            let known = view.nodes.get(name);
            let state = match known {
                Some(node) if node.evicted => "Dead",
                Some(node) if !node.answers && watched.report.is_some() => "Unreachable",
                Some(node) => match node.state {
                    Some(dispatcher::NodeState::Ready) => "Serving",
                    Some(dispatcher::NodeState::Draining) => "Draining",
                    Some(dispatcher::NodeState::Starting) | None => "Starting",
                },
                // A query node bears witness but owns nothing.
                None => "Starting",
            };
            NodeSeen {
                name: name.to_string(),
                pool: watched.pool.clone(),
                role: watched.report.as_ref().map(|r| r.role),
                state,
                shares: known.map_or(0, |n| n.shares),
                address: watched.ip.clone(),
            }
        };
        self.nodes.iter().map(seen).collect()
    }
}

/// Whether the pod has ended for good, and another will take its place.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn redis(answering: &[&Report]) -> RedisSeen {
    const FRESH_MS: u64 = 10_000;
    let using = answering.iter().filter_map(|report| report.redis);
    let best = using.map(|redis| match redis.ok_within_ms {
        Some(0..=FRESH_MS) => RedisSeen::Answers,
        Some(_) => RedisSeen::Silent,
        None => RedisSeen::Never,
    });
    let rank = |seen: &RedisSeen| match seen {
        RedisSeen::Answers => 3,
        RedisSeen::Silent => 2,
        RedisSeen::Never => 1,
        RedisSeen::NoNode => 0,
    };
    best.max_by_key(rank).unwrap_or(RedisSeen::NoNode)
}
