//! Token flows, sessions, identity.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Caller, Reply, config};
use crate::sim::{Sim, SimApp, SimConfig, SimSessions};

const APP: &str = "client_id=3MVGsim.app&client_secret=sim-app-secret";

async fn token(caller: &mut Caller, form: &str) -> Reply {
    caller.send("POST", "/services/oauth2/token", form).await.unwrap()
}

fn error(reply: &Reply) -> (u16, String, String) {
    let body = reply.json();
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    (reply.status, text("error"), text("error_description"))
}

#[tokio::test(start_paused = true)]
async fn client_credentials_give_a_session_of_the_run_as_user() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "").await;
    let reply = token(&mut caller, &format!("grant_type=client_credentials&{APP}")).await;
    assert_eq!((reply.status, reply.header("cache-control")), (200, "no-store"));
    let body = reply.json();
    assert!(body.get("expires_in").is_none() && body.get("refresh_token").is_none());
    assert_eq!(body["instance_url"], "https://sim.my.salesforce.com");
    assert!(body["id"].as_str().unwrap().starts_with("https://sim.my.salesforce.com/id/00D"));
    assert!(body["issued_at"].as_str().unwrap().parse::<u64>().is_ok());
    let session = body["access_token"].as_str().unwrap().to_owned();
    assert!(session.starts_with("00DWk0000000001!"), "{session}");
    let mut user = Caller::with_token(&sim, &session).await;
    assert_eq!(user.get("limits").await.status, 200);
    let info = user.get("/services/oauth2/userinfo").await.json();
    assert_eq!(info["preferred_username"], "integration@sim.example");
    assert!(
        info["urls"]["rest"].as_str().unwrap().starts_with("https://sim.my.salesforce.com/services/data/v{version}/")
    );
    let identity = user.get(body["id"].as_str().unwrap().trim_start_matches("https://sim.my.salesforce.com")).await;
    assert_eq!(identity.json()["username"], "integration@sim.example");
    // Neither the login nor the identity is charged by default.
    assert_eq!((sim.counts().charged, sim.counts().logins), (1, 1));
    let form =
        format!("token={}&{APP}", percent_encoding::utf8_percent_encode(&session, percent_encoding::NON_ALPHANUMERIC));
    let shown = caller.send("POST", "/services/oauth2/introspect", &form).await.unwrap().json();
    assert_eq!((shown["active"].clone(), shown["username"].clone()), (json!(true), json!("integration@sim.example")));
    assert_eq!(caller.send("POST", "/services/oauth2/revoke", &form).await.unwrap().status, 200);
    assert_eq!(user.get("limits").await.code(), "INVALID_SESSION_ID");
    assert_eq!(user.get("/services/oauth2/userinfo").await.status, 403);
}

#[tokio::test(start_paused = true)]
async fn logins_are_refused_in_their_own_words() {
    let mut caller = Caller::of(&Sim::new(config()), "").await;
    for (form, code, description) in [
        (
            "grant_type=client_credentials&client_id=3MVGsim.app&client_secret=x".to_owned(),
            "invalid_client",
            "invalid client credentials",
        ),
        (format!("grant_type=client_credentials&scope=api&{APP}"), "invalid_request", "scope parameter not supported"),
        (
            format!("grant_type=password&username=admin@sim.example&password=x&{APP}"),
            "invalid_grant",
            "authentication failure",
        ),
        (format!("grant_type=refresh_token&refresh_token=x&{APP}"), "invalid_grant", "expired access/refresh token"),
        (format!("grant_type=authorization_code&code=x&{APP}"), "invalid_grant", "expired authorization code"),
        (format!("grant_type=magic&{APP}"), "unsupported_grant_type", "grant type not supported"),
    ] {
        let refused = error(&token(&mut caller, &form).await);
        assert_eq!(refused, (400, code.to_owned(), description.to_owned()), "{form}");
    }
    assert_eq!(caller.sim.counts().logins_refused, 6);
}

