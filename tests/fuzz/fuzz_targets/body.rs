//! Any body is read or refused; a refusal leaves the meaning as it was, a success never loses a subrequest.

#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use weirkeeper::salesforce::{Costs, needs_body, read_body, understand};

const PATHS: [&str; 9] = [
    "/services/data/v62.0/composite",
    "/services/data/v62.0/composite/batch",
    "/services/data/v62.0/composite/graph",
    "/services/data/v62.0/composite/tree/Account",
    "/services/data/v62.0/composite/sobjects",
    "/services/data/v62.0/graphql",
    "/services/data/v62.0/jobs/query",
    "/services/data/v62.0/parameterizedSearch",
    "/services/async/62.0/job",
];

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let costs = Costs::default();
    let before = understand(&Method::POST, PATHS[usize::from(*first) % PATHS.len()], &costs);
    assert!(needs_body(&before));
    let mut after = before.clone();
    match read_body(&mut after, body, &costs) {
        Err(_) => assert_eq!(before, after),
        Ok(()) => {
            assert!(after.cost.0 >= 1);
            assert!(after.parts.iter().all(|part| part.reach <= after.reach));
        }
    }
});
