//! What the origin does wrong: the caller is told, and nothing is sent twice that may have arrived.

use super::*;
use crate::exchange::{Cause, Sent};
use crate::outcome::FailureKind;

const REQUEST: &str = r#"{"Name":"Acme"}"#;

#[tokio::test(start_paused = true)]
async fn garbage_is_named_as_such() {
    for garbage in [b"SSH-2.0-OpenSSH\r\n\r\n".as_slice(), b"HTTP/1.1 999999 ?\r\n\r\n", b"\0\0\0\0\0\0\0\0\r\n\r\n"] {
        let world = World::new(Limits::default(), move |_, io| answer_all(io, garbage));
        let record = world.record();
        let failure = world.send(get(), &record).await.unwrap_err();
        assert_eq!((failure.cause, failure.sent), (Cause::Garbage, Sent::Maybe), "{garbage:?}");
        assert!(failure.detail.contains("acme.test"));
        assert_eq!(attempts(&record)[0].failure, Some(FailureKind::Garbage));
        world.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_endless_head_is_refused() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        read_request(&mut io).await.unwrap();
        let _ = io.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while io.write_all(b"x-filler: 0123456789012345678901234567890123456789\r\n").await.is_ok() {}
    });
    assert_eq!(world.get().await.unwrap_err().cause, Cause::Garbage);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_switch_of_protocols_is_no_answer() {
    let world = World::new(Limits::default(), |_, io| {
        answer_all(io, b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
    });
    assert_eq!(world.get().await.unwrap_err().cause, Cause::Garbage);
    world.assert_settled().await;
}

/// Serves connections that read `take` bytes of their last request, answer `give` bytes, and close; before that,
/// `warm` whole exchanges. Counts requests begun and requests whole.
fn cutting(warm: usize, take: usize, give: &'static [u8]) -> (World, Arc<AtomicUsize>) {
    let begun = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun);
    let world = World::new(Limits::default(), move |_, mut io| {
        let count = Arc::clone(&count);
        async move {
            for _ in 0..warm {
                if read_request(&mut io).await.is_none() {
                    return;
                }
                io.write_all(OK).await.unwrap();
            }
            let mut bytes = vec![0; take];
            let mut got = 0;
            while got < take {
                match io.read(&mut bytes[got..]).await {
                    Ok(0) | Err(_) => break,
                    Ok(more) => got += more,
                }
            }
            if got > 0 {
                count.fetch_add(1, Ordering::SeqCst);
            }
            let _ = io.write_all(give).await;
        }
    });
    (world, begun)
}

