//! Daily budgets: what is guaranteed must be there to give.

use std::time::Duration;

use super::{At, Check};
use crate::config::daily::{
    DailyLimit, DailyMode, KeptFile, LadderFile, OnLoss, OnLossWord, PollFile, ShareFile, SharedLoss, StateFile,
};
use crate::config::file::{ConfigFile, OrgFile};
use crate::config::model::{Daily, Ladder, Org, Poll, Share, State};
use crate::config::problem::Fault;
use crate::config::value::{Percent, Text, Written as _};

/// Salesforce's own figure is up to five minutes old, and it asks not to be asked often (facts 1.6); the ledger counts in
/// minutes.
const POLLS: std::ops::RangeInclusive<Duration> = Duration::from_mins(1)..=Duration::from_hours(24);
/// Where it is remembered what was spent, unless the file says otherwise.
const FOLDER: &str = "data";

impl Check<'_> {
    /// An org's allowance; `shared` says whether any caller has a floor or a ceiling.
    pub(super) fn daily(&mut self, at: &At, org: &OrgFile, shared: bool) -> Daily {
        let written = &org.daily;
        if written.keep_free.0.0 >= 1_000 {
            let fault = Fault::new("all of the limit is kept free, and no call is left to send");
            self.wrong(&at.key("keep_free"), fault.hint("5% is usual; to send nothing, pause the callers"));
        }
        let first_reading_within = self.positive(&at.key("first_reading_within"), written.first_reading_within);
        let wanted = written.limit.is_some() || shared;
        Daily {
            mode: written.mode.unwrap_or(if wanted { DailyMode::Enforce } else { DailyMode::Observe }),
            limit: match written.limit {
                Some(DailyLimit::Calls(calls)) => Some(calls),
                Some(DailyLimit::FromSalesforce) | None => None,
            },
            keep_free: written.keep_free.0.0,
            assume: written.assume.map(|calls| calls.0),
            before_first_reading: written.before_first_reading.0,
            first_reading_within,
            poll: written.poll.as_ref().and_then(|poll| self.poll(&at.key("poll"), poll, org)),
        }
    }

    /// Who asks has to be somebody.
    fn poll(&mut self, at: &At, written: &PollFile, org: &OrgFile) -> Option<Poll> {
        let every = self.between(&at.key("every"), written.every.0.0, &POLLS);
        // In the order in which they are held.
        let known: Vec<&str> = org.auth.iter().flatten().map(|(Text(name), _)| name.0.as_str()).collect();
        let place = if let Some(Text(named)) = &written.identity {
            let place = known.iter().position(|name| *name == named.0);
            if place.is_none() {
                let fault = Fault::unknown("identity", &named.0, &known);
                self.wrong(
                    &at.key("identity"),
                    if known.is_empty() { fault.hint("the org has no auth") } else { fault },
                );
            }
            place
        } else {
            if known.is_empty() {
                self.wrong(at, Fault::new("nobody to ask as").hint("give the org auth with an identity"));
            } else if known.len() > 1 {
                self.missing(&at.key("identity"), "the org has several identities: name one");
            }
            (known.len() == 1).then_some(0)
        };
        Some(Poll { identity: u16::try_from(place?).ok()?, every })
    }

    /// Whether any caller is promised or denied anything.
    pub(super) fn shared(file: &ConfigFile) -> bool {
        file.callers.iter().any(|caller| caller.daily.floor.0 > 0 || caller.daily.ceiling.is_some())
    }

    pub(super) fn share(&mut self, at: &At, written: &ShareFile) -> Share {
        let (floor, ceiling) = (written.floor.0, written.ceiling.map(|ceiling| ceiling.0));
        if let Some(ceiling) = ceiling
            && ceiling < floor
        {
            let fault = Fault::new(format!("the ceiling of {ceiling} is below the floor of {floor}"));
            self.wrong(&at.key("ceiling"), fault.hint("a caller cannot be guaranteed more than it may use"));
        }
        Share { floor, ceiling, weight: written.weight.as_u32() }
    }

    /// Floors together must fit into what every org with a number for its limit has to give. What Salesforce's own limit
    /// is, nobody knows yet: if it turns out to be too low, floors scale down together, with a warning.
    pub(super) fn floors_fit(&mut self, at: &At, file: &ConfigFile, orgs: &[Org]) {
        let floors: u64 = file.callers.iter().map(|caller| caller.daily.floor.0).sum();
        for org in orgs {
            let Some(limit) = org.daily.limit.or(org.daily.assume) else { continue };
            let pool = limit - limit * u64::from(org.daily.keep_free.min(1_000)) / 1_000;
            let Some(place) =
                file.orgs.iter().position(|written| written.name.as_ref().is_some_and(|name| name.0.0 == org.name))
            else {
                continue;
            };
            if floors > pool {
                let fault = Fault::new(format!(
                    "the floors of all callers add up to {floors} calls, and {} has {pool} to give (limit less keep_free)",
                    org.name
                ));
                self.wrong(&at.index(place).key("daily"), fault.hint("lower some callers[].daily.floor"));
            }
        }
    }

    pub(super) fn ladder(&mut self, at: &At, written: &LadderFile) -> Ladder {
        let steps = [
            ("lean", written.lean),
            ("pace_batch", written.pace_batch),
            ("stop_batch", written.stop_batch),
            ("stop_standard", written.stop_standard),
        ];
        for pair in steps.windows(2) {
            let [(lower, Text(before)), (upper, Text(after))] = pair else { continue };
            if before > after {
                let fault = Fault::new(format!("{} is below {lower}, {}", after.write(), before.write()));
                self.wrong(
                    &at.key(upper),
                    fault.hint("each step narrows more than the one before and comes no sooner"),
                );
            }
        }
        let Percent(back_below) = written.back_below.0;
        if back_below > written.lean.0.0 {
            let fault = Fault::new("the first step would never be left again");
            self.wrong(&at.key("back_below"), fault.hint("use less than lean"));
        }
        Ladder {
            lean: written.lean.0.0,
            pace_batch: written.pace_batch.0.0,
            stop_batch: written.stop_batch.0.0,
            stop_standard: written.stop_standard.0.0,
            back_below,
        }
    }

    pub(super) fn state(&mut self, at: &At, written: Option<&StateFile>, orgs: &[Org]) -> State {
        match written {
            Some(StateFile::Kept(kept)) => self.kept(at, kept).unwrap_or(State::Memory),
            None if orgs.iter().any(|org| org.daily.mode == DailyMode::Enforce) => {
                State::Folder { path: self.base.join(FOLDER), on_loss: OnLoss::default() }
            }
            Some(StateFile::Memory) | None => State::Memory,
        }
    }

    fn kept(&mut self, at: &At, written: &KeptFile) -> Option<State> {
        let on_loss_at = at.key("on_loss");
        match (&written.path, &written.redis) {
            (Some(_), Some(_)) => {
                let fault = Fault::new("a folder and a shared store");
                self.wrong(at, fault.hint("leave out one of path and redis"));
                None
            }
            (None, None) => {
                let hint =
                    "write a folder on a local disk, such as ./data, a shared store under redis, or state: memory";
                self.missing(&at.key("path"), hint);
                None
            }
            (Some(path), None) => {
                let on_loss = match written.on_loss {
                    None | Some(OnLossWord::Refuse) => OnLoss::Refuse,
                    Some(OnLossWord::Continue) => OnLoss::Continue,
                    Some(OnLossWord::SpendLease | OnLossWord::SafeShare) => {
                        let fault = Fault::new("only a shared store has leases and shares");
                        self.wrong(&on_loss_at, fault.hint("refuse or continue"));
                        OnLoss::Refuse
                    }
                };
                Some(State::Folder { path: self.path(path), on_loss })
            }
            (None, Some(redis)) => {
                let on_loss = match written.on_loss {
                    None | Some(OnLossWord::SafeShare) => SharedLoss::SafeShare,
                    Some(OnLossWord::SpendLease) => SharedLoss::SpendLease,
                    Some(OnLossWord::Refuse) => SharedLoss::Refuse,
                    Some(OnLossWord::Continue) => {
                        let fault = Fault::new("replicas that go on each for itself pass every ceiling");
                        self.wrong(&on_loss_at, fault.hint("safe_share, spend_lease or refuse"));
                        SharedLoss::default()
                    }
                };
                let redis = self.redis(&at.key("redis"), redis)?;
                Some(State::Redis { redis: Box::new(redis), on_loss })
            }
        }
    }
}
