//! Promise: on a busy day a third of the calls are not made, and where nobody writes more than half of them.
//!
//! The day is made of chance with a seed, in virtual time: six principals, four of whom are one identity of the gateway's,
//! read and change 50,000 records of three objects. Each answer is booked by the way it came. `cargo bench --bench day` spends
//! longer days, at other rates and with other tastes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{Instant, sleep_until};
use weirkeeper::edge::Connection;
use weirkeeper::sim::{SimConfig, SimDaily, SimUser};

use crate::client::{Answer, Client, encoded};
use crate::world::{ORIGIN, World, small};

/// Records of all three objects.
const RECORDS: usize = 50_000;
/// Who asks. The first four act as one identity.
const CALLERS: usize = 6;
/// How long an answer is fresh.
const FRESH: Duration = Duration::from_secs(60);
/// Different queries of people and apps.
const SHAPES: usize = 200;
/// Different queries of pollers, and how often each poller asks its own.
const POLLED: usize = 20;
const POLL_EVERY: Duration = Duration::from_secs(5);
/// How often a page is opened that lists so many rows and reads each.
const PAGE_EVERY: Duration = Duration::from_secs(10);
const PAGE_ROWS: usize = 50;
/// Shares of all requests.
const ROWS: f64 = 0.70;
const QUERIES: f64 = 0.15;
const POLLS: f64 = 0.10;
/// How long Salesforce takes: at least, and so much more by chance, in milliseconds.
const LATENCY_MS: (u64, u64) = (80, 120);

/// An object, and a field of it that is written.
pub type Written = (&'static str, &'static str);
/// Objects that have nothing to do with each other.
const APART: [Written; 3] = [("Lead", "Company"), ("Product2", "ProductCode"), ("Invoice__c", "Name")];

/// One day.
#[derive(Debug, Clone, Copy)]
pub struct Day {
    /// Where chance begins.
    pub seed: u64,
    /// Requests per second, pages apart.
    pub per_second: u32,
    /// Zipf's exponent: how much more often the first record is wanted than the others.
    pub exponent: f64,
    /// Share of the requests that write.
    pub writes: f64,
    /// How long it is.
    pub length: Duration,
    /// What it is about.
    pub objects: [Written; 3],
}

impl Default for Day {
    fn default() -> Self {
        Self {
            seed: 20_261_122,
            per_second: 100,
            exponent: 1.0,
            writes: 0.05,
            length: Duration::from_mins(3),
            objects: APART,
        }
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Row,
    Query,
    Poll,
    Page,
    Write,
}

/// How it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Memory,
    Unchanged,
    Joined,
    First,
    Aged,
    Changed,
    Changing,
    Written,
    Other,
}

const WANTED: [(Wanted, &str); 5] = [
    (Wanted::Row, "rows"),
    (Wanted::Query, "queries"),
    (Wanted::Poll, "polls"),
    (Wanted::Page, "page"),
    (Wanted::Write, "writes"),
];
const CAME: [(Came, &str); 9] = [
    (Came::Memory, "from memory"),
    (Came::Unchanged, "from memory, 304"),
    (Came::Joined, "joined a flight"),
    (Came::First, "asked: not kept before"),
    (Came::Aged, "asked: older than 60 s"),
    (Came::Changed, "asked: written to since"),
    (Came::Changing, "asked: being written to"),
    (Came::Written, "writes"),
    (Came::Other, "asked: not kept at all"),
];
/// Of those, the ones for which nothing was asked.
const SAVED: usize = 3;

/// How all requests of a day were answered.
#[derive(Debug, Default)]
pub struct Book {
    counts: [[u64; CAME.len()]; WANTED.len()],
    /// Calls by Salesforce's own count.
    pub paid: u64,
}

impl Book {
    fn add(&mut self, wanted: Wanted, came: Came) {
        self.counts[wanted as usize][came as usize] += 1;
    }

