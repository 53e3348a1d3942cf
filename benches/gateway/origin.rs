//! A fast stand-in for Salesforce, in a process of its own: one row with the headers Salesforce sends, a large blob,
//! and uploads that are checked byte for byte.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::Outcome;
use crate::load::SESSION;

/// Where every row is: anything below answers the same row.
pub const ROWS: &str = "/services/data/v62.0/sobjects/Account/";
/// How the target of a row ends that is to have nothing but its id.
pub const SMALL: &str = "?fields=Id";
/// A large download.
pub const BLOB: &str = "/services/data/v62.0/sobjects/ContentVersion/0681U00000AbCdEQAV/VersionData";
/// A large upload.
pub const INGEST: &str = "/services/data/v62.0/jobs/ingest/7501U00000AbCdEQAV/batches";
/// Where rows are made.
pub const CREATE: &str = "/services/data/v62.0/sobjects/Account";
/// Where identities log in; anyone may.
const TOKEN: &str = "/services/oauth2/token";

const HEAD_LIMIT: usize = 64 * 1024;
const READ_SIZE: usize = 64 * 1024;

/// What the origin's process is told.
#[derive(Args)]
pub struct Options {
    /// Port to listen on, loopback only.
    #[arg(long)]
    port: u16,
    /// Size of the blob.
    #[arg(long, default_value_t = 1 << 30)]
    blob_bytes: u64,
}

/// A body of any length whose every byte is known, so that both ends can check it.
pub struct Pattern {
    block: Vec<u8>,
}

impl Pattern {
    /// Length of the repeated block: odd, so that no buffer boundary repeats with it.
    const LEN: usize = 65_521;

    /// The one pattern both processes know.
    pub fn new() -> Self {
        let mut state = 0x2545_f491_u32;
        let next = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        };
        Self { block: std::iter::repeat_with(next).take(Self::LEN).collect() }
    }

    /// The longest piece that starts at `offset` and has at most `most` bytes.
    pub fn piece(&self, offset: u64, most: u64) -> &[u8] {
        let start = usize::try_from(offset % Self::LEN as u64).unwrap_or(0);
        let piece = self.block.get(start..).unwrap_or_default();
        piece.get(..usize::try_from(most).unwrap_or(usize::MAX).min(piece.len())).unwrap_or(piece)
    }

    /// Whether `bytes` are what belongs at `offset`.
    pub fn matches(&self, mut offset: u64, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let expected = self.piece(offset, bytes.len() as u64);
            let (now, later) = bytes.split_at(expected.len());
            if now != expected {
                return false;
            }
            offset += now.len() as u64;
            bytes = later;
        }
        true
    }
}

struct Origin {
    row: Vec<u8>,
    small: Vec<u8>,
    pattern: Pattern,
    blob_bytes: u64,
    served: AtomicU64,
}

/// Serves until the process is ended.
pub fn serve(options: &Options) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", options.port)).await?;
        let origin = Arc::new(Origin {
            row: row(),
            small: small(),
            pattern: Pattern::new(),
            blob_bytes: options.blob_bytes,
            served: AtomicU64::new(0),
        });
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let origin = Arc::clone(&origin);
            tokio::spawn(async move {
                // A connection that breaks is the other side's to report.
                let _ = connection(stream, &origin).await;
            });
        }
    })
}

