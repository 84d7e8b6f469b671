//! Problems (RFC 9457): a closed set, so that clients can rely on `type`.

use std::borrow::Cow;

use hyper::StatusCode;
use hyper::header::{self, HeaderValue};
use inventory::owner::Answer;
use inventory::state::Refusal;
use inventory::words::Millis;
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::runs::time;
use super::{Reply, reply};

/// Bytes of most problems; a longer one grows.
const PROBLEM_BYTES: usize = 384;

/// Where the types are documented.
pub const TYPES: &str = "https://stationmaster.dev/problems/";

/// All kinds of problems; what each means is in `docs/problems.md`.
pub const KINDS: [&str; 22] = [
    "busy",
    "unknown",
    "not-open",
    "suspended",
    "closed",
    "sold-out",
    "group-too-large",
    "too-many-holds",
    "too-many-orders",
    "run-withdrawn",
    "key-reused",
    "invalid",
    "malformed",
    "unidentified",
    "not-the-gateway",
    "bad-signature",
    "no-such-trip",
    "no-such-order",
    "no-such-page",
    "method-not-allowed",
    "body-too-slow",
    "body-too-large",
];

/// Something that a client hears instead of what it asked for.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    kind: &'static str,
    title: &'static str,
    detail: Cow<'static, str>,
    more: More,
    retry_after: Option<u32>,
    /// `Allow`, or how to show who one is (RFC 6750 3).
    header: Option<Box<(&'static str, Cow<'static, str>)>>,
}

/// What a kind of problem says beside what all of them say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Nothing,
    Reason(&'static str),
    SoldOut { as_of: Millis, held: u32, next_end: Option<Millis> },
    Largest(u32),
    Opens(Option<Millis>),
    Most(u8),
    Price(u64),
}

impl More {
    fn serialize<M: SerializeMap>(self, to: &mut M) -> Result<(), M::Error> {
        match self {
            Self::Nothing => Ok(()),
            Self::Reason(why) => to.serialize_entry("reason", why),
            Self::SoldOut { as_of, held, next_end } => {
                to.serialize_entry("asOf", &time(as_of))?;
                to.serialize_entry("held", &held)?;
                to.serialize_entry("nextHoldEnds", &next_end.map(time))
            }
            Self::Largest(largest) => to.serialize_entry("largest", &largest),
            Self::Opens(at) => to.serialize_entry("opens", &at.map(time)),
            Self::Most(most) => to.serialize_entry("most", &most),
            Self::Price(price) => to.serialize_entry("priceMinor", &price),
        }
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        struct Type(&'static str);
        impl Serialize for Type {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(&format_args!("{TYPES}{}", self.0))
            }
        }
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("type", &Type(self.kind))?;
        map.serialize_entry("title", self.title)?;
        map.serialize_entry("status", &self.status.as_u16())?;
        map.serialize_entry("detail", &self.detail)?;
        self.more.serialize(&mut map)?;
        map.end()
    }
}

