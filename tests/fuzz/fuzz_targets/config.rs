//! No text makes the check of a configuration panic, and a refusal always has a reason.

#![no_main]

use std::io;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use weirkeeper::config::{Outside, check_text};

/// Every variable is set, every file is there: so that the fuzzer gets past them.
struct Everything;

impl Outside for Everything {
    fn variable(&self, name: &str) -> Option<String> {
        Some(name.repeat(2))
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Ok(path.as_os_str().as_encoded_bytes().to_vec())
    }
}

fuzz_target!(|text: &str| {
    match check_text(text, Path::new("weirkeeper.yaml"), &Everything) {
        Ok(config) => assert!(!config.orgs.is_empty() && config.redacted().is_object()),
        Err(problems) => assert!(!problems.all().is_empty() && !problems.to_string().is_empty()),
    }
});
