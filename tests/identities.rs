//! Promise: apps need no Salesforce account. The gateway logs in once for all of them, and takes their keys wherever a
//! session may stand.

use std::time::Duration;

use serde_json::{Value, json};
use weirkeeper::config::key;
use weirkeeper::exchange::vault::State;
use weirkeeper::sim::{Fault, FaultAction, SimApp, SimConfig, SimSessions};

use crate::client::{Answer as _, Client, encoded, envelope, gzip};
use crate::world::{ORIGIN, World, small};

/// What forms are.
pub const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
/// Whom the identity is at Salesforce.
pub const INTEGRATION: &str = "integration@sim.example";

/// An org whose identity the gateway holds, an app that acts as it, and one that brings its own sessions.
pub struct House {
    /// Everything.
    pub world: World,
    /// The app's key.
    pub key: String,
}

/// The configuration: `digest` of the app's key, the identity, and further sections.
pub fn yaml(digest: &str, identity: &str, more: &str) -> String {
    format!(
        "orgs:
- name: prod
  instance_url: 'http://{ORIGIN}'
  hosts: [sf.internal]
  public_url: 'https://sf.acme.internal'
  auth: {{integration: {identity}}}
gateway_tokens: {{keys: [{{file: 0123456789abcdef0123456789abcdef.secret}}], lifetime: 30m}}
callers:
- {{name: shop, match: {{key_sha256: '{digest}'}}, act_as: integration}}
- {{name: anyone, match: any}}
{more}"
    )
}

/// An identity by client credentials.
pub const SECRET: &str =
    "{flow: client_credentials, client_id: 3MVGsim.app, client_secret: {file: sim-app-secret.secret}}";

impl House {
    /// One whose identity logs in by client credentials.
    pub fn new() -> Self {
        Self::with(small(), SECRET)
    }

    fn with(simulated: SimConfig, identity: &str) -> Self {
        let key = key::generate().unwrap().to_string();
        let world = World::with(simulated, &yaml(&key::sha256_hex(&key), identity, ""));
        world.secret(&key);
        Self { world, key }
    }

    /// Sessions of Salesforce that end after a minute without use.
    fn forgetful() -> Self {
        let sessions = SimSessions { idle_seconds: 60, ..SimSessions::default() };
        Self::with(SimConfig { sessions, ..small() }, SECRET)
    }

    /// A client of the app that shows its key as a session.
    pub fn app(&self) -> Client {
        self.client("Bearer", &self.key)
    }

    /// A client that shows `session`.
    pub fn client(&self, scheme: &str, session: &str) -> Client {
        self.world.client().with("authorization", &format!("{scheme} {session}"))
    }

    /// A client that shows nothing.
    pub fn nobody(&self) -> Client {
        self.world.client().without("authorization")
    }

    /// What a log-in with this form gets.
    pub async fn token_answer(&self, form: &str) -> (u16, Value) {
        let answer = self.nobody().send("POST", "/services/oauth2/token", &[FORM], form.to_owned()).await;
        (answer.code(), answer.json())
    }

    /// A gateway token.
    pub async fn log_in(&self) -> String {
        let form = format!("grant_type=client_credentials&client_id=shop&client_secret={}", encoded(&self.key));
        let (status, answer) = self.token_answer(&form).await;
        assert_eq!(status, 200, "{answer}");
        let token = answer["access_token"].as_str().unwrap().to_owned();
        self.world.secret(&token);
        token
    }

    fn last_user(&self) -> String {
        self.world.sim.requests().pop().unwrap().user
    }
}

/// A query as SOAP wants it.
pub fn soap_query(session: &str) -> String {
    envelope(session, "<q:query><q:queryString>SELECT Id FROM Account LIMIT 1</q:queryString></q:query>")
}

