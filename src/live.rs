//! The configuration in force, arranged for the road.
//!
//! A reload makes a new [`Live`] and swaps it in; a request keeps the one it started with. What must survive a reload
//! (connections, metrics, the hash key of principals, tokens of identities) is handed from one to the next.

mod classes;
mod identities;
mod paces;
pub mod tokens;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use arc_swap::ArcSwap;
use http::HeaderValue;
use ipnet::IpNet;
use smol_str::SmolStr;
use tokio::time::Instant;
use zeroize::Zeroizing;

pub use self::traces::LiveTraces;

pub use classes::Classes;

use crate::admission::slots::{Hours, MOST_HOURS, QueueSettings, SlotSettings, Slots};
use crate::admission::{self, AccountId, Ledger};
use crate::answers::{Answers, DOUBT, Entry, Flights, OrgAnswers, Remembering, Rules as CacheRules, Store, Touch};
use crate::call::{CallerId, Class, Family, OrgId};
use crate::clock::Clock;
use crate::config::{
    self, Allow, Apex, BreakerMode, Caller, Config, Match, Org, PolicyMode, Poll, Roots, Secret, SlotMode, Upstream,
};
use crate::edge::callers::Callers;
use crate::edge::facade::Facade;
use crate::edge::facade::token::Sealer;
use crate::edge::jwt::Issuers;
use crate::edge::{headers, pem};
use crate::exchange::breaker::BreakerSettings;
use crate::exchange::retry::{Budget as RetryBudget, RetrySettings};
use crate::exchange::vault::Identity;
use crate::exchange::{self, Connector, Limits, MemoryDial, Origin, Target, Timeouts, TlsSettings};
use crate::ledgers::{self, Ledgers, POLLER};
use crate::per_thread::PerThread;
use crate::salesforce::{Costs, PrincipalKey};
use crate::stages::admit::Waiting;
use crate::stages::breakers::Breakers;
use crate::stages::pace::Pace;
use crate::stages::policy::{Mode, Rules};
use crate::stages::share::Advertised;
use crate::stages::tally::Tally;
use crate::telemetry::{Names, Telemetry};

/// The one place that holds the configuration in force.
pub type InForce = Arc<ArcSwap<Live>>;

/// One configuration, arranged for looking up while a request passes.
#[derive(Debug)]
pub struct Live {
    /// Counts configurations of this process, from 1.
    pub generation: u64,
    /// What was configured.
    pub config: Arc<Config>,
    /// Who may call.
    pub callers: Callers,
    /// Whose tokens are accepted.
    pub issuers: Issuers,
    /// What the allow-rules do.
    pub policy_mode: Mode,
    /// Which calls have a lower class than their callers.
    pub classes: Classes,
    /// Keys the hash of principals.
    pub principal_key: PrincipalKey,
    /// Whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bodies longer than this are streamed.
    pub stream_above: usize,
    /// Bodies longer than this are refused.
    pub body_bytes: usize,
    /// Bytes of an answer that are read ahead of a slow caller.
    pub read_ahead: usize,
    /// Seals and opens gateway tokens.
    pub sealer: Sealer,
    /// How each org is reached, in the order of their ids; then the login hosts of those that have one of their own.
    pub targets: Vec<Target>,
    /// The generation that last changed how orgs are reached: connections made since then can be kept.
    pub targets_epoch: u64,
    /// What may be answered from memory; `None`: nothing is.
    pub cache: Option<LiveCache>,
    /// Which requests are traced; `None`: none is.
    pub traces: Option<Arc<LiveTraces>>,
    /// The names of orgs and callers, for the telemetry.
    pub names: Arc<Names>,
    orgs: Vec<LiveOrg>,
    by_caller: Vec<LiveCaller>,
    hosts: AHashMap<SmolStr, OrgId>,
    only_org: Option<OrgId>,
}