/// What a POST looks like on the wire.
async fn wire_bytes() -> usize {
    let (length, seen) = tokio::sync::oneshot::channel();
    let length = std::sync::Mutex::new(Some(length));
    let world = World::new(Limits::default(), move |_, mut io| {
        let length = length.lock().unwrap().take();
        async move {
            let request = read_request(&mut io).await.unwrap();
            length.unwrap().send(request.len()).unwrap();
            io.write_all(OK).await.unwrap();
        }
    });
    world.call(post(REQUEST)).await.unwrap();
    seen.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_post_cut_at_any_byte_is_never_sent_twice() {
    let length = wire_bytes().await;
    for warm in [0, 1] {
        for take in 1..=length {
            let (world, begun) = cutting(warm, take, b"");
            for _ in 0..warm {
                world.get().await.unwrap();
            }
            let record = world.record();
            let failure = world.send(post(REQUEST), &record).await.unwrap_err();
            assert_eq!((failure.cause, failure.sent), (Cause::Reset, Sent::Maybe), "cut after {take} bytes");
            assert_eq!(begun.load(Ordering::SeqCst), 1, "sent again after {take} bytes");
            assert_eq!(attempts(&record).len(), 1);
            assert_eq!(world.stats().resent, 0);
            world.assert_settled().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_cut_at_any_byte_is_never_taken_for_a_whole_one() {
    let length = wire_bytes().await;
    let answers: [&'static [u8]; 2] = [
        b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nhello world",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    ];
    for answer in answers {
        for give in 0..=answer.len() {
            let (world, begun) = cutting(1, length, &answer[..give]);
            world.get().await.unwrap();
            let record = world.record();
            match world.send(post(REQUEST), &record).await {
                Err(failure) => assert_eq!(failure.sent, Sent::Maybe, "cut after {give} bytes"),
                Ok(response) => {
                    let body = response.into_body().collect().await;
                    assert_eq!(body.is_ok(), give == answer.len(), "cut after {give} bytes");
                    let fault = body.err();
                    assert!(fault.is_none() || fault == Some(BodyFault::Malformed), "{fault:?}");
                }
            }
            assert_eq!(begun.load(Ordering::SeqCst), 1, "sent again after {give} bytes of the answer");
            let attempts = attempts(&record);
            assert_eq!(attempts.len(), 1);
            assert!(attempts[0].ended.is_some());
            assert_eq!(attempts[0].failure.is_none(), give == answer.len(), "cut after {give} bytes");
            world.assert_settled().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_while_idle_is_replaced_unseen() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        read_request(&mut io).await.unwrap();
        io.write_all(OK).await.unwrap();
    });
    for number in 1..=3 {
        let record = world.record();
        let response = world.send(post(REQUEST), &record).await.unwrap();
        response.into_body().collect().await.unwrap();
        assert_eq!(world.connections(), number);
        assert_eq!(attempts(&record).len(), 1, "only what was sent is written down");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_at_this_moment_is_not_used() {
    let (accepted, mut connections) = mpsc::unbounded_channel();
    let world = World::new(Limits::default(), move |_, io| {
        accepted.send(io).unwrap();
        std::future::ready(())
    });
    let serve = async {
        let mut io = connections.recv().await.unwrap();
        read_request(&mut io).await.unwrap();
        io.write_all(OK).await.unwrap();
        io
    };
    let (first, io) = tokio::join!(world.get(), serve);
    assert_eq!(first.unwrap().0, 200);
    // Closed by the origin, and asked for again before the runtime has come to anything else.
    drop(io);
    let record = world.record();
    let serve = async {
        let mut io = connections.recv().await.unwrap();
        let request = read_request(&mut io).await.unwrap();
        assert!(request.ends_with(REQUEST.as_bytes()));
        io.write_all(OK).await.unwrap();
        io
    };
    let (second, _io) = tokio::join!(world.send(post(REQUEST), &record), serve);
    assert_eq!(second.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
    assert_eq!((world.connections(), world.stats().resent), (2, 0));
    assert_eq!(attempts(&record).len(), 1);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn more_than_was_announced_does_not_reach_the_next_call() {
    let world = World::new(Limits::default(), |number, mut io| async move {
        while read_request(&mut io).await.is_some() {
            io.write_all(OK).await.unwrap();
            if number == 0 {
                io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await.unwrap();
            }
        }
    });
    for _ in 0..2 {
        assert_eq!(world.get().await.unwrap(), (200, Some(Bytes::from_static(b"ok"))));
    }
    assert_eq!(world.connections(), 2);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn each_timeout_names_itself() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        read_request(&mut io).await.unwrap();
        std::future::pending::<()>().await;
    });
    let started = world.clock.now();
    let failure = world.get().await.unwrap_err();
    assert_eq!((failure.cause, failure.sent), (Cause::FirstByte, Sent::Maybe));
    assert!(failure.detail.contains("first_byte"));
    assert_eq!(world.clock.now() - started, Duration::from_mins(2));

    let mut plan = world.plan();
    plan.timeouts.total = Duration::from_secs(7);
    let record = world.record();
    let failure = world.upstream.send(get(), &plan, &record).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Total);
    assert_eq!(world.clock.now(), plan.now + Duration::from_secs(7));
    assert_eq!(attempts(&record)[0].failure, Some(FailureKind::Timeout));
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_cut_and_one_that_drips_is_not() {
    let world = World::new(Limits::default(), |number, mut io| async move {
        read_request(&mut io).await.unwrap();
        io.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await.unwrap();
        for _ in 0..if number == 0 { 10 } else { 5 } {
            tokio::time::sleep(Duration::from_secs(50)).await;
            io.write_all(b"x").await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    assert_eq!(world.get().await.unwrap().1, Some(Bytes::from_static(b"xxxxxxxxxx")));
    tokio::time::sleep(Duration::from_mins(2)).await;
    let record = world.record();
    let body = world.send(get(), &record).await.unwrap().into_body();
    assert_eq!(body.collect().await.unwrap_err(), BodyFault::Gone);
    assert_eq!(attempts(&record)[0].failure, Some(FailureKind::Timeout));
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_fresh_connection_that_closes_at_once_is_a_failure_and_not_a_loop() {
    let world = World::new(Limits::default(), |_, io| async move { drop(io) });
    let failure = world.get().await.unwrap_err();
    assert_eq!(failure.cause, Cause::Reset);
    assert_eq!(world.connections(), 1);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_origin_is_told_with_its_name() {
    let (clock, tasks, budget) = (Clock::start(), Tasks::new(), ByteBudget::new(0));
    let refused: super::super::MemoryDial =
        Arc::new(|| Box::pin(async { Err(io::Error::from(io::ErrorKind::ConnectionRefused)) }));
    let silent: super::super::MemoryDial = Arc::new(|| Box::pin(std::future::pending()));
    for (dial, cause) in [(refused, Cause::Connect), (silent, Cause::ConnectTimeout)] {
        let origin = Origin::parse("http://acme.test").unwrap();
        let target = Target { origin, connector: Connector::memory(dial), limits: Limits::default() };
        let upstream: Upstream<Pieces> = Upstream::new([target], clock, &tasks, &budget);
        let record = Record::new(Outcome::new(RequestId(1), clock.now(), Method::GET));
        let plan = Plan {
            org: ORG,
            now: clock.now(),
            cost: ApiCalls(1),
            costs: crate::salesforce::Costs::default(),
            timeouts: Timeouts::default(),
            deadline: None,
            read_ahead: 0,
            long_poll: false,
        };
        let failure = upstream.send(get(), &plan, &record).await.unwrap_err();
        assert_eq!((failure.cause, failure.sent), (cause, Sent::Nothing));
        assert!(failure.detail.contains("acme.test"), "{}", failure.detail);
        assert!(attempts(&record).is_empty());
        assert_eq!(upstream.stats(ORG).unwrap().open, 0);
    }
}

/// By TCP, on the machine's own clock.
fn by_tcp(url: &str) -> (Upstream<Pieces>, Plan, Record) {
    let (clock, tasks, budget) = (Clock::start(), Tasks::new(), ByteBudget::new(0));
    let origin = Origin::parse(url).unwrap();
    let target = Target { origin, connector: Connector::tcp(), limits: Limits::default() };
    let plan = Plan {
        org: ORG,
        now: clock.now(),
        cost: ApiCalls(1),
        costs: crate::salesforce::Costs::default(),
        timeouts: Timeouts::default(),
        deadline: None,
        read_ahead: 0,
        long_poll: false,
    };
    let record = Record::new(Outcome::new(RequestId(1), clock.now(), Method::GET));
    (Upstream::new([target], clock, &tasks, &budget), plan, record)
}

#[tokio::test]
async fn a_tcp_port_is_reached_or_refuses() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://localhost:{}", listener.local_addr().unwrap().port());
    let (upstream, plan, record) = by_tcp(&url);
    let serve = async {
        let (mut io, _) = listener.accept().await.unwrap();
        let mut head = [0; 1_024];
        assert!(io.read(&mut head).await.unwrap() > 0);
        io.write_all(OK).await.unwrap();
    };
    let (answer, ()) = tokio::join!(upstream.send(get(), &plan, &record), serve);
    assert_eq!(answer.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
    drop(listener);
    let (upstream, plan, record) = by_tcp(&url);
    let failure = upstream.send(get(), &plan, &record).await.unwrap_err();
    assert_eq!((failure.cause, failure.sent), (Cause::Connect, Sent::Nothing));
    assert_eq!(upstream.stats(ORG).unwrap().connects.connect, 1);
}

/// The request that arrives at `io`, and `answer` to it.
async fn answer_by_tcp(io: &mut tokio::net::TcpStream, answer: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && !request.ends_with(REQUEST.as_bytes()) {
        assert!(io.read_buf(&mut request).await.unwrap() > 0);
    }
    io.write_all(answer).await.unwrap();
    request
}

#[tokio::test]
async fn a_message_given_back_unsent_is_sent_once_more_even_a_post() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (upstream, plan, record) = by_tcp(&format!("http://{}", listener.local_addr().unwrap()));
    let serve = async {
        let (mut io, _) = listener.accept().await.unwrap();
        answer_by_tcp(&mut io, OK).await;
        io
    };
    let (first, io) = tokio::join!(upstream.send(get(), &plan, &record), serve);
    assert_eq!(first.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
    // Reset by the origin, and used again before the runtime has seen that.
    io.set_zero_linger().unwrap();
    drop(io);
    let serve = async {
        let (mut io, _) = listener.accept().await.unwrap();
        assert!(answer_by_tcp(&mut io, OK).await.ends_with(REQUEST.as_bytes()));
        io
    };
    let (second, _io) = tokio::join!(upstream.send(post(REQUEST), &plan, &record), serve);
    assert_eq!(second.unwrap().into_body().collect().await.unwrap().to_bytes(), "ok");
    let stats = upstream.stats(ORG).unwrap();
    assert_eq!((stats.resent, stats.open, stats.connects.ok), (1, 1, 2));
    assert_eq!(attempts(&record).len(), 2, "what was given back is not counted");
}

#[tokio::test]
async fn a_name_without_an_address_is_told() {
    // A label longer than DNS allows: refused by the resolver itself, no query leaves this machine.
    let (upstream, plan, record) = by_tcp(&format!("http://{}.test", "a".repeat(70)));
    let failure = upstream.send(get(), &plan, &record).await.unwrap_err();
    assert_eq!((failure.cause, failure.sent), (Cause::Dns, Sent::Nothing), "{}", failure.detail);
    assert_eq!(upstream.stats(ORG).unwrap().connects.dns, 1);
}
