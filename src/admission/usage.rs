//! The truth from Salesforce: what the org has used, as far as its readings tell.
//!
//! A reading (`Sforce-Limit-Info`, SOAP's `LimitInfoHeader`, or `/limits`) says how many calls the whole org used
//! of how many (facts 1.6, 1.7). It lags behind, it is not exact, and it releases old calls in steps (facts 1.1).
//! From it this module learns *dark usage*, the calls that did not come through us:
//!
//! - What a reading shows beyond every call of ours it could contain is dark for certain. It is booked in the
//!   minute of the reading, the latest minute possible, and stays for a window of its own. Calls that we released
//!   and Salesforce may still hold are calls of ours that it could contain, not dark usage.
//! - What was booked is given up again as soon as a reading has no room for it beside the calls of ours it must
//!   contain. So the first reading may be booked whole, and falls with Salesforce's own releases.
//! - What has been booked for 24 h comes back, unless the last reading still has room for it: then others are taken to
//!   go on as they did the day before, and it is booked once more. So in a silence, when no reading comes, only calls of
//!   ours come back. A reading older than the window says nothing any more.
//! - Where the silence is our own doing, because nothing seems to be left, others are feared to use a quarter more than
//!   that, and to go on at their pace where the day before is not known. Otherwise they could pass the ceiling unseen,
//!   and the first call of ours that comes back would be sent beyond it.
//!
//! Org used = max(own + dark, last reading + own calls it may not contain) + twice the dark calls that readings do not
//! show yet at the pace of the last hour: others may use more now than lately, and nobody would see it in time. A single
//! burst counts for nothing in that pace: it is over, as far as anyone can tell, and is itself booked.

use serde::Serialize;

use super::ring::{AFTERMATH_MINUTES, Ring, WINDOW_MINUTES};
use super::settings::{Blind, OrgSettings};
use super::time::Minute;

/// What Salesforce said about the org's use of its daily allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Reading {
    /// Calls used in the trailing 24 h.
    pub used: u64,
    /// Calls allowed in 24 h.
    pub limit: u64,
}

impl Reading {
    /// A reading of `/limits`, whose `Remaining` may be negative (facts 1.6); `None` if it makes no sense.
    pub fn from_limits(max: i64, remaining: i64) -> Option<Self> {
        let used = max.checked_sub(remaining)?;
        Some(Self { used: u64::try_from(used).ok()?, limit: u64::try_from(max).ok()? })
    }
}

/// Why a reading was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Misread {
    /// The limit is zero, or numbers are beyond anything Salesforce sells.
    Absurd,
    /// Far from the reading before it and from what we sent since; believed if the next one agrees.
    Jump,
}

/// What the ceiling rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Footing {
    /// No reading yet: only a few calls may be spent.
    Awaiting,
    /// Readings of Salesforce.
    Read,
    /// No reading came; the operator said what to assume.
    Assumed,
    /// No reading came and nothing is assumed: nothing is refused, everything is counted.
    Blind,
}

/// No org has more calls a day than this.
const MOST_CALLS: u64 = 1_000_000_000;
/// Over how many minutes the pace of dark usage is taken.
const PACE_MINUTES: u32 = 60;
/// What is learned within so many minutes is one burst: as long as a reading may lag.
const SPAN_MINUTES: u32 = 10;
/// How far the spans of a steady use differ at most, when readings lag now more and now less.
const BURST: u64 = 4;

#[derive(Debug, Clone, Copy)]
struct Last {
    reading: Reading,
    at: Minute,
    /// Most calls of others it can show, beside those of ours that it must contain.
    dark_at_most: u64,
}

/// What is known of the org's use.
#[derive(Debug, Clone)]
pub(super) struct Truth {
    settings: OrgSettings,
    started: Minute,
    footing: Footing,
    last: Option<Last>,
    suspect: Option<Reading>,
    /// Own calls spent after the last reading.
    since: u64,
    /// Calls of ours that other replicas may have sent and did not tell yet.
    others: u64,
    /// Own calls before the last reading that dark usage may have hidden from it.
    masked: u64,
    /// Calls the last reading contains that have come back since.
    returned: u64,
    dark: Ring,
    /// The part of `dark` that was booked once more.
    renewed: Ring,
    /// Dark calls booked in this minute or before it say nothing about the pace.
    unpaced: Minute,
    /// Dark calls no reading shows yet, and as many again for the case that others use more now than lately.
    unseen: u64,
    /// Further ones that are feared in a silence of our own doing.
    feared: u64,
    /// Dark calls that have left the window since the last reading.
    gone: u64,
    /// Dark calls of the last hour in which there were readings.
    hourly: u64,
    /// When Salesforce was first heard of.
    known_from: Minute,
    /// Highest `dark_at_most` of the minute before that of the last reading.
    dark_before: u64,
    /// Up to when Salesforce is known to have released.
    stepped: Minute,
    /// A later release seen in a reading, and when; a reading that lags more may still come from before it.
    stepping: Option<(Minute, Minute)>,
    /// Own and dark calls released by us that Salesforce may still count, and for which minute that was found.
    unreleased: (Minute, u64),
    young: Young,
}

