//! Promise: the arrows of the architecture hold. A module imports only what it may know.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// All Rust files under `folder`, and the file `folder.rs` if there is one.
fn files(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = vec![root.join(folder)];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    let single = root.join(format!("{folder}.rs"));
    if single.is_file() {
        found.push(single);
    }
    found
}

/// The text of a file without comments and without its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let body = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    body.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The top-level modules of this crate that a file names.
fn imports(path: &Path) -> BTreeSet<String> {
    let text = code(path);
    let mut names = BTreeSet::new();
    for piece in text.split("crate::").skip(1) {
        if let Some(list) = piece.strip_prefix('{') {
            // `use crate::{a::B, c::{D, E}};`: of each member, what stands before the first `::`.
            let mut depth = 1;
            let mut word = String::new();
            let mut further = false;
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ':' => further = true,
                    c if depth == 1 && !further && (c.is_ascii_alphanumeric() || c == '_') => word.push(c),
                    _ => {}
                }
                if depth == 0 || (depth == 1 && c == ',') {
                    if !word.is_empty() {
                        names.insert(std::mem::take(&mut word));
                    }
                    further = false;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            let name: String = piece.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            names.insert(name);
        }
    }
    names
}

fn no_arrow(from: &str, forbidden: &[&str]) {
    for file in files(from) {
        for name in imports(&file) {
            assert!(!forbidden.contains(&name.as_str()), "{} must not import {name}", file.display());
        }
    }
}

#[test]
fn salesforce_knows_nothing_of_ours_but_call() {
    for file in files("salesforce") {
        for name in imports(&file) {
            assert!(["call", "salesforce"].contains(&name.as_str()), "{} imports {name}", file.display());
        }
    }
}

#[test]
fn the_simulator_shares_nothing_with_the_gateway() {
    assert!(!files("sim").is_empty());
    for file in files("sim") {
        for name in imports(&file) {
            assert_eq!(name, "sim", "{}", file.display());
        }
    }
    for module in ["edge", "exchange", "salesforce", "telemetry", "admin", "config", "stages", "stack"] {
        no_arrow(module, &["sim"]);
    }
}

#[test]
fn answers_admission_and_exchange_do_not_know_each_other() {
    no_arrow("exchange", &["answers", "admission", "edge", "telemetry", "admin", "config", "stages", "stack"]);
    no_arrow("admission", &["answers", "exchange", "edge", "telemetry", "admin", "stages", "stack"]);
    no_arrow("answers", &["admission", "exchange", "edge", "telemetry", "admin", "stages", "stack"]);
}

#[test]
fn only_the_road_the_admin_side_and_the_commands_know_the_telemetry() {
    for module in ["edge", "exchange", "salesforce", "config", "call", "outcome", "refusal", "body", "clock", "tasks"] {
        no_arrow(module, &["telemetry"]);
    }
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    for file in files("") {
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("//!"), "{} does not open with //!", file.display());
    }
}

#[test]
fn no_source_file_is_too_long_to_read() {
    for file in files("") {
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}

#[test]
fn the_check_sees_an_import() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("one.rs");
    fs::write(&file, "//! x\nuse crate::{call::Call, edge::{a, b::c}, live};\nfn f() { crate::sim::g() }\n").unwrap();
    let names: Vec<String> = imports(&file).into_iter().collect();
    assert_eq!(names, ["call", "edge", "live", "sim"]);
}
