//! The loop around the four steps: a sale in, its objects and its status out.
//!
//! Every pass looks at everything and remembers nothing, except that a fleet loop runs: what a
//! pass needs to know of the last one is in the sale's status.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use control::signature::OperatorKey;
use crds::TrainSale;
use crds::sale::SaleState;
use crds::status::TrainSaleStatus;
use futures::StreamExt;
use futures::stream;
use inventory::entry;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::Patch;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

use crate::apply::{Applied, apply, apply_record, delete_deployment, delete_job, params};
use crate::build::{Children, build, build_whole};
use crate::dereference::{Dereferenced, dereference};
use crate::fleet::{self, Handle, Orders, Seen, Tools};
use crate::founding::{self, InitJob};
use crate::names::{CONTROL_PORT, FINALIZER, MANAGED, PAUSED, SALE, SaleKey};
use crate::probe::Prober;
use crate::rollout::hold_back;
use crate::status::{self, Facts, Outcome, UNREACHABLE};
use crate::telemetry::{Metrics, Result as Counted};
use crate::validate::{Config, Invalid, Phase, ValidatedSale, key, validate, wish};

/// Sales that may wait to be looked at because their fleets or pods have changed. One more is
/// left out: its fleet asks again, and each sale is looked at every minute anyway.
const WAKES_MAX: usize = 1_024;

/// How often a sale is looked at when nothing happens: finds what nobody watches.
const RESYNC: Duration = Duration::from_secs(60);

/// After an error: soon enough that a pass that lost a race is not noticed.
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// While something is expected to happen that nobody tells.
const SOON: Duration = Duration::from_secs(1);

/// How long the deletion of a sale waits for its nodes to hear that it is stopped. A fleet that
/// can be reached needs a second; one that cannot be must not keep its sale for ever.
const STOP_PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// How long it waits for pods to end: their grace and preStop, and as long again.
const GONE_PATIENCE: SignedDuration = SignedDuration::from_secs(150);

/// Why a pass over a sale failed. Variants are metric labels.
#[derive(Debug, thiserror::Error, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Error {
    /// The API server says so.
    #[error("{0}")]
    Kube(#[from] kube::Error),
}

/// What all passes share.
pub struct Context {
    client: Client,
    config: Config,
    key: Arc<OperatorKey>,
    operator: String,
    recorder: Recorder,
    metrics: Metrics,
    sales: Store<TrainSale>,
    pods: Store<Pod>,
    wake: mpsc::Sender<ObjectRef<TrainSale>>,
    fleets: Mutex<BTreeMap<SaleKey, Handle>>,
}

