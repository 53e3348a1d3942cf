//! `weirkeeper budget`: what is left of every org's daily allowance, who used it, and when it comes back.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::admin_client::AdminArguments;

/// The arguments of `budget`.
#[derive(Debug, clap::Args)]
pub struct BudgetArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the budget of a running gateway.
pub fn run(arguments: &BudgetArguments) -> ExitCode {
    match arguments.admin.get("/api/v1/budget") {
        Ok(budget) if arguments.json => {
            super::say(&serde_json::to_string_pretty(&budget).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Ok(budget) => {
            super::say(table(&budget).trim_end());
            ExitCode::SUCCESS
        }
        Err(why) => super::ended(Err(why)),
    }
}

fn table(budget: &Value) -> String {
    let mut text = String::new();
    for org in budget["orgs"].as_array().into_iter().flatten() {
        one(&mut text, org);
        text.push('\n');
    }
    text
}

fn one(text: &mut String, org: &Value) {
    let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), grouped);
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let _ = writeln!(
        text,
        "{} ({}, {}, {})",
        word(&org["org"]),
        word(&org["mode"]),
        word(&org["level"]),
        match org["footing"].as_str() {
            Some("awaiting") => "waits for Salesforce's first word",
            Some("assumed") => "limit assumed",
            Some("blind") => "limit unknown",
            _ => "limit from Salesforce",
        }
    );
    let forecast = &org["forecast"];
    for (name, value) in [
        ("limit", number(&org["limit"])),
        ("used", number(&org["used"])),
        ("  by this gateway", number(&org["own"])),
        ("  by others", number(&org["dark"])),
        ("left", number(&org["headroom"])),
        ("held for floors", number(&org["held"])),
        ("back within 1 h", number(&forecast["returning_1h"])),
        ("back within 6 h", number(&forecast["returning_6h"])),
        ("pace per hour", number(&forecast["pace_per_hour"])),
        ("runs out", forecast["runs_out"].as_u64().map_or_else(|| "not within 24 h".to_owned(), time_of_day)),
    ] {
        let _ = writeln!(text, "  {name:<20} {value:>14}");
    }
    for class in org["paused_classes"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "  class {} is paused", word(class));
    }
    let _ = writeln!(text, "\n  {:<24} {:>12} {:>12} {:>12} {:>12}", "caller", "used", "floor", "ceiling", "per hour");
    for caller in org["callers"].as_array().into_iter().flatten() {
        let paused = if caller["paused"] == true { "  paused" } else { "" };
        let _ = writeln!(
            text,
            "  {:<24} {:>12} {:>12} {:>12} {:>12}{paused}",
            word(&caller["name"]),
            number(&caller["used"]),
            number(&caller["floor"]),
            number(&caller["ceiling"]),
            number(&caller["pace_per_hour"]),
        );
    }
}

/// `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `14:20 UTC`, of a minute since the Unix epoch.
fn time_of_day(minute: u64) -> String {
    format!("{:02}:{:02} UTC", minute / 60 % 24, minute % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn the_table_says_what_is_left_and_who_used_it() {
        let budget = json!({"orgs": [{
            "org": "prod", "mode": "enforce", "level": "lean", "footing": "read", "limit": 100_000, "used": 71_200,
            "own": 60_000, "dark": 11_200, "headroom": 23_800, "held": 0,
            "forecast": {"returning_1h": 1_200, "returning_6h": 9_000, "pace_per_hour": 4_000, "runs_out": 29_000_860},
            "paused_classes": ["batch"],
            "callers": [{"name": "etl", "used": 50_000, "floor": 0, "ceiling": null, "pace_per_hour": 3_000, "paused": true}],
        }]});
        let text = table(&budget);
        for line in [
            "prod (enforce, lean, limit from Salesforce)",
            "23,800",
            "11:40 UTC",
            "50,000",
            "  paused",
            "class batch is paused",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
