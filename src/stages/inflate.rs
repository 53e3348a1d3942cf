//! A compressed request body, inflated to be understood; what is sent on stays as it came.

use std::borrow::Cow;
use std::io::Read as _;

use bytes::Bytes;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use crate::refusal::{Reason, Refusal};

/// The plain bytes of `body`, at most `limit` of them.
pub fn plain<'a>(headers: &HeaderMap, body: &'a Bytes, limit: usize) -> Result<Cow<'a, [u8]>, Refusal> {
    let coding = match headers.get(CONTENT_ENCODING) {
        None => return Ok(Cow::Borrowed(body)),
        Some(coding) => coding.as_bytes().trim_ascii(),
    };
    if coding.is_empty() || coding.eq_ignore_ascii_case(b"identity") {
        return Ok(Cow::Borrowed(body));
    }
    let mut inflated = Vec::new();
    // One byte more than allowed tells a body that is too large from one that just fits.
    let most = limit as u64 + 1;
    let read = if coding.eq_ignore_ascii_case(b"gzip") {
        GzDecoder::new(body.as_ref()).take(most).read_to_end(&mut inflated)
    } else if coding.eq_ignore_ascii_case(b"deflate") {
        ZlibDecoder::new(body.as_ref()).take(most).read_to_end(&mut inflated)
    } else {
        return Err(Refusal::new(
            Reason::BodyMalformed,
            "The Content-Encoding of this request is not gzip or deflate.",
        ));
    };
    match read {
        Err(_) => Err(Refusal::new(Reason::BodyMalformed, "The compressed body of this request is broken.")),
        Ok(_) if inflated.len() > limit => {
            Err(Refusal::new(Reason::BodyTooLarge, format!("The body is longer than {limit} bytes when inflated.")))
        }
        Ok(_) => Ok(Cow::Owned(inflated)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(plain: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
    }

    fn headers(coding: &str) -> HeaderMap {
        [(CONTENT_ENCODING, coding.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn a_compressed_body_is_read_plain_and_bounded() {
        let body = gzip(&[b'x'; 1000]);
        assert_eq!(plain(&headers("GZIP"), &body, 1000).unwrap().len(), 1000);
        assert_eq!(plain(&headers("gzip"), &body, 999).unwrap_err().reason, Reason::BodyTooLarge);
        assert_eq!(&*plain(&HeaderMap::new(), &body, 1).unwrap(), &body[..]);
    }

    #[test]
    fn a_bomb_costs_no_more_than_the_limit() {
        let bomb = gzip(&vec![0; 10_000_000]);
        assert!(bomb.len() < 100_000);
        assert_eq!(plain(&headers("gzip"), &bomb, 4096).unwrap_err().reason, Reason::BodyTooLarge);
    }

    #[test]
    fn broken_and_unknown_codings_are_refused() {
        let broken = Bytes::from_static(b"not gzip");
        assert_eq!(plain(&headers("gzip"), &broken, 100).unwrap_err().reason, Reason::BodyMalformed);
        assert_eq!(plain(&headers("br"), &broken, 100).unwrap_err().reason, Reason::BodyMalformed);
    }
}
