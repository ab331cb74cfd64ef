//! A small blocking RTSP client for tests: does on command what players do not (pause for exactly so long, stop reading, send odd things),
//! and keeps everything that arrives.
//!
//! ```text
//! client = RtspClient::connect(..);  client.describe(url);  client.setup(..);  client.play("npt=0-");
//! arrivals = client.receive_for(2 s);  client.request("PAUSE", ..);
//! ```
//!
//! One thread reads the connection and one each UDP socket; all arrivals meet in one queue.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// An RTSP response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields in order, names as sent.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Response {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }
}

/// Something that arrived.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Track in set-up order.
    pub track: usize,
    /// True for RTCP.
    pub rtcp: bool,
    /// When it was read.
    pub at: Instant,
    /// The datagram or interleaved payload.
    pub bytes: Vec<u8>,
}

/// An RTP packet's view of an [`Arrival`] (RFC 3550 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rtp<'a> {
    /// Marker bit.
    pub marker: bool,
    /// Payload type.
    pub payload_type: u8,
    /// Sequence number.
    pub seq: u16,
    /// RTP time.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Payload.
    pub payload: &'a [u8],
}

impl Arrival {
    /// Reads it as RTP; `None` when it is not.
    pub fn rtp(&self) -> Option<Rtp<'_>> {
        let b = &self.bytes;
        let word = |at: usize| Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?));
        let first = *b.first()?;
        if self.rtcp || first >> 6 != 2 || first & 0x1f != 0 {
            return None;
        }
        Some(Rtp {
            marker: b.get(1)? & 0x80 != 0,
            payload_type: b.get(1)? & 0x7f,
            seq: u16::from_be_bytes([*b.get(2)?, *b.get(3)?]),
            timestamp: word(4)?,
            ssrc: word(8)?,
            payload: b.get(12..)?,
        })
    }

    /// The packet types of a compound RTCP packet (200 SR, 201 RR, 202 SDES, 203 BYE).
    pub fn rtcp_types(&self) -> Vec<u8> {
        let mut types = Vec::new();
        let mut rest = if self.rtcp { &self.bytes[..] } else { &[] };
        while let [_, kind, high, low, ..] = rest {
            types.push(*kind);
            let bytes = (usize::from(u16::from_be_bytes([*high, *low])) + 1) * 4;
            rest = rest.get(bytes..).unwrap_or_default();
        }
        types
    }
}

enum Event {
    Response(Response),
    Interleaved { channel: u8, at: Instant, bytes: Vec<u8> },
    Datagram(Arrival),
    Closed,
}

/// How to receive a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// RTP/AVP over a pair of UDP sockets.
    Udp,
    /// Interleaved in the connection.
    Tcp,
}

/// A track that was set up.
#[derive(Debug)]
pub struct Track {
    /// Control URL.
    pub url: String,
    /// The server's answer to SETUP.
    pub transport: String,
    /// Our sockets (UDP).
    pub sockets: Option<(UdpSocket, UdpSocket)>,
    /// RTP channel (interleaved); RTCP is the next.
    pub channel: u8,
}

/// The client. Dropping it closes the connection.
#[derive(Debug)]
pub struct RtspClient {
    stream: TcpStream,
    events: Receiver<Event>,
    sender: Sender<Event>,
    stop: Arc<AtomicBool>,
    pending: VecDeque<Arrival>,
    cseq: u32,
    /// Session id of the last SETUP, sent with every request.
    pub session: Option<String>,
    /// Tracks in set-up order.
    pub tracks: Vec<Track>,
    /// The server closed the connection.
    pub closed: bool,
}

/// Longest wait for a response.
const PATIENCE: Duration = Duration::from_secs(15);

