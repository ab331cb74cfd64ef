//! Drivers: implementations of the [`Port`](stack::port::Port) seam.
//!
//! | port | what it is for |
//! | --- | --- |
//! | [`af_xdp`] | a queue of a real interface, past the kernel's network stack; ssh on the same interface goes on |
//! | [`tap`] | any Linux: frames through `/dev/net/tun`, one system call each. The slow fall-back |
//!
//! [`steer`] decides which frames are ours, [`netdev`] and [`xdp_features`] ask the kernel about an
//! interface.
//!
//! Checksums. What a port sends leaves as it is, so its user computes every checksum. What a port receives may carry an *unfinished*
//! one: the kernel leaves the sum to the hardware, and a veth pair has none. So the kernel at the other end of a veth needs
//! `ethtool -K DEV tx off`; nothing here can tell such a frame from a damaged one. A real network card never shows one.
//!
//! VLANs. A card that takes the tag off (`rxvlan on`) hides it from XDP: for a tagged port, `ethtool -K DEV rxvlan off`.

pub mod af_xdp;
pub mod netdev;
mod packet;
pub mod steer;
mod sys;
pub mod tap;
#[cfg(test)]
mod testing;
pub mod xdp_features;
