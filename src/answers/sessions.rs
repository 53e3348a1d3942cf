//! Who is entitled to kept answers: sessions that Salesforce accepted a short while ago.
//!
//! A kept answer is given out without asking Salesforce, so it must not outlive the right to see it. A session is entitled
//! only for a short time after Salesforce accepted it, and as soon as Salesforce rejects it, every answer kept under it is
//! lost. The number of sessions that are known is bounded; one that is not known is entitled to nothing.

use std::time::Duration;

use ahash::AHashMap;
use tokio::time::Instant;

use crate::call::Principal;

/// Sessions known at the same time in one org.
const MAX_SESSIONS: usize = 50_000;

/// Numbers the times a session was entitled without a break; answers kept under another number are lost.
pub type SessionId = u64;

#[derive(Debug)]
struct Session {
    id: SessionId,
    /// When the last call was sent that Salesforce accepted.
    accepted: Instant,
    /// When Salesforce rejected it; nothing sent before that counts any more.
    ended: Option<Instant>,
    /// Answers of before this number are no longer fresh.
    softened: u64,
}

/// The sessions of one org.
#[derive(Debug, Default)]
pub struct Sessions {
    known: AHashMap<Principal, Session>,
    last: SessionId,
    /// Nothing that was sent before this counts.
    all_ended: Option<Instant>,
    /// Some session was ever softened: until then nobody has to look which.
    any_softened: bool,
}

impl Sessions {
    /// Under which number `who` is entitled at `now`, if Salesforce accepted it within `recheck`.
    pub fn entitled(&self, who: Principal, now: Instant, recheck: Duration) -> Option<SessionId> {
        let session = self.known.get(&who)?;
        let recent = now.saturating_duration_since(session.accepted) <= recheck;
        (session.ended.is_none() && recent).then_some(session.id)
    }

    /// Whether nothing ended the session of `who` with this number.
    pub fn goes_on(&self, who: Principal, id: SessionId) -> bool {
        self.known.get(&who).is_some_and(|session| session.id == id && session.ended.is_none())
    }

    /// Salesforce accepted a call of `who` that was sent at `sent`. Returns the number it is entitled under; none if it was
    /// rejected since, or too many are known.
    pub fn accepted(&mut self, who: Principal, sent: Instant, recheck: Duration) -> Option<SessionId> {
        if self.all_ended.is_some_and(|ended| sent <= ended) {
            return None;
        }
        if let Some(session) = self.known.get_mut(&who) {
            match session.ended {
                Some(ended) if sent <= ended => return None,
                Some(_) => {
                    self.last += 1;
                    *session = Session { id: self.last, accepted: sent, ended: None, softened: 0 };
                }
                None => session.accepted = session.accepted.max(sent),
            }
            return Some(session.id);
        }
        self.make_room(sent, recheck);
        self.add(who, sent, None)
    }

    /// Salesforce rejected `who` in an answer that came at `now`.
    pub fn ended(&mut self, who: Principal, now: Instant, recheck: Duration) {
        if let Some(session) = self.known.get_mut(&who) {
            session.ended = Some(now);
            return;
        }
        // An answer that was sent for before may still come.
        self.make_room(now, recheck);
        self.add(who, now, Some(now));
    }

    /// Nobody is entitled until Salesforce has accepted it again.
    pub fn all_ended(&mut self, now: Instant) {
        self.known.clear();
        self.all_ended = Some(now);
    }

    /// Ends the sessions that `matches` names; returns how many.
    pub fn end_where(&mut self, matches: impl Fn(Principal) -> bool, now: Instant) -> usize {
        let ended = self.known.iter_mut().filter(|(who, session)| session.ended.is_none() && matches(**who));
        ended.map(|(_, session)| session.ended = Some(now)).count()
    }

    /// Makes what was kept for the principals that `matches` names no longer fresh, by the order `number`; returns how many
    /// there are.
    pub fn soften_where(&mut self, matches: impl Fn(Principal) -> bool, number: u64) -> usize {
        self.any_softened = true;
        let softened = self.known.iter_mut().filter(|(who, session)| session.ended.is_none() && matches(**who));
        softened.map(|(_, session)| session.softened = number).count()
    }

