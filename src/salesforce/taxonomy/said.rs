//! What an error answer says: the code and the message in its body, in any of Salesforce's shapes (facts 2.1).
//!
//! The body may be cut off anywhere: what was said before that is heard.

use memchr::memmem;

use super::walk::Walk;

/// Codes longer than this are none of Salesforce's.
const LONGEST_CODE: usize = 80;

/// What an error answer says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said<'a> {
    /// `errorCode`, `statusCode`, `exceptionCode`, `error` or the fault's code, without its prefix; empty if there is none.
    pub code: &'a str,
    /// The words with it, as they are written. They are looked through, and go nowhere.
    pub message: &'a [u8],
    /// The form it has.
    pub shape: Shape,
}

/// The form of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// Nothing at all.
    #[default]
    Empty,
    /// JSON.
    Json,
    /// XML: a SOAP fault, an error of Bulk API 1.0, a REST error for who wants XML.
    Xml,
    /// A page for people, made by something before Salesforce's API.
    Html,
    /// Anything else, or what cannot be read.
    Other,
}

/// Hears what the plain beginning of an error body says.
pub fn said(body: &[u8]) -> Said<'_> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    match body {
        [] => Said::default(),
        [b'[' | b'{', ..] => from_json(body),
        [b'<', ..] if is_html(body) => Said { code: "", message: body, shape: Shape::Html },
        [b'<', ..] => from_xml(body),
        _ => Said { code: "", message: body, shape: Shape::Other },
    }
}

fn from_json(body: &[u8]) -> Said<'_> {
    let mut said = Said { shape: Shape::Json, ..Said::default() };
    hear(&mut Walk::new(body), &mut said);
    said
}

/// Hears the first entry of an array that names a code, or the object itself. It may end early; what it held until then
/// counts.
pub(super) fn hear<'a>(walk: &mut Walk<'a>, said: &mut Said<'a>) {
    let _ = match walk.peek() {
        Some(b'[') => walk
            .items(|walk| if said.code.is_empty() && walk.peek()? == b'{' { entry(walk, said) } else { walk.skip() }),
        Some(b'{') => entry(walk, said),
        _ => None,
    };
}

/// Reads one entry: `{"message": "...", "errorCode": "..."}`, under the names each API has for the two.
fn entry<'a>(walk: &mut Walk<'a>, said: &mut Said<'a>) -> Option<()> {
    walk.members(|name, walk| {
        let is_text = walk.peek()? == b'"';
        match name {
            b"errorCode" | b"statusCode" | b"exceptionCode" | b"error" if is_text => {
                let code = walk.string()?;
                if said.code.is_empty() {
                    said.code = plausible(code).unwrap_or_default();
                }
                Some(())
            }
            b"message" | b"exceptionMessage" | b"error_description" if is_text => {
                said.message = walk.string()?;
                Some(())
            }
            _ => walk.skip(),
        }
    })
}

/// Whether markup is a page rather than an answer of an API.
fn is_html(body: &[u8]) -> bool {
    let starts = |start: &[u8]| body.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
    let declared = if starts(b"<?xml") { memmem::find(body, b"?>").and_then(|at| body.get(at + 2..)) } else { None };
    match declared {
        Some(rest) => {
            rest.trim_ascii_start().get(..14).is_some_and(|head| head.eq_ignore_ascii_case(b"<!doctype html"))
        }
        None => {
            starts(b"<!doctype html") || starts(b"<html") || starts(b"<head") || starts(b"<body") || starts(b"<!--")
        }
    }
}

fn from_xml(body: &[u8]) -> Said<'_> {
    let code = ["exceptionCode", "errorCode", "faultcode"].into_iter().find_map(|name| element(body, name));
    let message = ["exceptionMessage", "message", "faultstring"].into_iter().find_map(|name| element(body, name));
    // `sf:INVALID_SESSION_ID`
    let code = code.map(|code| code.rsplit(|byte| *byte == b':').next().unwrap_or(code));
    Said { code: code.and_then(plausible).unwrap_or_default(), message: message.unwrap_or_default(), shape: Shape::Xml }
}