/// What a controller is made from.
#[derive(Clone)]
pub struct Parts {
    /// The API server.
    pub client: Client,
    /// What every sale has from the operator.
    pub config: Config,
    /// The operator's key.
    pub key: Arc<OperatorKey>,
    /// The operator's name.
    pub operator: String,
    /// Events.
    pub recorder: Recorder,
    /// Counters.
    pub metrics: Metrics,
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Looks after the sales of one namespace, or of all, until the process ends.
pub async fn run(parts: Parts, namespace: Option<String>) {
    let (client, namespace) = (parts.client.clone(), namespace.as_deref());
    let (wake, wakes) = mpsc::channel(WAKES_MAX);
    let ours = watcher::Config::default().labels(MANAGED);
    let pods = watch_pods(api(&client, namespace), ours.clone(), wake.clone());
    let controller =
        Controller::new(api::<TrainSale>(&client, namespace), watcher::Config::default())
            .owns(api::<Deployment>(&client, namespace), ours.clone())
            .owns(api::<Job>(&client, namespace), ours.clone())
            .owns(api::<Service>(&client, namespace), ours.clone())
            .owns(api::<ConfigMap>(&client, namespace), ours.clone())
            .owns(api::<PodDisruptionBudget>(&client, namespace), ours.clone())
            .owns(api::<NetworkPolicy>(&client, namespace), ours)
            .reconcile_on(stream::unfold(wakes, |mut wakes| async move {
                let next = wakes.recv().await?;
                Some((next, wakes))
            }));
    let context = Arc::new(Context {
        client: parts.client,
        config: parts.config,
        key: parts.key,
        operator: parts.operator,
        recorder: parts.recorder,
        metrics: parts.metrics,
        sales: controller.store(),
        pods,
        wake,
        fleets: Mutex::new(BTreeMap::new()),
    });
    controller
        .run(reconcile, error_policy, context)
        .for_each(|result| async move {
            if let Err(error) = result {
                tracing::debug!(%error, "a pass ended early");
            }
        })
        .await;
}

/// Keeps the pods of all sales at hand, and has a sale looked at when one of its pods changes:
/// an image that cannot be pulled changes nothing else.
fn watch_pods(
    pods: Api<Pod>,
    ours: watcher::Config,
    wake: mpsc::Sender<ObjectRef<TrainSale>>,
) -> Store<Pod> {
    let (reader, writer) = reflector::store();
    let stream = reflector(writer, watcher(pods, ours)).default_backoff().touched_objects();
    tokio::spawn(stream.for_each(move |pod| {
        match pod {
            Ok(pod) => {
                let name = pod.labels().get(SALE).cloned();
                let key = name.zip(pod.namespace());
                let sale = key.map(|(name, namespace)| ObjectRef::new(&name).within(&namespace));
                // Full: see WAKES_MAX.
                sale.map(|sale| wake.try_send(sale).is_ok());
            }
            Err(error) => tracing::warn!(%error, "pods cannot be watched"),
        }
        futures::future::ready(())
    }));
    reader
}

#[allow(clippy::needless_pass_by_value, reason = "the controller calls it like this")]
fn error_policy(sale: Arc<TrainSale>, error: &Error, context: Arc<Context>) -> Action {
    let result = error.into();
    context.metrics.reconciles.get_or_create(&Counted { result }).inc();
    tracing::warn!(sale = %key(&sale), %error, "a pass failed");
    Action::requeue(AFTER_ERROR)
}

async fn reconcile(sale: Arc<TrainSale>, context: Arc<Context>) -> Result<Action, Error> {
    let pass = Pass { key: key(&sale), context: &context };
    let action = if sale.metadata.deletion_timestamp.is_some() {
        pass.delete(&sale).await?
    } else {
        pass.bring_into_force(&sale).await?
    };
    context.metrics.reconciles.get_or_create(&Counted { result: "ok" }).inc();
    Ok(action)
}

/// One pass over one sale.
struct Pass<'a> {
    key: SaleKey,
    context: &'a Context,
}

