//! Answers from memory: only what can be known to be right may be kept.

use std::time::Duration;

use super::{At, Check};
use crate::call::{CallerId, Family, Operation, OrgId};
use crate::config::cache::{
    Cache, CacheEntry, CacheEntryFile, CacheFile, CacheMode, FailuresFile, FailuresMode, RememberedFailures,
};
use crate::config::file::{ConfigFile, MatchFile};
use crate::config::problem::Fault;
use crate::config::value::{ApiName, Name, Text};

/// How long what an org has used may be given out at most (facts 3.9).
const LONGEST_LIMITS: Duration = Duration::from_mins(5);

/// How long a failure may be remembered at most.
const LONGEST_FAILURE: Duration = Duration::from_secs(30);

/// Descriptions the gateway itself may ask for in an hour at most.
const MOST_DESCRIBES: usize = 10_000;

/// Objects whose rows change without a write, or mean something else to everybody, in lower case.
const NEVER: [&str; 18] = [
    "apexlog",
    "asyncapexjob",
    "cronjobdetail",
    "crontrigger",
    "entitydefinition",
    "fielddefinition",
    "listview",
    "loginhistory",
    "newsfeed",
    "organization",
    "outgoingemail",
    "processinstance",
    "processinstanceworkitem",
    "recentlyviewed",
    "setupaudittrail",
    "userprofilefeed",
    "userrecordaccess",
    "vote",
];

/// Ends of names of objects that Salesforce itself writes, or keeps elsewhere, in lower case.
const NEVER_ENDS: [&str; 8] = ["__x", "__dlm", "__b", "__e", "share", "history", "feed", "changeevent"];

