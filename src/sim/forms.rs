//! The forms errors take outside REST: SOAP faults and Bulk v1 errors (facts 2.1, 2.5).

use super::answer::{Answer, Content};
use super::errors::ApiError;
use super::json::obj;
use super::request::Head;
use super::xml::{escape, put};

/// Namespace of Bulk v1.
pub(super) const BULK1: &str = "http://www.force.com/2009/06/asyncapi/dataload";

/// Gives an error the form of the API it happened in. Everything else passes.
pub(super) fn shape(head: &Head, mut answer: Answer) -> Answer {
    let Some(error) = answer.error.take() else { return answer };
    let formed = match head.family() {
        "soap" => fault(&error),
        "bulk1" => bulk1(head, &error),
        _ => return answer,
    };
    Answer { refusal: answer.refusal, calls: answer.calls, ..formed }
}

/// A SOAP fault; always HTTP 500.
pub(super) fn fault(error: &ApiError) -> Answer {
    let kind = match error.code.as_ref() {
        "INVALID_LOGIN" | "LOGIN_RATE_EXCEEDED" => "LoginFault",
        "MALFORMED_QUERY" => "MalformedQueryFault",
        "INVALID_QUERY_LOCATOR" => "InvalidQueryLocatorFault",
        "INVALID_FIELD" => "InvalidFieldFault",
        "INVALID_TYPE" => "InvalidSObjectFault",
        _ => "UnexpectedErrorFault",
    };
    let (code, message) = (escape(&error.code), escape(&error.message));
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><soapenv:Envelope \
         xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         xmlns:sf=\"urn:fault.partner.soap.sforce.com\" xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
         <soapenv:Body><soapenv:Fault><faultcode>sf:{code}</faultcode><faultstring>{code}: {message}</faultstring>\
         <detail><sf:{kind} xsi:type=\"sf:{kind}\"><sf:exceptionCode>{code}</sf:exceptionCode>\
         <sf:exceptionMessage>{message}</sf:exceptionMessage></sf:{kind}></detail>\
         </soapenv:Fault></soapenv:Body></soapenv:Envelope>"
    );
    Answer::text(500, "text/xml; charset=utf-8", text)
}

/// Whether a Bulk v1 request speaks JSON.
pub(super) fn speaks_json(head: &Head) -> bool {
    let says = |name: &str| head.header(name).is_some_and(|value| value.contains("json"));
    says("content-type") || says("accept")
}

/// A Bulk v1 error: 400 whatever happened, with a CamelCase code.
fn bulk1(head: &Head, error: &ApiError) -> Answer {
    let code = match error.code.as_ref() {
        "INVALID_SESSION_ID" => "InvalidSessionId",
        "REQUEST_LIMIT_EXCEEDED" => "ExceededQuota",
        "API_CURRENTLY_DISABLED" => "FeatureNotEnabled",
        "NOT_FOUND" => "InvalidJob",
        "METHOD_NOT_ALLOWED" => "ClientInputError",
        other => other,
    };
    let status = if error.status == 405 { 405 } else { 400 };
    if speaks_json(head) {
        let body = obj! {"exceptionCode": code, "exceptionMessage": error.message.as_ref()};
        // Clients compare this content type as a string (facts 11, hazard 5).
        return Answer {
            status,
            content: Content::Text("application/json".into(), body.to_bytes().into()),
            ..Answer::default()
        };
    }
    let mut text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?><error xmlns=\"{BULK1}\">");
    put(&mut text, "exceptionCode", code);
    put(&mut text, "exceptionMessage", &error.message);
    text.push_str("</error>");
    Answer::text(status, "application/xml", text)
}
