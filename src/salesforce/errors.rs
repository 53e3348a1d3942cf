//! What an error answer calls itself: the `errorCode` in its body, in any of Salesforce's shapes (facts 2.1).

use memchr::memmem;
use serde::Deserialize;
use smol_str::SmolStr;

/// Codes longer than this are none of Salesforce's.
const LONGEST_CODE: usize = 80;

#[derive(Deserialize)]
struct RestError {
    #[serde(alias = "statusCode", alias = "exceptionCode", alias = "error")]
    #[serde(rename = "errorCode")]
    code: Option<SmolStr>,
}

/// The error code of a complete, uncompressed error body: JSON array or object, OAuth error, SOAP fault, Bulk v1 error,
/// XML error. `None` for HTML and for anything else.
pub fn error_code(body: &[u8]) -> Option<SmolStr> {
    let start = body.iter().position(|byte| !byte.is_ascii_whitespace())?;
    let code = match body.get(start)? {
        b'[' => serde_json::from_slice::<Vec<RestError>>(body).ok()?.into_iter().find_map(|error| error.code)?,
        b'{' => serde_json::from_slice::<RestError>(body).ok()?.code?,
        b'<' => SmolStr::new(from_xml(body)?),
        _ => return None,
    };
    plausible(&code).then_some(code)
}

/// Whether an error body says that the org's daily allowance is used up, in any of its shapes; `REQUEST_LIMIT_EXCEEDED`
/// alone may also mean calls that run long (facts 1.2, 2.2).
pub fn is_daily_limit(body: &[u8]) -> bool {
    memmem::find(body, b"TotalRequests Limit exceeded").is_some()
}

/// Whether an error body says that too many calls run long, in any of its shapes (facts 1.4).
pub fn is_long_running_limit(body: &[u8]) -> bool {
    memmem::find(body, b"ConcurrentRequests (Concurrent API Requests) Limit exceeded").is_some()
}

/// Whether an error body says that too much Apex runs long, in any of its shapes and wordings (facts 1.4).
pub fn is_apex_limit(body: &[u8]) -> bool {
    memmem::find(body, b"ConcurrentPerOrgLongTxn Limit exceeded").is_some()
        || memmem::find(body, b"ConcurrentPerOrgApex Limit exceeded").is_some()
}

/// The text of the element that names the code: `<errorCode>`, `<exceptionCode>`, `<sf:exceptionCode>`, or the part of
/// `<faultcode>` behind its prefix.
fn from_xml(body: &[u8]) -> Option<&str> {
    for element in ["exceptionCode>", "errorCode>", "faultcode>"] {
        if let Some(at) = memmem::find(body, element.as_bytes()) {
            let rest = body.get(at + element.len()..)?;
            let end = memchr::memchr(b'<', rest)?;
            let text = std::str::from_utf8(rest.get(..end)?).ok()?.trim();
            return Some(text.rsplit(':').next().unwrap_or(text));
        }
    }
    None
}

fn plausible(code: &str) -> bool {
    !code.is_empty()
        && code.len() <= LONGEST_CODE
        && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_error_gives_its_code() {
        for (body, code) in [
            (r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#, "INVALID_SESSION_ID"),
            (r#"{"errorCode":"NOT_FOUND","message":"x"}"#, "NOT_FOUND"),
            (r#"{"error":"invalid_grant","error_description":"authentication failure"}"#, "invalid_grant"),
            ("<?xml version=\"1.0\"?><Errors><Error><errorCode>NOT_FOUND</errorCode></Error></Errors>", "NOT_FOUND"),
            (
                "<soapenv:Envelope><soapenv:Body><soapenv:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode>",
                "INVALID_SESSION_ID",
            ),
            ("<error xmlns=\"x\"><exceptionCode>InvalidSessionId</exceptionCode></error>", "InvalidSessionId"),
        ] {
            assert_eq!(error_code(body.as_bytes()).as_deref(), Some(code), "{body}");
        }
    }

    #[test]
    fn what_is_no_error_of_salesforce_gives_none() {
        for body in
            ["", "   ", "<html><body>Down for maintenance</body></html>", "[]", "[{}]", "{\"error", "plain", "<"]
        {
            assert_eq!(error_code(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn only_the_daily_limit_is_the_daily_limit() {
        let body = |what: &str| format!(r#"[{{"message":"{what}","errorCode":"REQUEST_LIMIT_EXCEEDED"}}]"#);
        assert!(is_daily_limit(body("TotalRequests Limit exceeded.").as_bytes()));
        assert!(!is_daily_limit(body("ConcurrentPerOrgLongTxn Limit exceeded.").as_bytes()));
        assert!(is_long_running_limit(body("ConcurrentRequests (Concurrent API Requests) Limit exceeded.").as_bytes()));
        assert!(!is_long_running_limit(body("ConcurrentPerOrgLongTxn Limit exceeded.").as_bytes()));
        assert!(is_apex_limit(body("ConcurrentPerOrgLongTxn Limit exceeded.").as_bytes()));
        assert!(is_apex_limit(body("ConcurrentPerOrgApex Limit exceeded.").as_bytes()));
        assert!(!is_apex_limit(body("TotalRequests Limit exceeded.").as_bytes()));
    }

    #[test]
    fn a_code_that_carries_anything_else_is_not_taken() {
        assert_eq!(error_code(br#"[{"errorCode":"secret 00D!abc"}]"#), None);
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = error_code(&body);
        }
    }
}
