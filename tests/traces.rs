//! Promise: requests are traced where that is wanted: one span each, linked to the caller's, in the words of the access log, to
//! a collector that speaks OTLP; and nothing about a collector ever hurts a call.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use weirkeeper::telemetry::spans::encode;

use crate::blocking::{Answer, ask};
use crate::client::Answer as _;
use crate::process::{Gateway, Setup, Simulator, bearer, free_address, until};
use crate::world::World;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
const QUERY: &str = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+WHERE+Name+%3D+%27Planted%27+LIMIT+1";

/// What a collector was sent.
#[derive(Debug)]
struct Export {
    head: String,
    body: Value,
}

/// A collector that takes whatever comes, after it has refused so many exports.
struct Collector {
    address: SocketAddr,
    exports: Receiver<Export>,
    refusals: Arc<AtomicUsize>,
}

impl Collector {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, refusals) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let (sender, exports) = channel();
        let left = Arc::clone(&refusals);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (sender, left) = (sender.clone(), Arc::clone(&left));
                std::thread::spawn(move || serve(connection.unwrap(), &sender, &left));
            }
        });
        Self { address, exports, refusals }
    }

    fn next(&self) -> Export {
        self.exports.recv_timeout(Duration::from_secs(30)).expect("spans come")
    }

    /// All spans of the next export.
    fn spans(&self) -> Vec<Value> {
        self.next().body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
    }
}

/// One connection: reads requests with a length, answers each.
fn serve(mut connection: TcpStream, sender: &Sender<Export>, left: &AtomicUsize) {
    let mut bytes = Vec::new();
    let mut more = [0; 4096];
    loop {
        let whole = bytes.windows(4).position(|four| four == b"\r\n\r\n").and_then(|end| {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length =
                head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
            let length: usize = length.expect("an export has a length");
            Some((head, end + 4..end + 4 + length)).filter(|(_, body)| bytes.len() >= body.end)
        });
        let Some((head, body)) = whole else {
            match connection.read(&mut more) {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&more[..count]),
            }
            continue;
        };
        let export = Export { head, body: serde_json::from_slice(&bytes[body.clone()]).expect("an export is JSON") };
        bytes.drain(..body.end);
        let refused = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let answer = if refused {
            "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
        };
        if connection.write_all(answer.as_bytes()).is_err() || sender.send(export).is_err() {
            return;
        }
    }
}

fn started(simulator: &Simulator, traces: &str) -> (Setup, Gateway) {
    let setup = Setup::written(&format!(
        "listeners: [{{address: 127.0.0.1:0}}]\nadmin: {{address: 127.0.0.1:0}}\nruntimes: 1\nstate: memory\n\
         orgs: [{{name: prod, instance_url: 'http://{}'}}]\ncallers: [{{name: shop, match: any}}]\ntraces: {{{traces}}}\n",
        simulator.address
    ));
    let gateway = setup.serve_with(|command| {
        command.env("COLLECTOR_KEY", "Bearer the key of the collector");
    });
    (setup, gateway)
}

fn call(gateway: &Gateway, path: &str, more: &[(&str, &str)]) -> Answer {
    let token = bearer();
    let headers = [&[("authorization", token.as_str())], more].concat();
    ask(gateway.address(), "GET", path, &headers, b"").unwrap()
}

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// The value of an attribute, whatever its type.
fn attribute<'a>(of: &'a Value, key: &str) -> &'a Value {
    let found = of["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
    let value = found.unwrap_or_else(|| panic!("no {key} in {of}"))["value"].as_object().unwrap();
    assert_eq!(value.len(), 1, "{key}");
    value.values().next().unwrap()
}

fn nanos(value: &Value) -> u128 {
    value.as_str().unwrap().parse().unwrap()
}

