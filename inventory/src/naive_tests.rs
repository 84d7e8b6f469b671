//! A share against a naive model of it, which scans where the share looks up: decisions, every leg
//! of every seat, orders in their order, timers, and all of it again when the log is folded.
//!
//! SEEDS, STEPS and FIRST make it longer, or another.

use std::collections::{BTreeMap, BTreeSet};

use crate::allocate::{Seats, Wish, choose};
use crate::catalogue::Catalogue;
use crate::definition::tests::one_run;
use crate::definition::{Definition, Place, Run, Timetable};
use crate::digest::Digest;
use crate::entry::{End, Entry, Limits, OrderRequest, Passengers, Policy, SaleState, Sent};
use crate::fold::{Verdict, fold};
use crate::legs::{Journey, Legs};
use crate::state::{Command, Decision, ENDED_KEPT_MS, OrderState, Refusal, Rules, ShareState};
use crate::stock::{Block, BlockId, Stock};
use crate::wire::{Draft, FRAME_BYTES_MAX};
use crate::words::{
    Attempt, BuyerHash, ClassId, Digest128, Epoch, Incarnation, LedgerKey, Millis, Offset, OrderId,
    RunId, ShareId,
};

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

const SHARE: ShareId = ShareId(1);
const LEDGER: Digest128 = Digest128([7; 16]);

#[derive(Debug, Clone, PartialEq)]
enum Fate {
    Seeking(Attempt),
    Sent(ShareId, Attempt),
    Placed(ShareId, Attempt, bool),
    Closed,
    Held(Millis),
    Paid,
    Ended(End),
}

/// An order as the model knows it.
#[derive(Debug, Clone)]
struct Told {
    born: u64,
    buyer: BuyerHash,
    key: Digest128,
    body: Digest128,
    run: RunId,
    class: ClassId,
    journey: Journey,
    party: usize,
    seats: Vec<u16>,
    fate: Fate,
    attempt: Attempt,
    /// When it may be forgotten, if so.
    over: Option<Millis>,
}

/// Who has each leg of a seat.
type Legbook = BTreeMap<(RunId, ClassId, u16), Vec<Option<OrderId>>>;

struct Model {
    orders: BTreeMap<OrderId, Told>,
    keys: BTreeMap<Digest128, OrderId>,
    legs: Legbook,
    refused: BTreeSet<(OrderId, Attempt)>,
    time: u64,
}

impl Model {
    fn free(&self, run: RunId, class: ClassId, journey: Journey) -> Vec<u16> {
        let all = self.legs.range((run, class, 0)..=(run, class, u16::MAX));
        all.filter(|(_, legs)| {
            legs.len() >= usize::from(journey.to())
                && legs[usize::from(journey.from())..usize::from(journey.to())]
                    .iter()
                    .all(Option::is_none)
        })
        .map(|((.., seat), _)| *seat)
        .collect()
    }

    /// Length of the free stretch of a seat around a journey.
    fn stretch(&self, run: RunId, class: ClassId, seat: u16, journey: Journey) -> u8 {
        let legs = &self.legs[&(run, class, seat)];
        let (mut a, mut b) = (usize::from(journey.from()), usize::from(journey.to()));
        while a > 0 && legs[a - 1].is_none() {
            a -= 1;
        }
        while b < legs.len() && legs[b].is_none() {
            b += 1;
        }
        (b - a) as u8
    }

    fn take(&mut self, id: OrderId, told: &Told) {
        for seat in &told.seats {
            let legs =
                self.legs.get_mut(&(told.run, told.class, *seat)).expect("a seat that is here");
            for leg in told.journey.from()..told.journey.to() {
                let leg = &mut legs[usize::from(leg)];
                assert_eq!(*leg, None, "TWO LIVE TICKETS for seat {seat}");
                *leg = Some(id);
            }
        }
    }

    fn give_back(&mut self, id: OrderId) {
        let told = self.orders[&id].clone();
        for seat in &told.seats {
            let legs = self.legs.get_mut(&(told.run, told.class, *seat)).unwrap();
            for leg in told.journey.from()..told.journey.to() {
                let leg = &mut legs[usize::from(leg)];
                assert_eq!(*leg, Some(id));
                *leg = None;
            }
        }
    }

