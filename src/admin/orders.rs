//! What an operator may order: to pause or resume one caller or one class of one org, to forget kept answers, and to open or
//! close circuit breakers.

use std::time::Duration;

use crate::call::{Class, Family};
use crate::config;

/// Pauses or resumes somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The org whose calls are meant.
    pub org: String,
    /// Whose.
    pub whom: Whom,
    /// Pause, or resume.
    pub paused: bool,
}

/// Whose calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// One caller's, by its name.
    Caller(String),
    /// Those of one class, of all callers.
    Class(Class),
}

/// What an order names and nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// There is no such org.
    Org,
    /// There is no such caller.
    Caller,
    /// There is no such breaker: calls to this API are never held back, or no calls are.
    Breaker,
}

/// Makes kept answers old.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purge {
    /// The org whose answers are meant.
    pub org: String,
    /// Which of them.
    pub what: Purged,
    /// They may still be given out in the place of a failure.
    pub soft: bool,
}

/// Which answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purged {
    /// All.
    All,
    /// Those about this object.
    Object(String),
    /// Those of the principals that the log shows like this.
    Principal(String),
}

/// Opens or closes breakers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// The org whose breakers are meant.
    pub org: String,
    /// The one of this API; all, if none is named.
    pub family: Option<Family>,
    /// Open, or close.
    pub open: bool,
    /// How long it is held open, if not until it is closed.
    pub length: Option<Duration>,
}

/// The parameters of an order, each once.
fn parameters(query: &str) -> Result<Vec<(&str, String)>, &'static str> {
    let mut all: Vec<(&str, String)> = Vec::new();
    for member in query.split('&').filter(|member| !member.is_empty()) {
        let (name, value) = member.split_once('=').ok_or("Write each parameter as name=value.")?;
        let value = percent_encoding::percent_decode_str(value);
        let value = value.decode_utf8().map_err(|_| "A parameter is not UTF-8.")?.into_owned();
        if all.iter().any(|(known, _)| *known == name) {
            return Err("Give each parameter once.");
        }
        all.push((name, value));
    }
    Ok(all)
}

/// Reads `org=...`, which may be missing: then it is empty.
pub(super) fn chosen_org(query: &str) -> Result<String, &'static str> {
    match <[_; 1]>::try_from(parameters(query)?) {
        Ok([("org", org)]) => Ok(org),
        Err(none) if none.is_empty() => Ok(String::new()),
        _ => Err("The parameter is org."),
    }
}

impl Purge {
    /// Reads `org=...`, and perhaps `object=...` or `principal=...`, and `soft=true`; the error says what is wrong.
    pub(super) fn parse(query: &str) -> Result<Self, &'static str> {
        let (mut org, mut what, mut soft) = (None, None, false);
        for (name, value) in parameters(query)? {
            let more = match name {
                "soft" => {
                    soft = value.parse().map_err(|_| "soft is true or false.")?;
                    continue;
                }
                "org" => {
                    org = Some(value);
                    continue;
                }
                "object" => Purged::Object(value),
                "principal" => Purged::Principal(value),
                _ => return Err("The parameters are org, and perhaps object or principal, and soft."),
            };
            if what.replace(more).is_some() {
                return Err("Name one object or one principal.");
            }
        }
        let org = org.ok_or("Name the org.")?;
        Ok(Self { org, what: what.unwrap_or(Purged::All), soft })
    }
}

impl Order {
    /// Reads `org=...&caller=...` or `org=...&class=...`; the error says what is wrong.
    pub(super) fn parse(query: &str, paused: bool) -> Result<Self, &'static str> {
        let (mut org, mut whom) = (None, None);
        for (name, value) in parameters(query)? {
            let given = match name {
                "org" => org.replace(value).is_some(),
                "caller" => whom.replace(Whom::Caller(value)).is_some(),
                "class" => {
                    let class = Class::parse(&value).ok_or("A class is interactive, standard or batch.")?;
                    whom.replace(Whom::Class(class)).is_some()
                }
                _ => return Err("The parameters are org, and caller or class."),
            };
            if given {
                return Err("Name one org, and one caller or one class.");
            }
        }
        match (org, whom) {
            (Some(org), Some(whom)) => Ok(Self { org, whom, paused }),
            _ => Err("Name one org, and one caller or one class."),
        }
    }
}

