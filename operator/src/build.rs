//! From a sale that can be built to the objects that it is made of. Pure.
//!
//! While its ledger is founded a sale is one Job and nothing else: nodes without a ledger could
//! only crash. Every object carries the sale's owner reference, except the ledger's record,
//! which must outlive it.

use std::collections::BTreeMap;

use control::config::{
    FoundingConfig, Kafka, Ledger, NodeConfig, Pool as ConfigPool, Redis, Role, SettleConfig, Step,
    VERSION,
};
use crds::sale::{KeyReference, PodTemplate, ServiceType};
use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, Lifecycle, LifecycleHandler, LocalObjectReference,
    ObjectFieldSelector, PodSecurityContext, PodSpec, PodTemplateSpec, Probe,
    ProjectedVolumeSource, SeccompProfile, SecretProjection, SecurityContext, Service, ServicePort,
    ServiceSpec, SleepAction, Toleration, TopologySpreadConstraint, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::names::{
    ASKED_HASH, CONFIG_HASH, CONTROL_PORT, HTTP_PORT, LIVE_PORT, POOL, ROLE, SALE, SERVES, SETTLE,
    TEMPLATE_HASH, labels, pool_selector,
};
use crate::validate::{KEYS_DIR, Phase, Pool, Settle, ValidatedSale};

/// How long `node init` may take. A sale whose Kafka is away must say so within 15 s, and
/// starting the pod takes a few of them.
const INIT_TIMEOUT_MS: u32 = 8_000;

/// What ends an init pod that hangs for all that: long enough to pull an image first.
const INIT_DEADLINE_S: i64 = 300;

/// A finished Job is kept for so long, for people to look at.
const INIT_KEPT_S: i32 = 600;

/// The sale's Service sends nobody new to a pod that has been told to end only after its
/// endpoints have spread: a pod goes on serving for so long before it hears of its end.
const PRE_STOP_S: i64 = 5;

/// What a pod has for moving its shares away and finishing what is in flight.
const GRACE_S: i64 = 60;

/// How long a pod stays on a machine that the cluster holds to be lost. It has waited 40 s
/// already before it says so.
const LOST_S: i64 = 10;

const CONFIG_DIR: &str = "/etc/stationmaster";
/// The volume with what nodes are given of Secrets.
const KEYS: &str = "keys";
const NODE_FILE: &str = "node.json";
const INIT_FILE: &str = "init.json";
const SETTLE_FILE: &str = "settle.json";

/// Nobody: a user without a home, a shell or a name, as images without a distribution have it.
const UID: i64 = 65_532;

/// The objects of a sale.
#[derive(Debug, Clone, Default)]
pub struct Children {
    /// Configuration, and the ledger's record.
    pub config_maps: Vec<ConfigMap>,
    /// The init Job, while the ledger is founded.
    pub jobs: Vec<Job>,
    /// One for each pool.
    pub deployments: Vec<Deployment>,
    /// Where buyers reach the nodes.
    pub services: Vec<Service>,
    /// How many nodes a drain may take at once.
    pub budgets: Vec<PodDisruptionBudget>,
    /// Who may reach the nodes.
    pub policies: Vec<NetworkPolicy>,
}

/// Builds a sale. `stopped` is whether its fleet may be without pods: it should be stopped, and
/// its ledger says so.
#[must_use]
pub fn build(sale: &ValidatedSale, stopped: bool) -> Children {
    let mut children = Children::default();
    children.config_maps.extend(sale.record.as_ref().map(|r| r.config_map(&sale.key.namespace)));
    children.policies.push(network_policy(sale));
    match &sale.phase {
        Phase::Topics { topic_id, genesis_hash } => {
            found(sale, Step::Topics, topic_id.clone(), genesis_hash.clone(), &mut children);
        }
        Phase::Genesis { topic_id, genesis_hash } => {
            let topic_id = Some(topic_id.clone());
            found(sale, Step::Genesis, topic_id, genesis_hash.clone(), &mut children);
        }
        Phase::Serve { topic_id, .. } => serve(sale, topic_id, stopped, &mut children),
    }
    children
}

