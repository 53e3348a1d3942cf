//! What the org says about itself: versions, resources, objects, limits (facts 0, 1.6, 3.1).

use http::Method;

use super::access::User;
use super::answer::Answer;
use super::clock::seconds;
use super::config::ORG_ID;
use super::dates::{http_date, parse_http_date};
use super::errors::ApiError;
use super::json::{Json, obj};
use super::request::Req;
use super::schema::{Kind, Object};
use super::world::World;

/// Oldest version that is not retired.
pub(super) const OLDEST: u16 = 31;
/// Newest version.
pub(super) const NEWEST: u16 = 67;

const SEASONS: [&str; 3] = ["Spring", "Summer", "Winter"];

/// `/services/data/`: free, without a session.
pub(super) fn versions() -> Answer {
    let list = (OLDEST..=NEWEST)
        .map(|version| {
            // v31 was Summer '14; Spring, Summer and Winter follow each other, Winter under the next year's number.
            let place = version - 30;
            let year = 14 + (place + 1) / 3;
            let label = format!("{} '{year:02}", SEASONS[usize::from(place % 3)]);
            obj! {"label": label, "url": format!("/services/data/v{version}.0"), "version": format!("{version}.0")}
        })
        .collect();
    Answer::ok(Json::Arr(list))
}

/// `/services/data/vXX.0/`: relative paths, and one absolute URL, `identity`.
pub(super) fn resources(world: &World, req: &Req<'_>) -> Answer {
    let base = req.base();
    let mut body = obj! {};
    for name in ["tooling", "chatter", "connect", "graphql", "limits", "query", "queryAll", "search", "sobjects"] {
        body.push(name, format!("{base}/{name}"));
    }
    for name in ["composite", "parameterizedSearch", "recent", "ui-api", "jobs"] {
        body.push(name, format!("{base}/{name}"));
    }
    let user = world.users.get(req.user).map(|user| user.id.as_str()).unwrap_or_default();
    body.push("identity", format!("{}/id/{ORG_ID}/{user}", req.origin));
    Answer::ok(body)
}

/// `/limits`.
pub(super) fn limits(world: &mut World, req: &Req<'_>) -> Result<Answer, ApiError> {
    if !world.users.get(req.user).is_some_and(|user| user.view_setup) {
        return Err(ApiError::new(403, "FORBIDDEN", "You do not have permission to view this resource"));
    }
    let limit = world.meter.limit;
    let used = world.meter.shown(req.now, seconds(world.config.header.limits_lag_seconds));
    let entry = |max: u64, used: u64| obj! {"Max": max, "Remaining": max.saturating_sub(used)};
    Ok(Answer::ok(obj! {
        "ConcurrentAsyncGetReportInstances": entry(200, 0),
        "ConcurrentSyncReportRuns": entry(20, 0),
        "DailyApiRequests": entry(limit, used),
        "DailyAsyncApexExecutions": entry(250_000, 0),
        "DailyBulkApiBatches": entry(15_000, 0),
        "DailyBulkV2QueryFileStorageMB": entry(976_562, 0),
        "DailyBulkV2QueryJobs": entry(10_000, 0),
        "DailyDurableStreamingApiEvents": entry(10_000, 0),
        "DailyStandardVolumePlatformEvents": entry(10_000, 0),
        "DailyWorkflowEmails": entry(390, 0),
        "DataStorageMB": entry(1_024, 12),
        "FileStorageMB": entry(1_024, 3),
        "HourlyPublishedPlatformEvents": entry(50_000, 0),
        "MonthlyPlatformEventsUsageEntitlement": obj! {"Max": 100_000_i64, "Remaining": -12_i64},
        "PermissionSets": obj! {"Max": 1_500_i64, "Remaining": 1_499_i64, "CreateCustom": entry(1_000, 1)},
    }))
}

/// `/sobjects/`.
pub(super) fn global(world: &World, req: &Req<'_>) -> Result<Answer, ApiError> {
    let user = reader(world, req)?;
    let changed = world.metadata.iter().copied().max().unwrap_or_default();
    if let Some(answer) = unchanged(req, changed)? {
        return Ok(answer);
    }
    let objects = world
        .schema
        .objects
        .iter()
        .enumerate()
        .filter(|(at, _)| user.sees_object(*at))
        .map(|(at, object)| summary(req, user, at, object))
        .collect();
    let body = obj! {"encoding": "UTF-8", "maxBatchSize": 200_i64, "sobjects": Json::Arr(objects)};
    Ok(Answer::ok(body).with("last-modified", http_date(changed)))
}

/// `/sobjects/X/`.
pub(super) fn basic(world: &World, req: &Req<'_>, object: usize) -> Result<Answer, ApiError> {
    let user = reader(world, req)?;
    let definition = &world.schema.objects[object];
    let body = obj! {
        "objectDescribe": summary(req, user, object, definition),
        "recentItems": Json::Arr(Vec::new()),
    };
    Ok(Answer::ok(body))
}

