//! Turns what players really send into what `rtsp-types` accepts, and parses it with that.
//!
//! Put right here: bare LF, folded headers, no space or a space too many around the colon, lines without a colon (dropped), control
//! characters in values, Latin-1 instead of UTF-8, lower-case methods and versions, spaces and raw bytes in the request URL, URLs that are
//! only a path, repeated headers that may occur once (the first holds).
//!
//! The URL is kept beside the parsed message as the client wrote it ([`Request::uri`]): `Content-Base` and `RTP-Info` must repeat the
//! client's spelling, because players compare these as text, and a parsed URL has `..` resolved and its escapes changed.

use std::borrow::Cow;

use rtsp_types::{HeaderName, Message, StatusCode};

use super::framing::RawRequest;

/// Most digits of a `CSeq` that is repeated in the answer.
const CSEQ_DIGITS_MAX: usize = 20;

/// Headers whose second occurrence is dropped. `Content-Length` is written anew.
const SINGLE: [&[u8]; 6] = [b"cseq", b"session", b"range", b"scale", b"speed", b"content-length"];

/// A parsed request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The message.
    pub message: rtsp_types::Request<Vec<u8>>,
    /// The request URL made absolute, otherwise as the client wrote it, escaped where it was not; `None` for `*`.
    pub uri: Option<String>,
    /// `CSeq`, digits only; `None` when it is missing or not a number.
    pub cseq: Option<String>,
}

impl Request {
    /// Value of a header, `None` when it is missing or empty.
    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.message.header(name).map(|value| value.as_str().trim()).filter(|value| !value.is_empty())
    }
}

/// A request that cannot be understood, and the answer to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Rejected {
    /// Status of the answer.
    pub status: StatusCode,
    /// What was wrong.
    pub reason: &'static str,
    /// `CSeq`, when it was readable.
    pub cseq: Option<String>,
    /// This is not an RTSP client: close after the answer.
    pub close: bool,
}

/// Header fields of a header block: the request line is skipped, folded lines are joined, lines without a colon are left out.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The fields of `head`, which starts with a request line.
    pub fn of(head: &'a [u8]) -> Self {
        let mut rest = head;
        let _request_line = take_line(&mut rest);
        Self { rest }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Cow<'a, [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let line = take_line(&mut self.rest)?;
            let mut value: Option<(&[u8], Cow<[u8]>)> = line
                .iter()
                .position(|b| *b == b':')
                .and_then(|colon| Some((trim(line.get(..colon)?), Cow::Borrowed(trim(line.get(colon + 1..)?)))));
            // RFC 2326 section 4.2: a line that starts with a space or a tab continues the header before it.
            while matches!(self.rest.first(), Some(b' ' | b'\t')) {
                let more = take_line(&mut self.rest).unwrap_or_default();
                if let Some((_, value)) = &mut value {
                    let value = value.to_mut();
                    value.push(b' ');
                    value.extend_from_slice(trim(more));
                }
            }
            if let Some((name, value)) = value
                && !name.is_empty()
                && name.iter().all(|b| is_token(*b))
            {
                return Some((name, value));
            }
        }
    }
}

/// Parses a request. `base` is the absolute URL, ending with a slash, that relative URLs belong to.
pub fn parse(raw: &RawRequest, base: &str) -> Result<Request, Rejected> {
    let Normalised { bytes, uri, cseq } = normalise(raw, base)?;
    match Message::<Vec<u8>>::parse(&bytes) {
        Ok((Message::Request(message), consumed)) if consumed == bytes.len() => Ok(Request { message, uri, cseq }),
        _ => Err(Rejected { status: StatusCode::BadRequest, reason: "the request URL cannot be parsed", cseq, close: false }),
    }
}

/// A request in the one spelling that `rtsp-types` accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Normalised {
    /// The whole message.
    pub bytes: Vec<u8>,
    /// See [`Request::uri`].
    pub uri: Option<String>,
    /// See [`Request::cseq`].
    pub cseq: Option<String>,
}

