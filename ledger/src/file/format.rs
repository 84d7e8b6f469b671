//! The bytes of a ledger file: a header, then records of all partitions as they came.
//!
//! Everything is little-endian. A record's checksum covers the ledger's identity and the
//! record's own position as well, so bytes of another ledger, or of another place in this
//! one, are never taken for a record.
//!
//! A record also tells `synced`: where its batch begins, which is how far the file was
//! durable when the record was written. That tells a torn tail from damage. The records of
//! the last batch may be torn in any order when a machine loses power, and nobody was told
//! of them. But a bad record that a later one calls synced was durable once, and perhaps
//! somebody was told: that is damage, and the file is refused.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::Identity;
use crate::{FRAME_BYTES_MAX, Partition};

pub(super) const HEADER_BYTES: usize = 64;
pub(super) const RECORD_HEADER_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"STNLEDGR";
const VERSION: u32 = 1;
// Rare in any payload, so that looking for records behind a bad place seldom computes a
// checksum in vain.
const RECORD_MAGIC: [u8; 4] = [0xF5, b'R', 0xC1, b'\n'];
// A record of this partition has no frame: it marks everything before it as synced.
const MARK: u16 = u16::MAX;

/// How much is read from the file at once while scanning.
const WINDOW_BYTES: usize = 1 << 20;

/// What the head of the file says about the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: Identity,
    pub(super) partitions: u16,
}

impl Header {
    pub(super) fn bytes(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..14].copy_from_slice(&self.partitions.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.identity.0);
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Result<Header, String> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(format!("the header has {} bytes of {HEADER_BYTES}", bytes.len()));
        };
        if bytes[0..8] != MAGIC {
            return Err("it does not begin as a ledger does".to_owned());
        }
        let version = u32_at(bytes, 8);
        if version != VERSION {
            return Err(format!("its format is version {version}; this program reads {VERSION}"));
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err("the header's checksum is wrong".to_owned());
        }
        let partitions = u16_at(bytes, 12);
        if partitions == 0 || partitions == MARK {
            return Err(format!("the header names {partitions} partitions"));
        }
        let mut identity = Identity([0; 16]);
        identity.0.copy_from_slice(&bytes[16..32]);
        Ok(Header { identity, partitions })
    }
}

/// Where a record's header lies, and how long its frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: u64,
    pub(super) frame_bytes: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) partition: u16,
    pub(super) offset: u64,
    synced: u64,
    frame_bytes: u32,
}

/// Adds a record to a batch that is to be written at `synced`.
pub(super) fn push_record(
    batch: &mut Vec<u8>,
    identity: Identity,
    synced: u64,
    (partition, offset): (Partition, u64),
    frame: &[u8],
) -> Place {
    push(batch, identity, synced, (partition.0, offset), frame)
}

/// Adds a mark, which calls everything before `synced` synced.
pub(super) fn push_mark(batch: &mut Vec<u8>, identity: Identity, synced: u64) {
    push(batch, identity, synced, (MARK, 0), &[]);
}

fn push(
    batch: &mut Vec<u8>,
    identity: Identity,
    synced: u64,
    (partition, offset): (u16, u64),
    frame: &[u8],
) -> Place {
    #[expect(clippy::cast_possible_truncation, reason = "the inbox refuses longer frames")]
    let frame_bytes = frame.len() as u32;
    let position = synced + batch.len() as u64;
    let mut head = [0; RECORD_HEADER_BYTES];
    head[0..4].copy_from_slice(&RECORD_MAGIC);
    head[8..12].copy_from_slice(&frame_bytes.to_le_bytes());
    head[12..14].copy_from_slice(&partition.to_le_bytes());
    head[16..24].copy_from_slice(&offset.to_le_bytes());
    head[24..32].copy_from_slice(&synced.to_le_bytes());
    let crc = checksum(identity, position, &head, frame);
    head[4..8].copy_from_slice(&crc.to_le_bytes());
    batch.extend_from_slice(&head);
    batch.extend_from_slice(frame);
    Place { position, frame_bytes }
}

fn checksum(
    identity: Identity,
    position: u64,
    head: &[u8; RECORD_HEADER_BYTES],
    frame: &[u8],
) -> u32 {
    let crc = crc32c::crc32c(&identity.0);
    let crc = crc32c::crc32c_append(crc, &position.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &head[8..]);
    crc32c::crc32c_append(crc, frame)
}

