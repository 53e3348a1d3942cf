//! Promise: an app logs in at the gateway as it would at Salesforce. Its token is as good as Salesforce's to any client, and
//! worth nothing anywhere else; what proves nothing is refused in Salesforce's own words, and held back.

use std::time::Duration;

use serde_json::json;
use weirkeeper::config::key;
use weirkeeper::edge::Connection;

use crate::client::{Answer as _, Client, encoded, envelope};
use crate::identities::{FORM, House, INTEGRATION, SECRET, soap_query, yaml};
use crate::world::{World, small};

#[tokio::test(start_paused = true)]
async fn each_grant_brings_a_token_that_works_like_a_session() {
    let house = House::new();
    let key = encoded(&house.key);
    for form in [
        format!("grant_type=client_credentials&client_id=shop&client_secret={key}"),
        format!("grant_type=password&username=shop&password={key}&client_id=x&client_secret=y"),
        format!("grant_type=password&username=shop&password={key}SecurityToken&client_id=x&client_secret=y"),
        format!("grant_type=password&username=shop&password=p&client_id=x&client_secret={key}"),
        format!("grant_type=password&username=shop&password={key}&client_id=x&client_secret={key}"),
        format!("grant_type=refresh_token&refresh_token={key}&client_id=x&client_secret=y"),
    ] {
        let (status, answer) = house.token_answer(&form).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["instance_url"], "https://sf.acme.internal");
        let token = answer["access_token"].as_str().unwrap();
        let (org, _) = token.split_once('!').unwrap();
        let id = answer["id"].as_str().unwrap();
        assert!(id.starts_with(&format!("https://sf.acme.internal/id/{org}")), "{id}");
        assert!(answer.get("refresh_token").is_none() && answer.get("expires_in").is_none());
        house.world.secret(token);
        assert_eq!(house.client("Bearer", token).get("limits").await.code(), 200);
        // What `id` leads to is Salesforce's own document, which points back here.
        let document = house.client("Bearer", token).get(id.trim_start_matches("https://sf.acme.internal")).await;
        assert_eq!(document.json()["username"], INTEGRATION);
        let rest = document.json()["urls"]["rest"].as_str().unwrap().to_owned();
        assert!(rest.starts_with("https://sf.acme.internal/services/data/v{version}/"), "{rest}");
    }
    assert_eq!(house.world.sim.counts().logins, 1);
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_soap_log_in_brings_a_session_and_a_log_out_ends_only_that() {
    let house = House::new();
    let login = |password: &str| {
        envelope("", &format!("<q:login><q:username>shop</q:username><q:password>{password}</q:password></q:login>"))
    };
    let soap = [("content-type", "text/xml"), ("soapaction", "login")];
    let answer = house.nobody().send("POST", "/services/Soap/u/62.0", &soap, login(&house.key)).await;
    assert_eq!(answer.code(), 200, "{}", answer.text());
    let text = answer.text();
    let element = |name: &str| {
        let from = text.find(&format!("<{name}>")).unwrap() + name.len() + 2;
        text[from..from + text[from..].find('<').unwrap()].to_owned()
    };
    let (session, server) = (element("sessionId"), element("serverUrl"));
    house.world.secret(&session);
    assert!(server.starts_with("https://sf.acme.internal/services/Soap/u/62.0/00D"), "{server}");
    let path = server.trim_start_matches("https://sf.acme.internal");
    let mut client = house.nobody();
    assert_eq!(client.send("POST", path, &soap, soap_query(&session)).await.code(), 200);
    assert_eq!(client.send("POST", path, &soap, envelope(&session, "<q:logout/>")).await.code(), 200);
    let refused = client.send("POST", path, &soap, soap_query(&session)).await;
    assert_eq!(refused.code(), 500);
    assert!(refused.text().contains("<faultcode>sf:INVALID_SESSION_ID</faultcode>"), "{}", refused.text());
    // The session all callers share goes on.
    assert_eq!(house.app().get("limits").await.code(), 200);
    assert_eq!(house.world.sim.counts().logins, 1);
    let wrong = house.nobody().send("POST", "/services/Soap/u/62.0", &soap, login("wrong")).await;
    assert!(wrong.code() == 500 && wrong.text().contains("INVALID_LOGIN"), "{}", wrong.text());
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_works_after_a_restart_and_on_a_second_process_with_the_same_keys() {
    let first = House::new();
    let token = first.log_in().await;
    let digest = key::sha256_hex(&first.key);
    first.world.close().await;
    let second = World::with(small(), &yaml(&digest, SECRET, ""));
    second.secret(&token);
    let answer = second.client().with("authorization", &format!("Bearer {token}")).get("limits").await;
    assert_eq!(answer.code(), 200);
    // Keys are rotated: the old one still opens.
    let keys =
        "keys: [{file: fedcba9876543210fedcba9876543210.secret}, {file: 0123456789abcdef0123456789abcdef.secret}]";
    let old_keys = "keys: [{file: 0123456789abcdef0123456789abcdef.secret}]";
    second.reload(&yaml(&digest, SECRET, "").replace(old_keys, keys));
    assert_eq!(second.client().with("authorization", &format!("Bearer {token}")).get("limits").await.code(), 200);
    // And then it is retired.
    second.reload(
        &yaml(&digest, SECRET, "").replace("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"),
    );
    assert_eq!(second.client().with("authorization", &format!("Bearer {token}")).get("limits").await.code(), 401);
    second.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_token_is_refused_in_the_shape_of_each_api() {
    let house = House::new();
    let good = house.log_in().await;
    let forged = format!("{}x", good.strip_suffix(|_: char| true).unwrap());
    let foreign = "00D000000000001!wk1.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned();
    for (bad, wait) in [(forged, 0), (foreign, 0), (good, 31 * 60)] {
        tokio::time::sleep(Duration::from_secs(wait)).await;
        let answer = house.client("Bearer", &bad).get("limits").await;
        assert_eq!((answer.code(), answer.header("weirkeeper-refused")), (401, "session_invalid"), "{bad}");
        assert_eq!(answer.json()[0]["errorCode"], "INVALID_SESSION_ID");
        assert_eq!(answer.json()[0]["message"], "Session expired or invalid");
        let soap = [("content-type", "text/xml"), ("soapaction", "query")];
        let answer = house.nobody().send("POST", "/services/Soap/u/62.0", &soap, soap_query(&bad)).await;
        assert_eq!(answer.code(), 500);
        assert!(answer.text().contains("<faultcode>sf:INVALID_SESSION_ID</faultcode>"), "{}", answer.text());
        let headers = [("x-sfdc-session", bad.as_str())];
        let answer = house.nobody().send("GET", "/services/async/62.0/job/750000000000001", &headers, "").await;
        assert_eq!(answer.code(), 400);
        assert!(answer.text().contains("<exceptionCode>InvalidSessionId</exceptionCode>"), "{}", answer.text());
        let headers = [("x-sfdc-session", bad.as_str()), ("accept", "application/json")];
        let answer = house.nobody().send("GET", "/services/async/62.0/job/750000000000001", &headers, "").await;
        assert_eq!((answer.code(), &answer.json()["exceptionCode"]), (400, &json!("InvalidSessionId")));
    }
    assert_eq!(house.world.sim.counts().requests, 1, "the log-in of the identity");
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn tokens_are_introspected_and_given_back() {
    let house = House::new();
    let token = house.log_in().await;
    let secret = format!("client_id=shop&client_secret={}", encoded(&house.key));
    let ask = async |token: &str, with: &str| {
        let form = format!("token={}&{with}", encoded(token));
        house.nobody().send("POST", "/services/oauth2/introspect", &[FORM], form).await
    };
    let said = ask(&token, &secret).await.json();
    assert_eq!((&said["active"], &said["username"]), (&json!(true), &json!("shop")));
    assert_eq!(said["exp"].as_u64().unwrap(), house.world.sim.now().as_secs() + 30 * 60);
    assert_eq!(ask("00D000000000001!wk1.x", &secret).await.json(), json!({"active": false}));
    assert_eq!(ask(&token, "").await.code(), 400);

    let mut client = house.client("Bearer", &token);
    assert_eq!(client.get("limits").await.code(), 200);
    let form = format!("token={}", encoded(&token));
    assert_eq!(house.nobody().send("POST", "/services/oauth2/revoke", &[FORM], form.clone()).await.code(), 200);
    assert_eq!(client.get("limits").await.code(), 401, "also on a connection that knew it");
    assert_eq!(ask(&token, &secret).await.json(), json!({"active": false}));
    assert_eq!(house.nobody().send("POST", "/services/oauth2/revoke", &[FORM], form).await.code(), 400);
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn wrong_log_ins_are_refused_in_the_words_of_oauth_and_held_back_when_there_are_many() {
    let house = House::new();
    let wrong = "grant_type=client_credentials&client_id=a&client_secret=wrong";
    for _ in 0..20 {
        let (status, answer) = house.token_answer(wrong).await;
        assert_eq!((status, &answer["error"]), (400, &json!("invalid_client")));
    }
    let right = format!("grant_type=client_credentials&client_id=a&client_secret={}", encoded(&house.key));
    let (status, answer) = house.token_answer(&right).await;
    assert_eq!((status, &answer[0]["gateway"]["reason"]), (429, &json!("login_limited")));
    let elsewhere = || Connection::new(([192, 0, 2, 99], 40_000).into(), 0);
    let mut other = house.world.client_on(elsewhere).without("authorization");
    assert_eq!(other.send("POST", "/services/oauth2/token", &[FORM], right.clone()).await.code(), 200);
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(house.token_answer(&right).await.0, 200);
    let live = house.world.in_force.load_full();
    let figures = live.orgs()[0].facade.as_ref().unwrap().snapshot("prod");
    assert_eq!((figures.logins_granted, figures.logins_denied, figures.logins_limited), (2, 20, 1));
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_beside_a_right_one_proves_nothing() {
    let house = House::new();
    let (other, unknown) = (key::generate().unwrap().to_string(), key::generate().unwrap().to_string());
    house.world.secret(&other);
    house.world.reload(&yaml(
        &key::sha256_hex(&house.key),
        SECRET,
        &format!("- {{name: billing, match: {{key_sha256: '{}'}}, act_as: integration}}\n", key::sha256_hex(&other)),
    ));
    for wrong in [other.as_str(), &unknown, "wk_damaged"] {
        for (password, secret) in [(wrong, house.key.as_str()), (house.key.as_str(), wrong)] {
            let (password, secret) = (encoded(password), encoded(secret));
            let form =
                format!("grant_type=password&username=shop&password={password}&client_id=x&client_secret={secret}");
            let (status, answer) = house.token_answer(&form).await;
            assert_eq!((status, &answer["error"]), (400, &json!("invalid_grant")), "{wrong}");
        }
        if wrong != other {
            let form = format!("grant_type=refresh_token&refresh_token={}&client_id=x", encoded(wrong));
            assert_eq!(house.token_answer(&form).await.1["error"], "invalid_grant");
        }
    }
    assert_eq!(house.world.sim.counts().requests, 0);
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn attempts_side_by_side_are_counted_one_by_one() {
    let house = House::new();
    let wrong = "grant_type=client_credentials&client_id=a&client_secret=wrong";
    let mut clients: Vec<Client> = (0..100).map(|_| house.nobody()).collect();
    let tries = clients.iter_mut().map(|client| client.send("POST", "/services/oauth2/token", &[FORM], wrong));
    let answers = futures_util::future::join_all(tries).await;
    let denied = answers.iter().filter(|answer| answer.code() == 400).count();
    let limited = answers.iter().filter(|answer| answer.code() == 429).count();
    assert_eq!((denied, limited), (20, 80));
    house.world.close().await;
}
