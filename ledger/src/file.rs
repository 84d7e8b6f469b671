//! All partitions in one file of one process: local mode's ledger.
//!
//! One thread writes. It takes all appends that wait, writes them at once, syncs them once,
//! and only then tells their fates and shows them to readers; what arrives meanwhile is the
//! next batch. The file is locked while it is open. Opening cuts a torn tail, which nobody was
//! told of, and refuses any other damage by naming the file, the position and what is wrong.
//!
//! After a write or a sync that failed nothing more is written. A failed sync leaves the
//! kernel free to drop the pages and to call them clean, so a later sync that succeeds proves
//! nothing (this is what PostgreSQL learned in 2018 and since then ends itself). Fates that
//! wait are `Unknown`, the log is closed, and opening it again finds out what was kept.

use std::{
    fs::File,
    io,
    num::NonZeroU16,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock, mpsc},
    task::{Context, Poll},
    thread,
};

use crate::{
    Fate, Log, Partition, Record, Refused, Slip, Tail, Torn,
    inbox::{self, Inbox, Outbox, Slot},
    waiting::{Seat, Waiting},
};
use format::{HEADER_BYTES, Header, Place, RECORD_HEADER_BYTES};

mod format;

#[expect(
    clippy::disallowed_types,
    reason = "taken by the writer's thread and by readers, never by an append; held for a push \
              or a bounded copy of places, never over a read or a wait"
)]
type Lock<T> = std::sync::Mutex<T>;

// Eight cores whose shares have hundreds of frames waiting. Each handle has its own bound as
// well; this one keeps the sum of many handles from growing while a disk hangs.
const APPENDS_MAX: usize = 4_096;

// One write of this length takes a slow disk some 100 ms, which is what a buyer in the next
// batch may have to wait.
const BATCH_BYTES_MAX: usize = 8 << 20;

// A reader reads on its own task, so one poll is bounded to what takes about a millisecond
// from the page cache, where a live log's records are.
const POLL_BYTES_MAX: usize = 1 << 20;
const POLL_RECORDS_MAX: usize = 256;

/// Names a ledger: chosen by whoever founds it, checked by nobody here but kept in every
/// record's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 16]);

/// Why a ledger file could not be founded, opened or closed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("{path}: there is no ledger here", path = .0.display())]
    Missing(PathBuf),
    /// Founding would replace a file.
    #[error("{path}: a file is already here", path = .0.display())]
    Exists(PathBuf),
    /// Somebody has it open.
    #[error("{path}: in use by {by}", path = path.display())]
    Held {
        /// The file.
        path: PathBuf,
        /// A process, as well as the system tells.
        by: String,
    },
    /// It is no ledger, or not of a format that this program reads.
    #[error("{path}: not a ledger that can be read: {why}", path = path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A part that was durable is not as it was written. Restore the file from a copy.
    #[error("{path}: damaged at byte {position}: {why}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the first bad record begins.
        position: u64,
        /// What is wrong.
        why: String,
    },
    /// The system refused.
    #[error("{path}: {doing}: {error}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was tried.
        doing: &'static str,
        /// The system's word.
        error: io::Error,
    },
    /// Writing failed at some time while it was open.
    #[error("{path}: {why}", path = path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// The first failure.
        why: String,
    },
}

/// A torn tail that opening cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// The file's new length.
    pub position: u64,
    /// How many bytes were cut.
    pub bytes: u64,
}

/// An open ledger file. Closing or dropping it waits until all accepted appends are durable.
#[derive(Debug)]
pub struct FileLedger {
    shared: Arc<Shared>,
    appends: mpsc::SyncSender<Order>,
    /// None once closed.
    writer: Option<thread::JoinHandle<()>>,
    cut: Option<Cut>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    file: File,
    header: Header,
    partitions: Box<[Lock<Index>]>,
    /// Set once, by the writer: why it ended.
    closed: OnceLock<Closed>,
}

#[derive(Debug)]
enum Closed {
    Orderly,
    Failed(String),
}

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Closed::Orderly => f.write_str("the ledger was closed"),
            Closed::Failed(why) => f.write_str(why),
        }
    }
}

#[derive(Debug)]
struct Index {
    places: Vec<Place>,
    waiting: Waiting,
}

impl Shared {
    fn locked<R>(&self, of: Partition, work: impl FnOnce(&mut Index) -> R) -> Option<R> {
        let lock = self.partitions.get(usize::from(of.0))?;
        // A panic under the lock would be one of push or clone, which leave the index whole.
        let mut index = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Some(work(&mut index))
    }

