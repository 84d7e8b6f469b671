//! Processes of the bed: started so that they keep their pid, and ended by it.
//!
//! A pid alone names nothing for long: it wraps within an hour on a busy machine. So a process
//! is known by its pid and its start time, and is signalled through a pidfd, which cannot pass
//! to a successor between the look and the signal.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::error::{During, Error, Result};

pub use rustix::process::Signal;

/// A process, distinguishable from any later one with the same pid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    /// The pid as seen from this namespace.
    pub pid: i32,
    /// When it started, in the kernel's ticks since boot.
    pub started: u64,
}

impl ProcessId {
    /// The process that has this pid now, unless there is none or it is only a zombie.
    #[must_use]
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name is in parentheses and may hold any character, so count from its end.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, threads, started) = (*fields.first()?, *fields.get(17)?, *fields.get(19)?);
        // A killed program whose first thread ended sooner than the others still holds its
        // ports and files: it looks like a zombie, but one with more than one thread.
        let ended = matches!(state, "Z" | "X" | "x") && matches!(threads, "0" | "1");
        Some(Self { pid, started: started.parse().ok()? }).filter(|_| !ended)
    }

    /// Whether this very process still runs.
    #[must_use]
    pub fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal; false if the process is already gone.
    ///
    /// # Errors
    /// When the signal is not permitted.
    pub fn signal(self, signal: Signal) -> Result<bool> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(false) };
        let sent = pidfd_open(pid, PidfdFlags::empty()).and_then(|handle| {
            // The handle was opened first: if the start time fits now, it is this process's.
            if self.alive() { pidfd_send_signal(handle, signal).map(|()| true) } else { Ok(false) }
        });
        match sent {
            Err(Errno::SRCH) => Ok(false),
            other => other
                .map_err(io::Error::from)
                .during(|| format!("sending {signal:?} to process {}", self.pid)),
        }
    }

    /// Waits until the process is gone.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub fn gone_within(self, patience: Duration) -> Result<()> {
        until(&format!("the end of process {}", self.pid), patience, "is it stuck in I/O?", || {
            Ok((!self.alive()).then_some(()))
        })
    }

    /// Asks the process to end, and kills it when it has not ended after `patience`.
    ///
    /// # Errors
    /// When it survives even that.
    pub fn end(self, patience: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        if self.gone_within(patience).is_err() {
            self.signal(Signal::KILL)?;
            self.gone_within(KILL_PATIENCE)?;
        }
        Ok(())
    }
}

// A killed process is gone in milliseconds unless the disk or the machine is in trouble.
pub(crate) const KILL_PATIENCE: Duration = Duration::from_secs(10);

// Short against everything that is waited for here, and a few hundred looks cost nothing.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until `probe` finds something.
///
/// # Errors
/// The probe's own, or [`Error::Late`] after `patience`.
pub fn until<T>(
    what: &str,
    patience: Duration,
    hint: &str,
    mut probe: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe()? {
            return Ok(found);
        }
        if begun.elapsed() >= patience {
            return Err(Error::Late {
                what: what.to_owned(),
                seconds: patience.as_secs(),
                hint: hint.to_owned(),
            });
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// Where a process runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The file that names its network namespace; without one, ours.
    pub netns: Option<PathBuf>,
    /// The `cgroup.procs` that it enters first, so that all its descendants can be found.
    pub cgroup_procs: Option<PathBuf>,
    /// Whether it lives on after this program. If not, the kernel kills it when we end,
    /// however we end: a test that is killed leaves nothing running.
    pub outlives_us: bool,
}

/// A process about to be started.
#[derive(Debug)]
pub struct Launch {
    place: Place,
    mounts_of: Option<i32>,
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    log: PathBuf,
}

impl Launch {
    /// A program that will write what it says to `log`.
    #[must_use]
    pub fn new(place: &Place, log: &Path, program: impl AsRef<OsStr>) -> Self {
        Self {
            place: place.clone(),
            mounts_of: None,
            words: vec![program.as_ref().to_owned()],
            env: Vec::new(),
            folder: None,
            log: log.to_owned(),
        }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, args: I) -> Self {
        self.words.extend(args.into_iter().map(|word| word.as_ref().to_owned()));
        self
    }

    /// Adds one argument that is a prefix and a path.
    #[must_use]
    pub fn arg_path(mut self, prefix: &str, path: &Path) -> Self {
        let mut word = OsString::from(prefix);
        word.push(path);
        self.words.push(word);
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The folder that it starts in.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_owned());
        self
    }

    /// Enters the mount namespace of a running process.
    #[must_use]
    pub fn with_mounts_of(mut self, process: ProcessId) -> Self {
        self.mounts_of = Some(process.pid);
        self
    }

    /// Starts it. Each wrapper replaces itself by the next, so the pid is the program's own.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not be started.
    pub fn start(self) -> Result<ProcessId> {
        let mut words: Vec<OsString> = Vec::new();
        let mut wrap = |wrapper: &[&OsStr]| words.extend(wrapper.iter().map(|&w| w.to_owned()));
        if self.place.outlives_us {
            wrap(&["setsid".as_ref()]);
        } else {
            wrap(&["setpriv".as_ref(), "--pdeathsig".as_ref(), "KILL".as_ref()]);
        }
        if let Some(procs) = &self.place.cgroup_procs {
            // One shell, which enters the group itself: nothing can escape in between. What stands
            // for other machines does not wait for what else this one does, where the kernel
            // weighs sessions.
            let enter = r#"echo $$ > "$0" || exit; { echo -10 > /proc/self/autogroup; } 2>&-; "#;
            let enter = format!(r#"{enter} exec "$@""#);
            wrap(&["sh".as_ref(), "-c".as_ref(), enter.as_ref(), procs.as_os_str()]);
        }
        let (mounts, net) = (
            self.mounts_of.map(|pid| OsString::from(format!("--mount=/proc/{pid}/ns/mnt"))),
            self.place
                .netns
                .as_ref()
                .map(|path| OsString::from(format!("--net={}", path.display()))),
        );
        if mounts.is_some() || net.is_some() {
            wrap(&["nsenter".as_ref()]);
            mounts.iter().chain(&net).for_each(|word| wrap(&[word]));
        }
        words.extend(self.words);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).envs(self.env).stdin(Stdio::null());
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let log = open_log(&self.log)?;
        let twin = log.try_clone().during(|| self.log.display().to_string())?;
        command.stdout(log).stderr(twin);
        spawn(command)
    }
}