    /// Calls it would have been without the gateway: one for each request.
    pub fn direct(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    /// What is paid of that.
    pub fn share(&self) -> f64 {
        self.paid as f64 / self.direct() as f64
    }

    /// The share of requests that came in one way.
    pub fn by(&self, way: usize) -> f64 {
        self.counts.iter().map(|counts| counts[way]).sum::<u64>() as f64 / self.direct() as f64
    }

    /// Prints the day; it has to agree with Salesforce's own count, and to cost at most so much of its calls.
    pub fn expect_at_most(&self, day: &Day, share: f64) {
        println!("{day:?}\n");
        self.print();
        let asked = self.counts.iter().map(|counts| counts[SAVED..].iter().sum::<u64>());
        assert_eq!(self.paid, asked.sum::<u64>(), "what was asked is what was paid");
        assert!((0..SAVED).all(|way| self.by(way) > 0.0), "{self:?}");
        assert!(self.share() <= share, "{:.1} % of the calls were made", self.share() * 100.0);
    }

    /// Rows for people, in Markdown.
    fn print(&self) {
        let cells = |name: &str, of: &dyn Fn(usize) -> u64| {
            let all: u64 = (0..WANTED.len()).map(of).sum();
            let each: String = (0..WANTED.len()).map(|wanted| format!(" {:>8} |", of(wanted))).collect();
            println!("| {name:<24} |{each} {all:>8} | {:>5.1} % |", all as f64 * 100.0 / self.direct() as f64);
        };
        let names: String = WANTED.iter().map(|(_, name)| format!(" {name:>8} |")).collect();
        println!("| {:<24} |{names} {:>8} | {:>7} |", "requests by how answered", "all", "share");
        println!("|{:-<26}|{}", "", "---------:|".repeat(WANTED.len() + 2));
        for (came, name) in CAME {
            cells(name, &|wanted| self.counts[wanted][came as usize]);
        }
        cells("calls without gateway", &|wanted| self.counts[wanted].iter().sum());
        cells("calls made", &|wanted| self.counts[wanted].iter().skip(SAVED).sum());
    }
}

/// Chooses among things of which the first is wanted most.
struct Zipf(Arc<[f64]>);

impl Zipf {
    fn new(count: usize, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=count).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self(sums.collect())
    }

    fn choose(&self, rng: &mut fastrand::Rng) -> usize {
        let most = self.0.last().copied().unwrap_or_default();
        let point = rng.f64() * most;
        self.0.partition_point(|sum| *sum <= point).min(self.0.len() - 1)
    }
}

/// What all requests share.
struct Office {
    book: Mutex<Book>,
    /// By principal and target: when an answer was last kept, as far as anybody can tell from outside.
    kept: Mutex<HashMap<(usize, Arc<str>), Instant>>,
    /// What a caller that has a memory of its own knows: `Last-Modified` by target.
    dated: Mutex<HashMap<Arc<str>, String>>,
    /// Connections by caller.
    clients: [Mutex<Vec<Client>>; CALLERS],
}

/// Of the four that are one identity, the one that has a memory of its own, and asks whether a row has changed.
const REMEMBERS: usize = 3;

fn principal(caller: usize) -> usize {
    caller.saturating_sub(3)
}

impl Office {
    async fn ask(&self, caller: usize, wanted: Wanted, target: Arc<str>) {
        let mut headers = vec![("accept-encoding", "gzip".to_owned())];
        let remembers = caller == REMEMBERS && wanted == Wanted::Row;
        if remembers && let Some(date) = self.dated.lock().get(&target) {
            headers.push(("if-modified-since", date.clone()));
        }
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let client = self.clients[caller].lock().pop();
        let mut client = client.expect("more requests at once than anybody makes");
        let answer = client.send("GET", &target, &headers, "").await;
        self.clients[caller].lock().push(client);
        assert!(matches!(answer.code(), 200 | 304), "{target}: {} {}", answer.code(), answer.text());
        if remembers && answer.code() == 200 {
            self.dated.lock().insert(Arc::clone(&target), answer.header("last-modified").to_owned());
        }
        let came = self.came(principal(caller), &target, &answer);
        self.book.lock().add(wanted, came);
    }

    fn came(&self, principal: usize, target: &Arc<str>, answer: &Response<Bytes>) -> Came {
        let status = answer.header("cache-status");
        let mut kept = self.kept.lock();
        let known = kept.get(&(principal, Arc::clone(target))).copied();
        if status.ends_with("stored") {
            kept.insert((principal, Arc::clone(target)), Instant::now());
        }
        match (status, known) {
            (status, _) if status.starts_with("weirkeeper;hit") && answer.code() == 304 => Came::Unchanged,
            (status, _) if status.starts_with("weirkeeper;hit") => Came::Memory,
            ("weirkeeper;fwd=miss;collapsed", _) => Came::Joined,
            ("weirkeeper;fwd=miss;detail=changing", _) => Came::Changing,
            (status, None) if status.starts_with("weirkeeper;fwd=miss") => Came::First,
            (status, Some(at)) if status.starts_with("weirkeeper;fwd=miss") => {
                if at.elapsed() > FRESH {
                    Came::Aged
                } else {
                    Came::Changed
                }
            }
            _ => Came::Other,
        }
    }

