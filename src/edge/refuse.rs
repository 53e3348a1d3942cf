//! How the gateway's own answers look: as Salesforce's would, so that SDKs understand them.
//!
//! Host and path are never reflected, and every text is escaped for the form it stands in.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use crate::call::{Family, closed_list};
use crate::outcome::RequestId;
use crate::refusal::{Reason, Refusal, Wants};

/// `Weirkeeper-Request-Id`: which request, for the operator's log.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("weirkeeper-request-id");
/// `Weirkeeper-Refused`: why the gateway answered itself.
pub const REFUSED: HeaderName = HeaderName::from_static("weirkeeper-refused");
/// `Weirkeeper-Outcome: unknown`: a write may have happened.
pub const OUTCOME: HeaderName = HeaderName::from_static("weirkeeper-outcome");

closed_list! {
    /// The form in which a caller expects an error (facts 2.1).
    Shape {
        /// A JSON array of errors: REST and nearly everything else.
        Json = "json",
        /// `<Errors><Error>`: REST asked for XML.
        Xml = "xml",
        /// A SOAP fault, always with status 500.
        SoapFault = "soap_fault",
        /// Bulk API 1.0's `<error>`.
        BulkXml = "bulk_xml",
        /// Bulk API 1.0's object for jobs in JSON.
        BulkJson = "bulk_json",
    }
}

impl Shape {
    /// The form for a request of `family` that wants this.
    pub fn of(family: Family, wants: Wants) -> Self {
        match family {
            Family::Soap => Self::SoapFault,
            Family::Bulk1 if wants.json => Self::BulkJson,
            Family::Bulk1 => Self::BulkXml,
            _ if wants.xml => Self::Xml,
            _ => Self::Json,
        }
    }

    /// Content type of the form. Bulk clients compare it as a string, so it has no charset there (facts 11).
    const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json;charset=UTF-8",
            Self::Xml => "application/xml;charset=UTF-8",
            Self::SoapFault => "text/xml;charset=UTF-8",
            Self::BulkXml => "application/xml",
            Self::BulkJson => "application/json",
        }
    }
}

/// What stands beside the reason in an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct RefusalContext<'a> {
    /// The org's name, once known.
    pub org: Option<&'a str>,
    /// The caller's name, once known.
    pub caller: Option<&'a str>,
    /// Which request.
    pub request: RequestId,
}

