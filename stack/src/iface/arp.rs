//! ARP inwards (RFC 826, with the checks of RFC 5227).

use std::net::IpAddr;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr};

use super::Interface;
use super::answers::Answer;
use super::ingress::{Dropped, LinkHeader};
use super::neighbour::Advert;

impl Interface {
    /// Takes an ARP packet. Requests are answered for our addresses only; nobody becomes a neighbour who did not ask for us.
    pub(super) fn arp(&mut self, now_ns: u64, link: LinkHeader, bytes: &[u8]) -> Result<(), Dropped> {
        let packet = ArpPacket::new_checked(bytes).map_err(|_| Dropped::Malformed)?;
        let repr = ArpRepr::parse(&packet).map_err(|_| Dropped::Malformed)?;
        let ArpRepr::EthernetIpv4 {
            operation, source_hardware_addr: from, source_protocol_addr: from_ip, target_protocol_addr: to_ip, ..
        } = repr
        else {
            return Err(Dropped::Malformed);
        };
        if !from.is_unicast() || from_ip.is_broadcast() || from_ip.is_multicast() {
            return Err(Dropped::Martian);
        }
        self.counters.rx_arp += 1;
        let (mac, sender) = (from.0, IpAddr::V4(from_ip));
        if self.addresses.state(sender).is_some() {
            if mac != self.speech.link.mac {
                self.counters.conflicts += 1;
                if self.addresses.conflict(now_ns, sender) {
                    let said = self.answers.say(Answer::Announce(sender));
                    self.note(said);
                }
            }
            return Ok(());
        }
        let on_link = self.routes.next_hop(now_ns, &self.addresses, sender) == Some(sender);
        let for_us = self.addresses.is_usable(IpAddr::V4(to_ip));
        match operation {
            ArpOperation::Request if for_us => {
                if on_link {
                    self.neighbours.heard(now_ns, sender, mac);
                }
                // RFC 5227 2.1.1: a probe comes from nobody and is answered too.
                if on_link || from_ip.is_unspecified() {
                    let said = self.answers.say(Answer::Arp { to: (mac, from_ip), own: to_ip });
                    self.note(said);
                }
            }
            // A reply to us, or an announcement: news of those that are known already.
            ArpOperation::Request | ArpOperation::Reply if on_link => {
                let solicited = operation == ArpOperation::Reply && link.unicast && self.neighbours.awaits(sender);
                self.neighbours.advert(now_ns, Advert { ip: sender, mac: Some(mac), solicited, overrides: true });
            }
            _ => {}
        }
        Ok(())
    }
}
