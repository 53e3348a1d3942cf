//! Promise: everybody is known by what he can prove, does what his rules allow, and Salesforce is told who asked.

use std::time::Duration;

use http::Response;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use weirkeeper::config::key;
use weirkeeper::edge::{Connection, PeerCertificate};

use crate::client::{Answer as _, Client, envelope, gzip, token};
use crate::world::{ORIGIN, World};

/// A caller of every kind, and what proves two of them.
struct Company {
    world: World,
    key: String,
    signer: EncodingKey,
}

impl Company {
    fn new() -> Self {
        let key = key::generate().unwrap().to_string();
        let digest = key::sha256_hex(&key);
        let world = World::new(&format!(
            "trusted_proxies: [10.0.0.0/8]
listeners: [{{address: '127.0.0.1:8443', tls: {{certificate: a.crt, key: a.key, client_ca: ca.crt}}}}]
orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', hosts: [sf.internal, billing.internal]}}]
callers:
- {{name: by-key, match: {{key_sha256: '{digest}'}}, class: interactive}}
- {{name: by-name, match: {{certificate: {{common_name: crm}}}}}}
- {{name: by-uri, match: {{certificate: {{uri: 'spiffe://acme/etl'}}}}}}
- {{name: by-host, match: {{host: billing.internal}}}}
- {{name: by-network, match: {{network: 203.0.113.0/24}}}}
- {{name: by-client, match: {{call_options_client: DataLoader}}}}
- name: by-token
  match: {{jwt: {{issuer: 'https://id.acme', audience: weirkeeper, subject: nightly, jwks: {{file: keys.json}}}}}}
- {{name: anyone, match: any, class: standard}}
"
        ));
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let signer = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let public = Jwk::from_encoding_key(&signer, Algorithm::ES256).unwrap();
        let set = serde_json::to_vec(&JwkSet { keys: vec![public] }).unwrap();
        world.in_force.load().issuers.list()[0].put(&set).unwrap();
        world.secret(&key);
        Self { world, key, signer }
    }

