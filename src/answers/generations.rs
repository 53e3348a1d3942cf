//! When what was last changed: the pure core of invalidation.
//!
//! Every change takes the next number of one count for each org. An answer remembers the number at which its call was
//! sent, and is old as soon as anything it depends on has a higher one. A change is numbered twice: when its call is sent,
//! and when it is answered, before the writer sees the answer. In between, and for a time after a call whose outcome is not
//! known, nothing that depends on it is kept or given out.
//!
//! Looking and changing cost the same however many answers are kept. What is remembered is bounded: beyond, single rows are
//! forgotten by making their whole object old, and objects by making all rows old.

use std::time::Duration;

use ahash::AHashMap;
use smol_str::SmolStr;
use tokio::time::Instant;

use super::touch::{Deps, Lower, RowId, Touch, Touches};

/// How long a call of unknown outcome may still do something (facts 1.4).
pub const DOUBT: Duration = Duration::from_mins(10);
/// How long a bulk job may go on whose end was not seen.
pub const JOB: Duration = Duration::from_hours(24);

/// Objects told apart in one org.
const MAX_OBJECTS: usize = 10_000;
/// Changed rows told apart in one object.
const MAX_ROWS: usize = 4_096;
/// Bulk jobs watched in one org.
const MAX_JOBS: usize = 10_000;

/// The last change of one thing.
#[derive(Debug, Default)]
struct Mark {
    moved: u64,
    in_air: u32,
    doubt_until: Option<Instant>,
}

impl Mark {
    fn is_busy(&self, now: Instant) -> bool {
        self.in_air > 0 || self.doubt_until.is_some_and(|until| now < until)
    }
}

#[derive(Debug, Default)]
struct Object {
    /// All of its rows.
    whole: Mark,
    /// Some of its rows.
    some: Mark,
    /// Single rows.
    rows: AHashMap<RowId, Mark>,
    /// An operator wants everything about it to be old.
    purged: u64,
    /// An operator wants Salesforce to be asked again about it, if it answers.
    softened: u64,
}

impl Object {
    fn is_busy(&self, now: Instant) -> bool {
        self.whole.is_busy(now) || self.some.is_busy(now) || self.rows.values().any(|row| row.is_busy(now))
    }
}

/// A bulk job that may be changing rows.
#[derive(Debug)]
struct Job {
    touches: Touches,
    until: Instant,
}

/// What an answer's dependencies are doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The number of their last change.
    pub moved: u64,
    /// One of them is being changed, or may be.
    pub busy: bool,
    /// The number under which an operator last wanted Salesforce to be asked again.
    pub softened: u64,
}

/// The changes of one org.
#[derive(Debug, Default)]
pub struct Generations {
    count: u64,
    everything: Mark,
    rows: Mark,
    objects: AHashMap<Lower, Object>,
    jobs: AHashMap<SmolStr, Job>,
    /// No job ends by itself before this.
    next_job_end: Option<Instant>,
    /// An operator wants Salesforce to be asked again about everything.
    softened: u64,
    /// Where other replicas change something, too: until when it is certain that all they said was heard.
    certain_until: Option<Instant>,
}

impl Generations {
    /// Others change something, too, and what they say is known to be complete until `until`. After that everything may
    /// have been changed.
    pub fn certain(&mut self, until: Instant) {
        self.certain_until = Some(until);
    }

    /// Whether others may have changed something without being heard.
    pub fn is_uncertain(&self, now: Instant) -> bool {
        self.certain_until.is_some_and(|until| now >= until)
    }

    /// The number of the last change of anything.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What the dependencies of an answer are doing at `now`.
    pub fn standing(&mut self, deps: &Deps, now: Instant) -> Standing {
        self.end_old_jobs(now);
        let busy = self.everything.is_busy(now) || self.is_uncertain(now);
        let mut standing = Standing { moved: self.everything.moved, busy, softened: self.softened };
        let mut add = |mark: &Mark| {
            standing.moved = standing.moved.max(mark.moved);
            standing.busy |= mark.is_busy(now);
        };
        match deps {
            Deps::Metadata(_) => {}
            Deps::Row(name, id) => {
                add(&self.rows);
                if let Some(object) = self.objects.get(name) {
                    add(&object.whole);
                    if let Some(row) = object.rows.get(id) {
                        add(row);
                    }
                }
            }
            Deps::Objects(names) => {
                add(&self.rows);
                for object in names.iter().filter_map(|name| self.objects.get(name)) {
                    add(&object.whole);
                    add(&object.some);
                }
            }
        }
        for object in deps.objects().iter().filter_map(|name| self.objects.get(name)) {
            standing.moved = standing.moved.max(object.purged);
            standing.softened = standing.softened.max(object.softened);
        }
        standing
    }

