//! Bytes to frames and back: the only place that knows byte positions.
//!
//! A frame is a 96-byte header and entries. One meaning has one encoding: reserved bytes are
//! zero, lists are counted, maps ascend, so that encoding what was decoded gives the same
//! bytes. What is unknown is refused, never skipped: two versions must not disagree about
//! history. `docs/ledger-format.md` says the same in words, for readers that share no code.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::allocate::PARTY_MAX;
use crate::codec::{Malformed, Reader, Writer};
use crate::definition::{
    Class, Coach, Definition, Fare, Place, Run, SPLIT_VERSION, StopTime, Timetable,
};
use crate::entry::{
    Assign, End, Entry, Genesis, Held, Limits, OrderRequest, Policy, PoolEntry, SaleState, Sent,
    Take,
};
use crate::legs::{Journey, STOPS_MAX};
use crate::stock::{Block, BlockId};
use crate::words::{
    Attempt, ClassId, Digest128, Epoch, Incarnation, Millis, Offset, OrderId, Request, RunId, Seq,
    ShareId,
};

/// The format that is written. Every older one is read for ever.
pub const FORMAT: u16 = 1;

/// Bytes of a share's frame at most: enough for 500 orders in one group commit, and far below
/// a broker's default `message.max.bytes` of 1 MiB.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a pool record at most: Genesis holds the whole definition, and a broker takes
/// 1 MiB less its own overhead.
pub const POOL_BYTES_MAX: usize = 1_000_000;

const MAGIC: u32 = u32::from_le_bytes(*b"SMlg");

/// The checksum of a frame; the next frame of the same writer carries it as `previous`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain(pub Digest128);

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHeader {
    checksum: [u8; 16],
    previous: [u8; 16],
    ledger: [u8; 16],
    now: U64,
    incarnation: U64,
    magic: U32,
    epoch: U32,
    seq: U32,
    length: U32,
    share: U16,
    format: U16,
    count: U16,
    zero: [u8; 10],
}

const HEADER: usize = 96;
const _: () = assert!(size_of::<RawHeader>() == HEADER);

/// Who wrote a frame, and where it belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Which ledger: see [`crate::pool::ledger_id`].
    pub ledger: Digest128,
    /// Which partition.
    pub share: ShareId,
    /// The writer's epoch; 0 in the pool.
    pub epoch: Epoch,
    /// The writer's process.
    pub incarnation: Incarnation,
    /// The frame's place in its epoch; 0 in the pool.
    pub seq: Seq,
    /// The writer's time; never goes back within an epoch.
    pub now: Millis,
    /// Checksum of the writer's preceding frame of this epoch; zero in a Claim and in the pool.
    pub previous: Chain,
}

/// A record that holds together: its header says whether its entries count.
#[derive(Debug, Clone)]
pub struct Frame<'b> {
    /// Who wrote it, and where it belongs.
    pub header: Header,
    /// Its own checksum.
    pub chain: Chain,
    count: u16,
    body: &'b [u8],
}

impl<'b> Frame<'b> {
    /// Reads the header and checks the sum. The entries are not looked at.
    ///
    /// # Errors
    /// [`Malformed`] if this is no whole frame of a known format.
    pub fn read(record: &'b [u8]) -> Result<Self, Malformed> {
        let (raw, body) =
            RawHeader::ref_from_prefix(record).map_err(|_| Malformed::Short("header"))?;
        if raw.magic.get() != MAGIC {
            return Err(Malformed::Range("magic"));
        }
        if raw.checksum != checksum(&record[16..]).0 {
            return Err(Malformed::Checksum);
        }
        if raw.format.get() != FORMAT {
            return Err(Malformed::Unknown { what: "format", value: raw.format.get().into() });
        }
        if raw.length.get() as usize != record.len() || raw.zero != [0; 10] {
            return Err(Malformed::Range("header"));
        }
        let header = Header {
            ledger: Digest128(raw.ledger),
            share: ShareId(raw.share.get()),
            epoch: Epoch(raw.epoch.get()),
            incarnation: Incarnation(raw.incarnation.get()),
            seq: Seq(raw.seq.get()),
            now: Millis(raw.now.get()),
            previous: Chain(Digest128(raw.previous)),
        };
        let chain = Chain(Digest128(raw.checksum));
        Ok(Self { header, chain, count: raw.count.get(), body })
    }

