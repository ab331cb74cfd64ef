//! Boxes, written one inside the other (ISO/IEC 14496-12 4.2): sizes are put in when a box is complete.

/// Bytes of a `moov` under construction.
#[derive(Debug, Default)]
pub(super) struct Boxes {
    pub(super) out: Vec<u8>,
}

impl Boxes {
    /// A box of this kind with what `fill` writes in it. No box here comes near 4 GiB: the samples of a movie are counted.
    pub(super) fn within(&mut self, kind: &[u8; 4], fill: impl FnOnce(&mut Self)) {
        let at = self.out.len();
        self.u32(0);
        self.bytes(kind);
        fill(self);
        let size = u32::try_from(self.out.len() - at).unwrap_or(u32::MAX);
        if let Some(place) = self.out.get_mut(at..at + 4) {
            place.copy_from_slice(&size.to_be_bytes());
        }
    }

    /// The same with a version and flags.
    pub(super) fn full(&mut self, kind: &[u8; 4], version: u8, flags: u32, fill: impl FnOnce(&mut Self)) {
        self.within(kind, |out| {
            out.u32(u32::from(version) << 24 | flags & 0xff_ffff);
            fill(out);
        });
    }

    /// A table: a full box that begins with the number of its rows.
    pub(super) fn table<T>(&mut self, kind: &[u8; 4], version: u8, rows: impl Iterator<Item = T>, mut row: impl FnMut(&mut Self, T)) {
        self.full(kind, version, 0, |out| {
            let at = out.out.len();
            out.u32(0);
            let mut count = 0u32;
            for values in rows {
                row(out, values);
                count += 1;
            }
            if let Some(place) = out.out.get_mut(at..at + 4) {
                place.copy_from_slice(&count.to_be_bytes());
            }
        });
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.out.resize(self.out.len() + count, 0);
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }
}

/// Rows of (count, value) for values that come in runs.
pub(super) fn runs<T: PartialEq + Copy>(values: impl Iterator<Item = T>) -> impl Iterator<Item = (u32, T)> {
    let mut values = values.peekable();
    std::iter::from_fn(move || {
        let value = values.next()?;
        let mut count = 1;
        while values.next_if_eq(&value).is_some() {
            count += 1;
        }
        Some((count, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_nest_and_tables_are_counted() {
        let mut boxes = Boxes::default();
        boxes.within(b"moov", |out| {
            out.table(b"stts", 0, runs([40, 40, 41].into_iter()), |out, (count, ticks)| {
                out.u32(count);
                out.u32(ticks);
            })
        });
        let expected = [
            &[0, 0, 0, 40][..],
            b"moov",
            &[0, 0, 0, 32],
            b"stts",
            &[0; 4],
            &[0, 0, 0, 2],
            &[0, 0, 0, 2, 0, 0, 0, 40],
            &[0, 0, 0, 1, 0, 0, 0, 41],
        ];
        assert_eq!(boxes.out, expected.concat());
    }
}
