//! The buyer's page: a few files that are part of the program.
//!
//! Nothing in them depends on who asks, so that a CDN can answer for every node: `/` for a
//! minute, and what it loads for ever, since the path of that holds a hash of all files.

use std::io::Write as _;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};

use super::problem::Problem;
use super::{Reply, is_known};

/// No markup, script or style but our own files; no frame around the page, no form that leaves
/// it. Scripts cannot make markup from text at all.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'";
/// A new version reaches buyers within a minute; until then the old one works.
const SHORT: &str = "public, max-age=60";
/// The path names the content.
const LONG: &str = "public, max-age=31536000, immutable";
/// While nodes of two versions run, a page of one may ask the other for its files: it gets
/// those that there are, and nobody keeps them.
const NEVER: &str = "no-store";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

const INDEX: &str = include_str!("../../page/index.html");
/// What `/` loads: name, type, content.
const ASSETS: [(&str, &str, &str); 6] = [
    ("app.js", SCRIPT, include_str!("../../page/app.js")),
    ("shop.js", SCRIPT, include_str!("../../page/shop.js")),
    ("en.js", SCRIPT, include_str!("../../page/en.js")),
    ("zh.js", SCRIPT, include_str!("../../page/zh.js")),
    ("page.css", STYLE, include_str!("../../page/page.css")),
    ("icon.svg", PICTURE, include_str!("../../page/icon.svg")),
];

/// A file, ready to be sent.
#[derive(Debug)]
pub(super) struct File {
    kind: &'static str,
    plain: Bytes,
    zipped: Bytes,
}

impl File {
    pub(super) fn new(kind: &'static str, text: String) -> Self {
        let mut zip = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to a Vec cannot fail; were it to, the file would be sent as it is.
        let zipped = zip.write_all(text.as_bytes()).and_then(|()| zip.finish()).unwrap_or_default();
        Self { kind, plain: text.into(), zipped: zipped.into() }
    }

    /// The file as an answer, zipped for whoever can read that.
    pub(super) fn reply(&self, asked: &HeaderMap, keep: &'static str) -> Reply {
        let zip = takes_gzip(asked) && !self.zipped.is_empty();
        let mut reply = Reply::new(if zip { &self.zipped } else { &self.plain }.clone());
        let headers = reply.headers_mut();
        if zip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        for (name, value) in [
            (header::CONTENT_TYPE, self.kind),
            (header::CACHE_CONTROL, keep),
            (header::VARY, "Accept-Encoding"),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        reply
    }
}

fn takes_gzip(asked: &HeaderMap) -> bool {
    let all = asked.get_all(header::ACCEPT_ENCODING).iter().filter_map(|v| v.to_str().ok());
    all.flat_map(|v| v.split(',')).any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, ""));
        let never = weight.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case("gzip") && never != Some(0.0)
    })
}

