//! When to log in: the state machine of one identity, told the time.
//!
//! Salesforce does not say how long a token lives (facts 5.2), so one is used until it is rejected or has reached four
//! fifths of the session length the operator expects; then one log-in is made while the old token still serves. After a
//! log-in that failed, no other is made before its back-off step has passed; after one that was refused, none is made
//! until the configuration is loaded again, for Salesforce locks out users who go on trying (facts 5.5).

use std::time::Duration;

use tokio::time::Instant;

use super::logins::Logins;
use crate::call::closed_list;

closed_list! {
    /// Why an identity has no usable token.
    Trouble {
        /// The token endpoint could not be reached, or did not answer in time.
        Unreachable = "unreachable",
        /// It answered with an error of its own, such as 503.
        Unavailable = "unavailable",
        /// What it answered is no token answer.
        Garbage = "garbage",
        /// It refused the log-in: the secret, key, user or app is not accepted.
        Refused = "refused",
        /// Salesforce rejects tokens that were just issued.
        Rejected = "rejected",
        /// This hour's log-ins of the user are used up.
        LoginBudget = "login_budget",
        /// As many callers as may wait for a log-in are waiting.
        Crowded = "crowded",
        /// The gateway stopped in the middle of a log-in.
        Interrupted = "interrupted",
    }
}

closed_list! {
    /// What an identity is doing.
    State {
        /// It has not logged in yet, or its token was rejected and the next call will log in.
        Empty = "empty",
        /// It has a usable token.
        Fresh = "fresh",
        /// A log-in is under way.
        Refreshing = "refreshing",
        /// A log-in failed; the next waits for its back-off step.
        BackOff = "back_off",
        /// A log-in was refused; none is made until the configuration is loaded again.
        Refused = "refused",
    }
}

/// A token rejected sooner than this after it was issued counts against the identity.
pub(super) const SETTLED: Duration = Duration::from_secs(10);
/// Wait after the first failure; doubled by each further one.
const FIRST_STEP: Duration = Duration::from_secs(1);
/// Longest wait between two attempts.
const LAST_STEP: Duration = Duration::from_mins(1);
/// How often an identity that was refused is looked up among what replicas share: another one may have a token by now.
const LOOKS_AGAIN: Duration = Duration::from_secs(10);

/// How long to wait after the `nth` failure in a row.
pub(super) fn step(nth: u32) -> Duration {
    FIRST_STEP.saturating_mul(1 << nth.saturating_sub(1).min(6)).min(LAST_STEP)
}

/// What a call that needs a token has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// Use the token there is.
    Use,
    /// Use the token there is, and start the log-in that was just granted.
    UseAndLogIn,
    /// Start the log-in that was just granted, and wait for it.
    LogIn,
    /// Wait for the log-in under way.
    Wait,
    /// There will be no token before then.
    NotBefore(Instant, Trouble),
    /// There will be none.
    Never(Trouble),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Resting,
    LoggingIn,
    BackOff {
        until: Instant,
        why: Trouble,
    },
    /// With `look_at`, it is looked up then whether another replica has a token.
    Refused {
        why: Trouble,
        look_at: Option<Instant>,
    },
}

#[derive(Debug, Clone, Copy)]
struct Held {
    epoch: u64,
    since: Instant,
    renew_at: Instant,
    ends: Option<Instant>,
}

/// One identity's state. It holds no secret: the token itself is kept beside it, under the same epoch.
#[derive(Debug)]
pub(super) struct Core {
    phase: Phase,
    held: Option<Held>,
    epoch: u64,
    /// Log-ins that failed in a row.
    failures: u32,
    /// Tokens in a row that were rejected before they had settled.
    strikes: u32,
    /// What was granted last is a look at what replicas share, and no log-in.
    looks_only: bool,
    logins: Logins,
}

