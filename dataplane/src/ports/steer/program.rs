//! The steering program: which frames are ours.
//!
//! ```text
//! IPv4   destination is ours                                             ─► socket
//!        UDP to a group that is ours                                     ─► socket
//! ARP    asks for, or answers to, an address of ours                     ─► socket
//! IPv6   destination is ours                                             ─► socket
//!        to a multicast group: neighbour solicitation or advertisement
//!        whose target is ours, or UDP and the group is ours              ─► socket
//! everything else, and all that is cut short or of another VLAN          ─► kernel
//! ```
//!
//! The target of a solicitation is looked at, not its solicited-node group: the kernel's own addresses may share the group's 24 bits.
//! Advertisements to all nodes, router advertisements, gratuitous ARP of others, IGMP and MLD go to the kernel: a frame cannot go to both.
//! Groups are in the same map as addresses. One that is ours is not the kernel's as well.
//!
//! Registers: R6 context, R7 first byte of the frame, R8 its end, R9 verdict counter.

use super::asm::{AsmError, Assembler, If, Instruction, Label, Reg, Size};

/// What became of a frame; the position of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Verdict {
    /// Ours, to the socket of its queue.
    ToUs = 0,
    /// Ours, but no socket serves the queue: to the kernel.
    Unserved = 1,
    /// To the kernel.
    ToKernel = 2,
    /// Too short for what it says it is: to the kernel.
    Malformed = 3,
}

/// Counters of a queue: one for each verdict.
pub(super) const VERDICTS: u32 = 4;
const VERDICT_BITS: i32 = 2;
const _: () = assert!(VERDICTS == 1 << VERDICT_BITS);

/// A key of the address map: an IPv6 address, or an IPv4 address mapped into one (RFC 4291 2.5.5.2).
pub(super) const KEY_BYTES: u32 = 16;

/// Descriptors of the maps that the program uses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Maps {
    pub addresses: i32,
    pub counters: i32,
    pub sockets: i32,
}

/// `XDP_PASS` of linux/bpf.h.
pub(super) const XDP_PASS: i32 = 2;
/// `XDP_REDIRECT` of linux/bpf.h.
pub(super) const XDP_REDIRECT: i32 = 4;

/// Helpers, by their numbers in linux/bpf.h.
mod helper {
    pub const MAP_LOOKUP_ELEM: i32 = 1;
    pub const REDIRECT_MAP: i32 = 51;
}

/// Offsets in `struct xdp_md`.
mod context {
    pub const DATA: i16 = 0;
    pub const DATA_END: i16 = 4;
    pub const RX_QUEUE_INDEX: i16 = 16;
}

/// Offsets in frames; those of layer 3 count from its header.
mod field {
    pub const ETHER_BYTES: i16 = 14;
    pub const VLAN_BYTES: i16 = 4;
    pub const ETHER_TYPE: i16 = 12;
    pub const VLAN_TAG: i16 = 14;
    pub const IPV4_BYTES: i16 = 20;
    pub const IPV4_PROTOCOL: i16 = 9;
    pub const IPV4_DESTINATION: i16 = 16;
    pub const ARP_BYTES: i16 = 28;
    pub const ARP_PROTOCOL: i16 = 2;
    pub const ARP_SIZES: i16 = 4;
    pub const ARP_TARGET: i16 = 24;
    pub const IPV6_BYTES: i16 = 40;
    pub const IPV6_NEXT_HEADER: i16 = 6;
    pub const IPV6_DESTINATION: i16 = 24;
    pub const NDP_TYPE: i16 = 40;
    pub const NDP_TARGET: i16 = 48;
    pub const NDP_BYTES: i16 = 24;
}

const ETHER_TYPE_VLAN: u16 = 0x8100;
const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_ARP: u16 = 0x0806;
const ETHER_TYPE_IPV6: u16 = 0x86dd;
const ARP_HARDWARE_ETHERNET: u16 = 1;
/// Sizes of hardware and protocol addresses in ARP for IPv4 on Ethernet.
const ARP_SIZES: u16 = 0x0604;
const VLAN_ID_MASK: u16 = 0x0fff;
const UDP: i32 = 17;
const ICMPV6: i32 = 58;
const NEIGHBOUR_SOLICITATION: i32 = 135;
const NEIGHBOUR_ADVERTISEMENT: i32 = 136;

/// Where the key is built on the stack, and the index of a counter.
const KEY: i16 = -16;
const KEY_IPV4: i16 = -4;
const INDEX: i16 = -20;

/// A 16-bit field as a load sees it.
fn wire(value: u16) -> i32 {
    i32::from(value.to_be())
}

