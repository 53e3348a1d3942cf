//! A small scanner for the XML of SOAP and Bulk v1.
//!
//! It knows elements, text, CDATA, comments and processing instructions; it checks that tags match and refuses document
//! types, unknown entities and encodings in which other bytes could mean other tags. No namespaces: elements are told
//! apart by their local names, whatever prefix a client picked.

use std::borrow::Cow;

use memchr::{memchr, memchr3, memmem};
use smallvec::SmallVec;

/// Nesting that is followed; envelopes need about eight levels.
const MAX_DEPTH: usize = 64;

/// Why a document is not read further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XmlError {
    /// Not well-formed, as far as this scanner checks, or in an encoding it does not read.
    Malformed,
    /// The document ends inside an element.
    Truncated,
    /// It has a document type, which could define anything.
    Doctype,
    /// Elements are nested too deeply.
    TooDeep,
}

/// One step through a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    /// A start tag: local name and raw attributes.
    Start { name: &'a [u8], attributes: &'a [u8] },
    /// An end tag, or the end of `<name/>`: local name.
    End { name: &'a [u8] },
    /// Text with its entities as they stand.
    Text(&'a [u8]),
    /// The inside of a CDATA section.
    Literal(&'a [u8]),
}

/// Reads a document step by step.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    rest: &'a [u8],
    open: SmallVec<[&'a [u8]; 16]>,
    /// The element `<name/>` that was opened by the last step.
    empty: bool,
}

impl<'a> Scanner<'a> {
    pub(crate) fn new(document: &'a [u8]) -> Self {
        Self { rest: document.strip_prefix(b"\xef\xbb\xbf").unwrap_or(document), open: SmallVec::new(), empty: false }
    }

    /// Bytes of the document that have not been read yet.
    pub(crate) fn left(&self) -> usize {
        self.rest.len()
    }

    /// Elements that are open.
    pub(crate) fn depth(&self) -> usize {
        self.open.len()
    }

    /// The next step; `None` after the last element has ended.
    pub(crate) fn next(&mut self) -> Result<Option<Event<'a>>, XmlError> {
        if std::mem::take(&mut self.empty) {
            let name = self.open.pop().ok_or(XmlError::Malformed)?;
            return Ok(Some(Event::End { name: local(name) }));
        }
        loop {
            let Some(&first) = self.rest.first() else {
                return if self.open.is_empty() { Ok(None) } else { Err(XmlError::Truncated) };
            };
            if first != b'<' {
                let end = memchr(b'<', self.rest).unwrap_or(self.rest.len());
                let text = self.take(end);
                if self.open.is_empty() {
                    if text.iter().all(u8::is_ascii_whitespace) {
                        continue;
                    }
                    return Err(XmlError::Malformed);
                }
                return Ok(Some(Event::Text(text)));
            }
            match self.rest.get(1) {
                Some(b'!') => {
                    if self.rest.starts_with(b"<!--") {
                        self.until(4, b"-->")?;
                    } else if self.rest.starts_with(b"<![CDATA[") && !self.open.is_empty() {
                        return Ok(Some(Event::Literal(self.until(9, b"]]>")?)));
                    } else if self.rest.get(2..9).is_some_and(|word| word.eq_ignore_ascii_case(b"DOCTYPE")) {
                        return Err(XmlError::Doctype);
                    } else {
                        return Err(self.cut_or_malformed(9));
                    }
                }
                Some(b'?') => {
                    let instruction = self.until(2, b"?>")?;
                    if !encoding_is_plain(instruction) {
                        return Err(XmlError::Malformed);
                    }
                }
                Some(b'/') => return self.end_tag().map(Some),
                Some(_) => return self.start_tag().map(Some),
                None => return Err(XmlError::Truncated),
            }
        }
    }

    /// The text of the element that was just started, up to its end tag; elements inside it are an error.
    pub(crate) fn text(&mut self) -> Result<Cow<'a, str>, XmlError> {
        let mut text = Cow::Borrowed("");
        loop {
            let piece = match self.next()?.ok_or(XmlError::Truncated)? {
                Event::End { .. } => return Ok(text),
                Event::Start { .. } => return Err(XmlError::Malformed),
                Event::Text(raw) => unescape(raw)?,
                Event::Literal(raw) => Cow::Borrowed(std::str::from_utf8(raw).map_err(|_| XmlError::Malformed)?),
            };
            if text.is_empty() {
                text = piece;
            } else {
                text.to_mut().push_str(&piece);
            }
        }
    }

    /// Passes over the rest of the element that was just started.
    pub(crate) fn skip(&mut self) -> Result<(), XmlError> {
        let outside = self.depth().saturating_sub(1);
        while self.depth() > outside {
            if self.next()?.is_none() {
                return Err(XmlError::Truncated);
            }
        }
        Ok(())
    }

    fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// Takes `skip` bytes and everything through `end`; returns what stands between.
    fn until(&mut self, skip: usize, end: &[u8]) -> Result<&'a [u8], XmlError> {
        let inner = self.rest.get(skip..).ok_or(XmlError::Truncated)?;
        let length = memmem::find(inner, end).ok_or(XmlError::Truncated)?;
        self.take(skip + length + end.len());
        Ok(inner.get(..length).unwrap_or_default())
    }

    fn cut_or_malformed(&self, needed: usize) -> XmlError {
        if self.rest.len() < needed { XmlError::Truncated } else { XmlError::Malformed }
    }

    fn end_tag(&mut self) -> Result<Event<'a>, XmlError> {
        let length = memchr(b'>', self.rest).ok_or(XmlError::Truncated)?;
        let tag = self.take(length + 1);
        let name = tag.get(2..length).unwrap_or_default().trim_ascii_end();
        if self.open.pop() != Some(name) {
            return Err(XmlError::Malformed);
        }
        Ok(Event::End { name: local(name) })
    }

    fn start_tag(&mut self) -> Result<Event<'a>, XmlError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(XmlError::TooDeep);
        }
        let length = tag_length(self.rest)?;
        let tag = self.take(length);
        let inner = tag.get(1..length.saturating_sub(1)).unwrap_or_default();
        let (inner, empty) = inner.strip_suffix(b"/").map_or((inner, false), |inner| (inner, true));
        let name_length = inner.iter().position(u8::is_ascii_whitespace).unwrap_or(inner.len());
        let (name, attributes) = inner.split_at(name_length);
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(byte) || *byte >= 0x80;
        if name.is_empty() || !name.iter().all(valid) {
            return Err(XmlError::Malformed);
        }
        self.open.push(name);
        self.empty = empty;
        Ok(Event::Start { name: local(name), attributes })
    }
}

