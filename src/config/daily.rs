//! What a configuration says of daily budgets and of where they are remembered: a part of [`super::file`].

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};

use super::redis::RedisFile;
use super::value::{Count, Name, Percent, Period, Phrase, Text};

/// No org has more calls a day than this.
pub const MOST_CALLS: u64 = 1_000_000_000;

/// A number of API calls a day.
pub type Calls = Count<0, MOST_CALLS>;

/// An org's daily allowance: API calls of any 24 hours.
#[derive(Debug, Clone, Serialize, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DailyFile {
    /// What budgets do. Default: `enforce` if `limit` is written here or any caller has a floor or a ceiling, else
    /// `observe`, so that a gateway nobody has given a budget refuses nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<DailyMode>,
    /// Calls in 24 hours, of all users of the org together: Salesforce's own limit, or a number to stay below. Default:
    /// `from_salesforce`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<DailyLimit>,
    /// The part of the limit that is left to others.
    pub keep_free: Text<Percent>,
    /// The limit to go by if Salesforce never says one within `first_reading_within`. Without it, calls are then counted
    /// and none is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assume: Option<Count<1, MOST_CALLS>>,
    /// Calls that may be sent before Salesforce has first said what is used; further ones wait.
    pub before_first_reading: Count<1, 1_000_000>,
    /// How long its first word is waited for.
    pub first_reading_within: Text<Period>,
    /// Asks `/limits` what is used whenever no answer has said so for a while. Default: never asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll: Option<PollFile>,
}

/// The gateway's own question for what an org has used. It is a call like any other: counted, and refused where nothing is
/// left, unless `costs.limits` says that it is free.
#[derive(Debug, Clone, Serialize, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PollFile {
    /// As which of the org's `auth` it asks; the user needs *View Setup and Configuration*. Default: the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Text<Name>>,
    /// How old the last word may grow before it asks. While callers' answers say what is used, nothing is asked.
    pub every: Text<Period>,
}

impl Default for PollFile {
    fn default() -> Self {
        Self { identity: None, every: Text(Period(std::time::Duration::from_mins(5))) }
    }
}

impl Default for DailyFile {
    fn default() -> Self {
        Self {
            mode: None,
            limit: None,
            keep_free: Text(Percent(50)),
            assume: None,
            before_first_reading: Count(20),
            first_reading_within: Text(Period(std::time::Duration::from_mins(2))),
            poll: None,
        }
    }
}

/// What budgets do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DailyMode {
    /// Calls are counted.
    Off,
    /// They decide and count, but refuse nothing.
    Observe,
    /// They refuse what is beyond them.
    Enforce,
}

/// Where an org's limit comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DailyLimit {
    /// Salesforce's own limit, as its answers say it.
    FromSalesforce,
    /// This, or Salesforce's own if that is lower.
    Calls(u64),
}

const FROM_SALESFORCE: &str = "from_salesforce";

impl Serialize for DailyLimit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::FromSalesforce => serializer.serialize_str(FROM_SALESFORCE),
            Self::Calls(calls) => serializer.serialize_u64(*calls),
        }
    }
}

impl<'de> Deserialize<'de> for DailyLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = DailyLimit;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{FROM_SALESFORCE} or a number of calls from 1 to {MOST_CALLS}")
            }

            fn visit_u64<E: de::Error>(self, calls: u64) -> Result<DailyLimit, E> {
                match calls {
                    1..=MOST_CALLS => Ok(DailyLimit::Calls(calls)),
                    _ => Err(E::invalid_value(de::Unexpected::Unsigned(calls), &self)),
                }
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<DailyLimit, E> {
                if text == FROM_SALESFORCE {
                    return Ok(DailyLimit::FromSalesforce);
                }
                let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                match text.parse() {
                    Ok(calls) if digits => self.visit_u64(calls),
                    _ => Err(E::invalid_value(de::Unexpected::Other("text"), &self)),
                }
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for DailyLimit {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DailyLimit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`from_salesforce`, or a number of calls.",
            "anyOf": [
                { "const": FROM_SALESFORCE },
                { "type": "integer", "minimum": 1, "maximum": MOST_CALLS },
            ],
        })
    }
}

