//! The route table under `/services/data/vXX.X/`.
//!
//! The Tooling API repeats the row, query and composite resources under `/tooling/`; one table serves both, so that the two
//! cannot drift apart.

use super::cost::Price;
use super::path;
use super::route::{Does, Spot, spot};
use crate::call::{Family, Operation, Reach};

/// Looks the segments after the version up: `words` in lower case, `names` as spelt.
pub(crate) fn find(words: &[&str], names: &[&str]) -> Option<Spot> {
    match words {
        [] => Some(spot(Family::Rest, "/services/data/{version}", READ).reach(Reach::Nothing)),
        ["tooling", rest @ ..] => tooling(rest, names.get(1..).unwrap_or_default()).map(|found| Spot {
            family: Family::Tooling,
            object_at: found.object_at.map(|at| at + 1),
            ..found
        }),
        ["sobjects" | "query" | "queryall" | "search" | "parameterizedsearch" | "composite", ..] => {
            shared(words, names)
        }
        ["ui-api", rest @ ..] => Some(ui(rest)),
        ["connect", rest @ ..] => Some(connect(rest)),
        ["chatter", ..] => Some(chatter("/services/data/{version}/chatter/{resource}")),
        ["jobs", rest @ ..] => Some(jobs(rest)),
        ["analytics", rest @ ..] => analytics(rest),
        _ => resource(words),
    }
}

const READ: Does = Does::Reads(Operation::Read);
const DESCRIBE: Does = Does::Reads(Operation::Describe);
const QUERY: Does = Does::Reads(Operation::Query);
const SEARCH: Does = Does::Reads(Operation::Search);

/// Fields that hold binary data, in lower case (facts 3.2).
const BLOB_FIELDS: &[&str] =
    &["body", "versiondata", "contentdata", "content", "logfile", "binarydata", "file", "textpreview", "data"];

