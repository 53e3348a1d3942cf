//! Puts `system.c` between a child process and the system, so that a test decides when disk and clock fail.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = include_str!("system.c");

/// The compiled library and its control file, in a folder of their own.
#[derive(Debug)]
pub struct Shim {
    folder: tempfile::TempDir,
}

impl Shim {
    /// Compiles it, with the compiler that built SQLite.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("system.c");
        std::fs::write(&source, SOURCE).unwrap();
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .arg(folder.path().join("system.so"))
            .arg(&source)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let shim = Self { folder };
        shim.says("");
        shim
    }

    /// From now on, this is how the system behaves: `sync=5`, `wall=-3600`, or nothing unusual.
    pub fn says(&self, control: &str) {
        // Renamed into place, so that nobody reads half of it.
        let draft = self.folder.path().join("draft");
        std::fs::write(&draft, control).unwrap();
        std::fs::rename(draft, self.control()).unwrap();
    }

    /// Puts it before `command`.
    pub fn before(&self, command: &mut Command) {
        command.env("LD_PRELOAD", self.folder.path().join("system.so")).env("SHIM_CONTROL", self.control());
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }
}
