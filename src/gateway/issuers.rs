//! Keeps the public keys of token issuers at hand: reads their files, fetches their URLs, now and again.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, Limited};

use crate::body::{ByteBudget, Payload};
use crate::clock::Clock;
use crate::config::Jwks;
use crate::edge::Inbound;
use crate::edge::jwt::Issuer;
use crate::exchange::{Limits, Origin, Plan, Target, Upstream};
use crate::live::{InForce, Live};
use crate::outcome::{Outcome, Record, RequestId};
use crate::tasks::Tasks;
use crate::telemetry::{Level, Log};

/// How often keys are fetched again.
const REFRESH: Duration = Duration::from_mins(5);
/// How soon after a failure, or after a reload that named new issuers.
const SOON: Duration = Duration::from_secs(10);
/// How long a fetch may take.
const BOUND: Duration = Duration::from_secs(10);
/// A key set is never larger.
const LARGEST: usize = 256 * 1024;

/// Reads and fetches for as long as the process lives.
pub fn keep(in_force: InForce, clock: Clock, tasks: &Tasks, log: Log) {
    let own = tasks.clone();
    tasks.spawn_background(async move {
        let mut due = clock.now();
        loop {
            let live = in_force.load_full();
            let now = clock.now();
            let all = now >= due;
            if all {
                due = now + REFRESH;
            }
            for issuer in live.issuers.list() {
                if all || !issuer.has_keys() {
                    refresh(issuer, &live, clock, &own, &log).await;
                }
            }
            tokio::time::sleep(SOON).await;
        }
    });
}

async fn refresh(issuer: &Issuer, live: &Live, clock: Clock, tasks: &Tasks, log: &Log) {
    let read = match &issuer.source {
        Jwks::File(path) => {
            std::fs::read(path).map(Bytes::from).map_err(|error| format!("{}: {error}", path.display()))
        }
        Jwks::Url(url) => fetch(url, live, clock, tasks).await,
    };
    if let Err(why) = read.and_then(|keys| issuer.put(&keys)) {
        let members = [("issuer", issuer.name.as_str().into()), ("why", why.as_str().into())];
        log.event(Level::Warn, "issuer_keys_unavailable", &members);
    }
}

/// Gets a key set, with the same roots and egress proxy as Salesforce's.
async fn fetch(url: &http::Uri, live: &Live, clock: Clock, tasks: &Tasks) -> Result<Bytes, String> {
    let base =
        format!("{}://{}", url.scheme_str().unwrap_or("https"), url.authority().map_or("", |name| name.as_str()));
    let origin = Origin::parse(&base).map_err(|error| error.to_string())?;
    let connector = live.targets.first().map(|target| target.connector.clone()).ok_or("no org is configured")?;
    let authority = origin.authority().clone();
    let target = Target { origin, connector, limits: Limits { connections: 1, ..Limits::default() } };
    let upstream = Upstream::<Inbound>::new([target], clock, tasks, &ByteBudget::new(LARGEST));
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .body(Payload::Empty)
        .map_err(|error| error.to_string())?;
    let now = clock.now();
    let record = Record::new(Outcome::new(RequestId::default(), now, Method::GET));
    let response = upstream
        .send(request, &Plan::aside(now, BOUND), &record)
        .await
        .map_err(|failure| failure.detail.into_string())?;
    if !response.status().is_success() {
        return Err(format!("answered {}", response.status()));
    }
    let body = Limited::new(response.into_body(), LARGEST).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| error.to_string())
}
