//! What a SOAP envelope asks: its operations and their objects, its session, and the usage in an answer's header.

use std::borrow::Cow;

use smallvec::SmallVec;

use super::body::{BodyError, Found};
use super::path::is_api_name;
use super::usage::Usage;
use super::xml::{self, Event, Scanner, XmlError};
use super::{query_parts, usage};
use crate::call::{Family, Idempotency, ObjectName, Operation, Part, Reach};

/// Objects of one operation that are told apart; more leave the rest in doubt.
const MAX_OBJECTS: usize = 64;

impl From<XmlError> for BodyError {
    fn from(error: XmlError) -> Self {
        match error {
            XmlError::Malformed | XmlError::Truncated => Self::Xml,
            XmlError::Doctype => Self::Doctype,
            XmlError::TooDeep => Self::TooDeep,
        }
    }
}

/// Which of the SOAP APIs an envelope is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    /// Rows: partner, enterprise and Tooling.
    Rows,
    /// Metadata.
    Metadata,
    /// Apex classes.
    Code,
}

/// Reads the operations in the Body of an envelope.
pub(crate) fn operations(document: &[u8], api: Api, found: &mut Found) -> Result<(), BodyError> {
    let mut scanner = envelope(document)?;
    let mut bodies = 0;
    while let Some(name) = next_child(&mut scanner, 1)? {
        if name != b"Body" {
            scanner.skip()?;
            continue;
        }
        bodies += 1;
        while let Some(operation) = next_child(&mut scanner, 2)? {
            one(&mut scanner, operation, api, found)?;
        }
    }
    if bodies != 1 || found.parts.is_empty() {
        return Err(BodyError::Shape);
    }
    // What follows the envelope is read too: it must not be another one.
    match scanner.next()? {
        None => Ok(()),
        Some(_) => Err(BodyError::Xml),
    }
}

/// Opens the document at its `Envelope`.
pub(super) fn envelope(document: &[u8]) -> Result<Scanner<'_>, BodyError> {
    let mut scanner = Scanner::new(document);
    match scanner.next()? {
        Some(Event::Start { name: b"Envelope", .. }) => Ok(scanner),
        _ => Err(BodyError::Shape),
    }
}

/// A local name and raw attributes.
type Element<'a> = (&'a [u8], &'a [u8]);

/// The local name of the next element at `depth + 1`; `None` when the element at `depth` ends.
pub(super) fn next_child<'a>(scanner: &mut Scanner<'a>, depth: usize) -> Result<Option<&'a [u8]>, XmlError> {
    Ok(next_element(scanner, depth)?.map(|(name, _)| name))
}

/// Like [`next_child`], with the raw attributes.
fn next_element<'a>(scanner: &mut Scanner<'a>, depth: usize) -> Result<Option<Element<'a>>, XmlError> {
    loop {
        match scanner.next()? {
            Some(Event::Start { name, attributes }) => return Ok(Some((name, attributes))),
            Some(Event::End { .. }) if scanner.depth() < depth => return Ok(None),
            Some(_) => {}
            None => return Err(XmlError::Truncated),
        }
    }
}