/// The resources that the REST API and the Tooling API have in common, with templates under `$root`.
macro_rules! shared_table {
    ($root:literal, $words:expr, $names:expr) => {{
        use Family::{Batch, Collections, Composite, Graph, Query, Rest, Search, Tree};
        macro_rules! at {
            ($tail:literal) => {
                concat!("/services/data/{version}", $root, $tail)
            };
        }
        let row = |template, does| Some(spot(Rest, template, does).about(1));
        // Only behind an id do words have a meaning; behind a field anything is a value.
        let by_id = || $names.get(2).is_some_and(|segment| path::is_record_id(segment));
        match $words {
            ["sobjects"] => Some(spot(Rest, at!("/sobjects"), DESCRIBE).reach(Reach::Nothing)),
            ["sobjects", "relevantitems"] => Some(spot(Rest, at!("/sobjects/relevantItems"), READ)),
            ["sobjects", _] => row(at!("/sobjects/{object}"), Does::Rows),
            ["sobjects", _, "describe"] => row(at!("/sobjects/{object}/describe"), DESCRIBE),
            ["sobjects", _, "describe", "layouts"] => row(at!("/sobjects/{object}/describe/layouts"), DESCRIBE),
            ["sobjects", _, "describe", "layouts", _] => {
                row(at!("/sobjects/{object}/describe/layouts/{record_type}"), DESCRIBE)
            }
            ["sobjects", _, "describe", "approvallayouts"] => {
                row(at!("/sobjects/{object}/describe/approvalLayouts"), DESCRIBE)
            }
            ["sobjects", _, "describe", "approvallayouts", _] => {
                row(at!("/sobjects/{object}/describe/approvalLayouts/{name}"), DESCRIBE)
            }
            ["sobjects", _, "describe", "compactlayouts", ..] => {
                row(at!("/sobjects/{object}/describe/compactLayouts"), DESCRIBE)
            }
            ["sobjects", _, "describe", "namedlayouts", ..] => {
                row(at!("/sobjects/{object}/describe/namedLayouts/{name}"), DESCRIBE)
            }
            ["sobjects", _, "describe", ..] => row(at!("/sobjects/{object}/describe/{part}"), DESCRIBE),
            ["sobjects", _, "deleted"] => row(at!("/sobjects/{object}/deleted"), READ),
            ["sobjects", _, "updated"] => row(at!("/sobjects/{object}/updated"), READ),
            ["sobjects", _, "eventschema"] => row(at!("/sobjects/{object}/eventSchema"), DESCRIBE),
            ["sobjects", _, "relevantitems"] => row(at!("/sobjects/{object}/relevantItems"), READ),
            ["sobjects", _, "listviews"] => row(at!("/sobjects/{object}/listviews"), READ),
            ["sobjects", _, "listviews", "recent"] => row(at!("/sobjects/{object}/listviews/recent"), READ),
            ["sobjects", _, "listviews", _] => row(at!("/sobjects/{object}/listviews/{view}"), READ),
            ["sobjects", _, "listviews", _, "describe"] => {
                row(at!("/sobjects/{object}/listviews/{view}/describe"), DESCRIBE)
            }
            // The columns of a list view may come from related objects.
            ["sobjects", _, "listviews", _, "results"] => {
                row(at!("/sobjects/{object}/listviews/{view}/results"), READ).map(|found| found.reach(Reach::Related))
            }
            ["sobjects", _, "quickactions"] => row(at!("/sobjects/{object}/quickActions"), DESCRIBE),
            ["sobjects", _, "quickactions", _] => row(at!("/sobjects/{object}/quickActions/{action}"), Does::Action)
                .map(|found| found.reach(Reach::Related)),
            ["sobjects", _, "quickactions", _, "describe"] => {
                row(at!("/sobjects/{object}/quickActions/{action}/describe"), DESCRIBE)
            }
            ["sobjects", _, "quickactions", _, "defaultvalues", ..] => {
                row(at!("/sobjects/{object}/quickActions/{action}/defaultValues"), READ)
                    .map(|found| found.reach(Reach::Related))
            }
            ["sobjects", _, "id"] => row(at!("/sobjects/{object}/Id"), Does::ById),
            ["sobjects", _, _] => row(at!("/sobjects/{object}/{id}"), Does::Row),
            ["sobjects", _, _, "password"] if by_id() => row(at!("/sobjects/{object}/{id}/password"), Does::Resource),
            ["sobjects", _, _, "fromthiseventonwards"] if by_id() => {
                row(at!("/sobjects/{object}/{id}/fromThisEventOnwards"), Does::Row)
            }
            ["sobjects", _, _, "richtextimagefields", ..] if by_id() => {
                row(at!("/sobjects/{object}/{id}/richTextImageFields/{field}/{image}"), READ)
            }
            ["sobjects", _, _, "quickactions", ..] if by_id() => {
                row(at!("/sobjects/{object}/{id}/quickActions/{action}"), Does::Action)
                    .map(|found| found.reach(Reach::Related))
            }
            ["sobjects", _, _, field] => {
                if by_id() && BLOB_FIELDS.contains(field) {
                    row(at!("/sobjects/{object}/{id}/{blob}"), READ)
                } else if by_id() {
                    row(at!("/sobjects/{object}/{id}/{relationship}"), Does::Row)
                        .map(|found| found.reach(Reach::Related))
                } else if $words.get(2) == Some(&"id") {
                    row(at!("/sobjects/{object}/Id/{id}"), Does::ById)
                } else {
                    row(at!("/sobjects/{object}/{field}/{value}"), Does::ExternalId)
                }
            }
            ["sobjects", _, _, _, ..] => row(at!("/sobjects/{object}/{id}/{relationship}/{path}"), Does::Row)
                .map(|found| found.reach(Reach::Related)),
            ["query"] => Some(spot(Query, at!("/query"), QUERY)),
            ["query", _] => Some(spot(Query, at!("/query/{locator}"), QUERY).reach(Reach::Continued)),
            ["queryall"] => Some(spot(Query, at!("/queryAll"), QUERY)),
            ["queryall", _] => Some(spot(Query, at!("/queryAll/{locator}"), QUERY).reach(Reach::Continued)),
            ["search"] => Some(spot(Search, at!("/search"), SEARCH)),
            ["search", "scopeorder"] => Some(spot(Search, at!("/search/scopeOrder"), READ).reach(Reach::Nothing)),
            ["search", "layout"] => Some(spot(Search, at!("/search/layout"), DESCRIBE)),
            ["search", ..] => Some(spot(Search, at!("/search/{resource}"), SEARCH)),
            ["parameterizedsearch"] => {
                Some(spot(Search, at!("/parameterizedSearch"), Does::ReadsByPost(Operation::Search)))
            }
            ["composite"] => Some(spot(Composite, at!("/composite"), Does::Container)),
            ["composite", "batch"] => Some(spot(Batch, at!("/composite/batch"), Does::Container).price(Price::Batch)),
            ["composite", "graph"] => Some(spot(Graph, at!("/composite/graph"), Does::Container)),
            ["composite", "tree", _] => {
                // The children in the body have types of their own.
                Some(spot(Tree, at!("/composite/tree/{object}"), Does::Tree).about(2).reach(Reach::Unknown))
            }
            ["composite", "sobjects"] => Some(spot(Collections, at!("/composite/sobjects"), Does::Collection)),
            ["composite", "sobjects", _] => Some(
                spot(Collections, at!("/composite/sobjects/{object}"), Does::ReadsByPost(Operation::Read)).about(2),
            ),
            ["composite", "sobjects", _, "id"] => {
                let found = spot(Collections, at!("/composite/sobjects/{object}/Id"), Does::ById);
                Some(found.about(2).reach(Reach::Unknown))
            }
            ["composite", "sobjects", _, _] => {
                let found = spot(Collections, at!("/composite/sobjects/{object}/{field}"), Does::ExternalId);
                Some(found.about(2).reach(Reach::Unknown))
            }
            _ => None,
        }
    }};
}

