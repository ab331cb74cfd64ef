//! What the kernel knows of a network interface, by ioctl(2): netdevice(7) and linux/ethtool.h.
//!
//! Not from `/sys/class/net`, which shows the network namespace of whoever mounted it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Why an interface cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NetdevError {
    /// There is none of that name.
    #[error("there is no network interface {name:?} here; `ip link` lists them")]
    Unknown {
        /// The name.
        name: String,
    },
    /// It is no Ethernet interface.
    #[error("{name} is not an Ethernet interface (hardware type {hardware})")]
    NotEthernet {
        /// The name.
        name: String,
        /// ARPHRD_ number of linux/if_arp.h.
        hardware: u16,
    },
    /// A question failed.
    #[error("cannot {what} of {name}: {source}")]
    Ioctl {
        /// The name.
        name: String,
        /// Which.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// An interface, as it was when it was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netdev {
    /// Its name.
    pub name: String,
    /// Its index in this network namespace.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Largest IP packet.
    pub mtu_bytes: usize,
    /// Administratively up.
    pub up: bool,
    /// Receive queues in use; 1 when the driver does not tell.
    pub queues: u32,
    /// Transmit queues in use; 1 when the driver does not tell.
    pub tx_queues: u32,
    /// Its queues are pairs of a receive and a transmit queue.
    pub combined: bool,
}

const HARDWARE_ETHERNET: u16 = libc::ARPHRD_ETHER;
/// Commands of linux/ethtool.h.
mod ethtool {
    pub const GET_DRIVER: u32 = 0x03;
    pub const GET_FLAGS: u32 = 0x25;
    pub const GET_CHANNELS: u32 = 0x3c;
    pub const FLAG_RX_VLAN: u32 = 1 << 8;
    pub const FLAG_LRO: u32 = 1 << 15;
}

/// What the hardware does to received frames that a port should know of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Large receive offload: several segments become one frame. Drivers refuse XDP then.
    pub lro: bool,
    /// VLAN tags are taken off, so that XDP does not see them.
    pub rx_vlan: bool,
}

/// `struct ethtool_drvinfo` of linux/ethtool.h, up to the driver's name.
#[repr(C)]
struct DriverInfo {
    command: u32,
    driver: [u8; 32],
    rest: [u8; 160],
}

/// `struct ethtool_value` of linux/ethtool.h.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ethtool_channels` of linux/ethtool.h.
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    rx_max: u32,
    tx_max: u32,
    other_max: u32,
    combined_max: u32,
    rx: u32,
    tx: u32,
    other: u32,
    combined: u32,
}

/// A socket to ask through, and the name.
struct Question<'a> {
    socket: OwnedFd,
    name: &'a str,
}

impl<'a> Question<'a> {
    fn new(name: &'a str) -> Result<Self, NetdevError> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(NetdevError::Ioctl { name: name.to_owned(), what: "open a socket to ask", source: io::Error::last_os_error() });
        }
        // SAFETY: `fd` was just made and belongs to nobody else.
        Ok(Self { socket: unsafe { OwnedFd::from_raw_fd(fd) }, name })
    }

    /// A request with the name in it; a name that is too long or empty names no interface.
    fn request(&self) -> Result<libc::ifreq, NetdevError> {
        let bytes = self.name.as_bytes();
        if bytes.is_empty() || bytes.len() >= libc::IFNAMSIZ || bytes.contains(&0) {
            return Err(NetdevError::Unknown { name: self.name.to_owned() });
        }
        // SAFETY: an ifreq is integers and a union of such and a pointer; all zero is a value of each.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
            *to = *from as libc::c_char;
        }
        Ok(request)
    }

    fn ask(&self, what: &'static str, number: libc::Ioctl, request: &mut libc::ifreq) -> Result<(), NetdevError> {
        // SAFETY: `request` is an ifreq with a terminated name; the requests used here read and write only it, and for SIOCETHTOOL the
        // structure that `ethtool` has set its pointer to, which outlives the call.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), number, std::ptr::from_mut(request)) } >= 0 {
            return Ok(());
        }
        let source = io::Error::last_os_error();
        let name = self.name.to_owned();
        Err(match source.raw_os_error() {
            Some(libc::ENODEV) => NetdevError::Unknown { name },
            _ => NetdevError::Ioctl { name, what, source },
        })
    }

    fn mac(&self) -> Result<[u8; 6], NetdevError> {
        let mut request = self.request()?;
        self.ask("read the hardware address", libc::SIOCGIFHWADDR, &mut request)?;
        // SAFETY: the kernel has just set this member.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        if address.sa_family != HARDWARE_ETHERNET {
            return Err(NetdevError::NotEthernet { name: self.name.to_owned(), hardware: address.sa_family });
        }
        let [a, b, c, d, e, f, ..] = address.sa_data.map(|byte| byte as u8);
        Ok([a, b, c, d, e, f])
    }

    fn integer(&self, what: &'static str, number: libc::Ioctl) -> Result<i32, NetdevError> {
        let mut request = self.request()?;
        self.ask(what, number, &mut request)?;
        // SAFETY: the kernel has just set an integer of this size at the start of the union (ifr_ifindex, ifr_mtu).
        Ok(unsafe { request.ifr_ifru.ifru_mtu })
    }

    fn flags(&self) -> Result<i32, NetdevError> {
        let mut request = self.request()?;
        self.ask("read the flags", libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the kernel has just set this member.
        Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
    }

    /// Asks the driver; `structure` begins with a command that fits its type.
    fn ethtool<T>(&self, structure: &mut T) -> Option<()> {
        let mut request = self.request().ok()?;
        request.ifr_ifru.ifru_data = std::ptr::from_mut(structure).cast();
        self.ask("ask the driver", libc::SIOCETHTOOL as libc::Ioctl, &mut request).ok()
    }

    fn channels(&self) -> Option<Channels> {
        let mut channels = Channels { command: ethtool::GET_CHANNELS, ..Channels::default() };
        self.ethtool(&mut channels)?;
        Some(channels)
    }

    fn driver(&self) -> Option<String> {
        let mut info = DriverInfo { command: ethtool::GET_DRIVER, driver: [0; 32], rest: [0; 160] };
        self.ethtool(&mut info)?;
        let name = info.driver.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(name).into_owned())
    }

    fn offloads(&self) -> Option<Offloads> {
        let mut flags = Value { command: ethtool::GET_FLAGS, data: 0 };
        self.ethtool(&mut flags)?;
        Some(Offloads { lro: flags.data & ethtool::FLAG_LRO != 0, rx_vlan: flags.data & ethtool::FLAG_RX_VLAN != 0 })
    }
}