/// Reads one operation, whose start tag has just been passed.
fn one(scanner: &mut Scanner<'_>, name: &[u8], api: Api, found: &mut Found) -> Result<(), BodyError> {
    let (operation, mut again, mut reach) = match api {
        Api::Rows => row_operation(name),
        Api::Metadata => metadata_operation(name),
        Api::Code => (Operation::Execute, Idempotency::Unsafe, Reach::Unknown),
    };
    let mut objects: SmallVec<[ObjectName; 4]> = SmallVec::new();
    let mut doubt = false;
    let mut soql: Option<Cow<'_, str>> = None;
    let depth = scanner.depth();
    while let Some((child, attributes)) = next_element(scanner, depth)? {
        match child {
            b"sObjects" => doubt |= !object_types(scanner, attributes, &mut objects)?,
            b"sObjectType" | b"sObjectTypes" => doubt |= !note(&mut objects, &scanner.text()?),
            b"queryString" if operation == Operation::Query => {
                doubt |= soql.is_some();
                soql = Some(scanner.text()?);
            }
            // Upserting by Id inserts what has none (facts 3.2).
            b"externalIDFieldName" if operation == Operation::Upsert => {
                let field = scanner.text()?;
                if !field.is_empty() && !field.eq_ignore_ascii_case("id") {
                    again = Idempotency::Idempotent;
                }
            }
            _ => scanner.skip()?,
        }
    }
    let part = |object, reach| Part { family: Family::Soap, operation, object, reach };
    found.weaken(again);
    found.login |= operation == Operation::Login;
    if let Some(soql) = soql
        && !doubt
    {
        query_parts(&soql, part(None, Reach::Unknown), &mut found.parts);
        return Ok(());
    }
    if !objects.is_empty() {
        reach = Reach::Named;
    }
    if doubt || objects.len() >= MAX_OBJECTS {
        reach = Reach::Unknown;
    }
    if objects.is_empty() || reach == Reach::Unknown {
        found.parts.push(part(None, reach));
    }
    found.parts.extend(objects.into_iter().map(|object| part(Some(object), Reach::Named)));
    Ok(())
}

/// The types of one `sObjects` element: its `xsi:type` and its child `type`. False if it names none.
fn object_types(
    scanner: &mut Scanner<'_>,
    attributes: &[u8],
    objects: &mut SmallVec<[ObjectName; 4]>,
) -> Result<bool, BodyError> {
    let mut named = false;
    if let Some(declared) = xml::attribute(attributes, b"type") {
        let declared = std::str::from_utf8(declared).map_err(|_| BodyError::Xml)?;
        let declared = declared.rsplit_once(':').map_or(declared, |(_, local)| local);
        if declared != "sObject" {
            named |= note(objects, declared);
        }
    }
    let depth = scanner.depth();
    while let Some(child) = next_child(scanner, depth)? {
        if child == b"type" {
            named |= note(objects, &scanner.text()?);
        } else {
            scanner.skip()?;
        }
    }
    Ok(named)
}

fn note(objects: &mut SmallVec<[ObjectName; 4]>, name: &str) -> bool {
    let name = name.trim();
    if !is_api_name(name) {
        return false;
    }
    if objects.len() < MAX_OBJECTS && !objects.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        objects.push(ObjectName::new(name));
    }
    true
}

fn row_operation(name: &[u8]) -> (Operation, Idempotency, Reach) {
    use Idempotency::{Idempotent, Safe, Unsafe};
    use Operation as Op;
    match name {
        b"query" | b"queryAll" => (Op::Query, Safe, Reach::Unknown),
        b"queryMore" => (Op::Query, Safe, Reach::Continued),
        b"search" => (Op::Search, Safe, Reach::Unknown),
        b"retrieve" | b"getDeleted" | b"getUpdated" | b"findDuplicates" | b"findDuplicatesByIds" => {
            (Op::Read, Safe, Reach::Unknown)
        }
        b"getServerTimestamp" | b"getUserInfo" => (Op::Read, Safe, Reach::Nothing),
        b"describeGlobal"
        | b"describeTabs"
        | b"describeAllTabs"
        | b"describeTheme"
        | b"describeAppMenu"
        | b"describeAvailableQuickActions"
        | b"describeSoftphoneLayout"
        | b"describeNouns" => (Op::Describe, Safe, Reach::Nothing),
        name if name.starts_with(b"describe") => (Op::Describe, Safe, Reach::Unknown),
        b"create" => (Op::Create, Unsafe, Reach::Unknown),
        b"update" | b"undelete" => (Op::Update, Idempotent, Reach::Unknown),
        b"upsert" => (Op::Upsert, Unsafe, Reach::Unknown),
        b"delete" | b"emptyRecycleBin" => (Op::Delete, Idempotent, Reach::Unknown),
        b"merge" | b"convertLead" => (Op::Update, Unsafe, Reach::Unknown),
        b"login" => (Op::Login, Unsafe, Reach::Nothing),
        b"logout" | b"invalidateSessions" => (Op::Login, Idempotent, Reach::Nothing),
        _ => (Op::Execute, Unsafe, Reach::Unknown),
    }
}