    /// How many entries it says to have.
    #[must_use]
    pub fn count(&self) -> u16 {
        self.count
    }

    /// Whether its first entry says to be a Claim. Looks at one byte only.
    #[must_use]
    pub fn opens_with_claim(&self) -> bool {
        self.body.first() == Some(&KIND_CLAIM)
    }

    /// The entries of a share's frame.
    ///
    /// # Errors
    /// [`Malformed`] at the first that this version does not understand.
    pub fn entries(&self) -> Result<Vec<Entry>, Malformed> {
        self.decode(entry)
    }

    /// The entries of a pool record.
    ///
    /// # Errors
    /// [`Malformed`] at the first that this version does not understand.
    pub fn pool_entries(&self) -> Result<Vec<PoolEntry>, Malformed> {
        self.decode(pool_entry)
    }

    fn decode<T>(
        &self,
        read: impl Fn(u8, &mut Reader<'b>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let mut reader = Reader::new(self.body, "frame");
        let mut entries = Vec::with_capacity(usize::from(self.count));
        for _ in 0..self.count {
            let kind = reader.u8()?;
            let length = reader.u32()? as usize;
            let mut body = Reader::new(reader.bytes(length)?, "entry");
            entries.push(read(kind, &mut body)?);
            body.end()?;
        }
        reader.end()?;
        Ok(entries)
    }
}

fn checksum(bytes: &[u8]) -> Digest128 {
    let mut out = [0; 16];
    out.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    Digest128(out)
}

/// The frame has no room for the entry; seal it and begin the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the frame is full")]
pub struct Full;

/// A frame in the making.
#[derive(Debug, Clone)]
pub struct Draft {
    bytes: Vec<u8>,
    count: u16,
    bytes_max: usize,
    /// Where the last entry begins.
    last: usize,
}

impl Draft {
    /// An empty frame of at most `bytes_max` bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: vec![0; HEADER], count: 0, bytes_max, last: HEADER }
    }

    /// Whether nothing was said yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Its bytes so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Says `entry`.
    ///
    /// # Errors
    /// [`Full`]; the frame stays as it was.
    pub fn push(&mut self, said: &Entry) -> Result<(), Full> {
        self.put(|w| put_entry(w, said))
    }

    /// Says `entry` in the pool.
    ///
    /// # Errors
    /// [`Full`]; the frame stays as it was.
    pub fn push_pool(&mut self, said: &PoolEntry) -> Result<(), Full> {
        self.put(|w| put_pool_entry(w, said))
    }

