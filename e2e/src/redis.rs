//! A Redis of its own: nothing on disk, reached by TCP and, from outside its namespace, by a
//! socket file.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cache::{remove_tree, write};
use crate::error::{During, Error, Result, tail_of};
use crate::kafka::free_ports;
use crate::process::{KILL_PATIENCE, Launch, Place, ProcessId, Signal, until};

// It starts in tens of milliseconds; the rest is for a machine that is busy building.
const START_PATIENCE: Duration = Duration::from_secs(20);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A running Redis, or one that was stopped and can be started again.
#[derive(Debug, Serialize, Deserialize)]
pub struct Redis {
    folder: PathBuf,
    place: Place,
    host: String,
    port: u16,
    process: Option<ProcessId>,
}

impl Redis {
    /// Starts a Redis on a free port of loopback. It needs no root, and ends when the value is
    /// dropped or this process dies.
    ///
    /// # Errors
    /// When redis-server is missing or does not come up.
    pub fn start() -> Result<Self> {
        let port = free_ports(1)?;
        let folder = std::env::temp_dir().join(format!("stationmaster-redis-{port}"));
        Self::start_at(&folder, &Place::default(), "127.0.0.1", port)
    }

    /// Starts a new, empty Redis at an address.
    ///
    /// # Errors
    /// As for [`Redis::start`].
    pub fn start_at(folder: &Path, place: &Place, host: &str, port: u16) -> Result<Self> {
        remove_tree(folder)?;
        let (folder, place, host) = (folder.to_owned(), place.clone(), host.to_owned());
        let mut redis = Self { folder, place, host, port, process: None };
        redis.start_again()?;
        Ok(redis)
    }

    /// The Redis that an earlier command started in this folder.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(STATE);
        let text = fs::read(&path).map_err(|_| {
            Error::Refused(format!("no Redis was started here: {} is missing", path.display()))
        })?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::Refused(format!("{}: {error}", path.display())))
    }

    /// Its host and port.
    #[must_use]
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Its address as clients write it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}/", self.address())
    }

    /// Its process, if it runs.
    #[must_use]
    pub fn process(&self) -> Option<ProcessId> {
        self.process.filter(|process| process.alive())
    }

    /// Starts it unless it runs; it is empty then, or holds what [`Redis::keep`] kept.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_again(&mut self) -> Result<()> {
        if self.process().is_some() {
            return Ok(());
        }
        let log = self.folder.join("redis.log");
        // No snapshots and no append file: losing Redis must lose nothing that matters.
        let process = Launch::new(&self.place, &log, "redis-server")
            .args(["--bind", &self.host, "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--protected-mode", "no", "--unixsocket", SOCKET])
            .folder(&self.folder)
            .start()?;
        self.process = Some(process);
        self.write_down()?;
        until("Redis answering", START_PATIENCE, &log.display().to_string(), || {
            if !process.alive() {
                return Err(Error::Refused(format!("Redis ended: {}", tail_of(&log))));
            }
            Ok(self.ask("PING").ok().filter(|answer| answer == "+PONG"))
        })
        .map(|_| ())
    }

    /// Stops it, which loses what it holds.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(&self) -> Result<()> {
        self.process.map_or(Ok(()), |process| process.end(STOP_PATIENCE))
    }

    /// Ends it without a word.
    ///
    /// # Errors
    /// When it does not end.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.process.map_or(Ok(()), |process| process.gone_within(KILL_PATIENCE))
    }

    /// Makes it hang: connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Ends a hang.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Empties it.
    ///
    /// # Errors
    /// When it does not run.
    pub fn flush(&self) -> Result<()> {
        match self.ask("FLUSHALL")?.as_str() {
            "+OK" => Ok(()),
            other => Err(Error::Refused(format!("Redis answered FLUSHALL with {other}"))),
        }
    }

    /// Keeps what it holds now, so that it comes back with this when it is started again,
    /// however old it is by then.
    ///
    /// # Errors
    /// When it does not run.
    pub fn keep(&self) -> Result<()> {
        match self.ask("SAVE")?.as_str() {
            "+OK" => Ok(()),
            other => Err(Error::Refused(format!("Redis answered SAVE with {other}"))),
        }
    }

    /// Forgets what was kept.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget(&self) -> Result<()> {
        let path = self.folder.join("dump.rdb");
        match fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other.during(|| path.display().to_string()),
        }
    }

    /// Sends one command and returns the first line of the answer, as Redis writes it.
    ///
    /// # Errors
    /// When it does not answer within a second.
    pub fn ask(&self, command: &str) -> Result<String> {
        let talk = || {
            let mut stream = UnixStream::connect(self.folder.join(SOCKET))?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(format!("{command}\r\n").as_bytes())?;
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer)?;
            Ok(answer.trim_end().to_owned())
        };
        talk().during(|| format!("asking Redis at {}", self.address()))
    }

    /// Ends it and removes its folder.
    ///
    /// # Errors
    /// When that fails.
    pub fn destroy(self) -> Result<()> {
        self.end_for_good()
    }

    fn end_for_good(&self) -> Result<()> {
        self.process().map_or(Ok(()), |_| self.kill())?;
        remove_tree(&self.folder)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let stopped = || Error::Refused("Redis does not run".to_owned());
        self.process().ok_or_else(stopped)?.signal(signal).map(|_| ())
    }

    fn write_down(&self) -> Result<()> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::Refused(format!("writing down Redis: {error}")))?;
        write(&self.folder.join(STATE), text)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // One that outlives us is ended by whoever opens it again.
        if !self.place.outlives_us {
            // Nobody is left to hear of a failure, and the kernel ends the process anyway.
            let _ = self.end_for_good();
        }
    }
}

const STATE: &str = "redis.json";
// Relative to its folder: the path of a socket is limited to 107 bytes.
const SOCKET: &str = "redis.sock";