impl Pass<'_> {
    async fn bring_into_force(&self, sale: &Arc<TrainSale>) -> Result<Action, Error> {
        let mut sale = TrainSale::clone(sale);
        if !sale.finalizers().iter().any(|f| f == FINALIZER) {
            self.set_finalizers(&sale, &[FINALIZER]).await?;
        }
        let observed = sale.status.as_ref().map(|s| s.observed_generation);
        if observed != sale.metadata.generation {
            let first = status::first(&sale, Timestamp::now());
            self.write_status(&mut sale, first).await?;
        }
        let client = &self.context.client;
        let found = dereference(client, &sale, &self.key, &self.context.sales).await?;
        match validate(&sale, &found, &self.context.config) {
            Ok(valid) => self.build_and_apply(sale, &valid, &found).await,
            Err(invalid) => self.refuse(sale, &invalid, &found).await,
        }
    }

    /// A spec that cannot be built changes no object; the fleet that there is goes on.
    async fn refuse(
        &self,
        mut sale: TrainSale,
        invalid: &Invalid,
        found: &Dereferenced,
    ) -> Result<Action, Error> {
        let seen = self.look_after_fleet(&sale, None).await;
        let facts = Facts {
            sale: &sale,
            valid: None,
            outcome: Outcome::Invalid(invalid),
            deployments: &found.deployments,
            update_pending: None,
            paused: is_paused(&sale),
            pods: &found.pods,
            fleet: seen.as_ref(),
            now: Timestamp::now(),
        };
        let next = status::status(&facts);
        self.write_status(&mut sale, next).await?;
        // A neighbour that is in the way may go.
        Ok(Action::requeue(RESYNC))
    }

    async fn build_and_apply(
        &self,
        mut sale: TrainSale,
        valid: &ValidatedSale,
        found: &Dereferenced,
    ) -> Result<Action, Error> {
        let now = Timestamp::now();
        let seen = self.look_after_fleet(&sale, Some(valid)).await;
        let mut children = build(valid, is_stopped(&sale, seen.as_ref(), found));
        let held_back = !valid.roll && hold_back(&mut children.deployments, &found.deployments);
        let init = children.jobs.first().map(|job| founding::look(job, found, now));
        if let Some(InitJob::Done(founded)) = &init {
            let ledger = founding::recorded(&valid.ledger.topic, founded);
            return self.record_ledger(sale, valid, founded, ledger).await;
        }
        let mut wait = RESYNC;
        if let Some(init) = init.as_ref().filter(|_| !is_paused(&sale)) {
            wait = self.try_again(init, &mut children, found, now).await?;
        }
        let mut applied = Applied::untouched(found);
        if !is_paused(&sale) {
            let uid = sale.uid().unwrap_or_default();
            let whole = build_whole(valid);
            applied = apply(&self.context.client, &self.key, &uid, &children, &whole).await?;
            if applied.conflicts.is_empty() {
                self.prune(valid, &children, found).await?;
            }
        }
        let Applied { conflicts, deployments } = applied;
        let deployments = if conflicts.is_empty() { &deployments } else { &found.deployments };
        let outcome = match &init {
            _ if !conflicts.is_empty() => Outcome::Conflict(&conflicts),
            Some(init) => Outcome::Founding(init),
            None => Outcome::Applied,
        };
        let facts = Facts {
            sale: &sale,
            valid: Some(valid),
            outcome,
            // As they are after the writing: what was found before it may be as the last
            // generation wanted it.
            deployments,
            update_pending: Some(held_back || valid.image_is_older),
            paused: is_paused(&sale),
            pods: &found.pods,
            fleet: seen.as_ref(),
            now,
        };
        let next = status::status(&facts);
        self.write_status(&mut sale, next).await?;
        if !conflicts.is_empty() {
            wait = wait.min(AFTER_ERROR);
        }
        Ok(Action::requeue(wait.min(until_next(&sale, seen.as_ref(), now))))
    }

    /// What an init Job has answered is kept before anything follows from it.
    async fn record_ledger(
        &self,
        mut sale: TrainSale,
        valid: &ValidatedSale,
        founded: &control::founding::Founded,
        ledger: crds::status::LedgerStatus,
    ) -> Result<Action, Error> {
        let expected = match &valid.phase {
            Phase::Genesis { genesis_hash, .. } => genesis_hash.clone(),
            _ => None,
        };
        let is_founded = ledger.genesis_hash.is_some();
        let mut next = sale.status.clone().unwrap_or_default();
        next.ledger = Some(ledger);
        next.image = Some(valid.image.clone());
        if is_founded {
            let reason = founding::ready_reason(founded, expected.as_ref());
            status::ledger_founded(&mut next, &sale, reason, Timestamp::now());
        }
        self.write_status(&mut sale, next).await?;
        tracing::info!(sale = %self.key, topic_id = founded.topic_id, step = %founded.step,
            "a step of the founding is done");
        Ok(Action::requeue(Duration::ZERO))
    }

    /// Removes an init Job that is out of date, or has failed and should run again. A Job that
    /// is there is never patched: most of it cannot be changed.
    async fn try_again(
        &self,
        init: &InitJob,
        children: &mut Children,
        found: &Dereferenced,
        now: Timestamp,
    ) -> Result<Duration, Error> {
        let Some(wanted) = children.jobs.first().map(ResourceExt::name_any) else {
            return Ok(RESYNC);
        };
        let job = found.jobs.iter().find(|job| job.name_any() == wanted);
        let due = match init {
            InitJob::Absent => return Ok(RESYNC),
            InitJob::Running { .. } | InitJob::Done(_) => {
                children.jobs.clear();
                return Ok(RESYNC);
            }
            InitJob::Outdated => now,
            InitJob::Failed { failure, at } => failure.retry_at(*at),
        };
        children.jobs.clear();
        if now < due {
            return Ok(wait_until(due, now));
        }
        if let Some(job) = job {
            delete_job(&self.context.client, job).await?;
        }
        Ok(SOON)
    }

    /// Removes the Deployments of pools that the sale names no more. Only while it serves: a
    /// sale whose status was lost must not lose its fleet too.
    async fn prune(
        &self,
        valid: &ValidatedSale,
        children: &Children,
        found: &Dereferenced,
    ) -> Result<(), Error> {
        if !matches!(valid.phase, Phase::Serve { .. }) {
            return Ok(());
        }
        let wanted: Vec<String> = children.deployments.iter().map(ResourceExt::name_any).collect();
        for deployment in found.deployments.iter().filter(|d| !wanted.contains(&d.name_any())) {
            tracing::info!(sale = %self.key, name = deployment.name_any(), "a pool is removed");
            delete_deployment(&self.context.client, deployment).await?;
        }
        Ok(())
    }

    /// Has the fleet looked after, if there is a ledger, and gives what is seen of it.
    async fn look_after_fleet(
        &self,
        sale: &TrainSale,
        valid: Option<&ValidatedSale>,
    ) -> Option<Seen> {
        let uid = sale.uid().unwrap_or_default();
        let mut fleets = self.context.fleets.lock().await;
        if fleets.get(&self.key).is_some_and(|handle| handle.uid != uid) {
            fleets.remove(&self.key);
        }
        let ledger = sale.status.as_ref().and_then(|s| s.ledger.as_ref());
        if ledger.is_some_and(|l| l.genesis_hash.is_some()) {
            let orders = Orders {
                generation: sale.metadata.generation.unwrap_or(0),
                shares: sale.spec.stock.shares,
                wish: valid.map(|_| wish(sale)),
                sale: valid.map(|_| Arc::new(sale.clone())),
            };
            match fleets.get(&self.key) {
                Some(handle) => handle.order(orders),
                None => {
                    let tools = self.tools(sale);
                    let handle = fleet::start(self.key.clone(), uid, tools, orders);
                    fleets.insert(self.key.clone(), handle);
                }
            }
        }
        let count = i64::try_from(fleets.len()).unwrap_or(i64::MAX);
        self.context.metrics.fleets.set(count);
        fleets.get(&self.key).and_then(Handle::seen)
    }

    async fn forget_fleet(&self) {
        let mut fleets = self.context.fleets.lock().await;
        fleets.remove(&self.key);
        self.context.metrics.fleets.set(i64::try_from(fleets.len()).unwrap_or(i64::MAX));
    }

    fn tools(&self, sale: &TrainSale) -> Tools {
        let context = self.context;
        Tools {
            pods: context.pods.clone(),
            api: Api::namespaced(context.client.clone(), &self.key.namespace),
            prober: Prober::new(Arc::clone(&context.key), self.key.to_string(), CONTROL_PORT),
            recorder: context.recorder.clone(),
            reference: sale.object_ref(&()),
            wake: context.wake.clone(),
            metrics: context.metrics.clone(),
            operator: context.operator.clone(),
        }
    }

    /// Stops the sale, waits for its pods to end, and lets it go. The ledger stays, with the
    /// record of it that finds it again.
    async fn delete(&self, sale: &Arc<TrainSale>) -> Result<Action, Error> {
        if !sale.finalizers().iter().any(|f| f == FINALIZER) {
            return Ok(Action::await_change());
        }
        let mut sale = TrainSale::clone(sale);
        let client = &self.context.client;
        let found = dereference(client, &sale, &self.key, &self.context.sales).await?;
        // Also of a spec that was made invalid: what it sells was sold.
        let valid = validate(&sale, &found, &self.context.config).ok();
        if let Some(record) = valid.as_ref().and_then(|v| v.record.as_ref()) {
            let written = apply_record(client, &record.config_map(&self.key.namespace)).await;
            written.or_else(is_namespace_ending)?;
        }
        let seen = self.look_after_fleet(&sale, valid.as_ref()).await;
        let next = status::status(&Facts {
            sale: &sale,
            valid: valid.as_ref(),
            outcome: Outcome::Deleting,
            deployments: &found.deployments,
            update_pending: None,
            paused: is_paused(&sale),
            pods: &found.pods,
            fleet: seen.as_ref(),
            now: Timestamp::now(),
        });
        self.write_status(&mut sale, next).await?;
        let now = Timestamp::now();
        let asked = sale.metadata.deletion_timestamp.as_ref().map_or(now, |t| t.0);
        let waited = now.duration_since(asked);
        let has_stopped = seen.as_ref().is_none_or(|seen| {
            let stopped = seen.policy.as_ref().is_none_or(|p| p.state == entry::SaleState::Stopped);
            stopped || seen.unreachable_since.is_some()
        });
        if !has_stopped && waited < STOP_PATIENCE {
            return Ok(Action::requeue(SOON));
        }
        for job in &found.jobs {
            delete_job(client, job).await?;
        }
        for deployment in &found.deployments {
            delete_deployment(client, deployment).await?;
        }
        if !found.pods.is_empty() && waited < GONE_PATIENCE {
            return Ok(Action::requeue(SOON));
        }
        self.forget_fleet().await;
        self.set_finalizers(&sale, &[]).await?;
        tracing::info!(sale = %self.key, "the sale is let go; its ledger is kept");
        Ok(Action::await_change())
    }

    async fn set_finalizers(&self, sale: &TrainSale, list: &[&str]) -> Result<(), Error> {
        let api: Api<TrainSale> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        // The uid: a sale that was made again under this name is not the one that was meant.
        let patch = json!({
            "apiVersion": TrainSale::api_version(&()), "kind": TrainSale::kind(&()),
            "metadata": {"name": self.key.name, "uid": sale.uid(), "finalizers": list},
        });
        match api.patch(&self.key.name, &params(), &Patch::Apply(&patch)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() && list.is_empty() => Ok(()),
            other => Ok(other.map(drop)?),
        }
    }

    /// Writes the status if it says anything new, and tells of what went wrong since.
    async fn write_status(&self, sale: &mut TrainSale, next: TrainSaleStatus) -> Result<(), Error> {
        if sale.status.as_ref() == Some(&next) {
            return Ok(());
        }
        let api: Api<TrainSale> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        let patch = json!({
            "apiVersion": TrainSale::api_version(&()), "kind": TrainSale::kind(&()),
            "metadata": {"name": self.key.name, "uid": sale.uid()}, "status": next,
        });
        let patched = api.patch_status(&self.key.name, &params(), &Patch::Apply(&patch)).await;
        let patched = match patched {
            // It has gone since it was looked at, and so has what there was to say.
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(()),
            other => other?,
        };
        self.tell(sale, &next).await;
        sale.metadata.resource_version = patched.metadata.resource_version;
        sale.status = Some(next);
        Ok(())
    }

    /// An event for every condition that fell, and one when the sale is ready.
    async fn tell(&self, sale: &TrainSale, next: &TrainSaleStatus) {
        for event in status::events(sale.status.as_ref(), next) {
            let type_ = if event.is_warning { EventType::Warning } else { EventType::Normal };
            let event = Event {
                type_,
                reason: event.reason,
                note: Some(event.message),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            let published = self.context.recorder.publish(&event, &sale.object_ref(&())).await;
            if let Err(error) = published {
                tracing::debug!(%error, "an event was not published");
            }
        }
    }
}

