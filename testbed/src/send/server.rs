//! The sender's RTSP side: one thread, one epoll instance, all connections. What it decides goes to the sending thread as commands.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;

use super::pacing::Command;
use super::rtsp::{Connection, Event, Facts, Identity};
use crate::load::sockets::Pair;
use crate::load::sys::{Epoll, monotonic_ns};

/// Between the last packet and the answer to TEARDOWN: a receiver has taken its packets by then, so that its counts and ours agree.
const GOODBYE_NS: u64 = 30_000_000;
/// The longest wait, so that the stop flag is seen.
const WAIT_MAX_MS: u32 = 50;
const LISTENER: u64 = u64::MAX;
const RTCP: u64 = u64::MAX - 1;

struct Client {
    stream: TcpStream,
    peer: SocketAddr,
    connection: Connection,
    identity: Identity,
    output: Vec<u8>,
    wants_write: bool,
    playing: bool,
}

/// The RTSP server.
pub(super) struct Server {
    listener: TcpListener,
    facts: Facts,
    rtcp: UdpSocket,
    commands: Sender<Command>,
    epoll: Epoll,
    clients: Vec<Option<Client>>,
    free: Vec<u32>,
    goodbyes: VecDeque<(u64, u32, Identity)>,
    /// Sessions so far.
    pub(super) sessions: u32,
    /// RTCP packets heard.
    pub(super) reports: u64,
}

impl Server {
    /// A server for up to `slots` clients at a time. `pair` is where packets come from.
    pub(super) fn new(listener: TcpListener, facts: Facts, pair: Pair, commands: Sender<Command>, slots: usize) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = Epoll::new()?;
        epoll.add(&listener, LISTENER, false)?;
        epoll.add(&pair.rtcp, RTCP, false)?;
        Ok(Self {
            listener,
            facts,
            rtcp: pair.rtcp.into(),
            commands,
            epoll,
            clients: (0..slots).map(|_| None).collect(),
            free: (0..slots as u32).rev().collect(),
            goodbyes: VecDeque::new(),
            sessions: 0,
            reports: 0,
        })
    }

    /// Serves until `stop`.
    pub(super) fn run(&mut self, stop: &AtomicBool) -> io::Result<()> {
        let mut ready = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let next = self.goodbyes.front().map_or(WAIT_MAX_MS, |(at, ..)| (at.saturating_sub(monotonic_ns()) / 1_000_000 + 1) as u32);
            self.epoll.wait(next.min(WAIT_MAX_MS), &mut ready)?;
            for &(token, _) in &ready {
                match token {
                    LISTENER => self.accept(),
                    RTCP => self.hear(),
                    slot => self.serve(slot as u32),
                }
            }
            self.say_goodbyes(monotonic_ns());
        }
        Ok(())
    }

    fn hear(&mut self) {
        while self.rtcp.recv(&mut [0; 64]).is_ok() {
            self.reports += 1;
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, peer)) = self.listener.accept() {
            // No slot: the connection is closed, which a client counts as a failure.
            let Some(slot) = self.free.pop() else { continue };
            let identity = Identity::of(self.sessions);
            self.sessions = self.sessions.wrapping_add(1);
            let prepared = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true));
            match (prepared.and_then(|()| self.epoll.add(&stream, u64::from(slot), false)), self.clients.get_mut(slot as usize)) {
                (Ok(()), Some(place)) => {
                    let connection = Connection::new(identity);
                    *place = Some(Client { stream, peer, connection, identity, output: Vec::new(), wants_write: false, playing: false });
                }
                _ => self.free.push(slot),
            }
        }
    }

    fn serve(&mut self, slot: u32) {
        let Some(Some(client)) = self.clients.get_mut(slot as usize) else { return };
        let mut events = Vec::new();
        let mut buffer = [0; 4096];
        let alive = loop {
            match client.stream.read(&mut buffer) {
                Ok(0) => break false,
                Ok(count) => {
                    let input = buffer.get(..count).unwrap_or_default();
                    if client.connection.on_bytes(input, &self.facts, &mut client.output, &mut |e| events.push(e)).is_err() {
                        break false;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break e.kind() == io::ErrorKind::WouldBlock,
            }
        };
        // The answer to PLAY leaves before the first packet.
        let alive = write_out(client) && alive && settle(&self.epoll, client, slot);
        for event in events {
            match (event, client.peer) {
                (Event::Play(port), SocketAddr::V4(peer)) => {
                    client.playing = true;
                    let to = SocketAddrV4::new(*peer.ip(), port);
                    let _ = self.commands.send(Command::Start { slot, identity: client.identity, to });
                }
                (Event::Play(_), SocketAddr::V6(_)) => {}
                (Event::Teardown, _) => {
                    client.playing = false;
                    let _ = self.commands.send(Command::Stop(slot));
                    self.goodbyes.push_back((monotonic_ns() + GOODBYE_NS, slot, client.identity));
                }
            }
        }
        if !alive {
            self.close(slot);
        }
    }

    fn say_goodbyes(&mut self, now: u64) {
        while self.goodbyes.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, slot, identity)) = self.goodbyes.pop_front() else { return };
            let Some(Some(client)) = self.clients.get_mut(slot as usize) else { continue };
            if client.identity == identity {
                client.connection.torn_down(&mut client.output);
                if !(write_out(client) && settle(&self.epoll, client, slot)) {
                    self.close(slot);
                }
            }
        }
    }

    fn close(&mut self, slot: u32) {
        let Some(client) = self.clients.get_mut(slot as usize).and_then(Option::take) else { return };
        if client.playing {
            let _ = self.commands.send(Command::Stop(slot));
        }
        self.free.push(slot);
    }
}

/// Writes what the socket takes; false when the client is gone.
fn write_out(client: &mut Client) -> bool {
    while !client.output.is_empty() {
        match client.stream.write(&client.output) {
            Ok(count) => drop(client.output.drain(..count)),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
        }
    }
    true
}

/// Watches for room while there is something left to write.
fn settle(epoll: &Epoll, client: &mut Client, slot: u32) -> bool {
    let wants_write = !client.output.is_empty();
    if wants_write == client.wants_write {
        return true;
    }
    client.wants_write = wants_write;
    epoll.modify(&client.stream, u64::from(slot), wants_write).is_ok()
}
