//! The one record of everything decided and measured about a request.
//!
//! Stages write facts into an [`Outcome`]; metrics, access log, trace span and response headers only read it, so
//! a number seen in two places comes from one field. What Salesforce was asked for stands in its [`Exchange`]s,
//! one for each attempt that was sent; money is counted only there.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use parking_lot::{Mutex, MutexGuard};
use smallvec::SmallVec;
use smol_str::SmolStr;
use tokio::time::Instant;

use crate::admission::Terms;
use crate::call::{
    ApiCalls, ApiVersion, CallerId, Class, Family, Length, ObjectName, Operation, OrgId, Principal, closed_list,
};
use crate::refusal::{Reason, Wants};
use crate::salesforce::Usage;
use crate::salesforce::taxonomy::{Failed, Kind, Verdict};

closed_list! {
    /// Where an answer came from.
    Source {
        /// Salesforce was asked.
        Upstream = "upstream",
        /// The gateway answered itself.
        Gateway = "gateway",
        /// A kept answer that was fresh.
        Cache = "cache",
        /// A kept answer that was no longer fresh.
        Stale = "stale",
        /// The answer to another request that asked the same at the same time.
        Joined = "joined",
        /// What Salesforce said to the same request a moment ago, which fails again and again.
        Remembered = "remembered",
    }
}

closed_list! {
    /// What the cache made of a request it has to do with.
    CacheResult {
        /// It answered.
        Hit = "hit",
        /// It answered with what was no longer fresh.
        Stale = "stale",
        /// It had nothing that was right, fresh and for this caller.
        Miss = "miss",
        /// The request wanted Salesforce to be asked.
        Bypass = "bypass",
        /// Nobody can say whether an answer would be right the next time.
        Uncacheable = "uncacheable",
        /// The answer is too long to be kept.
        TooLarge = "too_large",
    }
}

closed_list! {
    /// What the memory of failures has to do with a request.
    Remembered {
        /// It failed the same way once more: the next one like it is answered from memory.
        Learnt = "learnt",
        /// It was answered from memory.
        Given = "given",
        /// It would have been, if that were not only observed.
        WouldGive = "would_give",
    }
}

closed_list! {
    /// Why the gateway asks on its own account, for an answer that goes to its memory only.
    Errand {
        /// An answer that was given out is no longer fresh.
        Revalidate = "revalidate",
        /// A query names a relationship, and nobody knows where it leads.
        Describe = "describe",
    }
}

closed_list! {
    /// How an attempt at Salesforce went wrong.
    FailureKind {
        /// Name resolution failed.
        Dns = "dns",
        /// No TCP connection, or the egress proxy refused.
        Connect = "connect",
        /// The TLS handshake failed.
        Tls = "tls",
        /// The connection broke.
        Reset = "reset",
        /// No answer in time.
        Timeout = "timeout",
        /// The answer is not HTTP, or its body is not as long as it said.
        Garbage = "garbage",
        /// Salesforce answered with an error status.
        Status = "status",
    }
}

closed_list! {
    /// Which budget a repetition is taken from.
    Purse {
        /// Failures of Salesforce and of the way to it.
        Usual = "usual",
        /// Records that are being changed by somebody else.
        Lock = "lock",
    }
}

closed_list! {
    /// What became of a wish to repeat a call.
    RetryResult {
        /// It was repeated, and answered well.
        Succeeded = "succeeded",
        /// It was repeated as often as it may, and failed.
        Failed = "failed",
        /// It was not repeated, because too many others are.
        Budget = "budget",
        /// It was not repeated, because its caller would not wait for it.
        Deadline = "deadline",
    }
}

closed_list! {
    /// What came of a question of the gateway's own what an org has used.
    PollResult {
        /// Salesforce said it.
        Read = "read",
        /// It answered, and did not say it, or nothing that makes sense.
        Silent = "silent",
        /// The question was not sent, because no call is left for it.
        Refused = "refused",
        /// It was not answered, or with an error.
        Failed = "failed",
        /// By the time it was answered, another replica had the right to ask; the answer was not taken.
        Superseded = "superseded",
    }
}

closed_list! {
    /// How a request ended.
    Ending {
        /// The last byte of the answer was handed to the caller's connection.
        Complete = "complete",
        /// The caller left before that.
        CallerLeft = "caller_left",
        /// The answer broke off: the upstream failed after its head had been passed on.
        Cut = "cut",
    }
}

