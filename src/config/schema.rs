//! The JSON Schema of the configuration, for editors and for the chart.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};

use super::file::ConfigFile;

/// Draft 7, which is what Helm understands.
pub fn schema() -> serde_json::Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<ConfigFile>();
    RecursiveTransform(tidy).transform(&mut schema);
    schema.to_value()
}

/// Makes reference text of doc comments: without line breaks and source marks, and without defaults that only say
/// that there is none.
fn tidy(schema: &mut Schema) {
    if let Some(serde_json::Value::String(text)) = schema.get_mut("description") {
        let mut tidied = text.replace("\n\n", "\u{0}").replace('\n', " ").replace('\u{0}', "\n\n");
        while let Some((start, end)) = source_mark(&tidied) {
            tidied.replace_range(start..end, "");
        }
        *text = tidied;
    }
    if schema.get("default").is_some_and(serde_json::Value::is_null) {
        schema.remove("default");
    }
}

/// Where ` (facts 1.3)` stands.
fn source_mark(text: &str) -> Option<(usize, usize)> {
    let start = text.find(" (facts ")?;
    let length = text.get(start..)?.find(')')?;
    Some((start, start + length + 1))
}
