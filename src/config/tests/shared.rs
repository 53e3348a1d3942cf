//! State that several replicas share.

use std::time::Duration;

use super::*;
use crate::config::{Node, Secret, SharedLoss};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn outside(url: &'static str) -> Fixed {
    let mut outside = Fixed::default();
    outside.variables.insert("REDIS_URL", url);
    outside.variables.insert("KEY", KEY);
    outside
}

fn state(more: &str) -> String {
    format!("{ORG}state: {{redis: {{url: {{env: REDIS_URL}}, keys: [{{env: KEY}}]{more}}}}}\n")
}

#[test]
fn a_shared_store_is_read_from_its_address() {
    let config = checked(&state(""), &outside("redis://redis.internal")).unwrap();
    let State::Redis { redis, on_loss } = config.state else { panic!() };
    assert_eq!(redis.nodes, [Node { host: "redis.internal".into(), port: 6379 }]);
    assert_eq!((redis.tls, redis.cluster, redis.database, redis.prefix.as_str()), (false, false, 0, "weirkeeper"));
    assert_eq!((redis.timeout, on_loss), (Duration::from_secs(1), SharedLoss::SafeShare));
    assert_eq!(redis.keys, [Secret::new(KEY.to_owned())]);

    let config = checked(&state(""), &outside("rediss://wk:p%40ss@[fd00::7]:7000/3")).unwrap();
    let State::Redis { redis, .. } = config.state else { panic!() };
    assert_eq!(redis.nodes, [Node { host: "fd00::7".into(), port: 7000 }]);
    assert_eq!((redis.tls, redis.database, redis.username.as_deref()), (true, 3, Some("wk")));
    assert_eq!(redis.password, Some(Secret::new("p@ss".to_owned())));

    let three = outside("redis://:pw@a:1,redis://:pw@b:2,redis://:pw@c:3");
    let config = checked(&state(", cluster: true"), &three).unwrap();
    let State::Redis { redis, .. } = config.state else { panic!() };
    assert_eq!((redis.nodes.len(), redis.username.as_deref()), (3, None));
    let config = checked(&state(", sentinel: {service: mymaster}"), &three).unwrap();
    let State::Redis { redis, .. } = config.state else { panic!() };
    assert_eq!(redis.sentinel.unwrap().service, "mymaster");
}

#[test]
fn a_shared_store_that_makes_no_sense_is_a_problem_and_its_password_is_not_shown() {
    for (more, url, what) in [
        ("", "canary@host", "not the address of a store"),
        ("", "http://u:canary@host", "not the address of a store"),
        ("", "redis://u:canary@host/x", "not the address of a store"),
        ("", "redis://u:canary@a,redis://u:canary@b", "several addresses of a single store"),
        (", cluster: true", "redis://u:canary@a,redis://b", "differ in more than host and port"),
        (", cluster: true", "redis://u:canary@a/1", "no databases"),
        (", cluster: true, sentinel: {service: m}", "redis://u:canary@a", "a Cluster has no Sentinels"),
        (", sentinel: {}", "redis://u:canary@a", "state.redis.sentinel.service: this key is missing"),
        (", timeout: 1m", "redis://u:canary@a", "state.redis.timeout: out of range"),
        (", prefix: 'A}B'", "redis://u:canary@a", "is not a name"),
    ] {
        let problems = bad_with(&state(more), &outside(url));
        assert!(problems.iter().any(|problem| problem.contains(what)), "{problems:#?} is not {what:?}");
        assert!(!problems.iter().any(|problem| problem.contains("canary")), "{problems:#?}");
    }
    one(&format!("{ORG}state: {{path: a, redis: {{}}}}"), "a folder and a shared store");
    one(&format!("{ORG}state: {{path: a, on_loss: safe_share}}"), "only a shared store has leases");
    let text = format!(
        "{}  on_loss: continue\n",
        state("").replace("state: {redis", "state:\n  redis").replace("}}\n", "}\n")
    );
    let problems = bad_with(&text, &outside("redis://a"));
    assert!(problems.len() == 1 && problems[0].contains("pass every ceiling"), "{problems:#?}");
    let problems = bad_with(&format!("{ORG}state: {{redis: {{}}}}"), &Fixed::default());
    assert_eq!(problems.len(), 2, "url and keys: {problems:#?}");
    let mut short = outside("redis://a");
    short.variables.insert("KEY", "short");
    assert!(bad_with(&state(""), &short)[0].contains("shorter than 32 characters"));
}
