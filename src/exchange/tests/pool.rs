//! Connections are kept, bounded, shared out in order, and retired.

use super::*;
use crate::exchange::Cause;

fn limits() -> Limits {
    Limits { connections: 4, waiting: 4, ..Limits::default() }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_used_again() {
    let world = World::new(limits(), |_, io| answer_all(io, OK));
    for _ in 0..5 {
        assert_eq!(world.get().await.unwrap(), (200, Some(Bytes::from_static(b"ok"))));
    }
    assert_eq!(world.connections(), 1);
    let stats = world.stats();
    assert_eq!((stats.open, stats.idle, stats.connects.ok, stats.resent), (1, 1, 1, 0));
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn the_host_and_the_path_are_those_of_the_org() {
    let world = World::new(limits(), |_, mut io| async move {
        let head = String::from_utf8(read_request(&mut io).await.unwrap()).unwrap();
        assert!(head.starts_with("GET /services/data/?x=1 HTTP/1.1\r\n"), "{head}");
        assert_eq!(head.matches("host: acme.test\r\n").count(), 1, "{head}");
        io.write_all(OK).await.unwrap();
    });
    let request = Request::get("https://gateway.internal/services/data/?x=1")
        .version(http::Version::HTTP_2)
        .header("host", "gateway.internal")
        .body(Payload::Empty)
        .unwrap();
    assert_eq!(world.call(request).await.unwrap().0, 200);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_in_time() {
    let world = World::new(limits(), |_, io| answer_all(io, OK));
    world.get().await.unwrap();
    tokio::time::sleep(Duration::from_secs(40)).await;
    world.get().await.unwrap();
    assert_eq!(world.connections(), 1, "40 s are not too long");
    tokio::time::sleep(Duration::from_mins(1)).await;
    assert_eq!(world.stats().open, 0, "swept without a call");
    world.get().await.unwrap();
    assert_eq!(world.connections(), 2);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_retired_however_busy() {
    let world = World::new(Limits { age: Duration::from_mins(2), ..limits() }, |_, io| answer_all(io, OK));
    for _ in 0..13 {
        world.get().await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(world.connections(), 2);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn an_old_connection_is_retired_even_if_calls_always_wait_for_it() {
    let limits = Limits { connections: 1, waiting: 100, age: Duration::from_secs(2), ..limits() };
    let world = World::new(limits, |_, mut io| async move {
        while read_request(&mut io).await.is_some() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            io.write_all(OK).await.unwrap();
        }
    });
    let calls = (0..16).map(|_| world.get());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap().0, 200);
    }
    assert_eq!(world.connections(), 4, "8 s of calls, at most 2 s on each connection");
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn calls_beyond_the_bound_wait_their_turn() {
    let world = Arc::new(World::new(Limits { connections: 1, waiting: 10, ..limits() }, |_, mut io| async move {
        while read_request(&mut io).await.is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
            io.write_all(OK).await.unwrap();
        }
    }));
    let (order, mut ended) = mpsc::unbounded_channel();
    for number in 0..5 {
        let (world, order) = (Arc::clone(&world), order.clone());
        let tasks = world.tasks.clone();
        tasks.spawn(async move {
            world.get().await.unwrap();
            order.send(number).unwrap();
        });
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((world.stats().open, world.stats().waiting), (1, 4));
    for number in 0..5 {
        assert_eq!(ended.recv().await, Some(number));
    }
    assert_eq!(world.connections(), 1, "handed from call to call");
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_passed_deadline_are_busy() {
    let world = Arc::new(World::new(Limits { connections: 1, waiting: 1, ..limits() }, |_, mut io| async move {
        read_request(&mut io).await.unwrap();
        tokio::time::sleep(Duration::from_secs(5)).await;
        io.write_all(OK).await.unwrap();
    }));
    let first = Arc::clone(&world);
    world.tasks.spawn(async move {
        first.get().await.unwrap();
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    let deadline = world.clock.now() + Duration::from_secs(1);
    let record = world.record();
    let plan = Plan { deadline: Some(deadline), ..world.plan() };
    let waiting = world.upstream.send(get(), &plan, &record);
    let full = async {
        tokio::task::yield_now().await;
        world.get().await.unwrap_err()
    };
    let (waited, full) = tokio::join!(waiting, full);
    let waited = waited.unwrap_err();
    assert_eq!((waited.cause, full.cause), (Cause::Busy, Cause::Busy));
    assert!(full.detail.contains("queue") && full.detail.contains("acme.test"), "{}", full.detail);
    assert_eq!(world.clock.now(), deadline);
    assert!(attempts(&record).is_empty(), "nothing was sent");
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_whose_deadline_has_passed_is_not_sent() {
    let world = World::new(limits(), |_, io| answer_all(io, OK));
    let plan = Plan { deadline: Some(world.clock.now()), ..world.plan() };
    let failure = world.upstream.send(get(), &plan, &world.record()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::Deadline);
    assert_eq!(world.connections(), 0);
}

#[tokio::test(start_paused = true)]
async fn those_who_left_the_queue_do_not_block_it() {
    let world = Arc::new(World::new(Limits { connections: 1, waiting: 3, ..limits() }, |_, mut io| async move {
        while read_request(&mut io).await.is_some() {
            tokio::time::sleep(Duration::from_secs(1)).await;
            io.write_all(OK).await.unwrap();
        }
    }));
    let first = world.get();
    let others = async {
        tokio::task::yield_now().await;
        for _ in 0..6 {
            assert!(leave_after(world.get(), 1).await.is_none());
        }
        world.get().await.unwrap()
    };
    let (first, last) = tokio::join!(first, others);
    assert_eq!((first.unwrap().0, last.0), (200, 200));
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn a_slot_freed_by_a_broken_connection_goes_to_the_next() {
    let world = World::new(Limits { connections: 1, ..limits() }, |number, mut io| async move {
        read_request(&mut io).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        if number > 0 {
            io.write_all(OK).await.unwrap();
        }
    });
    let second = async {
        tokio::task::yield_now().await;
        world.get().await
    };
    let (first, second) = tokio::join!(world.get(), second);
    assert_eq!(first.unwrap_err().cause, Cause::Reset);
    assert_eq!(second.unwrap().0, 200);
    world.assert_settled().await;
}

#[tokio::test(start_paused = true)]
async fn dropping_the_upstream_closes_what_is_idle() {
    let open = Arc::new(AtomicUsize::new(0));
    let served = Arc::clone(&open);
    let world = World::new(limits(), move |_, io| {
        let served = Arc::clone(&served);
        async move {
            served.fetch_add(1, Ordering::SeqCst);
            answer_all(io, OK).await;
            served.fetch_sub(1, Ordering::SeqCst);
        }
    });
    world.get().await.unwrap();
    assert_eq!(open.load(Ordering::SeqCst), 1);
    drop(world);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(open.load(Ordering::SeqCst), 0);
}
