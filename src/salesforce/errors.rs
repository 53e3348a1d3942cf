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

/// A limit of Salesforce that a refused call ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// The org's daily allowance is used up (facts 1.2).
    Daily,
    /// Too many calls run long (facts 1.4).
    LongRunning,
    /// Too much Apex runs long (facts 1.4).
    Apex,
    /// Some other limit.
    Other,
}

/// Which limit an error says was exceeded, in any of its shapes; `None` if its code speaks of none. `REQUEST_LIMIT_EXCEEDED`
/// stands for several, and only the text says which (facts 2.2); Bulk API 1.0 calls it `ExceededQuota`, as it does quotas that
/// are none of these.
pub fn limited(code: &str, body: &[u8]) -> Option<Limited> {
    let says = |text: &str| memmem::find(body, text.as_bytes()).is_some();
    let by_text = || {
        if says("TotalRequests Limit exceeded") {
            Some(Limited::Daily)
        } else if says("ConcurrentRequests (Concurrent API Requests) Limit exceeded") {
            Some(Limited::LongRunning)
        } else if says("ConcurrentPerOrgLongTxn Limit exceeded") || says("ConcurrentPerOrgApex Limit exceeded") {
            Some(Limited::Apex)
        } else {
            None
        }
    };
    match code {
        "REQUEST_LIMIT_EXCEEDED" => Some(by_text().unwrap_or(Limited::Other)),
        "ExceededQuota" => by_text(),
        "TOO_MANY_APEX_REQUESTS" => Some(Limited::Apex),
        _ => None,
    }
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
    fn the_text_says_which_limit_was_exceeded() {
        let long = "ConcurrentRequests (Concurrent API Requests) Limit exceeded.";
        for (code, text, said) in [
            ("REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", Some(Limited::Daily)),
            ("REQUEST_LIMIT_EXCEEDED", long, Some(Limited::LongRunning)),
            ("REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgLongTxn Limit exceeded.", Some(Limited::Apex)),
            ("REQUEST_LIMIT_EXCEEDED", "ConcurrentPerOrgApex Limit exceeded.", Some(Limited::Apex)),
            ("REQUEST_LIMIT_EXCEEDED", "Something else.", Some(Limited::Other)),
            ("ExceededQuota", "TotalRequests Limit exceeded.", Some(Limited::Daily)),
            ("ExceededQuota", long, Some(Limited::LongRunning)),
            ("ExceededQuota", "Maximum number of batches exceeded.", None),
            ("TOO_MANY_APEX_REQUESTS", "Try again later.", Some(Limited::Apex)),
            ("UNABLE_TO_LOCK_ROW", long, None),
        ] {
            let bodies = [
                format!(r#"[{{"message":"{text}","errorCode":"{code}"}}]"#),
                format!("<soapenv:Fault><faultcode>sf:{code}</faultcode><faultstring>{code}: {text}</faultstring>"),
                format!(
                    "<error><exceptionCode>{code}</exceptionCode><exceptionMessage>{text}</exceptionMessage></error>"
                ),
            ];
            for body in bodies {
                let found = error_code(body.as_bytes()).unwrap();
                assert_eq!(limited(&found, body.as_bytes()), said, "{body}");
            }
        }
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
