//! The JSON Schema of the configuration, for editors and for the chart.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use serde_json::{Value, json};

use super::file::ConfigFile;

/// Draft 7, which is what Helm understands.
pub fn schema() -> Value {
    let mut schema = SchemaSettings::draft07().into_generator().into_root_schema_for::<ConfigFile>();
    RecursiveTransform(tidy).transform(&mut schema);
    schema.to_value()
}

/// Makes reference text of doc comments, without line breaks and source marks, and says which keys must be given.
fn tidy(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        let mut tidied = text.replace("\n\n", "\u{0}").replace('\n', " ").replace('\u{0}', "\n\n");
        while let Some((start, end)) = source_mark(&tidied) {
            tidied.replace_range(start..end, "");
        }
        *text = tidied;
    }
    if let Some(Value::Array(variants)) = schema.get_mut("oneOf")
        && variants.iter().any(|variant| variant.get("const") == Some(&Value::from("off")))
    {
        let description = "What YAML 1.1 makes of an unquoted `off`.";
        variants.push(json!({ "const": false, "type": "boolean", "description": description }));
    }
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    let mut required = Vec::new();
    for (key, property) in properties {
        let Some(property) = property.as_object_mut() else { continue };
        // A key that must be given still has a default for Serde, which the schema itself would refuse.
        let refused = match property.get("default") {
            None | Some(Value::Null) => true,
            Some(default) => property.contains_key("minItems") && *default == Value::Array(Vec::new()),
        };
        if refused {
            property.remove("default");
            if !admits_null(property) {
                required.push(Value::from(key.as_str()));
            }
        }
    }
    if !required.is_empty() {
        schema.insert("required".to_owned(), Value::Array(required));
    }
}

/// Whether a property may be null, which is how schemars says `Option`.
fn admits_null(property: &serde_json::Map<String, Value>) -> bool {
    let null = Value::from("null");
    let is_null = |schema: &Value| schema.get("type") == Some(&null);
    property.get("type").and_then(Value::as_array).is_some_and(|types| types.contains(&null))
        || property.get("anyOf").and_then(Value::as_array).is_some_and(|any| any.iter().any(is_null))
}

/// Where ` (facts 1.3)` stands.
fn source_mark(text: &str) -> Option<(usize, usize)> {
    let start = text.find(" (facts ")?;
    let length = text.get(start..)?.find(')')?;
    Some((start, start + length + 1))
}
