//! What the token endpoint answered (facts 5.2, 5.5).

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Deserialize;
use smol_str::SmolStr;
use zeroize::Zeroizing;

use super::core::Trouble;
use super::flow::Hidden;

/// Longest token that is taken; headers of 16 KiB must hold it beside others.
const LONGEST_TOKEN: usize = 8 * 1_024;

/// The Salesforce user a token belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct User {
    /// The org's record id.
    pub org: SmolStr,
    /// The user's record id.
    pub user: SmolStr,
}

/// A log-in that succeeded.
#[derive(Debug)]
pub(super) struct Grant {
    /// Visible ASCII that needs no escape in a header or in XML.
    pub(super) token: Hidden,
    pub(super) user: Option<User>,
    /// How long the token lives, if the answer or the token says so.
    pub(super) life: Option<Duration>,
    /// The refresh token that replaces the one that was used.
    pub(super) rotated: Option<Hidden>,
}

/// How a log-in ended.
#[derive(Debug)]
pub(super) enum Answered {
    /// With a token.
    Granted(Box<Grant>),
    /// It may work later.
    Failed(Trouble),
    /// It will not work until somebody changes something.
    Refused(Trouble),
}

#[derive(Deserialize)]
struct Success<'a> {
    #[serde(borrow)]
    access_token: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(borrow, default)]
    refresh_token: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Error {
    #[serde(alias = "errorCode")]
    error: SmolStr,
}

/// Errors that say "not now" (facts 5.5).
const PASSING: [&str; 8] = [
    "rate_limit_exceeded",
    "server_error",
    "temporarily_unavailable",
    "unknown_error",
    "LOGIN_RATE_EXCEEDED",
    "REQUEST_LIMIT_EXCEEDED",
    "SERVER_UNAVAILABLE",
    "UNKNOWN_EXCEPTION",
];

/// Reads an answer that came at wall time `wall`.
pub(super) fn read(status: StatusCode, body: &[u8], wall: Duration) -> Answered {
    if status == StatusCode::OK {
        return match granted(body, wall) {
            Some(grant) => Answered::Granted(Box::new(grant)),
            None => Answered::Failed(Trouble::Garbage),
        };
    }
    if !matches!(status.as_u16(), 400..=403) {
        // Redirects are not followed: they would take the secret elsewhere (facts 2.7).
        let why = if status.is_server_error() || matches!(status.as_u16(), 420 | 429) {
            Trouble::Unavailable
        } else {
            Trouble::Garbage
        };
        return Answered::Failed(why);
    }
    let error = serde_json::from_slice::<Error>(body)
        .ok()
        // Some refusals come in the shape of the REST API (facts 5.5).
        .or_else(|| serde_json::from_slice::<Vec<Error>>(body).ok()?.into_iter().next());
    match error {
        Some(Error { error }) if PASSING.contains(&error.as_str()) => Answered::Failed(Trouble::Unavailable),
        Some(_) => Answered::Refused(Trouble::Refused),
        // A page of a proxy or of the edge.
        None => Answered::Failed(Trouble::Garbage),
    }
}

fn granted(body: &[u8], wall: Duration) -> Option<Grant> {
    let success: Success<'_> = serde_json::from_slice(body).ok()?;
    let token = hidden(success.access_token);
    if !is_plain(token.expose()) {
        return None;
    }
    let life = success.expires_in.map(Duration::from_secs).or_else(|| {
        let expires = expiry(token.expose())?;
        Some(expires.saturating_sub(wall))
    });
    Some(Grant {
        user: success.id.as_deref().and_then(user_of),
        life: life.filter(|life| !life.is_zero()),
        rotated: success.refresh_token.map(hidden).filter(|token| !token.expose().is_empty()),
        token,
    })
}

fn hidden(text: Cow<'_, str>) -> Hidden {
    match text {
        Cow::Borrowed(text) => Hidden::new(text),
        Cow::Owned(text) => Hidden::of(Zeroizing::new(text)),
    }
}

fn is_plain(token: &str) -> bool {
    (1..=LONGEST_TOKEN).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'&' | b',' | b'"'))
}

/// Whether a token is a JSON Web Token, which SOAP refuses (facts 2.5).
pub(super) fn is_jwt(token: &str) -> bool {
    token.starts_with("eyJ")
}

