//! Which failures of bulk jobs are counted already: a job is asked about again and again, and each time says how many of its
//! records failed so far.

use std::collections::VecDeque;

use ahash::AHashMap;
use parking_lot::Mutex;
use smol_str::SmolStr;

use crate::salesforce::taxonomy::Progress;

/// Jobs and batches told apart in one org; the job that was seen first is forgotten first.
const MOST: usize = 10_000;

/// The jobs of one org.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    jobs: AHashMap<SmolStr, Job>,
    /// In the order in which they were first seen.
    order: VecDeque<SmolStr>,
    batches: usize,
}

#[derive(Debug, Default)]
struct Job {
    object: SmolStr,
    /// As the job itself says.
    failed: u32,
    /// As its batches say.
    batches: AHashMap<SmolStr, u32>,
    /// All of those.
    of_batches: u32,
    counted: u32,
}

impl Tally {
    /// How many failures `progress` tells of that were not counted before, and of which object, if that is known. A job and its
    /// batches tell of the same records.
    pub fn newly(&self, progress: &Progress) -> (u32, SmolStr) {
        let mut books = self.0.lock();
        if progress.failed == 0 && !books.jobs.contains_key(&progress.job) && progress.object.is_empty() {
            return (0, SmolStr::default());
        }
        books.make_room(&progress.job);
        if !books.jobs.contains_key(&progress.job) {
            books.order.push_back(progress.job.clone());
        }
        let Books { jobs, batches, .. } = &mut *books;
        let job = jobs.entry(progress.job.clone()).or_default();
        if !progress.object.is_empty() {
            job.object = progress.object.clone();
        }
        if progress.batch.is_empty() {
            job.failed = job.failed.max(progress.failed);
        } else if progress.failed > 0 {
            let known = job.batches.len();
            let failed = job.batches.entry(progress.batch.clone()).or_default();
            job.of_batches = job.of_batches.saturating_add(progress.failed.saturating_sub(*failed));
            *failed = progress.failed.max(*failed);
            *batches += job.batches.len() - known;
        }
        let all = job.of_batches.max(job.failed);
        let new = all.saturating_sub(job.counted);
        job.counted = job.counted.max(all);
        (new, job.object.clone())
    }
}

impl Books {
    fn make_room(&mut self, coming: &SmolStr) {
        while self.jobs.len() + self.batches >= MOST {
            // What is being told of stays, unless it is all there is.
            let Some(oldest) = self.order.pop_front() else { return };
            if oldest == *coming && !self.order.is_empty() {
                self.order.push_back(oldest);
                continue;
            }
            if let Some(job) = self.jobs.remove(&oldest) {
                self.batches -= job.batches.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(job: &str, batch: &str, failed: u32) -> Progress {
        Progress { job: job.into(), batch: batch.into(), object: SmolStr::default(), processed: 100, failed }
    }

    #[test]
    fn each_failure_is_counted_once_however_often_it_is_told() {
        let tally = Tally::default();
        let named = Progress { object: "Account".into(), ..told("A", "", 0) };
        assert_eq!(tally.newly(&named), (0, "Account".into()));
        for (job, batch, failed, new) in [
            ("A", "", 2, 2),
            ("A", "", 2, 0),
            ("A", "1", 2, 0),
            ("A", "2", 3, 3),
            ("A", "", 5, 0),
            ("B", "", 5, 5),
            ("A", "", 6, 1),
            ("A", "2", 1, 0),
        ] {
            assert_eq!(tally.newly(&told(job, batch, failed)).0, new, "{job} {batch} {failed}");
        }
        assert_eq!(tally.newly(&told("A", "2", 3)).1, "Account");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]
        #[test]
        fn what_is_remembered_is_bounded(all in prop::collection::vec((0_u32..3, 0_u32..3_000), 1..12)) {
            let tally = Tally::default();
            for (job, batches) in all {
                for batch in 0..batches {
                    tally.newly(&told(&job.to_string(), &(batches + batch).to_string(), 1));
                }
                let books = tally.0.lock();
                prop_assert!(books.jobs.len() + books.batches <= MOST + 1);
                prop_assert_eq!(books.batches, books.jobs.values().map(|job| job.batches.len()).sum::<usize>());
                prop_assert_eq!(books.jobs.len(), books.order.len());
                for job in books.jobs.values() {
                    prop_assert_eq!(job.of_batches, job.batches.values().sum::<u32>());
                }
            }
        }
    }
}
