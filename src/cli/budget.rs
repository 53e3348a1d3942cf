//! `weirkeeper budget`: what is left of every org's daily allowance, who used it, and when it comes back.

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::Value;

use super::admin_client::AdminArguments;
use crate::admin::grouped;

/// Clients printed of each kind.
const CLIENTS: usize = 5;

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
    let batches = &org["bulk_batches"];
    let _ =
        writeln!(text, "  {:<20} {:>14} of {}", "Bulk batches", number(&batches["used"]), number(&batches["limit"]));
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
    paces(text, org);
    top_clients(text, org);
}

/// Who spends in nobody's name.
fn top_clients(text: &mut String, org: &Value) {
    let kinds = [("client name", "by_client"), ("user agent", "by_user_agent"), ("principal", "by_principal")];
    for (title, kind) in kinds {
        let clients = org["top_clients"][kind].as_array().map(Vec::as_slice).unwrap_or_default();
        if clients.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n  {:<24} {:>12}", format!("unnamed, by {title}"), "calls");
        for client in clients.iter().take(CLIENTS) {
            let calls = client["calls"].as_u64().map_or_else(|| "-".to_owned(), grouped);
            let _ = writeln!(text, "  {:<24} {calls:>12}", client["name"].as_str().unwrap_or("-"));
        }
    }
}

/// Who has a pace, and how it stands.
fn paces(text: &mut String, org: &Value) {
    let paces: Vec<&Value> = org["paces"].as_array().into_iter().flatten().collect();
    if paces.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\n  {:<24} {:>12} {:>12} {:>12} {:>12} {:>12}",
        "pace", "per second", "burst", "left", "waiting", "refused"
    );
    for pace in paces {
        let number = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), grouped);
        let refused = pace["refused"].as_array().into_iter().flatten().filter_map(|count| count[1].as_u64()).sum();
        let _ = writeln!(
            text,
            "  {:<24} {:>12} {:>12} {:>12} {:>12} {:>12}{}",
            pace["caller"].as_str().unwrap_or("-"),
            number(&pace["per_second"]),
            number(&pace["burst"]),
            number(&pace["left"]),
            number(&pace["waiting"]),
            grouped(refused),
            if pace["mode"] == "observe" { "  observed" } else { "" },
        );
    }
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
    fn the_table_says_what_is_left_and_who_used_it() {
        let budget = json!({"orgs": [{
            "org": "prod", "mode": "enforce", "level": "lean", "footing": "read", "limit": 100_000, "used": 71_200,
            "own": 60_000, "dark": 11_200, "headroom": 23_800, "held": 0,
            "forecast": {"returning_1h": 1_200, "returning_6h": 9_000, "pace_per_hour": 4_000, "runs_out": 29_000_860},
            "paused_classes": ["batch"],
            "callers": [{"name": "etl", "used": 50_000, "floor": 0, "ceiling": null, "pace_per_hour": 3_000, "paused": true}],
            "paces": [{"caller": "etl", "mode": "observe", "per_second": 50, "burst": 100, "left": 7, "waiting": 0,
                "places": 100, "waited": 3, "refused": [["places", 40], ["deadline", 2]]}],
            "top_clients": {"by_client": [{"name": "loader", "calls": 12_345, "at_least": 12_000}], "by_user_agent": [],
                "by_principal": []},
            "bulk_batches": {"used": 1_204, "limit": 15_000},
        }]});
        let text = table(&budget);
        for line in [
            "prod (enforce, lean, limit from Salesforce)",
            "23,800",
            "11:40 UTC",
            "50,000",
            "  paused",
            "class batch is paused",
            "Bulk batches                  1,204 of 15,000",
            "  etl                                50          100            7            0           42  observed",
            "  unnamed, by client name         calls\n  loader                         12,345",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("by principal"), "what is empty is not shown:\n{text}");
    }
}
