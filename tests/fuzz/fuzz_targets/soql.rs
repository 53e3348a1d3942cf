//! Any text is scanned; names that come out are names.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weirkeeper::salesforce::soql::objects;

fuzz_target!(|soql: &str| {
    if let Ok(found) = objects(soql) {
        let name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        assert!(!found.from.is_empty() && name(&found.from) && soql.contains(found.from.as_str()));
        assert!(found.semi_joins.iter().all(|object| name(object) && soql.contains(object.as_str())));
    }
});