/// Every object that the sale will ever be made of: their names must be free before a ledger is
/// founded for it.
#[must_use]
pub fn build_whole(sale: &ValidatedSale) -> Children {
    let (topic_id, genesis_hash) = (String::new(), String::new());
    let phase = Phase::Serve { topic_id, genesis_hash };
    let mut whole = build(&ValidatedSale { phase, ..sale.clone() }, false);
    for step in [Step::Topics, Step::Genesis] {
        found(sale, step, None, None, &mut whole);
    }
    whole
}

/// The name of the Job of a step.
#[must_use]
pub fn job_name(sale: &str, step: Step) -> String {
    match step {
        Step::Topics => format!("{sale}-init-topics"),
        Step::Genesis => format!("{sale}-init-genesis"),
    }
}

/// The name of a pool's Deployment.
#[must_use]
pub fn deployment_name(sale: &str, pool: &Pool) -> String {
    match pool.role {
        Role::Sell => format!("{sale}-sell-{}", pool.name),
        Role::Query => format!("{sale}-query"),
    }
}

fn role(pool: &Pool) -> &'static str {
    match pool.role {
        Role::Sell => "sell",
        Role::Query => "query",
    }
}

fn meta(sale: &ValidatedSale, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(sale.key.namespace.clone()),
        labels: Some(labels(&sale.key.name)),
        owner_references: Some(vec![sale.owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn hash(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex()[..16].to_owned()
}

/// Without spaces: a ConfigMap has at most 1 MiB, which the definition of a sale of some thousand
/// runs fills. Our own types can always be written.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn found(
    sale: &ValidatedSale,
    step: Step,
    topic_id: Option<String>,
    genesis_hash: Option<String>,
    children: &mut Children,
) {
    let config = FoundingConfig {
        version: VERSION,
        step,
        topic: sale.ledger.topic.clone(),
        board_topic: sale.ledger.board_topic.clone(),
        kafka: Kafka { bootstrap_servers: sale.kafka.clone() },
        partitions: sale.definition.shares + 1,
        replicas: sale.ledger.replicas,
        min_in_sync_replicas: sale.ledger.min_in_sync_replicas,
        topic_id,
        genesis_hash,
        timeout_ms: INIT_TIMEOUT_MS,
        definition: sale.definition.clone().into(),
    };
    let text = json(&config);
    let config_name = format!("{}-init", sale.key.name);
    children.jobs.push(job(sale, step, &config_name, &format!("{text}{}", sale.image)));
    children.config_maps.push(ConfigMap {
        metadata: meta(sale, config_name),
        data: Some([(INIT_FILE.to_owned(), text)].into()),
        ..ConfigMap::default()
    });
}

fn job(sale: &ValidatedSale, step: Step, config_name: &str, config: &str) -> Job {
    let args = ["init", "--config", &format!("{CONFIG_DIR}/{INIT_FILE}")];
    let container = Container {
        name: "init".to_owned(),
        args: Some(args.map(ToOwned::to_owned).into()),
        ..container(sale)
    };
    let mut metadata = meta(sale, job_name(&sale.key.name, step));
    metadata.annotations = Some([(CONFIG_HASH.to_owned(), hash(config))].into());
    let mut pod_labels = labels(&sale.key.name);
    pod_labels.insert(ROLE.to_owned(), "init".to_owned());
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(pod_labels), ..ObjectMeta::default() }),
        spec: Some(PodSpec {
            restart_policy: Some("Never".to_owned()),
            containers: vec![container],
            volumes: Some(vec![volume(config_name, INIT_FILE, INIT_FILE)]),
            ..pod(sale, &PodTemplate::default())
        }),
    };
    let spec = JobSpec {
        // The operator reads why it failed and decides when to try again.
        backoff_limit: Some(0),
        active_deadline_seconds: Some(INIT_DEADLINE_S),
        ttl_seconds_after_finished: Some(INIT_KEPT_S),
        template,
        ..JobSpec::default()
    };
    Job { metadata, spec: Some(spec), status: None }
}

