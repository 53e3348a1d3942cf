//! Promise: the page for operators works in a real browser: small and quick, without a complaint of the browser or of axe, in
//! light, dark and at a phone's width; orders are given by keyboard alone and keep the key to themselves; a restart of the
//! gateway is survived; ten thousand callers are no burden. Pictures of it are in `target/page`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use weirkeeper::clock::Clock;

use crate::blocking::{Client, ask};
use crate::process::{Process, Setup, Simulator, bearer, free_address};
use crate::redis::Redis;
use crate::tools::Home;

/// Bytes of the whole page, without its data.
const PAGE_BYTES: u64 = 100 * 1024;
/// Until the first paint.
const PAINT: u64 = 200;
/// The machine may be busy with other tests, which only ever delays a paint: one of so many loads must be below it.
const LOADS: usize = 50;

/// A browser, and who tells it what to do.
struct Browser {
    home: Home,
    driver: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Browser {
    /// Starts one; there is one at a time, for the sake of what is measured.
    fn start() -> Self {
        let home = Home::new("page");
        let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page");
        let (modules, chromium) = (home.node(&ours), home.browser());
        let mut driver = Command::new("node")
            .args([&ours.join("page.cjs"), &modules, &chromium])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (driver.stdin.take(), BufReader::new(driver.stdout.take().unwrap()));
        Self { home, driver, orders, answers }
    }

    /// Gives an order and returns what was answered.
    fn say(&mut self, order: &str, mut what: Value) -> Value {
        what["order"] = order.into();
        writeln!(self.orders.as_mut().unwrap(), "{what}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the browser ended during {order}"));
        assert!(answer["error"].is_null(), "{order} {what}: {}", answer["error"]);
        answer["said"].clone()
    }

    /// Opens a page in a tab of its own, and waits until its figures have come.
    fn open(&mut self, look: &str, page: SocketAddr) {
        self.say("open", json!({"look": look, "url": format!("http://{page}/")}));
        self.until("#link-words", "^Live$");
        self.until("#left-facts", "Level");
    }

    fn until(&mut self, selector: &str, matches: &str) -> String {
        self.say("until", json!({"selector": selector, "matches": matches})).as_str().unwrap().to_owned()
    }

    fn evaluate(&mut self, script: &str) -> Value {
        self.say("evaluate", json!({"script": script}))
    }

    fn press(&mut self, keys: &[&str]) {
        self.say("press", json!({"keys": keys}));
    }

    fn write(&mut self, text: &str) {
        self.say("type", json!({"text": text}));
    }

    /// Presses Tab until this has the focus.
    fn reach(&mut self, name: &str) {
        let mut passed = Vec::new();
        while passed.last().is_none_or(|last| last != name) {
            assert!(passed.len() < 60, "{name} cannot be reached: {passed:?}");
            self.press(&["Tab"]);
            passed.push(self.say("focused", json!({})).as_str().unwrap().to_owned());
        }
    }

    fn shot(&mut self, name: &str, whole: bool) {
        let file = self.home.path.join(name);
        self.say("shot", json!({"file": file, "whole": whole}));
    }

