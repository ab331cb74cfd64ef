//! ICMP errors about our segments, believed as far as RFC 5927 goes: only with a sequence number that is in flight, never to end a
//! connection that is established, and never to make segments absurdly small.

use std::net::IpAddr;

use super::Tcp;
use super::api::{IcmpError, State, TcpError};
use super::conn::{Conn, own_mss};
use super::flight::Record;
use super::seq::Seq;
use super::shared::Shared;
use super::wire::{TIMESTAMPS_BYTES, Tuple};

/// Smaller paths are not believed in: RFC 791 demands 576 of every host, RFC 8200 1280.
const MTU_MIN_V4: usize = 576;
const MTU_MIN_V6: usize = 1280;

impl Tcp {
    /// Takes an ICMP error about a segment of ours from `local` to `remote`; `header` are the bytes of that segment that came with it, at
    /// least 8 (ports and sequence number).
    pub fn icmp_error(&mut self, now_ns: u64, local: IpAddr, remote: IpAddr, header: &[u8], error: IcmpError) {
        self.now_ns = self.now_ns.max(now_ns);
        let Some(&[p0, p1, p2, p3, s0, s1, s2, s3]) = header.first_chunk::<8>() else { return };
        let tuple = Tuple { local, remote, local_port: u16::from_be_bytes([p0, p1]), remote_port: u16::from_be_bytes([p2, p3]) };
        let seq = Seq(u32::from_be_bytes([s0, s1, s2, s3]));
        if let Some(index) = self.lookup(&tuple) {
            self.drive(index, |conn, shared| conn.icmp_error(shared, seq, error));
        }
    }
}

impl Conn {
    fn icmp_error(&mut self, shared: &mut Shared, seq: Seq, error: IcmpError) {
        if !(self.snd.una.le(seq) && seq.lt(self.snd.nxt)) {
            return;
        }
        match error {
            // RFC 9293 3.9.2.2: a soft error; the timers decide.
            IcmpError::Unreachable => {}
            IcmpError::Refused => {
                if self.state == State::SynSent {
                    self.fail(shared, TcpError::Refused);
                }
            }
            IcmpError::PacketTooBig { mtu_bytes } => self.path_narrowed(shared, mtu_bytes),
        }
    }

    /// Makes segments smaller and sends those again that were too big. That is no congestion.
    fn path_narrowed(&mut self, shared: &mut Shared, mtu_bytes: usize) {
        let v4 = self.tuple.local.is_ipv4();
        let mtu_bytes = mtu_bytes.max(if v4 { MTU_MIN_V4 } else { MTU_MIN_V6 });
        let options = if self.timestamps { TIMESTAMPS_BYTES as u32 } else { 0 };
        let mss = u32::from(own_mss(mtu_bytes, v4)) - options;
        if mss >= self.snd.mss {
            return;
        }
        self.snd.mss = mss;
        let too_big = |record: &Record| Some(record.payload_len() > mss as usize);
        if self.snd.flight.mark_lost(&mut shared.records, too_big) {
            self.wake(shared);
        }
    }
}