impl RtspClient {
    /// Connects to a server.
    ///
    /// # Errors
    /// When it does not accept.
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))?;
        stream.set_nodelay(true)?;
        let (sender, events) = mpsc::channel();
        let reader = stream.try_clone()?;
        let to = sender.clone();
        thread::spawn(move || {
            let _ = read_connection(BufReader::new(reader), &to);
            let _ = to.send(Event::Closed);
        });
        let stop = Arc::new(AtomicBool::new(false));
        let (pending, tracks) = (VecDeque::new(), Vec::new());
        Ok(Self { stream, events, sender, stop, pending, cseq: 0, session: None, tracks, closed: false })
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and waits for its response; `headers` are whole lines without line ends.
    ///
    /// # Errors
    /// When there is none.
    pub fn request(&mut self, method: &str, url: &str, headers: &[&str]) -> io::Result<Response> {
        self.cseq += 1;
        let mut text = format!("{method} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: testbed\r\n", self.cseq);
        if let Some(session) = &self.session {
            text.push_str(&format!("Session: {session}\r\n"));
        }
        for header in headers {
            text.push_str(header);
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        self.stream.write_all(text.as_bytes())?;
        let response = self.response()?;
        if let Some(cseq) = response.header("CSeq")
            && cseq != self.cseq.to_string()
        {
            return Err(io::Error::other(format!("{method}: CSeq {cseq} in the response to {}", self.cseq)));
        }
        Ok(response)
    }

    /// Waits for the next response; media that arrives meanwhile is kept.
    ///
    /// # Errors
    /// When there is none in time or the connection was closed.
    pub fn response(&mut self) -> io::Result<Response> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Event::Response(response)) => return Ok(response),
                Ok(event) => self.keep(event),
                Err(_) => return Err(io::Error::new(io::ErrorKind::TimedOut, "no response")),
            }
            if self.closed {
                return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "closed by the server"));
            }
        }
    }

    fn keep(&mut self, event: Event) {
        match event {
            Event::Interleaved { channel, at, bytes } => {
                if let Some(track) = self.tracks.iter().position(|t| t.sockets.is_none() && t.channel == channel & !1) {
                    self.pending.push_back(Arrival { track, rtcp: channel & 1 == 1, at, bytes });
                }
            }
            Event::Datagram(arrival) => self.pending.push_back(arrival),
            Event::Closed => self.closed = true,
            Event::Response(_) => {}
        }
    }

    /// DESCRIBE; the SDP's control URLs by media section, in order, and the response.
    ///
    /// # Errors
    /// When there is no response.
    pub fn describe(&mut self, url: &str) -> io::Result<(Response, Vec<String>)> {
        let response = self.request("DESCRIBE", url, &["Accept: application/sdp"])?;
        let base = response.header("Content-Base").unwrap_or(url).trim_end_matches('/').to_owned();
        let media = response.body.split("\nm=").skip(1);
        let controls = media.filter_map(|m| m.lines().find_map(|l| l.trim_end().strip_prefix("a=control:").map(str::to_owned)));
        let absolute = |control: String| if control.contains("://") { control } else { format!("{base}/{control}") };
        Ok((response.clone(), controls.map(absolute).collect()))
    }

    /// SETUP of one track; on success it is added to `tracks`.
    ///
    /// # Errors
    /// When there is no response.
    pub fn setup(&mut self, control: &str, over: Over) -> io::Result<Response> {
        let track = self.tracks.len();
        let channel = u8::try_from(track * 2).map_err(io::Error::other)?;
        let (offer, sockets) = match over {
            Over::Tcp => (format!("Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{}", channel + 1), None),
            Over::Udp => {
                let pair = udp_pair(self.stream.local_addr()?.ip())?;
                let ports = (pair.0.local_addr()?.port(), pair.1.local_addr()?.port());
                (format!("Transport: RTP/AVP;unicast;client_port={}-{}", ports.0, ports.1), Some(pair))
            }
        };
        let response = self.request("SETUP", control, &[&offer])?;
        if response.status == 200 {
            if let Some(session) = response.header("Session") {
                self.session = Some(session.split(';').next().unwrap_or(session).trim().to_owned());
            }
            if let Some((rtp, rtcp)) = &sockets {
                for (socket, rtcp) in [(rtp.try_clone()?, false), (rtcp.try_clone()?, true)] {
                    let (to, stop) = (self.sender.clone(), Arc::clone(&self.stop));
                    thread::spawn(move || read_socket(&socket, track, rtcp, &to, &stop));
                }
            }
            let transport = response.header("Transport").unwrap_or_default().to_owned();
            self.tracks.push(Track { url: control.to_owned(), transport, sockets, channel });
        }
        Ok(response)
    }

    /// DESCRIBE and SETUP of every track of `url`.
    ///
    /// # Errors
    /// When one of them is refused.
    pub fn open(&mut self, url: &str, over: Over) -> io::Result<Response> {
        let (described, controls) = self.describe(url)?;
        if described.status != 200 {
            return Err(io::Error::other(format!("DESCRIBE {url}: {}", described.status)));
        }
        for control in controls {
            let response = self.setup(&control, over)?;
            if response.status != 200 {
                return Err(io::Error::other(format!("SETUP {control}: {}", response.status)));
            }
        }
        Ok(described)
    }

    /// PLAY with an optional Range value.
    ///
    /// # Errors
    /// When there is no response.
    pub fn play(&mut self, url: &str, range: Option<&str>) -> io::Result<Response> {
        let range = range.map(|r| format!("Range: {r}"));
        let headers: Vec<&str> = range.iter().map(String::as_str).collect();
        self.request("PLAY", url, &headers)
    }

    /// Everything that arrives within `time`.
    pub fn receive_for(&mut self, time: Duration) -> Vec<Arrival> {
        let deadline = Instant::now() + time;
        self.receive_until(deadline, |_| false)
    }

    /// Everything that arrives until `enough` says so of an arrival, the deadline, or the end of the connection.
    pub fn receive_until(&mut self, deadline: Instant, mut enough: impl FnMut(&Arrival) -> bool) -> Vec<Arrival> {
        let mut arrivals = Vec::new();
        loop {
            while let Some(arrival) = self.pending.pop_front() {
                let last = enough(&arrival);
                arrivals.push(arrival);
                if last {
                    return arrivals;
                }
            }
            // Datagrams still come after the connection has gone.
            if self.closed && self.tracks.iter().all(|t| t.sockets.is_none()) {
                return arrivals;
            }
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(event) => self.keep(event),
                Err(_) => return arrivals,
            }
        }
    }
}

