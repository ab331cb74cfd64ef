//! What the kernel alone takes to send a packet, measured beside every server: equal datagrams to many addresses of this machine by
//! `sendmmsg`, as fast as they go, with nothing to decide and one hot payload. A server on kernel sockets cannot cost less.
//!
//! As with a server on loopback, the kernel delivers to the receiver's socket in the same call, and that is counted.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use stack::host::{FlowId, FlowSpec, Host};
use stack::kernel::{KernelConfig, KernelHost};

/// Bytes of a datagram: about a full RTP packet.
const PAYLOAD_BYTES: usize = 1400;
/// Datagrams of a call, as many as an engine core hands over at once.
const BATCH: usize = 64;
const DESTINATIONS: u32 = 1000;
const PACKETS: u64 = 60_000;
const ROUNDS: usize = 3;

/// CPU time per datagram, ns: the median of a few rounds.
///
/// # Errors
/// Sockets cannot be made.
pub fn sendmmsg_ns() -> io::Result<f64> {
    let sink = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    sink.set_read_timeout(Some(Duration::from_millis(50)))?;
    let port = sink.local_addr()?.port();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while !over.load(Ordering::Relaxed) {
                let _ = sink.recv(&mut buffer);
            }
        });
        let found = (0..ROUNDS).map(|_| round(port)).collect::<io::Result<Vec<f64>>>();
        over.store(true, Ordering::Relaxed);
        let mut found = found?;
        found.sort_by(f64::total_cmp);
        Ok(found[ROUNDS / 2])
    })
}

fn round(port: u16) -> io::Result<f64> {
    let config = KernelConfig { port: 0, gso: false, streams_max: 0, ..KernelConfig::default() };
    let (mut host, _) = KernelHost::bind(config).map_err(io::Error::other)?;
    // All of 127.0.0.0/8 is this machine.
    let address = |nth: u32| Ipv4Addr::from(u32::from(Ipv4Addr::LOCALHOST) + nth);
    let spec = |nth| FlowSpec { local_port: 0, local_addr: Some(Ipv4Addr::LOCALHOST.into()), remote: (address(nth), port).into() };
    let flows: Vec<FlowId> = (0..DESTINATIONS).map(|nth| host.open_flow(spec(nth))).collect::<Result<_, _>>().map_err(io::Error::other)?;
    let payload = [0x24; PAYLOAD_BYTES];
    let mut next = flows.iter().cycle();
    let (mut sent, before_ns) = (0, thread_ns()?);
    while sent < PACKETS {
        for &flow in next.by_ref().take(BATCH) {
            let Some(frame) = host.datagram(flow).and_then(|frame| frame.get_mut(..PAYLOAD_BYTES)) else { break };
            frame.copy_from_slice(&payload);
            host.commit(PAYLOAD_BYTES);
        }
        let done = u64::from(host.flush(0).done);
        if done == 0 {
            return Err(io::Error::other("loopback takes no datagrams"));
        }
        sent += done;
    }
    Ok((thread_ns()? - before_ns) as f64 / sent as f64)
}

/// Time that this thread has run.
fn thread_ns() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let first = text.split_ascii_whitespace().next().and_then(|ns| ns.parse().ok());
    first.ok_or_else(|| io::ErrorKind::InvalidData.into())
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
