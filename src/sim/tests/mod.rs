//! The simulator end to end: HTTP over connections in memory, in a paused runtime.
//!
//! What it must have (facts 9), and the tests that hold it to that:
//!
//! | # | behaviour | tests |
//! |---|---|---|
//! | 1 | daily counter | `accounting::the_daily_limit_is_hard_and_trails`, `accounting::a_soft_limit_lets_some_pass`, `accounting::calls_may_come_back_in_steps` |
//! | 2 | `Sforce-Limit-Info` | `accounting::the_header_may_lag_and_dark_callers_show_in_it`, `accounting::limits_tell_what_remains`, `data::versions_are_free_and_need_no_session` |
//! | 3 | what counts | `accounting::composite_costs_one_and_batch_each_subrequest`, `apis::graphql_costs_a_call_for_each_subquery`, `accounting::undocumented_costs_are_switches` |
//! | 4 | calls of 20 s | `accounting::only_calls_of_twenty_seconds_take_places` |
//! | 5 | `/limits` | `accounting::limits_tell_what_remains`, `accounting::limits_may_be_old_and_may_be_refused` |
//! | 6 | shapes of errors | `data::xml_is_spoken_on_request`, `composite::collections_keep_the_order_and_fail_item_by_item`, `faults::answers_can_be_replaced`, `apis::unknown_hosts_meet_the_edge` |
//! | 7 | dead sessions | `soap::a_dead_session_is_told_in_the_form_of_each_api`, `faults::a_401_may_be_one_that_no_log_in_mends` |
//! | 8 | locks | `apis::writes_to_children_of_one_parent_contend`, `faults::answers_can_be_replaced` |
//! | 9 | uncertain writes | `faults::a_write_may_be_done_although_nobody_hears_of_it` |
//! | 10 | `Retry-After` | `faults::answers_can_be_replaced`, `accounting::the_daily_limit_is_hard_and_trails` |
//! | 11 | composite | `composite::subrequests_refer_to_each_other`, `composite::all_or_none_takes_everything_back`, `composite::too_many_subrequests_are_refused_inside_a_200` |
//! | 12 | collections | `composite::collections_keep_the_order_and_fail_item_by_item` |
//! | 13 | upserts | `data::upserts_create_update_and_name_what_is_ambiguous` |
//! | 14 | paging | `data::pages_follow_locators_of_their_user`, `data::pages_may_be_shorter_than_asked_for` |
//! | 15 | conditions | `data::describes_are_unmodified_until_the_metadata_changes`, `data::tags_are_for_accounts_only_and_know_their_coding` |
//! | 16 | cache and cookie headers | `data::answers_have_the_headers_of_real_ones` |
//! | 17 | visibility | `data::two_users_see_different_orgs` |
//! | 18 | OAuth | all of `oauth`, `oauth::both_schemes_carry_a_session` |
//! | 19 | idle sessions, revocation | `data::sessions_end_when_idle_and_by_revocation`, `data::a_session_may_be_revoked_in_the_middle_of_a_call` |
//! | 20 | Bulk 2.0 and 1.0 | all of `bulk` |
//! | 25 | long polls | all of `cometd` |

mod accounting;
mod apis;
mod bulk;
mod cometd;
mod composite;
mod data;
mod faults;
mod oauth;
mod soap;
mod transport;

use std::io::Read;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::tasks::Tasks;
use super::{ORG_ID, Sim, SimConfig};

/// One answer, read to its end.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {:?}", self.body))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(super) fn code(&self) -> String {
        self.json()[0]["errorCode"].as_str().unwrap_or_default().to_owned()
    }
}

/// A caller with one connection.
pub(super) struct Caller {
    pub(super) sim: Sim,
    send: SendRequest<Full<Bytes>>,
    token: String,
    pub(super) extra: Vec<(&'static str, String)>,
}

/// Runs a caller beside the test.
#[expect(clippy::disallowed_methods, reason = "a test waits for what it started, and the rest ends with its runtime")]
pub(super) fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> tokio::task::JoinHandle<T> {
    tokio::spawn(future)
}

/// Simulated time that passed since `before`.
pub(super) fn since(sim: &Sim, before: Duration) -> Duration {
    sim.now().saturating_sub(before)
}

/// The simulator most tests use: small, at a fixed time.
pub(super) fn config() -> SimConfig {
    SimConfig { records: 30, start_unix_seconds: Some(1_795_348_800), ..SimConfig::default() }
}

pub(super) fn token(user: &str) -> String {
    format!("{ORG_ID}!{user}")
}

impl Caller {
    /// A caller with the session of a user known from the start; none for an empty name.
    pub(super) async fn of(sim: &Sim, user: &str) -> Self {
        Self::with_token(sim, &if user.is_empty() { String::new() } else { token(user) }).await
    }

    pub(super) async fn with_token(sim: &Sim, token: &str) -> Self {
        let (send, connection) = handshake(TokioIo::new(sim.connect_in_memory())).await.unwrap();
        Tasks::default().spawn(async move {
            let _ended = connection.await;
        });
        Self { sim: sim.clone(), send, token: token.to_owned(), extra: Vec::new() }
    }

    pub(super) async fn admin(config: SimConfig) -> Self {
        Self::of(&Sim::new(config), "admin").await
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.extra.push((name, value.to_owned()));
        self
    }

    /// Sends one request; `target` is absolute or below the newest version.
    pub(super) async fn send(
        &mut self,
        method: &str,
        target: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<Reply, hyper::Error> {
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/services/data/v62.0/{target}") };
        let mut request = Request::builder().method(method).uri(target).header("host", "sim.my.salesforce.com");
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        for (name, value) in &self.extra {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_ref()))).unwrap();
        self.send.ready().await?;
        let response = self.send.send_request(request).await?;
        let (parts, body) = response.into_parts();
        let mut body = body.collect().await?.to_bytes();
        if parts.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(body.as_ref()).read_to_end(&mut plain).unwrap();
            body = Bytes::from(plain);
        }
        Ok(Reply { status: parts.status.as_u16(), headers: parts.headers, body })
    }

    pub(super) async fn get(&mut self, target: &str) -> Reply {
        self.send("GET", target, "").await.unwrap()
    }

    pub(super) async fn query(&mut self, soql: &str) -> Reply {
        let soql = percent_encoding::utf8_percent_encode(soql, percent_encoding::NON_ALPHANUMERIC);
        self.get(&format!("query?q={soql}")).await
    }

    pub(super) async fn post(&mut self, target: &str, body: &Value) -> Reply {
        self.send("POST", target, body.to_string()).await.unwrap()
    }

    pub(super) async fn patch(&mut self, target: &str, body: &Value) -> Reply {
        self.send("PATCH", target, body.to_string()).await.unwrap()
    }

    pub(super) async fn delete(&mut self, target: &str) -> Reply {
        self.send("DELETE", target, "").await.unwrap()
    }

    /// The id of the first account the caller sees.
    pub(super) async fn account(&mut self) -> String {
        self.query("SELECT Id FROM Account LIMIT 1").await.json()["records"][0]["Id"].as_str().unwrap().to_owned()
    }
}
