//! Rules that the API server checks, in its expression language (CEL).
//!
//! What one rule may cost is reckoned from the bounds of the lists that it walks, and a
//! definition with a rule too dear is refused as a whole; so the times of stops in order, and
//! runs that were renamed, are left to [`crate::checks`], which says all of this again in Rust
//! for local mode and for the operator.

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Where in the schema it stands; `[]` is any item of a list.
    pub at: &'static str,
    /// What must hold. With `oldSelf` it is checked on updates only.
    pub rule: &'static str,
    /// What the user is told.
    pub message: &'static str,
    /// The member that the user is pointed at, where it is not the whole.
    pub field: Option<&'static str>,
}

impl Rule {
    const fn of(at: &'static str, rule: &'static str, message: &'static str) -> Self {
        Self { at, rule, message, field: None }
    }

    const fn field(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }

    const fn fixed(at: &'static str) -> Self {
        Self::of(at, "self == oldSelf", "cannot be changed once the sale exists")
    }

    /// Whether the rule compares with what was there before.
    #[must_use]
    pub fn is_for_updates(&self) -> bool {
        self.rule.contains("oldSelf")
    }
}

/// All rules, in the order of the schema.
pub const RULES: &[Rule] = &[
    Rule::of(
        "",
        "self.metadata.name.size() <= 40 && \
         self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        "metadata.name must be a DNS label of at most 40 characters that begins with a letter, \
         since the names of Services and pods begin with it",
    ),
    Rule::of(
        "spec",
        "!has(self.openTime) || !has(self.closeTime) || self.openTime < self.closeTime",
        "must be later than openTime",
    )
    .field(".closeTime"),
    Rule::of(
        "spec",
        "self.runs.all(r, self.timetables.exists(t, t.name == r.timetable))",
        "each run must name a timetable of spec.timetables",
    )
    .field(".runs"),
    Rule::of(
        "spec",
        "self.fleet.replicas + self.fleet.pools.map(p, p.replicas * p.weight).sum() \
         <= self.stock.shares",
        "must be at least the sum of replicas times weight of all pools, or a node would have \
         nothing to sell",
    )
    .field(".stock.shares"),
    Rule::of(
        "spec",
        "self.auth.type == 'JWT' || has(self.auth.header) && has(self.auth.header.fromCIDRs) || \
         self.traffic.service.type == 'ClusterIP' && !has(self.traffic.httpRoute)",
        "a sale that is reached from outside the cluster needs type JWT or header.fromCIDRs, or \
         anybody could name another buyer",
    )
    .field(".auth"),
    Rule::of(
        "spec.settlement",
        "has(self.ordersTopic) || has(self.database)",
        "needs ordersTopic or database",
    ),
    Rule::fixed("spec.currency"),
    Rule::fixed("spec.timeZone"),
    Rule::of(
        "spec.timetables",
        "oldSelf.all(o, self.exists(n, n.name == o.name))",
        "a timetable cannot be removed",
    ),
    Rule::of(
        "spec.timetables[]",
        "self.coaches.all(c, self.classes.exists(k, k.name == c.class))",
        "each coach must name a class of its timetable",
    )
    .field(".coaches"),
    Rule::of(
        "spec.timetables[]",
        "self.classes.all(c, !has(c.fare.legAmountsMinor) || \
         c.fare.legAmountsMinor.size() == self.stops.size() - 1)",
        "legAmountsMinor must have one amount for each leg, one less than there are stops",
    )
    .field(".classes"),
    Rule::of(
        "spec.timetables[]",
        "has(self.stops[0].departs) && has(self.stops[self.stops.size() - 1].arrives)",
        "the first stop must have departs, and the last one arrives",
    )
    .field(".stops"),
    Rule::of(
        "spec.timetables[]",
        "self.stops.map(s, s.code) == oldSelf.stops.map(s, s.code)",
        "the stops' codes and order cannot be changed once the sale exists",
    )
    .field(".stops"),
    Rule::of(
        "spec.timetables[].stops[]",
        "has(self.arrives) || has(self.departs)",
        "must have arrives or departs",
    ),
    // Hours of two digits and of three do not compare as text: the shorter one is earlier.
    Rule::of(
        "spec.timetables[].stops[]",
        "!has(self.arrives) || !has(self.departs) || \
         self.arrives.size() < self.departs.size() || \
         self.arrives.size() == self.departs.size() && self.arrives <= self.departs",
        "must not be earlier than arrives",
    )
    .field(".departs"),
    Rule::of(
        "spec.timetables[].classes",
        "oldSelf.all(o, self.exists(n, n.name == o.name))",
        "a class cannot be removed",
    ),
    Rule::of(
        "spec.timetables[].classes[].fare",
        "(self.type == 'Flat') == has(self.amountMinor)",
        "type Flat, and no other, needs amountMinor",
    ),
    Rule::of(
        "spec.timetables[].classes[].fare",
        "(self.type == 'PerLeg') == has(self.legAmountsMinor)",
        "type PerLeg, and no other, needs legAmountsMinor",
    ),
    Rule::of(
        "spec.timetables[].classes[].fare",
        "(self.type == 'Table') == has(self.configMap)",
        "type Table, and no other, needs configMap",
    ),
    Rule::of(
        "spec.timetables[].coaches",
        "oldSelf.all(o, self.exists(n, n.name == o.name))",
        "a coach cannot be removed",
    ),
    Rule::of(
        "spec.timetables[].coaches[]",
        "self == oldSelf",
        "a coach cannot be changed once the sale exists, since its seats may be sold",
    ),
    Rule::of("spec.runs", "self.size() >= oldSelf.size()", "a run cannot be removed"),
    Rule::fixed("spec.runs[].timetable"),
    Rule::fixed("spec.stock.shares"),
    Rule::fixed("spec.stock.bufferPercent"),
    Rule::fixed("spec.stock.blockSeats"),
    Rule::of(
        "spec.admission",
        "(self.mode == 'WaitingRoom') == has(self.admitPerSecond)",
        "mode WaitingRoom, and no other, needs admitPerSecond",
    ),
    Rule::of(
        "spec.auth",
        "(self.type == 'JWT') == has(self.jwt)",
        "type JWT, and no other, needs jwt",
    ),
    Rule::of(
        "spec.auth",
        "self.type == 'Header' || !has(self.header)",
        "only type Header may have header",
    ),
    Rule::of(
        "spec.auth.jwt",
        "has(self.jwksURL) != has(self.jwksSecret)",
        "needs either jwksURL or jwksSecret",
    ),
    Rule::of(
        "spec.payment",
        "(self.type == 'Webhook') == has(self.webhook)",
        "type Webhook, and no other, needs webhook",
    ),
    Rule::of(
        "spec.fleet.pools[]",
        "self.name != 'default'",
        "default is the pool of fleet.replicas",
    )
    .field(".name"),
    Rule::of(
        "spec.kafka",
        "!has(self.authentication) || self.authentication.type != 'MutualTLS' || has(self.tls)",
        "authentication of type MutualTLS needs tls",
    ),
    Rule::of(
        "spec.kafka.authentication",
        "(self.type == 'MutualTLS') == has(self.certificateAndKey)",
        "type MutualTLS, and no other, needs certificateAndKey",
    ),
    Rule::of(
        "spec.kafka.authentication",
        "self.type == 'MutualTLS' ? !has(self.username) && !has(self.passwordSecret) \
         : has(self.username) && has(self.passwordSecret)",
        "types ScramSHA512 and Plain, and no other, need username and passwordSecret",
    ),
    // A list of what is allowed: the library has about two hundred settings, and many of them
    // would break the promise that a confirmed order is in the ledger.
    Rule::of(
        "spec.kafka.options[]",
        "self.name in ['broker.address.family', 'broker.address.ttl', 'client.dns.lookup', \
         'client.rack', 'compression.type', 'connections.max.idle.ms', \
         'metadata.max.age.ms', 'socket.keepalive.enable', 'socket.receive.buffer.bytes', \
         'socket.send.buffer.bytes', 'topic.metadata.refresh.interval.ms']",
        "is none of the options that may be set: broker.address.family, broker.address.ttl, \
         client.dns.lookup, client.rack, compression.type, connections.max.idle.ms, \
         metadata.max.age.ms, socket.keepalive.enable, socket.receive.buffer.bytes, \
         socket.send.buffer.bytes, topic.metadata.refresh.interval.ms",
    )
    .field(".name"),
    Rule::of(
        "spec.ledger",
        "self.replicas == 1 && self.minInSyncReplicas == 1 || \
         self.minInSyncReplicas >= 2 && self.minInSyncReplicas < self.replicas",
        "must be at least 2 and less than replicas; only with one replica it is 1",
    )
    .field(".minInSyncReplicas"),
    Rule::of(
        "spec.ledger",
        "(self.provisioning == 'KafkaTopic') == has(self.kafkaClusterRef)",
        "provisioning KafkaTopic, and no other, needs kafkaClusterRef",
    ),
    Rule::of(
        "spec.ledger",
        "has(self.topic) == has(oldSelf.topic) && \
         (!has(self.topic) || self.topic == oldSelf.topic)",
        "cannot be changed once the sale exists",
    )
    .field(".topic"),
    Rule::of(
        "spec.redis",
        "(self.mode == 'Standalone') == has(self.standalone)",
        "mode Standalone, and no other, needs standalone",
    ),
    Rule::of(
        "spec.redis",
        "(self.mode == 'Sentinel') == has(self.sentinel)",
        "mode Sentinel, and no other, needs sentinel",
    ),
    Rule::of(
        "spec.redis",
        "(self.mode == 'Cluster') == has(self.cluster)",
        "mode Cluster, and no other, needs cluster",
    ),
    Rule::of(
        "spec.settlement.database",
        "self.shards.map(s, s.name) == oldSelf.shards.map(s, s.name)",
        "cannot be changed once the sale exists: each has its part of the orders",
    )
    .field(".shards"),
];
