//! Holds JSON against the schemas of an OpenAPI document. Knows the part of JSON Schema that ours uses, and complains of
//! any other word, so that nothing is passed over in silence.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Words that constrain nothing.
const REMARKS: [&str; 6] = ["description", "title", "format", "default", "example", "examples"];

/// How deep schemas may nest.
const DEEPEST: usize = 32;

/// A document, and what it says of values.
#[derive(Debug, Clone)]
pub struct Schemas {
    document: Value,
}

/// An object's schema with everything that `$ref` and `allOf` bring together.
#[derive(Debug, Default)]
struct ObjectSchema {
    properties: BTreeMap<String, Value>,
    required: BTreeSet<String>,
    additional: Option<Value>,
}

impl Schemas {
    pub fn of(document: Value) -> Self {
        Schemas { document }
    }

    pub fn document(&self) -> &Value {
        &self.document
    }

    /// What is wrong with `value` by `schema`, each with its place; empty: it is right. A property that an object's
    /// schema does not name is wrong, unless the schema says what others may be.
    pub fn problems(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        self.check(schema, value, "$", 0, &mut problems);
        problems
    }

    fn check(&self, schema: &Value, value: &Value, place: &str, depth: usize, problems: &mut Vec<String>) {
        let Some(words) = schema.as_object() else {
            return problems.push(format!("{place}: the schema {schema} is no object"));
        };
        if depth > DEEPEST {
            return problems.push(format!("{place}: the schema nests too deep"));
        }
        if let Some(target) = words.get("$ref") {
            match self.resolve(target) {
                Some(target) => self.check(target, value, place, depth + 1, problems),
                None => problems.push(format!("{place}: {target} leads nowhere")),
            }
            return;
        }
        for (word, content) in words {
            match word.as_str() {
                word if REMARKS.contains(&word) => {}
                "type" => check_type(content, value, place, problems),
                "enum" => {
                    let is_listed = content.as_array().is_some_and(|listed| listed.contains(value));
                    complain_unless(is_listed, || format!("{place}: {value} is none of {content}"), problems);
                }
                "minimum" => {
                    let is_enough = value.as_f64() >= content.as_f64() || !value.is_number();
                    complain_unless(is_enough, || format!("{place}: {value} is below {content}"), problems);
                }
                "maximum" => {
                    let is_enough = value.as_f64() <= content.as_f64() || !value.is_number();
                    complain_unless(is_enough, || format!("{place}: {value} is above {content}"), problems);
                }
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(content, item, &format!("{place}[{index}]"), depth + 1, problems);
                    }
                }
                "oneOf" => self.check_one_of(content, value, place, depth, problems),
                "properties" | "required" | "additionalProperties" | "propertyNames" | "allOf" => {}
                other => problems.push(format!("{place}: this kit does not know the word {other}")),
            }
        }
        let is_of_objects = ["properties", "required", "additionalProperties", "allOf"];
        if let Some(object) = value.as_object().filter(|_| is_of_objects.iter().any(|word| words.contains_key(*word))) {
            let mut gathered = ObjectSchema::default();
            self.gather(schema, depth, &mut gathered);
            self.check_object(&gathered, object, place, depth, problems);
        } else if words.contains_key("allOf") {
            problems.push(format!("{place}: {value} is no object"));
        }
    }

    fn check_one_of(&self, choices: &Value, value: &Value, place: &str, depth: usize, problems: &mut Vec<String>) {
        let fits = |choice: &&Value| {
            let mut found = Vec::new();
            self.check(choice, value, place, depth + 1, &mut found);
            found.is_empty()
        };
        let fitting = choices.as_array().into_iter().flatten().filter(fits).count();
        complain_unless(fitting == 1, || format!("{place}: {value} fits {fitting} of {choices}"), problems);
    }

    fn check_object(
        &self,
        schema: &ObjectSchema,
        object: &Map<String, Value>,
        place: &str,
        depth: usize,
        problems: &mut Vec<String>,
    ) {
        for name in schema.required.iter().filter(|name| !object.contains_key(*name)) {
            problems.push(format!("{place}: {name} is missing"));
        }
        for (name, value) in object {
            let place = format!("{place}.{name}");
            match (schema.properties.get(name), &schema.additional) {
                (Some(known), _) => self.check(known, value, &place, depth + 1, problems),
                (None, Some(Value::Bool(true))) => {}
                (None, Some(others)) if others.is_object() => self.check(others, value, &place, depth + 1, problems),
                (None, _) => problems.push(format!("{place} is not described")),
            }
        }
    }

    fn gather(&self, schema: &Value, depth: usize, gathered: &mut ObjectSchema) {
        if depth > DEEPEST {
            return;
        }
        if let Some(target) = schema.get("$ref").and_then(|target| self.resolve(target)) {
            return self.gather(target, depth + 1, gathered);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.gather(part, depth + 1, gathered);
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            gathered.properties.insert(name.clone(), property.clone());
        }
        let required = schema["required"].as_array().into_iter().flatten();
        gathered.required.extend(required.filter_map(Value::as_str).map(str::to_owned));
        if let Some(additional) = schema.get("additionalProperties") {
            gathered.additional = Some(additional.clone());
        }
    }

    fn resolve(&self, target: &Value) -> Option<&Value> {
        self.document.pointer(target.as_str()?.strip_prefix('#')?)
    }
}

