//! Promise: change the host, nothing else. Unmodified Salesforce clients get the same results from the simulated
//! Salesforce itself, through the gateway with a session of their own, and through its facade with nothing but a key.
//!
//! All three ways are TLS with a throw-away authority and start with the same new org. The clients are installed once,
//! as pinned beside their scripts in `tests/sdk/`, into `sdk/` of the target folder.

mod own_hosts;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use weirkeeper::clock::Clock;
use weirkeeper::config::key;

use self::own_hosts::{CONTROL_PORT, DOMAIN, Doors, LOGIN};
use crate::pki::Authority;
use crate::process::{Gateway, Setup, Simulator};
use crate::tools::Home;

/// The simulator's user that all three ways end up as.
const SESSION: &str = "00DWk0000000001MAA!integration";
/// A refresh token of the same user.
const REFRESH_TOKEN: &str = "5AepSuite.of.real.clients";
/// What servers of this suite are called.
const NAMES: &[&str] = &["localhost", LOGIN, DOMAIN];
/// Longer than any client takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(4);

/// Where the clients are installed.
struct Installed {
    python: PathBuf,
    modules: PathBuf,
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

/// Installs the clients, if they are not there as they are pinned now.
fn installed() -> Installed {
    let home = Home::new("sdk");
    let python = home.python(&script("requirements.txt"));
    Installed { python, modules: home.node(&script("")).join("node_modules") }
}

/// Speaks TLS for a server that does not, until dropped.
struct Front {
    address: SocketAddr,
    _end: oneshot::Sender<()>,
}

impl Front {
    /// Takes a port; `behind` tells later what stands behind it.
    fn new(authority: &Authority) -> (Self, oneshot::Sender<SocketAddr>) {
        let (chain, key) = authority.issue_for(NAMES).identity();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let ((end, ended), (tell, behind)) = (oneshot::channel(), oneshot::channel());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = relay(listener, TlsAcceptor::from(Arc::new(config)), behind) => {}
                    _ = ended => {}
                }
            });
        });
        (Self { address, _end: end }, tell)
    }
}