    async fn write(&self, caller: usize, target: Arc<str>, field: &str, value: u64) {
        let client = self.clients[caller].lock().pop();
        let mut client = client.expect("more requests at once than anybody makes");
        let answer = client.patch(&target, &json!({field: format!("written {value}")})).await;
        self.clients[caller].lock().push(client);
        assert_eq!(answer.code(), 204, "{target}: {}", answer.text());
        self.book.lock().add(Wanted::Write, Came::Written);
    }
}

fn simulated(day: &Day) -> SimConfig {
    let share = |place: usize| RECORDS / 3 + usize::from(place < RECORDS % 3);
    let records_of = (0..3).map(|place| (day.objects[place].0.to_owned(), share(place)));
    SimConfig {
        records_of: records_of.collect(),
        users: ["admin", "integration", "desk"].map(SimUser::named).to_vec(),
        daily: SimDaily { limit: 1_000_000_000, overage: 0, ..SimDaily::default() },
        ..small()
    }
}

fn yaml(day: &Day) -> String {
    let names = day.objects.map(|(name, _)| name).join(", ");
    let apps: String = (0..4)
        .map(|app| format!("- {{name: app{app}, match: {{network: 192.0.2.{app}/32}}, act_as: integration}}\n"))
        .collect();
    format!(
        "orgs:
- name: prod
  instance_url: 'http://{ORIGIN}'
  hosts: [sf.internal]
  auth: {{integration: {{flow: client_credentials, client_id: 3MVGsim.app, client_secret: {{file: sim-app-secret.secret}}}}}}
callers:
{apps}- {{name: anyone, match: any}}
cache:
  entries: [{{match: {{objects: [{names}], operations: [read, query]}}, fresh: {}s}}]
",
        FRESH.as_secs()
    )
}

/// Where all records are, by object.
async fn records(world: &World, day: &Day) -> Vec<Vec<Arc<str>>> {
    let before = world.sim.counts().charged;
    let mut direct = world.direct();
    let mut all = Vec::new();
    for (object, _) in day.objects {
        let mut found = Vec::new();
        let mut page = direct.query(&format!("SELECT Id FROM {object} ORDER BY Id")).await.json();
        loop {
            let rows = page["records"].as_array().expect("rows");
            found.extend(rows.iter().map(|row| {
                let id = row["Id"].as_str().expect("an id");
                Arc::from(format!("/services/data/v62.0/sobjects/{object}/{id}"))
            }));
            let Some(next) = page["nextRecordsUrl"].as_str().map(str::to_owned) else { break };
            page = direct.get(&next).await.json();
        }
        all.push(found);
    }
    world.counts_more(-i64::try_from(world.sim.counts().charged - before).expect("few calls"));
    all
}

fn query(soql: &str) -> Arc<str> {
    format!("/services/data/v62.0/query?q={}", encoded(soql)).into()
}

