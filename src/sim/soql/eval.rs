//! Running a planned statement.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

use smol_str::SmolStr;

use super::parse::{Function, Query};
use super::plan::{Context, Filter, OrderBy, Out, Path, Plan, Source, plan, value};
use super::value::{compare, order};
use crate::sim::errors::ApiError;
use crate::sim::json::{Json, obj};
use crate::sim::schema::ID;
use crate::sim::store::{Row, is_deleted};

/// What a statement found.
#[derive(Debug)]
pub(in crate::sim) struct Found {
    pub(in crate::sim) records: Vec<Json>,
    pub(in crate::sim) total: usize,
}

/// Runs a statement as the context's user.
pub(in crate::sim) fn run(context: &Context<'_>, query: &Query) -> Result<Found, ApiError> {
    let plan = plan(context, query)?;
    if plan.counts_rows {
        let total = matching(context, &plan, context.store.rows(plan.object)).len();
        return Ok(Found { records: Vec::new(), total });
    }
    let records = if plan.aggregate {
        grouped(context, &plan)
    } else {
        let rows = select(context, &plan, context.store.rows(plan.object));
        let children = children(context, &plan.outs);
        rows.into_iter().map(|row| render(context, plan.object, row, &plan.outs, &children)).collect()
    };
    let total = records.len();
    Ok(Found { records, total })
}

/// The values of the only column of a semi-join.
pub(super) fn column(context: &Context<'_>, plan: &Plan) -> Result<HashSet<SmolStr>, ApiError> {
    let [Out::Leaf(_, step)] = plan.outs.as_slice() else {
        return Err(ApiError::malformed_query("semi join sub-selects need exactly one selected field"));
    };
    let rows = select(context, plan, context.store.rows(plan.object));
    Ok(rows
        .into_iter()
        .filter_map(|row| value(context.schema, plan.object, row, step))
        .filter_map(Json::as_str)
        .map(SmolStr::new)
        .collect())
}

fn matching<'a>(context: &Context<'a>, plan: &Plan, rows: impl Iterator<Item = &'a Row>) -> Vec<&'a Row> {
    let owner = context.object(plan.object).owner();
    // Without an order, what comes first is as good as any.
    let enough = match plan.limit {
        Some(limit) if plan.order.is_empty() && !plan.aggregate && !plan.counts_rows => limit + plan.offset,
        _ => usize::MAX,
    };
    rows.filter(|row| context.with_deleted || !is_deleted(row))
        .filter(|row| context.user.sees_row(context.schema, plan.object, row))
        .filter(|row| {
            !plan.mine
                || owner.is_some_and(|owner| row.get(owner).and_then(Json::as_str) == Some(context.user.id.as_str()))
        })
        .filter(|row| plan.filter.as_ref().is_none_or(|filter| holds(context, plan.object, &[row], filter)))
        .take(enough)
        .collect()
}

fn select<'a>(context: &Context<'a>, plan: &Plan, rows: impl Iterator<Item = &'a Row>) -> Vec<&'a Row> {
    let mut rows = matching(context, plan, rows);
    if !plan.order.is_empty() {
        rows.sort_by(|left, right| by_order(context, plan.object, &plan.order, &[left], &[right]));
    }
    rows.into_iter().skip(plan.offset).take(plan.limit.unwrap_or(usize::MAX)).collect()
}

fn by_order(context: &Context<'_>, object: usize, orders: &[OrderBy], left: &[&Row], right: &[&Row]) -> Ordering {
    for by in orders {
        let (left, right) = (source(context, object, left, &by.source), source(context, object, right, &by.source));
        let result = match (left.is_null(), right.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) if by.nulls_last => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, true) if by.nulls_last => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) if by.descending => order(&right, &left),
            (false, false) => order(&left, &right),
        };
        if result != Ordering::Equal {
            return result;
        }
    }
    Ordering::Equal
}

/// The value of a path; null where the way leads to nothing or to a row the user does not see.
fn look_up(context: &Context<'_>, object: usize, row: &Row, path: &Path) -> Json {
    let (mut object, mut row) = (object, row);
    for step in &path.steps {
        let Some(next) = parent(context, value(context.schema, object, row, step)) else { return Json::Null };
        (object, row) = next;
    }
    value(context.schema, object, row, &path.last).cloned().unwrap_or_default()
}

fn parent<'a>(context: &Context<'a>, reference: Option<&Json>) -> Option<(usize, &'a Row)> {
    let id = reference?.as_str()?;
    let object = context.schema.object_of_id(id)?;
    let row = context.store.live(object, id)?;
    let visible = context.user.sees_object(object) && context.user.sees_row(context.schema, object, row);
    visible.then_some((object, row))
}

fn source(context: &Context<'_>, object: usize, rows: &[&Row], source: &Source) -> Json {
    match source {
        Source::Path(path) => rows.first().map(|row| look_up(context, object, row, path)).unwrap_or_default(),
        Source::Function(function, path) => aggregate(context, object, rows, *function, path.as_ref()),
    }
}

