//! Packets and sockets.
//!
//! - [`host`]: the [`Host`](host::Host) seam, all that delivery needs of a network: datagrams out in batches, datagrams in, byte streams.
//! - [`kernel`]: that seam on kernel sockets, the unprivileged default and the honest baseline.
//! - [`sim`]: that seam in simulated time, for tests.
//! - [`iface`]: link and network layer of our own stack: Ethernet, ARP, NDP, IP, ICMP, headers of UDP flows.
//! - [`host_port`]: the `Host` seam on our own stack over a port.
//! - [`sockets`]: TCP connections of an engine core, used from the control core.
//! - [`exchange`]: several cores behind one interface: what comes by the wrong queue is handed over.
//! - [`port`]: the [`Port`](port::Port) seam, a driver's face: Ethernet frames in and out.
//! - [`tcp`]: TCP with IFQ limiting, all connections of one engine core as a state machine without I/O.
//! - [`wire`]: the link emulator (rate, delay, loss and so on), and that seam in simulated time over two of these.
//!
//! Nothing here knows media or RTSP.

#![deny(unsafe_code)]

mod address;
pub mod exchange;
pub mod host;
pub mod host_port;
pub mod iface;
pub mod kernel;
pub mod port;
mod ring;
pub mod sim;
mod slots;
pub mod sockets;
mod streams;
pub mod tcp;
pub mod wire;