    /// The last order to make answers of `who` no longer fresh.
    pub fn softened(&self, who: Principal) -> u64 {
        if self.any_softened { self.known.get(&who).map_or(0, |session| session.softened) } else { 0 }
    }

    fn add(&mut self, who: Principal, accepted: Instant, ended: Option<Instant>) -> Option<SessionId> {
        if self.known.len() >= MAX_SESSIONS {
            return None;
        }
        self.last += 1;
        self.known.insert(who, Session { id: self.last, accepted, ended, softened: 0 });
        Some(self.last)
    }

    /// Forgets sessions that are entitled to nothing, if there is no more room.
    fn make_room(&mut self, now: Instant, recheck: Duration) {
        if self.known.len() >= MAX_SESSIONS {
            self.known.retain(|_, session| now.saturating_duration_since(session.accepted) <= recheck);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECHECK: Duration = Duration::from_mins(5);
    const WHO: Principal = Principal([1; 16]);

    fn start() -> Instant {
        crate::clock::Clock::start().now()
    }

    #[test]
    fn a_session_is_entitled_for_a_while_after_it_was_accepted() {
        let (mut sessions, now) = (Sessions::default(), start());
        assert_eq!(sessions.entitled(WHO, now, RECHECK), None);
        let id = sessions.accepted(WHO, now, RECHECK);
        assert!(id.is_some());
        assert_eq!(sessions.entitled(WHO, now + RECHECK, RECHECK), id);
        assert_eq!(sessions.entitled(WHO, now + RECHECK + Duration::from_millis(1), RECHECK), None);
        assert_eq!(sessions.entitled(Principal([2; 16]), now, RECHECK), None);
        let later = now + RECHECK * 2;
        assert_eq!(sessions.accepted(WHO, later, RECHECK), id, "its answers are its own still");
        assert_eq!(sessions.entitled(WHO, later, RECHECK), id);
    }

    #[test]
    fn a_rejected_session_loses_its_answers_whatever_comes_late() {
        let (mut sessions, now) = (Sessions::default(), start());
        let second = Duration::from_secs(1);
        let before = sessions.accepted(WHO, now, RECHECK);
        sessions.ended(WHO, now + second, RECHECK);
        assert_eq!(sessions.entitled(WHO, now + second, RECHECK), None);
        assert_eq!(sessions.accepted(WHO, now, RECHECK), None, "sent before it was rejected");
        let after = sessions.accepted(WHO, now + second * 2, RECHECK);
        assert!(after.is_some() && after != before);
    }

    #[test]
    fn a_session_that_was_never_accepted_can_be_rejected_too() {
        let (mut sessions, now) = (Sessions::default(), start());
        sessions.ended(WHO, now, RECHECK);
        assert_eq!(sessions.accepted(WHO, now, RECHECK), None);
        assert!(sessions.accepted(WHO, now + Duration::from_millis(1), RECHECK).is_some());
    }

    #[test]
    fn all_sessions_can_be_ended_and_some() {
        let (mut sessions, now) = (Sessions::default(), start());
        sessions.accepted(WHO, now, RECHECK);
        sessions.accepted(Principal([2; 16]), now, RECHECK);
        assert_eq!(sessions.end_where(|who| who == WHO, now), 1);
        assert_eq!(sessions.entitled(WHO, now, RECHECK), None);
        assert!(sessions.entitled(Principal([2; 16]), now, RECHECK).is_some());
        sessions.all_ended(now);
        assert_eq!(sessions.entitled(Principal([2; 16]), now, RECHECK), None);
        assert_eq!(sessions.accepted(Principal([2; 16]), now, RECHECK), None);
    }

    #[test]
    fn the_number_of_sessions_is_bounded() {
        let (mut sessions, now) = (Sessions::default(), start());
        let who = |number: usize| Principal(((number as u128) + 10).to_be_bytes());
        for number in 0..MAX_SESSIONS {
            assert!(sessions.accepted(who(number), now, RECHECK).is_some());
        }
        assert_eq!(sessions.accepted(WHO, now, RECHECK), None);
        let later = now + RECHECK * 2;
        assert!(sessions.accepted(WHO, later, RECHECK).is_some(), "those that are entitled to nothing make room");
        assert_eq!(sessions.known.len(), 1);
    }
}
