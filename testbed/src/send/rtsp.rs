//! As much of an RTSP 1.0 server (RFC 2326) as a load generator needs: DESCRIBE, SETUP over UDP, PLAY, TEARDOWN of one track. A state machine
//! without I/O, written for this testbed alone.

use std::fmt::Write as _;

/// A request, body included, longer than this ends the connection.
const REQUEST_MAX: usize = 16 * 1024;

/// What every answer needs to know.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The session description.
    pub sdp: String,
    /// The RTP port that packets come from; RTCP is one above.
    pub rtp_port: u16,
}

/// How a stream's packets are marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// RFC 3550 5.1.
    pub ssrc: u32,
    /// The first sequence number.
    pub seq: u16,
    /// The RTP timestamp of the first frame.
    pub timestamp: u32,
}

impl Identity {
    /// The identity of session `number`: different for each, the same in every run.
    pub fn of(number: u32) -> Self {
        // Multiplication by odd constants keeps different numbers different.
        let ssrc = number.wrapping_add(1).wrapping_mul(0x9e37_79b1);
        Self { ssrc, seq: (ssrc >> 16) as u16, timestamp: ssrc.wrapping_mul(0x85eb_ca6b) }
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Packets, to this RTP port of its address. The answer is in the output and goes out first.
    Play(u16),
    /// No more packets. [`Connection::torn_down`] writes the answer.
    Teardown,
}

/// The stream of requests cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no RTSP request")]
pub struct Broken;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    New,
    Ready(u16),
    Playing,
    Leaving(u32),
}

/// One client's connection.
#[derive(Debug)]
pub struct Connection {
    identity: Identity,
    held: Vec<u8>,
    step: Step,
}

struct Request<'a> {
    method: &'a str,
    url: &'a str,
    cseq: u32,
    transport: Option<&'a str>,
}

impl Connection {
    /// A connection whose stream will be marked with `identity`.
    pub fn new(identity: Identity) -> Self {
        Self { identity, held: Vec::new(), step: Step::New }
    }

    /// Takes bytes of the client; answers go to `output`, what is to be done to `on`.
    ///
    /// # Errors
    /// The connection cannot be read on.
    pub fn on_bytes(&mut self, input: &[u8], facts: &Facts, output: &mut Vec<u8>, on: &mut impl FnMut(Event)) -> Result<(), Broken> {
        self.held.extend_from_slice(input);
        let mut held = std::mem::take(&mut self.held);
        let mut used = 0;
        let result = loop {
            match cut(held.get(used..).unwrap_or_default()) {
                Ok(Some((request, length))) => {
                    if let Some(request) = request {
                        self.answer(&request, facts, output, on);
                    }
                    used += length;
                }
                Ok(None) => break Ok(()),
                Err(broken) => break Err(broken),
            }
        };
        held.drain(..used);
        self.held = held;
        result
    }

    /// Answers the TEARDOWN.
    pub fn torn_down(&mut self, output: &mut Vec<u8>) {
        if let Step::Leaving(cseq) = self.step {
            self.step = Step::New;
            respond(output, "200 OK", cseq, "", "");
        }
    }

