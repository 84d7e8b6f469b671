//! What is wrong with a TrainSale: the schema's bounds, the API server's rules, and what those
//! rules cannot say.
//!
//! Pure: no clock, no cluster. The operator asks before it builds anything, and local mode,
//! which has no API server, asks nothing else.

use std::collections::BTreeSet;
use std::fmt;

use inventory::definition::RUN_SEATS_MAX;
use jiff::tz::TimeZoneDatabase;

use crate::sale::{
    AdmissionMode, AuthType, AutomaticUpdate, Challenge, DeletionPolicy, Fare, FareType, Kafka,
    KafkaAuthenticationType, Ledger, PaymentType, PodMonitor, Provisioning, Redis, RedisMode,
    ServiceType, Stop, Timetable, TrainSale, TrainSaleSpec,
};
use crate::{crd, definition, schema};

/// A field that is wrong, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Where, such as `spec.timetables[0].stops[2].arrives`.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl Finding {
    /// A finding at `path`.
    #[must_use]
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Everything that is wrong with `sale` by itself; empty when it can be sold.
#[must_use]
pub fn check(sale: &TrainSale) -> Vec<Finding> {
    let mut found = Findings::default();
    match serde_json::to_value(&sale.spec) {
        Ok(value) => {
            let schema = &crd::schema()["properties"]["spec"];
            schema::check(schema, &value, "spec", &mut found.0);
        }
        Err(error) => found.add("spec", error),
    }
    name(sale, &mut found);
    times_and_zone(&sale.spec, &mut found);
    for (i, timetable) in sale.spec.timetables.iter().enumerate() {
        check_timetable(timetable, &format!("spec.timetables[{i}]"), &mut found);
    }
    runs(&sale.spec, &mut found);
    settlement(sale, &mut found);
    fleet(&sale.spec, &mut found);
    buyers(&sale.spec, &mut found);
    kafka(&sale.spec.kafka, &mut found);
    ledger(&sale.spec.ledger, &mut found);
    redis(&sale.spec.redis, &mut found);
    // What the ledger would refuse must not come so far, whatever the checks above forgot.
    if found.0.is_empty()
        && let Err(bad) = definition::found(sale)
    {
        found.0.extend(bad);
    }
    found.0
}

#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, path: impl Into<String>, message: impl fmt::Display) {
        self.0.push(Finding::new(path, message.to_string()));
    }

    /// Adds a finding unless what must hold does.
    fn must(&mut self, holds: bool, path: impl Into<String>, message: impl fmt::Display) {
        if !holds {
            self.add(path, message);
        }
    }

    /// A member of a union: there if, and only if, the union's type names it.
    fn member(&mut self, chosen: bool, there: bool, path: &str, member: &str, of: &str) {
        match (chosen, there) {
            (true, false) => self.add(format!("{path}.{member}"), format!("{of} needs it")),
            (false, true) => self.add(format!("{path}.{member}"), format!("only {of} may have it")),
            _ => {}
        }
    }
}

fn name(sale: &TrainSale, found: &mut Findings) {
    let name = sale.metadata.name.as_deref().unwrap_or_default();
    let label = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-');
    found.must(
        label && name.len() <= 40,
        "metadata.name",
        "must be a DNS label of at most 40 characters that begins with a letter, since the \
         names of Services and pods begin with it",
    );
}

fn times_and_zone(spec: &TrainSaleSpec, found: &mut Findings) {
    if let (Some(open), Some(close)) = (&spec.open_time, &spec.close_time) {
        found.must(open < close, "spec.closeTime", "must be later than openTime");
    }
    // The bundled database: whether a sale is valid must not depend on the image's files.
    let known = TimeZoneDatabase::bundled().get(&spec.time_zone).is_ok();
    let message = format!("{} is not an IANA time zone, such as Asia/Shanghai", spec.time_zone);
    found.must(known, "spec.timeZone", message);
}