fn shared(words: &[&str], names: &[&str]) -> Option<Spot> {
    shared_table!("", words, names)
}

/// Resources under `/tooling/`; the family is set by the caller.
fn tooling(words: &[&str], names: &[&str]) -> Option<Spot> {
    let at = |template, does| Some(spot(Family::Tooling, template, does));
    match words {
        [] => at("/services/data/{version}/tooling", READ).map(|found| found.reach(Reach::Nothing)),
        ["executeanonymous"] => at("/services/data/{version}/tooling/executeAnonymous", Does::Code),
        ["runtestssynchronous" | "runtestsasynchronous"] => {
            at("/services/data/{version}/tooling/{run_tests}", Does::Code)
        }
        ["completions"] => at("/services/data/{version}/tooling/completions", DESCRIBE),
        _ => shared_table!("/tooling", words, names)
            .or_else(|| at("/services/data/{version}/tooling/{resource}", Does::Resource)),
    }
}

fn ui(words: &[&str]) -> Spot {
    let at = |template, does| spot(Family::Ui, template, does).reach(Reach::Related);
    match words {
        ["records"] => at("/services/data/{version}/ui-api/records", Does::Rows).reach(Reach::Unknown),
        ["records", "batch", _] => {
            at("/services/data/{version}/ui-api/records/batch/{ids}", READ).reach(Reach::Unknown)
        }
        ["records", _] => at("/services/data/{version}/ui-api/records/{id}", Does::Row).reach(Reach::Unknown),
        ["record-ui", _] => at("/services/data/{version}/ui-api/record-ui/{ids}", READ).reach(Reach::Unknown),
        ["object-info"] => at("/services/data/{version}/ui-api/object-info", DESCRIBE).reach(Reach::Nothing),
        ["object-info", "batch", _] => {
            at("/services/data/{version}/ui-api/object-info/batch/{objects}", DESCRIBE).reach(Reach::Unknown)
        }
        ["object-info", _, ..] => at("/services/data/{version}/ui-api/object-info/{object}", DESCRIBE).about(2),
        ["layout", _] => at("/services/data/{version}/ui-api/layout/{object}", DESCRIBE).about(2),
        ["record-defaults", ..] => {
            at("/services/data/{version}/ui-api/record-defaults/{resource}", READ).reach(Reach::Unknown)
        }
        ["lookups", _, ..] => {
            at("/services/data/{version}/ui-api/lookups/{object}/{field}", READ).about(2).reach(Reach::Related)
        }
        ["list-ui", _, _, ..] => {
            at("/services/data/{version}/ui-api/list-ui/{object}/{list}", READ).about(2).reach(Reach::Related)
        }
        ["list-ui", ..] => at("/services/data/{version}/ui-api/list-ui/{list}", READ).reach(Reach::Unknown),
        ["list-records", ..] => {
            at("/services/data/{version}/ui-api/list-records/{list}", Does::ReadsByPost(Operation::Read))
                .reach(Reach::Unknown)
        }
        _ => at("/services/data/{version}/ui-api/{resource}", Does::Resource).reach(Reach::Unknown),
    }
}

