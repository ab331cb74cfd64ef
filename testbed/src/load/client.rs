//! One RTSP client as a state machine without I/O: it is given bytes and the time, and leaves bytes to be sent in [`Client::output`].
//!
//! ```text
//! begin ─► OPTIONS ─► DESCRIBE ─► SETUP per track (the driver gives each its transport) ─► PLAY ─► playing ─► TEARDOWN
//! ```

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::rc::Rc;

use super::rtsp::{Broken, Item, Message, Splitter};
use super::sdp::{self, Track};

/// Waiting longer than this for an answer gives a client up.
pub const ANSWER_MAX_NS: u64 = 10_000_000_000;
/// RFC 2326 12.37: a session's time-out when the server names none.
const TIMEOUT_DEFAULT_S: u64 = 60;

/// RTSP methods that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Method {
    /// What can the server do?
    Options,
    /// What is it?
    Describe,
    /// A transport for one track.
    Setup,
    /// Start or seek.
    Play,
    /// Sent to keep the session.
    GetParameter,
    /// End.
    Teardown,
}

impl Method {
    /// As written on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Options => "OPTIONS",
            Self::Describe => "DESCRIBE",
            Self::Setup => "SETUP",
            Self::Play => "PLAY",
            Self::GetParameter => "GET_PARAMETER",
            Self::Teardown => "TEARDOWN",
        }
    }
}

/// How one track is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Over UDP to this RTP port, RTCP one above.
    Udp(u16),
    /// In the RTSP connection, RTP on this channel, RTCP one above.
    Interleaved(u8),
}

/// What the server said about one track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// The server's RTP port.
    pub server_rtp_port: Option<u16>,
    /// The server's RTCP port.
    pub server_rtcp_port: Option<u16>,
    /// The interleaved RTP channel.
    pub channel: Option<u8>,
    /// The SSRC announced.
    pub ssrc: Option<u32>,
}

/// RFC 2326 12.33: where a track's packets begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RtpInfo {
    /// First sequence number.
    pub seq: Option<u16>,
    /// RTP timestamp of the range's start.
    pub rtptime: Option<u32>,
}

/// What happened.
#[derive(Debug, PartialEq)]
pub enum Event<'a> {
    /// An answer came, `elapsed_ns` after the request.
    Answered {
        /// To which request.
        method: Method,
        /// The status code.
        status: u16,
        /// Time since the request.
        elapsed_ns: u64,
    },
    /// A track was set up; tracks come in their order.
    TrackReady {
        /// Its RTP clock rate.
        clock_hz: u32,
        /// What the server said about its transport.
        granted: Granted,
    },
    /// PLAY was accepted.
    Playing {
        /// It was a seek of a session that plays.
        seek: bool,
        /// When PLAY was sent.
        sent_ns: u64,
        /// Where each track begins.
        rtp_info: &'a [RtpInfo],
        /// How long the media lasts, in seconds.
        duration_s: Option<f64>,
    },
    /// The server said no; the session is over.
    Refused(Method, u16),
    /// TEARDOWN was answered.
    Left,
    /// An interleaved frame.
    Frame(u8, &'a [u8]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    New,
    Options,
    Describe,
    WantTransport(usize),
    Setup(usize),
    Starting,
    Playing,
    Leaving,
    Over,
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    cseq: u32,
    method: Method,
    sent_ns: u64,
    /// A PLAY of a session that plays already.
    seek: bool,
}

/// One client and its one session.
#[derive(Debug)]
pub struct Client {
    url: Rc<str>,
    video_only: bool,
    step: Step,
    splitter: Splitter,
    output: Vec<u8>,
    outstanding: VecDeque<Outstanding>,
    cseq: u32,
    session: Option<String>,
    timeout_ns: u64,
    last_request_ns: u64,
    base: String,
    aggregate: String,
    tracks: Vec<Track>,
    duration_s: Option<f64>,
    rtp_info: Vec<RtpInfo>,
    get_parameter: bool,
}

