//! The trace language: what is sent to the stack, what it must answer, and when.
//!
//! ```text
//! == name of the case                 ends the one before
//! 0.000 < S 0:0(0) win 65535 <mss 1460,sackOK,TS val 1 ecr 0,wscale 7>     the peer sends
//! 0.000 > S. 0:0(0) ack 1 <mss 1460>   the stack must send, within 1.5 ms of that time; options that are not named are not looked at
//! 0.010 send 1000                      a call, or a question; see `Runner::call`
//! ```
//!
//! Sequence numbers count from each side's own SYN. Flags are S, F, R, P and `.` for ACK; P is not compared. `ecr last` echoes the stack's
//! last timestamp, `ecr old` one of a second before. A segment that no line asks for is a failure, as is one that does not come.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{TcpOption as WireOption, TcpPacket};
use stack::tcp::{
    Algorithm, ConnId, Events, IcmpError, IfqLimit, KeepAlive, ListenerId, SegmentOut, SendOutcome, Tcp, TcpConfig, TcpOption,
};

const MS: u64 = 1_000_000;
const TOLERANCE_NS: u64 = 1_500_000;
/// The peer's first sequence number: numbers wrap around early.
const PEER_ISN: u32 = 0xffff_fc00;
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 80);
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)), 5000);

/// A port that keeps what is sent, or refuses it.
struct Port {
    sent: VecDeque<(u64, Vec<u8>)>,
    now_ns: u64,
    outcome: SendOutcome,
    queued: usize,
    /// Segments that are still taken before `outcome` counts.
    takes: usize,
}

impl SegmentOut for Port {
    fn queued(&self) -> usize {
        self.queued
    }

    fn segment(&mut self, _local: IpAddr, _remote: IpAddr, len: usize, fill: &mut dyn FnMut(&mut [u8])) -> SendOutcome {
        if self.outcome != SendOutcome::Sent && self.takes == 0 {
            return self.outcome;
        }
        self.takes = self.takes.saturating_sub(1);
        let mut segment = vec![0; len];
        fill(&mut segment);
        self.sent.push_back((self.now_ns, segment));
        SendOutcome::Sent
    }
}

pub struct Runner {
    tcp: Tcp,
    config: TcpConfig,
    port: Port,
    now_ns: u64,
    listener: Option<ListenerId>,
    conn: Option<ConnId>,
    events: Vec<Events>,
    /// Our own first sequence number, and our last timestamp.
    isn: Option<u32>,
    last_ts: u32,
    peer_port: u16,
}

/// Runs all cases of a file; answers what went wrong.
pub fn run_file(text: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let mut runner = None;
    let mut name = "";
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(title) = line.strip_prefix("== ") {
            if let Some(Err(error)) = runner.map(|runner: Result<Runner, String>| runner.and_then(Runner::finish)) {
                failures.push(format!("{name}: {error}"));
            }
            (name, runner) = (title, Some(Ok(Runner::new())));
        } else if let (false, Some(Ok(active))) = (line.is_empty(), &mut runner)
            && let Err(error) = active.line(line)
        {
            runner = Some(Err(format!("line {number}: {line}\n    {error}")));
        }
    }
    if let Some(Err(error)) = runner.map(|runner| runner.and_then(Runner::finish)) {
        failures.push(format!("{name}: {error}"));
    }
    failures
}

fn number<T: std::str::FromStr>(text: Option<&str>) -> Result<T, String> {
    text.and_then(|text| text.parse().ok()).ok_or_else(|| format!("no number: {text:?}"))
}

impl Runner {
    fn new() -> Self {
        let config = TcpConfig {
            connections_max: 8,
            pool_bytes: 1 << 20,
            recv_buffer_bytes: 65_535,
            buffer_bytes_max: 0,
            ifq_limit: IfqLimit::Off,
            congestion: Algorithm::NewReno,
            ..TcpConfig::default()
        };
        let port = Port { sent: VecDeque::new(), now_ns: 0, outcome: SendOutcome::Sent, queued: 0, takes: 0 };
        Self {
            tcp: Tcp::new(config.clone(), 99, 0),
            config,
            port,
            now_ns: 0,
            listener: None,
            conn: None,
            events: Vec::new(),
            isn: None,
            last_ts: 0,
            peer_port: PEER.port(),
        }
    }

    fn finish(mut self) -> Result<(), String> {
        self.run_to(self.now_ns + 2 * TOLERANCE_NS);
        self.nothing_more()
    }

