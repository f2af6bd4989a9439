//! JSON schemas of parameters, enforced. The only module that knows the validator's crate.
//!
//! What old clients rely on stays: parameters are flat objects, a form is made of `properties`, and values may come
//! in as text because a command line has nothing else. What the old service only published holds now: types,
//! enumerations, required members, defaults; and a member that `properties` does not name is refused unless
//! `additionalProperties` says otherwise.

use std::fmt;

use jsonschema::Validator;
use jsonschema::error::{TypeKind, ValidationError, ValidationErrorKind};
use serde_json::{Map, Value};

/// A schema that is ready to be applied.
#[derive(Debug)]
pub struct Schema {
    properties: Map<String, Value>,
    /// Everything holds.
    whole: Validator,
    /// Everything but that required members are there.
    given: Validator,
}

/// Why an object does not follow its schema, or a schema is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    reasons: Vec<String>,
}

impl Violation {
    fn new(reason: impl Into<String>) -> Self {
        Self { reasons: vec![reason.into()] }
    }

    /// Returns each thing that is wrong, naming its member.
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join("; "))
    }
}

impl std::error::Error for Violation {}

impl Schema {
    /// Prepares a schema: an object with `properties`, or `{}` for anything.
    ///
    /// # Errors
    /// [`Violation`] when it is not a valid schema, refers to something outside itself, or one of its defaults
    /// does not follow it.
    pub fn compile(schema: &Value) -> Result<Self, Violation> {
        let Value::Object(members) = schema else {
            return Err(Violation::new("a schema must be a JSON object"));
        };
        let mut members = members.clone();
        let properties = match members.get("properties") {
            None => Map::new(),
            Some(Value::Object(properties)) => properties.clone(),
            Some(_) => return Err(Violation::new("`properties` must be an object")),
        };
        if members.contains_key("properties") && !members.contains_key("additionalProperties") {
            members.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        let whole = validator(&Value::Object(members.clone()))?;
        members.remove("required");
        let given = validator(&Value::Object(members))?;
        let compiled = Self { properties, whole, given };
        let defaults = compiled.with_defaults(Map::new());
        validate(&compiled.given, &defaults, &compiled.properties)
            .map_err(|err| Violation::new(format!("a default does not follow the schema: {err}")))?;
        Ok(compiled)
    }

    /// Checks an object wholly, turns texts into what is wanted, and fills in defaults.
    ///
    /// # Errors
    /// [`Violation`] names every member at fault and what is allowed.
    pub fn check(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, Violation> {
        let filled = self.with_defaults(self.coerced(given));
        validate(&self.whole, &filled, &self.properties)?;
        Ok(filled)
    }

    /// Checks what is given, without asking for what is not, and turns texts into what is wanted.
    ///
    /// # Errors
    /// [`Violation`] names every member at fault and what is allowed.
    pub fn check_given(&self, given: &Map<String, Value>) -> Result<Map<String, Value>, Violation> {
        let coerced = self.coerced(given);
        validate(&self.given, &coerced, &self.properties)?;
        Ok(coerced)
    }

    fn with_defaults(&self, mut members: Map<String, Value>) -> Map<String, Value> {
        for (name, property) in &self.properties {
            // A null default means that there is none: old schemas write it for their forms.
            if let Some(default) = property.get("default").filter(|default| !default.is_null())
                && !members.contains_key(name)
            {
                members.insert(name.clone(), default.clone());
            }
        }
        members
    }

    fn coerced(&self, given: &Map<String, Value>) -> Map<String, Value> {
        let convert = |(name, value): (&String, &Value)| {
            let wanted = self.properties.get(name).map(wanted_types).unwrap_or_default();
            (name.clone(), coerce(value, &wanted).unwrap_or_else(|| value.clone()))
        };
        given.iter().map(convert).collect()
    }
}

/// Returns the types that a property's schema names.
fn wanted_types(property: &Value) -> Vec<&str> {
    match property.get("type") {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// Returns what a text stands for where something else than text is wanted.
fn coerce(value: &Value, wanted: &[&str]) -> Option<Value> {
    let text = value.as_str()?.trim();
    if wanted.contains(&"string") {
        return None;
    }
    for kind in wanted {
        let converted = match *kind {
            "boolean" if text.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
            "boolean" if text.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
            "integer" => integer(text),
            "number" => integer(text).or_else(|| text.parse::<f64>().ok().map(Value::from)),
            "array" => serde_json::from_str::<Value>(text).ok().filter(Value::is_array),
            "object" => serde_json::from_str::<Value>(text).ok().filter(Value::is_object),
            _ => None,
        };
        // A number that JSON does not have ("NaN") became null.
        if let Some(converted) = converted.filter(|converted| !converted.is_null()) {
            return Some(converted);
        }
    }
    None
}

fn integer(text: &str) -> Option<Value> {
    text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
}

fn validator(schema: &Value) -> Result<Validator, Violation> {
    jsonschema::validator_for(schema).map_err(|err| Violation::new(format!("not a valid schema: {err}")))
}

fn validate(
    validator: &Validator,
    members: &Map<String, Value>,
    properties: &Map<String, Value>,
) -> Result<(), Violation> {
    let instance = Value::Object(members.clone());
    let reasons: Vec<String> = validator.iter_errors(&instance).map(|err| reason(&err, properties)).collect();
    if reasons.is_empty() { Ok(()) } else { Err(Violation { reasons }) }
}

/// Says what is wrong with which member and what is allowed. The given value is not repeated: it may be a
/// secret.
fn reason(err: &ValidationError<'_>, properties: &Map<String, Value>) -> String {
    let place = err.instance_path().to_string();
    let member = place.trim_start_matches('/').replace('/', ".");
    match err.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            let known: Vec<&str> = properties.keys().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            format!("unknown member `{}`; allowed are: {known}", unexpected.join("`, `"))
        }
        ValidationErrorKind::Required { property } => {
            format!("the member `{}` is required", property.as_str().unwrap_or_default())
        }
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(one) => one.as_str().to_owned(),
                TypeKind::Multiple(several) => {
                    several.iter().map(|one| one.as_str().to_owned()).collect::<Vec<_>>().join(" or ")
                }
            };
            format!("`{member}` must be of type {wanted}")
        }
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().map(Vec::as_slice).unwrap_or_default();
            let options: Vec<String> = options.iter().map(Value::to_string).collect();
            format!("`{member}` must be one of {}", options.join(", "))
        }
        _ => format!("`{member}`: {}", err.masked_with("the value")),
    }
}

#[cfg(test)]
mod tests;