    fn forget(&mut self, now: Millis) {
        let gone: Vec<OrderId> = self
            .orders
            .iter()
            .filter(|(_, t)| t.over.is_some_and(|at| at.0 + ENDED_KEPT_MS <= now.0))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            let told = self.orders.remove(&id).unwrap();
            if id.home == SHARE {
                assert_eq!(self.keys.remove(&told.key), Some(id));
            }
        }
    }

    fn counts(&self, buyer: BuyerHash, run: RunId) -> (usize, usize) {
        let mine = self
            .orders
            .iter()
            .filter(|(id, t)| id.home == SHARE && t.buyer == buyer && t.run == run);
        mine.fold((0, 0), |(h, o), (_, t)| match t.fate {
            Fate::Held(_) | Fate::Sent(..) => (h + 1, o + 1),
            Fate::Placed(.., paid) => (h + usize::from(!paid), o + 1),
            Fate::Paid => (h, o + 1),
            _ => (h, o),
        })
    }
}

struct World {
    catalogue: Catalogue,
    policy: Policy,
    state: ShareState,
    draft: Draft,
    open: bool,
    log: Vec<Vec<u8>>,
    model: Model,
    now: Millis,
    epoch: Epoch,
    numbers: u32,
    rng: Rng,
    takes: u64,
    blocks: Vec<Block>,
    initial: Vec<Block>,
    stats: BTreeMap<&'static str, u64>,
    seed: u64,
}

fn definition(seed: u64) -> Definition {
    let mut rng = Rng(seed);
    let stops = [128, 2, 9, 65][rng.below(4) as usize];
    let mut d = one_run(stops, 1, 3, 0);
    let other: Timetable =
        one_run([5, 128, 64, 3][rng.below(4) as usize], 1, 3, 0).timetables.remove(0);
    d.timetables.push(Timetable { name: "u".into(), ..other });
    // Two runs that live on share 1 alone.
    let mut runs = Vec::new();
    for n in 0..200 {
        let run = Run {
            train: format!("T{n}"),
            homes: 1,
            timetable: runs.len() as u16,
            ..d.runs[0].clone()
        };
        let mut one = d.clone();
        one.runs = vec![run.clone()];
        if one.homes(RunId(0)).next() == Some(SHARE) && runs.len() < 2 {
            runs.push(run);
        }
    }
    d.runs = runs;
    assert_eq!(d.runs.len(), 2);
    d
}

impl World {
    fn new(seed: u64) -> Self {
        let catalogue = Catalogue::new(definition(seed));
        let mut rng = Rng(seed ^ 0xabcdef);
        let blocks: Vec<Block> =
            catalogue.run_ids().flat_map(|run| catalogue.blocks(run).collect::<Vec<_>>()).collect();
        let (mut initial, mut later) = (Vec::new(), Vec::new());
        for block in blocks {
            if rng.one_in(3) { initial.push(block) } else { later.push(block) }
        }
        // They come in any order.
        for at in (1..later.len()).rev() {
            let with = rng.below(at as u64 + 1) as usize;
            later.swap(at, with);
        }
        let mut legs = Legbook::new();
        for block in &initial {
            for seat in block.seats.clone() {
                legs.insert(
                    (block.id.run, block.class, seat),
                    vec![None; usize::from(block.stops) - 1],
                );
            }
        }
        let limits = Limits {
            passengers_per_order: 16,
            live_holds: 6,
            orders: 14,
            payment_ms: 900_000,
            grace_ms: 2_000,
            low_water_seats: 2,
        };
        let mut world = Self {
            catalogue,
            policy: Policy {
                version: 1,
                state: SaleState::Active,
                open: None,
                close: None,
                limits,
            },
            state: ShareState::new(LEDGER, SHARE, &initial),
            draft: Draft::new(FRAME_BYTES_MAX),
            open: false,
            log: Vec::new(),
            model: Model {
                orders: BTreeMap::new(),
                keys: BTreeMap::new(),
                legs,
                refused: BTreeSet::new(),
                time: 0,
            },
            now: Millis(1_000_000),
            epoch: Epoch(0),
            numbers: 0,
            rng,
            takes: 0,
            blocks: later,
            initial,
            stats: BTreeMap::new(),
            seed,
        };
        world.claim();
        world
    }

    fn note(&mut self, what: &'static str) {
        *self.stats.entry(what).or_default() += 1;
    }

    fn claim(&mut self) {
        self.seal();
        let header = self.state.writer().claim_header(Incarnation(self.rng.next()), self.now);
        let mut draft = Draft::new(FRAME_BYTES_MAX);
        let entry = Entry::Claim { node: "n1".parse().unwrap(), address: "n1:1".parse().unwrap() };
        draft.push(&entry).unwrap();
        let record = draft.seal(&header).0;
        let at = Offset(self.log.len() as u64);
        assert_eq!(fold(&mut self.state, at, &record), Verdict::Accepted);
        self.log.push(record);
        self.model.forget(self.state.writer().now());
        self.epoch = header.epoch;
        self.numbers = 0;
    }