/// What a reading need not contain, apart from the running minute: found once a minute, because every answer is a
/// reading. Calls of it that turn out not to be charged are counted until the minute is over.
#[derive(Debug, Clone, Copy, Default)]
struct Young {
    minute: Minute,
    /// Own calls of the minutes by which a reading may lag.
    own: u64,
    /// Dark calls booked in them.
    dark: u64,
    /// Own calls that Salesforce may just have released.
    leaving: u64,
}

impl Truth {
    pub(super) fn new(settings: OrgSettings, now: Minute) -> Self {
        Self {
            settings,
            started: now,
            footing: Footing::Awaiting,
            last: None,
            suspect: None,
            since: 0,
            others: 0,
            masked: 0,
            returned: 0,
            dark: Ring::new(now),
            renewed: Ring::new(now),
            unpaced: now,
            unseen: 0,
            feared: 0,
            gone: 0,
            hourly: 0,
            known_from: now,
            dark_before: u64::MAX,
            stepped: Minute(0),
            stepping: None,
            unreleased: (Minute(0), 0),
            young: Young::default(),
        }
    }

    pub(super) fn reconfigure(&mut self, settings: OrgSettings) {
        self.settings = settings;
        self.young = Young::default();
    }

    pub(super) fn footing(&self) -> Footing {
        self.footing
    }

    pub(super) fn last(&self) -> Option<(Reading, Minute)> {
        self.last.map(|last| (last.reading, last.at))
    }

    /// The dark calls there should be: those known of, half of those that are expected not to be shown yet, and those that
    /// are feared without the quarter that is added for safety.
    pub(super) fn dark(&self) -> u64 {
        self.dark.sum() + self.unseen / 4 + self.feared - self.feared / 5
    }

    pub(super) fn dark_ring(&self) -> &Ring {
        &self.dark
    }

    /// Calls used by the whole org, when `own` calls of ours are in the window.
    pub(super) fn used(&self, own: u64) -> u64 {
        let shown = match self.last {
            Some(last) => (last.reading.used + self.since + self.masked).saturating_sub(self.returned),
            None => 0,
        };
        shown.max(own + self.dark.sum()) + self.unseen + self.feared
    }

    /// The daily limit in force; `None` while nothing is known of it.
    pub(super) fn limit(&self) -> Option<u64> {
        let said = match (self.footing, self.settings.blind) {
            (Footing::Read, _) => self.last.map(|last| last.reading.limit),
            (Footing::Assumed, Blind::Assume(calls)) => Some(calls),
            _ => None,
        };
        match (said, self.settings.limit) {
            (Some(said), Some(set)) => Some(said.min(set)),
            (said, set) => said.or(set),
        }
    }

    /// How many calls the org may use: the limit less what is to be kept free.
    pub(super) fn ceiling(&self) -> Option<u64> {
        self.limit().map(|limit| limit - self.settings.keep_free.of_rounded_up(limit))
    }

    /// Calls of ours sent since the last reading, or since the start if there was none.
    pub(super) fn spent_unread(&self) -> u64 {
        self.since
    }

    pub(super) fn spent(&mut self, calls: u64) {
        self.since += calls;
    }

    /// Other replicas may have sent so many calls that nobody was told of.
    pub(super) fn others_untold(&mut self, calls: u64) {
        self.others = calls;
    }

    /// Calls of earlier minutes were counted.
    pub(super) fn imported(&mut self) {
        self.young = Young::default();
    }

    pub(super) fn charged_less(&mut self, calls: u64) {
        self.since = self.since.saturating_sub(calls);
    }