#[tokio::test(start_paused = true)]
async fn a_key_is_taken_wherever_a_session_may_stand() {
    let house = House::new();
    for scheme in ["Bearer", "OAuth"] {
        assert_eq!(house.client(scheme, &house.key).get("limits").await.code(), 200, "{scheme}");
        assert_eq!(house.last_user(), INTEGRATION);
    }
    let mut by_header = house.nobody().with("weirkeeper-key", &house.key);
    assert_eq!(by_header.get("sobjects/Account/describe").await.code(), 200);
    assert_eq!(house.last_user(), INTEGRATION);

    let job = json!({"operation": "query", "object": "Account", "contentType": "JSON"}).to_string();
    let headers = [("x-sfdc-session", house.key.as_str()), ("content-type", "application/json")];
    let answer = house.nobody().send("POST", "/services/async/62.0/job", &headers, job).await;
    assert_eq!(answer.code(), 201, "{}", answer.text());
    assert_eq!(house.last_user(), INTEGRATION);

    let soap = [("content-type", "text/xml"), ("soapaction", "query")];
    let answer = house.nobody().send("POST", "/services/Soap/u/62.0", &soap, soap_query(&house.key)).await;
    assert!(answer.code() == 200 && answer.text().contains("<size>1</size>"), "{}", answer.text());
    assert_eq!(house.world.sim.counts().logins, 1);
    let line = house.world.last_line().await;
    assert_eq!((&line["caller"], &line["family"]), (&json!("shop"), &json!("soap")));
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_compressed_envelope_gets_the_session_too() {
    let house = House::new();
    let soap = [("content-type", "text/xml"), ("content-encoding", "gzip")];
    let body = gzip(soap_query(&house.key).as_bytes());
    let answer = house.nobody().send("POST", "/services/Soap/u/62.0", &soap, body).await;
    assert!(answer.code() == 200 && answer.text().contains("<size>1</size>"), "{}", answer.text());
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_hundred_calls_with_an_expired_session_make_one_log_in() {
    let house = House::forgetful();
    assert_eq!(house.app().get("limits").await.code(), 200);
    tokio::time::sleep(Duration::from_secs(90)).await;
    let mut apps: Vec<Client> = (0..100).map(|_| house.app()).collect();
    let calls = apps.iter_mut().map(|app| app.get("sobjects/Account/describe"));
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.code(), 200, "{}", answer.text());
    }
    let counts = house.world.sim.counts();
    assert_eq!((counts.logins, counts.by_status[&401]), (2, 100));
    let live = house.world.in_force.load_full();
    let snapshot = live.orgs()[0].identities[0].snapshot();
    assert_eq!((snapshot.state, snapshot.refreshed, snapshot.waiting), (State::Fresh, 2, 0));
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_is_mended_in_each_api_and_writes_happen_once() {
    let house = House::forgetful();
    let mut app = house.app();
    app.get("limits").await;
    let before = count_accounts(&mut app).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(app.post("sobjects/Account", &json!({"Name": "Mended"})).await.code(), 201);
    assert_eq!(count_accounts(&mut app).await, before + 1);

    tokio::time::sleep(Duration::from_secs(90)).await;
    let soap = [("content-type", "text/xml"), ("soapaction", "query")];
    let answer = house.nobody().send("POST", "/services/Soap/u/62.0", &soap, soap_query(&house.key)).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());

    tokio::time::sleep(Duration::from_secs(90)).await;
    let job = json!({"operation": "query", "object": "Account", "contentType": "JSON"}).to_string();
    let headers = [("x-sfdc-session", house.key.as_str()), ("content-type", "application/json")];
    assert_eq!(house.nobody().send("POST", "/services/async/62.0/job", &headers, job).await.code(), 201);

    tokio::time::sleep(Duration::from_secs(90)).await;
    assert_eq!(app.get("/services/oauth2/userinfo").await.json()["preferred_username"], INTEGRATION);
    assert_eq!(house.world.sim.counts().logins, 5);
    let twice = house.world.lines().iter().filter(|line| line["attempts"] == 2).count();
    assert_eq!(twice, 4);
    house.world.close().await;
}

