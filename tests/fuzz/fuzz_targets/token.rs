//! No text opens as a gateway token unless it was sealed here, and none makes opening panic.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use weirkeeper::edge::facade::grant::{Form, proof};
use weirkeeper::edge::facade::token::{Pass, Sealer, is_gateway_token};

const NOW: Duration = Duration::from_secs(1_800_000_000);

static SEALER: LazyLock<Sealer> = LazyLock::new(|| {
    let keys: [&[u8]; 2] = [b"a new secret of 32 characters...", b"an old secret of 32 characters.."];
    Sealer::new(keys).expect("two keys")
});

/// A token that opens, to be damaged by the fuzzer's bytes.
static SEALED: LazyLock<String> = LazyLock::new(|| {
    let pass = Pass {
        org: "prod".into(),
        caller: "shop".into(),
        identity: "integration".into(),
        expires: NOW + Duration::from_secs(1),
    };
    SEALER.seal(&pass, "00D000000000001").expect("sealed").to_string()
});

fuzz_target!(|bytes: &[u8]| {
    let _ = proof(&Form::parse(bytes), &http::HeaderMap::new()).is_ok();
    if let Ok(text) = std::str::from_utf8(bytes) {
        assert!(SEALER.open(text, NOW).is_err(), "nobody can guess a token");
        assert!(is_gateway_token(bytes) || SEALER.open(text, NOW).is_err());
        assert!(SEALER.open(&format!("00D000000000001!wk1.{text}"), NOW).is_err());
    }
    let mut damaged = SEALED.clone().into_bytes();
    for pair in bytes.chunks_exact(2) {
        let at = usize::from(pair[0]) % damaged.len();
        damaged[at] = pair[1] & 0x7f;
    }
    let damaged = String::from_utf8(damaged).expect("ASCII");
    assert_eq!(SEALER.open(&damaged, NOW).is_ok(), damaged == *SEALED);
});