impl Core {
    /// Nothing known, `per_hour` log-ins allowed.
    pub(super) fn new(per_hour: u32) -> Self {
        Self {
            phase: Phase::Resting,
            held: None,
            epoch: 0,
            failures: 0,
            strikes: 0,
            looks_only: false,
            logins: Logins::new(per_hour),
        }
    }

    /// Decides for one call. A grant to log in is given once; one of [`Self::granted`], [`Self::adopted`],
    /// [`Self::failed`], [`Self::held_back`] and [`Self::refused`] must follow it, and [`Self::begins`] before that if
    /// the token endpoint is asked.
    pub(super) fn want(&mut self, now: Instant) -> Want {
        let held = self.held.filter(|held| held.ends.is_none_or(|ends| now < ends));
        let otherwise = |want| if held.is_some() { Want::Use } else { want };
        match self.phase {
            Phase::LoggingIn => otherwise(Want::Wait),
            Phase::Refused { look_at: Some(at), .. } if held.is_none() && now >= at => {
                self.phase = Phase::LoggingIn;
                self.looks_only = true;
                Want::LogIn
            }
            Phase::Refused { why, .. } => otherwise(Want::Never(why)),
            Phase::BackOff { until, why } if now < until => otherwise(Want::NotBefore(until, why)),
            Phase::Resting | Phase::BackOff { .. } => {
                if held.is_some_and(|held| now < held.renew_at) {
                    return Want::Use;
                }
                match self.logins.spare(now) {
                    Ok(()) => {
                        self.phase = Phase::LoggingIn;
                        self.looks_only = false;
                        if held.is_some() { Want::UseAndLogIn } else { Want::LogIn }
                    }
                    Err(again) => otherwise(Want::NotBefore(again, Trouble::LoginBudget)),
                }
            }
        }
    }

    /// Whether the grant under way is for a look at what replicas share, and for no log-in.
    pub(super) fn looks_only(&self) -> bool {
        self.looks_only
    }

    /// The log-in that was granted begins: it counts.
    pub(super) fn begins(&mut self, now: Instant) {
        // There was one to spare when it was granted, and only one log-in is under way.
        let _ = self.logins.take(now);
    }

    /// A log-in brought a token that lives `certain` (if the answer said so) or about `expected`. Returns
    /// its epoch, and when it is to be renewed.
    pub(super) fn granted(&mut self, now: Instant, certain: Option<Duration>, expected: Duration) -> (u64, Instant) {
        let renew_at = now + renewed_after(certain, expected);
        (self.adopted(now, renew_at, certain.map(|certain| now + certain)), renew_at)
    }

    /// There is a token issued at `since`. Returns its epoch.
    pub(super) fn adopted(&mut self, since: Instant, renew_at: Instant, ends: Option<Instant>) -> u64 {
        self.epoch += 1;
        self.failures = 0;
        self.phase = Phase::Resting;
        self.held = Some(Held { epoch: self.epoch, since, renew_at, ends });
        self.epoch
    }

    /// No log-in is to be made before `until`, as replicas know together.
    pub(super) fn held_back(&mut self, until: Instant, why: Trouble) {
        self.phase = Phase::BackOff { until, why };
    }

    /// A log-in failed for a reason that may pass. `jitter` (0 to 1) spreads replicas.
    pub(super) fn failed(&mut self, now: Instant, why: Trouble, jitter: f64) {
        self.failures = self.failures.saturating_add(1);
        self.back_off(now, why, self.failures, jitter);
    }

    /// A log-in was refused for good. If it is `shared` with other replicas, one of them may have a token later.
    pub(super) fn refused(&mut self, now: Instant, why: Trouble, shared: bool) {
        self.phase = Phase::Refused { why, look_at: shared.then(|| now + LOOKS_AGAIN) };
    }

