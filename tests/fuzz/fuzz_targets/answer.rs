//! Bytes as an upstream may send them: reading never panics, and how they were cut never changes what is read.

#![no_main]

use http::{HeaderMap, Method, StatusCode};
use libfuzzer_sys::fuzz_target;
use weirkeeper::exchange::http1::HeadReader;
use weirkeeper::http1::{Decoder, Framing, Rules, Shapes, Step};

/// What was made of all bytes.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    head: Option<(StatusCode, HeaderMap, Framing, bool)>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
    ended: bool,
    /// Neither a head nor a body can be made of it.
    broken: bool,
    rest: Vec<u8>,
}

fn read<'a>(method: &Method, shapes: &mut Shapes, pieces: impl Iterator<Item = &'a [u8]>) -> Seen {
    let (mut seen, mut buffer) = (Seen::default(), bytes::BytesMut::new());
    let (mut reader, mut decoder) = (HeadReader::new(method), Decoder::new(Framing::Length(0), Rules::ANSWERS));
    for piece in pieces {
        buffer.extend_from_slice(piece);
        if seen.broken || seen.ended {
            continue;
        }
        if seen.head.is_none() {
            match reader.read(&mut buffer, shapes) {
                Err(_) => seen.broken = true,
                Ok(None) => continue,
                Ok(Some(head)) => {
                    decoder = Decoder::new(head.framing, Rules::ANSWERS);
                    let (parts, ()) = head.response.into_parts();
                    seen.head = Some((parts.status, parts.headers, head.framing, head.keep_alive));
                }
            }
        }
        while seen.head.is_some() {
            match decoder.decode(&mut buffer) {
                Err(_) => seen.broken = true,
                Ok(Step::Data(data)) => {
                    assert!(!data.is_empty());
                    seen.body.extend_from_slice(&data);
                    continue;
                }
                Ok(Step::Trailers(fields)) => {
                    seen.trailers = Some(*fields);
                    continue;
                }
                Ok(Step::End) => seen.ended = true,
                Ok(Step::More) => {}
            }
            break;
        }
    }
    if !seen.broken {
        seen.rest = buffer.to_vec();
    }
    seen
}

fuzz_target!(|data: &[u8]| {
    let Some((&seed, input)) = data.split_first() else { return };
    let method = if seed & 0x80 == 0 { Method::GET } else { Method::HEAD };
    let mut shapes = Shapes::default();
    let whole = read(&method, &mut shapes, std::iter::once(input));
    // The shape of its head is known now.
    let cut = read(&method, &mut shapes, input.chunks(usize::from(seed % 64) + 1));
    assert_eq!(whole, cut);
    if let Some((_, _, Framing::Length(length), _)) = whole.head {
        assert!(whole.body.len() as u64 <= length);
    }
});
