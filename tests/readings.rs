//! Promise: whatever Salesforce says of its limits, or does not say, no more is sent than the operator allows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;

use crate::client::{Answer as _, read_until};
use crate::world::{ORIGIN, World};

/// An org that never says anything usable, or whatever `header` is, and what the operator says to that.
fn silent(header: &'static [u8], assume: &str) -> (World, Arc<AtomicU64>) {
    let world = World::new(&format!(
        "orgs: [{{name: prod, instance_url: 'http://{ORIGIN}', daily: {{limit: from_salesforce, keep_free: 0%{assume}}}}}]
callers: [{{name: app, match: any, class: interactive}}]
"
    ));
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    world.origin(move |mut stream| {
        let sent = Arc::clone(&count);
        async move {
            while !read_until(&mut stream, "\r\n\r\n").await.is_empty() {
                sent.fetch_add(1, Ordering::Relaxed);
                let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n";
                let answer = [&head[..], header, b"\r\n{}"].concat();
                if stream.write_all(&answer).await.is_err() {
                    break;
                }
            }
        }
    });
    (world, sent)
}

/// Longer than a first word is waited for, and than an unused connection is kept.
const AWHILE: Duration = Duration::from_secs(125);
/// Headers that say nothing: absent, malformed, absurd.
const NOTHING: [&[u8]; 12] = [
    b"",
    b"sforce-limit-info: \r\n",
    b"sforce-limit-info: api-usage\r\n",
    b"sforce-limit-info: api-usage=\r\n",
    b"sforce-limit-info: api-usage=five/100\r\n",
    b"sforce-limit-info: api-usage=-5/100\r\n",
    b"sforce-limit-info: api-usage=5/0\r\n",
    b"sforce-limit-info: api-usage=5/-100\r\n",
    b"sforce-limit-info: api-usage=1000000000000000000/1000000000000000000\r\n",
    b"sforce-limit-info: api-usage=18446744073709551621/100\r\n",
    b"sforce-limit-info: api-usage=1/100; api-usage=2/100\r\n",
    b"sforce-limit-info: per-app-api-usage=17/250(appName=\xff\xfe)\r\n",
];

#[tokio::test(start_paused = true)]
async fn when_no_reading_makes_sense_the_operators_assumption_is_the_ceiling() {
    for header in NOTHING {
        let what = String::from_utf8_lossy(header).into_owned();
        let (world, sent) = silent(header, ", assume: 50");
        let mut app = world.client();
        for _ in 0..20 {
            assert_eq!(app.get("limits").await.code(), 200, "{what}");
        }
        // The few before the first word are spent; the next one waits for it, as long as it can.
        app.get("limits").await.is_refusal(503, "budget_unready", "SERVER_UNAVAILABLE");
        assert_eq!(sent.load(Ordering::Relaxed), 20, "{what}");
        tokio::time::sleep(AWHILE).await;
        let mut served = 0;
        while app.get("limits").await.code() == 200 {
            served += 1;
        }
        assert_eq!((served, sent.load(Ordering::Relaxed)), (30, 50), "{what}");
        app.get("limits").await.is_refusal(403, "org_allowance", "REQUEST_LIMIT_EXCEEDED");
        world.counts_more(50);
        world.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_an_assumption_nothing_is_refused_and_that_is_said() {
    let (world, sent) = silent(b"", "");
    let mut app = world.client();
    for _ in 0..20 {
        assert_eq!(app.get("limits").await.code(), 200);
    }
    tokio::time::sleep(AWHILE).await;
    for _ in 0..100 {
        assert_eq!(app.get("limits").await.code(), 200);
    }
    assert_eq!(sent.load(Ordering::Relaxed), 120);
    let warnings = serde_json::json!(world.telemetry.snapshot().budgets[0].budget.warnings);
    assert_eq!(warnings, serde_json::json!([{"warning": "no_reading"}]));
    world.counts_more(120);
    world.close().await;
}
