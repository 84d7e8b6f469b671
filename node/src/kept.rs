//! What comes from outside and changes while a node runs: read, and read again.
//!
//! A Secret that is rotated shows up as another content of a mounted file, an issuer's new key as
//! another answer at its address. What cannot be read or is not sound never replaces what is.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use hyper::Uri;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// How often a file is read: the kubelet takes up to a minute to update it as it is.
const FILE_EVERY: Duration = Duration::from_secs(15);
/// How often an address is asked though nobody misses anything: a key that was withdrawn must
/// not be believed for long.
const URL_EVERY: Duration = Duration::from_secs(300);
/// How soon again after a failure, or because something is missed. A stranger who makes up
/// names of keys makes us ask this often and no more.
const AGAIN: Duration = Duration::from_secs(5);

/// Where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// An address, `https` in a cluster.
    Url(Uri),
}

impl Source {
    fn every(&self) -> Duration {
        match self {
            Self::File(_) => FILE_EVERY,
            Self::Url(_) => URL_EVERY,
        }
    }

    async fn read(&self) -> Result<String, String> {
        match self {
            Self::File(path) => {
                std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
            }
            Self::Url(url) => crate::fetch::text(url).await.map_err(|e| format!("{url}: {e}")),
        }
    }
}

/// A value that is kept up to date.
#[derive(Debug)]
pub struct Kept<T> {
    value: RefCell<Option<Rc<T>>>,
    /// Counts the values, so that what was derived from one can be dropped with it.
    generation: Cell<u64>,
    missed: Notify,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { value: RefCell::new(None), generation: Cell::new(0), missed: Notify::new() }
    }
}

impl<T> Kept<T> {
    /// A value that never changes.
    pub fn fixed(value: T) -> Self {
        let kept = Self::default();
        kept.put(value);
        kept
    }

    /// The value; none before it was read first.
    pub fn get(&self) -> Option<Rc<T>> {
        self.value.borrow().clone()
    }

    /// How often it was replaced.
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Something is not in it that may be by now.
    pub fn miss(&self) {
        self.missed.notify_one();
    }

    fn put(&self, value: T) {
        self.value.replace(Some(Rc::new(value)));
        self.generation.set(self.generation.get() + 1);
    }

    /// As if it had been read anew.
    #[cfg(test)]
    pub(crate) fn put_for_test(&self, value: T) {
        self.put(value);
    }

    /// Takes what was read, if it is another than what was read last and `parse` finds no fault.
    fn take(
        &self,
        news: Result<String, String>,
        last: &mut Option<String>,
        parse: &impl Fn(&str) -> Result<T, String>,
    ) -> Result<(), String> {
        let text = news?;
        if last.as_ref() != Some(&text) {
            self.put(parse(&text)?);
            *last = Some(text);
        }
        Ok(())
    }

    /// Keeps it up to date until the task is ended. `parse` says what is wrong with a content
    /// that must not be used.
    pub async fn keep(self: Rc<Self>, source: Source, parse: impl Fn(&str) -> Result<T, String>) {
        let mut last = None;
        loop {
            let news = source.read().await;
            let asked = Instant::now();
            let next = match self.take(news, &mut last, &parse) {
                Ok(()) => asked + source.every(),
                Err(why) => {
                    tracing::warn!(?source, %why, "what is kept could not be read anew");
                    asked + AGAIN
                }
            };
            if timeout_at(next, self.missed.notified()).await.is_ok() {
                tokio::time::sleep_until(asked + AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_or_cannot_be_read_never_replaces_what_was_right() {
        let kept = Kept::<u32>::default();
        let parse = |text: &str| text.parse().map_err(|e| format!("{e}"));
        let mut last = None;
        let mut seen = |news: Result<&str, &str>| {
            let news = news.map(str::to_owned).map_err(str::to_owned);
            let taken = kept.take(news, &mut last, &parse).is_ok();
            (taken, kept.get().map(|v| *v), kept.generation())
        };
        assert_eq!(seen(Err("not there")), (false, None, 0));
        assert_eq!(seen(Ok("one")), (false, None, 0));
        assert_eq!(seen(Ok("1")), (true, Some(1), 1));
        assert_eq!(seen(Ok("1")), (true, Some(1), 1));
        assert_eq!(seen(Ok("two")), (false, Some(1), 1));
        assert_eq!(seen(Err("gone")), (false, Some(1), 1));
        assert_eq!(seen(Ok("2")), (true, Some(2), 2));
    }
}