    fn answer(&mut self, request: &Request<'_>, facts: &Facts, output: &mut Vec<u8>, on: &mut impl FnMut(Event)) {
        let Identity { ssrc, seq, timestamp } = self.identity;
        let session = format!("Session: {ssrc:08x};timeout=60\r\n");
        let cseq = request.cseq;
        match (request.method, self.step) {
            ("OPTIONS", _) => {
                respond(output, "200 OK", cseq, "Public: OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n", "");
            }
            ("GET_PARAMETER", _) => respond(output, "200 OK", cseq, &session, ""),
            ("DESCRIBE", _) => {
                let base = format!("Content-Base: {}/\r\nContent-Type: application/sdp\r\n", request.url.trim_end_matches('/'));
                respond(output, "200 OK", cseq, &base, &facts.sdp);
            }
            ("SETUP", Step::New | Step::Ready(_)) => match request.transport.and_then(client_port) {
                Some(port) => {
                    self.step = Step::Ready(port);
                    let (server, rtcp) = (facts.rtp_port, facts.rtp_port.wrapping_add(1));
                    let transport = format!(
                        "Transport: RTP/AVP;unicast;client_port={port}-{};server_port={server}-{rtcp};ssrc={ssrc:08X}\r\n{session}",
                        port.wrapping_add(1)
                    );
                    respond(output, "200 OK", cseq, &transport, "");
                }
                None => respond(output, "461 Unsupported Transport", cseq, "", ""),
            },
            ("PLAY", Step::Ready(port)) => {
                self.step = Step::Playing;
                let info = format!("{session}Range: npt=0-\r\nRTP-Info: url={};seq={seq};rtptime={timestamp}\r\n", request.url);
                respond(output, "200 OK", cseq, &info, "");
                on(Event::Play(port));
            }
            ("TEARDOWN", Step::Ready(_) | Step::Playing) => {
                self.step = Step::Leaving(cseq);
                on(Event::Teardown);
            }
            ("SETUP" | "PLAY" | "TEARDOWN", _) => respond(output, "455 Method Not Valid in This State", cseq, "", ""),
            _ => respond(output, "501 Not Implemented", cseq, "", ""),
        }
    }
}

fn respond(output: &mut Vec<u8>, status: &str, cseq: u32, headers: &str, body: &str) {
    let mut text = format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{headers}");
    if !body.is_empty() {
        let _ = write!(text, "Content-Length: {}\r\n", body.len());
    }
    let _ = write!(text, "\r\n{body}");
    output.extend_from_slice(text.as_bytes());
}

/// The client's RTP port in the first transport of the header that goes over UDP (RFC 2326 12.39).
fn client_port(header: &str) -> Option<u16> {
    let udp = |spec: &&str| matches!(spec.trim().split(';').next(), Some("RTP/AVP" | "RTP/AVP/UDP"));
    let spec = header.split(',').find(udp).filter(|spec| !spec.contains("multicast"))?;
    let ports = spec.split(';').find_map(|part| part.trim().strip_prefix("client_port="))?;
    ports.split('-').next()?.trim().parse().ok().filter(|&port| port != 0)
}

