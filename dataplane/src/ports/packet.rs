//! A packet socket beside the AF_XDP ones of an interface, behind a safe face: packet(7).
//!
//! It holds what a frame of a multicast group needs to get past the card: the group's hardware address in the card's filter, for as long as
//! the socket is open, however the process dies. And it is shown copies of what multicast routers ask (IGMP and MLD queries), which the
//! steering program leaves to the kernel: the kernel has groups of its own on the interface, those of its IPv6 addresses at least, and a
//! switch that never hears of them any more cuts the kernel off. A classic filter sees to it that nothing else is copied.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Longer frames are cut: no query is.
const FRAME_BYTES: usize = 2048;
/// A VLAN tag, which the kernel has taken off.
const TAG_BYTES: usize = 4;

/// Classic BPF, linux/filter.h.
mod code {
    pub const LOAD_WORD: u16 = 0x20;
    pub const LOAD_HALF: u16 = 0x28;
    pub const LOAD_BYTE: u16 = 0x30;
    /// At an offset to X.
    pub const LOAD_BYTE_AT_X: u16 = 0x50;
    /// X becomes the length of an IPv4 header.
    pub const HEADER_BYTES_TO_X: u16 = 0xb1;
    pub const AND: u16 = 0x54;
    pub const JUMP_IF_EQUAL: u16 = 0x15;
    pub const RETURN: u16 = 0x06;
    /// Words beside the packet: SKF_AD_OFF and what is added to it.
    pub const PACKET_TYPE: u32 = 0xffff_f000 + 4;
    pub const VLAN_TAG: u32 = 0xffff_f000 + 44;
    pub const VLAN_TAG_PRESENT: u32 = 0xffff_f000 + 48;
    /// PACKET_OUTGOING of linux/if_packet.h.
    pub const OUTGOING: u32 = 4;
}

/// Where a step of the filter goes on.
#[derive(Clone, Copy)]
enum Then {
    Next,
    /// The next one if equal, else the end without a copy.
    OnlyIfEqual,
    /// The other way round.
    UnlessEqual,
    /// The next one if equal, else so many are passed over.
    SkipUnlessEqual(u8),
}

/// What is copied: queries that came in, untagged or of one VLAN.
fn filter(vlan: Option<u16>) -> Vec<libc::sock_filter> {
    use Then::{Next, OnlyIfEqual, SkipUnlessEqual, UnlessEqual};
    let mut steps = vec![
        (code::LOAD_WORD, code::PACKET_TYPE, Next),
        (code::JUMP_IF_EQUAL, code::OUTGOING, UnlessEqual),
        (code::LOAD_WORD, code::VLAN_TAG_PRESENT, Next),
        (code::JUMP_IF_EQUAL, u32::from(vlan.is_some()), OnlyIfEqual),
    ];
    if let Some(vlan) = vlan {
        steps.extend([
            (code::LOAD_WORD, code::VLAN_TAG, Next),
            (code::AND, 0xfff, Next),
            (code::JUMP_IF_EQUAL, u32::from(vlan & 0xfff), OnlyIfEqual),
        ]);
    }
    let ipv4 = [
        // The protocol is IGMP, and behind the header stands the type of a query.
        (code::LOAD_BYTE, 23, Next),
        (code::JUMP_IF_EQUAL, 2, OnlyIfEqual),
        (code::HEADER_BYTES_TO_X, 14, Next),
        (code::LOAD_BYTE_AT_X, 14, Next),
        (code::JUMP_IF_EQUAL, 0x11, OnlyIfEqual),
        (code::RETURN, FRAME_BYTES as u32, Next),
    ];
    let ipv6 = [
        (code::JUMP_IF_EQUAL, 0x86dd, OnlyIfEqual),
        // Hop-by-hop options of eight bytes, for the router alert, and behind them the ICMPv6 type of a query.
        (code::LOAD_BYTE, 20, Next),
        (code::JUMP_IF_EQUAL, 0, OnlyIfEqual),
        (code::LOAD_HALF, 54, Next),
        (code::JUMP_IF_EQUAL, 58 << 8, OnlyIfEqual),
        (code::LOAD_BYTE, 62, Next),
        (code::JUMP_IF_EQUAL, 130, OnlyIfEqual),
        (code::RETURN, FRAME_BYTES as u32, Next),
    ];
    steps.extend([(code::LOAD_HALF, 12, Next), (code::JUMP_IF_EQUAL, 0x0800, SkipUnlessEqual(ipv4.len() as u8))]);
    steps.extend(ipv4.into_iter().chain(ipv6));
    let end = steps.len();
    steps.push((code::RETURN, 0, Next));
    let instruction = |(at, (code, k, then)): (usize, (u16, u32, Then))| {
        let to_end = (end - at).saturating_sub(1) as u8;
        let (jt, jf) = match then {
            Next => (0, 0),
            OnlyIfEqual => (0, to_end),
            UnlessEqual => (to_end, 0),
            SkipUnlessEqual(count) => (0, count),
        };
        libc::sock_filter { code, jt, jf, k }
    };
    steps.into_iter().enumerate().map(instruction).collect()
}

