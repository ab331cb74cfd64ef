//! The smallest H.264 encoder that real decoders accept: baseline profile, CAVLC, pictures of I_PCM, DC-predicted and skipped
//! macroblocks. An IDR picture is one plain colour; in the pictures after it a bright square wanders over it, one macroblock per frame.
//! SEI user data in front of the slice fills an access unit up to any wanted size and names the title and the frame.

use super::bits::{BitWriter, nal_unit};

/// NAL unit headers: `nal_ref_idc` and `nal_unit_type` (H.264 7.4.1).
mod nal {
    pub const SLICE: u8 = 0x41;
    pub const IDR: u8 = 0x65;
    pub const SEI: u8 = 0x06;
    pub const SPS: u8 = 0x67;
    pub const PPS: u8 = 0x68;
}

/// `I_PCM` in an I slice; five more in a P slice (H.264 tables 7-11 and 7-13).
const MB_TYPE_I_PCM: u16 = 25;
/// `I_16x16_2_0_0`: DC prediction, no coefficients.
const MB_TYPE_I_16X16_DC: u16 = 3;

/// A picture stream's constant properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Width in macroblocks of 16 luma samples.
    pub width_mbs: u16,
    /// Height in macroblocks.
    pub height_mbs: u16,
    /// Colour: Y, Cb, Cr, each 16 to 235.
    pub colour: [u8; 3],
}

impl Picture {
    fn macroblocks(&self) -> u16 {
        self.width_mbs.saturating_mul(self.height_mbs)
    }

    /// Sequence parameter set (H.264 7.3.2.1.1). Picture order count type 2: output order is decoding order.
    pub fn sps(&self) -> Vec<u8> {
        let mut w = BitWriter::default();
        w.put(66, 8); // profile_idc: baseline
        w.put(0xc0, 8); // constraint_set0 and 1
        w.put(31, 8); // level 3.1
        w.ue(0); // seq_parameter_set_id
        w.ue(0); // log2_max_frame_num_minus4
        w.ue(2); // pic_order_cnt_type
        w.ue(1); // max_num_ref_frames
        w.put(0, 1); // gaps_in_frame_num_value_allowed_flag
        w.ue(self.width_mbs.saturating_sub(1));
        w.ue(self.height_mbs.saturating_sub(1));
        w.put(1, 1); // frame_mbs_only_flag
        w.put(1, 1); // direct_8x8_inference_flag
        w.put(0, 1); // frame_cropping_flag
        w.put(0, 1); // vui_parameters_present_flag
        w.rbsp_trailing();
        nal_unit(nal::SPS, &w.into_bytes())
    }

    /// Picture parameter set (H.264 7.3.2.2).
    pub fn pps(&self) -> Vec<u8> {
        let mut w = BitWriter::default();
        w.ue(0); // pic_parameter_set_id
        w.ue(0); // seq_parameter_set_id
        w.put(0, 2); // CAVLC, no field order counts
        w.ue(0); // num_slice_groups_minus1
        w.ue(0); // num_ref_idx_l0_default_active_minus1
        w.ue(0); // num_ref_idx_l1_default_active_minus1
        w.put(0, 3); // no weighted prediction
        w.ue(0); // pic_init_qp_minus26
        w.ue(0); // pic_init_qs_minus26
        w.ue(0); // chroma_qp_index_offset
        w.put(0b100, 3); // deblocking control present
        w.rbsp_trailing();
        nal_unit(nal::PPS, &w.into_bytes())
    }

