//! Writing of bit-oriented syntax: fixed-length fields, Exp-Golomb codes and the wrapping of an RBSP into a NAL unit.

/// Bits written most significant first.
#[derive(Clone, Debug, Default)]
pub struct BitWriter {
    bytes: Vec<u8>,
    /// Bits used of the last byte; 0 when it is full or there is none.
    used: u32,
}

impl BitWriter {
    /// Writes the low `width` bits of `value` (at most 32).
    pub fn put(&mut self, value: u32, width: u32) {
        for i in (0..width.min(32)).rev() {
            if self.used == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= u8::from(value >> i & 1 == 1) << (7 - self.used);
            }
            self.used = (self.used + 1) % 8;
        }
    }

    /// Writes an unsigned Exp-Golomb code, `ue(v)` (H.264 9.1).
    pub fn ue(&mut self, value: u16) {
        let code = u32::from(value) + 1;
        let width = 32 - code.leading_zeros();
        self.put(0, width - 1);
        self.put(code, width);
    }

    /// Writes zero bits up to the next byte boundary.
    pub fn align_zero(&mut self) {
        self.used = 0;
    }

    /// Appends whole bytes; only meaningful on a byte boundary.
    pub fn bytes(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.used, 0);
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends an RBSP: a one bit, then zeros up to the boundary (H.264 7.3.2.11).
    pub fn rbsp_trailing(&mut self) {
        self.put(1, 1);
        self.align_zero();
    }

    /// The bytes written, the last one filled up with zeros.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A NAL unit: the header byte, then the RBSP with emulation prevention bytes (H.264 7.4.1.1).
pub fn nal_unit(header: u8, rbsp: &[u8]) -> Vec<u8> {
    let mut nal = Vec::with_capacity(rbsp.len() + 8);
    nal.push(header);
    let mut zeros = 0;
    for &byte in rbsp {
        if zeros >= 2 && byte <= 3 {
            nal.push(3);
            zeros = 0;
        }
        nal.push(byte);
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
    nal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_golomb_codes_are_those_of_the_standard() {
        let codes = [(0, "1"), (1, "010"), (2, "011"), (3, "00100"), (7, "0001000"), (30, "000011111")];
        for (value, bits) in codes {
            let mut w = BitWriter::default();
            w.ue(value);
            let text: String = w.into_bytes().iter().map(|b| format!("{b:08b}")).collect();
            assert!(text.starts_with(bits), "ue({value}) gave {text}");
        }
    }

    #[test]
    fn start_codes_cannot_appear_inside_a_nal_unit() {
        assert_eq!(nal_unit(0x65, &[0, 0, 0, 0, 1]), [0x65, 0, 0, 3, 0, 0, 3, 1]);
        assert_eq!(nal_unit(0x65, &[0, 0, 4]), [0x65, 0, 0, 4]);
    }
}