    fn why_closed(&self) -> String {
        match self.closed.get() {
            Some(closed) => closed.to_string(),
            None => "its writer ended without a word".to_owned(),
        }
    }
}

impl FileLedger {
    /// Founds an empty ledger where no file is, and opens it. When the machine dies meanwhile
    /// there is either a whole header at `path` or nothing.
    ///
    /// # Errors
    /// [`FileError::Exists`], [`FileError::Held`] when another process is founding it now, or
    /// what the system refused.
    pub fn found(
        path: &Path,
        identity: Identity,
        partitions: NonZeroU16,
    ) -> Result<FileLedger, FileError> {
        let failed = |doing| move |error| FileError::Io { path: path.to_owned(), doing, error };
        if path.symlink_metadata().is_ok() {
            return Err(FileError::Exists(path.to_owned()));
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".founding");
        let draft_path = PathBuf::from(name);
        let draft = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&draft_path)
            .map_err(failed("create"))?;
        lock(&draft, &draft_path)?;
        // Whoever held the draft before may have made it the ledger, so look again under the
        // lock before emptying it.
        if path.symlink_metadata().is_ok() {
            return Err(FileError::Exists(path.to_owned()));
        }
        let header = Header { identity, partitions: partitions.get() };
        draft.set_len(0).map_err(failed("empty"))?;
        draft.write_all_at(&header.bytes(), 0).map_err(failed("write"))?;
        draft.sync_all().map_err(failed("sync"))?;
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        renameat_with(CWD, &draft_path, CWD, path, RenameFlags::NOREPLACE).map_err(|error| {
            match error {
                rustix::io::Errno::EXIST => FileError::Exists(path.to_owned()),
                error => failed("rename")(error.into()),
            }
        })?;
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(failed("sync folder of"))?;
        FileLedger::start(path, draft)
    }

    /// Opens a ledger, checks every byte of it, and cuts a torn tail.
    ///
    /// # Errors
    /// Every [`FileError`] but `Exists` and `Failed`. A refused file is left as it was.
    pub fn open(path: &Path) -> Result<FileLedger, FileError> {
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => FileError::Missing(path.to_owned()),
            _ => FileError::Io { path: path.to_owned(), doing: "open", error },
        })?;
        lock(&file, path)?;
        FileLedger::start(path, file)
    }

    fn start(path: &Path, file: File) -> Result<FileLedger, FileError> {
        let failed = |doing| move |error| FileError::Io { path: path.to_owned(), doing, error };
        let disk = file.try_clone().map_err(failed("open"))?;
        FileLedger::start_on(path, file, disk)
    }

    fn start_on<D: Disk>(path: &Path, file: File, mut disk: D) -> Result<FileLedger, FileError> {
        let failed = |doing| move |error| FileError::Io { path: path.to_owned(), doing, error };
        let size = file.metadata().map_err(failed("measure"))?.len();
        let mut head = vec![0; HEADER_BYTES.min(usize::try_from(size).unwrap_or(HEADER_BYTES))];
        file.read_exact_at(&mut head, 0).map_err(failed("read"))?;
        let header =
            Header::read(&head).map_err(|why| FileError::Header { path: path.to_owned(), why })?;
        let scan = format::scan(&file, size, header).map_err(|bad| match bad {
            format::Bad::Io(error) => failed("read")(error),
            format::Bad::Damage { position, why } => {
                FileError::Damaged { path: path.to_owned(), position, why }
            }
        })?;
        let cut = (scan.end < size).then_some(Cut { position: scan.end, bytes: size - scan.end });
        if let Some(cut) = cut {
            tracing::warn!(path = %path.display(), ?cut, "a torn tail was cut");
            file.set_len(cut.position).map_err(failed("cut"))?;
        }
        // What was found may be in the page cache only, and readers are about to act on it.
        // The mark makes it tell a later opening that all of it was durable.
        let mut mark = Vec::new();
        format::push_mark(&mut mark, header.identity, scan.end);
        disk.sync().map_err(failed("sync"))?;
        disk.write_all_at(&mark, scan.end).map_err(failed("write"))?;
        disk.sync().map_err(failed("sync"))?;

        let next = scan.places.iter().map(|places| places.len() as u64).collect();
        let index = |places| Lock::new(Index { places, waiting: Waiting::default() });
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            file,
            header,
            partitions: scan.places.into_iter().map(index).collect(),
            closed: OnceLock::new(),
        });
        let (appends, orders) = mpsc::sync_channel(APPENDS_MAX);
        let end = scan.end + mark.len() as u64;
        let writer = Writer { disk, shared: Arc::clone(&shared), orders, end, next };
        let writer = thread::Builder::new()
            .name("ledger-file".to_owned())
            .spawn(move || writer.run())
            .map_err(failed("start a thread for"))?;
        Ok(FileLedger { shared, appends, writer: Some(writer), cut })
    }

    /// The identity that its founder gave it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.shared.header.identity
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.shared.header.partitions
    }

    /// The torn tail that opening cut off.
    #[must_use]
    pub fn cut(&self) -> Option<Cut> {
        self.cut
    }

    /// A handle of its own fates on this ledger.
    #[must_use]
    pub fn handle(&self) -> FileLog {
        let (outbox, inbox) = inbox::pair();
        FileLog { shared: Arc::clone(&self.shared), appends: self.appends.clone(), outbox, inbox }
    }

    /// Waits until all accepted appends are durable, and gives the lock back. Handles refuse
    /// from then on, and tails end.
    ///
    /// # Errors
    /// [`FileError::Failed`] when some append was not written, now or earlier.
    pub fn close(mut self) -> Result<(), FileError> {
        self.finish();
        match self.shared.closed.get() {
            Some(Closed::Orderly) => Ok(()),
            _ => Err(FileError::Failed {
                path: self.shared.path.clone(),
                why: self.shared.why_closed(),
            }),
        }
    }

    fn finish(&mut self) {
        if let Some(writer) = self.writer.take() {
            // A writer that is gone already needs no word to go, and its panic was printed.
            let _ = self.appends.send(Order::Close);
            let _ = writer.join();
        }
    }
}