impl Client {
    /// A client for `url` that takes all tracks, or only those with video.
    pub fn new(url: Rc<str>, video_only: bool) -> Self {
        Self {
            url,
            video_only,
            step: Step::New,
            splitter: Splitter::default(),
            output: Vec::new(),
            outstanding: VecDeque::new(),
            cseq: 0,
            session: None,
            timeout_ns: TIMEOUT_DEFAULT_S * 1_000_000_000,
            last_request_ns: 0,
            base: String::new(),
            aggregate: String::new(),
            tracks: Vec::new(),
            duration_s: None,
            rtp_info: Vec::new(),
            get_parameter: false,
        }
    }

    /// Sends the first request.
    pub fn begin(&mut self, now_ns: u64) {
        self.step = Step::Options;
        let url = self.url.to_string();
        self.request(Method::Options, &url, "", now_ns);
    }

    /// True while packets are expected.
    pub fn is_playing(&self) -> bool {
        self.step == Step::Playing
    }

    /// True when nothing more will come.
    pub fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    /// Bytes to be sent; the driver removes what it sent.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// The track that waits for [`Client::setup`].
    pub fn wants_transport(&self) -> Option<usize> {
        match self.step {
            Step::WantTransport(track) => Some(track),
            _ => None,
        }
    }

    /// Asks for `transport` for the track that waits for one.
    pub fn setup(&mut self, transport: Transport, now_ns: u64) {
        let Step::WantTransport(track) = self.step else { return };
        let url = sdp::resolve(&self.base, self.tracks.get(track).and_then(|t| t.control.as_deref()));
        let header = match transport {
            Transport::Udp(port) => format!("Transport: RTP/AVP;unicast;client_port={port}-{}\r\n", port.wrapping_add(1)),
            Transport::Interleaved(channel) => {
                format!("Transport: RTP/AVP/TCP;unicast;interleaved={channel}-{}\r\n", channel.wrapping_add(1))
            }
        };
        self.step = Step::Setup(track);
        self.request(Method::Setup, &url, &header, now_ns);
    }

    /// Goes to `at_s` seconds while playing. False when the client cannot do that now.
    pub fn seek(&mut self, at_s: f64, now_ns: u64) -> bool {
        if self.step != Step::Playing || self.outstanding.iter().any(|o| o.method == Method::Play) {
            return false;
        }
        let url = self.aggregate.clone();
        self.request(Method::Play, &url, &format!("Range: npt={at_s:.3}-\r\n"), now_ns);
        true
    }

    /// Ends the session. False when there is none to end; the connection can simply be closed then.
    pub fn leave(&mut self, now_ns: u64) -> bool {
        if self.session.is_none() || matches!(self.step, Step::Over | Step::Leaving) {
            self.step = Step::Over;
            return false;
        }
        self.step = Step::Leaving;
        let url = self.aggregate.clone();
        self.request(Method::Teardown, &url, "", now_ns);
        true
    }

    /// Puts an interleaved frame (a receiver report) into the output.
    pub fn send_frame(&mut self, channel: u8, payload: &[u8]) {
        self.output.extend_from_slice(&[b'$', channel]);
        self.output.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        self.output.extend_from_slice(payload);
    }

    /// When [`Client::on_time`] wants to be called next.
    pub fn next_time_ns(&self) -> u64 {
        let answer = self.outstanding.front().map_or(u64::MAX, |o| o.sent_ns.saturating_add(ANSWER_MAX_NS));
        let keep_alive = if self.step == Step::Playing { self.keep_alive_ns() } else { u64::MAX };
        answer.min(keep_alive)
    }

    fn keep_alive_ns(&self) -> u64 {
        self.last_request_ns.saturating_add(self.timeout_ns / 2)
    }