async fn relay(listener: tokio::net::TcpListener, tls: TlsAcceptor, behind: oneshot::Receiver<SocketAddr>) {
    let Ok(behind) = behind.await else { return };
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        let tls = tls.clone();
        connections.spawn(async move {
            // How a connection ends is the affair of its two ends.
            let (Ok(mut near), Ok(mut far)) = (tls.accept(socket).await, TcpStream::connect(behind).await) else {
                return;
            };
            let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// How a client reaches Salesforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Not through the gateway.
    Direct,
    /// Through the gateway, with a session of Salesforce.
    PassThrough,
    /// Through the gateway, with a key of the gateway.
    Facade,
}

/// What clients call the org.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Called {
    /// `localhost` and a port: they let themselves be pointed anywhere.
    Localhost,
    /// As at Salesforce, with a host of its own for log-ins.
    Domain,
}

/// A new org and what stands before it.
struct Surroundings {
    simulator: Simulator,
    front: Option<Front>,
    gateway: Option<Gateway>,
    doors: Option<Doors>,
    setup: Setup,
    key: String,
}

impl Surroundings {
    fn new(way: Way, called: Called) -> Self {
        let mut surroundings = Self::at(way, called);
        if called == Called::Domain {
            let to = [(443, surroundings.address()), (CONTROL_PORT, surroundings.simulator.address)];
            surroundings.doors = Some(Doors::open(&surroundings.setup, &to));
        }
        surroundings
    }

    fn at(way: Way, called: Called) -> Self {
        let authority = Authority::new("Clients of the suite");
        let key = key::generate().unwrap().to_string();
        let setup = Setup::written("");
        setup.write("ca.pem", &authority.pem());
        let org = |origin: String| {
            let instance = if origin.is_empty() { origin } else { format!("instance_url: '{origin}'\n") };
            let apps = format!("apps: [{{refresh_tokens: {{{REFRESH_TOKEN}: integration@sim.example}}}}]");
            setup.write("org.yaml", &format!("{instance}records: 450\nbulk_seconds: 0\n{apps}\n"));
            Simulator::with(&["--config", setup.path("org.yaml").to_str().unwrap()])
        };
        if way == Way::Direct {
            let (front, behind) = Front::new(&authority);
            let simulator = org(match called {
                Called::Localhost => format!("https://localhost:{}", front.address.port()),
                Called::Domain => format!("https://{DOMAIN}"),
            });
            behind.send(simulator.address).unwrap();
            return Self { simulator, front: Some(front), gateway: None, doors: None, setup, key };
        }
        let simulator = org(String::new());
        let leaf = authority.issue_for(NAMES);
        setup.write("tls.crt", &leaf.pem());
        setup.write("tls.key", &leaf.key_pem());
        setup.write("app.secret", "sim-app-secret");
        let origin = format!("http://{}", simulator.address);
        let auth = "  auth: {integration: {flow: client_credentials, client_id: 3MVGsim.app, client_secret: {file: app.secret}}}\n";
        let callers = format!(
            "callers:\n- {{name: shop, match: {{key_sha256: '{}'}}, act_as: integration}}\n- {{name: anyone, match: any}}\n",
            key::sha256_hex(&key)
        );
        let (auth, callers) = if way == Way::Facade { (auth, callers.as_str()) } else { ("", "") };
        let public = match called {
            Called::Localhost => String::new(),
            Called::Domain => format!("  public_url: 'https://{DOMAIN}'\n"),
        };
        let text = format!(
            "listeners: [{{address: 127.0.0.1:0, tls: {{certificate: tls.crt, key: tls.key}}}}]
admin: {{address: 127.0.0.1:0}}
runtimes: 1
orgs:
- name: prod
  instance_url: '{origin}'
  login_url: '{origin}'
  hosts: [localhost, {LOGIN}, {DOMAIN}]
{public}{auth}{callers}"
        );
        fs::write(&setup.config, text).unwrap();
        let gateway = setup.serve();
        Self { simulator, front: None, gateway: Some(gateway), doors: None, setup, key }
    }

    fn address(&self) -> SocketAddr {
        let front = self.front.as_ref().map(|front| front.address);
        front.or_else(|| self.gateway.as_ref().map(Gateway::address)).unwrap()
    }

    /// Where a client finds the org, and where what is scripted.
    fn urls(&self) -> (String, String) {
        if self.doors.is_some() {
            return (format!("https://{DOMAIN}"), format!("http://127.0.0.1:{CONTROL_PORT}/__sim/"));
        }
        (format!("https://localhost:{}", self.address().port()), format!("http://{}/__sim/", self.simulator.address))
    }

    /// Runs a client and returns what it found.
    fn run(&self, way: Way, mut client: Command) -> Value {
        let ca = self.setup.path("ca.pem");
        for name in ["REQUESTS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "SSL_CERT_FILE"] {
            client.env(name, &ca);
        }
        let (instance, control) = self.urls();
        let facade = way == Way::Facade;
        let pick = |brought, ours| if facade { ours } else { brought };
        client
            .env("INSTANCE_URL", instance)
            .env("CONTROL_URL", control)
            .env("API_VERSION", "62.0")
            .env("TOKEN", pick(SESSION, self.key.as_str()))
            .env("CLIENT_ID", pick("3MVGsim.app", "shop"))
            .env("CLIENT_SECRET", pick("sim-app-secret", &self.key))
            // In the password flow the gateway looks at the password; the app's own secret means nothing to it.
            .env("LOGIN_SECRET", pick("sim-app-secret", "as-it-was-before"))
            .env("LOGIN_NAME", pick("integration@sim.example", "shop"))
            .env("PASSWORD", pick("secret", &self.key))
            .env("REFRESH_TOKEN", pick(REFRESH_TOKEN, &self.key))
            .env("NO_PROXY", "localhost,127.0.0.1,.salesforce.com")
            .env("no_proxy", "localhost,127.0.0.1,.salesforce.com")
            // simple-salesforce orders the columns of its jobs by hash.
            .env("PYTHONHASHSEED", "0")
            .env("PYTHONDONTWRITEBYTECODE", "1");
        // Into files: pipes that nobody reads would stop the client.
        let (out, err) = (self.setup.path("out"), self.setup.path("err"));
        client.stdin(Stdio::null()).stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let mut child = match client.spawn() {
            Ok(child) => child,
            Err(error) => panic!("the suite of real clients needs {}: {error}", client.get_program().display()),
        };
        let clock = Clock::start();
        let end = clock.now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if clock.now() > end {
                let _ = child.kill();
                panic!("{way:?}: the client did not end");
            }
            thread::sleep(Duration::from_millis(50));
        };
        let said = fs::read_to_string(err).unwrap();
        assert!(status.success(), "{way:?}: {status}\n{said}");
        let text = fs::read_to_string(out).unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{way:?}: {error} in {text:?}\n{said}"))
    }

    /// What was logged shows no credential.
    fn keeps_secrets(&self) {
        let Some(gateway) = &self.gateway else { return };
        let logged = gateway.process.out.text() + &gateway.process.err.text();
        assert!(logged.contains("\"caller\""), "there is an access log");
        for secret in [&self.key, SESSION, REFRESH_TOKEN, "sim-app-secret"] {
            assert!(!logged.contains(secret), "a credential was logged");
        }
    }
}

