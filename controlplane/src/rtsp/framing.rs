//! Cuts the bytes of a client's connection into requests and interleaved frames (RFC 2326 section 4, section 10.12).
//!
//! Sans I/O: bytes go in however TCP cut them ([`Framer::push`]), items come out ([`Framer::next_item`]). Each byte is looked at once: the
//! end of a header block is searched from where the search stopped, never from its start. Memory is bounded by [`HEAD_BYTES_MAX`] plus
//! [`BODY_BYTES_MAX`] plus what one `push` brings; an empty framer holds none.
//!
//! Lines end with CRLF or bare LF, mixed as the client likes; blank lines before a request are skipped; RTSP *responses* (to requests that
//! we never send) are swallowed with their bodies.

use bytes::{Bytes, BytesMut};
use rtsp_types::StatusCode;

use super::normalise::{Fields, trim};

/// Longest header block: request line, headers and the empty line.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Longest message body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// `$`, channel, two bytes of length (RFC 2326 section 10.12).
const FRAME_HEADER_BYTES: usize = 4;

/// One request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawRequest {
    /// Request line and headers, with the empty line that ends them.
    pub head: Bytes,
    /// Body; as long as `Content-Length` said.
    pub body: Bytes,
}

/// What a connection carries towards the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A complete request.
    Request(RawRequest),
    /// An interleaved frame.
    Frame {
        /// Channel.
        channel: u8,
        /// What it carries: RTP or RTCP.
        payload: Bytes,
    },
}

/// The client sent something after which the start of the next request cannot be known, or that we refuse to read. The connection must be
/// closed after the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// No end of the header block within the limit.
    #[error("header block longer than {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    /// `Content-Length` above the limit.
    #[error("body longer than {BODY_BYTES_MAX} bytes")]
    BodyTooLarge {
        /// `CSeq` of the request.
        cseq: Option<String>,
    },
    /// `Content-Length` is no number, or there are several that differ.
    #[error("Content-Length is not one decimal number")]
    BadContentLength {
        /// `CSeq` of the request.
        cseq: Option<String>,
    },
}

impl FramingError {
    /// Status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::HeadTooLarge | Self::BadContentLength { .. } => StatusCode::BadRequest,
            Self::BodyTooLarge { .. } => StatusCode::RequestMessageBodyTooLarge,
        }
    }

    /// `CSeq` of the request that was refused, when it was read.
    pub fn cseq(&self) -> Option<&str> {
        match self {
            Self::HeadTooLarge => None,
            Self::BodyTooLarge { cseq } | Self::BadContentLength { cseq } => cseq.as_deref(),
        }
    }
}

#[derive(Debug, Default)]
enum State {
    /// In front of an item, or within its header block.
    #[default]
    Head,
    /// The header block was cut off; its body is awaited.
    Body { head: Bytes, body_bytes: usize, response: bool },
    /// After a [`FramingError`]: everything is thrown away.
    Failed,
}

/// The cutter of one connection.
#[derive(Debug, Default)]
pub struct Framer {
    buffer: BytesMut,
    /// Bytes of `buffer` already searched for the end of the header block.
    searched: usize,
    /// Start of the line that the search is in.
    line_start: usize,
    state: State,
}

impl Framer {
    /// Takes bytes that arrived. Call [`Self::next_item`] until it returns `None` before the next push.
    pub fn push(&mut self, bytes: &[u8]) {
        if !matches!(self.state, State::Failed) {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next complete item, `None` when more bytes are needed. After an error there is nothing more.
    pub fn next_item(&mut self) -> Option<Result<Item, FramingError>> {
        let item = self.advance();
        if self.buffer.is_empty() {
            // Gives the memory back: most connections are silent most of the time.
            self.buffer = BytesMut::new();
        }
        match item {
            Ok(item) => item.map(Ok),
            Err(error) => {
                self.state = State::Failed;
                self.buffer = BytesMut::new();
                Some(Err(error))
            }
        }
    }

    /// True when part of an item has arrived and the rest has not.
    pub fn is_mid_item(&self) -> bool {
        !self.buffer.is_empty() || matches!(self.state, State::Body { .. })
    }

    fn advance(&mut self) -> Result<Option<Item>, FramingError> {
        loop {
            match &mut self.state {
                State::Failed => return Ok(None),
                State::Body { head, body_bytes, response } => {
                    if self.buffer.len() < *body_bytes {
                        return Ok(None);
                    }
                    let body = self.buffer.split_to(*body_bytes).freeze();
                    let (head, response) = (std::mem::take(head), *response);
                    self.state = State::Head;
                    if !response {
                        return Ok(Some(Item::Request(RawRequest { head, body })));
                    }
                }
                State::Head => {
                    if self.searched == 0 {
                        self.skip_blank_lines();
                        if self.buffer.first() == Some(&b'$') {
                            return Ok(self.take_frame());
                        }
                    }
                    let Some(head) = self.take_head()? else { return Ok(None) };
                    let body_bytes = body_bytes_of(&head)?;
                    let response = head.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"RTSP/"));
                    self.state = State::Body { head, body_bytes, response };
                }
            }
        }
    }