impl Netdev {
    /// Asks about the interface of this name.
    ///
    /// # Errors
    /// [`NetdevError`].
    pub fn find(name: &str) -> Result<Self, NetdevError> {
        let question = Question::new(name)?;
        let channels = question.channels().unwrap_or_default();
        let queues = |of: u32| of.saturating_add(channels.combined).max(1);
        Ok(Self {
            name: name.to_owned(),
            index: question.integer("read the index", libc::SIOCGIFINDEX)?.cast_unsigned(),
            mac: question.mac()?,
            mtu_bytes: usize::try_from(question.integer("read the MTU", libc::SIOCGIFMTU)?).unwrap_or(0),
            up: question.flags()? & libc::IFF_UP != 0,
            queues: queues(channels.rx),
            tx_queues: queues(channels.tx),
            combined: channels.combined_max > 0 || channels.rx_max == 0,
        })
    }

    /// What to type so that the interface has `count` queues of each kind.
    pub fn command_for_queues(&self, count: u32) -> String {
        let Self { name, combined, .. } = self;
        if *combined { format!("ethtool -L {name} combined {count}") } else { format!("ethtool -L {name} rx {count} tx {count}") }
    }

    /// Name of the driver of the interface of this name, if it says.
    pub fn driver(name: &str) -> Option<String> {
        Question::new(name).ok()?.driver()
    }

    /// What the hardware of the interface of this name does to received frames, if its driver says.
    pub fn offloads(name: &str) -> Option<Offloads> {
        Question::new(name).ok()?.offloads()
    }

    /// Sets the interface of this name up.
    ///
    /// # Errors
    /// [`NetdevError`]; it needs CAP_NET_ADMIN.
    pub fn set_up(name: &str) -> Result<(), NetdevError> {
        let question = Question::new(name)?;
        let flags = question.flags()? | libc::IFF_UP;
        let mut request = question.request()?;
        request.ifr_ifru.ifru_flags = flags as libc::c_short;
        question.ask("set the flags", libc::SIOCSIFFLAGS, &mut request)
    }

    /// Sets the MTU of the interface of this name.
    ///
    /// # Errors
    /// [`NetdevError`]; it needs CAP_NET_ADMIN, and drivers have their limits.
    pub fn set_mtu(name: &str, mtu_bytes: usize) -> Result<(), NetdevError> {
        let question = Question::new(name)?;
        let mut request = question.request()?;
        request.ifr_ifru.ifru_mtu = i32::try_from(mtu_bytes).unwrap_or(i32::MAX);
        question.ask("set the MTU", libc::SIOCSIFMTU, &mut request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_of_the_kernels() {
        // linux/ethtool.h: the driver copies out whole structures.
        assert_eq!((size_of::<DriverInfo>(), size_of::<Value>(), size_of::<Channels>()), (196, 8, 36));
        assert_eq!(Netdev::driver("none-such"), None);
        assert_eq!(Netdev::offloads("none-such"), None);
    }

    #[test]
    fn what_cannot_be_used_is_told_apart() {
        // The loopback interface is everywhere; its hardware type is its own.
        let loopback = Netdev::find("lo").unwrap_err();
        assert!(matches!(loopback, NetdevError::NotEthernet { hardware: 772, .. }), "{loopback}");
        for name in ["", "a-name-that-is-too-long", "none-such", "lo\0"] {
            assert!(matches!(Netdev::find(name), Err(NetdevError::Unknown { .. })), "{name:?}");
        }
    }
}
