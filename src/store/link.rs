//! Connections to the store: how they are made, and when they are given up.

use std::fs;
use std::path::Path;
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _,
    Pipeline, RedisConnectionInfo, RedisFuture, TlsCertificates, TlsMode,
};
use tokio::time::Instant;

use super::{StoreError, Unusable, failed};
use crate::clock::Clock;
use crate::config;

/// How soon after a failure another connection is tried, and how late after many.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// Where the store is found.
pub(super) enum Address {
    Single(Client),
    Sentinel(tokio::sync::Mutex<SentinelClient>),
    Cluster { cluster: Box<ClusterClient>, nodes: Vec<Client> },
}

impl Address {
    pub(super) fn of(settings: &config::Redis) -> Result<Self, Unusable> {
        let certificates = certificates(settings)?;
        let unusable = |error: redis::RedisError| Unusable::Client(error.to_string().into());
        let place = |node: &config::Node| {
            let host = node.host.to_string();
            if settings.tls {
                ConnectionAddr::TcpTls { host, port: node.port, insecure: false, tls_params: None }
            } else {
                ConnectionAddr::Tcp(host, node.port)
            }
        };
        if let Some(sentinel) = &settings.sentinel {
            let places = settings.nodes.iter().map(place);
            let mut builder = SentinelClientBuilder::new(places, &sentinel.service, SentinelServerType::Master)
                .map_err(unusable)?
                .set_client_to_redis_db(settings.database.into());
            if settings.tls {
                builder = builder
                    .set_client_to_redis_tls_mode(TlsMode::Secure)
                    .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                    .set_client_to_redis_certificates(certificates.clone())
                    .set_client_to_sentinel_certificates(certificates);
            }
            if let Some(name) = &settings.username {
                builder = builder.set_client_to_redis_username(name);
            }
            if let Some(password) = &settings.password {
                builder = builder.set_client_to_redis_password(password.expose());
            }
            if let Some(name) = &sentinel.username {
                builder = builder.set_client_to_sentinel_username(name);
            }
            if let Some(password) = &sentinel.password {
                builder = builder.set_client_to_sentinel_password(password.expose());
            }
            return Ok(Self::Sentinel(tokio::sync::Mutex::new(builder.build().map_err(unusable)?)));
        }
        let info = |node: &config::Node| -> redis::RedisResult<ConnectionInfo> {
            let mut login = RedisConnectionInfo::default().set_db(settings.database.into());
            if let Some(name) = &settings.username {
                login = login.set_username(name);
            }
            if let Some(password) = &settings.password {
                login = login.set_password(password.expose());
            }
            Ok(place(node).into_connection_info()?.set_redis_settings(login))
        };
        let client = |node: &config::Node| {
            let info = info(node)?;
            if settings.tls { Client::build_with_tls(info, certificates.clone()) } else { Client::open(info) }
        };
        if !settings.cluster {
            let Some(node) = settings.nodes.first() else { return Err(Unusable::Client("no address".into())) };
            return Ok(Self::Single(client(node).map_err(unusable)?));
        }
        let nodes = settings.nodes.iter().map(client).collect::<Result<_, _>>().map_err(unusable)?;
        let infos: Vec<_> = settings.nodes.iter().map(info).collect::<Result<_, _>>().map_err(unusable)?;
        let mut builder = ClusterClient::builder(infos).connection_timeout(settings.timeout).retries(2);
        if settings.tls {
            builder = builder.tls(TlsMode::Secure).certs(certificates);
        }
        Ok(Self::Cluster { cluster: Box::new(builder.build().map_err(unusable)?), nodes })
    }
}

fn certificates(settings: &config::Redis) -> Result<TlsCertificates, Unusable> {
    let read = |path: &Path| {
        fs::read(path)
            .map_err(|error| Unusable::File { path: path.display().to_string().into(), why: error.to_string() })
    };
    let client_tls = match &settings.client_certificate {
        Some(pair) => Some(ClientTlsConfig { client_cert: read(&pair.certificate)?, client_key: read(&pair.key)? }),
        None => None,
    };
    Ok(TlsCertificates { client_tls, root_cert: settings.ca.as_deref().map(read).transpose()? })
}

