//! `/composite/graph`: several composites, each all or nothing (facts 3.7).

use super::answer::Answer;
use super::composite::{self, Sub};
use super::errors::ApiError;
use super::json::{Json, obj};
use super::request::Req;
use super::world::World;

/// Most graphs in one request.
const MOST_GRAPHS: usize = 75;
/// Most nodes in one request.
const MOST_NODES: usize = 500;
/// Failed graphs after which the rest is not tried.
const MOST_FAILED: usize = 14;

/// Runs the graphs.
pub(super) fn handle(world: &mut World, req: &Req<'_>) -> Result<Answer, ApiError> {
    if req.version < 50 {
        return Err(ApiError::not_found());
    }
    let body = Json::parse(req.body).map_err(ApiError::parser)?;
    let graphs = body.get("graphs").map(Json::items).unwrap_or_default();
    let requests = |graph: &Json| graph.get("compositeRequest").map(|list| list.items().to_vec()).unwrap_or_default();
    let nodes: usize = graphs.iter().map(|graph| requests(graph).len()).sum();
    if graphs.is_empty() || graphs.len() > MOST_GRAPHS || nodes > MOST_NODES {
        let message = format!("A request holds 1 to {MOST_GRAPHS} graphs with {MOST_NODES} nodes in all");
        return Err(ApiError::new(400, "LIMIT_EXCEEDED", message));
    }
    let mut failed = 0;
    let mut shown = Vec::with_capacity(graphs.len());
    for graph in graphs {
        let id = graph.text("graphId").unwrap_or_default();
        if id.is_empty() || id.len() >= 40 || id.contains('.') {
            return Err(ApiError::new(400, "INVALID_INPUT", "graphId needs fewer than 40 characters and no period"));
        }
        let subs = requests(graph).iter().map(Sub::read).collect::<Result<Vec<_>, _>>()?;
        let (results, successful) = if failed >= MOST_FAILED {
            (subs.iter().map(composite::not_tried).collect(), false)
        } else {
            composite::run(world, req, &subs, true)
        };
        failed += usize::from(!successful);
        shown.push(obj! {
            "graphId": id,
            "graphResponse": obj! {"compositeResponse": Json::Arr(results)},
            "isSuccessful": successful,
        });
    }
    Ok(Answer::ok(obj! {"graphs": Json::Arr(shown)}))
}
