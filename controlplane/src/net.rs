//! Listening and connections, on the operating system's sockets or on our own stack: what serves on them sees no difference.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker, ready};

use dataplane::engine::net::{Aborter, Handover, OwnListener, OwnStream, SocketControl, TcpError, TcpOption};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// The same on our own stack, where a connection that waits takes a place in the table of connections.
const OWN_BACKLOG: u32 = 256;

/// Pause between two tries to hand a connection over.
const LEND_PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

/// The networks that this process serves on.
#[derive(Clone, Debug, Default)]
pub struct Net {
    own: Option<Arc<OwnNet>>,
}

#[derive(Debug)]
struct OwnNet {
    /// Those of each engine core: a connection comes to any of them.
    sockets: Vec<SocketControl>,
    addresses: Vec<IpAddr>,
}

impl Net {
    /// The operating system's sockets only.
    pub fn kernel() -> Self {
        Self::default()
    }

    /// Our own stack with these addresses, on each of its engine cores, and the operating system's sockets for all others.
    pub fn own(sockets: Vec<SocketControl>, addresses: Vec<IpAddr>) -> Self {
        Self { own: Some(Arc::new(OwnNet { sockets, addresses })) }
    }

    /// Listens. An unspecified address is all of our own stack's if there is one.
    ///
    /// # Errors
    /// As binding and listening.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<Listener> {
        if let Some(own) = &self.own
            && (own.addresses.contains(&address.ip()) || address.ip().is_unspecified())
        {
            let listen = |sockets: &SocketControl| sockets.listen(address, OWN_BACKLOG).map_err(io_error);
            let listeners = own.sockets.iter().map(listen).collect::<io::Result<_>>()?;
            return Ok(Listener::Own(OwnListeners { cores: listeners, address, first: AtomicUsize::new(0) }));
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket.into()).map(Listener::Kernel)
    }

    /// The address that a listener on an unspecified one can be reached at, when our own stack has it.
    pub fn first_address(&self) -> Option<IpAddr> {
        self.own.as_ref()?.addresses.first().copied()
    }
}

/// The listeners of all engine cores' own stacks at one address.
#[derive(Debug)]
pub struct OwnListeners {
    cores: Vec<OwnListener>,
    address: SocketAddr,
    /// Which is asked first: in turn, so that many connections to one core keep those to another waiting no longer than one.
    first: AtomicUsize,
}

impl OwnListeners {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<Result<Stream, TcpError>> {
        let first = self.first.fetch_add(1, Ordering::Relaxed);
        let in_turn = self.cores.iter().enumerate().cycle().skip(first % self.cores.len().max(1)).take(self.cores.len());
        let mut accepted = in_turn.map(|(core, listener)| listener.poll_accept(context).map_ok(|stream| Stream::Own { stream, core }));
        accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
    }
}

/// Waits for connections.
#[derive(Debug)]
pub enum Listener {
    /// On the operating system's sockets.
    Kernel(TcpListener),
    /// On our own stack.
    Own(OwnListeners),
}

impl Listener {
    /// Where it listens.
    ///
    /// # Errors
    /// The operating system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Kernel(listener) => listener.local_addr(),
            Self::Own(own) => Ok(own.address),
        }
    }

    /// The next connection.
    ///
    /// # Errors
    /// No file descriptors left; the address of our own stack is in use.
    pub async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Kernel(listener) => listener.accept().await.map(|(stream, _)| Stream::Kernel(stream)),
            Self::Own(own) => std::future::poll_fn(|context| own.poll_accept(context)).await.map_err(io_error),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Of the operating system.
    Kernel(TcpStream),
    /// Of our own stack.
    Own {
        /// The connection.
        stream: OwnStream,
        /// The engine core that it came to.
        core: usize,
    },
}

