//! How a statement to the store is written as arguments of a script, and how its answer is read.
//!
//! Numbers travel as decimal text, a cell's key as `minute:class:caller`, what is absent as an empty argument or nothing.
//! What does not read is garbage, never a guess.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::admission::bank::Paused;
use crate::admission::bank::shared::words::{Answer, Cell, Key, Known, Memory, ReadAt, Remembered, Tell, Told};
use crate::admission::time::Minute;
use crate::call::Class;
use crate::store::Value;

/// Arguments of a script.
#[derive(Debug, Default)]
pub(super) struct Args(Vec<Vec<u8>>);

impl Args {
    fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.0.push(text.as_ref().to_vec());
        self
    }

    fn number(&mut self, number: impl ToString + Copy) -> &mut Self {
        self.0.push(number.to_string().into_bytes());
        self
    }

    fn known(&mut self, members: &[Known]) -> &mut Self {
        self.number(members.len());
        for member in members {
            self.text(&*member.replica).number(member.seq).number(member.out).number(member.named);
            self.number(member.until.0);
        }
        self
    }

    /// Says a script that is changed to be told what time it is.
    #[cfg(test)]
    pub(super) fn time(&mut self, time: u64) {
        self.number(time);
    }

    /// As the store takes them.
    pub(super) fn slices(&self) -> Vec<&[u8]> {
        self.0.iter().map(Vec::as_slice).collect()
    }
}

/// Pauses, opaque to the store.
#[derive(Serialize, Deserialize)]
struct PausedText {
    callers: Vec<Arc<str>>,
    classes: Vec<usize>,
}

/// The arguments with which `replica` comes; `fresh` is the number of the data if there are none.
pub(super) fn open(replica: &str, fresh: u64) -> Args {
    let mut args = Args::default();
    args.text(replica).number(fresh);
    args
}

/// The arguments that tell `tell`, the replica's last word if `closing`.
pub(super) fn tell(tell: &Tell, closing: bool) -> Args {
    let mut args = Args::default();
    args.text(if closing { "close" } else { "settle" });
    args.text(&*tell.replica).number(tell.epoch).number(tell.seq).number(tell.known).number(tell.at);
    args.number(tell.cap).number(tell.held);
    match tell.foreign {
        Some(foreign) => args.number(foreign),
        None => args.text(""),
    };
    args.number(tell.balance).number(tell.ask).number(tell.floor);
    args.number(tell.reserve).number(tell.reserve_ask).number(u8::from(tell.waiting));
    match tell.reading {
        Some(reading) => args.number(reading.used).number(reading.limit).number(reading.at),
        None => args.text("").text("").text(""),
    };
    args.number(tell.paused_known);
    args.text(tell.paused.as_ref().map(pauses).unwrap_or_default());
    args.number(tell.deltas.len());
    for delta in &tell.deltas {
        args.text(key(&delta.key)).number(delta.calls);
    }
    args.number(tell.allotted.len());
    for allot in &tell.allotted {
        args.text(&*allot.caller).number(allot.balance).number(allot.ask).number(allot.floor).number(allot.ceiling);
    }
    args
}

/// The arguments that tell `memory`.
pub(super) fn memory(memory: &Memory) -> Args {
    let mut args = Args::default();
    args.text(&*memory.replica).number(memory.epoch).number(memory.fresh).number(memory.at);
    args.number(memory.version).number(memory.half).number(u8::from(memory.stale)).number(u8::from(memory.last));
    args.number(memory.paused_version).text(pauses(&memory.paused));
    args.known(&memory.members);
    args.number(memory.cells.len());
    for cell in &memory.cells {
        args.text(key(&cell.key)).number(cell.calls);
    }
    args
}

