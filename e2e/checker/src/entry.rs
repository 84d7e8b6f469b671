//! What entries say: the tables of the page's sections 5 and 6, read to their exact end.

use std::fmt;

use crate::bytes::{Cursor, Hash, Malformed};
use crate::definition::Definition;
use crate::frame;
use crate::words::{OrderId, PARTY_MAX, Seats, Why};

/// What a buyer asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Idempotency key, hashed with buyer and run.
    pub key: Hash,
    /// What the request asked for.
    pub body: Hash,
    /// Who asks.
    pub buyer: Hash,
    /// Index of the run.
    pub run: u16,
    /// Index of the class.
    pub class: u8,
    /// Stop.
    pub from: u8,
    /// Stop behind `from`.
    pub to: u8,
    /// Number of passengers.
    pub party: u8,
    /// For the whole order.
    pub price: u64,
}

/// A block as an Accept names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Index of the run.
    pub run: u16,
    /// Place among the run's blocks.
    pub index: u16,
    /// Class of all its seats.
    pub class: u8,
    /// First seat.
    pub first: u16,
    /// Behind the last seat.
    pub end: u16,
    /// Seats of a full row.
    pub row: u16,
    /// Stops of the run.
    pub stops: u8,
}

/// An entry of a share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the page's table names and explains each field")]
pub enum Entry<'a> {
    Claim { node: &'a str, address: &'a str },
    Accept { take: u64, blocks: Vec<Block> },
    Held { order: OrderId, attempt: u16, request: Request, seats: Seats, deadline: u64 },
    Paid { order: OrderId, payment: Hash, amount: u64 },
    Refunded { order: OrderId, payment: Hash, amount: u64 },
    Ended { order: OrderId, why: Why },
    Sent { order: OrderId, attempt: u16, to: u16, request: Request },
    Placed { order: OrderId, attempt: u16, seats: Seats, deadline: u64 },
    Returned { order: OrderId, attempt: u16 },
    Closed { order: OrderId, attempt: u16, why: Why },
    Refused { order: OrderId, attempt: u16 },
    Yield { node: Option<&'a str> },
}

/// An entry of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the page's table names and explains each field")]
pub enum PoolEntry<'a> {
    Genesis { topic: Hash, definition: Box<Definition> },
    Amend { version: u64, definition: Box<Definition> },
    Take { share: u16, request: u64, blocks: Vec<(u16, u16)> },
    Assign { version: u64, nodes: Vec<(u16, &'a str)>, evict: Vec<(u16, u32)> },
    Policy { version: u64, policy: Policy },
}

/// The limits in force. They bind nodes, not folds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// 1 active, 2 suspended, 3 stopped.
    pub state: u8,
    /// When the sale opens.
    pub open: Option<u64>,
    /// When it closes.
    pub close: Option<u64>,
    /// The most passengers of an order.
    pub passengers: u8,
    /// The most live holds of a buyer and run.
    pub live_holds: u16,
    /// The most orders of a buyer and run.
    pub orders: u16,
    /// How long a hold waits for payment.
    pub payment_ms: u32,
    /// How long after the deadline payment is still taken.
    pub grace_ms: u32,
    /// When a share draws blocks.
    pub low_water_seats: u16,
}

/// All entries of a share's frame, or why they cannot be read.
pub fn of_share(count: u16, body: &[u8]) -> Result<Vec<Entry<'_>>, Malformed> {
    frame::entries(count, body)
        .map(|entry| entry.and_then(|(kind, body)| exact(body, |at| share_entry(kind, at))))
        .collect()
}

/// All entries of a pool record, or why they cannot be read.
pub fn of_pool(count: u16, body: &[u8]) -> Result<Vec<PoolEntry<'_>>, Malformed> {
    frame::entries(count, body)
        .map(|entry| entry.and_then(|(kind, body)| exact(body, |at| pool_entry(kind, at))))
        .collect()
}

fn exact<'a, T>(
    body: &'a [u8],
    read: impl FnOnce(&mut Cursor<'a>) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    let mut at = Cursor::new(body);
    let value = read(&mut at)?;
    at.end()?;
    Ok(value)
}