fn complain_unless(is_right: bool, complaint: impl FnOnce() -> String, problems: &mut Vec<String>) {
    if !is_right {
        problems.push(complaint());
    }
}

/// One name of a type, or several.
fn check_type(content: &Value, value: &Value, place: &str, problems: &mut Vec<String>) {
    let names: Vec<&str> = match content {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect(),
    };
    let is_of = |name: &&str| match *name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    };
    complain_unless(names.iter().any(is_of), || format!("{place}: {value} is no {content}"), problems);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_found() {
        let schemas = Schemas::of(json!({ "components": { "schemas": {
            "Name": { "type": "string", "enum": ["a", "b"] },
            "Base": { "type": "object", "required": ["id"], "properties": { "id": { "type": "integer", "minimum": 1 } } },
        } } }));
        let whole = json!({ "allOf": [
            { "$ref": "#/components/schemas/Base" },
            { "type": "object", "required": ["name"], "properties": {
                "name": { "$ref": "#/components/schemas/Name" },
                "maybe": { "oneOf": [{ "type": "null" }, { "$ref": "#/components/schemas/Base" }] },
                "list": { "type": "array", "items": { "type": ["string", "null"] } },
                "counts": { "type": "object", "additionalProperties": { "type": "integer" } },
            } },
        ] });
        for right in [
            json!({ "id": 1, "name": "a" }),
            json!({ "id": 1, "name": "b", "maybe": null, "list": ["x", null], "counts": { "any": 3 } }),
            json!({ "id": 1, "name": "b", "maybe": { "id": 2 } }),
        ] {
            assert_eq!(schemas.problems(&whole, &right), [""; 0], "{right}");
        }
        for wrong in [
            json!([]),
            json!({ "name": "a" }),
            json!({ "id": 1 }),
            json!({ "id": 0, "name": "a" }),
            json!({ "id": "1", "name": "a" }),
            json!({ "id": 1, "name": "c" }),
            json!({ "id": 1, "name": "a", "other": 1 }),
            json!({ "id": 1, "name": "a", "maybe": {} }),
            json!({ "id": 1, "name": "a", "list": [1] }),
            json!({ "id": 1, "name": "a", "counts": { "any": "3" } }),
        ] {
            assert_eq!(schemas.problems(&whole, &wrong).len(), 1, "{wrong}: {:?}", schemas.problems(&whole, &wrong));
        }
        assert_eq!(schemas.problems(&json!({ "const": 1 }), &json!(1)).len(), 1, "a word that is not known");
        assert_eq!(schemas.problems(&json!({ "$ref": "#/nowhere" }), &json!(1)).len(), 1);
    }
}