    /// Takes in what Salesforce said. `own` are our calls, `unproven` of which may never have been sent.
    pub(super) fn read(&mut self, reading: Reading, own: &Ring, unproven: u64, now: Minute) -> Result<(), Misread> {
        self.check(reading, now)?;
        self.notice_step(reading, own, now);
        let first = self.last.is_none();
        self.dark.extend(now);

        let could_contain = own.sum() + self.dark.sum() + self.unreleased(own, now) + self.others;
        let surplus = reading.used.saturating_sub(could_contain);
        if first || self.last.is_some_and(|last| now.0 - last.at.0 > PACE_MINUTES) {
            self.unpaced = now;
        }
        if first {
            self.known_from = now;
        }
        (self.feared, self.gone) = (0, 0);
        let mut learned = self.dark.add(now, u32::try_from(surplus).unwrap_or(u32::MAX)) > 0;

        let lag = self.settings.lag_at_most;
        let young = self.young(own, now);
        let (own_young, dark_young) = (young.own + own.running(), young.dark + self.dark.running());
        // Calls of ours that it must contain: old enough to be shown, too young to be released.
        let own_sure = own.sum().saturating_sub(own_young + young.leaving).saturating_sub(unproven);
        let dark_at_most = reading.used.saturating_sub(own_sure);
        let dark_at_most = match self.last {
            Some(last) if last.at == now => dark_at_most.max(last.dark_at_most),
            Some(last) => {
                self.dark_before = last.dark_at_most;
                dark_at_most
            }
            None => dark_at_most,
        };
        // Readings of one moment differ; the higher one of two minutes counts.
        let bound = dark_at_most.max(if first { 0 } else { self.dark_before.min(MOST_CALLS * 2) });
        let settled = self.dark.sum().saturating_sub(dark_young);
        if settled > bound {
            learned |= self.dark.take_oldest(settled - bound, Minute(now.0.saturating_sub(lag + 1))) > 0;
        }

        self.last = Some(Last { reading, at: now, dark_at_most });
        self.footing = Footing::Read;
        self.since = 0;
        self.returned = 0;
        self.masked = own_young.min(self.dark.sum());
        if learned || first {
            self.look_ahead();
        }
        Ok(())
    }

    fn young(&mut self, own: &Ring, now: Minute) -> Young {
        if self.young.minute != now {
            let until = now.0.saturating_sub(self.settings.lag_at_most);
            let from = window_start(now).0 + 2;
            self.young = Young {
                minute: now,
                own: own.between(until.max(from), now.0),
                dark: self.dark.between(until, now.0),
                leaving: own.between(own.first().0, from),
            };
        }
        self.young
    }

    /// Own and dark calls that have left our window and may still be in Salesforce's.
    fn unreleased(&mut self, own: &Ring, now: Minute) -> u64 {
        if self.unreleased.0 != now {
            if let Some((released, seen)) = self.stepping
                && now.0 > seen.0 + self.settings.lag_at_most
            {
                (self.stepped, self.stepping) = (released, None);
            }
            let late = self.settings.release_late_at_most.min(AFTERMATH_MINUTES);
            let from = window_start(self.stepped.max(Minute(now.0.saturating_sub(late)))).0;
            let calls = own.between(from, own.first().0) + self.dark.between(from, self.dark.first().0);
            self.unreleased = (now, calls);
        }
        self.unreleased.1
    }

    /// A fall that only a release of everything that was due explains is Salesforce's step.
    fn notice_step(&mut self, reading: Reading, own: &Ring, now: Minute) {
        let Some(last) = self.last else { return };
        let fall = last.reading.used.saturating_sub(reading.used);
        if fall < 8 || self.stepping.is_some() {
            return;
        }
        let released = now.0.saturating_sub(self.settings.lag_at_most);
        let since = self.stepped.0.max(now.0.saturating_sub(AFTERMATH_MINUTES));
        let due = own.between(window_start(Minute(since)).0, window_start(Minute(released)).0);
        // A reading that merely lags more than the one before falls by no more than what came in meanwhile.
        let lagging = own.recent(self.settings.lag_at_most + 1) + self.unseen;
        if due > 0 && fall >= due + lagging {
            self.stepping = Some((Minute(released), now));
        }
    }

    fn check(&mut self, reading: Reading, now: Minute) -> Result<(), Misread> {
        let Reading { used, limit } = reading;
        if limit == 0 || limit > MOST_CALLS || used > limit.saturating_mul(10) + 10_000 {
            return Err(Misread::Absurd);
        }
        if let Some(last) = self.last {
            let (before, known) = (last.reading.used, last.reading.limit);
            let slack = known / 4 + 100;
            let minutes = u64::from(now.0.saturating_sub(last.at.0));
            // A quarter of the limit at once, and as much again for each hour without a reading.
            let slack = slack + slack * minutes / 60;
            let jumps = used > before + self.since + self.masked + slack || used + 2 * slack < before;
            let resized = limit > known * 2 || limit * 2 < known;
            if (jumps || resized) && !self.suspect.is_some_and(|suspect| agree(suspect, reading)) {
                self.suspect = Some(reading);
                return Err(Misread::Jump);
            }
        }
        self.suspect = None;
        Ok(())
    }