fn metadata_operation(name: &[u8]) -> (Operation, Idempotency, Reach) {
    use Idempotency::{Safe, Unsafe};
    let (operation, again) = match name {
        b"describeMetadata" | b"listMetadata" | b"describeValueType" => (Operation::Describe, Safe),
        b"readMetadata" => (Operation::Read, Safe),
        b"checkDeployStatus" | b"checkRetrieveStatus" | b"checkStatus" => (Operation::Job, Safe),
        b"deploy" | b"deployRecentValidation" | b"retrieve" | b"cancelDeploy" => (Operation::Job, Unsafe),
        b"createMetadata" => (Operation::Create, Unsafe),
        b"updateMetadata" | b"renameMetadata" => (Operation::Update, Unsafe),
        b"upsertMetadata" => (Operation::Upsert, Unsafe),
        b"deleteMetadata" => (Operation::Delete, Unsafe),
        _ => (Operation::Execute, Unsafe),
    };
    (operation, again, Reach::Unknown)
}

/// The `sessionId` texts in the header of an envelope (facts 5.8); empty ones are left out.
pub(crate) fn sessions(document: &[u8]) -> Result<SmallVec<[Cow<'_, str>; 1]>, BodyError> {
    let mut sessions = SmallVec::new();
    let mut scanner = envelope(document)?;
    while let Some(name) = next_child(&mut scanner, 1)? {
        if name != b"Header" {
            // A header after the body would be ignored by SOAP, and so would the session in it.
            break;
        }
        while let Some(header) = next_child(&mut scanner, 2)? {
            if header != b"SessionHeader" {
                scanner.skip()?;
                continue;
            }
            while let Some(child) = next_child(&mut scanner, 3)? {
                if child == b"sessionId" {
                    let text = match scanner.text()? {
                        Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                        Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
                    };
                    if !text.is_empty() {
                        sessions.push(text);
                    }
                } else {
                    scanner.skip()?;
                }
            }
        }
    }
    Ok(sessions)
}

/// The org's usage in the `LimitInfoHeader` of an answer (facts 1.7), of which `prefix` is the beginning.
pub fn usage(prefix: &[u8]) -> Option<Usage> {
    let mut scanner = envelope(prefix).ok()?;
    if next_child(&mut scanner, 1).ok()?? != b"Header" {
        return None;
    }
    while let Some(header) = next_child(&mut scanner, 2).ok()? {
        if header != b"LimitInfoHeader" {
            scanner.skip().ok()?;
            continue;
        }
        while let Some(info) = next_child(&mut scanner, 3).ok()? {
            if info != b"limitInfo" {
                scanner.skip().ok()?;
                continue;
            }
            let (mut current, mut limit, mut kind) = (None, None, None);
            while let Some(field) = next_child(&mut scanner, 4).ok()? {
                let place = match field {
                    b"current" => &mut current,
                    b"limit" => &mut limit,
                    b"type" => &mut kind,
                    _ => {
                        scanner.skip().ok()?;
                        continue;
                    }
                };
                *place = Some(scanner.text().ok()?);
            }
            if kind.as_deref() == Some("API REQUESTS") {
                return Usage::new(usage::number(current?.trim())?, usage::number(limit?.trim())?);
            }
        }
    }
    None
}

/// Reads the `object` of a Bulk v1 job in XML (facts 4.3).
pub(crate) fn job(document: &[u8], found: &mut Found) -> Result<(), BodyError> {
    let mut scanner = Scanner::new(document);
    match scanner.next()? {
        Some(Event::Start { name: b"jobInfo", .. }) => {}
        _ => return Err(BodyError::Shape),
    }
    while let Some(name) = next_child(&mut scanner, 1)? {
        if name != b"object" {
            scanner.skip()?;
            continue;
        }
        let text = scanner.text()?;
        found.job_object(Family::Bulk1, text.trim());
    }
    Ok(())
}
