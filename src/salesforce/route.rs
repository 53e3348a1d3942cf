//! The route table outside `/services/data/vXX.X/`, and what a method does on each kind of route.
//!
//! A route says which API a path belongs to, its template (the only form of it that may become a label), what it
//! does, what it costs and which object it names. Paths without an entry pass as [`Family::Other`].

use http::Method;

use super::cost::Price;
use super::data;
use super::path::{self, Segments};
use crate::call::{ApiVersion, Family, Idempotency, ObjectName, Operation, Reach};

/// The template of a path without an entry.
pub(crate) const OTHER: &str = "{other}";

/// One entry of the route table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) family: Family,
    pub(crate) template: &'static str,
    pub(crate) does: Does,
    pub(crate) price: Price,
    pub(crate) reach: Reach,
    /// Which of the segments that the table was asked about names the object.
    pub(crate) object_at: Option<u8>,
}

/// A route that costs one call and whose objects are not known.
pub(crate) const fn spot(family: Family, template: &'static str, does: Does) -> Spot {
    Spot { family, template, does, price: Price::One, reach: Reach::Unknown, object_at: None }
}

impl Spot {
    /// Its object is segment `at`.
    pub(crate) const fn about(self, at: u8) -> Self {
        Self { object_at: Some(at), reach: Reach::Named, ..self }
    }

    pub(crate) const fn reach(self, reach: Reach) -> Self {
        Self { reach, ..self }
    }

    pub(crate) const fn price(self, price: Price) -> Self {
        Self { price, ..self }
    }
}

/// What a route does, before its method is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// GET reads; nothing else is known to work.
    Reads(Operation),
    /// GET and POST both read.
    ReadsByPost(Operation),
    /// GET reads, POST inserts.
    Rows,
    /// One row by id, or behind a relationship.
    Row,
    /// One row by external id.
    ExternalId,
    /// The field `Id` in place of an external id: creates when no id is given.
    ById,
    /// Up to 200 rows in the body or by `ids=`.
    Collection,
    /// A tree of new rows.
    Tree,
    /// Subrequests; the body says what they do.
    Container,
    /// GraphQL: a read unless the body holds a mutation.
    Graph,
    /// A step of an asynchronous job.
    Job,
    /// Org code: nothing is known of any method.
    Code,
    /// GET describes, anything else runs.
    Action,
    /// GET and POST read (a report with other filters); other methods change it.
    Report,
    /// A resource that uses methods as HTTP means them.
    Resource,
    /// Tokens.
    Login(Idempotency),
    /// CometD.
    Poll,
    /// Nothing is known.
    Unknown,
}

impl Does {
    /// What `method` does here, and whether it may be repeated.
    pub(crate) fn by(self, method: &Method) -> (Operation, Idempotency) {
        use Idempotency::{Idempotent, Safe, Unsafe};
        use Operation as Op;

        let reads = *method == Method::GET || *method == Method::HEAD;
        match self {
            Self::Code => return (Op::Execute, Unsafe),
            Self::Unknown => return (Op::Unknown, Unsafe),
            Self::Poll => return (Op::Poll, Unsafe),
            Self::Login(by_post) => return (Op::Login, if reads { Safe } else { by_post }),
            _ if *method == Method::OPTIONS => return (Op::Unknown, Safe),
            Self::Job => {
                let again = match *method {
                    _ if reads => Safe,
                    // One upload and one state change for each job: a repeat is refused (facts 4.1).
                    Method::PUT | Method::PATCH | Method::DELETE => Idempotent,
                    _ => Unsafe,
                };
                return (Op::Job, again);
            }
            _ => {}
        }
        if reads {
            return match self {
                Self::Reads(operation) | Self::ReadsByPost(operation) => (operation, Safe),
                Self::Action => (Op::Describe, Safe),
                _ => (Op::Read, Safe),
            };
        }
        match (self, method) {
            (Self::ReadsByPost(operation), &Method::POST) => (operation, Safe),
            (Self::Report, &Method::POST) => (Op::Read, Safe),
            (
                Self::Rows | Self::Row | Self::ExternalId | Self::ById | Self::Collection | Self::Tree | Self::Resource,
                &Method::POST,
            ) => (Op::Create, Unsafe),
            (Self::Row | Self::Collection, &Method::PATCH) | (Self::Resource, &Method::PUT) => (Op::Update, Idempotent),
            (Self::ExternalId, &Method::PATCH) => (Op::Upsert, Idempotent),
            (Self::ById, &Method::PATCH) => (Op::Upsert, Unsafe),
            (
                Self::Row | Self::ExternalId | Self::ById | Self::Collection | Self::Report | Self::Resource,
                &Method::DELETE,
            ) => (Op::Delete, Idempotent),
            (Self::Report | Self::Resource, &Method::PATCH) => (Op::Update, Unsafe),
            (Self::Container, &Method::POST) => (Op::Mixed, Unsafe),
            (Self::Action | Self::Graph, _) => (Op::Execute, Unsafe),
            _ => (Op::Unknown, Unsafe),
        }
    }
}

