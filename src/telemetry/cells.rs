//! The cells metrics count in, and the tables that find a cell by its labels.
//!
//! A table is asked once for each set of labels; whoever counts often keeps the cell. Counting is one atomic addition,
//! observing a duration two. Tables are keyed by typed labels and never by a hash of joined strings, in which
//! `("ab", "c")` and `("a", "bc")` would be one series.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::proto;

/// The labels of one metric: their names, and the values of one series.
pub trait LabelSet: Clone + Eq + Hash + Send + 'static {
    /// Label names, in the order of [`Self::values`].
    const NAMES: &'static [&'static str];

    /// Label values of this series.
    fn values(&self) -> Vec<Cow<'_, str>>;
}

/// A metric: a name's worth of series, as far as they exist.
pub trait Series {
    /// What Prometheus calls it.
    const KIND: proto::MetricType;
    /// Its label names.
    const LABELS: &'static [&'static str];

    /// All series with their present values.
    fn samples(&self) -> Vec<proto::Metric>;
}

fn labelled<L: LabelSet>(labels: &L) -> proto::Metric {
    let pairs = L::NAMES.iter().zip(labels.values()).map(|(name, value)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value(value.into_owned());
        pair
    });
    proto::Metric::from_label(pairs.collect())
}

fn sample<L: LabelSet>(labels: &L, value: f64, kind: proto::MetricType) -> proto::Metric {
    let mut metric = labelled(labels);
    if kind == proto::MetricType::COUNTER {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `more`.
    #[inline]
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counters of one metric, one for each set of labels seen.
#[derive(Debug)]
pub struct Counters<L>(Mutex<HashMap<L, Arc<Counter>, ahash::RandomState>>);

impl<L> Default for Counters<L> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::default()))
    }
}

impl<L: LabelSet> Counters<L> {
    /// The counter of `labels`, made if it is new.
    pub fn cell(&self, labels: L) -> Arc<Counter> {
        Arc::clone(self.0.lock().entry(labels).or_default())
    }

    /// The counter of `labels`, made only if there are fewer than `limit`.
    pub fn cell_below(&self, limit: usize, labels: L) -> Option<Arc<Counter>> {
        let mut cells = self.0.lock();
        if cells.len() >= limit {
            return cells.get(&labels).cloned();
        }
        Some(Arc::clone(cells.entry(labels).or_default()))
    }

    /// Calls `each` with every series and its value.
    pub fn visit(&self, mut each: impl FnMut(&L, u64)) {
        for (labels, cell) in self.0.lock().iter() {
            each(labels, cell.get());
        }
    }
}

impl<L: LabelSet> Series for Counters<L> {
    const KIND: proto::MetricType = proto::MetricType::COUNTER;
    const LABELS: &'static [&'static str] = L::NAMES;

    fn samples(&self) -> Vec<proto::Metric> {
        self.0.lock().iter().map(|(labels, cell)| sample(labels, cell.get() as f64, Self::KIND)).collect()
    }
}

/// Upper bounds of a histogram's buckets.
pub trait Buckets: Send + 'static {
    /// In nanoseconds, ascending; `+Inf` is implied.
    const BOUNDS_NS: &'static [u64];
}

/// How often a duration fell into which bucket.
#[derive(Debug)]
pub struct Histogram<B> {
    /// One for each bound, and one for what lies above the last.
    buckets: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
    bounds: PhantomData<fn() -> B>,
}

impl<B: Buckets> Default for Histogram<B> {
    fn default() -> Self {
        let buckets = (0..=B::BOUNDS_NS.len()).map(|_| AtomicU64::new(0)).collect();
        Self { buckets, sum_ns: AtomicU64::new(0), bounds: PhantomData }
    }
}

impl<B: Buckets> Histogram<B> {
    /// Counts one duration.
    #[inline]
    pub fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let place = B::BOUNDS_NS.partition_point(|bound| *bound < ns);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    /// Count and sum are read from the buckets themselves, so that a scrape never sees them disagree.
    fn read(&self) -> proto::Histogram {
        let mut total = 0;
        let mut buckets = Vec::with_capacity(B::BOUNDS_NS.len());
        for (count, bound) in self.buckets.iter().zip(B::BOUNDS_NS) {
            total += count.load(Ordering::Relaxed);
            let mut bucket = proto::Bucket::default();
            bucket.set_cumulative_count(total);
            bucket.set_upper_bound(*bound as f64 / 1e9);
            buckets.push(bucket);
        }
        total += self.buckets.last().map_or(0, |above| above.load(Ordering::Relaxed));
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(total);
        histogram.set_sample_sum(self.sum_ns.load(Ordering::Relaxed) as f64 / 1e9);
        histogram
    }
}

