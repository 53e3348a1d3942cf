//! From what was written to what it means.
//!
//! Each section has one function, which notes every mistake and goes on with the next key. A [`Config`] comes out
//! only if there was none.

mod breaker;
mod cache;
mod callers;
mod daily;
mod edge;
mod files;
mod identities;
mod orgs;
mod redis;
mod slots;
mod telling;
mod upstream;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::file::ConfigFile;
use super::model::Config;
use super::outside::Outside;
use super::problem::{Fault, Place, Problem};
use super::read::speaks_of;
use super::telling::MetricCaps;
use super::tree::{Step, Tree};
use super::value::{Name, Period, Phrase, Size, Text, Written as _};

/// Checks `file` as a whole. `tree` is the text it was read from, if it was read from one; `problems` are those
/// already found in it. Paths are relative to `base`.
pub fn check(
    file: ConfigFile,
    path: Option<&Path>,
    tree: Option<&Tree>,
    problems: Vec<Problem>,
    base: &Path,
    outside: &dyn Outside,
) -> Result<Config, Rejected> {
    let syntax_problems = problems.len();
    let mut check = Check { tree, problems, syntax_problems, base, outside, referenced: Vec::new() };
    let top = At::default();

    let listeners = check.listeners(&top.key("listeners"), &file.listeners);
    let admin = check.admin(&top.key("admin"), &file.admin, &listeners);
    let limits = check.limits(&top.key("limits"), &file.limits);
    let upstream = check.upstream(&top.key("upstream"), &file.upstream, &limits);
    let orgs = check.orgs(&top.key("orgs"), &file.orgs, Check::shared(&file));
    let callers = check.callers(&top.key("callers"), &file);
    check.floors_fit(&top.key("orgs"), &file, &orgs);
    let classes = check.class_rules(&top.key("classes"), &file.classes);
    let cache = check.cache(&top.key("cache"), &file.cache, &file);
    let ladder = check.ladder(&top.key("ladder"), &file.ladder);
    let queue = check.queue(&top.key("queue"), &file.queue);
    let breaker = check.breaker(&top.key("breaker"), &file.breaker);
    let state = check.state(&top.key("state"), file.state.as_ref(), &orgs);
    let gateway_tokens = check.gateway_tokens(&top.key("gateway_tokens"), &file.gateway_tokens);
    let log = check.log(&top.key("log"), &file.log);
    let traces = check.traces(&top.key("traces"), &file.traces);
    let principal_key = file.principal_key.as_ref().and_then(|reference| {
        let at = top.key("principal_key");
        let secret = check.secret(&at, reference)?;
        if secret.expose().len() < 16 {
            check.wrong(&at, Fault::new("shorter than 16 characters").hint("make one with `openssl rand -base64 32`"));
        }
        Some(secret)
    });

    if !check.problems.is_empty() {
        return Err(Rejected { problems: check.problems, referenced: check.referenced });
    }
    check.referenced.sort();
    check.referenced.dedup();
    Ok(Config {
        path: path.map(Path::to_owned),
        listeners,
        trusted_proxies: file.trusted_proxies.iter().map(|network| network.0).collect(),
        admin,
        limits,
        upstream,
        orgs,
        callers,
        rate_limit_headers: file.rate_limit_headers,
        policy: file.policy.mode,
        classes,
        cache,
        ladder,
        queue,
        retry: file.retry.meant(),
        breaker,
        state,
        log,
        metrics: MetricCaps {
            max_objects: file.metrics.max_objects.as_usize(),
            max_callers: file.metrics.max_callers.as_usize(),
        },
        traces,
        runtimes: file.runtimes.map_or_else(processor_cores, super::value::Count::as_usize),
        principal_key,
        gateway_tokens,
        referenced: check.referenced,
        written: Arc::new(file),
    })
}

/// Why there is no [`Config`], and which files were looked at to find out.
pub struct Rejected {
    /// At least one.
    pub problems: Vec<Problem>,
    /// Other files than the configuration itself.
    pub referenced: Vec<PathBuf>,
}

