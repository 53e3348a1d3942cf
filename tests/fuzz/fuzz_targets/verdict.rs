//! No body of an answer panics or hangs, none is read past its end, and nothing that is not known is repeated if it could
//! write. What is said is part of the body, and looking at it does not change it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weirkeeper::call::{Family, Idempotency};
use weirkeeper::salesforce::taxonomy::{Kind, classify, said, scan};

fuzz_target!(|bytes: &[u8]| {
    let Some((head, body)) = bytes.split_first_chunk::<3>() else { return };
    let family = Family::ALL[usize::from(head[0]) % Family::ALL.len()];
    let status = u16::from_be_bytes([head[1], head[2]]) % 1_000;
    let heard = said(body);
    let inside = |part: &[u8]| part.is_empty() || body.windows(part.len()).any(|window| window == part);
    assert!(inside(heard.code.as_bytes()) && inside(heard.message));
    let verdict = classify(family, status, &heard);
    if verdict.kind == Kind::Unknown {
        assert!(!verdict.may_pass() && !verdict.is_safe(Idempotency::Unsafe));
    }
    if let Some(found) = scan(family, body) {
        assert!(found.list.len() <= found.failed as usize && found.list.len() <= 500);
        assert!(found.failed <= found.total + 1);
        // Cut off, it never claims to be known whole.
        if let Some(cut) = body.len().checked_sub(1).and_then(|end| scan(family, &body[..end])) {
            assert!(!cut.is_locked() || found.is_locked() || !found.whole);
        }
    }
});
