//! The engine's sockets by name. Names are chosen by the other side, so nothing about them is taken for granted.

use std::collections::VecDeque;

use super::{Chunk, SocketId};
use crate::tcp::{ConnId, ListenerId};

/// What a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Named in advance for a listener's next connection.
    Named,
    /// Waits for connections.
    Listener(ListenerId),
    /// A connection that is being opened.
    Opening(ConnId),
    /// A connection.
    Open(ConnId),
    /// Of no use any more, not closed yet.
    Failed,
}

/// One socket of the engine.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) id: SocketId,
    pub(super) role: Role,
    /// To be sent, oldest first.
    pub(super) to_send: VecDeque<Box<Chunk>>,
    /// To receive into.
    pub(super) empty: VecDeque<Box<Chunk>>,
    /// Names for connections to come.
    pub(super) names: VecDeque<SocketId>,
    /// The control side holds it.
    pub(super) held: bool,
    /// Users of the engine that hold it.
    pub(super) lent: u32,
    /// To be shut down when all is sent.
    pub(super) shut: bool,
    /// The peer shut its direction down, and that was told.
    pub(super) ended: bool,
    /// It is on the list of those to look after.
    pub(super) listed: bool,
    /// It is on the list of those whose connection had no room.
    pub(super) blocked: bool,
}

impl Socket {
    pub(super) fn new(id: SocketId, role: Role) -> Self {
        Self {
            id,
            role,
            to_send: VecDeque::new(),
            empty: VecDeque::new(),
            names: VecDeque::new(),
            held: true,
            lent: 0,
            shut: false,
            ended: false,
            listed: false,
            blocked: false,
        }
    }

    /// Its connection.
    pub(super) fn conn(&self) -> Option<ConnId> {
        match self.role {
            Role::Opening(conn) | Role::Open(conn) => Some(conn),
            Role::Named | Role::Listener(_) | Role::Failed => None,
        }
    }
}

/// The table.
#[derive(Debug)]
pub(super) struct Table {
    sockets: Vec<Option<Socket>>,
    mask: u32,
}

impl Table {
    /// For names as [`Slots`](crate::slots::Slots) of this size gives them out.
    pub(super) fn new(size: u32) -> Self {
        let span = size.clamp(1, crate::slots::SLOTS_MAX).next_power_of_two();
        Self { sockets: (0..span).map(|_| None).collect(), mask: span - 1 }
    }

    /// Adds a socket; false when its place is taken.
    pub(super) fn insert(&mut self, socket: Socket) -> bool {
        match self.sockets.get_mut((socket.id.0 & self.mask) as usize) {
            Some(place) if place.is_none() => {
                *place = Some(socket);
                true
            }
            _ => false,
        }
    }

    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.sockets.get_mut((id.0 & self.mask) as usize)?.as_mut().filter(|socket| socket.id == id)
    }

    pub(super) fn get(&self, id: SocketId) -> Option<&Socket> {
        self.sockets.get((id.0 & self.mask) as usize)?.as_ref().filter(|socket| socket.id == id)
    }

    pub(super) fn remove(&mut self, id: SocketId) -> Option<Socket> {
        self.sockets.get_mut((id.0 & self.mask) as usize)?.take_if(|socket| socket.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Socket> {
        self.sockets.iter().flatten()
    }
}
