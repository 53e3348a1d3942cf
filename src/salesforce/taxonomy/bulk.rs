//! What a bulk job says of its records: job and batch info of both APIs, as JSON or XML (facts 4.1, 4.3).

use memchr::memmem;
use smol_str::SmolStr;

use super::said::element;
use super::walk::Walk;

/// Batches told apart in one list.
const MOST: usize = 1_000;

/// What is said of one job, or one batch of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// The job.
    pub job: SmolStr,
    /// The batch, if it is about one.
    pub batch: SmolStr,
    /// The object, where it is said.
    pub object: SmolStr,
    /// Records that were looked at.
    pub processed: u32,
    /// Records of those that failed.
    pub failed: u32,
}

/// Reads an answer about a job, a batch, or the batches of a job; nothing if it says nothing of records.
pub fn progress(body: &[u8]) -> Vec<Progress> {
    let body = body.trim_ascii_start();
    match body.first() {
        Some(b'{') => from_json(body),
        Some(b'<') => from_xml(body),
        _ => Vec::new(),
    }
}

fn from_json(body: &[u8]) -> Vec<Progress> {
    let (mut list, mut walk) = (Vec::new(), Walk::new(body));
    // `{"batchInfo": [...]}`
    let batches = walk.clone().members(|name, walk| {
        if name == b"batchInfo" && walk.peek()? == b'[' {
            return walk.items(|walk| {
                list.extend(one(walk).filter(|_| list.len() < MOST));
                Some(())
            });
        }
        walk.skip()
    });
    if list.is_empty() && batches.is_some() {
        list.extend(one(&mut walk));
    }
    list
}

fn one(walk: &mut Walk<'_>) -> Option<Progress> {
    let (mut id, mut found, mut counted) = (SmolStr::default(), Progress::default(), false);
    if walk.peek()? != b'{' {
        walk.skip()?;
        return None;
    }
    walk.members(|name, walk| {
        match name {
            b"id" | b"jobId" | b"object" if walk.peek()? == b'"' => {
                let text = word(walk.string()?);
                match name {
                    b"id" => id = text,
                    b"jobId" => found.job = text,
                    _ => found.object = text,
                }
            }
            b"numberRecordsProcessed" => found.processed = number(walk.value()?),
            b"numberRecordsFailed" => {
                counted = true;
                found.failed = number(walk.value()?);
            }
            _ => walk.skip()?,
        }
        Some(())
    })?;
    found.named(id).filter(|_| counted)
}

fn from_xml(body: &[u8]) -> Vec<Progress> {
    let starts = memmem::find_iter(body, b"<batchInfo").filter(|at| body.get(at + 10) != Some(&b'L'));
    let mut starts: Vec<usize> = starts.take(MOST).collect();
    if starts.is_empty() {
        starts.push(0);
    }
    let ends = starts.iter().skip(1).copied().chain([body.len()]);
    let each = starts.iter().zip(ends).filter_map(|(from, to)| {
        let info = body.get(*from..to)?;
        let text = |name| element(info, name).map(word).unwrap_or_default();
        let failed = number(element(info, "numberRecordsFailed")?);
        let processed = element(info, "numberRecordsProcessed").map(number).unwrap_or_default();
        let found =
            Progress { job: text("jobId"), batch: SmolStr::default(), object: text("object"), processed, failed };
        found.named(text("id"))
    });
    each.collect()
}

impl Progress {
    /// `id` is the batch's, if there is a job's beside it.
    fn named(mut self, id: SmolStr) -> Option<Self> {
        if self.job.is_empty() {
            self.job = id;
        } else {
            self.batch = id;
        }
        (!self.job.is_empty()).then_some(self)
    }
}

fn word(text: &[u8]) -> SmolStr {
    let fine = text.len() <= 80 && text.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    std::str::from_utf8(text).ok().filter(|_| fine).map(SmolStr::new).unwrap_or_default()
}

fn number(text: &[u8]) -> u32 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(job: &str, batch: &str, object: &str, processed: u32, failed: u32) -> Progress {
        Progress { job: job.into(), batch: batch.into(), object: object.into(), processed, failed }
    }

    #[test]
    fn jobs_and_batches_are_read_in_every_form() {
        let job = br#"{"id":"750A","operation":"insert","object":"Account","numberRecordsProcessed":9,"numberRecordsFailed":2,"x":[1]}"#;
        assert_eq!(progress(job), [info("750A", "", "Account", 9, 2)]);
        let batch =
            br#" {"id":"751A","jobId":"750A","state":"Completed","numberRecordsFailed":1,"numberRecordsProcessed":4}"#;
        assert_eq!(progress(batch), [info("750A", "751A", "", 4, 1)]);
        let list = br#"{"batchInfo":[{"id":"751A","jobId":"750A","numberRecordsFailed":1},{"id":"751B","jobId":"750A","numberRecordsFailed":0}, 7]}"#;
        assert_eq!(progress(list), [info("750A", "751A", "", 0, 1), info("750A", "751B", "", 0, 0)]);
        let job = b"<?xml version=\"1.0\"?><jobInfo xmlns=\"x\"><id>750A</id><object>Account</object>\
            <numberRecordsProcessed>9</numberRecordsProcessed><numberRecordsFailed>2</numberRecordsFailed></jobInfo>";
        assert_eq!(progress(job), [info("750A", "", "Account", 9, 2)]);
        let list = b"<batchInfoList xmlns=\"x\"><batchInfo><id>751A</id><jobId>750A</jobId><numberRecordsFailed>1</numberRecordsFailed></batchInfo>\
            <batchInfo><id>751B</id><jobId>750A</jobId><numberRecordsFailed>3</numberRecordsFailed></batchInfo></batchInfoList>";
        assert_eq!(progress(list), [info("750A", "751A", "", 0, 1), info("750A", "751B", "", 0, 3)]);
    }

    #[test]
    fn what_says_nothing_of_records_is_nothing() {
        for body in [
            "",
            "{}",
            "[]",
            "Id,Success",
            r#"{"id":"750A"}"#,
            r#"{"numberRecordsFailed":1}"#,
            "<jobInfo><id>750A</id></jobInfo>",
        ] {
            assert_eq!(progress(body.as_bytes()), [], "{body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_survived(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), xml in proptest::prelude::any::<bool>()) {
            let body = [if xml { b"<batchInfo>" } else { b"{\"batchInfo" }, body.as_slice()].concat();
            let _ = progress(&body);
        }
    }
}