    /// A token of the company's identity provider that is good for a minute, but for what `change` does to its claims.
    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let expires = self.world.sim.now().as_secs() + 60;
        let mut claims = json!({"iss": "https://id.acme", "aud": "weirkeeper", "sub": "nightly", "exp": expires});
        change(&mut claims);
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.signer).unwrap();
        self.world.secret(&token);
        token
    }

    /// A client whose connection comes from `peer` and shows `certificate`.
    fn from(&self, peer: [u8; 4], certificate: Option<PeerCertificate>) -> Client {
        self.world.client_on(move || Connection::new((peer, 40_000).into(), 0).secured(certificate.clone()))
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_caller_is_known_and_named_to_salesforce() {
    let company = Company::new();
    let certificate = |name: Option<&str>, uri: &str| {
        Some(PeerCertificate {
            common_name: name.map(str::to_owned),
            uris: vec![uri.to_owned()],
            ..PeerCertificate::default()
        })
    };
    let client = || company.world.client();
    let jwt = company.token(|_| {});
    let clients = [
        ("by-key", client().with("weirkeeper-key", &company.key)),
        ("by-token", client().with("weirkeeper-key", &jwt)),
        ("by-name", company.from([192, 0, 2, 1], certificate(Some("crm"), "x"))),
        ("by-uri", company.from([192, 0, 2, 1], certificate(Some("other"), "spiffe://acme/etl"))),
        ("anyone", company.from([192, 0, 2, 1], certificate(Some("CRM"), "spiffe://acme/ETL"))),
        ("by-host", client().host("Billing.Internal:8443")),
        ("by-network", company.from([203, 0, 113, 9], None)),
        (
            "by-network",
            company.from([10, 1, 1, 1], None).with("x-forwarded-for", "198.51.100.1, 203.0.113.9, 10.2.2.2"),
        ),
        ("anyone", company.from([10, 1, 1, 1], None).with("x-forwarded-for", "203.0.113.9, 198.51.100.1")),
        ("anyone", client().with("x-forwarded-for", "203.0.113.9")),
        ("by-client", client().with("sforce-call-options", "client=DataLoader, defaultNamespace=acme")),
        ("anyone", client().with("sforce-call-options", "client=DataLoaderX")),
        // What proves more is believed.
        ("by-key", client().host("billing.internal").with("weirkeeper-key", &company.key)),
        ("by-name", company.from([203, 0, 113, 9], certificate(Some("crm"), "x")).host("billing.internal")),
        ("anyone", client()),
    ];
    for (who, mut client) in clients {
        assert_eq!(client.get("limits").await.code(), 200, "{who}");
        let line = company.world.last_line().await;
        assert_eq!(line["caller"], who, "{line}");
        let seen = company.world.sim.requests().pop().unwrap();
        let options = seen.headers.iter().find(|(name, _)| name == "sforce-call-options").unwrap().1.clone();
        assert!(options.split(", ").any(|option| option == format!("client={who}")), "{options}");
        assert_eq!(options.matches("client=").count(), 1, "{options}");
        let id = seen.headers.iter().find(|(name, _)| name == "x-sfdc-request-id").unwrap().1.clone();
        assert_eq!(line["request_id"], id);
        for (name, _) in &seen.headers {
            assert!(!name.starts_with("weirkeeper-") && !name.contains("forwarded"), "{name} reached Salesforce");
        }
    }
    let by_client = company.world.sim.counts().by_client;
    assert_eq!((by_client["by-key"], by_client["anyone"]), (2, 5));
    company.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_wrong_key_or_token_is_refused_and_never_taken_for_anyone() {
    let company = Company::new();
    let stranger = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let stranger = EncodingKey::from_ec_pem(stranger.serialize_pem().as_bytes()).unwrap();
    let forged = json!({"iss": "https://id.acme", "aud": "weirkeeper", "sub": "nightly", "exp": 4_000_000_000_u64});
    let forged = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &forged, &stranger).unwrap();
    let shared = jsonwebtoken::encode(&Header::default(), &json!({"exp": 1}), &EncodingKey::from_secret(b"x")).unwrap();
    let proofs = [
        key::generate().unwrap().to_string(),
        company.key[..company.key.len() - 1].to_owned(),
        format!("{}x", company.key),
        "CANARY-not-a-key".to_owned(),
        "CANARY.not.token".to_owned(),
        forged,
        shared,
        company.token(|claims| claims["aud"] = json!("elsewhere")),
        company.token(|claims| claims["sub"] = json!("somebody")),
        company.token(|claims| claims["iss"] = json!("https://elsewhere")),
        company.token(|claims| claims["exp"] = json!(1_000_000_000)),
    ];
    let mut client = company.world.client();
    for proof in &proofs {
        company.world.secret(proof);
        let answer = client.send("GET", "limits", &[("weirkeeper-key", proof)], "").await;
        answer.is_refusal(403, "unknown_caller", "INSUFFICIENT_ACCESS");
        assert_eq!(company.world.last_line().await["caller"], "unknown");
    }
    assert!(company.world.sim.requests().is_empty());
    // The same connection with a good key: nothing wrong is remembered.
    assert_eq!(client.send("GET", "limits", &[("weirkeeper-key", &company.key)], "").await.code(), 200);
    company.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn proofs_end_with_their_time_and_with_their_configuration() {
    let company = Company::new();
    let mut nightly = company.world.client().with("weirkeeper-key", &company.token(|_| {}));
    let mut keyed = company.world.client().with("weirkeeper-key", &company.key);
    assert_eq!(nightly.get("limits").await.code(), 200);
    assert_eq!(keyed.get("limits").await.code(), 200);
    tokio::time::sleep(Duration::from_secs(80)).await;
    assert_eq!(nightly.get("limits").await.code(), 200, "clocks may differ by 30 s");
    tokio::time::sleep(Duration::from_secs(20)).await;
    nightly.get("limits").await.is_refusal(403, "unknown_caller", "INSUFFICIENT_ACCESS");
    company.world.reload("callers: [{name: anyone, match: any}]");
    keyed.get("limits").await.is_refusal(403, "unknown_caller", "INSUFFICIENT_ACCESS");
    company.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn without_anyone_strangers_and_unknown_hosts_stay_outside() {
    let world = World::new(&format!(
        "orgs:
- {{name: prod, instance_url: 'http://{ORIGIN}', hosts: [sf.internal]}}
- {{name: test, instance_url: 'http://127.0.0.1:8082', hosts: [test.internal]}}
callers: [{{name: tool, match: {{call_options_client: tool}}}}]
"
    ));
    world.client().get("limits").await.is_refusal(403, "unknown_caller", "INSUFFICIENT_ACCESS");
    let mut lost = world.client().host("CANARY.internal");
    world.secret("CANARY");
    lost.get("limits").await.is_refusal(404, "unknown_org", "NOT_FOUND");
    let mut tool = world.client().with("sforce-call-options", "client=tool").host("test.internal");
    assert_eq!(tool.get("limits").await.code(), 200);
    assert_eq!(world.last_line().await["org"], "test");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_class_can_be_lowered_and_never_raised() {
    let company = Company::new();
    for (key, asked, class) in [
        (true, "", "interactive"),
        (true, "batch", "batch"),
        (true, "standard", "standard"),
        (false, "interactive", "standard"),
        (false, "batch", "batch"),
        (false, "nonsense", "standard"),
    ] {
        let mut client = company.world.client().with("weirkeeper-class", asked);
        if key {
            client = client.with("weirkeeper-key", &company.key);
        }
        assert_eq!(client.get("limits").await.code(), 200);
        assert_eq!(company.world.last_line().await["class"], class, "{asked}");
    }
    company.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn two_credentials_are_refused_and_one_may_stand_twice() {
    let world = World::new("");
    world.secret("CANARY-session");
    let mut client = world.client();
    let two = client.send("GET", "limits", &[("x-sfdc-session", "CANARY-session")], "").await;
    two.is_refusal(400, "bad_credential", "INSUFFICIENT_ACCESS");
    let basic = client.send("GET", "limits", &[("authorization", "Digest CANARY-session")], "").await;
    basic.is_refusal(400, "bad_credential", "INSUFFICIENT_ACCESS");
    let soap = envelope("CANARY-session", "<urn:getUserInfo/>");
    let fault = client.send("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], soap).await;
    assert_eq!((fault.code(), fault.header("weirkeeper-refused")), (500, "bad_credential"));
    assert!(fault.text().contains("<sf:exceptionCode>INSUFFICIENT_ACCESS</sf:exceptionCode>"), "{}", fault.text());
    assert!(world.sim.requests().is_empty());
    let same = client.send("GET", "limits", &[("x-sfdc-session", &token("admin"))], "").await;
    assert_eq!(same.code(), 200);
    let soap = envelope(&token("admin"), "<urn:getUserInfo/>");
    assert_eq!(client.send("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], soap).await.code(), 200);
    world.close().await;
}

const RULES: &str = "callers:
- name: reader
  match: any
  allow:
    families: [rest, query, composite, batch, graph, collections, soap]
    objects: [Account, Lead]
    operations: [read, query, describe, update]
";

/// Requests a caller with [`RULES`] may make.
async fn allowed(client: &mut Client) -> Vec<Response<bytes::Bytes>> {
    let id = client.any("Account").await;
    vec![
        client.get("/services/data/").await,
        client.get(&format!("sobjects/account/{id}")).await,
        client.get("sobjects/Account/describe").await,
        client.query("SELECT Id FROM Account WHERE Id IN (SELECT ConvertedAccountId FROM Lead)").await,
        client.post(&format!("sobjects/Account/{id}?_HttpMethod=PATCH"), &json!({"Phone": "1"})).await,
        client.post("composite", &composite("GET", &format!("sobjects/Account/{id}"))).await,
        client.post("composite/batch", &batch("GET", &format!("v62.0/sobjects/Account/{id}"))).await,
        client.post("composite/sobjects/Account", &json!({"ids": [id], "fields": ["Id"]})).await,
        client.patch("composite/sobjects", &json!({"records": [record("Account", &id)]})).await,
        soap(client, "<urn:query><urn:queryString>SELECT Id FROM Lead</urn:queryString></urn:query>").await,
    ]
}

/// Requests such a caller may not make, and the word of the rule that refuses.
async fn forbidden(client: &mut Client) -> Vec<(Response<bytes::Bytes>, &'static str)> {
    let json_gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let graph = json!({"graphs": [{"graphId": "g", "compositeRequest": [
        {"method": "GET", "url": "/services/data/v62.0/sobjects/Lead", "referenceId": "a"},
        {"method": "POST", "url": "/services/data/v62.0/sobjects/Lead", "referenceId": "b", "body": {"LastName": "x"}}]}]});
    let hidden =
        json!({"method": "POST", "url": "v62.0/composite", "richInput": composite("DELETE", "sobjects/Lead/1")});
    vec![
        (client.get("sobjects/Contact").await, "Contact"),
        (client.get("sobjects/Contact/describe").await, "Contact"),
        (client.get("limits").await, "limits"),
        (client.post("sobjects/Account", &json!({"Name": "x"})).await, "create"),
        (client.post("sobjects/Account/001?_HttpMethod=DELETE", &json!({})).await, "delete"),
        (client.delete("//services/data/v62.0/sobjects/Account/001").await, "delete"),
        (client.get("sobjects/%43ontact/003").await, "Contact"),
        (client.query("SELECT Id FROM Contact").await, "Contact"),
        (client.query("SELECT Id, (SELECT Id FROM Contacts) FROM Account").await, "relationships"),
        (client.query("SELECT Id FROM Account WHERE Id IN (SELECT AccountId FROM Contact)").await, "Contact"),
        (client.get("tooling/query?q=SELECT+Id+FROM+Account").await, "tooling"),
        (client.get("/services/apexrest/echo").await, "apex"),
        (client.get("/nonsense").await, "other"),
        (client.post("composite", &composite("DELETE", "sobjects/Account/001")).await, "delete"),
        (client.post("composite", &composite("GET", "query?q=SELECT+Id+FROM+Contact")).await, "Contact"),
        (
            client
                .send("POST", "composite", &json_gzip, gzip(composite("GET", "sobjects/Case/5").to_string().as_bytes()))
                .await,
            "Case",
        ),
        (client.post("composite/batch", &batch("GET", "v62.0/sobjects/Contact/003")).await, "Contact"),
        (client.post("composite/batch", &json!({"batchRequests": [hidden]})).await, "delete"),
        (client.post("composite/graph", &graph).await, "create"),
        (client.patch("composite/sobjects", &json!({"records": [record("Contact", "003")]})).await, "Contact"),
        (client.delete("composite/sobjects?ids=001,003").await, "delete"),
        (soap(client, "<urn:create><urn:sObjects><type>Lead</type></urn:sObjects></urn:create>").await, "create"),
        (soap(client, "<urn:query><urn:queryString>SELECT Id FROM Case</urn:queryString></urn:query>").await, "Case"),
    ]
}

fn composite(method: &str, path: &str) -> Value {
    let sub = |method: &str, path: &str, name: &str| json!({"method": method, "url": format!("/services/data/v62.0/{path}"), "referenceId": name});
    json!({"compositeRequest": [sub("GET", "sobjects/Account/describe", "a"), sub(method, path, "b")]})
}

fn batch(method: &str, url: &str) -> Value {
    json!({"batchRequests": [{"method": "GET", "url": "v62.0/sobjects/Lead/describe"}, {"method": method, "url": url}]})
}

fn record(object: &str, id: &str) -> Value {
    json!({"attributes": {"type": object}, "id": id, "Phone": "1"})
}

async fn soap(client: &mut Client, body: &str) -> Response<bytes::Bytes> {
    let body = envelope(&token("admin"), body);
    client.send("POST", "/services/Soap/u/62.0", &[("content-type", "text/xml")], body).await
}

#[tokio::test(start_paused = true)]
async fn rules_are_kept_by_each_call_and_each_call_inside_it() {
    let world = World::new(RULES);
    let mut client = world.client();
    for answer in allowed(&mut client).await {
        assert_eq!(answer.header("weirkeeper-refused"), "", "{}", answer.text());
    }
    let before = world.sim.requests().len();
    let refused = forbidden(&mut client).await;
    let count = refused.len();
    for (answer, word) in refused {
        let text = answer.text();
        assert_eq!(answer.header("weirkeeper-refused"), "forbidden", "{word}: {text}");
        assert!(text.contains(word), "{word}: {text}");
        assert_eq!(answer.header("weirkeeper-cost"), "0");
        if !text.starts_with('<') {
            answer.is_refusal(403, "forbidden", "INSUFFICIENT_ACCESS");
        }
    }
    // What cannot be read cannot be judged.
    let unread = client.send("POST", "composite", &[("content-type", "application/json")], "{").await;
    unread.is_refusal(400, "body_malformed", "INVALID_OPERATION");
    assert_eq!(world.sim.requests().len(), before, "nothing forbidden reached Salesforce");
    let refusals = world.metric("weirkeeper_refusals_total", &[("caller", "reader"), ("reason", "forbidden")]);
    assert!((refusals - count as f64).abs() < f64::EPSILON, "{refusals}");
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn observing_rules_count_what_they_would_refuse_and_let_it_pass() {
    let world = World::new(&format!("policy: {{mode: observe}}\n{RULES}"));
    let mut client = world.client();
    allowed(&mut client).await;
    world.settle().await;
    assert!(world.lines().iter().all(|line| line.get("would_refuse").is_none()));
    let passed = forbidden(&mut client).await;
    assert!(passed.iter().all(|(answer, _)| answer.header("weirkeeper-refused").is_empty()));
    world.settle().await;
    let lines = world.lines();
    let would = lines.iter().filter(|line| line["would_refuse"] == "forbidden").count();
    assert_eq!(would, passed.len());
    let counted = world.metric("weirkeeper_would_refuse_total", &[("caller", "reader"), ("reason", "forbidden")]);
    assert!((counted - would as f64).abs() < f64::EPSILON, "{counted}");
    assert!(world.metric("weirkeeper_refusals_total", &[]).abs() < f64::EPSILON);
    world.close().await;
}
