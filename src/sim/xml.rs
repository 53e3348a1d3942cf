//! Just enough XML for SOAP envelopes and Bulk jobs: elements by local name, text, no attributes.

/// An element.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Element {
    /// Name without its prefix.
    pub(super) name: String,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
    /// Whether it says `xsi:nil="true"`.
    pub(super) nil: bool,
}

/// Elements deeper than this are refused.
const DEEPEST: usize = 50;

impl Element {
    pub(super) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of a child.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim())
    }

    /// All children of this name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// Reads a document; `None` if it is not well formed.
pub(super) fn parse(text: &str) -> Option<Element> {
    let mut stack: Vec<Element> = vec![Element::default()];
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        let top = stack.last_mut()?;
        top.text.push_str(&unescape(&rest[..start])?);
        rest = &rest[start..];
        if let Some(after) = rest.strip_prefix("<?") {
            rest = &after[after.find("?>")? + 2..];
        } else if let Some(after) = rest.strip_prefix("<!--") {
            rest = &after[after.find("-->")? + 3..];
        } else if let Some(after) = rest.strip_prefix("<![CDATA[") {
            let end = after.find("]]>")?;
            top.text.push_str(&after[..end]);
            rest = &after[end + 3..];
        } else if rest.starts_with("<!") {
            // Document types can define entities that expand without end.
            return None;
        } else if let Some(after) = rest.strip_prefix("</") {
            let end = after.find('>')?;
            let element = stack.pop()?;
            if local(after[..end].trim()) != element.name {
                return None;
            }
            stack.last_mut()?.children.push(element);
            rest = &after[end + 1..];
        } else {
            let end = tag_end(rest)?;
            let tag = rest[1..end].trim_end_matches('/').trim();
            let name = local(tag.split_whitespace().next()?);
            let nil = tag.contains(":nil=\"true\"") || tag.contains(":nil='true'");
            let element = Element { name: name.to_owned(), nil, ..Element::default() };
            if rest[..end].ends_with('/') {
                top.children.push(element);
            } else {
                stack.push(element);
                if stack.len() > DEEPEST {
                    return None;
                }
            }
            rest = &rest[end + 1..];
        }
    }
    let mut root = stack.pop()?;
    if !stack.is_empty() || root.children.len() != 1 {
        return None;
    }
    root.children.pop()
}

/// The place of the `>` that ends a tag; quotes may hide others.
fn tag_end(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (c, quote) {
            ('>', None) => return Some(at),
            ('"' | '\'', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn unescape(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('&') {
        out.push_str(&rest[..start]);
        let end = rest[start..].find(';').filter(|length| *length <= 10)? + start;
        match &rest[start + 1..end] {
            "lt" => out.push('<'),
            "gt" => out.push('>'),
            "amp" => out.push('&'),
            "quot" => out.push('"'),
            "apos" => out.push('\''),
            code => {
                let number = code.strip_prefix('#')?;
                let value = match number.strip_prefix('x') {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                out.push(char::from_u32(value)?);
            }
        }
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Some(out)
}

/// Text safe inside an element.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Appends `<name>`.
pub(super) fn open(out: &mut String, name: &str) {
    out.extend(["<", name, ">"]);
}

/// Appends `</name>`.
pub(super) fn close(out: &mut String, name: &str) {
    out.extend(["</", name, ">"]);
}

/// Appends `<name>text</name>`.
pub(super) fn put(out: &mut String, name: &str, text: &str) {
    open(out, name);
    out.push_str(&escape(text));
    close(out, name);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_found_by_local_name() {
        let text = "<?xml version='1.0'?><e:Env xmlns:e=\"a>b\"><e:Body><x a='1'>1 &lt; <![CDATA[<2>]]></x><y xsi:nil=\"true\"/></e:Body></e:Env>";
        let root = parse(text).unwrap();
        assert_eq!(root.name, "Env");
        let body = root.child("Body").unwrap();
        assert_eq!(body.value("x"), Some("1 < <2>"));
        assert!(body.child("y").unwrap().nil);
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        for text in
            ["", "<a>", "<a></b>", "<a/><b/>", "<!DOCTYPE a [<!ENTITY x 'y'>]><a>&x;</a>", "<a>&x;</a>", "<a", "</a>"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"<a>".repeat(10_000)), None);
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(<|>|/|a|:|!|\\[|\\]|CDATA|&|;|#|x|'|\"|-|\\?|é){0,60}") {
            let _read = parse(&text);
        }
    }
}