/// Identifies one request through one gateway process, and across the log, the answer and, unless the caller brings a
/// trace of its own, Salesforce's event logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RequestId(pub u128);

impl RequestId {
    /// 32 lower-case hexadecimal digits, the form of a W3C trace id and of `X-SFDC-REQUEST-ID`.
    pub fn hex(self) -> [u8; 32] {
        let mut text = [0; 32];
        hex_digits(&self.0.to_be_bytes(), &mut text);
        text
    }

    /// The same as a header's value.
    pub fn header(self) -> HeaderValue {
        // Digits are always valid.
        HeaderValue::from_bytes(&self.hex()).unwrap_or(HeaderValue::from_static("0"))
    }
}

/// Writes `bytes` as lower-case hexadecimal digits, as far as `text` has room.
pub fn hex_digits(bytes: &[u8], text: &mut [u8]) {
    const PAIRS: [[u8; 2]; 256] = {
        let digits = b"0123456789abcdef";
        let mut pairs = [[0; 2]; 256];
        let mut byte = 0;
        while byte < pairs.len() {
            pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
            byte += 1;
        }
        pairs
    };
    let (places, _) = text.as_chunks_mut::<2>();
    for (place, byte) in places.iter_mut().zip(bytes) {
        *place = PAIRS[usize::from(*byte)];
    }
}

/// Makes request ids that are unique for this process and, almost surely, across processes.
#[derive(Debug)]
pub struct RequestIds {
    prefix: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids that start with `prefix`, which should be random.
    pub fn new(prefix: u64) -> Self {
        Self { prefix, next: AtomicU64::new(1) }
    }

    /// The next id.
    pub fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        RequestId(u128::from(self.prefix) << 64 | u128::from(count))
    }
}

/// One attempt that was handed to a connection.
#[derive(Debug, Clone)]
pub struct Exchange {
    /// When it was handed over.
    pub sent: Instant,
    /// When the head of the answer came.
    pub head: Option<Instant>,
    /// When the last byte of the answer came, or the attempt failed.
    pub ended: Option<Instant>,
    /// Status of the answer.
    pub status: Option<u16>,
    /// What Salesforce charges for it, as far as its status says (facts 1.3).
    pub charged: ApiCalls,
    /// What Salesforce said has been used, in an answer that came after its caller had left: nobody else read it.
    pub unread: Option<Usage>,
    /// How it failed.
    pub failure: Option<FailureKind>,
    /// Salesforce's `errorCode`, where the answer was an error and was looked at.
    pub error_code: Option<SmolStr>,
    /// What that means.
    pub verdict: Option<Verdict>,
}

impl Exchange {
    /// An attempt handed over at `sent`, charged `cost` until its answer says otherwise.
    pub fn sent(sent: Instant, cost: ApiCalls) -> Self {
        Self {
            sent,
            head: None,
            ended: None,
            status: None,
            charged: cost,
            unread: None,
            failure: None,
            error_code: None,
            verdict: None,
        }
    }

    /// How it went wrong, if it did: what the answer means, where there was one and it was looked at.
    pub fn trouble(&self) -> Option<Trouble> {
        Some(match (self.failure?, self.verdict) {
            (FailureKind::Status, Some(verdict)) => Trouble::Said(verdict.kind),
            (failure, _) => Trouble::Lost(failure),
        })
    }
}

/// How an attempt went wrong, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// There was no answer, or none that could be read.
    Lost(FailureKind),
    /// The answer says so.
    Said(Kind),
}

impl Trouble {
    /// The word in metrics and log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lost(failure) => failure.as_str(),
            Self::Said(kind) => kind.as_str(),
        }
    }

    /// Different for each, and less than 32.
    pub const fn index(self) -> usize {
        match self {
            Self::Lost(failure) => failure.index(),
            Self::Said(kind) => FailureKind::ALL.len() + kind.index(),
        }
    }
}

/// A wait for one's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// How long it took, over all attempts.
    pub wait: Duration,
    /// The place in the order of turns when it began, counted from 1.
    pub position: usize,
}