    /// A call that may change `touches` is about to be sent. What comes back is to be given to [`Self::end`].
    pub fn begin(&mut self, touches: Touches, now: Instant) -> Touches {
        self.end_old_jobs(now);
        touches
            .into_iter()
            .map(|touch| {
                let touch = self.narrowed(touch, now);
                self.change(&touch, |mark| mark.in_air += 1);
                touch
            })
            .collect()
    }

    /// It has been answered, or will not be. If it may have happened, or may happen yet, it is in `doubt`.
    pub fn end(&mut self, touches: &Touches, doubt: bool, now: Instant) {
        for touch in touches {
            self.change(touch, |mark| {
                mark.in_air = mark.in_air.saturating_sub(1);
                if doubt {
                    doubt_until(mark, now + DOUBT);
                }
            });
        }
    }

    /// Something may change `touches` until `until`.
    pub fn doubt(&mut self, touches: Touches, until: Instant, now: Instant) {
        for touch in touches {
            let touch = self.narrowed(touch, now);
            self.change(&touch, |mark| doubt_until(mark, until));
        }
    }

    /// Makes what depends on `touch` old.
    pub fn purge(&mut self, touch: Touch, now: Instant) {
        match touch {
            Touch::Object(name) => {
                let touch = self.narrowed(Touch::Object(name), now);
                self.change(&touch, |_| {});
                let count = self.count;
                if let Touch::Object(name) = touch
                    && let Some(object) = self.objects.get_mut(&name)
                {
                    object.purged = count;
                }
            }
            touch => self.change(&touch, |_| {}),
        }
    }

    /// Makes what depends on `touch` no longer fresh, though not wrong. Returns the number of this order.
    pub fn soften(&mut self, touch: Touch, now: Instant) -> u64 {
        let touch = self.narrowed(touch, now);
        self.count += 1;
        let count = self.count;
        match touch {
            Touch::Object(name) => self.objects.entry(name).or_default().softened = count,
            _ => self.softened = count,
        }
        count
    }

    /// Numbers an order that is remembered elsewhere.
    pub fn number(&mut self) -> u64 {
        self.count += 1;
        self.count
    }

    /// The bulk job `id` may change `touches` from now on, until its end is seen or [`JOB`] has passed.
    pub fn job(&mut self, id: &str, touches: Touches, now: Instant) {
        self.job_until(id, touches, now + JOB, now);
    }

    /// The bulk job `id` may change `touches` until its end is seen, or until `until`.
    pub fn job_until(&mut self, id: &str, touches: Touches, until: Instant, now: Instant) {
        if let Some(job) = self.jobs.get_mut(id) {
            job.until = job.until.max(until);
            return;
        }
        if self.jobs.len() >= MAX_JOBS {
            return self.doubt(touches, until, now);
        }
        let touches = self.begin(touches, now);
        self.jobs.insert(SmolStr::new(id), Job { touches, until });
        self.next_job_end = Some(self.next_job_end.map_or(until, |next| next.min(until)));
    }

    /// Whether the job is watched.
    pub fn knows_job(&self, id: &str) -> bool {
        self.jobs.contains_key(id)
    }

    /// The job has come to its end.
    pub fn job_ended(&mut self, id: &str, now: Instant) {
        if let Some(job) = self.jobs.remove(id) {
            self.end(&job.touches, false, now);
        }
    }

    /// What is in doubt at `now`, and for how much longer.
    pub fn doubts(&self, now: Instant) -> Vec<(Touch, Duration)> {
        let mut doubts = Vec::new();
        let mut add = |mark: &Mark, touch: &dyn Fn() -> Touch| {
            if let Some(until) = mark.doubt_until.filter(|until| now < *until) {
                doubts.push((touch(), until.saturating_duration_since(now)));
            }
        };
        add(&self.everything, &|| Touch::Everything);
        add(&self.rows, &|| Touch::Rows);
        for (name, object) in &self.objects {
            add(&object.whole, &|| Touch::Object(name.clone()));
            add(&object.some, &|| Touch::New(name.clone()));
            for (id, row) in &object.rows {
                add(row, &|| Touch::Row(name.clone(), *id));
            }
        }
        doubts
    }

