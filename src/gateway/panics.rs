//! What a panic leaves in the log: where it happened, never what it said.

use std::panic::PanicHookInfo;
use std::time::Duration;

use crate::telemetry::{Level, Log};

/// How long the event may take to be written before the panic goes on.
const WRITE: Duration = Duration::from_millis(500);

/// From now on each panic of this process is one event in `log` and nothing on standard error. Its message is left out:
/// it may quote what a caller sent.
pub fn log_to(log: &Log) {
    let log = log.clone();
    std::panic::set_hook(Box::new(move |panic| report(&log, panic)));
}

fn report(log: &Log, panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let members = [("place", place.as_str().into()), ("thread", thread.name().unwrap_or("unnamed").into())];
    log.event(Level::Error, "panic", &members);
    // On the main thread the process is about to end.
    if thread.name() == Some("main") {
        log.flush(WRITE);
    }
}
