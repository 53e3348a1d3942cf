//! Promise: packed as the Dockerfile says, the program starts as nobody in particular, is healthy and answers; and the unit
//! of systemd is one that systemd takes and that leaves few rights.

use std::path::Path;

use crate::tools::{Home, on_path, prepare};

/// Programs and the Debian packages they come from.
const NEEDED: [(&str, &str); 4] =
    [("buildah", "buildah"), ("systemd-analyze", "systemd"), ("curl", "curl"), ("strip", "binutils")];

#[test]
fn the_image_is_packed_and_starts() {
    let home = Home::new("image");
    let missing: Vec<&str> =
        NEEDED.into_iter().filter(|(program, _)| on_path(program).is_none()).map(|(_, package)| package).collect();
    if !missing.is_empty() {
        let packages = missing.join(" ");
        assert!(rustix::process::getuid().is_root(), "the tests need programs: apt-get install {packages}");
        let install =
            [["install", "--yes", "--quiet", "--no-install-recommends"].as_slice(), missing.as_slice()].concat();
        for arguments in [["update"].as_slice(), install.as_slice()] {
            prepare(Path::new("apt-get"), arguments, &home.path);
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/image/run");
    let arguments = [script.to_str().unwrap(), env!("CARGO_BIN_EXE_weirkeeper")];
    prepare(Path::new("bash"), &arguments, Path::new(env!("CARGO_MANIFEST_DIR")));
}
