//! Real sockets on loopback, real threads: no paused clock here.

use std::io::{Read, Write};
use std::net::TcpStream as Plain;

use super::*;
use crate::edge::serve::rig::{Road, refusal_in};

struct House {
    workers: Workers,
    address: SocketAddr,
    drain: Drain,
    counts: Arc<Counts>,
    road: Road,
}

fn house(settings: &WorkerSettings, tasks: &Tasks) -> House {
    let (drain, counts, road) = (Drain::new(), Arc::new(Counts::default()), Road::default());
    let served = road.clone();
    let workers = Workers::start(settings, &drain, &counts, move |_, _| served.clone()).unwrap();
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), 0, None).unwrap();
    let address = listener.address().unwrap();
    let accepting = workers.accept(listener, tasks);
    tasks.spawn_background(async move {
        let _ = accepting.await;
    });
    House { workers, address, drain, counts, road }
}

fn settings() -> WorkerSettings {
    WorkerSettings {
        count: 2,
        limits: Limits::default(),
        connections: 100,
        drain: Duration::from_secs(5),
        clock: Clock::start(),
    }
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = Plain::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    crate::tasks::Tasks::new().work(work).await.unwrap()
}

async fn until(what: impl Fn() -> bool) {
    for _ in 0..500 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("waited in vain");
}

#[tokio::test]
async fn connections_are_dealt_evenly_and_counted() {
    let tasks = Tasks::new();
    let house = house(&settings(), &tasks);
    let address = house.address;
    let open = blocking(move || (0..10).map(|_| Plain::connect(address).unwrap()).collect::<Vec<_>>()).await;
    until(|| house.workers.open() == [5, 5]).await;
    drop(open);
    until(|| house.workers.open() == [0, 0]).await;
    assert!(blocking(move || ask(address, LAST)).await.ends_with("ok"));
    house.drain.begin();
    assert_eq!(house.workers.finished().await, 0);
}

#[tokio::test]
async fn one_connection_too_many_is_turned_away_in_words() {
    let tasks = Tasks::new();
    let house = house(&WorkerSettings { connections: 2, ..settings() }, &tasks);
    let address = house.address;
    let open = blocking(move || [Plain::connect(address).unwrap(), Plain::connect(address).unwrap()]).await;
    until(|| house.workers.open().iter().sum::<usize>() == 2).await;
    refusal_in(&blocking(move || ask(address, LAST)).await, 503, "too_many_connections");
    assert_eq!(house.counts.turned_away.load(Ordering::Relaxed), 1);
    drop(open);
    until(|| house.workers.open() == [0, 0]).await;
    assert!(blocking(move || ask(address, LAST)).await.ends_with("ok"));
}

#[tokio::test]
async fn a_drain_stops_accepting_and_drops_what_does_not_end() {
    let tasks = Tasks::new();
    let house = house(&WorkerSettings { drain: Duration::from_millis(300), ..settings() }, &tasks);
    let address = house.address;
    let mut stuck = blocking(move || {
        let mut stream = Plain::connect(address).unwrap();
        stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        stream
    })
    .await;
    until(|| house.road.working.load(Ordering::Relaxed) == 1).await;
    house.drain.begin();
    assert_eq!(house.workers.finished().await, 1);
    assert_eq!(house.road.working.load(Ordering::Relaxed), 0);
    let mut answer = String::new();
    let _ = blocking(move || stuck.read_to_string(&mut answer)).await;
    until(|| Plain::connect(address).is_err()).await;
}

#[cfg(feature = "demo")]
#[tokio::test]
async fn what_is_not_tls_on_a_tls_port_is_told_so_or_closed() {
    use crate::edge::tls::{ClientCertificates, Tls, TlsFiles};

    let dir = tempfile::TempDir::new().unwrap();
    let made = rcgen::generate_simple_self_signed(["gateway.test".to_owned()]).unwrap();
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = Tls::load(TlsFiles { certificate, key, clients: ClientCertificates::NotAsked }).unwrap();
    let tasks = Tasks::new();
    let limits = Limits { head_time: Duration::from_millis(500), ..Limits::default() };
    let house = house(&WorkerSettings { limits, ..settings() }, &tasks);
    let listener = Listener::bind(([127, 0, 0, 1], 0).into(), 1, Some(Arc::new(tls))).unwrap();
    let address = listener.address().unwrap();
    let accepting = house.workers.accept(listener, &tasks);
    tasks.spawn_background(async move {
        let _ = accepting.await;
    });
    let answer = blocking(move || ask(address, LAST)).await;
    let body = refusal_in(&answer, 400, "malformed_request");
    assert!(body[0]["message"].as_str().is_some_and(|message| message.contains("HTTPS")));
    assert_eq!(house.counts.handshakes_failed.load(Ordering::Relaxed), 0);
    let silent = blocking(move || {
        let mut stream = Plain::connect(address).unwrap();
        stream.read(&mut [0; 1]).unwrap()
    });
    assert_eq!(silent.await, 0, "closed after head_time");
    until(|| house.counts.handshakes_failed.load(Ordering::Relaxed) == 1).await;
    let garbage = blocking(move || ask(address, "\x16\x03\x01\x00\x05hello")).await;
    assert!(!garbage.contains("HTTP"), "{garbage}");
    until(|| house.counts.handshakes_failed.load(Ordering::Relaxed) == 2).await;
}