/// A caller's share of every org's daily allowance: API calls of any 24 hours.
#[derive(Debug, Clone, Serialize, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShareFile {
    /// Calls it is guaranteed: nobody else may use them, and below it no scarcity concerns it.
    pub floor: Calls,
    /// Calls it never exceeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling: Option<Calls>,
    /// Its part, relative to others, of what nobody is guaranteed, once that is scarce.
    pub weight: Count<1, 1000>,
}

impl Default for ShareFile {
    fn default() -> Self {
        Self { floor: Count(0), ceiling: None, weight: Count(1) }
    }
}

/// At which part of an org's allowance calls beyond a caller's floor are narrowed. Calls below a floor never are.
#[derive(Debug, Clone, Serialize, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LadderFile {
    /// From here on, callers get weighted shares of what is left.
    pub lean: Text<Percent>,
    /// From here on, class batch goes on only as fast as calls come back.
    pub pace_batch: Text<Percent>,
    /// From here on, class batch stops.
    pub stop_batch: Text<Percent>,
    /// From here on, only class interactive goes on.
    pub stop_standard: Text<Percent>,
    /// Each step is left again this far below the point where it was entered.
    pub back_below: Text<Percent>,
}

impl Default for LadderFile {
    fn default() -> Self {
        let percent = |percent: u16| Text(Percent(percent * 10));
        Self {
            lean: percent(70),
            pace_batch: percent(80),
            stop_batch: percent(90),
            stop_standard: percent(97),
            back_below: percent(10),
        }
    }
}

/// Where it is remembered what was spent.
#[derive(Debug, Clone)]
pub enum StateFile {
    /// Nowhere: a restart begins with what Salesforce says.
    Memory,
    /// In a folder of this machine, or in a store that several replicas share.
    Kept(Box<KeptFile>),
}

/// What remembers what was spent: a folder, or a store that several replicas share.
#[derive(Debug, Clone, Default, Serialize, serde::Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KeptFile {
    /// A folder on a local disk, for one gateway alone; it is made if need be. Relative to the configuration's directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Text<Phrase>>,
    /// A store for any number of replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisFile>,
    /// What happens while nothing can be written there. Default: `refuse` for a folder, `safe_share` for a shared store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<OnLossWord>,
}

/// What happens while what is spent cannot be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, JsonSchema)]
#[serde(rename = "OnLoss", rename_all = "snake_case")]
pub enum OnLossWord {
    /// Calls are refused, so that none can be forgotten.
    Refuse,
    /// Only for a folder: calls go on; a crash before it can be written again forgets them.
    Continue,
    /// Only for a shared store: what was leased is spent, then calls are refused.
    SpendLease,
    /// Only for a shared store: what was leased is spent, then what was set aside for this replica while the store was there.
    SafeShare,
}

/// What happens while the folder cannot be written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnLoss {
    /// Calls are refused, so that none can be forgotten.
    #[default]
    Refuse,
    /// Calls go on; a crash before it can be written again forgets them.
    Continue,
}

/// What happens while the shared store cannot be reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SharedLoss {
    /// Calls are refused at once.
    Refuse,
    /// What was leased is spent, then calls are refused.
    SpendLease,
    /// What was leased is spent, then what was set aside for this replica while the store was there.
    #[default]
    SafeShare,
}

impl SharedLoss {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::SpendLease => "spend_lease",
            Self::SafeShare => "safe_share",
        }
    }
}

const MEMORY: &str = "memory";

impl Serialize for StateFile {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Memory => serializer.serialize_str(MEMORY),
            Self::Kept(kept) => kept.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for StateFile {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = StateFile;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("memory, {path: ...} or {redis: ...}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StateFile, E> {
                match text {
                    MEMORY => Ok(StateFile::Memory),
                    _ => Err(E::invalid_value(de::Unexpected::Other("text"), &self)),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<StateFile, A::Error> {
                KeptFile::deserialize(MapAccessDeserializer::new(map)).map(|kept| StateFile::Kept(Box::new(kept)))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for StateFile {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StateFile".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let kept = generator.subschema_for::<KeptFile>();
        json_schema!({ "description": "`memory`, a folder, or a store that replicas share.", "anyOf": [{ "const": MEMORY }, kept] })
    }
}
