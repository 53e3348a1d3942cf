//! SOAP, partner API: login, query, DML, a few describes (facts 1.7, 2.5, 5.7).

use std::fmt::Write;

use smol_str::SmolStr;

use super::answer::Answer;
use super::clock::{Micros, seconds};
use super::config::ORG_ID;
use super::dates::datetime_text;
use super::describe;
use super::dml::{Upserted, Writer};
use super::errors::ApiError;
use super::ids;
use super::json::Json;
use super::soql;
use super::world::World;
use super::xml::{self, Element, escape, put};

/// Most records in one DML call (facts 1.8).
const MOST: usize = 200;

/// A SOAP request as far as it was understood.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) session: Option<String>,
    operation: Element,
}

/// Reads an envelope.
pub(super) fn read(body: &[u8]) -> Option<Envelope> {
    let root = xml::parse(std::str::from_utf8(body).ok()?)?;
    let session = root.child("Header").and_then(|header| header.child("SessionHeader"));
    let session = session.and_then(|header| header.value("sessionId")).map(str::to_owned);
    let operation = root.child("Body")?.children.first()?.clone();
    Some(Envelope { session, operation })
}

impl Envelope {
    /// Whether this is `login`, which needs no session and is priced as a token request.
    pub(super) fn is_login(&self) -> bool {
        self.operation.name == "login"
    }
}

/// Who calls, when, in which version, and where absolute URLs point to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) user: Option<usize>,
    pub(super) now: Micros,
    pub(super) version: u16,
    pub(super) path: &'a str,
    pub(super) origin: &'a str,
}

/// Runs one operation.
pub(super) fn handle(world: &mut World, caller: Caller<'_>, envelope: &Envelope) -> Result<Answer, ApiError> {
    if caller.version < describe::OLDEST || caller.version > describe::NEWEST {
        return Err(ApiError::new(500, "UNSUPPORTED_API_VERSION", "Invalid Api version specified on URL"));
    }
    let operation = &envelope.operation;
    if envelope.is_login() {
        return login(world, caller, operation);
    }
    let user = caller.user.ok_or_else(|| {
        ApiError::new(500, "INVALID_SESSION_ID", "Invalid Session ID found in SessionHeader: Illegal Session")
    })?;
    let writer = Writer { user, now: caller.now };
    let result = match operation.name.as_str() {
        "query" | "queryAll" => {
            let text = operation.value("queryString").unwrap_or_default();
            let mut context = world.context(user, caller.now, caller.version).ok_or_else(ApiError::session)?;
            context.with_deleted = operation.name == "queryAll";
            let found = soql::run(&context, &soql::parse(text)?)?;
            let total = found.total;
            let page = world.cursors.open(found.records, 2_000, user, caller.now);
            query_result(&page.records, total, page.next.as_deref())
        }
        "queryMore" => {
            let locator = operation.value("queryLocator").unwrap_or_default();
            let life = seconds(world.config.cursor_seconds);
            let page = world.cursors.page(locator, user, caller.now, life)?;
            query_result(&page.records, page.total, page.next.as_deref())
        }
        "create" | "update" | "upsert" => write_records(world, writer, operation)?,
        "delete" => delete(world, writer, operation)?,
        "describeGlobal" => describe_global(world, user),
        "getUserInfo" => format!("<result>{}</result>", user_info(world, user)),
        "getServerTimestamp" => format!("<result><timestamp>{}</timestamp></result>", soap_time(caller.now)),
        "logout" => {
            if let Some(session) = &envelope.session {
                world.sessions.remove(session);
            }
            String::new()
        }
        other => {
            return Err(ApiError::new(500, "INVALID_OPERATION", format!("No operation available for request {other}")));
        }
    };
    Ok(answer(world, caller.now, &operation.name, &result))
}

fn soap_time(at: Micros) -> String {
    datetime_text(at).replace("+0000", "Z")
}

fn answer(world: &mut World, now: Micros, operation: &str, result: &str) -> Answer {
    let (used, limit) = (world.meter.shown(now, seconds(world.lag_seconds)), world.meter.limit);
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><soapenv:Envelope \
         xmlns:soapenv=\"http://schemas.xmlsoap.org/soap/envelope/\" xmlns=\"urn:partner.soap.sforce.com\" \
         xmlns:sf=\"urn:sobject.partner.soap.sforce.com\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\"><soapenv:Header><LimitInfoHeader><limitInfo>\
         <current>{used}</current><limit>{limit}</limit><type>API REQUESTS</type></limitInfo></LimitInfoHeader>\
         </soapenv:Header><soapenv:Body><{operation}Response>{result}</{operation}Response></soapenv:Body>\
         </soapenv:Envelope>"
    );
    Answer::text(200, "text/xml;charset=UTF-8", text)
}