/// What failed of the parts of one request that was answered well as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failures {
    /// How many parts were answered.
    pub total: u32,
    /// How many of them failed.
    pub failed: u32,
    /// Those that are told apart.
    pub list: Vec<Failed>,
    /// How many records each of those stands for: 1, except for bulk jobs, which do not tell theirs apart.
    pub each: u32,
    /// The objects of the parts, in their order; one for all if they are about one; none if nobody knows.
    pub objects: Vec<Option<ObjectName>>,
}

/// The part that a traced request plays in its trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its own id; never 0.
    pub id: u64,
    /// The span that sent it, if a caller's did.
    pub parent: Option<u64>,
    /// Whether it is recorded.
    pub sampled: bool,
    /// What others on the way have added to the trace.
    pub state: Option<Box<str>>,
}

/// Everything decided and measured about one request.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which request.
    pub id: RequestId,
    /// [`Self::id`] as a header's value, once it was needed.
    header: Option<HeaderValue>,
    /// The trace it is in, if it is in one: then that is what Salesforce's event logs name.
    pub trace: Option<RequestId>,
    /// Its part in that, where requests are traced.
    pub span: Option<Box<Span>>,
    /// When its head had arrived.
    pub started: Instant,
    /// The org it was for, once known.
    pub org: Option<OrgId>,
    /// Who asked, once known.
    pub caller: Option<CallerId>,
    /// As whom, once known.
    pub principal: Principal,
    /// How urgent.
    pub class: Class,
    /// Effective method, as sent by the caller until the request was understood.
    pub method: http::Method,
    /// Which API.
    pub family: Family,
    /// What it does.
    pub operation: Operation,
    /// To which object.
    pub object: Option<ObjectName>,
    /// Route template; empty until understood.
    pub template: &'static str,
    /// API version.
    pub version: Option<ApiVersion>,
    /// The client name the caller itself sent in `Sforce-Call-Options`.
    pub client: Option<SmolStr>,
    /// The product in its `User-Agent`, if it was sent in the name of the caller that everybody is whom nothing else
    /// matches; empty if there is none.
    pub agent: Option<SmolStr>,
    /// Where the request comes from, trusted proxies left out.
    pub remote: Option<IpAddr>,
    /// In which form its caller wants to be refused.
    pub wants: Wants,
    /// Its body holds several parts.
    pub multipart: bool,
    /// Which HTTP the caller speaks.
    pub http: http::Version,
    /// Status the caller got; 499 if it left first.
    pub status: u16,
    /// Where the answer came from.
    pub source: Source,
    /// What the cache made of it; none if it has nothing to do with it.
    pub cache: Option<CacheResult>,
    /// What the memory of failures has to do with it.
    pub remembered: Option<Remembered>,
    /// API calls that were not made, because the answer was there.
    pub saved: u32,
    /// No caller waits for the answer: the gateway asks in the name of one.
    pub errand: Option<Errand>,
    /// Why the gateway answered itself.
    pub refusal: Option<Reason>,
    /// What policy would have refused in `mode: observe`.
    pub would_refuse: Option<Reason>,
    /// How long it was expected to run, once it was admitted.
    pub length: Length,
    /// It had to wait for its turn.
    pub queued: Option<Queued>,
    /// On what terms the ledger let it go, the last time it was sent.
    pub terms: Option<Terms>,
    /// How long it waited because its caller exceeded its pace.
    pub paced: Duration,
    /// How many calls its caller's pace would have let follow at once; `None` for a caller without a pace.
    pub pace_left: Option<u32>,
    /// The answer may hold URLs that point past the gateway, because it was too large or could not be read.
    pub urls_kept: bool,
    /// What became of the wish to repeat it, the last time there was one.
    pub retried: Option<(Purse, RetryResult)>,
    /// It may have written something, and its answer does not say whether it did.
    pub unknown: bool,
    /// What failed inside its answer.
    pub failures: Option<Box<Failures>>,
    /// How it ended.
    pub ending: Ending,
    /// When the head of the answer was ready for the caller.
    pub answered: Option<Instant>,
    /// When it ended.
    pub ended: Option<Instant>,
    /// Body bytes received from the caller.
    pub bytes_in: u64,
    /// Body bytes handed to the caller.
    pub bytes_out: u64,
    /// Attempts sent to Salesforce.
    pub exchanges: SmallVec<[Exchange; 1]>,
}

