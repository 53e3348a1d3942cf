//! W3C trace context: what a request brings of it, and what goes on to Salesforce.

use http::{HeaderName, HeaderValue};

use crate::outcome::{RequestId, hex_digits};

/// Which trace a request belongs to, and which span of it sent it.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What the systems on the way add to a trace.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest `tracestate` that is kept: as long as everybody has to pass on.
const LONGEST_STATE: usize = 512;

/// What a valid `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    /// The trace.
    pub trace: RequestId,
    /// The span that sent the request.
    pub span: u64,
    /// Whether it is recorded.
    pub sampled: bool,
}

impl Parent {
    /// Reads the value of a `traceparent`; `None` if it is not valid, which counts as absent. Later versions may say more.
    pub fn read(value: &HeaderValue) -> Option<Self> {
        let mut fields = value.to_str().ok()?.split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let lower_hex = |field: &str| field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let lengths = [version.len(), trace.len(), span.len(), flags.len()] == [2, 32, 16, 2];
        if !lengths || version == "ff" || (version == "00" && fields.next().is_some()) {
            return None;
        }
        if ![version, trace, span, flags].into_iter().all(lower_hex) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0).map(RequestId)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
        Some(Self { trace, span, sampled })
    }

    /// The value that says this.
    pub fn write(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        if let Some(place) = text.get_mut(3..35) {
            hex_digits(&self.trace.0.to_be_bytes(), place);
        }
        if let Some(place) = text.get_mut(36..52) {
            hex_digits(&self.span.to_be_bytes(), place);
        }
        if let Some(flag) = text.last_mut() {
            *flag = b'0' + u8::from(self.sampled);
        }
        // Digits are always valid.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
    }
}

/// The values of `tracestate` as one; nothing if they are too long to be kept, or no text.
pub fn state<'a>(values: impl Iterator<Item = &'a HeaderValue>) -> Option<Box<str>> {
    let mut state = String::new();
    for value in values {
        if !state.is_empty() {
            state.push(',');
        }
        state.push_str(value.to_str().ok()?);
    }
    (1..=LONGEST_STATE).contains(&state.len()).then(|| state.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<Parent> {
        Parent::read(&HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn a_parent_is_read_as_the_standard_says() {
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let right = read(&format!("00-{trace}-b7ad6b7169203331-01")).unwrap();
        assert_eq!(right.trace, RequestId(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c));
        assert_eq!((right.span, right.sampled), (0xb7ad_6b71_6920_3331, true));
        assert!(!read(&format!("00-{trace}-b7ad6b7169203331-00")).unwrap().sampled);
        assert!(read(&format!("cc-{trace}-b7ad6b7169203331-03-what-is-new")).unwrap().sampled);
        for wrong in [
            "",
            "00",
            &format!("00-{trace}-b7ad6b7169203331"),
            &format!("ff-{trace}-b7ad6b7169203331-01"),
            &format!("00-{trace}-b7ad6b7169203331-01-more"),
            &format!("00-{}-b7ad6b7169203331-01", trace.to_uppercase()),
            &format!("00-{trace}-b7ad6b7169203331-1"),
            &format!("00-{trace}-b7ad6b7169203331-xx"),
            &format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            &format!("00-{trace}-0000000000000000-01"),
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn states_are_joined_and_bounded() {
        let values =
            |texts: &[&'static str]| texts.iter().map(|text| HeaderValue::from_static(text)).collect::<Vec<_>>();
        assert_eq!(state(values(&["a=1", "b=2"]).iter()).as_deref(), Some("a=1,b=2"));
        assert_eq!(state([].iter()), None);
        let long = HeaderValue::try_from("a".repeat(600)).unwrap();
        assert_eq!(state([long].iter()), None);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_the_same(trace in 1..u128::MAX, span in 1..u64::MAX, sampled: bool) {
            let parent = Parent { trace: RequestId(trace), span, sampled };
            prop_assert_eq!(Parent::read(&parent.write()), Some(parent));
        }
    }
}
