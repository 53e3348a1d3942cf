//! What the pool counts, for metrics.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Connection attempts by how they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnectCounts {
    /// Connected.
    pub ok: u64,
    /// The name had no address.
    pub dns: u64,
    /// No address accepted.
    pub connect: u64,
    /// Took too long.
    pub timeout: u64,
    /// The egress proxy refused.
    pub proxy: u64,
    /// The TLS handshake failed.
    pub tls: u64,
}

/// One org's connections in one runtime, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OrgStats {
    /// Connections open or being opened (with HTTP/2: exchanges under way).
    pub open: usize,
    /// Of these, waiting for a call.
    pub idle: usize,
    /// Calls waiting for a connection.
    pub waiting: usize,
    /// Connection attempts since start.
    pub connects: ConnectCounts,
    /// Messages sent once more because their connection gave them back unsent, since start.
    pub resent: u64,
    /// Answers waited for although their callers left.
    pub abandoned_running: usize,
    /// How many such there were since start.
    pub abandoned: u64,
    /// Exchanges cut because their callers left: beyond the bound, in the middle of an upload, or long polls.
    pub cut: u64,
}

/// The live counters behind [`OrgStats`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) connected: AtomicU64,
    pub(super) dns: AtomicU64,
    pub(super) connect: AtomicU64,
    pub(super) timeout: AtomicU64,
    pub(super) proxy: AtomicU64,
    pub(super) tls: AtomicU64,
    pub(super) resent: AtomicU64,
    pub(super) abandoned_running: AtomicUsize,
    pub(super) abandoned: AtomicU64,
    pub(super) cut: AtomicU64,
}

impl Counters {
    /// Counts one more.
    pub(super) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters, with what only the pool knows.
    pub(super) fn snapshot(&self, open: usize, idle: usize, waiting: usize) -> OrgStats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        OrgStats {
            open,
            idle,
            waiting,
            connects: ConnectCounts {
                ok: read(&self.connected),
                dns: read(&self.dns),
                connect: read(&self.connect),
                timeout: read(&self.timeout),
                proxy: read(&self.proxy),
                tls: read(&self.tls),
            },
            resent: read(&self.resent),
            abandoned_running: self.abandoned_running.load(Ordering::Relaxed),
            abandoned: read(&self.abandoned),
            cut: read(&self.cut),
        }
    }
}
