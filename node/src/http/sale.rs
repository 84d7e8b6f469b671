//! What a page has to know of a sale before it asks for a journey.

use std::collections::BTreeSet;

use bytes::Bytes;
use hyper::Request;
use inventory::entry::{Policy, SaleState};
use inventory::words::Millis;
use schemars::JsonSchema;
use serde::Serialize;

use super::identity::Identity;
use super::pages::Dated;
use super::payment::Provider;
use super::problem::Problem;
use super::runs::time;
use super::{Reply, Shop};

/// A sale.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SaleBody<'a> {
    /// Its name.
    name: &'a str,
    /// The currency of all its prices, ISO 4217.
    currency: &'a str,
    /// The time zone of its timetables, of the IANA database.
    time_zone: &'a str,
    /// Whether orders are taken.
    state: State,
    /// From when on, RFC 3339, if that is set.
    opens: Option<String>,
    /// Until when, if that is set.
    closes: Option<String>,
    /// The time here.
    now: String,
    /// All stops, those of a timetable in its order.
    stops: Vec<StopName<'a>>,
    /// All dates on which a train departs.
    dates: BTreeSet<&'a str>,
    /// All classes.
    classes: BTreeSet<&'a str>,
    /// Passengers of an order at most.
    passengers_per_order: Option<u8>,
    /// How long an order waits for payment.
    payment_seconds: Option<u32>,
    /// How buyers say who they are.
    identity: IdentityBody<'a>,
    /// How they pay.
    payment: PaymentBody,
}

/// Whether orders are taken.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// Not yet.
    Scheduled,
    /// Yes.
    Open,
    /// Not for now.
    Suspended,
    /// No more.
    Closed,
}

/// A stop's names.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
struct StopName<'a> {
    /// How an order names it.
    code: &'a str,
    /// How people name it.
    name: &'a str,
}

/// How buyers say who they are.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type")]
enum IdentityBody<'a> {
    /// A gateway says it in a header.
    Header {
        /// The header.
        header: &'a str,
    },
    /// By a bearer token.
    #[serde(rename = "JWT")]
    Token,
}

/// How buyers pay.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "type")]
enum PaymentBody {
    /// By saying so: for trying out.
    Sandbox,
    /// At a provider, who tells us.
    Webhook,
}

fn state(policy: Option<&Policy>, now: Millis) -> State {
    let Some(policy) = policy else { return State::Scheduled };
    match policy.state {
        SaleState::Suspended => State::Suspended,
        SaleState::Stopped => State::Closed,
        SaleState::Active if policy.close.is_some_and(|close| now >= close) => State::Closed,
        SaleState::Active if policy.open.is_some_and(|open| now < open) => State::Scheduled,
        SaleState::Active => State::Open,
    }
}

impl Dated for SaleBody<'_> {
    fn date(&mut self, time: &str) {
        time.clone_into(&mut self.now);
    }
}

/// `GET /v1/sale`
pub(crate) fn describe(shop: &Shop, request: &Request<Bytes>) -> Result<Reply, Problem> {
    let (world, now) = (shop.station.world.borrow(), shop.station.now());
    shop.pages.give(request, now, || {
        let definition = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
        let policy = world.pool().policy();
        let mut seen = BTreeSet::new();
        let all = definition.timetables.iter().flat_map(|t| &t.stops);
        let stops = all.filter(|s| seen.insert(&s.code));
        let stops = stops.map(|s| StopName { code: &s.code, name: &s.name }).collect();
        let classes = definition.timetables.iter().flat_map(|t| &t.classes);
        Ok(SaleBody {
            name: &shop.front.name,
            currency: &definition.currency,
            time_zone: &definition.time_zone,
            state: state(policy, now.wall),
            opens: policy.and_then(|p| p.open).map(|at| time(at).to_string()),
            closes: policy.and_then(|p| p.close).map(|at| time(at).to_string()),
            now: String::new(),
            stops,
            dates: definition.runs.iter().map(|r| r.date.as_str()).collect(),
            classes: classes.map(|c| c.name.as_str()).collect(),
            passengers_per_order: policy.map(|p| p.limits.passengers_per_order),
            payment_seconds: policy.map(|p| p.limits.payment_ms / 1_000),
            identity: match &shop.front.identity {
                Identity::Header { name, .. } => IdentityBody::Header { header: name.as_str() },
                Identity::Token(_) => IdentityBody::Token,
            },
            payment: match shop.front.payment {
                Provider::Sandbox => PaymentBody::Sandbox,
                Provider::Webhook(_) => PaymentBody::Webhook,
            },
        })
    })
}
