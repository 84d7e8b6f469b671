//! A line between two nodes: one connection on which commands go one way and answers the other,
//! in any order.
//!
//! In a fleet of N nodes a buyer meets the owner of their share with one chance in N, so what is
//! forwarded must not cost an HTTP request each: what is said in one turn goes in one write. A
//! line begins as a request to upgrade (RFC 9110 7.8) on the control port, and both ends then
//! speak in messages: length (u32, of what follows), number (u64), body; little-endian. The body
//! of a command is a keyed hash over number and command, and the command; that of an answer is
//! the answer.

use std::ops::Range;

use bytes::{BufMut, BytesMut};
use inventory::words::LedgerKey;

/// What a line is called in an upgrade.
pub(crate) const PROTOCOL: &str = "stationmaster-line";
/// Where it is asked for, on the control port.
pub(crate) const PATH: &str = "/peer/v1/line";
/// The header with the keyed hash that only nodes of the same ledger can make.
pub(crate) const HEADER: &str = "stationmaster-peer";

/// Bytes that are read at a time.
pub(crate) const READ_BYTES: usize = 8 * 1024;
/// Commands that wait for their answers on one line.
pub(crate) const WAITING_MAX: usize = 4_096;

/// A list of orders and a command of 16 passengers have less than one KiB.
const MESSAGE_BYTES_MAX: usize = 4_096;
const LENGTH_BYTES: usize = 4;
const NUMBER_BYTES: usize = 8;
const HASH_BYTES: usize = 16;

/// Whoever says something so long is no node of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// The first message in `bytes`, if it is there whole: its number, where its body is, and its
/// length in all.
pub(crate) fn next(bytes: &[u8]) -> Result<Option<(u64, Range<usize>)>, TooLong> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_le_bytes(*length) as usize;
    if !(NUMBER_BYTES..=MESSAGE_BYTES_MAX).contains(&length) {
        return Err(TooLong);
    }
    let Some((number, _)) = rest.split_first_chunk::<NUMBER_BYTES>() else { return Ok(None) };
    let end = LENGTH_BYTES + length;
    let whole = bytes.len() >= end;
    Ok(whole.then(|| (u64::from_le_bytes(*number), LENGTH_BYTES + NUMBER_BYTES..end)))
}

/// Says an answer.
pub(crate) fn put_answer(to: &mut BytesMut, number: u64, answer: &[u8]) {
    put(to, number, &[answer]);
}

/// Says a command.
pub(crate) fn put_command(to: &mut BytesMut, key: &LedgerKey, number: u64, command: &[u8]) {
    put(to, number, &[&hash(key, number, command), command]);
}

/// The command in a body, if a node of this ledger said it under this number.
pub(crate) fn command<'a>(key: &LedgerKey, number: u64, body: &'a [u8]) -> Option<&'a [u8]> {
    let (said, command) = body.split_first_chunk::<HASH_BYTES>()?;
    same(said, &hash(key, number, command)).then_some(command)
}

/// What whoever asks for a line shows.
pub(crate) fn pass(key: &LedgerKey) -> String {
    key.hash(9, &[PATH.as_bytes()]).to_string()
}

/// Whether somebody may have a line.
pub(crate) fn may_pass(key: &LedgerKey, shown: Option<&str>) -> bool {
    let pass = pass(key);
    shown.is_some_and(|shown| same(shown.as_bytes(), pass.as_bytes()))
}

fn put(to: &mut BytesMut, number: u64, body: &[&[u8]]) {
    let length = NUMBER_BYTES + body.iter().map(|part| part.len()).sum::<usize>();
    to.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
    to.put_u64_le(number);
    body.iter().for_each(|part| to.put_slice(part));
}

fn hash(key: &LedgerKey, number: u64, command: &[u8]) -> [u8; HASH_BYTES] {
    key.hash(9, &[&number.to_le_bytes(), command]).0
}

/// Without telling by the time it takes how much was right.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use bolero::check;

    use super::*;

    fn key() -> LedgerKey {
        LedgerKey::derive("a sale", [7; 16])
    }

    #[test]
    fn messages_are_found_however_they_arrive() {
        let mut bytes = BytesMut::new();
        put_command(&mut bytes, &key(), 1, b"first");
        let first = bytes.len();
        put_answer(&mut bytes, 2, b"second");
        for cut in 0..first {
            assert_eq!(next(&bytes[..cut]), Ok(None), "{cut}");
        }
        let (number, body) = next(&bytes).unwrap().unwrap();
        assert_eq!((number, body.end), (1, first));
        assert_eq!(command(&key(), 1, &bytes[body]), Some(&b"first"[..]));
        let (number, body) = next(&bytes[first..]).unwrap().unwrap();
        assert_eq!((number, &bytes[first..][body]), (2, &b"second"[..]));
    }

    #[test]
    fn a_command_of_another_ledger_or_under_another_number_is_none() {
        let mut bytes = BytesMut::new();
        put_command(&mut bytes, &key(), 1, b"buy");
        let (_, body) = next(&bytes).unwrap().unwrap();
        let body = &bytes[body];
        assert_eq!(command(&LedgerKey::derive("another", [7; 16]), 1, body), None);
        assert_eq!(command(&key(), 2, body), None);
        assert_eq!(command(&key(), 1, &body[..HASH_BYTES - 1]), None);
        let mut changed = body.to_vec();
        changed[HASH_BYTES] ^= 1;
        assert_eq!(command(&key(), 1, &changed), None);
    }

    #[test]
    fn only_a_node_of_the_ledger_may_pass() {
        let other = LedgerKey::derive("another", [7; 16]);
        assert!(may_pass(&key(), Some(&pass(&key()))));
        assert!(!may_pass(&key(), Some(&pass(&other))));
        assert!(!may_pass(&key(), Some("")));
        assert!(!may_pass(&key(), None));
    }

    #[test]
    fn strange_bytes_are_no_message_or_one_that_is_there() {
        let key = key();
        check!().for_each(|bytes: &[u8]| {
            if let Ok(Some((number, body))) = next(bytes) {
                assert_eq!(command(&key, number, &bytes[body]), None);
            }
        });
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_is_there() {
        let length = |n: usize| u32::try_from(n).unwrap().to_le_bytes();
        assert_eq!(next(&length(MESSAGE_BYTES_MAX + 1)), Err(TooLong));
        assert_eq!(next(&length(NUMBER_BYTES - 1)), Err(TooLong));
        assert_eq!(next(&length(MESSAGE_BYTES_MAX)), Ok(None));
    }
}
