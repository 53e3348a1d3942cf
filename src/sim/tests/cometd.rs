//! Long polls in virtual time.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Caller, config, since, spawn};
use crate::sim::Sim;

async fn say(caller: &mut Caller, message: Value) -> Vec<Value> {
    let reply = caller.post("/cometd/62.0", &json!([message])).await;
    if let Some(cookie) =
        reply.headers.get_all("set-cookie").iter().find(|value| value.as_bytes().starts_with(b"sfdc_lv2"))
    {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
        caller.extra.push(("cookie", pair));
    }
    reply.json().as_array().unwrap().clone()
}

async fn greeted(sim: &Sim) -> (Caller, String) {
    let mut caller = Caller::of(sim, "admin").await;
    let hello = json!({"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"], "ext": {"replay": true}});
    let reply = say(&mut caller, hello).await.remove(0);
    assert_eq!((reply["successful"].clone(), reply["ext"]["replay"].clone()), (json!(true), json!(true)));
    let id = reply["clientId"].as_str().unwrap().to_owned();
    let first = say(&mut caller, connect(&id)).await.remove(0);
    assert_eq!(first["advice"], json!({"reconnect": "retry", "interval": 0, "timeout": 110_000}));
    (caller, id)
}

fn connect(id: &str) -> Value {
    json!({"channel": "/meta/connect", "clientId": id, "connectionType": "long-polling"})
}

fn subscribe(id: &str, replay: i64) -> Value {
    json!({"channel": "/meta/subscribe", "clientId": id, "subscription": "/event/Order__e", "ext": {"replay": {"/event/Order__e": replay}}})
}

#[tokio::test(start_paused = true)]
async fn a_poll_is_held_and_events_pass_at_once() {
    let sim = Sim::new(config());
    let (mut caller, id) = greeted(&sim).await;
    assert_eq!(say(&mut caller, subscribe(&id, -1)).await[0]["successful"], true);
    let before = sim.now();
    let empty = say(&mut caller, connect(&id)).await;
    assert_eq!((empty.len(), since(&sim, before).as_secs()), (1, 110));
    let publisher = sim.clone();
    let publish = spawn(async move {
        tokio::time::sleep(Duration::from_secs(7)).await;
        publisher.script().publish("/event/Order__e", &json!({"n": 1}))
    });
    let before = sim.now();
    let events = say(&mut caller, connect(&id)).await;
    assert!(since(&sim, before).as_millis() <= 7_010, "{:?}", since(&sim, before));
    let replay = publish.await.unwrap();
    assert_eq!(events[0]["data"]["payload"], json!({"n": 1}));
    assert_eq!(events[0]["data"]["event"]["replayId"], json!(replay));
    // Polls are no calls and take no place.
    let counts = sim.counts();
    assert_eq!((counts.charged, counts.slots_peak, counts.running_peak), (0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn replays_begin_where_they_are_asked_to() {
    let sim = Sim::new(config());
    let first = sim.script().publish("/event/Order__e", &json!({"n": 1}));
    sim.script().publish("/event/Order__e", &json!({"n": 2}));
    for (from, expected) in [(-1, 0), (-2, 2), (i64::try_from(first).unwrap(), 1)] {
        let (mut caller, id) = greeted(&sim).await;
        say(&mut caller, subscribe(&id, from)).await;
        let got = say(&mut caller, connect(&id)).await;
        assert_eq!(got.len() - 1, expected, "from {from}");
    }
    let (mut caller, id) = greeted(&sim).await;
    assert!(say(&mut caller, subscribe(&id, 9_999)).await[0]["error"].as_str().unwrap().starts_with("400::"));
}

#[tokio::test(start_paused = true)]
async fn clients_are_forgotten_and_cookies_are_needed() {
    let sim = Sim::new(config());
    let (mut caller, id) = greeted(&sim).await;
    tokio::time::sleep(Duration::from_secs(41)).await;
    let late = say(&mut caller, connect(&id)).await.remove(0);
    assert_eq!(
        (late["error"].clone(), late["advice"]["reconnect"].clone()),
        (json!("403::Unknown client"), json!("handshake"))
    );
    let (mut caller, id) = greeted(&sim).await;
    caller.extra.clear();
    assert_eq!(caller.post("/cometd/62.0", &json!([connect(&id)])).await.status, 400);
    let mut nobody = Caller::of(&sim, "nobody").await;
    let refused = nobody.post("/cometd/62.0", &json!([connect(&id)])).await;
    assert_eq!((refused.status, refused.json()[0]["error"].clone()), (401, json!("401::Authentication invalid")));
    let (mut caller, id) = greeted(&sim).await;
    let forgetful = sim.clone();
    spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        forgetful.script().forget_cometd_clients();
    });
    assert_eq!(say(&mut caller, connect(&id)).await[0]["error"], "403::Unknown client");
}
