//! Raw bytes against a served connection, on a paused clock.

use std::sync::atomic::Ordering;
use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::rig::{Rig, read_all, read_until, refusal_in};
use crate::edge::limits::Limits;
use crate::refusal::Reason;

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const LAST: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_and_the_connection_is_kept() {
    let rig = Rig::new();
    let mut stream = rig.open();
    for _ in 0..3 {
        stream.write_all(GET.as_bytes()).await.unwrap();
        let answer = read_until(&mut stream, "ok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        tokio::time::sleep(seconds(20)).await;
    }
    stream.write_all(LAST.as_bytes()).await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("ok"));
    drop(stream);
    rig.edge.tasks.idle().await;
    assert_eq!((rig.calls(), rig.working()), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn pipelined_requests_are_answered_in_order() {
    let rig = Rig::new();
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    let answers = rig.ask(format!("{GET}{post}one{post}two{LAST}")).await;
    let bodies: Vec<&str> =
        answers.split("HTTP/1.1 200 OK").skip(1).filter_map(|answer| answer.split("\r\n\r\n").nth(1)).collect();
    assert_eq!(bodies, ["ok", "one", "two", "ok"]);
}

#[tokio::test(start_paused = true)]
async fn every_smuggling_attempt_gets_a_salesforce_shaped_refusal_and_no_service() {
    let cases = [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", Reason::MalformedRequest),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", Reason::MalformedRequest),
        ("Content-Length: 5\r\nContent-Length: 5", Reason::MalformedRequest),
        ("Content-Length: 5, 5", Reason::MalformedRequest),
        ("Content-Length: -1", Reason::MalformedRequest),
        ("Transfer-Encoding: gzip, chunked", Reason::MalformedRequest),
        ("Transfer-Encoding : chunked", Reason::MalformedRequest),
        ("X: a\r\n folded", Reason::MalformedRequest),
        ("X: a\nY: b", Reason::MalformedRequest),
        ("X: a\0b", Reason::MalformedRequest),
        ("Host: b", Reason::MalformedRequest),
    ];
    for (field, reason) in cases {
        let rig = Rig::new();
        let input = format!(
            "POST /echo HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = rig.ask(&input).await;
        refusal_in(&answer, 400, reason.as_str());
        assert_eq!(rig.calls(), 0, "{field:?}");
        assert_eq!(rig.edge.counts.refused(reason), 1);
        // The same, one byte at a time.
        let rig = Rig::new();
        let mut stream = rig.open();
        for byte in input.as_bytes() {
            if stream.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        refusal_in(&read_all(&mut stream).await, 400, reason.as_str());
        assert_eq!(rig.calls(), 0, "{field:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn garbage_is_refused_in_words() {
    for garbage in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"[..], &[0; 100], b"SSH-2.0-OpenSSH\r\n", b"\xff\xfe\r\n\r\n"]
    {
        let rig = Rig::new();
        refusal_in(&rig.ask(garbage).await, 400, "malformed_request");
        assert_eq!(rig.calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn oversized_heads_have_their_own_answers() {
    let long = "a".repeat(20_000);
    for (input, status, reason) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "uri_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431, "head_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: a\r\n".repeat(101)), 431, "head_too_large"),
    ] {
        let rig = Rig::new();
        refusal_in(&rig.ask(input).await, status, reason);
        assert_eq!(rig.calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_but_legal_query_passes() {
    let rig = Rig::new();
    let answer =
        rig.ask(format!("GET /query?q={} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "a".repeat(12_000))).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn good_requests_before_a_bad_one_are_answered_first() {
    let rig = Rig::new();
    let answers = rig.ask(format!("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n{GET}GET / HTTP/1.1\r\n\r\n")).await;
    let parts: Vec<&str> = answers.split("HTTP/1.1 ").skip(1).collect();
    assert_eq!(parts.len(), 3, "{answers}");
    assert!(parts[0].ends_with("slow") && parts[1].ends_with("ok"), "{answers}");
    refusal_in(&format!("HTTP/1.1 {}", parts[2]), 400, "malformed_request");
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_times_out() {
    for opening in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: a\r\nX: ", "PRI * HTTP"] {
        let rig = Rig::new();
        let mut stream = rig.open();
        let start = rig.edge.clock.now();
        stream.write_all(opening.as_bytes()).await.unwrap();
        let answer = if opening.ends_with("X: ") {
            // One byte a second, for ever.
            let (mut read, mut write) = tokio::io::split(stream);
            let trickle = async {
                while write.write_all(b"a").await.is_ok() {
                    tokio::time::sleep(seconds(1)).await;
                }
            };
            let reading = async {
                let mut answer = String::new();
                let _ = read.read_to_string(&mut answer).await;
                answer
            };
            tokio::select! { () = trickle => String::new(), answer = reading => answer }
        } else {
            read_all(&mut stream).await
        };
        let took = rig.edge.clock.now() - start;
        assert!((seconds(10)..seconds(14)).contains(&took), "{opening:?}: {took:?}");
        if opening.is_empty() {
            assert_eq!(answer, "", "a caller that sent nothing is told nothing");
        } else {
            refusal_in(&answer, 408, "head_timeout");
        }
        assert_eq!(rig.calls(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_second_head_has_its_own_time_and_idling_has_another() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut stream, "ok").await;
    tokio::time::sleep(seconds(140)).await;
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    tokio::time::sleep(seconds(9)).await;
    stream.write_all(b"Host: a\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "ok").await.starts_with("HTTP/1.1 200"));
    let start = rig.edge.clock.now();
    assert_eq!(read_all(&mut stream).await, "", "idle connections close without a word");
    let took = rig.edge.clock.now() - start;
    assert!((seconds(149)..seconds(153)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_head_behind_a_long_request_is_not_blamed_for_its_wait() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n").await.unwrap();
    read_until(&mut stream, "slow").await;
    tokio::time::sleep(seconds(5)).await;
    stream.write_all(b"Host: a\r\n\r\n").await.unwrap();
    assert!(read_until(&mut stream, "ok").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn broken_bodies_are_refused_by_the_request_they_belong_to() {
    for (input, status, reason) in [
        (
            "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhellooo\r\n0\r\n\r\n",
            400,
            "body_malformed",
        ),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400, "body_malformed"),
        ("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000000\r\n\r\nx", 413, "body_too_large"),
    ] {
        let rig = Rig::new();
        let answer = rig.ask(input).await;
        refusal_in(&answer, status, reason);
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        assert_eq!((rig.calls(), rig.working()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_early_is_malformed_if_the_caller_still_listens() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").await.unwrap();
    stream.shutdown().await.unwrap();
    refusal_in(&read_all(&mut stream).await, 400, "body_malformed");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_trickles_in_is_too_slow() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n").await.unwrap();
    let start = rig.edge.clock.now();
    let answer = read_all(&mut stream).await;
    refusal_in(&answer, 408, "body_too_slow");
    let took = rig.edge.clock.now() - start;
    assert!((seconds(15)..seconds(20)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_expects_to_be_asked_is_asked_only_if_its_body_is_wanted() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream
        .write_all(b"POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(read_until(&mut stream, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"yes").await.unwrap();
    assert!(read_until(&mut stream, "yes").await.starts_with("HTTP/1.1 200"));
    let answer = rig.ask("POST /unread HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_given_before_the_body_was_read_can_be_read() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(b"POST /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n").await.unwrap();
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = async {
        for _ in 0..500 {
            if write.write_all(&[b'x'; 1_000]).await.is_err() {
                return false;
            }
        }
        true
    };
    let reading = async {
        let mut answer = String::new();
        read.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (sent, answer) = tokio::join!(sending, reading);
    assert!(sent, "the connection was not torn down under the sender");
    assert!(answer.starts_with("HTTP/1.1 403") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_frees_everything() {
    let opened = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf";
    for input in
        ["", "GET / HT", opened, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", "GET /flood HTTP/1.1\r\nHost: a\r\n\r\n"]
    {
        let rig = Rig::new();
        let mut stream = rig.open();
        stream.write_all(input.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
        drop(stream);
        let start = rig.edge.clock.now();
        rig.edge.tasks.idle().await;
        assert!(rig.edge.clock.now() - start < seconds(3), "{input:?}");
        assert_eq!(rig.working(), 0, "{input:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_is_cut() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(b"GET /flood HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let start = rig.edge.clock.now();
    rig.edge.tasks.idle().await;
    let took = rig.edge.clock.now() - start;
    assert!((seconds(15)..seconds(31)).contains(&took), "{took:?}");
    assert_eq!(rig.edge.counts.slow_readers.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_at_the_minimum_rate_gets_everything() {
    let rig = Rig::with(Limits { minimum_rate: 10_000, ..Limits::default() });
    let mut stream = rig.open();
    stream.write_all(b"GET /flood HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut total = 0;
    let mut buffer = vec![0; 40_000];
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        total += count;
        tokio::time::sleep(seconds(1)).await;
    }
    assert!(total > 1_000 * 16 * 1024, "{total}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_breaks_off_is_not_completed() {
    let rig = Rig::new();
    let answer = rig.ask("GET /cut HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(answer.contains("transfer-encoding: chunked"), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "a cut answer must not look whole");
}

#[tokio::test(start_paused = true)]
async fn upgrades_and_tunnels_change_nothing() {
    let rig = Rig::new();
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n";
    let answers = rig.ask(format!("{upgrade}{LAST}")).await;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
}

#[tokio::test(start_paused = true)]
async fn http_1_0_is_answered_and_closed() {
    let rig = Rig::new();
    let answer = rig.ask("GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("ok"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn http_1_0_is_kept_open_if_it_asks() {
    let rig = Rig::new();
    let answers = rig.ask("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /flood HTTP/1.0\r\n\r\n").await;
    let (first, second) = answers.split_once("okHTTP/1.0 200 OK\r\n").expect("two answers");
    assert!(first.contains("\r\nconnection: keep-alive\r\n"), "{first}");
    assert!(!second.contains("chunked") && second.len() > 1_000 * 16 * 1024, "ended by the close");
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_head_has_no_body_and_the_connection_goes_on() {
    let rig = Rig::new();
    let answers = rig.ask(format!("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n{LAST}")).await;
    let heads: Vec<&str> = answers.split("\r\n\r\n").collect();
    assert!(heads[0].contains("content-length: 2"), "{answers}");
    assert!(heads[1].starts_with("HTTP/1.1 200 OK\r\n") && heads[2] == "ok", "{answers}");
}

#[tokio::test(start_paused = true)]
async fn an_empty_line_behind_a_request_is_no_late_head() {
    let rig = Rig::new();
    let mut stream = rig.open();
    for _ in 0..2 {
        stream.write_all(format!("{GET}\r\n").as_bytes()).await.unwrap();
        assert!(read_until(&mut stream, "ok").await.starts_with("HTTP/1.1 200"));
        tokio::time::sleep(seconds(100)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_idle_connections_at_once_and_busy_ones_after_their_answer() {
    let rig = Rig::new();
    let mut fresh = rig.open();
    let mut idle = rig.open();
    idle.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut idle, "ok").await;
    let mut parked = rig.open();
    parked.write_all(GET.as_bytes()).await.unwrap();
    read_until(&mut parked, "ok").await;
    tokio::time::sleep(seconds(30)).await;
    let mut busy = rig.open();
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(seconds(1)).await;
    let start = rig.edge.clock.now();
    rig.edge.drain.begin();
    for stream in [&mut fresh, &mut idle, &mut parked] {
        assert_eq!(read_all(stream).await, "");
    }
    assert!(rig.edge.clock.now() - start < seconds(1));
    let answer = read_all(&mut busy).await;
    assert!(answer.ends_with("slow") && answer.contains("connection: close"), "{answer}");
    rig.edge.tasks.idle().await;
}

#[tokio::test(start_paused = true)]
async fn a_parked_connection_reads_its_next_request_strictly() {
    let rig = Rig::new();
    let mut stream = rig.open();
    for _ in 0..2 {
        stream.write_all(GET.as_bytes()).await.unwrap();
        read_until(&mut stream, "ok").await;
        tokio::time::sleep(seconds(30)).await;
    }
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").await.unwrap();
    refusal_in(&read_all(&mut stream).await, 400, "malformed_request");
    assert_eq!(rig.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_half_closes_gets_what_is_ready_and_has_left_otherwise() {
    let rig = Rig::new();
    let mut stream = rig.open();
    stream.write_all(GET.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(read_all(&mut stream).await.ends_with("ok"));
    // A half-closed socket cannot be told from a closed one, so nobody is waited for long.
    let mut stream = rig.open();
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    tokio::time::sleep(seconds(1)).await;
    stream.shutdown().await.unwrap();
    let start = rig.edge.clock.now();
    assert_eq!(read_all(&mut stream).await, "");
    assert!(rig.edge.clock.now() - start < seconds(3));
    assert_eq!(rig.working(), 0);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_at_a_slow_pace_are_no_slow_readers() {
    let rig = Rig::new();
    let mut stream = rig.open();
    for _ in 0..10 {
        stream.write_all(GET.as_bytes()).await.unwrap();
        read_until(&mut stream, "ok").await;
        tokio::time::sleep(seconds(100)).await;
    }
    assert_eq!(rig.edge.counts.slow_readers.load(Ordering::Relaxed), 0);
    assert_eq!(rig.calls(), 10);
}

proptest! {
    #[test]
    fn whatever_is_sent_every_error_is_in_salesforces_form(
        mutations in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let post = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let mut input = format!("{GET}{post}{LAST}").into_bytes();
        for (at, byte) in mutations {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let (early, late) = input.split_at(cut.index(input.len()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let answers = runtime.block_on(async {
            let rig = Rig::new();
            let mut stream = rig.open();
            stream.write_all(early).await.unwrap();
            tokio::time::sleep(seconds(1)).await;
            let _ = stream.write_all(late).await;
            let answers = read_all(&mut stream).await;
            drop(stream);
            rig.edge.tasks.idle().await;
            assert_eq!(rig.working(), 0);
            answers
        });
        prop_assert!(answers.is_empty() || answers.starts_with("HTTP/1."), "{}", answers);
        for digit in ["HTTP/1.1 4", "HTTP/1.1 5"] {
            for (at, _) in answers.match_indices(digit) {
                prop_assert!(answers[at..].contains("\r\nweirkeeper-refused: "), "{}", answers);
            }
        }
        let whole = ["", "ok", "abc", "\"}}]"].iter().any(|end| answers.ends_with(end));
        prop_assert!(whole, "{}", answers);
    }
}