/// One org, arranged for the road.
#[derive(Debug)]
pub struct LiveOrg {
    /// Its name.
    pub name: SmolStr,
    /// Where its API is.
    pub origin: Origin,
    /// What undocumented answers cost.
    pub costs: Costs,
    /// Who used what, and who may.
    pub ledger: PerThread<Ledger>,
    /// The account of each caller with it, in the order of callers; then that of the poller, if it asks.
    accounts: Vec<AccountId>,
    /// How the gateway itself asks what is used, if it may: as [`Live::poller`].
    pub poll: Option<Poll>,
    /// The pace of each caller with it, in the order of callers; nothing if no caller has one.
    paces: Vec<Option<Pace>>,
    /// The calls that wait for it.
    pub waiting: Waiting,
    /// Which calls may be in the air.
    pub slots: Slots,
    /// Which Apex calls may, if that limit is guarded too.
    pub apex: Option<Slots>,
    /// Whether `slots` looks at calls at all.
    pub watches: bool,
    /// How calls wait.
    pub queue: QueueSettings,
    /// The target its callers' own log-ins go to.
    pub login: OrgId,
    /// What remembers log-ins, if the gateway holds identities of this org.
    pub facade: Option<Arc<Facade>>,
    /// Its identities.
    pub identities: Vec<Arc<Identity>>,
    /// Which of them each caller acts as, in the order of callers; then the poller, if it asks.
    acts_as: Vec<Option<u16>>,
    /// What rewritten URLs point to, if it is not the request's own host.
    public: Option<Arc<str>>,
    /// Whether the request's host may be repeated to it.
    has_hosts: bool,
    /// How long to wait for what, by family.
    timeouts: Vec<Timeouts>,
    /// What its kept answers depend on.
    pub answers: Arc<OrgAnswers>,
    /// What is held back because Salesforce is not well.
    pub breakers: Arc<Breakers>,
    /// Which calls that failed are made once more.
    pub retry: RetrySettings,
    /// How many were, of how many calls.
    pub retries: Arc<RetryBudget>,
    /// Which failures of bulk jobs are counted.
    pub tally: Arc<Tally>,
}

/// The cache, if there is one.
#[derive(Debug)]
pub struct LiveCache {
    /// What may be kept.
    pub rules: CacheRules,
    /// What is kept.
    pub store: Store,
    /// What is being asked.
    pub flights: Arc<Flights>,
}

impl LiveOrg {
    /// How long to wait for a call of `family`.
    pub fn timeouts(&self, family: Family) -> Timeouts {
        self.timeouts.get(family.index()).copied().unwrap_or_default()
    }

    /// Who pays for the calls of `caller`.
    pub fn account(&self, caller: CallerId) -> AccountId {
        self.accounts.get(usize::from(caller.0)).copied().unwrap_or(AccountId::NOBODY)
    }

    /// The name of the caller whose account this is.
    pub fn holder<'a>(&self, account: AccountId, config: &'a Config) -> Option<&'a str> {
        let place = self.accounts.iter().position(|known| *known == account)?;
        config.callers.get(place).map(|caller| caller.name.as_str())
    }

    /// How fast `caller` may send, if it has a pace.
    pub fn pace(&self, caller: CallerId) -> Option<&Pace> {
        self.paces.get(usize::from(caller.0))?.as_ref()
    }

    /// The identity `caller` acts as.
    pub fn identity(&self, caller: CallerId) -> Option<&Arc<Identity>> {
        let place = self.acts_as.get(usize::from(caller.0)).copied().flatten()?;
        self.identities.get(usize::from(place))
    }

    /// Where this org is for its callers: what URLs in answers point to. `host` is the `Host` of a request that was led
    /// here by it; it is repeated only if it is one of the configured ones.
    pub fn public(&self, host: Option<&HeaderValue>, secure: bool) -> Option<Arc<str>> {
        if let Some(public) = &self.public {
            return Some(Arc::clone(public));
        }
        let host = host.filter(|_| self.has_hosts)?.to_str().ok()?;
        Some(format!("{}://{host}", if secure { "https" } else { "http" }).into())
    }
}