/// `/sobjects/X/describe/`.
pub(super) fn full(world: &World, req: &Req<'_>, object: usize) -> Result<Answer, ApiError> {
    let user = reader(world, req)?;
    let changed = world.metadata.get(object).copied().unwrap_or_default();
    if let Some(answer) = unchanged(req, changed)? {
        return Ok(answer);
    }
    let definition = &world.schema.objects[object];
    let mut body = summary(req, user, object, definition);
    let fields = definition
        .fields
        .iter()
        .enumerate()
        .filter(|(at, _)| user.sees_field(object, *at))
        .map(|(at, _)| field(definition, at))
        .collect();
    let children = definition
        .children
        .iter()
        .filter(|child| user.sees_object(child.object) && user.sees_field(child.object, child.field))
        .map(|child| {
            let other = &world.schema.objects[child.object];
            obj! {
                "cascadeDelete": false,
                "childSObject": &other.name,
                "deprecatedAndHidden": false,
                "field": &other.fields[child.field].name,
                "relationshipName": child.relationship.clone(),
                "restrictedDelete": false,
            }
        })
        .collect();
    body.push("fields", Json::Arr(fields));
    body.push("childRelationships", Json::Arr(children));
    body.push("recordTypeInfos", Json::Arr(Vec::new()));
    body.push(
        "supportedScopes",
        Json::Arr(vec![obj! {"label": "All", "name": "everything"}, obj! {"label": "My", "name": "mine"}]),
    );
    Ok(Answer::ok(body).with("last-modified", http_date(changed)).root("DescribeSObjectResult"))
}

fn reader<'a>(world: &'a World, req: &Req<'_>) -> Result<&'a User, ApiError> {
    if !matches!(req.head.method, Method::GET | Method::HEAD) {
        return Err(ApiError::method_not_allowed(req.head.method.as_str()));
    }
    world.users.get(req.user).ok_or_else(ApiError::session)
}

/// `If-Modified-Since` and `If-Unmodified-Since` against the time of the last change.
fn unchanged(req: &Req<'_>, changed: u64) -> Result<Option<Answer>, ApiError> {
    let date = |name: &str| req.head.header(name).and_then(parse_http_date);
    if date("if-modified-since").is_some_and(|since| changed <= since) {
        return Ok(Some(Answer::empty(304)));
    }
    if date("if-unmodified-since").is_some_and(|since| changed > since) {
        return Err(ApiError::new(412, "PRECONDITION_FAILED", "The metadata changed"));
    }
    Ok(None)
}

fn summary(req: &Req<'_>, user: &User, at: usize, object: &Object) -> Json {
    let edits = user.edits_object(at);
    let url = format!("{}/sobjects/{}", req.base(), object.name);
    obj! {
        "activateable": false,
        "createable": edits,
        "custom": object.is_custom(),
        "customSetting": false,
        "deletable": edits,
        "keyPrefix": object.prefix,
        "label": object.name.trim_end_matches("__c"),
        "labelPlural": object.plural,
        "layoutable": true,
        "mergeable": object.name == "Account",
        "name": &object.name,
        "queryable": true,
        "replicateable": true,
        "retrieveable": true,
        "searchable": true,
        "triggerable": true,
        "undeletable": true,
        "updateable": edits,
        "urls": obj! {
            "sobject": url.clone(),
            "describe": format!("{url}/describe"),
            "rowTemplate": format!("{url}/{{ID}}"),
        },
    }
}

fn field(object: &Object, at: usize) -> Json {
    let field = &object.fields[at];
    let values = field
        .values
        .iter()
        .map(|value| obj! {"active": true, "defaultValue": false, "label": *value, "validFor": Json::Null, "value": *value})
        .collect();
    obj! {
        "name": &field.name,
        "label": field.name.trim_end_matches("__c"),
        "type": field.kind.describe(),
        "length": field.length,
        "byteLength": field.length * 3,
        "calculated": false,
        "createable": field.writable,
        "custom": field.is_custom(),
        "externalId": field.external_id,
        "filterable": field.kind != Kind::LongText,
        "groupable": !matches!(field.kind, Kind::LongText | Kind::Blob | Kind::Currency | Kind::Double),
        "idLookup": at == 0 || field.external_id || field.name == "Name",
        "nameField": field.name == "Name",
        "namePointing": field.refers.len() > 1,
        "nillable": !field.required && field.kind != Kind::Boolean && at != 0,
        "picklistValues": Json::Arr(values),
        "polymorphicForeignKey": field.refers.len() > 1,
        "referenceTo": Json::Arr(field.refers.iter().map(Json::from).collect()),
        "relationshipName": field.relationship.clone(),
        "sortable": field.kind != Kind::LongText,
        "unique": field.unique,
        "updateable": field.writable,
    }
}
