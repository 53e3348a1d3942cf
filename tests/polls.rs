//! Promise: a long poll is held as long as Salesforce holds it, whatever the gateway's own bounds are, and what it waits for
//! passes at once. With a session of the caller's own and with one of the gateway's.

use std::time::Duration;

use http::Response;
use serde_json::{Value, json};

use crate::client::{Answer as _, Client};
use crate::identities::{House, SECRET, yaml};
use crate::world::{World, small};

const CHANNEL: &str = "/event/Order__e";
/// Bounds by which any other call would be cut.
const SHORT: &str = "upstream: {first_byte: 10s, idle: 10s}\nlimits: {idle: 20s}\n";

/// A client of the Streaming API.
struct Subscriber {
    client: Client,
    cookies: String,
    id: String,
}

impl Subscriber {
    async fn greet(mut client: Client) -> Self {
        let hello =
            json!([{"channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"]}]);
        let answer = client.post("/cometd/62.0", &hello).await;
        let id = answer.json()[0]["clientId"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned();
        let cookies = answer.headers().get_all("set-cookie").iter();
        let cookies: Vec<&str> = cookies.map(|cookie| cookie.to_str().unwrap().split(';').next().unwrap()).collect();
        let mut subscriber = Self { client, cookies: cookies.join("; "), id };
        let subscribe =
            json!({"channel": "/meta/subscribe", "subscription": CHANNEL, "ext": {"replay": {CHANNEL: -1}}});
        assert_eq!(subscriber.say(subscribe).await.json()[0]["successful"], true);
        assert_eq!(subscriber.poll().await[0]["advice"]["timeout"], 110_000);
        subscriber
    }

    async fn say(&mut self, mut message: Value) -> Response<bytes::Bytes> {
        message["clientId"] = json!(self.id);
        let headers = [("content-type", "application/json"), ("cookie", self.cookies.as_str())];
        self.client.send("POST", "/cometd/62.0", &headers, json!([message]).to_string()).await
    }

    async fn poll(&mut self) -> Value {
        let answer = self.say(json!({"channel": "/meta/connect", "connectionType": "long-polling"})).await;
        assert_eq!(answer.code(), 200, "{}", answer.text());
        answer.json()
    }
}

async fn polls(world: &World, client: Client) {
    let mut subscriber = Subscriber::greet(client).await;
    for _ in 0..2 {
        let before = world.sim.now();
        let silence = subscriber.poll().await;
        let held = world.sim.now() - before;
        assert_eq!((silence.as_array().unwrap().len(), &silence[0]["successful"]), (1, &json!(true)));
        assert!((110.0..110.1).contains(&held.as_secs_f64()), "{held:?}");
    }
    for number in 0..3 {
        let sim = world.sim.clone();
        let publish = world.beside(async move {
            tokio::time::sleep(Duration::from_secs(70)).await;
            sim.script().publish(CHANNEL, &json!({"Number__c": number}));
        });
        let before = world.sim.now();
        let heard = subscriber.poll().await;
        let held = world.sim.now() - before;
        assert_eq!(heard[0]["data"]["payload"]["Number__c"], number);
        assert!((70.0..70.02).contains(&held.as_secs_f64()), "{held:?}");
        publish.await.unwrap();
    }
    let counts = world.sim.counts();
    assert_eq!((counts.charged, counts.slots_peak), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn with_a_session_of_its_own() {
    let world = World::new(SHORT);
    polls(&world, world.client()).await;
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn with_a_key_of_the_gateway() {
    let key = weirkeeper::config::key::generate().unwrap().to_string();
    let world = World::with(small(), &yaml(&weirkeeper::config::key::sha256_hex(&key), SECRET, SHORT));
    world.secret(&key);
    let house = House { world, key };
    polls(&house.world, house.app()).await;
    assert_eq!(house.world.sim.counts().logins, 1);
    house.world.close().await;
}

#[tokio::test(start_paused = true)]
async fn with_a_deadline_that_is_for_other_calls() {
    let world = World::new(&format!("{SHORT}callers: [{{name: anyone, match: any, deadline: 10s}}]\n"));
    polls(&world, world.client()).await;
    world.close().await;
}
