//! Promise: what a gateway shows does not grow with the time it has been up: after a week, with callers that come and go and fail
//! in ever new ways, the page's data and the metrics are as long as after two days.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use weirkeeper::admin::{Access, Admin, Reach, serve_connection};
use weirkeeper::gateway::figures;

use crate::client::Answer as _;
use crate::world::World;

const CALLERS: usize = 30;

/// What the admin listener answers to a request for `path`, as far as `until`.
async fn shown(admin: &Arc<Admin>, path: &str, until: &str) -> String {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let serving = async {
        serve_connection(theirs, Arc::clone(admin), Reach::Loopback).await;
        // What was answered is still to be read.
        std::future::pending::<()>().await;
    };
    let asking = async {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        ours.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !String::from_utf8_lossy(&answer).contains(until) {
            let mut more = [0; 16 * 1024];
            match ours.read(&mut more).await.unwrap() {
                0 => break,
                count => answer.extend_from_slice(&more[..count]),
            }
        }
        String::from_utf8_lossy(&answer).into_owned()
    };
    tokio::select! {
        answer = asking => answer,
        () = serving => String::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_week_of_uptime_is_no_more_to_show_than_two_days() {
    let callers: String = (0..CALLERS)
        .map(|place| format!("- {{name: app-{place}, match: {{call_options_client: app-{place}}}}}\n"))
        .collect();
    let world =
        World::new(&format!("callers:\n{callers}- {{name: anyone, match: any}}\nmetrics: {{max_objects: 20}}\n"));
    let admin = Arc::new(Admin::new(world.telemetry.clone(), Access::default()));
    let (in_force, telemetry) = (world.in_force.clone(), world.telemetry.clone());
    admin.spending_by(move |budget| figures::spending(&in_force.load(), budget, telemetry.now()));
    let mut client = world.client();
    let mut lengths = Vec::new();
    for hour in 0..7 * 24 {
        for place in 0..5 {
            let name = format!("client=app-{}", (hour * 5 + place) % CALLERS);
            let stranger = format!("client=stranger-{hour}-{place}");
            for (target, client_name, status) in [
                ("limits".to_owned(), &name, 200),
                (format!("sobjects/Object{hour}{place}__c"), &name, 404),
                ("sobjects/Account".to_owned(), &stranger, 200),
            ] {
                let headers = [("sforce-call-options", client_name.as_str())];
                assert_eq!(client.send("GET", &target, &headers, "").await.code(), status, "{target}");
            }
        }
        tokio::time::sleep(Duration::from_hours(1)).await;
        if hour % 24 == 23 {
            let page = shown(&admin, "/api/v1/live", "\n\n").await;
            assert!(page.contains("app-29"), "{page}");
            lengths.push([
                page.len(),
                shown(&admin, "/api/v1/recent", "\u{0}").await.len(),
                world.telemetry.render().len(),
            ]);
        }
    }
    let (second, last) = (lengths[1], lengths[6]);
    for (what, (second, last)) in ["page", "recent", "metrics"].iter().zip(second.into_iter().zip(last)) {
        assert!(last <= second + second / 10, "{what}: {lengths:?}");
    }
    world.close().await;
}
