//! Asks the admin listener of a running gateway: one request, one bounded answer.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Larger than any answer of the admin listener.
const LARGEST: u64 = 256 << 20;

/// Which gateway, and how it is asked.
#[derive(Debug, clap::Args)]
pub struct AdminArguments {
    /// The gateway's admin address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9090")]
    admin: String,
    /// File that holds the admin key, if one is needed.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl AdminArguments {
    /// Gets a page as JSON.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        self.ask("GET", path)
    }

    /// Gives an order; returns its answer.
    pub fn post(&self, path: &str) -> Result<Value, String> {
        self.ask("POST", path)
    }

    /// Whether the gateway is ready; the error says what is not.
    pub fn ready(&self) -> Result<(), String> {
        let (ok, body) = self.exchange("GET", "/readyz")?;
        if ok {
            return Ok(());
        }
        if let Some(why) = body["message"].as_str() {
            return Err(why.to_owned());
        }
        let checks = body["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
        let failing = checks.iter().filter(|check| check["ok"] != true).filter_map(|check| check["reason"].as_str());
        let draining = (body["draining"] == true).then_some("it is shutting down");
        Err(format!("not ready: {}", failing.chain(draining).collect::<Vec<_>>().join(", ")))
    }

    fn ask(&self, method: &str, path: &str) -> Result<Value, String> {
        let (ok, body) = self.exchange(method, path)?;
        if ok { Ok(body) } else { Err(body["message"].as_str().unwrap_or("the gateway did not answer").to_owned()) }
    }

    /// Whether the status is 200, and the body.
    fn exchange(&self, method: &str, path: &str) -> Result<(bool, Value), String> {
        let uri: http::Uri = self.admin.parse().map_err(|_| format!("{} is not a URL", self.admin))?;
        if uri.scheme_str() != Some("http") {
            return Err(format!("{} does not begin with http://", self.admin));
        }
        let host = uri.host().ok_or_else(|| format!("{} names no host", self.admin))?;
        let port = uri.port_u16().unwrap_or(9090);
        let cannot = |error: std::io::Error| format!("cannot ask {host}:{port}: {error}");
        let plain = host.trim_start_matches('[').trim_end_matches(']');
        let address = (plain, port).to_socket_addrs().map_err(cannot)?.next();
        let address = address.ok_or_else(|| format!("{host} has no address"))?;
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE).map_err(cannot)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(cannot)?;
        stream.set_write_timeout(Some(PATIENCE)).map_err(cannot)?;
        let key = match &self.key_file {
            Some(file) => {
                let key = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
                format!("authorization: Bearer {}\r\n", key.trim())
            }
            None => String::new(),
        };
        // HTTP/1.0: the answer is not chunked, and ends with the connection.
        let request = format!(
            "{method} {path} HTTP/1.0\r\nhost: {host}:{port}\r\naccept: application/json\r\ncontent-length: 0\r\n{key}\r\n"
        );
        stream.write_all(request.as_bytes()).map_err(cannot)?;
        let mut answer = Vec::new();
        stream.take(LARGEST).read_to_end(&mut answer).map_err(cannot)?;
        let end = memchr::memmem::find(&answer, b"\r\n\r\n").ok_or("the answer is not HTTP")?;
        let (head, body) = answer.split_at(end);
        let body: Value = serde_json::from_slice(body).map_err(|error| format!("the answer is not JSON: {error}"))?;
        Ok((head.get(9..12) == Some(b"200"), body))
    }
}
