//! The second listener, for operators: a page for people, metrics, health, status and the configuration in force.
//!
//! It reads, and takes a few orders ([`Order`], [`Purge`], [`Switch`]) from who has the key; what it serves is never counted as traffic. It runs on the
//! control thread and answers while the gateway drains. Connections, heads and times are bounded.

mod concerns;
mod guard;
mod live;
mod orders;
mod page;
mod pages;
mod view;
mod words;

use std::any::Any;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceBuilder;
use tower::util::service_fn;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::set_header::SetResponseHeaderLayer;

pub use self::concerns::{Concern, Severity};
pub use self::guard::{Access, Denied, Needs, Reach};
pub use self::live::{VIEWER_RETRY_SECONDS, VIEWERS};
pub use self::orders::{Order, Purge, Purged, Switch, Unknown, Whom};
pub use self::page::PageFile;
pub use self::pages::Page;
pub use self::view::View;
pub use self::words::grouped;
use crate::tasks::Tasks;
use crate::telemetry::{BudgetSnapshot, Level, SpendingSnapshot, Telemetry};

/// Connections open at the same time; further ones wait in the system's queue.
const CONNECTIONS: usize = 64;
/// Time for a head, and for the next one on an open connection.
const HEAD_TIME: Duration = Duration::from_secs(10);
/// Age at which a connection is closed after the answer under way.
const CONNECTION_AGE: Duration = Duration::from_mins(10);
/// Time for that answer.
const LAST_ANSWER_TIME: Duration = Duration::from_secs(30);
/// Bytes of a head.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after an accept that failed, for example for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const SECURITY_HEADERS: [(HeaderName, HeaderValue); 5] = [
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    ),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

/// Says whether one part is ready; the reason is shown to anybody who can reach the listener.
type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Says what one part lacks, although requests may be sent here.
type Lack = Box<dyn Fn() -> Option<String> + Send + Sync>;

/// Carries out an order.
type Carrier = Box<dyn Fn(&Order) -> Result<(), Unknown> + Send + Sync>;

/// Makes answers old; says how much of that there was.
type Purger = Box<dyn Fn(&Purge) -> Result<serde_json::Value, Unknown> + Send + Sync>;

/// Says who spent the calls of an org when.
type Spender = Box<dyn Fn(&BudgetSnapshot) -> Option<SpendingSnapshot> + Send + Sync>;

/// Opens or closes breakers.
type Switcher = Box<dyn Fn(&Switch) -> Result<(), Unknown> + Send + Sync>;

/// What the admin listener shows.
pub struct Admin {
    telemetry: Telemetry,
    access: ArcSwap<Access>,
    config: ArcSwap<serde_json::Value>,
    checks: RwLock<Vec<(&'static str, Check)>>,
    lacks: RwLock<Vec<(&'static str, Lack)>>,
    carrier: RwLock<Option<Carrier>>,
    purger: RwLock<Option<Purger>>,
    spender: RwLock<Option<Spender>>,
    audience: live::Audience,
    switcher: RwLock<Option<Switcher>>,
    draining: AtomicBool,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("access", &self.access.load()).finish_non_exhaustive()
    }
}

/// Whether requests may be sent here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Every check passed and the gateway is not draining.
    pub ready: bool,
    /// It is ready, and something is not as it should be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
    /// The gateway is shutting down.
    pub draining: bool,
    /// Each check.
    pub checks: Vec<CheckResult>,
}

/// One check's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckResult {
    /// What was checked.
    pub name: &'static str,
    /// Whether it passed.
    pub ok: bool,
    /// It passed, and is not as it should be.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub degraded: bool,
    /// Why not, or what it lacks.
    pub reason: Option<String>,
}

impl Admin {
    /// Shows what `telemetry` knows to those `access` lets in.
    pub fn new(telemetry: Telemetry, access: Access) -> Self {
        Self {
            telemetry,
            access: ArcSwap::from_pointee(access),
            config: ArcSwap::from_pointee(serde_json::Value::Null),
            checks: RwLock::default(),
            lacks: RwLock::default(),
            carrier: RwLock::default(),
            purger: RwLock::default(),
            spender: RwLock::default(),
            audience: live::Audience::new(),
            switcher: RwLock::default(),
            draining: AtomicBool::new(false),
        }
    }

    /// Changes who is let in, after a reload.
    pub fn set_access(&self, access: Access) {
        self.access.store(Arc::new(access));
    }

