//! The reference of the configuration for people, made from its schema: a table for each section, in the order in which a
//! file has them, and what kinds of values there are.
//!
//! Definitions whose names end in `File` are sections and stand where they are used; all others are kinds of values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// The longest default that is written out.
const LONGEST_DEFAULT: usize = 80;
/// So many words are shown at once instead of a link to them.
const FEW_WORDS: usize = 4;

const OPENING: &str = "# Configuration

Made from the types of the gateway by `weirkeeper schema --markdown`; do not edit. [weirkeeper.yaml](weirkeeper.yaml) shows the same as a file.
`[]` stands for each of a list, `NAME` for a name of your choice. Any key that does not stand here is refused.
";

/// The reference in Markdown, of [`super::schema`].
pub fn reference(schema: &Value) -> String {
    let none = Map::new();
    let definitions = schema.get("definitions").and_then(Value::as_object).unwrap_or(&none);
    let mut writer =
        Writer { definitions, sections: BTreeMap::new(), values: BTreeSet::new(), out: OPENING.to_owned() };
    writer.section("", schema, None);
    writer.values();
    writer.out
}

struct Writer<'a> {
    definitions: &'a Map<String, Value>,
    /// Where a section with these defaults stands.
    sections: BTreeMap<(&'a str, String), String>,
    /// Kinds of values to be explained.
    values: BTreeSet<&'a str>,
    out: String,
}

/// A section that still has to be written: its path, what it holds, and what it is if it is not given.
type Later<'a> = (String, &'a Value, Option<&'a Value>);