fn processor_cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The key path of what is being checked.
#[derive(Debug, Clone, Default)]
struct At(Vec<Step>);

impl At {
    fn key(&self, key: &'static str) -> Self {
        self.step(Step::Key(SmolStr::new_static(key)))
    }

    /// By a name that the operator gave.
    fn name(&self, name: &SmolStr) -> Self {
        self.step(Step::Key(name.clone()))
    }

    fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    fn step(&self, step: Step) -> Self {
        let mut steps = Vec::with_capacity(self.0.len() + 1);
        steps.extend_from_slice(&self.0);
        steps.push(step);
        Self(steps)
    }
}

/// The state of one check: what was found so far, and where files and variables come from.
struct Check<'a> {
    tree: Option<&'a Tree>,
    problems: Vec<Problem>,
    /// How many of `problems` came from reading: what they concern has its default now, and says nothing.
    syntax_problems: usize,
    base: &'a Path,
    outside: &'a dyn Outside,
    referenced: Vec<PathBuf>,
}

impl Check<'_> {
    /// Notes a mistake, unless it only echoes one of reading.
    fn wrong(&mut self, at: &At, fault: Fault) {
        let (path, place) = self.locate(at);
        if self.was_read(&path) {
            self.problems.push(Problem { place, path, reason: fault.reason, hint: fault.hint });
        }
    }

    /// Whether reading had nothing to say of what is at `path`.
    fn was_read(&self, path: &str) -> bool {
        !speaks_of(self.problems.get(..self.syntax_problems).unwrap_or_default(), path)
    }

    /// The path as it was written, and its place.
    fn locate(&self, at: &At) -> (String, Place) {
        match self.tree {
            Some(tree) => tree.follow(&at.0),
            None => (String::new(), Place::START),
        }
    }

    /// The same path in words, to point from one problem to another place.
    fn named(&self, at: &At) -> String {
        self.locate(at).0
    }

    /// Notes that a key is missing.
    fn missing(&mut self, at: &At, hint: &str) {
        self.wrong(at, Fault::new("this key is missing").hint(hint));
    }

    /// A duration that must not be zero.
    fn positive(&mut self, at: &At, period: Text<Period>) -> Duration {
        if period.0.0.is_zero() {
            self.wrong(at, Fault::new("this must be longer than nothing"));
        }
        period.0.0
    }

    /// A size between two bounds, in bytes.
    fn bytes(&mut self, at: &At, size: Text<Size>, least: u64, most: u64) -> u64 {
        let bytes = size.0.0;
        if !(least..=most).contains(&bytes) {
            let fault = Fault::new(format!("{} is out of range", size.0.write()));
            self.wrong(at, fault.hint(format!("{} to {}", Size(least).write(), Size(most).write())));
        }
        bytes
    }

    /// [`Self::bytes`] of what is held in memory.
    fn length(&mut self, at: &At, size: Text<Size>, least: u64, most: u64) -> usize {
        usize::try_from(self.bytes(at, size, least, most)).unwrap_or(usize::MAX)
    }

    /// A name that must be given, and that nothing in `taken` has.
    fn name(&mut self, at: &At, name: Option<&Text<Name>>, taken: &mut HashMap<SmolStr, At>) -> Option<SmolStr> {
        let name_at = at.key("name");
        let Some(Text(Name(name))) = name else {
            self.missing(&name_at, "give it a short name for metrics and logs");
            return None;
        };
        if name == "other" {
            let fault = Fault::new("\"other\" stands for all that metrics do not name");
            self.wrong(&name_at, fault.hint("take another name"));
        }
        if let Some(first) = taken.get(name) {
            self.wrong(&name_at, Fault::new(format!("the name {name:?} is taken by {}", self.named(first))));
        } else {
            taken.insert(name.clone(), at.clone());
        }
        Some(name.clone())
    }

    fn path(&self, written: &Text<Phrase>) -> PathBuf {
        self.base.join(written.0.0.as_str())
    }
}