/// Reads the record at `position`, of which `bytes` holds as much as the file has.
pub(super) fn read_record(
    bytes: &[u8],
    identity: Identity,
    position: u64,
) -> Result<(Head, &[u8]), String> {
    let Some((head, rest)) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>() else {
        return Err("the file ends inside a record's head".to_owned());
    };
    if head[0..4] != RECORD_MAGIC {
        return Err("no record begins here".to_owned());
    }
    let frame_bytes = u32_at(head, 8);
    if frame_bytes as usize > FRAME_BYTES_MAX {
        return Err(format!("a record's length is {frame_bytes}"));
    }
    let Some(frame) = rest.get(..frame_bytes as usize) else {
        return Err("the file ends inside a record".to_owned());
    };
    if u32_at(head, 4) != checksum(identity, position, head, frame) {
        return Err("a record's checksum is wrong".to_owned());
    }
    let partition = u16_at(head, 12);
    let head = Head { partition, offset: u64_at(head, 16), synced: u64_at(head, 24), frame_bytes };
    Ok((head, frame))
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Scan {
    /// For each partition, where its records lie.
    pub(super) places: Vec<Vec<Place>>,
    /// Behind the last whole record; what follows is a torn tail.
    pub(super) end: u64,
}

/// Why a scan ended early.
#[derive(Debug)]
pub(super) enum Bad {
    Io(io::Error),
    Damage { position: u64, why: String },
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Bad {
        Bad::Io(error)
    }
}

/// Reads the whole file behind its header, up to `size`.
pub(super) fn scan(file: &File, size: u64, header: Header) -> Result<Scan, Bad> {
    let mut window = Window { file, size, start: 0, bytes: Vec::new() };
    let mut places = vec![Vec::new(); usize::from(header.partitions)];
    let mut position = HEADER_BYTES as u64;
    while position < size {
        let bytes = window.at(position, RECORD_HEADER_BYTES + FRAME_BYTES_MAX)?;
        let head = match read_record(bytes, header.identity, position) {
            Ok((head, _)) => head,
            Err(why) => {
                return match synced_witness(&mut window, header.identity, position)? {
                    Some(later) => {
                        let why = format!("{why}, but the record at {later} says it was synced");
                        Err(Bad::Damage { position, why })
                    }
                    None => Ok(Scan { places, end: position }),
                };
            }
        };
        if head.partition != MARK {
            let Some(of) = places.get_mut(usize::from(head.partition)) else {
                let why = format!("a record is of partition {}", head.partition);
                return Err(Bad::Damage { position, why });
            };
            if head.offset != of.len() as u64 {
                let why = format!(
                    "a record of partition {} has offset {} instead of {}",
                    head.partition,
                    head.offset,
                    of.len()
                );
                return Err(Bad::Damage { position, why });
            }
            of.push(Place { position, frame_bytes: head.frame_bytes });
        }
        position += (RECORD_HEADER_BYTES as u64) + u64::from(head.frame_bytes);
    }
    Ok(Scan { places, end: position })
}

/// A whole record behind `bad` that says that `bad` had been synced before it.
fn synced_witness(
    window: &mut Window<'_>,
    identity: Identity,
    bad: u64,
) -> io::Result<Option<u64>> {
    let mut from = bad + 1;
    loop {
        let bytes = window.at(from, WINDOW_BYTES)?;
        let Some(found) = bytes.windows(RECORD_MAGIC.len()).position(|w| w == RECORD_MAGIC) else {
            if bytes.len() < WINDOW_BYTES {
                return Ok(None);
            }
            // The magic may lie across the end of this window.
            from += (bytes.len() - (RECORD_MAGIC.len() - 1)) as u64;
            continue;
        };
        let position = from + found as u64;
        let bytes = window.at(position, RECORD_HEADER_BYTES + FRAME_BYTES_MAX)?;
        match read_record(bytes, identity, position) {
            Ok((head, _)) if head.synced > bad => return Ok(Some(position)),
            _ => from = position + 1,
        }
    }
}

struct Window<'f> {
    file: &'f File,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// The bytes from `position` on: `want` of them, or fewer where the file ends.
    fn at(&mut self, position: u64, want: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.size.saturating_sub(position)).unwrap_or(usize::MAX);
        let want = want.min(left);
        let inside = position.checked_sub(self.start).and_then(|skip| usize::try_from(skip).ok());
        let inside = inside.filter(|skip| skip + want <= self.bytes.len());
        if let Some(skip) = inside {
            return Ok(&self.bytes[skip..skip + want]);
        }
        // Twice the window, so that records are read many at a time.
        let take = want.max(2 * WINDOW_BYTES).min(left);
        self.bytes.resize(take, 0);
        self.file.read_exact_at(&mut self.bytes, position)?;
        self.start = position;
        Ok(&self.bytes[..want])
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