/// Where a path leads.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) spot: Spot,
    pub(crate) object: Option<ObjectName>,
    pub(crate) version: Option<ApiVersion>,
}

/// Looks `path` (without its query) up in the route table.
pub(crate) fn find(path: &str) -> Route {
    let text = path::decoded(path);
    let mut room = [0; path::SHORT];
    let lower = path::lower(&text, &mut room);
    let mut segments = Segments::cut(&text, &lower);
    if segments.words().iter().any(|word| path::is_dots(word)) {
        return nowhere();
    }
    if let ["services", "data", version, ..] = segments.words()
        && let Some(version) = path::version(version)
    {
        // The version itself is no resource: only what stands behind it has a format.
        if segments.words().len() > 3 {
            segments.drop_suffix(version);
        }
        let names = segments.names().get(3..).unwrap_or_default();
        let words = segments.words().get(3..).unwrap_or_default();
        return named(data::find(words, names), names, Some(version));
    }
    match elsewhere(segments.words()) {
        Some((spot, version)) => named(Some(spot), segments.names(), version),
        None => nowhere(),
    }
}

fn nowhere() -> Route {
    Route { spot: spot(Family::Other, OTHER, Does::Unknown), object: None, version: None }
}

/// Takes the object's name from the segments; a segment that cannot be one leaves the object in doubt.
fn named(spot: Option<Spot>, names: &[&str], version: Option<ApiVersion>) -> Route {
    let Some(mut spot) = spot else { return Route { version, ..nowhere() } };
    let object = spot.object_at.and_then(|at| {
        let name = names.get(usize::from(at)).filter(|name| path::is_api_name(name));
        if name.is_none() {
            spot.reach = Reach::Unknown;
        }
        name.map(ObjectName::new)
    });
    Route { spot, object, version }
}

