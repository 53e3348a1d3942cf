//! Log-ins against a token endpoint inside the test, on its own clock.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::clock::Clock;
use crate::exchange::{Connector, Origin};
use crate::salesforce::PrincipalKey;
use crate::tasks::Tasks;

/// What the endpoint does with one request.
#[derive(Clone)]
enum Does {
    Grants(&'static str),
    Says(u16, &'static str),
    HangsUp,
    Hangs,
}

struct World {
    identity: Arc<Identity>,
    tasks: Tasks,
    clock: Clock,
    requests: Arc<Mutex<Vec<String>>>,
    connector: Connector,
}

/// Salesforce's wall time in these tests.
const WALL: Duration = Duration::from_hours(500_000);

/// An identity whose endpoint does `script` in turn, and its last entry ever after; each answer takes a second.
fn world(flow: Flow, script: Vec<Does>) -> World {
    let (requests, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(VecDeque::from(script))));
    let (seen, clock, tasks) = (Arc::clone(&requests), Clock::at(WALL), Tasks::new());
    let server = tasks.clone();
    let dial = move || {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let (seen, script) = (Arc::clone(&seen), Arc::clone(&script));
        server.spawn_background(async move {
            let mut request = vec![0; 16 * 1024];
            let length = far.read(&mut request).await.unwrap_or(0);
            seen.lock().push(String::from_utf8_lossy(&request[..length]).into_owned());
            let does = {
                let mut script = script.lock();
                if script.len() > 1 { script.pop_front() } else { script.front().cloned() }
            };
            tokio::time::sleep(Duration::from_secs(1)).await;
            let (status, body) = match does.unwrap() {
                Does::Grants(token) => (
                    200,
                    format!(r#"{{"access_token":"{token}","id":"https://x/id/00D000000000001/005000000000001"}}"#),
                ),
                Does::Says(status, body) => (status, body.to_owned()),
                Does::HangsUp => return,
                Does::Hangs => return std::future::pending().await,
            };
            let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + WALL);
            let answer = format!("HTTP/1.1 {status} X\r\ndate: {date}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = far.write_all(answer.as_bytes()).await;
        });
        Box::pin(std::future::ready(Ok(near))) as std::pin::Pin<Box<dyn Future<Output = _> + Send>>
    };
    let connector = Connector::memory(Arc::new(dial));
    let identity = Identity::new(settings(flow, &connector), clock);
    World { identity, tasks, clock, requests, connector }
}

fn settings(flow: Flow, connector: &Connector) -> Settings {
    Settings {
        name: "integration".into(),
        org: "prod".into(),
        flow,
        endpoint: Endpoint {
            origin: Origin::parse("http://login.example").unwrap(),
            path: "/services/oauth2/token".parse().unwrap(),
            connector: connector.clone(),
        },
        session: Duration::from_hours(2),
        principal_key: PrincipalKey::new(b"0123456789abcdef"),
        sharing: None,
    }
}

fn secret() -> Flow {
    Flow::ClientCredentials { client_id: "app".into(), client_secret: Hidden::new("CANARY-secret") }
}

impl World {
    async fn token(&self) -> Result<Arc<Token>, NoToken> {
        self.identity.token(None, &self.tasks).await
    }

    fn logins(&self) -> usize {
        self.requests.lock().len()
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_in_brings_a_token_and_tells_the_user() {
    let world = world(secret(), vec![Does::Grants("00D!one")]);
    let unknown = world.identity.principal();
    assert!(world.identity.fresh(world.clock.now()).is_none());
    let token = world.token().await.unwrap();
    assert_eq!(token.authorization(), "Bearer 00D!one");
    assert_eq!(token.session(), "00D!one");
    assert!(world.identity.fresh(world.clock.now()).is_some());
    assert_eq!(world.identity.user().unwrap().user, "005000000000001");
    assert_ne!(world.identity.principal(), unknown);
    let request = world.requests.lock()[0].clone();
    assert!(request.starts_with("POST /services/oauth2/token HTTP/1.1\r\nhost: login.example\r\n"), "{request}");
    assert!(request.ends_with("grant_type=client_credentials&client_id=app&client_secret=CANARY-secret"), "{request}");
}

#[tokio::test(start_paused = true)]
async fn a_hundred_callers_with_a_rejected_token_make_one_log_in() {
    let world = Arc::new(world(secret(), vec![Does::Grants("00D!one"), Does::Grants("00D!two")]));
    let first = world.token().await.unwrap();
    tokio::time::advance(Duration::from_mins(1)).await;
    let mut callers = Vec::new();
    for _ in 0..100 {
        let (world, epoch) = (Arc::clone(&world), first.epoch());
        callers.push(async move {
            world.identity.rejected(epoch, world.clock.now());
            world.token().await.unwrap().session().clone()
        });
    }
    for session in futures_util::future::join_all(callers).await {
        assert_eq!(session, "00D!two");
    }
    assert_eq!(world.logins(), 2);
    assert_eq!(world.identity.snapshot().waiting, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refused_log_in_tells_everybody_at_once_and_is_not_repeated() {
    let world = world(secret(), vec![Does::Says(400, r#"{"error":"invalid_grant"}"#)]);
    let callers = futures_util::future::join_all((0..100).map(|_| world.token())).await;
    let refused = NoToken { why: Trouble::Refused, again: None };
    assert!(callers.into_iter().all(|caller| caller.unwrap_err() == refused));
    for _ in 0..1_000 {
        tokio::time::advance(Duration::from_mins(1)).await;
        let before = world.clock.now();
        assert_eq!(world.token().await.unwrap_err(), refused);
        assert_eq!(world.clock.now(), before, "told at once");
    }
    assert_eq!(world.logins(), 1);
    let snapshot = world.identity.snapshot();
    assert_eq!((snapshot.state, snapshot.trouble, snapshot.refused), (State::Refused, Some(Trouble::Refused), 1));
}

#[tokio::test(start_paused = true)]
async fn a_log_in_that_fails_is_tried_once_in_each_back_off_step() {
    let world = world(secret(), vec![Does::Says(503, "<html>"), Does::HangsUp, Does::Grants("00D!one")]);
    assert_eq!(world.token().await.unwrap_err().why, Trouble::Unavailable);
    let mut refused = 0;
    while let Err(none) = world.token().await {
        assert!(none.again.is_some());
        refused += 1;
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    assert_eq!(world.logins(), 3);
    assert!(refused > 20, "{refused} callers were told at once");
    assert_eq!(world.identity.snapshot().state, State::Fresh);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_never_answers_is_given_up() {
    let world = world(secret(), vec![Does::Hangs]);
    let before = world.clock.now();
    assert_eq!(world.token().await.unwrap_err().why, Trouble::Unreachable);
    assert!(world.clock.now() - before < Duration::from_secs(25));
}

#[tokio::test(start_paused = true)]
async fn a_caller_waits_no_longer_than_its_deadline_and_the_log_in_goes_on() {
    let world = world(secret(), vec![Does::Grants("00D!one")]);
    let deadline = world.clock.now() + Duration::from_millis(200);
    assert!(world.identity.token(Some(deadline), &world.tasks).await.is_err());
    assert_eq!(world.clock.now(), deadline);
    world.tasks.idle().await;
    assert!(world.identity.fresh(world.clock.now()).is_some());
    assert_eq!(world.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_keeps_nobody_waiting() {
    let world = world(secret(), vec![Does::Grants("00D!one"), Does::Grants("00D!two")]);
    world.token().await.unwrap();
    tokio::time::advance(Duration::from_hours(2) * 4 / 5).await;
    let before = world.clock.now();
    assert!(world.identity.fresh(before).is_none(), "due");
    assert_eq!(world.token().await.unwrap().session(), "00D!one");
    assert_eq!(world.clock.now(), before);
    world.tasks.idle().await;
    assert_eq!(world.token().await.unwrap().session(), "00D!two");
    assert_eq!(world.logins(), 2);
}

#[test]
fn a_log_in_whose_runtime_stops_leaves_the_way_free() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let first = runtime();
    let world = first.block_on(async {
        let world = world(secret(), vec![Does::Hangs, Does::Grants("00D!one")]);
        let waiting = world.token();
        assert!(tokio::time::timeout(Duration::from_millis(10), waiting).await.is_err());
        assert_eq!(world.identity.snapshot().state, State::Refreshing);
        world
    });
    drop(first);
    let snapshot = runtime().block_on(async { world.identity.snapshot() });
    assert_eq!((snapshot.state, snapshot.trouble), (State::BackOff, Some(Trouble::Interrupted)));
}

#[tokio::test(start_paused = true)]
async fn a_reload_keeps_the_token_and_forgets_a_refusal() {
    let world = world(secret(), vec![Does::Says(400, r#"{"error":"invalid_grant"}"#), Does::Grants("00D!one")]);
    assert!(world.token().await.is_err());
    let reloaded = Identity::continued(settings(secret(), &world.connector), &world.identity);
    assert_eq!(reloaded.token(None, &world.tasks).await.unwrap().session(), "00D!one");
    assert!(world.identity.fresh(world.clock.now()).is_some(), "calls under the earlier configuration have it too");
}

#[tokio::test(start_paused = true)]
async fn nothing_shows_a_secret_or_a_token() {
    let world = world(secret(), vec![Does::Grants("00D!CANARY")]);
    let token = world.token().await.unwrap();
    let shown = format!(
        "{:?} {token:?} {:?} {:?}",
        world.identity,
        token.authorization(),
        serde_json::to_string(&world.identity.snapshot()).unwrap()
    );
    assert!(!shown.contains("CANARY"), "{shown}");
}
