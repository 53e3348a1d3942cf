//! `weirkeeper explain METHOD PATH`: what the gateway understands of a request, and which rules apply to it.

use std::path::PathBuf;
use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use crate::admission::slots::presumed;
use crate::call::{Call, CallerId, Class, Meaning, OrgId, Principal};
use crate::config::{self, Breaker, BreakerMode, Config, Pace, PaceMode};
use crate::live::{Classes, LiveCaller};
use crate::salesforce::taxonomy::{Executed, classify, has_quota_of_users, said, scan};
use crate::salesforce::{self, Costs};
use crate::stages::breakers::may_be_held_back;
use crate::stages::retry::{is_repeated, repeats};

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct ExplainArguments {
    /// HTTP method, for example GET.
    method: String,
    /// Path with query, for example '/services/data/v62.0/query?q=SELECT+Id+FROM+Account'.
    path: String,
    /// File with the request's body ('-' for standard input); composite, SOAP and GraphQL need it.
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// Status of an answer to it: what that means is explained too.
    #[arg(long, value_name = "STATUS", value_parser = clap::value_parser!(u16).range(200..600))]
    status: Option<u16>,
    /// File with the body of that answer.
    #[arg(long, value_name = "FILE", requires = "status")]
    answer: Option<PathBuf>,
    /// Configuration whose rules are applied.
    #[arg(long, short)]
    config: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Explains one request.
pub fn run(arguments: &ExplainArguments) -> ExitCode {
    match explain(arguments) {
        Ok(explained) => {
            if arguments.json {
                super::say(&serde_json::to_string_pretty(&explained).unwrap_or_default());
            } else {
                super::say(&table(&explained));
            }
            ExitCode::SUCCESS
        }
        Err(why) => {
            super::complain(&why);
            ExitCode::from(2)
        }
    }
}

fn explain(arguments: &ExplainArguments) -> Result<Value, String> {
    let method = Method::from_bytes(arguments.method.to_ascii_uppercase().as_bytes())
        .map_err(|_| format!("\"{}\" is not an HTTP method", arguments.method))?;
    if !arguments.path.starts_with('/') {
        return Err(format!("\"{}\" is not a path: it must start with /", arguments.path));
    }
    let config = match &arguments.config {
        Some(path) => Some(config::load(path).map_err(|problems| problems.to_string())?),
        None => None,
    };
    let costs = config.as_ref().and_then(|config| config.orgs.first()).map_or_else(Costs::default, crate::live::costs);
    let mut meaning = salesforce::understand(&method, &arguments.path, &costs);
    let mut notes = Vec::new();
    if salesforce::needs_body(&meaning) {
        match &arguments.body {
            Some(file) => {
                let body = read(file)?;
                if let Err(error) = salesforce::read_body(&mut meaning, &body, &costs) {
                    notes.push(format!("the body cannot be read: {error}"));
                }
            }
            None => notes.push("its body says what it does; give it with --body".to_owned()),
        }
    }
    let rules = config.as_ref().map(|config| rules(config, &meaning, &arguments.path));
    let breaker = breaker(config.as_ref().map(|config| config.breaker), &meaning);
    let mut explained = described(&meaning, breaker.as_deref(), rules.as_deref(), &notes);
    if let Some(status) = arguments.status {
        let body = arguments.answer.as_ref().map(read).transpose()?.unwrap_or_default();
        explained["answer"] = answered(&meaning, status, &body);
    }
    Ok(explained)
}

/// What an answer means, and what the gateway does about it. The words of the answer are not shown.
fn answered(meaning: &Meaning, status: u16, body: &[u8]) -> Value {
    if status < 400 {
        let found = scan(meaning.family, body);
        return json!({"parts": found.as_ref().map(|found| found.total), "parts_failed": found.as_ref().map(|found| found.failed)});
    }
    let heard = said(body);
    let verdict = classify(meaning.family, status, &heard);
    let (first, most) = verdict.waits();
    json!({
        "error_code": (!heard.code.is_empty()).then_some(heard.code),
        "kind": verdict.kind,
        "blame": verdict.blame,
        "scope": verdict.scope,
        "may_have_been_done": verdict.executed == Executed::Maybe,
        "repeated": is_repeated(verdict, meaning, false),
        "repeated_if_told_when": is_repeated(verdict, meaning, true),
        "outcome_unknown": verdict.is_outcome_unknown(meaning.idempotency),
        "first_wait_ms": first.as_millis() as u64,
        "longest_wait_ms": most.as_millis() as u64,
        "advice": verdict.advice(),
    })
}

fn read(file: &PathBuf) -> Result<Vec<u8>, String> {
    if file.as_os_str() == "-" {
        let mut body = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut body).map_err(|error| error.to_string())?;
        return Ok(body);
    }
    std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// For each caller: the class of such a request, how long it is presumed to run, and whether the allow-rules let it pass.
fn rules(config: &Config, meaning: &Meaning, path: &str) -> Vec<Value> {
    let classes = Classes::new(&config.classes);
    config
        .callers
        .iter()
        .enumerate()
        .map(|(place, caller)| {
            let live = LiveCaller::new(caller, false);
            let class = classes.of(caller.class, meaning, path);
            let call = Call {
                org: OrgId(0),
                caller: CallerId(place as u16),
                principal: Principal::NOBODY,
                class,
                meaning: meaning.clone(),
                deadline: None,
            };
            let verdict = live.rules.judge(&call);
            json!({
                "caller": caller.name.as_str(),
                "class": class,
                "presumed_length": presumed(class, meaning).length(),
                "pace": caller.pace.filter(|pace| pace.mode != PaceMode::Off).map(pace),
                "allowed": verdict.is_ok(),
                "why": verdict.err(),
            })
        })
        .collect()
}

/// A caller's pace in words.
fn pace(pace: Pace) -> String {
    let Pace { mode, per_second, burst, queue, wait } = pace;
    let observed = if mode == PaceMode::Observe { ", only observed" } else { "" };
    format!("{per_second} a second, {burst} at once, {queue} may wait up to {} s{observed}", wait.as_secs_f64())
}

/// The circuit breaker that holds such a call back, in words, if any does.
fn breaker(configured: Option<Breaker>, meaning: &Meaning) -> Option<String> {
    if !may_be_held_back(meaning) || configured.is_some_and(|breaker| breaker.mode == BreakerMode::Off) {
        return None;
    }
    let whose = if has_quota_of_users(meaning.family) { ", and of each user" } else { "" };
    let when = configured.map_or_else(String::new, |Breaker { mode, window, minimum, ratio, .. }| {
        let observed = if mode == BreakerMode::Observe { ", only observed" } else { "" };
        format!(": opens if {ratio} % of {minimum} calls or more fail in {} s{observed}", window.as_secs_f64())
    });
    Some(format!("of {}{whose}{when}", meaning.family))
}

fn described(meaning: &Meaning, breaker: Option<&str>, rules: Option<&[Value]>, notes: &[String]) -> Value {
    let parts: Vec<Value> = meaning
        .parts
        .iter()
        .map(|part| json!({"family": part.family, "operation": part.operation, "object": part.object}))
        .collect();
    let lengths: serde_json::Map<String, Value> =
        Class::ALL.iter().map(|class| (class.to_string(), json!(presumed(*class, meaning).length()))).collect();
    json!({
        "family": meaning.family,
        "operation": meaning.operation,
        "object": meaning.object,
        "template": meaning.template,
        "version": meaning.version.map(|version| version.to_string()),
        "effective_method": meaning.method.as_str(),
        "api_calls": meaning.cost.0,
        "idempotency": meaning.idempotency,
        "repeated_if_lost": repeats(meaning),
        "long_poll": meaning.long_poll,
        "breaker": breaker,
        "presumed_length": lengths,
        "subrequests": parts,
        "callers": rules,
        "notes": notes,
    })
}

/// The same for people: one fact a line.
fn table(explained: &Value) -> String {
    let mut lines = Vec::new();
    let plain = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    for (label, key) in [
        ("family", "family"),
        ("operation", "operation"),
        ("object", "object"),
        ("route", "template"),
        ("API version", "version"),
        ("effective method", "effective_method"),
        ("costs API calls", "api_calls"),
        ("repeatable", "idempotency"),
        ("repeated if lost", "repeated_if_lost"),
        ("long poll", "long_poll"),
        ("breaker", "breaker"),
    ] {
        lines.push(format!("{label:<18}{}", plain(&explained[key])));
    }
    let of_class = |class: &Class| format!("{class} {}", plain(&explained["presumed_length"][class.as_str()]));
    let lengths: Vec<String> = Class::ALL.iter().map(of_class).collect();
    lines.push(format!("{:<18}{}", "presumed length", lengths.join(", ")));
    for (place, part) in explained["subrequests"].as_array().into_iter().flatten().enumerate() {
        lines.push(format!(
            "subrequest {:<7}{} {} {}",
            place + 1,
            plain(&part["family"]),
            plain(&part["operation"]),
            plain(&part["object"])
        ));
    }
    for caller in explained["callers"].as_array().into_iter().flatten() {
        let verdict = match caller["why"].as_str() {
            None => "allowed".to_owned(),
            Some(why) => format!("refused: {why}"),
        };
        let (class, length) = (plain(&caller["class"]), plain(&caller["presumed_length"]));
        let pace = caller["pace"].as_str().map(|pace| format!("; {pace}")).unwrap_or_default();
        lines.push(format!("caller {:<11}{verdict} ({class}, presumed {length}{pace})", plain(&caller["caller"])));
    }
    for (label, key) in [
        ("parts", "parts"),
        ("parts failed", "parts_failed"),
        ("error code", "error_code"),
        ("means", "kind"),
        ("blame", "blame"),
        ("concerns", "scope"),
        ("is repeated", "repeated"),
        ("if told when", "repeated_if_told_when"),
        ("outcome unknown", "outcome_unknown"),
        ("advice", "advice"),
    ] {
        let value = &explained["answer"][key];
        if !value.is_null() {
            lines.push(format!("answer: {label:<17}{}", plain(value)));
        }
    }
    for note in explained["notes"].as_array().into_iter().flatten() {
        lines.push(format!("note: {}", plain(note)));
    }
    lines.join("\n")
}
