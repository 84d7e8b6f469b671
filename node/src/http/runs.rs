//! Runs and what is free on them: from the board and the pool, never from an owner's path.

use std::rc::Rc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, StatusCode};
use inventory::definition::{Definition, StopTime, Timetable};
use inventory::legs::Journey;
use inventory::words::{ClassId, Millis, RunId};
use serde_json::{Value, json};

use super::orders::journey;
use super::problem::Problem;
use super::{Reply, Shop, reply};
use crate::station::World;

/// Seconds for which a browser or CDN may answer for us.
const MAX_AGE: &str = "public, max-age=3";

/// A time as RFC 3339 in UTC, to the millisecond.
pub(crate) fn time(at: Millis) -> String {
    let at = i64::try_from(at.0).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(String::new, |t| format!("{t:.3}"))
}

/// `GET /v1/runs?from=&to=&date=`
pub(crate) fn list(
    shop: &Rc<Shop>,
    request: &Request<Incoming>,
    query: &str,
) -> Result<Reply, Problem> {
    let asked = Asked::read(query)?;
    let world = shop.station.world.borrow();
    let definition = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
    let as_of = shop.station.now().wall;
    let mut runs = Vec::new();
    for id in definition.run_ids() {
        let Some(timetable) = definition.timetable(id) else { continue };
        let run = &definition.runs[usize::from(id.0)];
        if asked.date.is_some_and(|date| date != run.date) {
            continue;
        }
        // A run that does not serve the stops in this order is simply not in the list.
        let Ok(journey) = asked.journey(timetable) else { continue };
        runs.push(describe(&world, definition, id, journey, as_of)?);
    }
    Ok(cached(request, &json!({ "runs": runs })))
}

/// `GET /v1/runs/{train}/{date}?from=&to=`
pub(crate) fn one(
    shop: &Rc<Shop>,
    request: &Request<Incoming>,
    train: &str,
    date: &str,
    query: &str,
) -> Result<Reply, Problem> {
    let asked = Asked::read(query)?;
    let world = shop.station.world.borrow();
    let definition = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
    let id = definition.run(train, date);
    let id = id.ok_or_else(|| Problem::no_such_trip(format!("no run {train}/{date}")))?;
    let timetable = definition.timetable(id).ok_or_else(|| Problem::busy("starting"))?;
    let journey = asked.journey(timetable)?;
    let run = describe(&world, definition, id, journey, shop.station.now().wall)?;
    Ok(cached(request, &run))
}

#[derive(Debug, Default)]
struct Asked<'a> {
    from: Option<&'a str>,
    to: Option<&'a str>,
    date: Option<&'a str>,
}

impl<'a> Asked<'a> {
    fn read(query: &'a str) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for pair in query.split('&').filter(|p| !p.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let field = match name {
                "from" => &mut asked.from,
                "to" => &mut asked.to,
                "date" => &mut asked.date,
                other => return Err(Problem::invalid(format!("{other}: no such parameter"))),
            };
            if field.replace(value).is_some() {
                return Err(Problem::invalid(format!("{name}: given twice")));
            }
        }
        if asked.from.is_some() != asked.to.is_some() {
            return Err(Problem::invalid("from, to: give both or neither"));
        }
        Ok(asked)
    }

    /// The journey asked for; without stops, the whole one.
    fn journey(&self, timetable: &Timetable) -> Result<Journey, Problem> {
        match (self.from, self.to) {
            (Some(from), Some(to)) => journey(timetable, from, to),
            _ => {
                let last = u8::try_from(timetable.stops.len() - 1).unwrap_or(0);
                Journey::new(0, last).ok_or_else(|| Problem::busy("starting"))
            }
        }
    }
}

fn describe(
    world: &World,
    definition: &Definition,
    id: RunId,
    journey: Journey,
    as_of: Millis,
) -> Result<Value, Problem> {
    let run = &definition.runs[usize::from(id.0)];
    let timetable = definition.timetable(id).ok_or_else(|| Problem::busy("starting"))?;
    let mut classes = Vec::new();
    for (class, of_class) in (0..).map(ClassId).zip(&timetable.classes) {
        let counted = world.board().as_ref().map(|b| b.count(world.pool(), id, class, journey));
        // While some share was not heard of, the count is a lower bound and says so.
        let (available, complete) = counted.unwrap_or((0, false));
        classes.push(json!({
            "name": of_class.name,
            "available": available,
            "complete": complete,
            "priceMinor": timetable.fare(class, journey.from(), journey.to()),
            "currency": definition.currency,
        }));
    }
    let policy = world.pool().policy();
    Ok(json!({
        "run": format!("{}/{}", run.train, run.date),
        "stops": timetable.stops.iter().map(stop).collect::<Vec<_>>(),
        "classes": classes,
        "opens": policy.and_then(|p| p.open).map(time),
        "closes": policy.and_then(|p| p.close).map(time),
        "asOf": time(as_of),
    }))
}

fn stop(stop: &StopTime) -> Value {
    let clock = |minutes: Option<u16>| minutes.map(|m| format!("{:02}:{:02}", m / 60, m % 60));
    json!({
        "code": stop.code,
        "name": stop.name,
        "arrives": clock(stop.arrives),
        "departs": clock(stop.departs),
    })
}

/// The answer with its ETag, or 304. The tag leaves `asOf` out: it changes when a count does.
fn cached(request: &Request<Incoming>, value: &Value) -> Reply {
    let text = value.to_string();
    let mut untimed = value.clone();
    forget_time(&mut untimed);
    let tag = &blake3::hash(untimed.to_string().as_bytes()).to_hex()[..20];
    let tag = format!("\"{tag}\"");
    let known = request.headers().get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let same = known.is_some_and(|k| k == "*" || k.split(',').any(|t| t.trim() == tag));
    let mut reply = if same {
        let mut reply = Reply::default();
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        reply
    } else {
        reply(StatusCode::OK, "application/json", Bytes::from(text))
    };
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(MAX_AGE));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        reply.headers_mut().insert(header::ETAG, tag);
    }
    reply
}

fn forget_time(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("asOf");
            fields.values_mut().for_each(forget_time);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_time),
        _ => {}
    }
}