fn check_timetable(timetable: &Timetable, path: &str, found: &mut Findings) {
    stops(&timetable.stops, &format!("{path}.stops"), found);
    for (i, class) in timetable.classes.iter().enumerate() {
        let path = format!("{path}.classes[{i}]");
        // The schema counts characters, the ledger bytes.
        found.must(class.name.len() <= 63, format!("{path}.name"), "is longer than 63 bytes");
        let path = format!("{path}.fare");
        fare(&class.fare, timetable.stops.len(), &path, found);
    }
    let classes: BTreeSet<&str> = timetable.classes.iter().map(|c| c.name.as_str()).collect();
    for (i, coach) in timetable.coaches.iter().enumerate() {
        let path = format!("{path}.coaches[{i}]");
        let message = format!("there is no class {} in this timetable", coach.class);
        found.must(classes.contains(coach.class.as_str()), format!("{path}.class"), message);
        let letters: Vec<char> = coach.row_layout.chars().filter(|c| *c != '-').collect();
        let distinct: BTreeSet<&char> = letters.iter().collect();
        let path = format!("{path}.rowLayout");
        found.must(letters.len() <= 12, &path, "has more than 12 seats in a row");
        found.must(distinct.len() == letters.len(), &path, "names two seats of a row alike");
    }
    let seats: u32 = timetable.coaches.iter().map(|c| u32::from(c.seats)).sum();
    let message = format!("have {seats} seats; a run can have {RUN_SEATS_MAX}");
    found.must(seats <= RUN_SEATS_MAX, format!("{path}.coaches"), message);
}

fn stops(stops: &[Stop], path: &str, found: &mut Findings) {
    let mut last = (0, "00:00");
    for (i, stop) in stops.iter().enumerate() {
        let path = format!("{path}[{i}]");
        let name = stop.name.as_deref().unwrap_or_default();
        found.must(name.len() <= 100, format!("{path}.name"), "is longer than 100 bytes");
        if stop.arrives.is_none() && stop.departs.is_none() {
            found.add(&path, "must have arrives or departs");
        }
        for (field, text) in [("arrives", &stop.arrives), ("departs", &stop.departs)] {
            let Some(text) = text else { continue };
            // What is no time at all was found by the schema's pattern.
            let Some(minutes) = minutes(text) else { continue };
            let message = format!("{text} is before {}, the time in front of it", last.1);
            found.must(minutes >= last.0, format!("{path}.{field}"), message);
            last = (minutes, text.as_str());
        }
    }
    // A single missing time was found already where a stop has neither.
    if let Some(first) = stops.first().filter(|s| s.arrives.is_some()) {
        let message = "is required at the first stop";
        found.must(first.departs.is_some(), format!("{path}[0].departs"), message);
    }
    if let Some(end) = stops.last().filter(|s| s.departs.is_some()) {
        let path = format!("{path}[{}].arrives", stops.len() - 1);
        found.must(end.arrives.is_some(), path, "is required at the last stop");
    }
}

/// Minutes from midnight of `HH:MM`, where the hours may pass 24.
pub(crate) fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    hours.parse::<u16>().ok()?.checked_mul(60)?.checked_add(minutes.parse().ok()?)
}

fn fare(fare: &Fare, stops: usize, path: &str, found: &mut Findings) {
    let is = |kind| fare.kind == kind;
    let (flat, legs) = (fare.amount_minor.is_some(), &fare.leg_amounts_minor);
    found.member(is(FareType::Flat), flat, path, "amountMinor", "type Flat");
    found.member(is(FareType::PerLeg), legs.is_some(), path, "legAmountsMinor", "type PerLeg");
    found.member(is(FareType::Table), fare.config_map.is_some(), path, "configMap", "type Table");
    if let Some(legs) = legs {
        let message = format!(
            "has {} amounts for {} legs, of which there is one less than stops",
            legs.len(),
            stops.saturating_sub(1)
        );
        found.must(legs.len() + 1 == stops, format!("{path}.legAmountsMinor"), message);
    }
}

fn runs(spec: &TrainSaleSpec, found: &mut Findings) {
    let timetables: BTreeSet<&str> = spec.timetables.iter().map(|t| t.name.as_str()).collect();
    for (i, run) in spec.runs.iter().enumerate() {
        let message = format!("there is no timetable {} in spec.timetables", run.timetable);
        let known = timetables.contains(run.timetable.as_str());
        found.must(known, format!("spec.runs[{i}].timetable"), message);
        let message = format!("{} is not a date", run.date);
        let date = run.date.parse::<jiff::civil::Date>();
        found.must(date.is_ok(), format!("spec.runs[{i}].date"), message);
    }
}

fn fleet(spec: &TrainSaleSpec, found: &mut Findings) {
    let total = spec.weight_total();
    let message = format!(
        "must be at least the sum of replicas times weight of all pools, which is {total}, or a \
         node would have nothing to sell"
    );
    found.must(total <= u64::from(spec.stock.shares), "spec.stock.shares", message);
    for (i, pool) in spec.fleet.pools.iter().enumerate() {
        let message = "default is the pool of fleet.replicas";
        found.must(pool.name != "default", format!("spec.fleet.pools[{i}].name"), message);
    }
}

