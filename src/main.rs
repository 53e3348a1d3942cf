//! The `weirkeeper` command.

fn main() {}