impl<'a> Writer<'a> {
    /// Writes the table of one section, and then those of the sections in it.
    fn section(&mut self, path: &str, schema: &'a Value, defaults: Option<&'a Value>) {
        if path.is_empty() {
            self.out.push_str("\n## The file\n\n");
        } else {
            let _ = write!(self.out, "\n## {path}\n\n");
        }
        let mut rows: Vec<(&'a String, &'a Value, &'a str, bool)> = Vec::new();
        for variant in variants(schema) {
            let about = if variants(schema).len() > 1 { text(variant, "description") } else { "" };
            let required: Vec<_> = list(variant, "required").filter_map(Value::as_str).collect();
            let properties = variant.get("properties").and_then(Value::as_object).into_iter().flatten();
            for (key, property) in properties {
                rows.push((key, property, about, about.is_empty() && required.contains(&key.as_str())));
            }
        }
        if variants(schema).len() > 1 {
            self.out.push_str("One of these:\n\n");
        } else if !text(schema, "description").is_empty() {
            let _ = write!(self.out, "{}\n\n", text(schema, "description"));
        }
        self.out.push_str("| key | value | default | meaning |\n|---|---|---|---|\n");
        let mut later = Vec::new();
        for (key, property, about, required) in rows {
            let within = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let default = defaults.and_then(|all| all.get(key)).or_else(|| property.get("default"));
            let kind = self.kind(&within, property, default, &mut later);
            let default = match default {
                _ if required => "required".to_owned(),
                Some(Value::Object(_)) | None => String::new(),
                Some(value) => shown(value),
            };
            let own = text(property, "description");
            let meaning = if own.is_empty() { about } else { own };
            let _ = writeln!(self.out, "| `{key}` | {kind} | {default} | {} |", cell(meaning));
        }
        for (path, schema, defaults) in later {
            self.section(&path, schema, defaults);
        }
    }

    /// What may be written as the value at `path`, in a few words.
    fn kind(
        &mut self,
        path: &str,
        schema: &'a Value,
        default: Option<&'a Value>,
        later: &mut Vec<Later<'a>>,
    ) -> String {
        if let Some((name, definition)) = self.referred(schema) {
            if name.ends_with("File") && !variants(definition).is_empty() {
                let key = (name, default.map(Value::to_string).unwrap_or_default());
                let place = self.sections.entry(key).or_insert_with(|| {
                    later.push((path.to_owned(), definition, default));
                    path.to_owned()
                });
                return format!("[its keys](#{})", anchor(place));
            }
            if name.ends_with("File") || name.starts_with("OneOrMany") {
                return self.kind(path, definition, default, later);
            }
            self.values.insert(name);
            let words: Vec<_> = words(definition).map(|(word, _)| format!("`{word}`")).collect();
            let few = (1..=FEW_WORDS).contains(&words.len()) && !list(definition, "anyOf").any(|_| true);
            let shown = if few { words.join(", ") } else { name.to_owned() };
            return format!("[{shown}](#{})", anchor(name));
        }
        if let Some(only) = list(schema, "allOf").next() {
            return self.kind(path, only, default, later);
        }
        let several: Vec<_> = list(schema, "oneOf").chain(list(schema, "anyOf")).collect();
        if variants(schema).len() > 1 {
            later.push((path.to_owned(), schema, default));
            return format!("[its keys](#{})", anchor(path));
        }
        if !several.is_empty() {
            let several = several.into_iter().filter(|one| !is_null(one) && !is_no_word(one));
            let mut kinds: Vec<_> = several.map(|one| self.kind(path, one, default, later)).collect();
            kinds.dedup();
            let only_words = kinds.iter().all(|kind| kind.starts_with('`') && !kind.contains(':'));
            return kinds.join(if only_words { ", " } else { " or " });
        }
        if let Some(word) = schema.get("const").and_then(Value::as_str) {
            return format!("`{word}`");
        }
        let types: Vec<_> = match schema.get("type") {
            Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect(),
            one => one.and_then(Value::as_str).into_iter().collect(),
        };
        match types.first().copied() {
            Some("boolean") => "`true`, `false`".to_owned(),
            Some("integer" | "number") => number(schema),
            Some("array") => {
                let items = schema.get("items").unwrap_or(&Value::Null);
                format!("list of {}", self.kind(&format!("{path}[]"), items, None, later))
            }
            Some("object") => self.map(path, schema, later),
            _ => self.like(text(schema, "pattern")),
        }
    }

    /// A map from names to values, or an object written in place.
    fn map(&mut self, path: &str, schema: &'a Value, later: &mut Vec<Later<'a>>) -> String {
        let by_pattern = schema.get("patternProperties").and_then(Value::as_object).and_then(|all| all.values().next());
        let values = by_pattern.or_else(|| schema.get("additionalProperties").filter(|values| values.is_object()));
        if let Some(values) = values {
            let name = schema.get("propertyNames").and_then(|names| self.referred(names)).map(|(name, _)| name);
            let by = match name {
                Some(name) => {
                    self.values.insert(name);
                    format!("[{name}](#{})", anchor(name))
                }
                None => "name".to_owned(),
            };
            return format!("by {by}: {}", self.kind(&format!("{path}.NAME"), values, None, later));
        }
        let properties = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
        let properties = properties
            .map(|(key, property)| format!("`{key}:` {}", self.kind(&format!("{path}.{key}"), property, None, later)));
        properties.collect::<Vec<_>>().join(", ")
    }

    /// The kind of value that is written like this.
    fn like(&mut self, pattern: &str) -> String {
        let same = |one: &(&'a String, &Value)| !pattern.is_empty() && text(one.1, "pattern") == pattern;
        match self.definitions.iter().find(same) {
            Some((name, _)) => {
                self.values.insert(name);
                format!("[{name}](#{})", anchor(name))
            }
            None => "text".to_owned(),
        }
    }

    /// Explains the kinds of values that were met.
    fn values(&mut self) {
        self.out.push_str("\n# Values\n");
        while let Some(name) = self.values.pop_first() {
            let Some(definition) = self.definitions.get(name) else { continue };
            let _ = write!(self.out, "\n## {name}\n\n{}\n", text(definition, "description"));
            let mut listed = Vec::new();
            for (word, about) in words(definition) {
                let colon = if about.is_empty() { "" } else { ": " };
                listed.push(format!("- `{word}`{colon}{about}"));
            }
            for variant in variants(definition) {
                for key in
                    variant.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(key, _)| key)
                {
                    listed.push(format!("- `{{{key}: …}}`: {}", text(variant, "description")));
                }
            }
            for one in
                list(definition, "anyOf").filter(|one| one.get("type").and_then(Value::as_str) == Some("integer"))
            {
                listed.push(format!("- {}", number(one)));
            }
            if !listed.is_empty() {
                let _ = write!(self.out, "\n{}\n", listed.join("\n"));
            }
        }
    }

    /// The definition that a schema refers to.
    fn referred(&self, schema: &'a Value) -> Option<(&'a str, &'a Value)> {
        let name = schema.get("$ref")?.as_str()?.rsplit('/').next()?;
        Some((name, self.definitions.get(name)?))
    }
}

/// The objects that a schema allows, if it allows any: itself, or several of which one is written.
fn variants(schema: &Value) -> Vec<&Value> {
    if schema.get("properties").is_some() {
        return vec![schema];
    }
    list(schema, "oneOf").filter(|one| one.get("properties").is_some()).collect()
}

/// The words of a closed list, and what each means.
fn words(schema: &Value) -> impl Iterator<Item = (&str, &str)> {
    let all = list(schema, "oneOf").chain(list(schema, "anyOf"));
    all.filter_map(|one| Some((one.get("const")?.as_str()?, text(one, "description"))))
}

fn list<'a>(schema: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    schema.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(schema: &'a Value, key: &str) -> &'a str {
    schema.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is_null(schema: &Value) -> bool {
    text(schema, "type") == "null"
}