/// The socket.
pub(super) struct GroupSocket {
    socket: OwnedFd,
    /// The interface.
    index: u32,
    vlan: Option<u16>,
    /// Anything is copied: a group was joined.
    bound: bool,
    frame: Box<[u8]>,
}

fn succeeded(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

impl GroupSocket {
    /// A socket for the interface with this index in this network namespace. Nothing is copied yet.
    pub(super) fn open(index: u32, vlan: Option<u16>) -> io::Result<Self> {
        // SAFETY: takes no pointers.
        let fd = succeeded(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) })?;
        // SAFETY: `fd` was just made and belongs to nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut steps = filter(vlan);
        let program = libc::sock_fprog { len: steps.len() as libc::c_ushort, filter: steps.as_mut_ptr() };
        set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)?;
        Ok(Self { socket, index, vlan, bound: false, frame: vec![0; TAG_BYTES + FRAME_BYTES].into() })
    }

    /// Anything is copied.
    pub(super) fn is_bound(&self) -> bool {
        self.bound
    }

    /// The card lets in frames to this group, and queries are copied, from now on.
    pub(super) fn join(&mut self, group: [u8; 6]) -> io::Result<()> {
        if !self.bound {
            self.bind()?;
            self.bound = true;
        }
        let mut address = [0; 8];
        address[..6].copy_from_slice(&group);
        let request = libc::packet_mreq {
            mr_ifindex: self.index.cast_signed(),
            mr_type: libc::PACKET_MR_MULTICAST as libc::c_ushort,
            mr_alen: 6,
            mr_address: address,
        };
        set(&self.socket, libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)
    }

    fn bind(&self) -> io::Result<()> {
        // SAFETY: a sockaddr_ll is integers; all zero is a value of each.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as libc::c_ushort;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = self.index.cast_signed();
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: `address` is a sockaddr_ll of that length, on our stack.
        succeeded(unsafe { libc::bind(self.socket.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
    }

    /// The next query, if there is one: a system call.
    pub(super) fn next(&mut self) -> Option<&[u8]> {
        let space = self.frame.get_mut(TAG_BYTES..)?;
        // SAFETY: the kernel writes at most `space.len()` bytes to `space`, which is ours.
        let len = unsafe { libc::recv(self.socket.as_raw_fd(), space.as_mut_ptr().cast(), space.len(), 0) };
        // Errors here are an empty socket, or news of the interface; neither needs an answer.
        let len = usize::try_from(len).ok().filter(|len| (14..=space.len()).contains(len))?;
        let Some(vlan) = self.vlan else { return self.frame.get(TAG_BYTES..TAG_BYTES + len) };
        // Back where it was taken from.
        self.frame.copy_within(TAG_BYTES..TAG_BYTES + 12, 0);
        let [high, low] = vlan.to_be_bytes();
        self.frame.get_mut(12..16)?.copy_from_slice(&[0x81, 0x00, high, low]);
        self.frame.get(..TAG_BYTES + len)
    }
}

/// Sets an option of a socket to a plain structure.
fn set<T>(socket: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is a structure of that length, and what it points at outlives the call; the kernel only reads.
    succeeded(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_jump_of_the_filter_leaves_it() {
        for vlan in [None, Some(7)] {
            let steps = filter(vlan);
            for (at, step) in steps.iter().enumerate() {
                assert!(at + 1 + usize::from(step.jt.max(step.jf)) < steps.len() || step.code == code::RETURN, "step {at}");
            }
            assert_eq!(steps.last().map(|last| (last.code, last.k)), Some((code::RETURN, 0)));
        }
    }
}
