//! What buyers were told against what the ledger says.

use foldhash::HashMap;

use crate::answers::{Told, ToldSeat};
use crate::book::Book;
use crate::bytes::Hash;
use crate::entry::Entry;
use crate::pool::Founding;
use crate::report::{Findings, Promise};
use crate::share::Said;
use crate::words::{OrderId, Place, Seats};

/// How long a key is kept at least, once its order is over.
const KEY_KEPT_MS: u64 = 86_400_000;

/// A Held of an order that some buyer was told of.
#[derive(Clone, Debug)]
struct Held {
    at: Place,
    buyer: Hash,
    key: Hash,
    run: u16,
    class: u8,
    from: u8,
    to: u8,
    seats: Seats,
}

/// What the ledger says of an order that some buyer was told of.
#[derive(Clone, Debug, Default)]
struct Facts {
    known_at_home: bool,
    held: Vec<Held>,
    paid: bool,
    over: bool,
}

/// Orders that buyers were told of.
#[derive(Debug, Default)]
pub struct Watched {
    orders: HashMap<OrderId, Facts>,
}

impl Watched {
    /// Watches for the orders that these answers confirm.
    #[must_use]
    pub fn new(told: &[Told]) -> Self {
        let orders = told.iter().filter_map(|told| Some((told.confirms?, Facts::default())));
        Self { orders: orders.collect() }
    }

    /// Takes note of an entry that was applied.
    pub fn hear(&mut self, said: &Said<'_>) {
        if self.orders.is_empty() {
            return;
        }
        let Some(order) = said.entry.order() else { return };
        let Some(facts) = self.orders.get_mut(&order) else { return };
        match said.entry {
            Entry::Held { request, seats, .. } => {
                facts.known_at_home |= order.home == said.share;
                facts.held.push(Held {
                    at: Place { partition: said.share, offset: said.offset },
                    buyer: request.buyer,
                    key: request.key,
                    run: request.run,
                    class: request.class,
                    from: request.from,
                    to: request.to,
                    seats: seats.clone(),
                });
            }
            Entry::Sent { .. } => facts.known_at_home = true,
            Entry::Paid { .. } => facts.paid = true,
            Entry::Ended { .. } | Entry::Closed { .. } => facts.over = true,
            _ => {}
        }
    }

    /// Compares each confirming answer.
    pub fn judge(&self, told: &[Told], founding: &Founding, book: &Book, out: &mut Findings) {
        for told in told {
            let Some(order) = told.confirms else { continue };
            let Some(facts) = self.orders.get(&order) else { continue };
            let found = judge(order, told, facts, founding, book);
            if let Err((promise, at, says)) = found {
                out.add(promise, &at, || format!("order {order}: {says} ({})", told.source));
            }
        }
        one_order_a_key(told, out);
    }
}

type Broken = (Promise, Vec<Place>, String);

fn judge(
    order: OrderId,
    told: &Told,
    facts: &Facts,
    founding: &Founding,
    book: &Book,
) -> Result<(), Broken> {
    let missing = |says: &str| Err((Promise::ConfirmedMissing, Vec::new(), says.to_owned()));
    let answer = &told.answer;
    let state = answer.state.as_deref().unwrap_or_default();
    let seats = answer.seats.as_deref().unwrap_or_default();
    if !facts.known_at_home {
        return missing("its home never had it");
    }
    let Some(held) = facts.held.first() else {
        let had_seats = answer.status == 201 || !seats.is_empty() || is(state, &["held", "paid"]);
        return if had_seats { missing("no share ever held it") } else { Ok(()) };
    };
    let live = facts.held.iter().any(|held| book.get(held.at.partition, order).is_some());
    if !live && !facts.over {
        return missing("it was held, and is gone without an end");
    }
    if is(state, &["paid"]) && !facts.paid {
        return missing("its buyer heard \"paid\", and it never was");
    }
    if is(state, &["cancelled", "expired", "refunded", "withdrawn", "ended"]) && !facts.over {
        return missing("its buyer heard that it is over, and it is not");
    }
    let as_told = |held: &Held| differs(told, held, founding);
    if facts.held.iter().all(|held| as_told(held).is_some()) {
        let what = as_told(held).unwrap_or_default();
        let at = vec![held.at];
        return Err((Promise::ConfirmedDiffers, at, format!("the buyer heard another {what}")));
    }
    Ok(())
}

fn is(state: &str, words: &[&str]) -> bool {
    words.iter().any(|word| state.eq_ignore_ascii_case(word))
}

/// What a Held has otherwise than the buyer heard.
fn differs(told: &Told, held: &Held, founding: &Founding) -> Option<&'static str> {
    let answer = &told.answer;
    let definition = &founding.definition;
    let Some((_, table)) = definition.run(held.run) else { return Some("run") };
    let other = |told: &Option<String>, have: Option<&str>| {
        told.as_deref().is_some_and(|told| !told.is_empty() && Some(told) != have)
    };
    if other(&answer.run, Some(&definition.run_name(held.run))) {
        return Some("run");
    }
    let class = table.classes.get(usize::from(held.class)).map(|class| class.name.as_str());
    if other(&answer.class, class) {
        return Some("class");
    }
    let code = |stop: u8| table.stops.get(usize::from(stop)).map(|stop| stop.code.as_str());
    if other(&answer.from, code(held.from)) || other(&answer.to, code(held.to)) {
        return Some("journey");
    }
    let buyer = founding.key.buyer(&answer.buyer);
    if !answer.buyer.is_empty() && buyer != held.buyer {
        return Some("buyer");
    }
    let places = answer.op.as_deref().unwrap_or("place") == "place";
    if let Some(key) = answer.key.as_deref().filter(|key| places && !key.is_empty())
        && founding.key.idempotency(&buyer, held.run, key) != held.key
    {
        return Some("key");
    }
    let party = answer.party.filter(|party| *party > 0 && places);
    if party.is_some_and(|party| usize::from(party) != held.seats.all().len()) {
        return Some("party");
    }
    let mut heard = answer.seats.clone().unwrap_or_default();
    if heard.is_empty() {
        return None;
    }
    let name = |seat: &u16| {
        let (coach, number) = table.seat_name(*seat)?;
        Some(ToldSeat { coach: coach.to_owned(), number })
    };
    let Some(mut have) = held.seats.all().iter().map(name).collect::<Option<Vec<_>>>() else {
        return Some("seat");
    };
    heard.sort_unstable();
    have.sort_unstable();
    (heard != have).then_some("seat")
}

/// Two orders that one buyer heard of under one key.
fn one_order_a_key(told: &[Told], out: &mut Findings) {
    let mut first: HashMap<(&str, &str, &str), (OrderId, &Told)> = HashMap::default();
    for told in told {
        let answer = &told.answer;
        let (Some(order), Some(key), Some(run)) = (told.confirms, &answer.key, &answer.run) else {
            continue;
        };
        if answer.op.as_deref().unwrap_or("place") != "place" {
            continue;
        }
        let seen = *first.entry((&answer.buyer, run, key)).or_insert((order, told));
        // A key is free again a day after its order ended.
        let apart = answer.at.abs_diff(seen.1.answer.at);
        if seen.0 != order && apart < KEY_KEPT_MS {
            out.add(Promise::KeyTwice, &[], || {
                format!(
                    "buyer {} heard of orders {} ({}) and {order} ({}) under the key {key}",
                    answer.buyer, seen.0, seen.1.source, told.source
                )
            });
        }
    }
}