impl Switch {
    /// Reads `org=...`, and perhaps `family=...`, and to open them `for=...`; the error says what is wrong.
    pub(super) fn parse(query: &str, open: bool) -> Result<Self, &'static str> {
        let mut switch = Self { org: String::new(), family: None, open, length: None };
        for (name, value) in parameters(query)? {
            match name {
                "org" => switch.org = value,
                "family" => {
                    switch.family = Some(Family::parse(&value).ok_or("A family is an API, such as rest or query.")?);
                }
                "for" if open => {
                    let length = config::duration(&value).filter(|length| !length.is_zero());
                    switch.length = Some(length.ok_or("for is a length of time, such as 30m or 1h30m.")?);
                }
                _ if open => return Err("The parameters are org, and perhaps family and for."),
                _ => return Err("The parameters are org, and perhaps family."),
            }
        }
        if switch.org.is_empty() { Err("Name the org.") } else { Ok(switch) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_names_one_org_and_perhaps_an_api_and_a_time() {
        let switch = Switch::parse("org=prod&family=query&for=1h30m", true).unwrap();
        let length = Some(Duration::from_mins(90));
        assert_eq!(switch, Switch { org: "prod".into(), family: Some(Family::Query), open: true, length });
        let all = Switch { org: "prod".into(), family: None, open: false, length: None };
        assert_eq!(Switch::parse("org=prod", false), Ok(all));
        for (wrong, open) in [
            ("", true),
            ("family=query", true),
            ("org=", true),
            ("org=a&org=b", true),
            ("org=a&family=qurey", true),
            ("org=a&for=soon", true),
            ("org=a&for=0s", true),
            ("org=a&for=1h", false),
            ("org=a&caller=b", true),
        ] {
            assert!(Switch::parse(wrong, open).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_purge_names_one_org_and_perhaps_one_thing() {
        let purge = |query| Purge::parse(query).map(|purge| purge.what);
        assert_eq!(purge("org=prod"), Ok(Purged::All));
        assert_eq!(purge("object=Account&org=prod"), Ok(Purged::Object("Account".into())));
        assert_eq!(purge("org=prod&principal=0a1b2c3d"), Ok(Purged::Principal("0a1b2c3d".into())));
        let soft = |query| Purge::parse(query).map(|purge| purge.soft);
        assert_eq!(
            (soft("org=prod"), soft("org=prod&soft=true"), soft("soft=false&org=prod")),
            (Ok(false), Ok(true), Ok(false))
        );
        for wrong in [
            "",
            "object=Account",
            "org=a&org=b",
            "org=a&object=b&principal=c",
            "org=a&caller=b",
            "org",
            "org=a&soft=yes",
        ] {
            assert!(purge(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_org_may_be_chosen() {
        assert_eq!(chosen_org(""), Ok(String::new()));
        assert_eq!(chosen_org("org=north%20east"), Ok("north east".to_owned()));
        for wrong in ["org", "key=wka_1", "org=a&org=b", "org=a&key=b"] {
            assert!(chosen_org(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_order_names_one_org_and_one_caller_or_class() {
        let order = Order::parse("org=prod&caller=etl%20nightly", true).unwrap();
        assert_eq!(order, Order { org: "prod".into(), whom: Whom::Caller("etl nightly".into()), paused: true });
        let order = Order::parse("class=batch&org=prod", false).unwrap();
        assert_eq!((order.whom, order.paused), (Whom::Class(Class::Batch), false));
        for wrong in [
            "",
            "org=prod",
            "caller=a",
            "org=a&org=b&caller=c",
            "org=a&caller=b&class=batch",
            "org=a&class=slow",
            "org",
            "org=a&caller=b&x=y",
            "org=a&caller=%ff",
        ] {
            assert!(Order::parse(wrong, true).is_err(), "{wrong}");
        }
    }
}
