//! Any headers and envelope give one credential, none or an error; nothing printed shows a secret.

#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use weirkeeper::call::Principal;
use weirkeeper::salesforce::{PrincipalKey, credentials, principal};

fuzz_target!(|data: &[u8]| {
    let mut pieces = data.splitn(3, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in ["authorization", "x-sfdc-session"] {
        if let Some(Ok(value)) = pieces.next().filter(|value| !value.is_empty()).map(HeaderValue::from_bytes) {
            headers.insert(name, value);
        }
    }
    if let Ok(Some(found)) = credentials(&headers, pieces.next()) {
        assert!(found.secret().bytes().all(|byte| byte.is_ascii_graphic()));
        if found.secret().len() > 20 {
            assert!(!format!("{found:?}").contains(found.secret()));
        }
        assert_ne!(principal(&PrincipalKey::new(b"0123456789abcdef"), &found), Principal::NOBODY);
    }
});
