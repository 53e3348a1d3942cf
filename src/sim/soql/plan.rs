//! A statement resolved against the schema, as one user sees it.

use std::collections::HashSet;

use smol_str::SmolStr;

use super::eval;
use super::parse::{Comparison, Expr, FieldSet, Function, Item, Operand, Query};
use super::value::{Fitted, fit};
use crate::sim::access::User;
use crate::sim::clock::Micros;
use crate::sim::errors::ApiError;
use crate::sim::json::Json;
use crate::sim::schema::{Field, ID, Kind, Object, Schema};
use crate::sim::store::Store;

/// What a statement is run against.
#[derive(Clone, Copy)]
pub(in crate::sim) struct Context<'a> {
    pub(in crate::sim) schema: &'a Schema,
    pub(in crate::sim) store: &'a Store,
    pub(in crate::sim) user: &'a User,
    pub(in crate::sim) now: Micros,
    pub(in crate::sim) version: u16,
    /// Whether rows in the recycle bin are seen (`queryAll`).
    pub(in crate::sim) with_deleted: bool,
}

impl<'a> Context<'a> {
    pub(super) fn object(&self, at: usize) -> &'a Object {
        &self.schema.objects[at]
    }
}

/// One way to a parent. `on` and `field` are where the way was found; on other objects it is found by name.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) name: SmolStr,
    pub(super) on: usize,
    pub(super) field: usize,
}

/// A field, perhaps of a parent.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub(super) steps: Vec<Step>,
    pub(super) last: Step,
}

/// What stands in the SELECT list.
#[derive(Debug)]
pub(super) enum Out {
    Leaf(SmolStr, Step),
    Parent(Step, Vec<Out>),
    Child {
        name: SmolStr,
        link: usize,
        plan: Box<Plan>,
    },
    /// A column of an aggregate.
    Column(SmolStr, Source),
}

/// Where a condition, an order or a column takes its value from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Path(Path),
    Function(Function, Option<Path>),
}

#[derive(Debug)]
pub(super) enum Filter {
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Not(Box<Filter>),
    Compare(Source, Comparison, Fitted),
    In { path: Path, negated: bool, values: Vec<Fitted> },
    Among { path: Path, negated: bool, values: HashSet<SmolStr> },
}

#[derive(Debug)]
pub(super) struct OrderBy {
    pub(super) source: Source,
    pub(super) descending: bool,
    pub(super) nulls_last: bool,
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) object: usize,
    pub(super) outs: Vec<Out>,
    pub(super) filter: Option<Filter>,
    pub(super) mine: bool,
    pub(super) aggregate: bool,
    pub(super) counts_rows: bool,
    pub(super) group: Vec<Path>,
    pub(super) having: Option<Filter>,
    pub(super) order: Vec<OrderBy>,
    pub(super) limit: Option<usize>,
    pub(super) offset: usize,
}

/// Resolves a statement over an object.
pub(super) fn plan(context: &Context<'_>, query: &Query) -> Result<Plan, ApiError> {
    let object = context.schema.object(&query.from).filter(|object| context.user.sees_object(*object));
    let object = object.ok_or_else(|| {
        ApiError::new(
            400,
            "INVALID_TYPE",
            format!(
                "sObject type '{}' is not supported. If you are attempting to use a custom object, be sure to \
                 append the '__c' after the entity name.",
                query.from
            ),
        )
    })?;
    plan_on(context, query, object)
}

fn plan_on(context: &Context<'_>, query: &Query, object: usize) -> Result<Plan, ApiError> {
    let resolver = Resolver { context, object, alias: query.alias.as_deref() };
    let mut plan = Plan {
        object,
        outs: Vec::new(),
        filter: query.filter.as_ref().map(|filter| resolver.filter(filter)).transpose()?,
        mine: query.mine,
        aggregate: query.aggregates() && !query.counts_rows(),
        counts_rows: query.counts_rows(),
        group: query.group.iter().map(|path| resolver.path(path)).collect::<Result<_, _>>()?,
        having: query.having.as_ref().map(|having| resolver.filter(having)).transpose()?,
        order: Vec::new(),
        limit: query.limit,
        offset: query.offset,
    };
    for order in &query.order {
        let source = resolver.source(&order.operand)?;
        plan.order.push(OrderBy { source, descending: order.descending, nulls_last: order.nulls_last });
    }
    if plan.aggregate {
        plan.outs = resolver.columns(query)?;
    } else if !plan.counts_rows {
        plan.outs = resolver.outs(query)?;
    }
    Ok(plan)
}

struct Resolver<'a> {
    context: &'a Context<'a>,
    object: usize,
    alias: Option<&'a str>,
}

/// Ways to parents in one path (facts 1.8).
const LONGEST_PATH: usize = 5;