/// Rewrites a request; see the module's head for what is put right.
pub fn normalise(raw: &RawRequest, base: &str) -> Result<Normalised, Rejected> {
    let cseq = Fields::of(&raw.head).find(|(name, _)| name.eq_ignore_ascii_case(b"cseq")).and_then(|(_, value)| cseq_of(&value));
    let reject = |status, reason| Rejected { status, reason, cseq: cseq.clone(), close: true };

    let mut rest: &[u8] = &raw.head;
    let line = trim(take_line(&mut rest).unwrap_or_default());
    let not_a_request = || reject(StatusCode::BadRequest, "not an RTSP request line");
    let method_end = line.iter().position(|b| is_blank(*b)).ok_or_else(not_a_request)?;
    let version_start = line.iter().rposition(|b| is_blank(*b)).ok_or_else(not_a_request)? + 1;
    let (method, version) = (line.get(..method_end).unwrap_or_default(), line.get(version_start..).unwrap_or_default());
    let uri = trim(line.get(method_end..version_start).unwrap_or_default());
    if method.is_empty() || uri.is_empty() || !method.iter().all(|b| is_token(*b)) {
        return Err(not_a_request());
    }
    if !version.eq_ignore_ascii_case(b"RTSP/1.0") {
        let has_slash = version.contains(&b'/');
        return Err(if has_slash { reject(StatusCode::RTSPVersionNotSupported, "this server speaks RTSP/1.0") } else { not_a_request() });
    }

    let uri = (uri != b"*").then(|| absolute(&escape(uri), base));
    let mut bytes = Vec::with_capacity(raw.head.len() + raw.body.len() + 64);
    bytes.extend(method.iter().map(u8::to_ascii_uppercase));
    bytes.push(b' ');
    bytes.extend_from_slice(uri.as_deref().map_or(Cow::Borrowed("*"), without_zone).as_bytes());
    bytes.extend_from_slice(b" RTSP/1.0\r\n");
    let mut seen = [false; SINGLE.len()];
    for (name, value) in Fields::of(&raw.head) {
        if let Some((_, seen)) = SINGLE.iter().zip(&mut seen).find(|(single, _)| name.eq_ignore_ascii_case(single)) {
            if *seen || name.eq_ignore_ascii_case(b"content-length") {
                continue;
            }
            *seen = true;
        }
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(b": ");
        push_text(&mut bytes, &value);
        bytes.extend_from_slice(b"\r\n");
    }
    if !raw.body.is_empty() {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", raw.body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&raw.body);
    Ok(Normalised { bytes, uri, cseq })
}

/// The value of a `CSeq` header if it is a number.
pub fn cseq_of(value: &[u8]) -> Option<String> {
    let digits = trim(value);
    let valid = (1..=CSEQ_DIGITS_MAX).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    valid.then(|| String::from_utf8_lossy(digits).into_owned())
}

/// `bytes` without blanks around.
pub fn trim(bytes: &[u8]) -> &[u8] {
    bytes.trim_ascii()
}

/// Cuts the next line off `rest`, without its line end.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    if rest.is_empty() {
        return None;
    }
    let (line, tail) = match rest.iter().position(|b| *b == b'\n') {
        Some(end) => (rest.get(..end)?, rest.get(end + 1..)?),
        None => (*rest, &[][..]),
    };
    *rest = tail;
    Some(line.strip_suffix(b"\r").unwrap_or(line))
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 2326 section 15.1 `token`, as far as `rtsp-types` goes along.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Appends a header value as UTF-8 without control characters. What is not UTF-8 is taken for Latin-1.
fn push_text(out: &mut Vec<u8>, value: &[u8]) {
    let text =
        std::str::from_utf8(value).map_or_else(|_| Cow::Owned(value.iter().map(|b| char::from(*b)).collect::<String>()), Cow::Borrowed);
    let mut utf8 = [0; 4];
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
    }
}

