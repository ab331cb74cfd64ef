//! The frames of a link: a fixed number, all of one size, allocated once.

/// A frame that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Slot(u32);

/// What is known of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Note {
    pub(super) len: usize,
    /// When it was offered to the link.
    pub(super) arrived_ns: u64,
    /// Its number in the order of sending.
    pub(super) number: u64,
    /// It is the second one of two.
    pub(super) copy: bool,
}

pub(super) struct Pool {
    bytes: Box<[u8]>,
    frame_bytes: usize,
    notes: Box<[Note]>,
    free: Vec<Slot>,
}

impl Pool {
    pub(super) fn new(frames: u32, frame_bytes: usize) -> Self {
        Self {
            bytes: vec![0; frames as usize * frame_bytes].into_boxed_slice(),
            frame_bytes,
            notes: vec![Note::default(); frames as usize].into_boxed_slice(),
            free: (0..frames).rev().map(Slot).collect(),
        }
    }

    pub(super) fn frames(&self) -> usize {
        self.notes.len()
    }

    pub(super) fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Takes a free frame and fills it; at most `frame_bytes` are taken.
    pub(super) fn take(&mut self, frame: &[u8], arrived_ns: u64) -> Option<Slot> {
        let slot = self.free.pop()?;
        let len = frame.len().min(self.frame_bytes);
        let at = slot.0 as usize * self.frame_bytes;
        self.bytes[at..at + len].copy_from_slice(&frame[..len]);
        self.notes[slot.0 as usize] = Note { len, arrived_ns, number: 0, copy: false };
        Some(slot)
    }

    /// Takes a free frame and makes it a copy of another.
    pub(super) fn copy(&mut self, of: Slot) -> Option<Slot> {
        let slot = self.free.pop()?;
        let (from, to) = (of.0 as usize * self.frame_bytes, slot.0 as usize * self.frame_bytes);
        let note = *self.note(of);
        self.bytes.copy_within(from..from + note.len, to);
        self.notes[slot.0 as usize] = Note { copy: true, ..note };
        Some(slot)
    }

    pub(super) fn give_back(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    pub(super) fn note(&self, slot: Slot) -> &Note {
        &self.notes[slot.0 as usize]
    }

    pub(super) fn note_mut(&mut self, slot: Slot) -> &mut Note {
        &mut self.notes[slot.0 as usize]
    }

    pub(super) fn bytes(&self, slot: Slot) -> &[u8] {
        let at = slot.0 as usize * self.frame_bytes;
        &self.bytes[at..at + self.note(slot).len]
    }

    pub(super) fn bytes_mut(&mut self, slot: Slot) -> &mut [u8] {
        let at = slot.0 as usize * self.frame_bytes;
        let len = self.note(slot).len;
        &mut self.bytes[at..at + len]
    }
}
