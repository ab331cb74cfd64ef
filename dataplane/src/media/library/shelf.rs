//! The titles in memory: ready, being read, or known to be bad. Least recently used titles go first when memory runs short; what they are
//! (their description) is kept.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, Weak};

use super::{Identity, LibraryError, MediaDescription, OpenTitle, lock};
use crate::media::MediaError;

type Outcome = Result<Arc<OpenTitle>, LibraryError>;

/// A reading that others wait for.
#[derive(Debug, Default)]
pub struct Pending {
    outcome: Mutex<Option<Outcome>>,
    ready: Condvar,
}

impl Pending {
    /// Waits for the outcome.
    pub fn wait(&self) -> Outcome {
        let mut outcome = lock(&self.outcome);
        loop {
            if let Some(outcome) = &*outcome {
                return outcome.clone();
            }
            outcome = self.ready.wait(outcome).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Wakes all who wait.
    pub fn fulfil(&self, outcome: Outcome) {
        *lock(&self.outcome) = Some(outcome);
        self.ready.notify_all();
    }

    /// True when there is an outcome.
    pub fn is_fulfilled(&self) -> bool {
        lock(&self.outcome).is_some()
    }
}

/// Answer to [`Shelf::find_or_begin`].
#[derive(Debug)]
pub enum Found {
    Title(Arc<OpenTitle>),
    Error(LibraryError),
    /// Someone reads it; wait for it.
    Building(Arc<Pending>),
    /// The caller is to read it.
    Begun(Arc<Pending>),
}

/// What is known of one path.
#[derive(Debug, Default)]
struct Slot {
    building: Option<Arc<Pending>>,
    title: Option<Arc<OpenTitle>>,
    /// The same title; finds it again when it had to go but someone holds it still.
    alive: Weak<OpenTitle>,
    title_bytes: u64,
    used: u64,
    /// What the file was when it was read last; stays when the title goes.
    described: Option<(Identity, Result<Arc<MediaDescription>, LibraryError>)>,
}

/// The titles in memory.
#[derive(Debug)]
pub struct Shelf {
    slots: HashMap<String, Slot>,
    bytes: u64,
    bytes_max: u64,
    clock: u64,
}

impl Shelf {
    /// An empty shelf for `bytes_max` bytes of titles.
    pub fn new(bytes_max: u64) -> Self {
        Self { slots: HashMap::new(), bytes: 0, bytes_max, clock: 0 }
    }

    /// Sets the bound.
    pub fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
        self.evict(None);
    }

    /// Bytes of titles held.
    #[cfg(test)]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The title of the file at `path`, which is `identity` now; begins a reading when it is not known.
    pub fn find_or_begin(&mut self, path: &str, identity: Identity) -> Found {
        self.clock += 1;
        let slot = self.slots.entry(path.to_owned()).or_default();
        if let Some(pending) = &slot.building {
            return Found::Building(pending.clone());
        }
        if let Some(title) = slot.alive.upgrade().filter(|title| title.identity == identity) {
            slot.used = self.clock;
            return Found::Title(title);
        }
        if let Some((_, Err(error))) = slot.described.as_ref().filter(|(of, _)| *of == identity) {
            return Found::Error(error.clone());
        }
        let pending = Arc::new(Pending::default());
        slot.building = Some(pending.clone());
        Found::Begun(pending)
    }

    /// Ends the reading `pending` of the file that was `identity` when it began.
    pub fn end(&mut self, path: &str, pending: &Arc<Pending>, identity: Identity, outcome: &Outcome) {
        let Some(slot) = self.slots.get_mut(path).filter(|slot| slot.building.as_ref().is_some_and(|own| Arc::ptr_eq(own, pending))) else {
            return;
        };
        slot.building = None;
        self.bytes -= std::mem::take(&mut slot.title_bytes);
        slot.title = None;
        match outcome {
            Ok(title) => {
                slot.described = Some((title.identity, Ok(title.description.clone())));
                slot.title_bytes = title.memory_bytes();
                slot.title = Some(title.clone());
                slot.alive = Arc::downgrade(title);
                slot.used = self.clock;
                self.bytes += slot.title_bytes;
            }
            Err(error) => slot.described = is_lasting(error).then(|| (identity, Err(error.clone()))),
        }
        self.evict(Some(path));
    }

    /// What is known of the file at `path`, if it is still `identity`.
    pub fn described(&self, path: &str, identity: Identity) -> Option<Result<Arc<MediaDescription>, LibraryError>> {
        let (of, described) = self.slots.get(path)?.described.as_ref()?;
        (*of == identity).then(|| described.clone())
    }

    /// There is no file at `path` any more.
    pub fn forget(&mut self, path: &str) {
        if self.slots.get(path).is_some_and(|slot| slot.building.is_none())
            && let Some(slot) = self.slots.remove(path)
        {
            self.bytes -= slot.title_bytes;
        }
    }

    /// Lets titles go until the rest fits; `keep` stays. The number of slots is bounded by the number of media files that were ever there.
    fn evict(&mut self, keep: Option<&str>) {
        while self.bytes > self.bytes_max {
            let held = self.slots.iter_mut().filter(|(path, slot)| slot.title.is_some() && keep != Some(path.as_str()));
            let Some((_, slot)) = held.min_by_key(|(_, slot)| slot.used) else { break };
            slot.title = None;
            self.bytes -= std::mem::take(&mut slot.title_bytes);
        }
    }
}

/// True for what is wrong with the file itself: it need not be read again before it changes.
fn is_lasting(error: &LibraryError) -> bool {
    match error {
        LibraryError::Media { error, .. } => !matches!(**error, MediaError::Io { .. } | MediaError::Changing { .. }),
        _ => false,
    }
}
