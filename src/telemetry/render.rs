//! `/metrics`: the text a scrape gets.

use std::time::Duration;

use prometheus::TextEncoder;
use smol_str::SmolStr;

use super::metrics::{
    BuildLabels, ConnectLabels, ConnectResult, ConnectionLabels, ConnectionState, EventLabels, Gauges, IdentityLabels,
    IdentityStateLabels, InFlightLabels, ListenerLabels, LoginLabels, LoginResult, NoLabels, OrgLabels, ProcessMetrics,
    RefreshLabels, RefreshResult, ReloadLabels, ReloadResult, RuntimeLabels, ShareLabels, ShareResult, SpanLabels,
};
use super::{
    ConfigSnapshot, FacadeSnapshot, GenerationsSnapshot, IdentitySnapshot, ListenerSnapshot, ProcessSnapshot, Shared,
    Snapshot, Telemetry, UpstreamSnapshot,
};
use crate::call::Class;
use crate::exchange::vault::{Shares, State};

/// Media type of [`Telemetry::render`].
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const PROFILE: &str = if cfg!(debug_assertions) { "debug" } else { "release" };

impl Telemetry {
    /// All metrics in Prometheus's text format 0.0.4. Reads a few files in `/proc` and takes milliseconds if there are many
    /// series: for the control thread.
    pub fn render(&self) -> String {
        // First, because parts bring over what they counted.
        let snapshot = self.snapshot();
        let mut families = Vec::new();
        self.0.metrics.collect(&mut families);
        self.0.gauges(&snapshot).collect(&mut families);
        process(&ProcessSnapshot::read()).collect(&mut families);
        let mut text = String::with_capacity(64 * 1024);
        // Writing into a string fails only for a family without a name or samples, and `collect` makes none.
        let _ = TextEncoder::new().encode_utf8(&families, &mut text);
        text
    }
}

impl Shared {
    fn gauges(&self, snapshot: &Snapshot) -> Gauges {
        let now = self.clock.wall(self.clock.now());
        let mut gauges = Gauges::default();
        for (org, occupancy) in self.occupancies.lock().iter() {
            for class in Class::ALL {
                let labels = InFlightLabels { org: org.clone(), class: *class };
                gauges.in_flight.set(labels, occupancy.in_flight(*class) as f64);
            }
        }
        for listener in &snapshot.listeners {
            gauges.add_listener(listener, now);
        }
        for upstream in &snapshot.upstreams {
            gauges.add_upstream(upstream);
        }
        for budget in &snapshot.budgets {
            gauges.add_budget(budget, self.max_callers);
        }
        for breakers in &snapshot.breakers {
            gauges.add_breakers(breakers);
        }
        for slots in &snapshot.slots {
            gauges.add_slots(slots);
        }
        for identity in &snapshot.identities {
            gauges.add_identity(identity);
        }
        for facade in &snapshot.facades {
            gauges.add_facade(facade);
        }
        for runtime in &snapshot.runtimes {
            let labels = RuntimeLabels { runtime: SmolStr::from(&runtime.runtime) };
            gauges.runtime_tasks.set(labels, runtime.tasks as f64);
        }
        gauges.buffered_bytes.set(NoLabels {}, snapshot.buffered_bytes.used as f64);
        gauges.cache_bytes.set(NoLabels {}, snapshot.cache.bytes as f64);
        gauges.cache_bytes_limit.set(NoLabels {}, snapshot.cache.limit as f64);
        gauges.cache_answers.set(NoLabels {}, snapshot.cache.answers as f64);
        self.add_rooms(&mut gauges, &snapshot.cache.objects);
        gauges.buffered_bytes_limit.set(NoLabels {}, snapshot.buffered_bytes.limit as f64);
        let counts = self.log.counts();
        gauges.log_lines_total.set(NoLabels {}, counts.lines as f64);
        gauges.log_lines_dropped_total.set(NoLabels {}, counts.dropped as f64);
        if let Some(replicas) = &snapshot.replicas {
            gauges.add_replicas(replicas);
        }
        for (result, count) in &snapshot.spans {
            gauges.trace_spans_total.set(SpanLabels { result }, *count as f64);
        }
        for generations in &snapshot.generations {
            gauges.add_generations(generations);
        }
        gauges.add_config(&snapshot.config);
        gauges.build_info.set(BuildLabels { version: VERSION, profile: PROFILE }, 1.0);
        gauges.start_time_seconds.set(NoLabels {}, self.clock.wall(self.started).as_secs_f64());
        gauges
    }
}

impl Gauges {
    fn add_listener(&mut self, listener: &ListenerSnapshot, now: Duration) {
        let labels = ListenerLabels { listener: SmolStr::from(&listener.listener) };
        self.connections.set(labels.clone(), listener.connections as f64);
        self.connections_refused_total.set(labels.clone(), listener.connections_refused as f64);
        if let Some(not_after) = listener.certificate_not_after_seconds {
            self.certificate_expiry_seconds.set(labels, not_after as f64 - now.as_secs_f64());
        }
    }

