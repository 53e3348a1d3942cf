//! Who spends inside the caller that everybody is whom nothing else matches, and how many Bulk batches an org made: what an
//! org's ledger does not know, over about a day, in bounded memory, forgotten with the process.

use std::collections::{BTreeMap, VecDeque};
use std::hash::Hash;

use parking_lot::Mutex;
use serde::Serialize;
use smol_str::SmolStr;

use super::heavy::{Heavy, Use};
use super::labels;
use crate::admission::Minute;
use crate::admission::ring::Ring;

/// Clients kept in each pane: whoever made a sixty-fourth of the calls in it is among them.
const PLACES: usize = 64;
/// Minutes of a pane.
const PANE_MINUTES: u32 = 4 * 60;
/// Panes kept, the running one included: together more than 20 hours and at most 24.
const PANES: usize = 6;
/// Longest name kept; longer ones are never shown.
const LONGEST: usize = 64;
const OTHER: &str = "other";
const NONE: &str = "none";
/// Clients shown of each kind.
const SHOWN: usize = 20;
/// Bulk batches an org may make in 24 hours (facts 1.9).
const BULK_BATCHES: u64 = 15_000;

/// What one org's unnamed clients spent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TopClients {
    /// By the client name in `Sforce-Call-Options`.
    pub by_client: Vec<TopClient>,
    /// By the product in `User-Agent`.
    pub by_user_agent: Vec<TopClient>,
    /// By principal: the first digits of its hash, as in the log.
    pub by_principal: Vec<TopClient>,
}

/// One of them. The true number lies between the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopClient {
    /// How it calls itself.
    pub name: String,
    /// API calls in the last 20 to 24 hours, at most.
    pub calls: u64,
    /// The same, at least.
    pub at_least: u64,
}

/// An org's Bulk batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct BulkBatches {
    /// Made through this process in the trailing 24 hours.
    pub used: u64,
    /// What Salesforce allows an org, whoever makes them.
    pub limit: u64,
}

/// One client, as far as it can be told from others. What it calls itself is not yet fit to be shown.
pub(super) struct Client<'a> {
    pub(super) name: &'a str,
    pub(super) agent: &'a str,
    pub(super) principal: [u8; 4],
}

/// What one org's spenders did.
#[derive(Debug, Default)]
pub(super) struct Spenders {
    panes: Mutex<VecDeque<Pane>>,
    batches: Mutex<Option<Ring>>,
}

/// A few hours.
#[derive(Debug)]
struct Pane {
    number: u32,
    clients: Heavy<SmolStr>,
    agents: Heavy<SmolStr>,
    principals: Heavy<[u8; 4]>,
}

impl Spenders {
    /// `client` spent `calls` in `now`.
    pub(super) fn spent(&self, client: &Client<'_>, calls: u64, now: Minute) {
        let number = now.0 / PANE_MINUTES;
        let mut panes = self.panes.lock();
        if panes.back().is_none_or(|pane| pane.number < number) {
            panes.push_back(Pane::new(number));
            while panes.front().is_some_and(|pane| is_over(pane.number, number)) {
                panes.pop_front();
            }
        }
        // What ends a little late counts where we are.
        if let Some(pane) = panes.back_mut() {
            pane.clients.add(bounded(client.name), calls);
            pane.agents.add(bounded(client.agent), calls);
            pane.principals.add(client.principal, calls);
        }
    }

    /// `batches` were made in `now`.
    pub(super) fn made(&self, batches: u32, now: Minute) {
        let mut ring = self.batches.lock();
        let ring = ring.get_or_insert_with(|| Ring::new(now));
        ring.extend(now);
        ring.add(now, batches);
    }

    /// The largest spenders at `now`.
    pub(super) fn top(&self, now: Minute) -> TopClients {
        let panes = self.panes.lock();
        let running = || panes.iter().filter(|pane| !is_over(pane.number, now.0 / PANE_MINUTES));
        let principal = |hash: &[u8; 4]| match hash {
            [0, 0, 0, 0] => NONE.to_owned(),
            [a, b, c, d] => format!("{a:02x}{b:02x}{c:02x}{d:02x}"),
        };
        TopClients {
            by_client: largest(running().map(|pane| &pane.clients), |name| shown(name)),
            by_user_agent: largest(running().map(|pane| &pane.agents), |name| shown(name)),
            by_principal: largest(running().map(|pane| &pane.principals), principal),
        }
    }

    /// The Bulk batches at `now`.
    pub(super) fn batches(&self, now: Minute) -> BulkBatches {
        let used = self.batches.lock().as_mut().map_or(0, |ring| {
            ring.release(now);
            ring.sum()
        });
        BulkBatches { used, limit: BULK_BATCHES }
    }
}

impl Pane {
    fn new(number: u32) -> Self {
        Self { number, clients: Heavy::new(PLACES), agents: Heavy::new(PLACES), principals: Heavy::new(PLACES) }
    }
}

/// Whether all of a pane is longer ago than a day.
fn is_over(pane: u32, running: u32) -> bool {
    (pane as usize) + PANES <= running as usize
}

