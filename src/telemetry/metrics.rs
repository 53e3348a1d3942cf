//! Every metric of the gateway: a field's name is the metric's name, its doc comment is the help text, its type says what
//! it counts and by which labels. This file is part of the public contract; `config/metrics.md` is made from it.
//!
//! What requests count is in [`Metrics`]; what is read at each scrape is in [`Gauges`] and [`ProcessMetrics`].

use prometheus::proto::{MetricFamily, MetricType};

pub use super::buckets::{OverheadBuckets, RequestBuckets};
use super::cells::{Counters, Histograms, IsCounter, IsGauge, Scraped, Series};
pub use super::label_sets::*;
pub use super::results::{ConnectResult, ConnectionState, LoginResult, RefreshResult, ReloadResult, ShareResult};

/// Declares a struct of metrics; describes and collects them in the order they stand.
macro_rules! metrics {
    ($(#[$meta:meta])* $prefix:literal $name:ident { $($(#[doc = $help:literal])+ $field:ident: $kind:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Default)]
        pub struct $name { $($(#[doc = $help])+ pub $field: $kind,)+ }

        impl $name {
            /// Name, help, kind and labels of each.
            pub fn describe() -> Vec<Description> {
                vec![$(Description {
                    name: concat!($prefix, stringify!($field)),
                    help: concat!($($help),+).trim_ascii(),
                    kind: <$kind as Series>::KIND,
                    labels: <$kind as Series>::LABELS,
                }),+]
            }

            /// Each metric that has at least one series.
            pub fn collect(&self, into: &mut Vec<MetricFamily>) {
                let mut descriptions = Self::describe().into_iter();
                $(if let Some(description) = descriptions.next() {
                    description.collect(&self.$field, into);
                })+
            }
        }
    };
}

metrics! {
    /// What requests count.
    "weirkeeper_" Metrics {
        /// Requests that ended, by the status the caller got (499: it left first) and where the answer came from.
        requests_total: Counters<RequestLabels>,
        /// API calls Salesforce charged, as far as the answers say.
        api_calls_spent_total: Counters<UseLabels>,
        /// API calls that were not made, because the answer was in memory (cache, stale, remembered) or another request was just asking the same (joined).
        api_calls_saved_total: Counters<SavedLabels>,
        /// Requests the cache has to do with, by what it made of them.
        cache_events_total: Counters<CacheLabels>,
        /// Requests the gateway made on its own account, in the name of a caller, for its memory: why.
        cache_errands_total: Counters<ErrandLabels>,
        /// Requests the gateway answered itself, by reason.
        refusals_total: Counters<RefusalLabels>,
        /// Requests a policy in mode observe would have refused, by reason.
        would_refuse_total: Counters<RefusalLabels>,
        /// Attempts at Salesforce that failed, by what the failure means or how they failed, and Salesforce's error code.
        upstream_errors_total: Counters<UpstreamErrorLabels>,
        /// Writes that were sent, and whose answer was lost or does not say whether they were done: they may have happened.
        unknown_outcomes_total: Counters<CallerLabels>,
        /// Requests that failed in a way that may pass: repeated and answered well (succeeded), repeated in vain (failed), or not
        /// repeated for want of budget or time.
        retries_total: Counters<RetryLabels>,
        /// Requests that fail the same permanent way again and again: answered from memory (given), or would be if that were not only
        /// observed (`would_give`); and those whose failure was one too many (learnt).
        remembered_failures_total: Counters<RememberedLabels>,
        /// Records and parts that failed inside of answers that were none of a failure, by object and Salesforce's error code.
        record_failures_total: Counters<RecordFailureLabels>,
        /// Requests by the API version in their path.
        api_version_requests_total: Counters<VersionLabels>,
        /// Questions of the gateway's own what an org has used, by what came of them.
        limits_polls_total: Counters<PollLabels>,
        /// From the arrival of a request's head to the end of its answer.
        request_duration_seconds: Histograms<UseLabels, RequestBuckets>,
        /// From handing one attempt to a connection to the end of Salesforce's answer.
        upstream_duration_seconds: Histograms<UseLabels, RequestBuckets>,
        /// Duration of a completed request less the time its attempts were with Salesforce: what the gateway added.
        overhead_seconds: Histograms<OrgLabels, OverheadBuckets>,
        /// How long requests waited for their turn, of those that had to; also if they left or were refused in the end.
        queue_wait_seconds: Histograms<QueueLabels, RequestBuckets>,
        /// How long calls waited because their caller exceeded its pace; only those that waited.
        pace_wait_seconds: Histograms<CallerLabels, RequestBuckets>,
    }
}

metrics! {
    /// What is read from the gateway's parts at each scrape.
    "weirkeeper_" Gauges {
        /// Calls between their admission and the end of their answer.
        in_flight: Scraped<InFlightLabels, IsGauge>,
        /// API calls the org may use in 24 hours: Salesforce's limit, or a lower one of the operator.
        budget_limit: Scraped<OrgLabels, IsGauge>,
        /// API calls used in the trailing 24 hours: by way of this gateway (own), by Salesforce's last word (salesforce), and
        /// by all that is known, which is what decides (estimate).
        budget_used: Scraped<ViewLabels, IsGauge>,
        /// API calls left for anybody, after what is kept free and what is reserved.
        budget_headroom: Scraped<OrgLabels, IsGauge>,
        /// API calls of this gateway that come back within 1h, 6h and 24h.
        budget_returning: Scraped<WithinLabels, IsGauge>,
        /// Time until nothing is left if everybody goes on like in the last 15 minutes; absent if it lasts for 24 hours.
        budget_exhaustion_seconds: Scraped<OrgLabels, IsGauge>,
        /// API calls of the trailing 24 hours that did not come through this gateway, as far as Salesforce's words tell.
        dark_api_calls: Scraped<OrgLabels, IsGauge>,
        /// API calls a caller used in the trailing 24 hours; the largest users by name, all others together as other.
        caller_used: Scraped<CallerLabels, IsGauge>,
        /// API calls a caller is guaranteed in 24 hours.
        caller_floor: Scraped<CallerLabels, IsGauge>,
        /// API calls a caller never exceeds in 24 hours.
        caller_ceiling: Scraped<CallerLabels, IsGauge>,
        /// How scarce calls are: 0 normal, 1 lean, 2 batch is paced, 3 batch stops, 4 only interactive calls go on.
        degradation_level: Scraped<OrgLabels, IsGauge>,
        /// Calls that take a slot for calls that run long: live ones, predicted ones that are still young, ghosts whose callers
        /// have left, and overdrafts, which grew old unexpectedly.
        long_running_slots: Scraped<SlotLabels, IsGauge>,
        /// Slots for calls that run long that others seem to leave us.
        long_running_capacity: Scraped<OrgLabels, IsGauge>,
        /// Slots this replica may use, where replicas share them.
        long_running_granted: Scraped<OrgLabels, IsGauge>,
        /// Slots other replicas have, where replicas share them; also those of replicas that are gone, as long as their calls
        /// may be in the air.
        long_running_elsewhere: Scraped<OrgLabels, IsGauge>,
        /// Slots that class batch may hold at this hour.
        long_running_batch_at_most: Scraped<OrgLabels, IsGauge>,
        /// Calls Salesforce refused because too many ran long.
        long_running_refused_total: Scraped<OrgLabels, IsCounter>,
        /// Calls that take a slot for Apex that runs long, if that limit is guarded; in the same states.
        apex_slots: Scraped<SlotLabels, IsGauge>,
        /// Slots for Apex that runs long that others seem to leave us.
        apex_capacity: Scraped<OrgLabels, IsGauge>,
        /// Calls Salesforce refused because too much Apex ran long.
        apex_refused_total: Scraped<OrgLabels, IsCounter>,
        /// What the breaker of an API does: 0 calls pass, 1 a few pass to find out, 2 none passes.
        breaker_state: Scraped<BreakerLabels, IsGauge>,
        /// How often the breaker of an API has opened.
        breaker_opened_total: Scraped<BreakerLabels, IsCounter>,
        /// Users whose own breakers hold back their calls to one API, because their quota is used up.
        breaker_users_held_back: Scraped<OrgLabels, IsGauge>,
        /// Repetitions of failed calls that are still allowed in these ten seconds, by the budget they are taken from.
        retry_budget_left: Scraped<PurseLabels, IsGauge>,
        /// Calls that wait for their turn.
        queue_depth: Scraped<QueueLabels, IsGauge>,
        /// Bulk batches made through this process in the trailing 24 hours; Salesforce allows an org 15,000.
        bulk_batches_used: Scraped<OrgLabels, IsGauge>,
        /// Calls that wait because their caller exceeds its pace.
        pace_waiting: Scraped<CallerLabels, IsGauge>,
        /// Calls refused because their caller exceeds its pace, by why they could not wait: places, patience or deadline.
        pace_refusals_total: Scraped<PaceRefusalLabels, IsCounter>,
        /// Whether what is spent can be written down (1) or not (0).
        bank_up: Scraped<OrgLabels, IsGauge>,
        /// API calls this process may still spend without asking where what is spent is written down.
        bank_lease: Scraped<OrgLabels, IsGauge>,
        /// API calls this replica may spend, beside its lease, while the shared store cannot be reached.
        bank_safe_share: Scraped<OrgLabels, IsGauge>,
        /// Whether the shared store lost its data and not every replica has told it again what it knows (1) or not (0).
        bank_recovering: Scraped<OrgLabels, IsGauge>,
        /// Replicas whose leases the shared store has on record, this one included.
        bank_replicas: Scraped<OrgLabels, IsGauge>,
        /// How often the shared store was found without what it was told before.
        bank_epochs_total: Scraped<OrgLabels, IsCounter>,
        /// Statements to the shared store, by whether it took them (taken) or could not be reached (failed).
        bank_settles_total: Scraped<SettleLabels, IsCounter>,
        /// Replicas that share state, this one among them, when the store last answered.
        replicas: Scraped<NoLabels, IsGauge>,
        /// Whether the store that replicas share answers (1) or not (0).
        store_up: Scraped<NoLabels, IsGauge>,
        /// Commands sent to the store that replicas share, by what they were for and whether it answered.
        store_commands_total: Scraped<CommandLabels, IsCounter>,
        /// Whether this replica is the one of all that asks what an org has used (1) or not (0), where that is to be asked.
        poll_chair: Scraped<OrgLabels, IsGauge>,
        /// Sent calls that go on although their caller left.
        abandoned_calls: Scraped<OrgLabels, IsGauge>,
        /// Callers' connections open on a listener.
        connections: Scraped<ListenerLabels, IsGauge>,
        /// Connections a listener turned away.
        connections_refused_total: Scraped<ListenerLabels, IsCounter>,
        /// Time until a listener's certificate expires; negative once it has.
        certificate_expiry_seconds: Scraped<ListenerLabels, IsGauge>,
        /// Bytes buffered for bodies; a body under way takes 24 KiB besides.
        buffered_bytes: Scraped<NoLabels, IsGauge>,
        /// Most bytes that may be buffered for bodies.
        buffered_bytes_limit: Scraped<NoLabels, IsGauge>,
        /// Memory that kept answers take, keys and heads counted.
        cache_bytes: Scraped<NoLabels, IsGauge>,
        /// Memory that kept answers may take.
        cache_bytes_limit: Scraped<NoLabels, IsGauge>,
        /// Kept answers.
        cache_answers: Scraped<NoLabels, IsGauge>,
        /// Memory that the answers kept about an object take.
        cache_object_bytes: Scraped<ObjectLabels, IsGauge>,
        /// Answers kept about an object.
        cache_object_answers: Scraped<ObjectLabels, IsGauge>,
        /// Whether something that another replica changed may not be known here (1), so that nothing is answered from memory.
        generations_doubt: Scraped<OrgLabels, IsGauge>,
        /// Changes, ended sessions and purges that replicas told each other of.
        generation_events_total: Scraped<EventLabels, IsCounter>,
        /// How many times something that another replica told may have been missed, new connections to the store included.
        generation_gaps_total: Scraped<OrgLabels, IsCounter>,
        /// Connections to Salesforce.
        upstream_connections: Scraped<ConnectionLabels, IsGauge>,
        /// Attempts to connect to Salesforce.
        upstream_connects_total: Scraped<ConnectLabels, IsCounter>,
        /// Messages a connection gave back unsent that went out on another.
        upstream_resent_total: Scraped<OrgLabels, IsCounter>,
        /// Log-ins of an identity at Salesforce, by how they ended.
        tokens_refreshed_total: Scraped<RefreshLabels, IsCounter>,
        /// Tokens of an identity shared with other replicas, by what came of it.
        token_shares_total: Scraped<ShareLabels, IsCounter>,
        /// 1 for what an identity is doing, 0 for everything else it could do.
        identity_state: Scraped<IdentityStateLabels, IsGauge>,
        /// Calls that wait for an identity's log-in.
        identity_waiting: Scraped<IdentityLabels, IsGauge>,
        /// Log-ins an identity made in the last hour.
        identity_logins_used: Scraped<IdentityLabels, IsGauge>,
        /// Log-ins an identity may make in an hour.
        identity_logins_limit: Scraped<IdentityLabels, IsGauge>,
        /// Log-ins of apps at the gateway, by how they ended.
        facade_logins_total: Scraped<LoginLabels, IsCounter>,
        /// Tracked tasks running on a runtime.
        runtime_tasks: Scraped<RuntimeLabels, IsGauge>,
        /// Lines written to the log.
        log_lines_total: Scraped<NoLabels, IsCounter>,
        /// Log lines lost, because the output did not keep up or failed.
        log_lines_dropped_total: Scraped<NoLabels, IsCounter>,
        /// Spans of traced requests: taken by the collector (sent), not taken by it or not reachable for long (failed), or lost for
        /// want of room (dropped).
        trace_spans_total: Scraped<SpanLabels, IsCounter>,
        /// Whether the last attempt to load the configuration succeeded (1) or failed (0).
        config_last_reload_successful: Scraped<NoLabels, IsGauge>,
        /// When the configuration was last loaded or tried, in seconds since the Unix epoch.
        config_last_reload_timestamp_seconds: Scraped<NoLabels, IsGauge>,
        /// Attempts to load the configuration.
        config_reloads_total: Scraped<ReloadLabels, IsCounter>,
        /// Always 1; the labels say what is running.
        build_info: Scraped<BuildLabels, IsGauge>,
        /// When this process started, in seconds since the Unix epoch.
        start_time_seconds: Scraped<NoLabels, IsGauge>,
    }
}

metrics! {
    /// What the operating system says about the process, under the names all Prometheus clients use.
    "process_" ProcessMetrics {
        /// Memory in RAM.
        resident_memory_bytes: Scraped<NoLabels, IsGauge>,
        /// Address space.
        virtual_memory_bytes: Scraped<NoLabels, IsGauge>,
        /// CPU time used, user and system.
        cpu_seconds_total: Scraped<NoLabels, IsCounter>,
        /// Open file descriptors.
        open_fds: Scraped<NoLabels, IsGauge>,
        /// Soft limit of open file descriptors.
        max_fds: Scraped<NoLabels, IsGauge>,
        /// Threads of the process.
        threads: Scraped<NoLabels, IsGauge>,
    }
}

/// One metric as documented.
#[derive(Debug, Clone, Copy)]
pub struct Description {
    /// With its prefix.
    pub name: &'static str,
    /// One or two sentences.
    pub help: &'static str,
    /// Counter, gauge or histogram.
    pub kind: MetricType,
    /// Label names.
    pub labels: &'static [&'static str],
}

impl Description {
    fn collect(&self, series: &impl Series, into: &mut Vec<MetricFamily>) {
        let mut samples = series.samples();
        if samples.is_empty() {
            return;
        }
        samples.sort_by(|a, b| {
            let values = |metric: &prometheus::proto::Metric| {
                metric.get_label().iter().map(|label| label.value().to_owned()).collect::<Vec<_>>()
            };
            values(a).cmp(&values(b))
        });
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(samples);
        into.push(family);
    }

    fn kind_name(&self) -> &'static str {
        match self.kind {
            MetricType::COUNTER => "counter",
            MetricType::HISTOGRAM => "histogram",
            MetricType::GAUGE | MetricType::SUMMARY | MetricType::UNTYPED => "gauge",
        }
    }
}

/// Every metric, in the order of this file.
pub fn descriptions() -> Vec<Description> {
    [Metrics::describe(), Gauges::describe(), ProcessMetrics::describe()].concat()
}

/// The metric reference as a Markdown table.
///
/// ```
/// let table = weirkeeper::telemetry::metrics::reference();
/// assert!(table.contains("| `weirkeeper_requests_total` | counter | `org` `caller` `class` "));
/// ```
pub fn reference() -> String {
    use std::fmt::Write as _;

    let mut table = String::from("| metric | kind | labels | meaning |\n|---|---|---|---|\n");
    for metric in descriptions() {
        let labels = metric.labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(" ");
        let _ = writeln!(table, "| `{}` | {} | {labels} | {} |", metric.name, metric.kind_name(), metric.help);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_and_labels_follow_the_rules_of_prometheus() {
        let mut names = HashSet::new();
        for metric in descriptions() {
            let name = metric.name;
            assert!(names.insert(name), "{name} twice");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            assert!(name.starts_with("weirkeeper_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == MetricType::COUNTER, "{name}");
            if metric.kind == MetricType::HISTOGRAM {
                assert!(name.ends_with("_seconds"), "{name}");
            }
            for suffix in ["_count", "_sum", "_bucket", "_milliseconds", "_ms", "_kb"] {
                assert!(!name.ends_with(suffix), "{name}");
            }
            assert!(metric.help.ends_with('.') && metric.help.len() > 10, "{name}: {}", metric.help);
            assert!(!metric.help.contains(['\n', '|']), "{name}");
            for label in metric.labels {
                assert!(label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}: {label}");
                assert!(!["le", "quantile"].contains(label) && !label.starts_with("__"), "{name}: {label}");
            }
        }
    }

    #[test]
    fn a_status_is_a_closed_list() {
        assert_eq!(Status::new(404).text(), "404");
        assert_eq!(Status::new(0).text(), "other");
        assert_eq!(Status::new(600).text(), "other");
    }

    #[test]
    fn the_reference_has_a_row_for_every_metric() {
        assert_eq!(reference().lines().count(), descriptions().len() + 2);
    }
}
