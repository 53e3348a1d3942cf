//! Promise: the gateway uses the Redis that users already run: single or behind Sentinels or a Cluster, with TLS and ACL.

use std::time::Duration;

use weirkeeper::clock::Clock;
use weirkeeper::config;
use weirkeeper::store::{Heard, Store, Swap};
use weirkeeper::tasks::Tasks;

use crate::pki::Authority;

#[path = "../src/store/testing.rs"]
#[allow(dead_code, reason = "each crate takes what it needs")]
mod testing;

#[allow(unused_imports, reason = "each promise takes what it needs")]
pub use testing::{Redis, Wire, free_port};

const KEEP: Duration = Duration::from_secs(30);

fn settings(ports: &[u16]) -> config::Redis {
    config::Redis {
        nodes: ports.iter().map(|port| config::Node { host: "127.0.0.1".into(), port: *port }).collect(),
        tls: false,
        username: None,
        password: None,
        database: 0,
        cluster: false,
        sentinel: None,
        ca: None,
        client_certificate: None,
        prefix: "wk".into(),
        name: None,
        keys: Vec::new(),
        timeout: Duration::from_secs(1),
    }
}

fn open(settings: &config::Redis) -> Store {
    Store::open(settings, Clock::start(), &Tasks::new()).unwrap()
}

/// A value is kept, replaced and published.
async fn is_of_use(store: &Store) {
    let mut listening = store.listen("news");
    assert_eq!(listening.next().await, Heard::Joined);
    for number in 0..12 {
        let key = store.key(&format!("org{number}"), "cell");
        let seen = store.look(&key).await.unwrap();
        assert!(matches!(store.swap(&key, &seen, b"a", KEEP).await.unwrap(), Swap::Done(_)));
        assert_eq!(store.look(&key).await.unwrap().value.as_deref(), Some(&b"a"[..]));
    }
    store.publish("news", b"hello").await.unwrap();
    assert_eq!(listening.next().await, Heard::Message(b"hello".to_vec()));
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}: not within 30 s");
}

#[tokio::test]
async fn a_user_of_an_access_list_may_do_what_is_needed_and_no_more() {
    let redis = Redis::start();
    let rules = "ACL SETUSER gateway on >canary ~{wk:* &news resetchannels &news -@all +eval +evalsha +script|load +time +get +set \
                 +hget +hset +hmget +pexpire +publish +subscribe +ping +client";
    assert_eq!(redis.command(rules), "+OK\r\n");
    redis.command("ACL SETUSER default off");
    let mut settings = settings(&[redis.port()]);
    assert!(open(&settings).look("{wk:prod}:cell").await.is_err());
    (settings.username, settings.password) = (Some("gateway".into()), Some(config::Secret::new("canary".into())));
    let store = open(&settings);
    is_of_use(&store).await;
    let error = store.look("{other:prod}:cell").await.unwrap_err().to_string();
    assert!(error.contains("NOPERM") && !error.contains("canary"), "{error}");
}

#[tokio::test]
async fn tls_is_spoken_and_certificates_are_checked_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("store");
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let server = authority.issue("127.0.0.1");
    let client = authority.issue("gateway");
    let ca = file("ca.pem", authority.pem());
    let (server_certificate, server_key) = (file("server.pem", server.pem()), file("server.key", server.key_pem()));
    let (certificate, key) = (file("client.pem", client.pem()), file("client.key", client.key_pem()));
    let tls_port = free_port();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let _redis = Redis::start_with(&[
        "--tls-port",
        &tls_port.to_string(),
        "--tls-cert-file",
        &text(&server_certificate),
        "--tls-key-file",
        &text(&server_key),
        "--tls-ca-cert-file",
        &text(&ca),
        "--tls-auth-clients",
        "yes",
    ]);
    let mut settings = settings(&[tls_port]);
    settings.tls = true;
    settings.ca = Some(ca);
    assert!(open(&settings).look("{a}:b").await.is_err(), "it asks for a certificate");
    settings.client_certificate = Some(config::KeyPair { certificate, key });
    is_of_use(&open(&settings)).await;
    settings.ca = Some(file("other.pem", Authority::new("another").pem()));
    assert!(open(&settings).look("{a}:b").await.is_err(), "another authority");
}

#[tokio::test]
async fn a_cluster_keeps_each_orgs_keys_together() {
    let nodes: Vec<Redis> = (0..3).map(|_| Redis::start_with(&["--cluster-enabled", "yes"])).collect();
    for (node, range) in nodes.iter().zip(["0 5460", "5461 10922", "10923 16383"]) {
        assert_eq!(node.command(&format!("CLUSTER ADDSLOTSRANGE {range}")), "+OK\r\n");
    }
    for node in &nodes[1..] {
        node.command(&format!("CLUSTER MEET 127.0.0.1 {}", nodes[0].port()));
    }
    until("the cluster is complete", || {
        nodes.iter().all(|node| {
            let info = node.command("CLUSTER INFO");
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        })
    })
    .await;
    let mut settings = settings(&[nodes[1].port(), nodes[2].port()]);
    settings.cluster = true;
    is_of_use(&open(&settings)).await;
    let filled = nodes.iter().filter(|node| !node.command("DBSIZE").starts_with(":0")).count();
    assert!(filled == 3, "twelve orgs lie on {filled} nodes");
}

#[tokio::test]
async fn sentinels_lead_to_the_new_primary_after_a_failover() {
    let mut primary = Redis::start();
    let replica = Redis::start_with(&["--replicaof", "127.0.0.1", &primary.port().to_string()]);
    let sentinel = sentinel(primary.port());
    let known = || sentinel.command("SENTINEL replicas mymaster").contains(&replica.port().to_string());
    until("the sentinel knows the replica", known).await;
    let mut settings = settings(&[sentinel.port()]);
    settings.sentinel = Some(config::Sentinel { service: "mymaster".into(), username: None, password: None });
    let store = open(&settings);
    is_of_use(&store).await;
    primary.kill();
    let mut again = false;
    for _ in 0..600 {
        again = store.look("{a}:b").await.is_ok();
        if again {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(again, "the new primary is found");
    is_of_use(&store).await;
    assert!(!replica.command("DBSIZE").starts_with(":0"));
}

/// A sentinel that watches the primary at `port`, and alone decides that it is down.
fn sentinel(port: u16) -> Redis {
    let text = format!(
        "sentinel monitor mymaster 127.0.0.1 {port} 1\nsentinel down-after-milliseconds mymaster 500\n\
         sentinel failover-timeout mymaster 3000\n"
    );
    Redis::start_configured(&text, &["--sentinel"])
}
