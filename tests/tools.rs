//! Programs that tests use and the machine need not have: installed once, as pinned, into the target folder.
//!
//! What cannot be had is said in one line, and fails the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of the target folder, and the right to change it: tests run side by side, each perhaps in its own process.
#[derive(Debug)]
pub struct Home {
    /// The folder.
    pub path: PathBuf,
    _lock: fs::File,
}

impl Home {
    /// The folder of this name; waits for its turn.
    pub fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join(name);
        fs::create_dir_all(&path).unwrap();
        let lock = fs::File::create(path.join("lock")).unwrap();
        lock.lock().unwrap();
        Self { path, _lock: lock }
    }

    /// A Python with what `list` pins; returns the interpreter.
    pub fn python(&self, list: &Path) -> PathBuf {
        let python = self.path.join("python");
        // Scripts in there name the place where they were installed.
        let (mut wanted, stamp) = (fs::read(list).unwrap(), python.join("installed.txt"));
        wanted.extend(format!("# in {}\n", python.display()).into_bytes());
        if fs::read(&stamp).is_ok_and(|there| there == wanted) {
            assert!(python.join("bin/python").exists(), "remove {} and run again", python.display());
        } else {
            prepare(Path::new("python3"), &["-m", "venv", "--clear", "python"], &self.path);
            let arguments =
                ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", list.to_str().unwrap()];
            prepare(&python.join("bin/python"), &arguments, &self.path);
            fs::write(&stamp, wanted).unwrap();
        }
        python.join("bin/python")
    }

    /// The modules that `package-lock.json` of `from` pins; returns the folder that holds `node_modules`.
    pub fn node(&self, from: &Path) -> PathBuf {
        let node = self.path.join("node");
        fs::create_dir_all(&node).unwrap();
        let (wanted, stamp) = (fs::read(from.join("package-lock.json")).unwrap(), node.join("installed.json"));
        if !fs::read(&stamp).is_ok_and(|there| there == wanted) {
            for name in ["package.json", "package-lock.json"] {
                fs::copy(from.join(name), node.join(name)).unwrap();
            }
            let arguments = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
            prepare(Path::new("npm"), &arguments, &node);
            fs::write(&stamp, wanted).unwrap();
        }
        node
    }

    /// A program of a Debian package: the machine's own, or one unpacked here, for which nobody need be root.
    pub fn debian(&self, package: &str, program: &str) -> PathBuf {
        if let Some(found) = on_path(program) {
            return found;
        }
        let (folder, state) = (self.path.join(package), self.path.join("apt"));
        let found = folder.join("usr/bin").join(program);
        if !found.exists() {
            for part in ["lists/partial", "cache/archives/partial"] {
                fs::create_dir_all(state.join(part)).unwrap();
            }
            fs::create_dir_all(&folder).unwrap();
            let at = |name: &str, part: &str| format!("-oDir::{name}={}", state.join(part).display());
            let (lists, cache) = (at("State::lists", "lists"), at("Cache", "cache"));
            for verb in [["update"].as_slice(), &["download", package]] {
                let arguments = [&["-q", &lists, &cache, "-oDebug::NoLocking=1"], verb].concat();
                prepare(Path::new("apt-get"), &arguments, &folder);
            }
            let archive = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let archive = archive.into_iter().find(|path| path.extension().is_some_and(|end| end == "deb")).unwrap();
            prepare(Path::new("dpkg-deb"), &["-x", archive.to_str().unwrap(), "."], &folder);
            fs::remove_file(archive).unwrap();
            fs::remove_dir_all(state).unwrap();
        }
        found
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

/// Runs a program to its end.
pub fn output(program: &Path, arguments: &[&str], folder: &Path) -> Output {
    match Command::new(program).args(arguments).current_dir(folder).stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("the tests need {}: {error}", program.display()),
    }
}

/// Runs a program that prepares something; says in one line what is missing or went wrong.
pub fn prepare(program: &Path, arguments: &[&str], folder: &Path) {
    let output = output(program, arguments, folder);
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    assert!(output.status.success(), "the tests could not run `{} {}`: {last}", program.display(), arguments.join(" "));
}
