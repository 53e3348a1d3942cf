//! The rules by which replicas share an org's slots: a table that all of them read and replace, and what follows from it.
//!
//! Each replica writes its own line of the table: what it uses, what it waits for, and how much it is *granted*. It gives
//! itself more only out of what no other line takes, and acts on more only once the table holds it; it acts on less before
//! it writes that down. So what all of them may use together never exceeds what there is, whatever gets lost on the way.
//!
//! A replica that is no longer heard of may still use its grant until its lease ends, and Salesforce may work on what it
//! sent then for as long as a call can take: until then its line stays. A table that was lost with the store's data is made
//! anew from what the replicas remember, and until all of them have spoken they share no more than they had.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::call::Class;

/// The form of the table. Replicas that know another one keep off it.
const FORM: u32 = 1;
/// Replicas in a table.
const MOST: usize = 256;
const CLASSES: usize = Class::ALL.len();

/// Milliseconds, of the store's clock where they are a moment.
pub(super) type Millis = u64;

/// How long what counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// A replica not heard of for so long has no part in dividing.
    pub(super) fresh: Millis,
    /// A replica that does not reach the store acts on its grant for so long.
    pub(super) lease: Millis,
    /// The longest time that Salesforce works on a call.
    pub(super) longest: Millis,
    /// By how much the store's clock may be set forward, or another store's clock may differ.
    pub(super) slack: Millis,
    /// For how long a new table grants nothing more than what replicas had: within it every one speaks that reaches the
    /// store, also those that remember what others do not.
    pub(super) settle: Millis,
}

impl Terms {
    /// The lease outlasts what a store needs to be restarted or replaced. It could be much longer or shorter: what a dead
    /// replica may have sent is waited for six times as long anyway.
    pub(super) const USUAL: Self =
        Self { fresh: 10_000, lease: 300_000, longest: 32 * 60_000, slack: 60_000, settle: 10_000 };
}

/// Numbers of slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// For calls of any class.
    pub all: u32,
    /// Of them, for those not of class interactive.
    pub unreserved: u32,
    /// Of these, for those of class batch.
    pub batch: u32,
}

impl Part {
    fn with(self, other: Self, of: impl Fn(u32, u32) -> u32) -> Self {
        Self {
            all: of(self.all, other.all),
            unreserved: of(self.unreserved, other.unreserved),
            batch: of(self.batch, other.batch),
        }
    }

    pub(super) fn least(self, other: Self) -> Self {
        self.with(other, u32::min)
    }

    fn most(self, other: Self) -> Self {
        self.with(other, u32::max)
    }

    pub(super) fn and(self, other: Self) -> Self {
        self.with(other, u32::saturating_add)
    }

    fn without(self, other: Self) -> Self {
        self.with(other, u32::saturating_sub)
    }

    fn even(count: u32) -> Self {
        Self { all: count, unreserved: count, batch: count }
    }
}

/// What a replica says of itself.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct News {
    /// How many slots it believes the org to have.
    pub(super) capacity: Part,
    /// How many its calls take.
    pub(super) uses: Part,
    /// Old calls of which nobody knows whether Salesforce still works on them.
    pub(super) lost: u32,
    /// Calls that wait for a slot, by class.
    pub(super) wants: [u32; CLASSES],
    /// It ends, and by then its calls have surely ended.
    pub(super) leaves: Option<Millis>,
}

/// What is known of a replica since the table was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    /// It has spoken.
    Here,
    /// Others remember it, and it may be about to speak.
    Missing,
    /// Others remember that it was not heard of any more.
    Gone,
}

/// One replica's line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Line {
    id: SmolStr,
    standing: Standing,
    /// When it was heard of last.
    heard: Millis,
    /// When it came, or came back. It is granted nothing more before all others have seen it.
    born: Millis,
    granted: Part,
    uses: Part,
    lost: u32,
    wants: [u32; CLASSES],
    capacity: Part,
    /// It has ended, and so have its calls by then.
    leaves: Option<Millis>,
}

impl Line {
    fn new(id: &str, now: Millis, granted: Part) -> Self {
        Self {
            id: id.into(),
            standing: Standing::Here,
            heard: now,
            born: now,
            granted,
            uses: Part::default(),
            lost: 0,
            wants: [0; CLASSES],
            capacity: Part::default(),
            leaves: None,
        }
    }

    fn is_fresh(&self, terms: &Terms, now: Millis) -> bool {
        self.standing == Standing::Here && self.leaves.is_none() && now < self.heard + terms.fresh
    }

