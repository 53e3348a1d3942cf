//! The Streaming API: long polls, cookies, replay (facts 6.7).

use std::collections::{BTreeMap, HashMap};

use tokio::sync::watch;

use super::answer::Answer;
use super::clock::{DAY, Micros, SECOND, seconds};
use super::json::{Json, obj};
use super::request::Head;
use super::world::World;

/// Silence between two polls after which a client is forgotten.
const RECONNECT_WITHIN: Micros = 40 * SECOND;
/// Events kept for replay, over all channels.
const EVENTS_KEPT: usize = 10_000;
/// Time events are kept for replay.
const RETENTION: Micros = 3 * DAY;
/// Most concurrent clients of an org (facts 1.10).
const CLIENTS: usize = 1_000;

#[derive(Debug)]
struct Client {
    user: usize,
    cookie: String,
    /// Last replay id delivered, by channel.
    channels: BTreeMap<String, u64>,
    /// Until when the client is waited for.
    until: Micros,
    greeted: bool,
}

#[derive(Debug)]
struct Event {
    channel: String,
    replay: u64,
    at: Micros,
    payload: Json,
}

/// Clients and events.
#[derive(Debug)]
pub(super) struct Cometd {
    clients: HashMap<String, Client>,
    events: Vec<Event>,
    last_replay: u64,
    bell: watch::Sender<u64>,
}

impl Default for Cometd {
    fn default() -> Self {
        let (bell, _) = watch::channel(0);
        Self { clients: HashMap::new(), events: Vec::new(), last_replay: 0, bell }
    }
}

impl Cometd {
    /// Publishes an event; polls that wait for it return at once. Returns its replay id; ids are not contiguous.
    pub(super) fn publish(&mut self, channel: &str, payload: Json, now: Micros) -> u64 {
        self.last_replay += 1 + (self.last_replay % 3);
        self.events.push(Event { channel: channel.to_owned(), replay: self.last_replay, at: now, payload });
        self.events.retain(|event| now.saturating_sub(event.at) < RETENTION);
        if self.events.len() > EVENTS_KEPT {
            self.events.remove(0);
        }
        self.bell.send_replace(self.last_replay);
        self.last_replay
    }

    /// Forgets a client, as servers do every few hours.
    pub(super) fn forget_clients(&mut self) {
        self.clients.clear();
        self.bell.send_replace(self.last_replay);
    }
}

/// Answers the messages of one request. `began` is when it arrived: a poll is held from then on.
pub(super) fn handle(world: &mut World, head: &Head, body: &[u8], began: Micros, now: Micros) -> Answer {
    let Some(user) = head.token().and_then(|token| world.authenticate(token, now)) else {
        let advice = obj! {"reconnect": "none"};
        let refused = obj! {"error": "401::Authentication invalid", "successful": false, "advice": advice};
        return Answer::json(401, Json::Arr(vec![refused]));
    };
    if body.len() > 32_768 {
        return Answer::text(413, "text/html;charset=UTF-8", "Request Entity Too Large");
    }
    let Ok(messages) = Json::parse(body) else {
        return Answer::text(400, "text/html;charset=UTF-8", "The messages cannot be read");
    };
    let list = match &messages {
        Json::Arr(items) => items.clone(),
        single => vec![single.clone()],
    };
    let hold = seconds(world.config.long_poll_seconds);
    let mut session = Session { head, user, began, now, hold, cookie: None, wait: false };
    let mut replies = Vec::new();
    for message in &list {
        match session.message(world, message) {
            Ok(reply) => replies.extend(reply),
            Err(problem) => return Answer::text(400, "text/html;charset=UTF-8", problem),
        }
    }
    if session.wait {
        let bell = world.cometd.bell.subscribe();
        return Answer::later(bell, began + hold);
    }
    let answer = Answer::ok(Json::Arr(replies));
    match session.cookie {
        Some(cookie) => answer.with("set-cookie", format!("sfdc_lv2={cookie};Path=/cometd;HttpOnly")),
        None => answer,
    }
}

struct Session<'a> {
    head: &'a Head,
    user: usize,
    began: Micros,
    now: Micros,
    hold: Micros,
    cookie: Option<String>,
    /// Whether there is nothing to say yet.
    wait: bool,
}