impl Problem {
    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        debug_assert!(KINDS.contains(&kind), "{kind} is not documented");
        let (more, detail) = (More::Nothing, detail.into());
        Self { status, kind, title, detail, more, retry_after: None, header: None }
    }

    fn with(self, more: More) -> Self {
        Self { more, ..self }
    }

    fn retry(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The request says something that cannot be.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "The request cannot be met", detail)
    }

    /// The request cannot be read.
    pub fn malformed(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", "The request cannot be read", detail)
    }

    /// The body is longer than it may be.
    pub fn body_too_large(max: usize) -> Self {
        let detail = format!("a body has at most {max} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large", detail)
    }

    /// The body took too long.
    pub fn body_too_slow() -> Self {
        let title = "The body took too long";
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", title, "send it at once")
    }

    /// There is no such page.
    pub fn no_such_page() -> Self {
        let title = "There is no such page";
        Self::new(StatusCode::NOT_FOUND, "no-such-page", title, "see /v1/runs and /v1/orders")
    }

    /// The page does not take this method.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let (status, kind) = (StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed");
        let detail = format!("this page takes {allow}");
        let mut problem = Self::new(status, kind, "The page does not take this method", detail);
        problem.header = Some(Box::new(("allow", allow.into())));
        problem
    }

    /// Nobody said who the buyer is.
    pub fn unidentified(header: &str) -> Self {
        let detail = format!("the header {header} must name the buyer");
        Self::new(StatusCode::UNAUTHORIZED, "unidentified", "Who is buying?", detail)
    }

    fn unauthorized(
        kind: &'static str,
        title: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, kind, title, detail)
    }

    /// Nobody showed a token.
    pub fn no_token() -> Self {
        let detail = "the header Authorization must have one bearer token";
        let mut problem = Self::unauthorized("unidentified", "Who is buying?", detail);
        problem.header = Some(Box::new(("www-authenticate", "Bearer".into())));
        problem
    }

    /// The token is not good.
    pub fn bad_token(why: &str) -> Self {
        let detail = format!("the token is not accepted: {why}");
        let mut problem = Self::unauthorized("unidentified", "Who is buying?", detail);
        let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{why}\"");
        problem.header = Some(Box::new(("www-authenticate", challenge.into())));
        problem
    }

    /// Somebody names a buyer who may not.
    pub fn stranger() -> Self {
        let detail = "buyers are named by the gateway, and this is not its address";
        Self::new(StatusCode::FORBIDDEN, "not-the-gateway", "Ask the gateway", detail)
    }

    /// Nobody known has signed it.
    pub fn bad_signature(why: &str) -> Self {
        Self::unauthorized("bad-signature", "The signature is not accepted", why.to_owned())
    }

    /// The run, class or stop does not exist.
    pub fn no_such_trip(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "no-such-trip", "There is no such trip", detail)
    }

    /// There is no such order of this buyer.
    pub fn no_such_order() -> Self {
        let title = "There is no such order";
        Self::new(StatusCode::NOT_FOUND, "no-such-order", title, "not of this buyer")
    }

    /// Not now.
    pub fn busy(why: &'static str) -> Self {
        let detail = "nothing was decided; try again with the same Idempotency-Key";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy, please try again", detail)
            .with(More::Reason(why))
            .retry(1)
    }

    fn unknown() -> Self {
        let detail = "the order may or may not be placed; try again with the same Idempotency-Key";
        let title = "The outcome is not known yet";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unknown", title, detail).retry(1)
    }

    fn sold_out(as_of: Millis, held: u32, next_end: Option<Millis>) -> Self {
        let detail = match held {
            0 => Cow::Borrowed("no seat is free on this journey"),
            held => {
                format!("no seat is free on this journey; {held} seats are held and unpaid").into()
            }
        };
        Self::new(StatusCode::CONFLICT, "sold-out", "Sold out", detail).with(More::SoldOut {
            as_of,
            held,
            next_end,
        })
    }

    fn group_too_large(largest: u32) -> Self {
        let detail = format!("at most {largest} passengers fit together on this journey");
        let title = "The group is too large";
        Self::new(StatusCode::CONFLICT, "group-too-large", title, detail)
            .with(More::Largest(largest))
    }

    fn refused(refusal: Refusal) -> Self {
        let conflict =
            |kind, title, detail: String| Self::new(StatusCode::CONFLICT, kind, title, detail);
        match refusal {
            Refusal::NotOpen(opens) => {
                let detail = match opens {
                    Some(at) => format!("the sale opens at {}", &*time(at)),
                    None => "the sale is not open yet".to_owned(),
                };
                let status = StatusCode::SERVICE_UNAVAILABLE;
                Self::new(status, "not-open", "The sale is not open yet", detail)
                    .with(More::Opens(opens))
                    .retry(2)
            }
            Refusal::Suspended => {
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let detail = "no new orders are taken for now; paying and cancelling work";
                Self::new(status, "suspended", "The sale is suspended", detail).retry(10)
            }
            Refusal::Closed => {
                conflict("closed", "The sale is over", "no new orders are taken".into())
            }
            Refusal::KeyReused => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "The key was used for another order",
                "an Idempotency-Key belongs to one body; use a new one for a new order",
            ),
            Refusal::Withdrawn => {
                let detail = "no new orders are taken for this run; what was sold stays sold";
                conflict("run-withdrawn", "The run is off sale", detail.into())
            }
            Refusal::NoSuchTrip => Self::no_such_trip("no such run, class or journey"),
            Refusal::PartyTooLarge(most) => {
                Self::invalid(format!("passengers: an order has 1 to {most} passengers"))
                    .with(More::Most(most))
            }
            Refusal::TooManyHolds(most) => {
                let detail = format!("pay or cancel first: at most {most} unpaid orders on a run");
                conflict("too-many-holds", "Too many unpaid orders", detail)
            }
            Refusal::TooManyOrders(most) => {
                let detail = format!("at most {most} orders on a run");
                conflict("too-many-orders", "Too many orders", detail)
            }
            Refusal::NotFound => Self::no_such_order(),
            Refusal::WrongAmount(price) => {
                Self::invalid(format!("amountMinor: the order costs {price}"))
                    .with(More::Price(price))
            }
            Refusal::Conflict => Self::busy("on-its-way"),
            // Said between shares only; a buyer never hears it as it is.
            Refusal::No => Self::busy("travelling"),
            Refusal::Frozen => Self::busy("frozen"),
        }
    }

    /// The problem that an answer is, if it is one.
    #[must_use]
    pub fn of(answer: &Answer) -> Option<Self> {
        match answer {
            Answer::Order { .. } | Answer::Orders(_) => None,
            Answer::Refused(refusal) => Some(Self::refused(*refusal)),
            Answer::SoldOut { as_of, held, next_end } => {
                Some(Self::sold_out(*as_of, *held, *next_end))
            }
            Answer::GroupTooLarge(largest) => Some(Self::group_too_large(*largest)),
            Answer::Busy(why) => Some(Self::busy(why)),
            Answer::Unknown => Some(Self::unknown()),
        }
    }

    /// As an answer.
    #[must_use]
    pub fn into_reply(self) -> Reply {
        // What is made of numbers and text is always JSON.
        let mut text = Vec::with_capacity(PROBLEM_BYTES);
        let _ = serde_json::to_writer(&mut text, &self);
        let mut reply = reply(self.status, "application/problem+json", text);
        if let Some(seconds) = self.retry_after {
            reply.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let no_store = HeaderValue::from_static("no-store");
        reply.headers_mut().insert(header::CACHE_CONTROL, no_store);
        if let Some((name, value)) = self.header.as_deref()
            && let Ok(value) = HeaderValue::try_from(&**value)
        {
            reply.headers_mut().insert(*name, value);
        }
        reply
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_problem_is_documented_and_no_other() {
        let text = include_str!("../../../docs/problems.md");
        let rows = text.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
        assert_eq!(rows.collect::<Vec<_>>(), KINDS);
    }
}
