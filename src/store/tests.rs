//! The store's I/O against a real server.

use std::sync::LazyLock;
use std::time::Duration;

use super::testing::{Redis, Wire};
use super::*;
use crate::config::Node;

/// How to reach a store of a test's own.
pub fn settings(port: u16) -> config::Redis {
    config::Redis {
        nodes: vec![Node { host: "127.0.0.1".into(), port }],
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
        timeout: Duration::from_millis(300),
    }
}

/// A store at `port` of this machine.
pub(crate) fn store(port: u16) -> Store {
    Store::open(&settings(port), Clock::start(), &Tasks::new()).unwrap()
}

const KEEP: Duration = Duration::from_mins(1);

#[tokio::test]
async fn only_who_knows_what_a_cell_holds_replaces_it() {
    let redis = Redis::start();
    let (one, other) = (store(redis.port()), store(redis.port()));
    assert_ne!(one.replica(), other.replica());
    let key = one.key("prod", "chair");
    assert_eq!(key, "{wk:prod}:chair");
    let (first, second) = (one.look(&key).await.unwrap(), other.look(&key).await.unwrap());
    assert_eq!((&first.value, first.version, first.run), (&None, 0, second.run));
    let Swap::Done(now) = one.swap(&key, &first, b"a", KEEP).await.unwrap() else { panic!() };
    assert_eq!((now.version, now.value.as_deref()), (1, Some(&b"a"[..])));
    let Swap::Lost(there) = other.swap(&key, &second, b"b", KEEP).await.unwrap() else { panic!() };
    assert_eq!((there.version, there.value.as_deref()), (1, Some(&b"a"[..])));
    let Swap::Done(now) = other.swap(&key, &there, b"b\0\xff", KEEP).await.unwrap() else { panic!() };
    assert_eq!(one.look(&key).await.unwrap().value.as_deref(), Some(&b"b\0\xff"[..]));
    assert!(now.now.as_secs() > 1_700_000_000 && one.is_up());
    assert_eq!(now.run, first.run);
}

#[tokio::test]
async fn a_store_that_lost_its_data_has_another_run() {
    let mut redis = Redis::start();
    let store = store(redis.port());
    let key = store.key("prod", "chair");
    let seen = store.look(&key).await.unwrap();
    redis.restart_empty();
    assert!(store.look(&key).await.is_err(), "the connection broke");
    assert!(!store.is_up());
    let again = loop {
        match store.look(&key).await {
            Ok(seen) => break seen,
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    assert_ne!(again.run, seen.run);
    assert!(store.is_up());
    assert!(matches!(store.swap(&key, &seen, b"a", KEEP).await.unwrap(), Swap::Lost(_)), "it knows an earlier run");
}

#[tokio::test]
async fn what_it_was_told_to_forget_is_gone() {
    let redis = Redis::start();
    let store = store(redis.port());
    let key = store.key("prod", "chair");
    let seen = store.look(&key).await.unwrap();
    store.swap(&key, &seen, b"a", Duration::from_millis(20)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(store.look(&key).await.unwrap().value, None);
}

#[tokio::test]
async fn a_store_that_is_silent_or_gone_is_an_answer_in_time() {
    let redis = Redis::start();
    let wire = Wire::to(redis.port());
    let store = store(wire.port());
    let key = store.key("prod", "chair");
    store.look(&key).await.unwrap();
    redis.pause();
    assert_eq!(store.look(&key).await, Err(StoreError::Late));
    redis.resume();
    wire.cut();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(matches!(store.look(&key).await, Err(StoreError::Unreachable(_) | StoreError::Late)));
    assert!(matches!(store.look(&key).await, Err(StoreError::Unreachable(_))), "it does not try without a pause");
    wire.mend();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(store.look(&key).await.is_ok());
    let counts = store.counts();
    assert_eq!(counts.len(), 1);
    assert_eq!((counts[0].0.as_str(), counts[0].1), ("look", Counts { answered: 2, failed: 3 }));
}

#[tokio::test]
async fn a_script_runs_also_where_nobody_ran_it_before() {
    static ECHO: LazyLock<Script> = LazyLock::new(|| Script::new("echo", "return {KEYS[1], ARGV[1], 7, false}"));
    let redis = Redis::start();
    let store = store(redis.port());
    let answer = store.run(&ECHO, &["{a}:b"], &[b"x"]).await.unwrap();
    let said = vec![Value::Bytes(b"{a}:b".to_vec()), Value::Bytes(b"x".to_vec()), Value::Int(7), Value::Nil];
    assert_eq!(answer, Value::Many(said));
    redis.command("SCRIPT FLUSH");
    assert_eq!(store.run(&ECHO, &["{a}:b"], &[b"x"]).await.unwrap(), answer);
    static WRONG: LazyLock<Script> = LazyLock::new(|| Script::new("wrong", "return redis.call('NOPE')"));
    assert!(matches!(store.run(&WRONG, &[], &[]).await, Err(StoreError::Refused(_))));
    assert!(store.is_up(), "it answered");
}

#[tokio::test]
async fn who_listens_knows_when_he_may_have_missed_something() {
    let redis = Redis::start();
    let wire = Wire::to(redis.port());
    let (near, far) = (store(wire.port()), store(redis.port()));
    let mut listening = near.listen("news");
    assert_eq!(listening.next().await, Heard::Joined);
    far.publish("news", b"one").await.unwrap();
    assert_eq!(listening.next().await, Heard::Message(b"one".to_vec()));
    wire.cut();
    assert_eq!(listening.next().await, Heard::Left);
    far.publish("news", b"two").await.unwrap();
    wire.mend();
    assert_eq!(listening.next().await, Heard::Joined);
    far.publish("news", b"three").await.unwrap();
    assert_eq!(listening.next().await, Heard::Message(b"three".to_vec()));
    redis.pause();
    assert_eq!(listening.next().await, Heard::Left, "silence is noticed");
    redis.resume();
    assert_eq!(listening.next().await, Heard::Joined);
}

#[tokio::test]
async fn a_password_is_needed_and_never_shown() {
    let redis = Redis::start_with(&["--requirepass", "canary"]);
    let (mut with, without) = (settings(redis.port()), store(redis.port()));
    with.password = Some(config::Secret::new("canary".to_owned()));
    let with = Store::open(&with, Clock::start(), &Tasks::new()).unwrap();
    assert!(with.look("{a}:b").await.is_ok());
    let error = without.look("{a}:b").await.unwrap_err();
    assert!(!format!("{with:?} {error}").contains("canary"));
}
