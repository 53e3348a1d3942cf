//! Bodies of every kind, in both directions.

use super::*;
use crate::exchange::{Cause, Sent};

#[tokio::test(start_paused = true)]
async fn answers_without_a_body_keep_their_connection() {
    for answer in [
        b"HTTP/1.1 204 No Content\r\n\r\n".as_slice(),
        b"HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    ] {
        let world = World::new(Limits::default(), move |_, io| answer_all(io, answer));
        for _ in 0..2 {
            let response = world.send(get(), &world.record()).await.unwrap();
            assert!(response.body().is_end_stream());
        }
        assert_eq!(world.connections(), 1);
        world.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_head_has_a_length_and_no_body() {
    let world =
        World::new(Limits::default(), |_, io| answer_all(io, b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n"));
    for _ in 0..2 {
        let request = Request::head("/services/data/").body(Payload::Empty).unwrap();
        let response = world.send(request, &world.record()).await.unwrap();
        assert_eq!(response.headers()["content-length"], "5000");
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
    assert_eq!(world.connections(), 1);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_with_its_connection_is_whole_and_its_connection_is_not_kept() {
    for answer in [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello".as_slice(),
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\ncontent-length: 5\r\n\r\nhello",
    ] {
        let world = World::new(Limits::default(), move |_, mut io| async move {
            read_request(&mut io).await.unwrap();
            io.write_all(answer).await.unwrap();
        });
        for number in 1..=2 {
            assert_eq!(world.get().await.unwrap(), (200, Some(Bytes::from_static(b"hello"))));
            assert_eq!(world.connections(), number);
        }
        world.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_tells_when_each_part_happened() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        read_request(&mut io).await.unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        io.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\n").await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        io.write_all(b"ok").await.unwrap();
    });
    let (record, started) = (world.record(), world.clock.now());
    let response = world.send(post("{}"), &record).await.unwrap();
    response.into_body().collect().await.unwrap();
    let [exchange] = attempts(&record).try_into().unwrap();
    assert_eq!(exchange.sent, started);
    assert_eq!(exchange.head, Some(started + Duration::from_secs(3)));
    assert_eq!(exchange.ended, Some(started + Duration::from_secs(7)));
    assert_eq!((exchange.status, exchange.failure, exchange.charged), (Some(201), None, ApiCalls(1)));
    world.assert_settled().await;
}

/// Writes an answer of `total` bytes as fast as it is taken; says how many were taken.
async fn flood(mut io: DuplexStream, total: u64, taken: Arc<AtomicUsize>) {
    read_request(&mut io).await.unwrap();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {total}\r\n\r\n");
    io.write_all(head.as_bytes()).await.unwrap();
    let piece = vec![7; 64 * 1_024];
    let mut left = total;
    while left > 0 {
        let some = piece.len().min(usize::try_from(left).unwrap());
        if io.write_all(&piece[..some]).await.is_err() {
            return;
        }
        taken.fetch_add(some, Ordering::SeqCst);
        left -= some as u64;
    }
}

#[tokio::test(start_paused = true)]
async fn a_gibibyte_streams_in_bounded_memory() {
    const TOTAL: u64 = 1 << 30;
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let world = World::new(Limits::default(), move |_, io| flood(io, TOTAL, Arc::clone(&count)));
    let mut body = world.send(get(), &world.record()).await.unwrap().into_body();
    let (mut passed, mut most_held, mut most_under_way) = (0_u64, 0, 0);
    while let Some(frame) = body.frame().await {
        passed += frame.unwrap().data_ref().unwrap().len() as u64;
        most_held = most_held.max(world.budget.used());
        // The origin counts what it has written when all of a piece is written: it may be behind.
        most_under_way = most_under_way.max((taken.load(Ordering::SeqCst) as u64).saturating_sub(passed));
    }
    assert_eq!(passed, TOTAL);
    assert!(most_held > 0 && most_held <= world.plan.read_ahead + 128 * 1_024, "{most_held} bytes read ahead");
    assert!(most_under_way < 1 << 20, "{most_under_way} bytes between origin and caller");
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_caller_does_not_hold_up_the_origin_within_the_bound() {
    const TOTAL: u64 = 400 * 1_024;
    let taken = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&taken);
    let mut world = World::new(Limits::default(), move |_, io| flood(io, TOTAL, Arc::clone(&count)));
    world.plan.read_ahead = 400 * 1_024;
    let record = world.record();
    let mut body = world.send(get(), &record).await.unwrap().into_body();
    let mut passed = 0;
    while passed < 64 * 1_024 {
        passed += body.frame().await.unwrap().unwrap().data_ref().unwrap().len() as u64;
    }
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(taken.load(Ordering::SeqCst) as u64, TOTAL, "the origin is done");
    assert_eq!(world.stats().open, 0, "and its connection grew old in the pool");
    assert!(attempts(&record)[0].ended.is_some());
    assert_eq!(world.budget.used() as u64, TOTAL - passed);
    assert_eq!(body.size_hint().exact(), Some(TOTAL - passed));
    assert_eq!(body.collect().await.unwrap().to_bytes().len() as u64, TOTAL - passed);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn without_budget_or_for_a_long_poll_nothing_is_read_ahead() {
    const TOTAL: u64 = 4 << 20;
    for (budget, read_ahead) in [(0, 256 * 1_024), (1 << 20, 0)] {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let mut world = World::new(Limits::default(), move |_, io| flood(io, TOTAL, Arc::clone(&count)));
        world.plan.read_ahead = read_ahead;
        world.budget.set_limit(budget);
        let mut body = world.send(get(), &world.record()).await.unwrap().into_body();
        let mut passed = 0;
        while passed < 128 * 1_024 {
            passed += body.frame().await.unwrap().unwrap().data_ref().unwrap().len();
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        let ahead = taken.load(Ordering::SeqCst) - passed;
        assert!(ahead < 400 * 1_024, "{ahead} bytes, more than the connection's own buffers");
        assert_eq!(world.budget.used(), 0);
        assert_eq!(body.collect().await.unwrap().to_bytes().len() + passed, usize::try_from(TOTAL).unwrap());
        world.assert_settled().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_never_comes_back_is_not_waited_for_for_ever() {
    let world = World::new(Limits::default(), |_, io| flood(io, 4 << 20, Arc::default()));
    let record = world.record();
    let mut body = world.send(get(), &record).await.unwrap().into_body();
    let mut passed = 0;
    while passed < 128 * 1_024 {
        passed += body.frame().await.unwrap().unwrap().data_ref().unwrap().len();
    }
    tokio::time::sleep(Duration::from_mins(11)).await;
    assert_eq!(world.tasks.running(), 0);
    assert!(body.collect().await.is_err());
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_streams_and_its_answer_waits_for_its_end() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        let request = read_request(&mut io).await.unwrap();
        assert!(request.ends_with(b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n"));
        io.write_all(OK).await.unwrap();
        let _ = read_request(&mut io).await;
    });
    let (pieces, request) = upload();
    let sender = async {
        pieces.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
        tokio::time::sleep(Duration::from_secs(100)).await;
        pieces.send(Ok(Bytes::from_static(b"world"))).await.unwrap();
        tokio::time::sleep(Duration::from_secs(100)).await;
        drop(pieces);
    };
    let (answer, ()) = tokio::join!(world.call(request), sender);
    assert_eq!(answer.unwrap().0, 200, "an upload that moves is not late");
    assert_eq!(world.stats().idle, 1);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_of_known_length_is_complete_at_its_last_byte() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        while let Some(request) = read_request(&mut io).await {
            assert!(request.ends_with(b"\r\n\r\nhelloworld"));
            io.write_all(OK).await.unwrap();
        }
    });
    for _ in 0..2 {
        let (pieces, mut request) = upload();
        request.headers_mut().insert("content-length", http::HeaderValue::from_static("10"));
        let sender = async {
            for piece in ["hello", "world"] {
                pieces.send(Ok(Bytes::from_static(piece.as_bytes()))).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            pieces
        };
        // The caller says nothing after the last byte; its stream does not even end.
        let (answer, _pieces) = tokio::join!(world.call(request), sender);
        assert_eq!(answer.unwrap().0, 200);
    }
    assert_eq!((world.connections(), world.stats().idle), (1, 1));
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_shorter_than_announced_is_no_success() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        assert!(read_request(&mut io).await.is_none());
    });
    let (pieces, mut request) = upload();
    request.headers_mut().insert("content-length", http::HeaderValue::from_static("10"));
    pieces.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
    drop(pieces);
    let failure = world.call(request).await.unwrap_err();
    assert_eq!((failure.cause, failure.sent), (Cause::Reset, Sent::Maybe));
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_breaks_off_never_looks_complete() {
    let whole = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&whole);
    let world = World::new(Limits::default(), move |_, mut io| {
        let count = Arc::clone(&count);
        async move {
            if read_request(&mut io).await.is_some() {
                count.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    for fault in [BodyFault::Gone, BodyFault::TooSlow, BodyFault::Malformed, BodyFault::TooLarge] {
        let (pieces, request) = upload();
        let sender = async {
            pieces.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            pieces.send(Err(fault)).await.unwrap();
        };
        let (answer, ()) = tokio::join!(world.call(request), sender);
        assert_eq!(answer.unwrap_err().cause, Cause::Upload(fault));
    }
    assert_eq!(whole.load(Ordering::SeqCst), 0);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_before_the_end_of_the_upload_is_passed_on_and_its_connection_closed() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        let mut some = [0; 64];
        io.read_exact(&mut some).await.unwrap();
        io.write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\n[]").await.unwrap();
        let mut rest = Vec::new();
        let _ = io.read_to_end(&mut rest).await;
        assert!(!rest.ends_with(b"0\r\n\r\n"));
    });
    let (pieces, request) = upload();
    pieces.send(Ok(Bytes::from_static(b"hello"))).await.unwrap();
    assert_eq!(world.call(request).await.unwrap(), (401, Some(Bytes::from_static(b"[]"))));
    assert_eq!(world.stats().idle, 0);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(pieces.is_closed(), "the rest of the upload is not read for nobody");
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_stalls_at_the_origin_times_out() {
    let world = World::new(Limits::default(), |_, mut io| async move {
        let mut some = [0; 64];
        io.read_exact(&mut some).await.unwrap();
        std::future::pending::<()>().await;
    });
    let (pieces, request) = upload();
    let sender = async { while pieces.send(Ok(Bytes::from(vec![1; 64 * 1_024]))).await.is_ok() {} };
    let (answer, ()) = tokio::join!(world.call(request), sender);
    let failure = answer.unwrap_err();
    assert_eq!((failure.cause, failure.sent), (Cause::FirstByte, Sent::Maybe));
    world.assert_settled().await;
}