/// Everything that is not under `/services/data/vXX.X/`.
fn elsewhere(words: &[&str]) -> Option<(Spot, Option<ApiVersion>)> {
    use Idempotency::{Idempotent, Safe, Unsafe};

    let oauth = |template, by_post| {
        spot(Family::Oauth, template, Does::Login(by_post)).price(Price::Oauth).reach(Reach::Nothing)
    };
    let identity = |template| {
        spot(Family::Oauth, template, Does::Reads(Operation::Read)).price(Price::Oauth).reach(Reach::Nothing)
    };
    let soap = |template| spot(Family::Soap, template, Does::Code);
    let job = |template| spot(Family::Bulk1, template, Does::Job).reach(Reach::Continued);
    let cometd = |template| spot(Family::Cometd, template, Does::Poll).price(Price::Free);
    let plain = |spot| Some((spot, None));

    match words {
        ["services", "data"] => plain(
            spot(Family::Versions, "/services/data", Does::Reads(Operation::Read))
                .price(Price::Free)
                .reach(Reach::Nothing),
        ),
        ["services", "soap", "class", ..] => plain(soap("/services/Soap/class/{class}")),
        ["services", "soap", kind, rest @ ..] => {
            let template = match *kind {
                "u" => "/services/Soap/u/{version}",
                "c" => "/services/Soap/c/{version}",
                "m" => "/services/Soap/m/{version}",
                "t" => "/services/Soap/T/{version}",
                _ => "/services/Soap/{kind}",
            };
            Some((soap(template), rest.first().and_then(|version| path::bare_version(version))))
        }
        ["services", "async", version, rest @ ..] => {
            let spot = match rest {
                ["job"] => job("/services/async/{version}/job").reach(Reach::Unknown),
                ["job", _] => job("/services/async/{version}/job/{job}"),
                ["job", _, "batch"] => job("/services/async/{version}/job/{job}/batch"),
                ["job", _, "batch", _] => job("/services/async/{version}/job/{job}/batch/{batch}"),
                ["job", _, "batch", _, "request"] => job("/services/async/{version}/job/{job}/batch/{batch}/request"),
                ["job", _, "batch", _, "result"] => job("/services/async/{version}/job/{job}/batch/{batch}/result"),
                ["job", _, "batch", _, "result", _] => {
                    job("/services/async/{version}/job/{job}/batch/{batch}/result/{result}")
                }
                ["job", _, "spec"] => job("/services/async/{version}/job/{job}/spec"),
                _ => job("/services/async/{version}/{resource}").reach(Reach::Unknown),
            };
            Some((spot, path::bare_version(version)))
        }
        ["services", "apexrest", ..] => plain(spot(Family::Apex, "/services/apexrest/{path}", Does::Code)),
        ["cometd", "replay", version, ..] => Some((cometd("/cometd/replay/{version}"), path::bare_version(version))),
        ["cometd", version, ..] => Some((cometd("/cometd/{version}"), path::bare_version(version))),
        ["services", "oauth2", "token"] => plain(oauth("/services/oauth2/token", Unsafe)),
        ["services", "oauth2", "authorize"] => plain(oauth("/services/oauth2/authorize", Unsafe)),
        ["services", "oauth2", "revoke"] => plain(oauth("/services/oauth2/revoke", Idempotent)),
        ["services", "oauth2", "introspect"] => plain(oauth("/services/oauth2/introspect", Safe)),
        ["services", "oauth2", "singleaccess"] => plain(oauth("/services/oauth2/singleaccess", Unsafe)),
        ["services", "oauth2", "userinfo"] => plain(
            spot(Family::Oauth, "/services/oauth2/userinfo", Does::ReadsByPost(Operation::Read))
                .price(Price::Oauth)
                .reach(Reach::Nothing),
        ),
        ["services", "oauth2", ..] => plain(oauth("/services/oauth2/{resource}", Unsafe)),
        ["services", "auth", ..] => plain(oauth("/services/auth/{resource}", Unsafe)),
        ["id", "keys"] => plain(identity("/id/keys")),
        ["id", _, _] => plain(
            spot(Family::Oauth, "/id/{org}/{user}", Does::ReadsByPost(Operation::Read))
                .price(Price::Oauth)
                .reach(Reach::Nothing),
        ),
        [".well-known", "openid-configuration"] => plain(identity("/.well-known/openid-configuration")),
        [".well-known", "oauth-authorization-server"] => plain(identity("/.well-known/oauth-authorization-server")),
        ["login"] => plain(oauth("/login", Unsafe)),
        ["secur", "frontdoor.jsp"] => plain(oauth("/secur/frontdoor.jsp", Unsafe)),
        ["secur", "logout.jsp"] => plain(oauth("/secur/logout.jsp", Unsafe)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_a_route_does_not_have_is_unknown_and_unsafe() {
        for does in [Does::Reads(Operation::Read), Does::Row, Does::Rows, Does::Tree, Does::Container] {
            assert_eq!(does.by(&Method::PUT), (Operation::Unknown, Idempotency::Unsafe), "{does:?}");
        }
        assert_eq!(Does::Reads(Operation::Query).by(&Method::POST), (Operation::Unknown, Idempotency::Unsafe));
    }

    #[test]
    fn org_code_is_never_safe_to_repeat() {
        assert_eq!(Does::Code.by(&Method::GET), (Operation::Execute, Idempotency::Unsafe));
    }

    #[test]
    fn dot_segments_lead_nowhere() {
        for path in
            ["/services/data/v62.0/limits/../composite/batch", "/services/%2e%2E/services/data", "/./services/data"]
        {
            assert_eq!(find(path).spot.template, OTHER, "{path}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_an_object_is_in_doubt() {
        let route = find("/services/data/v62.0/sobjects/@{x.y}/001D000000IqhSL");
        assert_eq!((route.object, route.spot.reach), (None, Reach::Unknown));
    }
}
