//! Any method and path is understood; a double slash changes nothing; cost and reach keep their bounds.

#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use weirkeeper::call::{ApiCalls, Reach};
use weirkeeper::salesforce::{Costs, understand};

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let Ok(path) = std::str::from_utf8(rest) else { return };
    let methods = [Method::GET, Method::POST, Method::PATCH, Method::DELETE, Method::PUT, Method::HEAD];
    let method = &methods[usize::from(*first) % methods.len()];
    let meaning = understand(method, path, &Costs::default());
    assert!(meaning.cost <= ApiCalls(25));
    assert!(meaning.object.is_none() || meaning.reach != Reach::Nothing);
    assert_eq!(understand(method, &format!("/{path}"), &Costs::default()), understand(method, &format!("//{path}"), &Costs::default()));
});
