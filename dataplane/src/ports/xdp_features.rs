//! What a driver can do for XDP, as it tells the kernel: generic netlink, family `netdev` (Linux 6.3 and later;
//! Documentation/netlink/specs/netdev.yaml, linux/netdev.h, linux/genetlink.h, netlink(7)).

use std::io::{self, Read as _};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// What a driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Native XDP that can redirect, to a socket for instance.
    pub native: bool,
    /// AF_XDP without copying frames.
    pub zero_copy: bool,
}

const REQUEST: u16 = 1;
/// Message type of the controller, which knows the other families.
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const ATTRIBUTE_FAMILY_ID: u16 = 1;
const ATTRIBUTE_FAMILY_NAME: u16 = 2;
const DEVICE_GET: u8 = 1;
const ATTRIBUTE_INDEX: u16 = 1;
const ATTRIBUTE_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC` and `NETDEV_XDP_ACT_REDIRECT`.
const NATIVE: u64 = 1 | 2;
/// `NETDEV_XDP_ACT_XSK_ZEROCOPY`.
const ZERO_COPY: u64 = 8;
/// An answer of type NLMSG_ERROR holds an error number.
const ERROR: u16 = 2;
const HEADER_BYTES: usize = 16;
const GENERIC_HEADER_BYTES: usize = 4;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
const ALIGN: usize = 4;
/// Flags in the type of an attribute (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
const ATTRIBUTE_TYPE_MASK: u16 = 0x3fff;
const ANSWER_BYTES: usize = 8192;
/// The kernel answers within the call; this is only against waiting for ever.
const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for the interface with this index.
///
/// # Errors
/// `NotFound` on kernels before 6.3 and for interfaces that are not there; or that netlink cannot be used.
pub fn ask(index: u32) -> io::Result<XdpFeatures> {
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(libc::NETLINK_GENERIC)))?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let answer = exchange(&socket, &request(CONTROLLER, GET_FAMILY, ATTRIBUTE_FAMILY_NAME, b"netdev\0"))?;
    let family = attribute(&answer, ATTRIBUTE_FAMILY_ID)?.and_then(|id| <[u8; 2]>::try_from(id).ok()).map(u16::from_ne_bytes);
    let family = family.ok_or(io::ErrorKind::NotFound)?;
    let answer = exchange(&socket, &request(family, DEVICE_GET, ATTRIBUTE_INDEX, &index.to_ne_bytes()))?;
    let bits = attribute(&answer, ATTRIBUTE_FEATURES)?.and_then(|bits| <[u8; 8]>::try_from(bits).ok()).map(u64::from_ne_bytes);
    let bits = bits.ok_or(io::ErrorKind::NotFound)?;
    Ok(XdpFeatures { native: bits & NATIVE == NATIVE, zero_copy: bits & ZERO_COPY != 0 })
}

/// A request with one attribute.
fn request(family: u16, command: u8, attribute: u16, value: &[u8]) -> Vec<u8> {
    let attribute_bytes = ATTRIBUTE_HEADER_BYTES + value.len();
    let total = HEADER_BYTES + GENERIC_HEADER_BYTES + attribute_bytes.next_multiple_of(ALIGN);
    let mut message = Vec::with_capacity(total);
    message.extend((total as u32).to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    // Sequence number and port, which one question at a time does not need.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend((attribute_bytes as u16).to_ne_bytes());
    message.extend(attribute.to_ne_bytes());
    message.extend(value);
    message.resize(total, 0);
    message
}

fn exchange(mut socket: &Socket, request: &[u8]) -> io::Result<Vec<u8>> {
    socket.send(request)?;
    let mut answer = vec![0; ANSWER_BYTES];
    let len = socket.read(&mut answer)?;
    answer.truncate(len);
    Ok(answer)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// The value of an attribute in an answer; `None` when it is not in it.
fn attribute(answer: &[u8], wanted: u16) -> io::Result<Option<&[u8]>> {
    if u16_at(answer, 4) == Some(ERROR) {
        let code = answer.get(HEADER_BYTES..HEADER_BYTES + 4).and_then(|code| code.try_into().ok()).map_or(0, i32::from_ne_bytes);
        return Err(io::Error::from_raw_os_error(code.saturating_neg()));
    }
    let mut rest = answer.get(HEADER_BYTES + GENERIC_HEADER_BYTES..).unwrap_or_default();
    while let (Some(len), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let len = usize::from(len);
        let Some(value) = rest.get(ATTRIBUTE_HEADER_BYTES..len) else { break };
        if kind & ATTRIBUTE_TYPE_MASK == wanted {
            return Ok(Some(value));
        }
        rest = rest.get(len.next_multiple_of(ALIGN)..).unwrap_or_default();
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_laid_out_as_netlink_says() {
        let message = request(16, 3, 2, b"netdev\0");
        // Header, generic header, attribute of 11 bytes padded to 12.
        assert_eq!(message.len(), 16 + 4 + 12);
        assert_eq!(u16_at(&message, 0), Some(32));
        assert_eq!(attribute(&message, 2).unwrap(), Some(&b"netdev\0"[..]));
        assert_eq!(attribute(&message, 1).unwrap(), None);
    }

    #[test]
    fn an_error_is_that_of_the_kernel() {
        let mut answer = request(ERROR, 0, 0, &[]);
        answer[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&(-libc::ENODEV).to_ne_bytes());
        assert_eq!(attribute(&answer, 1).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn the_loopback_interface_has_no_native_xdp() {
        // Its index is 1 in every network namespace. Kernels before 6.3 do not know the question.
        match ask(1) {
            Ok(features) => assert_eq!(features, XdpFeatures { native: false, zero_copy: false }),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}"),
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(answer in proptest::collection::vec(any::<u8>(), 0..200), wanted in 0u16..8) {
            if let Ok(Some(value)) = attribute(&answer, wanted) {
                prop_assert!(value.len() + HEADER_BYTES <= answer.len());
            }
        }
    }
}