/// A connection that answers questions; cloning it is cheap, and all clones share it.
#[derive(Clone)]
pub(super) enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, redis::Value> {
        match self {
            Self::One(connection) => connection.req_packed_command(cmd),
            Self::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<redis::Value>> {
        match self {
            Self::One(connection) => connection.req_packed_commands(commands, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

/// The one connection that everybody asks by.
pub(super) struct Link {
    address: Address,
    clock: Clock,
    timeout: Duration,
    /// Held while a connection is being made, so that there is one attempt at a time.
    making: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Connection>,
    /// Counts connections, so that a failure of an earlier one does not end the present one.
    number: u64,
    not_before: Option<Instant>,
    pause: Duration,
    why: Box<str>,
}

impl Link {
    pub(super) fn new(address: Address, clock: Clock, timeout: Duration) -> Self {
        Self { address, clock, timeout, making: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    /// The connection and its number; makes one if there is none and it is time to try.
    pub(super) async fn connection(&self) -> Result<(Connection, u64), StoreError> {
        if let Some(open) = self.open() {
            return Ok(open);
        }
        let _turn = self.making.lock().await;
        if let Some(open) = self.open() {
            return Ok(open);
        }
        {
            let mut state = self.state.lock();
            let now = self.clock.now();
            if state.not_before.is_some_and(|instant| now < instant) {
                return Err(StoreError::Unreachable(state.why.clone()));
            }
            // Noted before the attempt: one that hangs is ended by whoever waits for it.
            state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LAST_PAUSE);
            state.not_before = Some(now + state.pause);
            state.why = "it did not answer in time".into();
        }
        let made = self.make().await;
        let mut state = self.state.lock();
        match made {
            Ok(connection) => {
                state.number += 1;
                state.open = Some(connection.clone());
                (state.not_before, state.pause) = (None, Duration::ZERO);
                Ok((connection, state.number))
            }
            Err(error) => {
                let error = failed(&error);
                state.why = match &error {
                    StoreError::Unreachable(why) | StoreError::Refused(why) => why.clone(),
                    other => other.to_string().into(),
                };
                Err(StoreError::Unreachable(state.why.clone()))
            }
        }
    }

    /// The connection of this number is of no use any more.
    pub(super) fn give_up(&self, number: u64) {
        let mut state = self.state.lock();
        if state.number == number {
            state.open = None;
        }
    }

    /// A connection that listens.
    pub(super) async fn pubsub(&self) -> Result<PubSub, StoreError> {
        let made = match &self.address {
            Address::Single(client) => client.get_async_pubsub().await,
            Address::Sentinel(sentinel) => {
                let client = sentinel.lock().await.async_get_client().await.map_err(|error| failed(&error))?;
                client.get_async_pubsub().await
            }
            // A Cluster carries what is published to all of its nodes.
            Address::Cluster { nodes, .. } => {
                let mut last = Err(StoreError::Unreachable("no node".into()));
                for node in nodes {
                    let attempt = tokio::time::timeout(self.timeout, node.get_async_pubsub()).await;
                    last = attempt.map_err(|_| StoreError::Late).and_then(|made| made.map_err(|error| failed(&error)));
                    if last.is_ok() {
                        break;
                    }
                }
                return last;
            }
        };
        made.map_err(|error| failed(&error))
    }

    fn open(&self) -> Option<(Connection, u64)> {
        let state = self.state.lock();
        state.open.clone().map(|connection| (connection, state.number))
    }

    async fn make(&self) -> redis::RedisResult<Connection> {
        // Who asks bounds the time.
        let settings =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.timeout)).set_response_timeout(None);
        match &self.address {
            Address::Single(client) => {
                client.get_multiplexed_async_connection_with_config(&settings).await.map(Connection::One)
            }
            Address::Sentinel(sentinel) => {
                let mut sentinel = sentinel.lock().await;
                sentinel.get_async_connection_with_config(&settings).await.map(Connection::One)
            }
            Address::Cluster { cluster, .. } => cluster.get_async_connection().await.map(Connection::Cluster),
        }
    }
}