/// Escapes every byte that may not stand in a URL, and `%` where no escape follows. `#` is escaped as well: file names contain it, and no
/// player sends fragments.
fn escape(uri: &[u8]) -> String {
    let mut out = String::with_capacity(uri.len() + 16);
    for (i, byte) in uri.iter().enumerate() {
        let is_escape = || matches!(uri.get(i + 1..i + 3), Some(hex) if hex.iter().all(u8::is_ascii_hexdigit));
        let verbatim = match byte {
            b'%' => is_escape(),
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' => false,
            other => other.is_ascii_graphic(),
        };
        if verbatim {
            out.push(char::from(*byte));
        } else {
            out.push_str(percent_encoding::percent_encode_byte(*byte));
        }
    }
    out
}

/// Makes a URL absolute.
fn absolute(uri: &str, base: &str) -> String {
    if uri.contains("://") {
        return uri.to_owned();
    }
    if let Some(path) = uri.strip_prefix('/') {
        let authority_start = base.find("://").map_or(0, |i| i + 3);
        let authority_end = base.get(authority_start..).and_then(|rest| rest.find('/')).map_or(base.len(), |i| authority_start + i);
        return format!("{}/{path}", base.get(..authority_end).unwrap_or_default());
    }
    format!("{base}{uri}")
}

