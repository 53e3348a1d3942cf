//! What the process is told from outside: stop, reload.

use std::io;
use std::sync::Arc;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use super::Gateway;
use crate::telemetry::Log;

/// SIGTERM and SIGINT stop, SIGHUP reloads the configuration and opens the log file anew.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    reload: Option<Arc<Notify>>,
    log: Log,
}

impl Signals {
    /// Listens from now on.
    pub fn new(gateway: &Gateway) -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            reload: gateway.reload_request(),
            log: gateway.telemetry().log().clone(),
        })
    }

    /// Returns when the process shall stop; passes on what else it is told.
    pub async fn stop(mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    self.log.reopen();
                    if let Some(reload) = &self.reload {
                        reload.notify_one();
                    }
                }
            }
        }
    }
}