fn share_entry<'a>(kind: u8, at: &mut Cursor<'a>) -> Result<Entry<'a>, Malformed> {
    Ok(match kind {
        1 => Entry::Claim { node: at.text(1..=63)?, address: at.text(1..=80)? },
        2 => Entry::Accept { take: at.u64()?, blocks: at.list(block)? },
        3 => Entry::Held {
            order: order(at)?,
            attempt: at.u16()?,
            request: request(at)?,
            seats: seats(at)?,
            deadline: at.u64()?,
        },
        4 => Entry::Paid { order: order(at)?, payment: at.hash()?, amount: at.u64()? },
        5 => Entry::Refunded { order: order(at)?, payment: at.hash()?, amount: at.u64()? },
        6 => Entry::Ended { order: order(at)?, why: why(at)? },
        7 => Entry::Sent {
            order: order(at)?,
            attempt: at.u16()?,
            to: at.u16()?,
            request: request(at)?,
        },
        8 => Entry::Placed {
            order: order(at)?,
            attempt: at.u16()?,
            seats: seats(at)?,
            deadline: at.u64()?,
        },
        9 => Entry::Returned { order: order(at)?, attempt: at.u16()? },
        10 => Entry::Closed { order: order(at)?, attempt: at.u16()?, why: why(at)? },
        11 => Entry::Refused { order: order(at)?, attempt: at.u16()? },
        12 => Entry::Yield { node: at.option(|at| at.text(1..=63))? },
        _ => return Err(Malformed("a kind that no share has")),
    })
}

fn pool_entry<'a>(kind: u8, at: &mut Cursor<'a>) -> Result<PoolEntry<'a>, Malformed> {
    Ok(match kind {
        33 => {
            let topic = at.hash()?;
            if at.u8()? != 1 {
                return Err(Malformed("unknown split version"));
            }
            PoolEntry::Genesis { topic, definition: Box::new(Definition::read(at)?) }
        }
        34 => PoolEntry::Amend { version: at.u64()?, definition: Box::new(Definition::read(at)?) },
        35 => PoolEntry::Take {
            share: at.u16()?,
            request: at.u64()?,
            blocks: at.list(|at| Ok((at.u16()?, at.u16()?)))?,
        },
        36 => PoolEntry::Assign {
            version: at.u64()?,
            nodes: ascending(at.list(|at| Ok((at.u16()?, at.text(1..=63)?)))?)?,
            evict: ascending(at.list(|at| Ok((at.u16()?, at.u32()?)))?)?,
        },
        37 => PoolEntry::Policy { version: at.u64()?, policy: policy(at)? },
        38 => {
            let version = at.u64()?;
            let mut definition = Box::new(Definition::read(at)?);
            let runs = at.list(Cursor::u16)?;
            if runs.is_empty() || !runs.is_sorted_by(|a, b| a < b) {
                return Err(Malformed("withdrawn runs do not ascend, or there are none"));
            }
            for run in runs {
                let run = definition.runs.get_mut(usize::from(run));
                run.ok_or(Malformed("a withdrawn run that there is not"))?.withdrawn = true;
            }
            PoolEntry::Amend { version, definition }
        }
        _ => return Err(Malformed("a kind that the pool does not have")),
    })
}

fn ascending<T>(list: Vec<(u16, T)>) -> Result<Vec<(u16, T)>, Malformed> {
    if list.is_sorted_by(|a, b| a.0 < b.0) {
        Ok(list)
    } else {
        Err(Malformed("a list does not ascend by share"))
    }
}

fn policy(at: &mut Cursor<'_>) -> Result<Policy, Malformed> {
    let state = at.u8()?;
    if !(1..=3).contains(&state) {
        return Err(Malformed("unknown state of a policy"));
    }
    Ok(Policy {
        state,
        open: at.option(Cursor::u64)?,
        close: at.option(Cursor::u64)?,
        passengers: at.u8()?,
        live_holds: at.u16()?,
        orders: at.u16()?,
        payment_ms: at.u32()?,
        grace_ms: at.u32()?,
        low_water_seats: at.u16()?,
    })
}

fn order(at: &mut Cursor<'_>) -> Result<OrderId, Malformed> {
    Ok(OrderId { home: at.u16()?, epoch: at.u32()?, number: at.u32()? })
}

fn why(at: &mut Cursor<'_>) -> Result<Why, Malformed> {
    Ok(match at.u8()? {
        1 => Why::Cancelled,
        2 => Why::Expired,
        3 => Why::Refunded,
        4 => Why::Withdrawn,
        _ => return Err(Malformed("unknown reason of an end")),
    })
}

/// The count of a `few`.
fn few(at: &mut Cursor<'_>) -> Result<u8, Malformed> {
    let count = at.u8()?;
    if usize::from(count) > PARTY_MAX {
        return Err(Malformed("more than sixteen of something"));
    }
    Ok(count)
}

fn seats(at: &mut Cursor<'_>) -> Result<Seats, Malformed> {
    let count = usize::from(few(at)?);
    let mut seats = [0; PARTY_MAX];
    for seat in &mut seats[..count] {
        *seat = at.u16()?;
    }
    Ok(Seats::of(&seats[..count]))
}

