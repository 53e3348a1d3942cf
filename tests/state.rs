//! Promise: whatever disk, file and clock do, nothing spent is forgotten, nothing is sent past the ceiling, and the operator is
//! told what happened and what to do about it.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use weirkeeper::clock::Clock;

use crate::process::{Ended, Gateway, Process, Setup, Simulator, until};
use crate::shim::Shim;

/// Of the org.
const CEILING: u64 = 300;

fn setup(simulator: &Simulator) -> Setup {
    Setup::written(&format!(
        "listeners: [{{address: 127.0.0.1:0}}]
admin: {{address: 127.0.0.1:0}}
runtimes: 1
orgs: [{{name: prod, instance_url: 'http://{}', daily: {{limit: {CEILING}, keep_free: 0%}}}}]
callers: [{{name: app, match: any, class: interactive}}]
state: {{path: data}}
log: {{access: off}}
",
        simulator.address
    ))
}

fn charged(simulator: &Simulator) -> u64 {
    simulator.counts()["charged"].as_u64().unwrap()
}

/// Sends calls one after another until one is refused, and returns how many were answered and why that one was not.
fn spend(gateway: &Gateway, most: u64) -> (u64, String) {
    for served in 0..most {
        let answer = gateway.get("/services/data/v62.0/limits").unwrap();
        if answer.status != 200 {
            assert!(answer.header("retry-after").is_some(), "{}", answer.text());
            return (served, answer.header("weirkeeper-refused").unwrap_or("by Salesforce").to_owned());
        }
    }
    (most, String::new())
}

fn budget(gateway: &Gateway) -> serde_json::Value {
    gateway.admin("/api/v1/budget").unwrap().json()["orgs"][0].clone()
}

/// Kills the gateway, starts it again, spends what is left, and sees that it was not too much.
fn dies_and_remembers(simulator: &Simulator, setup: &Setup, gateway: Gateway) {
    gateway.process.signal(Signal::KILL);
    let _killed = gateway.process.ended();
    let gateway = setup.serve();
    assert_eq!(spend(&gateway, 2 * CEILING).1, "org_allowance");
    let (charged, lost) = (charged(simulator), budget(&gateway)["lost_leases"].as_u64().unwrap());
    println!("{charged} of {CEILING} charged, {lost} lost with leases");
    assert!(charged <= CEILING && charged + lost >= CEILING, "{charged} charged, {lost} lost");
}

/// Starts a gateway that must not start.
fn refused(setup: &Setup) -> String {
    let Ended { code, err, .. } = Process::start(&["serve", "--config", setup.config_str()]).ended();
    assert_eq!(code, Some(1), "{err}");
    err
}

