//! What can go wrong in the bed, said so that the reader knows what to do next.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Why the bed could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file, a socket or a process could not be handled.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system answered.
        source: io::Error,
    },
    /// A program ran and failed.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The program and its arguments.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// Something that must be installed first.
    #[error("{what} is missing; {how}")]
    Missing {
        /// The thing.
        what: String,
        /// How to get it.
        how: String,
    },
    /// Something that was waited for did not come.
    #[error("{what}: not within {seconds} s; {hint}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// Where to look.
        hint: String,
    },
    /// A request that makes no sense in the present state.
    #[error("{0}")]
    Refused(String),
    /// A fault that can only be made on a bed of our own.
    #[error("{0} works on the test bed only, not on an existing cluster")]
    BedOnly(&'static str),
}

/// The result of anything that the bed does.
pub type Result<T> = std::result::Result<T, Error>;

/// Adds to an I/O error what was being done.
pub(crate) trait During<T> {
    /// Names the deed, or the file, that failed.
    fn during(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> During<T> for io::Result<T> {
    fn during(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io { what: what(), source })
    }
}

// Enough for a Go or Maven failure with its cause, and still one screen.
const OUTPUT_SHOWN_MAX: usize = 3_000;

/// The last part of a text, whole characters only.
pub(crate) fn tail(text: &str) -> &str {
    let mut start = text.len().saturating_sub(OUTPUT_SHOWN_MAX);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].trim()
}

/// The last part of a log file, for an error message.
pub(crate) fn tail_of(log: &Path) -> String {
    match std::fs::read(log) {
        Ok(bytes) => tail(&String::from_utf8_lossy(&bytes)).to_owned(),
        Err(error) => format!("{}: {error}", log.display()),
    }
}

/// A command line as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// When it cannot be started, or ends with another status than zero.
pub fn output_of(command: &mut Command) -> Result<String> {
    let out = finished(command)?;
    judged(&shown(command), &out)
}

fn judged(command: &str, out: &Output) -> Result<String> {
    if !out.status.success() {
        let both = [out.stdout.as_slice(), b"\n", out.stderr.as_slice()].concat();
        return Err(Error::Command {
            command: command.to_owned(),
            status: out.status.to_string(),
            output: tail(&String::from_utf8_lossy(&both)).to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs a command to its end with something to read, and returns what it printed.
///
/// # Errors
/// When it cannot be started, stops reading, or ends with another status than zero.
pub fn output_with(command: &mut Command, input: &str) -> Result<String> {
    let shown = shown(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| cannot_start(command, source))?;
    // Taken out, so that it is closed after the last byte and the reader knows the end.
    let pipe = child.stdin.take();
    let written = pipe.map_or(Ok(()), |mut pipe| pipe.write_all(input.as_bytes()));
    let out = child.wait_with_output().during(|| shown.clone())?;
    judged(&shown, &out).and_then(|text| written.during(|| shown).map(|()| text))
}

/// Runs a command to its end, whatever its end is.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn finished(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().map_err(|source| cannot_start(command, source))
}

/// Runs a command with our own terminal and returns its exit code.
///
/// # Errors
/// When it cannot be started.
pub fn status_of(command: &mut Command) -> Result<i32> {
    let status = command.status().map_err(|source| cannot_start(command, source))?;
    Ok(status.code().unwrap_or(1))
}

fn cannot_start(command: &Command, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::NotFound {
        return Error::Missing {
            what: format!("the program {}", command.get_program().to_string_lossy()),
            how: "run `cargo e2e install` as root, or install it by hand".to_owned(),
        };
    }
    Error::Io { what: shown(command), source }
}
