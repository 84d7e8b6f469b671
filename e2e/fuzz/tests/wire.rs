//! Decoders: none panics, and what one reads has one spelling.

use bolero::check;
use fuzz::dice::Dice;
use fuzz::say;
use inventory::board::{Beat, Board};
use inventory::legs::Journey;
use inventory::message::{decode_answer, decode_command, encode_answer, encode_command};
use inventory::owner::{Answer, OrderView, Status};
use inventory::state::{Command, Refusal};
use inventory::wire::{Draft, FRAME_BYTES_MAX, Frame, POOL_BYTES_MAX};
use inventory::words::{ClassId, Digest128, Incarnation, Millis, Offset, RunId, ShareId};

const LEDGER: Digest128 = Digest128([1; 16]);

/// What a frame says, said again: the same bytes.
fn spells_once(record: &[u8]) {
    let read = checker::frame::read(record);
    let Ok(frame) = Frame::read(record) else {
        assert!(read.is_err(), "the checker reads what the product does not");
        return;
    };
    let (header, body) = read.expect("the checker reads what the product reads");
    assert_eq!(header.checksum, frame.chain.0.0);
    let entries = frame.entries();
    let theirs = checker::entry::of_share(header.count, body);
    assert_eq!(entries.is_ok(), theirs.is_ok(), "{entries:?} {theirs:?}");
    if let Ok(entries) = entries {
        let mut draft = Draft::new(record.len().max(FRAME_BYTES_MAX));
        entries.iter().for_each(|entry| draft.push(entry).expect("it was as long before"));
        assert_eq!(draft.seal(&frame.header).0, record);
    }
    let entries = frame.pool_entries();
    let theirs = checker::entry::of_pool(header.count, body);
    assert_eq!(entries.is_ok(), theirs.is_ok(), "{entries:?} {theirs:?}");
    if let Ok(entries) = entries {
        let mut draft = Draft::new(record.len().max(POOL_BYTES_MAX));
        entries.iter().for_each(|entry| draft.push_pool(entry).expect("it was as long before"));
        assert_eq!(draft.seal(&frame.header).0, record);
    }
}

#[test]
fn a_frame_has_one_spelling_and_two_readers_that_agree() {
    check!().for_each(|bytes: &[u8]| {
        spells_once(bytes);
        let mut record = bytes.to_vec();
        if record.len() >= 96 {
            // Whatever the bytes are, let them get behind magic, format, length and checksum.
            record[64..68].copy_from_slice(b"SMlg");
            record[76..80].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
            record[82..84].copy_from_slice(&[1, 0]);
            record[86..96].fill(0);
            say::mend(&mut record);
            spells_once(&record);
        }
    });
}

#[test]
fn what_is_said_is_read_back_and_damage_is_noticed() {
    check!().for_each(|bytes: &[u8]| {
        let mut dice = Dice::new(bytes);
        let header = say::pool_header(LEDGER);
        let mut record = if dice.seldom(2) {
            let entries: Vec<_> =
                (0..=dice.below(4)).map(|_| say::entry(&mut dice, Millis(5))).collect();
            let record = say::frame(&header, &entries).expect("a few entries fit");
            let frame = Frame::read(&record).expect("it was just made");
            assert_eq!(frame.entries().as_deref(), Ok(&entries[..]));
            record
        } else {
            let entries: Vec<_> =
                (0..=dice.below(4)).map(|_| say::pool_entry(&mut dice, [1; 3])).collect();
            let record = say::pool_frame(&header, &entries).expect("a few entries fit");
            let frame = Frame::read(&record).expect("it was just made");
            // A strange definition may be out of every range.
            if let Ok(read) = frame.pool_entries() {
                assert_eq!(read, entries);
            }
            record
        };
        spells_once(&record);
        say::damage(&mut dice, &mut record);
        spells_once(&record);
    });
}

fn beat_spells_once(bytes: &[u8]) -> Option<Beat> {
    let beat = Beat::decode(bytes).ok()?;
    assert_eq!(beat.encode(), bytes);
    Some(beat)
}

