//! `weirkeeper breaker`: shows the circuit breakers of a running gateway, and opens and closes them.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::admin_client::AdminArguments;

/// The arguments of `breaker`.
#[derive(Debug, Args)]
pub struct BreakerArguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show every breaker that is not closed, or has been open.
    Show(AdminArguments),
    /// Hold the calls to one API of an org back, or those to all.
    Open {
        #[command(flatten)]
        which: Which,
        /// For so long, such as 30m: then the gateway finds out by itself. Else until they are closed.
        #[arg(long = "for", value_name = "TIME")]
        length: Option<String>,
    },
    /// Let them all pass again at once.
    Close {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
struct Which {
    #[command(flatten)]
    admin: AdminArguments,
    /// The org whose calls are meant.
    #[arg(long)]
    org: String,
    /// Only those to this API, such as query; `weirkeeper explain` says which one a request is for.
    #[arg(long)]
    family: Option<String>,
}

/// Asks a running gateway, or gives it an order.
pub fn run(arguments: &BreakerArguments) -> ExitCode {
    let done = match &arguments.verb {
        Verb::Show(admin) => admin.get("/api/v1/breakers").map(|shown| table(&shown)),
        Verb::Open { which, length } => which.order("open", length.as_deref()).map(|what| format!("opened: {what}")),
        Verb::Close { which } => which.order("close", None).map(|what| format!("closed: {what}")),
    };
    super::ended(done.map(|text| super::say(&text)))
}

impl Which {
    /// Gives the order; says what it was about.
    fn order(&self, verb: &str, length: Option<&str>) -> Result<String, String> {
        let mut path = format!("/api/v1/breakers/{verb}?");
        for (name, value) in [("org", Some(self.org.as_str())), ("family", self.family.as_deref()), ("for", length)] {
            if let Some(value) = value {
                let _ = write!(path, "{name}={}&", utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        self.admin.post(path.trim_end_matches('&'))?;
        let which =
            self.family.as_ref().map_or_else(|| "all breakers".to_owned(), |family| format!("breaker {family}"));
        Ok(format!("{which} of {}", self.org))
    }
}

/// One line for each breaker that is worth one.
fn table(shown: &Value) -> String {
    let mut lines = vec![format!("{:<20}{:<14}{:<12}{:>8}  {}", "org", "API", "state", "opened", "asks again")];
    for org in shown["orgs"].as_array().into_iter().flatten() {
        let name = org["org"].as_str().unwrap_or_default();
        let breakers = org["families"].as_array().into_iter().flatten();
        for breaker in breakers.filter(|breaker| breaker["state"] != "closed" || breaker["opened"] != 0) {
            let text = |key: &str| breaker[key].as_str().unwrap_or_default();
            let again = match (breaker["finds_out_in_seconds"].as_f64(), breaker["by_hand"].as_bool()) {
                (Some(seconds), _) => format!("in {seconds:.0} s"),
                (None, Some(true)) => "when it is closed".to_owned(),
                (None, _) => String::new(),
            };
            let (family, state, opened) = (text("family"), text("state"), &breaker["opened"]);
            lines.push(format!("{name:<20}{family:<14}{state:<12}{opened:>8}  {again}").trim_end().to_owned());
        }
        if let Some(users) = org["users_held_back"].as_u64().filter(|users| *users > 0) {
            lines.push(format!("{name:<20}{users} users with a quota that is used up"));
        }
    }
    if lines.len() == 1 {
        return "every breaker is closed, and was all the time".to_owned();
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_breaker_has_a_line_if_it_did_anything() {
        let closed =
            json!({"family": "rest", "state": "closed", "by_hand": false, "opened": 0, "finds_out_in_seconds": null});
        let open =
            json!({"family": "query", "state": "open", "by_hand": false, "opened": 3, "finds_out_in_seconds": 12.3});
        let held =
            json!({"family": "bulk2", "state": "open", "by_hand": true, "opened": 1, "finds_out_in_seconds": null});
        let shown = |families: &[&Value], users| {
            table(&json!({"orgs": [{"org": "prod", "families": families, "users_held_back": users}]}))
        };
        assert_eq!(shown(&[&closed], 0), "every breaker is closed, and was all the time");
        let all = shown(&[&closed, &open, &held], 2);
        let lines: Vec<Vec<&str>> = all.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["prod", "query", "open", "3", "in", "12", "s"]);
        assert_eq!(lines[2], ["prod", "bulk2", "open", "1", "when", "it", "is", "closed"]);
        assert!(lines[3].starts_with(&["prod", "2", "users"]) && lines.len() == 4, "{all}");
    }
}
