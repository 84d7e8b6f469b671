//! The file of local mode: all partitions in one file, read without its lock.
//!
//! The owner may be writing. Bytes are only ever appended, so this reads up to the length that the
//! file has when it is opened: a record across that end is a torn tail, and nothing lies behind it.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use crate::bytes::{Cursor, Malformed};
use crate::source::{Each, Ledger, Part, Unreadable};
use crate::words::Place;

const FILE_HEADER: u64 = 64;
const RECORD_HEAD: usize = 32;
const RECORD_MAGIC: [u8; 4] = [0xf5, 0x52, 0xc1, 0x0a];
const FRAME_MAX: u32 = 1_000_000;
const MARK: u16 = u16::MAX;
/// One read of the file: enough that system calls do not count, little enough for the cache.
const READ_AHEAD: usize = 1 << 20;

/// A ledger in a file.
#[derive(Debug)]
pub struct FileLedger {
    path: String,
    file: File,
    length: u64,
    partitions: u16,
    identity: [u8; 16],
}

struct Head {
    crc: u32,
    length: u32,
    partition: u16,
    offset: u64,
    synced: u64,
}

impl FileLedger {
    /// Opens a file for reading.
    pub fn open(path: &str) -> Result<Self, Unreadable> {
        let io = |source| Unreadable::Io { path: path.to_owned(), source };
        let not = |why| Unreadable::NotALedger { path: path.to_owned(), why };
        let file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut bytes = [0; 64];
        if length < FILE_HEADER {
            return Err(not("it is shorter than a header"));
        }
        file.read_exact_at(&mut bytes, 0).map_err(io)?;
        let (partitions, identity) = header(&bytes).map_err(|why| not(why.0))?;
        Ok(Self { path: path.to_owned(), file, length, partitions, identity })
    }

    fn damaged(&self, at: u64, why: &'static str) -> Unreadable {
        Unreadable::Damaged { path: self.path.clone(), at, why }
    }

    fn io(&self, source: std::io::Error) -> Unreadable {
        Unreadable::Io { path: self.path.clone(), source }
    }

    fn crc(&self, at: u64, head: &[u8; RECORD_HEAD], frame: &[u8]) -> u32 {
        let crc = crc32c::crc32c(&self.identity);
        let crc = crc32c::crc32c_append(crc, &at.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &head[8..]);
        crc32c::crc32c_append(crc, frame)
    }

    /// Reads the record that begins at `at`, if a whole one does.
    fn record(
        &self,
        from: &mut impl Read,
        at: u64,
        frame: &mut Vec<u8>,
    ) -> Result<Option<Head>, Unreadable> {
        let mut bytes = [0; RECORD_HEAD];
        let behind_head = at.saturating_add(RECORD_HEAD as u64);
        if behind_head > self.length {
            return Ok(None);
        }
        from.read_exact(&mut bytes).map_err(|e| self.io(e))?;
        let Ok(Some(head)) = record_head(&bytes) else { return Ok(None) };
        if behind_head + u64::from(head.length) > self.length {
            return Ok(None);
        }
        frame.resize(usize::try_from(head.length).unwrap_or(0), 0);
        from.read_exact(frame).map_err(|e| self.io(e))?;
        Ok((self.crc(at, &bytes, frame) == head.crc).then_some(head))
    }

    /// Whether a whole record behind `place` says that `place` was durable.
    fn was_durable(&self, place: u64) -> Result<bool, Unreadable> {
        let mut window = vec![0; READ_AHEAD];
        let mut frame = Vec::new();
        let mut start = place + 1;
        while start + RECORD_HEAD as u64 <= self.length {
            let left = usize::try_from(self.length - start).unwrap_or(usize::MAX);
            let size = window.len().min(left);
            self.file.read_exact_at(&mut window[..size], start).map_err(|e| self.io(e))?;
            for within in 0..size.saturating_sub(RECORD_MAGIC.len() - 1) {
                if !window[within..size].starts_with(&RECORD_MAGIC) {
                    continue;
                }
                let at = start + within as u64;
                let mut from = At { file: &self.file, at };
                if self.record(&mut from, at, &mut frame)?.is_some_and(|h| h.synced > place) {
                    return Ok(true);
                }
            }
            // The last three bytes may begin the four that are looked for.
            start += size.saturating_sub(RECORD_MAGIC.len() - 1).max(1) as u64;
        }
        Ok(false)
    }
}

impl Ledger for FileLedger {
    fn name(&self) -> Option<&str> {
        None
    }

    fn partitions(&self) -> u16 {
        self.partitions
    }

    fn settled(&self, _partition: u16) -> u64 {
        // A file is one order of all partitions: what a record refers to lies before it.
        u64::MAX
    }

    fn read(&mut self, part: Part, each: &mut Each<'_>) -> Result<(), Unreadable> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(FILE_HEADER)).map_err(|e| self.io(e))?;
        let mut from = BufReader::with_capacity(READ_AHEAD, file);
        let mut next = vec![0u64; usize::from(self.partitions)];
        let mut frame = Vec::new();
        let mut at = FILE_HEADER;
        while at < self.length {
            let Some(head) = self.record(&mut from, at, &mut frame)? else {
                if self.was_durable(at)? {
                    return Err(self.damaged(at, "no whole record, where one was durable"));
                }
                // Where it ends now it ends for the next reading too, though the owner may have cut
                // the tail and written on.
                self.length = at;
                return Ok(());
            };
            let behind = at + RECORD_HEAD as u64 + u64::from(head.length);
            if head.partition != MARK {
                let next = next.get_mut(usize::from(head.partition));
                let next = next.ok_or_else(|| self.damaged(at, "a partition that is not there"))?;
                if head.offset != *next {
                    return Err(self.damaged(at, "offsets of a partition are not dense"));
                }
                *next += 1;
                if (head.partition == 0) == (part == Part::Pool) {
                    let place = Place { partition: head.partition, offset: head.offset };
                    each(place, None, &frame)?;
                }
            }
            at = behind;
        }
        Ok(())
    }
}

/// Reads a file from a place on, without moving what others read.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.file.read_at(into, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

fn header(bytes: &[u8; 64]) -> Result<(u16, [u8; 16]), Malformed> {
    let mut at = Cursor::new(bytes);
    if at.take(8)? != b"STNLEDGR" {
        return Err(Malformed("other first bytes"));
    }
    let version = at.u32()?;
    let partitions = at.u16()?;
    at.take(2)?;
    let identity = at.hash()?;
    at.take(28)?;
    if at.u32()? != crc32c::crc32c(&bytes[..60]) {
        return Err(Malformed("its header's checksum does not fit"));
    }
    if version != 1 {
        return Err(Malformed("it has a version that this checker does not know"));
    }
    if !(1..MARK).contains(&partitions) {
        return Err(Malformed("it has no partitions"));
    }
    Ok((partitions, identity))
}

fn record_head(bytes: &[u8; RECORD_HEAD]) -> Result<Option<Head>, Malformed> {
    let mut at = Cursor::new(bytes);
    if at.take(4)? != RECORD_MAGIC {
        return Ok(None);
    }
    let crc = at.u32()?;
    let length = at.u32()?;
    let partition = at.u16()?;
    at.take(2)?;
    let offset = at.u64()?;
    let synced = at.u64()?;
    Ok((length <= FRAME_MAX).then_some(Head { crc, length, partition, offset, synced }))
}
