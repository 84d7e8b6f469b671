//! Moves what a [`Writer`] decides over connections of its handle's own, on the task that polls
//! the handle: no thread and no queue lies between a frame and its broker.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
    sync::watch,
    time::Sleep,
};

use super::{
    COMPLAIN_EVERY, PARTING_MAX, closed, protocol,
    writer::{Link, Stage, Writer},
};
use crate::{Fate, Partition, Refused, Slip};

#[cfg(test)]
mod tests;

/// How often a writer is asked to look around while something waits.
const TICK: Duration = Duration::from_millis(25);

/// How long a look-up may take before the addresses of the one before are good enough.
const RESOLVE_MAX: Duration = Duration::from_millis(250);

/// How much is read at once. An answer has some seventy bytes.
const READ_BYTES: usize = 4_096;

/// When all appends must have their fate, once a ledger is closed.
pub(super) type Closing = watch::Receiver<Option<Instant>>;

type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
type Connecting = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

enum Socket {
    None,
    Connecting(Connecting),
    Open { stream: TcpStream, input: Vec<u8> },
}

/// A socket, and of which of its link's connections it is.
struct Numbered {
    count: u32,
    socket: Socket,
    address: Arc<str>,
    /// A look-up outlives the connection that asked for it: it may take longer than a broker may.
    resolving: Option<Resolving>,
    /// What the last look-up found.
    found: Vec<SocketAddr>,
    /// When this connection was begun.
    since: Instant,
}

impl Numbered {
    fn new(link: &Link) -> Self {
        Self {
            // Of none that there ever was.
            count: link.count.wrapping_sub(1),
            socket: Socket::None,
            address: Arc::clone(&link.address),
            resolving: None,
            found: Vec::new(),
            since: Instant::now(),
        }
    }

    fn begin(&mut self, count: u32) {
        (self.count, self.since) = (count, Instant::now());
        let address = &self.address;
        self.resolving.get_or_insert_with(|| Box::pin(resolve(Arc::clone(address))));
    }

    /// Looks for where to connect to, and begins to. A name may have several addresses of which
    /// some are dead, so each connection takes another one.
    ///
    /// # Errors
    /// When nobody knows any.
    fn poll_address(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut looked = Ok(Vec::new());
        if let Some(resolving) = &mut self.resolving
            && let Poll::Ready(found) = resolving.as_mut().poll(cx)
        {
            (self.resolving, looked) = (None, found);
        }
        match looked {
            Ok(found) if !found.is_empty() => self.found = found,
            Ok(_) => {}
            Err(error) if self.found.is_empty() => return Err(error),
            Err(error) => tracing::debug!(address = %self.address, %error),
        }
        let is_enough = self.resolving.is_none() || self.since.elapsed() >= RESOLVE_MAX;
        if is_enough && !self.found.is_empty() {
            let at = self.found[self.count as usize % self.found.len()];
            self.socket = Socket::Connecting(Box::pin(connect(at)));
        }
        Ok(())
    }
}

/// A writer and its connections. It belongs to the runtime on which it is polled first.
pub(super) struct Sockets {
    writer: Writer,
    /// As many as the writer's links, in their order.
    sockets: Vec<Numbered>,
    tick: Option<Pin<Box<Sleep>>>,
    closing: Closing,
    /// When all must have their fate.
    end: Option<Instant>,
    complained: Option<Instant>,
    /// Nobody has polled it.
    is_new: bool,
}