/// The program for untagged frames, or for those of one VLAN.
pub(super) fn assemble(vlan: Option<u16>, maps: Maps) -> Result<Box<[Instruction]>, AsmError> {
    let mut asm = Assembler::default();
    let ours = asm.label();
    let kernel = asm.label();
    let malformed = asm.label();
    let count = asm.label();
    let layer3 = field::ETHER_BYTES + if vlan.is_some() { field::VLAN_BYTES } else { 0 };
    let targets = Targets { ours, kernel, malformed };

    asm.copy(Reg::R6, Reg::R1).load(Size::Word, Reg::R7, Reg::R6, context::DATA).load(Size::Word, Reg::R8, Reg::R6, context::DATA_END);
    require(&mut asm, layer3, malformed);
    if let Some(vlan) = vlan {
        asm.load(Size::Half, Reg::R3, Reg::R7, field::ETHER_TYPE).jump_if(If::NotEqual, Reg::R3, wire(ETHER_TYPE_VLAN), kernel);
        asm.load(Size::Half, Reg::R3, Reg::R7, field::VLAN_TAG).and(Reg::R3, wire(VLAN_ID_MASK));
        asm.jump_if(If::NotEqual, Reg::R3, wire(vlan & VLAN_ID_MASK), kernel);
    }
    // The head of an IPv4-mapped address; IPv6 overwrites it.
    asm.store_immediate(Size::Double, Reg::R10, KEY, 0);
    asm.store_immediate(Size::Word, Reg::R10, KEY + 8, i32::from_ne_bytes([0, 0, 0xff, 0xff]));
    let (ipv4, arp, ipv6) = (asm.label(), asm.label(), asm.label());
    asm.load(Size::Half, Reg::R3, Reg::R7, layer3 - 2);
    asm.jump_if(If::Equal, Reg::R3, wire(ETHER_TYPE_IPV4), ipv4);
    asm.jump_if(If::Equal, Reg::R3, wire(ETHER_TYPE_IPV6), ipv6);
    asm.jump_if(If::Equal, Reg::R3, wire(ETHER_TYPE_ARP), arp).jump(kernel);

    asm.place(ipv4);
    of_ipv4(&mut asm, layer3, &targets);
    asm.place(arp);
    of_arp(&mut asm, layer3, &targets);
    asm.place(ipv6);
    of_ipv6(&mut asm, layer3, &targets);

    asm.place(ours);
    asm.load_map(Reg::R1, maps.addresses).copy(Reg::R2, Reg::R10).add(Reg::R2, i32::from(KEY)).call(helper::MAP_LOOKUP_ELEM);
    asm.jump_if(If::Equal, Reg::R0, 0, kernel);
    // What the lower two bits of the third argument say is answered when the queue has no socket.
    asm.load_map(Reg::R1, maps.sockets).load(Size::Word, Reg::R2, Reg::R6, context::RX_QUEUE_INDEX).set(Reg::R3, XDP_PASS);
    asm.call(helper::REDIRECT_MAP).copy(Reg::R7, Reg::R0).set(Reg::R9, Verdict::ToUs as i32);
    asm.jump_if(If::Equal, Reg::R7, XDP_REDIRECT, count).set(Reg::R9, Verdict::Unserved as i32).jump(count);
    asm.place(malformed).set(Reg::R7, XDP_PASS).set(Reg::R9, Verdict::Malformed as i32).jump(count);
    asm.place(kernel).set(Reg::R7, XDP_PASS).set(Reg::R9, Verdict::ToKernel as i32);
    asm.place(count);
    counting(&mut asm, maps.counters);
    asm.finish()
}

struct Targets {
    /// The key is built: look it up.
    ours: Label,
    kernel: Label,
    malformed: Label,
}

/// Goes on only when the frame has at least `bytes`; the verifier learns from this comparison what may be read.
fn require(asm: &mut Assembler, bytes: i16, otherwise: Label) {
    asm.copy(Reg::R2, Reg::R7).add(Reg::R2, i32::from(bytes)).jump_if_greater(Reg::R2, Reg::R8, otherwise);
}

fn of_ipv4(asm: &mut Assembler, layer3: i16, targets: &Targets) {
    require(asm, layer3 + field::IPV4_BYTES, targets.malformed);
    asm.load(Size::Byte, Reg::R3, Reg::R7, layer3).and(Reg::R3, 0xf0).jump_if(If::NotEqual, Reg::R3, 0x40, targets.malformed);
    asm.load(Size::Word, Reg::R3, Reg::R7, layer3 + field::IPV4_DESTINATION).store(Size::Word, Reg::R10, KEY_IPV4, Reg::R3);
    asm.load(Size::Byte, Reg::R3, Reg::R7, layer3 + field::IPV4_DESTINATION).and(Reg::R3, 0xf0);
    asm.jump_if(If::NotEqual, Reg::R3, 0xe0, targets.ours);
    // Of what is sent to a group only streams are ours: the kernel and switches behind it want to know who else is in it.
    asm.load(Size::Byte, Reg::R3, Reg::R7, layer3 + field::IPV4_PROTOCOL).jump_if(If::NotEqual, Reg::R3, UDP, targets.kernel);
    asm.jump(targets.ours);
}