fn login(world: &mut World, caller: Caller<'_>, operation: &Element) -> Result<Answer, ApiError> {
    let (name, password) = (operation.value("username"), operation.value("password"));
    let user = world.password_login(name.unwrap_or_default(), password.unwrap_or_default());
    let Some(user) = user else {
        world.tally.logins_refused += 1;
        return Err(ApiError::new(
            500,
            "INVALID_LOGIN",
            "Invalid username, password, security token; or user locked out.",
        ));
    };
    if caller.version > 64 {
        return Err(ApiError::new(500, "UNSUPPORTED_API_VERSION", "login() is not available in this version"));
    }
    let session = world.log_in(user, caller.now).map_err(|()| {
        world.tally.logins_refused += 1;
        ApiError::new(500, "LOGIN_RATE_EXCEEDED", "Login Rate Exceeded")
    })?;
    let path = caller.path.trim_end_matches('/').trim_end_matches(ORG_ID).trim_end_matches('/');
    let mut result = String::from("<result>");
    let metadata = path.replacen("/u/", "/m/", 1).replacen("/c/", "/m/", 1);
    put(&mut result, "metadataServerUrl", &format!("{}{metadata}/{ORG_ID}", caller.origin));
    put(&mut result, "passwordExpired", "false");
    put(&mut result, "sandbox", "true");
    put(&mut result, "serverUrl", &format!("{}{path}/{ORG_ID}", caller.origin));
    put(&mut result, "sessionId", &session);
    put(&mut result, "userId", &world.users[user].id);
    let _written = write!(result, "<userInfo>{}</userInfo></result>", user_info(world, user));
    Ok(answer(world, caller.now, "login", &result))
}

fn user_info(world: &World, user: usize) -> String {
    let mut out = String::new();
    let (id, name) = (&world.users[user].id, &world.users[user].username);
    put(&mut out, "organizationId", ORG_ID);
    put(&mut out, "organizationName", "Simulated Org");
    put(&mut out, "sessionSecondsValid", &world.config.sessions.idle_seconds.to_string());
    put(&mut out, "userEmail", name);
    put(&mut out, "userFullName", name.split('@').next().unwrap_or_default());
    put(&mut out, "userId", id);
    put(&mut out, "userLanguage", "en_US");
    put(&mut out, "userLocale", "en_US");
    put(&mut out, "userName", name);
    put(&mut out, "userTimeZone", "Europe/Berlin");
    put(&mut out, "userType", "Standard");
    out
}

fn query_result(records: &[Json], total: usize, locator: Option<&str>) -> String {
    let mut out = String::from("<result xsi:type=\"QueryResult\">");
    put(&mut out, "done", if locator.is_none() { "true" } else { "false" });
    match locator {
        Some(locator) => put(&mut out, "queryLocator", locator),
        None => out.push_str("<queryLocator xsi:nil=\"true\"/>"),
    }
    for record in records {
        out.push_str("<records xsi:type=\"sf:sObject\">");
        fields(&mut out, record);
        out.push_str("</records>");
    }
    put(&mut out, "size", &total.to_string());
    out.push_str("</result>");
    out
}

fn fields(out: &mut String, record: &Json) {
    if let Some(kind) = record.get("attributes").and_then(|attributes| attributes.text("type")) {
        put(out, "sf:type", kind);
    }
    for (name, value) in record.members().iter().filter(|(name, _)| name != "attributes") {
        match value {
            Json::Null => {
                let _written = write!(out, "<sf:{name} xsi:nil=\"true\"/>");
            }
            Json::Obj(_) => {
                let _written = write!(out, "<sf:{name} xsi:type=\"sf:sObject\">");
                fields(out, value);
                let _written = write!(out, "</sf:{name}>");
            }
            scalar => put(out, &format!("sf:{name}"), &scalar.plain()),
        }
    }
}

fn write_records(world: &mut World, writer: Writer, operation: &Element) -> Result<String, ApiError> {
    let records: Vec<&Element> = operation.all("sObjects").collect();
    if records.len() > MOST {
        return Err(ApiError::new(
            500,
            "EXCEEDED_ID_LIMIT",
            format!("record limit reached. cannot submit more than {MOST} records into this call"),
        ));
    }
    let key = operation.value("externalIDFieldName");
    let mut out = String::new();
    for record in records {
        let outcome = write_record(world, writer, &operation.name, key, record);
        result(&mut out, outcome.as_ref());
    }
    Ok(out)
}