    /// Salesforce rejected the token of `epoch`; true if it was the current one, which is then gone.
    pub(super) fn rejected(&mut self, epoch: u64, now: Instant, jitter: f64) -> bool {
        let Some(held) = self.held.filter(|held| held.epoch == epoch) else { return false };
        self.held = None;
        if now.saturating_duration_since(held.since) >= SETTLED {
            self.strikes = 0;
            return true;
        }
        // One such token may be bad luck; more of them mean that logging in does not help.
        self.strikes = self.strikes.saturating_add(1);
        if self.strikes > 1 && self.phase == Phase::Resting {
            self.back_off(now, Trouble::Rejected, self.strikes - 1, jitter);
        }
        true
    }

    /// The operator has loaded the configuration again: what was refused may be tried again.
    pub(super) fn reconsider(&mut self) {
        if matches!(self.phase, Phase::Refused { .. } | Phase::BackOff { .. }) {
            self.phase = Phase::Resting;
            self.failures = 0;
            self.strikes = 0;
        }
    }

    /// What it is doing, why it has no token, and when it will try again.
    pub(super) fn state(&self, now: Instant) -> (State, Option<Trouble>, Option<Instant>) {
        match self.phase {
            Phase::LoggingIn => (State::Refreshing, None, None),
            Phase::BackOff { until, why } if now < until => (State::BackOff, Some(why), Some(until)),
            Phase::Refused { why, .. } => (State::Refused, Some(why), None),
            Phase::Resting | Phase::BackOff { .. } if self.held.is_some() => (State::Fresh, None, None),
            Phase::Resting | Phase::BackOff { .. } => (State::Empty, None, None),
        }
    }

    /// Log-ins made in the last hour, and how many may be made.
    pub(super) fn logins(&mut self, now: Instant) -> (u32, u32) {
        (self.logins.used(now), self.logins.limit())
    }

    fn back_off(&mut self, now: Instant, why: Trouble, nth: u32, jitter: f64) {
        let until = now + step(nth).mul_f64(0.75 + 0.25 * jitter.clamp(0.0, 1.0));
        self.phase = Phase::BackOff { until, why };
    }
}

