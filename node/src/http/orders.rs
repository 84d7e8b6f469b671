//! Orders: a request becomes a command for its home share, an answer becomes JSON.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use arrayvec::ArrayVec;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Request, StatusCode};
use inventory::allocate::PARTY_MAX;
use inventory::catalogue::Catalogue;
use inventory::conductor::{Outcome, Place, last_word};
use inventory::definition::{Definition, Place as Seating, Timetable};
use inventory::entry::{End, OrderRequest};
use inventory::legs::Journey;
use inventory::owner::{Answer, OrderView, Status};
use inventory::pool::Pool;
use inventory::state::{Command, Refusal};
use inventory::words::{BuyerHash, LedgerKey, OrderId, RunId, ShareId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::payment::{Notice, Provider};
use super::problem::Problem;
use super::runs::{Letters, time};
use super::{Reply, Visit, reply};
use crate::plain::{Fields, Telling};
use crate::station::Station;
use crate::telemetry::Word;

/// How long a request looks for the owner of its share while nobody owns it: a planned move
/// takes a fraction of a second, a fail-over up to three; a browser waits that long, once.
const SEARCH: Duration = Duration::from_millis(2_500);
/// How often it looks: as often as the board can have news.
const SEARCH_STEP: Duration = Duration::from_millis(25);

/// Bytes of an Idempotency-Key at most: a UUID has 36.
const KEY_BYTES_MAX: usize = 128;
/// Bytes of a passenger's document at most.
const DOCUMENT_BYTES_MAX: usize = 128;

/// What a buyer asks for.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlaceBody<'a> {
    /// `TRAIN/DATE`.
    #[serde(borrow)]
    #[schemars(regex(pattern = "^[A-Za-z0-9_-]{1,16}/[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    run: Cow<'a, str>,
    /// The code of the stop where the journey begins.
    #[serde(borrow)]
    from: Cow<'a, str>,
    /// The code of the stop where it ends.
    #[serde(borrow)]
    to: Cow<'a, str>,
    /// The class.
    #[serde(borrow)]
    class: Cow<'a, str>,
    /// For whom, one seat each.
    #[serde(borrow)]
    #[schemars(length(min = 1, max = 16))]
    passengers: Vec<Passenger<'a>>,
    /// Where they would like to sit.
    #[serde(default)]
    preference: Option<Preference>,
}

/// A passenger.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Passenger<'a> {
    /// What shows who it is, such as a passport's number. It is hashed with a key of the ledger
    /// before anything is kept.
    #[serde(borrow)]
    #[schemars(length(min = 1, max = 128))]
    document: Cow<'a, str>,
}

/// A place in a row.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum Preference {
    Window,
    Aisle,
}

/// What names a new order for its buyer, so that a second press is not a second order.
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A new order, and the share that it is for.
#[derive(Debug)]
pub(crate) struct Asked {
    share: ShareId,
    command: Command,
}

/// What a request for a new order asks for. It keeps nothing of the request: whoever holds a body
/// while waiting holds the room that it was read in.
pub(crate) fn asked<F: Fields + ?Sized>(
    visit: &Visit,
    fields: &F,
    body: &[u8],
) -> Result<Asked, Problem> {
    let buyer = buyer(visit, fields)?;
    let key = fields.text(&KEY);
    let key = key.ok_or_else(|| Problem::malformed("the header Idempotency-Key is required"))?;
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        let detail = format!("Idempotency-Key must have 1 to {KEY_BYTES_MAX} bytes");
        return Err(Problem::malformed(detail));
    }
    let body: PlaceBody<'_> = serde_json::from_slice(body).map_err(|e| unreadable(&e))?;
    let world = visit.shop.station.world.borrow();
    let request = order_request(world.pool(), &buyer, key, &body)?;
    let definition = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
    let share = definition.home(request.run, request.buyer);
    Ok(Asked { share, command: Command::Place(request) })
}

/// `POST /v1/orders`
pub(crate) async fn place(station: &Rc<Station>, asked: Asked) -> Answer {
    bring(station, asked.share, asked.command).await
}

