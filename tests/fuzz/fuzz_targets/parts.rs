//! What failed inside an answer is found alike however it is cut into pieces, and no body panics or hangs. A part that is sent
//! again and merged changes nothing but the places it was cut from.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weirkeeper::call::Family;
use weirkeeper::salesforce::taxonomy::{Envelope, Partial, Stream, locked, merged, only, only_ids, progress, scan};

const FAMILIES: [Family; 6] =
    [Family::Composite, Family::Collections, Family::Tree, Family::Graph, Family::Batch, Family::Graphql];

fn streamed<'a>(family: Family, pieces: impl Iterator<Item = &'a [u8]>) -> Option<Partial> {
    let mut stream = Stream::new(family).expect("these have parts");
    pieces.for_each(|piece| stream.feed(piece));
    stream.found()
}

fn enveloped<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Partial> {
    let mut envelope = Envelope::default();
    pieces.for_each(|piece| envelope.feed(piece));
    envelope.found()
}

fuzz_target!(|bytes: &[u8]| {
    let Some((head, body)) = bytes.split_first_chunk::<2>() else { return };
    let (family, size) = (FAMILIES[usize::from(head[0]) % FAMILIES.len()], usize::from(head[1]) % 64 + 1);
    let whole = streamed(family, std::iter::once(body));
    assert_eq!(streamed(family, body.chunks(size)), whole);
    if let Some(found) = &whole {
        assert!(found.failed <= found.total && found.list.len() <= found.failed as usize);
    }
    assert_eq!(enveloped(body.chunks(size)), enveloped(std::iter::once(body)));
    let _ = progress(body);

    // The first half is a request, the second its answer.
    let (request, answer) = body.split_at(body.len() / 2);
    let places = scan(family, answer).map(|found| locked(&found)).unwrap_or_default();
    let places = if places.is_empty() { vec![u32::from(head[0]) % 4] } else { places };
    if let Some((chosen, made)) = only(family, request, answer, &places) {
        assert!(!chosen.is_empty() && chosen.iter().all(|place| places.contains(place)) && made.len() <= request.len());
    }
    if let Some(made) = merged(family, answer, &places, request) {
        // Merging what is there already changes nothing.
        assert_eq!(merged(family, &made, &places, request), Some(made));
    }
    if let Ok(target) = std::str::from_utf8(request) {
        let _ = only_ids(target, 3, &places);
    }
});
