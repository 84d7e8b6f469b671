//! Decisions out of bytes. When they run out every answer is 0, so that each input decides
//! something and a shorter one decides less.

/// Bytes to decide by.
#[derive(Debug, Clone)]
pub struct Dice<'b>(&'b [u8]);

impl<'b> Dice<'b> {
    /// All of them.
    #[must_use]
    pub const fn new(bytes: &'b [u8]) -> Self {
        Self(bytes)
    }

    /// Whether none is left.
    #[must_use]
    pub const fn are_out(&self) -> bool {
        self.0.is_empty()
    }

    /// Up to `count` of them, as they are.
    pub fn bytes(&mut self, count: usize) -> &'b [u8] {
        let (head, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        head
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// One of `count` numbers from 0 on.
    pub fn below(&mut self, count: u8) -> u8 {
        self.byte() % count.max(1)
    }

    /// True once in `count` times.
    pub fn seldom(&mut self, count: u8) -> bool {
        // Not at 0, so that an input that runs out comes to rest.
        self.below(count) == 1
    }

    /// A large number.
    pub fn number(&mut self) -> u64 {
        let mut out = [0; 8];
        let bytes = self.bytes(8);
        out[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(out)
    }

    /// One of the items.
    ///
    /// # Panics
    /// If there is none.
    pub fn of<'t, T>(&mut self, items: &'t [T]) -> &'t T {
        &items[usize::from(self.byte()) % items.len()]
    }
}