    fn begin(&mut self) {
        if self.draft.is_empty() {
            let now = self.now.max(self.state.now());
            self.state.begin_frame(now);
            self.model.forget(now);
            self.open = true;
        }
    }

    fn seal(&mut self) {
        if self.draft.is_empty() {
            return;
        }
        let header = self.state.writer().next_header(self.state.now()).unwrap();
        let (record, chain) = self.draft.seal(&header);
        self.state.sealed(&header, chain);
        self.log.push(record);
        self.open = false;
    }

    fn write(&mut self, entry: &Entry) {
        if self.draft.push(entry).is_err() {
            self.seal();
            self.begin();
            self.draft.push(entry).unwrap();
        }
        if let Err(why) = self.state.apply(entry) {
            panic!("{entry:?}: {why}");
        }
        self.follow_changes();
    }

    fn follow_changes(&mut self) {
        drop(self.state.take_changes());
    }

    fn fresh(&self) -> OrderId {
        OrderId { home: SHARE, epoch: self.epoch, number: self.numbers + 1 }
    }

    fn request(&mut self) -> OrderRequest {
        let run = RunId(self.rng.below(2) as u16);
        let stops = self.catalogue.timetable(run).unwrap().stops.len() as u64;
        let from = self.rng.below(stops - 1);
        let to = match self.rng.below(4) {
            0 => stops - 1,
            1 => from + 1,
            _ => from + 1 + self.rng.below(stops - 1 - from),
        };
        let from = if self.rng.one_in(6) { 0 } else { from };
        let party = match self.rng.below(8) {
            0 => 1 + self.rng.below(16),
            1 | 2 => 2 + self.rng.below(3),
            _ => 1,
        };
        let secret = LedgerKey::derive("test", [1; 16]);
        let buyer = secret.buyer(&self.rng.below(60).to_string());
        let key = secret.key(buyer, run, &self.rng.below(24).to_string());
        let prefer = [None, None, Some(Place::Window), Some(Place::Aisle), Some(Place::Middle)]
            [self.rng.below(5) as usize];
        let mut body = [0; 16];
        body[0] = from as u8;
        // The same key often asks for the same, above all if it came back without seats.
        let back = |t: &Told| matches!(t.fate, Fate::Seeking(_));
        let again = if self.rng.one_in(4) {
            self.some_order(|id, t| id.home == SHARE && back(t))
        } else {
            None
        };
        if let Some(told) = again.map(|id| self.model.orders[&id].clone()) {
            return OrderRequest {
                key: told.key,
                body: told.body,
                buyer: told.buyer,
                run: told.run,
                class: told.class,
                journey: told.journey,
                prefer,
                passengers: (0..told.party).map(|_| Digest128::default()).collect::<Passengers>(),
                price: 0,
            };
        }
        if self.rng.one_in(3)
            && let Some(id) = self.model.keys.get(&key)
        {
            let told = &self.model.orders[id];
            return OrderRequest {
                key,
                body: told.body,
                buyer,
                run,
                class: told.class,
                journey: told.journey,
                prefer,
                passengers: (0..told.party).map(|_| Digest128::default()).collect::<Passengers>(),
                price: 0,
            };
        }
        body[1] = to as u8;
        body[2] = party as u8;
        OrderRequest {
            key,
            body: Digest128(body),
            buyer,
            run,
            class: ClassId(0),
            journey: Journey::new(from as u8, to as u8).unwrap(),
            prefer,
            passengers: (0..party).map(|_| Digest128::default()).collect::<Passengers>(),
            price: 0,
        }
    }

    fn told(&mut self, r: &OrderRequest, seats: Vec<u16>, fate: Fate, attempt: Attempt) -> Told {
        self.model.time += 1;
        Told {
            born: self.model.time,
            buyer: r.buyer,
            key: r.key,
            body: r.body,
            run: r.run,
            class: r.class,
            journey: r.journey,
            party: r.passengers.len(),
            seats,
            fate,
            attempt,
            over: None,
        }
    }