/// What is wrong with a body: its spelling, or what it says.
pub(crate) fn unreadable(error: &serde_json::Error) -> Problem {
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
    let run = run_id(definition, &asked.run)?;
    let timetable = definition.timetable(run).ok_or_else(|| Problem::busy("starting"))?;
    let class = timetable.class(&asked.class);
    let class =
        class.ok_or_else(|| Problem::no_such_trip(format!("class: no class {}", asked.class)))?;
    let journey = journey(timetable, &asked.from, &asked.to)?;
    if asked.passengers.is_empty() || asked.passengers.len() > PARTY_MAX {
        return Err(Problem::invalid(format!("passengers: must be 1 to {PARTY_MAX}")));
    }
    if let Some(at) = asked.passengers.iter().position(|p| !fits(&p.document, DOCUMENT_BYTES_MAX)) {
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
        passengers: asked.passengers.iter().map(|p| secret.passenger(&p.document)).collect(),
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
    let mut parts = ArrayVec::<&[u8], { 5 + PARTY_MAX }>::new();
    parts.extend([&asked.run, &asked.from, &asked.to, &asked.class].map(|p| p.as_bytes()));
    parts.push(preference.as_bytes());
    parts.extend(asked.passengers.iter().map(|p| p.document.as_bytes()));
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
    visit: &Visit,
    request: &Request<Bytes>,
    id: &str,
) -> Result<Reply, Problem> {
    let station = &visit.shop.station;
    let buyer = hashed(visit, request)?;
    let order = known(station, id)?;
    let command = Command::Read { order, buyer };
    finish(station, bring(station, order.home, command).await)
}

/// `DELETE /v1/orders/{id}`
pub(crate) async fn cancel(
    visit: &Visit,
    request: &Request<Bytes>,
    id: &str,
) -> Result<Reply, Problem> {
    let station = &visit.shop.station;
    let buyer = hashed(visit, request)?;
    let order = known(station, id)?;
    let command = Command::Cancel { order, buyer };
    finish(station, bring(station, order.home, command).await)
}

/// `POST /v1/orders/{id}/payment`
pub(crate) async fn pay(
    visit: &Visit,
    request: &Request<Bytes>,
    id: &str,
) -> Result<Reply, Problem> {
    let (station, front) = (&visit.shop.station, &visit.shop.front);
    let buyer = match front.payment {
        Provider::Sandbox => Some(hashed(visit, request)?),
        Provider::Webhook(_) => None,
    };
    let order = known(station, id)?;
    let (headers, now) = (request.headers(), station.now().wall);
    let notice = front.payment.read(order, headers, request.body(), now)?;
    let Notice::Paid { payment, amount, currency } = notice else {
        let mut reply = Reply::default();
        *reply.status_mut() = StatusCode::NO_CONTENT;
        return Ok(reply);
    };
    let key = {
        let world = station.world.borrow();
        let ours = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
        if let Some(currency) = currency.filter(|c| *c != ours.currency) {
            let detail = format!("data.currency: {currency} is not {}", ours.currency);
            return Err(Problem::invalid(detail));
        }
        world.pool().key().ok_or_else(|| Problem::busy("starting"))?
    };
    let payment = key.hash(5, &[payment.as_bytes()]);
    let command = Command::Pay { order, buyer, payment, amount };
    finish(station, bring(station, order.home, command).await)
}

/// All orders of a buyer.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct OrdersBody<'a> {
    /// By run, the newest of each first.
    orders: Vec<OrderBody<'a>>,
}

