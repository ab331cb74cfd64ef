//! Wakes the other side, at most once per sleep.
//!
//! ```text
//! sleeper:  lie_down() ─► look once more ─► nothing: sleep      waker:  put the message ─► ring()
//! ```
//!
//! Either the sleeper's last look finds the message or the waker finds the sleeper lying down; the fences forbid that both miss.

use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The bell of one side.
pub struct Bell {
    asleep: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Bell {
    /// A bell that wakes its side by `wake`.
    pub fn new(wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { asleep: AtomicBool::new(false), wake }
    }

    /// For the sleeper: from now on it is woken. It looks for messages once more before it sleeps.
    pub fn lie_down(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// For the sleeper: it is up, by whatever woke it.
    pub fn get_up(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// For the other side, after messages were put: wakes the sleeper if it sleeps.
    pub fn ring(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            (self.wake)();
        }
    }
}

impl std::fmt::Debug for Bell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bell").field("asleep", &self.asleep).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    use super::*;

    #[test]
    fn rings_once_per_sleep() {
        let rung = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&rung);
        let bell = Bell::new(Box::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        }));
        bell.ring();
        assert_eq!(rung.load(Ordering::Relaxed), 0, "nobody sleeps");
        bell.lie_down();
        bell.ring();
        bell.ring();
        assert_eq!(rung.load(Ordering::Relaxed), 1);
        bell.lie_down();
        bell.get_up();
        bell.ring();
        assert_eq!(rung.load(Ordering::Relaxed), 1);
    }
}
