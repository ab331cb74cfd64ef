//! What is said to segments that have no connection: resets and SYN cookies. A bounded ring; under a flood the excess is counted and dropped.

use std::collections::VecDeque;

use super::api::LinkAddress;
use super::wire::{Header, Tuple};

/// Replies that can wait: what a line full of SYNs brings until the limit of the interface queue has found its place. At 1 Gbps the last one
/// waits 0.7 ms.
const REPLIES_MAX: usize = 1024;

/// A segment without a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply {
    pub tuple: Tuple,
    pub header: Header,
    /// Where what it answers came from on the link.
    pub via: Option<LinkAddress>,
}

#[derive(Debug)]
pub(super) struct Replies {
    ring: VecDeque<Reply>,
    had_turn: bool,
}

impl Replies {
    pub fn new() -> Self {
        Self { ring: VecDeque::with_capacity(REPLIES_MAX), had_turn: false }
    }

    /// False when the ring is full.
    pub fn push(&mut self, reply: Reply) -> bool {
        let room = self.ring.len() < REPLIES_MAX;
        if room {
            self.ring.push_back(reply);
        }
        room
    }

    /// Whether it is their turn, which is every other one: then connections get on under a flood, and replies beside busy connections.
    pub fn take_turn(&mut self) -> bool {
        self.had_turn = !self.had_turn;
        self.had_turn
    }

    pub fn first(&self) -> Option<&Reply> {
        self.ring.front()
    }

    pub fn pop(&mut self) {
        self.ring.pop_front();
    }
}
