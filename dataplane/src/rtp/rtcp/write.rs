//! Writing compound packets into a caller's buffer.

use super::{
    COUNT_MAX, HEADER_BYTES, REPORT_BYTES, ReportBlock, SDES_CNAME, SENDER_INFO_BYTES, SSRC_BYTES, SenderInfo, TEXT_BYTES_MAX, VERSION,
    packet_type,
};

/// The buffer is too small for the packet; nothing of it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for the RTCP packet: {needed} bytes needed, {free} free")]
pub struct NoRoom {
    /// Bytes of the packet.
    pub needed: usize,
    /// Bytes left in the buffer.
    pub free: usize,
}

/// Range of a 24-bit signed number.
const LOST_MIN: i32 = -(1 << 23);
const LOST_MAX: i32 = (1 << 23) - 1;

/// Appends packets to a buffer. Write a report first, then SDES: RFC 3550 6.1.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl<'a> Writer<'a> {
    /// A compound packet at the front of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0 }
    }

    /// Bytes written.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True before the first packet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// SR. Of `reports` the first [`COUNT_MAX`] count.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn sender_report(&mut self, ssrc: u32, info: &SenderInfo, reports: &[ReportBlock]) -> Result<(), NoRoom> {
        let reports = &reports[..reports.len().min(COUNT_MAX)];
        let body = SSRC_BYTES + SENDER_INFO_BYTES + reports.len() * REPORT_BYTES;
        let mut packet = self.packet(packet_type::SR, reports.len(), body)?;
        packet.word(ssrc);
        packet.put(&info.ntp.0.to_be_bytes());
        packet.word(info.rtp_timestamp);
        packet.word(info.packets);
        packet.word(info.octets);
        packet.reports(reports);
        Ok(())
    }

    /// RR. Of `reports` the first [`COUNT_MAX`] count.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn receiver_report(&mut self, ssrc: u32, reports: &[ReportBlock]) -> Result<(), NoRoom> {
        let reports = &reports[..reports.len().min(COUNT_MAX)];
        let mut packet = self.packet(packet_type::RR, reports.len(), SSRC_BYTES + reports.len() * REPORT_BYTES)?;
        packet.word(ssrc);
        packet.reports(reports);
        Ok(())
    }

    /// SDES with a CNAME, of which the first [`TEXT_BYTES_MAX`] bytes count.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn cname(&mut self, ssrc: u32, cname: &[u8]) -> Result<(), NoRoom> {
        let cname = &cname[..cname.len().min(TEXT_BYTES_MAX)];
        let unpadded = SSRC_BYTES + 2 + cname.len();
        // RFC 3550 6.5: the list of items ends with at least one zero byte; the zeros fill the last word.
        let body = (unpadded + 1).next_multiple_of(4);
        let mut packet = self.packet(packet_type::SDES, 1, body)?;
        packet.word(ssrc);
        packet.put(&[SDES_CNAME, cname.len() as u8]);
        packet.put(cname);
        packet.put(&[0; 4][..body - unpadded]);
        Ok(())
    }

    /// BYE with a reason, of which the first [`TEXT_BYTES_MAX`] bytes count; empty for none.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn bye(&mut self, ssrc: u32, reason: &[u8]) -> Result<(), NoRoom> {
        let reason = &reason[..reason.len().min(TEXT_BYTES_MAX)];
        let unpadded = SSRC_BYTES + if reason.is_empty() { 0 } else { 1 + reason.len() };
        let body = unpadded.next_multiple_of(4);
        let mut packet = self.packet(packet_type::BYE, 1, body)?;
        packet.word(ssrc);
        if !reason.is_empty() {
            packet.put(&[reason.len() as u8]);
            packet.put(reason);
        }
        packet.put(&[0; 4][..body - unpadded]);
        Ok(())
    }

    /// Makes room for a packet and writes its header. `body` is a multiple of 4.
    fn packet(&mut self, kind: u8, count: usize, body: usize) -> Result<Body<'_>, NoRoom> {
        let needed = HEADER_BYTES + body;
        let free = self.out.len() - self.len;
        let packet = self.out.get_mut(self.len..self.len + needed).ok_or(NoRoom { needed, free })?;
        self.len += needed;
        let [high, low] = ((body / 4) as u16).to_be_bytes();
        let mut packet = Body { left: packet };
        packet.put(&[VERSION << 6 | count as u8, kind, high, low]);
        Ok(packet)
    }
}

/// The part of a packet that is still to be written.
struct Body<'a> {
    left: &'a mut [u8],
}

impl Body<'_> {
    fn put(&mut self, bytes: &[u8]) {
        if let Some((front, rest)) = std::mem::take(&mut self.left).split_at_mut_checked(bytes.len()) {
            front.copy_from_slice(bytes);
            self.left = rest;
        }
    }

    fn word(&mut self, word: u32) {
        self.put(&word.to_be_bytes());
    }

    fn reports(&mut self, reports: &[ReportBlock]) {
        for report in reports {
            self.word(report.ssrc);
            let lost = report.cumulative_lost.clamp(LOST_MIN, LOST_MAX) as u32 & 0x00ff_ffff;
            self.word(u32::from(report.fraction_lost) << 24 | lost);
            self.word(report.highest_seq);
            self.word(report.jitter);
            self.word(report.last_sr);
            self.word(report.delay_since_last_sr);
        }
    }
}