impl Drop for FileLedger {
    fn drop(&mut self) {
        self.finish();
    }
}

fn lock(file: &File, path: &Path) -> Result<(), FileError> {
    file.try_lock().map_err(|error| match error {
        std::fs::TryLockError::WouldBlock => {
            FileError::Held { path: path.to_owned(), by: holder(file) }
        }
        std::fs::TryLockError::Error(error) => {
            FileError::Io { path: path.to_owned(), doing: "lock", error }
        }
    })
}

/// Whoever holds the lock, as far as the system tells.
fn holder(file: &File) -> String {
    let pid = || -> Option<u32> {
        let inode = file.metadata().ok()?.ino().to_string();
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        // A line reads "1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF".
        locks.lines().find_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, "FLOCK", _, _, pid, place, ..] = words[..] else { return None };
            (place.rsplit(':').next()? == inode).then(|| pid.parse().ok())?
        })
    };
    match pid() {
        Some(pid) if pid == std::process::id() => "this process".to_owned(),
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({name})", name = name.trim())
        }
        None => "another process".to_owned(),
    }
}

/// What the writer needs of a disk; tests give it one that fails.
trait Disk: Send + 'static {
    fn write_all_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn unlock(&mut self);
}

impl Disk for File {
    fn write_all_at(&mut self, bytes: &[u8], position: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, position)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn unlock(&mut self) {
        // Readers may keep the file open, so the lock would outlive the writer. If this fails
        // it is given back when they go.
        let _ = File::unlock(self);
    }
}

#[derive(Debug)]
enum Order {
    Append { to: Partition, frame: Vec<u8>, ticket: Ticket },
    Close,
}

/// The right to tell one fate. Dropping it tells `Unknown`, so a fate always comes.
#[derive(Debug)]
struct Ticket {
    slot: Slot,
    outbox: Outbox,
    told: bool,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.told {
            self.outbox.tell(self.slot, Fate::Unknown);
        }
    }
}

struct Writer<D: Disk> {
    disk: D,
    shared: Arc<Shared>,
    orders: mpsc::Receiver<Order>,
    /// Where the next batch goes.
    end: u64,
    /// The next offset of each partition.
    next: Vec<u64>,
}

/// Appends that are written and synced together.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    appends: Vec<(Partition, u64, Place, Ticket)>,
}