#[derive(Debug)]
struct Page {
    hash: String,
    /// Weak: the zipped and the plain file share it.
    tag: String,
    index: File,
    assets: [(&'static str, File); ASSETS.len()],
}

static PAGE: LazyLock<Page> = LazyLock::new(|| {
    let mut hasher = blake3::Hasher::new();
    for (name, _, text) in ASSETS.iter().chain(&[("index.html", HTML, INDEX)]) {
        hasher.update(name.as_bytes()).update(&[0]).update(text.as_bytes()).update(&[0]);
    }
    let hash = hasher.finalize().to_hex()[..16].to_owned();
    let index = INDEX.replace("\"assets/", &format!("\"/page/{hash}/"));
    Page {
        tag: format!("W/\"{hash}\""),
        index: File::new(HTML, index),
        assets: ASSETS.map(|(name, kind, text)| (name, File::new(kind, text.to_owned()))),
        hash,
    }
});

/// `GET /`
pub(crate) fn index<B>(request: &Request<B>) -> Reply {
    let page = &*PAGE;
    let mut reply = page.index.reply(request.headers(), SHORT);
    if is_known(request.headers(), page.tag.trim_start_matches("W/")) {
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
        *reply.body_mut() = Bytes::new();
    }
    if let Ok(tag) = HeaderValue::from_str(&page.tag) {
        reply.headers_mut().insert(header::ETAG, tag);
    }
    reply
}

/// `GET /page/{hash}/{name}`
pub(crate) fn asset<B>(request: &Request<B>, hash: &str, name: &str) -> Result<Reply, Problem> {
    let page = &*PAGE;
    let file = page.assets.iter().find(|(known, _)| *known == name);
    let (_, file) = file.ok_or_else(Problem::no_such_page)?;
    let keep = if hash == page.hash { LONG } else { NEVER };
    Ok(file.reply(request.headers(), keep))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a browser on a phone downloads, zipped; one language of two included.
    const DOWNLOAD_BYTES_MAX: usize = 24 * 1024;

    fn ask(headers: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn header_of<'a>(reply: &'a Reply, name: &str) -> &'a str {
        reply.headers().get(name).map_or("", |v| v.to_str().unwrap())
    }

    #[test]
    fn whatever_the_page_loads_is_served_for_ever_under_its_hash() {
        let text = std::str::from_utf8(&PAGE.index.plain).unwrap();
        assert!(!text.contains("\"assets/"), "{text}");
        let start = format!("\"/page/{}/", PAGE.hash);
        let names: Vec<&str> =
            text.split(&start).skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(names.contains(&"app.js") && names.contains(&"page.css"), "{names:?}");
        for name in names {
            let reply = asset(&ask(&[]), &PAGE.hash, name).unwrap();
            assert_eq!(header_of(&reply, "cache-control"), LONG);
        }
        let old = asset(&ask(&[]), "0123456789abcdef", "app.js").unwrap();
        assert_eq!(header_of(&old, "cache-control"), NEVER);
        assert!(asset(&ask(&[]), &PAGE.hash, "Cargo.toml").is_err());
    }

    #[test]
    fn whoever_knows_the_page_is_not_sent_it_again() {
        let first = index(&ask(&[]));
        let tag = header_of(&first, "etag").to_owned();
        assert_eq!(first.status(), StatusCode::OK);
        for known in [tag.as_str(), tag.trim_start_matches("W/"), "*"] {
            let again = index(&ask(&[("if-none-match", known)]));
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(header_of(&again, "etag"), tag);
        }
        assert_eq!(index(&ask(&[("if-none-match", "\"other\"")])).status(), StatusCode::OK);
    }

    #[test]
    fn a_file_is_zipped_only_for_whoever_can_read_it() {
        let encoding = |accepted| {
            let reply = index(&ask(&[("accept-encoding", accepted)]));
            header_of(&reply, "content-encoding").to_owned()
        };
        assert_eq!(encoding("br, gzip;q=0.8"), "gzip");
        assert_eq!(encoding("GZIP"), "gzip");
        assert_eq!(encoding("gzip;q=0, br"), "");
        assert_eq!(encoding("identity"), "");
    }

    #[test]
    fn the_page_is_small_and_has_no_script_or_style_in_its_markup() {
        let of = |(name, file): &(&str, File)| if *name == "zh.js" { 0 } else { file.zipped.len() };
        let all = PAGE.index.zipped.len() + PAGE.assets.iter().map(of).sum::<usize>();
        assert!(all <= DOWNLOAD_BYTES_MAX, "{all} bytes");
        assert!(!INDEX.contains("<style") && !INDEX.contains("style=") && !INDEX.contains(" on"));
        assert_eq!(
            INDEX.matches("<script").count(),
            INDEX.matches("<script type=\"module\" src").count()
        );
    }

    #[test]
    fn both_languages_have_the_same_words() {
        let words = |text: &str| -> Vec<String> {
            let key = |line: &str| {
                let (key, _) = line.trim_start().split_once(':')?;
                let indent = line.len() - line.trim_start().len();
                let word = key.trim_matches('\'');
                let good = word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
                (good && indent > 0 && indent <= 4).then(|| format!("{indent} {word}"))
            };
            text.lines().filter_map(key).collect()
        };
        let text = |name| ASSETS.iter().find(|(n, ..)| *n == name).unwrap().2;
        assert_eq!(words(text("en.js")), words(text("zh.js")));
    }
}