/// Length of the start tag at the front of `bytes`; `>` inside a quoted value does not end it.
fn tag_length(bytes: &[u8]) -> Result<usize, XmlError> {
    let mut at = 1;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let offset = memchr3(b'>', b'"', b'\'', rest).ok_or(XmlError::Truncated)?;
        at += offset + 1;
        match rest.get(offset) {
            Some(b'>') | None => return Ok(at),
            Some(quote) => {
                let value = rest.get(offset + 1..).unwrap_or_default();
                at += memchr(*quote, value).ok_or(XmlError::Truncated)? + 1;
            }
        }
    }
}

fn local(name: &[u8]) -> &[u8] {
    memchr(b':', name).and_then(|at| name.get(at + 1..)).unwrap_or(name)
}

/// The raw value of the attribute with the local name `wanted`.
pub(crate) fn attribute<'a>(mut attributes: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    loop {
        let equals = memchr(b'=', attributes)?;
        let (name, rest) = attributes.split_at(equals);
        let rest = rest.get(1..)?.trim_ascii_start();
        let (quote, rest) = rest.split_first().filter(|(quote, _)| matches!(quote, b'"' | b'\''))?;
        let end = memchr(*quote, rest)?;
        if local(name.trim_ascii()) == wanted {
            return rest.get(..end);
        }
        attributes = rest.get(end + 1..)?;
    }
}

