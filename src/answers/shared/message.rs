//! What one replica tells all others at once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::super::touch::{Touch, Touches};

/// What an event names at most; one that changed more says so more coarsely.
const MAX_TOUCHES: usize = 64;

/// Something that happened to the changes or sessions of an org.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// A call is being sent that may change this; its number among those of its replica.
    #[serde(rename = "b")]
    Begin(u64, Touches),
    /// Salesforce has begun to answer it, and may not be done.
    #[serde(rename = "a")]
    Again(u64),
    /// It is over; or nobody knows whether it is.
    #[serde(rename = "e")]
    End(u64, bool),
    /// Something may change this for so many milliseconds.
    #[serde(rename = "d")]
    Doubt(Touches, u64),
    /// A bulk job may change this for so many milliseconds.
    #[serde(rename = "j")]
    Job(SmolStr, Touches, u64),
    /// It has come to its end.
    #[serde(rename = "je")]
    JobEnd(SmolStr),
    /// An operator wants this to be old.
    #[serde(rename = "p")]
    Purge(Touch),
    /// An operator wants Salesforce to be asked again about this, if it answers.
    #[serde(rename = "s")]
    Soften(Touch),
    /// The same of what was kept for the principals that are shown like this: `true` makes it old.
    #[serde(rename = "w")]
    Principal(SmolStr, bool),
    /// Salesforce rejected the session of this principal; for how many milliseconds sessions are entitled otherwise.
    #[serde(rename = "x")]
    SessionEnded([u8; 16], u64),
    /// Some session was given back, nobody knows whose.
    #[serde(rename = "xx")]
    SessionsEnded,
}

/// A part of all that a replica knows to be going on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// It is the first part.
    #[serde(rename = "f")]
    pub first: bool,
    /// It is the last one.
    #[serde(rename = "l")]
    pub last: bool,
    /// Its own calls in the air.
    #[serde(rename = "a", default, skip_serializing_if = "Vec::is_empty")]
    pub air: Vec<(u64, Touches)>,
    /// Others it hears, for those who came too late to hear them.
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Vouched>,
    /// What is in doubt, whoever caused it, and for how many milliseconds.
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<(Touch, u64)>,
    /// Bulk jobs, whoever made them, and for how many milliseconds they are watched.
    #[serde(rename = "j", default, skip_serializing_if = "Vec::is_empty")]
    pub jobs: Vec<(SmolStr, Touches, u64)>,
}

/// What one replica knows of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vouched {
    /// Its name.
    #[serde(rename = "i")]
    pub name: SmolStr,
    /// The number of its next message.
    #[serde(rename = "n")]
    pub next: u64,
    /// None of its messages was missed.
    #[serde(rename = "k")]
    pub known: bool,
    /// Its calls in the air.
    #[serde(rename = "a")]
    pub air: Vec<(u64, Touches)>,
}

/// One message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who says it: another name at each start.
    pub from: SmolStr,
    /// Counts its messages, from 1.
    #[serde(rename = "n")]
    pub number: u64,
    /// When it was sent, in milliseconds of its sender's own clock: of use to none but its sender.
    #[serde(rename = "t")]
    pub sent: u64,
    /// From whom the sender has missed something.
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    pub wants: Vec<SmolStr>,
    /// What happened, in order.
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<Event>,
    /// What is going on, for those who missed something; after what happened.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Part>,
    /// It is the last one.
    #[serde(rename = "z", default, skip_serializing_if = "std::ops::Not::not")]
    pub bye: bool,
}

