//! The demo's apps: what a storefront, a billing system, a nightly job and an unknown script ask of a CRM.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use rustls::RootCertStore;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::client::Client;
use crate::clock::Clock;
use crate::config::key;
use crate::sim::ORG_ID;
use crate::tasks::Tasks;

/// Records an app works on.
const KNOWN: usize = 40;

/// A gateway key and what the configuration knows of it.
pub struct Key {
    /// What is sent.
    pub plain: Zeroizing<String>,
    /// Its SHA-256, in hexadecimal digits.
    pub digest: String,
}

/// The keys of the apps that have one, and the operator's.
pub struct Keys {
    /// The operator's.
    pub admin: Key,
    /// The storefront's.
    pub storefront: Key,
    /// The billing system's.
    pub billing: Key,
}

impl Keys {
    /// Makes new ones.
    pub fn make() -> Result<Self, key::NoRandomness> {
        let make = || {
            let plain = key::generate()?;
            let digest = key::sha256_hex(&plain);
            Ok(Key { plain, digest })
        };
        Ok(Self { admin: make()?, storefront: make()?, billing: make()? })
    }
}

/// What the apps need.
pub struct Plan {
    /// The gateway by HTTP.
    pub plain: SocketAddr,
    /// The gateway by HTTPS.
    pub tls: SocketAddr,
    /// Whom to trust there.
    pub roots: RootCertStore,
    /// The apps' keys.
    pub keys: Keys,
    /// Requests per second of all apps together.
    pub rate: u32,
    /// For the pace.
    pub clock: Clock,
}

/// The apps at work.
pub struct Apps(Arc<AtomicBool>);

impl Apps {
    /// Lets each app finish the request it is at, and send no other.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Starts the apps.
pub fn start(tasks: &Tasks, plan: &Plan) -> Apps {
    let stop = Arc::new(AtomicBool::new(false));
    let app = |share: u32, user: &str, address, roots| App {
        client: Client::new(address, roots, tasks.clone()),
        session: format!("Bearer {ORG_ID}!{user}"),
        key: None,
        name: None,
        pause: Duration::from_secs_f64(f64::from(share) / f64::from(plan.rate.max(1))),
        clock: plan.clock,
        stop: Arc::clone(&stop),
        turn: 0,
    };
    // A share of 2 sends half of the requests, one of 8 an eighth.
    let mut storefront = app(2, "integration", plan.plain, None);
    storefront.key = Some(plan.keys.storefront.plain.clone());
    let mut billing = app(4, "integration", plan.tls, Some(plan.roots.clone()));
    billing.key = Some(plan.keys.billing.plain.clone());
    let mut sync = app(8, "admin", plan.plain, None);
    sync.name = Some("nightly-sync");
    let stranger = app(8, "sales", plan.plain, None);
    tasks.spawn(storefront.run(App::storefront));
    tasks.spawn(billing.run(App::billing));
    tasks.spawn(sync.run(App::sync));
    tasks.spawn(stranger.run(App::stranger));
    Apps(stop)
}

/// A request of an app: method, path, body.
type Ask = (Method, String, Option<Value>);

/// One app.
struct App {
    client: Client,
    session: String,
    key: Option<Zeroizing<String>>,
    name: Option<&'static str>,
    pause: Duration,
    clock: Clock,
    stop: Arc<AtomicBool>,
    turn: usize,
}

impl App {
    /// One request after another at the app's pace; `next` says which.
    async fn run(mut self, next: fn(usize, &[String]) -> Ask) {
        let ids = self.accounts().await;
        let mut due = self.clock.now();
        while !self.stop.load(Ordering::Relaxed) {
            let (method, path, body) = next(self.turn, &ids);
            self.turn += 1;
            // Refusals and errors are part of the show; the summary counts them.
            let _ = self.send(method, &path, body).await;
            due = self.clock.now().max(due) + self.pause;
            tokio::time::sleep_until(due).await;
        }
    }

