//! An answer put into HTTP: headers as real ones, JSON or XML, compressed or not (facts 0, 2.1).

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::answer::{Answer, Content};
use super::body::SimBody;
use super::clock::Micros;
use super::dates::http_date;
use super::json::Json;
use super::request::Head;
use super::xml::{close, open, put};

/// What the response needs besides the answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Trimmings {
    pub(super) now: Micros,
    /// `Sforce-Limit-Info`, on all but the version list.
    pub(super) limit_info: Option<String>,
    /// Value of the `BrowserId` cookie.
    pub(super) browser: String,
    pub(super) gzip: bool,
}

/// Builds the response. JSON is sent in chunks, as real answers are; blobs have a length.
pub(super) fn build(head: &Head, answer: &Answer, trimmings: &Trimmings) -> Response<SimBody> {
    let mut response = Response::new(SimBody::Empty);
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(header::DATE, &http_date(trimmings.now));
    put(header::STRICT_TRANSPORT_SECURITY, "max-age=63072000; includeSubDomains");
    put(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    put(header::X_XSS_PROTECTION, "1; mode=block");
    put(HeaderName::from_static("x-robots-tag"), "none");
    put(header::CACHE_CONTROL, "no-cache,must-revalidate,max-age=0,no-store,private");
    put(header::EXPIRES, "Thu, 01 Jan 1970 00:00:00 GMT");
    let year = 365 * super::clock::DAY;
    let cookie = format!(
        "BrowserId={};Path=/;Domain=.salesforce.com;Expires={};Max-Age=31536000",
        trimmings.browser,
        http_date(trimmings.now + year)
    );
    put(header::SET_COOKIE, &cookie);
    if let Some(info) = &trimmings.limit_info {
        put(HeaderName::from_static("sforce-limit-info"), info);
    }
    let (content_type, bytes) = match &answer.content {
        Content::Empty | Content::Later(..) => (None, None),
        Content::Blob(_) => (Some("application/octetstream"), None),
        Content::Text(content_type, bytes) => (Some(content_type.as_ref()), Some(bytes.clone())),
        Content::Json(body) if wants_xml(head) => {
            let root = answer.root.as_deref().unwrap_or("Result");
            (Some("application/xml;charset=UTF-8"), Some(Bytes::from(to_xml(root, body, answer.status))))
        }
        Content::Json(body) => {
            let pretty = head.header("x-prettyprint").is_some_and(|value| value.trim() == "1");
            let text = if pretty { body.to_pretty_bytes() } else { body.to_bytes() };
            (Some("application/json;charset=UTF-8"), Some(Bytes::from(text)))
        }
    };
    if let Some(content_type) = content_type {
        put(header::CONTENT_TYPE, content_type);
    }
    let mut body = match (&answer.content, bytes) {
        (Content::Blob(size), _) => SimBody::Blob(*size),
        (_, Some(bytes)) => {
            put(header::VARY, "Accept-Encoding");
            let accepts = head.header("accept-encoding").is_some_and(|codings| codings.contains("gzip"));
            let compressed = answer.always_compressed || (trimmings.gzip && accepts);
            if compressed && !bytes.is_empty() {
                put(header::CONTENT_ENCODING, "gzip");
                SimBody::whole(compress(&bytes), false)
            } else {
                SimBody::whole(bytes, false)
            }
        }
        _ => SimBody::Empty,
    };
    for (name, value) in &answer.headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
            put(name, value);
        }
    }
    std::mem::swap(response.body_mut(), &mut body);
    response
}

fn compress(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 3 + 64), Compression::fast());
    // Writing to a Vec cannot fail; if it did, an empty body would be seen at once.
    let written = encoder.write_all(bytes).is_ok();
    encoder.finish().map(|out| if written { Bytes::from(out) } else { Bytes::new() }).unwrap_or_default()
}

fn wants_xml(head: &Head) -> bool {
    head.header("accept").is_some_and(|accept| accept.contains("application/xml") && !accept.contains("json"))
}

/// JSON as Salesforce's XML: errors as `<Errors><Error>`, members as elements, arrays as repeated elements.
fn to_xml(root: &str, body: &Json, status: u16) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    match body {
        Json::Arr(items) if status >= 400 => {
            out.push_str("<Errors>");
            for item in items {
                element(&mut out, "Error", item);
            }
            out.push_str("</Errors>");
        }
        Json::Arr(items) => {
            open(&mut out, root);
            for item in items {
                element(&mut out, "Result", item);
            }
            close(&mut out, root);
        }
        other => element(&mut out, root, other),
    }
    out
}

fn element(out: &mut String, name: &str, value: &Json) {
    match value {
        Json::Null => out.extend(["<", name, " xsi:nil=\"true\"/>"]),
        Json::Arr(items) => items.iter().for_each(|item| element(out, name, item)),
        Json::Obj(members) => {
            open(out, name);
            for (member, value) in members.iter().filter(|(member, _)| member != "attributes") {
                element(out, member, value);
            }
            close(out, name);
        }
        scalar => put(out, name, &scalar.plain()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::errors::ApiError;

    #[test]
    fn errors_become_xml() {
        let xml = to_xml("Result", &ApiError::session().array(), 401);
        assert_eq!(
            xml,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Errors><Error><message>Session expired or invalid</message>\
             <errorCode>INVALID_SESSION_ID</errorCode></Error></Errors>"
        );
    }

    #[test]
    fn markup_is_escaped() {
        let body = Json::Obj(vec![("Name".into(), Json::from("A & <B>"))]);
        assert!(to_xml("Account", &body, 200).ends_with("<Account><Name>A &amp; &lt;B&gt;</Name></Account>"));
    }
}