/// One caller, arranged for the road.
#[derive(Debug)]
pub struct LiveCaller {
    /// Its name.
    pub name: SmolStr,
    /// What it may do.
    pub rules: Rules,
    /// How urgent its calls are.
    pub class: Class,
    /// How long it waits.
    pub deadline: Option<Duration>,
    /// Its part, relative to others, where callers take turns.
    pub weight: u32,
    /// Calls it may have in the air.
    pub in_flight: Option<usize>,
    /// `client=<name>`, ready for `Sforce-Call-Options`.
    pub stamp: HeaderValue,
    /// It is everybody whom nothing else matches.
    pub anybody: bool,
    /// What it is told of its share with every answer.
    pub advertised: Option<Advertised>,
}

/// Why a checked configuration cannot be put in force.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(String);

/// What outlives every configuration of a process.
#[derive(Clone)]
pub struct Lasting {
    /// Names of orgs and callers go to the metrics.
    pub telemetry: Telemetry,
    /// Who used what, and who may.
    pub ledgers: Ledgers,
    /// What was answered a short while ago.
    pub answers: Answers,
    /// The hash key of principals, if the configuration gives none: made up at start.
    pub made_up_key: Zeroizing<[u8; 32]>,
    /// How orgs are reached, if not by TCP: the seam for simulations inside this process.
    pub dial: Option<MemoryDial>,
    /// What time it is, for identities that log in.
    pub clock: Clock,
    /// Where they find the tokens of other replicas, if there may be any.
    pub shelves: Option<tokens::Shelves>,
}

impl std::fmt::Debug for Lasting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lasting").field("dial", &self.dial.is_some()).finish_non_exhaustive()
    }
}