fn serve(sale: &ValidatedSale, topic_id: &str, stopped: bool, children: &mut Children) {
    let config_name = format!("{}-node", sale.key.name);
    let mut files = BTreeMap::new();
    for pool in &sale.pools {
        let text = json(&node_config(sale, topic_id, pool));
        let replicas = if stopped { 0 } else { pool.replicas };
        let config = (config_name.as_str(), hash(&text));
        children.deployments.push(deployment(sale, topic_id, pool, replicas, config));
        files.insert(file(pool), text);
    }
    if let Some(settle) = &sale.settle {
        let text = json(&settle_config(sale, topic_id, settle));
        let replicas = if stopped { 0 } else { settle.replicas };
        let config = (config_name.as_str(), hash(&text));
        children.deployments.push(settlers(sale, topic_id, settle, replicas, config));
        files.insert(SETTLE_FILE.to_owned(), text);
    }
    children.config_maps.push(ConfigMap {
        metadata: meta(sale, config_name),
        data: Some(files),
        ..ConfigMap::default()
    });
    let name = &sale.key.name;
    let everyone =
        BTreeMap::from([(SALE.to_owned(), name.clone()), (SERVES.to_owned(), "buyers".to_owned())]);
    children.services.push(service(sale, name.clone(), everyone, sale.service));
    for role in ["sell", "query"] {
        let selector = pool_selector(name, role, None);
        let name = format!("{name}-{role}");
        children.budgets.push(budget(sale, name.clone(), selector.clone()));
        children.services.push(service(sale, name, selector, ServiceType::ClusterIP));
    }
}

/// The file of a pool in the ConfigMap. A selling pool may be called `query`.
fn file(pool: &Pool) -> String {
    match pool.role {
        Role::Sell => format!("sell-{}.json", pool.name),
        Role::Query => "query.json".to_owned(),
    }
}

fn node_config(sale: &ValidatedSale, topic_id: &str, pool: &Pool) -> NodeConfig {
    NodeConfig {
        version: VERSION,
        sale: sale.key.to_string(),
        role: pool.role,
        pool: ConfigPool { name: pool.name.clone(), weight: pool.weight },
        ledger: ledger(sale, topic_id),
        kafka: Kafka { bootstrap_servers: sale.kafka.clone() },
        redis: sale.redis.clone().map(|address| Redis { address }),
        http_port: HTTP_PORT,
        control_port: CONTROL_PORT,
        identity: sale.front.identity.clone(),
        payment: sale.front.payment.clone(),
        origins: sale.front.origins.clone(),
        operator_key: sale.operator_key.clone(),
    }
}

fn settle_config(sale: &ValidatedSale, topic_id: &str, settle: &Settle) -> SettleConfig {
    SettleConfig {
        version: VERSION,
        ledger: ledger(sale, topic_id),
        kafka: Kafka { bootstrap_servers: sale.kafka.clone() },
        orders_topic: settle.orders_topic.clone(),
        partitions: sale.definition.shares,
        replicas: sale.ledger.replicas,
        min_in_sync_replicas: sale.ledger.min_in_sync_replicas,
        http_port: HTTP_PORT,
    }
}

fn ledger(sale: &ValidatedSale, topic_id: &str) -> Ledger {
    Ledger {
        topic: sale.ledger.topic.clone(),
        topic_id: topic_id.to_owned(),
        board_topic: sale.ledger.board_topic.clone(),
    }
}