#[test]
fn a_sampled_request_is_one_span_below_its_callers() {
    let (simulator, collector) = (Simulator::start(), Collector::start());
    let (_setup, gateway) = started(
        &simulator,
        &format!(
            "endpoint: 'http://{}/v1/traces', headers: {{Authorization: {{env: COLLECTOR_KEY}}}}, sample: 0%, every: 200ms",
            collector.address
        ),
    );
    // Neither is recorded: one says so, of the other nothing is said, and none of those is drawn.
    assert_eq!(call(&gateway, QUERY, &[("traceparent", &parent("00"))]).status, 200);
    assert_eq!(call(&gateway, QUERY, &[]).status, 200);
    let state = ("tracestate", "acme=1");
    let answer = call(&gateway, QUERY, &[("traceparent", &parent("01")), state]);
    assert_eq!(answer.status, 200);
    assert_eq!(call(&gateway, "/services/data/v62.0/sobjects/Nope", &[("traceparent", &parent("01"))]).status, 404);

    let export = collector.next();
    assert!(export.head.starts_with("POST /v1/traces HTTP/1.1"), "{}", export.head);
    for header in ["content-type: application/json", "authorization: bearer the key of the collector"] {
        assert!(export.head.to_lowercase().lines().any(|line| line == header), "{}", export.head);
    }
    let text = export.body.to_string();
    for secret in ["Planted", "SELECT", &bearer()["Bearer ".len()..]] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    let resource = &export.body["resourceSpans"][0];
    assert_eq!(attribute(&resource["resource"], "service.name"), "weirkeeper");
    let spans = resource["scopeSpans"][0]["spans"].as_array().unwrap();
    assert_eq!(spans.len(), 2, "{text}");

    let span = &spans[0];
    assert_eq!((&span["traceId"], &span["parentSpanId"]), (&json!(TRACE), &json!(PARENT)));
    assert_eq!((&span["traceState"], &span["kind"], &span["flags"]), (&json!("acme=1"), &json!(2), &json!(1)));
    let id = span["spanId"].as_str().unwrap();
    assert!(id.len() == 16 && id != PARENT && id != spans[1]["spanId"] && u64::from_str_radix(id, 16).unwrap() != 0);
    assert_eq!(span["name"], "GET /services/data/{version}/query");
    for (key, value) in [
        ("weirkeeper.org", "prod"),
        ("weirkeeper.caller", "shop"),
        ("weirkeeper.family", "query"),
        ("weirkeeper.object", "Account"),
        ("weirkeeper.source", "upstream"),
        ("weirkeeper.request_id", answer.header("weirkeeper-request-id").unwrap()),
        ("http.request.method", "GET"),
        ("http.response.status_code", "200"),
        ("http.route", "/services/data/{version}/query"),
        ("client.address", "127.0.0.1"),
    ] {
        assert_eq!(attribute(span, key), value, "{key}");
    }
    let names: Vec<_> = span["events"].as_array().unwrap().iter().map(|event| event["name"].clone()).collect();
    assert!(names.starts_with(&[json!("sent"), json!("upstream_head")]), "{names:?}");
    assert!(names.contains(&json!("upstream_end")) && names.contains(&json!("answer")), "{names:?}");
    let (began, ended) = (nanos(&span["startTimeUnixNano"]), nanos(&span["endTimeUnixNano"]));
    for event in span["events"].as_array().unwrap() {
        assert!((began..=ended).contains(&nanos(&event["timeUnixNano"])), "{event} in {began}..={ended}");
    }
    assert_eq!(span["status"], json!({}));

    // What Salesforce says against it is in the span too; it is the app's own mistake.
    let failed = &spans[1];
    assert_eq!(attribute(failed, "weirkeeper.error_code"), "NOT_FOUND");
    assert_eq!(failed["status"], json!({}));
    assert_eq!(failed.get("traceState"), None);

    until("the counter", || (gateway.count("weirkeeper_trace_spans_total", &["result=\"sent\""]) == 2).then_some(()));
    let line = gateway.process.out.find(|line| {
        let line: Value = serde_json::from_str(line).ok()?;
        (line["trace_id"] == TRACE && line["status"] == 404).then_some(line)
    });
    assert_eq!(line.unwrap()["error_code"], "NOT_FOUND");
}

