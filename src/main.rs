//! The `weirkeeper` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    weirkeeper::cli::run()
}