/// The Deployment of settle nodes. One that is lost is replaced, and the others have its shares
/// meanwhile; buyers know nothing of them.
fn settlers(
    sale: &ValidatedSale,
    topic_id: &str,
    settle: &Settle,
    replicas: u16,
    (config_name, config_hash): (&str, String),
) -> Deployment {
    let selector = pool_selector(&sale.key.name, SETTLE, None);
    let mut pod_labels = labels(&sale.key.name);
    pod_labels.extend(selector.clone());
    let args = ["settle", "--config", &format!("{CONFIG_DIR}/{SETTLE_FILE}")];
    let container = Container {
        name: SETTLE.to_owned(),
        args: Some(args.map(ToOwned::to_owned).into()),
        ports: Some(vec![port("http", HTTP_PORT)]),
        env: Some(vec![field("POD_NAME", "metadata.name")]),
        readiness_probe: Some(probe("/readyz", 1, 2)),
        liveness_probe: Some(probe("/livez", 5, 6)),
        ..container(sale)
    };
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some([(CONFIG_HASH.to_owned(), config_hash)].into()),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            termination_grace_period_seconds: Some(GRACE_S),
            containers: vec![container],
            volumes: Some(vec![volume(config_name, SETTLE_FILE, SETTLE_FILE)]),
            topology_spread_constraints: Some(over_machines(&selector)),
            ..pod(sale, &PodTemplate::default())
        }),
    };
    let asked =
        (&sale.ledger.topic, topic_id, &sale.kafka, settle, &sale.image, &sale.pull_secrets);
    let asked = serde_json::to_string(&asked).unwrap_or_default();
    let name = format!("{}-{SETTLE}", sale.key.name);
    rolled(sale, name, replicas, selector, template, &asked)
}

fn deployment(
    sale: &ValidatedSale,
    topic_id: &str,
    pool: &Pool,
    replicas: u16,
    (config_name, config_hash): (&str, String),
) -> Deployment {
    let pool_label = (pool.role == Role::Sell).then_some(pool.name.as_str());
    let selector = pool_selector(&sale.key.name, role(pool), pool_label);
    // The operator's labels last: a user's must not take a pod out of its Service.
    let mut pod_labels = pool.template.labels.clone();
    pod_labels.extend(labels(&sale.key.name));
    pod_labels.extend(selector.clone());
    pod_labels.insert(POOL.to_owned(), pool.name.clone());
    pod_labels.insert(SERVES.to_owned(), "buyers".to_owned());
    let mut annotations = pool.template.annotations.clone();
    // Nodes read their file at the start only, so another file means other pods.
    annotations.insert(CONFIG_HASH.to_owned(), config_hash);
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(PodSpec {
            termination_grace_period_seconds: Some(GRACE_S),
            containers: vec![node_container(sale, &pool.template)],
            volumes: Some(
                [Some(volume(config_name, &file(pool), NODE_FILE)), keys(sale)]
                    .into_iter()
                    .flatten()
                    .collect(),
            ),
            topology_spread_constraints: Some(spread(pool, &selector)),
            ..pod(sale, &pool.template)
        }),
    };
    let name = deployment_name(&sale.key.name, pool);
    rolled(sale, name, replicas, selector, template, &asked(sale, topic_id, pool))
}

/// A Deployment whose new pods are ready before old ones go.
fn rolled(
    sale: &ValidatedSale,
    name: String,
    replicas: u16,
    selector: BTreeMap<String, String>,
    template: PodTemplateSpec,
    asked: &str,
) -> Deployment {
    let rolling = RollingUpdateDeployment {
        max_surge: Some(IntOrString::Int(i32::from(sale.max_surge))),
        max_unavailable: Some(IntOrString::Int(0)),
    };
    let spec = DeploymentSpec {
        replicas: Some(i32::from(replicas)),
        revision_history_limit: Some(2),
        selector: LabelSelector { match_labels: Some(selector), ..LabelSelector::default() },
        strategy: Some(DeploymentStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(rolling),
        }),
        template,
        ..DeploymentSpec::default()
    };
    let mut metadata = meta(sale, name);
    let template = serde_json::to_string(&spec.template).unwrap_or_default();
    metadata.annotations = Some(
        [(ASKED_HASH.to_owned(), hash(asked)), (TEMPLATE_HASH.to_owned(), hash(&template))].into(),
    );
    Deployment { metadata, spec: Some(spec), status: None }
}