    fn skip_blank_lines(&mut self) {
        let blank = self.buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let _ = self.buffer.split_to(blank);
    }

    fn take_frame(&mut self) -> Option<Item> {
        let &[_, channel, high, low] = self.buffer.first_chunk::<FRAME_HEADER_BYTES>()?;
        let end = FRAME_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        if self.buffer.len() < end {
            return None;
        }
        let payload = self.buffer.split_to(end).freeze().slice(FRAME_HEADER_BYTES..);
        Some(Item::Frame { channel, payload })
    }

    /// Cuts off the header block if its end has arrived.
    fn take_head(&mut self) -> Result<Option<Bytes>, FramingError> {
        let window_end = self.buffer.len().min(HEAD_BYTES_MAX);
        while let Some(unsearched) = self.buffer.get(self.searched..window_end) {
            let Some(distance) = unsearched.iter().position(|b| *b == b'\n') else {
                self.searched = window_end;
                break;
            };
            let line_end = self.searched + distance;
            let is_empty_line = matches!(self.buffer.get(self.line_start..line_end), Some(b"" | b"\r"));
            self.searched = line_end + 1;
            self.line_start = line_end + 1;
            if is_empty_line {
                let head = self.buffer.split_to(line_end + 1).freeze();
                (self.searched, self.line_start) = (0, 0);
                return Ok(Some(head));
            }
        }
        if self.buffer.len() >= HEAD_BYTES_MAX { Err(FramingError::HeadTooLarge) } else { Ok(None) }
    }
}