    fn nothing_more(&self) -> Result<(), String> {
        match self.port.sent.front() {
            Some((at_ns, segment)) => Err(format!("not asked for, at {:.4}: {}", *at_ns as f64 / 1e9, self.show(segment))),
            None => Ok(()),
        }
    }

    /// Turns up to that time, each when the stack wants it.
    fn run_to(&mut self, until_ns: u64) {
        loop {
            self.port.now_ns = self.now_ns;
            self.tcp.egress(self.now_ns, &mut self.port);
            match self.tcp.next_ns() {
                Some(next_ns) if next_ns <= until_ns => self.now_ns = next_ns.max(self.now_ns + 1),
                _ => break,
            }
        }
        self.now_ns = self.now_ns.max(until_ns);
        self.port.now_ns = self.now_ns;
        self.tcp.egress(self.now_ns, &mut self.port);
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let (time, rest) = line.split_once(char::is_whitespace).ok_or("no time")?;
        let at_ns = (time.parse::<f64>().map_err(|e| e.to_string())? * 1e9) as u64;
        let rest = rest.trim();
        if let Some(expected) = rest.strip_prefix("> ") {
            return self.expect(at_ns, expected.trim());
        }
        self.run_to(at_ns);
        self.nothing_more()?;
        match rest.strip_prefix("< ") {
            Some(segment) => self.inject(segment.trim()),
            None => self.call(rest),
        }?;
        self.port.now_ns = self.now_ns;
        self.tcp.egress(self.now_ns, &mut self.port);
        Ok(())
    }