    /// Sends a keep-alive when it is due. False when the server has not answered for too long.
    pub fn on_time(&mut self, now_ns: u64) -> bool {
        if self.outstanding.front().is_some_and(|o| now_ns >= o.sent_ns.saturating_add(ANSWER_MAX_NS)) {
            self.step = Step::Over;
            return false;
        }
        if self.step == Step::Playing && now_ns >= self.keep_alive_ns() {
            let url = self.aggregate.clone();
            self.request(if self.get_parameter { Method::GetParameter } else { Method::Options }, &url, "", now_ns);
        }
        true
    }

    /// Takes bytes from the server.
    ///
    /// # Errors
    /// The connection cannot be read on.
    pub fn on_bytes(&mut self, input: &[u8], now_ns: u64, on: &mut impl FnMut(Event<'_>)) -> Result<(), Broken> {
        let mut splitter = std::mem::take(&mut self.splitter);
        let result = splitter.feed(input, &mut |item| match item {
            Item::Frame(channel, payload) => on(Event::Frame(channel, payload)),
            Item::Message(message) => match message.status {
                Some(status) => self.on_response(&message, status, now_ns, on),
                // RFC 2326 7.1.1: what a client does not do, it says so.
                None => {
                    let _ = write!(Text(&mut self.output), "RTSP/1.0 501 Not Implemented\r\nCSeq: {}\r\n\r\n", message.cseq().unwrap_or(0));
                }
            },
        });
        self.splitter = splitter;
        result
    }

    fn on_response(&mut self, message: &Message, status: u16, now_ns: u64, on: &mut impl FnMut(Event<'_>)) {
        let place = match message.cseq() {
            Some(cseq) => self.outstanding.iter().position(|o| o.cseq == cseq),
            None => (!self.outstanding.is_empty()).then_some(0),
        };
        let Some(request) = place.and_then(|p| self.outstanding.remove(p)) else { return };
        let method = request.method;
        on(Event::Answered { method, status, elapsed_ns: now_ns.saturating_sub(request.sent_ns) });
        let seek = request.seek;
        let fatal = !(200..300).contains(&status) && !seek;
        match method {
            Method::Teardown => {
                self.step = Step::Over;
                on(Event::Left);
            }
            Method::GetParameter => {}
            Method::Options if self.step != Step::Options => {}
            // RFC 2326 10.1: a server may know no OPTIONS; the answer to DESCRIBE decides.
            Method::Options => {
                self.get_parameter = message.header("Public").is_some_and(|p| p.contains("GET_PARAMETER"));
                self.step = Step::Describe;
                let url = self.url.to_string();
                self.request(Method::Describe, &url, "Accept: application/sdp\r\n", now_ns);
            }
            // An answer that comes while the session is being torn down changes nothing any more.
            _ if self.step == Step::Leaving || self.step == Step::Over => {}
            _ if fatal => {
                self.step = Step::Over;
                on(Event::Refused(method, status));
            }
            Method::Describe => self.on_description(message, on),
            Method::Setup => self.on_setup(message, now_ns, on),
            Method::Play => {
                self.step = Step::Playing;
                if (200..300).contains(&status) {
                    self.read_rtp_info(message.header("RTP-Info").unwrap_or_default());
                    on(Event::Playing { seek, sent_ns: request.sent_ns, rtp_info: &self.rtp_info, duration_s: self.duration_s });
                }
            }
        }
    }

    fn on_description(&mut self, message: &Message, on: &mut impl FnMut(Event<'_>)) {
        let base = message.header("Content-Base").or_else(|| message.header("Content-Location"));
        self.base = base.filter(|b| b.contains("://")).unwrap_or(&self.url).to_owned();
        let description = sdp::parse(&String::from_utf8_lossy(&message.body));
        self.aggregate = sdp::resolve(&self.base, description.control.as_deref());
        self.duration_s = description.duration_s;
        self.tracks = description.tracks;
        if self.video_only {
            self.tracks.retain(|t| t.kind == "video");
        }
        self.rtp_info = vec![RtpInfo::default(); self.tracks.len()];
        if self.tracks.is_empty() {
            self.step = Step::Over;
            on(Event::Refused(Method::Describe, 200));
        } else {
            self.step = Step::WantTransport(0);
        }
    }

    fn on_setup(&mut self, message: &Message, now_ns: u64, on: &mut impl FnMut(Event<'_>)) {
        let Step::Setup(track) = self.step else { return };
        if let Some(header) = message.header("Session") {
            let mut parts = header.split(';');
            self.session = parts.next().map(|id| id.trim().to_owned());
            let seconds = parts.find_map(|p| p.trim().strip_prefix("timeout=")?.parse::<u64>().ok());
            self.timeout_ns = seconds.unwrap_or(TIMEOUT_DEFAULT_S).clamp(2, 3600) * 1_000_000_000;
        }
        let clock_hz = self.tracks.get(track).map_or(90_000, |t| t.clock_hz);
        on(Event::TrackReady { clock_hz, granted: read_transport(message.header("Transport").unwrap_or_default()) });
        if track + 1 < self.tracks.len() {
            self.step = Step::WantTransport(track + 1);
        } else {
            self.step = Step::Starting;
            let url = self.aggregate.clone();
            self.request(Method::Play, &url, "Range: npt=0.000-\r\n", now_ns);
        }
    }

    /// RFC 2326 12.33; entries are matched by the end of their address, and by their order where that says nothing.
    fn read_rtp_info(&mut self, header: &str) {
        self.rtp_info.fill(RtpInfo::default());
        for (order, entry) in header.split(',').enumerate().take(self.tracks.len()) {
            let (mut url, mut info) = ("", RtpInfo::default());
            for part in entry.split(';').map(str::trim) {
                match part.split_once('=') {
                    Some(("url", value)) => url = value.trim_matches('"'),
                    Some(("seq", value)) => info.seq = value.trim().parse().ok(),
                    Some(("rtptime", value)) => info.rtptime = value.trim().parse().ok(),
                    _ => {}
                }
            }
            let named =
                self.tracks.iter().position(|t| t.control.as_deref().is_some_and(|c| c != "*" && !c.is_empty() && url.ends_with(c)));
            if let Some(place) = self.rtp_info.get_mut(named.unwrap_or(order)) {
                *place = info;
            }
        }
    }

    fn request(&mut self, method: Method, url: &str, headers: &str, now_ns: u64) {
        self.cseq += 1;
        let mut text = Text(&mut self.output);
        let _ = write!(text, "{} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: testbed\r\n{headers}", method.name(), self.cseq);
        if let Some(session) = &self.session {
            let _ = write!(text, "Session: {session}\r\n");
        }
        let _ = text.write_str("\r\n");
        let seek = method == Method::Play && self.step == Step::Playing;
        self.outstanding.push_back(Outstanding { cseq: self.cseq, method, sent_ns: now_ns, seek });
        self.last_request_ns = now_ns;
    }
}

/// Lets `write!` fill a byte buffer.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// RFC 2326 12.39.
fn read_transport(header: &str) -> Granted {
    let mut granted = Granted::default();
    for part in header.split(';').map(str::trim) {
        match part.split_once('=') {
            Some(("server_port", range)) => {
                let (rtp, rtcp) = range.split_once('-').unwrap_or((range, ""));
                granted.server_rtp_port = rtp.parse().ok();
                granted.server_rtcp_port = rtcp.parse().ok().or(granted.server_rtp_port.and_then(|p| p.checked_add(1)));
            }
            Some(("interleaved", range)) => granted.channel = range.split('-').next().and_then(|c| c.parse().ok()),
            Some(("ssrc", ssrc)) => granted.ssrc = u32::from_str_radix(ssrc.trim(), 16).ok(),
            _ => {}
        }
    }
    granted
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &str = "v=0\r\na=control:*\r\na=range:npt=0-60\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:t0\r\n\
                       m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/48000\r\na=control:t1\r\n";

    /// Answers the request that waits in the output and returns its first line.
    fn answer(client: &mut Client, status: &str, headers: &str, body: &str, log: &mut Vec<String>) -> String {
        let request = String::from_utf8(std::mem::take(client.output())).unwrap();
        let cseq = request.lines().find_map(|l| l.strip_prefix("CSeq: ")).unwrap().to_owned();
        let text = format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len());
        client.on_bytes(text.as_bytes(), 5, &mut |e| log.push(format!("{e:?}"))).unwrap();
        request.lines().next().unwrap().to_owned()
    }

    #[test]
    fn a_session_from_options_to_teardown() {
        let mut client = Client::new("rtsp://h/x.mp4".into(), false);
        let mut log = Vec::new();
        client.begin(0);
        assert_eq!(answer(&mut client, "200 OK", "Public: PLAY, GET_PARAMETER\r\n", "", &mut log), "OPTIONS rtsp://h/x.mp4 RTSP/1.0");
        assert_eq!(answer(&mut client, "200 OK", "Content-Base: rtsp://h/x.mp4/\r\n", SDP, &mut log), "DESCRIBE rtsp://h/x.mp4 RTSP/1.0");
        assert_eq!(client.wants_transport(), Some(0));
        client.setup(Transport::Udp(4000), 1);
        let granted = "Session: abc;timeout=10\r\nTransport: RTP/AVP;unicast;client_port=4000-4001;server_port=6970-6971;ssrc=0000000F\r\n";
        assert_eq!(answer(&mut client, "200 OK", granted, "", &mut log), "SETUP rtsp://h/x.mp4/t0 RTSP/1.0");
        client.setup(Transport::Interleaved(2), 1);
        assert_eq!(
            answer(&mut client, "200 OK", "Session: abc\r\nTransport: RTP/AVP/TCP;interleaved=2-3\r\n", "", &mut log),
            "SETUP rtsp://h/x.mp4/t1 RTSP/1.0"
        );
        let info = "RTP-Info: url=rtsp://h/x.mp4/t1;seq=7;rtptime=70,url=rtsp://h/x.mp4/t0;seq=5;rtptime=50\r\n";
        assert_eq!(answer(&mut client, "200 OK", info, "", &mut log), "PLAY rtsp://h/x.mp4/ RTSP/1.0");
        assert!(client.is_playing());
        let playing = log.last().unwrap();
        assert!(playing.contains("RtpInfo { seq: Some(5), rtptime: Some(50) }, RtpInfo { seq: Some(7)"), "{playing}");
        assert!(log.iter().any(|l| l.contains("server_rtcp_port: Some(6971)") && l.contains("ssrc: Some(15)")), "{log:?}");
        // The keep-alive is due after half of the last time-out named (60 s by default).
        assert!(client.on_time(31_000_000_000));
        assert!(answer(&mut client, "200 OK", "", "", &mut log).starts_with("GET_PARAMETER"));
        assert!(client.seek(12.5, 40));
        assert!(!client.seek(13.5, 40), "one seek at a time");
        answer(&mut client, "200 OK", "", "", &mut log);
        assert!(log.last().unwrap().contains("seek: true"));
        assert!(client.leave(50));
        assert!(answer(&mut client, "200 OK", "", "", &mut log).starts_with("TEARDOWN"));
        assert!(client.is_over());
    }

    #[test]
    fn a_refusal_ends_it_and_says_why() {
        let mut client = Client::new("rtsp://h/x".into(), true);
        let mut log = Vec::new();
        client.begin(0);
        answer(&mut client, "501 Not Implemented", "", "", &mut log);
        answer(&mut client, "453 Not Enough Bandwidth", "", "", &mut log);
        assert_eq!(log.last().unwrap(), "Refused(Describe, 453)");
        assert!(client.is_over());
    }

    #[test]
    fn silence_gives_up() {
        let mut client = Client::new("rtsp://h/x".into(), true);
        client.begin(7);
        assert_eq!(client.next_time_ns(), 7 + ANSWER_MAX_NS);
        assert!(client.on_time(7 + ANSWER_MAX_NS - 1));
        assert!(!client.on_time(7 + ANSWER_MAX_NS));
    }
}