    /// Changes the configuration shown; it must hold no secrets.
    pub fn set_config(&self, config: serde_json::Value) {
        self.config.store(Arc::new(config));
    }

    /// Adds a condition for being ready. It must be quick, and never depend on Salesforce.
    pub fn add_check(&self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) {
        self.checks.write().push((name, Box::new(check)));
    }

    /// Adds a part that may lack something without the gateway being unready: it says what. It must be quick.
    pub fn add_lack(&self, name: &'static str, lack: impl Fn() -> Option<String> + Send + Sync + 'static) {
        self.lacks.write().push((name, Box::new(lack)));
    }

    /// Says who carries out orders. It must be quick. Until then there are none to give.
    pub fn carry_out(&self, carrier: impl Fn(&Order) -> Result<(), Unknown> + Send + Sync + 'static) {
        *self.carrier.write() = Some(Box::new(carrier));
    }

    /// Says who makes kept answers old. It must be quick.
    pub fn purge_by(&self, purger: impl Fn(&Purge) -> Result<serde_json::Value, Unknown> + Send + Sync + 'static) {
        *self.purger.write() = Some(Box::new(purger));
    }

    /// Says who knows who spent an org's calls when. It must be quick.
    pub fn spending_by(&self, spender: impl Fn(&BudgetSnapshot) -> Option<SpendingSnapshot> + Send + Sync + 'static) {
        *self.spender.write() = Some(Box::new(spender));
    }

    fn spending(&self, budget: &BudgetSnapshot) -> Option<SpendingSnapshot> {
        self.spender.read().as_ref().and_then(|spender| spender(budget))
    }

    /// Says who opens and closes breakers. It must be quick.
    pub fn switch_by(&self, switcher: impl Fn(&Switch) -> Result<(), Unknown> + Send + Sync + 'static) {
        *self.switcher.write() = Some(Box::new(switcher));
    }

    /// From now on the gateway is not ready: it is shutting down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether requests may be sent here.
    pub fn readiness(&self) -> Readiness {
        let mut checks: Vec<_> = self
            .checks
            .read()
            .iter()
            .map(|(name, check)| {
                let reason = check().err();
                CheckResult { name, ok: reason.is_none(), degraded: false, reason }
            })
            .collect();
        checks.extend(self.lacks.read().iter().map(|(name, lack)| {
            let reason = lack();
            CheckResult { name, ok: true, degraded: reason.is_some(), reason }
        }));
        let draining = self.draining.load(Ordering::Relaxed);
        let ready = !draining && checks.iter().all(|check| check.ok);
        Readiness { ready, degraded: ready && checks.iter().any(|check| check.degraded), draining, checks }
    }
}

/// Accepts connections for ever, each served by a background task of the current runtime.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, tasks: Tasks) -> io::Result<()> {
    let reach = Reach::of(listener.local_addr()?.ip());
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                tasks.spawn_background(async move {
                    serve_connection(stream, admin, reach).await;
                    drop(place);
                });
            }
            Err(error) => {
                let error = error.to_string();
                let members = [("listener", "admin".into()), ("error", (&error).into())];
                admin.telemetry.log().event(Level::Error, "accept_failed", &members);
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one HTTP/1.1 connection to its end. A peer that breaks the protocol is simply left.
pub async fn serve_connection<I>(io: I, admin: Arc<Admin>, reach: Reach)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let pages = service_fn(move |request: Request<Incoming>| {
        let (head, _) = request.into_parts();
        ready(Ok::<_, Infallible>(pages::answer(&admin, reach, &head)))
    });
    let [policy, sniff, frame, referrer, cache] =
        SECURITY_HEADERS.map(|(name, value)| SetResponseHeaderLayer::if_not_present(name, value));
    let service = ServiceBuilder::new()
        .layer(policy)
        .layer(sniff)
        .layer(frame)
        .layer(referrer)
        .layer(cache)
        .layer(CompressionLayer::new())
        .layer(CatchPanicLayer::custom(panicked))
        .service(pages);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service));
    let mut connection = std::pin::pin!(connection);
    if tokio::time::timeout(CONNECTION_AGE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(LAST_ANSWER_TIME, connection).await;
    }
}

fn panicked(_: Box<dyn Any + Send>) -> pages::Answer {
    pages::error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "A defect of the gateway.")
}

#[cfg(test)]
mod tests;
