//! `weirkeeper pause` and `weirkeeper resume`: stops one caller or one class of one org, and lets it go on.

use std::process::ExitCode;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::admin_client::AdminArguments;

/// The arguments of `pause` and `resume`.
#[derive(Debug, clap::Args)]
pub struct PauseArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// The org whose calls are meant.
    #[arg(long)]
    org: String,
    #[command(flatten)]
    whom: Whom,
}

/// Whose calls.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// Of this caller.
    #[arg(long)]
    caller: Option<String>,
    /// Of this class: interactive, standard or batch.
    #[arg(long)]
    class: Option<String>,
}

/// Gives the order to a running gateway.
pub fn run(arguments: &PauseArguments, verb: &str) -> ExitCode {
    let (kind, name) = match (&arguments.whom.caller, &arguments.whom.class) {
        (Some(caller), _) => ("caller", caller),
        (None, Some(class)) => ("class", class),
        (None, None) => return super::ended(Err("name a caller or a class")),
    };
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let path = format!("/api/v1/{verb}?org={}&{kind}={}", encoded(&arguments.org), encoded(name));
    match arguments.admin.post(&path) {
        Ok(_) => {
            super::say(&format!("{verb}d: {kind} {name} of {}", arguments.org));
            ExitCode::SUCCESS
        }
        Err(why) => super::ended(Err(why)),
    }
}
