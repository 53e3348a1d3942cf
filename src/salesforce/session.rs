//! Sessions: how an answer says that one is invalid, where it stands in a SOAP envelope, and what a SOAP log-in says.

use std::borrow::Cow;

use http::StatusCode;
use memchr::memmem;
use zeroize::Zeroizing;

use super::soap::{envelope, next_child};
use super::taxonomy::said;
use crate::call::{Family, Idempotency, Meaning, Operation};

/// 401s that a new session does not mend (facts 2.3).
const NOT_MENDED: [&[u8]; 2] =
    [b"This session is not valid for use with the REST API", b"Connected app is not attached to Agent"];

/// Whether an answer of `status` to a call of `family` can be a session error, before its body is known.
fn may_be(family: Family, status: StatusCode) -> bool {
    match family {
        Family::Soap => status == StatusCode::INTERNAL_SERVER_ERROR,
        Family::Bulk1 => status == StatusCode::BAD_REQUEST,
        // The identity document and userinfo say it in their own way.
        Family::Oauth => status == StatusCode::FORBIDDEN,
        _ => status == StatusCode::UNAUTHORIZED,
    }
}

/// Whether an answer says that its session is invalid or expired, in the form of its API (facts 2.3, 2.5): the request
/// was refused unread, and works with a new session. Without `body`, whether it is worth looking at it.
pub fn session_error(family: Family, status: StatusCode, body: Option<&[u8]>) -> bool {
    if !may_be(family, status) {
        return false;
    }
    let Some(body) = body else { return true };
    if body.is_empty() {
        // A HEAD brings no words; a 401 alone says nearly the same.
        return status == StatusCode::UNAUTHORIZED;
    }
    match family {
        Family::Oauth => return body.trim_ascii() == b"Bad_OAuth_Token",
        // In the words of Bayeux (facts 6.7).
        Family::Cometd => return memmem::find(body, b"401::Authentication invalid").is_some(),
        _ => {}
    }
    let says_so = matches!(said(body).code, "INVALID_SESSION_ID" | "InvalidSessionId");
    says_so && !NOT_MENDED.iter().any(|text| memmem::find(body, text).is_some())
}

/// What a SOAP log-in says.
pub struct SoapLogin<'a> {
    /// The user's name.
    pub username: Cow<'a, str>,
    /// The password, perhaps with a security token behind it.
    pub password: Zeroizing<String>,
}

/// Whether `meaning`, with its body read, is a SOAP `login`, and not a `logout` or anything else.
pub fn is_soap_login(meaning: &Meaning) -> bool {
    // Logging out may be repeated, logging in may not.
    meaning.family == Family::Soap
        && meaning.operation == Operation::Login
        && meaning.idempotency == Idempotency::Unsafe
}

/// User name and password of a `login` envelope.
pub fn soap_login(document: &[u8]) -> Option<SoapLogin<'_>> {
    let mut scanner = envelope(document).ok()?;
    while let Some(name) = next_child(&mut scanner, 1).ok()? {
        if name != b"Body" {
            scanner.skip().ok()?;
            continue;
        }
        if next_child(&mut scanner, 2).ok()?? != b"login" {
            return None;
        }
        let (mut username, mut password) = (None, None);
        while let Some(field) = next_child(&mut scanner, 3).ok()? {
            match field {
                b"username" => username = Some(scanner.text().ok()?),
                b"password" => password = Some(Zeroizing::new(scanner.text().ok()?.into_owned())),
                _ => scanner.skip().ok()?,
            }
        }
        return Some(SoapLogin { username: username?, password: password? });
    }
    None
}

