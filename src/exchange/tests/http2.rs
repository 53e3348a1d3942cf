//! One HTTP/2 connection shared by exchanges.

use h2::server::SendResponse;
use tokio_rustls::TlsAcceptor;

use super::secure::{authority, server};
use super::*;
use crate::exchange::{Cause, Roots, Sent, TlsSettings};

/// An org that answers the `n`th stream of a connection by `answer`, which says whether the connection goes on.
fn world<F>(limits: Limits, answer: impl Fn(usize, SendResponse<Bytes>) -> F + Send + Sync + 'static) -> World
where
    F: Future<Output = bool> + Send + 'static,
{
    let issuer = authority("Trusted");
    let roots = vec![issuer.der().clone()];
    let tls = TlsSettings { roots: Roots::Bundled, extra_roots: roots, http2: true, identity: None }.build().unwrap();
    let mut config = Arc::unwrap_or_clone(server(&issuer, "acme.test", 2999));
    config.alpn_protocols = vec![b"h2".to_vec()];
    let (config, answer) = (Arc::new(config), Arc::new(answer));
    World::at(
        "https://acme.test",
        limits,
        |connector| connector.with_tls(tls),
        move |_, io| {
            let (acceptor, answer) = (TlsAcceptor::from(Arc::clone(&config)), Arc::clone(&answer));
            async move {
                let Ok(io) = acceptor.accept(io).await else { return };
                let mut connection = h2::server::handshake(io).await.unwrap();
                let (mut streams, tasks) = (0, Tasks::new());
                let (stop, mut stopped) = mpsc::unbounded_channel::<()>();
                loop {
                    tokio::select! {
                        stream = connection.accept() => {
                            let Some(Ok((request, respond))) = stream else { return };
                            assert_eq!(request.uri().authority().unwrap(), "acme.test");
                            assert!(!request.headers().contains_key("host"));
                            let (answering, stop) = (answer(streams, respond), stop.clone());
                            streams += 1;
                            tasks.spawn(async move {
                                if !answering.await {
                                    let _ = stop.send(());
                                }
                            });
                        }
                        Some(()) = stopped.recv() => connection.graceful_shutdown(),
                    }
                }
            }
        },
    )
}

async fn fine(mut respond: SendResponse<Bytes>) {
    tokio::time::sleep(Duration::from_millis(10)).await;
    let mut body = respond.send_response(Response::new(()), false).unwrap();
    body.send_data(Bytes::from_static(b"ok"), true).unwrap();
}

async fn settled(world: &World) {
    world.tasks.idle().await;
    tokio::time::sleep(Duration::from_millis(1)).await;
    let stats = world.stats();
    assert_eq!((stats.open, stats.waiting, stats.abandoned_running), (0, 0, 0), "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn exchanges_share_a_connection_within_the_bound() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let world = world(Limits { connections: 3, waiting: 20, ..Limits::default() }, move |_, respond| {
        let (now, most) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            fine(respond).await;
            now.fetch_sub(1, Ordering::SeqCst);
            true
        }
    });
    assert_eq!(world.get().await.unwrap(), (200, Some(Bytes::from_static(b"ok"))));
    let calls = (0..12).map(|_| world.get());
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(answer.unwrap(), (200, Some(Bytes::from_static(b"ok"))));
    }
    assert_eq!((world.connections(), most.load(Ordering::SeqCst)), (1, 3));
    settled(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_leaves_the_others_alone() {
    let world = world(Limits::default(), |_, respond| async move {
        fine(respond).await;
        true
    });
    world.get().await.unwrap();
    for polls in 1..6 {
        let record = world.record();
        let left = leave_after(world.send(get(), &record), polls);
        let (_, other) = tokio::join!(left, world.get());
        assert_eq!(other.unwrap().0, 200);
        world.tasks.idle().await;
        assert!(attempts(&record)[0].ended.is_some());
    }
    assert_eq!(world.connections(), 1);
    settled(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_was_not_sent_and_a_reset_one_may_have_been() {
    for (reason, sent) in [(h2::Reason::REFUSED_STREAM, Sent::Nothing), (h2::Reason::INTERNAL_ERROR, Sent::Maybe)] {
        let world = world(Limits::default(), move |stream, mut respond| async move {
            if stream == 0 {
                respond.send_reset(reason);
            } else {
                fine(respond).await;
            }
            true
        });
        let failure = world.call(post("{}")).await.unwrap_err();
        assert_eq!((failure.cause, failure.sent), (Cause::Reset, sent));
        assert_eq!(world.get().await.unwrap().0, 200);
        settled(&world).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_the_origin_ends_is_replaced() {
    let world = world(Limits::default(), |stream, respond| async move {
        fine(respond).await;
        stream < 1
    });
    for _ in 0..6 {
        assert_eq!(world.get().await.unwrap().0, 200);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.connections(), 3);
    settled(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_shared_connection_is_retired_at_its_age() {
    let world = world(Limits { age: Duration::from_mins(1), ..Limits::default() }, |_, respond| async move {
        fine(respond).await;
        true
    });
    for _ in 0..8 {
        assert_eq!(world.get().await.unwrap().0, 200);
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    assert_eq!(world.connections(), 3);
    settled(&world).await;
}

#[tokio::test(start_paused = true)]
async fn an_origin_without_http2_is_spoken_to_all_the_same() {
    let issuer = authority("Trusted");
    let roots = vec![issuer.der().clone()];
    let world = super::secure::world(server(&issuer, "acme.test", 2999), roots, true);
    for _ in 0..2 {
        assert_eq!(world.get().await.unwrap().0, 200);
    }
    assert_eq!((world.connections(), world.stats().idle), (1, 1));
    world.assert_settled().await;
}