/// What a client calls itself, as it is kept: not yet fit to be shown, but of bounded length.
fn bounded(name: &str) -> SmolStr {
    if name.len() <= LONGEST { name.into() } else { SmolStr::new_static(OTHER) }
}

/// The same as it may be shown.
fn shown(name: &str) -> String {
    if name.is_empty() { NONE } else { labels::client(name) }.to_owned()
}

/// The largest of several panes together, the largest first.
fn largest<'a, K: Clone + Eq + Hash + 'a>(
    panes: impl Iterator<Item = &'a Heavy<K>>,
    name: impl Fn(&K) -> String,
) -> Vec<TopClient> {
    let mut all = BTreeMap::<String, (u64, u64)>::new();
    for Use { key, most, over } in panes.flat_map(Heavy::kept) {
        let (calls, at_least) = all.entry(name(key)).or_default();
        *calls += most;
        *at_least += most - over;
    }
    let one = |(name, (calls, at_least))| TopClient { name, calls, at_least };
    let mut largest: Vec<_> = all.into_iter().map(one).collect();
    largest.sort_by(|one, other| other.calls.cmp(&one.calls).then_with(|| one.name.cmp(&other.name)));
    largest.truncate(SHOWN);
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client<'a>(name: &'a str, agent: &'a str, principal: u8) -> Client<'a> {
        Client { name, agent, principal: [principal; 4] }
    }

    #[test]
    fn each_kind_has_its_own_order() {
        let spenders = Spenders::default();
        let now = Minute(1_000_000);
        spenders.spent(&client("loader", "Java", 1), 10, now);
        spenders.spent(&client("loader", "python-requests", 2), 1, now);
        spenders.spent(&client("", "python-requests", 0), 30, now);
        let top = spenders.top(now);
        let names = |list: &[TopClient]| list.iter().map(|one| (one.name.clone(), one.calls)).collect::<Vec<_>>();
        assert_eq!(names(&top.by_client), [("none".to_owned(), 30), ("loader".to_owned(), 11)]);
        assert_eq!(names(&top.by_user_agent), [("python-requests".to_owned(), 31), ("Java".to_owned(), 10)]);
        let principals = [("none".to_owned(), 30), ("01010101".to_owned(), 10), ("02020202".to_owned(), 1)];
        assert_eq!(names(&top.by_principal), principals);
    }

    #[test]
    fn a_name_that_could_be_a_secret_is_other_and_a_long_one_takes_no_room() {
        let spenders = Spenders::default();
        let now = Minute(1_000_000);
        for name in ["00D5g000004CANARY!AQ4AQ", "a0B5g00000XyzAb", &"x".repeat(10_000)] {
            spenders.spent(&client(name, "x", 1), 1, now);
        }
        let other = TopClient { name: OTHER.to_owned(), calls: 3, at_least: 3 };
        assert_eq!(spenders.top(now).by_client, [other]);
        assert!(spenders.panes.lock()[0].clients.kept().iter().all(|kept| kept.key.len() <= LONGEST));
    }

    #[test]
    fn what_is_a_day_ago_is_forgotten_and_nothing_younger_than_20_hours() {
        let spenders = Spenders::default();
        let start = 5 * PANE_MINUTES;
        for hour in 0..30 {
            spenders.spent(&client(&format!("at-{hour:02}"), "x", 1), 1, Minute(start + hour * 60));
            let now = Minute(start + hour * 60 + 59);
            let known = spenders.top(now).by_client;
            let at = |ago: u32| {
                known.iter().any(|one| {
                    Some(one.name.as_str()) == hour.checked_sub(ago).map(|at| format!("at-{at:02}")).as_deref()
                })
            };
            let within = known.len() == SHOWN || (0..hour.min(20)).all(at);
            assert!(within && !(24..30).any(at), "{hour}: {known:?}");
            assert!(spenders.panes.lock().len() <= PANES);
        }
        assert_eq!(spenders.top(Minute(start + 60 * 60)), TopClients::default());
    }

    #[test]
    fn clients_without_end_take_bounded_places_and_hide_nobody() {
        let spenders = Spenders::default();
        let now = Minute(1_000_000);
        for n in 0..20_000_u32 {
            spenders.spent(&client(&format!("noise-{n}"), "x", 1), 1, now);
            if n % 20 == 0 {
                spenders.spent(&client("loader", "x", 1), 1, now);
            }
        }
        let top = spenders.top(now);
        let loader = top.by_client.iter().find(|one| one.name == "loader").unwrap();
        assert!(loader.at_least <= 1_000 && loader.calls >= 1_000, "{loader:?}");
        assert_eq!(spenders.panes.lock()[0].clients.kept().len(), PLACES);
    }

    #[test]
    fn batches_count_for_24_hours() {
        let spenders = Spenders::default();
        let minute = |n: u32| Minute(1_000_000 + n);
        assert_eq!(spenders.batches(minute(0)), BulkBatches { used: 0, limit: 15_000 });
        spenders.made(2, minute(0));
        spenders.made(3, minute(600));
        assert_eq!(spenders.batches(minute(1_440)).used, 5);
        assert_eq!(spenders.batches(minute(1_442)).used, 3);
        assert_eq!(spenders.batches(minute(5_000)).used, 0);
    }
}