async fn count_accounts(client: &mut Client) -> u64 {
    client.query("SELECT COUNT() FROM Account").await.json()["totalSize"].as_u64().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_401_that_no_log_in_mends_makes_no_log_ins() {
    let house = House::new();
    house.world.sim.script().fault(Fault {
        action: FaultAction::Error {
            status: 401,
            code: "INVALID_SESSION_ID".into(),
            message: "This session is not valid for use with the REST API".into(),
        },
        path: Some("/services/data/".into()),
        ..Fault::default()
    });
    let mut app = house.app();
    for _ in 0..10 {
        let answer = app.get("sobjects/Account/describe").await;
        assert_eq!((answer.code(), answer.error().as_str()), (401, "INVALID_SESSION_ID"), "Salesforce's own");
    }
    assert_eq!(house.world.sim.counts().logins, 1);
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_session_is_mended_for_long_polls_too() {
    let house = House::forgetful();
    let mut app = house.app();
    let hello = json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]);
    for logins in 1..=3 {
        let answer = app.post("/cometd/62.0", &hello).await;
        assert_eq!((answer.code(), &answer.json()[0]["successful"]), (200, &json!(true)), "{}", answer.text());
        assert_eq!(house.world.sim.counts().logins, logins);
        tokio::time::sleep(Duration::from_secs(90)).await;
    }
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_log_in_is_not_repeated_and_everybody_is_told_at_once() {
    let house = House::with(small(), &SECRET.replace("sim-app-secret", "wrong-secret"));
    house.world.secret("wrong-secret");
    let mut apps: Vec<Client> = (0..50).map(|_| house.app()).collect();
    for _ in 0..4 {
        let before = house.world.sim.now();
        for answer in futures_util::future::join_all(apps.iter_mut().map(|app| app.get("limits"))).await {
            assert_eq!((answer.code(), answer.header("weirkeeper-refused")), (403, "identity_refused"));
            assert_eq!(answer.json()[0]["errorCode"], "INSUFFICIENT_ACCESS");
        }
        assert!(house.world.sim.now() - before < Duration::from_secs(1));
        tokio::time::sleep(Duration::from_hours(1)).await;
    }
    let counts = house.world.sim.counts();
    assert_eq!((counts.logins, counts.logins_refused), (0, 1));
    let (status, answer) = house
        .token_answer(&format!("grant_type=client_credentials&client_id=a&client_secret={}", encoded(&house.key)))
        .await;
    assert_eq!((status, &answer[0]["gateway"]["reason"]), (403, &json!("identity_refused")));
    // The operator mends the secret.
    house.world.reload(&yaml(&key::sha256_hex(&house.key), SECRET, ""));
    assert_eq!(house.app().get("limits").await.code(), 200);
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_endpoint_that_is_down_is_asked_once_in_each_step() {
    let house = House::new();
    house.world.line(crate::world::Line::Broken(std::io::ErrorKind::ConnectionRefused));
    let mut app = house.app();
    let mut told = 0;
    for _ in 0..100 {
        let answer = app.get("limits").await;
        assert_eq!((answer.code(), answer.header("weirkeeper-refused")), (503, "identity_unavailable"));
        assert!(!answer.header("retry-after").is_empty());
        told += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let live = house.world.in_force.load_full();
    let snapshot = live.orgs()[0].identities[0].snapshot();
    assert!((3..=5).contains(&snapshot.failed), "{} attempts in ten seconds for {told} calls", snapshot.failed);
    house.world.line(crate::world::Line::Sim);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(app.get("limits").await.code(), 200);
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_ours_never_reaches_salesforce() {
    let house = House::new();
    // A caller without an identity that shows a key, and ways to log in that the facade does not have.
    let other = key::generate().unwrap().to_string();
    let digest = key::sha256_hex(&other);
    house.world.secret(&other);
    house.world.reload(&yaml(
        &key::sha256_hex(&house.key),
        SECRET,
        &format!("- {{name: plain, match: {{key_sha256: '{digest}'}}}}\n"),
    ));
    let answer = house.client("Bearer", &other).get("limits").await;
    assert_eq!((answer.code(), answer.header("weirkeeper-refused")), (400, "bad_credential"));
    assert_eq!(house.client("Bearer", "wk_unknown").get("limits").await.code(), 403);
    for path in [
        "/services/oauth2/authorize",
        "/services/oauth2/singleaccess",
        "/secur/frontdoor.jsp",
        "/services/%6Fauth2/authorize",
    ] {
        let answer = house.app().get(path).await;
        assert_eq!((answer.code(), answer.header("weirkeeper-refused")), (404, "no_such_page"), "{path}");
    }
    let cut = "<Envelope><Header><SessionHeader><sessionId>";
    let answer = house.app().send("POST", "/services/Soap/u/62.0", &[], format!("{cut}x")).await;
    assert_eq!(answer.header("weirkeeper-refused"), "body_malformed", "{}", answer.text());
    let counts = house.world.sim.counts();
    assert_eq!(counts.requests, counts.logins, "nothing but the identity's own log-in");
    // Who brings a session of Salesforce is let through.
    assert_eq!(house.world.client().get("limits").await.code(), 200);
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_other_flows_log_in_too() {
    let refresh_tokens = [("5AepSEED".to_owned(), INTEGRATION.to_owned())].into_iter().collect();
    let apps = vec![SimApp { refresh_tokens, ..SimApp::default() }];
    for identity in [
        "{flow: refresh_token, client_id: 3MVGsim.app, client_secret: {file: sim-app-secret.secret}, refresh_token: {file: 5AepSEED.secret}}",
        "{flow: jwt_bearer, client_id: 3MVGsim.app, username: integration@sim.example, private_key: {file: app.rsa}}",
    ] {
        let house = House::with(SimConfig { apps: apps.clone(), ..small() }, identity);
        let answer = house.app().get("limits").await;
        assert_eq!(answer.code(), 200, "{identity}: {}", answer.text());
        assert_eq!(house.last_user(), INTEGRATION);
        house.world.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn callers_with_their_own_accounts_log_in_through_the_gateway_and_stay_here() {
    let world = World::new("");
    world.reload(&format!(
        "orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', hosts: [sf.internal], public_url: 'https://sf.acme.internal'}}]\n"
    ));
    let mut client = world.client().without("authorization");
    let form = "grant_type=client_credentials&client_id=3MVGsim.app&client_secret=sim-app-secret";
    let answer = client.send("POST", "/services/oauth2/token", &[FORM], form).await.json();
    assert_eq!(answer["instance_url"], "https://sf.acme.internal");
    assert!(answer["id"].as_str().unwrap().starts_with("https://sf.acme.internal/id/00D"));
    let token = answer["access_token"].as_str().unwrap().to_owned();
    world.secret(&token);
    let mut client = client.with("authorization", &format!("Bearer {token}"));
    for coding in ["identity", "gzip"] {
        let resources = client.send("GET", "/services/data/v62.0/", &[("accept-encoding", coding)], "").await;
        let identity = resources.json()["identity"].as_str().unwrap().to_owned();
        assert!(identity.starts_with("https://sf.acme.internal/id/00D"), "{identity}");
        assert_eq!(resources.header("content-length"), resources.body().len().to_string(), "{coding}");
        let info = client.send("GET", "/services/oauth2/userinfo", &[("accept-encoding", coding)], "").await.json();
        assert!(info["urls"]["rest"].as_str().unwrap().starts_with("https://sf.acme.internal/"), "{info}");
    }
    let users = &world.sim.config().users;
    let (name, password) = (users[0].username.clone(), users[0].password.clone());
    world.secret(&password);
    let login =
        envelope("", &format!("<q:login><q:username>{name}</q:username><q:password>{password}</q:password></q:login>"));
    let soap = [("content-type", "text/xml"), ("soapaction", "login")];
    let text = client.send("POST", "/services/Soap/u/62.0", &soap, login).await.text();
    assert!(text.contains("<serverUrl>https://sf.acme.internal/services/Soap/u/62.0/"), "{text}");
    assert!(text.contains("<metadataServerUrl>https://sf.acme.internal/services/Soap/m/62.0/"), "{text}");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_known_address_nothing_is_rewritten() {
    let world = World::new("");
    let resources = world.client().get("/services/data/v62.0/").await.json();
    assert!(resources["identity"].as_str().unwrap().starts_with(&format!("https://{ORIGIN}/")), "{resources}");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_streamed_body_is_not_repeated_but_the_next_call_has_a_new_session() {
    let sessions = SimSessions { idle_seconds: 60, ..SimSessions::default() };
    let key = key::generate().unwrap().to_string();
    let yaml = yaml(&key::sha256_hex(&key), SECRET, "limits: {stream_above: 1KiB}\n");
    let house = House { world: World::with(SimConfig { sessions, ..small() }, &yaml), key };
    assert_eq!(house.app().get("limits").await.code(), 200);
    tokio::time::sleep(Duration::from_secs(90)).await;
    let long = json!({"Name": "x".repeat(100), "Description": "y".repeat(10_000)});
    let answer = house.app().post("sobjects/Account", &long).await;
    assert_eq!((answer.code(), answer.error().as_str()), (401, "INVALID_SESSION_ID"), "Salesforce's own");
    assert_eq!(house.app().post("sobjects/Account", &long).await.code(), 201);
    assert_eq!(house.world.sim.counts().logins, 2);
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_json_web_token_that_soap_refuses_is_not_renewed_without_end() {
    let house = House::new();
    // An org that issues JSON Web Tokens, which its SOAP API does not take.
    house.world.origin(|stream| async move {
        let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
            let path = request.uri().path().to_owned();
            let (status, body) = if path == "/services/oauth2/token" {
                (200, r#"{"access_token":"eyJh.e30.x","id":"https://x/id/00D000000000001/005000000000001"}"#)
            } else {
                (500, "<s:Envelope><s:Body><s:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode></s:Fault></s:Body></s:Envelope>")
            };
            let answer = http::Response::builder().status(status).body(http_body_util::Full::new(bytes::Bytes::from(body)));
            Ok::<_, std::convert::Infallible>(answer.unwrap())
        });
        let io = hyper_util::rt::TokioIo::new(stream);
        let _ended = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
    });
    house.world.counts_more(3);
    for _ in 0..3 {
        let soap = [("content-type", "text/xml"), ("soapaction", "query")];
        let answer = house.nobody().send("POST", "/services/Soap/u/62.0", &soap, soap_query(&house.key)).await;
        assert_eq!(answer.code(), 500);
    }
    let live = house.world.in_force.load_full();
    assert_eq!(live.orgs()[0].identities[0].snapshot().refreshed, 1);
    house.world.close().await;
}