    /// The bulk jobs that are watched at `now`, what they may change, and for how much longer.
    pub fn jobs(&self, now: Instant) -> Vec<(SmolStr, Touches, Duration)> {
        let left = |job: &Job| job.until.saturating_duration_since(now);
        self.jobs.iter().map(|(id, job)| (id.clone(), job.touches.clone(), left(job))).collect()
    }

    fn end_old_jobs(&mut self, now: Instant) {
        if self.next_job_end.is_none_or(|next| now < next) {
            return;
        }
        let old: Vec<SmolStr> =
            self.jobs.iter().filter(|(_, job)| job.until <= now).map(|(id, _)| id.clone()).collect();
        for id in old {
            self.job_ended(&id, now);
        }
        self.next_job_end = self.jobs.values().map(|job| job.until).min();
    }

    /// The touch itself, or one that comprises it if there is no more room to tell it apart.
    fn narrowed(&mut self, touch: Touch, now: Instant) -> Touch {
        let name = match &touch {
            Touch::Everything | Touch::Rows => return touch,
            Touch::Object(name) | Touch::Row(name, _) | Touch::New(name) => name,
        };
        if !self.objects.contains_key(name) && self.objects.len() >= MAX_OBJECTS {
            self.count += 1;
            self.rows.moved = self.count;
            // What an operator ordered about single objects is done to all.
            if self.objects.values().any(|object| object.purged > 0 || object.softened > 0) {
                self.everything.moved = self.count;
            }
            self.objects.retain(|_, object| object.is_busy(now));
            if self.objects.len() >= MAX_OBJECTS {
                return Touch::Rows;
            }
        }
        if let Touch::Row(name, id) = &touch
            && let Some(object) = self.objects.get_mut(name)
            && object.rows.len() >= MAX_ROWS
            && !object.rows.contains_key(id)
        {
            self.count += 1;
            object.whole.moved = self.count;
            object.rows.retain(|_, row| row.is_busy(now));
            if object.rows.len() >= MAX_ROWS {
                return Touch::Object(name.clone());
            }
        }
        touch
    }

    /// Numbers a change of `touch`, and writes into its marks.
    fn change(&mut self, touch: &Touch, mut write: impl FnMut(&mut Mark)) {
        self.count += 1;
        let count = self.count;
        let mut change = |mark: &mut Mark| {
            mark.moved = count;
            write(mark);
        };
        match touch {
            Touch::Everything => change(&mut self.everything),
            Touch::Rows => change(&mut self.rows),
            Touch::Object(name) => change(&mut self.objects.entry(name.clone()).or_default().whole),
            Touch::New(name) => change(&mut self.objects.entry(name.clone()).or_default().some),
            Touch::Row(name, id) => {
                let object = self.objects.entry(name.clone()).or_default();
                change(&mut object.some);
                change(object.rows.entry(*id).or_default());
            }
        }
    }
}