fn open_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).during(|| folder.display().to_string())?;
    }
    OpenOptions::new().create(true).append(true).open(path).during(|| path.display().to_string())
}

type Spawned = io::Result<Child>;

/// The thread that starts all processes. The kernel's "kill me when my parent dies" means the
/// parent *thread*, and a test's thread ends long before the processes that its neighbours use.
fn spawner() -> &'static SyncSender<(Command, SyncSender<Spawned>)> {
    static SPAWNER: OnceLock<SyncSender<(Command, SyncSender<Spawned>)>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        // One: a sender waits for its answer anyway.
        let (sender, orders) = sync_channel::<(Command, SyncSender<Spawned>)>(1);
        thread::spawn(move || {
            for (mut command, answer) in orders {
                // The asker waits for this answer; if it was killed meanwhile, nobody needs it.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    })
}

fn spawn(command: Command) -> Result<ProcessId> {
    let shown = crate::error::shown(&command);
    let (answer, spawned) = sync_channel(1);
    let asked = spawner().send((command, answer)).map_err(|_| io::ErrorKind::BrokenPipe.into());
    let child = asked
        .and_then(|()| spawned.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())));
    let mut child = child.during(|| shown.clone())?;
    let pid = i32::try_from(child.id()).map_err(|_| Error::Refused("no such pid".to_owned()))?;
    // Read before anybody waits for it: even a process that has ended keeps its pid until then.
    let id = ProcessId::of(pid);
    // A thread for each: without it, ended processes stay as zombies and hold their cgroups.
    thread::spawn(move || child.wait());
    id.ok_or_else(|| Error::Refused(format!("`{shown}` ended at once")))
}

/// Runs `work` on a thread of its own inside a network namespace: its sockets belong there.
///
/// # Errors
/// When the namespace cannot be entered (that needs root).
pub fn within<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
    use std::os::fd::AsFd;
    let handle = File::open(netns).during(|| netns.display().to_string())?;
    thread::scope(|scope| {
        let inside = scope.spawn(|| {
            move_into_link_name_space(handle.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(io::Error::from)
                .during(|| format!("entering {}", netns.display()))?;
            Ok(work())
        });
        inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether we are root.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(outlives_us: bool) -> ProcessId {
        let log = std::env::temp_dir().join(format!("e2e-sleeper-{}.log", std::process::id()));
        let place = Place { outlives_us, ..Place::default() };
        let id = Launch::new(&place, &log, "sleep").args(["1000"]).start().unwrap();
        let _ = fs::remove_file(log);
        id
    }

    #[test]
    fn a_process_that_is_told_to_end_is_gone() {
        let id = sleeper(true);
        assert!(id.alive());
        id.end(KILL_PATIENCE).unwrap();
        assert!(!id.alive());
    }

    #[test]
    fn a_successor_with_the_same_pid_is_never_signalled() {
        let id = sleeper(false);
        let former = ProcessId { started: id.started - 1, ..id };
        assert!(!former.signal(Signal::KILL).unwrap());
        assert!(id.alive());
        assert!(id.signal(Signal::KILL).unwrap());
        id.gone_within(KILL_PATIENCE).unwrap();
        assert!(!id.signal(Signal::KILL).unwrap());
    }

    #[test]
    fn processes_outlive_the_thread_that_asked_for_them() {
        let id = thread::spawn(|| sleeper(false)).join().unwrap();
        assert!(id.alive());
        id.end(KILL_PATIENCE).unwrap();
    }
}
