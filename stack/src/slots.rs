//! A table of fixed size whose ids carry a generation: an id that outlived its entry finds nothing, never a newer entry.
//!
//! ```text
//! id (u32) = generation | slot        as many low bits for the slot as the table needs, the rest counts reuses, never 0
//! ```
//!
//! Freed slots are reused last in, first out, so that their memory is warm.

struct Entry<T> {
    id: u32,
    value: Option<T>,
}

/// The table. All memory is taken by [`Slots::new`].
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
    slot_mask: u32,
}

/// Largest table: leaves 10 bits of generation.
pub(crate) const SLOTS_MAX: u32 = 1 << 22;

impl<T> Slots<T> {
    /// A table of `size` entries, at most [`SLOTS_MAX`].
    pub(crate) fn new(size: u32) -> Self {
        let size = size.min(SLOTS_MAX);
        let span = size.max(1).next_power_of_two();
        let entries = (0..size).map(|slot| Entry { id: slot + span, value: None }).collect();
        Self { entries, free: (0..size).rev().collect(), slot_mask: span - 1 }
    }

    /// Entries in use.
    pub(crate) fn len(&self) -> u32 {
        (self.entries.len() - self.free.len()) as u32
    }

    /// Slot of an id: an index below the table's size for every id that the table gave out.
    pub(crate) fn slot(&self, id: u32) -> usize {
        (id & self.slot_mask) as usize
    }

    /// Stores a value; gives it back when the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Result<u32, T> {
        let Some(entry) = self.free.pop().and_then(|slot| self.entries.get_mut(slot as usize)) else { return Err(value) };
        entry.value = Some(value);
        Ok(entry.id)
    }

    /// The value of an id that is in use.
    pub(crate) fn get(&self, id: u32) -> Option<&T> {
        let entry = self.entries.get(self.slot(id))?;
        if entry.id == id { entry.value.as_ref() } else { None }
    }

    /// Asks for the memory of an entry that will be needed soon.
    pub(crate) fn prefetch(&self, id: u32) {
        if let Some(entry) = self.entries.get(self.slot(id)) {
            hugepages::prefetch(entry);
        }
    }

    /// The value of an id that is in use.
    pub(crate) fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        let slot = self.slot(id);
        let entry = self.entries.get_mut(slot)?;
        if entry.id == id { entry.value.as_mut() } else { None }
    }

    /// All values.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(|entry| entry.value.as_mut())
    }

    /// Takes the value out; the id is stale from now on.
    pub(crate) fn remove(&mut self, id: u32) -> Option<T> {
        let slot = self.slot(id);
        let entry = self.entries.get_mut(slot)?;
        if entry.id != id {
            return None;
        }
        let value = entry.value.take()?;
        let span = self.slot_mask + 1;
        entry.id = match id.checked_add(span) {
            Some(next) => next,
            None => slot as u32 + span,
        };
        self.free.push(slot as u32);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn generations_wrap_without_reaching_zero() {
        let mut table = Slots::new(SLOTS_MAX);
        let first = table.insert(()).unwrap();
        let mut id = first;
        for _ in 0..(1 << 10) - 2 {
            table.remove(id);
            let next = table.insert(()).unwrap();
            assert!(next > id && table.get(id).is_none());
            id = next;
        }
        table.remove(id);
        assert_eq!(table.insert(()), Ok(first));
    }

    #[test]
    fn an_empty_table_refuses() {
        let mut table = Slots::new(0);
        assert_eq!(table.insert(7), Err(7));
        assert_eq!(table.get(0), None);
        assert_eq!(table.get(u32::MAX), None);
        assert_eq!(table.len(), 0);
    }

    proptest! {
        /// Random operations against a list of (id, value); every id ever seen is tried after each step.
        #[test]
        fn behaves_like_a_map(size in 0_u32..9, steps in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..80)) {
            let mut table = Slots::new(size);
            let mut alive: Vec<(u32, usize)> = Vec::new();
            let mut seen: Vec<u32> = Vec::new();
            for (step, (insert, pick)) in steps.into_iter().enumerate() {
                if insert {
                    match table.insert(step) {
                        Ok(id) => {
                            prop_assert!(!seen.contains(&id));
                            prop_assert!(id != 0 && table.slot(id) < size as usize);
                            seen.push(id);
                            alive.push((id, step));
                        }
                        Err(_) => prop_assert_eq!(alive.len(), size as usize),
                    }
                } else if !seen.is_empty() {
                    let id = *pick.get(&seen);
                    let expected = alive.iter().position(|(have, _)| *have == id).map(|at| alive.swap_remove(at).1);
                    prop_assert_eq!(table.remove(id), expected);
                }
                prop_assert_eq!(table.len() as usize, alive.len());
                for id in &seen {
                    let expected = alive.iter().find(|(have, _)| have == id).map(|(_, value)| value);
                    prop_assert_eq!(table.get(*id), expected);
                    let expected = expected.copied();
                    prop_assert_eq!(table.get_mut(*id).copied(), expected);
                }
            }
        }
    }
}
