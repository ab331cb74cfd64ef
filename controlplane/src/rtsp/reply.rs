//! Answers to clients.
//!
//! Written by hand rather than with `rtsp-types`' `Response`: `CSeq` stands first (some cameras' clients expect it there; its map sorts by
//! name), and no header value can carry a line end out ([`Reply::encode`] is the one place where text from requests and files meets the
//! wire).

use bytes::Bytes;
use rtsp_types::StatusCode;

use crate::engine::EngineError;

/// `Server` header.
pub const SERVER: &str = concat!("Tactus/", env!("CARGO_PKG_VERSION"));
/// Methods that the server knows, for `Public` and `Allow`.
pub const METHODS: &str = "OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN, GET_PARAMETER, SET_PARAMETER, ANNOUNCE, RECORD";
/// Longest reason phrase of our own making.
const REASON_CHARS_MAX: usize = 160;

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status.
    pub status: StatusCode,
    reason: Option<String>,
    headers: Vec<(&'static str, String)>,
    body: Option<(&'static str, Bytes)>,
}

impl Reply {
    /// An answer with this status.
    pub fn new(status: StatusCode) -> Self {
        Self { status, reason: None, headers: Vec::new(), body: None }
    }

    /// 200.
    pub fn ok() -> Self {
        Self::new(StatusCode::Ok)
    }

    /// A refusal that says why in its reason phrase, which is what players show.
    pub fn refusal(status: StatusCode, why: impl std::fmt::Display) -> Self {
        Self { reason: Some(format!("{status} ({why})")), ..Self::new(status) }
    }

    /// With a header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// With a body.
    pub fn with_body(mut self, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        self.body = Some((content_type, body.into()));
        self
    }

    /// Status as a number.
    pub fn code(&self) -> u16 {
        self.status.into()
    }

    /// The bytes for the wire. Control characters in values become blanks.
    pub fn encode(&self, cseq: Option<&str>) -> Bytes {
        let body_bytes = self.body.as_ref().map_or(0, |(_, body)| body.len());
        let headers_bytes: usize = self.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
        let mut out = Vec::with_capacity(192 + REASON_CHARS_MAX + headers_bytes + body_bytes);
        out.extend_from_slice(format!("RTSP/1.0 {} ", self.code()).as_bytes());
        let reason = match (&self.reason, self.status) {
            (Some(reason), _) => reason.clone(),
            // `rtsp-types` says "Ok"; primitive clients look for the text of RFC 2326.
            (None, StatusCode::Ok) => "OK".to_owned(),
            (None, status) => status.to_string(),
        };
        // ASCII alone: the phrase lands on terminals and in logs of unknown encoding.
        out.extend(reason.chars().take(REASON_CHARS_MAX).map(|c| if c == ' ' || c.is_ascii_graphic() { c as u8 } else { b'?' }));
        out.extend_from_slice(b"\r\n");
        if let Some(cseq) = cseq {
            push_header(&mut out, "CSeq", cseq);
        }
        push_header(&mut out, "Server", SERVER);
        for (name, value) in &self.headers {
            push_header(&mut out, name, value);
        }
        if let Some((content_type, body)) = &self.body {
            push_header(&mut out, "Content-Type", content_type);
            push_header(&mut out, "Content-Length", &body.len().to_string());
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(body);
        } else {
            out.extend_from_slice(b"\r\n");
        }
        Bytes::from(out)
    }
}

impl From<EngineError> for Reply {
    fn from(error: EngineError) -> Self {
        let (status, why) = match &error {
            EngineError::NotFound(why) => (StatusCode::NotFound, why),
            EngineError::Unsupported(why) => (StatusCode::UnsupportedMediaType, why),
            EngineError::NoSession => return Self::new(StatusCode::SessionNotFound),
            EngineError::State(why) => (StatusCode::MethodNotValidInThisState, why),
            EngineError::Range(why) => (StatusCode::InvalidRange, why),
            EngineError::Capacity(why) => (StatusCode::NotEnoughBandwidth, why),
            EngineError::Unavailable(why) => (StatusCode::ServiceUnavailable, why),
        };
        Self::refusal(status, why)
    }
}

fn push_header(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend(value.bytes().map(|b| if b.is_ascii_control() { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_laid_out_as_players_expect() {
        let reply = Reply::ok().with("Session", "abc;timeout=60").with_body("application/sdp", "v=0\r\n");
        let text = format!(
            "RTSP/1.0 200 OK\r\nCSeq: 4\r\nServer: {SERVER}\r\nSession: abc;timeout=60\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n"
        );
        assert_eq!(reply.encode(Some("4")), text.as_bytes());
    }

    #[test]
    fn text_from_elsewhere_cannot_add_lines() {
        let why = "no \r\n\r\nSession: x\u{1b}é".to_owned() + &"y".repeat(1000);
        let reply = Reply::from(EngineError::NotFound(why)).with("Unsupported", "a\r\nEvil: 1\0");
        let text = String::from_utf8(reply.encode(None).to_vec()).unwrap();
        assert!(text.starts_with("RTSP/1.0 404 Not Found (no ????Session: x??yyy"), "{text}");
        assert_eq!(text.matches("\r\n").count(), 4, "{text}");
        assert_eq!(text.matches('\r').count(), 4);
        assert!(text.len() < 400);
    }

    #[test]
    fn engine_errors_have_their_status() {
        let why = || "why".to_owned();
        for (error, code) in [
            (EngineError::NotFound(why()), 404),
            (EngineError::Unsupported(why()), 415),
            (EngineError::NoSession, 454),
            (EngineError::State(why()), 455),
            (EngineError::Range(why()), 457),
            (EngineError::Capacity(why()), 453),
            (EngineError::Unavailable(why()), 503),
        ] {
            assert_eq!(Reply::from(error).code(), code);
        }
    }
}