    fn put(&mut self, write: impl FnOnce(&mut Writer<'_>) -> u8) -> Result<(), Full> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 5]);
        let kind = write(&mut Writer(&mut self.bytes));
        let length = u32::try_from(self.bytes.len() - start - 5).map_err(|_| Full)?;
        if self.bytes.len() > self.bytes_max || self.count == u16::MAX {
            self.bytes.truncate(start);
            return Err(Full);
        }
        self.bytes[start] = kind;
        self.bytes[start + 1..start + 5].copy_from_slice(&length.to_le_bytes());
        self.count += 1;
        self.last = start;
        Ok(())
    }

    /// Takes the last entry back. To be called at most once after a push.
    pub(crate) fn undo(&mut self) {
        self.bytes.truncate(self.last);
        self.count -= 1;
    }

    /// Finishes the frame and begins the next: the record, and its checksum.
    #[must_use]
    pub fn seal(&mut self, header: &Header) -> (Vec<u8>, Chain) {
        let next = Vec::with_capacity(self.bytes.capacity());
        let mut record = std::mem::replace(&mut self.bytes, next);
        self.bytes.resize(HEADER, 0);
        let raw = RawHeader {
            checksum: [0; 16],
            previous: header.previous.0.0,
            ledger: header.ledger.0,
            now: U64::new(header.now.0),
            incarnation: U64::new(header.incarnation.0),
            magic: U32::new(MAGIC),
            epoch: U32::new(header.epoch.0),
            seq: U32::new(header.seq.0),
            length: U32::new(u32::try_from(record.len()).expect("bounded by push")),
            share: U16::new(header.share.0),
            format: U16::new(FORMAT),
            count: U16::new(std::mem::take(&mut self.count)),
            zero: [0; 10],
        };
        record[..HEADER].copy_from_slice(raw.as_bytes());
        let sum = checksum(&record[16..]);
        record[..16].copy_from_slice(&sum.0);
        (record, Chain(sum))
    }
}

const KIND_CLAIM: u8 = 1;
const KIND_ACCEPT: u8 = 2;
const KIND_HELD: u8 = 3;
const KIND_PAID: u8 = 4;
const KIND_REFUNDED: u8 = 5;
const KIND_ENDED: u8 = 6;
const KIND_SENT: u8 = 7;
const KIND_PLACED: u8 = 8;
const KIND_RETURNED: u8 = 9;
const KIND_CLOSED: u8 = 10;
const KIND_REFUSED: u8 = 11;
const KIND_YIELD: u8 = 12;
const KIND_GENESIS: u8 = 33;
const KIND_AMEND: u8 = 34;
const KIND_TAKE: u8 = 35;
const KIND_ASSIGN: u8 = 36;
const KIND_POLICY: u8 = 37;
/// An Amend by which some runs are off sale. A kind of its own, so that a ledger in which none
/// ever was is what it always was, and a version that cannot withdraw does not sell on.
const KIND_WITHDRAW: u8 = 38;

fn put_entry(w: &mut Writer<'_>, said: &Entry) -> u8 {
    match said {
        Entry::Claim { node, address } => {
            w.text(node.as_str()).text(address.as_str());
            KIND_CLAIM
        }
        Entry::Accept { take, blocks } => {
            w.u64(take.0).list(blocks.iter(), put_block);
            KIND_ACCEPT
        }
        Entry::Held(held) => {
            put_order(w, held.order);
            w.u16(held.attempt.0);
            put_request(w, &held.request);
            w.few(&held.seats, |w, s| {
                w.u16(*s);
            })
            .millis(held.deadline);
            KIND_HELD
        }
        Entry::Paid { order, payment, amount } => {
            put_order(w, *order);
            w.digest(*payment).u64(*amount);
            KIND_PAID
        }
        Entry::Refunded { order, payment, amount } => {
            put_order(w, *order);
            w.digest(*payment).u64(*amount);
            KIND_REFUNDED
        }
        Entry::Ended { order, why } => {
            put_order(w, *order);
            w.u8(*why as u8);
            KIND_ENDED
        }
        Entry::Sent(sent) => {
            put_order(w, sent.order);
            w.u16(sent.attempt.0).u16(sent.to.0);
            put_request(w, &sent.request);
            KIND_SENT
        }
        Entry::Placed { order, attempt, seats, deadline } => {
            put_order(w, *order);
            w.u16(attempt.0)
                .few(seats, |w, s| {
                    w.u16(*s);
                })
                .millis(*deadline);
            KIND_PLACED
        }
        Entry::Returned { order, attempt } => {
            put_order(w, *order);
            w.u16(attempt.0);
            KIND_RETURNED
        }
        Entry::Closed { order, attempt, why } => {
            put_order(w, *order);
            w.u16(attempt.0).u8(*why as u8);
            KIND_CLOSED
        }
        Entry::Refused { order, attempt } => {
            put_order(w, *order);
            w.u16(attempt.0);
            KIND_REFUSED
        }
        Entry::Yield { to } => {
            w.option(to.as_ref(), |w, node| {
                w.text(node.as_str());
            });
            KIND_YIELD
        }
    }
}

fn entry(kind: u8, r: &mut Reader<'_>) -> Result<Entry, Malformed> {
    Ok(match kind {
        KIND_CLAIM => Entry::Claim { node: name(r.text()?)?, address: name(r.text()?)? },
        KIND_ACCEPT => Entry::Accept { take: Offset(r.u64()?), blocks: r.list(block)? },
        KIND_HELD => Entry::Held(Held {
            order: order(r)?,
            attempt: Attempt(r.u16()?),
            request: request(r)?,
            seats: r.few(PARTY_MAX, Reader::u16)?,
            deadline: r.millis()?,
        }),
        KIND_PAID => Entry::Paid { order: order(r)?, payment: r.digest()?, amount: r.u64()? },
        KIND_REFUNDED => {
            Entry::Refunded { order: order(r)?, payment: r.digest()?, amount: r.u64()? }
        }
        KIND_ENDED => Entry::Ended { order: order(r)?, why: end(r)? },
        KIND_SENT => Entry::Sent(Sent {
            order: order(r)?,
            attempt: Attempt(r.u16()?),
            to: ShareId(r.u16()?),
            request: request(r)?,
        }),
        KIND_PLACED => Entry::Placed {
            order: order(r)?,
            attempt: Attempt(r.u16()?),
            seats: r.few(PARTY_MAX, Reader::u16)?,
            deadline: r.millis()?,
        },
        KIND_RETURNED => Entry::Returned { order: order(r)?, attempt: Attempt(r.u16()?) },
        KIND_CLOSED => Entry::Closed { order: order(r)?, attempt: Attempt(r.u16()?), why: end(r)? },
        KIND_REFUSED => Entry::Refused { order: order(r)?, attempt: Attempt(r.u16()?) },
        KIND_YIELD => Entry::Yield { to: r.option(|r| name(r.text()?))? },
        _ => return Err(Malformed::Unknown { what: "entry", value: kind.into() }),
    })
}

fn put_pool_entry(w: &mut Writer<'_>, said: &PoolEntry) -> u8 {
    match said {
        PoolEntry::Genesis(genesis) => {
            w.bytes(&genesis.topic_id).u8(SPLIT_VERSION);
            put_definition(w, &genesis.definition);
            KIND_GENESIS
        }
        PoolEntry::Amend { version, definition } => {
            w.u64(*version);
            put_definition(w, definition);
            let withdrawn: Vec<u16> =
                (0..).zip(&definition.runs).filter(|(_, r)| r.withdrawn).map(|(i, _)| i).collect();
            if withdrawn.is_empty() {
                return KIND_AMEND;
            }
            w.list(withdrawn.iter(), |w, run| {
                w.u16(*run);
            });
            KIND_WITHDRAW
        }
        PoolEntry::Take(take) => {
            w.u16(take.share.0).u64(take.request.0);
            w.list(take.blocks.iter(), |w, id| put_block_id(w, *id));
            KIND_TAKE
        }
        PoolEntry::Assign(assign) => {
            w.u64(assign.version).list(assign.nodes.iter(), |w, (share, node)| {
                w.u16(share.0).text(node.as_str());
            });
            w.list(assign.evict.iter(), |w, (share, epoch)| {
                w.u16(share.0).u32(epoch.0);
            });
            KIND_ASSIGN
        }
        PoolEntry::Policy(policy) => {
            w.u64(policy.version).u8(policy.state as u8);
            w.option(policy.open.as_ref(), |w, t| {
                w.millis(*t);
            });
            w.option(policy.close.as_ref(), |w, t| {
                w.millis(*t);
            });
            let limits = &policy.limits;
            w.u8(limits.passengers_per_order).u16(limits.live_holds).u16(limits.orders);
            w.u32(limits.payment_ms).u32(limits.grace_ms).u16(limits.low_water_seats);
            KIND_POLICY
        }
    }
}

fn pool_entry(kind: u8, r: &mut Reader<'_>) -> Result<PoolEntry, Malformed> {
    Ok(match kind {
        KIND_GENESIS => {
            let topic_id = r.array()?;
            let split = r.u8()?;
            if split != SPLIT_VERSION {
                return Err(Malformed::Unknown { what: "split version", value: split.into() });
            }
            PoolEntry::Genesis(Box::new(Genesis { topic_id, definition: definition(r)? }))
        }
        KIND_AMEND => PoolEntry::Amend { version: r.u64()?, definition: Box::new(definition(r)?) },
        KIND_WITHDRAW => {
            let version = r.u64()?;
            let mut definition = Box::new(definition(r)?);
            let withdrawn = r.list(Reader::u16)?;
            if withdrawn.is_empty() || !withdrawn.is_sorted_by(|a, b| a < b) {
                return Err(Malformed::Range("withdrawn runs"));
            }
            for run in withdrawn {
                let run = definition.runs.get_mut(usize::from(run));
                run.ok_or(Malformed::Range("withdrawn run"))?.withdrawn = true;
            }
            PoolEntry::Amend { version, definition }
        }
        KIND_TAKE => PoolEntry::Take(Take {
            share: ShareId(r.u16()?),
            request: Request(r.u64()?),
            blocks: r.list(block_id)?,
        }),
        KIND_ASSIGN => PoolEntry::Assign(Assign {
            version: r.u64()?,
            nodes: ascending(r.list(|r| Ok((ShareId(r.u16()?), name(r.text()?)?)))?)?,
            evict: ascending(r.list(|r| Ok((ShareId(r.u16()?), Epoch(r.u32()?))))?)?,
        }),
        KIND_POLICY => PoolEntry::Policy(Policy {
            version: r.u64()?,
            state: SaleState::from_repr(r.u8()?).ok_or(Malformed::Range("sale state"))?,
            open: r.option(Reader::millis)?,
            close: r.option(Reader::millis)?,
            limits: Limits {
                passengers_per_order: r.u8()?,
                live_holds: r.u16()?,
                orders: r.u16()?,
                payment_ms: r.u32()?,
                grace_ms: r.u32()?,
                low_water_seats: r.u16()?,
            },
        }),
        _ => return Err(Malformed::Unknown { what: "pool entry", value: kind.into() }),
    })
}

pub(crate) fn name<T: std::str::FromStr>(text: &str) -> Result<T, Malformed> {
    text.parse().map_err(|_| Malformed::Range("name"))
}

/// Keys in ascending order, each once: the one spelling of a map.
fn ascending<K: Ord, V>(items: Vec<(K, V)>) -> Result<std::collections::BTreeMap<K, V>, Malformed> {
    if items.windows(2).all(|w| w[0].0 < w[1].0) {
        Ok(items.into_iter().collect())
    } else {
        Err(Malformed::Range("order of keys"))
    }
}

pub(crate) fn put_order(w: &mut Writer<'_>, id: OrderId) {
    w.u16(id.home.0).u32(id.epoch.0).u32(id.number);
}

pub(crate) fn order(r: &mut Reader<'_>) -> Result<OrderId, Malformed> {
    Ok(OrderId { home: ShareId(r.u16()?), epoch: Epoch(r.u32()?), number: r.u32()? })
}

fn end(r: &mut Reader<'_>) -> Result<End, Malformed> {
    End::from_repr(r.u8()?).ok_or(Malformed::Range("end"))
}

/// Also spoken between nodes, so that a travelling order has one encoding everywhere.
pub(crate) fn put_request(w: &mut Writer<'_>, request: &OrderRequest) {
    w.digest(request.key).digest(request.body).digest(request.buyer);
    w.u16(request.run.0).u8(request.class.0).u8(request.journey.from()).u8(request.journey.to());
    w.u8(match request.prefer {
        None => 0,
        Some(Place::Window) => 1,
        Some(Place::Aisle) => 2,
        Some(Place::Middle) => 3,
    });
    w.few(&request.passengers, |w, p| {
        w.digest(*p);
    })
    .u64(request.price);
}

pub(crate) fn request(r: &mut Reader<'_>) -> Result<OrderRequest, Malformed> {
    Ok(OrderRequest {
        key: r.digest()?,
        body: r.digest()?,
        buyer: r.digest()?,
        run: RunId(r.u16()?),
        class: ClassId(r.u8()?),
        journey: Journey::new(r.u8()?, r.u8()?).ok_or(Malformed::Range("journey"))?,
        prefer: match r.u8()? {
            0 => None,
            1 => Some(Place::Window),
            2 => Some(Place::Aisle),
            3 => Some(Place::Middle),
            _ => return Err(Malformed::Range("place")),
        },
        passengers: r.few(PARTY_MAX, Reader::digest)?,
        price: r.u64()?,
    })
}

fn put_block_id(w: &mut Writer<'_>, id: BlockId) {
    w.u16(id.run.0).u16(id.index);
}

fn block_id(r: &mut Reader<'_>) -> Result<BlockId, Malformed> {
    Ok(BlockId { run: RunId(r.u16()?), index: r.u16()? })
}

fn put_block(w: &mut Writer<'_>, block: &Block) {
    put_block_id(w, block.id);
    w.u8(block.class.0).u16(block.seats.start).u16(block.seats.end).u16(block.row).u8(block.stops);
}

fn block(r: &mut Reader<'_>) -> Result<Block, Malformed> {
    let (id, class, seats) = (block_id(r)?, ClassId(r.u8()?), r.u16()?..r.u16()?);
    let (row, stops) = (r.u16()?, r.u8()?);
    if seats.is_empty() || row == 0 || !(2..=STOPS_MAX).contains(&stops) {
        return Err(Malformed::Range("block"));
    }
    Ok(Block { id, class, seats, row, stops })
}

fn put_definition(w: &mut Writer<'_>, d: &Definition) {
    w.text(&d.ledger).text(&d.currency).text(&d.time_zone);
    w.u16(d.shares).u8(d.buffer_percent).u16(d.block_seats);
    w.list(d.timetables.iter(), put_timetable);
    w.list(d.runs.iter(), |w, run| {
        w.text(&run.train).text(&run.date).u16(run.timetable).u16(run.homes);
    });
}

fn put_timetable(w: &mut Writer<'_>, t: &Timetable) {
    w.text(&t.name);
    w.list(t.stops.iter(), |w, stop| {
        w.text(&stop.code).text(&stop.name);
        w.option(stop.arrives.as_ref(), |w, t| {
            w.u16(*t);
        });
        w.option(stop.departs.as_ref(), |w, t| {
            w.u16(*t);
        });
    });
    w.list(t.classes.iter(), |w, class| {
        w.text(&class.name);
        match &class.fare {
            Fare::Flat(amount) => {
                w.u8(1).u64(*amount);
            }
            Fare::PerLeg(legs) => {
                w.u8(2).list(legs.iter(), |w, a| {
                    w.u64(*a);
                });
            }
        }
    });
    w.list(t.coaches.iter(), |w, coach| {
        w.text(&coach.name).u8(coach.class.0).u16(coach.seats).text(&coach.row_layout);
    });
}

/// Whether it can be sold at all is for the pool's fold to say.
fn definition(r: &mut Reader<'_>) -> Result<Definition, Malformed> {
    Ok(Definition {
        ledger: r.text()?.to_owned(),
        currency: r.text()?.to_owned(),
        time_zone: r.text()?.to_owned(),
        shares: r.u16()?,
        buffer_percent: r.u8()?,
        block_seats: r.u16()?,
        timetables: r.list(timetable)?,
        runs: r.list(|r| {
            Ok(Run {
                train: r.text()?.to_owned(),
                date: r.text()?.to_owned(),
                timetable: r.u16()?,
                homes: r.u16()?,
                withdrawn: false,
            })
        })?,
    })
}

fn timetable(r: &mut Reader<'_>) -> Result<Timetable, Malformed> {
    Ok(Timetable {
        name: r.text()?.to_owned(),
        stops: r.list(|r| {
            Ok(StopTime {
                code: r.text()?.to_owned(),
                name: r.text()?.to_owned(),
                arrives: r.option(Reader::u16)?,
                departs: r.option(Reader::u16)?,
            })
        })?,
        classes: r.list(|r| {
            Ok(Class {
                name: r.text()?.to_owned(),
                fare: match r.u8()? {
                    1 => Fare::Flat(r.u64()?),
                    2 => Fare::PerLeg(r.list(Reader::u64)?),
                    _ => return Err(Malformed::Range("fare")),
                },
            })
        })?,
        coaches: r.list(|r| {
            Ok(Coach {
                name: r.text()?.to_owned(),
                class: ClassId(r.u8()?),
                seats: r.u16()?,
                row_layout: r.text()?.to_owned(),
            })
        })?,
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::allocate::Seats;
    use crate::definition::tests::one_run;
    use crate::entry::Passengers;
    use proptest::prelude::*;

    pub(crate) fn header(share: u16, epoch: u32, incarnation: u64, seq: u32) -> Header {
        Header {
            ledger: Digest128([7; 16]),
            share: ShareId(share),
            epoch: Epoch(epoch),
            incarnation: Incarnation(incarnation),
            seq: Seq(seq),
            now: Millis(1_000),
            previous: Chain::default(),
        }
    }

    fn digest128() -> impl Strategy<Value = Digest128> {
        any::<[u8; 16]>().prop_map(Digest128)
    }

    fn order_id() -> impl Strategy<Value = OrderId> {
        (any::<u16>(), any::<u32>(), any::<u32>()).prop_map(|(home, epoch, number)| OrderId {
            home: ShareId(home),
            epoch: Epoch(epoch),
            number,
        })
    }

    fn seats() -> impl Strategy<Value = Seats> {
        prop::collection::vec(any::<u16>(), 0..=16).prop_map(|v| v.into_iter().collect())
    }

    fn order_request() -> impl Strategy<Value = OrderRequest> {
        let who = (digest128(), digest128(), digest128());
        let what = (any::<u16>(), any::<u8>(), 0u8..127, 1u8..128, 0u8..4, any::<u64>());
        let passengers = prop::collection::vec(digest128(), 0..=16);
        (who, what, passengers).prop_map(|((key, body, buyer), what, passengers)| {
            let (run, class, from, len, prefer, price) = what;
            OrderRequest {
                key,
                body,
                buyer,
                run: RunId(run),
                class: ClassId(class),
                journey: Journey::new(from, from.saturating_add(len).min(127)).unwrap(),
                prefer: [None, Some(Place::Window), Some(Place::Aisle), Some(Place::Middle)]
                    [usize::from(prefer)],
                passengers: passengers.into_iter().collect::<Passengers>(),
                price,
            }
        })
    }

    fn any_block() -> impl Strategy<Value = Block> {
        (any::<u16>(), any::<u16>(), any::<u8>(), 0u16..60_000, 1u16..16, 1u16..12, 2u8..=128)
            .prop_map(|(run, index, class, start, count, row, stops)| Block {
                id: BlockId { run: RunId(run), index },
                class: ClassId(class),
                seats: start..start + count,
                row,
                stops,
            })
    }

    pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
        let attempt = || any::<u16>().prop_map(Attempt);
        let why = || (1u8..=4).prop_map(|w| End::from_repr(w).unwrap());
        prop_oneof![
            Just(Entry::Claim {
                node: "node-1".parse().unwrap(),
                address: "10.0.0.1:8082".parse().unwrap()
            }),
            (any::<u64>(), prop::collection::vec(any_block(), 0..4))
                .prop_map(|(t, blocks)| Entry::Accept { take: Offset(t), blocks }),
            (order_id(), attempt(), order_request(), seats(), any::<u64>()).prop_map(
                |(order, attempt, request, seats, d)| Entry::Held(Held {
                    order,
                    attempt,
                    request,
                    seats,
                    deadline: Millis(d)
                })
            ),
            (order_id(), digest128(), any::<u64>())
                .prop_map(|(order, payment, amount)| Entry::Paid { order, payment, amount }),
            (order_id(), digest128(), any::<u64>())
                .prop_map(|(order, payment, amount)| Entry::Refunded { order, payment, amount }),
            (order_id(), why()).prop_map(|(order, why)| Entry::Ended { order, why }),
            (order_id(), attempt(), any::<u16>(), order_request()).prop_map(
                |(order, attempt, to, request)| Entry::Sent(Sent {
                    order,
                    attempt,
                    to: ShareId(to),
                    request
                })
            ),
            (order_id(), attempt(), seats(), any::<u64>()).prop_map(
                |(order, attempt, seats, d)| Entry::Placed {
                    order,
                    attempt,
                    seats,
                    deadline: Millis(d)
                }
            ),
            (order_id(), attempt()).prop_map(|(order, attempt)| Entry::Returned { order, attempt }),
            (order_id(), attempt(), why()).prop_map(|(order, attempt, why)| Entry::Closed {
                order,
                attempt,
                why
            }),
            (order_id(), attempt()).prop_map(|(order, attempt)| Entry::Refused { order, attempt }),
            prop::option::of(Just("n".parse().unwrap())).prop_map(|to| Entry::Yield { to }),
        ]
    }

    fn any_pool_entry() -> impl Strategy<Value = PoolEntry> {
        prop_oneof![
            (any::<[u8; 16]>(), 2u8..30, 1u16..4).prop_map(|(topic_id, stops, coaches)| {
                let definition = one_run(stops, coaches, 4, 20);
                PoolEntry::Genesis(Box::new(Genesis { topic_id, definition }))
            }),
            (any::<u64>(), any::<bool>()).prop_map(|(version, withdrawn)| {
                let mut definition = Box::new(one_run(3, 2, 4, 20));
                definition.runs[0].withdrawn = withdrawn;
                PoolEntry::Amend { version, definition }
            }),
            (any::<u16>(), any::<u64>(), prop::collection::vec(any::<(u16, u16)>(), 0..5))
                .prop_map(|(share, request, blocks)| PoolEntry::Take(Take {
                    share: ShareId(share),
                    request: Request(request),
                    blocks: blocks
                        .into_iter()
                        .map(|(run, index)| BlockId { run: RunId(run), index })
                        .collect(),
                })),
            (any::<u64>(), prop::collection::btree_map(any::<u16>(), any::<u32>(), 0..5)).prop_map(
                |(version, map)| PoolEntry::Assign(Assign {
                    version,
                    nodes: map.keys().map(|s| (ShareId(*s), "n1".parse().unwrap())).collect(),
                    evict: map.iter().map(|(s, e)| (ShareId(*s), Epoch(*e))).collect(),
                })
            ),
            (any::<u64>(), 1u8..=3, prop::option::of(any::<u64>())).prop_map(
                |(version, s, open)| {
                    PoolEntry::Policy(Policy {
                        version,
                        state: SaleState::from_repr(s).unwrap(),
                        open: open.map(Millis),
                        close: None,
                        limits: Limits {
                            passengers_per_order: 5,
                            live_holds: 1,
                            orders: 10,
                            payment_ms: 900_000,
                            grace_ms: 2_000,
                            low_water_seats: 2,
                        },
                    })
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn what_is_said_is_read_and_has_one_spelling(said in prop::collection::vec(any_entry(), 1..20)) {
            let mut draft = Draft::new(FRAME_BYTES_MAX);
            for entry in &said {
                draft.push(entry).unwrap();
            }
            let (record, chain) = draft.seal(&header(3, 1, 9, 4));
            let frame = Frame::read(&record).unwrap();
            prop_assert_eq!(frame.header, header(3, 1, 9, 4));
            prop_assert_eq!(frame.chain, chain);
            let read = frame.entries().unwrap();
            prop_assert_eq!(&read, &said);
            for entry in &read {
                draft.push(entry).unwrap();
            }
            prop_assert_eq!(draft.seal(&frame.header).0, record);
        }

        #[test]
        fn what_is_said_in_the_pool_is_read(said in prop::collection::vec(any_pool_entry(), 1..5)) {
            let mut draft = Draft::new(POOL_BYTES_MAX);
            for entry in &said {
                draft.push_pool(entry).unwrap();
            }
            let (record, _) = draft.seal(&header(0, 0, 9, 0));
            prop_assert_eq!(Frame::read(&record).unwrap().pool_entries().unwrap(), said);
        }

        #[test]
        fn a_damaged_record_is_refused(entry in any_entry(), at: prop::sample::Index, bit in 0u8..8) {
            let mut draft = Draft::new(FRAME_BYTES_MAX);
            draft.push(&entry).unwrap();
            let (mut record, _) = draft.seal(&header(1, 1, 1, 1));
            let at = at.index(record.len());
            record[at] ^= 1 << bit;
            prop_assert!(Frame::read(&record).is_err());
            prop_assert!(Frame::read(&record[..at]).is_err());
        }

        #[test]
        fn bytes_that_decode_encode_to_themselves(kind in 0u8..40, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut r = Reader::new(&body, "entry");
            if let Ok(said) = entry(kind, &mut r) && r.clone().end().is_ok() {
                let mut out = Vec::new();
                prop_assert_eq!(put_entry(&mut Writer(&mut out), &said), kind);
                prop_assert_eq!(&out, &body);
            }
            let mut r = Reader::new(&body, "entry");
            if let Ok(said) = pool_entry(kind, &mut r) && r.clone().end().is_ok() {
                let mut out = Vec::new();
                prop_assert_eq!(put_pool_entry(&mut Writer(&mut out), &said), kind);
                prop_assert_eq!(&out, &body);
            }
        }
    }

    #[test]
    fn a_full_frame_refuses_the_entry_and_keeps_the_others() {
        let said = Entry::Yield { to: None };
        let mut draft = Draft::new(HEADER + 12);
        draft.push(&said).unwrap();
        draft.push(&said).unwrap();
        assert_eq!(draft.push(&said), Err(Full));
        let (record, _) = draft.seal(&header(1, 1, 1, 1));
        assert_eq!(Frame::read(&record).unwrap().entries().unwrap().len(), 2);
        assert!(draft.is_empty());
    }

    #[test]
    fn a_single_order_costs_at_most_120_bytes() {
        let passengers = Passengers::from_iter([Digest128::default()]);
        let said = Entry::Held(Held {
            order: OrderId { home: ShareId(1), epoch: Epoch(1), number: 1 },
            attempt: Attempt(0),
            request: OrderRequest {
                key: Digest128::default(),
                body: Digest128::default(),
                buyer: Digest128::default(),
                run: RunId(0),
                class: ClassId(0),
                journey: Journey::new(0, 1).unwrap(),
                prefer: None,
                passengers,
                price: 100,
            },
            seats: Seats::from_iter([1]),
            deadline: Millis(1),
        });
        let mut draft = Draft::new(FRAME_BYTES_MAX);
        draft.push(&said).unwrap();
        assert!(draft.bytes.len() - HEADER <= 120, "{}", draft.bytes.len() - HEADER);
    }
}