impl Drop for RtspClient {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// Two UDP sockets on an even port and the next, as RFC 3550 wants it.
fn udp_pair(ip: IpAddr) -> io::Result<(UdpSocket, UdpSocket)> {
    for _ in 0..100 {
        let first = UdpSocket::bind((ip, 0))?;
        let port = first.local_addr()?.port();
        if port % 2 == 0
            && let Some(next) = port.checked_add(1)
            && let Ok(second) = UdpSocket::bind((ip, next))
        {
            for socket in [&first, &second] {
                // Without privileges the system caps this; it is only there so that a slow test machine loses nothing.
                let _ = socket2::SockRef::from(socket).set_recv_buffer_size(4 << 20);
                socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            }
            return Ok((first, second));
        }
    }
    Err(io::Error::other("no pair of UDP ports is free"))
}

fn read_socket(socket: &UdpSocket, track: usize, rtcp: bool, to: &Sender<Event>, stop: &AtomicBool) {
    let mut buffer = [0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, _)) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if to.send(Event::Datagram(Arrival { track, rtcp, at: Instant::now(), bytes })).is_err() {
                    return;
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::ConnectionRefused) => {}
            Err(_) => return,
        }
    }
}

fn read_connection(mut from: BufReader<TcpStream>, to: &Sender<Event>) -> io::Result<()> {
    loop {
        let Some(&first) = from.fill_buf()?.first() else { return Ok(()) };
        let event = if first == b'$' {
            let mut head = [0; 4];
            from.read_exact(&mut head)?;
            let [_, channel, high, low] = head;
            let mut bytes = vec![0; usize::from(u16::from_be_bytes([high, low]))];
            from.read_exact(&mut bytes)?;
            Event::Interleaved { channel, at: Instant::now(), bytes }
        } else {
            match read_response(&mut from)? {
                Some(response) => Event::Response(response),
                None => continue,
            }
        };
        if to.send(event).is_err() {
            return Ok(());
        }
    }
}

fn read_response(from: &mut impl BufRead) -> io::Result<Option<Response>> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    if line.trim().is_empty() {
        return Ok(None);
    }
    let bad = |line: &str| io::Error::other(format!("not a response: {line:?}"));
    let status = line.strip_prefix("RTSP/1.0 ").and_then(|l| l.get(..3)).and_then(|s| s.parse().ok()).ok_or_else(|| bad(&line))?;
    let mut response = Response { status, ..Response::default() };
    loop {
        line.clear();
        from.read_line(&mut line)?;
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        let (name, value) = text.split_once(':').ok_or_else(|| bad(text))?;
        response.headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let length: u64 = response.header("Content-Length").and_then(|l| l.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    from.take(length.min(1 << 20)).read_to_end(&mut body)?;
    response.body = String::from_utf8_lossy(&body).into_owned();
    Ok(Some(response))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_and_compound_rtcp_are_read() {
        let text = "\r\nRTSP/1.0 200 OK\r\nCSeq: 3\r\nSession:  12;timeout=60\r\nContent-Length: 4\r\n\r\nv=0\nrest";
        let mut from = BufReader::new(text.as_bytes());
        assert_eq!(read_response(&mut from).unwrap(), None);
        let response = read_response(&mut from).unwrap().unwrap();
        assert_eq!((response.status, response.header("session"), response.body.as_str()), (200, Some("12;timeout=60"), "v=0\n"));

        let mut bytes = vec![0x80, 200, 0, 6];
        bytes.extend([0; 24]);
        bytes.extend([0x81, 203, 0, 1, 0, 0, 0, 1]);
        let arrival = Arrival { track: 0, rtcp: true, at: Instant::now(), bytes };
        assert_eq!(arrival.rtcp_types(), [200, 203]);
        assert!(arrival.rtp().is_none());
    }
}
