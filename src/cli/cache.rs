//! `weirkeeper cache purge`: makes answers that are kept in memory old.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::admin_client::AdminArguments;

/// The arguments of `cache`.
#[derive(Debug, Args)]
pub struct CacheArguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Have Salesforce asked again for everything of an org, or only about one object, or only for one principal.
    Purge(PurgeArguments),
}

#[derive(Debug, Args)]
struct PurgeArguments {
    #[command(flatten)]
    admin: AdminArguments,
    /// The org whose answers are meant.
    #[arg(long)]
    org: String,
    /// Only those about this object.
    #[arg(long, conflicts_with = "principal")]
    object: Option<String>,
    /// Only those of this principal, as the log shows it: 8 hexadecimal digits.
    #[arg(long)]
    principal: Option<String>,
    /// They may still be given out where Salesforce cannot be asked.
    #[arg(long)]
    soft: bool,
}

/// Gives the order to a running gateway.
pub fn run(arguments: &CacheArguments) -> ExitCode {
    let Verb::Purge(arguments) = &arguments.verb;
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut path = format!("/api/v1/cache/purge?org={}", encoded(&arguments.org));
    for (name, value) in [("object", &arguments.object), ("principal", &arguments.principal)] {
        if let Some(value) = value {
            let _ = write!(path, "&{name}={}", encoded(value));
        }
    }
    if arguments.soft {
        path.push_str("&soft=true");
    }
    match arguments.admin.post(&path) {
        Ok(_) => {
            super::say(&format!("purged: answers of {}", arguments.org));
            ExitCode::SUCCESS
        }
        Err(why) => super::ended(Err(why)),
    }
}