#[tokio::test(start_paused = true)]
async fn passwords_refresh_tokens_and_codes_work() {
    let refresh_tokens = BTreeMap::from([("5AepSEED".to_owned(), "sales@sim.example".to_owned())]);
    let apps = vec![SimApp { refresh_tokens, ..SimApp::default() }];
    let sim = Sim::new(SimConfig { apps, ..config() });
    let mut caller = Caller::of(&sim, "").await;
    let by_password =
        token(&mut caller, &format!("grant_type=password&username=admin%40sim.example&password=secretTOKEN&{APP}"))
            .await;
    assert_eq!(by_password.status, 200);
    let refreshed = token(&mut caller, &format!("grant_type=refresh_token&refresh_token=5AepSEED&{APP}")).await;
    assert_eq!(refreshed.status, 200);
    assert!(refreshed.json().get("refresh_token").is_none());
    let page = caller
        .get("/services/oauth2/authorize?response_type=code&client_id=3MVGsim.app&redirect_uri=https://app/cb&state=s&login_hint=sales@sim.example")
        .await;
    assert_eq!(page.status, 302);
    let target = page.header("location").to_owned();
    let code = target.strip_prefix("https://app/cb?code=").unwrap().strip_suffix("&state=s").unwrap();
    let form = format!("grant_type=authorization_code&code={code}&redirect_uri=https://app/cb&{APP}");
    let granted = token(&mut caller, &form).await.json();
    let refresh = granted["refresh_token"].as_str().unwrap().to_owned();
    assert_eq!(token(&mut caller, &form).await.status, 400);
    assert_eq!(
        token(&mut caller, &format!("grant_type=refresh_token&refresh_token={refresh}&{APP}")).await.status,
        200
    );
    // The sixth grant ends the first one (facts 5.3).
    for n in 0..5 {
        assert!(sim.script().grant_refresh(&format!("more{n}"), "sales@sim.example", "3MVGsim.app"));
    }
    assert_eq!(token(&mut caller, &format!("grant_type=refresh_token&refresh_token=5AepSEED&{APP}")).await.status, 400);
}

fn assertion(key: &KeyPair, claims: &Value) -> String {
    let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"RS256"}"#);
    let signed = format!("{head}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let mut signature = vec![0; key.public_modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test(start_paused = true)]
async fn jwt_bearers_are_verified_and_may_count_in_milliseconds() {
    let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let der: PublicKeyX509Der<'_> = key.public_key().as_der().unwrap();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()));
    let apps = vec![SimApp { public_key_pem: Some(pem), ..SimApp::default() }];
    let sim = Sim::new(SimConfig { apps, ..config() });
    let mut caller = Caller::of(&sim, "").await;
    let now = sim.now().as_secs();
    let claims = |exp: Value| json!({"iss": "3MVGsim.app", "sub": "sales@sim.example", "aud": "https://login.salesforce.com", "exp": exp});
    let form =
        |assertion: String| format!("grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer&assertion={assertion}");
    for exp in [json!(now + 180), json!((now + 300) * 1_000), json!((now + 60).to_string())] {
        let reply = token(&mut caller, &form(assertion(&key, &claims(exp.clone())))).await;
        assert_eq!(reply.status, 200, "{exp}");
    }
    let expired = token(&mut caller, &form(assertion(&key, &claims(json!(now - 1))))).await;
    assert_eq!(error(&expired).1, "invalid_grant");
    let mut wrong = claims(json!(now + 60));
    wrong["aud"] = json!("https://elsewhere.example");
    assert_eq!(error(&token(&mut caller, &form(assertion(&key, &wrong))).await).2, "Audience validation failed");
    let stranger = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let forged = token(&mut caller, &form(assertion(&stranger, &claims(json!(now + 60))))).await;
    assert_eq!(error(&forged).2, "invalid assertion");
    let mut unknown = claims(json!(now + 60));
    unknown["prn"] = json!("nobody@sim.example");
    assert_eq!(
        error(&token(&mut caller, &form(assertion(&key, &unknown))).await).2,
        "user hasn't approved this consumer"
    );
    assert_eq!(token(&mut caller, &form("a.b".to_owned())).await.status, 400);
}

#[tokio::test(start_paused = true)]
async fn logins_are_rated_by_user_and_hour() {
    let sessions = SimSessions { logins_per_hour: 3, ..SimSessions::default() };
    let sim = Sim::new(SimConfig { sessions, ..config() });
    let mut caller = Caller::of(&sim, "").await;
    let form = format!("grant_type=client_credentials&{APP}");
    for _ in 0..3 {
        assert_eq!(token(&mut caller, &form).await.status, 200);
    }
    assert_eq!(error(&token(&mut caller, &form).await).1, "login_rate_exceeded");
    sim.script().advance(Duration::from_hours(1));
    assert_eq!(token(&mut caller, &form).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn sessions_made_by_logins_end_when_idle() {
    let sim = Sim::new(config());
    let mut caller = Caller::of(&sim, "").await;
    let session =
        token(&mut caller, &format!("grant_type=client_credentials&{APP}")).await.json()["access_token"].clone();
    let mut user = Caller::with_token(&sim, session.as_str().unwrap()).await;
    sim.script().advance(Duration::from_secs(7_100));
    assert_eq!(user.get("sobjects").await.status, 200);
    sim.script().advance(Duration::from_secs(7_300));
    assert_eq!(user.get("sobjects").await.status, 401);
}

#[tokio::test(start_paused = true)]
async fn both_schemes_carry_a_session() {
    let sim = Sim::new(config());
    for scheme in ["Bearer", "OAuth"] {
        let session = format!("{scheme} {}", super::token("admin"));
        let mut caller = Caller::of(&sim, "").await.with("authorization", &session);
        assert_eq!(caller.get("sobjects").await.status, 200, "{scheme}");
    }
}