/// The envelope with `session` in place of each session in its header; `None` if it has none, or cannot be read.
/// `session` must need no escape in XML.
pub fn with_session(document: &[u8], session: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut new = Zeroizing::new(Vec::with_capacity(document.len() + session.len()));
    let mut copied = 0;
    let mut scanner = envelope(document).ok()?;
    while let Some(name) = next_child(&mut scanner, 1).ok()? {
        if name != b"Header" {
            break;
        }
        while let Some(header) = next_child(&mut scanner, 2).ok()? {
            if header != b"SessionHeader" {
                scanner.skip().ok()?;
                continue;
            }
            while let Some(child) = next_child(&mut scanner, 3).ok()? {
                let from = document.len() - scanner.left();
                scanner.skip().ok()?;
                let to = document.len() - scanner.left();
                if child != b"sessionId" {
                    continue;
                }
                // `<sessionId/>` has no inside; otherwise the end tag begins at the last `</`.
                let Some(length) = document.get(from..to).and_then(|inside| memmem::rfind(inside, b"</")) else {
                    continue;
                };
                new.extend_from_slice(document.get(copied..from)?);
                new.extend_from_slice(session);
                copied = from + length;
            }
        }
    }
    if copied == 0 {
        return None;
    }
    new.extend_from_slice(document.get(copied..)?);
    Some(new)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope_with(header: &str) -> String {
        format!(
            "<?xml version='1.0'?><s:Envelope xmlns:s='x'>{header}<s:Body><u:query>a</u:query></s:Body></s:Envelope>"
        )
    }

    fn replaced(document: &str) -> Option<String> {
        with_session(document.as_bytes(), b"00D!new").map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn a_session_is_replaced_and_nothing_else() {
        for inside in ["00D!old", "", " \n00D!old ", "<![CDATA[00D!</old>]]>", "00D<!-- </x> -->!old"] {
            let header = |session: &str| {
                envelope_with(&format!(
                    "<s:Header><u:CallOptions/><u:SessionHeader><u:sessionId>{session}</u:sessionId>\
                     </u:SessionHeader></s:Header>"
                ))
            };
            assert_eq!(replaced(&header(inside)), Some(header("00D!new")), "{inside}");
        }
    }

    #[test]
    fn an_envelope_without_a_place_for_a_session_is_left_alone() {
        for document in [
            envelope_with(""),
            envelope_with("<s:Header/>"),
            envelope_with("<s:Header><SessionHeader><sessionId/></SessionHeader></s:Header>"),
            envelope_with("<s:Header><sessionId>a</sessionId></s:Header>"),
            "<a>".to_owned(),
            String::new(),
        ] {
            assert_eq!(replaced(&document), None, "{document}");
        }
    }

    #[test]
    fn a_session_in_the_body_is_the_callers_business() {
        let document = "<Envelope><Body><SessionHeader><sessionId>a</sessionId></SessionHeader></Body></Envelope>";
        assert_eq!(replaced(document), None);
    }

    #[test]
    fn a_log_in_says_user_and_password() {
        let document = "<Envelope><Header/><Body><n1:login xmlns:n1='urn:partner.soap.sforce.com'><n1:username>u@x</n1:username>\
            <n1:password>p&amp;q</n1:password></n1:login></Body></Envelope>";
        let login = soap_login(document.as_bytes()).unwrap();
        assert_eq!((&*login.username, &**login.password), ("u@x", "p&q"));
        assert!(soap_login(envelope_with("").as_bytes()).is_none());
        assert!(soap_login(b"<Envelope><Body><login><username>u</username></login></Body></Envelope>").is_none());
    }

    #[test]
    fn session_errors_are_known_in_their_three_forms() {
        let rest = br#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#;
        let cometd = br#"[{"error":"401::Authentication invalid","successful":false,"advice":{"reconnect":"none"}}]"#;
        assert!(session_error(Family::Cometd, StatusCode::UNAUTHORIZED, Some(cometd)));
        assert!(!session_error(
            Family::Cometd,
            StatusCode::UNAUTHORIZED,
            Some(br#"[{"error":"403::Unknown client"}]"#)
        ));
        let soap = b"<s:Envelope><s:Body><s:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode></s:Fault></s:Body></s:Envelope>";
        let bulk = b"<error><exceptionCode>InvalidSessionId</exceptionCode></error>";
        for (family, status, body) in
            [(Family::Query, 401, &rest[..]), (Family::Soap, 500, &soap[..]), (Family::Bulk1, 400, &bulk[..])]
        {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(session_error(family, status, None) && session_error(family, status, Some(body)), "{family}");
            assert!(!session_error(family, StatusCode::OK, Some(body)), "{family}");
            assert!(!session_error(family, status, Some(b"[{\"errorCode\":\"NOT_FOUND\"}]")), "{family}");
        }
        assert!(!session_error(Family::Rest, StatusCode::INTERNAL_SERVER_ERROR, Some(rest)));
        assert!(session_error(Family::Rest, StatusCode::UNAUTHORIZED, Some(b"")));
        assert!(!session_error(Family::Soap, StatusCode::INTERNAL_SERVER_ERROR, Some(b"")));
        assert!(session_error(Family::Oauth, StatusCode::FORBIDDEN, Some(b"Bad_OAuth_Token")));
    }

    #[test]
    fn what_a_new_session_does_not_mend_is_no_session_error() {
        let body =
            br#"[{"message":"This session is not valid for use with the REST API","errorCode":"INVALID_SESSION_ID"}]"#;
        assert!(!session_error(Family::Rest, StatusCode::UNAUTHORIZED, Some(body)));
    }

    proptest! {
        #[test]
        fn any_document_is_survived(document in proptest::collection::vec(any::<u8>(), 0..200), text in "[<>/a-zSH: ]{0,80}") {
            let _ = (with_session(&document, b"x"), soap_login(&document), with_session(text.as_bytes(), b"x"));
        }
    }
}
