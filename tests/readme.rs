//! Promise: the README tells what the code does. Its tables are the code's own.

use weirkeeper::refusal::Reason;
use weirkeeper::telemetry::metrics;

use crate::process::run;

const README: &str = include_str!("../README.md");
const METRICS: &str = include_str!("../config/metrics.md");
const CONFIGURATION: &str = include_str!("../config/reference.md");

#[test]
fn the_references_are_the_ones_the_code_makes() {
    let reference = metrics::reference();
    let (_, table) = METRICS.split_once("\n\n| metric").unwrap();
    assert_eq!(format!("| metric{table}").trim(), reference.trim(), "put this into config/metrics.md:\n{reference}");
    let made = run(&["schema", "--markdown"]).out;
    assert!(CONFIGURATION.trim() == made.trim(), "weirkeeper schema --markdown > config/reference.md");
    for reference in ["config/metrics.md", "config/reference.md"] {
        assert!(README.contains(&format!("]({reference})")), "{reference}");
    }
}

#[test]
fn every_reason_of_a_refusal_is_in_the_table() {
    for reason in Reason::ALL {
        assert!(README.contains(&format!("`{reason}`")), "{reason}");
        assert!(README.contains(&format!("`{}`", reason.error_code())), "{}", reason.error_code());
    }
}

#[test]
fn every_command_is_in_the_readme() {
    for verb in [
        "serve", "demo", "simulate", "check", "explain", "budget", "replicas", "breaker", "ready", "key", "schema",
        "version",
    ] {
        assert!(README.contains(&format!("`{verb}")), "{verb}");
    }
}