impl Live {
    /// Arranges `config`; `earlier` is what it replaces.
    pub fn new(config: Arc<Config>, lasting: &Lasting, earlier: Option<&Self>) -> Result<Self, Unusable> {
        let connector = connector(&config.upstream, lasting.dial.as_ref())?;
        let traces = LiveTraces::new(&config)?.map(Arc::new);
        let limits = Limits {
            connections: config.upstream.connections_per_runtime,
            age: config.upstream.connection_age,
            ..Limits::default()
        };
        let ledgers = lasting.ledgers.of(&config);
        let now = lasting.clock.now();
        let mut orgs = Vec::with_capacity(config.orgs.len());
        let mut targets = Vec::with_capacity(config.orgs.len());
        for (org, ledger) in config.orgs.iter().zip(ledgers) {
            let before = earlier.and_then(|earlier| earlier.orgs.iter().find(|known| known.name == org.name));
            let origin = Origin::parse(&org.instance.to_string())
                .map_err(|error| Unusable(format!("orgs.{}.instance_url: {error}", org.name)))?;
            targets.push(Target { origin: origin.clone(), connector: connector.clone(), limits });
            let timeouts = Family::ALL.iter().map(|family| timeouts(&config.upstream, *family)).collect();
            let slots = slots(org, &config, lasting.clock, now);
            orgs.push(LiveOrg {
                name: org.name.clone(),
                origin,
                costs: costs(org),
                ledger: PerThread::of(|| ledger.apart()),
                accounts: Vec::new(),
                poll: org.daily.poll,
                paces: Vec::new(),
                waiting: before.map_or_else(Waiting::default, |org| org.waiting.clone()),
                slots: before.map_or_else(|| Slots::new(slots, now), |org| org.slots.clone()),
                apex: apex(org, &config, lasting.clock, now).map(|settings| {
                    before.and_then(|org| org.apex.clone()).unwrap_or_else(|| Slots::new(settings, now))
                }),
                watches: slots.mode != admission::Mode::Off,
                queue: slots.queue,
                login: OrgId(targets.len() as u16 - 1),
                facade: None,
                identities: Vec::new(),
                acts_as: Vec::new(),
                public: org.public.as_ref().map(|public| public.to_string().into()),
                has_hosts: !org.hosts.is_empty(),
                timeouts,
                answers: lasting.answers.org(&org.name, &org.instance.to_string()),
                breakers: breakers(&org.name, &config, lasting, before),
                retry: retry(&config),
                retries: before.map_or_else(|| Arc::new(RetryBudget::new(now)), |org| Arc::clone(&org.retries)),
                tally: before.map_or_else(Arc::default, |org| Arc::clone(&org.tally)),
            });
        }
        for (live, org) in orgs.iter_mut().zip(&config.orgs).filter(|(_, org)| org.logs_in_elsewhere()) {
            let origin = Origin::parse(&org.login.to_string())
                .map_err(|error| Unusable(format!("orgs.{}.login_url: {error}", org.name)))?;
            live.login = OrgId(targets.len() as u16);
            targets.push(Target { origin, connector: connector.clone(), limits });
        }
        let principal_key = tokens::principal_key(&config, &lasting.made_up_key)?;
        let sealer = tokens::sealer(&config, &lasting.made_up_key)?;
        identities::hold(&mut orgs, &config, &principal_key, lasting, earlier)?;
        let issuers = Issuers::new(&config.callers);
        if let Some(earlier) = earlier {
            issuers.adopt(&earlier.issuers);
        }
        let poller = config.orgs.iter().any(|org| org.daily.poll.is_some()).then(|| POLLER.into());
        let names = lasting.telemetry.set_names(
            config.orgs.iter().map(|org| org.name.clone()),
            config.callers.iter().map(|caller| caller.name.clone()).chain(poller),
        );
        let objects = config.callers.iter().flat_map(|caller| caller.allow.objects.iter().flatten());
        lasting.telemetry.learn_objects(objects.map(SmolStr::as_str));
        let generation = earlier.map_or(1, |earlier| earlier.generation + 1);
        let targets_epoch = match earlier {
            // What can be compared is; roots and client certificates come from files that may have changed.
            Some(earlier) if earlier.config.reaches_like(&config) => earlier.targets_epoch,
            _ => generation,
        };
        let hosts = config
            .orgs
            .iter()
            .enumerate()
            .flat_map(|(place, org)| org.hosts.iter().map(move |host| (host.clone(), OrgId(place as u16))));
        let only_org = match config.orgs.as_slice() {
            [org] if org.hosts.is_empty() => Some(OrgId(0)),
            _ => None,
        };
        // Nothing can fail any more: ledgers have one set of rules, those of the configuration in force.
        for (org, accounts) in orgs.iter_mut().zip(lasting.ledgers.put(&config)) {
            org.accounts = accounts;
            org.paces = paces::of(&org.name, &config, earlier, lasting.clock.now());
        }
        for (live, org) in orgs.iter().zip(&config.orgs) {
            live.slots.reconfigure(slots(org, &config, lasting.clock, now), now);
            live.breakers.reconfigure();
            if let (Some(live), Some(settings)) = (&live.apex, apex(org, &config, lasting.clock, now)) {
                live.reconfigure(settings, now);
            }
        }
        let cache = cache(&config, lasting, earlier, &orgs);
        #[cfg(feature = "otlp")]
        lasting.telemetry.spans().keep(traces.as_ref().map_or((0, 0), |traces| (traces.queue, traces.batch)));
        Ok(Self {
            generation,
            cache,
            targets_epoch,
            callers: Callers::new(&config.callers),
            issuers,
            policy_mode: match config.policy {
                PolicyMode::Off => Mode::Off,
                PolicyMode::Observe => Mode::Observe,
                PolicyMode::Enforce => Mode::Enforce,
            },
            classes: Classes::new(&config.classes),
            principal_key,
            sealer,
            trusted_proxies: config.trusted_proxies.clone(),
            stream_above: usize::try_from(config.limits.stream_above).unwrap_or(usize::MAX),
            body_bytes: usize::try_from(config.limits.body_bytes).unwrap_or(usize::MAX),
            read_ahead: config.upstream.read_ahead,
            hosts: hosts.collect(),
            only_org,
            by_caller: config.callers.iter().map(|caller| LiveCaller::new(caller, config.rate_limit_headers)).collect(),
            orgs,
            targets,
            traces,
            names,
            config,
        })
    }

