//! Blobs uploaded as `multipart/form-data`: a first part with the fields, a second with the bytes (facts 3.2).

use memchr::memmem;
use smol_str::SmolStr;

use super::errors::ApiError;
use super::json::Json;
use super::request::Head;
use super::rows::members;

/// The fields of an upload and the size of its blob. The blob itself is not kept, only measured.
#[derive(Debug, PartialEq)]
pub(super) struct Parts {
    pub(super) members: Vec<(SmolStr, Json)>,
    pub(super) blob_bytes: u64,
}

/// The boundary of a multipart request; `None` if it is none.
pub(super) fn boundary(head: &Head) -> Option<&str> {
    let header = head.header("content-type")?;
    let (kind, rest) = header.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = rest.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?;
    Some(value.trim_matches('"'))
}

/// Reads a multipart body of `total` bytes, of which `kept` is the beginning.
pub(super) fn read(boundary: &str, kept: &[u8], total: u64) -> Result<Parts, ApiError> {
    let broken = || ApiError::new(400, "INVALID_MULTIPART_REQUEST", "The multipart body cannot be read");
    if boundary.is_empty() || boundary.len() > 70 {
        return Err(broken());
    }
    let mark = format!("--{boundary}");
    let content_of = |from: usize| {
        let rest = kept.get(from..)?;
        let head_end = memmem::find(rest, b"\r\n\r\n")?;
        Some(from + head_end + 4)
    };
    let end_of = |from: usize| {
        let rest = kept.get(from..)?;
        Some(from + memmem::find(rest, format!("\r\n{mark}").as_bytes())?)
    };
    let first = memmem::find(kept, mark.as_bytes()).and_then(|at| content_of(at + mark.len())).ok_or_else(broken)?;
    let first_end = end_of(first).ok_or_else(broken)?;
    let members = members(kept.get(first..first_end).unwrap_or_default())?;
    let second = content_of(first_end + 2 + mark.len()).ok_or_else(broken)?;
    let blob_bytes = match end_of(second) {
        Some(end) => (end - second) as u64,
        // Longer than what is kept: what comes after the blob is the closing boundary.
        None if total > kept.len() as u64 => total.saturating_sub((second + mark.len() + 6) as u64),
        None => return Err(broken()),
    };
    Ok(Parts { members, blob_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(blob: &str) -> String {
        format!(
            "--b0\r\nContent-Disposition: form-data; name=\"entity\"\r\nContent-Type: application/json\r\n\r\n\
             {{\"Title\":\"T\"}}\r\n--b0\r\nContent-Disposition: form-data; name=\"VersionData\"; filename=\"f\"\r\n\r\n\
             {blob}\r\n--b0--\r\n"
        )
    }

    #[test]
    fn fields_and_size_are_found_also_when_the_end_was_not_kept() {
        let text = body("0123456789");
        let whole = read("b0", text.as_bytes(), text.len() as u64).unwrap();
        assert_eq!((whole.blob_bytes, whole.members.len()), (10, 1));
        let kept = &text.as_bytes()[..text.len() - 15];
        assert_eq!(read("b0", kept, text.len() as u64).unwrap(), whole);
    }

    #[test]
    fn broken_bodies_are_refused() {
        let text = body("x");
        for (boundary, text) in [
            ("b0", ""),
            ("b1", text.as_str()),
            ("b0", &text[..60]),
            ("", &text),
            ("b0", "--b0\r\n\r\n{}\r\n--b0\r\n\r\nx"),
        ] {
            assert!(read(boundary, text.as_bytes(), text.len() as u64).is_err(), "{boundary} {text}");
        }
    }
}
