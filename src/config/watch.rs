//! Noticing that the configuration, or a file it refers to, has changed.
//!
//! Files are polled: what Kubernetes does to a mounted volume (a symbolic link to a new directory) escapes file
//! watches, but not a look at what the path leads to. A change is acted on when the same state was seen twice, so
//! that a file half written is not read; a request (SIGHUP) is acted on at once.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{Config, Limits, Problems, load};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stamp {
    /// There is none, or it cannot be looked at.
    Absent,
    /// Device, inode, length, and the times of the last change of content and of the inode in nanoseconds.
    Present {
        /// Device and inode: a replaced file differs here.
        identity: (u64, u64),
        /// Length in bytes.
        length: u64,
        /// Last change of the content: seconds, nanoseconds.
        modified: (i64, i64),
        /// Last change of the inode: seconds, nanoseconds.
        changed: (i64, i64),
    },
}

impl Stamp {
    /// The present state of what `path` leads to, symbolic links followed.
    fn of(path: &Path) -> Self {
        std::fs::metadata(path).map_or(Self::Absent, |found| Self::Present {
            identity: (found.dev(), found.ino()),
            length: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// The states of several files.
pub type Stamps = BTreeMap<PathBuf, Stamp>;

fn look(paths: impl IntoIterator<Item = PathBuf>) -> Stamps {
    paths
        .into_iter()
        .map(|path| {
            let stamp = Stamp::of(&path);
            (path, stamp)
        })
        .collect()
}

/// What to do after a look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing has changed.
    Keep,
    /// Something has changed, and may still be changing.
    Settle,
    /// Read everything again; these files have changed, none if it was only asked for.
    Reload(Vec<PathBuf>),
}

/// Decides when to read again. Knows no clock and no files.
#[derive(Debug)]
pub struct Core {
    /// The states that what is in force, or was last rejected, was made of.
    applied: Stamps,
    /// The states at the last look.
    seen: Stamps,
}

impl Core {
    /// `applied` are the states of the files when they were read.
    pub fn new(applied: Stamps) -> Self {
        Self { seen: applied.clone(), applied }
    }

    /// The files to look at.
    pub fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.applied.keys()
    }

    /// Judges a look; `asked` if somebody wants the files read whether they have changed or not.
    pub fn judge(&mut self, now: Stamps, asked: bool) -> Decision {
        let changed: Vec<PathBuf> = now
            .iter()
            .filter(|(path, stamp)| self.applied.get(*path) != Some(*stamp))
            .map(|(path, _)| path.clone())
            .collect();
        let settled = self.seen == now;
        self.seen = now;
        if asked || (settled && !changed.is_empty()) {
            Decision::Reload(changed)
        } else if changed.is_empty() {
            Decision::Keep
        } else {
            Decision::Settle
        }
    }
}

/// What a look at the files led to.
#[derive(Debug)]
pub enum Reload {
    /// Everything is as it was.
    Unchanged,
    /// A new configuration, to be put in force. It may equal the old one, where only a certificate, a key or a
    /// secret has changed: whatever was made of [`Config::referenced_files`] must be made anew.
    New {
        /// What is in force from now on.
        config: Arc<Config>,
        /// The files that have changed; none if the reload was asked for.
        changed: Vec<PathBuf>,
        /// What was changed but takes effect after a restart only.
        warnings: Vec<String>,
    },
    /// The files have changed to something that is no configuration; what is in force stays.
    Bad(Problems),
}

/// Watches the file of a running configuration and all it refers to.
#[derive(Debug)]
pub struct Watcher {
    path: PathBuf,
    started_with: Arc<Config>,
    core: Core,
    request: Arc<Notify>,
}

impl Watcher {
    /// Watches what `config` was read from; `None` if it was not read from a file.
    pub fn new(config: &Arc<Config>) -> Option<Self> {
        let path = config.path.clone()?;
        let core = Core::new(look(watched(&path, config.referenced_files())));
        Some(Self { path, started_with: Arc::clone(config), core, request: Arc::default() })
    }

    /// `notify_one` on it asks for a reload now.
    pub fn request(&self) -> Arc<Notify> {
        Arc::clone(&self.request)
    }

    /// Waits for the next change or request, and for what came of it; never [`Reload::Unchanged`]. Nothing is lost
    /// if the future is dropped and made again.
    pub async fn next(&mut self) -> Reload {
        loop {
            let asked = tokio::select! {
                () = self.request.notified() => true,
                () = tokio::time::sleep(INTERVAL) => false,
            };
            match self.look(asked) {
                Reload::Unchanged => {}
                news => return news,
            }
        }
    }

    /// Looks once. Reads a few small files, in the calling thread.
    pub fn look(&mut self, asked: bool) -> Reload {
        let now = look(self.core.paths().cloned());
        let Decision::Reload(changed) = self.core.judge(now.clone(), asked) else { return Reload::Unchanged };
        let outcome = load(&self.path);
        let referenced = match &outcome {
            Ok(config) => config.referenced_files(),
            Err(problems) => problems.referenced.as_slice(),
        };
        // Files already known keep the state from before they were read: a change since then is seen next time.
        let mut stamps = look(watched(&self.path, referenced));
        for (path, stamp) in &mut stamps {
            if let Some(before) = now.get(path) {
                *stamp = *before;
            }
        }
        self.core = Core::new(stamps);
        match outcome {
            Ok(config) => {
                let warnings = after_restart(&self.started_with, &config);
                Reload::New { config: Arc::new(config), changed, warnings }
            }
            Err(problems) => Reload::Bad(problems),
        }
    }
}

fn watched(path: &Path, referenced: &[PathBuf]) -> Vec<PathBuf> {
    std::iter::once(path).chain(referenced.iter().map(PathBuf::as_path)).map(Path::to_owned).collect()
}

/// What differs between the configuration a process was started with and a later one, and only a restart changes.
pub fn after_restart(started_with: &Config, later: &Config) -> Vec<String> {
    let doors = |config: &Config| -> Vec<_> {
        config.listeners.iter().map(|listener| (listener.address, listener.tls.is_some())).collect()
    };
    let fixed = [
        ("listeners: addresses and whether they speak TLS", doors(started_with) != doors(later)),
        ("admin.address", started_with.admin.address != later.admin.address),
        ("limits of connections", connection_limits(&started_with.limits) != connection_limits(&later.limits)),
        ("log", started_with.log != later.log),
        ("metrics", started_with.metrics != later.metrics),
        ("state", started_with.state != later.state),
        ("runtimes", started_with.runtimes != later.runtimes),
        ("principal_key", started_with.principal_key != later.principal_key),
    ];
    fixed
        .into_iter()
        .filter(|(_, differs)| *differs)
        .map(|(what, _)| format!("{what}: the change takes effect after a restart"))
        .collect()
}

/// What the workers are made with; the rest is looked up for each request.
fn connection_limits(limits: &Limits) -> Limits {
    Limits { stream_above: 0, buffered_bytes_total: 0, drain_notice: Duration::ZERO, ..*limits }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn stamps(files: &[(&str, u64)]) -> Stamps {
        files
            .iter()
            .map(|&(path, length)| {
                let stamp = Stamp::Present { identity: (1, 1), length, modified: (0, 0), changed: (0, 0) };
                (PathBuf::from(path), if length == 0 { Stamp::Absent } else { stamp })
            })
            .collect()
    }

    #[test]
    fn a_change_is_acted_on_once_it_has_settled() {
        let mut core = Core::new(stamps(&[("a", 1), ("b", 1)]));
        assert_eq!(core.judge(stamps(&[("a", 1), ("b", 1)]), false), Decision::Keep);
        assert_eq!(core.judge(stamps(&[("a", 1), ("b", 0)]), false), Decision::Settle);
        assert_eq!(core.judge(stamps(&[("a", 1), ("b", 7)]), false), Decision::Settle);
        assert_eq!(core.judge(stamps(&[("a", 1), ("b", 7)]), false), Decision::Reload(vec!["b".into()]));
    }

    #[test]
    fn a_change_taken_back_is_none() {
        let mut core = Core::new(stamps(&[("a", 1)]));
        assert_eq!(core.judge(stamps(&[("a", 2)]), false), Decision::Settle);
        assert_eq!(core.judge(stamps(&[("a", 1)]), false), Decision::Keep);
        assert_eq!(core.judge(stamps(&[("a", 1)]), false), Decision::Keep);
    }

    #[test]
    fn a_request_is_acted_on_at_once() {
        let mut core = Core::new(stamps(&[("a", 1)]));
        assert_eq!(core.judge(stamps(&[("a", 1)]), true), Decision::Reload(Vec::new()));
        assert_eq!(core.judge(stamps(&[("a", 2)]), true), Decision::Reload(vec!["a".into()]));
    }

    const ORG: &str = "orgs: [{name: prod, instance_url: 'https://acme.my.salesforce.com'}]\n";

    /// Looks twice, so that a change has settled.
    fn settle(watcher: &mut Watcher) -> Reload {
        let first = watcher.look(false);
        assert!(matches!(first, Reload::Unchanged), "{first:?}");
        watcher.look(false)
    }

    fn start(path: &Path) -> Watcher {
        Watcher::new(&Arc::new(load(path).unwrap())).unwrap()
    }

    #[test]
    fn a_mistake_changes_nothing_and_is_reported_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("w.yaml");
        fs::write(&path, ORG).unwrap();
        let mut watcher = start(&path);
        assert!(matches!(settle(&mut watcher), Reload::Unchanged));
        fs::write(&path, format!("{ORG}runtimes: 0\n")).unwrap();
        assert!(matches!(settle(&mut watcher), Reload::Bad(problems) if problems.all().len() == 1));
        assert!(matches!(settle(&mut watcher), Reload::Unchanged));
        fs::write(&path, format!("{ORG}limits: {{stream_above: 7B}}\n")).unwrap();
        let Reload::New { config, changed, warnings } = settle(&mut watcher) else { panic!("not new") };
        assert_eq!((config.limits.stream_above, changed, warnings), (7, vec![path.clone()], Vec::new()));
        fs::remove_file(&path).unwrap();
        assert!(matches!(settle(&mut watcher), Reload::Bad(_)));
    }

    #[test]
    fn a_file_that_was_missing_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("w.yaml");
        fs::write(&path, ORG).unwrap();
        let mut watcher = start(&path);
        fs::write(&path, format!("{ORG}principal_key: {{file: secret}}\n")).unwrap();
        assert!(matches!(settle(&mut watcher), Reload::Bad(_)));
        let secret = directory.path().join("secret");
        fs::write(&secret, "sixteen characters").unwrap();
        let Reload::New { changed, warnings, .. } = settle(&mut watcher) else { panic!("not new") };
        assert_eq!(changed, [secret]);
        assert_eq!(warnings, ["principal_key: the change takes effect after a restart"]);
    }

