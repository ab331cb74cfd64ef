//! AAC-LC silence: access units without a single coefficient, filled up to any wanted size (ISO/IEC 14496-3 4.4.2).

use super::bits::BitWriter;

/// Samples per channel of an access unit.
pub const SAMPLES_PER_UNIT: u32 = 1024;

const ID_SCE: u32 = 0;
const ID_CPE: u32 = 1;
const ID_FIL: u32 = 6;
const ID_END: u32 = 7;

/// A silent access unit for one or two channels, of `bytes` where that is enough, filled up by fill elements.
pub fn silence(channels: u8, bytes: usize) -> Vec<u8> {
    let mut w = BitWriter::default();
    if channels == 2 {
        w.put(ID_CPE, 3);
        w.put(0, 4); // element_instance_tag
        w.put(1, 1); // common_window
        ics_info(&mut w);
        w.put(0, 2); // ms_mask_present
        channel_tools(&mut w);
        channel_tools(&mut w);
    } else {
        w.put(ID_SCE, 3);
        w.put(0, 4);
        w.put(0, 8); // global_gain
        ics_info(&mut w);
        w.put(0, 3);
    }
    let mut unit = w.clone();
    finish(&mut unit);
    let mut rest = bytes.saturating_sub(unit.into_bytes().len());
    while rest > 2 {
        let count = rest.saturating_sub(2).min(260);
        fill(&mut w, count);
        rest -= count + 1 + usize::from(count >= 15);
    }
    finish(&mut w);
    let mut unit = w.into_bytes();
    // A decoder stops at ID_END; what remains of the wanted size is padding.
    unit.resize(unit.len().max(bytes), 0);
    unit
}

fn ics_info(w: &mut BitWriter) {
    w.put(0, 1); // ics_reserved_bit
    w.put(0, 2); // only long sequence
    w.put(0, 1); // window_shape
    w.put(0, 6); // max_sfb: no bands
    w.put(0, 1); // predictor_data_present
}

fn channel_tools(w: &mut BitWriter) {
    w.put(0, 8); // global_gain
    w.put(0, 3); // no pulses, no noise shaping, no gain control
}

fn fill(w: &mut BitWriter, count: usize) {
    let count = u32::try_from(count.min(269)).unwrap_or(0);
    w.put(ID_FIL, 3);
    if count < 15 {
        w.put(count, 4);
    } else {
        w.put(15, 4);
        w.put(count - 14, 8);
    }
    if count > 0 {
        w.put(0x10, 8); // EXT_FILL_DATA, fill_nibble
        for _ in 1..count {
            w.put(0b1010_0101, 8);
        }
    }
}

fn finish(w: &mut BitWriter) {
    w.put(ID_END, 3);
    w.align_zero();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_the_size_asked_for() {
        for channels in [1, 2] {
            for bytes in 12..1200 {
                assert_eq!(silence(channels, bytes).len(), bytes, "{channels} channels");
            }
        }
    }
}