impl<D: Disk> Writer<D> {
    fn run(mut self) {
        let closed = match self.write_until_closed() {
            Ok(()) => Closed::Orderly,
            Err((doing, error)) => {
                tracing::error!(path = %self.shared.path.display(), doing, %error,
                    "the ledger file is closed for good");
                Closed::Failed(format!("could not {doing} the ledger file: {error}"))
            }
        };
        // First the reason, then the wakers: a tail looks for the reason before it waits.
        let _ = self.shared.closed.set(closed);
        for lock in &self.shared.partitions {
            let mut index = lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            index.waiting.wake_all();
        }
        self.disk.unlock();
    }

    fn write_until_closed(&mut self) -> Result<(), (&'static str, io::Error)> {
        let mut group = Group::default();
        let mut open = true;
        while open {
            match self.orders.recv() {
                Ok(Order::Append { to, frame, ticket }) => self.add(&mut group, to, &frame, ticket),
                Ok(Order::Close) | Err(mpsc::RecvError) => open = false,
            }
            // What was accepted before the end is still written, so this drains in any case.
            loop {
                while group.bytes.len() < BATCH_BYTES_MAX {
                    match self.orders.try_recv() {
                        Ok(Order::Append { to, frame, ticket }) => {
                            self.add(&mut group, to, &frame, ticket);
                        }
                        Ok(Order::Close) => open = false,
                        Err(_) => break,
                    }
                }
                if group.appends.is_empty() {
                    break;
                }
                self.commit(&mut group)?;
                if open {
                    break;
                }
            }
        }
        let mut mark = Vec::new();
        format::push_mark(&mut mark, self.shared.header.identity, self.end);
        self.disk.write_all_at(&mark, self.end).map_err(|error| ("write", error))?;
        self.disk.sync().map_err(|error| ("sync", error))
    }

    fn add(&mut self, group: &mut Group, to: Partition, frame: &[u8], ticket: Ticket) {
        // The handle has checked that the partition exists.
        let Some(next) = self.next.get_mut(usize::from(to.0)) else { return };
        let offset = *next;
        *next += 1;
        let identity = self.shared.header.identity;
        let place = format::push_record(&mut group.bytes, identity, self.end, (to, offset), frame);
        group.appends.push((to, offset, place, ticket));
    }

    fn commit(&mut self, group: &mut Group) -> Result<(), (&'static str, io::Error)> {
        self.disk.write_all_at(&group.bytes, self.end).map_err(|error| ("write", error))?;
        self.disk.sync().map_err(|error| ("sync", error))?;
        self.end += group.bytes.len() as u64;
        group.bytes.clear();
        // Readers see a record before its writer hears of it, so that whoever acts on a fate
        // finds the record there.
        for (to, _, place, _) in &group.appends {
            self.shared.locked(*to, |index| {
                index.places.push(*place);
                index.waiting.wake_all();
            });
        }
        for (_, offset, _, mut ticket) in group.appends.drain(..) {
            ticket.told = true;
            ticket.outbox.tell(ticket.slot, Fate::At(offset));
        }
        Ok(())
    }
}

/// A handle on a ledger file.
#[derive(Debug)]
pub struct FileLog {
    shared: Arc<Shared>,
    appends: mpsc::SyncSender<Order>,
    outbox: Outbox,
    inbox: Inbox,
}

impl Log for FileLog {
    type Tail = FileTail;

    fn append(&mut self, to: Partition, slip: Slip, frame: &[u8]) -> Result<(), Refused> {
        if to.0 >= self.shared.header.partitions {
            return Err(Refused::NoPartition(to));
        }
        if let Some(closed) = self.shared.closed.get() {
            return Err(Refused::Closed(closed.to_string()));
        }
        let slot = self.inbox.admit(slip, frame.len())?;
        let ticket = Ticket { slot, outbox: self.outbox.clone(), told: false };
        let order = Order::Append { to, frame: frame.to_vec(), ticket };
        let (refused, order) = match self.appends.try_send(order) {
            Ok(()) => return Ok(()),
            Err(mpsc::TrySendError::Full(order)) => (Refused::Full, order),
            Err(mpsc::TrySendError::Disconnected(order)) => {
                (Refused::Closed(self.shared.why_closed()), order)
            }
        };
        if let Order::Append { mut ticket, .. } = order {
            ticket.told = true;
        }
        self.inbox.withdraw(slot);
        Err(refused)
    }

    fn poll_fates(&mut self, cx: &mut Context<'_>, out: &mut Vec<(Slip, Fate)>) -> Poll<()> {
        self.inbox.poll(cx, out)
    }

