//! stub
pub mod header {
    pub const HEADER_BYTES: usize = 12;
    pub struct Header { pub marker: bool, pub payload_type: u8, pub seq: u16, pub timestamp: u32, pub ssrc: u32 }
    impl Header { pub fn emit(&self, out: &mut [u8]) { if out.len() < 12 { return; } out[0]=0x80; out[1]=self.payload_type | (self.marker as u8) << 7; out[2..4].copy_from_slice(&self.seq.to_be_bytes()); out[4..8].copy_from_slice(&self.timestamp.to_be_bytes()); out[8..12].copy_from_slice(&self.ssrc.to_be_bytes()); } }
}
pub mod rtcp { pub fn reported_ssrcs(_p: &[u8]) -> impl Iterator<Item = u32> { std::iter::empty() } }
pub mod sender {
    #[derive(Clone, Copy, Debug)] pub struct RtpMap { pub unix_ns: u64, pub rtp_ts: u32 }
    #[derive(Clone, Debug, Default)] pub struct ClientReport {}
    #[derive(Debug)] pub struct RtcpSender { next: u64 }
    impl RtcpSender {
        pub fn new(_ssrc: u32, _rate: u32, _cname: &str, _seed: u64) -> Self { Self { next: 0 } }
        pub fn note_sent(&mut self, _b: usize) {}
        pub fn next_report_ns(&self) -> u64 { self.next }
        pub fn write_report(&mut self, now: u64, _m: RtpMap, _o: &mut [u8]) -> usize { self.next = now + 5_000_000_000; 28 }
        pub fn write_bye(&mut self, _now: u64, _m: RtpMap, _o: &mut [u8]) -> usize { 36 }
        pub fn receive(&mut self, _p: &[u8], _u: u64) -> bool { true }
        pub fn client_report(&self) -> ClientReport { ClientReport {} }
    }
}