/// What an editor takes for a word that it is not: an unquoted `off`.
fn is_no_word(schema: &Value) -> bool {
    schema.get("const").is_some_and(|word| !word.is_string())
}

fn number(schema: &Value) -> String {
    let bound = |key: &str| schema.get(key).filter(|bound| bound.is_number());
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => format!("number, {least} to {most}"),
        (Some(least), None) => format!("number, at least {least}"),
        _ => "number".to_owned(),
    }
}

/// A default, if it is short enough.
fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => return String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.len() <= LONGEST_DEFAULT { format!("`{}`", cell(&text)) } else { "see the file".to_owned() }
}

fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|")
}

/// How links name a heading: in lower case, without dots and brackets.
fn anchor(heading: &str) -> String {
    heading.to_lowercase().chars().filter(|char| char.is_alphanumeric() || matches!(char, '_' | '-')).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::schema;

    /// Every key below `value` for which the schema has a description, as `key` cells of rows.
    fn keys<'a>(value: &'a Value, found: &mut HashSet<&'a str>) {
        if let Some(properties) = value.get("properties").and_then(Value::as_object) {
            found.extend(properties.keys().map(String::as_str));
        }
        match value {
            Value::Object(members) => members.values().for_each(|inner| keys(inner, found)),
            Value::Array(items) => items.iter().for_each(|inner| keys(inner, found)),
            _ => {}
        }
    }

    #[test]
    fn every_key_of_the_schema_has_its_place() {
        let schema = schema();
        let text = reference(&schema);
        let mut all = HashSet::new();
        keys(&schema, &mut all);
        assert!(all.len() > 100, "{}", all.len());
        for key in all {
            let named = [format!("| `{key}` |"), format!("`{key}:`"), format!("`{{{key}: ")];
            assert!(named.iter().any(|named| text.contains(named)), "{key} is nowhere");
        }
    }

    #[test]
    fn every_link_leads_to_a_heading_and_no_heading_stands_twice() {
        let text = reference(&schema());
        let mut headings = HashSet::new();
        for heading in text.lines().filter_map(|line| line.strip_prefix("## ")) {
            assert!(headings.insert(anchor(heading)), "{heading} stands twice");
        }
        let links: Vec<_> = text.split("](#").skip(1).filter_map(|rest| rest.split(')').next()).collect();
        assert!(links.len() > 100);
        for link in links {
            assert!(headings.contains(link), "#{link} leads nowhere");
        }
    }

    #[test]
    fn a_row_says_kind_default_and_meaning() {
        let text = reference(&schema());
        for row in [
            "| `head_time` | [Duration](#duration) | `10s` |",
            "| `orgs` | list of [its keys](#orgs) | required |",
            "| `class` | [`interactive`, `standard`, `batch`](#class) |  | How urgent its calls are",
            "| `streams` | number, ",
            "## callers[].match\n\nOne of these:",
        ] {
            assert!(text.contains(row), "{row}\n{text}");
        }
        for row in text.lines().filter(|line| line.starts_with("| ")) {
            let cells = row.replace("\\|", "").matches('|').count();
            assert_eq!(cells, 5, "{row}");
        }
    }
}