/// `GET /v1/orders?run=`: the buyer's orders, of one run or of all. A buyer's orders on a run
/// have one home, so with `run` it is one question, and without as many as there are homes.
pub(crate) async fn list(visit: &Visit, request: &Request<Bytes>) -> Result<Reply, Problem> {
    let station = &visit.shop.station;
    let buyer = hashed(visit, request)?;
    let named = super::runs::run_of(request.uri().query().unwrap_or(""))?;
    let (run, homes): (Option<RunId>, BTreeSet<ShareId>) = {
        let world = station.world.borrow();
        let definition = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
        let run = named.map(|name| run_id(definition, &name)).transpose()?;
        let home = |run| definition.home(run, buyer);
        (run, run.map_or_else(|| definition.run_ids().map(home).collect(), |r| [home(r)].into()))
    };
    let ask = |share, command| async move {
        match bring(station, share, command).await {
            answer @ (Answer::Order { .. } | Answer::Orders(_)) => Ok(answer),
            // It was there a moment ago; a day after its end an order is forgotten.
            Answer::Refused(Refusal::NotFound) => Ok(Answer::Orders(Vec::new())),
            other => Err(Problem::of(&other).unwrap_or_else(|| Problem::busy("answer"))),
        }
    };
    let lists = futures::stream::iter(homes).map(|home| ask(home, Command::List { buyer }));
    let lists: Vec<Answer> = lists.buffered(QUESTIONS_MAX).try_collect().await?;
    let ids = lists.into_iter().flat_map(|list| match list {
        Answer::Orders(ids) => ids,
        _ => Vec::new(),
    });
    let reads = ids.map(|order| ask(order.home, Command::Read { order, buyer }));
    let reads = futures::stream::iter(reads).buffered(QUESTIONS_MAX);
    let answers: Vec<Answer> = reads.try_collect().await?;
    let mut views: Vec<OrderView> = answers
        .into_iter()
        .filter_map(|answer| match answer {
            Answer::Order { view, .. } => Some(view),
            _ => None,
        })
        .filter(|view| run.is_none_or(|run| view.run == run))
        .collect();
    let world = station.world.borrow();
    views.sort_by_key(|view| (view.run, std::cmp::Reverse(view.order)));
    let definition = world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
    let orders = views.iter().filter_map(|view| describe(definition, view)).collect();
    let bytes = serde_json::to_vec(&OrdersBody { orders }).map_err(|_| Problem::busy("answer"))?;
    Ok(private(reply(StatusCode::OK, "application/json", bytes)))
}

/// Questions of one list that are under way at the same time.
const QUESTIONS_MAX: usize = 8;

fn run_id(definition: &Catalogue, name: &str) -> Result<RunId, Problem> {
    definition.run_named(name).ok_or_else(|| match name.split_once('/') {
        Some(_) => Problem::no_such_trip(format!("run: no run {name}")),
        None => Problem::invalid("run: must be TRAIN/DATE, such as G1/2027-02-01"),
    })
}

/// What nobody but the buyer may keep.
fn private(mut reply: Reply) -> Reply {
    reply.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

/// An order's id that may exist.
fn known(station: &Station, id: &str) -> Result<OrderId, Problem> {
    // Whatever cannot be an id is no order either; that tells less than why it cannot.
    let none = || Problem::no_such_order();
    let order: OrderId = id.parse().map_err(|_| none())?;
    let world = station.world.borrow();
    world.pool().definition().ok_or_else(|| Problem::busy("starting"))?;
    if world.pool().shares().all(|share| share != order.home) { Err(none()) } else { Ok(order) }
}

fn hashed(visit: &Visit, request: &Request<Bytes>) -> Result<BuyerHash, Problem> {
    let buyer = buyer(visit, request.headers())?;
    let world = visit.shop.station.world.borrow();
    let key = world.pool().key().ok_or_else(|| Problem::busy("starting"))?;
    Ok(key.buyer(&buyer))
}

fn buyer<'a, F: Fields + ?Sized>(visit: &Visit, fields: &'a F) -> Result<Cow<'a, str>, Problem> {
    let now = || visit.shop.station.now().wall;
    visit.shop.front.identity.buyer(fields, visit.peer, now)
}