/// Length of the body that follows a header block.
fn body_bytes_of(head: &[u8]) -> Result<usize, FramingError> {
    let mut length: Option<u64> = None;
    let mut cseq = None;
    let mut bad = false;
    for (name, value) in Fields::of(head) {
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = trim(&value);
            let parsed = (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit))
                .then(|| digits.iter().fold(0_u64, |n, d| n.saturating_mul(10).saturating_add(u64::from(d - b'0'))));
            bad |= parsed.is_none() || length.is_some_and(|earlier| Some(earlier) != parsed);
            length = parsed;
        } else if cseq.is_none() && name.eq_ignore_ascii_case(b"cseq") {
            cseq = super::normalise::cseq_of(&value);
        }
    }
    if bad {
        return Err(FramingError::BadContentLength { cseq });
    }
    match usize::try_from(length.unwrap_or(0)) {
        Ok(bytes) if bytes <= BODY_BYTES_MAX => Ok(bytes),
        _ => Err(FramingError::BodyTooLarge { cseq }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn items(pushes: &[&[u8]]) -> Vec<Result<Item, FramingError>> {
        let mut framer = Framer::default();
        let mut out = Vec::new();
        for bytes in pushes {
            framer.push(bytes);
            while let Some(item) = framer.next_item() {
                out.push(item);
            }
        }
        out
    }

    fn request(head: &str, body: &str) -> Result<Item, FramingError> {
        Ok(Item::Request(RawRequest { head: Bytes::copy_from_slice(head.as_bytes()), body: Bytes::copy_from_slice(body.as_bytes()) }))
    }

    #[test]
    fn requests_frames_and_responses_are_told_apart() {
        let stream = b"\r\n\nOPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x01\x00\x03abcRTSP/1.0 200 OK\nContent-Length: 2\n\nxxSET_PARAMETER * RTSP/1.0\nCSeq:2\nContent-Length: 5\n\r\nhello$\x00\x00\x00";
        let expected = vec![
            request("OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n", ""),
            Ok(Item::Frame { channel: 1, payload: Bytes::from_static(b"abc") }),
            request("SET_PARAMETER * RTSP/1.0\nCSeq:2\nContent-Length: 5\n\r\n", "hello"),
            Ok(Item::Frame { channel: 0, payload: Bytes::new() }),
        ];
        assert_eq!(items(&[stream]), expected);
        for cut in 0..stream.len() {
            let (a, b) = stream.split_at(cut);
            assert_eq!(items(&[a, b]), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(items(&bytes), expected);
    }

    #[test]
    fn a_gigabyte_is_refused_at_its_announcement() {
        let mut framer = Framer::default();
        framer.push(b"SET_PARAMETER * RTSP/1.0\r\nCSeq: 7\r\nContent-Length: 1073741824\r\n\r\n");
        assert_eq!(framer.next_item(), Some(Err(FramingError::BodyTooLarge { cseq: Some("7".into()) })));
        framer.push(&[b'x'; 4096]);
        assert_eq!(framer.next_item(), None);
        assert!(!framer.is_mid_item(), "nothing is kept after an error");
    }

    #[test]
    fn content_length_must_be_one_number() {
        for (lines, bad) in [
            ("Content-Length: 2\r\nContent-Length: 2\r\n", false),
            ("Content-Length: 2\r\nContent-Length: 3\r\n", true),
            ("Content-Length: -1\r\n", true),
            ("Content-Length: 0x2\r\n", true),
            ("Content-Length:\r\n", true),
            ("Content-Length:\r\n 2\r\n", false),
            ("content-length : 2\r\n", false),
        ] {
            let text = format!("OPTIONS * RTSP/1.0\r\n{lines}\r\nab");
            let got = items(&[text.as_bytes()]);
            assert_eq!(matches!(got.as_slice(), [Err(FramingError::BadContentLength { .. })]), bad, "{lines:?} {got:?}");
            assert_eq!(matches!(got.as_slice(), [Ok(_)]), !bad, "{lines:?} {got:?}");
        }
        let huge = format!("OPTIONS * RTSP/1.0\r\nContent-Length: {}\r\n\r\n", "9".repeat(60));
        assert!(matches!(items(&[huge.as_bytes()]).as_slice(), [Err(FramingError::BodyTooLarge { .. })]));
    }

    #[test]
    fn the_header_block_is_capped_to_the_byte() {
        let start = "OPTIONS * RTSP/1.0\r\nX: ";
        let fits = format!("{start}{}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX - start.len() - 4));
        assert_eq!(fits.len(), HEAD_BYTES_MAX);
        assert_eq!(items(&[fits.as_bytes()]), vec![request(&fits, "")]);
        let over = format!("{start}{}\r\n\r\n", "a".repeat(HEAD_BYTES_MAX - start.len() - 3));
        assert_eq!(items(&[over.as_bytes()]), vec![Err(FramingError::HeadTooLarge)]);
        let endless = vec![b'a'; HEAD_BYTES_MAX];
        assert_eq!(items(&[&endless]), vec![Err(FramingError::HeadTooLarge)]);
    }

    #[test]
    fn an_idle_framer_holds_no_memory() {
        let mut framer = Framer::default();
        framer.push(b"OPTIONS * RTSP/1.0\r\n\r\n\r\n\r\n");
        assert!(matches!(framer.next_item(), Some(Ok(Item::Request(_)))));
        assert_eq!(framer.next_item(), None);
        assert!(!framer.is_mid_item());
        assert_eq!(framer.buffer.capacity(), 0);
    }

    proptest! {
        #[test]
        fn any_bytes_cut_anywhere_give_the_same_items(
            stream in proptest::collection::vec(prop_oneof![
                Just(b"OPTIONS * RTSP/1.0\r\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"\n".to_vec()), Just(b"Content-Length: 3\n".to_vec()),
                Just(b"$\x00\x00\x02ab".to_vec()), Just(b"RTSP/1.0 200 OK\r\n".to_vec()), proptest::collection::vec(any::<u8>(), 0..8),
            ], 0..20),
            cuts in proptest::collection::vec(1_usize..40, 1..20),
        ) {
            let stream = stream.concat();
            let whole = items(&[&stream]);
            let mut pieces = Vec::new();
            let mut rest = stream.as_slice();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            prop_assert_eq!(items(&pieces), whole);
        }
    }
}