    fn check_choice(&self, r: &OrderRequest, got: Option<&Seats>) {
        let free = self.model.free(r.run, r.class, r.journey);
        let party = r.passengers.len();
        assert_eq!(
            got.is_some(),
            free.len() >= party,
            "A FREE SEAT NOT FOUND or one too many: {r:?}"
        );
        let Some(seats) = got else { return };
        assert!(seats.iter().all(|s| free.contains(s)), "an occupied seat");
        assert_eq!(seats.iter().collect::<BTreeSet<_>>().len(), party);
        if party == 1 {
            let timetable = self.catalogue.timetable(r.run).unwrap();
            let best = free
                .iter()
                .map(|seat| {
                    let place = timetable.coach_of(*seat).map(|(c, at)| c.place(at));
                    let missed = r.prefer.is_some_and(|p| Some(p) != place);
                    (self.model.stretch(r.run, r.class, *seat, r.journey), missed, *seat)
                })
                .min()
                .unwrap();
            assert_eq!(seats[0], best.2);
        }
    }

    fn insert(&mut self, id: OrderId, told: Told) {
        let born = self.model.orders.get(&id).map(|old| old.born);
        if id.home == SHARE {
            let old = self.model.keys.insert(told.key, id);
            assert!(old.is_none_or(|old| old == id));
        }
        let told = Told { born: born.unwrap_or(told.born), ..told };
        self.model.orders.insert(id, told);
        if id == self.fresh() {
            self.numbers += 1;
        }
    }

    fn place(&mut self) {
        let r = self.request();
        let home = self.catalogue.home(r.run, r.buyer);
        assert_eq!(home, SHARE);
        self.begin();
        let fresh = self.fresh();
        let rules = Rules { definition: &self.catalogue, policy: Some(&self.policy) };
        let decision = self.state.decide(self.now, rules, fresh, &Command::Place(r.clone()));
        let known = self.model.keys.get(&r.key).map(|id| (*id, self.model.orders[id].clone()));
        let mut retry = None;
        if let Some((id, told)) = known {
            if told.body != r.body {
                assert_eq!(decision, Decision::Refuse(Refusal::KeyReused));
                return self.note("key reused");
            }
            match told.fate {
                Fate::Seeking(attempt) => retry = Some((id, attempt)),
                Fate::Sent(..) => {
                    assert_eq!(decision, Decision::Wait(id));
                    return self.note("wait");
                }
                Fate::Placed(to, ..) => {
                    assert_eq!(decision, Decision::Relay(to, id));
                    return self.note("relay");
                }
                _ => {
                    assert_eq!(decision, Decision::Known(id));
                    return self.note("known");
                }
            }
        }
        let (holds, orders) = self.model.counts(r.buyer, r.run);
        if orders >= usize::from(self.policy.limits.orders) {
            assert_eq!(
                decision,
                Decision::Refuse(Refusal::TooManyOrders(self.policy.limits.orders))
            );
            return self.note("too many orders");
        }
        if holds >= usize::from(self.policy.limits.live_holds) {
            assert_eq!(
                decision,
                Decision::Refuse(Refusal::TooManyHolds(self.policy.limits.live_holds))
            );
            return self.note("too many holds");
        }
        match decision {
            Decision::Write(Entry::Held(held), id) => {
                assert_eq!(id, retry.map_or(fresh, |(id, _)| id));
                self.check_choice(&r, Some(&held.seats));
                self.write(&Entry::Held(held.clone()));
                let told =
                    self.told(&r, held.seats.to_vec(), Fate::Held(held.deadline), Attempt(0));
                self.model.take(id, &told);
                self.insert(id, told);
                self.note(if retry.is_some() { "held on retry" } else { "held" });
            }
            Decision::NoMatch { retry: said } => {
                assert_eq!(said, retry);
                self.check_choice(&r, None);
                self.note("no match");
                if self.rng.one_in(2) {
                    let (order, attempt) =
                        retry.map_or((fresh, Attempt(1)), |(id, a)| (id, Attempt(a.0 + 1)));
                    let to = ShareId(2 + self.rng.below(2) as u16);
                    self.write(&Entry::Sent(Sent { order, attempt, to, request: r.clone() }));
                    let told = self.told(&r, Vec::new(), Fate::Sent(to, attempt), attempt);
                    self.insert(order, told);
                    self.note("sent");
                }
            }
            other => panic!("{other:?}"),
        }
    }

    fn some_order(&mut self, is: impl Fn(OrderId, &Told) -> bool) -> Option<OrderId> {
        let all: Vec<OrderId> =
            self.model.orders.iter().filter(|(id, t)| is(**id, t)).map(|(id, _)| *id).collect();
        if all.is_empty() { None } else { Some(all[self.rng.below(all.len() as u64) as usize]) }
    }