    /// The org that `host` (lower case, without port) leads to.
    pub fn org_by_host(&self, host: &str) -> Option<OrgId> {
        self.only_org.or_else(|| self.hosts.get(host).copied())
    }

    /// The org with this id.
    pub fn org(&self, id: OrgId) -> Option<&LiveOrg> {
        self.orgs.get(usize::from(id.0))
    }

    /// The caller with this id.
    pub fn caller(&self, id: CallerId) -> Option<&LiveCaller> {
        self.by_caller.get(usize::from(id.0))
    }

    /// Who the gateway itself is where it asks what is used: the one after all callers. It has an account and an identity
    /// with the orgs it asks, and is nobody else's caller.
    pub fn poller(&self) -> CallerId {
        CallerId(u16::try_from(self.by_caller.len()).unwrap_or(u16::MAX))
    }

    /// All orgs, in the order of their ids.
    pub fn orgs(&self) -> &[LiveOrg] {
        &self.orgs
    }
}

impl LiveCaller {
    /// Arranges one caller, who is told of its share if `told`.
    pub fn new(caller: &Caller, told: bool) -> Self {
        let Allow { families, objects, operations } = &caller.allow;
        Self {
            name: caller.name.clone(),
            rules: Rules::new(families.as_deref(), objects.as_deref(), operations.as_deref()),
            class: caller.class,
            deadline: caller.deadline,
            weight: caller.daily.weight,
            in_flight: caller.in_flight,
            stamp: headers::call_options_for(&caller.name),
            anybody: caller.matches == Match::Any,
            advertised: Advertised::new(caller).filter(|_| told),
        }
    }
}

/// What may be answered from memory. Under other rules than before nothing that was kept is given out any more; and what
/// was not followed until now may still be changing.
fn cache(config: &Config, lasting: &Lasting, earlier: Option<&Live>, orgs: &[LiveOrg]) -> Option<LiveCache> {
    let Some(written) = &config.cache else {
        lasting.answers.forget();
        return None;
    };
    let entry = |entry: &config::CacheEntry| Entry {
        orgs: entry.orgs.clone(),
        callers: entry.callers.clone(),
        families: entry.families.clone(),
        objects: entry.objects.clone(),
        operations: Some(entry.operations.clone()),
        fresh: entry.fresh,
        stale_if_error: entry.stale_if_error,
        stale_while_revalidate: entry.stale_while_revalidate,
    };
    let rules = CacheRules::new(
        written.entries.iter().map(entry).collect(),
        &written.also_invalidates,
        written.harmless_headers.clone(),
        written.session_recheck,
        written.largest,
        written.describes_per_hour,
    )
    .with_same_rights(&written.same_rights)
    .with_failures(written.failures.map(|config::RememberedFailures { answers, writes, lasts }| Remembering {
        answers,
        writes,
        lasts,
    }));
    if let Some(earlier) = earlier
        && earlier.config.cache.as_ref() != Some(written)
    {
        let followed = earlier.cache.as_ref().map(|cache| cache.rules.follows_rows());
        for org in orgs {
            org.answers.purge(Touch::Everything);
            match followed {
                None => org.answers.doubt(std::iter::once(Touch::Everything).collect(), DOUBT),
                Some(false) => org.answers.doubt(std::iter::once(Touch::Rows).collect(), DOUBT),
                Some(true) => {}
            }
        }
    }
    Some(LiveCache { rules, store: lasting.answers.store(written.bytes), flights: lasting.answers.flights() })
}

/// What undocumented answers of `org` cost, in the words of the cost table.
pub fn costs(org: &Org) -> Costs {
    Costs {
        not_modified: org.costs.not_modified.0,
        client_error: org.costs.client_error.0,
        server_error: org.costs.server_error.0,
        refusal: org.costs.refusal.0,
        oauth: org.costs.oauth.0,
        limits: org.costs.limits.0,
    }
}

