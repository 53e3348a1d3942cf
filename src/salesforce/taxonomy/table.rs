//! What each error code means (facts 2.3, 2.5): one row for each code that has a meaning of its own.
//!
//! A code that is not here is one of the hundreds that say what is wrong with a request (facts 2.5): permanent, passed on.

use super::{Blame, Executed, Kind};

/// What one code means, before its words and the API it came from are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) blame: Blame,
    pub(super) executed: Executed,
}

const fn row(kind: Kind, blame: Blame, executed: Executed) -> Row {
    Row { kind, blame, executed }
}

const AUTH: Row = row(Kind::Auth, Blame::Caller, Executed::No);
const LOCK: Row = row(Kind::Lock, Blame::Neighbours, Executed::No);
const WRONG: Row = row(Kind::Permanent, Blame::Caller, Executed::No);
const ADMIN: Row = row(Kind::Permanent, Blame::Org, Executed::No);
const SCHEMA: Row = row(Kind::Schema, Blame::Caller, Executed::No);
const GOVERNOR: Row = row(Kind::Governor, Blame::Caller, Executed::No);
const HALTED: Row = row(Kind::Partial, Blame::Caller, Executed::No);
const MAINTENANCE: Row = row(Kind::Maintenance, Blame::Salesforce, Executed::No);
const REFUSED: Row = row(Kind::Transient, Blame::Salesforce, Executed::No);
const UNCERTAIN: Row = row(Kind::Transient, Blame::Salesforce, Executed::Maybe);

/// Sorted by code, to be searched.
const ROWS: &[(&str, Row)] = &[
    ("ALL_OR_NONE_OPERATION_ROLLED_BACK", HALTED),
    ("APEX_ERROR", row(Kind::Permanent, Blame::Org, Executed::No)),
    ("APEX_REST_SERVICES_DISABLED", ADMIN),
    ("API_CURRENTLY_DISABLED", ADMIN),
    ("API_DISABLED_FOR_ORG", ADMIN),
    ("BATCH_PROCESSING_HALTED", HALTED),
    ("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", row(Kind::Permanent, Blame::Org, Executed::No)),
    ("EXCEEDED_ID_LIMIT", GOVERNOR),
    ("ExceededQuota", GOVERNOR),
    ("FUNCTIONALITY_NOT_ENABLED", ADMIN),
    ("FUNCTIONALITY_TEMPORARILY_UNAVAILABLE", REFUSED),
    ("FeatureNotEnabled", ADMIN),
    ("INSERT_UPDATE_DELETE_NOT_ALLOWED_DURING_MAINTENANCE", MAINTENANCE),
    ("INVALID_AUTH_HEADER", AUTH),
    ("INVALID_FIELD", SCHEMA),
    ("INVALID_FIELD_FOR_INSERT_UPDATE", SCHEMA),
    ("INVALID_SESSION_ID", AUTH),
    ("INVALID_TYPE", SCHEMA),
    ("InvalidSessionId", AUTH),
    ("LIMIT_EXCEEDED", GOVERNOR),
    ("ORG_IN_MAINTENANCE", MAINTENANCE),
    ("ORG_LOCKED", ADMIN),
    // The host is another one now; its name will lead there.
    ("ORG_NOT_OWNED_BY_INSTANCE", REFUSED),
    ("PROCESSING_HALTED", HALTED),
    // The same again would run as long again.
    ("QUERY_TIMEOUT", GOVERNOR),
    ("QUERY_TOO_COMPLICATED", GOVERNOR),
    // Its words say which limit.
    ("REQUEST_LIMIT_EXCEEDED", row(Kind::LimitFamily, Blame::Neighbours, Executed::No)),
    ("REQUEST_RUNNING_TOO_LONG", row(Kind::Governor, Blame::Caller, Executed::Maybe)),
    // Probably refused, and nobody says so.
    ("SERVER_UNAVAILABLE", UNCERTAIN),
    ("STORAGE_LIMIT_EXCEEDED", row(Kind::Governor, Blame::Org, Executed::No)),
    ("TOO_MANY_APEX_REQUESTS", row(Kind::LimitSlots, Blame::Neighbours, Executed::No)),
    ("TRIAL_EXPIRED", ADMIN),
    ("TXN_SECURITY_METERING_ERROR", UNCERTAIN),
    ("Timeout", GOVERNOR),
    // A bulk batch of which some rows may be saved.
    ("TooManyLockFailure", row(Kind::Lock, Blame::Neighbours, Executed::Maybe)),
    ("UNABLE_TO_LOCK_ROW", LOCK),
    ("UNKNOWN_EXCEPTION", UNCERTAIN),
    ("UNSUPPORTED_API_VERSION", row(Kind::Version, Blame::Caller, Executed::No)),
    ("URL_NOT_RESET", ADMIN),
    ("inactive_org", ADMIN),
    ("inactive_user", ADMIN),
    ("invalid_app_access", AUTH),
    ("invalid_client", AUTH),
    ("invalid_client_id", AUTH),
    ("invalid_grant", AUTH),
];

/// The row of `code`; that of any request that is wrong, if it has none of its own.
pub(super) fn row_of(code: &str) -> Option<Row> {
    if code.is_empty() {
        return None;
    }
    let found = ROWS.binary_search_by(|(known, _)| (*known).cmp(code)).ok();
    Some(found.and_then(|at| ROWS.get(at)).map_or(WRONG, |(_, row)| *row))
}

/// Whether the table has a row for `code`.
pub(super) fn is_known(code: &str) -> bool {
    ROWS.binary_search_by(|(known, _)| (*known).cmp(code)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_can_be_searched() {
        assert!(ROWS.is_sorted_by(|(one, _), (next, _)| one < next));
        for (code, row) in ROWS {
            assert_eq!(row_of(code), Some(*row));
        }
    }

    #[test]
    fn a_code_without_a_row_is_a_request_that_is_wrong() {
        assert_eq!(row_of("FIELD_CUSTOM_VALIDATION_EXCEPTION"), Some(WRONG));
        assert_eq!(row_of(""), None);
    }
}