fn write_record(
    world: &mut World,
    writer: Writer,
    operation: &str,
    key: Option<&str>,
    record: &Element,
) -> Result<(SmolStr, bool), ApiError> {
    let kind = record.value("type").unwrap_or_default();
    let object = world
        .visible_object(writer.user, kind)
        .ok_or_else(|| ApiError::dml("INVALID_TYPE", format!("sObject type '{kind}' is not supported."), &[]))?;
    let id = record.children.iter().find(|child| child.name.eq_ignore_ascii_case("id")).map(|child| child.text.trim());
    let members: Vec<(SmolStr, Json)> = record
        .children
        .iter()
        .filter(|child| child.name != "type" && !child.name.eq_ignore_ascii_case("id"))
        .flat_map(|child| match child.name.as_str() {
            "fieldsToNull" => vec![(SmolStr::new(child.text.trim()), Json::Null)],
            name if child.nil => vec![(SmolStr::new(name), Json::Null)],
            name => vec![(SmolStr::new(name), Json::from(child.text.as_str()))],
        })
        .collect();
    match operation {
        "create" => world.create(writer, object, &members).map(|id| (id, true)),
        "update" => {
            let id =
                id.and_then(ids::to18).ok_or_else(|| ApiError::dml("MISSING_ARGUMENT", "Id not specified", &[]))?;
            world.update(writer, object, &id, &members).map(|()| (id, false))
        }
        _ => {
            let key = key.unwrap_or("Id");
            let field = world.external_id_field(writer.user, object, key)?;
            let value = record.children.iter().find(|child| child.name.eq_ignore_ascii_case(key));
            let value = value.map(|child| child.text.trim()).unwrap_or_default().to_owned();
            let rest: Vec<_> = members.into_iter().filter(|(name, _)| !name.eq_ignore_ascii_case(key)).collect();
            match world.upsert(writer, object, field, &value, &rest)? {
                Upserted::Created(id) => Ok((id, true)),
                Upserted::Updated(id) => Ok((id, false)),
                Upserted::Several(_) => Err(ApiError::dml("DUPLICATE_EXTERNAL_ID", "more than one record found", &[])),
            }
        }
    }
}

fn result(out: &mut String, outcome: Result<&(SmolStr, bool), &ApiError>) {
    out.push_str("<result>");
    match outcome {
        Ok((id, created)) => {
            put(out, "created", if *created { "true" } else { "false" });
            put(out, "id", id);
            put(out, "success", "true");
        }
        Err(error) => {
            let _written = write!(
                out,
                "<errors><message>{}</message><statusCode>{}</statusCode></errors><id xsi:nil=\"true\"/>",
                escape(&error.message),
                escape(&error.code)
            );
            put(out, "success", "false");
        }
    }
    out.push_str("</result>");
}

fn delete(world: &mut World, writer: Writer, operation: &Element) -> Result<String, ApiError> {
    let given: Vec<String> = operation.all("ids").map(|child| child.text.trim().to_owned()).collect();
    if given.len() > MOST {
        return Err(ApiError::new(500, "EXCEEDED_ID_LIMIT", "too many ids"));
    }
    let mut out = String::new();
    for id in given {
        let malformed = || ApiError::dml("MALFORMED_ID", "malformed id", &[]);
        let outcome = ids::to18(&id).ok_or_else(malformed).and_then(|id| {
            let object = world.schema.object_of_id(&id).ok_or_else(malformed)?;
            world.delete(writer, object, &id).map(|()| (id, false))
        });
        result(&mut out, outcome.as_ref());
    }
    Ok(out)
}

fn describe_global(world: &World, user: usize) -> String {
    let mut out = String::from("<result><encoding>UTF-8</encoding><maxBatchSize>200</maxBatchSize>");
    for (at, object) in world.schema.objects.iter().enumerate() {
        if world.users.get(user).is_some_and(|user| user.sees_object(at)) {
            out.push_str("<sobjects>");
            put(&mut out, "keyPrefix", object.prefix);
            put(&mut out, "labelPlural", object.plural);
            put(&mut out, "name", &object.name);
            put(&mut out, "queryable", "true");
            out.push_str("</sobjects>");
        }
    }
    out.push_str("</result>");
    out
}
