//! What the memory does for each object: how many reads it answered, and what its answers take.

use std::collections::BTreeMap;

use serde::Serialize;
use smol_str::SmolStr;

use super::labels::WordId;
use super::metrics::{Gauges, ObjectLabels};
use super::{ObjectRoom, Shared, Snapshot};
use crate::call::Operation;
use crate::outcome::Source;

/// One object of one org.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ObjectStatus {
    /// The org's name.
    pub org: SmolStr,
    /// The object as the metrics name it; `none` for answers about none.
    pub object: SmolStr,
    /// Reads, queries and descriptions that Salesforce answered since the start.
    pub asked: u64,
    /// Those that were answered from memory, fresh or stale.
    pub from_memory: u64,
    /// Those that got the answer to another request which was just asking the same.
    pub joined: u64,
    /// The share of all these for which Salesforce was not asked, 0 to 1; `null` if there were none.
    pub hit_ratio: Option<f64>,
    /// Bytes that the answers kept about it take.
    pub bytes: u64,
    /// How many answers those are.
    pub answers: u64,
}

impl Shared {
    /// All objects that were read or that answers are kept about, the largest saving first.
    pub(super) fn by_object(&self, snapshot: &Snapshot) -> Vec<ObjectStatus> {
        let mut all: BTreeMap<(SmolStr, SmolStr), ObjectStatus> = BTreeMap::new();
        let reads = |operation| {
            matches!(operation, Operation::Read | Operation::Query | Operation::Describe | Operation::Limits)
        };
        self.metrics.requests_total.visit(|l, requests| {
            // A failure that is remembered is no answer about an object.
            if !reads(l.operation) || matches!(l.source, Source::Gateway | Source::Remembered) {
                return;
            }
            let one = all.entry((l.org.clone(), l.object.clone())).or_default();
            match l.source {
                Source::Cache | Source::Stale => one.from_memory += requests,
                Source::Joined => one.joined += requests,
                Source::Upstream | Source::Gateway | Source::Remembered => one.asked += requests,
            }
        });
        for (key, (bytes, answers)) in self.rooms(&snapshot.cache.objects) {
            let one = all.entry(key).or_default();
            (one.bytes, one.answers) = (bytes, answers);
        }
        let mut all: Vec<ObjectStatus> = all
            .into_iter()
            .map(|((org, object), one)| {
                let saved = one.from_memory + one.joined;
                let of = saved + one.asked;
                ObjectStatus { org, object, hit_ratio: (of > 0).then(|| saved as f64 / of as f64), ..one }
            })
            .collect();
        all.sort_by_key(|one| std::cmp::Reverse(one.from_memory + one.joined));
        all
    }

    /// Bytes and answers by org and object, named as in all metrics.
    fn rooms(&self, objects: &[ObjectRoom]) -> BTreeMap<(SmolStr, SmolStr), (u64, u64)> {
        let mut rooms: BTreeMap<_, (u64, u64)> = BTreeMap::new();
        for room in objects {
            let none = self.objects.word(WordId::NONE);
            let object =
                if room.object == none { none } else { self.objects.word(self.objects.id(&room.object, false)) };
            let (bytes, answers) = rooms.entry((room.org.clone(), object)).or_default();
            *bytes += room.bytes;
            *answers += room.answers;
        }
        rooms
    }

    /// Adds what the answers about each object take.
    pub(super) fn add_rooms(&self, gauges: &mut Gauges, objects: &[ObjectRoom]) {
        for ((org, object), (bytes, answers)) in self.rooms(objects) {
            let labels = ObjectLabels { org, object };
            gauges.cache_object_bytes.set(labels.clone(), bytes as f64);
            gauges.cache_object_answers.set(labels, answers as f64);
        }
    }
}