/// What the store said to a [`Tell`]; `None` if that makes no sense.
pub(super) fn told(answer: &Value) -> Option<Told> {
    let mut said = Said(answer.many()?.iter());
    match said.text()? {
        b"stale" => Some(Told::Stale),
        b"strange" => Some(Told::Strange { epoch: said.number()? }),
        b"settled" => Some(Told::Settled(Box::new(Answer {
            epoch: said.number()?,
            now: said.number()?,
            version: said.number()?,
            granted: said.number()?,
            reserve: said.number()?,
            until: said.minute()?,
            through: said.number()?,
            more: said.number()? != 0,
            others: said.number()?,
            half: said.number()?,
            scarce: said.number()? != 0,
            recovering: said.number()? != 0,
            paused_version: said.number()?,
            paused: said.maybe(|said| read_pauses(said.bytes()?)).ok()?,
            reading: said.maybe(reading).ok()?,
            allotted: said.list(Said::number)?,
            cells: said.list(|said| Some(Cell { key: read_key(said.text()?)?, calls: said.number()? }))?,
            members: said.list(Said::known)?,
        }))),
        _ => None,
    }
}

/// What the store said to a [`Memory`]; `None` if that makes no sense.
pub(super) fn remembered(answer: &Value) -> Option<Remembered> {
    let mut said = Said(answer.many()?.iter());
    Some(Remembered { epoch: said.number()?, seq: said.number()?, taken: said.number()? != 0 })
}

/// It makes no sense.
struct Garbage;

fn reading(said: &Value) -> Option<ReadAt> {
    let mut said = Said(said.many()?.iter());
    Some(ReadAt { used: said.number()?, limit: said.number()?, at: said.number()? })
}

struct Said<'a>(std::slice::Iter<'a, Value>);

impl<'a> Said<'a> {
    fn text(&mut self) -> Option<&'a [u8]> {
        self.0.next()?.bytes()
    }

    fn name(&mut self) -> Option<Arc<str>> {
        std::str::from_utf8(self.text()?).ok().map(Arc::from)
    }

    fn number(&mut self) -> Option<u64> {
        u64::try_from(self.0.next()?.int()?).ok()
    }

    fn minute(&mut self) -> Option<Minute> {
        u32::try_from(self.number()?).ok().map(Minute)
    }

    fn known(&mut self) -> Option<Known> {
        Some(Known {
            replica: self.name()?,
            seq: self.number()?,
            out: self.number()?,
            named: self.number()?,
            until: self.minute()?,
        })
    }

    /// What `read` makes of it; nothing where nothing was said.
    fn maybe<T>(&mut self, read: impl FnOnce(&'a Value) -> Option<T>) -> Result<Option<T>, Garbage> {
        match self.0.next().ok_or(Garbage)? {
            Value::Nil => Ok(None),
            said => read(said).map(Some).ok_or(Garbage),
        }
    }

    fn list<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let mut said = Self(self.0.next()?.many()?.iter());
        let mut list = Vec::new();
        while !said.0.as_slice().is_empty() {
            list.push(one(&mut said)?);
        }
        Some(list)
    }
}

/// A key's text. Of one minute's cells it has the order that keys have.
pub(super) fn key(key: &Key) -> String {
    let class = key.class.map_or(0, |class| class.index() + 1);
    format!("{}:{class}:{}", key.minute.0, key.caller)
}

pub(super) fn read_key(text: &[u8]) -> Option<Key> {
    let mut parts = std::str::from_utf8(text).ok()?.splitn(3, ':');
    let minute = Minute(parts.next()?.parse().ok()?);
    let class = match parts.next()?.parse::<usize>().ok()? {
        0 => None,
        nth => Some(*Class::ALL.get(nth - 1)?),
    };
    Some(Key { minute, class, caller: parts.next()?.into() })
}

pub(super) fn pauses(paused: &Paused) -> String {
    let classes = paused.classes.iter().map(|class| class.index()).collect();
    // Names and numbers can always be written.
    serde_json::to_string(&PausedText { callers: paused.callers.clone(), classes }).unwrap_or_default()
}

pub(super) fn read_pauses(text: &[u8]) -> Option<Paused> {
    // Nobody ever paused anything.
    if text.is_empty() {
        return Some(Paused::default());
    }
    let read: PausedText = serde_json::from_slice(text).ok()?;
    let classes = read.classes.iter().map(|class| Class::ALL.get(*class).copied()).collect::<Option<_>>()?;
    Some(Paused { callers: read.callers, classes })
}