impl Resolver<'_> {
    fn no_column(&self, name: &str, object: usize) -> ApiError {
        ApiError::new(
            400,
            "INVALID_FIELD",
            format!(
                "\nERROR at Row:1:Column:8\nNo such column '{name}' on entity '{}'. If you are attempting to use a \
                 custom field, be sure to append the '__c' after the custom field name.",
                self.context.object(object).name
            ),
        )
    }

    fn visible_field(&self, object: usize, name: &str) -> Option<usize> {
        self.context.object(object).field(name).filter(|field| self.context.user.sees_field(object, *field))
    }

    fn path(&self, text: &str) -> Result<Path, ApiError> {
        let mut parts: Vec<&str> = text.split('.').collect();
        let own = self.alias.unwrap_or(&self.context.object(self.object).name);
        if parts.len() > 1 && (parts[0].eq_ignore_ascii_case(own)) {
            // The object's own name may also be that of a way to a parent, as Account.Account is not.
            parts.remove(0);
        }
        let last = parts.pop().unwrap_or_default();
        if parts.len() > LONGEST_PATH {
            return Err(ApiError::new(400, "QUERY_TOO_COMPLICATED", "too many relationships in a field path"));
        }
        let mut steps = Vec::new();
        let mut candidates = vec![self.object];
        for part in parts {
            let on = candidates[0];
            let step = self.step(on, part)?;
            let refers = &self.context.object(on).fields[step.field].refers;
            candidates = refers
                .iter()
                .filter_map(|name| self.context.schema.object(name))
                .filter(|object| self.context.user.sees_object(*object))
                .collect();
            if candidates.is_empty() {
                return Err(Self::no_relationship(part));
            }
            steps.push(step);
        }
        let found = candidates.iter().find_map(|on| self.visible_field(*on, last).map(|field| (*on, field)));
        match found {
            Some((on, field)) => {
                let name = self.context.object(on).fields[field].name.clone();
                Ok(Path { steps, last: Step { name, on, field } })
            }
            None => Err(self.no_column(last, candidates[0])),
        }
    }

    fn step(&self, on: usize, name: &str) -> Result<Step, ApiError> {
        let object = self.context.object(on);
        let field = object.relationship(name).filter(|field| self.context.user.sees_field(on, *field));
        let field = field.ok_or_else(|| Self::no_relationship(name))?;
        let name = object.fields[field].relationship.clone().unwrap_or_default();
        Ok(Step { name, on, field })
    }

    fn no_relationship(name: &str) -> ApiError {
        ApiError::new(
            400,
            "INVALID_FIELD",
            format!(
                "\nERROR at Row:1:Column:8\nDidn't understand relationship '{name}' in field path. If you are \
                     attempting to use a custom relationship, be sure to append the '__r' after the custom \
                     relationship name."
            ),
        )
    }

    fn field_of(&self, path: &Path) -> &Field {
        &self.context.object(path.last.on).fields[path.last.field]
    }

    fn source(&self, operand: &Operand) -> Result<Source, ApiError> {
        Ok(match operand {
            Operand::Path(path) => Source::Path(self.path(path)?),
            Operand::Function(function, path) => {
                Source::Function(*function, path.as_ref().map(|path| self.path(path)).transpose()?)
            }
        })
    }

    fn filter(&self, expr: &Expr) -> Result<Filter, ApiError> {
        let several = |terms: &[Expr]| terms.iter().map(|term| self.filter(term)).collect::<Result<Vec<_>, _>>();
        Ok(match expr {
            Expr::All(terms) => Filter::All(several(terms)?),
            Expr::Any(terms) => Filter::Any(several(terms)?),
            Expr::Not(term) => Filter::Not(Box::new(self.filter(term)?)),
            Expr::Compare { operand, operator, literal } => {
                let source = self.source(operand)?;
                let counted = Field { kind: Kind::Double, ..self.context.object(self.object).fields[ID].clone() };
                let field = match &source {
                    Source::Path(path) | Source::Function(Function::Min | Function::Max, Some(path)) => {
                        self.field_of(path)
                    }
                    Source::Function(..) => &counted,
                };
                if field.kind == Kind::LongText {
                    return Err(ApiError::new(
                        400,
                        "INVALID_FIELD",
                        format!("field '{}' can not be filtered in a query call", field.name),
                    ));
                }
                Filter::Compare(source, *operator, fit(field, *operator, literal, self.context.now)?)
            }
            Expr::In { path, negated, literals } => {
                let path = self.path(path)?;
                let field = self.field_of(&path);
                let values = literals
                    .iter()
                    .map(|literal| fit(field, Comparison::Equal, literal, self.context.now))
                    .collect::<Result<_, _>>()?;
                Filter::In { path, negated: *negated, values }
            }
            Expr::SemiJoin { path, negated, query } => {
                let path = self.path(path)?;
                let inner = plan(self.context, query)?;
                let values = eval::column(self.context, &inner)?;
                Filter::Among { path, negated: *negated, values }
            }
        })
    }

    fn columns(&self, query: &Query) -> Result<Vec<Out>, ApiError> {
        let mut outs = Vec::new();
        let mut unnamed = 0;
        for item in &query.select {
            match item {
                Item::Function { name, path, alias } => {
                    let path = path.as_ref().map(|path| self.path(path)).transpose()?;
                    let label = alias.as_ref().map_or_else(
                        || {
                            unnamed += 1;
                            SmolStr::from(format!("expr{}", unnamed - 1))
                        },
                        SmolStr::from,
                    );
                    outs.push(Out::Column(label, Source::Function(*name, path)));
                }
                Item::Path { path: text, alias } => {
                    if !query.group.iter().any(|group| group.eq_ignore_ascii_case(text)) {
                        return Err(ApiError::malformed_query(format!("Field must be grouped or aggregated: {text}")));
                    }
                    let path = self.path(text)?;
                    let label = alias.as_ref().map_or_else(|| path.last.name.clone(), SmolStr::from);
                    outs.push(Out::Column(label, Source::Path(path)));
                }
                Item::Child(_) | Item::Fields(_) => {
                    return Err(ApiError::malformed_query("Grouped query cannot select this"));
                }
            }
        }
        Ok(outs)
    }

    fn outs(&self, query: &Query) -> Result<Vec<Out>, ApiError> {
        let mut outs = Vec::new();
        for item in &query.select {
            match item {
                Item::Path { path, .. } => {
                    let path = self.path(path)?;
                    add_path(&mut outs, &path.steps, path.last)?;
                }
                Item::Child(child) => outs.push(self.child(child)?),
                Item::Fields(set) => self.add_fields(&mut outs, *set, query)?,
                Item::Function { .. } => return Err(ApiError::malformed_query("unexpected function")),
            }
        }
        Ok(outs)
    }

    fn child(&self, query: &Query) -> Result<Out, ApiError> {
        let object = self.context.object(self.object);
        let name = query.from.rsplit('.').next().unwrap_or(&query.from);
        let way = object.child(name).filter(|way| {
            self.context.user.sees_object(way.object) && self.context.user.sees_field(way.object, way.field)
        });
        let way = way.ok_or_else(|| {
            ApiError::new(
                400,
                "INVALID_TYPE",
                format!("Didn't understand relationship '{name}' in FROM part of query call."),
            )
        })?;
        if query.aggregates() {
            return Err(ApiError::malformed_query("only root queries support aggregate expressions"));
        }
        let plan = plan_on(self.context, query, way.object)?;
        let name = way.relationship.clone().unwrap_or_default();
        Ok(Out::Child { name, link: way.field, plan: Box::new(plan) })
    }

    fn add_fields(&self, outs: &mut Vec<Out>, set: FieldSet, query: &Query) -> Result<(), ApiError> {
        if set != FieldSet::Standard && query.limit.is_none_or(|limit| limit > 200) {
            return Err(ApiError::malformed_query("The SOQL FIELDS function must have a LIMIT of at most 200"));
        }
        let object = self.context.object(self.object);
        for (at, field) in object.fields.iter().enumerate() {
            let wanted = match set {
                FieldSet::All => true,
                FieldSet::Standard => !field.is_custom(),
                FieldSet::Custom => field.is_custom(),
            };
            if wanted && self.context.user.sees_field(self.object, at) {
                let step = Step { name: field.name.clone(), on: self.object, field: at };
                add_path(outs, &[], step)?;
            }
        }
        Ok(())
    }
}

/// Adds a path to the tree, merging what goes through the same parent.
fn add_path(outs: &mut Vec<Out>, steps: &[Step], last: Step) -> Result<(), ApiError> {
    let Some((first, rest)) = steps.split_first() else {
        let name = last.name.clone();
        if outs.iter().any(|out| matches!(out, Out::Leaf(known, _) if *known == name)) {
            return Err(ApiError::new(400, "INVALID_FIELD", format!("duplicate field selected: {name}")));
        }
        outs.push(Out::Leaf(name, last));
        return Ok(());
    };
    for out in outs.iter_mut() {
        if let Out::Parent(step, inner) = out
            && step.name == first.name
        {
            return add_path(inner, rest, last);
        }
    }
    let mut inner = Vec::new();
    add_path(&mut inner, rest, last)?;
    outs.push(Out::Parent(first.clone(), inner));
    Ok(())
}

/// The value of a field by place, or by name if the row is of another object than planned.
pub(super) fn value<'a>(schema: &Schema, object: usize, row: &'a [Json], step: &Step) -> Option<&'a Json> {
    let field = if object == step.on { Some(step.field) } else { schema.objects[object].field(&step.name) };
    field.and_then(|field| row.get(field))
}