    /// An IDR slice: the first macroblock carries the colour, all others predict it. `id` must differ between neighbours.
    pub fn idr(&self, id: u16) -> Vec<u8> {
        let mut w = BitWriter::default();
        w.ue(0); // first_mb_in_slice
        w.ue(7); // slice_type: all I
        w.ue(0); // pic_parameter_set_id
        w.put(0, 4); // frame_num
        w.ue(id); // idr_pic_id
        w.put(0, 2); // dec_ref_pic_marking
        w.ue(0); // slice_qp_delta
        w.ue(1); // disable_deblocking_filter_idc
        w.ue(MB_TYPE_I_PCM);
        w.align_zero();
        w.bytes(&pcm_macroblock(self.colour));
        for mb in 1..self.macroblocks() {
            w.ue(MB_TYPE_I_16X16_DC);
            w.ue(0); // intra_chroma_pred_mode: DC
            w.ue(0); // mb_qp_delta
            // H.264 9.2.1: an I_PCM neighbour counts as 16 coefficients, which selects another code for "none".
            if mb == 1 || mb == self.width_mbs { w.put(0b00_0011, 6) } else { w.put(1, 1) }
        }
        w.rbsp_trailing();
        nal_unit(nal::IDR, &w.into_bytes())
    }

    /// A P slice, the `since_idr`th picture after an IDR (from 1). With `square`, the bright macroblock moves on by one.
    pub fn skip(&self, since_idr: u32, square: bool) -> Vec<u8> {
        let mut w = BitWriter::default();
        w.ue(0); // first_mb_in_slice
        w.ue(5); // slice_type: all P
        w.ue(0); // pic_parameter_set_id
        w.put(since_idr % 16, 4); // frame_num
        w.put(0, 2); // no reference count override, no list modification
        w.put(0, 1); // sliding window marking
        w.ue(0); // slice_qp_delta
        w.ue(1); // disable_deblocking_filter_idc
        let total = self.macroblocks();
        let place = |n: u32| u16::try_from(n % u32::from(total.max(1))).unwrap_or(0);
        let mut painted = Vec::new();
        if square {
            painted.push((place(since_idr), [235, 128, 128]));
            if since_idr > 1 {
                painted.push((place(since_idr - 1), self.colour));
            }
            painted.sort_unstable();
        }
        let mut next = 0;
        for (mb, colour) in painted {
            w.ue(mb - next); // mb_skip_run
            w.ue(5 + MB_TYPE_I_PCM);
            w.align_zero();
            w.bytes(&pcm_macroblock(colour));
            next = mb + 1;
        }
        if next < total {
            w.ue(total - next);
        }
        w.rbsp_trailing();
        nal_unit(nal::SLICE, &w.into_bytes())
    }
}

fn pcm_macroblock([y, cb, cr]: [u8; 3]) -> [u8; 384] {
    let mut samples = [y; 384];
    samples[256..320].fill(cb);
    samples[320..].fill(cr);
    samples
}

/// Bytes that [`sei_user_data`] adds to a payload of `payload` bytes.
fn sei_overhead(payload: usize) -> usize {
    // NAL header, payload type, payload size in steps of 255, trailing bits.
    1 + 1 + payload / 255 + 1 + 1
}

/// A SEI NAL unit of user data (H.264 D.1.6) of `nal_bytes`, or one byte less where the length field makes that length impossible.
/// `None` when there is no room for the 16 bytes of identity.
pub fn sei_user_data(identity: [u8; 16], nal_bytes: usize) -> Option<Vec<u8>> {
    let mut payload = nal_bytes.checked_sub(sei_overhead(0))?;
    while payload + sei_overhead(payload) > nal_bytes {
        payload -= 1;
    }
    let filler = payload.checked_sub(identity.len())?;
    let mut nal = Vec::with_capacity(nal_bytes);
    nal.extend_from_slice(&[nal::SEI, 5]); // user_data_unregistered
    nal.resize(nal.len() + payload / 255, 0xff);
    nal.push(u8::try_from(payload % 255).unwrap_or(0));
    nal.extend_from_slice(&identity);
    // Never zero, so that no emulation prevention is needed and the length stays as computed.
    nal.extend((0..filler).map(|i| 0x40 | (i % 61) as u8));
    nal.push(0x80);
    Some(nal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_reaches_every_size_within_one_byte() {
        for want in 21..2000 {
            let nal = sei_user_data([b'a'; 16], want).unwrap();
            assert!(nal.len() == want || nal.len() + 1 == want, "{want} gave {}", nal.len());
        }
        assert!(sei_user_data([b'a'; 16], 12).is_none());
    }
}
