//! A small HTTP client for the demo's apps: one connection, opened again when it breaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::tasks::Tasks;

/// Longer than any answer of the demo takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// One app's connection to the gateway.
pub struct Client {
    address: SocketAddr,
    tls: Option<TlsConnector>,
    tasks: Tasks,
    open: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// Connects to `address` when first used; by TLS, trusting `roots`, if they are given.
    pub fn new(address: SocketAddr, roots: Option<RootCertStore>, tasks: Tasks) -> Self {
        let tls = roots.map(|roots| {
            let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
            TlsConnector::from(Arc::new(config))
        });
        Self { address, tls, tasks, open: None }
    }

    /// Sends `request` and reads its answer whole.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        if let Ok(result) = tokio::time::timeout(PATIENCE, self.exchange(request)).await {
            return result;
        }
        self.open = None;
        Err("no answer in time".to_owned())
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, String> {
        let mut sender = match self.open.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
        self.open = Some(sender);
        Ok(Response::from_parts(head, body))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        if let Some(tls) = &self.tls {
            let name = ServerName::IpAddress(self.address.ip().into());
            let stream = tls.connect(name, stream).await.map_err(|error| error.to_string())?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            self.tasks.spawn_background(async move {
                let _ = connection.await;
            });
            return Ok(sender);
        }
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        self.tasks.spawn_background(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}
