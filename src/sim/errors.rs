//! Salesforce's error shapes (facts 2.1, 2.3).

use std::borrow::Cow;

use smol_str::SmolStr;

use super::json::{Json, obj};

/// One error of a REST answer or of one item of a collection.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    pub(super) status: u16,
    pub(super) code: Cow<'static, str>,
    pub(super) message: Cow<'static, str>,
    /// The fields concerned; `None` where Salesforce leaves the member out.
    pub(super) fields: Option<Vec<SmolStr>>,
}

impl ApiError {
    pub(super) fn new(status: u16, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code: Cow::Borrowed(code), message: message.into(), fields: None }
    }

    /// A refusal of data: 400 with the fields concerned.
    pub(super) fn dml(code: &'static str, message: impl Into<Cow<'static, str>>, fields: &[&str]) -> Self {
        Self { fields: Some(fields.iter().map(SmolStr::new).collect()), ..Self::new(400, code, message) }
    }

    pub(super) fn not_found() -> Self {
        Self::new(404, "NOT_FOUND", "The requested resource does not exist")
    }

    pub(super) fn method_not_allowed(method: &str) -> Self {
        Self::new(405, "METHOD_NOT_ALLOWED", format!("HTTP Method '{method}' not allowed. Allowed are HEAD,GET"))
    }

    pub(super) fn session() -> Self {
        Self::new(401, "INVALID_SESSION_ID", "Session expired or invalid")
    }

    pub(super) fn parser(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "JSON_PARSER_ERROR", message)
    }

    pub(super) fn malformed_query(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, "MALFORMED_QUERY", message)
    }

    pub(super) fn locked() -> Self {
        Self::dml("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record or 1 records", &[])
    }

    /// Whether this is a refusal by a limit.
    pub(super) fn is_limit_refusal(&self) -> bool {
        self.code == "REQUEST_LIMIT_EXCEEDED"
    }

    /// The entry of a REST error array.
    pub(super) fn entry(&self) -> Json {
        let mut entry = obj! {"message": self.message.as_ref(), "errorCode": self.code.as_ref()};
        if let Some(fields) = &self.fields {
            entry.push("fields", Json::Arr(fields.iter().map(Json::from).collect()));
        }
        entry
    }

    /// The whole REST error array.
    pub(super) fn array(&self) -> Json {
        Json::Arr(vec![self.entry()])
    }

    /// The entry of the `errors` of one item: `statusCode`, not `errorCode` (facts 2.1).
    pub(super) fn item_entry(&self) -> Json {
        let fields = self.fields.iter().flatten().map(Json::from).collect();
        obj! {"statusCode": self.code.as_ref(), "message": self.message.as_ref(), "fields": Json::Arr(fields)}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_shapes_differ_in_the_name_of_the_code() {
        let error = ApiError::dml("REQUIRED_FIELD_MISSING", "Required fields are missing: [Name]", &["Name"]);
        let array = String::from_utf8(error.array().to_bytes()).unwrap();
        assert_eq!(
            array,
            r#"[{"message":"Required fields are missing: [Name]","errorCode":"REQUIRED_FIELD_MISSING","fields":["Name"]}]"#
        );
        assert!(error.item_entry().get("statusCode").is_some());
        assert!(error.item_entry().get("errorCode").is_none());
    }
}