fn doubt_until(mark: &mut Mark, until: Instant) {
    mark.doubt_until = Some(mark.doubt_until.map_or(until, |earlier| earlier.max(until)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use smallvec::smallvec;

    use super::super::touch::lower;
    use super::*;

    fn start() -> Instant {
        crate::clock::Clock::start().now()
    }

    fn id(number: usize) -> RowId {
        RowId::parse(&format!("001{number:012}")).unwrap()
    }

    fn row(object: &str, number: usize) -> Deps {
        Deps::Row(lower(object), id(number))
    }

    fn query(object: &str) -> Deps {
        Deps::Objects(smallvec![lower(object)])
    }

    /// Whether an answer that was sent for before `touch` may be given out after it.
    fn survives(deps: &Deps, touch: Touch) -> bool {
        let (mut generations, now) = (Generations::default(), start());
        let as_of = generations.count();
        let begun = generations.begin(smallvec![touch], now);
        generations.end(&begun, false, now);
        let standing = generations.standing(deps, now);
        assert!(!standing.busy);
        standing.moved <= as_of
    }

    #[test]
    fn a_change_makes_old_what_depends_on_it_and_nothing_else() {
        let one = Touch::Row(lower("Account"), id(1));
        assert!(!survives(&row("account", 1), one.clone()));
        assert!(survives(&row("account", 2), one.clone()));
        assert!(!survives(&query("account"), one.clone()));
        assert!(survives(&query("contact"), one.clone()));
        assert!(survives(&Deps::Metadata(Some(lower("account"))), one));
        let new = Touch::New(lower("Account"));
        assert!(survives(&row("account", 1), new.clone()) && !survives(&query("account"), new));
        let whole = Touch::Object(lower("Account"));
        assert!(!survives(&row("account", 1), whole.clone()) && !survives(&query("account"), whole.clone()));
        assert!(survives(&row("contact", 1), whole));
        assert!(!survives(&row("contact", 1), Touch::Rows) && !survives(&query("contact"), Touch::Rows));
        assert!(survives(&Deps::Metadata(None), Touch::Rows));
        for deps in [row("account", 1), query("contact"), Deps::Metadata(None)] {
            assert!(!survives(&deps, Touch::Everything), "{deps:?}");
        }
    }

    #[test]
    fn a_query_over_two_objects_depends_on_both() {
        let both = Deps::Objects(smallvec![lower("Account"), lower("Contact")]);
        for object in ["account", "contact"] {
            assert!(!survives(&both, Touch::Row(lower(object), id(1))), "{object}");
        }
    }

    #[test]
    fn what_is_being_changed_is_busy_and_moves_twice() {
        let (mut generations, now) = (Generations::default(), start());
        let begun = generations.begin(smallvec![Touch::Row(lower("Account"), id(1))], now);
        let during = generations.standing(&row("account", 1), now);
        assert!(during.busy && generations.standing(&query("account"), now).busy);
        assert!(!generations.standing(&row("account", 2), now).busy);
        let as_of = generations.count();
        generations.end(&begun, false, now);
        let after = generations.standing(&row("account", 1), now);
        assert!(!after.busy && after.moved > as_of, "what was fetched while it was in the air is old");
    }

    #[test]
    fn an_unknown_outcome_is_in_doubt_for_ten_minutes() {
        let (mut generations, now) = (Generations::default(), start());
        let begun = generations.begin(smallvec![Touch::New(lower("Account"))], now);
        generations.end(&begun, true, now);
        assert!(generations.standing(&query("account"), now + DOUBT - Duration::from_millis(1)).busy);
        assert!(!generations.standing(&query("account"), now + DOUBT).busy);
    }

    #[test]
    fn a_job_keeps_its_object_busy_until_its_end_is_seen_or_a_day_has_passed() {
        for seen in [true, false] {
            let (mut generations, now) = (Generations::default(), start());
            generations.job("750x", smallvec![Touch::Object(lower("Account"))], now);
            let late = now + JOB - Duration::from_millis(1);
            assert!(generations.knows_job("750x") && generations.standing(&row("account", 1), late).busy);
            let as_of = generations.count();
            let end = if seen { now + Duration::from_secs(5) } else { now + JOB };
            if seen {
                generations.job_ended("750x", end);
            }
            let after = generations.standing(&row("account", 1), end);
            assert!(!after.busy && after.moved > as_of, "seen: {seen}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_forgetting_makes_old() {
        let (mut generations, now) = (Generations::default(), start());
        let as_of = generations.count();
        for number in 0..MAX_ROWS * 2 {
            let begun = generations.begin(smallvec![Touch::Row(lower("Account"), id(number))], now);
            generations.end(&begun, false, now);
        }
        assert!(generations.objects[&lower("account")].rows.len() <= MAX_ROWS);
        for number in 0..MAX_OBJECTS * 2 {
            let begun = generations.begin(smallvec![Touch::New(lower(&format!("O{number}")))], now);
            generations.end(&begun, false, now);
        }
        assert!(generations.objects.len() <= MAX_OBJECTS);
        for number in [0, 1, MAX_ROWS, MAX_ROWS * 2 - 1] {
            assert!(generations.standing(&row("account", number), now).moved > as_of, "{number}");
        }
        for number in [0, MAX_OBJECTS, MAX_OBJECTS * 2 - 1] {
            assert!(generations.standing(&query(&format!("o{number}")), now).moved > as_of, "{number}");
        }
    }

    #[test]
    fn what_is_in_the_air_is_never_forgotten() {
        let (mut generations, now) = (Generations::default(), start());
        let mut begun = Vec::new();
        for number in 0..=MAX_ROWS {
            begun.push(generations.begin(smallvec![Touch::Row(lower("Account"), id(number))], now));
        }
        for number in [0, MAX_ROWS] {
            assert!(generations.standing(&row("account", number), now).busy, "{number}");
        }
        for touches in &begun {
            generations.end(touches, false, now);
        }
        assert!(!generations.standing(&row("account", MAX_ROWS), now).busy);
        assert!(!generations.standing(&query("account"), now).busy);
    }

    #[test]
    fn a_purge_reaches_descriptions_too() {
        let (mut generations, now) = (Generations::default(), start());
        let as_of = generations.count();
        generations.purge(Touch::Object(lower("Account")), now);
        for deps in [Deps::Metadata(Some(lower("account"))), row("account", 1), query("account")] {
            let standing = generations.standing(&deps, now);
            assert!(standing.moved > as_of && !standing.busy, "{deps:?}");
        }
        assert!(generations.standing(&query("contact"), now).moved <= as_of);
    }

    proptest! {
        /// Against the naive model: an answer may be given out only if no change that concerns it began, was going on or
        /// ended since its call was sent.
        #[test]
        fn it_agrees_with_a_naive_model(steps in proptest::collection::vec((0..4_u8, 0..6_u8, 0..3_u8, any::<bool>()), 1..60)) {
            let (mut generations, now) = (Generations::default(), start());
            let names = ["account", "contact", "lead"];
            let deps: Vec<Deps> = vec![row("account", 1), row("account", 2), query("account"), query("contact"),
                Deps::Objects(smallvec![lower("account"), lower("lead")]), Deps::Metadata(None)];
            let touch = |kind: u8, object: u8| {
                let name = lower(names[usize::from(object)]);
                match kind {
                    0 => Touch::Row(name, id(1)),
                    1 => Touch::Row(name, id(2)),
                    2 => Touch::New(name),
                    3 => Touch::Object(name),
                    4 => Touch::Rows,
                    _ => Touch::Everything,
                }
            };
            let concerns = |touch: &Touch, deps: &Deps| match (touch, deps) {
                (Touch::Everything, _) => true,
                (Touch::Rows, deps) => !matches!(deps, Deps::Metadata(_)),
                (_, Deps::Metadata(_)) | (Touch::New(_), Deps::Row(..)) => false,
                (Touch::Row(o, i), Deps::Row(p, j)) => o == p && i == j,
                (Touch::Object(o), Deps::Row(p, _)) => o == p,
                (Touch::Row(o, _) | Touch::Object(o) | Touch::New(o), Deps::Objects(all)) => all.contains(o),
            };
            // Of each kept answer: when it was fetched, whether anything has touched it since.
            let mut kept: Vec<(usize, u64, bool)> = Vec::new();
            let mut air: Vec<(Touch, Touches)> = Vec::new();
            for (what, kind, object, pick) in steps {
                match what {
                    0 => {
                        let touch = touch(kind, object);
                        let begun = generations.begin(smallvec![touch.clone()], now);
                        for (at, _, old) in &mut kept {
                            *old |= concerns(&touch, &deps[*at]);
                        }
                        air.push((touch, begun));
                    }
                    1 if !air.is_empty() => {
                        let (touch, begun) = air.swap_remove(if pick { 0 } else { air.len() - 1 });
                        generations.end(&begun, false, now);
                        for (at, _, old) in &mut kept {
                            *old |= concerns(&touch, &deps[*at]);
                        }
                    }
                    _ => kept.push((usize::from(kind), generations.count(), false)),
                }
                for (at, as_of, old) in &kept {
                    let standing = generations.standing(&deps[*at], now);
                    let busy = air.iter().any(|(touch, _)| concerns(touch, &deps[*at]));
                    prop_assert_eq!(standing.busy, busy, "{:?}", deps[*at]);
                    prop_assert_eq!(standing.moved > *as_of, *old, "{:?}", deps[*at]);
                }
            }
        }
    }
}