/// The histograms of one metric, one for each set of labels seen.
#[derive(Debug)]
pub struct Histograms<L, B>(Mutex<HashMap<L, Arc<Histogram<B>>, ahash::RandomState>>);

impl<L, B> Default for Histograms<L, B> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::default()))
    }
}

impl<L: LabelSet, B: Buckets> Histograms<L, B> {
    /// The histogram of `labels`, made if it is new.
    pub fn cell(&self, labels: L) -> Arc<Histogram<B>> {
        Arc::clone(self.0.lock().entry(labels).or_default())
    }
}

impl<L: LabelSet, B: Buckets> Series for Histograms<L, B> {
    const KIND: proto::MetricType = proto::MetricType::HISTOGRAM;
    const LABELS: &'static [&'static str] = L::NAMES;

    fn samples(&self) -> Vec<proto::Metric> {
        let read = |(labels, cell): (&L, &Arc<Histogram<B>>)| {
            let mut metric = labelled(labels);
            metric.set_histogram(cell.read());
            metric
        };
        self.0.lock().iter().map(read).collect()
    }
}

/// What kind of metric a [`Scraped`] is.
pub trait ScrapedKind: 'static {
    /// As Prometheus names it.
    const KIND: proto::MetricType;
}

/// Goes up and down.
#[derive(Debug)]
pub struct IsGauge;

/// Only grows; counted elsewhere and read at the scrape.
#[derive(Debug)]
pub struct IsCounter;

impl ScrapedKind for IsGauge {
    const KIND: proto::MetricType = proto::MetricType::GAUGE;
}

impl ScrapedKind for IsCounter {
    const KIND: proto::MetricType = proto::MetricType::COUNTER;
}

/// A metric whose values are read at each scrape from what the gateway holds anyway.
#[derive(Debug)]
pub struct Scraped<L, K>(Vec<(L, f64)>, PhantomData<K>);

impl<L, K> Default for Scraped<L, K> {
    fn default() -> Self {
        Self(Vec::new(), PhantomData)
    }
}

impl<L: LabelSet, K: ScrapedKind> Scraped<L, K> {
    /// Sets the value of `labels`; a second value for the same labels is added to the first, because two series of
    /// one name would make the whole scrape invalid.
    pub fn set(&mut self, labels: L, value: f64) {
        match self.0.iter_mut().find(|(present, _)| *present == labels) {
            Some((_, sum)) => *sum += value,
            None => self.0.push((labels, value)),
        }
    }
}

impl<L: LabelSet, K: ScrapedKind> Series for Scraped<L, K> {
    const KIND: proto::MetricType = K::KIND;
    const LABELS: &'static [&'static str] = L::NAMES;

    fn samples(&self) -> Vec<proto::Metric> {
        self.0.iter().map(|(labels, value)| sample(labels, *value, K::KIND)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct Two(&'static str, &'static str);

    impl LabelSet for Two {
        const NAMES: &'static [&'static str] = &["one", "two"];

        fn values(&self) -> Vec<Cow<'_, str>> {
            vec![self.0.into(), self.1.into()]
        }
    }

    #[derive(Debug)]
    struct Bounds;

    impl Buckets for Bounds {
        const BOUNDS_NS: &'static [u64] = &[1_000, 2_000];
    }

    #[test]
    fn labels_that_read_the_same_when_joined_are_two_series() {
        let counters = Counters::default();
        counters.cell(Two("ab", "c")).add(1);
        counters.cell(Two("a", "bc")).add(2);
        assert_eq!(counters.samples().len(), 2);
    }

    #[test]
    fn a_full_table_still_finds_what_it_has() {
        let counters = Counters::default();
        counters.cell(Two("a", "b")).add(1);
        assert_eq!(counters.cell_below(1, Two("a", "b")).map(|cell| cell.get()), Some(1));
        assert!(counters.cell_below(1, Two("a", "c")).is_none());
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket_and_counts_add_up() {
        let histogram = Histogram::<Bounds>::default();
        for ns in [0, 1_000, 1_001, 2_000, 2_001, u64::MAX / 2] {
            histogram.observe(Duration::from_nanos(ns));
        }
        let read = histogram.read();
        let counts: Vec<_> = read.get_bucket().iter().map(proto::Bucket::cumulative_count).collect();
        assert_eq!(counts, [2, 4]);
        assert_eq!(read.get_sample_count(), 6);
    }

    #[test]
    fn one_name_never_has_the_same_series_twice() {
        let mut gauge = Scraped::<Two, IsGauge>::default();
        gauge.set(Two("a", "b"), 1.0);
        gauge.set(Two("a", "b"), 2.0);
        assert_eq!(gauge.samples().len(), 1);
        assert!((gauge.samples()[0].get_gauge().get_value() - 3.0).abs() < f64::EPSILON);
    }
}
