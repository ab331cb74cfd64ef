//! Packets and sockets.
//!
//! - [`host`]: the [`Host`](host::Host) seam, all that delivery needs of a network: datagrams out in batches, datagrams in, byte streams.
//! - [`kernel`]: that seam on kernel sockets, the unprivileged default and the honest baseline.
//! - [`sim`]: that seam in simulated time, for tests.
//! - [`port`]: the [`Port`](port::Port) seam, a driver's face: Ethernet frames in and out.
//! - [`wire`]: the link emulator (rate, delay, loss and so on), and that seam in simulated time over two of these.
//!
//! Nothing here knows media or RTSP.

#![deny(unsafe_code)]

mod address;
pub mod host;
pub mod kernel;
pub mod port;
mod ring;
pub mod sim;
mod slots;
mod streams;
pub mod wire;