    /// From when nothing of it can be in the air.
    fn over(&self, terms: &Terms) -> Millis {
        self.leaves.unwrap_or(self.heard + terms.lease + terms.longest + terms.slack)
    }

    /// What nobody else may have.
    fn taken(&self) -> Part {
        self.granted.most(self.uses)
    }

    fn wants(&self, class: Class) -> u32 {
        self.wants.get(class.index()).copied().unwrap_or_default()
    }
}

/// Tells a table from those before the store's data were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Era {
    run: u64,
    made: Millis,
}

/// What the store holds of one org's slots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Table {
    form: u32,
    pub(super) era: Era,
    /// While not everybody has spoken: as many slots as those who have had between them.
    pool: u32,
    lines: Vec<Line>,
}

/// A table as a replica saw it.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    pub(super) table: Table,
    pub(super) version: u64,
    /// The store's time then.
    pub(super) now: Millis,
}

/// What follows for one replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    /// With more than this in the air it lets nothing in.
    pub(super) limit: Part,
    /// What its line says: what others may not have.
    pub(super) written: Part,
    pub(super) facts: Facts,
}

/// What there is to see of the sharing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// How many slots the org has, by what all replicas have learnt.
    pub(super) capacity: Part,
    /// Slots taken by other replicas.
    pub(super) elsewhere: u32,
    /// Of them, those that calls take, or may.
    pub(super) used: u32,
    /// Slots taken by replicas that are not heard of.
    pub(super) gone: u32,
    /// Replicas that are heard of.
    pub(super) replicas: u32,
    /// Not all slots are in use, so there may soon be more.
    pub(super) unused: bool,
    /// Others wait for more than they have.
    pub(super) wanted: bool,
    /// Not every replica has spoken since the store lost its data.
    pub(super) settling: bool,
}

impl Table {
    /// Reads one; `None` if it is not to be understood.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().filter(|table: &Self| table.form == FORM)
    }

    /// What the store is given.
    pub(super) fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn new(run: u64, now: Millis) -> Self {
        Self { form: FORM, era: Era { run, made: now }, pool: 0, lines: Vec::new() }
    }

    fn line(&self, id: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.id == id)
    }

    fn line_mut(&mut self, id: &str) -> Option<&mut Line> {
        self.lines.iter_mut().find(|line| line.id == id)
    }

    fn put(&mut self, line: Line) {
        if let Some(there) = self.line_mut(&line.id) {
            *there = line;
            return;
        }
        // In one order for all, for all have to come to the same end.
        let place = self.lines.partition_point(|there| there.id < line.id);
        self.lines.insert(place, line);
    }

    fn is_settling(&self, terms: &Terms, now: Millis) -> bool {
        self.lines.iter().any(|line| line.standing == Standing::Missing && now < line.over(terms))
            || now < self.era.made + terms.settle
    }

    /// What the replicas that have spoken take, but for one.
    fn pooled(&self, but: &str) -> u32 {
        let spoken = self.lines.iter().filter(|line| line.standing == Standing::Here && line.id != but);
        spoken.fold(0, |sum: u32, line| sum.saturating_add(line.taken().all))
    }

    /// Takes over what `earlier` says of replicas other than `me`, as it was at `then`, when the clock said `behind` less
    /// than this one would have.
    fn remember(&mut self, earlier: &Self, then: Millis, behind: i64, me: &str, terms: &Terms) {
        for line in earlier.lines.iter().filter(|line| line.id != me) {
            let standing = match line.standing {
                // Of the same table: what it lacks has ended since.
                Standing::Here if earlier.era == self.era => continue,
                Standing::Here if line.is_fresh(terms, then) => Standing::Missing,
                Standing::Here => Standing::Gone,
                known => known,
            };
            let later = |moment: Millis| moment.saturating_add_signed(behind);
            let heard = later(line.heard);
            match self.line_mut(&line.id) {
                Some(there) if there.standing == Standing::Here => {}
                Some(there) => {
                    there.granted = there.granted.most(line.granted);
                    there.uses = there.uses.most(line.uses);
                    there.heard = there.heard.max(heard);
                    if standing == Standing::Missing {
                        there.standing = standing;
                    }
                }
                None => self.put(Line {
                    standing,
                    heard,
                    born: later(line.born),
                    leaves: line.leaves.map(later),
                    ..line.clone()
                }),
            }
        }
    }

    /// How many slots there are, as those say who see least.
    fn capacity(&self, terms: &Terms, now: Millis) -> Part {
        let fresh = self.lines.iter().filter(|line| line.is_fresh(terms, now)).map(|line| line.capacity);
        fresh.reduce(Part::least).unwrap_or_default()
    }

    fn lost(&self, capacity: Part) -> u32 {
        // They may have ended long ago: that they might run on never takes more than half.
        self.lines.iter().fold(0, |sum: u32, line| sum.saturating_add(line.lost)).min(capacity.all / 2)
    }

    /// What each fresh replica should have.
    fn targets(&self, capacity: Part, terms: &Terms, now: Millis) -> Vec<(&Line, Part)> {
        let (fresh, others): (Vec<_>, Vec<_>) = self.lines.iter().partition(|line| line.is_fresh(terms, now));
        let taken = others.iter().fold(Part::even(self.lost(capacity)), |sum, line| sum.and(line.taken()));
        let room = capacity.without(taken);
        let spare = |capacity: u32| -> Vec<u32> {
            let replicas = u32::try_from(fresh.len()).unwrap_or(u32::MAX).max(1);
            // Enough for the next call not to wait for the store; what a replica takes with it when it dies is little.
            vec![(capacity / replicas / 4).max(1); fresh.len()]
        };
        let needs = |class: Class, uses: fn(Part) -> u32| -> Vec<u32> {
            fresh.iter().map(|line| uses(line.uses).saturating_add(line.wants(class))).collect()
        };
        let of_interactive = needs(Class::Interactive, |uses| uses.all.saturating_sub(uses.unreserved));
        let of_standard = needs(Class::Standard, |uses| uses.unreserved.saturating_sub(uses.batch));
        let of_batch = needs(Class::Batch, |uses| uses.batch);
        // The urgent first; and what a class cannot have for other reasons counts for nothing.
        let none = vec![0; fresh.len()];
        let mut batch = none.clone();
        let of_batch = fill(room.batch, &mut batch, &of_batch);
        fill(room.batch, &mut batch, &spare(capacity.batch));
        let mut unreserved = none.clone();
        let of_standard = fill(room.unreserved, &mut unreserved, &of_standard);
        let of_batch = fill(room.unreserved, &mut unreserved, &of_batch);
        fill(room.unreserved, &mut unreserved, &spare(capacity.unreserved));
        let mut all = none;
        for wanted in [of_interactive, of_standard, of_batch, spare(capacity.all)] {
            fill(room.all, &mut all, &wanted);
        }
        let parts = all.into_iter().zip(unreserved).zip(batch);
        let parts = parts.map(|((all, unreserved), batch)| Part { all, unreserved, batch });
        fresh.into_iter().zip(parts).collect()
    }
}