/// Brings a command to the owner of its share, wherever that is, and waits for the answer. A
/// command is passed on again only when it was certainly not seen.
async fn bring(station: &Rc<Station>, share: ShareId, command: Command) -> Answer {
    let mut until = None;
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
                let sent = Box::pin(station.courier.send(address, &key, share, &command)).await;
                if let Some(answer) = last_word(sent) {
                    return answer;
                }
            }
            Place::Unowned => {}
        }
        let now = tokio::time::Instant::now();
        if now >= *until.get_or_insert(now + SEARCH) {
            return Answer::Busy("unowned");
        }
        tokio::time::sleep(SEARCH_STEP).await;
    }
}

/// Counts an answer; the order that it tells of, and its status.
fn counted(station: &Station, answer: Answer) -> Result<(OrderView, StatusCode), Problem> {
    let answers = &station.metrics.answers;
    let kind = match &answer {
        Answer::Order { new: true, .. } => "",
        Answer::Order { new: false, .. } | Answer::Orders(_) => "known",
        Answer::Refused(refusal) => refusal.into(),
        Answer::SoldOut { .. } => "sold-out",
        Answer::GroupTooLarge(_) => "group-too-large",
        Answer::Busy(why) => {
            station.metrics.busy.get_or_create(&Word { kind: why }).inc();
            "busy"
        }
        Answer::Unknown => "unknown",
    };
    match kind {
        "" => station.metrics.written.inc(),
        "sold-out" => station.metrics.sold_out.inc(),
        kind => answers.get_or_create(&Word { kind }).inc(),
    };
    if let Some(problem) = Problem::of(&answer) {
        return Err(problem);
    }
    let Answer::Order { view, new } = answer else { return Err(Problem::busy("answer")) };
    let created = new && matches!(view.status, Status::Held(_));
    Ok((view, if created { StatusCode::CREATED } else { StatusCode::OK }))
}

/// Where an order is found.
fn place_of(view: &OrderView) -> Letters<{ 16 + ID_LETTERS }> {
    Letters::of(format_args!("/v1/orders/{}", view.order))
}

/// Writes an answer straight to where it goes.
pub(crate) fn tell(station: &Station, answer: Answer, to: &mut Telling<'_>) -> Result<(), Problem> {
    let (view, status) = counted(station, answer)?;
    let world = station.world.borrow();
    let order = world.pool().definition().and_then(|definition| describe(definition, &view));
    let order = order.ok_or_else(|| Problem::busy("starting"))?;
    to.status(status);
    to.field(&header::CONTENT_TYPE, &HeaderValue::from_static("application/json"));
    to.field(&header::CACHE_CONTROL, &HeaderValue::from_static("no-store"));
    if status == StatusCode::CREATED {
        to.field_of(&header::LOCATION, &&*place_of(&view));
    }
    // What is made of numbers and text is always JSON.
    let _ = serde_json::to_writer(to.body(), &order);
    Ok(())
}

/// The same as an answer of its own.
pub(crate) fn finish(station: &Station, answer: Answer) -> Result<Reply, Problem> {
    let (view, status) = counted(station, answer)?;
    let world = station.world.borrow();
    let order = world.pool().definition().and_then(|definition| json(definition, &view));
    let order = order.ok_or_else(|| Problem::busy("starting"))?;
    let mut reply = private(reply(status, "application/json", order));
    if status == StatusCode::CREATED
        && let Ok(place) = HeaderValue::from_str(&place_of(&view))
    {
        reply.headers_mut().insert(header::LOCATION, place);
    }
    Ok(reply)
}

/// An order as its buyer reads it. Borrowed, and written straight into the answer: a tree of
/// JSON values in between would cost more than to find the seat.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OrderBody<'a> {
    /// Its id.
    #[schemars(with = "String")]
    id: Letters<ID_LETTERS>,
    /// How far it is.
    state: State,
    /// `TRAIN/DATE`.
    #[schemars(with = "String")]
    run: Letters<RUN_LETTERS>,
    /// The code of the stop where the journey begins.
    from: &'a str,
    /// The code of the stop where it ends.
    to: &'a str,
    /// The class.
    class: &'a str,
    /// One for each passenger; none while it is on its way.
    seats: Vec<SeatBody<'a>>,
    /// What all of it costs, in minor units.
    price_minor: u64,
    /// The currency of the price, ISO 4217.
    currency: &'a str,
    /// Until when it must be paid, RFC 3339; none but for a held one.
    #[schemars(with = "Option<String>")]
    held_until: Option<Letters<32>>,
    /// Whether a payment came too late, or twice, and goes back.
    payment_returned: bool,
    /// Where in the ledger it was confirmed last; none in an answer from memory.
    position: Option<PositionBody>,
}

