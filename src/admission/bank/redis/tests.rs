//! The scripts against the rules they transliterate: the same random statements to both, in a real store.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::admission::bank::Paused;
use crate::admission::bank::shared::rules::{close, open, remember, settle};
use crate::admission::bank::shared::state::{Member, State, minute};
use crate::admission::bank::shared::words::{Allot, Cell, Delta, Key, Known, ReadAt};
use crate::admission::time::Minute;
use crate::call::Class;
use crate::clock::Clock;
use crate::config;
use crate::store::testing::Redis;
use crate::store::tests::settings;
use crate::tasks::Tasks;

const BEGIN: u64 = 1_795_348_800_000;
const CLOCK: &str = "redis.call('TIME')";
/// The last argument says the store's time.
const TOLD: &str = "{ math.floor(ARGV[#ARGV] / 1000), ARGV[#ARGV] % 1000 * 1000 }";

/// Everything in the store, in lines that sort; numbers as text, for they are longer than JSON's.
const DUMP: &str = r"
local lines = {}
local function said(value)
  if type(value) == 'number' then return string.format('%.0f', value) end
  if type(value) ~= 'table' then return tostring(value) end
  local parts = {}
  for _, part in ipairs(value) do parts[#parts + 1] = said(part) end
  return '[' .. table.concat(parts, ' ') .. ']'
end
local scalars = redis.call('HGET', KEYS[1], 's')
if not scalars then return '' end
for name, value in pairs(cmsgpack.unpack(scalars)) do
  if name ~= 'kept' then lines[#lines + 1] = 's ' .. name .. ' ' .. said(value) end
end
for name, member in pairs(cmsgpack.unpack(redis.call('HGET', KEYS[1], 'm'))) do
  for field, value in pairs(member) do
    if field == 'lost' then value = value or {} end
    lines[#lines + 1] = 'm ' .. name .. ' ' .. field .. ' ' .. said(value)
  end
end
local function hash(key, prefix)
  local held = redis.call('HGETALL', key)
  for nth = 1, #held, 2 do
    if held[nth] ~= 's' and held[nth] ~= 'm' then
      lines[#lines + 1] = prefix .. held[nth] .. ' ' .. held[nth + 1]
    end
  end
end
hash(KEYS[1], '')
hash(KEYS[2], 'own ')
for nth = 3, 4 do
  local held = redis.call('ZRANGE', KEYS[nth], 0, -1, 'WITHSCORES')
  for at = 1, #held, 2 do
    lines[#lines + 1] = 'z' .. nth .. ' ' .. held[at] .. ' ' .. string.format('%.0f', held[at + 1])
  end
end
table.sort(lines)
return table.concat(lines, '\n')
";

/// The same of the rules' state.
fn dump(state: &State) -> String {
    if state.epoch == 0 {
        return String::new();
    }
    let mut lines = Vec::new();
    let (wanted_at, wanted_by) = &state.wanted;
    let reading =
        state.reading.map_or("false".to_owned(), |read| format!("[{} {} {}]", read.used, read.limit, read.at));
    let paused = if state.paused_version == 0 { String::new() } else { codec::pauses(&state.paused) };
    let owned: usize = state.members.values().map(|member| member.named.len()).sum();
    for (name, value) in [
        ("epoch", state.epoch.to_string()),
        ("born", state.born.to_string()),
        ("now", state.now.to_string()),
        ("version", state.version.to_string()),
        ("sum", state.sum.to_string()),
        ("issued", state.issued.to_string()),
        ("gathering", state.gathering.to_string()),
        ("cells", state.cells.len().to_string()),
        ("owned", owned.to_string()),
        ("hold", state.hold.calls.to_string()),
        ("hold_version", state.hold.version.to_string()),
        ("hold_doubt", state.hold.doubt.to_string()),
        ("hold_set", state.hold.set.to_string()),
        ("wanted_at", wanted_at.to_string()),
        ("wanted_by", wanted_by.to_string()),
        ("reading", reading),
        ("paused", paused),
        ("paused_version", state.paused_version.to_string()),
    ] {
        lines.push(format!("s {name} {value}"));
    }
    for (name, member) in &state.members {
        dump_member(name, member, &mut lines);
    }
    for (key, cell) in &state.cells {
        let key = codec::key(key);
        let base = if cell.base > 0 { format!(":{}", cell.base) } else { String::new() };
        lines.push(format!("c:{key} {}{base}", cell.calls));
        lines.push(format!("z3 {key} {}", codec::read_key(key.as_bytes()).unwrap().minute.0));
    }
    lines.extend(state.changed.iter().map(|(version, key)| format!("z4 {} {version}", codec::key(key))));
    lines.extend(state.callers.iter().map(|(caller, calls)| format!("u:{caller} {calls}")));
    lines.extend(state.named.iter().map(|(caller, calls)| format!("n:{caller} {calls}")));
    lines.sort();
    lines.join("\n")
}

fn dump_member(name: &str, member: &Member, lines: &mut Vec<String>) {
    let mark = |mark: &crate::admission::bank::shared::state::Mark| {
        format!("[{} {} {}]", mark.version, mark.issued, mark.half)
    };
    let mut lost = String::new();
    for (key, calls) in member.lost.iter().flatten() {
        let _ = write!(lost, "{}[{} {calls}]", if lost.is_empty() { "" } else { " " }, codec::key(key));
    }
    let granted: Vec<_> = member.granted.2.iter().map(ToString::to_string).collect();
    for (field, value) in [
        ("seq", member.seq.to_string()),
        ("born", member.born.to_string()),
        ("heard", member.heard.to_string()),
        ("heard_raw", member.heard_raw.to_string()),
        ("ends", member.until.0.to_string()),
        ("out", member.out.to_string()),
        ("reserve", member.reserve.to_string()),
        ("named", member.named.values().sum::<u64>().to_string()),
        ("unnamed", member.unnamed.to_string()),
        ("sure", mark(&member.sure)),
        ("last", mark(&member.last)),
        ("awaited", member.awaited.to_string()),
        ("lost", format!("[{lost}]")),
        ("granted", format!("[{} {} [{}]]", member.granted.0, member.granted.1, granted.join(" "))),
    ] {
        lines.push(format!("m {name} {field} {value}"));
    }
    lines.extend(member.named.iter().map(|(caller, calls)| format!("own {name}:{caller} {calls}")));
}

/// Numbers from a test case, in turn.
struct Dice<'a>(std::slice::Iter<'a, u16>);

impl Dice<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.0.next().map_or(0, |number| u64::from(*number) * bound / 65_536)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    fn replica(&mut self) -> Arc<str> {
        self.one(&["a", "b", "c", "d"]).into()
    }

    fn caller(&mut self) -> Arc<str> {
        self.one(&["etl", "shop:eu", "a b"]).into()
    }

    fn key(&mut self, now: u64) -> Key {
        let class = self.one(&[None, Some(Class::Interactive), Some(Class::Batch)]);
        let back = self.one(&[0, 0, 1, 30, 1_439, 1_441, 3_000]);
        Key { minute: Minute(minute(now).0.saturating_sub(back)), class, caller: self.caller() }
    }

    fn epoch(&mut self, state: &State) -> u64 {
        if self.below(12) == 0 { self.below(3) } else { state.epoch }
    }

    fn tell(&mut self, state: &State, time: u64) -> Tell {
        let replica = self.replica();
        let member = state.members.get(&replica).cloned().unwrap_or_default();
        let at = (time + self.below(120_000)).saturating_sub(60_000);
        let deltas = (0..self.below(4))
            .map(|_| Delta { key: self.key(time), calls: i64::try_from(self.below(40)).unwrap() - 10 });
        let deltas = deltas.collect();
        let mut allotted = BTreeMap::new();
        for _ in 0..self.below(3) {
            let (caller, ceiling) = (self.caller(), 50 + self.below(200));
            let (balance, ask, floor) = (self.below(30), self.below(60), self.below(10));
            allotted.insert(Arc::clone(&caller), Allot { caller, balance, ask, floor, ceiling });
        }
        Tell {
            replica,
            epoch: self.epoch(state),
            seq: (member.seq + self.one(&[1, 1, 1, 1, 1, 2, 0])).saturating_sub(u64::from(self.below(12) == 0)),
            known: self.below(state.version + 1),
            at,
            deltas,
            cap: 200 + self.below(2_000),
            held: self.below(50),
            foreign: (self.below(2) == 0).then(|| self.below(400)),
            balance: self.below(member.out + 1),
            ask: self.below(300),
            floor: self.below(40),
            reserve: self.below(member.reserve + 1),
            reserve_ask: self.below(100),
            waiting: self.below(2) == 0,
            allotted: allotted.into_values().collect(),
            reading: (self.below(3) == 0).then(|| ReadAt { used: self.below(900), limit: 1_000, at }),
            paused: (self.below(6) == 0).then(|| Paused { callers: vec![self.caller()], classes: vec![Class::Batch] }),
            paused_known: self.below(state.paused_version + 1),
        }
    }

    fn memory(&mut self, state: &State, time: u64) -> Memory {
        let members = (0..self.below(4)).map(|_| Known {
            replica: self.replica(),
            seq: self.below(20),
            out: self.below(100),
            named: self.below(50),
            until: minute(time).plus(self.below(30) as u32),
        });
        let members = members.collect();
        let cells = (0..self.below(5)).map(|_| Cell { key: self.key(time), calls: self.below(60) }).collect();
        Memory {
            replica: self.replica(),
            epoch: self.epoch(state),
            fresh: 1 + self.below(1_000),
            at: time.saturating_sub(self.below(90_000)),
            version: self.below(2_000),
            half: self.below(500),
            stale: self.below(4) == 0,
            members,
            cells,
            last: self.below(2) == 0,
            paused_version: self.below(4),
            paused: Paused { callers: vec![self.caller()], classes: Vec::new() },
        }
    }
}

struct Bench {
    scripts: Scripts,
    dump: Script,
    books: Books,
}

impl Bench {
    async fn ask(&self, script: &Script, mut args: codec::Args, time: u64) -> Value {
        args.time(time);
        self.books.ask(script, &args).await.unwrap()
    }

    async fn step(&self, state: &mut State, time: u64, dice: &mut Dice<'_>) {
        match dice.below(10) {
            0 | 1 => {
                let (replica, fresh) = (dice.replica(), 1 + dice.below(1_000));
                let answer = self.ask(&self.scripts.open, codec::open(&replica, fresh), time).await;
                assert_eq!(codec::told(&answer), Some(open(state, time, &replica, fresh)));
            }
            2 => {
                let memory = dice.memory(state, time);
                let answer = self.ask(&self.scripts.remember, codec::memory(&memory), time).await;
                assert_eq!(codec::remembered(&answer), Some(remember(state, time, &memory)), "{memory:?}");
            }
            kind => {
                let (tell, closing) = (dice.tell(state, time), kind == 3);
                let answer = self.ask(&self.scripts.settle, codec::tell(&tell, closing), time).await;
                let expected = if closing { close(state, time, &tell) } else { settle(state, time, &tell) };
                assert_eq!(codec::told(&answer), Some(expected), "{tell:?}");
            }
        }
        let there = self.books.ask(&self.dump, &codec::Args::default()).await.unwrap();
        let there = String::from_utf8(there.bytes().unwrap().to_vec()).unwrap();
        agree(&there, &dump(state));
    }
}

/// Says the lines that differ.
fn agree(there: &str, here: &str) {
    let differ = |one: &str, other: &str| {
        one.lines().filter(|line| !other.lines().any(|there| there == *line)).collect::<Vec<_>>().join("\n")
    };
    assert!(there == here, "the store has\n{}\nthe rules\n{}", differ(there, here), differ(here, there));
}

/// A machine that is busy shall not fail the comparison.
fn slow(port: u16) -> config::Redis {
    config::Redis { timeout: Duration::from_secs(5), ..settings(port) }
}

#[test]
fn the_scripts_do_and_say_what_the_rules_do_and_say() {
    let redis = Redis::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(async { Store::open(&slow(redis.port()), Clock::start(), &Tasks::new()).unwrap() });
    let bench = Bench {
        scripts: Scripts::new(|code| {
            assert!(code.contains(CLOCK));
            code.replace(CLOCK, TOLD)
        }),
        dump: Script::new("dump", DUMP),
        books: Books::of(&store, "prod"),
    };
    let flush = Script::new("flush", "return redis.call('DEL', unpack(KEYS))");
    let cases = prop::collection::vec(prop::collection::vec(any::<u16>(), 60), 1..60);
    let mut runner = TestRunner::new(Config { cases: 120, failure_persistence: None, ..Config::default() });
    runner
        .run(&cases, |steps| {
            runtime.block_on(async {
                bench.books.ask(&flush, &codec::Args::default()).await.unwrap();
                let (mut state, mut time) = (State::default(), BEGIN);
                for step in &steps {
                    let mut dice = Dice(step.iter());
                    time += dice.one(&[0, 300, 1_000, 4_000, 20_000, 60_000, 600_000, 1_900_000, 40_000_000]);
                    bench.step(&mut state, time, &mut dice).await;
                }
            });
            Ok(())
        })
        .unwrap();
}
