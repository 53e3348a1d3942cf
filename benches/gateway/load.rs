//! The caller's side: plain HTTP/1.1 over kept-alive connections, one request at a time on each.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::origin::{ROWS, content_length};

const BUFFER: usize = 16 * 1024;
/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer that was read to its end.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl Client {
    /// Connects to a loopback port.
    pub async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends a request and reads its answer, keeping the body.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.stream.write_all(request).await?;
        self.answer().await
    }

    /// Reads one whole answer, keeping the body.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let (end, length) = self.head().await?;
        let head = String::from_utf8_lossy(self.buffer.get(..end).unwrap_or_default()).into_owned();
        while self.buffer.len() < end + length {
            self.fill().await?;
        }
        let body = self.buffer.get(end..end + length).unwrap_or_default().to_vec();
        self.buffer.drain(..end + length);
        Ok(Answer { status: status(head.as_bytes()), head, body })
    }

    /// Reads up to the end of a head; its length, and that of the body.
    pub async fn head(&mut self) -> io::Result<(usize, usize)> {
        let end = loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                break end + 4;
            }
            self.fill().await?;
        };
        let head = std::str::from_utf8(self.buffer.get(..end).unwrap_or_default()).map_err(io::Error::other)?;
        let length = content_length(head).ok_or_else(|| io::Error::other("an answer without Content-Length"))?;
        Ok((end, usize::try_from(length).map_err(io::Error::other)?))
    }

    /// What has been read and not yet been used, from `start`.
    pub fn rest(&self, start: usize) -> &[u8] {
        self.buffer.get(start..).unwrap_or_default()
    }

    /// Forgets what has been read.
    pub fn clear(&mut self) {
        self.buffer.clear();
    }

    /// Gives the buffer back while nothing is expected.
    pub fn rest_idle(&mut self) {
        self.buffer = Vec::new();
    }

    /// Reads once more.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(BUFFER);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }

    /// Whether the other side has closed. Only true after the runtime has polled the socket.
    pub fn is_closed(&self) -> bool {
        match self.stream.try_read(&mut [0_u8; 1]) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

fn status(head: &[u8]) -> u16 {
    head.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// A session of Salesforce: an app's own, or an identity's.
pub const SESSION: &str =
    "00D1U0000000001!AQ8AQFh3V0xJZ2Vu.c2VkLXRva2VuLWZvci1iZW5jaG1hcmtzLW9ubHktMDEyMzQ1Njc4OWFiY2Rl";

/// The headers of an app that shows a gateway key and brings its own Salesforce token.
pub fn caller_headers(key: &str) -> String {
    format!(
        "Host: acme.my.salesforce.example\r\n\
         Weirkeeper-Key: {key}\r\n\
         Authorization: Bearer {SESSION}\r\n\
         User-Agent: storefront/4.2\r\n\
         Accept: application/json\r\n\
         Accept-Encoding: gzip\r\n"
    )
}

/// Reads of a thousand different rows.
pub fn row_requests(key: &str) -> Arc<Vec<Vec<u8>>> {
    rows(key, 0..1000, "", "")
}

/// Reads of rows by number; `suffix` ends the target, and `header` is one line more or none.
pub fn rows(key: &str, numbers: impl Iterator<Item = u64>, suffix: &str, header: &str) -> Arc<Vec<Vec<u8>>> {
    let headers = caller_headers(key) + header;
    let row = |number| format!("GET {ROWS}0011U000{number:07}QAV{suffix} HTTP/1.1\r\n{headers}\r\n").into_bytes();
    Arc::new(numbers.map(row).collect())
}

/// How long a closed loop goes on.
#[derive(Clone, Copy)]
pub enum Until {
    /// So many requests, over all connections.
    Requests(u64),
    /// Warm up, then measure.
    Time { warm: Duration, window: Duration },
}

/// What a closed loop saw inside its window.
pub struct Seen<T> {
    pub answered: u64,
    pub seconds: f64,
    pub p50_us: f64,
    /// Samples taken at the start and the end of the window.
    pub edges: (T, T),
}

struct Shared {
    requests: Arc<Vec<Vec<u8>>>,
    answered: AtomicU64,
    next: AtomicU64,
    limit: u64,
    stop: AtomicBool,
    measuring: AtomicBool,
}

/// Keeps `connections` busy, one request after the other on each; any answer but 200 ends the run.
pub fn closed_loop<T>(
    port: u16,
    connections: u32,
    requests: &Arc<Vec<Vec<u8>>>,
    until: Until,
    sample: impl Fn() -> Outcome<T>,
) -> Outcome<Seen<T>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = Arc::new(Shared {
        requests: Arc::clone(requests),
        answered: AtomicU64::new(0),
        next: AtomicU64::new(0),
        limit: if let Until::Requests(count) = until { count } else { u64::MAX },
        stop: AtomicBool::new(false),
        measuring: AtomicBool::new(matches!(until, Until::Requests(_))),
    });
    runtime.block_on(async {
        let mut callers = JoinSet::new();
        for _ in 0..connections {
            let client = Client::connect(port).await?;
            callers.spawn(caller(client, Arc::clone(&shared)));
        }
        let (mut begin, mut start, mut before) = (sample()?, Instant::now(), 0);
        let mut end = None;
        if let Until::Time { warm, window } = until {
            tokio::time::sleep(warm).await;
            shared.measuring.store(true, Ordering::Relaxed);
            before = shared.answered.load(Ordering::Relaxed);
            (begin, start) = (sample()?, Instant::now());
            tokio::time::sleep(window).await;
            end = Some((sample()?, start.elapsed(), shared.answered.load(Ordering::Relaxed)));
            shared.stop.store(true, Ordering::Relaxed);
        }
        let mut latencies = Vec::new();
        while let Some(result) = callers.join_next().await {
            latencies.extend(result??);
        }
        let (finish, elapsed, after) = match end {
            Some(end) => end,
            None => (sample()?, start.elapsed(), shared.answered.load(Ordering::Relaxed)),
        };
        latencies.sort_unstable();
        let p50 = latencies.get(latencies.len() / 2).copied().unwrap_or_default();
        Ok(Seen {
            answered: after - before,
            seconds: elapsed.as_secs_f64(),
            p50_us: f64::from(p50) / 1000.0,
            edges: (begin, finish),
        })
    })
}

/// One connection's share of the load; the nanoseconds each measured call took.
async fn caller(mut client: Client, shared: Arc<Shared>) -> io::Result<Vec<u32>> {
    let mut latencies = Vec::new();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= shared.limit {
            break;
        }
        let choice = usize::try_from(number).unwrap_or(0) % shared.requests.len();
        let start = Instant::now();
        let status = tokio::time::timeout(PATIENCE, client.exchange_lean(shared.requests.get(choice))).await??;
        if status != 200 {
            return Err(io::Error::other(format!("answered {status} under load")));
        }
        shared.answered.fetch_add(1, Ordering::Relaxed);
        if shared.measuring.load(Ordering::Relaxed) {
            latencies.push(u32::try_from(start.elapsed().as_nanos()).unwrap_or(u32::MAX));
        }
    }
    Ok(latencies)
}

impl Client {
    /// As [`Self::exchange`], but keeps nothing: the load generator must stay cheaper than what it measures.
    async fn exchange_lean(&mut self, request: Option<&Vec<u8>>) -> io::Result<u16> {
        self.stream.write_all(request.map_or(&[], Vec::as_slice)).await?;
        let (end, length) = self.head().await?;
        while self.buffer.len() < end + length {
            self.fill().await?;
        }
        let status = status(&self.buffer);
        self.buffer.drain(..end + length);
        Ok(status)
    }
}
