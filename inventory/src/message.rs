//! What nodes say to each other: a command for a share, and its answer, in bytes.
//!
//! Spoken only between nodes of one fleet and never kept, so the version may change with any
//! release: a node that does not understand its peer answers "busy" and the buyer comes back.

use crate::allocate::PARTY_MAX;
use crate::codec::{Malformed, Reader, Writer};
use crate::entry::{End, Sent};
use crate::legs::Journey;
use crate::owner::{Answer, OrderView, Status};
use crate::state::{Command, LIST_MAX, Refusal};
use crate::wire;
use crate::words::{Attempt, ClassId, Offset, RunId, ShareId};

const VERSION: u8 = 2;

/// Reasons of "busy" that keep their name on the way; any other arrives as the last.
const BUSY: [&str; 12] = [
    "recovering",
    "draw",
    "unowned",
    "row",
    "stale",
    "take",
    "pool",
    "in-flight",
    "lease",
    "full",
    "moved",
    "peer",
];

/// A command for a share, in bytes.
#[must_use]
pub fn encode_command(share: ShareId, command: &Command) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(160);
    let mut w = Writer(&mut bytes);
    w.u8(VERSION).u16(share.0);
    match command {
        Command::Place(request) => {
            w.u8(1);
            wire::put_request(&mut w, request);
        }
        Command::Pay { order, buyer, payment, amount } => {
            w.u8(2);
            wire::put_order(&mut w, *order);
            w.option(buyer.as_ref(), |w, b| {
                w.digest(*b);
            });
            w.digest(*payment).u64(*amount);
        }
        Command::Cancel { order, buyer } => {
            w.u8(3);
            wire::put_order(&mut w, *order);
            w.digest(*buyer);
        }
        Command::Read { order, buyer } => {
            w.u8(4);
            wire::put_order(&mut w, *order);
            w.digest(*buyer);
        }
        Command::Host(sent) => {
            w.u8(5);
            wire::put_order(&mut w, sent.order);
            w.u16(sent.attempt.0).u16(sent.to.0);
            wire::put_request(&mut w, &sent.request);
        }
        Command::Resolve { order, attempt } => {
            w.u8(6);
            wire::put_order(&mut w, *order);
            w.u16(attempt.0);
        }
        Command::List { buyer } => {
            w.u8(7).digest(*buyer);
        }
    }
    bytes
}

/// Reads a command and the share it is for.
///
/// # Errors
/// [`Malformed`] if a peer of another version, or nobody we know, said it.
pub fn decode_command(bytes: &[u8]) -> Result<(ShareId, Command), Malformed> {
    let mut r = Reader::new(bytes, "command");
    version(&mut r)?;
    let share = ShareId(r.u16()?);
    let command = match r.u8()? {
        1 => Command::Place(wire::request(&mut r)?),
        2 => Command::Pay {
            order: wire::order(&mut r)?,
            buyer: r.option(Reader::digest)?,
            payment: r.digest()?,
            amount: r.u64()?,
        },
        3 => Command::Cancel { order: wire::order(&mut r)?, buyer: r.digest()? },
        4 => Command::Read { order: wire::order(&mut r)?, buyer: r.digest()? },
        5 => Command::Host(Sent {
            order: wire::order(&mut r)?,
            attempt: Attempt(r.u16()?),
            to: ShareId(r.u16()?),
            request: wire::request(&mut r)?,
        }),
        6 => Command::Resolve { order: wire::order(&mut r)?, attempt: Attempt(r.u16()?) },
        7 => Command::List { buyer: r.digest()? },
        kind => return Err(Malformed::Unknown { what: "command", value: kind.into() }),
    };
    r.end()?;
    Ok((share, command))
}