    #[test]
    fn a_swapped_symbolic_link_is_a_change() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (volume, connections) in [("..one", 1), ("..two", 2)] {
            fs::create_dir(at(volume)).unwrap();
            fs::write(at(volume).join("w.yaml"), format!("{ORG}limits: {{connections: {connections}}}\n")).unwrap();
        }
        symlink("..one", at("..data")).unwrap();
        symlink("..data/w.yaml", at("w.yaml")).unwrap();
        let mut watcher = start(&at("w.yaml"));
        symlink("..two", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        let Reload::New { config, .. } = settle(&mut watcher) else { panic!("not new") };
        assert_eq!(config.limits.connections, 2);
    }

    #[test]
    fn what_needs_a_restart_is_said() {
        let config = |more: &str| {
            let text = format!("{ORG}{more}");
            super::super::check_text(&text, Path::new("w.yaml"), &super::super::System).unwrap()
        };
        let old = config("runtimes: 1\n");
        let new = config(
            "runtimes: 2\nlisteners: [{address: 127.0.0.1:1}]\nadmin: {address: 127.0.0.1:2}\nlimits: {connections: 9}\n\
             log: {access: stderr}\n",
        );
        assert_eq!(after_restart(&old, &new).len(), 5);
        assert!(after_restart(&old, &old).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_wakes_the_watcher() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("w.yaml");
        fs::write(&path, ORG).unwrap();
        let mut watcher = start(&path);
        watcher.request().notify_one();
        let Reload::New { changed, .. } = watcher.next().await else { panic!("not new") };
        assert!(changed.is_empty());
        let quiet = tokio::time::timeout(Duration::from_mins(1), watcher.next()).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }
}