    /// Called once a minute, after `own` has been released up to `now`. `silenced` says that calls were refused because
    /// nothing seems to be left, so that no reading may come.
    pub(super) fn elapse(&mut self, own: &Ring, silenced: bool, now: Minute) {
        let gone = self.dark.release(now);
        self.renewed.release(now);
        if let Some(last) = self.last {
            let late = self.settings.release_late_at_most.min(AFTERMATH_MINUTES);
            let void = now.0 - last.at.0 > WINDOW_MINUTES + late;
            self.gone += gone;
            self.feared = 0;
            if now.0 - last.at.0 <= 1 {
                self.hourly = self.dark_pace(60);
            }
            if void {
                self.returned = last.reading.used + self.masked;
                self.dark.take_oldest(u64::MAX, now);
            } else {
                let room = last.dark_at_most.max(self.dark_before.min(last.reading.used));
                let renewed = gone.min(room.saturating_sub(self.dark.sum()));
                let renewed = u32::try_from(renewed).unwrap_or(u32::MAX);
                self.dark.add(now, renewed);
                self.renewed.add(now, renewed);
                let from = window_start(last.at).0 + 2;
                self.returned = own.between(from, window_start(Minute(now.0.saturating_sub(late))).0);
                if silenced {
                    self.feared = self.fear(last.at, now);
                }
            }
            if window_start(now) > last.at {
                self.since = self.since.min(own.sum());
            }
        }
        if self.last.is_none() && now.0 - self.started.0 >= self.settings.patience {
            self.footing = match self.settings.blind {
                Blind::Assume(_) => Footing::Assumed,
                Blind::Observe => Footing::Blind,
            };
        }
        self.look_ahead();
    }

    /// Dark calls beyond those known of that there may be at `now`, after a silence since the reading of `last`.
    fn fear(&self, last: Minute, now: Minute) -> u64 {
        // Up to then it is foreseen.
        let quiet = last.0 + self.settings.lag_at_most;
        let silent = u64::from(now.0.saturating_sub(quiet));
        let unknown = u64::from(now.0.min(self.known_from.0 + WINDOW_MINUTES).saturating_sub(quiet));
        let paced = self.dark.between(self.unpaced.0 + 1, now.0 + 1);
        let over = u64::from(last.0.saturating_sub(self.unpaced.0).clamp(PACE_MINUTES, WINDOW_MINUTES));
        let pace = paced * unknown / over + self.dark.sum().saturating_sub(paced) * unknown / u64::from(WINDOW_MINUTES);
        let hour = u64::from(PACE_MINUTES);
        // For an hour no less than lately; then as before.
        let expected = (pace + self.gone).max(self.hourly * silent.min(hour) / hour);
        (expected + expected.div_ceil(4)).saturating_sub(self.gone)
    }

    /// Minutes since the last reading; `None` before the first.
    pub(super) fn age(&self, now: Minute) -> Option<u32> {
        self.last.map(|last| now.0.saturating_sub(last.at.0))
    }

    /// Dark calls to be expected in `minutes` minutes: the pace at which they were learned lately, or else that of
    /// the whole day. What the first reading showed at once is no pace, and one burst is none either: of the spans
    /// of the last hour, the one in which most was learned counts no more than [`BURST`] times the next. A second
    /// burst makes it a habit.
    pub(super) fn dark_pace(&self, minutes: u32) -> u64 {
        let end = self.dark.latest().0 + 1;
        let from = (self.unpaced.0 + 1).max(end.saturating_sub(PACE_MINUTES));
        let (mut learned, mut most, mut next) = (0, 0, 0);
        let mut until = end;
        while until > from {
            let start = from.max(until.saturating_sub(SPAN_MINUTES));
            let here = self.dark.between(start, until).saturating_sub(self.renewed.between(start, until));
            learned += here;
            next = next.max(here.min(most));
            most = most.max(here);
            until = start;
        }
        let over = end.saturating_sub(from).clamp(15, PACE_MINUTES);
        let lately = ((learned - most + most.min(next * BURST)) * u64::from(minutes)).div_ceil(u64::from(over));
        let daily = self.dark.sum() * u64::from(minutes) / u64::from(WINDOW_MINUTES);
        lately.max(daily)
    }

    fn look_ahead(&mut self) {
        self.unseen = 2 * self.dark_pace(self.settings.lag_at_most);
    }
}

fn agree(one: Reading, other: Reading) -> bool {
    one.limit == other.limit && one.used.abs_diff(other.used) <= one.limit / 20 + 20
}

fn window_start(now: Minute) -> Minute {
    Minute((now.0 + 1).saturating_sub(WINDOW_MINUTES))
}
