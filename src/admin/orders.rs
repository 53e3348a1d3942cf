//! What an operator may order: to pause or resume one caller or one class of one org, and to forget kept answers.

use crate::call::Class;

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

#[cfg(test)]
mod tests {
    use super::*;

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