impl std::fmt::Debug for Sockets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sockets").field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl Sockets {
    pub(super) fn new(writer: Writer, closing: Closing) -> Self {
        let (sockets, tick, end, complained) = (Vec::new(), None, None, None);
        Self { writer, sockets, tick, closing, end, complained, is_new: true }
    }

    /// Takes a frame, and sends it at once if it may be sent.
    pub(super) fn append(
        &mut self,
        to: Partition,
        slip: Slip,
        frame: &[u8],
    ) -> Result<(), Refused> {
        // Changed once, when it is closed; or nobody is there to change it.
        if !matches!(self.closing.has_changed(), Ok(false)) {
            return Err(closed());
        }
        let now = Instant::now();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        self.writer.append(to, slip, frame, now, now_ms)?;
        self.writer.push(now);
        for (index, numbered) in self.sockets.iter_mut().enumerate() {
            if let Socket::Open { stream, .. } = &numbered.socket
                && is_of(&self.writer.links()[index], numbered)
            {
                // What does not go, or goes wrong, is seen to when this is polled.
                let _ = write(stream, self.writer.link_mut(index));
            }
        }
        Ok(())
    }

    pub(super) fn poll_fates(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<(Slip, Fate)>,
    ) -> Poll<()> {
        let mut happened = std::mem::take(&mut self.is_new) | self.poll_sockets(cx);
        if self.writer.is_busy() {
            happened |= self.poll_tick(cx);
        }
        if self.writer.is_waiting() && !matches!(self.closing.has_changed(), Ok(false)) {
            self.part();
        }
        if happened {
            self.writer.turn(Instant::now());
        }
        // Whatever this opens or sends has to be polled, so that it wakes.
        while self.follow() && self.poll_sockets(cx) {
            self.writer.turn(Instant::now());
        }
        self.poll_writes(cx);
        self.complain();
        if self.writer.fates.is_empty() {
            return Poll::Pending;
        }
        out.append(&mut self.writer.fates);
        Poll::Ready(())
    }

    /// Takes what came. Whether anything did.
    fn poll_sockets(&mut self, cx: &mut Context<'_>) -> bool {
        let mut happened = false;
        for (index, numbered) in self.sockets.iter_mut().enumerate() {
            if !is_of(&self.writer.links()[index], numbered) {
                continue;
            }
            if matches!(numbered.socket, Socket::None)
                && let Err(error) = numbered.poll_address(cx)
            {
                tracing::debug!(address = %numbered.address, %error);
                self.writer.lost(index, Instant::now());
                happened = true;
                continue;
            }
            if let Socket::Connecting(connecting) = &mut numbered.socket {
                let Poll::Ready(made) = connecting.as_mut().poll(cx) else { continue };
                happened = true;
                let now = Instant::now();
                match made {
                    Ok(stream) => {
                        numbered.socket = Socket::Open { stream, input: Vec::new() };
                        self.writer.opened(index, now);
                    }
                    Err(error) => {
                        tracing::debug!(address = %self.writer.links()[index].address, %error);
                        self.writer.lost(index, now);
                        continue;
                    }
                }
            }
            if let Socket::Open { stream, input } = &mut numbered.socket {
                match read(cx, stream, input, |answer| {
                    happened = true;
                    self.writer.heard(index, answer, Instant::now())
                }) {
                    Poll::Pending => {}
                    Poll::Ready(error) => {
                        happened = true;
                        tracing::debug!(address = %self.writer.links()[index].address, %error);
                        self.writer.lost(index, Instant::now());
                    }
                }
            }
        }
        happened
    }

    /// Has a look every now and then while something waits.
    fn poll_tick(&mut self, cx: &mut Context<'_>) -> bool {
        let tick = self.tick.get_or_insert_with(|| Box::pin(tokio::time::sleep(TICK)));
        let mut rang = false;
        while tick.as_mut().poll(cx).is_ready() {
            tick.as_mut().reset(tokio::time::Instant::now() + TICK);
            rang = true;
        }
        rang
    }

    fn part(&mut self) {
        let now = Instant::now();
        let told = *self.closing.borrow();
        let end = *self.end.get_or_insert(told.unwrap_or(now + PARTING_MAX));
        if now >= end {
            self.writer.give_up();
        }
    }

    /// Closes and opens as the writer has it. Whether any was opened.
    fn follow(&mut self) -> bool {
        let mut opened = false;
        for (index, link) in self.writer.links().iter().enumerate() {
            if index == self.sockets.len() {
                self.sockets.push(Numbered::new(link));
            }
            let numbered = &mut self.sockets[index];
            if is_of(link, numbered) {
                continue;
            }
            if numbered.address != link.address {
                *numbered = Numbered::new(link);
            }
            numbered.socket = Socket::None;
            if link.stage == Stage::Opening {
                numbered.begin(link.count);
                opened = true;
            }
        }
        opened
    }

    /// Sends what waits to be sent, and is woken when there is room for what does not go.
    fn poll_writes(&mut self, cx: &mut Context<'_>) {
        for (index, numbered) in self.sockets.iter().enumerate() {
            let Socket::Open { stream, .. } = &numbered.socket else { continue };
            while is_of(&self.writer.links()[index], numbered)
                && !self.writer.links()[index].out.is_empty()
            {
                let link = self.writer.link_mut(index);
                let waits = link.out.len();
                let written = match stream.poll_write_ready(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(())) => write(stream, link),
                    Poll::Ready(Err(error)) => Err(error),
                };
                if (1..waits).contains(&link.out.len()) {
                    link.is_taking(Instant::now());
                }
                if let Err(error) = written {
                    tracing::debug!(address = %self.writer.links()[index].address, %error);
                    self.writer.lost(index, Instant::now());
                    // It is opened again with the next look.
                }
            }
        }
    }

    fn complain(&mut self) {
        let Some(complaint) = self.writer.complaint.take() else { return };
        let now = Instant::now();
        if self.complained.is_none_or(|last| now.duration_since(last) >= COMPLAIN_EVERY) {
            self.complained = Some(now);
            tracing::warn!(%complaint, "Kafka");
        }
    }
}

/// Whether a socket is of a link's present connection.
fn is_of(link: &Link, numbered: &Numbered) -> bool {
    link.stage != Stage::Closed && link.count == numbered.count
}

async fn resolve(address: Arc<str>) -> io::Result<Vec<SocketAddr>> {
    Ok(tokio::net::lookup_host(&*address).await?.collect())
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Frames are small and each is waited for.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends as much as goes.
fn write(stream: &TcpStream, link: &mut Link) -> io::Result<()> {
    if link.out.is_empty() {
        return Ok(());
    }
    match stream.try_write(&link.out) {
        Ok(sent) => {
            link.out.drain(..sent);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads until there is nothing more to read. Ready when there will be nothing more.
fn read(
    cx: &mut Context<'_>,
    stream: &mut TcpStream,
    input: &mut Vec<u8>,
    mut heard: impl FnMut(protocol::Answer<'_>) -> Result<(), protocol::Malformed>,
) -> Poll<io::Error> {
    let malformed = |_| io::Error::new(io::ErrorKind::InvalidData, "it said what makes no sense");
    let mut room = [std::mem::MaybeUninit::uninit(); READ_BYTES];
    loop {
        let mut buffer = ReadBuf::uninit(&mut room);
        if let Err(error) = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
            return Poll::Ready(error);
        }
        if buffer.filled().is_empty() {
            return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
        }
        input.extend_from_slice(buffer.filled());
        let mut at = 0;
        loop {
            match protocol::first(&input[at..]).map_err(malformed) {
                Err(error) => return Poll::Ready(error),
                Ok(None) => break,
                Ok(Some((answer, length))) => {
                    if let Err(error) = heard(answer).map_err(malformed) {
                        return Poll::Ready(error);
                    }
                    at += length;
                }
            }
        }
        input.drain(..at);
    }
}
