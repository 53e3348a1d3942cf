//! What a configuration reads besides its own text: environment variables and files.

use std::io::{self, Read as _};
use std::path::Path;

/// The longest file a configuration may refer to.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Where environment variables and files come from. [`System`] is the real one; tests and fuzzing bring their own.
pub trait Outside {
    /// The value of an environment variable; `None` if it is not set or no UTF-8.
    fn variable(&self, name: &str) -> Option<String>;

    /// The content of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
}

/// The process's environment and the machine's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct System;

impl Outside for System {
    #[expect(clippy::disallowed_methods, reason = "this module is what the ban points to")]
    fn variable(&self, name: &str) -> Option<String> {
        // `var` panics on these on some systems.
        if name.is_empty() || name.contains(['=', '\0']) { None } else { std::env::var(name).ok() }
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let metadata = std::fs::metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let file = std::fs::File::open(path)?;
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len().min(MAX_FILE_BYTES)).unwrap_or(0) + 1);
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("longer than {MAX_FILE_BYTES} bytes")));
        }
        Ok(bytes)
    }
}