fn settlement(sale: &TrainSale, found: &mut Findings) {
    let Some(settlement) = &sale.spec.settlement else { return };
    let topic = settlement.orders_topic.as_deref();
    let somewhere = topic.is_some() || settlement.database.is_some();
    found.must(somewhere, "spec.settlement", "needs ordersTopic or database");
    let ledger = sale.ledger_name();
    let own = topic.is_some_and(|t| t == ledger || t.strip_suffix(".board") == Some(&ledger));
    found.must(!own, "spec.settlement.ordersTopic", "must not be the ledger or its board");
}

fn buyers(spec: &TrainSaleSpec, found: &mut Findings) {
    let waiting = spec.admission.mode == AdmissionMode::WaitingRoom;
    let rate = spec.admission.admit_per_second.is_some();
    found.member(waiting, rate, "spec.admission", "admitPerSecond", "mode WaitingRoom");
    let (auth, tokens) = (&spec.auth, spec.auth.kind == AuthType::Jwt);
    found.member(tokens, auth.jwt.is_some(), "spec.auth", "jwt", "type JWT");
    let header = !tokens || auth.header.is_none();
    found.must(header, "spec.auth.header", "only type Header may have it");
    if let Some(jwt) = &auth.jwt {
        found.must(
            jwt.jwks_url.is_some() != jwt.jwks_secret.is_some(),
            "spec.auth.jwt",
            "needs either jwksURL or jwksSecret",
        );
    }
    let networks = auth.header.iter().filter_map(|h| h.from_cidrs.as_ref()).flatten();
    for (i, network) in networks.enumerate() {
        let message = format!("{network} is not a network, such as 10.0.0.0/8");
        let known = network.parse::<ipnet::IpNet>().is_ok();
        found.must(known, format!("spec.auth.header.fromCIDRs[{i}]"), message);
    }
    let webhook = spec.payment.kind == PaymentType::Webhook;
    let there = spec.payment.webhook.is_some();
    found.member(webhook, there, "spec.payment", "webhook", "type Webhook");
    let exposed =
        spec.traffic.service.kind != ServiceType::ClusterIP || spec.traffic.http_route.is_some();
    let sure = tokens || auth.header.as_ref().is_some_and(|h| h.from_cidrs.is_some());
    found.must(
        sure || !exposed,
        "spec.auth",
        "a sale that is reached from outside the cluster needs type JWT or header.fromCIDRs, or \
         anybody could name another buyer",
    );
}

/// Settings of the client library that promises do not rest on; the rule for the API server
/// names the same ones.
const KAFKA_OPTIONS: [&str; 11] = [
    "broker.address.family",
    "broker.address.ttl",
    "client.dns.lookup",
    "client.rack",
    "compression.type",
    "connections.max.idle.ms",
    "metadata.max.age.ms",
    "socket.keepalive.enable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "topic.metadata.refresh.interval.ms",
];

fn kafka(kafka: &Kafka, found: &mut Findings) {
    for server in kafka.bootstrap_servers.split(',') {
        port(server, "spec.kafka.bootstrapServers", found);
    }
    for (i, option) in kafka.options.iter().enumerate() {
        let message =
            format!("is none of the options that may be set: {}", KAFKA_OPTIONS.join(", "));
        let allowed = KAFKA_OPTIONS.contains(&option.name.as_str());
        found.must(allowed, format!("spec.kafka.options[{i}].name"), message);
    }
    let Some(auth) = &kafka.authentication else { return };
    let path = "spec.kafka.authentication";
    let mutual = auth.kind == KafkaAuthenticationType::MutualTls;
    let pair = auth.certificate_and_key.is_some();
    found.member(mutual, pair, path, "certificateAndKey", "type MutualTLS");
    let secret = "a type with a password";
    found.member(!mutual, auth.username.is_some(), path, "username", secret);
    found.member(!mutual, auth.password_secret.is_some(), path, "passwordSecret", secret);
    let message = "authentication of type MutualTLS needs it";
    found.must(!mutual || kafka.tls.is_some(), "spec.kafka.tls", message);
}

fn port(address: &str, path: &str, found: &mut Findings) {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let message = format!("{address} must end in a port, 1 to 65535");
    found.must(port.is_some_and(|p| p > 0), path, message);
}

fn ledger(ledger: &Ledger, found: &mut Findings) {
    let (replicas, min) = (ledger.replicas, ledger.min_in_sync_replicas);
    found.must(
        (replicas == 1 && min == 1) || (min >= 2 && min < replicas),
        "spec.ledger.minInSyncReplicas",
        format!(
            "must be at least 2 and less than replicas; only with one replica it is 1. It is \
             {min} of {replicas}"
        ),
    );
    let strimzi = ledger.provisioning == Provisioning::KafkaTopic;
    let cluster = ledger.kafka_cluster_ref.is_some();
    found.member(strimzi, cluster, "spec.ledger", "kafkaClusterRef", "provisioning KafkaTopic");
}