/// Chatter has a rate of its own for each user and application (facts 1.3): no call of the daily allowance.
fn chatter(template: &'static str) -> Spot {
    spot(Family::Connect, template, Does::Resource).price(Price::Free)
}

fn connect(words: &[&str]) -> Spot {
    match words {
        ["communities", _, "chatter", ..] => {
            chatter("/services/data/{version}/connect/communities/{community}/chatter/{resource}")
        }
        ["communities", ..] => {
            spot(Family::Connect, "/services/data/{version}/connect/communities/{resource}", Does::Resource)
        }
        _ => spot(Family::Connect, "/services/data/{version}/connect/{resource}", Does::Resource),
    }
}

fn jobs(words: &[&str]) -> Spot {
    let job = |template| spot(Family::Bulk2, template, Does::Job).reach(Reach::Continued);
    match words {
        ["ingest"] => job("/services/data/{version}/jobs/ingest").reach(Reach::Unknown),
        ["ingest", _] => job("/services/data/{version}/jobs/ingest/{job}"),
        ["ingest", _, "batches"] => job("/services/data/{version}/jobs/ingest/{job}/batches"),
        ["ingest", _, "successfulresults"] => job("/services/data/{version}/jobs/ingest/{job}/successfulResults"),
        ["ingest", _, "failedresults"] => job("/services/data/{version}/jobs/ingest/{job}/failedResults"),
        ["ingest", _, "unprocessedrecords"] => job("/services/data/{version}/jobs/ingest/{job}/unprocessedrecords"),
        ["query"] => job("/services/data/{version}/jobs/query").reach(Reach::Unknown),
        ["query", _] => job("/services/data/{version}/jobs/query/{job}"),
        ["query", _, "results"] => job("/services/data/{version}/jobs/query/{job}/results"),
        ["query", _, "resultpages"] => job("/services/data/{version}/jobs/query/{job}/resultPages"),
        _ => job("/services/data/{version}/jobs/{resource}").reach(Reach::Unknown),
    }
}

fn analytics(words: &[&str]) -> Option<Spot> {
    let at = |template, does| Some(spot(Family::Rest, template, does));
    match words {
        ["reports"] => at("/services/data/{version}/analytics/reports", Does::Resource),
        ["reports", "query"] => {
            at("/services/data/{version}/analytics/reports/query", Does::ReadsByPost(Operation::Read))
        }
        ["reports", _] => at("/services/data/{version}/analytics/reports/{report}", Does::Report),
        ["reports", _, "describe"] => at("/services/data/{version}/analytics/reports/{report}/describe", DESCRIBE),
        ["reports", _, "instances"] => at("/services/data/{version}/analytics/reports/{report}/instances", Does::Job),
        ["reports", _, "instances", _] => {
            at("/services/data/{version}/analytics/reports/{report}/instances/{instance}", Does::Job)
        }
        ["reports", _, ..] => at("/services/data/{version}/analytics/reports/{report}/{resource}", Does::Resource),
        ["dashboards"] => at("/services/data/{version}/analytics/dashboards", Does::Resource),
        ["dashboards", _] => at("/services/data/{version}/analytics/dashboards/{dashboard}", Does::Resource),
        ["dashboards", _, "describe"] => {
            at("/services/data/{version}/analytics/dashboards/{dashboard}/describe", DESCRIBE)
        }
        ["dashboards", _, ..] => {
            at("/services/data/{version}/analytics/dashboards/{dashboard}/{resource}", Does::Resource)
        }
        ["reporttypes", ..] => at("/services/data/{version}/analytics/reportTypes", DESCRIBE),
        ["notifications", ..] => at("/services/data/{version}/analytics/notifications", Does::Resource),
        _ => at("/services/data/{version}/analytics/{resource}", Does::Resource),
    }
}