/// The first request and the bytes that it takes; no request where blank lines or an interleaved frame are skipped.
fn cut(input: &[u8]) -> Result<Option<(Option<Request<'_>>, usize)>, Broken> {
    match *input {
        [] => return Ok(None),
        [b'\r' | b'\n', ..] => return Ok(Some((None, 1))),
        [b'$', _, high, low, ..] => {
            let length = 4 + usize::from(u16::from_be_bytes([high, low]));
            return Ok((input.len() >= length).then_some((None, length)));
        }
        _ => {}
    }
    let bounded = input.get(..REQUEST_MAX.min(input.len())).unwrap_or_default();
    let Some(end) = bounded.windows(4).position(|w| w == b"\r\n\r\n") else {
        return if input.len() >= REQUEST_MAX { Err(Broken) } else { Ok(None) };
    };
    let head = std::str::from_utf8(bounded.get(..end).unwrap_or_default()).map_err(|_| Broken)?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some(method), Some(url), Some("RTSP/1.0")) = (words.next(), words.next(), words.next()) else { return Err(Broken) };
    let mut request = Request { method, url, cseq: 0, transport: None };
    let mut body = 0;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "cseq" => request.cseq = value.parse().map_err(|_| Broken)?,
            "transport" => request.transport = Some(value),
            "content-length" => body = value.parse::<usize>().ok().filter(|&n| n <= REQUEST_MAX).ok_or(Broken)?,
            _ => {}
        }
    }
    let length = end + 4 + body;
    Ok((input.len() >= length).then_some((Some(request), length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALOGUE: &[u8] = b"OPTIONS rtsp://h/x RTSP/1.0\r\nCSeq: 1\r\n\r\n\
        DESCRIBE rtsp://h/x RTSP/1.0\r\nCSeq: 2\r\nAccept: application/sdp\r\n\r\n\
        SETUP rtsp://h/x/v RTSP/1.0\r\nCSeq: 3\r\nTransport: RTP/AVP/TCP;interleaved=0-1\r\n\r\n\
        SETUP rtsp://h/x/v RTSP/1.0\r\ncseq: 4\r\ntransport: RTP/AVP;unicast;client_port=5000-5001\r\n\r\n\
        PLAY rtsp://h/x/ RTSP/1.0\r\nCSeq: 5\r\nContent-Length: 3\r\n\r\nabc$\x01\x00\x02zz\
        PLAY rtsp://h/x/ RTSP/1.0\r\nCSeq: 6\r\n\r\n\
        RECORD rtsp://h/x/ RTSP/1.0\r\nCSeq: 7\r\n\r\n\
        TEARDOWN rtsp://h/x/ RTSP/1.0\r\nCSeq: 8\r\n\r\n";

    fn facts() -> Facts {
        Facts { sdp: "v=0\r\n".into(), rtp_port: 6000 }
    }

    fn feed(chunks: &[&[u8]]) -> (String, Vec<Event>, Result<(), Broken>) {
        let mut connection = Connection::new(Identity { ssrc: 0xabcd, seq: 7, timestamp: 9 });
        let (mut output, mut events) = (Vec::new(), Vec::new());
        let result = chunks.iter().try_for_each(|chunk| connection.on_bytes(chunk, &facts(), &mut output, &mut |e| events.push(e)));
        connection.torn_down(&mut output);
        (String::from_utf8(output).unwrap(), events, result)
    }

    #[test]
    fn a_client_is_led_through_its_session_however_its_bytes_are_cut() {
        let whole = feed(&[DIALOGUE]);
        let statuses: Vec<&str> = whole.0.lines().filter_map(|l| l.strip_prefix("RTSP/1.0 ")).map(|l| &l[..3]).collect();
        assert_eq!(statuses, ["200", "200", "461", "200", "200", "455", "501", "200"]);
        let numbers: Vec<&str> = whole.0.lines().filter_map(|l| l.strip_prefix("CSeq: ")).collect();
        assert_eq!(numbers, ["1", "2", "3", "4", "5", "6", "7", "8"]);
        assert!(whole.0.contains("client_port=5000-5001;server_port=6000-6001;ssrc=0000ABCD"));
        assert!(whole.0.contains("seq=7;rtptime=9"));
        assert_eq!(whole.1, [Event::Play(5000), Event::Teardown]);
        for at in 0..DIALOGUE.len() {
            assert_eq!(feed(&[&DIALOGUE[..at], &DIALOGUE[at..]]), whole, "cut at {at}");
        }
    }

    #[test]
    fn what_is_no_rtsp_ends_the_connection() {
        for input in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PLAY\r\n\r\n", b"PLAY x RTSP/1.0\r\nCSeq: -\r\n\r\n", &[b'a'; REQUEST_MAX]] {
            assert_eq!(feed(&[input]).2, Err(Broken), "{}", String::from_utf8_lossy(input));
        }
        assert_eq!(feed(&[b"X x RTSP/1.0\r\nContent-Length: 99999999\r\n\r\n"]).2, Err(Broken));
    }

    #[test]
    fn identities_differ() {
        let seen: std::collections::HashSet<u32> = (0..10_000).map(|n| Identity::of(n).ssrc).collect();
        assert_eq!(seen.len(), 10_000);
    }

    #[test]
    fn any_bytes_are_survived() {
        use proptest::prelude::*;
        proptest!(|(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..20))| {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let _ = feed(&chunks);
        });
    }
}
