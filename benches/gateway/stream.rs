//! Memory while large bodies stream through, and while thousands of callers upload slowly.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use crate::load::{self, Client};
use crate::origin::{BLOB, CREATE, INGEST, Pattern};
use crate::target::{BUFFERED_MIB, Kind, Stage, Target};
use crate::{Common, Outcome, measure, report};

/// Body of one slow upload, and the pieces it comes in.
const SLOW_BODY: usize = 1 << 20;
const SLOW_PIECE: usize = SLOW_BODY / 64;
const SLOW_PAUSE: Duration = Duration::from_millis(250);
/// What a connection itself may cost, in KiB.
const CONNECTION_KIB: f64 = 24.0;
/// Longest time for one large transfer, or for one slow upload.
const PATIENCE: Duration = Duration::from_mins(2);

/// How to measure streams.
#[derive(Args)]
pub struct Options {
    /// Size of the large bodies, in MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Slow uploaders of 1 MiB each.
    #[arg(long, default_value_t = 2000)]
    uploaders: u32,
    /// Fail if a large transfer takes more MiB over idle than this; slow uploads then have the configured bound.
    #[arg(long)]
    gate_mib: Option<f64>,
    /// Write the figures here.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Reads a target's memory every few milliseconds until it is asked for the highest.
struct Watch {
    stop: Arc<AtomicBool>,
    highest: Arc<AtomicU64>,
    idle_kib: u64,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn start(target: &Target) -> Outcome<Self> {
        let processes = target.processes();
        let idle_kib = measure::rss_kib(&processes)?;
        let (stop, highest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(idle_kib)));
        let (asked, seen) = (Arc::clone(&stop), Arc::clone(&highest));
        let thread = thread::spawn(move || {
            while !asked.load(Ordering::Relaxed) {
                // A process that has ended has no memory; the transfer reports it.
                seen.fetch_max(measure::rss_kib(&processes).unwrap_or(0), Ordering::Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        });
        Ok(Self { stop, highest, idle_kib, thread: Some(thread) })
    }

    /// The highest so far over idle, in MiB.
    fn end(mut self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread only reads files and has nothing to report.
            let _ = thread.join();
        }
        self.highest.load(Ordering::Relaxed).saturating_sub(self.idle_kib) as f64 / 1024.0
    }
}

/// What became of the slow uploads.
#[derive(Default)]
struct Endings {
    created: u32,
    unavailable: u32,
    refused: u32,
    cut: u32,
}

/// Measures, prints, and says whether all bounds hold.
pub fn run(common: &Common, options: &Options) -> Outcome<bool> {
    let bytes = options.mib << 20;
    let stage = Stage::set(bytes)?;
    let kind = common.target_cmd.clone().map_or(Kind::Gateway, Kind::Command);
    let pattern = Arc::new(Pattern::new());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let headers = load::caller_headers(&stage.key);

    let mut rows = Vec::new();
    let mut large = Vec::new();
    for upload in [true, false] {
        let target = stage.start(&kind, &[])?;
        let watch = Watch::start(&target)?;
        let start = Instant::now();
        let transfer = async {
            let client = Client::connect(target.port).await?;
            if upload {
                put(client, &headers, bytes, &pattern).await
            } else {
                get(client, &headers, bytes, &pattern).await
            }
        };
        runtime.block_on(async { tokio::time::timeout(PATIENCE, transfer).await })??;
        let (seconds, mib) = (start.elapsed().as_secs_f64(), watch.end());
        let name = if upload { "upload" } else { "download" };
        rows.push(vec![
            format!("{name} of {} MiB", options.mib),
            format!("{mib:.1}"),
            format!("{:.0} MiB/s, intact", options.mib as f64 / seconds),
        ]);
        large.push(mib);
    }

    let target = stage.start(&kind, &[])?;
    let watch = Watch::start(&target)?;
    let endings = runtime.block_on(slow_uploads(target.port, &headers, options.uploaders))?;
    let slow = watch.end();
    let Endings { created, unavailable, refused, cut } = endings;
    rows.push(vec![
        format!("{} slow uploads", options.uploaders),
        format!("{slow:.1}"),
        format!("{created} created, {unavailable} told to come back (503), {refused} refused otherwise, {cut} cut off"),
    ]);
    report::table(&["what", "MiB over idle", "ending"], &rows);
    let figures = json!({"upload_mib": large.first(), "download_mib": large.last(), "slow_mib": slow, "created": created,
                         "unavailable": unavailable, "refused": refused, "cut": cut});
    report::json(options.json.as_deref(), &figures)?;

    let bound = BUFFERED_MIB as f64 + f64::from(options.uploaders) * CONNECTION_KIB / 1024.0;
    let most = large.iter().copied().fold(0.0, f64::max);
    let mut good = report::within("MiB over idle of a large transfer", most, options.gate_mib);
    good &= report::within("MiB over idle of slow uploads", slow, options.gate_mib.map(|_| bound));
    good &= report::within("slow uploads cut off without an answer", f64::from(cut), options.gate_mib.map(|_| 0.0));
    Ok(good)
}

async fn put(mut client: Client, headers: &str, bytes: u64, pattern: &Pattern) -> io::Result<()> {
    let head = format!("PUT {INGEST} HTTP/1.1\r\n{headers}Content-Type: text/csv\r\nContent-Length: {bytes}\r\n\r\n");
    client.stream.write_all(head.as_bytes()).await?;
    let mut sent = 0;
    while sent < bytes {
        let piece = pattern.piece(sent, bytes - sent);
        client.stream.write_all(piece).await?;
        sent += piece.len() as u64;
    }
    let answer = client.answer().await?;
    let body = String::from_utf8_lossy(&answer.body);
    if answer.status != 201 || body != format!(r#"{{"received":{bytes},"intact":true}}"#) {
        return Err(io::Error::other(format!("the upload was answered {} {body}", answer.status)));
    }
    Ok(())
}

async fn get(mut client: Client, headers: &str, bytes: u64, pattern: &Pattern) -> io::Result<()> {
    client.stream.write_all(format!("GET {BLOB} HTTP/1.1\r\n{headers}\r\n").as_bytes()).await?;
    let (start, length) = client.head().await?;
    if length as u64 != bytes {
        return Err(io::Error::other(format!("the download has {length} bytes, not {bytes}")));
    }
    let (mut taken, mut from) = (0, start);
    loop {
        let rest = client.rest(from);
        if !pattern.matches(taken, rest) {
            return Err(io::Error::other(format!("the download is wrong after byte {taken}")));
        }
        taken += rest.len() as u64;
        from = 0;
        client.clear();
        if taken >= bytes {
            return Ok(());
        }
        client.fill().await?;
    }
}

async fn slow_uploads(port: u16, headers: &str, uploaders: u32) -> io::Result<Endings> {
    let head = format!(
        "POST {CREATE} HTTP/1.1\r\n{headers}Content-Type: application/json\r\nContent-Length: {SLOW_BODY}\r\n\r\n"
    );
    let frame = r#"{"Name":""}"#;
    let body = format!(r#"{{"Name":"{}"}}"#, "x".repeat(SLOW_BODY - frame.len()));
    let request = Arc::new((head.into_bytes(), body.into_bytes()));
    let mut callers = JoinSet::new();
    for _ in 0..uploaders {
        let client = Client::connect(port).await?;
        let request = Arc::clone(&request);
        callers.spawn(async move { tokio::time::timeout(PATIENCE, slow_upload(client, &request.0, &request.1)).await });
    }
    let mut endings = Endings::default();
    while let Some(result) = callers.join_next().await {
        match result.map_err(io::Error::other)? {
            Ok(Ok(201)) => endings.created += 1,
            Ok(Ok(503)) => endings.unavailable += 1,
            Ok(Ok(_)) => endings.refused += 1,
            Ok(Err(_)) | Err(_) => endings.cut += 1,
        }
    }
    Ok(endings)
}

/// Sends a body piece by piece, and listens for an early answer in each pause; the status it got.
async fn slow_upload(mut client: Client, head: &[u8], body: &[u8]) -> io::Result<u16> {
    let mut outcome = client.stream.write_all(head).await;
    for piece in body.chunks(SLOW_PIECE) {
        if outcome.is_err() || tokio::time::timeout(SLOW_PAUSE, client.stream.readable()).await.is_ok() {
            break;
        }
        outcome = client.stream.write_all(piece).await;
    }
    // A broken pipe does not matter if an answer came before it.
    client.answer().await.map(|answer| answer.status)
}