impl Message {
    /// The bytes it travels as, before they are sealed.
    pub fn write(&self) -> Vec<u8> {
        // Nothing in it can fail to be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// The message these bytes stand for; `None` if this version knows no such message.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}

/// Whole milliseconds, rounded up: what is in doubt must not end early elsewhere.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// `touches`, or fewer that comprise them.
pub fn bounded(touches: &Touches) -> Touches {
    if touches.len() <= MAX_TOUCHES {
        return touches.clone();
    }
    let mut coarse = Touches::new();
    for touch in touches {
        let touch = match touch {
            Touch::Everything => return std::iter::once(Touch::Everything).collect(),
            Touch::Rows => Touch::Rows,
            Touch::Object(name) | Touch::Row(name, _) | Touch::New(name) => Touch::Object(name.clone()),
        };
        if !coarse.contains(&touch) {
            coarse.push(touch);
        }
        if coarse.len() > MAX_TOUCHES {
            // Go on: there may be one that changes more than rows.
            coarse = std::iter::once(Touch::Rows).collect();
        }
    }
    coarse
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::super::super::touch::{RowId, lower};
    use super::*;

    fn row(number: usize) -> Touch {
        Touch::Row(lower("Account"), RowId::parse(&format!("001{number:012}")).unwrap())
    }

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let touches: Touches =
            smallvec![Touch::Everything, Touch::Rows, Touch::Object(lower("Lead")), row(7), Touch::New(lower("Case"))];
        let message = Message {
            from: "a".into(),
            number: 7,
            sent: 12,
            wants: vec!["b".into()],
            events: vec![
                Event::Begin(1, touches.clone()),
                Event::Again(1),
                Event::End(1, true),
                Event::Doubt(touches.clone(), 5),
                Event::Job("750".into(), touches.clone(), 6),
                Event::JobEnd("750".into()),
                Event::Purge(row(1)),
                Event::Soften(Touch::Rows),
                Event::Principal("01020304".into(), true),
                Event::SessionEnded([9; 16], 300_000),
                Event::SessionsEnded,
            ],
            state: Some(Part {
                first: true,
                last: false,
                air: vec![(3, touches.clone())],
                peers: vec![Vouched { name: "c".into(), next: 4, known: true, air: vec![(1, touches.clone())] }],
                doubts: vec![(row(2), 1)],
                jobs: vec![("750".into(), touches, 6)],
            }),
            bye: true,
        };
        assert_eq!(Message::read(&message.write()), Some(message));
        let heartbeat = Message { from: "0123456789abcdef.1".into(), number: 1, ..Message::default() };
        assert_eq!(String::from_utf8(heartbeat.write()).unwrap(), r#"{"from":"0123456789abcdef.1","n":1,"t":0}"#);
        assert_eq!(Message::read(&heartbeat.write()), Some(heartbeat));
    }

    #[test]
    fn what_another_version_says_is_not_taken_for_something_else() {
        for unknown in [
            r"{}",
            r#"{"from":"a","n":1,"t":0,"new":1}"#,
            r#"{"from":"a","n":1,"t":0,"e":[{"new":1}]}"#,
            r#"{"from":"a","n":1,"t":0,"e":[{"p":{"r":["account","short"]}}]}"#,
            "",
        ] {
            assert_eq!(Message::read(unknown.as_bytes()), None, "{unknown}");
        }
    }

    #[test]
    fn a_long_list_is_told_coarsely() {
        let few: Touches = (0..MAX_TOUCHES).map(row).collect();
        assert_eq!(bounded(&few), few);
        let many: Touches = (0..=MAX_TOUCHES).map(row).collect();
        assert_eq!(bounded(&many).as_slice(), [Touch::Object(lower("account"))]);
        let objects: Touches = (0..=MAX_TOUCHES).map(|number| Touch::New(lower(&format!("o{number}")))).collect();
        assert_eq!(bounded(&objects).first(), Some(&Touch::Rows));
        let all: Touches = objects.into_iter().chain([Touch::Everything]).collect();
        assert_eq!(bounded(&all).as_slice(), [Touch::Everything]);
    }

    #[test]
    fn a_rest_of_a_millisecond_is_a_whole_one() {
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_millis(2)), 2);
        assert_eq!(millis(Duration::MAX), u64::MAX);
    }
}