/// Runs a client all three ways and returns what it found, each time the same.
fn same_all_ways(called: Called, client: impl Fn(&Surroundings) -> Command + Sync) -> Value {
    let run = &|way| {
        let surroundings = Surroundings::new(way, called);
        let found = surroundings.run(way, client(&surroundings));
        surroundings.keeps_secrets();
        found
    };
    // The clients mostly wait, so the three run side by side.
    let [direct, through @ ..] = thread::scope(|scope| {
        [Way::Direct, Way::PassThrough, Way::Facade]
            .map(|way| scope.spawn(move || run(way)))
            .map(|running| running.join().expect("this way ends well"))
    });
    for (way, found) in [Way::PassThrough, Way::Facade].into_iter().zip(through) {
        let (before, after) = (direct.as_object().unwrap(), found.as_object().unwrap());
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, value) in before {
            assert_eq!(value, &after[name], "{way:?}: {name} differs from what Salesforce itself gives");
        }
    }
    direct
}

fn python(name: &'static str) -> Value {
    let installed = installed();
    same_all_ways(Called::Localhost, |_| {
        let mut command = Command::new(&installed.python);
        command.arg(script(name));
        command
    })
}

/// The same for a client whose log-in host is built in.
fn python_with_own_hosts(name: &'static str) -> Value {
    let installed = installed();
    same_all_ways(Called::Domain, |surroundings| surroundings.doors.as_ref().unwrap().client(&installed.python, name))
}

#[test]
fn simple_salesforce() {
    let found = python("simple.py");
    assert_eq!(found["create"]["success"], true);
    assert_eq!((&found["read"]["Name"], &found["update"]), (&json!("Kontor & Söhne"), &json!(204)));
    assert_eq!(found["upsert"], json!([200, 201, 200]));
    assert_eq!(found["paging"]["pages"], json!([200, false, 200, false]));
    let all = &found["paging"]["all"];
    assert_eq!((&all[0], &all[1], &all[2]), (&json!(450), &json!(true), &json!(450)));
    assert_eq!(found["bulk2"]["insert"][0]["numberRecordsProcessed"], 4);
    assert_eq!(found["bulk1"]["delete"].as_array().unwrap().len(), 5);
    assert_eq!(found["errors"]["stale_session"][0], "SalesforceExpiredSession");
    assert_eq!(found["errors"]["limit"][0], "SalesforceRefusedRequest");
    assert_eq!(found["usage"], json!([100_000, true, true, true, "100000"]));
}