/// Without the zone of a link-local IPv6 address (`[fe80::1%eth0]`), which URL parsers reject.
fn without_zone(uri: &str) -> Cow<'_, str> {
    let Some((before, rest)) = uri.split_once('[') else { return Cow::Borrowed(uri) };
    match rest.split_once(']') {
        Some((host, after)) if host.contains('%') && before.ends_with("//") => {
            let address = host.split('%').next().unwrap_or_default();
            Cow::Owned(format!("{before}[{address}]{after}"))
        }
        _ => Cow::Borrowed(uri),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rtsp_types::{Method, headers};

    use super::*;

    const BASE: &str = "rtsp://192.0.2.1:8554/";

    fn raw(head: &[u8]) -> RawRequest {
        RawRequest { head: Bytes::copy_from_slice(head), body: Bytes::new() }
    }

    #[test]
    fn odd_spellings_are_understood() {
        for (head, method, uri) in [
            (&b"options * rtsp/1.0\nCSeq:3\n\n"[..], Method::Options, None),
            (b"DESCRIBE rtsp://h/my film.mp4 RTSP/1.0\r\nCSeq: 3\r\n\r\n", Method::Describe, Some("rtsp://h/my%20film.mp4")),
            (b"DESCRIBE  rtsp://h/a.mp4  RTSP/1.0 \r\nCSeq : 3 \r\n\r\n", Method::Describe, Some("rtsp://h/a.mp4")),
            (b"DESCRIBE /sub/a.mp4 RTSP/1.0\nCSeq:\n 3\n\n", Method::Describe, Some("rtsp://192.0.2.1:8554/sub/a.mp4")),
            (b"SETUP trackID=1 RTSP/1.0\r\njunk\r\nCSeq: 3\r\nCSeq: 9\r\n\r\n", Method::Setup, Some("rtsp://192.0.2.1:8554/trackID=1")),
            (b"DESCRIBE rtsp://h/caf\xe9.mp4 RTSP/1.0\nCSeq: 3\n\n", Method::Describe, Some("rtsp://h/caf%E9.mp4")),
            ("DESCRIBE rtsp://h/café.mp4 RTSP/1.0\nCSeq: 3\n\n".as_bytes(), Method::Describe, Some("rtsp://h/caf%C3%A9.mp4")),
            (b"DESCRIBE rtsp://h/100%.mp4 RTSP/1.0\nCSeq: 3\n\n", Method::Describe, Some("rtsp://h/100%25.mp4")),
            (b"DESCRIBE rtsp://h/a#1{x}.mp4 RTSP/1.0\nCSeq: 3\n\n", Method::Describe, Some("rtsp://h/a%231%7Bx%7D.mp4")),
            (b"DESCRIBE rtsp://[fe80::1%eth0]:554/a RTSP/1.0\nCSeq: 3\n\n", Method::Describe, Some("rtsp://[fe80::1%25eth0]:554/a")),
            (b"x-dance rtsp://h/a RTSP/1.0\nCSeq: 3\n\n", Method::Extension("X-DANCE".into()), Some("rtsp://h/a")),
        ] {
            let request = parse(&raw(head), BASE).unwrap_or_else(|e| panic!("{}: {e}", String::from_utf8_lossy(head)));
            assert_eq!(*request.message.method(), method);
            assert_eq!(request.uri.as_deref(), uri);
            assert_eq!(request.cseq.as_deref(), Some("3"), "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn values_become_utf8_on_one_line() {
        let head = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: Cam\xe9ra\x01\x7f v\t1\r\n\t2\r\nRequire: a\nRequire: b\n\n";
        let request = parse(&raw(head), BASE).unwrap();
        assert_eq!(request.header(&headers::USER_AGENT), Some("Caméra   v 1 2"));
        assert_eq!(request.header(&headers::REQUIRE), Some("a, b"));
        assert_eq!(request.header(&headers::SESSION), None);
    }

    #[test]
    fn what_is_not_rtsp_is_rejected_with_the_reason() {
        for (head, status, close) in [
            (&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..], StatusCode::RTSPVersionNotSupported, true),
            (b"OPTIONS * RTSP/2.0\r\nCSeq: 1\r\n\r\n", StatusCode::RTSPVersionNotSupported, true),
            (b"OPTIONS *\r\nCSeq: 1\r\n\r\n", StatusCode::BadRequest, true),
            (b"OPTIONS\r\n\r\n", StatusCode::BadRequest, true),
            (b"OPTIONS  RTSP/1.0\r\n\r\n", StatusCode::BadRequest, true),
            (b"\x16\x03\x01\x02\n\n", StatusCode::BadRequest, true),
            (b"DESCRIBE rtsp://h:99999/a RTSP/1.0\r\nCSeq: 1\r\n\r\n", StatusCode::BadRequest, false),
        ] {
            let rejected = parse(&raw(head), BASE).unwrap_err();
            assert_eq!((rejected.status, rejected.close), (status, close), "{}", String::from_utf8_lossy(head));
        }
    }

    #[test]
    fn a_cseq_is_a_number() {
        for (value, expected) in [("1", Some("1")), (" 007 ", Some("007")), ("", None), ("x", None), ("1\r", Some("1")), ("-1", None)] {
            assert_eq!(cseq_of(value.as_bytes()).as_deref(), expected);
        }
        assert_eq!(cseq_of("1".repeat(21).as_bytes()), None);
    }

    proptest! {
        #[test]
        fn whatever_is_normalised_parses_or_has_a_bad_url(
            method in "[A-Za-z_]{1,12}", uri in proptest::collection::vec(any::<u8>(), 1..40),
            lines in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..10),
            body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut head = format!("{method} rtsp://h/").into_bytes();
            head.extend(uri.iter().filter(|b| **b != b'\n'));
            head.extend_from_slice(b" RTSP/1.0\r\n");
            for line in lines {
                head.extend(line);
                head.push(b'\n');
            }
            head.extend_from_slice(b"\r\n");
            let raw = RawRequest { head: Bytes::from(head), body: Bytes::from(body.clone()) };
            let normalised = normalise(&raw, BASE).unwrap();
            let uri = normalised.uri.clone().unwrap();
            prop_assert!(uri.bytes().all(|b| b.is_ascii_graphic()));
            let request = parse(&raw, BASE).unwrap();
            prop_assert_eq!(request.message.body(), &body);
            for (_, value) in request.message.headers() {
                prop_assert!(!value.as_str().chars().any(char::is_control));
            }
        }
    }
}
