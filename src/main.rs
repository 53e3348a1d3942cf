//! The `weirkeeper` command.

use std::process::ExitCode;

/// The system's allocator is slow where many requests at a time hold blocks of the same sizes.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    weirkeeper::cli::run()
}