    /// Neither axe nor the browser objects to anything.
    fn is_content(&mut self, what: &str) {
        assert_eq!(self.say("axe", json!({})), json!([]), "{what}");
        assert_eq!(self.say("seen", json!({}))["complaints"], json!([]), "{what}");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The end of its orders is the end of the driver, and of the browser with it.
        self.orders.take();
        let clock = Clock::start();
        let end = clock.now() + Duration::from_secs(10);
        while clock.now() < end && matches!(self.driver.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// A demo, the address of its page, and the key for orders.
fn demo() -> (Process, SocketAddr, String) {
    let anywhere = ["--listen", "--listen-tls", "--admin", "--simulator"].map(|name| [name, "127.0.0.1:0"]).concat();
    let demo = Process::start(&[&["demo"], anywhere.as_slice()].concat());
    let after = |line: &str, name: &str| line.trim().strip_prefix(name).map(|rest| rest.trim().to_owned());
    let page = |line: &str| after(line, "operators ")?.strip_prefix("http://")?.split('/').next()?.parse().ok();
    let page = demo.out.find(page).expect("the demo says where its page is");
    let key =
        demo.out.find(|line| after(line, "operators' key")).expect("the demo says with which key orders are given");
    (demo, page, key)
}

#[test]
fn the_page_is_small_quick_and_readable_by_everybody() {
    let (_demo, page, key) = demo();
    let mut browser = Browser::start();
    for look in ["light", "dark", "phone"] {
        browser.open(look, page);
        browser.until("#callers", "storefront");
        browser.until("#recent", "forbidden");
        let seen = browser.say("seen", json!({}));
        assert!(seen["bytes"].as_u64().is_some_and(|bytes| (10_000..=PAGE_BYTES).contains(&bytes)), "{look}: {seen}");
        browser.is_content(look);
        let wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
        assert_eq!(wide, 0, "{look}: nothing is wider than the window");
        browser.shot(&format!("{look}.png"), true);
        browser.evaluate("document.querySelector('#config-details').open = true");
        let shown = browser.until("#config-text", "nightly-sync");
        assert!(!shown.contains(&key), "{shown}");
        browser.is_content(look);
    }

    let url = format!("http://{page}/");
    let mut paints: Vec<u64> = Vec::new();
    while paints.iter().all(|paint| *paint >= PAINT) {
        assert!(paints.len() < LOADS, "first paints, in ms: {paints:?}");
        let five = browser.say("paints", json!({"url": url, "loads": 5}));
        paints.extend(five.as_array().unwrap().iter().map(|paint| paint.as_u64().unwrap()));
    }
    println!("first paints, in ms: {paints:?}");
}

#[test]
fn a_caller_is_paused_by_keyboard_alone_and_the_key_stays_where_it_was_typed() {
    let (_demo, page, key) = demo();
    let mut browser = Browser::start();
    browser.open("light", page);
    browser.until("#callers", "billing");
    browser.reach("Pause billing");
    browser.press(&["Enter"]);
    assert_eq!(browser.until("#dialog-title", "."), "Pause billing?");
    assert_eq!(browser.say("focused", json!({})), "key");
    browser.write("not the key");
    browser.press(&["Enter"]);
    browser.until("#dialog-problem", "^This is not the admin key.$");
    // The browser itself reports the 401; nothing else may be amiss.
    assert_eq!(browser.say("axe", json!({})), json!([]));
    browser.shot("order.png", false);
    browser.press(&["Control+a"]);
    browser.write(&key);
    browser.press(&["Enter"]);
    browser.until("#toast", "^billing is paused.$");
    browser.until("#concerns", "billing is paused.");
    browser.until("#callers", "billing *paused");
    assert_eq!(browser.say("focused", json!({})), "Resume billing", "the focus is where it was");

    // From now on no key is asked for; without a confirmation nothing happens.
    browser.press(&["Enter"]);
    assert_eq!(browser.until("#dialog-title", "^Resume"), "Resume billing?");
    browser.press(&["Escape"]);
    browser.press(&["Enter", "Tab", "Enter"]);
    browser.until("#toast", "^billing is resumed.$");

    let kept = browser.evaluate(
        "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href, history.state, \
         document.documentElement.outerHTML, document.querySelector('#key').value, \
         performance.getEntries().map((entry) => entry.name)])",
    );
    assert!(!kept.as_str().unwrap().contains(&key), "{kept}");
    let kept: Value = serde_json::from_str(kept.as_str().unwrap()).unwrap();
    assert_eq!((&kept[0], &kept[1], &kept[2]), (&json!({}), &json!({}), &json!("")));
}

#[test]
fn breakers_are_opened_and_closed_by_keyboard_alone() {
    let (_demo, page, key) = demo();
    let mut browser = Browser::start();
    browser.open("light", page);
    browser.until("#upstream-facts", "May be repeated *[0-9]+ of [0-9]+ failed calls");
    assert_eq!(browser.until("#breakers-words", "."), "All APIs are let through.");
    browser.reach("breaker");
    browser.press(&["Enter"]);
    browser.until("#dialog-title", "^Hold calls back or let them pass$");
    assert_eq!(browser.say("focused", json!({})), "order-switch");
    // The API by its first letters, the time by one step down.
    browser.press(&["Tab"]);
    browser.write("query");
    browser.press(&["Tab", "ArrowDown", "Tab"]);
    assert_eq!(browser.say("focused", json!({})), "key");
    browser.write("not the key");
    browser.press(&["Enter"]);
    browser.until("#dialog-problem", "^This is not the admin key.$");
    assert_eq!(browser.until("#breakers-words", "."), "All APIs are let through.");
    assert_eq!(browser.say("axe", json!({})), json!([]));
    browser.shot("breaker-order.png", false);
    browser.press(&["Control+a"]);
    browser.write(&key);
    browser.press(&["Enter"]);
    browser.until("#toast", "^Calls to query are held back.$");
    browser.until("#breakers-words", "because an operator ordered it");
    browser.until("#breakers-list", "query: held back, next try in 1[45] min");
    browser.until("#concerns", "Calls to the API query are held back.");
    browser.until("#recent", "Refused: circuit open");
    assert_eq!(browser.say("axe", json!({})), json!([]));
    for look in ["phone", "dark", "light"] {
        browser.open(look, page);
        browser.until("#breakers-list", "query: held back");
        browser.is_content(look);
        let wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
        assert_eq!(wide, 0, "{look}: nothing is wider than the window");
        browser.shot(&format!("breaker-{look}.png"), true);
    }

    browser.reach("Let pass calls to query");
    browser.press(&["Enter"]);
    browser.until("#dialog-title", "^Let calls to query pass.$");
    browser.write(&key);
    browser.press(&["Enter"]);
    browser.until("#toast", "^Calls to query pass.$");
    browser.until("#breakers-words", "^All APIs are let through.");
    browser.until("#breakers-list", "query: let through, was open 1 time");
}

#[test]
fn the_page_says_that_the_gateway_is_gone_and_comes_back_with_it() {
    let simulator = Simulator::start();
    let page = free_address();
    let setup = Setup::written(&format!(
        "listeners: [{{address: 127.0.0.1:0}}]\nadmin: {{address: '{page}'}}\nruntimes: 1\nlimits: {{drain: 1s}}\n\
         orgs: [{{name: prod, instance_url: 'http://{}'}}]\ncallers: [{{name: shop, match: any}}]\n",
        simulator.address
    ));
    let first = setup.serve();
    let mut browser = Browser::start();
    browser.open("light", page);
    first.process.signal(Signal::KILL);
    let _killed = first.process.ended();
    let said = browser.until("#link-words", "Not connected");
    assert!(said.contains("Figures are"), "{said}");
    browser.shot("gone.png", false);
    let second = setup.serve();
    second.get("/services/data/v62.0/limits").unwrap();
    browser.until("#link-words", "^Live$");
    browser.until("#callers", "shop");
    browser.until("#about", "up for [0-9]+ s");
}

#[test]
fn replicas_are_listed_where_they_share_state_and_a_lost_store_is_said() {
    let (simulator, mut redis) = (Simulator::start(), Redis::start());
    let setup = Setup::written(&format!(
        "listeners: [{{address: 127.0.0.1:0}}]\nadmin: {{address: 127.0.0.1:0}}\nruntimes: 1\n\
         orgs: [{{name: prod, instance_url: 'http://{}'}}]\ncallers: [{{name: shop, match: any}}]\n\
         state: {{redis: {{url: {{file: redis.url}}, keys: [{{file: redis.key}}]}}}}\n",
        simulator.address
    ));
    setup.write("redis.url", &redis.url());
    setup.write("redis.key", "0123456789abcdef0123456789abcdef");
    let gateways = ["gateway-a", "gateway-b"].map(|name| {
        setup.serve_with(|command| {
            command.env("HOSTNAME", name);
        })
    });
    let mut browser = Browser::start();
    for look in ["phone", "dark", "light"] {
        browser.open(look, gateways[0].admin);
        browser.until("#replicas-words", "^2 replicas. The store they share has answered for ");
        browser.until("#replicas-list", "gateway-a .this one.[^]*gateway-b");
        browser.is_content(look);
        let wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
        assert_eq!(wide, 0, "{look}: nothing is wider than the window");
        browser.shot(&format!("replicas-{look}.png"), true);
    }
    redis.kill();
    browser.until("#replicas-words", "has not answered for .*: each goes on as on_loss says, safe share.");
    browser.until("#concerns", "Something is missing: store: degraded");
    browser.is_content("without the store");
}

#[test]
fn from_afar_the_page_asks_for_the_key_before_it_shows_anything() {
    let simulator = Simulator::start();
    let key = weirkeeper::config::key::generate().unwrap();
    let setup = Setup::written(&format!(
        "listeners: [{{address: 127.0.0.1:0}}]\nadmin: {{address: '0.0.0.0:0', key_sha256: {}}}\nruntimes: 1\n\
         orgs: [{{name: prod, instance_url: 'http://{}'}}]\ncallers: [{{name: shop, match: any}}]\n",
        weirkeeper::config::key::sha256_hex(&key),
        simulator.address
    ));
    let gateway = setup.serve();
    let page = SocketAddr::from(([127, 0, 0, 1], gateway.admin.port()));
    let mut browser = Browser::start();
    browser.say("open", json!({"look": "light", "url": format!("http://{page}/")}));
    assert_eq!(browser.until("#dialog-title", "."), "Admin key");
    assert_eq!(browser.until("#link-words", "key"), "Needs the admin key");
    browser.write(&key);
    browser.press(&["Enter"]);
    browser.until("#link-words", "^Live$");
    browser.until("#callers", "shop");
}

#[test]
fn ten_thousand_callers_are_no_burden() {
    let simulator = Simulator::start();
    let callers: String = (0..10_000)
        .map(|number| format!("- {{name: app-{number}, match: {{call_options_client: app-{number}}}}}\n"))
        .collect();
    let setup = Setup::written(&format!(
        "listeners: [{{address: 127.0.0.1:0}}]\nadmin: {{address: 127.0.0.1:0}}\nruntimes: 1\n\
         orgs: [{{name: prod, instance_url: 'http://{}'}}]\ncallers:\n{callers}",
        simulator.address
    ));
    let gateway = setup.serve();
    let token = bearer();
    for number in (0..10_000).step_by(50) {
        let client = format!("client=app-{number}");
        let headers = [("authorization", token.as_str()), ("sforce-call-options", &client)];
        let query = "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+LIMIT+1";
        let answer = ask(gateway.address(), "GET", query, &headers, b"").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let mut viewer = Client::plain(gateway.admin).unwrap();
    viewer.send("GET", "/api/v1/live", &[], b"").unwrap();
    let event = viewer.read_until("\n\n\r\n").unwrap();
    assert!(event.len() < 64 * 1024, "{}", event.len());

    let mut browser = Browser::start();
    browser.open("light", gateway.admin);
    browser.until("#callers", "All 9,960 others");
    browser.until("#spending-words", "^200 calls");
    assert_eq!(browser.evaluate("document.querySelectorAll('#callers tbody tr').length"), 41);
    // A browser that has to wait for a picture has one at most every so often.
    let slow = browser.evaluate(
        "new Promise((done) => { const seen = []; new PerformanceObserver((list) => seen.push(...list.getEntries()))\
         .observe({entryTypes: ['longtask']}); setTimeout(() => done(Math.max(0, ...seen.map((task) => task.duration))), 7000); })",
    );
    assert!(slow.as_f64().unwrap() < 1_000.0, "a picture took {slow} ms");
    browser.is_content("ten thousand callers");
    browser.shot("many.png", true);
}

/// Where a browser is that can be steered: on the path, or, for root, installed.
impl Home {
    fn browser(&self) -> PathBuf {
        let known = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome"];
        if let Some(found) = known.into_iter().find_map(crate::tools::on_path) {
            return found;
        }
        assert!(rustix::process::getuid().is_root(), "the tests need Chromium: apt-get install chromium");
        let install = ["install", "--yes", "--quiet", "--no-install-recommends", "chromium", "fonts-dejavu-core"];
        for arguments in [["update"].as_slice(), &install] {
            crate::tools::prepare(Path::new("apt-get"), arguments, &self.path);
        }
        crate::tools::on_path("chromium").expect("chromium is on the path once it is installed")
    }
}
