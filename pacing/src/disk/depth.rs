//! How many reads a device is given at once: as many as it answers in time.

/// Keeps a device's queue at a depth at which it answers within a limit: a late answer takes a quarter off, a full queue of timely
/// ones adds one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DepthControl {
    depth: u16,
    depth_max: u16,
    latency_max_ns: u64,
    /// Timely answers since the depth was changed.
    timely: u16,
    /// Answers that were asked for at the depth before, and say nothing of this one.
    stale: u16,
}

impl DepthControl {
    /// Begins at `depth_max` (at least 1).
    pub fn new(depth_max: u16, latency_max_ns: u64) -> Self {
        let depth = depth_max.max(1);
        Self { depth, depth_max: depth, latency_max_ns, timely: 0, stale: 0 }
    }

    /// Reads that may be under way now.
    pub fn depth(&self) -> u16 {
        self.depth
    }

    /// A read was answered after `latency_ns`.
    pub fn answered(&mut self, latency_ns: u64) {
        if self.stale > 0 {
            self.stale -= 1;
            return;
        }
        if latency_ns > self.latency_max_ns {
            self.stale = self.depth;
            self.depth = (self.depth - self.depth.div_ceil(4)).max(1);
            self.timely = 0;
            return;
        }
        self.timely += 1;
        if self.timely >= self.depth && self.depth < self.depth_max {
            (self.depth, self.timely) = (self.depth + 1, 0);
        }
        self.timely = self.timely.min(self.depth_max);
    }
}
