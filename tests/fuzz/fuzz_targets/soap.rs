//! Any envelope is read or refused.

#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use weirkeeper::salesforce::{Costs, read_body, soap_usage, understand};

fuzz_target!(|body: &[u8]| {
    let costs = Costs::default();
    for path in ["/services/Soap/u/62.0", "/services/Soap/m/62.0", "/services/async/62.0/job"] {
        let before = understand(&Method::POST, path, &costs);
        let mut after = before.clone();
        match read_body(&mut after, body, &costs) {
            Err(_) => assert_eq!(before, after),
            Ok(()) => assert!(!after.parts.is_empty() || path.contains("async")),
        }
    }
    if let Some(usage) = soap_usage(body) {
        assert!(usage.limit > 0);
    }
});
