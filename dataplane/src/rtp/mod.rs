//! stub
#![allow(missing_docs)]
pub mod header;
pub mod interleaved;
mod ntp;
pub mod rtcp {
    pub fn reported_ssrcs(_p: &[u8]) -> impl Iterator<Item = u32> {
        std::iter::empty()
    }
}
pub mod sender {
    #[derive(Clone, Copy, Debug)]
    pub struct RtpMap {
        pub unix_ns: u64,
        pub rtp_ts: u32,
    }
    #[derive(Clone, Debug, Default)]
    pub struct ClientReport {
        pub lost: i32,
        pub fraction_lost: u8,
        pub jitter: u32,
    }
    #[derive(Debug)]
    pub struct RtcpSender { next: u64, ssrc: u32, n: u32 }
    impl ClientReport {
        pub fn cname(&self) -> Option<String> {
            None
        }
    }
    impl RtcpSender {
        pub fn new(ssrc: u32, _rate: u32, _cname: &str, _seed: u64) -> Self {
            Self { next: 0, ssrc, n: 0 }
        }
        pub fn note_sent(&mut self, _b: usize) { self.n += 1; }
        pub fn next_report_ns(&self) -> u64 {
            self.next
        }
        pub fn write_report(&mut self, now: u64, m: RtpMap, o: &mut [u8]) -> usize { self.next = now + 5_000_000_000; o[..4].copy_from_slice(&[0x80,200,0,6]); o[4..8].copy_from_slice(&self.ssrc.to_be_bytes()); o[16..20].copy_from_slice(&m.rtp_ts.to_be_bytes()); o[20..24].copy_from_slice(&self.n.to_be_bytes()); 28 }
        pub fn write_bye(&mut self, now: u64, m: RtpMap, o: &mut [u8]) -> usize { self.write_report(now, m, o); o[28..32].copy_from_slice(&[0x81,203,0,1]); 36 }
        pub fn receive(&mut self, _p: &[u8], _u: u64) -> bool {
            true
        }
        pub fn client_report(&self) -> ClientReport {
            ClientReport::default()
        }
    }
}
