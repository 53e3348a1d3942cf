//! Any header value is read; what is read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weirkeeper::salesforce::LimitInfo;

fuzz_target!(|value: &[u8]| {
    if let Some(org) = LimitInfo::parse(value).org {
        assert!(org.limit > 0);
        assert_eq!(LimitInfo::parse(org.to_string().as_bytes()).org, Some(org));
    }
});
