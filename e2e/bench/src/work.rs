//! Processes and waiting: everything that was started ends with this program, and every wait
//! ends when a person asks for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use e2e::process::{Launch, Place, ProcessId, Signal, until};
use e2e::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

/// A killed process is gone in milliseconds unless the machine is in trouble.
const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// Whether somebody asked this program to end.
#[derive(Debug)]
pub(crate) struct Stop(Receiver<()>);

impl Stop {
    /// Hears SIGINT and SIGTERM from now on. Without this an interrupt would leave the folders
    /// of the engines behind.
    ///
    /// # Errors
    /// When no thread can be started for it.
    pub(crate) fn listen() -> Result<Self> {
        // One: the first word is enough.
        let (tell, heard) = sync_channel(1);
        let listener = std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut terminate = signal(SignalKind::terminate())?;
                let mut interrupt = signal(SignalKind::interrupt())?;
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                // Nobody listens any more only when the program is about to end anyway.
                let _ = tell.try_send(());
                std::io::Result::Ok(())
            })
        });
        listener.map_err(|source| Error::Io { what: "a thread for signals".to_owned(), source })?;
        Ok(Self(heard))
    }

    fn check(&self) -> Result<()> {
        match self.0.try_recv() {
            Ok(()) => Err(Error::Refused("interrupted".to_owned())),
            Err(_) => Ok(()),
        }
    }
}

/// What all parts need: where programs lie, where to write, and whether to go on.
#[derive(Debug)]
pub(crate) struct Site {
    /// The folder of `make programs`.
    programs: PathBuf,
    /// Configurations and logs of this run.
    pub(crate) folder: PathBuf,
    stop: Stop,
}

impl Site {
    /// A new, empty folder for a run.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn new(programs: PathBuf, folder: PathBuf, stop: Stop) -> Result<Self> {
        let io = |source| Error::Io { what: folder.display().to_string(), source };
        // Logs are appended to, so that those of an earlier run must go.
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
            _ => fs::create_dir_all(&folder).map_err(io)?,
        }
        Ok(Self { programs, folder, stop })
    }

    /// A program of this workspace.
    ///
    /// # Errors
    /// When it was not built.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.programs.join(name);
        if path.exists() {
            return Ok(path);
        }
        let how = "run `make programs`".to_owned();
        Err(Error::Missing { what: path.display().to_string(), how })
    }

    /// A file of this run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) -> Result<PathBuf> {
        let path = self.folder.join(name);
        let io = |source| Error::Io { what: path.display().to_string(), source };
        fs::write(&path, text).map_err(io)?;
        Ok(path)
    }

    /// A program that will say what it has to say into a log of this run.
    pub(crate) fn launch(&self, log: &str, program: &Path) -> Launch {
        Launch::new(&Place::default(), &self.folder.join(log), program)
    }

    /// Runs a program to its end, or for `patience`; what it said.
    ///
    /// # Errors
    /// When it cannot be started or takes too long. How it ended is in what it said.
    pub(crate) fn run(&self, log: &str, launch: Launch, patience: Duration) -> Result<String> {
        self.ended(&Running::start(launch)?, log, patience)
    }

    /// Waits until a process has ended by itself; what it said.
    ///
    /// # Errors
    /// When it takes longer than `patience`.
    pub(crate) fn ended(&self, process: &Running, log: &str, patience: Duration) -> Result<String> {
        let path = self.folder.join(log);
        let hint = path.display().to_string();
        // Gone and not only ended: its time is charged to us when it was waited for.
        let entry = PathBuf::from(format!("/proc/{}", process.0.pid));
        self.until(&format!("the end of {log}"), patience, &hint, || {
            Ok((!process.0.alive() && !entry.exists()).then_some(()))
        })?;
        fs::read_to_string(&path).map_err(|source| Error::Io { what: hint, source })
    }

    /// Looks until `probe` finds something, nobody has patience left, or somebody says stop.
    ///
    /// # Errors
    /// The probe's own, or that it took too long.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        hint: &str,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        until(what, patience, hint, || {
            self.stop.check()?;
            probe()
        })
    }
}

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) ProcessId);

impl Running {
    /// Starts it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(launch: Launch) -> Result<Self> {
        launch.start().map(Self)
    }

    /// Ends it without a word, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub(crate) fn kill(self) -> Result<()> {
        self.0.signal(Signal::KILL)?;
        self.0.gone_within(KILL_PATIENCE)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nobody is left to hear of a failure, and the kernel ends it when this program ends.
        let _ = self.0.signal(Signal::KILL);
    }
}
