//! Orders: a request becomes a command for its home share, an answer becomes JSON.

use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use inventory::allocate::PARTY_MAX;
use inventory::conductor::{Outcome, Place, last_word};
use inventory::definition::{Place as Seating, Timetable};
use inventory::entry::{End, OrderRequest};
use inventory::legs::Journey;
use inventory::owner::{Answer, OrderView, Status};
use inventory::pool::Pool;
use inventory::state::Command;
use inventory::words::{BuyerHash, LedgerKey, OrderId, ShareId};
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::runs::time;
use super::{Reply, Shop, body, reply};
use crate::station::Station;
use crate::telemetry::Word;

/// How long a request looks for the owner of its share while nobody owns it: a planned move
/// takes a fraction of a second, a fail-over up to three; a browser waits that long, once.
const SEARCH: Duration = Duration::from_millis(2_500);
/// How often it looks: as often as the board can have news.
const SEARCH_STEP: Duration = Duration::from_millis(25);

/// Bytes of an Idempotency-Key at most: a UUID has 36.
const KEY_BYTES_MAX: usize = 128;
/// Bytes of a buyer's subject at most: OpenID Connect allows 255.
const BUYER_BYTES_MAX: usize = 255;
/// Bytes of a passenger's document at most.
const DOCUMENT_BYTES_MAX: usize = 128;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceBody<'a> {
    run: &'a str,
    from: &'a str,
    to: &'a str,
    class: &'a str,
    #[serde(borrow)]
    passengers: Vec<Passenger<'a>>,
    #[serde(default)]
    preference: Option<Preference>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Passenger<'a> {
    document: &'a str,
}

#[derive(Debug, Clone, Copy, Deserialize)]
enum Preference {
    Window,
    Aisle,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct PayBody<'a> {
    payment: &'a str,
    amount_minor: u64,
}

/// `POST /v1/orders`
pub(crate) async fn place(shop: &Rc<Shop>, request: Request<Incoming>) -> Result<Reply, Problem> {
    let station = &shop.station;
    let buyer = buyer(shop, &request)?.to_owned();
    let key = request.headers().get("idempotency-key").and_then(|k| k.to_str().ok());
    let key = key.ok_or_else(|| Problem::malformed("the header Idempotency-Key is required"))?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let detail = format!("Idempotency-Key must have 1 to {KEY_BYTES_MAX} bytes");
        return Err(Problem::malformed(detail));
    }
    let key = key.to_owned();
    let bytes = body(request).await?;
    let asked: PlaceBody<'_> = serde_json::from_slice(&bytes).map_err(|e| unreadable(&e))?;
    let (share, command) = {
        let world = station.world.borrow();
        let request = order_request(world.pool(), &buyer, &key, &asked)?;
        let definition = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
        (definition.home(request.run, request.buyer), Command::Place(request))
    };
    finish(station, bring(station, share, command).await)
}

fn unreadable(error: &serde_json::Error) -> Problem {
    if error.is_data() {
        return Problem::invalid(error.to_string());
    }
    Problem::malformed(error.to_string())
}

fn order_request(
    pool: &Pool,
    buyer: &str,
    key: &str,
    asked: &PlaceBody<'_>,
) -> Result<OrderRequest, Problem> {
    let definition = pool.definition().ok_or_else(|| Problem::busy("starting"))?;
    let secret = pool.key().ok_or_else(|| Problem::busy("starting"))?;
    let (train, date) = asked
        .run
        .split_once('/')
        .ok_or_else(|| Problem::invalid("run: must be TRAIN/DATE, such as G1/2027-02-01"))?;
    let run = definition.run(train, date);
    let run = run.ok_or_else(|| Problem::no_such_trip(format!("run: no run {}", asked.run)))?;
    let timetable = definition.timetable(run).ok_or_else(|| Problem::busy("starting"))?;
    let class = timetable.class(asked.class);
    let class =
        class.ok_or_else(|| Problem::no_such_trip(format!("class: no class {}", asked.class)))?;
    let journey = journey(timetable, asked.from, asked.to)?;
    if asked.passengers.is_empty() || asked.passengers.len() > PARTY_MAX {
        return Err(Problem::invalid(format!("passengers: must be 1 to {PARTY_MAX}")));
    }
    if let Some(at) = asked.passengers.iter().position(|p| !fits(p.document, DOCUMENT_BYTES_MAX)) {
        let detail =
            format!("passengers[{at}].document: must have 1 to {DOCUMENT_BYTES_MAX} bytes");
        return Err(Problem::invalid(detail));
    }
    let buyer = secret.buyer(buyer);
    let prefer = asked.preference.map(|p| match p {
        Preference::Window => Seating::Window,
        Preference::Aisle => Seating::Aisle,
    });
    Ok(OrderRequest {
        key: secret.key(buyer, run, key),
        body: body_hash(&secret, asked),
        buyer,
        run,
        class,
        journey,
        prefer,
        passengers: asked.passengers.iter().map(|p| secret.passenger(p.document)).collect(),
        price: 0,
    })
}

