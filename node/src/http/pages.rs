//! Pages that are the same for everybody, kept for a moment.
//!
//! They say what the board says, which has news every 50 ms, and are asked for thousands of times
//! in between. A page is given out for [`KEPT_MS`] as it was written; what it says of its age
//! stays true, since it has the time at which it was written.

use std::cell::RefCell;
use std::collections::HashMap;

use bytes::Bytes;
use hyper::Request;
use hyper::header::HeaderValue;
use inventory::owner::Now;
use inventory::words::Millis;
use serde::Serialize;

use super::problem::Problem;
use super::runs::time;
use super::{Reply, tag_of, tagged};

/// Milliseconds for which a page is given out, at most.
const KEPT_MS: u64 = 200;
/// Bytes of pages and of what they are asked by. Whoever asks for a thousand journeys, or for one
/// in a thousand spellings, gets what is written for nobody else.
const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Seconds for which a browser or CDN may answer for us.
const MAX_AGE: &str = "public, max-age=3";

/// A page's content, which says when it was so.
pub(crate) trait Dated: Serialize {
    /// Sets the time, RFC 3339.
    fn date(&mut self, time: &str);
}

#[derive(Debug)]
struct Page {
    tag: HeaderValue,
    text: Bytes,
}

impl Page {
    /// The tag leaves the time out: it changes when a count does.
    fn written<T: Dated>(mut content: T, at: Millis) -> Result<Self, Problem> {
        let unwritable = |_| Problem::busy("answer");
        content.date("");
        let undated = serde_json::to_vec(&content).map_err(unwritable)?;
        content.date(&time(at));
        let mut text = Vec::with_capacity(undated.len() + undated.len() / 8);
        serde_json::to_writer(&mut text, &content).map_err(unwritable)?;
        Ok(Self { tag: tag_of(&undated), text: text.into() })
    }

    fn reply<B>(&self, request: &Request<B>) -> Reply {
        let text = || self.text.clone();
        tagged(request.headers(), &self.tag, MAX_AGE, "application/json", text)
    }
}

/// What was written lately.
#[derive(Debug, Default)]
pub(crate) struct Pages(RefCell<Kept>);

/// All of it goes at once, so that nothing has to be looked through for what is old.
#[derive(Debug, Default)]
struct Kept {
    since: Millis,
    bytes: usize,
    pages: HashMap<Box<str>, Page>,
}

impl Pages {
    /// The page at the request's path and query: as it was written lately, else as `write` says.
    /// What fails is not kept.
    pub(crate) fn give<B, T: Dated>(
        &self,
        request: &Request<B>,
        now: Now,
        write: impl FnOnce() -> Result<T, Problem>,
    ) -> Result<Reply, Problem> {
        let asked = request.uri().path_and_query().map_or("", |asked| asked.as_str());
        let mut kept = self.0.borrow_mut();
        if now.mono.since(kept.since) >= KEPT_MS {
            kept.pages.clear();
            (kept.since, kept.bytes) = (now.mono, 0);
        } else if let Some(page) = kept.pages.get(asked) {
            return Ok(page.reply(request));
        }
        let page = Page::written(write()?, now.wall)?;
        let reply = page.reply(request);
        let bytes = kept.bytes.saturating_add(asked.len() + page.text.len());
        if bytes <= KEPT_BYTES_MAX {
            kept.bytes = bytes;
            kept.pages.insert(asked.into(), page);
        }
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use hyper::header;

    use super::*;

    #[derive(Serialize)]
    struct Count {
        free: usize,
        at: String,
    }

    impl Dated for Count {
        fn date(&mut self, time: &str) {
            time.clone_into(&mut self.at);
        }
    }

    fn at(ms: u64) -> Now {
        Now { wall: Millis(1_800_000_000_000 + ms), mono: Millis(86_400_000 + ms) }
    }

    fn ask(uri: &str) -> Request<()> {
        Request::get(uri).body(()).unwrap()
    }

    fn tag(reply: &Reply) -> String {
        reply.headers()[header::ETAG].to_str().unwrap().to_owned()
    }

    fn free(free: usize) -> Result<Count, Problem> {
        Ok(Count { free, at: String::new() })
    }

    #[test]
    fn a_page_is_written_once_in_a_while() {
        let pages = Pages::default();
        let mut written = 0;
        let mut give = |uri, ms| {
            let write = || {
                written += 1;
                free(written)
            };
            tag(&pages.give(&ask(uri), at(ms), write).unwrap())
        };
        let first = give("/v1/runs?from=A", 1);
        assert_eq!(give("/v1/runs?from=A", KEPT_MS), first);
        assert_ne!(give("/v1/runs?from=B", KEPT_MS), first, "another page");
        assert_ne!(give("/v1/runs?from=A", KEPT_MS + 1), first, "too old");
        assert_eq!(written, 3);
    }

    #[test]
    fn whoever_knows_what_it_says_is_not_told_again_until_that_changes() {
        let known = tag(&Pages::default().give(&ask("/"), at(0), || free(1)).unwrap());
        let asked = Request::get("/").header(header::IF_NONE_MATCH, known).body(()).unwrap();
        let again = |count, ms| Pages::default().give(&asked, at(ms), || free(count)).unwrap();
        assert_eq!(again(1, 5_000).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again(2, 5_000).status(), StatusCode::OK);
    }

    #[test]
    fn a_failure_is_not_kept_nor_what_there_is_no_room_for() {
        let pages = Pages::default();
        let busy = pages.give(&ask("/"), at(0), || Err::<Count, _>(Problem::busy("starting")));
        assert_eq!(busy.map(|_| ()).unwrap_err().into_reply().status().as_u16(), 503);
        let large = "x".repeat(KEPT_BYTES_MAX / 4);
        for spelling in 0..8 {
            pages.give(&ask("/"), at(0), || free(1)).unwrap();
            let uri = format!("/?{spelling}");
            let text = Count { free: 1, at: String::new() };
            let write = || Ok(Padded { text, padding: &large });
            pages.give(&ask(&uri), at(0), write).unwrap();
        }
        let kept = pages.0.borrow();
        assert!(kept.bytes <= KEPT_BYTES_MAX && kept.pages.len() == 4, "{}", kept.pages.len());
    }

    #[derive(Serialize)]
    struct Padded<'a> {
        text: Count,
        padding: &'a str,
    }

    impl Dated for Padded<'_> {
        fn date(&mut self, time: &str) {
            self.text.date(time);
        }
    }
}
