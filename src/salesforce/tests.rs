//! Tables of requests and what they mean: every family, every row of the cost table, every hazard a client has shown.

use proptest::prelude::*;

use super::*;
use crate::call::{ApiCalls, ApiVersion};

const COSTS: Costs = Costs { not_modified: 1, client_error: 1, server_error: 1, refusal: 1, oauth: 3, limits: 2 };

pub(super) fn meaning(method: &str, path: &str) -> Meaning {
    understand(&Method::from_bytes(method.as_bytes()).unwrap(), path, &COSTS)
}

/// Method, path, template below `/services/data/{version}`, family, operation, object, cost, idempotency, reach.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    u32,
    &'static str,
    &'static str,
);

fn check(prefix: &str, template_prefix: &str, rows: &[Row]) {
    for (method, path, template, family, operation, object, cost, idempotency, reach) in rows {
        let found = meaning(method, &format!("{prefix}{path}"));
        let label = format!("{method} {path}");
        assert_eq!(found.template, format!("{template_prefix}{template}"), "{label}");
        assert_eq!(found.family.as_str(), *family, "{label}");
        assert_eq!(found.operation.as_str(), *operation, "{label}");
        assert_eq!(found.object.as_deref().unwrap_or("-"), *object, "{label}");
        assert_eq!(found.cost, ApiCalls(*cost), "{label}");
        assert_eq!(found.idempotency.as_str(), *idempotency, "{label}");
        assert_eq!(found.reach.as_str(), *reach, "{label}");
    }
}

const ID: &str = "001D000000IqhSLIAZ";