impl Session<'_> {
    fn message(&mut self, world: &mut World, message: &Json) -> Result<Vec<Json>, &'static str> {
        let channel = message.text("channel").unwrap_or_default();
        let mut reply = obj! {"channel": channel};
        if let Some(id) = message.get("id") {
            reply.push("id", id.clone());
        }
        if channel == "/meta/handshake" {
            return Ok(vec![self.handshake(world, reply)]);
        }
        let id = message.text("clientId").unwrap_or_default().to_owned();
        let known =
            world.cometd.clients.get(&id).is_some_and(|client| client.user == self.user && self.began <= client.until);
        if !known {
            world.cometd.clients.remove(&id);
            let advice = obj! {"reconnect": "handshake", "interval": 0_i64};
            return Ok(vec![refused(reply, "403::Unknown client", advice)]);
        }
        let Some(client) = world.cometd.clients.get_mut(&id) else { return Ok(Vec::new()) };
        let cookies = self.head.header("cookie").unwrap_or_default();
        if !cookies.contains(&client.cookie) {
            return Err("The cookie of the session is not present");
        }
        reply.push("clientId", id.as_str());
        match channel {
            "/meta/connect" => Ok(self.connect(world, &id, reply)),
            "/meta/subscribe" => Ok(vec![subscribe(world, &id, message, reply)]),
            "/meta/unsubscribe" => {
                let name = message.text("subscription").unwrap_or_default();
                client.channels.remove(name);
                reply.push("subscription", name);
                reply.push("successful", true);
                Ok(vec![reply])
            }
            "/meta/disconnect" => {
                world.cometd.clients.remove(&id);
                world.cometd.bell.send_modify(|_| {});
                reply.push("successful", true);
                Ok(vec![reply])
            }
            _ => Ok(vec![refused(reply, "403::Publish denied", obj! {"reconnect": "none"})]),
        }
    }

    fn handshake(&mut self, world: &mut World, mut reply: Json) -> Json {
        let now = self.now;
        world.cometd.clients.retain(|_, client| now <= client.until);
        if world.cometd.clients.len() >= CLIENTS {
            let advice = obj! {"reconnect": "handshake", "interval": 10_000_i64};
            return refused(reply, "403::Organization concurrent user limit exceeded", advice);
        }
        let (id, cookie) = (world.random_text("1", 30), world.random_text("c", 22));
        let client = Client {
            user: self.user,
            cookie: cookie.clone(),
            channels: BTreeMap::new(),
            until: now + RECONNECT_WITHIN,
            greeted: false,
        };
        world.cometd.clients.insert(id.clone(), client);
        self.cookie = Some(cookie);
        reply.push("ext", obj! {"replay": true, "payload.format": true});
        reply.push("minimumVersion", "1.0");
        reply.push("clientId", id);
        reply.push("supportedConnectionTypes", vec!["long-polling"]);
        reply.push("version", "1.0");
        reply.push("successful", true);
        reply
    }

    fn connect(&mut self, world: &mut World, id: &str, mut reply: Json) -> Vec<Json> {
        let Cometd { clients, events, .. } = &mut world.cometd;
        let Some(client) = clients.get_mut(id) else { return Vec::new() };
        client.until = self.began + self.hold + RECONNECT_WITHIN;
        let first = !std::mem::replace(&mut client.greeted, true);
        let mut out = Vec::new();
        for event in events.iter() {
            let Some(seen) = client.channels.get_mut(&event.channel) else { continue };
            if event.replay > *seen {
                *seen = event.replay;
                let data = obj! {
                    "schema": "i6_JU3VTbNhRZYbMVlV-xQ",
                    "payload": event.payload.clone(),
                    "event": obj! {"replayId": event.replay},
                };
                out.push(obj! {"data": data, "channel": event.channel.as_str()});
            }
        }
        if out.is_empty() && !first && self.now < self.began + self.hold {
            self.wait = true;
            return out;
        }
        // Counted from now on: the client must come back in time (facts 6.7).
        client.until = self.now + self.hold + RECONNECT_WITHIN;
        if out.is_empty() {
            client.until = self.now + RECONNECT_WITHIN;
        }
        reply.push("successful", true);
        if first {
            let timeout = self.hold / 1_000;
            reply.push("advice", obj! {"reconnect": "retry", "interval": 0_i64, "timeout": timeout});
        }
        out.push(reply);
        out
    }
}

fn refused(mut reply: Json, error: &str, advice: Json) -> Json {
    reply.push("error", error);
    reply.push("successful", false);
    reply.push("advice", advice);
    reply
}

fn subscribe(world: &mut World, id: &str, message: &Json, mut reply: Json) -> Json {
    let channel = message.text("subscription").unwrap_or_default().to_owned();
    let wanted = message.get("ext").and_then(|ext| ext.get("replay")).and_then(|replay| replay.get(&channel));
    let from = wanted.and_then(Json::as_f64).map_or(-1, |from| from as i64);
    let last = world.cometd.last_replay;
    let start = match from {
        -1 => last,
        -2 => 0,
        from => match u64::try_from(from) {
            Ok(from) if from <= last => from,
            _ => {
                let error = format!("400::The replayId {{{from}}} you provided was invalid.");
                return refused(reply, &error, obj! {"reconnect": "none"});
            }
        },
    };
    if let Some(client) = world.cometd.clients.get_mut(id) {
        client.channels.insert(channel.clone(), start);
    }
    reply.push("subscription", channel);
    reply.push("successful", true);
    reply
}