    fn over(&mut self, id: OrderId, fate: Fate) {
        let now = self.state.now();
        let told = self.model.orders.get_mut(&id).unwrap();
        (told.fate, told.over) = (fate, Some(now));
    }

    fn end(&mut self, id: OrderId, why: End) {
        self.write(&Entry::Ended { order: id, why });
        self.model.give_back(id);
        self.over(id, Fate::Ended(why));
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..=37 => self.place(),
            38..=47 => {
                // Cancel.
                let Some(id) = self.some_order(|_, _| true) else { return };
                self.begin();
                let Some(told) = self.model.orders.get(&id).cloned() else { return };
                let command = Command::Cancel { order: id, buyer: told.buyer };
                let got = self.decide(&command);
                match told.fate {
                    Fate::Held(_) => {
                        let entry = Entry::Ended { order: id, why: End::Cancelled };
                        assert_eq!(got, Decision::Write(entry, id));
                        self.end(id, End::Cancelled);
                        self.note("cancelled");
                    }
                    Fate::Paid => {
                        let entry = Entry::Ended { order: id, why: End::Refunded };
                        assert_eq!(got, Decision::Write(entry, id));
                        self.end(id, End::Refunded);
                        self.note("refunded");
                    }
                    Fate::Placed(to, ..) => assert_eq!(got, Decision::Relay(to, id)),
                    Fate::Sent(..) => assert_eq!(got, Decision::Wait(id)),
                    Fate::Seeking(_) => assert_eq!(got, Decision::Refuse(Refusal::Conflict)),
                    Fate::Ended(_) | Fate::Closed => assert_eq!(got, Decision::Known(id)),
                }
                // Nobody else sees it.
                let other = Command::Read { order: id, buyer: Digest128([3; 16]) };
                assert_eq!(self.decide(&other), Decision::Refuse(Refusal::NotFound));
            }
            48..=57 => {
                let Some(id) = self.some_order(|_, t| matches!(t.fate, Fate::Held(_))) else {
                    return;
                };
                self.begin();
                let Some(told) = self.model.orders.get(&id).cloned() else { return };
                let price = 100 * told.party as u64;
                let payment =
                    Digest128(self.rng.next().to_le_bytes().repeat(2).try_into().unwrap());
                let got =
                    self.decide(&Command::Pay { order: id, buyer: None, payment, amount: price });
                let Decision::Write(entry @ Entry::Paid { .. }, of) = got else {
                    panic!("{got:?}")
                };
                assert_eq!(of, id);
                self.write(&entry);
                let told = self.model.orders.get_mut(&id).unwrap();
                told.fate = Fate::Paid;
                self.note("paid");
            }
            58..=62 => {
                // Holds end.
                self.begin();
                let due: Vec<(Millis, OrderId)> =
                    self.state.timers().take_while(|(at, _)| *at < self.now).take(256).collect();
                let mut expected: Vec<(Millis, OrderId)> = self
                    .model
                    .orders
                    .iter()
                    .filter_map(|(id, t)| match t.fate {
                        Fate::Held(at) if at < self.now => Some((at, *id)),
                        _ => None,
                    })
                    .collect();
                expected.sort_unstable();
                let mut sorted = due.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, expected, "timers");
                for (_, id) in due {
                    self.end(id, End::Expired);
                    self.note("expired");
                }
            }
            63..=68 => {
                // What was sent comes back, or is placed.
                let Some(id) = self.some_order(|_, t| matches!(t.fate, Fate::Sent(..))) else {
                    return;
                };
                self.begin();
                let Fate::Sent(to, attempt) = self.model.orders[&id].fate else { unreachable!() };
                if self.rng.one_in(2) {
                    self.write(&Entry::Returned { order: id, attempt });
                    self.over(id, Fate::Seeking(attempt));
                    self.note("returned");
                } else {
                    let party = self.model.orders[&id].party;
                    let seats = (500..).take(party).collect();
                    let deadline = self.now.plus(900_000);
                    self.write(&Entry::Placed { order: id, attempt, seats, deadline });
                    self.model.orders.get_mut(&id).unwrap().fate = Fate::Placed(to, attempt, false);
                    self.note("placed");
                }
            }
            69..=72 => {
                let placed = |_, t: &Told| matches!(t.fate, Fate::Placed(..));
                let Some(id) = self.some_order(placed) else { return };
                self.begin();
                let Fate::Placed(to, attempt, paid) = self.model.orders[&id].fate else {
                    unreachable!()
                };
                if !paid && self.rng.one_in(2) {
                    let payment = Digest128::default();
                    self.write(&Entry::Paid { order: id, payment, amount: 1 });
                    self.model.orders.get_mut(&id).unwrap().fate = Fate::Placed(to, attempt, true);
                } else {
                    self.write(&Entry::Closed { order: id, attempt, why: End::Expired });
                    self.over(id, Fate::Closed);
                    self.note("closed");
                }
            }
            73..=80 => self.host(),
            81..=82 => {
                // What became of it?
                let hosted = |id: OrderId, _: &Told| id.home != SHARE;
                let id = if self.rng.one_in(2) { self.some_order(hosted) } else { None };
                let id = id.unwrap_or_else(|| self.foreign());
                let attempt = Attempt(1 + self.rng.below(3) as u16);
                self.begin();
                let got = self.decide(&Command::Resolve { order: id, attempt });
                match self.model.orders.get(&id) {
                    Some(told) if told.attempt == attempt => assert_eq!(got, Decision::Known(id)),
                    _ if self.model.refused.contains(&(id, attempt)) => {
                        assert_eq!(got, Decision::Refuse(Refusal::No));
                    }
                    Some(_) => assert_eq!(got, Decision::Refuse(Refusal::Conflict)),
                    None => {
                        let entry = Entry::Refused { order: id, attempt };
                        assert_eq!(got, Decision::Write(entry.clone(), id));
                        self.write(&entry);
                        self.model.refused.insert((id, attempt));
                        self.note("refused");
                    }
                }
            }
            83..=84 => {
                let Some(block) = self.blocks.pop() else { return };
                self.begin();
                self.takes += 1;
                let mut blocks = vec![block];
                if self.rng.one_in(2) {
                    blocks.extend(self.blocks.pop());
                }
                self.write(&Entry::Accept { take: Offset(self.takes), blocks: blocks.clone() });
                for block in blocks {
                    for seat in block.seats.clone() {
                        let none = vec![None; usize::from(block.stops) - 1];
                        let key = (block.id.run, block.class, seat);
                        assert!(self.model.legs.insert(key, none).is_none());
                    }
                }
                self.note("accepted");
            }
            85..=97 => {
                self.seal();
                let slow = self.seed % 4;
                let ms = match self.rng.below([60, 200, 1_000, 10_000][slow as usize]) {
                    0 => 3_600_000,
                    1 => 901_000,
                    2 => {
                        if self.rng.one_in(4) {
                            ENDED_KEPT_MS
                        } else {
                            ENDED_KEPT_MS / 3
                        }
                    }
                    3 => {
                        if self.rng.one_in(4) {
                            ENDED_KEPT_MS + 1
                        } else {
                            7_000_000
                        }
                    }
                    _ => self.rng.below(20_000),
                };
                // The wall clock sometimes goes back.
                self.now = if self.rng.one_in(50) {
                    Millis(self.now.0.saturating_sub(5_000))
                } else {
                    self.now.plus(ms)
                };
            }
            98 => {
                if self.rng.one_in(8) {
                    self.claim();
                    self.note("claimed");
                }
            }
            _ => self.check(),
        }
    }

    fn decide(&self, command: &Command) -> Decision {
        let rules = Rules { definition: &self.catalogue, policy: Some(&self.policy) };
        self.state.decide(self.now, rules, self.fresh(), command)
    }

    fn foreign(&mut self) -> OrderId {
        let number = match self.rng.below(4) {
            0 => self.rng.next() as u32,
            1 => self.rng.below(6_000) as u32,
            2 => u32::MAX - self.rng.below(3) as u32,
            _ => self.rng.below(30) as u32,
        };
        let home = ShareId(2 + self.rng.below(2) as u16);
        let epoch = Epoch([1, 2, u32::MAX][self.rng.below(3) as usize]);
        OrderId { home, epoch, number }
    }

    fn host(&mut self) {
        let r = self.request();
        let hosted = |id: OrderId, _: &Told| id.home != SHARE;
        let id = if self.rng.one_in(4) { self.some_order(hosted) } else { None };
        let id = id.unwrap_or_else(|| self.foreign());
        let attempt = Attempt(1 + self.rng.below(3) as u16);
        self.begin();
        let sent = Sent { order: id, attempt, to: SHARE, request: r.clone() };
        let got = self.decide(&Command::Host(sent));
        if self.model.refused.contains(&(id, attempt)) {
            assert_eq!(got, Decision::Refuse(Refusal::No));
            return self.note("host refused before");
        }
        if self.model.orders.contains_key(&id) {
            assert_eq!(got, Decision::Known(id));
            return self.note("host known");
        }
        match got {
            Decision::Write(Entry::Held(held), of) => {
                assert_eq!((of, held.attempt), (id, attempt));
                self.check_choice(&r, Some(&held.seats));
                self.write(&Entry::Held(held.clone()));
                let told = self.told(&r, held.seats.to_vec(), Fate::Held(held.deadline), attempt);
                self.model.take(id, &told);
                self.insert(id, told);
                self.note("hosted");
            }
            Decision::Refuse(Refusal::No) => {
                self.check_choice(&r, None);
                self.note("host no");
            }
            other => panic!("{other:?}"),
        }
    }

    /// Everything, from scratch.
    fn check(&mut self) {
        self.note("checked");
        let (state, model) = (&self.state, &self.model);
        assert_eq!(state.orders().len(), model.orders.len());
        assert_eq!(state.orders().iter().count(), model.orders.len());
        for (id, told) in &model.orders {
            let order = state.order(*id).expect("AN ORDER IS LOST");
            assert_eq!((order.buyer, order.key, order.body), (told.buyer, told.key, told.body));
            assert_eq!(
                (order.run, order.class, order.journey),
                (told.run, told.class, told.journey)
            );
            let fate = match &order.state {
                OrderState::Seeking { attempt, .. } => Fate::Seeking(*attempt),
                OrderState::Sent { to, attempt } => Fate::Sent(*to, *attempt),
                OrderState::Placed { to, attempt, paid, .. } => Fate::Placed(*to, *attempt, *paid),
                OrderState::Closed { .. } => Fate::Closed,
                OrderState::Held { deadline, seats, .. } => {
                    assert_eq!(seats[..], told.seats);
                    Fate::Held(*deadline)
                }
                OrderState::Paid { seats, .. } => {
                    assert_eq!(seats[..], told.seats);
                    Fate::Paid
                }
                OrderState::Ended { why, .. } => Fate::Ended(*why),
            };
            assert_eq!(fate, told.fate);
            let of_key = state.orders().of_key(told.key).map(|(id, _)| id);
            assert_eq!(of_key, model.keys.get(&told.key).copied());
        }
        let secret = LedgerKey::derive("test", [1; 16]);
        for buyer in 0..60 {
            let buyer = secret.buyer(&buyer.to_string());
            let mut mine: Vec<(u64, OrderId)> = model
                .orders
                .iter()
                .filter(|(id, t)| id.home == SHARE && t.buyer == buyer)
                .map(|(id, t)| (t.born, *id))
                .collect();
            mine.sort_unstable_by(|a, b| b.cmp(a));
            let mine: Vec<OrderId> = mine.into_iter().map(|(_, id)| id).collect();
            let found: Vec<OrderId> = state.orders().of_buyer(buyer).map(|(id, _)| id).collect();
            assert_eq!(found, mine);
        }
        // The masks against who has what, the index and the digest against the masks.
        let mut seats = 0;
        for ((run, class), stock) in state.stock() {
            let mut anew = Stock::new(stock.stops());
            for block in
                self.catalogue.blocks(*run).filter(|b| stock.seats().contains(&b.seats.start))
            {
                anew.enter(&block).unwrap();
            }
            let mut digest: BTreeMap<(u8, u8), u32> = BTreeMap::new();
            for (seat, free) in stock.seats().iter().zip(stock.free_legs()) {
                seats += 1;
                let legs = &model.legs[&(*run, *class, *seat)];
                let mask = legs.iter().enumerate().filter(|(_, of)| of.is_none());
                let mask = mask.fold(0_u128, |mask, (at, _)| mask | 1 << at);
                assert_eq!(free.bits(), mask);
                let taken = Legs::all(stock.stops()).without(*free);
                anew.take(*seat, taken).unwrap();
                free.stretches().for_each(|s| *digest.entry((s.from(), s.to())).or_default() += 1);
            }
            assert_eq!(&anew, stock, "the index disagrees with the masks");
            let _ = Digest::of(stock);
        }
        assert_eq!(seats, model.legs.len());
        let mut timers: Vec<_> = state.timers().collect();
        timers.sort_unstable();
        let held = model.orders.iter().filter_map(|(id, t)| match t.fate {
            Fate::Held(at) => Some((at, *id)),
            _ => None,
        });
        let mut held: Vec<_> = held.collect();
        held.sort_unstable();
        assert_eq!(timers, held);
    }

    /// A successor reads the log from its beginning.
    fn succeed(&mut self) {
        self.seal();
        let mut state = ShareState::new(LEDGER, SHARE, &self.initial);
        for (at, record) in self.log.iter().enumerate() {
            assert_eq!(fold(&mut state, Offset(at as u64), record), Verdict::Accepted);
        }
        // Memory may have forgotten what is to be forgotten at its next frame.
        let now = state.now().max(self.state.now());
        state.begin_frame(now);
        self.state.begin_frame(now);
        self.model.forget(now);
        assert_eq!(state.orders(), self.state.orders());
        assert_eq!(state.stock(), self.state.stock());
        let sorted = |s: &ShareState| {
            let mut all: Vec<_> = s.timers().collect();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&state), sorted(&self.state));
        assert!(state.asks().eq(self.state.asks()));
        for run in 0..2 {
            let key = (RunId(run), ClassId(0));
            assert_eq!(state.holds(key.0, key.1), self.state.holds(key.0, key.1));
            for to in 1..4 {
                let to = ShareId(to);
                assert_eq!(
                    state.outstanding(key.0, key.1, to),
                    self.state.outstanding(key.0, key.1, to)
                );
            }
        }
        // From here on, what was folded is what is sold from.
        self.state = state;
        self.check();
    }
}