fn fits(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max
}

/// Over what the body means, not how it is spelt: a proxy may reformat JSON.
fn body_hash(secret: &LedgerKey, asked: &PlaceBody<'_>) -> inventory::words::BodyHash {
    let preference = match asked.preference {
        None => "",
        Some(Preference::Window) => "Window",
        Some(Preference::Aisle) => "Aisle",
    };
    let mut parts = vec![asked.run, asked.from, asked.to, asked.class, preference];
    parts.extend(asked.passengers.iter().map(|p| p.document));
    let parts: Vec<&[u8]> = parts.into_iter().map(str::as_bytes).collect();
    secret.body(&parts)
}

/// The journey between two stop codes of a timetable.
pub(crate) fn journey(timetable: &Timetable, from: &str, to: &str) -> Result<Journey, Problem> {
    let stop = |field: &str, code: &str| {
        let known = timetable.stop(code);
        known.ok_or_else(|| Problem::no_such_trip(format!("{field}: the run has no stop {code}")))
    };
    let (a, b) = (stop("from", from)?, stop("to", to)?);
    Journey::new(a, b)
        .ok_or_else(|| Problem::no_such_trip(format!("to: {to} does not come after {from}")))
}

/// `GET /v1/orders/{id}`
pub(crate) async fn read(
    shop: &Rc<Shop>,
    request: &Request<Incoming>,
    id: &str,
) -> Result<Reply, Problem> {
    let (order, buyer) = of_buyer(shop, request, id)?;
    let command = Command::Read { order, buyer };
    finish(&shop.station, bring(&shop.station, order.home, command).await)
}

/// `DELETE /v1/orders/{id}`
pub(crate) async fn cancel(
    shop: &Rc<Shop>,
    request: &Request<Incoming>,
    id: &str,
) -> Result<Reply, Problem> {
    let (order, buyer) = of_buyer(shop, request, id)?;
    let command = Command::Cancel { order, buyer };
    finish(&shop.station, bring(&shop.station, order.home, command).await)
}

/// `POST /v1/orders/{id}/payment`: the sandbox provider, which takes the buyer's word.
pub(crate) async fn pay(
    shop: &Rc<Shop>,
    request: Request<Incoming>,
    id: &str,
) -> Result<Reply, Problem> {
    let (order, buyer) = of_buyer(shop, &request, id)?;
    let bytes = body(request).await?;
    let asked: PayBody<'_> = serde_json::from_slice(&bytes).map_err(|e| unreadable(&e))?;
    if !fits(asked.payment, KEY_BYTES_MAX) {
        let detail = format!("payment: must have 1 to {KEY_BYTES_MAX} bytes");
        return Err(Problem::invalid(detail));
    }
    let key = shop.station.world.borrow().pool().key().ok_or_else(|| Problem::busy("starting"))?;
    let payment = key.hash(5, &[asked.payment.as_bytes()]);
    let command = Command::Pay { order, buyer, payment, amount: asked.amount_minor };
    finish(&shop.station, bring(&shop.station, order.home, command).await)
}

fn of_buyer(
    shop: &Shop,
    request: &Request<Incoming>,
    id: &str,
) -> Result<(OrderId, BuyerHash), Problem> {
    let buyer = buyer(shop, request)?;
    let order: OrderId = id
        .parse()
        .map_err(|e: inventory::words::BadOrderId| Problem::invalid(format!("id: {e}")))?;
    let world = shop.station.world.borrow();
    let key = world.pool().key().ok_or_else(|| Problem::busy("starting"))?;
    if world.pool().shares().all(|share| share != order.home) {
        return Err(Problem::of(&Answer::Refused(inventory::state::Refusal::NotFound))
            .unwrap_or_else(Problem::no_such_page));
    }
    Ok((order, key.buyer(buyer)))
}

fn buyer<'a>(shop: &Shop, request: &'a Request<Incoming>) -> Result<&'a str, Problem> {
    let named = request.headers().get(&shop.buyer_header).and_then(|b| b.to_str().ok());
    named
        .filter(|b| fits(b, BUYER_BYTES_MAX))
        .ok_or_else(|| Problem::unidentified(shop.buyer_header.as_str()))
}