fn request(at: &mut Cursor<'_>) -> Result<Request, Malformed> {
    let key = at.hash()?;
    let body = at.hash()?;
    let buyer = at.hash()?;
    let run = at.u16()?;
    let class = at.u8()?;
    let from = at.u8()?;
    let to = at.u8()?;
    if from >= to || to >= 128 {
        return Err(Malformed("a journey does not go forward"));
    }
    if at.u8()? > 3 {
        return Err(Malformed("unknown preference"));
    }
    let party = few(at)?;
    at.take(usize::from(party) * size_of::<Hash>())?;
    let price = at.u64()?;
    Ok(Request { key, body, buyer, run, class, from, to, party, price })
}

fn block(at: &mut Cursor<'_>) -> Result<Block, Malformed> {
    let block = Block {
        run: at.u16()?,
        index: at.u16()?,
        class: at.u8()?,
        first: at.u16()?,
        end: at.u16()?,
        row: at.u16()?,
        stops: at.u8()?,
    };
    if block.first >= block.end || block.row == 0 || !(2..=128).contains(&block.stops) {
        return Err(Malformed("a block is empty or has no rows or stops"));
    }
    Ok(block)
}

impl Entry<'_> {
    /// The order that it is about.
    #[must_use]
    pub const fn order(&self) -> Option<OrderId> {
        match self {
            Self::Claim { .. } | Self::Accept { .. } | Self::Yield { .. } => None,
            Self::Held { order, .. }
            | Self::Paid { order, .. }
            | Self::Refunded { order, .. }
            | Self::Ended { order, .. }
            | Self::Sent { order, .. }
            | Self::Placed { order, .. }
            | Self::Returned { order, .. }
            | Self::Closed { order, .. }
            | Self::Refused { order, .. } => Some(*order),
        }
    }
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim { node, address } => write!(f, "Claim {node:?} at {address:?}"),
            Self::Accept { take, blocks } => {
                write!(f, "Accept take {take}")?;
                blocks.iter().try_for_each(|b| {
                    write!(
                        f,
                        " [{}/{} class {} seats {}..{}]",
                        b.run, b.index, b.class, b.first, b.end
                    )
                })
            }
            Self::Held { order, attempt, request, seats, deadline } => {
                write!(f, "Held {order}/{attempt} {request} seats {:?}", seats.all())?;
                write!(f, " until {deadline}")
            }
            Self::Paid { order, payment, amount } => {
                write!(f, "Paid {order} {amount} by {}", hex(payment))
            }
            Self::Refunded { order, payment, amount } => {
                write!(f, "Refunded {order} {amount} by {}", hex(payment))
            }
            Self::Ended { order, why } => write!(f, "Ended {order} {}", why.word()),
            Self::Sent { order, attempt, to, request } => {
                write!(f, "Sent {order}/{attempt} to {to} {request}")
            }
            Self::Placed { order, attempt, seats, deadline } => {
                write!(f, "Placed {order}/{attempt} seats {:?} until {deadline}", seats.all())
            }
            Self::Returned { order, attempt } => write!(f, "Returned {order}/{attempt}"),
            Self::Closed { order, attempt, why } => {
                write!(f, "Closed {order}/{attempt} {}", why.word())
            }
            Self::Refused { order, attempt } => write!(f, "Refused {order}/{attempt}"),
            Self::Yield { node: Some(node) } => write!(f, "Yield to {node:?}"),
            Self::Yield { node: None } => write!(f, "Yield"),
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, class, from, to, party, price, .. } = self;
        write!(f, "run {run} class {class} stops {from}..{to} party {party} price {price}")?;
        write!(f, " buyer {} key {}", hex(&self.buyer), hex(&self.key))
    }
}

impl fmt::Display for PoolEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Genesis { topic, definition } => {
                write!(f, "Genesis of {:?} topic {}", definition.ledger, hex(topic))?;
                write!(f, ", {} shares, {} runs", definition.shares, definition.runs.len())
            }
            Self::Amend { version, definition } => {
                write!(f, "Amend {version}, {} runs", definition.runs.len())
            }
            Self::Take { share, request, blocks } => {
                write!(f, "Take for {share} request {request:016x}")?;
                blocks.iter().try_for_each(|(run, index)| write!(f, " {run}/{index}"))
            }
            Self::Assign { version, nodes, evict } => {
                write!(f, "Assign {version}")?;
                nodes.iter().try_for_each(|(share, node)| write!(f, " {share}:{node:?}"))?;
                evict.iter().try_for_each(|(share, epoch)| write!(f, " evict {share}@{epoch}"))
            }
            Self::Policy { version, policy } => write!(f, "Policy {version} {policy:?}"),
        }
    }
}

fn hex(bytes: &Hash) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