#[test]
fn a_share_does_what_a_naive_model_of_it_does() {
    let number = |name, or| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or);
    let (seeds, steps, first) = (number("SEEDS", 4), number("STEPS", 4_000), number("FIRST", 0));
    let mut all: BTreeMap<&'static str, u64> = BTreeMap::new();
    for seed in first..first + seeds {
        let mut world = World::new(seed);
        for step in 0..steps {
            world.step();
            if step % 2_000 == 1_999 {
                world.succeed();
            }
        }
        world.check();
        world.succeed();
        for (what, times) in world.stats {
            *all.entry(what).or_default() += times;
        }
    }
    println!("{} steps: {all:?}", seeds * steps);
}

/// The index alone, at sizes and stops that the share's test does not reach.
#[test]
fn the_index_is_what_a_scan_finds() {
    let number = |name, or| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or);
    let steps: u64 = number("STEPS", 20_000);
    for (seed, stops, first, rows) in [
        (1, 128, 0, 12),
        (2, 2, 65_000, 9),
        (3, 127, 16_300, 12),
        (4, 20, 0, 60),
        (5, 3, 65_520, 2),
    ] {
        let mut rng = Rng(seed);
        let mut stock = Stock::new(stops);
        let id = BlockId { run: RunId(0), index: 0 };
        let seats = first..first + rows * 5;
        let block = Block { id, class: ClassId(0), seats: seats.clone(), row: 5, stops };
        stock.enter(&block).unwrap();
        let last = u64::from(stops) - 1;
        for _ in 0..steps {
            let from = rng.below(last);
            let to = from + 1 + rng.below(last - from);
            let journey = Journey::new(from as u8, to as u8).unwrap();
            // Any set of legs, not only journeys.
            let legs = if rng.one_in(8) {
                let bits = u128::from(rng.next()) << 64 | u128::from(rng.next());
                Legs::from_bits(bits & Legs::all(stops).bits())
            } else {
                Legs::of(journey)
            };
            let seat = first + rng.below(u64::from(rows) * 5) as u16;
            let _ = if rng.one_in(2) { stock.take(seat, legs) } else { stock.free(seat, legs) };
            let prefer = [None, Some(Place::Window), Some(Place::Aisle)][rng.below(3) as usize];
            let place_of = |seat: u16| match seat % 5 {
                0 | 4 => Place::Window,
                2 | 3 => Place::Aisle,
                _ => Place::Middle,
            };
            let wish = Wish { journey, party: 1, prefer };
            let got = choose(&stock, &wish, place_of).map(|s| s[0]);
            let seats = stock.free_legs().iter().zip(stock.seats());
            let naive = seats
                .filter_map(|(free, seat)| {
                    let slack = free.stretches().find(|s| s.contains(journey))?.leg_count();
                    Some((slack, prefer.is_some_and(|p| place_of(*seat) != p), *seat))
                })
                .min()
                .map(|(.., seat)| seat);
            assert_eq!(got, naive);
        }
    }
}
