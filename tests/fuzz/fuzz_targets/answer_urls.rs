//! Rewriting an answer never panics, and what it has rewritten once it leaves alone; a session goes only where one stood.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weirkeeper::salesforce::{Urls, soap_login, with_origin, with_session};

const HERE: &str = "https://sf.acme.internal";

fuzz_target!(|bytes: &[u8]| {
    for urls in [Urls::Token, Urls::SoapLogin, Urls::Resources, Urls::Identity] {
        if let Some(new) = with_origin(urls, bytes, HERE) {
            assert_eq!(with_origin(urls, &new, HERE), None);
        }
    }
    let _ = soap_login(bytes).is_some();
    if let Some(new) = with_session(bytes, b"00D!one") {
        let again = with_session(&new, b"00D!one").expect("the place is still there");
        assert_eq!(*new, *again);
    }
});