fn aggregate(context: &Context<'_>, object: usize, rows: &[&Row], function: Function, path: Option<&Path>) -> Json {
    let Some(path) = path else { return Json::from(rows.len()) };
    let values: Vec<Json> =
        rows.iter().map(|row| look_up(context, object, row, path)).filter(|value| !value.is_null()).collect();
    let numbers = || values.iter().filter_map(Json::as_f64);
    match function {
        Function::Count => Json::from(values.len()),
        Function::CountDistinct => {
            Json::from(values.iter().map(|value| value.plain().to_lowercase()).collect::<HashSet<_>>().len())
        }
        Function::Sum | Function::Avg if values.is_empty() => Json::Null,
        Function::Sum => Json::Num(numbers().sum()),
        Function::Avg => Json::Num(numbers().sum::<f64>() / values.len() as f64),
        Function::Min => values.into_iter().min_by(order).unwrap_or_default(),
        Function::Max => values.into_iter().max_by(order).unwrap_or_default(),
    }
}

fn holds(context: &Context<'_>, object: usize, rows: &[&Row], filter: &Filter) -> bool {
    match filter {
        Filter::All(terms) => terms.iter().all(|term| holds(context, object, rows, term)),
        Filter::Any(terms) => terms.iter().any(|term| holds(context, object, rows, term)),
        Filter::Not(term) => !holds(context, object, rows, term),
        Filter::Compare(from, operator, literal) => compare(&source(context, object, rows, from), *operator, literal),
        Filter::In { path, negated, values } => {
            let value = rows.first().map(|row| look_up(context, object, row, path)).unwrap_or_default();
            let found = values.iter().any(|wanted| compare(&value, super::parse::Comparison::Equal, wanted));
            found != *negated
        }
        Filter::Among { path, negated, values } => {
            let value = rows.first().map(|row| look_up(context, object, row, path)).unwrap_or_default();
            value.as_str().is_some_and(|value| values.contains(value)) != *negated
        }
    }
}

fn grouped(context: &Context<'_>, plan: &Plan) -> Vec<Json> {
    let mut groups: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in matching(context, plan, context.store.rows(plan.object)) {
        let key: Vec<String> =
            plan.group.iter().map(|path| look_up(context, plan.object, row, path).plain().to_lowercase()).collect();
        groups.entry(key.join("\u{1}")).or_default().push(row);
    }
    if groups.is_empty() && plan.group.is_empty() {
        groups.insert(String::new(), Vec::new());
    }
    let mut groups: Vec<Vec<&Row>> = groups
        .into_values()
        .filter(|rows| plan.having.as_ref().is_none_or(|having| holds(context, plan.object, rows, having)))
        .collect();
    groups.sort_by(|left, right| by_order(context, plan.object, &plan.order, left, right));
    groups
        .into_iter()
        .skip(plan.offset)
        .take(plan.limit.unwrap_or(usize::MAX))
        .map(|rows| {
            let mut record = obj! {"attributes": obj! {"type": "AggregateResult"}};
            for out in &plan.outs {
                if let Out::Column(name, from) = out {
                    record.push(name.clone(), source(context, plan.object, &rows, from));
                }
            }
            record
        })
        .collect()
}

/// Rows of a child relationship, by the parent they belong to.
type ChildRows<'a> = Vec<HashMap<&'a str, Vec<&'a Row>>>;

fn children<'a>(context: &Context<'a>, outs: &[Out]) -> ChildRows<'a> {
    outs.iter()
        .filter_map(|out| match out {
            Out::Child { link, plan, .. } => {
                let mut by_parent: HashMap<&str, Vec<&Row>> = HashMap::new();
                for row in context.store.rows(plan.object) {
                    if let Some(parent) = row.get(*link).and_then(Json::as_str) {
                        by_parent.entry(parent).or_default().push(row);
                    }
                }
                Some(by_parent)
            }
            _ => None,
        })
        .collect()
}

fn render(context: &Context<'_>, object: usize, row: &Row, outs: &[Out], children: &ChildRows<'_>) -> Json {
    let mut record = Json::Obj(Vec::with_capacity(outs.len() + 1));
    record.push("attributes", attributes(context, object, row));
    let mut next_child = 0;
    for out in outs {
        match out {
            Out::Leaf(name, step) => {
                let value = value(context.schema, object, row, step).cloned().unwrap_or_default();
                record.push(name.clone(), value);
            }
            Out::Parent(step, inner) => {
                let found = parent(context, value(context.schema, object, row, step));
                let value = found.map(|(object, row)| render(context, object, row, inner, &Vec::new()));
                record.push(step.name.clone(), value);
            }
            Out::Child { name, plan, .. } => {
                let id = row.get(ID).and_then(Json::as_str).unwrap_or_default();
                let rows = children.get(next_child).and_then(|by_parent| by_parent.get(id));
                next_child += 1;
                record.push(name.clone(), child_result(context, plan, rows));
            }
            Out::Column(..) => {}
        }
    }
    record
}

fn child_result(context: &Context<'_>, plan: &Plan, rows: Option<&Vec<&Row>>) -> Json {
    let rows = select(context, plan, rows.into_iter().flatten().copied());
    if rows.is_empty() {
        return Json::Null;
    }
    let deeper = self::children(context, &plan.outs);
    let records: Vec<Json> =
        rows.into_iter().map(|row| render(context, plan.object, row, &plan.outs, &deeper)).collect();
    obj! {"totalSize": records.len(), "done": true, "records": Json::Arr(records)}
}

fn attributes(context: &Context<'_>, object: usize, row: &Row) -> Json {
    let name = &context.object(object).name;
    let id = row.get(ID).and_then(Json::as_str).unwrap_or_default();
    obj! {
        "type": name,
        "url": format!("/services/data/v{}.0/sobjects/{name}/{id}", context.version),
    }
}
