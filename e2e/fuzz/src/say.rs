//! What can be said in a small ledger, by dice.
//!
//! Small, so that what is said meets what was said before: two shares, four stops, a coach of
//! sixteen seats, four keys, orders with numbers up to four.

use inventory::definition::{
    Class, Coach, Definition, Fare, Place, Run, StopTime, Timetable, homes_of,
};
use inventory::entry::{
    Assign, End, Entry, Genesis, Held, Limits, OrderRequest, Policy, PoolEntry, SaleState, Sent,
    Take,
};
use inventory::legs::Journey;
use inventory::stock::{Block, BlockId};
use inventory::wire::{Draft, Full, Header, POOL_BYTES_MAX};
use inventory::words::{
    Address, Attempt, ClassId, Digest128, Epoch, Incarnation, Millis, NodeId, Offset, OrderId,
    Request, RunId, Seq, ShareId,
};

use crate::dice::Dice;

/// The ledger's name.
pub const LEDGER: &str = "shop.spring";
/// The ledger's topic.
pub const TOPIC: [u8; 16] = [7; 16];
/// The share whose log is folded; the other is 2.
pub const HERE: ShareId = ShareId(1);

const STOPS: u8 = 4;
const SEATS: u8 = 16;

/// What is sold: one run of `coaches` coaches.
#[must_use]
pub fn definition(coaches: u16) -> Definition {
    let timetable = Timetable {
        name: "t".into(),
        stops: (0..STOPS)
            .map(|i| StopTime {
                code: format!("S{i}"),
                name: String::new(),
                arrives: Some(u16::from(i) * 10),
                departs: Some(u16::from(i) * 10 + 2),
            })
            .collect(),
        classes: vec![Class { name: "Second".into(), fare: Fare::Flat(100) }],
        coaches: (0..coaches)
            .map(|i| Coach {
                name: format!("{i}"),
                class: ClassId(0),
                seats: u16::from(SEATS),
                row_layout: "AB-CD".into(),
            })
            .collect(),
    };
    let homes = homes_of(timetable.seats(), 2);
    Definition {
        ledger: LEDGER.into(),
        currency: "CNY".into(),
        time_zone: "UTC".into(),
        shares: 2,
        buffer_percent: 50,
        block_seats: 4,
        timetables: vec![timetable],
        runs: vec![Run {
            train: "G1".into(),
            date: "2027-02-01".into(),
            timetable: 0,
            homes,
            withdrawn: false,
        }],
    }
}

fn digest(dice: &mut Dice<'_>) -> Digest128 {
    Digest128([dice.below(4); 16])
}

/// A time within a few seconds of `now`, seldom a day later.
pub fn time(dice: &mut Dice<'_>, now: Millis) -> Millis {
    let day = if dice.seldom(40) { 86_400_000 } else { 0 };
    Millis(now.0.saturating_add(u64::from(dice.byte()) * 10 + day))
}

fn node(dice: &mut Dice<'_>) -> NodeId {
    let name = *dice.of(&["n1", "n2", "n3"]);
    name.parse().expect("a short name")
}

fn address(dice: &mut Dice<'_>) -> Address {
    let text = *dice.of(&["127.0.0.1:1", "[::1]:2"]);
    text.parse().expect("a short address")
}

/// An order's name.
pub fn order(dice: &mut Dice<'_>) -> OrderId {
    OrderId {
        home: ShareId(u16::from(dice.below(2)) + 1),
        epoch: Epoch(1),
        number: u32::from(dice.below(4)) + 1,
    }
}

fn attempt(dice: &mut Dice<'_>) -> Attempt {
    Attempt(u16::from(dice.below(3)))
}

fn run(dice: &mut Dice<'_>) -> RunId {
    RunId(u16::from(dice.seldom(16)))
}

/// What a buyer asks for.
pub fn request(dice: &mut Dice<'_>) -> OrderRequest {
    let from = dice.below(STOPS - 1);
    let to = from + 1 + dice.below(STOPS - 1 - from);
    OrderRequest {
        key: digest(dice),
        body: digest(dice),
        buyer: digest(dice),
        run: run(dice),
        class: ClassId(u8::from(dice.seldom(16))),
        journey: Journey::new(from, to).expect("from is before to"),
        prefer: *dice.of(&[None, Some(Place::Window), Some(Place::Aisle), Some(Place::Middle)]),
        passengers: (0..=dice.below(3)).map(|_| digest(dice)).collect(),
        price: dice.number(),
    }
}

