//! `weirkeeper replicas`: which replicas share state with a running gateway, and how the store is by way of which they do.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;

use super::admin_client::AdminArguments;
use crate::admin::grouped;

/// The arguments of `replicas`.
#[derive(Debug, clap::Args)]
pub struct ReplicasArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the replicas that a running gateway knows.
pub fn run(arguments: &ReplicasArguments) -> ExitCode {
    match arguments.admin.get("/api/v1/replicas") {
        Ok(replicas) if arguments.json => {
            super::say(&serde_json::to_string_pretty(&replicas).unwrap_or_default());
            ExitCode::SUCCESS
        }
        Ok(replicas) => {
            super::say(table(&replicas).trim_end());
            ExitCode::SUCCESS
        }
        Err(why) => super::ended(Err(why)),
    }
}

fn table(of: &Value) -> String {
    if of["shared"] != true {
        return "This gateway shares no state with others.\n".to_owned();
    }
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let (store, mut text) = (&of["store"], String::new());
    let state = if store["up"] == true { "up" } else { "down" };
    let since = length(store["since_seconds"].as_f64().unwrap_or_default());
    let _ = writeln!(text, "store: {state} for {since}; on_loss: {}", word(&store["on_loss"]));
    let _ = writeln!(text, "\n  {:<32} {:<18} {:<12} {:>10} {:>10}", "replica", "id", "version", "up for", "heard");
    for replica in of["replicas"].as_array().into_iter().flatten() {
        let _ = writeln!(
            text,
            "  {:<32} {:<18} {:<12} {:>10} {:>10}{}",
            word(&replica["name"]),
            word(&replica["replica"]),
            word(&replica["version"]),
            length(replica["up_seconds"].as_f64().unwrap_or_default()),
            length(replica["heard_seconds_ago"].as_f64().unwrap_or_default()),
            if replica["this"] == true { "  this one" } else { "" },
        );
    }
    let orgs: Vec<&Value> = of["orgs"].as_array().into_iter().flatten().collect();
    if !orgs.is_empty() {
        let _ = writeln!(
            text,
            "\n  {:<32} {:>6} {:>12} {:>18} {:>14}",
            "org", "bank", "leased here", "asks what is used", "kept answers"
        );
    }
    for org in orgs {
        let asks = match org["asks"].as_bool() {
            Some(true) => "this one",
            Some(false) => "another one",
            None => "nobody",
        };
        let _ = writeln!(
            text,
            "  {:<32} {:>6} {:>12} {asks:>18} {:>14}",
            word(&org["org"]),
            if org["bank_up"] == true { "up" } else { "down" },
            org["lease"].as_u64().map_or_else(|| "-".to_owned(), grouped),
            if org["doubt"].is_null() { "given" } else { "in doubt" },
        );
    }
    text
}

/// `12 s`, `3 min`, `5 h`, `2 d`.
fn length(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default().as_secs();
    match whole {
        0..=119 => format!("{whole} s"),
        120..=7_199 => format!("{} min", whole / 60),
        7_200..=172_799 => format!("{} h", whole / 3_600),
        _ => format!("{} d", whole / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_says_who_is_there_and_how_the_store_is() {
        let of = json!({"shared": true, "replica": "00aa", "name": "gateway-a",
            "store": {"up": false, "since_seconds": 130, "on_loss": "safe_share", "commands": []},
            "replicas": [
                {"replica": "00aa", "name": "gateway-a", "version": "1.0.0", "up_seconds": 200_000,
                    "heard_seconds_ago": 131.4, "this": true},
                {"replica": "00bb", "name": "gateway-b", "version": "1.0.1", "up_seconds": 90, "heard_seconds_ago": 132.0,
                    "this": false},
            ],
            "orgs": [{"org": "prod", "bank_up": false, "lease": 1_200, "asks": true, "doubt": "silence"},
                {"org": "test", "bank_up": true, "lease": null, "asks": null, "doubt": null}],
        });
        let text = table(&of);
        for line in [
            "store: down for 2 min; on_loss: safe_share",
            "  gateway-a                        00aa               1.0.0               2 d      2 min  this one\n",
            "  gateway-b                        00bb               1.0.1              90 s      2 min\n",
            "  prod                               down        1,200           this one       in doubt\n",
            "  test                                 up            -             nobody          given\n",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert_eq!(table(&json!({"shared": false})), "This gateway shares no state with others.\n");
    }
}