    fn add_generations(&mut self, generations: &GenerationsSnapshot) {
        let org = SmolStr::from(&generations.org);
        let labels = OrgLabels { org: org.clone() };
        self.generations_doubt.set(labels.clone(), f64::from(u8::from(generations.doubt.is_some())));
        self.generation_gaps_total.set(labels, generations.gaps as f64);
        for (direction, events) in [("sent", generations.sent), ("received", generations.received)] {
            self.generation_events_total.set(EventLabels { org: org.clone(), direction }, events as f64);
        }
    }

    fn add_upstream(&mut self, upstream: &UpstreamSnapshot) {
        let org = SmolStr::from(&upstream.org);
        for (state, connections) in [
            (ConnectionState::Idle, upstream.idle),
            (ConnectionState::Busy, upstream.busy),
            (ConnectionState::Connecting, upstream.connecting),
        ] {
            self.upstream_connections.set(ConnectionLabels { org: org.clone(), state }, connections as f64);
        }
        let connected = ConnectLabels { org: org.clone(), result: ConnectResult::Ok };
        self.upstream_connects_total.set(connected, upstream.connects as f64);
        for (kind, times) in &upstream.connects_failed {
            let failed = ConnectLabels { org: org.clone(), result: ConnectResult::Failed(*kind) };
            self.upstream_connects_total.set(failed, *times as f64);
        }
        self.abandoned_calls.set(OrgLabels { org: org.clone() }, upstream.abandoned as f64);
        self.upstream_resent_total.set(OrgLabels { org }, upstream.resent as f64);
    }

    fn add_identity(&mut self, identity: &IdentitySnapshot) {
        let labels = IdentityLabels { org: SmolStr::from(&identity.org), identity: SmolStr::from(&identity.identity) };
        let IdentityLabels { org, identity: name } = &labels;
        for (result, times) in [
            (RefreshResult::Ok, identity.refreshed),
            (RefreshResult::Failed, identity.failed),
            (RefreshResult::Refused, identity.refused),
        ] {
            let labels = RefreshLabels { org: org.clone(), identity: name.clone(), result };
            self.tokens_refreshed_total.set(labels, times as f64);
        }
        let Shares { adopted, published, unreadable, store_down } = identity.shares.unwrap_or_default();
        for (result, times) in [
            (ShareResult::Adopted, adopted),
            (ShareResult::Published, published),
            (ShareResult::Unreadable, unreadable),
            (ShareResult::StoreDown, store_down),
        ] {
            if identity.shares.is_some() {
                let labels = ShareLabels { org: org.clone(), identity: name.clone(), result };
                self.token_shares_total.set(labels, times as f64);
            }
        }
        for state in State::ALL {
            let labels = IdentityStateLabels { org: org.clone(), identity: name.clone(), state: *state };
            self.identity_state.set(labels, f64::from(u8::from(*state == identity.state)));
        }
        self.identity_waiting.set(labels.clone(), identity.waiting as f64);
        self.identity_logins_used.set(labels.clone(), f64::from(identity.logins_used));
        self.identity_logins_limit.set(labels, f64::from(identity.logins_limit));
    }

    fn add_facade(&mut self, facade: &FacadeSnapshot) {
        for (result, times) in [
            (LoginResult::Granted, facade.logins_granted),
            (LoginResult::Denied, facade.logins_denied),
            (LoginResult::Limited, facade.logins_limited),
        ] {
            self.facade_logins_total.set(LoginLabels { org: SmolStr::from(&facade.org), result }, times as f64);
        }
    }

    fn add_config(&mut self, config: &ConfigSnapshot) {
        self.config_last_reload_successful.set(NoLabels {}, f64::from(u8::from(config.last_reload_successful)));
        self.config_last_reload_timestamp_seconds.set(NoLabels {}, config.last_reload_timestamp_seconds);
        let reloads = &mut self.config_reloads_total;
        reloads.set(ReloadLabels { result: ReloadResult::Ok }, config.reloads_succeeded as f64);
        reloads.set(ReloadLabels { result: ReloadResult::Failed }, config.reloads_failed as f64);
    }
}

fn process(process: &ProcessSnapshot) -> ProcessMetrics {
    let mut metrics = ProcessMetrics::default();
    let whole = |number: Option<u64>| number.map(|number| number as f64);
    for (metric, value) in [
        (&mut metrics.resident_memory_bytes, whole(process.resident_bytes)),
        (&mut metrics.virtual_memory_bytes, whole(process.virtual_bytes)),
        (&mut metrics.open_fds, whole(process.open_fds)),
        (&mut metrics.max_fds, whole(process.max_fds)),
        (&mut metrics.threads, whole(process.threads)),
    ] {
        if let Some(value) = value {
            metric.set(NoLabels {}, value);
        }
    }
    if let Some(seconds) = process.cpu_seconds {
        metrics.cpu_seconds_total.set(NoLabels {}, seconds);
    }
    metrics
}