/// Gives each of those who have `given` up to `more`, those with the least first, until all have `capacity` together. Says
/// how much each was given.
fn fill(capacity: u32, given: &mut [u32], more: &[u32]) -> Vec<u32> {
    let before = given.to_vec();
    let most: Vec<u32> = given.iter().zip(more).map(|(given, more)| given.saturating_add(*more)).collect();
    let mut left = capacity.saturating_sub(given.iter().fold(0, |sum: u32, given| sum.saturating_add(*given)));
    while left > 0 {
        let open = given.iter_mut().zip(&most).filter(|(given, most)| **given < **most);
        let Some((least, _)) = open.min_by_key(|(given, _)| **given) else { break };
        *least += 1;
        left -= 1;
    }
    given.iter().zip(before).map(|(given, before)| given - before).collect()
}

/// What a replica knows when it comes to a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past<'a> {
    pub(super) me: &'a str,
    /// The last table it saw, and how long ago by its own clock.
    pub(super) memory: Option<(&'a Memory, Millis)>,
    /// The last table it is known to have spoken in.
    pub(super) spoke: Option<Era>,
    /// What its line said last.
    pub(super) claim: Part,
}

/// The table to go on with, where the store holds `there` in its `version` and `run`: the same, unless data were lost.
pub(super) fn renewed(
    there: Option<Table>,
    (run, version): (u64, u64),
    past: Past<'_>,
    terms: &Terms,
    now: Millis,
) -> Table {
    let Past { me, memory, spoke, claim } = past;
    let went_back = memory.is_some_and(|(memory, _)| memory.table.era.run == run && version < memory.version);
    let mut table = match there {
        Some(table) if table.era.run == run && !went_back => table,
        there => {
            let mut table = Table::new(run, now);
            if let Some(earlier) = there {
                let then = earlier.lines.iter().map(|line| line.heard).max().unwrap_or_default();
                table.remember(&earlier, then, 0, me, terms);
            }
            table
        }
    };
    let has_spoken = table.line(me).is_some_and(|line| line.standing == Standing::Here);
    if let Some((memory, elapsed)) = memory
        && !has_spoken
        && spoke != Some(table.era)
    {
        let settling = table.is_settling(terms, now);
        let expected = i64::try_from(memory.now.saturating_add(elapsed)).unwrap_or(i64::MAX);
        let behind = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(expected);
        table.remember(&memory.table, memory.now, behind, me, terms);
        let others = if settling { table.pool } else { table.pooled(me) };
        table.pool = others.saturating_add(claim.all);
        table.put(Line::new(me, now, claim));
    }
    table
}