#[test]
fn simple_salesforce_logs_in() {
    let found = python_with_own_hosts("login.py");
    for how in [
        "soap",
        "soap_with_security_token",
        "soap_at_its_domain",
        "soap_for_an_organization",
        "password",
        "client_credentials",
    ] {
        let session = found[how].as_array().unwrap();
        assert_eq!((&session[0], &session[2]), (&json!(DOMAIN), &json!(how)), "{how}");
        assert_eq!((&session[3], &session[6]), (&json!(450), &json!(450)), "{how}");
    }
    assert_eq!(found["wrong"]["soap"][1], "INVALID_LOGIN");
    assert_eq!(found["wrong"]["password"][1], "invalid_grant");
    assert_eq!(found["wrong"]["client_credentials"][1], "invalid_client");
}

#[test]
fn tap_salesforce() {
    let found = python_with_own_hosts("tap.py");
    for api in ["rest", "bulk"] {
        let run = &found[api];
        assert_eq!(run["records"], json!({"Account": 450, "Contact": 450}), "{api}");
        assert_eq!(run["usage"], json!([true, true, true]), "{api}");
    }
    assert_eq!(found["over_quota"][0], 2);
    assert_eq!(found["wrong"][0], 1);
}

#[test]
fn aiosfstream() {
    let found = python_with_own_hosts("stream.py");
    for round in 0..3 {
        assert_eq!(found[format!("event_{round}")], json!([[round], true]));
    }
    assert_eq!(found["burst"], json!([10, 11, 12]));
    assert_eq!(found["replayed"], json!([0, 1, 2, 10, 11, 12]));
    assert_eq!(found["after_forgetting"], json!([0, 1, 2, 10, 11, 12, 20]));
    assert_eq!(found["instance"], "<url>");
}

#[test]
fn jsforce() {
    let installed = installed();
    let found = same_all_ways(Called::Localhost, |_| {
        let mut command = Command::new("node");
        command.arg(script("jsforce.cjs")).env("NODE_PATH", &installed.modules);
        command
    });
    assert_eq!(found["rows"]["create"]["success"], true);
    assert_eq!(found["paging"]["all"][0], 450);
    assert_eq!(found["errors"]["limit"][0], "REQUEST_LIMIT_EXCEEDED");
    for login in ["oauth", "soap", "credentials"] {
        let session = &found[login];
        assert_eq!((&session["stays"], &session["newToken"]), (&json!(true), &json!(true)), "{login}");
        assert_eq!(session["identity"][0], "integration@sim.example", "{login}");
        assert_eq!(session["afterIdling"], json!(vec![session["count"].clone(); 5]), "{login}");
    }
    assert_eq!(found["wrong"][0][0], "invalid_grant");
}

#[test]
fn salesforce_bulk() {
    let found = python("bulk1.py");
    assert_eq!(found["insert"].as_array().unwrap().len(), 4);
    assert_eq!((&found["job"], &found["whole"]), (&json!(["Closed", "Completed"]), &json!(455)));
    assert!(found["errors"]["stale"][2].as_str().unwrap().contains("InvalidSessionId"));
}

#[test]
fn cometd() {
    let found = python("cometd.py");
    for round in ["event_0", "event_1", "event_2"] {
        let (held, at_once) = (&found[round][0], &found[round][1]);
        assert_eq!((held, at_once), (&json!(true), &json!(true)), "{round}");
    }
    assert_eq!(found["unknown"][1][0]["error"], "403::Unknown client");
}

#[test]
fn curl() {
    let found = python("raw.py");
    assert_eq!(found["gzip"], json!([200, "gzip", true]));
    assert_eq!((&found["head"][0], &found["head"][2]), (&json!(200), &json!(0)));
    assert_eq!(found["not_modified"][0], 304);
}
