//! What one request's end costs: its metrics alone, and metrics and access log together.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use weirkeeper::call::{ApiCalls, ApiVersion, CallerId, Class, Family, Operation, OrgId, Principal};
use weirkeeper::clock::Clock;
use weirkeeper::outcome::{Ending, Exchange, Outcome, RequestId, Source};
use weirkeeper::telemetry::{Finish, Log, LogOptions, Names, Output, Telemetry, TelemetryOptions};

fn telemetry(clock: Clock, access: bool) -> (Telemetry, Arc<Names>) {
    let options = LogOptions { output: Output::Writer(Box::new(std::io::sink())), access, ..LogOptions::default() };
    let Ok(log) = Log::start(clock, options) else { std::process::exit(1) };
    let telemetry = Telemetry::new(clock, log, TelemetryOptions::default());
    let names = telemetry.set_names(["prod"], ["storefront", "billing"]);
    (telemetry, names)
}

/// Sixteen requests that differ in caller, object, operation and status.
fn outcomes(clock: Clock) -> Vec<Outcome> {
    let objects = ["Account", "Contact", "Opportunity", "Invoice__c"];
    let mix = (0..16_u16).zip(objects.iter().cycle());
    let outcome = |(number, object): (u16, &&str)| {
        let started = clock.now();
        let mut outcome = Outcome::new(RequestId(u128::from(number)), started, http::Method::GET);
        outcome.org = Some(OrgId(0));
        outcome.caller = Some(CallerId(number % 2));
        outcome.principal = Principal([7; 16]);
        outcome.class = Class::Interactive;
        outcome.family = Family::Rest;
        outcome.operation = if number % 4 == 0 { Operation::Update } else { Operation::Read };
        outcome.object = Some((*object).into());
        outcome.template = "/services/data/{version}/sobjects/{object}/{id}";
        outcome.version = Some(ApiVersion(620));
        outcome.client = Some("storefront/1.0".into());
        outcome.status = 200;
        outcome.source = Source::Upstream;
        outcome.ending = Ending::Complete;
        outcome.ended = Some(started + Duration::from_millis(35));
        outcome.bytes_out = 2_048;
        let mut exchange = Exchange::sent(started, ApiCalls(1));
        exchange.status = Some(200);
        exchange.ended = Some(started + Duration::from_millis(34));
        outcome.exchanges.push(exchange);
        outcome
    };
    mix.map(outcome).collect()
}

fn record(criterion: &mut Criterion) {
    for (name, access) in [("metrics", false), ("metrics_and_access_log", true)] {
        let clock = Clock::start();
        let (telemetry, names) = telemetry(clock, access);
        let recorder = telemetry.recorder();
        let outcomes = outcomes(clock);
        let remote = Some([10, 1, 2, 3].into());
        let finish = Finish { names: &names, now: clock.now(), remote, http: http::Version::HTTP_11 };
        let mut place = 0;
        criterion.bench_function(&format!("record/{name}"), |bencher| {
            bencher.iter(|| {
                place = (place + 1) % outcomes.len();
                recorder.finish(black_box(&outcomes[place]), &finish);
            });
        });
    }
}

criterion_group!(benches, record);
criterion_main!(benches);
