//! What commands ask a running appliance: one HTTP request, one JSON answer, in bounded time and memory.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde_json::Value;

/// How long connecting, and each read or write, may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// The appliance at a URL.
#[derive(Clone, Debug)]
pub(super) struct Client {
    host: String,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// Not a URL that leads to a monitor.
    #[error("{0:?} is not the URL of a monitor; write http://HOST:PORT as in \"http://127.0.0.1:8080\"")]
    Url(String),
    /// Nobody there.
    #[error("no answer from http://{host}: {source}; is `tactus serve` running there, and is its --http this address?")]
    Io {
        /// Host and port.
        host: String,
        /// The system's answer.
        source: io::Error,
    },
    /// Somebody else.
    #[error("what answers at http://{0} is not tactus")]
    Stranger(String),
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

impl Client {
    /// The appliance at `url`.
    pub(super) fn new(url: &str) -> Result<Self, ClientError> {
        let host = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let is_plain = !host.is_empty() && !host.contains(|c: char| c == '/' || c == '@' || c.is_whitespace() || c.is_control());
        match (is_plain, has_port) {
            (true, true) => Ok(Self { host: host.to_owned() }),
            (true, false) => Ok(Self { host: format!("{host}:80") }),
            (false, _) => Err(ClientError::Url(url.to_owned())),
        }
    }

    /// Asks, with `body` as JSON, and takes the answer apart.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, ClientError> {
        let answer = self.exchange(method, path, body).map_err(|source| ClientError::Io { host: self.host.clone(), source })?;
        let stranger = || ClientError::Stranger(self.host.clone());
        let (status, json) = read_answer(&answer).ok_or_else(stranger)?;
        if (200..300).contains(&status) {
            return Ok(json);
        }
        Err(ClientError::Refused(json.get("error").and_then(Value::as_str).ok_or_else(stranger)?.to_owned()))
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&Value>) -> io::Result<Vec<u8>> {
        let address = self.host.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        // HTTP/1.0: the answer comes in one piece and ends with the connection.
        let head = format!("{method} {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\n", self.host);
        stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

/// Status and JSON of an answer.
fn read_answer(answer: &[u8]) -> Option<(u16, Value)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(answer.get(..end)?).ok()?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_slice(answer.get(end + 4..)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_answers() {
        for (url, host) in [("http://127.0.0.1:8080", "127.0.0.1:8080"), ("http://box/", "box:80"), ("[::1]:9000", "[::1]:9000")] {
            assert_eq!(Client::new(url).unwrap().host, host);
        }
        for url in ["", "https://x", "http://x/y", "http://a b", "http://u@x"] {
            assert!(Client::new(url).is_err(), "{url}");
        }
        let ok = b"HTTP/1.0 201 Created\r\ncontent-type: application/json\r\n\r\n{\"id\":3}";
        assert_eq!(read_answer(ok), Some((201, serde_json::json!({"id": 3}))));
        for bad in [&b""[..], b"HTTP/1.0 200 OK\r\n\r\nhello", b"HTTP/1.0 x\r\n\r\n{}", b"SSH-2.0\r\n\r\n{}", b"\xff\r\n\r\n{}"] {
            assert_eq!(read_answer(bad), None);
        }
    }
}