    /// Splits `S. 1:2(1) ack 3 win 4 <options>`.
    fn fields(text: &str) -> Result<Fields<'_>, String> {
        let (head, options) = match text.split_once('<') {
            Some((head, options)) => (head, Some(options.trim_end().trim_end_matches('>'))),
            None => (text, None),
        };
        let mut words = head.split_whitespace();
        let flags = words.next().ok_or("no flags")?;
        let (range, len) = words.next().and_then(|range| range.split_once('(')).ok_or("no a:b(n)")?;
        let seq = range.split(':').next().and_then(|seq| seq.parse().ok()).ok_or("no sequence number")?;
        let len = number(len.strip_suffix(')'))?;
        let (mut ack, mut window) = (None, None);
        while let Some(word) = words.next() {
            match word {
                "ack" => ack = Some(number(words.next())?),
                "win" => window = Some(number(words.next())?),
                other => return Err(format!("what is {other:?}?")),
            }
        }
        Ok(Fields { flags, seq, len, ack, window, options })
    }

    fn inject(&mut self, text: &str) -> Result<(), String> {
        let fields = Self::fields(text)?;
        let mut options = Vec::new();
        for option in fields.options.unwrap_or_default().split(',').map(str::trim).filter(|option| !option.is_empty()) {
            let words: Vec<&str> = option.split_whitespace().collect();
            match words[..] {
                ["mss", mss] => options.extend([&[2, 4], &number::<u16>(Some(mss))?.to_be_bytes()[..]].concat()),
                ["wscale", shift] => options.extend([3, 3, number(Some(shift))?]),
                ["sackOK"] => options.extend([4, 2]),
                ["TS", "val", value, "ecr", echo] => {
                    let echo = match echo {
                        "last" => self.last_ts,
                        "old" => self.last_ts.wrapping_sub(1000),
                        echo => number(Some(echo))?,
                    };
                    options.extend([8, 10]);
                    options.extend(number::<u32>(Some(value))?.to_be_bytes());
                    options.extend(echo.to_be_bytes());
                }
                ["sack", ref ranges @ ..] => {
                    options.extend([5, 2 + 8 * ranges.len() as u8]);
                    for range in ranges {
                        let (start, end) = range.split_once(':').ok_or("sack a:b")?;
                        for edge in [start, end] {
                            options.extend(self.isn.unwrap_or(0).wrapping_add(number(Some(edge))?).to_be_bytes());
                        }
                    }
                }
                _ => return Err(format!("what is {option:?}?")),
            }
        }
        options.resize(options.len().next_multiple_of(4), 1);
        let mut segment = vec![0; 20 + options.len() + fields.len];
        segment[20..20 + options.len()].copy_from_slice(&options);
        let mut packet = TcpPacket::new_unchecked(&mut segment);
        packet.set_src_port(self.peer_port);
        packet.set_dst_port(LOCAL.port());
        packet.set_header_len(20 + options.len() as u8);
        packet.set_seq_number(smoltcp::wire::TcpSeqNumber(PEER_ISN.wrapping_add(fields.seq) as i32));
        packet.set_ack_number(smoltcp::wire::TcpSeqNumber(self.isn.unwrap_or(0).wrapping_add(fields.ack.unwrap_or(0)) as i32));
        packet.set_window_len(fields.window.unwrap_or(65_535));
        packet.set_syn(fields.flags.contains('S'));
        packet.set_fin(fields.flags.contains('F'));
        packet.set_rst(fields.flags.contains('R'));
        packet.set_psh(fields.flags.contains('P'));
        packet.set_ack(fields.flags.contains('.'));
        packet.fill_checksum(&PEER.ip().into(), &LOCAL.ip().into());
        self.tcp.ingress(self.now_ns, PEER.ip(), LOCAL.ip(), &segment);
        Ok(())
    }

    fn expect(&mut self, at_ns: u64, text: &str) -> Result<(), String> {
        if self.port.sent.is_empty() {
            self.run_to(at_ns.saturating_sub(TOLERANCE_NS).max(self.now_ns));
            while self.port.sent.is_empty() && self.now_ns < at_ns + TOLERANCE_NS {
                self.run_to(self.now_ns + TOLERANCE_NS / 16);
            }
        }
        let Some((sent_ns, segment)) = self.port.sent.pop_front() else { return Err("nothing was sent".into()) };
        if self.isn.is_none() && segment[13] & 2 != 0 {
            self.isn = Some(u32::from_be_bytes(segment[4..8].try_into().unwrap()));
        }
        let shown = self.show(&segment);
        let packet = TcpPacket::new_checked(&segment[..]).map_err(|e| e.to_string())?;
        if !packet.verify_checksum(&LOCAL.ip().into(), &PEER.ip().into()) {
            return Err("bad checksum".into());
        }
        if sent_ns.abs_diff(at_ns) > TOLERANCE_NS {
            return Err(format!("sent at {:.4}: {shown}", sent_ns as f64 / 1e9));
        }
        let fields = Self::fields(text)?;
        let mut options = Vec::new();
        let mut bytes = packet.options();
        while let Ok((rest, option)) = WireOption::parse(bytes) {
            match option {
                WireOption::EndOfList => break,
                WireOption::TimeStamp { tsval, .. } => self.last_ts = tsval,
                _ => {}
            }
            options.push(option);
            bytes = rest;
        }
        let flag = |c: char| fields.flags.contains(c);
        let flags = [(packet.syn(), 'S'), (packet.fin(), 'F'), (packet.rst(), 'R'), (packet.ack(), '.')];
        let seq = (packet.seq_number().0 as u32).wrapping_sub(self.isn.unwrap_or(0));
        let ack = (packet.ack_number().0 as u32).wrapping_sub(PEER_ISN);
        let same = flags.iter().all(|(is, c)| *is == flag(*c))
            && seq == fields.seq
            && packet.payload().len() == fields.len
            && fields.ack.is_none_or(|expected| expected == ack)
            && fields.window.is_none_or(|expected| expected == packet.window_len());
        if !same {
            return Err(format!("sent instead: {shown}"));
        }
        match fields.options {
            Some(expected) => self.compare_options(expected, &options).map_err(|error| format!("{error}; sent: {shown}")),
            None => Ok(()),
        }
    }

    fn compare_options(&self, expected: &str, options: &[WireOption]) -> Result<(), String> {
        for expected in expected.split(',').map(str::trim) {
            let words: Vec<&str> = expected.split_whitespace().collect();
            let found = match words[..] {
                ["mss", mss] => options.contains(&WireOption::MaxSegmentSize(number(Some(mss))?)),
                ["wscale", shift] => options.contains(&WireOption::WindowScale(number(Some(shift))?)),
                ["sackOK"] => options.contains(&WireOption::SackPermitted),
                ["TS", "ecr", echo] => {
                    let echo: u32 = number(Some(echo))?;
                    options.iter().any(|option| matches!(option, WireOption::TimeStamp { tsecr, .. } if *tsecr == echo))
                }
                ["nothing"] => options.iter().all(|option| *option == WireOption::NoOperation),
                ["no", "sack"] => !options.iter().any(|option| matches!(option, WireOption::SackRange(_))),
                ["sack", ref ranges @ ..] => {
                    let edge = |text: &str| number::<u32>(Some(text)).map(|seq| PEER_ISN.wrapping_add(seq));
                    let mut blocks = [None; 3];
                    for (block, range) in blocks.iter_mut().zip(ranges) {
                        let (start, end) = range.split_once(':').ok_or("sack a:b")?;
                        *block = Some((edge(start)?, edge(end)?));
                    }
                    options.contains(&WireOption::SackRange(blocks))
                }
                _ => return Err(format!("what is {expected:?}?")),
            };
            if !found {
                return Err(format!("no {expected:?}"));
            }
        }
        Ok(())
    }

    fn show(&self, segment: &[u8]) -> String {
        let Ok(packet) = TcpPacket::new_checked(segment) else { return "no segment".into() };
        let repr = smoltcp::wire::TcpRepr::parse(&packet, &LOCAL.ip().into(), &PEER.ip().into(), &ChecksumCapabilities::ignored());
        let seq = (packet.seq_number().0 as u32).wrapping_sub(self.isn.unwrap_or(0));
        let ack = (packet.ack_number().0 as u32).wrapping_sub(PEER_ISN);
        let (flags, len) = (segment[13], packet.payload().len());
        let options = repr.map(|repr| format!("{:?} {:?} {:?}", repr.max_seg_size, repr.sack_ranges, repr.timestamp));
        format!("flags {flags:#04x} {seq}:{}({len}) ack {ack} win {} {options:?}", seq.wrapping_add(len as u32), packet.window_len())
    }

    fn conn(&self) -> Result<ConnId, String> {
        self.conn.ok_or_else(|| "no connection".into())
    }

    fn info(&self) -> Result<stack::tcp::ConnInfo, String> {
        self.tcp.info(self.conn()?).ok_or_else(|| "the connection is gone".into())
    }

    /// A call or a question, by its name.
    fn call(&mut self, text: &str) -> Result<(), String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let same = |is: String, should: &str| if is == should { Ok(()) } else { Err(format!("it is {is}")) };
        let error = |error: stack::tcp::TcpError| error.to_string();
        match words[..] {
            ["config", name, value] => self.configure(name, value)?,
            ["listen"] => self.listener = Some(self.tcp.listen(LOCAL, 8).map_err(error)?),
            ["listen", backlog] => self.listener = Some(self.tcp.listen(LOCAL, number(Some(backlog))?).map_err(error)?),
            ["connect"] => self.conn = Some(self.tcp.connect(self.now_ns, LOCAL, PEER).map_err(error)?),
            ["accept"] => {
                self.conn = self.listener.and_then(|listener| self.tcp.accept(listener));
                self.conn.ok_or("nothing to accept")?;
            }
            ["accept", "nothing"] => {
                if self.listener.and_then(|listener| self.tcp.accept(listener)).is_some() {
                    return Err("there is one".into());
                }
            }
            // The peer's next connection attempt is another one.
            ["peer", port] => (self.peer_port, self.isn) = (number(Some(port))?, None),
            ["send", len] => {
                let len = number(Some(len))?;
                let taken = self.tcp.send(self.conn()?, &[&vec![7; len]]).map_err(error)?;
                same(taken.to_string(), &len.to_string())?;
            }
            ["send", "fails", ref why @ ..] => {
                let conn = self.conn()?;
                same(self.tcp.send(conn, &[b"x"]).err().map(error).unwrap_or_default(), &why.join(" "))?;
            }
            ["recv", len] => {
                let mut buf = vec![0; 1 << 17];
                let is = match self.tcp.recv(self.conn()?, &mut buf) {
                    Ok(Some(0)) => "end".into(),
                    Ok(Some(len)) => len.to_string(),
                    Ok(None) => "nothing".into(),
                    Err(why) => error(why),
                };
                same(is, len)?;
            }
            ["read", len] => {
                let mut buf = vec![0; number(Some(len))?];
                same(format!("{:?}", self.tcp.recv(self.conn()?, &mut buf)), &format!("Ok(Some({len}))"))?;
            }
            ["shutdown"] => self.tcp.shutdown(self.conn()?).map_err(error)?,
            ["close"] => self.tcp.close(self.conn()?),
            ["abort"] => self.tcp.abort(self.conn()?),
            ["nodelay"] => self.tcp.set_option(self.conn()?, TcpOption::NoDelay(true)).map_err(error)?,
            ["usertimeout", ms] => {
                self.tcp.set_option(self.conn()?, TcpOption::UserTimeoutNs(number::<u64>(Some(ms))? * MS)).map_err(error)?;
            }
            ["keepalive", idle, interval, probes] => {
                let (idle_ns, interval_ns) = (number::<u64>(Some(idle))? * MS, number::<u64>(Some(interval))? * MS);
                let keep_alive = KeepAlive { idle_ns, interval_ns, probes: number(Some(probes))? };
                self.tcp.set_option(self.conn()?, TcpOption::KeepAlive(Some(keep_alive))).map_err(error)?;
            }
            ["port", outcome] => {
                self.port.outcome = match outcome {
                    "open" => SendOutcome::Sent,
                    "full" => SendOutcome::Full,
                    "unresolved" => SendOutcome::Unresolved,
                    "noroute" => SendOutcome::NoRoute,
                    _ => return Err("open, full, unresolved or noroute".into()),
                };
            }
            ["port", outcome, "after", takes] => {
                self.call(&format!("port {outcome}"))?;
                self.port.takes = number(Some(takes))?;
            }
            ["queued", frames] => self.port.queued = number(Some(frames))?,
            ["icmp", kind, seq] => {
                let kind = match kind {
                    "unreachable" => IcmpError::Unreachable,
                    "refused" => IcmpError::Refused,
                    mtu => IcmpError::PacketTooBig { mtu_bytes: number(Some(mtu))? },
                };
                let seq = self.isn.unwrap_or(0).wrapping_add(number(Some(seq))?).to_be_bytes();
                let header = [&LOCAL.port().to_be_bytes()[..], &self.peer_port.to_be_bytes(), &seq].concat();
                self.tcp.icmp_error(self.now_ns, LOCAL.ip(), PEER.ip(), &header, kind);
            }
            ["state", state] => same(self.info().map_or("gone".into(), |info| format!("{:?}", info.state)), state)?,
            ["event", name] => {
                while let Some((_, events)) = self.tcp.next_event() {
                    self.events.push(events);
                }
                let found = self.events.iter().any(|events| format!("{events:?}").contains(&format!("\"{}\"", name.replace('_', " "))));
                let had = format!("{:?}", std::mem::take(&mut self.events));
                if !found {
                    return Err(format!("there were {had}"));
                }
            }
            ["cwnd", bytes] => same(self.info()?.cwnd_bytes.to_string(), bytes)?,
            ["rto", ms] => same((self.info()?.rto_ns / MS).to_string(), ms)?,
            ["rtos", count] => same(self.info()?.rtos.to_string(), count)?,
            ["waits", yes] => same(self.info()?.waits_for_ifq.to_string(), yes)?,
            ["count", name, value] => {
                let counters = format!("{:?}", self.tcp.counters());
                let is = counters.split(&format!("{name}: ")).nth(1).and_then(|rest| rest.split([',', ' ']).next()).unwrap_or("unknown");
                same(is.to_owned(), value)?;
            }
            ["silence"] => {}
            _ => return Err("what is that?".into()),
        }
        Ok(())
    }

    /// Changes the configuration; only before anything else.
    fn configure(&mut self, name: &str, value: &str) -> Result<(), String> {
        let config = &mut self.config;
        match name {
            "connections" => config.connections_max = number(Some(value))?,
            "ifq" => config.ifq_limit = IfqLimit::Fixed(number(Some(value))?),
            "quantum" => config.quantum = number(Some(value))?,
            "recv_buffer" => config.recv_buffer_bytes = number(Some(value))?,
            "buffer_max" => config.buffer_bytes_max = number(Some(value))?,
            "time_wait_ms" => config.time_wait_ns = number::<u64>(Some(value))? * MS,
            "time_wait_max" => config.time_wait_max = number(Some(value))?,
            "fin_wait_ms" => config.fin_wait_ns = number::<u64>(Some(value))? * MS,
            "connect_timeout_ms" => config.connect_timeout_ns = number::<u64>(Some(value))? * MS,
            _ => return Err("no such configuration".into()),
        }
        self.tcp = Tcp::new(self.config.clone(), 99, 0);
        Ok(())
    }
}

/// One segment of a script.
struct Fields<'a> {
    flags: &'a str,
    seq: u32,
    len: usize,
    ack: Option<u32>,
    window: Option<u16>,
    options: Option<&'a str>,
}