/// The answer for `refusal`.
pub fn render(refusal: &Refusal, shape: Shape, context: &RefusalContext<'_>) -> Response<Bytes> {
    let body = match shape {
        Shape::Json => json(refusal, context),
        Shape::Xml => xml(refusal),
        Shape::SoapFault => soap(refusal),
        Shape::BulkXml => bulk_xml(refusal),
        Shape::BulkJson => bulk_json(refusal),
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = match shape {
        // SOAP clients look for a fault only in a 500 (facts 2.1).
        Shape::SoapFault => StatusCode::INTERNAL_SERVER_ERROR,
        // Bulk API 1.0 reports an expired session as 400 (facts 2.5).
        Shape::BulkXml | Shape::BulkJson if refusal.reason == Reason::SessionInvalid => StatusCode::BAD_REQUEST,
        _ => refusal.status(),
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(shape.content_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(REFUSED, HeaderValue::from_static(refusal.reason.as_str()));
    if let Some(seconds) = retry_after_seconds(refusal) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if refusal.reason == Reason::OutcomeUnknown {
        headers.insert(OUTCOME, HeaderValue::from_static("unknown"));
    }
    if refusal.reason == Reason::MethodNotAllowed {
        headers.insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    if let Ok(id) = HeaderValue::from_bytes(&context.request.hex()) {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// Whole seconds, rounded up: coming back earlier would be in vain.
fn retry_after_seconds(refusal: &Refusal) -> Option<u64> {
    refusal.retry_after.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
}

fn json(refusal: &Refusal, context: &RefusalContext<'_>) -> String {
    let mut text = String::with_capacity(400);
    text.push_str("[{\"message\":");
    push_json(&mut text, &refusal.to_string());
    let _ = write!(
        text,
        ",\"errorCode\":\"{}\",\"gateway\":{{\"reason\":\"{}\"",
        refusal.reason.error_code(),
        refusal.reason
    );
    for (name, value) in [("org", context.org), ("caller", context.caller)] {
        if let Some(value) = value {
            let _ = write!(text, ",\"{name}\":");
            push_json(&mut text, value);
        }
    }
    if let Some(seconds) = retry_after_seconds(refusal) {
        let _ = write!(text, ",\"retry_after_seconds\":{seconds}");
    }
    let _ = write!(text, ",\"request_id\":\"{:032x}\"}}}}]", context.request.0);
    text
}

fn xml(refusal: &Refusal) -> String {
    let mut text = String::with_capacity(300);
    let _ = write!(
        text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Errors><Error><errorCode>{}</errorCode><message>",
        refusal.reason.error_code()
    );
    push_xml(&mut text, &refusal.to_string());
    text.push_str("</message></Error></Errors>");
    text
}

fn soap(refusal: &Refusal) -> String {
    let code = refusal.reason.error_code();
    let mut message = String::new();
    push_xml(&mut message, &refusal.to_string());
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <soapenv:Envelope xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:sf=\"urn:fault.partner.soap.sforce.com\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
         <soapenv:Body><soapenv:Fault><faultcode>sf:{code}</faultcode><faultstring>{code}: {message}</faultstring>\
         <detail><sf:UnexpectedErrorFault xsi:type=\"sf:UnexpectedErrorFault\">\
         <sf:exceptionCode>{code}</sf:exceptionCode><sf:exceptionMessage>{message}</sf:exceptionMessage>\
         </sf:UnexpectedErrorFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>"
    )
}

fn bulk_xml(refusal: &Refusal) -> String {
    let mut text = String::with_capacity(300);
    let _ = write!(
        text,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <error xmlns=\"http://www.force.com/2009/06/asyncapi/dataload\"><exceptionCode>{}</exceptionCode><exceptionMessage>",
        bulk_code(refusal.reason)
    );
    push_xml(&mut text, &refusal.to_string());
    text.push_str("</exceptionMessage></error>");
    text
}

fn bulk_json(refusal: &Refusal) -> String {
    let mut text = String::with_capacity(200);
    let _ = write!(text, "{{\"exceptionCode\":\"{}\",\"exceptionMessage\":", bulk_code(refusal.reason));
    push_json(&mut text, &refusal.to_string());
    text.push('}');
    text
}

/// The exception code of Bulk API 1.0 (facts 2.5).
const fn bulk_code(reason: Reason) -> &'static str {
    if matches!(reason, Reason::CallerCeiling | Reason::OrgAllowance | Reason::Pace | Reason::CallerPace) {
        return "ExceededQuota";
    }
    match reason.status() {
        StatusCode::UNAUTHORIZED => "InvalidSessionId",
        StatusCode::NOT_FOUND => "InvalidUrl",
        StatusCode::FORBIDDEN => "InvalidUser",
        StatusCode::PAYLOAD_TOO_LARGE => "ExceededQuota",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "Timeout",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "ServerUnavailable",
        StatusCode::INTERNAL_SERVER_ERROR => "Unknown",
        _ => "ClientInputError",
    }
}

/// `value` as a JSON string with its quotes.
fn push_json(text: &mut String, value: &str) {
    text.push('"');
    for char in value.chars() {
        match char {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            // Harmless inside a page, too, should one show the message.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\u{0}'..='\u{1f}' | '\u{7f}' => {
                let _ = write!(text, "\\u{:04x}", u32::from(char));
            }
            _ => text.push(char),
        }
    }
    text.push('"');
}

/// `value` as XML text; characters XML 1.0 cannot hold become U+FFFD.
pub(super) fn push_xml(text: &mut String, value: &str) {
    for char in value.chars() {
        match char {
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '&' => text.push_str("&amp;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&apos;"),
            '\t' | '\n' | '\r' => text.push(char),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => text.push('\u{fffd}'),
            _ => text.push(char),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn context() -> RefusalContext<'static> {
        RefusalContext { org: Some("prod"), caller: Some("billing \"eu\""), request: RequestId(0xabc) }
    }

    #[test]
    fn a_json_refusal_is_salesforces_array_with_a_gateway_member() {
        let refusal = Refusal::new(Reason::BuffersFull, "No room.").retry_after(Duration::from_millis(1_500));
        let response = render(&refusal, Shape::Json, &context());
        assert_eq!(response.status(), 503);
        let headers = response.headers();
        assert_eq!(headers["content-type"], "application/json;charset=UTF-8");
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["retry-after"], "2");
        assert_eq!(headers["weirkeeper-refused"], "buffers_full");
        assert_eq!(headers["weirkeeper-request-id"], "00000000000000000000000000000abc");
        assert!(!headers.contains_key(OUTCOME));
        let body: serde_json::Value = serde_json::from_slice(response.body()).expect("json");
        assert_eq!(
            body,
            serde_json::json!([{
                "message": "No room. The gateway holds as many request bodies as it may; try again shortly.",
                "errorCode": "SERVER_UNAVAILABLE",
                "gateway": {
                    "reason": "buffers_full", "org": "prod", "caller": "billing \"eu\"",
                    "retry_after_seconds": 2, "request_id": "00000000000000000000000000000abc",
                },
            }])
        );
    }

    #[test]
    fn an_unknown_outcome_says_so_in_a_header() {
        let response = render(&Refusal::new(Reason::OutcomeUnknown, "Lost."), Shape::Json, &context());
        assert_eq!(response.status(), 504);
        assert_eq!(response.headers()[OUTCOME], "unknown");
    }

    #[test]
    fn a_soap_refusal_is_a_fault_with_status_500() {
        let response = render(&Refusal::new(Reason::Forbidden, "a < b & c"), Shape::SoapFault, &context());
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()["content-type"], "text/xml;charset=UTF-8");
        let text = std::str::from_utf8(response.body()).expect("utf-8");
        assert!(text.contains("<faultcode>sf:INSUFFICIENT_ACCESS</faultcode>"), "{text}");
        assert!(text.contains("<sf:exceptionMessage>a &lt; b &amp; c Ask"), "{text}");
    }

    #[test]
    fn an_invalid_gateway_token_is_the_session_error_of_each_api() {
        let refusal = Refusal::new(Reason::SessionInvalid, "Session expired or invalid");
        let shown = |shape| {
            let response = render(&refusal, shape, &context());
            let text = String::from_utf8(response.body().to_vec()).expect("utf-8");
            (response.status().as_u16(), text)
        };
        let (status, text) = shown(Shape::Json);
        let body: serde_json::Value = serde_json::from_str(&text).expect("json");
        assert_eq!((status, body[0]["errorCode"].as_str()), (401, Some("INVALID_SESSION_ID")));
        assert_eq!(body[0]["message"], "Session expired or invalid");
        let (status, text) = shown(Shape::SoapFault);
        assert!(status == 500 && text.contains("<faultcode>sf:INVALID_SESSION_ID</faultcode>"), "{text}");
        let (status, text) = shown(Shape::BulkXml);
        assert!(status == 400 && text.contains("<exceptionCode>InvalidSessionId</exceptionCode>"), "{text}");
        let (status, text) = shown(Shape::BulkJson);
        assert!(status == 400 && text.contains(r#""exceptionCode":"InvalidSessionId""#), "{text}");
    }

    #[test]
    fn shapes_follow_family_and_headers() {
        let value = HeaderValue::from_static;
        let (json, xml) = (value("application/json; charset=UTF-8"), value("application/XML"));
        let (nothing, sends_json) = (Wants::of(None, None), Wants::of(None, Some(&json)));
        let takes_xml = Wants::of(Some(&xml), Some(&json));
        for (family, wants, shape) in [
            (Family::Rest, nothing, Shape::Json),
            (Family::Soap, nothing, Shape::SoapFault),
            (Family::Bulk1, nothing, Shape::BulkXml),
            (Family::Bulk1, sends_json, Shape::BulkJson),
            (Family::Bulk1, Wants::of(Some(&value("text/xml")), Some(&json)), Shape::BulkJson),
            (Family::Bulk1, takes_xml, Shape::BulkXml),
            (Family::Query, takes_xml, Shape::Xml),
            (Family::Soap, takes_xml, Shape::SoapFault),
        ] {
            assert_eq!(Shape::of(family, wants), shape, "{family} {wants:?}");
        }
    }

    #[test]
    fn bulk_answers_have_no_charset() {
        let refusal = Refusal::new(Reason::UpstreamUnreachable, "Down.");
        let response = render(&refusal, Shape::BulkXml, &context());
        assert_eq!(response.headers()["content-type"], "application/xml");
        assert!(response.body().starts_with(b"<?xml"));
        let response = render(&refusal, Shape::BulkJson, &context());
        assert_eq!(response.headers()["content-type"], "application/json");
        let body: serde_json::Value = serde_json::from_slice(response.body()).expect("json");
        assert_eq!(body["exceptionCode"], "ServerUnavailable");
    }

    proptest! {
        #[test]
        fn any_detail_and_name_survive_json(detail in any::<String>(), org in any::<String>()) {
            let refusal = Refusal::new(Reason::Internal, detail.clone());
            let context = RefusalContext { org: Some(&org), caller: None, request: RequestId(1) };
            let response = render(&refusal, Shape::Json, &context);
            let body: serde_json::Value = serde_json::from_slice(response.body()).expect("json");
            prop_assert!(body[0]["message"].as_str().expect("text").starts_with(&detail));
            prop_assert_eq!(body[0]["gateway"]["org"].as_str(), Some(org.as_str()));
        }

        #[test]
        fn no_detail_escapes_its_xml_element(detail in any::<String>()) {
            let refusal = Refusal::new(Reason::Internal, detail);
            for shape in [Shape::Xml, Shape::SoapFault, Shape::BulkXml] {
                let plain = render(&Refusal::new(Reason::Internal, "x"), shape, &context());
                let filled = render(&refusal, shape, &context());
                let count = |body: &Bytes| body.iter().filter(|byte| matches!(byte, b'<' | b'>')).count();
                prop_assert_eq!(count(plain.body()), count(filled.body()));
            }
        }
    }
}
