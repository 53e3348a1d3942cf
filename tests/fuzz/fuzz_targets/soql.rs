//! Any text is scanned; names that come out are names, and a spelling that comes out is its own.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weirkeeper::salesforce::soql::objects;
use weirkeeper::salesforce::steady_query;

fuzz_target!(|soql: &str| {
    if let Ok(found) = objects(soql) {
        let name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        assert!(!found.from.is_empty() && name(&found.from) && soql.contains(found.from.as_str()));
        assert!(found.semi_joins.iter().all(|object| name(object) && soql.contains(object.as_str())));
    }
    // Blanks alone are written so that decoding gives them back.
    let asked = |soql: &str| steady_query(&format!("q={}", soql.replace('%', "%25").replace('+', "%2B").replace('&', "%26")));
    if let Some(spelt) = asked(soql) {
        assert_eq!(asked(&spelt).as_ref(), Some(&spelt));
    }
});
