//! Promise: the README tells what the code does. Its tables are the code's own.

use weirkeeper::refusal::Reason;
use weirkeeper::telemetry::metrics;

const README: &str = include_str!("../README.md");

#[test]
fn the_metrics_table_is_the_one_the_code_makes() {
    let reference = metrics::reference();
    assert!(README.contains(reference.trim()), "put this into README.md under \"Metrics\":\n{reference}");
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
    for verb in
        ["serve", "demo", "simulate", "check", "explain", "budget", "breaker", "ready", "key", "schema", "version"]
    {
        assert!(README.contains(&format!("`{verb}")), "{verb}");
    }
}