impl Outcome {
    /// A request whose head arrived at `started`.
    pub fn new(id: RequestId, started: Instant, method: http::Method) -> Self {
        Self {
            id,
            header: None,
            trace: None,
            span: None,
            started,
            org: None,
            caller: None,
            principal: Principal::NOBODY,
            class: Class::Standard,
            method,
            family: Family::Other,
            operation: Operation::Unknown,
            object: None,
            template: "",
            version: None,
            client: None,
            agent: None,
            remote: None,
            wants: Wants::default(),
            multipart: false,
            http: http::Version::HTTP_11,
            status: 0,
            source: Source::Gateway,
            cache: None,
            remembered: None,
            saved: 0,
            errand: None,
            refusal: None,
            would_refuse: None,
            length: Length::Short,
            queued: None,
            terms: None,
            paced: Duration::ZERO,
            pace_left: None,
            urls_kept: false,
            retried: None,
            unknown: false,
            failures: None,
            ending: Ending::CallerLeft,
            answered: None,
            ended: None,
            bytes_in: 0,
            bytes_out: 0,
            exchanges: SmallVec::new(),
        }
    }

    /// Its id as a header's value: the same one for Salesforce and for the caller.
    pub fn id_header(&mut self) -> HeaderValue {
        self.header.get_or_insert_with(|| self.id.header()).clone()
    }

    /// Calls Salesforce charges for this request, over all its attempts.
    pub fn charged(&self) -> ApiCalls {
        ApiCalls(self.exchanges.iter().map(|exchange| exchange.charged.0).sum())
    }
}

/// Reads outcomes that are complete.
pub trait Reader: Send + Sync {
    /// `outcome` will not change any more.
    fn ended(&self, outcome: &Outcome);
}

/// An [`Outcome`] that the stages of one request write to, also after its caller has left.
///
/// It is complete when the last clone is dropped: the answer has been passed on or given up, and no sent call is still
/// going on without its caller. Then its reader gets it, exactly once. The lock is never contended in ordinary use
/// and never held across an await.
#[derive(Clone)]
pub struct Record(Arc<Recorded>);

struct Recorded {
    outcome: Mutex<Outcome>,
    reader: Option<Arc<dyn Reader>>,
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(reader) = &self.reader {
            reader.ended(self.outcome.get_mut());
        }
    }
}

impl Record {
    /// Starts a record that nobody reads in the end.
    pub fn new(outcome: Outcome) -> Self {
        Self(Arc::new(Recorded { outcome: Mutex::new(outcome), reader: None }))
    }

    /// Starts a record that `reader` gets when it is complete.
    pub fn read_by(outcome: Outcome, reader: Arc<dyn Reader>) -> Self {
        Self(Arc::new(Recorded { outcome: Mutex::new(outcome), reader: Some(reader) }))
    }

    /// The outcome so far, to write a fact into or to read.
    pub fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.0.outcome.lock()
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Record").field(&*self.lock()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_32_hexadecimal_digits() {
        assert_eq!(&RequestId(0x0123_4567_89ab_cdef).hex(), b"00000000000000000123456789abcdef");
    }

    #[tokio::test]
    async fn a_record_is_read_once_when_the_last_holder_lets_go() {
        struct Count(Mutex<Vec<u16>>);
        impl Reader for Count {
            fn ended(&self, outcome: &Outcome) {
                self.0.lock().push(outcome.status);
            }
        }
        let reader = Arc::new(Count(Mutex::default()));
        let now = crate::clock::Clock::start().now();
        let outcome = Outcome::new(RequestId(1), now, http::Method::GET);
        let record = Record::read_by(outcome, Arc::clone(&reader) as Arc<dyn Reader>);
        let goes_on = record.clone();
        record.lock().status = 499;
        drop(record);
        assert!(reader.0.lock().is_empty(), "a sent call goes on without its caller");
        drop(goes_on);
        assert_eq!(*reader.0.lock(), [499]);
    }

    #[tokio::test]
    async fn an_outcome_counts_the_calls_of_all_its_attempts() {
        let clock = crate::clock::Clock::start();
        let mut outcome = Outcome::new(RequestId(1), clock.now(), http::Method::GET);
        outcome.exchanges.push(Exchange::sent(clock.now(), ApiCalls(1)));
        outcome.exchanges.push(Exchange::sent(clock.now(), ApiCalls(3)));
        assert_eq!(outcome.charged(), ApiCalls(4));
    }
}