impl Check<'_> {
    /// `None`: nothing is kept.
    pub(super) fn cache(&mut self, at: &At, written: &CacheFile, file: &ConfigFile) -> Option<Cache> {
        let entries_at = at.key("entries");
        let mut entries = Vec::with_capacity(written.entries.len());
        for (index, entry) in written.entries.iter().enumerate() {
            entries.extend(self.cache_entry(&entries_at.index(index), entry, file));
        }
        let bytes = self.bytes(&at.key("bytes"), written.bytes, 1 << 20, 1 << 40);
        let largest = self.length(&at.key("largest"), written.largest, 1 << 10, 64 << 20);
        let session_recheck = self.positive(&at.key("session_recheck"), written.session_recheck);
        let object = |name: &Text<ApiName>| name.0.0.clone();
        let also_invalidates = written
            .also_invalidates
            .iter()
            .map(|(name, others)| (object(name), others.iter().map(object).collect()))
            .collect();
        let harmless_headers =
            written.harmless_headers.iter().map(|name| name.0.0.to_ascii_lowercase().into_boxed_str()).collect();
        let same_rights = self.same_rights(&at.key("same_rights"), &written.same_rights, file);
        let describes_per_hour = written.describes_per_hour;
        if describes_per_hour > MOST_DESCRIBES {
            let fault = Fault::new(format!("more than {MOST_DESCRIBES} descriptions an hour"));
            self.wrong(&at.key("describes_per_hour"), fault.hint("each is a call of the allowance"));
        }
        let cache = Cache {
            entries,
            bytes,
            largest,
            session_recheck,
            describes_per_hour,
            also_invalidates,
            same_rights,
            harmless_headers,
            failures: self.failures(&at.key("failures"), &written.failures),
        };
        (written.mode == CacheMode::Enforce).then_some(cache)
    }

    fn failures(&mut self, at: &At, written: &FailuresFile) -> Option<RememberedFailures> {
        let lasts = self.positive(&at.key("for"), written.lasts);
        if lasts > LONGEST_FAILURE {
            let fault = Fault::new("what is wrong may be mended at any time");
            self.wrong(&at.key("for"), fault.hint("at most 30s"));
        }
        let (answers, writes) = (written.mode == FailuresMode::Enforce, written.writes);
        (written.mode != FailuresMode::Off).then_some(RememberedFailures { answers, writes, lasts })
    }

    fn cache_entry(&mut self, at: &At, written: &CacheEntryFile, file: &ConfigFile) -> Option<CacheEntry> {
        let (matches, match_at) = (&written.matches, at.key("match"));
        let Some(fresh) = written.fresh else {
            self.missing(&at.key("fresh"), "say how long an answer is given out, such as 60s");
            return None;
        };
        let fresh = self.positive(&at.key("fresh"), fresh);
        let Some(operations) = &matches.operations else {
            self.missing(
                &match_at.key("operations"),
                "write [describe], [read], [query] or [limits], or several of them",
            );
            return None;
        };
        for (index, operation) in operations.iter().enumerate() {
            let known = [Operation::Describe, Operation::Read, Operation::Query, Operation::Limits];
            if !known.contains(operation) {
                let fault = Fault::new(format!("answers of {operation} are never kept"));
                self.wrong(
                    &match_at.key("operations").index(index),
                    fault.hint("describe, read, query and limits can be"),
                );
            }
        }
        for (index, family) in matches.families.iter().flatten().enumerate() {
            if !matches!(family, Family::Rest | Family::Query | Family::Collections) {
                let fault = Fault::new(format!("answers of {family} are never kept"));
                self.wrong(&match_at.key("families").index(index), fault.hint("rest, query and collections can be"));
            }
        }
        if operations.contains(&Operation::Limits) && fresh > LONGEST_LIMITS {
            let fault = Fault::new("what is used changes all the time");
            self.wrong(&at.key("fresh"), fault.hint("with limits among the operations, at most 5m"));
        }
        let rows = operations.iter().any(|operation| matches!(operation, Operation::Read | Operation::Query));
        if rows && matches.objects.is_none() {
            let hint = "name the objects whose rows may be kept: what is not named is never kept";
            self.missing(&match_at.key("objects"), hint);
        }
        for (index, Text(ApiName(name))) in matches.objects.iter().flatten().enumerate() {
            let lower = name.to_ascii_lowercase();
            if rows && (NEVER.contains(&lower.as_str()) || NEVER_ENDS.iter().any(|end| lower.ends_with(end))) {
                let fault = Fault::new(format!("rows of {name} change in ways nobody can follow"));
                self.wrong(&match_at.key("objects").index(index), fault.hint("they can not be kept"));
            }
        }
        // As they were written: one with a mistake in another key is still meant.
        let orgs = file.orgs.iter().map(|org| org.name.as_ref());
        let orgs = self.places(&match_at.key("orgs"), "org", matches.orgs.as_deref(), orgs);
        let callers = file.callers.iter().map(|caller| caller.name.as_ref());
        let callers = self.places(&match_at.key("callers"), "caller", matches.callers.as_deref(), callers);
        Some(CacheEntry {
            orgs: orgs.map(|places| places.into_iter().map(OrgId).collect()),
            callers: callers.map(|places| places.into_iter().map(CallerId).collect()),
            families: matches.families.clone(),
            objects: matches.objects.as_ref().map(|names| names.iter().map(|name| name.0.0.clone()).collect()),
            operations: operations.clone(),
            fresh,
            stale_if_error: written.stale_if_error.0.0,
            stale_while_revalidate: written.stale_while_revalidate.0.0,
        })
    }

    /// Groups of callers. One that anybody can claim to be has no rights of its own.
    fn same_rights(&mut self, at: &At, written: &[Vec<Text<Name>>], file: &ConfigFile) -> Vec<Vec<CallerId>> {
        let mut groups: Vec<Vec<CallerId>> = Vec::with_capacity(written.len());
        for (index, names) in written.iter().enumerate() {
            let at = at.index(index);
            if names.len() < 2 {
                self.wrong(&at, Fault::new("a group of fewer than two callers shares nothing"));
            }
            let known = file.callers.iter().map(|caller| caller.name.as_ref());
            let places = self.places(&at, "caller", Some(names), known).unwrap_or_default();
            let callers: Vec<CallerId> = places.into_iter().map(CallerId).collect();
            for (place, caller) in callers.iter().enumerate() {
                let taken = groups.iter().flatten().any(|known| known == caller)
                    || callers.iter().take(place).any(|known| known == caller);
                if taken {
                    self.wrong(&at.index(place), Fault::new("a caller stands in one group, and once"));
                }
                let matches = file.callers.get(usize::from(caller.0)).and_then(|caller| caller.matches.as_ref());
                if matches!(matches, Some(MatchFile::Any | MatchFile::Host(_) | MatchFile::CallOptionsClient(_))) {
                    let fault = Fault::new("anybody can be this caller, with any session");
                    self.wrong(
                        &at.index(place),
                        fault.hint("name callers with a key, certificate, JSON Web Token or network of their own"),
                    );
                }
            }
            groups.push(callers);
        }
        groups
    }

    /// The places of names among those there are.
    fn places<'n>(
        &mut self,
        at: &At,
        what: &str,
        written: Option<&[Text<Name>]>,
        known: impl Iterator<Item = Option<&'n Text<Name>>>,
    ) -> Option<Vec<u16>> {
        let known: Vec<&str> = known.map(|name| name.map_or("", |name| name.0.0.as_str())).collect();
        let mut places = Vec::new();
        for (index, Text(Name(name))) in written?.iter().enumerate() {
            match known.iter().position(|candidate| candidate == name) {
                Some(place) => places.push(u16::try_from(place).unwrap_or(u16::MAX)),
                None => self.wrong(&at.index(index), Fault::unknown(what, name, &known)),
            }
        }
        Some(places)
    }
}
