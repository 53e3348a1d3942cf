//! What failed inside a SOAP answer, found while it passes in pieces: `<success>false</success>` in the results of create,
//! update, upsert, delete and the like (facts 2.5).

use memchr::memchr;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::said::{Said, Shape, plausible};
use super::{Failed, Partial, classify};
use crate::call::Family;

/// Names and texts that matter are shorter.
const LONGEST_WORD: usize = 80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lex {
    Text,
    /// Inside a tag: in its name, or behind it.
    Tag {
        named: bool,
    },
    /// Inside the value of an attribute, which ends with this quote.
    Quoted(u8),
}

/// Looks through one answer.
#[derive(Debug)]
pub struct Envelope {
    lex: Lex,
    /// The name of the tag, without prefix; closing tags begin with a slash.
    name: SmallVec<[u8; 32]>,
    /// The last byte of the tag so far.
    last: u8,
    /// The text of the element that matters.
    word: SmallVec<[u8; LONGEST_WORD]>,
    keeps: bool,
    depth: u32,
    /// Depth of the `result` that is open; 0 if none is.
    result: u32,
    success: Option<bool>,
    code: SmolStr,
    found: Partial,
}

impl Default for Envelope {
    fn default() -> Self {
        Self {
            lex: Lex::Text,
            name: SmallVec::new(),
            last: 0,
            word: SmallVec::new(),
            keeps: false,
            depth: 0,
            result: 0,
            success: None,
            code: SmolStr::default(),
            found: Partial::default(),
        }
    }
}

impl Envelope {
    /// What was found so far; `None` if there was no result of a write.
    pub fn found(self) -> Option<Partial> {
        (self.found.total > 0).then_some(self.found)
    }

    /// The next piece.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((first, rest)) = bytes.split_first() {
            match self.lex {
                Lex::Text => {
                    let end = memchr(b'<', bytes);
                    if self.keeps {
                        let text = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
                        let room = LONGEST_WORD - self.word.len().min(LONGEST_WORD);
                        self.word.extend_from_slice(text.get(..room.min(text.len())).unwrap_or_default());
                    }
                    let Some(end) = end else { return };
                    self.name.clear();
                    self.last = 0;
                    self.lex = Lex::Tag { named: false };
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                    continue;
                }
                Lex::Quoted(quote) => {
                    let Some(end) = memchr(quote, bytes) else { return };
                    self.lex = Lex::Tag { named: true };
                    bytes = bytes.get(end + 1..).unwrap_or_default();
                    continue;
                }
                Lex::Tag { named } => match first {
                    b'>' => {
                        self.lex = Lex::Text;
                        self.tag();
                    }
                    b'"' | b'\'' if named => self.lex = Lex::Quoted(*first),
                    byte if byte.is_ascii_whitespace() => self.lex = Lex::Tag { named: true },
                    // The prefix is none of the name's business.
                    b':' if !named => {
                        let closes = self.name.first() == Some(&b'/');
                        self.name.clear();
                        if closes {
                            self.name.push(b'/');
                        }
                    }
                    byte => {
                        if !named && self.name.len() < self.name.inline_size() {
                            self.name.push(*byte);
                        }
                        self.last = *byte;
                    }
                },
            }
            bytes = rest;
        }
    }

    /// A tag has ended.
    fn tag(&mut self) {
        let empty = self.last == b'/';
        match self.name.as_slice() {
            [b'!' | b'?', ..] => {}
            [b'/', ..] => self.closed(),
            _ if empty => {}
            name => {
                self.depth = self.depth.saturating_add(1);
                match name {
                    b"result" if self.result == 0 => {
                        self.result = self.depth;
                        self.success = None;
                        self.code = SmolStr::default();
                    }
                    b"success" => self.keeps = self.result > 0 && self.depth == self.result + 1,
                    b"statusCode" => self.keeps = self.result > 0 && self.depth == self.result + 2,
                    _ => {}
                }
                self.word.clear();
            }
        }
    }

    fn closed(&mut self) {
        if std::mem::take(&mut self.keeps) {
            let word = self.word.trim_ascii();
            match (self.name.as_slice(), word) {
                (b"/success", b"true" | b"1") => self.success = Some(true),
                (b"/success", b"false" | b"0") => self.success = Some(false),
                (b"/statusCode", _) if self.code.is_empty() => {
                    self.code = plausible(word).map(SmolStr::new).unwrap_or_default();
                }
                _ => {}
            }
        }
        if self.result > 0 && self.depth == self.result {
            self.result = 0;
            if let Some(success) = self.success.take() {
                if !success {
                    let code = std::mem::take(&mut self.code);
                    let said = Said { code: &code, shape: Shape::Xml, ..Said::default() };
                    let verdict = classify(Family::Soap, 400, &said);
                    let at = self.found.total;
                    self.found.add(Failed { at, code, verdict });
                }
                self.found.total += 1;
            }
        }
        self.depth = self.depth.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn envelope(results: &str) -> String {
        format!(
            "<?xml version=\"1.0\"?><!-- a --><soapenv:Envelope a='>'><soapenv:Header/><soapenv:Body><updateResponse>{results}\
             </updateResponse></soapenv:Body></soapenv:Envelope>"
        )
    }

    const GOOD: &str = "<result><id>001</id><success>true</success></result>";
    const BAD: &str = "<result xsi:type=\"x>y\"><errors><fields>Name</fields><message>&lt;success>no</message>\
        <statusCode>REQUIRED_FIELD_MISSING</statusCode></errors><id xsi:nil=\"true\"/><success> false </success></result>";
    /// A record like it was found, which is a success of its own.
    const DUPLICATE: &str = "<sf:result><errors><duplicateResult><matchResults><success>true</success></matchResults></duplicateResult>\
        <statusCode>DUPLICATES_DETECTED</statusCode></errors><errors><statusCode>SECOND</statusCode></errors><success>false</success></sf:result>";

    /// Parts, those that failed, and place and code of each of those.
    type Told = (u32, u32, Vec<(u32, String)>);

    fn found<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Told> {
        let mut envelope = Envelope::default();
        pieces.into_iter().for_each(|piece| envelope.feed(piece));
        let found = envelope.found()?;
        Some((
            found.total,
            found.failed,
            found.list.iter().map(|failed| (failed.at, failed.code.to_string())).collect(),
        ))
    }

    #[test]
    fn records_that_failed_are_found_with_their_codes() {
        let seen = found([envelope(&[GOOD, BAD, GOOD, DUPLICATE].concat()).as_bytes()]).unwrap();
        let codes = vec![(1, "REQUIRED_FIELD_MISSING".to_owned()), (3, "DUPLICATES_DETECTED".to_owned())];
        assert_eq!(seen, (4, 2, codes));
        let query = "<result xsi:type=\"QueryResult\"><done>true</done><records><sf:success>false</sf:success></records></result>";
        assert_eq!(found([envelope(query).as_bytes()]), None, "rows are no results");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            results in prop::collection::vec(prop::sample::select(vec![GOOD, BAD, DUPLICATE, "<", ">", "<result", "</result>", "'", "\""]), 0..8),
            size in 1_usize..40,
        ) {
            let body = envelope(&results.concat());
            prop_assert_eq!(found(body.as_bytes().chunks(size)), found([body.as_bytes()]));
        }

        #[test]
        fn any_bytes_are_survived(body in prop::collection::vec(prop::sample::select(b"</>!?:\"' result-succ\xff".to_vec()), 0..200)) {
            let _ = found([body.as_slice()]);
        }
    }
}