/// Brings a command to the owner of its share, wherever that is, and waits for the answer. A
/// command is passed on again only when it was certainly not seen.
async fn bring(station: &Rc<Station>, share: ShareId, command: Command) -> Answer {
    let deadline = tokio::time::Instant::now() + SEARCH;
    loop {
        match station.locate(share) {
            Place::Here => match station.desk.submit(share, command.clone()) {
                Err(_) => return Answer::Busy("full"),
                Ok(pending) => {
                    if let Outcome::Answered(answer) = pending.await {
                        return answer;
                    }
                }
            },
            Place::There(address) => {
                let key = station.world.borrow().pool().key();
                let Some(key) = key else { return Answer::Busy("starting") };
                station.metrics.forwarded.inc();
                let sent = station.courier.send(address, &key, share, &command).await;
                if let Some(answer) = last_word(sent) {
                    return answer;
                }
            }
            Place::Unowned => {}
        }
        if tokio::time::Instant::now() >= deadline {
            return Answer::Busy("unowned");
        }
        tokio::time::sleep(SEARCH_STEP).await;
    }
}

fn finish(station: &Station, answer: Answer) -> Result<Reply, Problem> {
    let kind = match &answer {
        Answer::Order { new: true, .. } => "written",
        Answer::Order { new: false, .. } => "known",
        Answer::Refused(refusal) => refusal.into(),
        Answer::SoldOut { .. } => "sold-out",
        Answer::GroupTooLarge(_) => "group-too-large",
        Answer::Busy(why) => {
            station.metrics.busy.get_or_create(&Word { kind: why }).inc();
            "busy"
        }
        Answer::Unknown => "unknown",
    };
    station.metrics.answers.get_or_create(&Word { kind }).inc();
    if let Some(problem) = Problem::of(&answer) {
        return Err(problem);
    }
    let Answer::Order { view, new } = answer else { return Err(Problem::busy("answer")) };
    let world = station.world.borrow();
    let order = json(world.pool(), &view).ok_or_else(|| Problem::busy("starting"))?;
    let created = new && matches!(view.status, Status::Held(_));
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok(reply(status, "application/json", order))
}

/// An order as its buyer reads it. Borrowed, and written straight into the answer: a tree of
/// JSON values in between would cost more than to find the seat.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OrderBody<'a> {
    id: String,
    state: &'static str,
    run: String,
    from: &'a str,
    to: &'a str,
    class: &'a str,
    seats: Vec<SeatBody<'a>>,
    price_minor: u64,
    currency: &'a str,
    held_until: Option<String>,
    payment_returned: bool,
    position: Option<PositionBody>,
}

#[derive(Debug, Serialize)]
struct SeatBody<'a> {
    coach: &'a str,
    number: String,
    passenger: usize,
}

#[derive(Debug, Serialize)]
struct PositionBody {
    partition: u16,
    offset: u64,
}

/// Bytes of an order with a few passengers; a longer one grows.
const ORDER_BYTES: usize = 512;

fn json(pool: &Pool, view: &OrderView) -> Option<Vec<u8>> {
    let definition = pool.definition()?;
    let run = definition.runs.get(usize::from(view.run.0))?;
    let timetable = definition.timetable(view.run)?;
    let stop = |at: u8| timetable.stops.get(usize::from(at)).map(|s| s.code.as_str());
    let class = timetable.classes.get(usize::from(view.class.0))?;
    let held_until = match view.status {
        Status::Held(deadline) => Some(time(deadline)),
        _ => None,
    };
    let order = OrderBody {
        id: view.order.to_string(),
        state: state(view.status),
        run: [&run.train, "/", &run.date].concat(),
        from: stop(view.journey.from())?,
        to: stop(view.journey.to())?,
        class: &class.name,
        seats: seats(timetable, &view.seats)?,
        price_minor: view.price,
        currency: &definition.currency,
        held_until,
        payment_returned: view.returned,
        position: view
            .position
            .map(|(share, at)| PositionBody { partition: share.0, offset: at.0 }),
    };
    let mut bytes = Vec::with_capacity(ORDER_BYTES);
    serde_json::to_writer(&mut bytes, &order).ok()?;
    Some(bytes)
}

fn state(status: Status) -> &'static str {
    match status {
        Status::Held(_) => "held",
        Status::Paid => "paid",
        Status::Ended(End::Cancelled) => "cancelled",
        Status::Ended(End::Expired) => "expired",
        Status::Ended(End::Refunded) => "refunded",
        Status::Ended(End::Withdrawn) => "withdrawn",
        Status::Seeking => "returned",
        Status::Sent => "on-its-way",
    }
}

fn seats<'a>(timetable: &'a Timetable, seats: &[u16]) -> Option<Vec<SeatBody<'a>>> {
    let one = |(passenger, seat): (usize, &u16)| {
        let (coach, at) = timetable.coach_of(*seat)?;
        Some(SeatBody { coach: &coach.name, number: coach.number(at), passenger })
    };
    seats.iter().enumerate().map(one).collect()
}

#[cfg(test)]
#[path = "strange_orders.rs"]
mod strange_orders;