    /// Some account ids to work with.
    async fn accounts(&mut self) -> Vec<String> {
        let path = format!("/services/data/v62.0/query?q=SELECT+Id+FROM+Account+LIMIT+{KNOWN}");
        let answer = self.send(Method::GET, &path, None).await.unwrap_or(Value::Null);
        let records = answer["records"].as_array().into_iter().flatten();
        records.filter_map(|record| record["Id"].as_str().map(str::to_owned)).collect()
    }

    async fn send(&mut self, method: Method, path: &str, body: Option<Value>) -> Result<Value, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, &self.session);
        if let Some(key) = &self.key {
            request = request.header("weirkeeper-key", key.as_str());
        }
        if let Some(name) = self.name {
            request = request.header("sforce-call-options", format!("client={name}"));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes)).map_err(|error| error.to_string())?;
        let response = self.client.send(request).await?;
        Ok(serde_json::from_slice(response.body()).unwrap_or(Value::Null))
    }

    fn storefront(turn: usize, ids: &[String]) -> Ask {
        let path = match (turn % 12, pick(ids, turn)) {
            (0, _) => "/services/data/v62.0/sobjects/Account/describe".to_owned(),
            (1, _) => "/services/data/v62.0/query?q=SELECT+Id,LastName+FROM+Contact+LIMIT+20".to_owned(),
            // Not among what it may use: the gateway refuses it, and Salesforce is not asked.
            (2, _) => "/services/data/v62.0/sobjects/Opportunity/describe".to_owned(),
            (_, Some(id)) => format!("/services/data/v62.0/sobjects/Account/{id}"),
            (_, None) => "/services/data/v62.0/sobjects/Account".to_owned(),
        };
        (Method::GET, path, None)
    }

    fn billing(turn: usize, ids: &[String]) -> Ask {
        match (turn % 4, pick(ids, turn)) {
            (0, _) => {
                let number = turn % 500;
                let path = format!("/services/data/v62.0/sobjects/Invoice__c/Ext_Id__c/demo-{number}");
                (Method::PATCH, path, Some(json!({"Amount__c": number})))
            }
            (1, Some(id)) => {
                let path = format!("/services/data/v62.0/sobjects/Account/{id}");
                (Method::PATCH, path, Some(json!({"Description": format!("billed {turn}")})))
            }
            _ => (Method::GET, "/services/data/v62.0/query?q=SELECT+COUNT()+FROM+Invoice__c".to_owned(), None),
        }
    }

    fn sync(turn: usize, ids: &[String]) -> Ask {
        let rows: Vec<Value> = (0..5)
            .filter_map(|place| pick(ids, turn * 5 + place))
            .enumerate()
            .map(|(place, id)| {
                json!({
                    "method": "GET",
                    "url": format!("/services/data/v62.0/sobjects/Account/{id}"),
                    "referenceId": format!("row{place}"),
                })
            })
            .collect();
        match turn % 3 {
            0 => (Method::POST, "/services/data/v62.0/composite".to_owned(), Some(json!({"compositeRequest": rows}))),
            1 => {
                let requests: Vec<Value> = (0..3)
                    .filter_map(|place| pick(ids, turn + place))
                    .map(|id| json!({"method": "GET", "url": format!("v62.0/sobjects/Account/{id}")}))
                    .collect();
                let path = "/services/data/v62.0/composite/batch".to_owned();
                (Method::POST, path, Some(json!({"batchRequests": requests})))
            }
            _ => {
                let path = "/services/data/v62.0/query?q=SELECT+Id,Name,Industry+FROM+Account".to_owned();
                (Method::GET, path, None)
            }
        }
    }

    fn stranger(turn: usize, _ids: &[String]) -> Ask {
        let path = match turn % 3 {
            0 => "/services/data/v62.0/sobjects/Acount/describe",
            1 => "/services/data/v62.0/limits",
            _ => "/services/data/v62.0/query?q=SELECT+Id+FROM+Opportunity+LIMIT+5",
        };
        (Method::GET, path.to_owned(), None)
    }
}

fn pick(ids: &[String], turn: usize) -> Option<&String> {
    ids.get(turn.checked_rem(ids.len())?)
}
