//! One buyer after another on one connection.

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use crate::Crowd;

/// A request that is not answered by then is given up and asked again with the same key.
const TIMEOUT: Duration = Duration::from_secs(6);
/// How long one order is tried for; longer than any fault that a test makes.
const ORDER_PATIENCE: Duration = Duration::from_secs(60);
/// Between two tries of one order.
const PAUSE: Duration = Duration::from_millis(100);

/// Numbers that look random and repeat with their seed (xorshift64*).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`, at least 1 side.
    pub(crate) fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).unwrap_or(0) % sides.max(1)
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.roll(100) < percent as usize
    }
}

/// A connection that is made anew, to the next target, when it breaks.
pub(crate) struct Line {
    targets: Vec<String>,
    at: usize,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Line {
    pub(crate) fn new(targets: &[String], at: usize) -> Self {
        Self { targets: targets.to_vec(), at, sender: None }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<(u16, Value), String> {
        self.send(Method::GET, path, &[], Bytes::new()).await
    }

    /// Sends once. An error means that nothing is known of what became of it.
    pub(crate) async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(u16, Value), String> {
        let sent = tokio::time::timeout(TIMEOUT, self.try_send(method, path, headers, body)).await;
        let result = sent.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if result.is_err() {
            self.sender = None;
            self.at += 1;
        }
        result
    }

    async fn try_send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(u16, Value), String> {
        let said = |e: &dyn std::fmt::Display| e.to_string();
        let host = self.targets[self.at % self.targets.len()].clone();
        let host = host.trim_start_matches("http://").trim_end_matches('/').to_owned();
        if self.sender.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = tokio::net::TcpStream::connect(&host).await.map_err(|e| said(&e))?;
            stream.set_nodelay(true).map_err(|e| said(&e))?;
            let io = TokioIo::new(stream);
            let hands = hyper::client::conn::http1::handshake(io).await;
            let (sender, connection) = hands.map_err(|e| said(&e))?;
            // Its end is seen at the next request.
            tokio::task::spawn_local(connection);
            self.sender = Some(sender);
        }
        let sender = self.sender.as_mut().ok_or("no connection")?;
        sender.ready().await.map_err(|e| said(&e))?;
        let mut request = Request::builder().method(method).uri(path).header("host", host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|e| said(&e))?;
        let response = sender.send_request(request).await.map_err(|e| said(&e))?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(|e| said(&e))?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}

/// What one order asks for.
struct Wanted {
    run: String,
    class: String,
    from: String,
    to: String,
    party: usize,
}

struct Shopper {
    crowd: Rc<Crowd>,
    line: Line,
    /// For a request that is sent twice.
    other: Line,
    buyer: String,
}

/// Buys until the crowd's time is over.
pub(crate) async fn shop(crowd: Rc<Crowd>, index: u32) {
    let seed = crowd.arguments.seed;
    let mut dice = Dice::new((seed << 20) | (u64::from(index) + 1));
    let line = Line::new(&crowd.arguments.targets, index as usize);
    let other = Line::new(&crowd.arguments.targets, index as usize + 1);
    let mut shopper = Shopper { crowd, line, other, buyer: String::new() };
    let mut number = 0_u64;
    let mut unlucky = 0_u32;
    while !shopper.crowd.is_over() {
        shopper.crowd.turn().await;
        let Some(wanted) = choose(&shopper.crowd, &mut dice, unlucky) else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let think = Duration::from_millis(shopper.crowd.arguments.think_ms);
        if !think.is_zero() && unlucky < 3 {
            tokio::time::sleep(think).await;
        }
        number += 1;
        shopper.buyer = format!("b{seed}-{index}-{number}");
        let Ok(order) = shopper.place(&wanted).await else {
            unlucky += 1;
            continue;
        };
        unlucky = 0;
        shopper.crowd.orders.set(shopper.crowd.orders.get() + 1);
        let (pay, cancel) = (shopper.crowd.arguments.pay, shopper.crowd.arguments.cancel);
        let paid = dice.percent(pay);
        if paid {
            shopper.pay(&order).await;
        }
        // Towards the end nobody cancels any more, or it would never come.
        if unlucky == 0 && dice.percent(cancel) && !near_the_end(&shopper.crowd) {
            shopper.cancel(&order).await;
        }
    }
}

fn near_the_end(crowd: &Crowd) -> bool {
    let market = crowd.market.borrow();
    let free = |f: &u64| if *f == u64::MAX { 1_000 } else { *f };
    market.offers.iter().flat_map(|o| &o.free).map(free).sum::<u64>() < 200
}

/// A random journey; after some that were sold out, one leg that is said to be free.
fn choose(crowd: &Crowd, dice: &mut Dice, unlucky: u32) -> Option<Wanted> {
    let market = crowd.market.borrow();
    let open: Vec<_> = market.offers.iter().filter(|o| o.free.iter().any(|f| *f > 0)).collect();
    let offer = open.get(dice.roll(open.len()))?;
    let legs = offer.free.len();
    let (from, to) = if unlucky < 3 {
        let a = dice.roll(legs);
        (a, a + 1 + dice.roll(legs - a))
    } else {
        let free: Vec<usize> = (0..legs).filter(|leg| offer.free[*leg] > 0).collect();
        let leg = *free.get(dice.roll(free.len()))?;
        (leg, leg + 1)
    };
    let most = if unlucky < 3 { crowd.arguments.party as usize } else { 1 };
    Some(Wanted {
        run: offer.run.clone(),
        class: offer.class.clone(),
        from: offer.stops[from].clone(),
        to: offer.stops[to].clone(),
        party: 1 + dice.roll(most),
    })
}

impl Shopper {
    /// Tries one order until it is decided: the order, or since when it is sold out, in
    /// milliseconds since 1970, if that is why there is none.
    async fn place(&mut self, wanted: &Wanted) -> Result<Value, Option<u64>> {
        let passengers: Vec<Value> =
            (0..wanted.party).map(|i| json!({"document": format!("{}-{i}", self.buyer)})).collect();
        let body = json!({
            "run": wanted.run,
            "from": wanted.from,
            "to": wanted.to,
            "class": wanted.class,
            "passengers": passengers,
        });
        let body = Bytes::from(body.to_string());
        let key = format!("k-{}", self.buyer);
        let (header, buyer) = (self.crowd.arguments.header.clone(), self.buyer.clone());
        let began = Instant::now();
        while began.elapsed() < ORDER_PATIENCE {
            let headers = [(header.as_str(), buyer.as_str()), ("idempotency-key", key.as_str())];
            let asked = Instant::now();
            let heard = self.send(Method::POST, "/v1/orders", &headers, &body).await;
            for (status, answer) in &heard {
                self.note("place", Some(wanted), answer, *status, asked);
            }
            let mut orders = heard.iter().filter(|(status, _)| matches!(status, 200 | 201));
            if let Some((_, order)) = orders.next() {
                if orders.any(|(_, other)| other["id"] != order["id"]) {
                    eprintln!("buyers: {key} is two orders: {heard:?}");
                    self.crowd.doubled.set(self.crowd.doubled.get() + 1);
                }
                return Ok(order.clone());
            }
            if heard.iter().any(|(status, _)| !matches!(status, 0 | 503)) {
                return Err(heard.iter().find_map(|(_, answer)| as_of(answer)));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(None)
    }

    /// Sends a request, twice at once if the crowd does, and loses the answers that it loses.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &Bytes,
    ) -> Vec<(u16, Value)> {
        let lost = |why: String| (0, json!({ "lost": why }));
        let first = self.line.send(method.clone(), path, headers, body.clone());
        if !self.crowd.arguments.twice {
            return vec![first.await.unwrap_or_else(lost)];
        }
        let second = self.other.send(method, path, headers, body.clone());
        let (first, second) = tokio::join!(first, second);
        let hear = |answer: Result<(u16, Value), String>| {
            let heard = self.crowd.heard.get() + 1;
            self.crowd.heard.set(heard);
            let kept = if heard.is_multiple_of(3) { Err("dropped".to_owned()) } else { answer };
            kept.unwrap_or_else(lost)
        };
        vec![hear(first), hear(second)]
    }

    async fn pay(&mut self, order: &Value) {
        let Some(id) = order["id"].as_str() else { return };
        let body = json!({"payment": format!("p-{id}"), "amountMinor": order["priceMinor"]});
        self.insist(Method::POST, &format!("/v1/orders/{id}/payment"), "pay", &body).await;
    }

    async fn cancel(&mut self, order: &Value) {
        let Some(id) = order["id"].as_str() else { return };
        self.insist(Method::DELETE, &format!("/v1/orders/{id}"), "cancel", &Value::Null).await;
    }

    /// Asks until it is answered otherwise than "busy" or "unknown".
    async fn insist(&mut self, method: Method, path: &str, op: &str, body: &Value) {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let (header, buyer) = (self.crowd.arguments.header.clone(), self.buyer.clone());
        let began = Instant::now();
        while began.elapsed() < ORDER_PATIENCE {
            let headers = [(header.as_str(), buyer.as_str())];
            let asked = Instant::now();
            let heard = self.send(method.clone(), path, &headers, &body).await;
            for (status, answer) in &heard {
                self.note(op, None, answer, *status, asked);
            }
            if heard.iter().any(|(status, _)| !matches!(status, 0 | 503)) {
                return;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn note(&self, op: &str, wanted: Option<&Wanted>, answer: &Value, status: u16, asked: Instant) {
        let problem = match status {
            0 => json!("lost"),
            200 | 201 => Value::Null,
            _ => json!(answer["type"].as_str().and_then(|t| t.rsplit('/').next()).unwrap_or("?")),
        };
        let of = |name: &str, wanted: Option<&String>| {
            wanted.map_or_else(|| answer[name].clone(), |w| json!(w))
        };
        let line = json!({
            "at": now_ms(),
            "op": op,
            "buyer": self.buyer,
            "key": format!("k-{}", self.buyer),
            "run": of("run", wanted.map(|w| &w.run)),
            "from": of("from", wanted.map(|w| &w.from)),
            "to": of("to", wanted.map(|w| &w.to)),
            "class": of("class", wanted.map(|w| &w.class)),
            "party": wanted.map(|w| w.party),
            "status": status,
            "order": answer["id"],
            "state": answer["state"],
            "seats": answer["seats"],
            "reason": answer["reason"],
            "problem": problem,
            "asOf": as_of(answer),
        });
        self.crowd.note(&line, asked.elapsed());
    }
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(0)
}

/// Since when an answer says "sold out", in milliseconds since 1970.
fn as_of(answer: &Value) -> Option<u64> {
    let time: jiff::Timestamp = answer["asOf"].as_str()?.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

/// Buys exactly the journeys of a file, every seat of each. False if one could not be had.
///
/// What this crowd itself gave back is sold out for as long as the proof of it is older.
pub(crate) async fn buy_wanted(crowd: &Rc<Crowd>, path: &Path) -> Result<bool, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let line = |at| Line::new(&crowd.arguments.targets, at);
    let (line, other) = (line(0), line(1));
    let mut shopper = Shopper { crowd: Rc::clone(crowd), line, other, buyer: String::new() };
    let (mut number, mut met, mut given_back) = (0_u64, true, 0);
    for (at, row) in text.lines().filter(|l| !l.trim().is_empty()).enumerate() {
        let row: Value =
            serde_json::from_str(row).map_err(|e| format!("{} row {at}: {e}", path.display()))?;
        let text = |name: &str| row[name].as_str().unwrap_or("").to_owned();
        let mut had = Vec::new();
        for _ in 0..row["seats"].as_u64().unwrap_or(1) {
            let wanted = Wanted {
                run: text("run"),
                class: text("class"),
                from: text("from"),
                to: text("to"),
                party: 1,
            };
            let placed = loop {
                number += 1;
                shopper.buyer = format!("w{}-{number}", crowd.arguments.seed);
                match shopper.place(&wanted).await {
                    Err(Some(as_of)) if as_of <= given_back => tokio::time::sleep(PAUSE).await,
                    placed => break placed,
                }
            };
            if let Ok(order) = placed {
                crowd.orders.set(crowd.orders.get() + 1);
                had.push((shopper.buyer.clone(), order));
            } else {
                eprintln!("buyers: free by the checker, and not to be had: {row}");
                met = false;
            }
        }
        if crowd.arguments.give_back {
            for (buyer, order) in had {
                shopper.buyer = buyer;
                shopper.cancel(&order).await;
            }
            given_back = now_ms();
        }
    }
    Ok(met)
}
