//! Walks JSON that may be cut off anywhere, without building it: what is not asked for is passed over, strings at the
//! speed of `memchr`.
//!
//! It is made for answers, which are Salesforce's: it finds its way in valid JSON, and in anything else it ends early or
//! finds nothing. It never looks at a byte twice, allocates nothing and does not recurse.

use memchr::memchr2;

/// A place in a text of JSON.
#[derive(Debug, Clone)]
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next byte that is no white space; it is not taken.
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            let byte = *self.bytes.get(self.at)?;
            if !byte.is_ascii_whitespace() {
                return Some(byte);
            }
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    /// The inside of a string as it is written, escapes and all.
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let from = self.at;
        self.pass_string()?;
        self.bytes.get(from..self.at - 1)
    }

    /// Behind the quote that ends the string whose inside begins here.
    fn pass_string(&mut self) -> Option<()> {
        loop {
            let found = memchr2(b'"', b'\\', self.bytes.get(self.at..)?)?;
            self.at += found + 1;
            if self.bytes.get(self.at - 1) == Some(&b'"') {
                return Some(());
            }
            self.at += 1;
        }
    }

    /// Where it has come to.
    pub(super) fn place(&self) -> usize {
        self.at
    }

    /// Where one value stands.
    pub(super) fn span(&mut self) -> Option<std::ops::Range<usize>> {
        self.peek()?;
        let from = self.at;
        self.skip()?;
        Some(from..self.at)
    }

    /// One value as it is written.
    pub(super) fn value(&mut self) -> Option<&'a [u8]> {
        self.peek()?;
        let from = self.at;
        self.skip()?;
        self.bytes.get(from..self.at)
    }

    /// Passes over one value.
    pub(super) fn skip(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.pass_string()
            }
            b'{' | b'[' => self.pass_container(),
            _ => {
                let rest = self.bytes.get(self.at..)?;
                let ends = |byte: &u8| matches!(byte, b',' | b'}' | b']' | b':' | b'"') || byte.is_ascii_whitespace();
                let length = rest.iter().position(ends).unwrap_or(rest.len());
                self.at += length;
                (length > 0).then_some(())
            }
        }
    }

    fn pass_container(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            let byte = *self.bytes.get(self.at)?;
            self.at += 1;
            match byte {
                b'"' => self.pass_string()?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(());
                    }
                }
                _ => {}
            }
        }
    }

    /// Gives each member of an object to `each`, which takes its value. `None` if it ends early or is no object.
    pub(super) fn members(&mut self, mut each: impl FnMut(&'a [u8], &mut Self) -> Option<()>) -> Option<()> {
        self.take(b'{')?;
        if self.take(b'}').is_some() {
            return Some(());
        }
        loop {
            let name = self.string()?;
            self.take(b':')?;
            each(name, self)?;
            if self.take(b',').is_none() {
                return self.take(b'}');
            }
        }
    }

    /// Gives each item of a list to `each`, which takes it. `None` if it ends early or is no list.
    pub(super) fn items(&mut self, mut each: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.take(b'[')?;
        if self.take(b']').is_some() {
            return Some(());
        }
        loop {
            each(self)?;
            if self.take(b',').is_none() {
                return self.take(b']');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn passed(text: &[u8]) -> Option<usize> {
        let mut walk = Walk::new(text);
        walk.skip().map(|()| walk.at)
    }

    #[test]
    fn values_of_all_kinds_are_passed_over() {
        for text in ["1", "-2.5e7", "true", "null", r#""a""#, r#""a\"b\\""#, "[]", "{}", r#"{"a":[1,{"b":"]}"}]}"#] {
            assert_eq!(passed(format!("{text} ,").as_bytes()), Some(text.len()), "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_ends_early() {
        for text in ["", " ", "\"a", "\"a\\", "\"a\\\"", "[1", "{\"a\":", ",", "}"] {
            assert_eq!(passed(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn members_and_items_are_given_in_order() {
        let mut seen = Vec::new();
        let mut walk = Walk::new(br#" { "a" : [1, 2] , "b":true,"c":{} } "#);
        let whole = walk.members(|name, walk| {
            if name == b"a" {
                return walk.items(|walk| {
                    seen.push(String::from_utf8_lossy(walk.value()?).into_owned());
                    Some(())
                });
            }
            seen.push(format!("{} {}", String::from_utf8_lossy(name), String::from_utf8_lossy(walk.value()?)));
            Some(())
        });
        assert_eq!(whole, Some(()));
        assert_eq!(seen, ["1", "2", "b true", "c {}"]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ -~\\\\\"\n\u{e9}]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\\\]{0,5}", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn valid_json_is_passed_to_its_end_and_no_further(value in any_json(), pretty in any::<bool>()) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            let length = text.len();
            prop_assert_eq!(passed(format!("{text}}}]").as_bytes()), Some(length));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(prop::sample::select(b"{}[]\",:\\ a1".to_vec()), 0..60)) {
            let mut walk = Walk::new(&bytes);
            let _ = walk.skip();
            prop_assert!(walk.at <= bytes.len() + 1);
            let _ = Walk::new(&bytes).members(|_, walk| walk.skip());
            let _ = Walk::new(&bytes).items(Walk::skip);
        }
    }
}
