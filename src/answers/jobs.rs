//! What Salesforce says of a bulk job: which it is, what object it is about, whether it is over (facts 4).

use memchr::memmem;
use serde::Deserialize;
use smol_str::SmolStr;

use super::effect::of_object;
use super::touch::Touch;

/// A bulk job, as one answer of Salesforce's shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub id: SmolStr,
    /// What it may change.
    pub touch: Touch,
    /// It has come to its end: nothing more will change.
    pub over: bool,
}

#[derive(Deserialize)]
struct Said {
    id: String,
    #[serde(default)]
    object: Option<String>,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    state: Option<String>,
}

/// Reads the plain bytes of an answer that describes a job of Bulk API 2.0, or one of 1.0 when it is made. Jobs of 1.0 are
/// never seen to be over, because their batches end one by one.
pub fn ingest_job(plain: &[u8], bulk2: bool) -> Option<Job> {
    let said = if plain.trim_ascii_start().first() == Some(&b'<') {
        in_xml(plain)?
    } else {
        serde_json::from_slice(plain).ok()?
    };
    // Deleting rows may delete rows of other objects.
    let deletes = said.operation.as_deref().is_none_or(|operation| operation.to_ascii_lowercase().contains("delete"));
    let touch = match said.object {
        Some(object) if !deletes => of_object(&object),
        _ => Touch::Rows,
    };
    let over = bulk2 && matches!(said.state.as_deref(), Some("JobComplete" | "Failed" | "Aborted"));
    Some(Job { id: short(&said.id), touch, over })
}

fn in_xml(plain: &[u8]) -> Option<Said> {
    let element = |name: &str| {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let from = memmem::find(plain, open.as_bytes())? + open.len();
        let rest = plain.get(from..)?;
        let text = rest.get(..memmem::find(rest, close.as_bytes())?)?;
        std::str::from_utf8(text).ok().map(|text| text.trim().to_owned())
    };
    Some(Said {
        id: element("id")?,
        object: element("object"),
        operation: element("operation"),
        state: element("state"),
    })
}

/// The id of the job in a path, in the form in which jobs are remembered.
pub fn job_of_path(path: &str) -> Option<SmolStr> {
    let path = path.split_once('?').map_or(path, |(path, _)| path);
    let mut segments = path.split('/').filter(|segment| !segment.is_empty());
    segments.find(|segment| matches!(*segment, "ingest" | "job"))?;
    segments.next().filter(|id| id.bytes().all(|byte| byte.is_ascii_alphanumeric())).map(short)
}

/// Both lengths of an id are one job.
fn short(id: &str) -> SmolStr {
    SmolStr::new(id.get(..15).unwrap_or(id))
}

#[cfg(test)]
mod tests {
    use super::super::touch::lower;
    use super::*;

    #[test]
    fn a_job_is_read_from_every_form_of_answer() {
        let json = br#"{"id":"750D000000IqhSLIAZ","operation":"update","object":"Account","state":"UploadComplete"}"#;
        let wanted = Job { id: "750D000000IqhSL".into(), touch: Touch::Object(lower("account")), over: false };
        assert_eq!(ingest_job(json, true), Some(wanted.clone()));
        let xml = b"<?xml version=\"1.0\"?><jobInfo xmlns=\"x\"><id>750D000000IqhSL</id><operation>insert</operation><object>Account</object>\
            <state>Closed</state></jobInfo>";
        assert_eq!(ingest_job(xml, false), Some(wanted));
        let ended = |state: &str, bulk2| {
            let json =
                format!(r#"{{"id":"750D000000IqhSL","operation":"update","object":"Account","state":"{state}"}}"#);
            ingest_job(json.as_bytes(), bulk2).is_some_and(|job| job.over)
        };
        for state in ["JobComplete", "Failed", "Aborted"] {
            assert!(ended(state, true) && !ended(state, false), "{state}");
        }
        assert!(!ended("InProgress", true));
        let deletes = br#"{"id":"750D000000IqhSL","operation":"hardDelete","object":"Account"}"#;
        assert_eq!(ingest_job(deletes, true).map(|job| job.touch), Some(Touch::Rows));
        for garbage in ["", "[]", "{}", "<x>", "no", "<jobInfo><id>1</jobInfo>"] {
            assert_eq!(ingest_job(garbage.as_bytes(), true), None, "{garbage}");
        }
    }

    #[test]
    fn the_job_of_a_path_is_found() {
        for path in [
            "/services/data/v62.0/jobs/ingest/750D000000IqhSLIAZ/batches",
            "/services/async/62.0/job/750D000000IqhSL/batch?x=1",
        ] {
            assert_eq!(job_of_path(path).as_deref(), Some("750D000000IqhSL"), "{path}");
        }
        for path in
            ["/services/data/v62.0/jobs/ingest", "/services/data/v62.0/jobs/query/750", "/services/async/62.0/job/%37"]
        {
            assert_eq!(job_of_path(path), None, "{path}");
        }
    }
}
