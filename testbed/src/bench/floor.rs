//! What the kernel alone takes to send a packet, measured beside every server: equal datagrams to many sockets of this machine by
//! `sendmmsg`, as fast as they go, with nothing to decide and one hot payload. A server on kernel sockets cannot cost less.
//!
//! As with a server on loopback, the kernel delivers to the receiver's socket in the same call, and that is counted. As with the load
//! generator, nobody sleeps in a receive call: to wake somebody for each datagram costs more than to send it.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};

use stack::host::{FlowId, FlowSpec, Host};
use stack::kernel::{KernelConfig, KernelHost};

use crate::load::sys::thread_cpu_ns;

/// Bytes of a datagram: about a full RTP packet.
const PAYLOAD_BYTES: usize = 1400;
/// Datagrams of a call, as many as an engine core hands over at once; each goes to a socket of its own.
const BATCH: usize = 64;
const DESTINATIONS: u32 = 1000;
const PACKETS: u64 = 60_000;
const ROUNDS: usize = 3;

/// CPU time per datagram, ns: the median of a few rounds.
///
/// # Errors
/// Sockets cannot be made.
pub fn sendmmsg_ns() -> io::Result<f64> {
    let sinks: Vec<UdpSocket> = (0..BATCH).map(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).collect::<Result<_, _>>()?;
    for sink in &sinks {
        sink.set_nonblocking(true)?;
    }
    let mut found = (0..ROUNDS).map(|_| round(&sinks)).collect::<io::Result<Vec<f64>>>()?;
    found.sort_by(f64::total_cmp);
    Ok(found[ROUNDS / 2])
}

fn round(sinks: &[UdpSocket]) -> io::Result<f64> {
    let config = KernelConfig { port: 0, gso: false, streams_max: 0, ..KernelConfig::default() };
    let (mut host, _) = KernelHost::bind(config).map_err(io::Error::other)?;
    let ports = sinks.iter().map(|sink| Ok(sink.local_addr()?.port())).collect::<io::Result<Vec<u16>>>()?;
    // All of 127.0.0.0/8 is this machine.
    let address = |nth: u32| Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + nth);
    let spec = |(nth, port): (u32, u16)| FlowSpec {
        local_port: 0,
        local_addr: Some(Ipv4Addr::LOCALHOST.into()),
        remote: (address(nth), port).into(),
    };
    let remotes = (0..DESTINATIONS).zip(ports.iter().copied().cycle());
    let flows: Vec<FlowId> = remotes.map(|remote| host.open_flow(spec(remote))).collect::<Result<_, _>>().map_err(io::Error::other)?;
    let payload = [0x24; PAYLOAD_BYTES];
    let mut next = flows.iter().cycle();
    let (mut sent, mut spent_ns) = (0, 0);
    let mut buffer = [0; 2048];
    while sent < PACKETS {
        let before_ns = thread_cpu_ns();
        for &flow in next.by_ref().take(BATCH) {
            let Some(frame) = host.datagram(flow).and_then(|frame| frame.get_mut(..PAYLOAD_BYTES)) else { break };
            frame.copy_from_slice(&payload);
            host.commit(PAYLOAD_BYTES);
        }
        let done = u64::from(host.flush(0).done);
        spent_ns += thread_cpu_ns() - before_ns;
        if done == 0 {
            return Err(io::Error::other("loopback takes no datagrams"));
        }
        sent += done;
        for sink in sinks {
            while sink.recv(&mut buffer).is_ok() {}
        }
    }
    Ok(spent_ns as f64 / sent as f64)
}

#[cfg(test)]
mod tests {
    #[test]
    fn sending_takes_time() {
        let each_ns = super::sendmmsg_ns().unwrap();
        // No bound that a busy machine could break: only that something was measured.
        assert!(each_ns > 10.0, "{each_ns}");
    }
}