/// How long after it was issued a token is renewed.
pub(super) fn renewed_after(certain: Option<Duration>, expected: Duration) -> Duration {
    certain.map_or(expected, |certain| certain.min(expected)) * 4 / 5
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SESSION: Duration = Duration::from_hours(2);

    fn start() -> (Core, Instant) {
        (Core::new(3_600), crate::clock::Clock::start().now())
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_log_in_at_a_time_and_the_rest_wait() {
        let (mut core, now) = start();
        assert_eq!(core.want(now), Want::LogIn);
        assert_eq!(core.want(now), Want::Wait);
        core.granted(now, None, SESSION);
        assert_eq!(core.want(now), Want::Use);
    }

    #[test]
    fn a_token_is_renewed_early_while_it_still_serves() {
        let (mut core, now) = start();
        core.want(now);
        core.granted(now, None, SESSION);
        let later = now + SESSION * 4 / 5;
        assert_eq!(core.want(later - secs(1)), Want::Use);
        assert_eq!(core.want(later), Want::UseAndLogIn);
        assert_eq!(core.want(later), Want::Use, "one renewal at a time");
        core.failed(later, Trouble::Unreachable, 0.0);
        assert_eq!(core.want(later), Want::Use, "a failed renewal takes nothing away");
    }

    #[test]
    fn a_token_of_known_life_is_not_used_past_it() {
        let (mut core, now) = start();
        core.want(now);
        core.granted(now, Some(secs(100)), SESSION);
        assert_eq!(core.want(now + secs(79)), Want::Use);
        assert_eq!(core.want(now + secs(81)), Want::UseAndLogIn);
        assert_eq!(core.want(now + secs(100)), Want::Wait);
    }

    #[test]
    fn many_rejections_of_one_token_lead_to_one_log_in() {
        let (mut core, now) = start();
        core.want(now);
        let (epoch, _) = core.granted(now, None, SESSION);
        let later = now + secs(60);
        assert!(core.rejected(epoch, later, 0.0));
        assert_eq!(core.want(later), Want::LogIn);
        for _ in 0..100 {
            assert!(!core.rejected(epoch, later, 0.0));
            assert_eq!(core.want(later), Want::Wait);
        }
        core.granted(later, None, SESSION);
        assert!(!core.rejected(epoch, later, 0.0), "an old token says nothing of the new one");
        assert_eq!(core.want(later), Want::Use);
    }

    #[test]
    fn failures_step_back_to_a_minute() {
        let (mut core, mut now) = start();
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(core.want(now), Want::LogIn);
            core.failed(now, Trouble::Unreachable, 1.0);
            let Want::NotBefore(until, Trouble::Unreachable) = core.want(now) else { panic!("no back-off") };
            waits.push((until - now).as_secs());
            now = until;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(core.want(now), Want::LogIn);
        core.granted(now, None, SESSION);
        core.rejected(1, now + secs(60), 0.0);
        assert_eq!(core.want(now + secs(60)), Want::LogIn, "a success begins anew");
    }

    #[test]
    fn a_refusal_is_final_until_the_configuration_is_loaded_again() {
        let (mut core, now) = start();
        core.want(now);
        core.refused(now, Trouble::Refused, false);
        assert_eq!(core.want(now + secs(1_000_000)), Want::Never(Trouble::Refused));
        assert_eq!(core.state(now).0, State::Refused);
        core.reconsider();
        assert_eq!(core.want(now), Want::LogIn);
    }

    #[test]
    fn a_refusal_that_replicas_share_is_looked_up_again_and_again_without_a_log_in() {
        let (mut core, now) = start();
        core.want(now);
        assert!(!core.looks_only());
        core.refused(now, Trouble::Refused, true);
        assert_eq!(core.want(now + secs(9)), Want::Never(Trouble::Refused));
        assert_eq!((core.want(now + secs(10)), core.looks_only()), (Want::LogIn, true));
        assert_eq!(core.want(now + secs(10)), Want::Wait, "one look at a time");
        core.adopted(now + secs(5), now + secs(100), None);
        assert_eq!(core.want(now + secs(11)), Want::Use);
    }

    #[test]
    fn tokens_that_never_work_do_not_make_a_storm() {
        let (mut core, start) = start();
        let (mut now, mut logins) = (start, 0);
        while now < start + secs(600) {
            match core.want(now) {
                Want::LogIn => {
                    logins += 1;
                    let (epoch, _) = core.granted(now, None, SESSION);
                    core.rejected(epoch, now + Duration::from_millis(50), 1.0);
                }
                Want::NotBefore(..) => {}
                other => panic!("{other:?}"),
            }
            now += Duration::from_millis(100);
        }
        assert!((5..=18).contains(&logins), "{logins} log-ins in ten minutes");
    }

    proptest! {
        #[test]
        fn never_two_log_ins_at_once_and_never_past_the_budget(
            steps in proptest::collection::vec((0_u8..5, 0_u64..90_000), 1..400)
        ) {
            let (mut core, mut now) = (Core::new(20), crate::clock::Clock::start().now());
            let (mut under_way, mut made, mut epoch) = (false, Vec::new(), 0);
            for (what, millis) in steps {
                now += Duration::from_millis(millis);
                match what {
                    0 | 1 => if let Want::LogIn | Want::UseAndLogIn = core.want(now) {
                        prop_assert!(!under_way);
                        core.begins(now);
                        under_way = true;
                        made.push(now);
                    },
                    2 if under_way => { (epoch, _) = core.granted(now, None, SESSION); under_way = false; }
                    3 if under_way => { core.failed(now, Trouble::Unavailable, 0.5); under_way = false; }
                    _ => { core.rejected(epoch, now, 0.5); }
                }
                let hour = made.iter().filter(|made| now - **made < Duration::from_hours(1)).count();
                prop_assert!(hour <= 20, "{hour} log-ins in an hour");
            }
        }
    }
}