/// The resources directly under the version.
fn resource(words: &[&str]) -> Option<Spot> {
    let at = |template, does| Some(spot(Family::Rest, template, does));
    let nothing = |template, does| Some(spot(Family::Rest, template, does).reach(Reach::Nothing));
    match words {
        ["limits"] => nothing("/services/data/{version}/limits", Does::Reads(Operation::Limits))
            .map(|found| found.price(Price::Limits)),
        ["limits", "recordcount"] => at("/services/data/{version}/limits/recordCount", READ),
        ["graphql"] => {
            Some(spot(Family::Graphql, "/services/data/{version}/graphql", Does::Graph).price(Price::Graphql))
        }
        ["recent"] => at("/services/data/{version}/recent", READ),
        ["tabs"] => nothing("/services/data/{version}/tabs", DESCRIBE),
        ["theme"] => nothing("/services/data/{version}/theme", DESCRIBE),
        ["appmenu", ..] => nothing("/services/data/{version}/appMenu", READ),
        ["compactlayouts"] => at("/services/data/{version}/compactLayouts", DESCRIBE),
        ["quickactions"] => at("/services/data/{version}/quickActions", DESCRIBE),
        ["quickactions", _] => at("/services/data/{version}/quickActions/{action}", Does::Action),
        ["quickactions", _, "describe"] => at("/services/data/{version}/quickActions/{action}/describe", DESCRIBE),
        ["quickactions", ..] => at("/services/data/{version}/quickActions/{action}/{resource}", READ),
        ["actions"] => nothing("/services/data/{version}/actions", DESCRIBE),
        ["actions", "standard"] => nothing("/services/data/{version}/actions/standard", DESCRIBE),
        ["actions", "standard", _] => at("/services/data/{version}/actions/standard/{action}", Does::Action),
        ["actions", "custom"] => nothing("/services/data/{version}/actions/custom", DESCRIBE),
        ["actions", "custom", _] => nothing("/services/data/{version}/actions/custom/{type}", DESCRIBE),
        ["actions", "custom", ..] => at("/services/data/{version}/actions/custom/{type}/{action}", Does::Action),
        ["process"] => nothing("/services/data/{version}/process", DESCRIBE),
        ["process", "approvals"] => at("/services/data/{version}/process/approvals", Does::Action),
        ["process", "rules"] => at("/services/data/{version}/process/rules", Does::Action),
        ["process", "rules", _] => at("/services/data/{version}/process/rules/{object}", Does::Action),
        ["process", "rules", _, _] => at("/services/data/{version}/process/rules/{object}/{rule}", Does::Action),
        ["support", "datacategorygroups", ..] => at("/services/data/{version}/support/dataCategoryGroups", READ),
        ["support", "knowledgearticles", ..] => at("/services/data/{version}/support/knowledgeArticles", READ),
        ["support", ..] => at("/services/data/{version}/support/{resource}", Does::Resource),
        ["knowledgemanagement", ..] => at("/services/data/{version}/knowledgeManagement/{resource}", Does::Resource),
        ["event", "eventschema", _] => nothing("/services/data/{version}/event/eventSchema/{schema}", DESCRIBE),
        ["event", ..] => at("/services/data/{version}/event/{resource}", Does::Resource),
        ["metadata", "deployrequest", ..] => at("/services/data/{version}/metadata/deployRequest", Does::Job),
        ["async-queries", ..] => at("/services/data/{version}/async-queries", Does::Job),
        ["consent", ..] => at("/services/data/{version}/consent/{resource}", Does::Resource),
        ["licensing", ..] => at("/services/data/{version}/licensing/{resource}", Does::Resource),
        ["wave", ..] => at("/services/data/{version}/wave/{resource}", Does::Resource),
        ["smartdatadiscovery", ..] => at("/services/data/{version}/smartdatadiscovery/{resource}", Does::Resource),
        ["ssot", ..] => at("/services/data/{version}/ssot/{resource}", Does::Resource),
        ["commerce", ..] => at("/services/data/{version}/commerce/{resource}", Does::Resource),
        ["payments", ..] => at("/services/data/{version}/payments/{resource}", Does::Resource),
        ["einstein", ..] => at("/services/data/{version}/einstein/{resource}", Does::Resource),
        ["folders", ..] => at("/services/data/{version}/folders/{resource}", Does::Resource),
        ["dedupe", ..] => at("/services/data/{version}/dedupe/{resource}", Does::Resource),
        ["scheduling", ..] => at("/services/data/{version}/scheduling/{resource}", Does::Resource),
        ["localizedvalue", ..] => at("/services/data/{version}/localizedvalue/{resource}", Does::Resource),
        ["flexipage", ..] => nothing("/services/data/{version}/flexiPage", DESCRIBE),
        ["prechatforms", ..] => at("/services/data/{version}/prechatForms/{resource}", READ),
        ["jsonxform", ..] => at("/services/data/{version}/jsonxform/{resource}", Does::Resource),
        ["specifications", ..] => at("/services/data/{version}/specifications/{resource}", Does::Resource),
        _ => None,
    }
}