/// Whether a sale that should be stopped may be without pods: its ledger says that it is
/// stopped, or its pods are gone already.
fn is_stopped(sale: &TrainSale, seen: Option<&Seen>, found: &Dereferenced) -> bool {
    if sale.spec.state != SaleState::Stopped {
        return false;
    }
    let policy = seen.and_then(|seen| seen.policy.as_ref());
    let told = policy.is_some_and(|policy| policy.state == entry::SaleState::Stopped);
    let replicas = |d: &Deployment| d.spec.as_ref().and_then(|s| s.replicas);
    told || found.deployments.iter().all(|d| replicas(d) == Some(0))
}

fn is_paused(sale: &TrainSale) -> bool {
    sale.annotations().get(PAUSED).is_some_and(|value| value == "true")
}

fn wait_until(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_until(due)).unwrap_or(SOON).max(Duration::from_millis(100))
}

/// When the status would say something else though nothing happens.
fn until_next(sale: &TrainSale, seen: Option<&Seen>, now: Timestamp) -> Duration {
    let clock = status::next_moment(sale, now);
    let silence = seen.and_then(|seen| seen.unreachable_since);
    let silence = silence.and_then(|since| since.checked_add(UNREACHABLE).ok());
    let moments = [clock, silence].into_iter().flatten().filter(|at| *at > now);
    moments.min().map_or(RESYNC, |at| wait_until(at, now))
}

/// A namespace that is being deleted takes no new objects; the record goes with it anyway.
fn is_namespace_ending(error: kube::Error) -> Result<(), kube::Error> {
    match &error {
        kube::Error::Api(status) if status.is_forbidden() => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            let ending = causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating");
            if ending { Ok(()) } else { Err(error) }
        }
        _ => Err(error),
    }
}
