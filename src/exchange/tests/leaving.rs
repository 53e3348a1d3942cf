//! The caller leaves: at every point, everything is given back, and what was sent is seen to its end.

use super::*;
use crate::exchange::Cause;

/// Two-piece answers, each part 10 ms after the one before; counts requests and answers.
fn slow(limits: Limits, answer: &'static [&'static [u8]]) -> (World, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (asked, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&asked), Arc::clone(&answered));
    let world = World::new(limits, move |_, mut io| {
        let (asked, answered) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
        async move {
            while read_request(&mut io).await.is_some() {
                asked.fetch_add(1, Ordering::SeqCst);
                for part in answer {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    if io.write_all(part).await.is_err() {
                        return;
                    }
                }
                answered.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (world, asked, answered)
}

const KNOWN: &[&[u8]] = &[b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n", b"ab", b"cd"];
const CHUNKED: &[&[u8]] =
    &[b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"2\r\nab\r\n", b"2\r\ncd\r\n", b"0\r\n\r\n"];

#[tokio::test(start_paused = true)]
async fn at_every_await_everything_is_given_back() {
    for answer in [KNOWN, CHUNKED] {
        for busy in [false, true] {
            let mut finished = false;
            for polls in 0..40 {
                let (world, asked, answered) = slow(Limits { connections: 1, ..Limits::default() }, answer);
                let other = async {
                    if busy {
                        world.get().await.unwrap().1.unwrap();
                    }
                };
                let record = world.record();
                let caller = async {
                    let response = world.send(post("{}"), &record).await.unwrap();
                    response.into_body().collect().await.unwrap()
                };
                let ((), outcome) = tokio::join!(other, leave_after(caller, polls));
                finished |= outcome.is_some();
                world.tasks.idle().await;
                let sent = asked.load(Ordering::SeqCst) - usize::from(busy);
                let attempts = attempts(&record);
                assert_eq!(attempts.len(), sent, "what was sent is written down, left after {polls} polls");
                assert!(attempts.iter().all(|attempt| attempt.ended.is_some() && attempt.failure.is_none()));
                if answer == KNOWN {
                    assert_eq!(answered.load(Ordering::SeqCst), asked.load(Ordering::SeqCst), "seen to its end");
                    assert!(attempts.iter().all(|attempt| attempt.status == Some(200)));
                }
                world.assert_settled().await;
            }
            assert!(finished, "the last rounds must have come to the end");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_connection_of_a_caller_that_left_is_used_again() {
    let (world, _, _) = slow(Limits::default(), KNOWN);
    let record = world.record();
    assert!(leave_after(world.send(get(), &record), 1).await.is_none());
    assert_eq!(world.stats().abandoned_running, 1);
    world.tasks.idle().await;
    let stats = world.stats();
    assert_eq!((stats.abandoned, stats.abandoned_running, stats.idle, stats.cut), (1, 0, 1, 0));
    world.get().await.unwrap();
    assert_eq!(world.connections(), 1);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_wait_and_not_the_exchange() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        while read_request(&mut io).await.is_some() {
            tokio::time::sleep(Duration::from_secs(30)).await;
            io.write_all(OK).await.unwrap();
        }
    });
    let record = world.record();
    let plan = Plan { deadline: Some(world.clock.now() + Duration::from_secs(10)), ..world.plan() };
    let failure = world.upstream.send(post("{}"), &plan, &record).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Deadline);
    assert_eq!(failure.refusal(crate::call::Idempotency::Unsafe).reason, crate::refusal::Reason::OutcomeUnknown);
    assert_eq!(world.clock.now(), plan.deadline.unwrap());
    assert_eq!(attempts(&record)[0].ended, None);
    world.tasks.idle().await;
    assert_eq!(attempts(&record)[0].status, Some(200));
    assert_eq!(world.stats().idle, 1);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_bound_go_on_and_none_for_ever() {
    let world = World::new(Limits { abandoned: 2, ..Limits::default() }, |_, mut io| async move {
        read_request(&mut io).await.unwrap();
        // Waits for the connection to be closed.
        let _ = read_request(&mut io).await;
    });
    let record = world.record();
    for _ in 0..5 {
        assert!(leave_after(world.send(get(), &record), 1).await.is_none());
    }
    let stats = world.stats();
    assert_eq!((stats.abandoned_running, stats.abandoned, stats.cut), (2, 2, 3));
    let started = world.clock.now();
    world.tasks.idle().await;
    assert_eq!(world.clock.now() - started, Timeouts::default().total);
    let failed = attempts(&record).iter().filter(|attempt| attempt.failure.is_some()).count();
    assert_eq!(failed, 2);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_whose_caller_left_is_cut() {
    let whole = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&whole);
    let world = World::new(Limits::default(), move |_, mut io| {
        let count = Arc::clone(&count);
        async move {
            if read_request(&mut io).await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_secs(1)).await;
                let _ = io.write_all(OK).await;
            }
        }
    });
    let (pieces, request) = upload();
    pieces.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
    let record = world.record();
    assert!(leave_after(world.send(request, &record), 2).await.is_none());
    tokio::task::yield_now().await;
    drop(pieces);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((whole.load(Ordering::SeqCst), world.stats().cut, world.stats().open), (0, 1, 0));

    // Once its last byte was handed over, it is a call like any other.
    let (pieces, request) = upload();
    pieces.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
    drop(pieces);
    let caller = async {
        let send = std::pin::pin!(world.send(request, &record));
        tokio::time::timeout(Duration::from_millis(100), send).await.unwrap_err();
    };
    caller.await;
    world.tasks.idle().await;
    assert_eq!((whole.load(Ordering::SeqCst), world.stats().abandoned), (1, 1));
    assert_eq!(attempts(&record)[1].status, Some(200));
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_poll_ends_with_its_caller() {
    let (mut world, _, answered) = slow(Limits::default(), KNOWN);
    world.plan.long_poll = true;
    let record = world.record();
    assert!(leave_after(world.send(get(), &record), 1).await.is_none());
    world.tasks.idle().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((world.stats().cut, world.stats().open, answered.load(Ordering::SeqCst)), (1, 0, 0));
    assert!(attempts(&record)[0].ended.is_some());
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn the_rest_of_a_long_answer_is_not_fetched_for_nobody() {
    for length in [50_000, 500_000] {
        let world = World::new(Limits::default(), move |_, mut io| async move {
            while read_request(&mut io).await.is_some() {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\nfirst");
                io.write_all(head.as_bytes()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
                if io.write_all(&vec![1; length - 5]).await.is_err() {
                    return;
                }
            }
        });
        let mut body = world.send(get(), &world.record()).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().is_ok());
        drop(body);
        world.tasks.idle().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.stats().idle, usize::from(length == 50_000), "{length} bytes");
        world.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_while_it_is_read_ahead_gives_back_every_byte() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        read_request(&mut io).await.unwrap();
        let _ = io.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let mut chunk = b"8000\r\n".to_vec();
        chunk.extend_from_slice(&b"5".repeat(0x8000));
        chunk.extend_from_slice(b"\r\n");
        while io.write_all(&chunk).await.is_ok() {}
    });
    let record = world.record();
    let mut body = world.send(get(), &record).await.unwrap().into_body();
    let mut passed = 0;
    while passed < 200_000 {
        passed += body.frame().await.unwrap().unwrap().data_ref().unwrap().len();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.budget.used() > 0 && world.tasks.running() == 1);
    drop(body);
    world.tasks.idle().await;
    assert!(attempts(&record)[0].ended.is_some());
    world.assert_settled().await;
}