fn redis(redis: &Redis, found: &mut Findings) {
    let is = |mode| redis.mode == mode;
    let path = "spec.redis";
    let there = redis.standalone.is_some();
    found.member(is(RedisMode::Standalone), there, path, "standalone", "mode Standalone");
    let there = redis.sentinel.is_some();
    found.member(is(RedisMode::Sentinel), there, path, "sentinel", "mode Sentinel");
    let there = redis.cluster.is_some();
    found.member(is(RedisMode::Cluster), there, path, "cluster", "mode Cluster");
    if let Some(one) = &redis.standalone {
        port(&one.address, "spec.redis.standalone.address", found);
    }
    for address in redis.sentinel.iter().flat_map(|s| &s.addresses) {
        port(address, "spec.redis.sentinel.addresses", found);
    }
    for address in redis.cluster.iter().flat_map(|s| &s.addresses) {
        port(address, "spec.redis.cluster.addresses", found);
    }
}

/// What `new`, which must have passed [`check`], would change of `old` that has to stay as it is
/// while seats may be sold. Of an `old` that could never be sold everything may change.
#[must_use]
pub fn check_update(old: &TrainSale, new: &TrainSale) -> Vec<Finding> {
    let mut found = Findings::default();
    if let Ok(ledger) = definition::found(old)
        && let Err(refused) = definition::amend(&ledger, new)
    {
        found.0 = refused;
    }
    let shards = |sale: &TrainSale| {
        let database = sale.spec.settlement.as_ref()?.database.as_ref()?;
        Some(database.shards.iter().map(|s| s.name.clone()).collect::<Vec<_>>())
    };
    if let (Some(was), Some(is)) = (shards(old), shards(new)) {
        let message = "cannot be changed once the sale exists: each has its part of the orders";
        found.must(was == is, "spec.settlement.database.shards", message);
    }
    found.0
}

/// The fields that ask for what this version does not have yet. A sale with one of them must be
/// refused by name: taking it and doing nothing would be a promise broken in silence.
#[must_use]
pub fn not_implemented(sale: &TrainSale) -> Vec<Finding> {
    let spec = &sale.spec;
    let mut found = Findings::default();
    let (limits, fleet) = (&spec.limits, &spec.fleet);
    let (kafka, ledger, redis) = (&spec.kafka, &spec.ledger, &spec.redis);
    let asked = [
        ("spec.limits.requestsPerSecondPerBuyer", limits.requests_per_second_per_buyer.is_some()),
        (
            "spec.limits.requestsPerSecondPerAddress",
            limits.requests_per_second_per_address.is_some(),
        ),
        ("spec.limits.boardingCutoffSeconds", limits.boarding_cutoff_seconds.is_some()),
        ("spec.admission.mode", spec.admission.mode != AdmissionMode::Open),
        ("spec.admission.challenge", spec.admission.challenge != Challenge::None),
        ("spec.fleet.idle", fleet.idle.is_some()),
        ("spec.fleet.update.automatic", fleet.update.automatic != AutomaticUpdate::Never),
        ("spec.kafka.tls", kafka.tls.is_some()),
        ("spec.kafka.authentication", kafka.authentication.is_some()),
        ("spec.kafka.options", !kafka.options.is_empty()),
        ("spec.ledger.provisioning", ledger.provisioning != Provisioning::Create),
        ("spec.ledger.deletionPolicy", ledger.deletion_policy != DeletionPolicy::Retain),
        ("spec.redis.mode", redis.mode != RedisMode::Standalone),
        ("spec.redis.tls", redis.tls.is_some()),
        ("spec.redis.username", redis.username.is_some()),
        ("spec.redis.passwordSecret", redis.password_secret.is_some()),
        (
            "spec.settlement.database",
            spec.settlement.as_ref().is_some_and(|s| s.database.is_some()),
        ),
        ("spec.traffic.httpRoute", spec.traffic.http_route.is_some()),
        ("spec.monitoring.podMonitor", spec.monitoring.pod_monitor != PodMonitor::Disabled),
    ];
    for (path, asked) in asked {
        found.must(!asked, path, "not implemented yet");
    }
    for (i, timetable) in spec.timetables.iter().enumerate() {
        for (j, class) in timetable.classes.iter().enumerate() {
            let table = class.fare.kind == FareType::Table;
            let path = format!("spec.timetables[{i}].classes[{j}].fare.type");
            found.must(!table, path, "Table is not implemented yet");
        }
    }
    found.0
}