    fn tail(&self, of: Partition, from: u64) -> FileTail {
        FileTail::open(&self.shared, of, |_| from)
    }

    fn tail_from_end(&self, of: Partition) -> FileTail {
        FileTail::open(&self.shared, of, |index| index.places.len() as u64)
    }

    fn end(
        &self,
        of: Partition,
    ) -> impl Future<Output = Result<u64, Torn>> + Send + 'static + use<> {
        let end = self.shared.locked(of, |index| index.places.len() as u64);
        std::future::ready(end.ok_or_else(|| no_partition(of)))
    }
}

fn no_partition(of: Partition) -> Torn {
    Torn::Failed(Refused::NoPartition(of).to_string())
}

/// A reader of a ledger file. It reads on the task that polls it.
#[derive(Debug)]
pub struct FileTail {
    shared: Arc<Shared>,
    of: Partition,
    next: u64,
    /// None if the partition does not exist.
    seat: Option<Seat>,
    torn: Option<Torn>,
    /// The places of one poll; kept to spare an allocation.
    places: Vec<Place>,
    bytes: Vec<u8>,
}

impl FileTail {
    fn open(shared: &Arc<Shared>, of: Partition, from: impl FnOnce(&Index) -> u64) -> FileTail {
        let place = shared.locked(of, |index| (from(index), index.waiting.enter()));
        let (next, seat) = place.map_or((0, None), |(next, seat)| (next, Some(seat)));
        FileTail {
            shared: Arc::clone(shared),
            of,
            next,
            seat,
            torn: None,
            places: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Puts the places that one poll reads into `self.places`; waits where there are none.
    fn find(&mut self, seat: Seat, cx: &Context<'_>) -> Result<(), Torn> {
        let FileTail { shared, of, next, places, .. } = self;
        let found = shared.locked(*of, |index| {
            let skip = usize::try_from(*next).unwrap_or(usize::MAX);
            let Some(ahead) = index.places.get(skip..) else {
                return Err(Torn::OutOfRange { partition: *of, from: *next });
            };
            let mut bytes = 0;
            places.clear();
            places.extend(ahead.iter().take(POLL_RECORDS_MAX).take_while(|place| {
                let fits = bytes < POLL_BYTES_MAX;
                bytes += place.frame_bytes as usize;
                fits
            }));
            if places.is_empty() {
                if let Some(closed) = shared.closed.get() {
                    return Err(Torn::Failed(closed.to_string()));
                }
                index.waiting.wait(seat, cx);
            }
            Ok(())
        });
        found.unwrap_or_else(|| Err(no_partition(*of)))
    }

    fn read(&mut self, out: &mut Vec<Record>) -> Result<(), Torn> {
        for place in &self.places {
            self.bytes.resize(RECORD_HEADER_BYTES + place.frame_bytes as usize, 0);
            let path = self.shared.path.display();
            let position = place.position;
            let wrong = |why: &dyn std::fmt::Display| {
                Torn::Failed(format!("{path}: cannot read the record at byte {position}: {why}"))
            };
            let read = self.shared.file.read_exact_at(&mut self.bytes, position);
            read.map_err(|error| wrong(&error))?;
            let identity = self.shared.header.identity;
            let (head, frame) =
                format::read_record(&self.bytes, identity, position).map_err(|why| wrong(&why))?;
            if head.partition != self.of.0 || head.offset != self.next {
                return Err(wrong(&"it is another record"));
            }
            out.push(Record { partition: self.of, offset: self.next, bytes: frame.to_vec() });
            self.next += 1;
        }
        Ok(())
    }
}

impl Tail for FileTail {
    fn poll_records(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Vec<Record>,
    ) -> Poll<Result<(), Torn>> {
        if let Some(torn) = &self.torn {
            return Poll::Ready(Err(torn.clone()));
        }
        let Some(seat) = self.seat else {
            return Poll::Ready(Err(no_partition(self.of)));
        };
        match self.find(seat, cx).and_then(|()| self.read(out)) {
            Ok(()) if self.places.is_empty() => Poll::Pending,
            Ok(()) => Poll::Ready(Ok(())),
            Err(torn) => {
                self.torn = Some(torn.clone());
                Poll::Ready(Err(torn))
            }
        }
    }
}

impl Drop for FileTail {
    fn drop(&mut self) {
        if let Some(seat) = self.seat {
            self.shared.locked(self.of, |index| index.waiting.leave(seat));
        }
    }
}

#[cfg(test)]
mod tests;