/// A small file system of its own, mounted where the state is kept. Only root may; `None` says so.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=2m", "tmpfs"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        println!("no tmpfs can be mounted without root: another way to make the disk fail is taken");
        None
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status().unwrap();
        assert!(done.success());
    }

    /// Takes all the room there is.
    fn fill(&self) {
        let mut filler = File::create(self.0.join("filler")).unwrap();
        while filler.write_all(&[0; 4_096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever may still be open in it.
        let _gone = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_stops_calls_by_name_and_room_lets_them_go_on() {
    let (simulator, shim) = (Simulator::start(), Shim::new());
    let setup = setup(&simulator);
    let disk = Disk::mount(setup.path("data"));
    let gateway = setup.serve_with(|command| shim.before(command));
    assert_eq!(spend(&gateway, 50).0, 50);
    match &disk {
        Some(disk) => disk.fill(),
        // ENOSPC.
        None => shim.says("write=28"),
    }
    let (more, why) = spend(&gateway, CEILING);
    assert_eq!(why, "budget_unready", "after {more} more, what was leased before is spent");
    let lost = gateway.event("bank_lost");
    assert!(lost["error"].as_str().unwrap().contains("full"), "{lost}");
    assert_eq!(gateway.count("weirkeeper_bank_up", &[]), 0);
    assert_eq!(charged(&simulator), 50 + more);
    match &disk {
        Some(disk) => disk.free(),
        None => shim.says(""),
    }
    gateway.event("bank_back");
    until("the bank is up", || (gateway.count("weirkeeper_bank_up", &[]) == 1).then_some(()));
    assert_eq!(spend(&gateway, 10).0, 10);
    dies_and_remembers(&simulator, &setup, gateway);
}

#[test]
fn a_disk_that_cannot_sync_stops_calls_by_name_and_a_kill_meanwhile_forgets_nothing() {
    let (simulator, shim) = (Simulator::start(), Shim::new());
    let setup = setup(&simulator);
    let gateway = setup.serve_with(|command| shim.before(command));
    assert_eq!(spend(&gateway, 50).0, 50);
    // EIO.
    shim.says("sync=5");
    let (more, why) = spend(&gateway, CEILING);
    assert_eq!(why, "budget_unready", "after {more} more");
    let lost = gateway.event("bank_lost");
    assert!(lost["error"].as_str().unwrap().contains("I/O error"), "{lost}");
    shim.says("");
    gateway.event("bank_back");
    // On and off: some commits get through, and nobody knows of the others what became of them.
    let mut served = 0;
    for nth in 0..12 {
        shim.says(if nth % 2 == 0 { "sync=5" } else { "" });
        served += spend(&gateway, 5).0;
        std::thread::sleep(Duration::from_millis(150));
    }
    assert_eq!(charged(&simulator), 50 + more + served);
    shim.says("sync=5");
    dies_and_remembers(&simulator, &setup, gateway);
}

#[test]
fn a_disk_that_hangs_delays_nothing_within_the_lease() {
    let (simulator, shim) = (Simulator::start(), Shim::new());
    let setup = setup(&simulator);
    let clock = Clock::start();
    let gateway = setup.serve_with(|command| shim.before(command));
    assert_eq!(spend(&gateway, 5).0, 5);
    shim.says("stall=1");
    // What is leased now may be told to the bank no more.
    std::thread::sleep(Duration::from_millis(1_500));
    let lease = budget(&gateway)["lease"].as_u64().unwrap();
    assert!(lease >= 5, "{lease}");
    let began = clock.now();
    let mut slowest = Duration::ZERO;
    for _ in 0..lease {
        let asked = clock.now();
        assert_eq!(spend(&gateway, 1).0, 1);
        slowest = slowest.max(clock.now() - asked);
    }
    println!("{lease} leased calls in {:?} while the disk hangs, the slowest in {slowest:?}", clock.now() - began);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // Whoever comes next waits for the refill, not for ever, and is told.
    assert_eq!(spend(&gateway, 1).1, "budget_unready");
    shim.says("");
    until("calls go on", || (spend(&gateway, 1).0 == 1).then_some(()));
    dies_and_remembers(&simulator, &setup, gateway);
}

#[test]
fn a_state_that_may_not_be_written_is_refused_at_the_start_and_remembered_once_it_may() {
    let simulator = Simulator::start();
    let setup = setup(&simulator);
    let data = setup.path("data");
    let disk = Disk::mount(data.clone());
    let gateway = setup.serve();
    assert_eq!(spend(&gateway, 20).0, 20);
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.ended().code, Some(0));
    let allow = |may: bool| match &disk {
        Some(disk) => disk.remount(if may { "rw" } else { "ro" }),
        None => {
            let (file, folder) = if may { (0o644, 0o755) } else { (0o444, 0o555) };
            let mode = |path: &Path, mode| {
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            };
            mode(&data.join("ledger.sqlite3"), file);
            mode(&data, folder);
        }
    };
    allow(false);
    let err = refused(&setup);
    assert!(
        err.contains("ledger.sqlite3 cannot be read and written") && err.contains("Let the gateway's user"),
        "{err}"
    );
    allow(true);
    let gateway = setup.serve();
    assert_eq!(budget(&gateway)["own"], 20);
    dies_and_remembers(&simulator, &setup, gateway);
}

#[test]
fn a_file_that_cannot_be_trusted_is_refused_and_the_way_out_is_the_one_that_is_told() {
    let simulator = Simulator::start();
    let setup = setup(&simulator);
    let gateway = setup.serve();
    assert_eq!(spend(&gateway, 20).0, 20);
    gateway.process.signal(Signal::TERM);
    assert_eq!(gateway.process.ended().code, Some(0));
    let file = setup.path("data").join("ledger.sqlite3");
    let good = std::fs::read(&file).unwrap();

    let mut damaged = good.clone();
    // The head of the tables' first page: all that follows can no longer be found.
    damaged[4_096..4_096 + 64].fill(0xA5);
    // Its format is one of tomorrow.
    let mut newer = good.clone();
    newer[60..64].copy_from_slice(&9_u32.to_be_bytes());
    let cases: [(&[u8], &str); 3] = [
        (&damaged, "is damaged"),
        (&newer, "was written by a later version (format 9"),
        (b"name,amount\nnot,a,database\n", "is not a state file of this gateway"),
    ];
    for (bytes, reason) in cases {
        std::fs::write(&file, bytes).unwrap();
        let err = refused(&setup);
        assert!(err.contains(reason) && err.contains("move it and the files beside it"), "{err}");
        assert_eq!(std::fs::read(&file).unwrap(), bytes, "it is left as it was");
    }
    // As told: moved away, the gateway begins afresh, and learns from Salesforce's first word what was used.
    std::fs::rename(&file, setup.path("ledger.moved")).unwrap();
    let gateway = setup.serve();
    assert_eq!(spend(&gateway, 2 * CEILING).1, "org_allowance");
    let charged = charged(&simulator);
    assert!(charged <= CEILING, "{charged}");
    assert!(budget(&gateway)["dark"].as_u64().unwrap() >= 20);
}

#[test]
fn a_second_gateway_on_the_same_state_does_not_start_and_the_first_one_does_not_notice() {
    let simulator = Simulator::start();
    let setup = setup(&simulator);
    let gateway = setup.serve();
    assert_eq!(spend(&gateway, 20).0, 20);
    let err = refused(&setup);
    assert!(err.contains("is in use by another process") && err.contains("its own state.path"), "{err}");
    assert_eq!(spend(&gateway, 2 * CEILING), (CEILING - 20, "org_allowance".to_owned()));
    assert_eq!(charged(&simulator), CEILING);
}

#[test]
fn a_wall_clock_that_jumps_releases_nothing() {
    const DAY: i64 = 86_400;
    let (simulator, shim) = (Simulator::start(), Shim::new());
    let setup = setup(&simulator);
    let mut gateway = setup.serve_with(|command| shim.before(command));
    assert_eq!(spend(&gateway, CEILING).0, CEILING);
    for jump in [3 * DAY, -3 * DAY, 0] {
        shim.says(&format!("wall={jump}"));
        // It is told to the bank, and released, every second.
        std::thread::sleep(Duration::from_millis(1_200));
        assert_eq!(spend(&gateway, 1).1, "org_allowance", "after a jump by {jump} s");
    }
    // While it is down, the clock is set back or forward; the machine was up all the time, and knows better.
    for (jump, signal) in
        [(-2 * DAY, Signal::TERM), (-2 * DAY, Signal::KILL), (2 * DAY, Signal::KILL), (0, Signal::TERM)]
    {
        shim.says(&format!("wall={jump}"));
        gateway.process.signal(signal);
        let _ended = gateway.process.ended();
        gateway = setup.serve_with(|command| shim.before(command));
        assert_eq!(budget(&gateway)["own"], CEILING, "started with the clock off by {jump} s");
        assert_eq!(spend(&gateway, 1).1, "org_allowance", "started with the clock off by {jump} s");
    }
    assert_eq!(charged(&simulator), CEILING);
}