/// Whether an XML declaration leaves ASCII bytes their meaning.
fn encoding_is_plain(instruction: &[u8]) -> bool {
    if !instruction.starts_with(b"xml") {
        return true;
    }
    let Some(encoding) = attribute(instruction.get(3..).unwrap_or_default(), b"encoding") else { return true };
    [&b"UTF-8"[..], b"US-ASCII", b"ISO-8859-1", b"WINDOWS-1252"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(encoding))
}

/// Replaces the five named entities and character references.
fn unescape(raw: &[u8]) -> Result<Cow<'_, str>, XmlError> {
    let raw = std::str::from_utf8(raw).map_err(|_| XmlError::Malformed)?;
    if !raw.contains('&') {
        return Ok(Cow::Borrowed(raw));
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((plain, more)) = rest.split_once('&') {
        text.push_str(plain);
        // A reference is at most `#x10FFFF` long; a longer search would make many `&` cost quadratic time.
        let semicolon = more.bytes().take(10).position(|byte| byte == b';').ok_or(XmlError::Malformed)?;
        text.push(character(more.get(..semicolon).unwrap_or_default()).ok_or(XmlError::Malformed)?);
        rest = more.get(semicolon + 1..).unwrap_or_default();
    }
    text.push_str(rest);
    Ok(Cow::Owned(text))
}

fn character(reference: &str) -> Option<char> {
    match reference {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => {
            let number = reference.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                None => number.parse().ok()?,
            };
            char::from_u32(code).filter(|character| *character != '\0')
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(document: &str) -> Result<Vec<String>, XmlError> {
        let mut scanner = Scanner::new(document.as_bytes());
        let mut found = Vec::new();
        while let Some(event) = scanner.next()? {
            found.push(match event {
                Event::Start { name, .. } => format!("+{}", String::from_utf8_lossy(name)),
                Event::End { name } => format!("-{}", String::from_utf8_lossy(name)),
                Event::Text(text) => format!("t{}", String::from_utf8_lossy(text)),
                Event::Literal(text) => format!("c{}", String::from_utf8_lossy(text)),
            });
        }
        Ok(found)
    }

    #[test]
    fn steps_through_a_document() {
        assert_eq!(
            names("\u{feff}<?xml version=\"1.0\"?><!-- <x> --><a:b c='>'>t<![CDATA[<d>]]><e/></a:b >\n").unwrap(),
            ["+b", "tt", "c<d>", "+e", "-e", "-b"]
        );
    }

    #[test]
    fn what_is_not_plain_xml_is_refused() {
        for (document, error) in [
            ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", XmlError::Doctype),
            ("<!doctype a><a/>", XmlError::Doctype),
            ("<a><b></a></b>", XmlError::Malformed),
            ("<a", XmlError::Truncated),
            ("<a>", XmlError::Truncated),
            ("<a b='>", XmlError::Truncated),
            ("<!ELEMENT a>", XmlError::Malformed),
            ("text", XmlError::Malformed),
            ("<a\0/>", XmlError::Malformed),
            ("<?xml version='1.0' encoding='UTF-16'?><a/>", XmlError::Malformed),
            ("<?xml version='1.0' encoding='IBM037'?><a/>", XmlError::Malformed),
        ] {
            assert_eq!(names(document), Err(error), "{document}");
        }
        assert_eq!(names(&"<a>".repeat(100)), Err(XmlError::TooDeep));
    }

    #[test]
    fn text_joins_its_pieces() {
        let mut scanner = Scanner::new(b"<a>x &lt;&#65;&#x42;<!-- - --><![CDATA[&c]]></a>");
        scanner.next().unwrap();
        assert_eq!(scanner.text().unwrap(), "x <AB&c");
        let mut scanner = Scanner::new(b"<a>&nbsp;</a>");
        scanner.next().unwrap();
        assert_eq!(scanner.text(), Err(XmlError::Malformed));
    }

    #[test]
    fn attributes_are_found_by_local_name() {
        assert_eq!(attribute(b" a = '1' xsi:type=\"ens:Account\"", b"type"), Some(&b"ens:Account"[..]));
        assert_eq!(attribute(b" type", b"type"), None);
        assert_eq!(attribute(b" x='type=' type=b", b"type"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut scanner = Scanner::new(&bytes);
            while let Ok(Some(_)) = scanner.next() {}
        }
    }
}