fn of_arp(asm: &mut Assembler, layer3: i16, targets: &Targets) {
    require(asm, layer3 + field::ARP_BYTES, targets.malformed);
    for (offset, value) in [(0, ARP_HARDWARE_ETHERNET), (field::ARP_PROTOCOL, ETHER_TYPE_IPV4), (field::ARP_SIZES, ARP_SIZES)] {
        asm.load(Size::Half, Reg::R3, Reg::R7, layer3 + offset).jump_if(If::NotEqual, Reg::R3, wire(value), targets.kernel);
    }
    asm.load(Size::Word, Reg::R3, Reg::R7, layer3 + field::ARP_TARGET).store(Size::Word, Reg::R10, KEY_IPV4, Reg::R3);
    asm.jump(targets.ours);
}

fn of_ipv6(asm: &mut Assembler, layer3: i16, targets: &Targets) {
    let (multicast, advertised, to_group) = (asm.label(), asm.label(), asm.label());
    require(asm, layer3 + field::IPV6_BYTES, targets.malformed);
    asm.load(Size::Byte, Reg::R3, Reg::R7, layer3).and(Reg::R3, 0xf0).jump_if(If::NotEqual, Reg::R3, 0x60, targets.malformed);
    asm.load(Size::Byte, Reg::R3, Reg::R7, layer3 + field::IPV6_DESTINATION).jump_if(If::Equal, Reg::R3, 0xff, multicast);
    key_of_ipv6(asm, layer3 + field::IPV6_DESTINATION);
    asm.jump(targets.ours);

    asm.place(multicast);
    // Neighbour discovery has no extension headers before it (RFC 6980 5 forbids fragments, and nobody sends others).
    asm.load(Size::Byte, Reg::R3, Reg::R7, layer3 + field::IPV6_NEXT_HEADER).jump_if(If::Equal, Reg::R3, UDP, to_group);
    asm.jump_if(If::NotEqual, Reg::R3, ICMPV6, targets.kernel);
    require(asm, layer3 + field::IPV6_BYTES + field::NDP_BYTES, targets.kernel);
    asm.load(Size::Byte, Reg::R3, Reg::R7, layer3 + field::NDP_TYPE);
    asm.jump_if(If::Equal, Reg::R3, NEIGHBOUR_SOLICITATION, advertised);
    asm.jump_if(If::NotEqual, Reg::R3, NEIGHBOUR_ADVERTISEMENT, targets.kernel);
    asm.place(advertised);
    key_of_ipv6(asm, layer3 + field::NDP_TARGET);
    asm.jump(targets.ours);
    asm.place(to_group);
    key_of_ipv6(asm, layer3 + field::IPV6_DESTINATION);
    asm.jump(targets.ours);
}

fn key_of_ipv6(asm: &mut Assembler, offset: i16) {
    for part in [0, 4, 8, 12] {
        asm.load(Size::Word, Reg::R3, Reg::R7, offset + part).store(Size::Word, Reg::R10, KEY + part, Reg::R3);
    }
}

/// Counts the verdict in R9 for the frame's queue and returns R7.
fn counting(asm: &mut Assembler, counters: i32) {
    let done = asm.label();
    asm.load(Size::Word, Reg::R3, Reg::R6, context::RX_QUEUE_INDEX).shift_left(Reg::R3, VERDICT_BITS).add_register(Reg::R3, Reg::R9);
    asm.store(Size::Word, Reg::R10, INDEX, Reg::R3);
    asm.load_map(Reg::R1, counters).copy(Reg::R2, Reg::R10).add(Reg::R2, i32::from(INDEX)).call(helper::MAP_LOOKUP_ELEM);
    asm.jump_if(If::Equal, Reg::R0, 0, done).set(Reg::R1, 1).atomic_add(Reg::R0, 0, Reg::R1);
    asm.place(done).copy(Reg::R0, Reg::R7).exit();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_short_as_promised() {
        let maps = Maps { addresses: 3, counters: 4, sockets: 5 };
        let untagged = assemble(None, maps).unwrap();
        let tagged = assemble(Some(7), maps).unwrap();
        assert!(untagged.len() < 130, "{}", untagged.len());
        assert_eq!(tagged.len(), untagged.len() + 5);
    }
}