/// The breakers of an org; those there are, once they are reconfigured.
fn breakers(org: &SmolStr, config: &Config, lasting: &Lasting, before: Option<&LiveOrg>) -> Arc<Breakers> {
    let config::Breaker { mode, window, minimum, ratio, open, open_max, ramp } = config.breaker;
    let mode = match mode {
        BreakerMode::Off => admission::Mode::Off,
        BreakerMode::Observe => admission::Mode::Observe,
        BreakerMode::Enforce => admission::Mode::Enforce,
    };
    let settings = BreakerSettings { window, minimum, ratio, open, open_max, ramp };
    let (log, before) = (lasting.telemetry.log().clone(), before.map(|org| &org.breakers));
    Breakers::new(org, log, mode, settings, before, lasting.clock.now())
}

/// What the configuration says of calls that are made once more.
fn retry(config: &Config) -> RetrySettings {
    let config::Retry { attempts, budget, lock_attempts, lock_budget, lock_per_record } = config.retry;
    RetrySettings { attempts, budget, lock_attempts, lock_budget, lock_per_record }
}

/// What the configuration says of calls that run long and calls that wait.
fn slots(org: &Org, config: &Config, clock: Clock, now: Instant) -> SlotSettings {
    let (long, queue) = (&org.long_running, &config.queue);
    let hours = |hours: config::Hours| {
        let config::Hours { from, to, batch_at_most, reserve } = hours;
        Hours { from, to, batch_at_most, reserve }
    };
    SlotSettings {
        mode: match long.mode {
            SlotMode::Off => admission::Mode::Off,
            SlotMode::Observe => admission::Mode::Observe,
            SlotMode::Enforce => admission::Mode::Enforce,
        },
        slots: long.slots,
        after: long.after,
        batch_at_most: long.batch_at_most,
        reserve: long.reserve,
        hours: long.hours.map(|place| place.map(hours)),
        daytime: Some((now, clock.wall(now))),
        in_flight: org.in_flight,
        queue: QueueSettings {
            places: queue.places,
            patience: [queue.interactive, queue.standard, queue.batch],
            ladder: ledgers::ladder(&config.ladder),
        },
    }
}

/// What it says of Apex that runs long, if it says anything.
fn apex(org: &Org, config: &Config, clock: Clock, now: Instant) -> Option<SlotSettings> {
    org.long_running.apex.map(|Apex { slots: count, after, batch_at_most, reserve }| SlotSettings {
        slots: count,
        after,
        batch_at_most,
        reserve,
        hours: [None; MOST_HOURS],
        in_flight: None,
        ..slots(org, config, clock, now)
    })
}

fn timeouts(upstream: &Upstream, family: Family) -> Timeouts {
    Timeouts {
        connect: upstream.connect,
        first_byte: upstream.first_byte,
        idle: upstream.idle,
        total: upstream.total.get(family).unwrap_or(Timeouts::usual_total(family)),
    }
}

/// How every org is reached: by TLS with the configured roots, perhaps through the egress proxy.
fn connector(upstream: &Upstream, dial: Option<&MemoryDial>) -> Result<Connector, Unusable> {
    let settings = TlsSettings {
        roots: match upstream.roots {
            Roots::Platform => exchange::Roots::Platform,
            Roots::Bundled => exchange::Roots::Bundled,
        },
        extra_roots: match &upstream.extra_roots {
            Some(path) => pem::certificates(path).map_err(Unusable)?,
            None => Vec::new(),
        },
        identity: match &upstream.client_certificate {
            Some(pair) => Some(exchange::ClientIdentity {
                chain: pem::certificates(&pair.certificate).map_err(Unusable)?,
                key: pem::private_key(&pair.key).map_err(Unusable)?,
            }),
            None => None,
        },
        http2: upstream.http2,
    };
    let tls = settings.build().map_err(|error| Unusable(format!("upstream: {error}")))?;
    let base = match dial {
        Some(dial) => Connector::memory(Arc::clone(dial)),
        None => Connector::tcp(),
    };
    let proxy = upstream
        .proxy
        .as_ref()
        .map(|proxy| exchange::Proxy::new(&proxy.host, proxy.port, proxy.credentials.as_ref().map(Secret::expose)));
    Ok(base.with_tls(tls).with_proxy(proxy))
}