/// An answer, in bytes.
#[must_use]
pub fn encode_answer(answer: &Answer) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    let mut w = Writer(&mut bytes);
    w.u8(VERSION);
    match answer {
        Answer::Order { view, new } => {
            w.u8(1).u8(u8::from(*new));
            put_view(&mut w, view);
        }
        Answer::Refused(refusal) => {
            w.u8(2);
            put_refusal(&mut w, *refusal);
        }
        Answer::SoldOut { as_of, held, next_end } => {
            w.u8(3).millis(*as_of).u32(*held);
            w.option(next_end.as_ref(), |w, t| {
                w.millis(*t);
            });
        }
        Answer::GroupTooLarge(largest) => {
            w.u8(4).u32(*largest);
        }
        Answer::Busy(why) => {
            let at = BUSY.iter().position(|b| b == why).unwrap_or(BUSY.len() - 1);
            w.u8(5).u8(u8::try_from(at).unwrap_or(0));
        }
        Answer::Unknown => {
            w.u8(6);
        }
        Answer::Orders(ids) => {
            let named = &ids[..ids.len().min(LIST_MAX)];
            w.u8(7).u8(u8::try_from(named.len()).unwrap_or(0));
            for id in named {
                wire::put_order(&mut w, *id);
            }
        }
    }
    bytes
}

/// Reads an answer.
///
/// # Errors
/// [`Malformed`] if a peer of another version said it.
pub fn decode_answer(bytes: &[u8]) -> Result<Answer, Malformed> {
    let mut r = Reader::new(bytes, "answer");
    version(&mut r)?;
    let answer = match r.u8()? {
        1 => Answer::Order { new: r.flag()?, view: view(&mut r)? },
        2 => Answer::Refused(refusal(&mut r)?),
        3 => Answer::SoldOut {
            as_of: r.millis()?,
            held: r.u32()?,
            next_end: r.option(Reader::millis)?,
        },
        4 => Answer::GroupTooLarge(r.u32()?),
        5 => {
            let why = BUSY.get(usize::from(r.u8()?));
            Answer::Busy(why.ok_or(Malformed::Range("busy"))?)
        }
        6 => Answer::Unknown,
        7 => {
            let count = usize::from(r.u8()?);
            if count > LIST_MAX {
                return Err(Malformed::Range("orders"));
            }
            Answer::Orders((0..count).map(|_| wire::order(&mut r)).collect::<Result<_, _>>()?)
        }
        kind => return Err(Malformed::Unknown { what: "answer", value: kind.into() }),
    };
    r.end()?;
    Ok(answer)
}

fn version(r: &mut Reader<'_>) -> Result<(), Malformed> {
    match r.u8()? {
        VERSION => Ok(()),
        other => Err(Malformed::Unknown { what: "message version", value: other.into() }),
    }
}

fn put_view(w: &mut Writer<'_>, v: &OrderView) {
    wire::put_order(w, v.order);
    w.digest(v.buyer).u16(v.run.0).u8(v.class.0).u8(v.journey.from()).u8(v.journey.to());
    w.few(&v.seats, |w, s| {
        w.u16(*s);
    });
    w.u64(v.price);
    match v.status {
        Status::Held(deadline) => w.u8(1).millis(deadline),
        Status::Paid => w.u8(2),
        Status::Ended(why) => w.u8(3).u8(why as u8),
        Status::Seeking => w.u8(4),
        Status::Sent => w.u8(5),
    };
    w.u8(u8::from(v.returned));
    w.option(v.position.as_ref(), |w, (share, at)| {
        w.u16(share.0).u64(at.0);
    });
}

fn view(r: &mut Reader<'_>) -> Result<OrderView, Malformed> {
    Ok(OrderView {
        order: wire::order(r)?,
        buyer: r.digest()?,
        run: RunId(r.u16()?),
        class: ClassId(r.u8()?),
        journey: Journey::new(r.u8()?, r.u8()?).ok_or(Malformed::Range("journey"))?,
        seats: r.few(PARTY_MAX, Reader::u16)?,
        price: r.u64()?,
        status: match r.u8()? {
            1 => Status::Held(r.millis()?),
            2 => Status::Paid,
            3 => Status::Ended(End::from_repr(r.u8()?).ok_or(Malformed::Range("end"))?),
            4 => Status::Seeking,
            5 => Status::Sent,
            _ => return Err(Malformed::Range("status")),
        },
        returned: r.flag()?,
        position: r.option(|r| Ok((ShareId(r.u16()?), Offset(r.u64()?))))?,
    })
}

