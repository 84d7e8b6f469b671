//! The way of fates from whoever learns them back to the handle that appended.
//!
//! A handle keeps what waits for a fate in numbered slots. The slot travels with the append
//! and comes back; so the caller's slip keeps all its 64 bits, a fate never needs an
//! allocation of its own, and the channel cannot overflow: it has room for all slots.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use slab::Slab;
use tokio::sync::mpsc;

use crate::{FRAME_BYTES_MAX, Fate, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX, Refused, Slip};

/// The number of a waiting append within its handle; below [`IN_FLIGHT_MAX`].
pub(crate) type Slot = u32;

// No slot: wakes the handle's task and tells nothing.
const WAKE: Slot = Slot::MAX;

/// The handle's end: what waits, and what came back.
#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: Slab<(Slip, usize)>,
    bytes: usize,
    fates: mpsc::Receiver<(Slot, Fate)>,
    woken: Arc<AtomicBool>,
}

/// The log's end.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    fates: mpsc::Sender<(Slot, Fate)>,
    /// A WAKE is on its way: two of them would take a fate's place.
    woken: Arc<AtomicBool>,
}

pub(crate) fn pair() -> (Outbox, Inbox) {
    // A slot is given out again only after its fate was fetched, so each is in the channel once
    // at most; one place more is for WAKE.
    let (send, fates) = mpsc::channel(IN_FLIGHT_MAX + 1);
    let woken = Arc::new(AtomicBool::new(false));
    let inbox = Inbox { waiting: Slab::new(), bytes: 0, fates, woken: Arc::clone(&woken) };
    (Outbox { fates: send, woken }, inbox)
}

/// Whether a handle of which so many appends and bytes wait takes one more, of `bytes` bytes.
pub(crate) fn admits(waiting: usize, waiting_bytes: usize, bytes: usize) -> Result<(), Refused> {
    if bytes > FRAME_BYTES_MAX {
        return Err(Refused::TooLarge { bytes });
    }
    if waiting >= IN_FLIGHT_MAX || waiting_bytes + bytes > IN_FLIGHT_BYTES_MAX {
        return Err(Refused::Full);
    }
    Ok(())
}

impl Inbox {
    /// Takes a slot for an append of `bytes` bytes.
    pub(crate) fn admit(&mut self, slip: Slip, bytes: usize) -> Result<Slot, Refused> {
        admits(self.waiting.len(), self.bytes, bytes)?;
        self.bytes += bytes;
        // Slab fills its holes first, so a slot is below IN_FLIGHT_MAX and fits.
        #[expect(clippy::cast_possible_truncation, reason = "below IN_FLIGHT_MAX")]
        Ok(self.waiting.insert((slip, bytes)) as Slot)
    }

    /// Whether some have no fate yet.
    #[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "only Kafka's are fetched"))]
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Gives a slot back whose append the log did not take.
    pub(crate) fn withdraw(&mut self, slot: Slot) {
        self.settle(slot);
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, out: &mut Vec<(Slip, Fate)>) -> Poll<()> {
        let before = out.len();
        loop {
            match self.fates.poll_recv(cx) {
                Poll::Ready(Some((WAKE, _))) => self.woken.store(false, Ordering::Release),
                Poll::Ready(Some((slot, fate))) => {
                    if let Some(slip) = self.settle(slot) {
                        out.push((slip, fate));
                    }
                }
                Poll::Ready(None) => {
                    // The log's threads are gone, so no further word will come.
                    let lost = self.waiting.drain().map(|(slip, _)| (slip, Fate::Unknown));
                    out.extend(lost);
                    self.bytes = 0;
                    break;
                }
                Poll::Pending => break,
            }
        }
        if out.len() > before { Poll::Ready(()) } else { Poll::Pending }
    }

    fn settle(&mut self, slot: Slot) -> Option<Slip> {
        let (slip, bytes) = self.waiting.try_remove(slot as usize)?;
        self.bytes -= bytes;
        Some(slip)
    }
}

impl Outbox {
    /// Tells a fate. The first of several wakes the handle's task; until it runs, those that
    /// follow cost no further wake.
    pub(crate) fn tell(&self, slot: Slot, fate: Fate) {
        // Only a handle that was dropped refuses, and then nobody waits any more.
        let _ = self.fates.try_send((slot, fate));
    }

    /// Wakes the handle's task without a fate.
    #[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "only Kafka reconnects"))]
    pub(crate) fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            let _ = self.fates.try_send((WAKE, Fate::Unknown));
        }
    }
}
