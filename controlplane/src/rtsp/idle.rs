//! When a silent or stalling connection is closed. Pure: time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// How patient the server is with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From connecting to the end of the first request; also from the first byte of any request to its last.
    pub request: Duration,
    /// Silence in the middle of a request.
    pub stall: Duration,
    /// Silence between requests of a connection without a session; also in the middle of an item on one with a session.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { request: Duration::from_secs(30), stall: Duration::from_secs(10), idle: Duration::from_secs(60) }
    }
}

/// What a connection did last.
#[derive(Clone, Copy, Debug)]
pub struct IdleClock {
    connected: Instant,
    /// End of the last complete item, once there was a request.
    last_item: Option<Instant>,
    last_bytes: Instant,
    /// First byte of the item that is not complete yet.
    item_started: Option<Instant>,
}

impl IdleClock {
    /// The clock of a connection that was accepted now.
    pub fn new(now: Instant) -> Self {
        Self { connected: now, last_item: None, last_bytes: now, item_started: None }
    }

    /// Bytes arrived. `completed`: a request or frame ended within them. `mid_item`: another one has begun and not ended.
    pub fn on_bytes(&mut self, now: Instant, completed: bool, mid_item: bool) {
        self.last_bytes = now;
        if completed {
            self.last_item = Some(now);
        }
        self.item_started = match self.item_started {
            _ if !mid_item => None,
            Some(started) if !completed => Some(started),
            _ => Some(now),
        };
    }

    /// When the connection is to be closed unless something happens before.
    pub fn deadline(&self, patience: &Patience, now: Instant, has_session: bool) -> Instant {
        let between = match self.last_item {
            None => self.connected + patience.request,
            Some(_) if has_session => now + patience.idle,
            Some(last_item) => last_item + patience.idle,
        };
        let within = self.item_started.map(|started| match has_session {
            true => self.last_bytes + patience.idle,
            false => (self.last_bytes + patience.stall).min(started + patience.request),
        });
        match within {
            // Once a request is being sent, its own deadlines hold; the first one has to end in time as well.
            Some(within) if self.last_item.is_some() => within,
            Some(within) => within.min(between),
            None => between,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_when_it_should() {
        let patience = Patience::default();
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let left = |clock: &IdleClock, now_s: u64, session| (clock.deadline(&patience, at(now_s), session) - start).as_secs();

        let mut clock = IdleClock::new(start);
        assert_eq!(left(&clock, 0, false), 30, "silent from the start");
        clock.on_bytes(at(5), false, true);
        assert_eq!(left(&clock, 5, false), 15, "half a request, then nothing");
        for s in 6..29 {
            clock.on_bytes(at(s), false, true);
        }
        assert_eq!(left(&clock, 28, false), 30, "a byte per second does not help");
        clock.on_bytes(at(29), true, false);
        assert_eq!(left(&clock, 29, false), 89, "idle without session");
        assert_eq!(left(&clock, 80, true), 140, "a session keeps it");
        assert_eq!(left(&clock, 200, false), 89, "its session ended");
        clock.on_bytes(at(80), false, true);
        assert_eq!(left(&clock, 80, false), 90);
        clock.on_bytes(at(85), true, true);
        clock.on_bytes(at(94), false, true);
        assert_eq!(left(&clock, 94, false), 104, "the second half request counts from its own start");
        assert_eq!(left(&clock, 94, true), 154);
    }
}