/// Spends a day, and hands back the world as it is then.
pub async fn spend(day: Day) -> (Book, World) {
    let world = World::with(simulated(&day), &yaml(&day));
    let mut rng = fastrand::Rng::with_seed(day.seed);
    let by_object = records(&world, &day).await;
    let mut ranked: Vec<(usize, Arc<str>)> = by_object
        .iter()
        .enumerate()
        .flat_map(|(place, all)| all.iter().map(move |url| (place, Arc::clone(url))))
        .collect();
    assert_eq!(ranked.len(), RECORDS);
    rng.shuffle(&mut ranked);
    world.sim.script().latency(LATENCY_MS.0, LATENCY_MS.1);

    let at_once = 20 + day.per_second as usize;
    let clients = std::array::from_fn(|caller| {
        let address = [192, 0, 2, caller as u8];
        let client = || {
            let client = world.client_on(move || Connection::new((address, 40_000).into(), 0));
            match caller {
                4 => client.user("admin"),
                5 => client.user("desk"),
                _ => client.without("authorization"),
            }
        };
        Mutex::new((0..at_once).map(|_| client()).collect())
    });
    let office = Arc::new(Office { book: Mutex::default(), kept: Mutex::default(), dated: Mutex::default(), clients });
    // Who the identity is, is known from its first log-in on.
    office.ask(0, Wanted::Query, query("SELECT Id FROM Lead LIMIT 1")).await;
    *office.book.lock() = Book::default();
    world.settle().await;
    let charged = world.sim.counts().charged;
    let start = Instant::now();
    let end = start + day.length;

    let mut tasks = Vec::new();
    let pollers = (f64::from(day.per_second) * POLLS * POLL_EVERY.as_secs_f64()).round() as usize;
    for poller in 0..pollers {
        let (object, _) = day.objects[poller % POLLED % 3];
        let target = query(&format!("SELECT Id, LastModifiedDate FROM {object} LIMIT {}", 5 + poller % POLLED));
        let (caller, office) = (rng.usize(..CALLERS), Arc::clone(&office));
        let mut next = start + POLL_EVERY.mul_f64(rng.f64());
        tasks.push(world.beside(async move {
            while next < end {
                sleep_until(next).await;
                office.ask(caller, Wanted::Poll, Arc::clone(&target)).await;
                next += POLL_EVERY;
            }
        }));
    }
    let list = query(&format!("SELECT Id, Name FROM {} ORDER BY Id LIMIT {PAGE_ROWS}", day.objects[0].0));
    let page: Vec<Arc<str>> = by_object[0].iter().take(PAGE_ROWS).cloned().collect();
    let (opened, mut chance) = (Arc::clone(&office), rng.fork());
    tasks.push(world.beside(async move {
        let mut next = start + PAGE_EVERY.mul_f64(chance.f64());
        while next < end {
            sleep_until(next).await;
            let caller = chance.usize(..CALLERS);
            opened.ask(caller, Wanted::Page, Arc::clone(&list)).await;
            for row in &page {
                opened.ask(caller, Wanted::Page, Arc::clone(row)).await;
            }
            next += PAGE_EVERY;
        }
    }));

    let shapes: Vec<Arc<str>> = (0..SHAPES)
        .map(|shape| {
            let (object, field) = day.objects[shape % 3];
            query(&format!("SELECT Id, {field} FROM {object} WHERE {field} != null LIMIT {}", 1 + shape / 3))
        })
        .collect();
    let (rows, queries) = (Zipf::new(RECORDS, day.exponent), Zipf::new(SHAPES, day.exponent));
    let mut next = start;
    let mut number = 0;
    loop {
        // One after the other by chance, as those do who know nothing of each other.
        let rate = f64::from(day.per_second) * (ROWS + QUERIES + day.writes);
        next += Duration::from_secs_f64(-(1.0 - rng.f64()).ln() / rate);
        if next >= end {
            break;
        }
        sleep_until(next).await;
        number += 1;
        let (caller, which) = (rng.usize(..CALLERS), rng.f64() * (ROWS + QUERIES + day.writes));
        let office = Arc::clone(&office);
        if which < QUERIES {
            let target = Arc::clone(&shapes[queries.choose(&mut rng)]);
            tasks.push(world.beside(async move { office.ask(caller, Wanted::Query, target).await }));
        } else {
            let (object, target) = ranked[rows.choose(&mut rng)].clone();
            if which < QUERIES + day.writes {
                let field = day.objects[object].1;
                tasks.push(world.beside(async move { office.write(caller, target, field, number).await }));
            } else {
                tasks.push(world.beside(async move { office.ask(caller, Wanted::Row, target).await }));
            }
        }
        if tasks.len() > 10_000 {
            tasks.retain(|task| !task.is_finished());
        }
    }
    for task in tasks {
        task.await.expect("a request ends well");
    }
    let mut book = std::mem::take(&mut *office.book.lock());
    book.paid = world.sim.counts().charged - charged;
    (book, world)
}

#[tokio::test(start_paused = true)]
async fn a_third_of_the_calls_of_a_busy_day_are_not_made() {
    // A query is asked again after any write to its object, and there are some each second.
    let day = Day::default();
    let (book, world) = spend(day).await;
    book.expect_at_most(&day, 0.68);
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn half_of_the_calls_are_not_made_where_nobody_writes() {
    let day = Day { writes: 0.0, ..Day::default() };
    let (book, world) = spend(day).await;
    book.expect_at_most(&day, 0.5);
    world.close().await;
}