/// Writes `news` into the line of `me`, and what it may have from now on. `doubt`: others may not have seen what it
/// remembers. `None`: there is no room for it.
pub(super) fn share(
    table: &mut Table,
    me: &str,
    news: &News,
    doubt: bool,
    terms: &Terms,
    now: Millis,
) -> Option<Outcome> {
    table.lines.retain(|line| line.id == me || now < line.over(terms));
    if table.line(me).is_none() {
        if table.lines.len() >= MOST {
            return None;
        }
        table.put(Line::new(me, now, Part::default()));
    }
    let line = table.line_mut(me)?;
    if doubt || !line.is_fresh(terms, now) {
        line.born = now;
    }
    line.standing = Standing::Here;
    line.heard = line.heard.max(now);
    (line.uses, line.lost, line.wants, line.capacity) = (news.uses, news.lost, news.wants, news.capacity);
    line.leaves = news.leaves.map(|by| now + by);
    let (before, born) = (line.granted, line.born);
    if news.leaves.is_some() {
        line.granted = Part::default();
        (line.wants, line.lost) = ([0; CLASSES], 0);
    }
    let outcome = if news.leaves.is_some() { Outcome::default() } else { table.divided(me, before, born, terms, now) };
    let line = table.line_mut(me)?;
    line.granted = outcome.written;
    if line.leaves.is_some() && line.uses == Part::default() {
        table.lines.retain(|line| line.id != me);
    }
    Some(outcome)
}

impl Table {
    /// What follows for `me`, to whom `before` was granted.
    fn divided(&self, me: &str, before: Part, born: Millis, terms: &Terms, now: Millis) -> Outcome {
        let capacity = self.capacity(terms, now);
        let lost = self.lost(capacity);
        let targets = self.targets(capacity, terms, now);
        let target = targets.iter().find(|(line, _)| line.id == me).map(|(_, target)| *target).unwrap_or_default();
        let others = || self.lines.iter().filter(|line| line.id != me);
        let elsewhere = others().fold(Part::default(), |sum, line| sum.and(line.taken()));
        let mut free = capacity.without(elsewhere.and(Part::even(lost)));
        let settling = self.is_settling(terms, now);
        if settling {
            free.all = free.all.min(self.pool.saturating_sub(self.pooled(me)));
        }
        if others().any(|line| line.is_fresh(terms, now) && line.heard <= born) {
            free = free.least(before);
        }
        let uses = self.line(me).map(|line| line.uses).unwrap_or_default();
        let limit = target.least(free);
        let heard = |line: &Line| line.is_fresh(terms, now);
        let gone = others().filter(|line| !heard(line)).fold(0, |sum: u32, line| sum.saturating_add(line.taken().all));
        let in_use = others().fold(lost, |sum: u32, line| {
            sum.saturating_add(if heard(line) { line.uses.all } else { line.taken().all })
        });
        let facts = Facts {
            capacity,
            elsewhere: elsewhere.all,
            gone,
            replicas: u32::try_from(targets.len()).unwrap_or(u32::MAX),
            used: in_use,
            unused: in_use.saturating_add(uses.all) < capacity.all,
            wanted: targets.iter().any(|(line, target)| {
                let lacks = |granted: u32, target: u32| granted < target && line.wants.iter().any(|wants| *wants > 0);
                line.id != me
                    && (lacks(line.granted.all, target.all)
                        || lacks(line.granted.unreserved, target.unreserved)
                        || lacks(line.granted.batch, target.batch))
            }),
            settling,
        };
        // What its calls take stays its own until they end.
        Outcome { limit, written: limit.most(before.least(uses)), facts }
    }
}

#[cfg(test)]
impl Table {
    /// What all lines take, for tests.
    pub(super) fn taken(&self) -> u32 {
        self.lines.iter().map(|line| line.taken().all).sum()
    }

    /// When it was made, by the store's clock.
    pub(super) fn made(&self) -> Millis {
        self.era.made
    }

    /// The ids of all lines.
    pub(super) fn ids(&self) -> Vec<SmolStr> {
        self.lines.iter().map(|line| line.id.clone()).collect()
    }
}
