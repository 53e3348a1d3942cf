//! `/composite/tree`: records with their children, all or nothing (facts 3.7).

use std::collections::BTreeSet;

use smol_str::SmolStr;

use super::answer::Answer;
use super::dml::Writer;
use super::errors::ApiError;
use super::json::{Json, obj};
use super::request::Req;
use super::world::World;

/// Most records in one request.
const MOST: usize = 200;
/// Most levels.
const DEEPEST: usize = 5;
/// Most objects in one request.
const MOST_TYPES: usize = 5;

struct Made {
    reference: String,
    outcome: Result<SmolStr, ApiError>,
}

/// Creates the trees under `object`.
pub(super) fn handle(world: &mut World, req: &Req<'_>, object: &str) -> Result<Answer, ApiError> {
    let object = world.visible_object(req.user, object).ok_or_else(ApiError::not_found)?;
    let body = Json::parse(req.body).map_err(ApiError::parser)?;
    let records = body.get("records").map(Json::items).unwrap_or_default();
    let mut shape = Shape::default();
    for record in records {
        shape.look(record, 1);
    }
    if shape.count > MOST || shape.depth > DEEPEST || shape.types.len() > MOST_TYPES {
        let message = format!("A tree may hold {MOST} records of {MOST_TYPES} types on {DEEPEST} levels");
        return Err(ApiError::new(400, "EXCEEDED_ID_LIMIT", message));
    }
    let savepoint = world.store.savepoint();
    let mut made = Vec::new();
    for record in records {
        create(world, req, object, record, None, &mut made);
    }
    let failed = made.iter().any(|made| made.outcome.is_err());
    if failed {
        world.store.roll_back(savepoint);
    }
    let results = made
        .iter()
        .filter_map(|made| match (&made.outcome, failed) {
            (Ok(id), false) => Some(obj! {"referenceId": made.reference.as_str(), "id": id}),
            (Ok(_), true) => None,
            (Err(error), _) => {
                let errors = Json::Arr(vec![error.item_entry()]);
                Some(obj! {"referenceId": made.reference.as_str(), "errors": errors})
            }
        })
        .collect();
    let status = if failed { 400 } else { 201 };
    Ok(Answer::json(status, obj! {"hasErrors": failed, "results": Json::Arr(results)}))
}

#[derive(Default)]
struct Shape {
    count: usize,
    depth: usize,
    types: BTreeSet<String>,
}

impl Shape {
    fn look(&mut self, record: &Json, depth: usize) {
        self.count += 1;
        self.depth = self.depth.max(depth);
        if let Some(kind) = record.get("attributes").and_then(|attributes| attributes.text("type")) {
            self.types.insert(kind.to_ascii_lowercase());
        }
        if depth <= DEEPEST {
            for (_, value) in record.members() {
                let children = value.get("records").map(Json::items).unwrap_or_default();
                for child in children {
                    self.look(child, depth + 1);
                }
            }
        }
    }
}

fn create(
    world: &mut World,
    req: &Req<'_>,
    object: usize,
    record: &Json,
    parent: Option<(SmolStr, SmolStr)>,
    made: &mut Vec<Made>,
) {
    let attributes = record.get("attributes");
    let reference = attributes.and_then(|attributes| attributes.text("referenceId")).unwrap_or_default().to_owned();
    let (children, mut members): (Vec<_>, Vec<_>) =
        record.members().iter().cloned().partition(|(_, value)| value.get("records").is_some());
    if let Some((field, id)) = parent {
        members.push((field, Json::from(id)));
    }
    let outcome = if reference.is_empty() {
        Err(ApiError::dml("INVALID_INPUT", "Include a reference ID for each record in the request.", &[]))
    } else {
        world.create(Writer { user: req.user, now: req.now }, object, &members)
    };
    let id = outcome.as_ref().ok().cloned();
    made.push(Made { reference, outcome });
    let Some(id) = id else { return };
    for (name, value) in children {
        let way = world.schema.objects[object]
            .child(&name)
            .map(|way| (way.object, world.schema.objects[way.object].fields[way.field].name.clone()));
        for child in value.get("records").map(Json::items).unwrap_or_default() {
            match &way {
                Some((object, field)) => create(world, req, *object, child, Some((field.clone(), id.clone())), made),
                None => made.push(Made {
                    reference: name.to_string(),
                    outcome: Err(ApiError::dml("INVALID_FIELD", format!("No such relationship '{name}'"), &[])),
                }),
            }
        }
    }
}