/// How far an order is.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// Its seats wait for payment.
    Held,
    /// Its seats are sold.
    Paid,
    /// Its buyer gave it up.
    Cancelled,
    /// It was not paid in time.
    Expired,
    /// Its buyer gave it back.
    Refunded,
    /// The railway withdrew it.
    Withdrawn,
    /// No seats were found where they had been seen; ask again with the same key.
    Returned,
    /// It looks for seats elsewhere; ask again.
    OnItsWay,
}

/// A seat.
#[derive(Debug, Serialize, JsonSchema)]
struct SeatBody<'a> {
    /// The coach.
    coach: &'a str,
    /// Row and letter.
    #[schemars(with = "String")]
    number: Letters<NUMBER_LETTERS>,
    /// Whose it is: an index into the request's passengers.
    passenger: usize,
}

/// A place in the ledger.
#[derive(Debug, Serialize, JsonSchema)]
struct PositionBody {
    /// The share.
    partition: u16,
    /// The record's offset there.
    offset: u64,
}

/// Letters of an order's id at most: three numbers.
const ID_LETTERS: usize = 32;
/// Letters of a run's name at most: a train has 16, a date ten.
const RUN_LETTERS: usize = 32;
/// Letters of a seat's number at most: a row, and one letter.
const NUMBER_LETTERS: usize = 12;

/// Bytes of an order with a few passengers; a longer one grows.
const ORDER_BYTES: usize = 512;

/// An order as buyers, and readers of the topic of orders, see it. None if nothing such is sold.
pub(crate) fn json(definition: &Definition, view: &OrderView) -> Option<Vec<u8>> {
    let order = describe(definition, view)?;
    let mut bytes = Vec::with_capacity(ORDER_BYTES);
    serde_json::to_writer(&mut bytes, &order).ok()?;
    Some(bytes)
}

fn describe<'a>(definition: &'a Definition, view: &OrderView) -> Option<OrderBody<'a>> {
    let run = definition.runs.get(usize::from(view.run.0))?;
    let timetable = definition.timetable(view.run)?;
    let stop = |at: u8| timetable.stops.get(usize::from(at)).map(|s| s.code.as_str());
    let class = timetable.classes.get(usize::from(view.class.0))?;
    let held_until = match view.status {
        Status::Held(deadline) => Some(time(deadline)),
        _ => None,
    };
    Some(OrderBody {
        id: Letters::of(view.order),
        state: state(view.status),
        run: Letters::of(format_args!("{}/{}", run.train, run.date)),
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
    })
}

fn state(status: Status) -> State {
    match status {
        Status::Held(_) => State::Held,
        Status::Paid => State::Paid,
        Status::Ended(End::Cancelled) => State::Cancelled,
        Status::Ended(End::Expired) => State::Expired,
        Status::Ended(End::Refunded) => State::Refunded,
        Status::Ended(End::Withdrawn) => State::Withdrawn,
        Status::Seeking => State::Returned,
        Status::Sent => State::OnItsWay,
    }
}

fn seats<'a>(timetable: &'a Timetable, seats: &[u16]) -> Option<Vec<SeatBody<'a>>> {
    let one = |(passenger, seat): (usize, &u16)| {
        let (coach, at) = timetable.coach_of(*seat)?;
        Some(SeatBody { coach: &coach.name, number: Letters::of(coach.number(at)), passenger })
    };
    seats.iter().enumerate().map(one).collect()
}

#[cfg(test)]
#[path = "strange_orders.rs"]
mod strange_orders;