/// A well-formed beat by dice.
fn beat(dice: &mut Dice<'_>, number: u64) -> Vec<u8> {
    use inventory::board::{NodeState, Row, ShareBeat, ShareStage};
    use inventory::digest::Digest;
    use inventory::legs::Legs;
    use inventory::words::Epoch;
    let name = *dice.of(&["n1", "n2"]);
    let mut digest = Digest::default();
    digest.change(Legs::NONE, Legs::from_bits(u128::from(dice.below(16))));
    let offset = |dice: &mut Dice<'_>| Offset(u64::from(dice.below(8)));
    Beat {
        ledger: LEDGER,
        node: name.parse().expect("a short name"),
        address: "127.0.0.1:1".parse().expect("a short address"),
        incarnation: Incarnation(u64::from(dice.below(3))),
        number,
        state: *dice.of(&[NodeState::Starting, NodeState::Ready, NodeState::Draining]),
        full: dice.seldom(2),
        pool: offset(dice),
        seen: offset(dice),
        shares: (1..=dice.below(3))
            .map(|share| ShareBeat {
                share: ShareId(share.into()),
                epoch: Epoch(dice.below(3).into()),
                confirmed: offset(dice),
                accepted_take: dice.seldom(2).then(|| offset(dice)),
                stage: *dice.of(&[
                    ShareStage::Selling,
                    ShareStage::Recovering,
                    ShareStage::Frozen,
                    ShareStage::Stalled,
                ]),
            })
            .collect(),
        folded: (0..dice.below(3)).map(|share| ShareId(share.into())).collect(),
        rows: (1..=dice.below(3))
            .map(|share| Row {
                share: ShareId(share.into()),
                run: RunId(0),
                class: ClassId(0),
                digest: digest.clone(),
                held: dice.byte().into(),
                next_end: dice.seldom(2).then(|| Millis(dice.number())),
            })
            .collect(),
    }
    .encode()
}

#[test]
fn a_beat_has_one_spelling() {
    check!().for_each(|bytes: &[u8]| {
        beat_spells_once(bytes);
        let mut dice = Dice::new(bytes);
        let mut said = beat(&mut dice, 1);
        assert!(beat_spells_once(&said).is_some());
        say::damage(&mut dice, &mut said);
        beat_spells_once(&said);
    });
}

#[test]
fn a_board_hears_anything_and_never_believes_a_share_twice() {
    let journey = Journey::new(0, 3).expect("from is before to");
    check!().for_each(|bytes: &[u8]| {
        let mut dice = Dice::new(bytes);
        let mut board = Board::new(LEDGER, Incarnation(1));
        let mut pool = inventory::pool::Pool::new(say::LEDGER);
        let genesis =
            inventory::entry::Genesis { topic_id: say::TOPIC, definition: say::definition(2) };
        let header = say::pool_header(inventory::pool::ledger_id(say::LEDGER, say::TOPIC));
        let entry = inventory::entry::PoolEntry::Genesis(Box::new(genesis));
        let record = say::pool_frame(&header, &[entry]).expect("a small definition fits");
        pool.fold(Offset(0), &record);
        let (mut mono, mut number) = (Millis(10_000), 0);
        for at in 0..40 {
            if dice.are_out() {
                break;
            }
            mono = mono.plus(u64::from(dice.byte()) * 4);
            number += 1;
            if dice.seldom(2) {
                board.sent(number, mono);
            }
            let mut said = beat(&mut dice, number);
            if dice.seldom(4) {
                say::damage(&mut dice, &mut said);
            }
            let epochs = |board: &Board| {
                [ShareId(1), ShareId(2)].map(|s| board.share(s).map(|seen| seen.epoch))
            };
            let before = epochs(&board);
            // What is no beat is passed over.
            let _ = board.read(mono, Offset(at), &said);
            for (before, after) in before.into_iter().zip(epochs(&board)) {
                assert!(after.is_none() || before <= after, "an epoch goes back");
            }
            assert_eq!(board.position(), Offset(at + 1));
            // A damaged row may say any number; adding them up must not overflow.
            let _ = board.count(&pool, RunId(0), ClassId(0), journey);
            for share in [ShareId(1), ShareId(2)] {
                let epoch = inventory::words::Epoch(1);
                if board.has_lease(mono, share, epoch) {
                    assert!(board.is_told(share, epoch) && board.is_settled(mono));
                }
            }
        }
    });
}