/// `exp` of a token that is a JSON Web Token.
fn expiry(token: &str) -> Option<Duration> {
    #[derive(Deserialize)]
    struct Claims {
        exp: u64,
    }
    if !is_jwt(token) {
        return None;
    }
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?);
    serde_json::from_slice::<Claims>(&claims).ok().map(|claims| Duration::from_secs(claims.exp))
}

/// The last two segments of the identity URL (facts 5.2).
fn user_of(id: &str) -> Option<User> {
    let mut segments = id.rsplit('/');
    let (user, org) = (segments.next()?, segments.next()?);
    let record_id = |text: &str| matches!(text.len(), 15 | 18) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (record_id(org) && record_id(user)).then(|| User { org: org.into(), user: user.into() })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WALL: Duration = Duration::from_hours(500_000);

    fn kind(status: u16, body: &str) -> Result<Grant, (bool, Trouble)> {
        match read(StatusCode::from_u16(status).unwrap(), body.as_bytes(), WALL) {
            Answered::Granted(grant) => Ok(*grant),
            Answered::Failed(why) => Err((false, why)),
            Answered::Refused(why) => Err((true, why)),
        }
    }

    #[test]
    fn a_token_answer_gives_token_and_user() {
        let body = r#"{"access_token":"00D000000000001!AQ.abc","instance_url":"https://acme.my.salesforce.com",
            "id":"https://login.salesforce.com/id/00D000000000001EAA/005000000000001AAA","token_type":"Bearer",
            "issued_at":"1","signature":"x"}"#;
        let grant = kind(200, body).unwrap();
        assert_eq!(grant.token.expose(), "00D000000000001!AQ.abc");
        let user = User { org: "00D000000000001EAA".into(), user: "005000000000001AAA".into() };
        assert_eq!((grant.user, grant.life, grant.rotated), (Some(user), None, None));
    }

    #[test]
    fn a_token_that_says_how_long_it_lives_is_believed() {
        let grant = kind(200, r#"{"access_token":"a","expires_in":900,"refresh_token":"r"}"#).unwrap();
        assert_eq!((grant.life, grant.rotated), (Some(Duration::from_mins(15)), Some(Hidden::new("r"))));
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"exp":{}}}"#, WALL.as_secs() + 60));
        let grant = kind(200, &format!(r#"{{"access_token":"eyJh.{claims}.x"}}"#)).unwrap();
        assert_eq!(grant.life, Some(Duration::from_mins(1)));
    }

    #[test]
    fn refusals_are_told_from_failures() {
        for (status, body, wanted) in [
            (
                400,
                r#"{"error":"invalid_grant","error_description":"authentication failure"}"#,
                (true, Trouble::Refused),
            ),
            (401, r#"{"error":"invalid_client","error_description":"x"}"#, (true, Trouble::Refused)),
            (403, r#"[{"errorCode":"INSUFFICIENT_ACCESS","message":"x"}]"#, (true, Trouble::Refused)),
            (
                400,
                r#"{"error":"unknown_error","error_description":"retry your request"}"#,
                (false, Trouble::Unavailable),
            ),
            (403, r#"[{"errorCode":"LOGIN_RATE_EXCEEDED","message":"x"}]"#, (false, Trouble::Unavailable)),
            (503, "<html>", (false, Trouble::Unavailable)),
            (403, "<html>", (false, Trouble::Garbage)),
            (302, "", (false, Trouble::Garbage)),
            (200, "{}", (false, Trouble::Garbage)),
            (200, r#"{"access_token":"a b"}"#, (false, Trouble::Garbage)),
            (200, r#"{"access_token":""}"#, (false, Trouble::Garbage)),
        ] {
            assert_eq!(kind(status, body).unwrap_err(), wanted, "{status} {body}");
        }
    }

    #[test]
    fn an_answer_does_not_show_its_token() {
        let grant = kind(200, r#"{"access_token":"CANARY","refresh_token":"CANARY"}"#).unwrap();
        assert!(!format!("{grant:?}").contains("CANARY"));
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(status in 100_u16..600, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(StatusCode::from_u16(status).unwrap(), &body, WALL);
        }
    }
}