fn seats(dice: &mut Dice<'_>, count: usize) -> inventory::allocate::Seats {
    let first = u16::from(dice.below(SEATS));
    // Side by side as a rule, so that they often fit.
    (0..count as u16).map(|i| if dice.seldom(16) { first } else { first + i }).collect()
}

fn block(dice: &mut Dice<'_>) -> Block {
    let index = u16::from(dice.below(5));
    let first = if dice.seldom(16) { u16::from(dice.byte()) } else { index * 4 };
    let stops = if dice.seldom(16) { 2 + dice.below(126) } else { STOPS };
    Block {
        id: BlockId { run: run(dice), index },
        class: ClassId(0),
        seats: first..first + 4,
        row: 4,
        stops,
    }
}

/// What an owner could say, and sometimes could not.
pub fn entry(dice: &mut Dice<'_>, now: Millis) -> Entry {
    let why = *dice.of(&[End::Cancelled, End::Expired, End::Refunded, End::Withdrawn]);
    match dice.below(14) {
        0..4 => {
            let request = request(dice);
            let order = order(dice);
            let home = order.home == HERE;
            let attempt = if home { Attempt(0) } else { attempt(dice) };
            let seats = seats(dice, request.passengers.len());
            Entry::Held(Held { order, attempt, request, seats, deadline: time(dice, now) })
        }
        4 => Entry::Paid { order: order(dice), payment: digest(dice), amount: dice.number() },
        5 => Entry::Refunded { order: order(dice), payment: digest(dice), amount: dice.number() },
        6 => Entry::Ended { order: order(dice), why },
        7 => {
            let order = OrderId { home: HERE, ..order(dice) };
            let to = ShareId(2 - u16::from(dice.seldom(16)));
            Entry::Sent(Sent { order, attempt: attempt(dice), to, request: request(dice) })
        }
        8 => {
            let (order, attempt, deadline) = (order(dice), attempt(dice), time(dice, now));
            Entry::Placed { order, attempt, seats: seats(dice, 1), deadline }
        }
        9 => Entry::Returned { order: order(dice), attempt: attempt(dice) },
        10 => Entry::Closed { order: order(dice), attempt: attempt(dice), why },
        11 => Entry::Refused { order: order(dice), attempt: attempt(dice) },
        12 => Entry::Accept {
            take: Offset(u64::from(dice.byte())),
            blocks: (0..=dice.below(3)).map(|_| block(dice)).collect(),
        },
        _ if dice.seldom(3) => Entry::Yield { to: dice.seldom(2).then(|| node(dice)) },
        _ => Entry::Claim { node: node(dice), address: address(dice) },
    }
}

/// A Claim.
pub fn claim(dice: &mut Dice<'_>) -> Entry {
    Entry::Claim { node: node(dice), address: address(dice) }
}

/// What a node could say in the pool, and sometimes could not. `versions` are those that are in
/// force, of the definition, the plan and the policy.
pub fn pool_entry(dice: &mut Dice<'_>, versions: [u64; 3]) -> PoolEntry {
    let next = |dice: &mut Dice<'_>, of: u64| of + 1 + u64::from(dice.seldom(8));
    match dice.below(8) {
        0 => {
            let mut definition = definition(2);
            strange(dice, &mut definition);
            PoolEntry::Genesis(Box::new(Genesis { topic_id: TOPIC, definition }))
        }
        1 => {
            let mut definition = definition(2 + u16::from(dice.below(4)));
            strange(dice, &mut definition);
            definition.runs.iter_mut().for_each(|run| run.withdrawn = dice.seldom(4));
            let version = next(dice, versions[0]);
            PoolEntry::Amend { version, definition: Box::new(definition) }
        }
        2 => PoolEntry::Assign(Assign {
            version: next(dice, versions[1]),
            nodes: (1..=dice.below(3)).map(|s| (ShareId(s.into()), node(dice))).collect(),
            evict: (1..=dice.below(3)).map(|s| (ShareId(s.into()), Epoch(s.into()))).collect(),
        }),
        3 => PoolEntry::Policy(Policy {
            version: next(dice, versions[2]),
            state: *dice.of(&[SaleState::Active, SaleState::Suspended, SaleState::Stopped]),
            open: dice.seldom(2).then(|| Millis(dice.number())),
            close: dice.seldom(2).then(|| Millis(dice.number())),
            limits: Limits {
                passengers_per_order: dice.byte(),
                live_holds: dice.byte().into(),
                orders: dice.byte().into(),
                payment_ms: dice.byte().into(),
                grace_ms: dice.byte().into(),
                low_water_seats: dice.byte().into(),
            },
        }),
        _ => PoolEntry::Take(Take {
            share: ShareId(if dice.seldom(16) {
                dice.byte().into()
            } else {
                1 + u16::from(dice.below(2))
            }),
            request: Request(dice.number()),
            blocks: (0..=dice.below(4))
                .map(|_| BlockId { run: run(dice), index: dice.below(24).into() })
                .collect(),
        }),
    }
}