fn messages_spell_once(bytes: &[u8]) {
    if let Ok((share, command)) = decode_command(bytes) {
        assert_eq!(encode_command(share, &command), bytes);
    }
    if let Ok(answer) = decode_answer(bytes) {
        assert_eq!(encode_answer(&answer), bytes);
    }
}

fn command(dice: &mut Dice<'_>) -> Command {
    let (order, buyer) = (say::order(dice), Digest128([dice.byte(); 16]));
    let attempt = inventory::words::Attempt(dice.byte().into());
    match dice.below(7) {
        0 => Command::Place(say::request(dice)),
        1 => {
            let payment = Digest128([dice.byte(); 16]);
            let buyer = dice.seldom(2).then_some(buyer);
            Command::Pay { order, buyer, payment, amount: dice.number() }
        }
        2 => Command::Cancel { order, buyer },
        3 => Command::Read { order, buyer },
        4 => {
            let to = ShareId(dice.byte().into());
            let request = say::request(dice);
            Command::Host(inventory::entry::Sent { order, attempt, to, request })
        }
        5 => Command::List { buyer },
        _ => Command::Resolve { order, attempt },
    }
}

fn answer(dice: &mut Dice<'_>) -> Answer {
    use inventory::entry::End;
    let time = Millis(dice.number());
    match dice.below(7) {
        0 => {
            let status = *dice.of(&[
                Status::Held(time),
                Status::Paid,
                Status::Ended(End::Expired),
                Status::Seeking,
                Status::Sent,
            ]);
            let view = OrderView {
                order: say::order(dice),
                buyer: Digest128([dice.byte(); 16]),
                run: RunId(dice.byte().into()),
                class: ClassId(dice.byte()),
                journey: Journey::new(0, 1 + dice.below(100)).expect("from is before to"),
                seats: (0..dice.below(6)).map(u16::from).collect(),
                price: dice.number(),
                status,
                returned: dice.seldom(2),
                position: dice.seldom(2).then(|| (ShareId(dice.byte().into()), Offset(7))),
            };
            Answer::Order { view, new: dice.seldom(2) }
        }
        1 => Answer::Refused(*dice.of(&[
            Refusal::NotOpen(None),
            Refusal::NotOpen(Some(time)),
            Refusal::Suspended,
            Refusal::Closed,
            Refusal::KeyReused,
            Refusal::NoSuchTrip,
            Refusal::Withdrawn,
            Refusal::PartyTooLarge(5),
            Refusal::TooManyHolds(3),
            Refusal::TooManyOrders(3),
            Refusal::NotFound,
            Refusal::WrongAmount(7),
            Refusal::Conflict,
            Refusal::No,
            Refusal::Frozen,
        ])),
        2 => {
            let next_end = dice.seldom(2).then_some(time);
            Answer::SoldOut { as_of: time, held: dice.byte().into(), next_end }
        }
        3 => Answer::GroupTooLarge(dice.byte().into()),
        4 => {
            let why: &&'static str = dice.of(&["lease", "recovering", "pool", "full", "moved"]);
            Answer::Busy(why)
        }
        5 => Answer::Orders((0..dice.below(65)).map(|_| say::order(dice)).collect()),
        _ => Answer::Unknown,
    }
}

#[test]
fn what_nodes_say_to_each_other_is_read_back_and_has_one_spelling() {
    check!().for_each(|bytes: &[u8]| {
        messages_spell_once(bytes);
        let mut dice = Dice::new(bytes);
        let mut said = if dice.seldom(2) {
            let (share, command) = (ShareId(dice.byte().into()), command(&mut dice));
            let said = encode_command(share, &command);
            assert_eq!(decode_command(&said), Ok((share, command)));
            said
        } else {
            let answer = answer(&mut dice);
            let said = encode_answer(&answer);
            assert_eq!(decode_answer(&said), Ok(answer));
            said
        };
        messages_spell_once(&said);
        say::damage(&mut dice, &mut said);
        messages_spell_once(&said);
    });
}
