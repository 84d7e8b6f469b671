//! Who used the processors and the memory, from `/proc`.
//!
//! Throughput on a machine that also runs the load says as much of the load as of the server;
//! the time that a process was given says what one request costs it.

use std::collections::BTreeMap;
use std::fs;

use e2e::process::ProcessId;
use e2e::{Error, Result};

/// The kernel tells times in hundredths of a second, whatever it counts in itself.
const TICK_MICROS: f64 = 10_000.0;

/// The time that a process or a thread had.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ticks {
    user: u64,
    kernel: u64,
    /// Of its children that have ended, in both modes.
    ended: u64,
}

/// The time that a process's threads had, by thread id and with their names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Threads(BTreeMap<i32, (String, Ticks)>);

/// Microseconds between two looks at a process.
#[derive(Debug, Clone, Default, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Spent {
    /// All threads.
    pub(crate) micros: f64,
    /// What of it was spent in the kernel.
    pub(crate) kernel_micros: f64,
    /// By name of thread; the first one's is `main`.
    pub(crate) threads: BTreeMap<String, f64>,
}

impl Threads {
    /// What a process's threads have had so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub(crate) fn of(process: ProcessId) -> Result<Self> {
        if !process.alive() {
            let message = format!("process {} ended; the logs of this run say why", process.pid);
            return Err(Error::Refused(message));
        }
        let folder = format!("/proc/{}/task", process.pid);
        let io = |source| Error::Io { what: folder.clone(), source };
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(io)? {
            let path = entry.map_err(io)?.path();
            // A thread may end between the two looks.
            let Ok(stat) = fs::read_to_string(path.join("stat")) else { continue };
            let Some((id, name, ticks)) = parse(&stat) else { continue };
            let name = if id == process.pid { "main".to_owned() } else { name };
            threads.insert(id, (name, ticks));
        }
        Ok(Self(threads))
    }

    /// What the threads of several processes have had so far.
    ///
    /// # Errors
    /// When one of them is gone.
    pub(crate) fn of_all(processes: &[ProcessId]) -> Result<Self> {
        let mut all = Self::default();
        for process in processes {
            all.0.extend(Self::of(*process)?.0);
        }
        Ok(all)
    }

    /// What they had since `before`.
    pub(crate) fn since(&self, before: &Self) -> Spent {
        let mut spent = Spent::default();
        for (id, (name, ticks)) in &self.0 {
            let then = before.0.get(id).map_or(Ticks::default(), |(_, ticks)| *ticks);
            let kernel = micros(ticks.kernel.saturating_sub(then.kernel));
            let both = kernel + micros(ticks.user.saturating_sub(then.user));
            spent.micros += both;
            spent.kernel_micros += kernel;
            *spent.threads.entry(name.clone()).or_default() += both;
        }
        spent
    }
}

/// Microseconds that a process has had so far, in all its threads, ended ones included. With a
/// hundred threads, what is rounded off for each would be a second.
///
/// # Errors
/// When the process is gone.
pub(crate) fn used(process: ProcessId) -> Result<f64> {
    let what = format!("/proc/{}/stat", process.pid);
    let stat = fs::read_to_string(&what).map_err(|source| Error::Io { what, source })?;
    let gone = || Error::Refused(format!("process {} ended; its log says why", process.pid));
    let (_, _, ticks) = parse(&stat).filter(|_| process.alive()).ok_or_else(gone)?;
    Ok(micros(ticks.user + ticks.kernel))
}

/// Ticks of this program's children that have ended.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn ended_children() -> Result<u64> {
    let what = "/proc/self/stat";
    let stat =
        fs::read_to_string(what).map_err(|source| Error::Io { what: what.to_owned(), source })?;
    Ok(parse(&stat).map_or(0, |(_, _, ticks)| ticks.ended))
}

/// Id, name and time, from a line of `/proc/…/stat`.
fn parse(stat: &str) -> Option<(i32, String, Ticks)> {
    // The name is in parentheses and may hold any character, so count from its end.
    let (id, rest) = stat.split_once(" (")?;
    let (name, rest) = rest.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let at = |at: usize| fields.get(at)?.parse::<u64>().ok();
    let ticks = Ticks { user: at(11)?, kernel: at(12)?, ended: at(13)? + at(14)? };
    Some((id.parse().ok()?, name.to_owned(), ticks))
}

/// Bytes of memory that a process has.
///
/// # Errors
/// When the process is gone.
pub(crate) fn resident(process: ProcessId) -> Result<u64> {
    let path = format!("/proc/{}/status", process.pid);
    let status = fs::read_to_string(&path);
    let status = status.map_err(|source| Error::Io { what: path.clone(), source })?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    let kilobytes = line.and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok());
    let missing = || Error::Refused(format!("{path} does not tell VmRSS"));
    kilobytes.map(|kilobytes| kilobytes * 1_024).ok_or_else(missing)
}

/// Ticks that all processors were busy since the machine started.
///
/// # Errors
/// When `/proc/stat` cannot be read.
pub(crate) fn busy() -> Result<u64> {
    let io = |source| Error::Io { what: "/proc/stat".to_owned(), source };
    let stat = fs::read_to_string("/proc/stat").map_err(io)?;
    let line = stat.lines().next().unwrap_or_default();
    // User, nice, system, idle, waiting, interrupts, soft interrupts, stolen. Guests are counted
    // under user already.
    let fields: Vec<u64> = line.split_whitespace().skip(1).flat_map(str::parse).collect();
    let used = |at: &usize| fields.get(*at).copied().unwrap_or(0);
    Ok([0, 1, 2, 5, 6, 7].iter().map(used).sum())
}

/// Ticks as microseconds.
pub(crate) fn micros(ticks: u64) -> f64 {
    ticks as f64 * TICK_MICROS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_s_name_may_hold_what_separates_fields() {
        let line = "42 (rdk:a) b (c) S 1 2 3 4 5 6 7 8 9 10 300 21 3 4 20 0 1 0 99";
        let ticks = Ticks { user: 300, kernel: 21, ended: 7 };
        assert_eq!(parse(line), Some((42, "rdk:a) b (c".to_owned(), ticks)));
    }

    #[test]
    fn a_busy_thread_is_charged_for_its_time_and_memory_is_known() {
        let own = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(resident(own).unwrap() > 100_000);
        let before = Threads::of(own).unwrap();
        let begun = std::time::Instant::now();
        let work = std::thread::Builder::new().name("busy-one".to_owned());
        let work = work.spawn(move || {
            let mut rounds = 0_u64;
            loop {
                rounds = std::hint::black_box(rounds + 1);
                let had = Threads::of(own).unwrap().since(&Threads::default());
                if had.threads.get("busy-one").is_some_and(|micros| *micros >= 100_000.0) {
                    return Threads::of(own).unwrap();
                }
            }
        });
        let spent = work.unwrap().join().unwrap().since(&before);
        assert!(spent.threads["busy-one"] >= 100_000.0);
        // Each of the two modes is rounded by itself.
        let most = begun.elapsed().as_micros() as f64 + 2.0 * TICK_MICROS;
        assert!(spent.threads["busy-one"] <= most);
    }
}
