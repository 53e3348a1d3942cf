//! Sockets: binding them, and taking connections from them.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;

use crate::edge::drain::Drain;
use crate::edge::limits::Counts;
use crate::edge::tls::Tls;

/// Connections the system completes before we take them.
const BACKLOG: i32 = 1024;
/// Pause after a failed accept, which is usually a lack of file descriptors that only time mends.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Silence after which the system asks whether the other end is still there.
const KEEP_ALIVE: Duration = Duration::from_mins(1);

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {address}: {}", explain(.reason))]
pub struct BindError {
    /// Which address.
    pub address: SocketAddr,
    /// What the system said.
    pub reason: io::Error,
}

fn explain(reason: &io::Error) -> String {
    match reason.kind() {
        io::ErrorKind::AddrInUse => "another process listens there already".to_owned(),
        io::ErrorKind::PermissionDenied => "not permitted (ports below 1024 need a privilege)".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => reason.to_string(),
    }
}

/// What one listener counted.
#[derive(Debug, Default)]
pub struct ListenerCounts {
    /// Connections open now.
    pub open: Arc<AtomicUsize>,
    /// Connections turned away: there were too many, or they spoke no TLS where that is needed.
    pub refused: AtomicU64,
}

impl ListenerCounts {
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    /// Its place among the configured listeners.
    pub index: usize,
    /// TLS, if it speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// What it counts.
    pub counts: Arc<ListenerCounts>,
}

/// A connection taken from a listener, not yet part of a runtime.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) listener: usize,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) counts: Arc<ListenerCounts>,
}

impl Listener {
    /// Listens on `address`. A port that is taken is an error, also if it was taken by another gateway: sharing it would split
    /// traffic between two ledgers unnoticed.
    pub fn bind(address: SocketAddr, index: usize, tls: Option<Arc<Tls>>) -> Result<Self, BindError> {
        let socket = bind(address).map_err(|reason| BindError { address, reason })?;
        Ok(Self { socket, index, tls, counts: Arc::default() })
    }

    /// The address, with the port the system chose if 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes connections until the drain begins, and hands each to `deal`. Runs inside a runtime.
    pub(super) async fn accept(
        self,
        drain: Drain,
        counts: Arc<Counts>,
        mut deal: impl FnMut(Accepted) + Send,
    ) -> io::Result<()> {
        let listener = tokio::net::TcpListener::from_std(self.socket)?;
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.wait() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    counts.accepted.fetch_add(1, Ordering::Relaxed);
                    // Taken out of this runtime, to be put into a worker's.
                    if let Ok(stream) = stream.into_std()
                        && prepare(&stream).is_ok()
                    {
                        let (tls, counts) = (self.tls.clone(), Arc::clone(&self.counts));
                        deal(Accepted { stream, peer, listener: self.index, tls, counts });
                    }
                }
                // The caller left while it waited.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    counts.accept_errors.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(BACK_OFF).await;
                }
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restart must not wait for the last connections of its predecessor to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE))
}

/// Raises the soft limit of open files to the hard one, and returns it; `None` is no limit.
pub fn raise_open_files() -> io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(getrlimit(Resource::Nofile).current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_said_clearly() {
        let first = Listener::bind(([127, 0, 0, 1], 0).into(), 0, None).expect("free port");
        let address = first.address().expect("bound");
        let taken = Listener::bind(address, 1, None).expect_err("taken");
        assert_eq!(taken.to_string(), format!("cannot listen on {address}: another process listens there already"));
    }

    #[test]
    fn an_address_of_another_machine_is_said_clearly() {
        let foreign = Listener::bind(([192, 0, 2, 1], 0).into(), 0, None).expect_err("not ours");
        assert!(foreign.to_string().ends_with("this machine has no such address"), "{foreign}");
    }

    #[test]
    fn open_files_are_raised_to_the_hard_limit() {
        let raised = raise_open_files().expect("raised");
        assert_eq!(raised, getrlimit(Resource::Nofile).maximum);
    }
}
