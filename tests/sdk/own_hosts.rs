//! Clients whose log-in hosts are built in, such as `https://login.salesforce.com`: they run where those names, and port
//! 443, lead to this test. That takes a network and a mount namespace: as root, or as a user who may make user namespaces.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use tokio::net::{TcpStream, UnixListener};
use tokio::sync::oneshot;

use super::{Setup, script};

/// Where log-ins go.
pub const LOGIN: &str = "login.salesforce.com";
/// The org's own host.
pub const DOMAIN: &str = "acme.my.salesforce.com";
/// The simulator's control path, inside.
pub const CONTROL_PORT: u16 = 8_080;

/// How `unshare` makes the namespaces here.
fn unshare() -> Vec<&'static str> {
    let ways = [["--net", "--mount"].as_slice(), &["--user", "--map-root-user", "--net", "--mount"]];
    let mut said = String::new();
    for way in ways {
        match Command::new("unshare").args(way).arg("true").stdin(Stdio::null()).output() {
            Ok(done) if done.status.success() => return way.to_vec(),
            Ok(done) => said = String::from_utf8_lossy(&done.stderr).trim().to_owned(),
            Err(error) => said = error.to_string(),
        }
    }
    panic!("the suite of real clients needs network and mount namespaces, as the README says: {said}");
}

/// Ways out of the namespaces, open until dropped.
pub struct Doors {
    sockets: Vec<(u16, PathBuf)>,
    hosts: PathBuf,
    _end: oneshot::Sender<()>,
}

impl Doors {
    /// Each port inside leads to an address outside.
    pub fn open(setup: &Setup, to: &[(u16, SocketAddr)]) -> Self {
        let hosts = setup.path("hosts");
        std::fs::write(&hosts, format!("127.0.0.1 localhost {LOGIN} test.salesforce.com {DOMAIN}\n")).unwrap();
        let sockets: Vec<(u16, PathBuf)> =
            to.iter().map(|(port, _)| (*port, setup.path(&format!("{port}.sock")))).collect();
        let (end, ended) = oneshot::channel::<()>();
        let listeners: Vec<(std::os::unix::net::UnixListener, SocketAddr)> = sockets
            .iter()
            .zip(to)
            .map(|((_, path), (_, behind))| {
                let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
                listener.set_nonblocking(true).unwrap();
                (listener, *behind)
            })
            .collect();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                for (listener, behind) in listeners {
                    tokio::spawn(lead(UnixListener::from_std(listener).unwrap(), behind));
                }
                let _dropped = ended.await;
            });
        });
        Self { sockets, hosts, _end: end }
    }

    /// A Python client that runs inside.
    pub fn client(&self, python: &Path, name: &str) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(unshare())
            .args(["sh", "-c", "mount --bind \"$1\" /etc/hosts && shift && exec \"$@\"", "sh"])
            .args([&self.hosts, python, &script("door.py"), &script(name)])
            .args(self.sockets.iter().map(|(port, path)| format!("{port}={}", path.display())));
        command
    }
}

async fn lead(listener: UnixListener, behind: SocketAddr) {
    while let Ok((mut near, _)) = listener.accept().await {
        tokio::spawn(async move {
            // How a connection ends is the affair of its two ends.
            let Ok(mut far) = TcpStream::connect(behind).await else { return };
            let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
    }
}