/// What is asked of a pool's pods, and nothing that an operator makes of it: another value
/// means other pods at once, see [`crate::rollout`].
fn asked(sale: &ValidatedSale, topic_id: &str, pool: &Pool) -> String {
    let ledger = (&sale.ledger.topic, &sale.ledger.board_topic, topic_id);
    let servers = (&sale.kafka, &sale.redis, &sale.front, &sale.operator_key);
    let pods = (&sale.image, &sale.pull_secrets, &pool.template, pool.weight);
    serde_json::to_string(&(ledger, servers, pods)).unwrap_or_default()
}

/// Over machines, where that is possible, unless the user says otherwise.
fn spread(pool: &Pool, selector: &BTreeMap<String, String>) -> Vec<TopologySpreadConstraint> {
    if let Some(constraints) = &pool.template.topology_spread_constraints {
        return constraints.clone();
    }
    over_machines(selector)
}

fn over_machines(selector: &BTreeMap<String, String>) -> Vec<TopologySpreadConstraint> {
    vec![TopologySpreadConstraint {
        label_selector: Some(LabelSelector {
            match_labels: Some(selector.clone()),
            ..LabelSelector::default()
        }),
        max_skew: 1,
        topology_key: "kubernetes.io/hostname".to_owned(),
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    }]
}

/// What all pods of a sale have in common: nothing that a namespace with the Pod Security
/// Standard `restricted` refuses, and no way into the cluster.
fn pod(sale: &ValidatedSale, template: &PodTemplate) -> PodSpec {
    let secret = |name: &String| LocalObjectReference { name: name.clone() };
    let some = |list: Vec<LocalObjectReference>| (!list.is_empty()).then_some(list);
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(UID),
            run_as_group: Some(UID),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: some(sale.pull_secrets.iter().map(secret).collect()),
        node_selector: Some(template.node_selector.clone()).filter(|s| !s.is_empty()),
        tolerations: Some(tolerations(template)),
        affinity: template.affinity.clone(),
        priority_class_name: template.priority_class_name.clone(),
        ..PodSpec::default()
    }
}

/// The user's, and that a pod leaves a lost machine soon, unless the user says otherwise. Five
/// minutes, which Kubernetes would wait, is most of a sale's rush.
fn tolerations(template: &PodTemplate) -> Vec<Toleration> {
    let mut all = template.tolerations.clone();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if all.iter().any(|t| t.key.is_none() || t.key.as_deref() == Some(key)) {
            continue;
        }
        all.push(Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: Some(LOST_S),
            ..Toleration::default()
        });
    }
    all
}