#[test]
#[rustfmt::skip]
fn resources_of_a_version() {
    const ROWS: &[Row] = &[
        ("GET", "", "", "rest", "read", "-", 1, "safe", "nothing"),
        ("GET", "/limits", "/limits", "rest", "limits", "-", 2, "safe", "nothing"),
        ("POST", "/limits", "/limits", "rest", "unknown", "-", 2, "unsafe", "nothing"),
        ("GET", "/limits/recordCount?sObjects=Account", "/limits/recordCount", "rest", "read", "-", 1, "safe", "unknown"),
        ("GET", "/sobjects", "/sobjects", "rest", "describe", "-", 1, "safe", "nothing"),
        ("GET", "/sobjects/", "/sobjects", "rest", "describe", "-", 1, "safe", "nothing"),
        ("GET", "/sobjects/Account", "/sobjects/{object}", "rest", "read", "Account", 1, "safe", "named"),
        ("POST", "/sobjects/Account", "/sobjects/{object}", "rest", "create", "Account", 1, "unsafe", "named"),
        ("GET", "/sobjects/account/describe", "/sobjects/{object}/describe", "rest", "describe", "account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/describe/", "/sobjects/{object}/describe", "rest", "describe", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/describe/layouts", "/sobjects/{object}/describe/layouts", "rest", "describe", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/describe/layouts/012000000000000AAA", "/sobjects/{object}/describe/layouts/{record_type}", "rest", "describe", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/describe/approvalLayouts", "/sobjects/{object}/describe/approvalLayouts", "rest", "describe", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/describe/approvalLayouts/P", "/sobjects/{object}/describe/approvalLayouts/{name}", "rest", "describe", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/describe/compactLayouts", "/sobjects/{object}/describe/compactLayouts", "rest", "describe", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/describe/namedLayouts/X", "/sobjects/{object}/describe/namedLayouts/{name}", "rest", "describe", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/deleted/?start=x&end=y", "/sobjects/{object}/deleted", "rest", "read", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/updated?start=x", "/sobjects/{object}/updated", "rest", "read", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/My__e/eventSchema", "/sobjects/{object}/eventSchema", "rest", "describe", "My__e", 1, "safe", "named"),
        ("GET", "/sobjects/Account/relevantItems", "/sobjects/{object}/relevantItems", "rest", "read", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/relevantItems", "/sobjects/relevantItems", "rest", "read", "-", 1, "safe", "unknown"),
        ("GET", "/sobjects/Account/listviews", "/sobjects/{object}/listviews", "rest", "read", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/listviews/00B000000000001/results", "/sobjects/{object}/listviews/{view}/results", "rest", "read", "Account", 1, "safe", "related"),
        ("GET", "/sobjects/Account/listviews/00B000000000001/describe", "/sobjects/{object}/listviews/{view}/describe", "rest", "describe", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/quickActions", "/sobjects/{object}/quickActions", "rest", "describe", "Account", 1, "safe", "named"),
        ("POST", "/sobjects/Account/quickActions/New", "/sobjects/{object}/quickActions/{action}", "rest", "execute", "Account", 1, "unsafe", "related"),
        ("GET", "/sobjects/Account/quickActions/New/describe", "/sobjects/{object}/quickActions/{action}/describe", "rest", "describe", "Account", 1, "safe", "named"),
        ("GET", "/sobjects/Account/quickActions/New/defaultValues", "/sobjects/{object}/quickActions/{action}/defaultValues", "rest", "read", "Account", 1, "safe", "related"),
        ("GET", "/sobjects/Account/001D000000IqhSL?fields=Name", "/sobjects/{object}/{id}", "rest", "read", "Account", 1, "safe", "named"),
        ("HEAD", "/sobjects/Account/001D000000IqhSL", "/sobjects/{object}/{id}", "rest", "read", "Account", 1, "safe", "named"),
        ("PATCH", "/sobjects/Account/001D000000IqhSL", "/sobjects/{object}/{id}", "rest", "update", "Account", 1, "idempotent", "named"),
        ("POST", "/sobjects/Account/001D000000IqhSL?_HttpMethod=PATCH", "/sobjects/{object}/{id}", "rest", "update", "Account", 1, "idempotent", "named"),
        ("POST", "/sobjects/Account/001D000000IqhSL?_HttpMethod=SPY", "/sobjects/{object}/{id}", "rest", "unknown", "Account", 1, "unsafe", "named"),
        ("DELETE", "/sobjects/Account/001D000000IqhSL", "/sobjects/{object}/{id}", "rest", "delete", "Account", 1, "idempotent", "named"),
        ("PUT", "/sobjects/Account/001D000000IqhSL", "/sobjects/{object}/{id}", "rest", "unknown", "Account", 1, "unsafe", "named"),
        ("POST", "/sobjects/Account/Id", "/sobjects/{object}/Id", "rest", "create", "Account", 1, "unsafe", "named"),
        ("PATCH", "/sobjects/Account/Id/001D000000IqhSL", "/sobjects/{object}/Id/{id}", "rest", "upsert", "Account", 1, "unsafe", "named"),
        ("GET", "/sobjects/Account/Key__c/a%2Fb", "/sobjects/{object}/{field}/{value}", "rest", "read", "Account", 1, "safe", "named"),
        ("PATCH", "/sobjects/Account/Key__c/a%2Fb%25?updateOnly=true", "/sobjects/{object}/{field}/{value}", "rest", "upsert", "Account", 1, "idempotent", "named"),
        ("PATCH", "/sobjects/Account/Key__c/password", "/sobjects/{object}/{field}/{value}", "rest", "upsert", "Account", 1, "idempotent", "named"),
        ("DELETE", "/sobjects/Account/Key__c/7", "/sobjects/{object}/{field}/{value}", "rest", "delete", "Account", 1, "idempotent", "named"),
        ("GET", "/sobjects/Document/015D0000000NdJOIA0/body", "/sobjects/{object}/{id}/{blob}", "rest", "read", "Document", 1, "safe", "named"),
        ("GET", "/sobjects/ContentVersion/068D00000000pgOIAQ/VersionData", "/sobjects/{object}/{id}/{blob}", "rest", "read", "ContentVersion", 1, "safe", "named"),
        ("GET", "/sobjects/Lead/00QRM000003ZfDb2AK/richTextImageFields/F__c/0EMR00000000A8V", "/sobjects/{object}/{id}/richTextImageFields/{field}/{image}", "rest", "read", "Lead", 1, "safe", "named"),
        ("GET", "/sobjects/Account/001D000000IqhSL/Owner", "/sobjects/{object}/{id}/{relationship}", "rest", "read", "Account", 1, "safe", "related"),
        ("PATCH", "/sobjects/Contact/003D000000QOMqg/Account", "/sobjects/{object}/{id}/{relationship}", "rest", "update", "Contact", 1, "idempotent", "related"),
        ("GET", "/sobjects/Contact/003D000000QOMqg/Account/Owner", "/sobjects/{object}/{id}/{relationship}/{path}", "rest", "read", "Contact", 1, "safe", "related"),
        ("POST", "/sobjects/User/005D0000001KyEI/password", "/sobjects/{object}/{id}/password", "rest", "create", "User", 1, "unsafe", "named"),
        ("DELETE", "/sobjects/Event/00UR00000000001/fromThisEventOnwards", "/sobjects/{object}/{id}/fromThisEventOnwards", "rest", "delete", "Event", 1, "idempotent", "named"),
        ("GET", "/sobjects/A-b/001D000000IqhSL", "/sobjects/{object}/{id}", "rest", "read", "-", 1, "safe", "unknown"),
        ("OPTIONS", "/sobjects/Account", "/sobjects/{object}", "rest", "unknown", "Account", 1, "safe", "named"),
        ("TRACE", "/sobjects/Account", "/sobjects/{object}", "rest", "unknown", "Account", 1, "unsafe", "named"),

        ("GET", "/query?q=SELECT+Id+FROM+Account", "/query", "query", "query", "Account", 1, "safe", "named"),
        ("GET", "/query/?q=SELECT%20Id%20FROM%20Account&columns=true", "/query", "query", "query", "Account", 1, "safe", "named"),
        ("GET", "/query?q=SELECT+Owner.Name+FROM+Account", "/query", "query", "query", "Account", 1, "safe", "related"),
        ("GET", "/query?q=nonsense", "/query", "query", "query", "-", 1, "safe", "unknown"),
        ("GET", "/query", "/query", "query", "query", "-", 1, "safe", "unknown"),
        ("GET", "/query?q=SELECT+Id+FROM+A&q=SELECT+Id+FROM+B", "/query", "query", "query", "-", 1, "safe", "unknown"),
        ("GET", "/query?explain=SELECT+Id+FROM+Lead", "/query?explain", "query", "query", "Lead", 1, "safe", "named"),
        ("GET", "/query?explain=00OD0000001KyEI", "/query?explain", "query", "query", "-", 1, "safe", "unknown"),
        ("GET", "/queryAll?q=SELECT+Id+FROM+Lead", "/queryAll", "query", "query", "Lead", 1, "safe", "named"),
        ("GET", "/query/01gD0000002HU6KIAW-2000", "/query/{locator}", "query", "query", "-", 1, "safe", "continued"),
        ("GET", "/queryAll/0r8xx-2000", "/queryAll/{locator}", "query", "query", "-", 1, "safe", "continued"),
        ("POST", "/query?q=SELECT+Id+FROM+Lead", "/query", "query", "unknown", "-", 1, "unsafe", "unknown"),
        ("GET", "/search?q=FIND+%7Bx%7D", "/search", "search", "search", "-", 1, "safe", "unknown"),
        ("GET", "/search/scopeOrder", "/search/scopeOrder", "search", "read", "-", 1, "safe", "nothing"),
        ("GET", "/search/layout?q=Account", "/search/layout", "search", "describe", "-", 1, "safe", "unknown"),
        ("GET", "/search/suggestions?q=x", "/search/{resource}", "search", "search", "-", 1, "safe", "unknown"),
        ("GET", "/parameterizedSearch?q=x", "/parameterizedSearch", "search", "search", "-", 1, "safe", "unknown"),
        ("POST", "/parameterizedSearch", "/parameterizedSearch", "search", "search", "-", 1, "safe", "unknown"),

        ("GET", "/composite", "/composite", "composite", "read", "-", 1, "safe", "unknown"),
        ("POST", "/composite", "/composite", "composite", "mixed", "-", 1, "unsafe", "unknown"),
        ("POST", "/composite/batch", "/composite/batch", "batch", "mixed", "-", 25, "unsafe", "unknown"),
        ("POST", "/composite/graph", "/composite/graph", "graph", "mixed", "-", 1, "unsafe", "unknown"),
        ("POST", "/composite/tree/Account", "/composite/tree/{object}", "tree", "create", "Account", 1, "unsafe", "unknown"),
        ("POST", "/composite/sobjects", "/composite/sobjects", "collections", "create", "-", 1, "unsafe", "unknown"),
        ("PATCH", "/composite/sobjects", "/composite/sobjects", "collections", "update", "-", 1, "idempotent", "unknown"),
        ("DELETE", "/composite/sobjects?ids=a,b", "/composite/sobjects", "collections", "delete", "-", 1, "idempotent", "unknown"),
        ("PATCH", "/composite/sobjects/Account/Key__c", "/composite/sobjects/{object}/{field}", "collections", "upsert", "Account", 1, "idempotent", "unknown"),
        ("PATCH", "/composite/sobjects/Account/Id", "/composite/sobjects/{object}/Id", "collections", "upsert", "Account", 1, "unsafe", "unknown"),
        ("GET", "/composite/sobjects/Account?ids=a&fields=b", "/composite/sobjects/{object}", "collections", "read", "Account", 1, "safe", "named"),
        ("POST", "/composite/sobjects/Account", "/composite/sobjects/{object}", "collections", "read", "Account", 1, "safe", "named"),
        ("POST", "/graphql", "/graphql", "graphql", "execute", "-", 10, "unsafe", "unknown"),

        ("POST", "/jobs/ingest", "/jobs/ingest", "bulk2", "job", "-", 1, "unsafe", "unknown"),
        ("GET", "/jobs/ingest", "/jobs/ingest", "bulk2", "job", "-", 1, "safe", "unknown"),
        ("GET", "/jobs/ingest/7505800000Ltf5GAAR", "/jobs/ingest/{job}", "bulk2", "job", "-", 1, "safe", "continued"),
        ("PATCH", "/jobs/ingest/7505800000Ltf5GAAR", "/jobs/ingest/{job}", "bulk2", "job", "-", 1, "idempotent", "continued"),
        ("DELETE", "/jobs/ingest/7505800000Ltf5GAAR", "/jobs/ingest/{job}", "bulk2", "job", "-", 1, "idempotent", "continued"),
        ("PUT", "/jobs/ingest/7505800000Ltf5GAAR/batches/", "/jobs/ingest/{job}/batches", "bulk2", "job", "-", 1, "idempotent", "continued"),
        ("GET", "/jobs/ingest/7505800000Ltf5GAAR/successfulResults", "/jobs/ingest/{job}/successfulResults", "bulk2", "job", "-", 1, "safe", "continued"),
        ("GET", "/jobs/ingest/7505800000Ltf5GAAR/failedResults/", "/jobs/ingest/{job}/failedResults", "bulk2", "job", "-", 1, "safe", "continued"),
        ("GET", "/jobs/ingest/7505800000Ltf5GAAR/unprocessedRecords", "/jobs/ingest/{job}/unprocessedrecords", "bulk2", "job", "-", 1, "safe", "continued"),
        ("POST", "/jobs/query", "/jobs/query", "bulk2", "job", "-", 1, "unsafe", "unknown"),
        ("GET", "/jobs/query/750/results?locator=x", "/jobs/query/{job}/results", "bulk2", "job", "-", 1, "safe", "continued"),
        ("GET", "/jobs/query/750/resultPages", "/jobs/query/{job}/resultPages", "bulk2", "job", "-", 1, "safe", "continued"),

        ("GET", "/tooling", "/tooling", "tooling", "read", "-", 1, "safe", "nothing"),
        ("GET", "/tooling/query?q=SELECT+Id+FROM+ApexClass", "/tooling/query", "tooling", "query", "ApexClass", 1, "safe", "named"),
        ("GET", "/tooling/query?explain=SELECT+Id+FROM+ApexClass", "/tooling/query?explain", "tooling", "query", "ApexClass", 1, "safe", "named"),
        ("GET", "/tooling/query/01g-2000", "/tooling/query/{locator}", "tooling", "query", "-", 1, "safe", "continued"),
        ("GET", "/tooling/sobjects/ApexClass/describe", "/tooling/sobjects/{object}/describe", "tooling", "describe", "ApexClass", 1, "safe", "named"),
        ("GET", "/tooling/sobjects/ApexClass/01pD0000000NdJO", "/tooling/sobjects/{object}/{id}", "tooling", "read", "ApexClass", 1, "safe", "named"),
        ("GET", "/tooling/executeAnonymous/?anonymousBody=x", "/tooling/executeAnonymous", "tooling", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/tooling/runTestsAsynchronous", "/tooling/{run_tests}", "tooling", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/tooling/composite", "/tooling/composite", "tooling", "mixed", "-", 1, "unsafe", "unknown"),
        ("POST", "/tooling/composite/batch", "/tooling/composite/batch", "tooling", "mixed", "-", 25, "unsafe", "unknown"),
        ("GET", "/tooling/completions?type=apex", "/tooling/completions", "tooling", "describe", "-", 1, "safe", "unknown"),
        ("GET", "/tooling/whatever", "/tooling/{resource}", "tooling", "read", "-", 1, "safe", "unknown"),

        ("GET", "/ui-api/records/001D000000IqhSL", "/ui-api/records/{id}", "ui", "read", "-", 1, "safe", "unknown"),
        ("PATCH", "/ui-api/records/001D000000IqhSL", "/ui-api/records/{id}", "ui", "update", "-", 1, "idempotent", "unknown"),
        ("POST", "/ui-api/records", "/ui-api/records", "ui", "create", "-", 1, "unsafe", "unknown"),
        ("GET", "/ui-api/object-info/Account", "/ui-api/object-info/{object}", "ui", "describe", "Account", 1, "safe", "named"),
        ("GET", "/ui-api/object-info/Account/picklist-values/012/X", "/ui-api/object-info/{object}", "ui", "describe", "Account", 1, "safe", "named"),
        ("GET", "/ui-api/list-ui/Account/AllAccounts", "/ui-api/list-ui/{object}/{list}", "ui", "read", "Account", 1, "safe", "related"),
        ("GET", "/ui-api/nav-items", "/ui-api/{resource}", "ui", "read", "-", 1, "safe", "unknown"),
        ("GET", "/connect/organization", "/connect/{resource}", "connect", "read", "-", 1, "safe", "unknown"),
        ("GET", "/connect/communities/0DB/managed-topics", "/connect/communities/{resource}", "connect", "read", "-", 1, "safe", "unknown"),
        ("GET", "/connect/communities/0DB/chatter/feeds/news/me", "/connect/communities/{community}/chatter/{resource}", "connect", "read", "-", 0, "safe", "unknown"),
        ("POST", "/chatter/feed-elements", "/chatter/{resource}", "connect", "create", "-", 0, "unsafe", "unknown"),
        ("GET", "/analytics/reports/00OD0000001KyEI", "/analytics/reports/{report}", "rest", "read", "-", 1, "safe", "unknown"),
        ("POST", "/analytics/reports/00OD0000001KyEI", "/analytics/reports/{report}", "rest", "read", "-", 1, "safe", "unknown"),
        ("POST", "/analytics/reports/00OD0000001KyEI/instances", "/analytics/reports/{report}/instances", "rest", "job", "-", 1, "unsafe", "unknown"),
        ("PUT", "/analytics/dashboards/01ZD0000001KyEI", "/analytics/dashboards/{dashboard}", "rest", "update", "-", 1, "idempotent", "unknown"),
        ("GET", "/recent", "/recent", "rest", "read", "-", 1, "safe", "unknown"),
        ("GET", "/tabs", "/tabs", "rest", "describe", "-", 1, "safe", "nothing"),
        ("GET", "/theme", "/theme", "rest", "describe", "-", 1, "safe", "nothing"),
        ("GET", "/actions/standard", "/actions/standard", "rest", "describe", "-", 1, "safe", "nothing"),
        ("POST", "/actions/custom/apex/MyAction", "/actions/custom/{type}/{action}", "rest", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/actions/standard/emailSimple", "/actions/standard/{action}", "rest", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/process/approvals", "/process/approvals", "rest", "execute", "-", 1, "unsafe", "unknown"),
        ("GET", "/process/rules/Account", "/process/rules/{object}", "rest", "describe", "-", 1, "safe", "unknown"),
        ("GET", "/support/dataCategoryGroups", "/support/dataCategoryGroups", "rest", "read", "-", 1, "safe", "unknown"),
        ("GET", "/wave/datasets", "/wave/{resource}", "rest", "read", "-", 1, "safe", "unknown"),
        ("GET", "/event/eventSchema/i6_JU3VTbNhRZYbMVlV-xQ?payloadFormat=COMPACT", "/event/eventSchema/{schema}", "rest", "describe", "-", 1, "safe", "nothing"),
        ("GET", "/licensing/x", "/licensing/{resource}", "rest", "read", "-", 1, "safe", "unknown"),
        ("GET", "/compactLayouts?q=Account", "/compactLayouts", "rest", "describe", "-", 1, "safe", "unknown"),
        ("GET", "/quickActions", "/quickActions", "rest", "describe", "-", 1, "safe", "unknown"),
    ];
    check("/services/data/v62.0", "/services/data/{version}", ROWS);
    for (method, path, ..) in ROWS {
        assert_eq!(meaning(method, &format!("/services/data/v62.0{path}")).version, Some(ApiVersion(620)), "{path}");
    }
}

#[test]
#[rustfmt::skip]
fn resources_elsewhere() {
    check("", "", &[
        ("GET", "/services/data", "/services/data", "versions", "read", "-", 0, "safe", "nothing"),
        ("GET", "/services/data/", "/services/data", "versions", "read", "-", 0, "safe", "nothing"),
        ("GET", "//services//data//", "/services/data", "versions", "read", "-", 0, "safe", "nothing"),
        ("POST", "/services/Soap/u/62.0", "/services/Soap/u/{version}", "soap", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/services/Soap/c/62.0/00D000000000001", "/services/Soap/c/{version}", "soap", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/services/Soap/m/62.0", "/services/Soap/m/{version}", "soap", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/services/Soap/T/62.0", "/services/Soap/T/{version}", "soap", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/services/Soap/class/My.Class", "/services/Soap/class/{class}", "soap", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/services/Soap/s/62.0", "/services/Soap/{kind}", "soap", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/services/async/62.0/job", "/services/async/{version}/job", "bulk1", "job", "-", 1, "unsafe", "unknown"),
        ("POST", "/services/async/62.0/job/750/batch", "/services/async/{version}/job/{job}/batch", "bulk1", "job", "-", 1, "unsafe", "continued"),
        ("GET", "/services/async/62.0/job/750", "/services/async/{version}/job/{job}", "bulk1", "job", "-", 1, "safe", "continued"),
        ("GET", "/services/async/62.0/job/750/batch/751", "/services/async/{version}/job/{job}/batch/{batch}", "bulk1", "job", "-", 1, "safe", "continued"),
        ("GET", "/services/async/62.0/job/750/batch/751/request", "/services/async/{version}/job/{job}/batch/{batch}/request", "bulk1", "job", "-", 1, "safe", "continued"),
        ("GET", "/services/async/62.0/job/750/batch/751/result", "/services/async/{version}/job/{job}/batch/{batch}/result", "bulk1", "job", "-", 1, "safe", "continued"),
        ("GET", "/services/async/62.0/job/750/batch/751/result/752", "/services/async/{version}/job/{job}/batch/{batch}/result/{result}", "bulk1", "job", "-", 1, "safe", "continued"),
        ("GET", "/services/apexrest/orders/v1/7", "/services/apexrest/{path}", "apex", "execute", "-", 1, "unsafe", "unknown"),
        ("POST", "/cometd/62.0", "/cometd/{version}", "cometd", "poll", "-", 0, "unsafe", "unknown"),
        ("POST", "/cometd/62.0/connect", "/cometd/{version}", "cometd", "poll", "-", 0, "unsafe", "unknown"),
        ("POST", "/cometd/replay/36.0", "/cometd/replay/{version}", "cometd", "poll", "-", 0, "unsafe", "unknown"),
        ("POST", "/services/oauth2/token", "/services/oauth2/token", "oauth", "login", "-", 3, "unsafe", "nothing"),
        ("POST", "/services/oauth2/revoke", "/services/oauth2/revoke", "oauth", "login", "-", 3, "idempotent", "nothing"),
        ("POST", "/services/oauth2/introspect", "/services/oauth2/introspect", "oauth", "login", "-", 3, "safe", "nothing"),
        ("GET", "/services/oauth2/userinfo", "/services/oauth2/userinfo", "oauth", "read", "-", 3, "safe", "nothing"),
        ("GET", "/services/oauth2/authorize?client_id=x", "/services/oauth2/authorize", "oauth", "login", "-", 3, "safe", "nothing"),
        ("POST", "/services/oauth2/singleaccess", "/services/oauth2/singleaccess", "oauth", "login", "-", 3, "unsafe", "nothing"),
        ("POST", "/services/oauth2/device", "/services/oauth2/{resource}", "oauth", "login", "-", 3, "unsafe", "nothing"),
        ("GET", "/id/00D000000000001AAA/005000000000001AAA", "/id/{org}/{user}", "oauth", "read", "-", 3, "safe", "nothing"),
        ("GET", "/id/keys", "/id/keys", "oauth", "read", "-", 3, "safe", "nothing"),
        ("GET", "/.well-known/openid-configuration", "/.well-known/openid-configuration", "oauth", "read", "-", 3, "safe", "nothing"),
        ("GET", "/login", "/login", "oauth", "login", "-", 3, "safe", "nothing"),
        ("GET", "/secur/frontdoor.jsp?sid=x", "/secur/frontdoor.jsp", "oauth", "login", "-", 3, "safe", "nothing"),
        ("GET", "/", "{other}", "other", "unknown", "-", 1, "unsafe", "unknown"),
        ("GET", "", "{other}", "other", "unknown", "-", 1, "unsafe", "unknown"),
        ("GET", "*", "{other}", "other", "unknown", "-", 1, "unsafe", "unknown"),
        ("GET", "/services/data/v62.0/unheard", "{other}", "other", "unknown", "-", 1, "unsafe", "unknown"),
        ("GET", "/services/data/62.0/limits", "{other}", "other", "unknown", "-", 1, "unsafe", "unknown"),
        ("GET", "/services%2Fdata", "{other}", "other", "unknown", "-", 1, "unsafe", "unknown"),
        ("GET", "/services/data/v62.0/limits;x=y", "{other}", "other", "unknown", "-", 1, "unsafe", "unknown"),
        ("GET", "/aura?r=1", "{other}", "other", "unknown", "-", 1, "unsafe", "unknown"),
        ("GET", "https://other.host/services/data/v62.0/limits", "{other}", "other", "unknown", "-", 1, "unsafe", "unknown"),
    ]);
    assert_eq!(meaning("POST", "/services/Soap/u/62.0").version, Some(ApiVersion(620)));
    assert_eq!(meaning("POST", "/services/async/62.0/job").version, Some(ApiVersion(620)));
    assert_eq!(meaning("POST", "/cometd/62.0").version, Some(ApiVersion(620)));
    assert_eq!(meaning("GET", "/services/data/v61.0/unheard").version, Some(ApiVersion(610)));
}

#[test]
fn only_a_cometd_post_is_a_long_poll() {
    assert!(meaning("POST", "/cometd/62.0").long_poll);
    assert!(meaning("POST", "//cometd/62.0/connect").long_poll);
    assert!(!meaning("GET", "/cometd/62.0").long_poll);
    assert!(!meaning("POST", "/services/data/v62.0/composite").long_poll);
}

#[test]
fn the_tunnelled_method_is_the_method() {
    let tunnelled = meaning("POST", &format!("/services/data/v62.0/sobjects/Account/{ID}?_HttpMethod=PATCH"));
    assert_eq!(tunnelled, meaning("PATCH", &format!("/services/data/v62.0/sobjects/Account/{ID}")));
}

#[test]
fn semi_joins_are_parts() {
    let found = meaning(
        "GET",
        "/services/data/v62.0/query?q=SELECT+Id+FROM+Account+WHERE+Id+IN+(SELECT+AccountId+FROM+Secret__c)",
    );
    let secret = Part {
        family: Family::Query,
        operation: Operation::Query,
        object: Some("Secret__c".into()),
        reach: Reach::Named,
    };
    assert_eq!((found.object.as_deref(), &*found.parts), (Some("Account"), &[secret][..]));
}

#[test]
fn no_spelling_hides_a_resource() {
    let plain = meaning("GET", "/services/data/v62.0/sobjects/Account/describe");
    for spelling in [
        "//services/data/v62.0/sobjects/Account/describe",
        "/services/data/v62.0//sobjects//Account/describe//",
        "/Services/DATA/V62.0/SObjects/Account/DESCRIBE",
        "/services/data/v62.0/%73objects/%41ccount/describ%65",
    ] {
        assert_eq!(meaning("GET", spelling), plain, "{spelling}");
    }
}

#[test]
fn old_versions_read_a_format_suffix() {
    assert_eq!(meaning("POST", "/services/data/v40.0/composite/batch.json").cost, ApiCalls(25));
    let row = meaning("GET", "/services/data/v57.0/sobjects/Account.json");
    assert_eq!((row.template, row.object.as_deref()), ("/services/data/{version}/sobjects/{object}", Some("Account")));
    assert_eq!(meaning("GET", "/services/data/v58.0/sobjects/Account.json").object, None);
}

fn path_like() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        proptest::sample::select(vec![
            "services",
            "data",
            "v62.0",
            "v9.0",
            "sobjects",
            "Account",
            "query",
            "composite",
            "batch",
            "graph",
            "tree",
            "tooling",
            "jobs",
            "ingest",
            "Soap",
            "u",
            "id",
            "Id",
            "001D000000IqhSL",
            "describe",
            "..",
            "%2F",
            "%2e",
            "cometd",
            "x.json",
            "",
        ])
        .prop_map(str::to_owned),
        "[ -~é%]{0,6}",
    ];
    (proptest::collection::vec(segment, 0..9), "(\\?(q|explain|_HttpMethod|[a-z%&=+]{0,8})=[ -~]{0,20})?")
        .prop_map(|(segments, query)| format!("/{}{query}", segments.join("/")))
}

proptest! {
    #[test]
    fn any_request_is_understood(method in "(GET|POST|PATCH|PUT|DELETE|HEAD|OPTIONS|[A-Z]{1,5})", path in path_like()) {
        let found = meaning(&method, &path);
        prop_assert!(found.cost <= ApiCalls(25));
        prop_assert!(found.object.is_none() || found.reach != Reach::Nothing);
        prop_assert!(found.idempotency == Idempotency::Unsafe || found.operation != Operation::Create);
    }

    #[test]
    fn any_text_is_survived(path in ".{0,120}") {
        meaning("POST", &path);
    }

    /// `//services/...` equals `/services/...` in every respect (facts 11.1).
    #[test]
    fn a_double_slash_changes_nothing(method in "(GET|POST|PATCH|DELETE)", path in path_like()) {
        prop_assert_eq!(meaning(&method, &format!("/{path}")), meaning(&method, &path));
    }

    /// No other part of a path than the object's name gets out of here.
    #[test]
    fn a_template_never_holds_what_was_sent(value in "[a-z0-9]{12}7") {
        let found = meaning("GET", &format!("/services/data/v62.0/sobjects/Account/{value}/{value}"));
        prop_assert!(!found.template.contains(&value));
    }
}
