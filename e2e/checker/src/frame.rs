//! The header of a frame, and what makes a record a whole frame. Entries are not looked at here.

use crate::bytes::{Cursor, Hash, Malformed};

/// Bytes of a header.
const HEADER: usize = 96;
/// `SMlg`.
const MAGIC: u32 = u32::from_le_bytes(*b"SMlg");
/// The only format that the page describes.
const FORMAT: u16 = 1;

/// A frame's header, as far as folds and auditors look at it.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// BLAKE3 of what follows it.
    pub checksum: Hash,
    /// The checksum of the writer's preceding frame.
    pub previous: Hash,
    /// The ledger's id.
    pub ledger: Hash,
    /// The writer's time.
    pub now: u64,
    /// Which process wrote it.
    pub incarnation: u64,
    /// Which claim of the share.
    pub epoch: u32,
    /// Place within the epoch.
    pub seq: u32,
    /// The partition.
    pub share: u16,
    /// How many entries.
    pub count: u16,
}

/// Why a record is no whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotWhole {
    /// Shorter than a header.
    Short,
    /// Other first bytes of the fixed part.
    Magic,
    /// The checksum does not fit.
    Checksum,
    /// The length is not the record's.
    Length,
    /// Unused bytes are not zero.
    Padding,
    /// Magic and checksum fit, but the writer speaks another format. It may mean anything, so
    /// nobody may read on as if it were not there.
    Format(u16),
}

impl NotWhole {
    /// The word for figures.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Magic => "magic",
            Self::Length => "length",
            Self::Checksum => "checksum",
            Self::Padding => "padding",
            Self::Format(_) => "format",
        }
    }
}

/// Splits a record into its header and the bytes of its entries.
pub fn read(record: &[u8]) -> Result<(Header, &[u8]), NotWhole> {
    if record.len() < HEADER {
        return Err(NotWhole::Short);
    }
    fields(record).unwrap_or(Err(NotWhole::Short))
}

type Whole<'a> = Result<(Header, &'a [u8]), NotWhole>;

fn fields(record: &[u8]) -> Result<Whole<'_>, Malformed> {
    let mut at = Cursor::new(record);
    let checksum = at.hash()?;
    let previous = at.hash()?;
    let ledger = at.hash()?;
    let now = at.u64()?;
    let incarnation = at.u64()?;
    let magic = at.u32()?;
    let epoch = at.u32()?;
    let seq = at.u32()?;
    let length = at.u32()?;
    let share = at.u16()?;
    let format = at.u16()?;
    let count = at.u16()?;
    let padding = at.take(10)?;
    let body = at.take(at.left())?;
    if magic != MAGIC {
        return Ok(Err(NotWhole::Magic));
    }
    if blake3::hash(&record[16..]).as_bytes()[..16] != checksum {
        return Ok(Err(NotWhole::Checksum));
    }
    // Before length and padding: another format may use those bytes otherwise.
    if format != FORMAT {
        return Ok(Err(NotWhole::Format(format)));
    }
    if usize::try_from(length) != Ok(record.len()) {
        return Ok(Err(NotWhole::Length));
    }
    if padding.iter().any(|b| *b != 0) {
        return Ok(Err(NotWhole::Padding));
    }
    let header = Header { checksum, previous, ledger, now, incarnation, epoch, seq, share, count };
    Ok(Ok((header, body)))
}

/// The entries of a frame as (kind, body), without reading the bodies.
pub fn entries(count: u16, body: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), Malformed>> {
    let mut at = Cursor::new(body);
    let mut left = count;
    let mut over = false;
    std::iter::from_fn(move || {
        if over {
            return None;
        }
        if left == 0 {
            over = true;
            return at.end().err().map(Err);
        }
        left -= 1;
        let next = entry(&mut at);
        over = next.is_err();
        Some(next)
    })
}

fn entry<'a>(at: &mut Cursor<'a>) -> Result<(u8, &'a [u8]), Malformed> {
    let kind = at.u8()?;
    let length = at.u32()?;
    Ok((kind, at.take(usize::try_from(length).unwrap_or(usize::MAX))?))
}
