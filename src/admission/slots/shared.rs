//! What one replica knows of the slots it shares with others, and what it may use of them.
//!
//! One exchange with the store is: look at the table, [`Sharer::offer`] another one, swap them, [`Sharer::confirm`]. What
//! an offer takes away holds at once, what it adds holds once it is confirmed; of an offer whose fate is unknown nothing
//! but the former ever holds.

use std::time::Duration;

use smol_str::SmolStr;
use tokio::time::Instant;

use super::share::{Era, Facts, Memory, Millis, News, Outcome, Part, Past, Table, Terms, renewed, share};

/// What the store holds.
#[derive(Debug, Clone, Copy)]
pub struct Sight<'a> {
    /// The table, if there is one.
    pub value: Option<&'a [u8]>,
    /// Grows with every change.
    pub version: u64,
    /// The store's time, since the Unix epoch.
    pub now: Duration,
    /// Another one means that the store has lost its data.
    pub run: u64,
    /// When it was asked for, by this process's clock.
    pub asked: Instant,
}

/// A table to replace the one that was seen.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The table.
    pub value: Vec<u8>,
    outcome: Outcome,
    era: Era,
    /// When what it grants ends, unless it is renewed.
    until: Instant,
}

/// The store holds something that this version does not understand, or is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the table of slots cannot be used")]
pub struct Unusable;

/// One replica's part of one org's slots.
#[derive(Debug)]
pub(super) struct Sharer {
    me: SmolStr,
    terms: Terms,
    limit: Part,
    /// What others surely leave to it.
    held: Part,
    until: Option<Instant>,
    memory: Option<(Memory, Instant)>,
    spoke: Option<Era>,
    doubt: bool,
    pub(super) facts: Facts,
}

fn millis(time: Duration) -> Millis {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Sharer {
    pub(super) fn new(me: &str, terms: Terms) -> Self {
        Self {
            me: me.into(),
            terms,
            limit: Part::default(),
            held: Part::default(),
            until: None,
            memory: None,
            spoke: None,
            doubt: false,
            facts: Facts::default(),
        }
    }

    /// With more than this in the air nothing is let in at `now`.
    pub(super) fn limit(&self, now: Instant) -> Part {
        if self.until.is_some_and(|until| now < until) { self.limit } else { Part::default() }
    }

    /// Others wait for what its line keeps from them, although its calls do not take it.
    pub(super) fn could_give(&self, uses: Part) -> bool {
        self.facts.wanted && self.held.all > self.limit.all.max(uses.all)
    }

    /// What the table should say, now that it says what `sight` shows.
    pub(super) fn offer(&mut self, sight: &Sight<'_>, news: &News, now: Instant) -> Result<Offer, Unusable> {
        let there = match sight.value {
            Some(text) => Some(Table::read(text).ok_or(Unusable)?),
            None => None,
        };
        let store_now = millis(sight.now);
        let longest = Duration::from_millis(self.terms.longest);
        let past = Past {
            me: &self.me,
            memory: self.memory.as_ref().map(|(memory, at)| (memory, millis(now.saturating_duration_since(*at)))),
            spoke: self.spoke,
            // Later others may have taken it.
            claim: if self.until.is_some_and(|until| now < until + longest) { self.held } else { Part::default() },
        };
        let mut table = renewed(there, (sight.run, sight.version), past, &self.terms, store_now);
        let outcome = share(&mut table, &self.me, news, self.doubt, &self.terms, store_now).ok_or(Unusable)?;
        self.limit = self.limit.least(outcome.limit);
        self.held = self.held.least(outcome.written);
        let (value, era) = (table.text(), table.era);
        self.memory = Some((Memory { table, version: sight.version, now: store_now }, sight.asked));
        Ok(Offer { value, outcome, era, until: sight.asked + Duration::from_millis(self.terms.lease) })
    }

    /// The store holds what `offer` says, under this version.
    pub(super) fn confirm(&mut self, offer: &Offer, version: u64) {
        self.limit = offer.outcome.limit;
        self.held = offer.outcome.written;
        self.facts = offer.outcome.facts;
        self.until = Some(offer.until);
        self.spoke = Some(offer.era);
        self.doubt = false;
        if let Some((memory, _)) = &mut self.memory {
            memory.version = version;
        }
    }

    /// The store could not be asked, or did not answer: what it holds may not be what it held.
    pub(super) fn failed(&mut self) {
        self.doubt = true;
    }

    /// It lets nothing in any more until it is confirmed again.
    pub(super) fn stop(&mut self) {
        self.limit = Part::default();
    }
}

#[cfg(test)]
mod tests;