/// Seldom, a definition that is not as it should be.
fn strange(dice: &mut Dice<'_>, definition: &mut Definition) {
    match dice.byte() {
        1 => definition.ledger = "another".into(),
        2 => definition.shares = u16::from(dice.byte()),
        3 => definition.block_seats = u16::from(dice.byte()),
        4 => definition.buffer_percent = dice.byte(),
        5 => definition.runs[0].homes = u16::from(dice.byte()),
        6 => definition.runs[0].timetable = u16::from(dice.byte()),
        7 => definition.timetables[0].coaches[0].seats = u16::from(dice.byte()) * 100,
        8 => definition.timetables[0].coaches[0].class = ClassId(dice.byte()),
        9 => definition.timetables[0].coaches[0].row_layout = "A-".into(),
        10 => definition.timetables[0].classes[0].fare = Fare::Flat(dice.number()),
        11 => definition.timetables[0].stops.truncate(usize::from(dice.below(4))),
        12 => definition.timetables[0].stops[1].arrives = None,
        13 => definition.timetables.clear(),
        14 => definition.runs.push(definition.runs[0].clone()),
        15 => {
            definition.runs.push(Run { date: "2027-02-02".into(), ..definition.runs[0].clone() });
        }
        16 => definition.currency = String::new(),
        17 => definition.time_zone = "Mars/Olympus".into(),
        18 => definition.timetables[0].name.clear(),
        _ => {}
    }
}

/// A share's frame.
///
/// # Errors
/// [`Full`] if the entries do not fit.
pub fn frame(header: &Header, entries: &[Entry]) -> Result<Vec<u8>, Full> {
    let mut draft = Draft::new(inventory::wire::FRAME_BYTES_MAX);
    entries.iter().try_for_each(|entry| draft.push(entry))?;
    Ok(draft.seal(header).0)
}

/// A pool record.
///
/// # Errors
/// [`Full`] if the entries do not fit.
pub fn pool_frame(header: &Header, entries: &[PoolEntry]) -> Result<Vec<u8>, Full> {
    let mut draft = Draft::new(POOL_BYTES_MAX);
    entries.iter().try_for_each(|entry| draft.push_pool(entry))?;
    Ok(draft.seal(header).0)
}

/// The header of a pool record.
#[must_use]
pub fn pool_header(ledger: Digest128) -> Header {
    Header {
        ledger,
        share: ShareId::POOL,
        epoch: Epoch(0),
        incarnation: Incarnation(1),
        seq: Seq(0),
        now: Millis(1),
        previous: inventory::wire::Chain::default(),
    }
}

/// Makes the checksum fit whatever the bytes are by now: damage behind it is what a writer with
/// a defect would write.
pub fn mend(record: &mut [u8]) {
    if record.len() > 16 {
        let sum = blake3::hash(&record[16..]);
        record[..16].copy_from_slice(&sum.as_bytes()[..16]);
    }
}

/// Damages a record: flips bytes, cuts it, lengthens it. Mostly the checksum and the length then
/// fit again, or all of it would end at the first look.
pub fn damage(dice: &mut Dice<'_>, record: &mut Vec<u8>) {
    for _ in 0..=dice.below(3) {
        let at = usize::from(u16::from_le_bytes([dice.byte(), dice.byte()])) % record.len().max(1);
        match dice.below(4) {
            0 => record.truncate(at),
            1 => record.insert(at.min(record.len()), dice.byte()),
            _ => {
                if let Some(byte) = record.get_mut(at) {
                    *byte = dice.byte();
                }
            }
        }
    }
    if !dice.seldom(4) && record.len() >= 96 {
        let length = (record.len() as u32).to_le_bytes();
        record[76..80].copy_from_slice(&length);
    }
    if !dice.seldom(4) {
        mend(record);
    }
}