/// One account of about 2 KiB.
fn row() -> Vec<u8> {
    let mut fields = vec![
        r#"{"attributes":{"type":"Account","url":"/services/data/v62.0/sobjects/Account/0011U00000AbCdEQAV"}"#
            .to_owned(),
        r#""Id":"0011U00000AbCdEQAV","IsDeleted":false,"Name":"Acme","Type":"Customer - Direct","ParentId":null"#
            .to_owned(),
        r#""BillingCity":"Mountain View","BillingState":"CA","Industry":"Technology","AnnualRevenue":30000000.0"#
            .to_owned(),
        r#""SystemModstamp":"2026-03-02T17:20:11.000+0000""#.to_owned(),
    ];
    let mut length: usize = fields.iter().map(|field| field.len() + 1).sum();
    for number in 0.. {
        let field = format!(r#""Custom_Field_{number}__c":"value {number} of this account""#);
        length += field.len() + 1;
        if length >= 2048 {
            break;
        }
        fields.push(field);
    }
    format!("{}}}", fields.join(",")).into_bytes()
}

/// The same account with its id alone.
fn small() -> Vec<u8> {
    let attributes = r#"{"type":"Account","url":"/services/data/v62.0/sobjects/Account/0011U00000AbCdEQAV"}"#;
    format!(r#"{{"attributes":{attributes},"Id":"0011U00000AbCdEQAV"}}"#).into_bytes()
}

async fn connection(mut stream: TcpStream, origin: &Origin) -> io::Result<()> {
    let mut input = Vec::with_capacity(READ_SIZE);
    let mut output = Vec::with_capacity(4096);
    loop {
        let head_end = loop {
            if let Some(end) = memmem::find(&input, b"\r\n\r\n") {
                break end + 4;
            }
            if input.len() > HEAD_LIMIT || stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(input.get(..head_end).unwrap_or_default()).into_owned();
        input.drain(..head_end);
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        output.clear();
        if method == "GET" && path == BLOB {
            let length = origin.blob_bytes;
            answer_head(&mut output, "200 OK", "application/octet-stream", length, origin);
            stream.write_all(&output).await?;
            let mut sent = 0;
            while sent < length {
                let piece = origin.pattern.piece(sent, length - sent);
                stream.write_all(piece).await?;
                sent += piece.len() as u64;
            }
            continue;
        }
        let length = content_length(&head).unwrap_or(0);
        if method == "GET" {
            let row = if path.ends_with(SMALL) { &origin.small } else { &origin.row };
            answer_head(&mut output, "200 OK", "application/json;charset=UTF-8", row.len() as u64, origin);
            output.extend_from_slice(row);
        } else {
            let intact = take_body(&mut stream, &mut input, length, &origin.pattern).await?;
            let (status, body) = if path == TOKEN {
                ("200 OK", format!(r#"{{"access_token":"{SESSION}","token_type":"Bearer"}}"#))
            } else {
                ("201 Created", format!(r#"{{"received":{length},"intact":{}}}"#, intact || path != INGEST))
            };
            answer_head(&mut output, status, "application/json;charset=UTF-8", body.len() as u64, origin);
            output.extend_from_slice(body.as_bytes());
        }
        stream.write_all(&output).await?;
    }
}

/// Reads a request body; true if it was the pattern.
async fn take_body(stream: &mut TcpStream, input: &mut Vec<u8>, length: u64, pattern: &Pattern) -> io::Result<bool> {
    let (mut taken, mut intact) = (0, true);
    while taken < length {
        if input.is_empty() && stream.read_buf(input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let now = input.len().min(usize::try_from(length - taken).unwrap_or(usize::MAX));
        intact &= pattern.matches(taken, input.get(..now).unwrap_or_default());
        taken += now as u64;
        input.drain(..now);
    }
    Ok(intact)
}

/// The value of `Content-Length`, if there is one.
pub fn content_length(head: &str) -> Option<u64> {
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    })?;
    line.trim().parse().ok()
}

/// The head Salesforce would send. `Sforce-Limit-Info` counts the answers, against a limit that no run can reach and the
/// gateway still believes.
fn answer_head(output: &mut Vec<u8>, status: &str, content_type: &str, length: u64, origin: &Origin) {
    let served = origin.served.fetch_add(1, Ordering::Relaxed) + 1;
    output.extend_from_slice(
        format!(
            "HTTP/1.1 {status}\r\n\
             Date: Mon, 02 Mar 2026 17:20:12 GMT\r\n\
             Sforce-Limit-Info: api-usage={served}/900000000\r\n\
             ETag: \"kZ1n0yGrcT5QbB1m3Tq8Xw\"\r\n\
             Last-Modified: Mon, 02 Mar 2026 17:20:11 GMT\r\n\
             Cache-Control: no-cache,must-revalidate,max-age=0,no-store,private\r\n\
             Vary: Accept-Encoding\r\n\
             Strict-Transport-Security: max-age=63072000; includeSubDomains\r\n\
             X-Content-Type-Options: nosniff\r\n\
             X-Request-Id: 4f1c2a9d7b3e48d0a6\r\n\
             Content-Type: {content_type}\r\n\
             Content-Length: {length}\r\n\r\n"
        )
        .as_bytes(),
    );
}