fn container(sale: &ValidatedSale) -> Container {
    Container {
        image: Some(sale.image.clone()),
        image_pull_policy: Some(sale.pull_policy.clone()),
        // No command: the image says where its program is.
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: "config".to_owned(),
            mount_path: CONFIG_DIR.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

fn port(name: &str, port: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(port),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), ..Default::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("http".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

fn node_container(sale: &ValidatedSale, template: &PodTemplate) -> Container {
    let args = ["serve", "--config", &format!("{CONFIG_DIR}/{NODE_FILE}")];
    let sleep = SleepAction { seconds: PRE_STOP_S };
    let mut base = container(sale);
    if !sale.front.keys.is_empty() {
        base.volume_mounts.get_or_insert_default().push(VolumeMount {
            name: KEYS.to_owned(),
            mount_path: KEYS_DIR.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
    Container {
        name: "node".to_owned(),
        args: Some(args.map(ToOwned::to_owned).into()),
        ports: Some(vec![
            port("http", HTTP_PORT),
            port("control", CONTROL_PORT),
            port("live", LIVE_PORT),
        ]),
        env: Some(vec![field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP")]),
        resources: template.resources.clone(),
        readiness_probe: Some(probe("/readyz", 1, 2)),
        // Half a minute: a node that only is busy must not be killed in the rush.
        liveness_probe: Some(probe("/livez", 5, 6)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler { sleep: Some(sleep), ..LifecycleHandler::default() }),
            ..Lifecycle::default()
        }),
        ..base
    }
}

fn volume(config_name: &str, key: &str, path: &str) -> Volume {
    Volume {
        name: "config".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: config_name.to_owned(),
            items: Some(vec![KeyToPath { key: key.to_owned(), path: path.to_owned(), mode: None }]),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// What nodes are given of Secrets; nothing is copied, and a rotated one is seen by the node.
fn keys(sale: &ValidatedSale) -> Option<Volume> {
    let source = |(key, path): &(KeyReference, &str)| VolumeProjection {
        secret: Some(SecretProjection {
            name: key.name.clone(),
            items: Some(vec![KeyToPath {
                key: key.key.clone(),
                path: (*path).to_owned(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let sources: Vec<VolumeProjection> = sale.front.keys.iter().map(source).collect();
    (!sources.is_empty()).then(|| Volume {
        name: KEYS.to_owned(),
        projected: Some(ProjectedVolumeSource { sources: Some(sources), default_mode: None }),
        ..Volume::default()
    })
}

fn service(
    sale: &ValidatedSale,
    name: String,
    selector: BTreeMap<String, String>,
    kind: ServiceType,
) -> Service {
    let port = ServicePort {
        name: Some("http".to_owned()),
        port: 80,
        target_port: Some(IntOrString::String("http".to_owned())),
        protocol: Some("TCP".to_owned()),
        app_protocol: Some("http".to_owned()),
        ..ServicePort::default()
    };
    let spec = ServiceSpec {
        type_: Some(kind.to_string()),
        selector: Some(selector),
        ports: Some(vec![port]),
        ..ServiceSpec::default()
    };
    Service { metadata: meta(sale, name), spec: Some(spec), status: None }
}

fn budget(
    sale: &ValidatedSale,
    name: String,
    selector: BTreeMap<String, String>,
) -> PodDisruptionBudget {
    let spec = PodDisruptionBudgetSpec {
        max_unavailable: Some(IntOrString::Int(1)),
        selector: Some(LabelSelector { match_labels: Some(selector), ..LabelSelector::default() }),
        // A node that is not ready sells nothing, so a drain need not wait for it.
        unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
        ..PodDisruptionBudgetSpec::default()
    };
    PodDisruptionBudget { metadata: meta(sale, name), spec: Some(spec), status: None }
}

/// Buyers reach the HTTP port from anywhere; the control port is for the operator and for the
/// sale's own nodes. An init pod, which has neither, is reached by nobody anyway.
fn network_policy(sale: &ValidatedSale) -> NetworkPolicy {
    let port = |port: u16| {
        Some(vec![NetworkPolicyPort {
            port: Some(IntOrString::Int(i32::from(port))),
            protocol: Some("TCP".to_owned()),
            end_port: None,
        }])
    };
    let select = |labels: BTreeMap<String, String>| LabelSelector {
        match_labels: Some(labels),
        ..LabelSelector::default()
    };
    let sale_label = BTreeMap::from([(SALE.to_owned(), sale.key.name.clone())]);
    let namespace = sale.operator_namespace.clone();
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(select(
            [("kubernetes.io/metadata.name".to_owned(), namespace)].into(),
        )),
        pod_selector: Some(select(
            [("app.kubernetes.io/name".to_owned(), "stationmaster".to_owned())].into(),
        )),
        ip_block: None,
    };
    let nodes = NetworkPolicyPeer {
        pod_selector: Some(select(sale_label.clone())),
        ..NetworkPolicyPeer::default()
    };
    let spec = NetworkPolicySpec {
        pod_selector: Some(select(sale_label)),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: Some(vec![
            NetworkPolicyIngressRule { ports: port(HTTP_PORT), from: None },
            NetworkPolicyIngressRule {
                ports: port(CONTROL_PORT),
                from: Some(vec![operator, nodes]),
            },
        ]),
        egress: None,
    };
    let metadata = meta(sale, format!("{}-nodes", sale.key.name));
    NetworkPolicy { metadata, spec: Some(spec) }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;
    use crate::dereference::Dereferenced;
    use crate::validate::tests::{config, founded, minimal};
    use crate::validate::validate;

    fn built(sale: &crds::TrainSale) -> Children {
        build(&validate(sale, &Dereferenced::default(), &config()).unwrap(), false)
    }

    fn names<K: kube::ResourceExt>(objects: &[K]) -> Vec<String> {
        objects.iter().map(ResourceExt::name_any).collect()
    }

    #[test]
    fn an_unfounded_sale_is_one_job_and_no_node() {
        let children = built(&minimal());
        assert_eq!(names(&children.jobs), ["demo-init-topics"]);
        assert_eq!(names(&children.config_maps), ["demo-init"]);
        assert!(children.deployments.is_empty() && children.services.is_empty());
        let text = &children.config_maps[0].data.as_ref().unwrap()[INIT_FILE];
        let config = FoundingConfig::read(text).unwrap();
        assert_eq!((config.partitions, config.replicas), (17, 1));
        assert_eq!((config.step, config.topic_id), (Step::Topics, None));
    }

    #[test]
    fn with_the_topic_s_id_known_genesis_is_written_and_the_record_is_kept() {
        let mut sale = founded(minimal());
        let ledger = sale.status.as_mut().unwrap().ledger.as_mut().unwrap();
        ledger.genesis_hash = None;
        let children = built(&sale);
        assert_eq!(names(&children.jobs), ["demo-init-genesis"]);
        let record = &children.config_maps[0];
        assert!(record.owner_references().is_empty());
        assert_eq!(record.data.as_ref().unwrap()["topicID"], "q3ZyGgVJQ5mUfqqTCBnK1A");
    }

    #[test]
    fn a_founded_sale_is_its_fleet() {
        let children = built(&founded(minimal()));
        assert!(children.jobs.is_empty());
        assert_eq!(names(&children.deployments), ["demo-sell-default", "demo-query"]);
        assert_eq!(names(&children.services), ["demo", "demo-sell", "demo-query"]);
        assert_eq!(names(&children.budgets), ["demo-sell", "demo-query"]);
        let map = children.config_maps.iter().find(|m| m.name_any() == "demo-node").unwrap();
        let node = |file: &str| NodeConfig::read(&map.data.as_ref().unwrap()[file]).unwrap();
        assert_eq!(node("sell-default.json").role, Role::Sell);
        assert_eq!(node("query.json").pool.weight, 0);
        assert_eq!(node("query.json").sale, "tickets/demo");
    }

    #[test]
    fn a_sale_whose_orders_are_told_of_has_settlers_whom_no_service_selects() {
        let mut sale = founded(minimal());
        sale.spec.settlement =
            serde_json::from_value(serde_json::json!({"ordersTopic": "told"})).unwrap();
        sale.spec.fleet.settle.replicas = 2;
        let children = built(&sale);
        let [.., settlers] = &children.deployments[..] else { panic!("there are some") };
        assert_eq!(settlers.name_any(), "demo-settle");
        let spec = settlers.spec.as_ref().unwrap();
        assert_eq!(spec.replicas, Some(2));
        let labels = spec.template.metadata.as_ref().unwrap().labels.as_ref().unwrap();
        for service in &children.services {
            let selector = service.spec.as_ref().unwrap().selector.as_ref().unwrap();
            assert!(selector.iter().any(|(key, value)| labels.get(key) != Some(value)));
        }
        let map = children.config_maps.iter().find(|m| m.name_any() == "demo-node").unwrap();
        let config = SettleConfig::read(&map.data.as_ref().unwrap()[SETTLE_FILE]).unwrap();
        assert_eq!((config.orders_topic.as_str(), config.partitions), ("told", 16));
    }

    #[test]
    fn the_names_of_the_whole_sale_are_known_before_its_ledger_is() {
        let sale = validate(&minimal(), &Dereferenced::default(), &config()).unwrap();
        let whole = build_whole(&sale);
        assert_eq!(names(&whole.jobs), ["demo-init-topics", "demo-init-genesis"]);
        let later = built(&founded(minimal()));
        assert_eq!(names(&whole.services), names(&later.services));
        assert_eq!(names(&whole.deployments), names(&later.deployments));
        assert_eq!(names(&whole.config_maps), ["demo-node", "demo-init", "demo-init"]);
    }

    #[test]
    fn every_object_but_the_record_belongs_to_the_sale() {
        let children = built(&founded(minimal()));
        let owned = |refs: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference]| {
            refs.iter().any(|r| r.uid == "uid-1" && r.controller == Some(true))
        };
        assert!(children.deployments.iter().all(|d| owned(d.owner_references())));
        assert!(children.services.iter().all(|s| owned(s.owner_references())));
        assert!(children.budgets.iter().all(|b| owned(b.owner_references())));
        assert!(children.policies.iter().all(|p| owned(p.owner_references())));
        let maps = children.config_maps.iter().filter(|m| owned(m.owner_references()));
        assert_eq!(maps.count(), children.config_maps.len() - 1);
    }

    #[test]
    fn services_and_budgets_select_the_pods_that_deployments_make() {
        let children = built(&founded(minimal()));
        let pod_labels: Vec<BTreeMap<String, String>> = children
            .deployments
            .iter()
            .map(|d| d.spec.clone().unwrap().template.metadata.unwrap().labels.unwrap())
            .collect();
        let selected = |selector: &BTreeMap<String, String>| {
            let of = |labels: &BTreeMap<String, String>| {
                selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            };
            pod_labels.iter().map(of).collect::<Vec<_>>()
        };
        let by_service: Vec<_> = children
            .services
            .iter()
            .map(|s| selected(s.spec.as_ref().unwrap().selector.as_ref().unwrap()))
            .collect();
        assert_eq!(by_service, [vec![true, true], vec![true, false], vec![false, true]]);
        for budget in &children.budgets {
            let selector = budget.spec.as_ref().unwrap().selector.clone().unwrap();
            let hits = selected(&selector.match_labels.unwrap());
            assert_eq!(hits.iter().filter(|hit| **hit).count(), 1);
        }
    }

    #[test]
    fn a_user_s_label_cannot_take_a_pod_out_of_its_service() {
        let mut sale = founded(minimal());
        let mine = [(SERVES.to_owned(), "nobody".to_owned()), ("team".to_owned(), "a".to_owned())];
        sale.spec.fleet.template.labels.extend(mine);
        let children = built(&sale);
        let template = children.deployments[0].spec.clone().unwrap().template;
        let labels = template.metadata.unwrap().labels.unwrap();
        assert_eq!((labels[SERVES].as_str(), labels["team"].as_str()), ("buyers", "a"));
    }

    #[test]
    fn a_stopped_sale_has_no_pods() {
        let sale = validate(&founded(minimal()), &Dereferenced::default(), &config()).unwrap();
        let children = build(&sale, true);
        let replicas = |d: &Deployment| d.spec.as_ref().unwrap().replicas;
        assert!(children.deployments.iter().all(|d| replicas(d) == Some(0)));
    }

    #[test]
    fn the_same_sale_gives_the_same_objects_and_another_file_other_pods() {
        let text = |sale: &crds::TrainSale| serde_json::to_string(&built(sale).deployments);
        let sale = founded(minimal());
        assert_eq!(text(&sale).unwrap(), text(&sale).unwrap());
        let mut other = sale.clone();
        other.spec.redis.standalone.as_mut().unwrap().address = "elsewhere:6379".into();
        assert_ne!(text(&sale).unwrap(), text(&other).unwrap());
    }

    #[test]
    fn pods_pass_the_restricted_standard_and_have_no_token() {
        let children = built(&founded(minimal()));
        for deployment in &children.deployments {
            let pod = deployment.spec.clone().unwrap().template.spec.unwrap();
            assert_eq!(pod.automount_service_account_token, Some(false));
            assert_eq!(pod.security_context.unwrap().run_as_non_root, Some(true));
            let container = pod.containers[0].security_context.clone().unwrap();
            assert_eq!(container.allow_privilege_escalation, Some(false));
            assert_eq!(container.capabilities.unwrap().drop, Some(vec!["ALL".to_owned()]));
            assert_eq!(pod.termination_grace_period_seconds, Some(60));
        }
    }
}