/// The text of the first element of this name, with whatever prefix.
pub(super) fn element<'a>(body: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut from = 0;
    while let Some(at) = memmem::find(body.get(from..)?, name.as_bytes()) {
        let at = from + at;
        from = at + name.len();
        let opens = at.checked_sub(1).and_then(|before| body.get(before)).is_some_and(|byte| b"<:".contains(byte));
        if opens && body.get(from) == Some(&b'>') {
            let rest = body.get(from + 1..)?;
            let end = memchr::memchr(b'<', rest)?;
            return rest.get(..end).map(<[u8]>::trim_ascii);
        }
    }
    None
}

pub(super) fn plausible(code: &[u8]) -> Option<&str> {
    let fine = !code.is_empty()
        && code.len() <= LONGEST_CODE
        && code.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    if fine { std::str::from_utf8(code).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_error_says_its_code_and_its_words() {
        for (body, code, message) in [
            (
                r#"[{"message":"Session expired or invalid","errorCode":"INVALID_SESSION_ID"}]"#,
                "INVALID_SESSION_ID",
                "Session expired or invalid",
            ),
            (r#"{"errorCode":"NOT_FOUND","message":"x"}"#, "NOT_FOUND", "x"),
            (
                r#" [ { "duplicateResult" : {"matchResults":[{"errors":[],"errorCode":"NO"}]} , "errorCode" : "DUPLICATES_DETECTED" } ]"#,
                "DUPLICATES_DETECTED",
                "",
            ),
            (
                r#"{"error":"invalid_grant","error_description":"authentication failure"}"#,
                "invalid_grant",
                "authentication failure",
            ),
            (
                "<?xml version=\"1.0\"?><Errors><Error><errorCode>NOT_FOUND</errorCode><message>x</message></Error></Errors>",
                "NOT_FOUND",
                "x",
            ),
            (
                "<soapenv:Envelope><soapenv:Body><soapenv:Fault><faultcode>sf:INVALID_SESSION_ID</faultcode><faultstring>INVALID_SESSION_ID: no</faultstring>",
                "INVALID_SESSION_ID",
                "INVALID_SESSION_ID: no",
            ),
            (
                "<error xmlns=\"x\"><exceptionCode>InvalidSessionId</exceptionCode><exceptionMessage>bad</exceptionMessage></error>",
                "InvalidSessionId",
                "bad",
            ),
        ] {
            let said = said(body.as_bytes());
            assert_eq!((said.code, said.message), (code, message.as_bytes()), "{body}");
        }
    }

    #[test]
    fn a_body_that_breaks_off_says_what_it_said() {
        let whole = br#"[{"errorCode":"UNABLE_TO_LOCK_ROW","message":"unable to obtain exclusive access"}]"#;
        let said_of = |length: usize| said(&whole[..length]).code;
        assert_eq!(said_of(36), "UNABLE_TO_LOCK_ROW");
        assert_eq!(said_of(30), "");
    }

    #[test]
    fn a_page_is_no_error_of_the_api() {
        for page in [
            "<html><body>Down for maintenance</body></html>",
            "<!DOCTYPE html>\n<html>",
            "  <!doctype HTML PUBLIC>",
            "<?xml version=\"1.0\"?>\n<!DOCTYPE html PUBLIC \"-//W3C\">",
        ] {
            assert_eq!(said(page.as_bytes()).shape, Shape::Html, "{page}");
        }
    }

    #[test]
    fn a_code_that_carries_anything_else_is_not_taken() {
        for body in
            [r#"[{"errorCode":"secret 00D!abc"}]"#, r#"[{"errorCode":["A"]}]"#, "[]", "[{}]", "{\"error", "plain", "<"]
        {
            assert_eq!(said(body.as_bytes()).code, "", "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_body_makes_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = said(&body);
        }
    }
}
