//! The roll of replicas: pure. What each says of itself, what the store answers to it, and who came and who went.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::store::Value;

/// The most replicas on the roll; further ones work, but are not seen.
pub const MOST: usize = 256;
/// The longest name of a replica that is shown.
const LONGEST: usize = 64;

/// What a replica says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its name, for people.
    pub name: String,
    /// The version it runs.
    pub version: String,
    /// For how long it has been running.
    pub up_seconds: u64,
}

/// A replica on the roll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id, new at each start.
    pub id: String,
    /// What it said.
    pub said: Said,
    /// How long ago it said so, when the roll was read.
    pub ago: Duration,
}

/// Who came and who went between two looks at the roll.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Those not seen before.
    pub joined: Vec<Member>,
    /// Those not seen any more.
    pub left: Vec<Member>,
}

/// All replicas, as one of them last read it.
#[derive(Debug, Default)]
pub struct Roll {
    read: Option<Instant>,
    members: Vec<Member>,
}

impl Roll {
    /// Takes in what the store said at `now`; the first time, nobody is new.
    pub fn read(&mut self, members: Vec<Member>, now: Instant) -> Changes {
        let earlier = std::mem::replace(&mut self.members, members);
        if self.read.replace(now).is_none() {
            return Changes::default();
        }
        let not_in = |of: &[Member], all: &[Member]| -> Vec<Member> {
            of.iter().filter(|one| all.iter().all(|other| other.id != one.id)).cloned().collect()
        };
        Changes { joined: not_in(&self.members, &earlier), left: not_in(&earlier, &self.members) }
    }

    /// All that were on it at the last look, and how long ago each was heard.
    pub fn members(&self, now: Instant) -> impl Iterator<Item = (&Member, Duration)> {
        let since = self.read.map_or(Duration::ZERO, |read| now.saturating_duration_since(read));
        self.members.iter().map(move |member| (member, member.ago + since))
    }

    /// How many there were at the last look; 0 if there never was one.
    pub fn count(&self) -> usize {
        self.members.len()
    }
}

/// What the store answers: for each replica its id, how many milliseconds ago it was heard, and what it said. What nobody can
/// read is left out.
pub fn members(answer: &Value) -> Vec<Member> {
    let Value::Many(parts) = answer else { return Vec::new() };
    let mut members: Vec<_> = parts.chunks_exact(3).take(MOST).filter_map(member).collect();
    members.sort_by(|a, b| (&a.said.name, &a.id).cmp(&(&b.said.name, &b.id)));
    members
}

fn member(parts: &[Value]) -> Option<Member> {
    let [Value::Bytes(id), Value::Int(ago), Value::Bytes(said)] = parts else { return None };
    let mut said: Said = serde_json::from_slice(said).ok()?;
    shorten(&mut said.name);
    shorten(&mut said.version);
    let id = String::from_utf8(id.clone()).ok().filter(|id| id.len() <= LONGEST)?;
    Some(Member { id, said, ago: Duration::from_millis(u64::try_from(*ago).unwrap_or(0)) })
}

fn shorten(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        text.truncate(end);
    }
    text.retain(|letter| !letter.is_control());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    fn bytes(text: &str) -> Value {
        Value::Bytes(text.as_bytes().to_vec())
    }

    fn entry(id: &str, ago: i64, name: &str) -> Vec<Value> {
        let said = Said { name: name.to_owned(), version: "1.0.0".to_owned(), up_seconds: 7 };
        vec![bytes(id), Value::Int(ago), bytes(&serde_json::to_string(&said).unwrap())]
    }

    fn answer(entries: &[(&str, i64, &str)]) -> Value {
        Value::Many(entries.iter().flat_map(|(id, ago, name)| entry(id, *ago, name)).collect())
    }

    #[test]
    fn replicas_are_in_order_and_what_cannot_be_read_is_left_out() {
        let mut parts = [entry("2", 10, "gateway-b"), entry("1", -5, "gateway-a")].concat();
        parts.extend([bytes("3"), Value::Int(0), bytes("{\"name\":1}"), Value::Nil, Value::Int(0), bytes("")]);
        parts.extend(entry("4", 0, &format!("long\u{1b}[31m{}", "ü".repeat(100))));
        let found = members(&Value::Many(parts));
        let names: Vec<_> = found.iter().map(|member| member.id.as_str()).collect();
        assert_eq!(names, ["1", "2", "4"]);
        assert_eq!((found[0].ago, found[1].ago), (Duration::ZERO, Duration::from_millis(10)));
        assert!(found[2].said.name.chars().count() <= LONGEST && !found[2].said.name.contains('\u{1b}'));
        let many: Vec<_> = (0..300).flat_map(|number| entry(&number.to_string(), 0, "x")).collect();
        assert_eq!(members(&Value::Many(many)).len(), MOST);
        assert!(members(&Value::Nil).is_empty() && members(&Value::Many(vec![Value::Nil; 4])).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_and_goes_is_told_once_and_ages_go_on() {
        let (mut roll, now) = (Roll::default(), Clock::start().now());
        assert_eq!(roll.count(), 0);
        let first = roll.read(members(&answer(&[("a", 0, "one"), ("b", 2_000, "two")])), now);
        assert_eq!(first, Changes::default(), "those that were there before are no news");
        let later = now + Duration::from_secs(3);
        let ages: Vec<_> = roll.members(later).map(|(member, ago)| (member.id.as_str(), ago.as_secs())).collect();
        assert_eq!(ages, [("a", 3), ("b", 5)]);
        let second = roll.read(members(&answer(&[("a", 0, "one"), ("c", 0, "three")])), later);
        let ids = |of: &[Member]| of.iter().map(|member| member.id.clone()).collect::<Vec<_>>();
        assert_eq!((ids(&second.joined), ids(&second.left)), (vec!["c".to_owned()], vec!["b".to_owned()]));
        let third = roll.read(members(&answer(&[("a", 0, "one"), ("c", 0, "three")])), later);
        assert_eq!(third, Changes::default());
        assert_eq!(roll.count(), 2);
    }
}
