//! What a request means, once it has been understood.
//!
//! A [`Call`] is made once, by the Understand stage, and read by every stage after it: policy, cache,
//! retry, breaker, ledger, slots, metrics and log. Nothing here does I/O or knows a clock.

use std::fmt;
use std::time::Duration;

use smol_str::SmolStr;
use tokio::time::Instant;

/// Declares a closed list whose members have one spelling, used in configuration, metrics, log and API.
macro_rules! closed_list {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord,
                 serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[repr(u8)]
        pub enum $name { $($(#[$vmeta])* #[serde(rename = $text)] $variant),+ }

        impl $name {
            /// Every member, in declaration order; `ALL[x.index()] == x`.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The one spelling used everywhere outside the code.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// Position in [`Self::ALL`], for tables.
            pub const fn index(self) -> usize {
                self as usize
            }

            /// The member spelt `text`, if there is one.
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|member| member.as_str() == text)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use closed_list;

closed_list! {
    /// How urgent a call is: who waits and who is shed first.
    Class {
        /// A person is waiting.
        Interactive = "interactive",
        /// Neither a person waiting nor a batch job.
        Standard = "standard",
        /// Work that can wait.
        Batch = "batch",
    }
}

closed_list! {
    /// How long a call is expected to run.
    Length {
        /// It ends before Salesforce counts it among the calls that run long (facts 1.4).
        Short = "short",
        /// It does not.
        Long = "long",
    }
}

closed_list! {
    /// The Salesforce API a call belongs to (facts 3).
    Family {
        /// Rows, describes, limits and everything else directly under `/services/data/vXX.X/`.
        Rest = "rest",
        /// `query`, `queryAll` and their pages.
        Query = "query",
        /// SOSL and parameterised search.
        Search = "search",
        /// `/composite`.
        Composite = "composite",
        /// `/composite/sobjects`.
        Collections = "collections",
        /// `/composite/tree`.
        Tree = "tree",
        /// `/composite/graph`.
        Graph = "graph",
        /// `/composite/batch`.
        Batch = "batch",
        /// `/services/async/XX.X/`.
        Bulk1 = "bulk1",
        /// `/services/data/vXX.X/jobs/`.
        Bulk2 = "bulk2",
        /// `/services/Soap/`.
        Soap = "soap",
        /// `/services/data/vXX.X/graphql`.
        Graphql = "graphql",
        /// `/services/data/vXX.X/tooling/`.
        Tooling = "tooling",
        /// `/services/data/vXX.X/ui-api/`.
        Ui = "ui",
        /// `/services/data/vXX.X/connect/` and `/chatter/`.
        Connect = "connect",
        /// `/services/apexrest/`.
        Apex = "apex",
        /// `/cometd/`.
        Cometd = "cometd",
        /// `/services/oauth2/`, the identity URL and login.
        Oauth = "oauth",
        /// The list of API versions, `/services/data/`.
        Versions = "versions",
        /// A path this gateway has no knowledge of; passes, costs 1, is never kept.
        Other = "other",
    }
}

closed_list! {
    /// What a call does.
    Operation {
        /// Reads rows or another resource.
        Read = "read",
        /// Runs a SOQL query or fetches a page of one.
        Query = "query",
        /// Runs a search.
        Search = "search",
        /// Reads metadata of objects.
        Describe = "describe",
        /// Reads `/limits`.
        Limits = "limits",
        /// Inserts.
        Create = "create",
        /// Changes existing rows.
        Update = "update",
        /// Inserts or changes by external id.
        Upsert = "upsert",
        /// Deletes.
        Delete = "delete",
        /// Several operations in one request; the subrequests say which.
        Mixed = "mixed",
        /// Runs code or an action whose effect is not known from the request.
        Execute = "execute",
        /// Creates, fills, closes or aborts an asynchronous job.
        Job = "job",
        /// Logs in, refreshes, introspects or revokes a token.
        Login = "login",
        /// Long poll for events.
        Poll = "poll",
        /// Nothing is known.
        Unknown = "unknown",
    }
}

closed_list! {
    /// Whether the same request may be sent twice without doing more than sending it once (facts 3.2).
    Idempotency {
        /// Reads only: always safe to repeat.
        Safe = "safe",
        /// Writes, but repeating has the same effect: PATCH by id, upsert by external id, DELETE.
        Idempotent = "idempotent",
        /// Repeating may do it twice: POST create, Apex, unknown.
        Unsafe = "unsafe",
    }
}

closed_list! {
    /// Whether the objects that a call names are all the objects it touches; ordered from certain to unknown.
    ///
    /// A rule about objects can be kept only as far as this goes.
    Reach {
        /// Touches no object: versions, limits, tokens.
        Nothing = "nothing",
        /// Exactly the objects named by the call and its parts.
        Named = "named",
        /// Continues an earlier call that named them: a query page, a job.
        Continued = "continued",
        /// Also objects behind relationship names, which only a describe could resolve.
        Related = "related",
        /// Nobody can tell from the request.
        Unknown = "unknown",
    }
}

/// An org's place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrgId(pub u16);

/// A caller's place in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallerId(pub u16);

/// A number of API calls as Salesforce charges them (facts 1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ApiCalls(pub u32);

/// An API version in tenths: `v62.0` is `ApiVersion(620)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ApiVersion(pub u16);

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// The Salesforce user, or else the session, whose token an upstream call carries.
///
/// A keyed hash: it identifies without revealing, and two gateways with different keys disagree on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Principal(pub [u8; 16]);

impl Principal {
    /// A request that carries no credential.
    pub const NOBODY: Self = Self([0; 16]);

    /// First eight hexadecimal digits, enough to tell principals apart in a log.
    pub fn short(self) -> String {
        use std::fmt::Write as _;
        self.0[..4].iter().fold(String::with_capacity(8), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({})", self.short())
    }
}

/// An object's API name as the request spells it (`Account`, `Invoice__c`); compared without case.
pub type ObjectName = SmolStr;

/// What one request asks of Salesforce, as far as its path, query, head and (where needed) body say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meaning {
    /// The API it belongs to.
    pub family: Family,
    /// What it does.
    pub operation: Operation,
    /// The object it is about, if there is exactly one; the FROM object of a query.
    pub object: Option<ObjectName>,
    /// How far the named objects are all there is.
    pub reach: Reach,
    /// The route with its variable parts named, for example `/services/data/{version}/sobjects/{object}/{id}`:
    /// the only form of the path that may become a label or a log field.
    pub template: &'static str,
    /// API version in the path.
    pub version: Option<ApiVersion>,
    /// What Salesforce charges for it if it succeeds; until a needed body is read, the most it can be.
    pub cost: ApiCalls,
    /// Whether it may be repeated.
    pub idempotency: Idempotency,
    /// The effective method: `_HttpMethod=` tunnelling applied (facts 0).
    pub method: http::Method,
    /// A CometD long poll: no slot, no age, no timeout under 120 s, no read-ahead (facts 6.7).
    pub long_poll: bool,
    /// The subrequests of composite, batch and graph, the operations of a SOAP envelope, the objects of a collection and
    /// those a query names besides its FROM object: each must be allowed on its own.
    pub parts: Box<[Part]>,
}

/// One subrequest of a composite, batch or graph request, the operation inside a SOAP envelope, or one more object of a
/// collection or query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The API it belongs to.
    pub family: Family,
    /// What it does.
    pub operation: Operation,
    /// The object it is about, if there is exactly one.
    pub object: Option<ObjectName>,
    /// How far the named object is all there is.
    pub reach: Reach,
}

/// A request, understood.
#[derive(Debug, Clone)]
pub struct Call {
    /// Which org it goes to.
    pub org: OrgId,
    /// Who asks.
    pub caller: CallerId,
    /// As whom Salesforce will see it.
    pub principal: Principal,
    /// How urgent it is.
    pub class: Class,
    /// What it asks.
    pub meaning: Meaning,
    /// When the caller gives up, if it or the configuration said so.
    pub deadline: Option<Instant>,
}

impl Call {
    /// Time left until the deadline; `None` if there is no deadline, zero if it has passed.
    pub fn time_left(&self, now: Instant) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_lists_round_trip() {
        for family in Family::ALL {
            assert_eq!(Family::parse(family.as_str()), Some(*family));
            assert_eq!(Family::ALL[family.index()], *family);
        }
        assert_eq!(Class::parse("Interactive"), None);
    }

    #[test]
    fn a_version_is_shown_as_salesforce_writes_it() {
        assert_eq!(ApiVersion(620).to_string(), "v62.0");
    }

    #[test]
    fn a_principal_never_shows_itself_whole() {
        let principal = Principal([0xab; 16]);
        assert_eq!(format!("{principal:?}"), "Principal(abababab)");
    }
}
