//! The demo's live summary: who asked, what it cost, and whether both books agree.

use std::fmt::Write as _;
use std::time::Duration;

use crate::sim::Sim;
use crate::telemetry::Telemetry;

/// What is shown while the demo runs, and at its end.
pub struct Summary {
    telemetry: Telemetry,
    sim: Sim,
    terminal: bool,
}

impl Summary {
    /// Redraws in place on a terminal, else prints now and then.
    pub fn new(telemetry: Telemetry, sim: Sim, terminal: bool) -> Self {
        Self { telemetry, sim, terminal }
    }

    /// Shows figures for ever.
    pub async fn show(&self) {
        let pause = Duration::from_secs(if self.terminal { 1 } else { 5 });
        let mut drawn = 0;
        loop {
            tokio::time::sleep(pause).await;
            let text = self.table();
            if self.terminal && drawn > 0 {
                // Up over what was drawn last, and clear it.
                super::super::say(&format!("\x1b[{drawn}A\x1b[J{text}"));
            } else {
                super::super::say(&text);
            }
            drawn = text.lines().count() + usize::from(self.terminal);
        }
    }

    fn table(&self) -> String {
        let status = self.telemetry.status();
        let cache = self.telemetry.cache_status();
        let mut text =
            format!("{:<14}{:>10}{:>10}{:>10}{:>10}\n", "caller", "requests", "API calls", "saved", "refused");
        for caller in &status.callers {
            let saved: u64 =
                cache.saved.iter().filter(|saved| saved.caller == caller.caller).map(|saved| saved.api_calls).sum();
            let _ = writeln!(
                text,
                "{:<14}{:>10}{:>10}{:>10}{:>10}",
                caller.caller, caller.requests, caller.api_calls_spent, saved, caller.refusals
            );
        }
        let counts = self.sim.counts();
        let _ = write!(text, "Salesforce: {} of {} calls used", counts.used, counts.limit);
        text
    }

    /// Compares the two books; a difference is an error.
    pub fn close(&self) -> Result<(), String> {
        let status = self.telemetry.status();
        let ours: u64 = status.callers.iter().map(|caller| caller.api_calls_spent).sum();
        let theirs = self.sim.counts().charged;
        super::super::say(&format!(
            "\n{}\n\ncalls counted by the gateway: {ours}; by Salesforce: {theirs}",
            self.table()
        ));
        if ours == theirs { Ok(()) } else { Err("the two books differ".to_owned()) }
    }
}
