//! Bytes as a caller may send them: reading never panics, and how they were cut never changes what is read.

#![no_main]

use bytes::BytesMut;
use http::{HeaderMap, Method, Uri};
use libfuzzer_sys::fuzz_target;
use weirkeeper::edge::fault::Fault;
use weirkeeper::edge::http1::{HeadLimits, read};
use weirkeeper::http1::{Decoder, Rules, Shapes, Step};

const LIMITS: HeadLimits = HeadLimits { bytes: 2048, count: 20 };

/// What was made of all bytes.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    requests: Vec<(Method, Uri, HeaderMap, bool, Vec<u8>)>,
    /// The last one is whole.
    between: bool,
    fault: Option<Fault>,
    /// Its body is none.
    broken: bool,
}

fn follow<'a>(shapes: &mut Shapes, pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let (mut seen, mut buffer) = (Seen { between: true, ..Seen::default() }, BytesMut::new());
    let mut body: Option<Decoder> = None;
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let Some(decoder) = &mut body else {
                match read(&mut buffer, LIMITS, shapes) {
                    Err(fault) => {
                        seen.fault = Some(fault);
                        return seen;
                    }
                    Ok(None) => break,
                    Ok(Some(head)) => {
                        let parts = head.parts;
                        assert!(parts.headers.len() <= LIMITS.count);
                        seen.requests.push((parts.method, parts.uri, parts.headers, head.keep_alive, Vec::new()));
                        seen.between = false;
                        body = Some(Decoder::new(head.framing, Rules::REQUESTS));
                    }
                }
                continue;
            };
            match decoder.decode(&mut buffer) {
                Err(_) => {
                    seen.broken = true;
                    return seen;
                }
                Ok(Step::More) => break,
                Ok(Step::Data(data)) => {
                    assert!(!data.is_empty());
                    if let Some((.., body)) = seen.requests.last_mut() {
                        body.extend_from_slice(&data);
                    }
                }
                Ok(Step::Trailers(_)) => {}
                Ok(Step::End) => (seen.between, body) = (true, None),
            }
        }
    }
    seen
}

fuzz_target!(|data: &[u8]| {
    let Some((&seed, input)) = data.split_first() else { return };
    let mut shapes = Shapes::default();
    let whole = follow(&mut shapes, std::iter::once(input));
    // The shapes of its heads may be known now.
    assert_eq!(whole, follow(&mut shapes, input.chunks(usize::from(seed % 64) + 1)));
});
