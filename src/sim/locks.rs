//! Row locks: two writes under way to children of one parent get in each other's way (facts 2.3).

use std::collections::{BTreeSet, HashMap};

use http::Method;
use smol_str::SmolStr;

use super::clock::{Micros, millis};
use super::ids;
use super::json::Json;
use super::request::Head;
use super::schema::{ID, MODSTAMP};
use super::store::Row;
use super::world::World;

/// Ids one request may lock.
const MOST: usize = 1_000;

/// Who holds which record.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// Holder of each record, and until when.
    held: HashMap<SmolStr, (u64, Micros)>,
    /// Records a running request cannot have, because others hold them for longer than it would wait.
    denied: HashMap<u64, BTreeSet<SmolStr>>,
    /// The request whose handler runs.
    pub(super) current: u64,
}

impl Locks {
    /// Whether the current request could not get one of these.
    fn blocked<'a>(&self, mut ids: impl Iterator<Item = &'a str>) -> bool {
        self.denied.get(&self.current).is_some_and(|denied| ids.any(|id| denied.contains(id)))
    }

    /// Gives back what a request holds.
    pub(super) fn release(&mut self, holder: u64) {
        self.held.retain(|_, (by, _)| *by != holder);
        self.denied.remove(&holder);
    }
}

impl World {
    /// Takes the locks of a write that runs from `now` until `until`: every record it names, and their parents.
    /// It is denied what somebody else holds for longer than the org's wait.
    pub(super) fn take_locks(&mut self, holder: u64, head: &Head, body: &[u8], now: Micros, until: Micros) {
        let reads = matches!(head.method, Method::GET | Method::HEAD);
        if reads || (until <= now && self.locks.held.is_empty()) {
            return;
        }
        let mut named: BTreeSet<SmolStr> = head.segments.iter().filter_map(|part| ids::to18(part)).collect();
        for list in head.query.iter().filter(|(name, _)| name == "ids") {
            named.extend(list.1.split(',').filter_map(ids::to18));
        }
        if let Ok(body) = Json::parse(body) {
            collect(&body, &mut named);
        }
        let mut wanted = named.clone();
        for id in &named {
            if let Some(object) = self.schema.object_of_id(id)
                && let Some(row) = self.store.row(object, id)
            {
                wanted.extend(self.parents(object, row).map(SmolStr::new));
            }
        }
        let patience = now + millis(self.config.lock_wait_ms);
        for id in wanted {
            match self.locks.held.get(&id) {
                Some((_, end)) if *end > patience => {
                    self.locks.denied.entry(holder).or_default().insert(id);
                }
                None if until > now && self.schema.object_of_id(&id).is_some() => {
                    self.locks.held.insert(id, (holder, until));
                }
                _ => {}
            }
        }
    }

    /// The records a row hangs on, its owner and its authors excepted.
    fn parents<'a>(&self, object: usize, row: &'a Row) -> impl Iterator<Item = &'a str> + use<'a> {
        let fields = &self.schema.objects[object].fields;
        let places: Vec<usize> = (MODSTAMP + 1..fields.len())
            .filter(|at| !fields[*at].refers.is_empty() && fields[*at].name != "OwnerId")
            .collect();
        places.into_iter().filter_map(|at| row.get(at).and_then(Json::as_str))
    }

    /// Whether somebody else is writing to this row or to one it hangs on.
    pub(super) fn is_locked(&self, object: usize, row: &Row) -> bool {
        let own = row.get(ID).and_then(Json::as_str);
        self.locks.blocked(own.into_iter().chain(self.parents(object, row)))
    }
}

fn collect(value: &Json, found: &mut BTreeSet<SmolStr>) {
    if found.len() >= MOST {
        return;
    }
    match value {
        Json::Str(text) => found.extend(ids::to18(text)),
        Json::Arr(items) => items.iter().for_each(|item| collect(item, found)),
        Json::Obj(members) => members.iter().for_each(|(_, value)| collect(value, found)),
        _ => {}
    }
}