fn put_refusal(w: &mut Writer<'_>, refusal: Refusal) {
    match refusal {
        Refusal::NotOpen(opens) => w.u8(1).option(opens.as_ref(), |w, t| {
            w.millis(*t);
        }),
        Refusal::Suspended => w.u8(2),
        Refusal::Closed => w.u8(3),
        Refusal::KeyReused => w.u8(4),
        Refusal::NoSuchTrip => w.u8(5),
        Refusal::PartyTooLarge(most) => w.u8(6).u8(most),
        Refusal::TooManyHolds(most) => w.u8(7).u16(most),
        Refusal::TooManyOrders(most) => w.u8(8).u16(most),
        Refusal::NotFound => w.u8(9),
        Refusal::WrongAmount(price) => w.u8(10).u64(price),
        Refusal::Conflict => w.u8(11),
        Refusal::No => w.u8(12),
        Refusal::Frozen => w.u8(13),
        Refusal::Withdrawn => w.u8(14),
    };
}

fn refusal(r: &mut Reader<'_>) -> Result<Refusal, Malformed> {
    Ok(match r.u8()? {
        1 => Refusal::NotOpen(r.option(Reader::millis)?),
        2 => Refusal::Suspended,
        3 => Refusal::Closed,
        4 => Refusal::KeyReused,
        5 => Refusal::NoSuchTrip,
        6 => Refusal::PartyTooLarge(r.u8()?),
        7 => Refusal::TooManyHolds(r.u16()?),
        8 => Refusal::TooManyOrders(r.u16()?),
        9 => Refusal::NotFound,
        10 => Refusal::WrongAmount(r.u64()?),
        11 => Refusal::Conflict,
        12 => Refusal::No,
        13 => Refusal::Frozen,
        14 => Refusal::Withdrawn,
        _ => return Err(Malformed::Range("refusal")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::Seats;
    use crate::words::{Digest128, Epoch, Millis, OrderId};

    #[test]
    fn every_answer_arrives_as_it_was_sent() {
        let view = OrderView {
            order: OrderId { home: ShareId(3), epoch: Epoch(2), number: 7 },
            buyer: Digest128([1; 16]),
            run: RunId(1),
            class: ClassId(2),
            journey: Journey::new(3, 5).unwrap(),
            seats: Seats::from_iter([4, 9]),
            price: 100,
            status: Status::Held(Millis(9)),
            returned: false,
            position: Some((ShareId(3), Offset(8))),
        };
        let of = |status| Answer::Order { view: OrderView { status, ..view.clone() }, new: true };
        let answers = [
            of(Status::Held(Millis(9))),
            of(Status::Paid),
            of(Status::Ended(End::Expired)),
            of(Status::Seeking),
            of(Status::Sent),
            Answer::Refused(Refusal::NotOpen(Some(Millis(4)))),
            Answer::Refused(Refusal::No),
            Answer::Refused(Refusal::WrongAmount(7)),
            Answer::SoldOut { as_of: Millis(1), held: 2, next_end: Some(Millis(3)) },
            Answer::GroupTooLarge(3),
            Answer::Busy("stale"),
            Answer::Unknown,
            Answer::Orders(vec![OrderId { home: ShareId(3), epoch: Epoch(2), number: 7 }; 3]),
        ];
        for answer in answers {
            assert_eq!(decode_answer(&encode_answer(&answer)).unwrap(), answer);
        }
        assert_eq!(
            decode_answer(&encode_answer(&Answer::Busy("novel"))).unwrap(),
            Answer::Busy("peer")
        );
    }

    #[test]
    fn every_command_arrives_as_it_was_sent() {
        let order = OrderId { home: ShareId(3), epoch: Epoch(2), number: 7 };
        let buyer = Digest128([1; 16]);
        let commands = [
            Command::Pay { order, buyer: Some(buyer), payment: Digest128([2; 16]), amount: 5 },
            Command::Pay { order, buyer: None, payment: Digest128([2; 16]), amount: 5 },
            Command::List { buyer },
            Command::Cancel { order, buyer },
            Command::Read { order, buyer },
            Command::Resolve { order, attempt: Attempt(3) },
        ];
        for command in commands {
            let bytes = encode_command(ShareId(9), &command);
            assert_eq!(decode_command(&bytes).unwrap(), (ShareId(9), command));
            assert!(decode_command(&bytes[1..]).is_err());
        }
    }
}
