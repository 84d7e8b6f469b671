//! Reading and writing bytes: little-endian, exact, one spelling for one value.
//!
//! A reader never panics and never skips: what it does not know is [`Malformed`].

use crate::words::{Digest128, Millis};

/// Bytes that do not say anything in this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the words need.
    #[error("{0} is cut short")]
    Short(&'static str),
    /// More bytes than the words need.
    #[error("{0} has bytes left over")]
    Long(&'static str),
    /// A value outside its range, or not in its one spelling.
    #[error("{0} is out of its range")]
    Range(&'static str),
    /// A word that this version does not know. Unknown must stop, not skip.
    #[error("{what} {value} is unknown")]
    Unknown {
        /// The kind of word.
        what: &'static str,
        /// Its number.
        value: u32,
    },
    /// The checksum does not fit the bytes.
    #[error("the checksum does not fit")]
    Checksum,
}

/// Reads what [`Writer`] wrote.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'b> {
    left: &'b [u8],
    what: &'static str,
}

impl<'b> Reader<'b> {
    pub(crate) fn new(left: &'b [u8], what: &'static str) -> Self {
        Self { left, what }
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'b [u8], Malformed> {
        let (head, rest) = self.left.split_at_checked(count).ok_or(Malformed::Short(self.what))?;
        self.left = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.bytes(N)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn millis(&mut self) -> Result<Millis, Malformed> {
        Ok(Millis(self.u64()?))
    }

    pub(crate) fn digest(&mut self) -> Result<Digest128, Malformed> {
        Ok(Digest128(self.array()?))
    }

    /// A text with its length in front.
    pub(crate) fn text(&mut self) -> Result<&'b str, Malformed> {
        let count = usize::from(self.u16()?);
        std::str::from_utf8(self.bytes(count)?).map_err(|_| Malformed::Range("text"))
    }

    /// A byte 1 or 0, and nothing else: two spellings of yes would be two encodings.
    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::Range("flag")),
        }
    }

    /// Something or nothing: a flag in front.
    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    /// As many as the count in front says.
    pub(crate) fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = self.u32()? as usize;
        // Every item takes at least a byte: a forged count cannot reserve more than it sent.
        let mut items = Vec::with_capacity(count.min(self.left.len()));
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }

    /// At most `N`, as the count in front says.
    pub(crate) fn few<T, C: Default + Extend<T>>(
        &mut self,
        most: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, Malformed>,
    ) -> Result<C, Malformed> {
        let count = self.u8()?;
        if usize::from(count) > most {
            return Err(Malformed::Range("count"));
        }
        let mut items = C::default();
        for _ in 0..count {
            items.extend([read(self)?]);
        }
        Ok(items)
    }

    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.left.is_empty() { Ok(()) } else { Err(Malformed::Long(self.what)) }
    }
}

/// Appends to a vector.
pub(crate) struct Writer<'b>(pub(crate) &'b mut Vec<u8>);

impl Writer<'_> {
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(crate) fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes(&[value])
    }

    pub(crate) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(crate) fn millis(&mut self, value: Millis) -> &mut Self {
        self.u64(value.0)
    }

    pub(crate) fn digest(&mut self, value: Digest128) -> &mut Self {
        self.bytes(&value.0)
    }

    /// Texts are names; every type that holds one bounds it far below 64 KiB.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        let count = u16::try_from(text.len()).expect("a name is shorter than 64 KiB");
        self.u16(count).bytes(text.as_bytes())
    }

    pub(crate) fn option<T>(
        &mut self,
        value: Option<&T>,
        write: impl FnOnce(&mut Self, &T),
    ) -> &mut Self {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    pub(crate) fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        self.u32(u32::try_from(items.len()).expect("a record holds fewer than 2^32 items"));
        for item in items {
            write(self, item);
        }
        self
    }

    /// For lists that their type bounds at 255.
    pub(crate) fn few<T>(
        &mut self,
        items: &[T],
        mut write: impl FnMut(&mut Self, &T),
    ) -> &mut Self {
        self.u8(u8::try_from(items.len()).expect("bounded by its type"));
        for item in items {
            write(self, item);
        }
        self
    }
}
