//! The edge's settings, and what all connections of one runtime share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::edge::drain::Drain;
use crate::edge::pace::MinimumRate;
use crate::http1::Buffers;
use crate::refusal::Reason;
use crate::tasks::Tasks;

/// What one connection may ask for. All sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Request line and headers together; Salesforce itself takes 16,384 (facts 0).
    pub head_bytes: usize,
    /// Headers in one request.
    pub head_count: usize,
    /// From the first byte of a head to its last, for the first request from the accept; also the TLS handshake.
    pub head_time: Duration,
    /// How long a connection may stay open without a request. Longer than 110 s, the longest CometD poll.
    pub idle: Duration,
    /// One request body.
    pub body_bytes: u64,
    /// Bytes per second below which a sender of a body or a reader of an answer is too slow.
    pub minimum_rate: u64,
    /// Time spent waiting for the peer over which `minimum_rate` is measured.
    pub minimum_rate_grace: Duration,
    /// Concurrent HTTP/2 streams of one connection.
    pub streams: u32,
    /// HTTP/2 streams reset by the peer before they were answered, beyond which the connection is closed.
    pub resets: usize,
    /// Silence after which an HTTP/2 peer is asked for a sign of life.
    pub ping_after: Duration,
    /// How long it may take to give that sign.
    pub ping_timeout: Duration,
    /// Bytes one connection may have written ahead of its reader.
    pub write_buffer: usize,
    /// How long a connection we closed is still read, so that the caller can read the answer; and how long a caller that
    /// closed its side is taken to be still there.
    pub linger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 16 * 1024,
            head_count: 100,
            head_time: Duration::from_secs(10),
            idle: Duration::from_secs(150),
            body_bytes: 160 * 1024 * 1024,
            minimum_rate: 500,
            minimum_rate_grace: Duration::from_secs(15),
            streams: 100,
            resets: 20,
            ping_after: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            write_buffer: 64 * 1024,
            linger: Duration::from_secs(2),
        }
    }
}

/// What all connections of one runtime share: build one for each runtime, in an `Arc`.
#[derive(Debug)]
pub struct Edge {
    /// The limits in force. They apply to connections accepted after they are set.
    pub limits: Limits,
    /// The runtime's tracked tasks.
    pub tasks: Tasks,
    /// The gateway's clock.
    pub clock: Clock,
    /// Tells connections to finish.
    pub drain: Drain,
    /// What the edge itself counted.
    pub counts: Arc<Counts>,
    /// What HTTP/1.1 connections read into and write from.
    pub(super) buffers: Buffers,
}

impl Edge {
    /// The shared part of one runtime.
    pub fn new(limits: Limits, tasks: Tasks, clock: Clock, drain: Drain, counts: Arc<Counts>) -> Self {
        Self { limits, tasks, clock, drain, counts, buffers: Buffers::default() }
    }

    /// The speed asked of every peer.
    pub(super) fn rate(&self) -> MinimumRate {
        MinimumRate { bytes_per_second: self.limits.minimum_rate, window: self.limits.minimum_rate_grace }
    }
}

/// What the edge counted; one for the process.
#[derive(Debug)]
pub struct Counts {
    refused: [AtomicU64; Reason::ALL.len()],
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections turned away because the process had as many as it may.
    pub turned_away: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
    /// Failed calls of accept (out of descriptors, for example).
    pub accept_errors: AtomicU64,
    /// Connections closed because their reader was too slow.
    pub slow_readers: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            refused: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            accepted: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
            handshakes_failed: AtomicU64::new(0),
            accept_errors: AtomicU64::new(0),
            slow_readers: AtomicU64::new(0),
        }
    }
}

impl Counts {
    /// Counts a refusal that no stage of the road saw, because there was no request to be had.
    pub fn refuse(&self, reason: Reason) {
        if let Some(count) = self.refused.get(reason.index()) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refusals for `reason` that no stage of the road saw.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused.get(reason.index()).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}
