//! The configuration: what was written, and what it means.
//!
//! ```text
//! text --tree--> located values --read--> ConfigFile (what was written) --check--> Config (what it means)
//!                     \____________________ problems, all at once ______________________/
//! ```
//!
//! [`file`] is the only definition of the format: reader, defaults, JSON Schema and the configuration shown to
//! operators come from it. Only this module reads the environment; only [`Config`] reaches the rest of the program.

mod auth;
mod breaker;
mod cache;
mod check;
mod daily;
mod file;
pub mod key;
mod model;
mod outside;
mod pace;
mod problem;
mod read;
mod redis;
mod reference;
mod retry;
mod schema;
mod secret;
mod slots;
mod telling;
#[cfg(test)]
mod tests;
mod tree;
mod value;
pub mod watch;

use std::net::SocketAddr;
use std::path::Path;

pub use breaker::{Breaker, BreakerMode};
pub use cache::{Cache, CacheEntry, RememberedFailures};
pub use daily::{DailyMode, OnLoss, SharedLoss};
pub use file::{PolicyMode, Roots};
pub use key::KeyDigest;
pub use model::{
    Admin, Allow, Caller, CertificateName, Config, Costs, Daily, EgressProxy, Flow, GatewayTokens, Identity, Jwks,
    JwtMatch, KeyPair, Ladder, Limits, Listener, Match, Org, Origin, Poll, ServerTls, Share, State, Totals, Upstream,
};
pub use outside::{Outside, System};
pub use pace::{Pace, PaceMode};
pub use problem::{Place, Problem, Problems};
pub use redis::{Node, Redis, Sentinel};
pub use reference::reference;
pub use retry::Retry;
pub use schema::schema;
pub use secret::Secret;
pub use slots::{Apex, ClassRule, Hours, LongRunning, MOST_HOURS, Queue, SlotMode};
pub use telling::{AccessTo, Log, MetricCaps, Traces};

use check::{Rejected, check};
use file::ConfigFile;
use problem::Fault;
use tree::Tree;
use value::Written as _;

/// A length of time, written as in a configuration: `30s`, `1h30m`.
pub fn duration(text: &str) -> Option<std::time::Duration> {
    value::Period::read(text).ok().map(|period| period.0)
}

/// Reads and checks a file. Relative paths in it are relative to its directory.
pub fn load(path: &Path) -> Result<Config, Problems> {
    let alone = |reason: String| {
        let problem = Problem { place: Place::START, path: String::new(), reason, hint: None };
        Problems::new(path, vec![problem], Vec::new())
    };
    let bytes = System.read(path).map_err(|error| alone(format!("cannot read the file: {error}")))?;
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let before = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let problem = Problem {
            place: Place { line, column },
            path: String::new(),
            reason: "the text is not UTF-8 here".to_owned(),
            hint: None,
        };
        Problems::new(path, vec![problem], Vec::new())
    })?;
    check_text(text, path, &System)
}

/// Checks a text. `path` names it in problems and says what relative paths in it are relative to; variables and
/// other files come from `outside`. Never panics, whatever the text.
pub fn check_text(text: &str, path: &Path, outside: &dyn Outside) -> Result<Config, Problems> {
    let (mut tree, repeated) = Tree::parse(text).map_err(|problem| Problems::new(path, vec![problem], Vec::new()))?;
    let mut unreadable = Vec::new();
    let Some(file) = read::read(&mut tree, &mut unreadable) else {
        unreadable.extend(repeated);
        return Err(Problems::new(path, unreadable, Vec::new()));
    };
    let base = path.parent().unwrap_or(Path::new(""));
    match check(file, Some(path), Some(&tree), unreadable, base, outside) {
        Ok(config) if repeated.is_empty() => Ok(config),
        Ok(config) => Err(Problems::new(path, repeated, config.referenced)),
        Err(Rejected { mut problems, referenced }) => {
            problems.extend(repeated);
            Err(Problems::new(path, problems, referenced))
        }
    }
}

impl Config {
    /// The configuration of `serve --org URL`, without a file: callers meet one org called `default` on `listen`,
    /// bring their own tokens and are all `anyone`; operators connect to `admin`.
    pub fn for_org(instance_url: &str, listen: SocketAddr, admin: SocketAddr) -> Result<Self, Problems> {
        let name = Path::new("--org");
        let instance = Origin::read(instance_url).map_err(|Fault { reason, hint }| {
            let problem = Problem { place: Place::START, path: String::new(), reason, hint };
            Problems::new(name, vec![problem], Vec::new())
        })?;
        check(ConfigFile::for_org(instance, listen, admin), None, None, Vec::new(), Path::new(""), &System)
            .map_err(|Rejected { problems, referenced }| Problems::new(name, problems, referenced))
    }
}