impl Stream {
    /// The client's end.
    ///
    /// # Errors
    /// The client has gone already.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Kernel(stream) => stream.peer_addr(),
            Self::Own { stream, .. } => stream.ends().map(|(_, peer)| peer).ok_or_else(|| io::ErrorKind::NotConnected.into()),
        }
    }

    /// Our end.
    ///
    /// # Errors
    /// The client has gone already.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Kernel(stream) => stream.local_addr(),
            Self::Own { stream, .. } => stream.ends().map(|(local, _)| local).ok_or_else(|| io::ErrorKind::NotConnected.into()),
        }
    }

    /// The engine core that it came to, if our own stack has it.
    pub fn core(&self) -> Option<usize> {
        match self {
            Self::Kernel(_) => None,
            Self::Own { core, .. } => Some(*core),
        }
    }

    /// Small answers go out at once.
    pub fn set_nodelay(&self) {
        match self {
            // A connection that is gone shows it elsewhere.
            Self::Kernel(stream) => drop(stream.set_nodelay(true)),
            Self::Own { stream, .. } => stream.set_option(TcpOption::NoDelay(true)),
        }
    }

    /// Until `try_read` is worth a try.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.readable().await,
            Self::Own { stream, .. } => {
                std::future::poll_fn(|context| stream.poll_readable(context)).await;
                Ok(())
            }
        }
    }

    /// Until `try_write` is worth a try.
    ///
    /// # Errors
    /// The operating system's.
    pub async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.writable().await,
            Self::Own { stream, .. } => {
                std::future::poll_fn(|context| stream.poll_writable(context)).await;
                Ok(())
            }
        }
    }

    /// Reads what is there; 0 at the end.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there yet, and why the connection failed.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(stream) => stream.try_read(buffer),
            Self::Own { stream, .. } => now(|context| stream.poll_read(context, buffer)),
        }
    }

    /// Writes what there is room for.
    ///
    /// # Errors
    /// `WouldBlock` when there is none, and why the connection failed.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Kernel(stream) => stream.try_write(bytes),
            Self::Own { stream, .. } => now(|context| stream.poll_write(context, bytes)),
        }
    }

    /// Nothing more will be written.
    ///
    /// # Errors
    /// The client has gone already.
    pub async fn end_writing(&mut self) -> io::Result<()> {
        match self {
            Self::Kernel(stream) => stream.shutdown().await,
            Self::Own { stream, .. } => {
                stream.shutdown();
                Ok(())
            }
        }
    }

    /// What an engine core needs to write to this connection too, once all that was written here is on its way.
    ///
    /// # Errors
    /// No file descriptor is left, or the connection failed.
    pub async fn hand_over(&self) -> io::Result<Handover> {
        match self {
            Self::Kernel(stream) => stream.as_fd().try_clone_to_owned().map(Handover::Socket),
            Self::Own { stream, .. } => loop {
                if let Some(lent) = stream.lend() {
                    return Ok(Handover::Connection(lent, stream.aborter()));
                }
                // The engine core is busy taking what was asked before.
                tokio::time::sleep(LEND_PAUSE).await;
            },
        }
    }

    /// Says a last word to a client that was not admitted, and closes, without ever waiting for it.
    pub fn refuse(self, word: &[u8]) {
        match self {
            Self::Kernel(stream) => {
                if let Ok(mut stream) = stream.into_std() {
                    // A request left unread would turn the close into a reset.
                    let _ = stream.read(&mut [0; 1024]);
                    let _ = stream.write(word);
                }
            }
            Self::Own { stream, .. } => {
                let _ = now(|context| stream.poll_read(context, &mut [0; 1024]));
                let _ = now(|context| stream.poll_write(context, word));
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Own { stream, .. } => {
                let count = ready!(stream.poll_read(context, buffer.initialize_unfilled())).map_err(io_error)?;
                buffer.advance(count);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Own { stream, .. } => stream.poll_write(context, bytes).map_err(io_error),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_flush(context),
            // What was written is on its way.
            Self::Own { .. } => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Kernel(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Own { stream, .. } => {
                stream.shutdown();
                Poll::Ready(Ok(()))
            }
        }
    }
}

/// What a poll answers without waiting.
fn now<R>(poll: impl FnOnce(&mut Context<'_>) -> Poll<Result<R, TcpError>>) -> io::Result<R> {
    match poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done.map_err(io_error),
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// An error of our TCP in the terms of the standard library.
fn io_error(error: TcpError) -> io::Error {
    let kind = match error {
        TcpError::Reset => io::ErrorKind::ConnectionReset,
        TcpError::Refused => io::ErrorKind::ConnectionRefused,
        TcpError::TimedOut => io::ErrorKind::TimedOut,
        TcpError::Unreachable => io::ErrorKind::HostUnreachable,
        TcpError::AddressInUse => io::ErrorKind::AddrInUse,
        TcpError::BadAddress => io::ErrorKind::AddrNotAvailable,
        TcpError::NoConnection | TcpError::NotConnected | TcpError::Closed => io::ErrorKind::NotConnected,
        TcpError::TooMany => io::ErrorKind::QuotaExceeded,
    };
    io::Error::new(kind, error)
}

/// Ends a connection that was handed over: what follows would make no sense to the client. Its holder reads the end.
#[derive(Debug)]
pub enum Ender {
    /// A handle of our own.
    Socket(std::net::TcpStream),
    /// On our own stack.
    Connection(Aborter),
}

impl Ender {
    /// That of a connection that is handed over.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn of(handover: &Handover) -> io::Result<Self> {
        match handover {
            Handover::Socket(socket) => Ok(Self::Socket(socket.try_clone()?.into())),
            Handover::Connection(_, aborter) => Ok(Self::Connection(aborter.clone())),
        }
    }

    /// Ends it.
    pub fn end(&self) {
        match self {
            // It may have ended already.
            Self::Socket(socket) => drop(socket.shutdown(std::net::Shutdown::Both)),
            Self::Connection(aborter) => aborter.abort(),
        }
    }
}