#[test]
fn a_collector_that_is_not_well_is_asked_again_and_the_last_spans_are_sent_at_the_end() {
    let (simulator, collector) = (Simulator::start(), Collector::start());
    collector.refusals.store(1, Ordering::Relaxed);
    let endpoint = format!("endpoint: 'http://{}/v1/traces', sample: 100%, batch: 2, every: 1h", collector.address);
    let (_setup, gateway) = started(&simulator, &endpoint);
    let answers = [call(&gateway, QUERY, &[]), call(&gateway, QUERY, &[])];
    let (first, again) = (collector.spans(), collector.spans());
    assert_eq!(first, again, "the same batch once more");
    for (span, answer) in first.iter().zip(&answers) {
        assert_eq!(span["traceId"], answer.header("weirkeeper-request-id").unwrap(), "a trace of its own has its id");
        assert_eq!(span.get("parentSpanId"), None);
    }
    // This one would wait for an hour for another.
    call(&gateway, "/services/data/v62.0/limits", &[]);
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.ended().code, Some(0));
    let last = collector.spans();
    assert_eq!((last.len(), attribute(&last[0], "weirkeeper.operation")), (1, &json!("limits")));
}

#[test]
fn a_collector_that_is_gone_costs_spans_and_no_calls() {
    let simulator = Simulator::start();
    let endpoint = format!("endpoint: 'http://{}/v1/traces', sample: 100%, queue: 2, every: 1ms", free_address());
    let (_setup, gateway) = started(&simulator, &endpoint);
    for _ in 0..20 {
        assert_eq!(call(&gateway, QUERY, &[]).status, 200);
    }
    let dropped = |gateway: &Gateway| gateway.count("weirkeeper_trace_spans_total", &["result=\"dropped\""]);
    until("spans to be dropped", || (dropped(&gateway) >= 10).then_some(()));
    until("spans to be given up", || {
        (gateway.count("weirkeeper_trace_spans_total", &["result=\"failed\""]) > 0).then_some(())
    });
    assert_eq!(gateway.event("traces_not_taken")["level"], "warn");
    assert_eq!(call(&gateway, QUERY, &[]).status, 200);
}

#[test]
fn what_a_collector_needs_is_checked() {
    for (traces, complaint) in [
        ("endpoint: 'http://collector:4318'", "the path is missing"),
        ("endpoint: 'http://collector:4318/v1/traces', headers: {a: {env: PATH}}", "without TLS"),
        ("endpoint: 'https://collector/v1/traces', headers: {host: {env: PATH}}", "writes this header itself"),
        ("endpoint: 'https://collector/v1/traces', every: 0s", "longer than nothing"),
    ] {
        let setup = Setup::written(&format!(
            "orgs: [{{name: prod, instance_url: 'https://acme.my.salesforce.com'}}]\ntraces: {{{traces}}}\n"
        ));
        let ended = crate::process::run(&["check", setup.config_str()]);
        assert!(ended.code == Some(2) && ended.err.contains(complaint), "{traces}: {}", ended.err);
    }
}

#[tokio::test(start_paused = true)]
async fn salesforce_is_told_the_span_that_asks_it() {
    let world = World::new("traces: {endpoint: 'http://127.0.0.1:9/v1/traces', sample: 100%}\n");
    let mut client = world.client();
    let (sampled, unsampled) = (parent("01"), parent("00"));
    let state = ("tracestate", "acme=1");
    for (headers, known, flags) in [
        (&[("traceparent", sampled.as_str()), state][..], true, "01"),
        (&[("traceparent", unsampled.as_str()), state], true, "00"),
        (&[("traceparent", "what"), state], false, "01"),
        (&[], false, "01"),
    ] {
        let answer = client.send("GET", "limits", headers, "").await;
        let seen = world.sim.requests().pop().unwrap();
        let header = |name: &str| seen.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let trace = if known { TRACE } else { answer.header("weirkeeper-request-id") };
        let sent: Vec<_> = header("traceparent").unwrap().split('-').collect();
        assert_eq!((sent[0], sent[1], sent[3]), ("00", trace, flags), "{headers:?}");
        assert_eq!(header("x-sfdc-request-id"), Some(trace));
        assert_eq!(header("tracestate"), known.then_some("acme=1"), "what was added to no trace means nothing");
        let line = world.last_line().await;
        assert_eq!(line["trace_id"], trace, "{line}");
        if flags == "01" {
            let spans = world.telemetry.spans().next(1, Duration::ZERO).await;
            let export: Value = serde_json::from_slice(&encode(&spans)).unwrap();
            let span = &export["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
            assert_eq!((&span["spanId"], &span["traceId"]), (&json!(sent[2]), &json!(trace)));
        }
    }
    assert_eq!(world.telemetry.spans().counts().dropped, 0);
    world.close().await;
}
