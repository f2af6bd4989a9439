//! The shapes of what comes in. Every refusal names the member by its path.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use karbor_types::{Parameters, Resource, ResourceKey};
use serde_json::{Map, Value};

use crate::Microversion;
use crate::fault::Fault;

/// The most characters of a name or a description.
const MAX_TEXT: usize = 255;

/// The most characters of a resource's id, as the old service's column had.
const MAX_RESOURCE_ID: usize = 36;

/// The most characters of a resource's type, as the old service's column had.
const MAX_RESOURCE_TYPE: usize = 64;

/// The members of an object that came in, to be taken out one by one; what is left at the end is refused.
#[derive(Debug)]
pub(crate) struct Members {
    path: String,
    members: Map<String, Value>,
}

/// What becomes of an id that is well formed but is not spelled as we spell ids, and so names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unspelled {
    /// It does not exist.
    NotFound,
    /// It is wrong.
    Invalid,
}

/// Which values the members of metadata may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// Text, whole numbers, booleans.
    Plain,
    /// These and null.
    PlainOrNull,
    /// Anything.
    Any,
}

impl Leaves {
    /// Returns which values parameters may have: later versions leave that to the provider's schemas.
    pub(crate) fn at(version: Microversion) -> Self {
        if version >= Microversion::V1_1 { Self::Any } else { Self::PlainOrNull }
    }
}

impl Members {
    /// Opens a body whose only member is `name`, an object.
    pub(crate) fn envelope(body: Value, name: &str) -> Result<Self, Fault> {
        let Value::Object(mut outer) = body else {
            return Err(Fault::bad_request(format!("the body must be an object with the member `{name}`")));
        };
        let Some(inner) = outer.remove(name) else {
            return Err(Fault::bad_request(format!("the body must have the member `{name}`")));
        };
        if let Some(other) = outer.keys().next() {
            return Err(Fault::bad_request(format!("`{other}` is not known beside `{name}`")));
        }
        Self::open(inner, name.to_owned())
    }

    fn open(value: Value, path: String) -> Result<Self, Fault> {
        match value {
            Value::Object(members) => Ok(Self { path, members }),
            _ => Err(Fault::bad_request(format!("{path} must be an object"))),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    /// Takes a member out, whatever it is.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.members.remove(name)
    }

    /// Refuses what was not taken.
    pub(crate) fn done(self) -> Result<(), Fault> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(Fault::bad_request(format!("{}.{name} is not known", self.path))),
        }
    }

    /// Says that a member is missing.
    pub(crate) fn missing(&self, name: &str) -> Fault {
        Fault::bad_request(format!("{}.{name} is required", self.path))
    }

    /// Says what a member must be.
    pub(crate) fn wrong(&self, name: &str, expected: impl Display) -> Fault {
        Fault::bad_request(format!("{}.{name} must be {expected}", self.path))
    }

    /// Takes an object out.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, Fault> {
        let path = format!("{}.{name}", self.path);
        self.take(name).map(|value| Self::open(value, path)).transpose()
    }

    /// Takes a name out: not blank, at most 255 characters.
    pub(crate) fn name(&mut self) -> Result<Option<String>, Fault> {
        match self.text("name")? {
            Some(name) if name.trim().is_empty() => Err(self.wrong("name", "more than blanks")),
            name => Ok(name),
        }
    }

    /// Takes a text of at most 255 characters out.
    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.chars().count() <= MAX_TEXT => Ok(Some(text)),
            Some(Value::String(_)) => Err(self.wrong(name, format!("at most {MAX_TEXT} characters"))),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    /// Takes a text out that may be null; the outer option tells whether it was there.
    pub(crate) fn nullable_text(&mut self, name: &str) -> Result<Option<Option<String>>, Fault> {
        match self.take(name) {
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) => {
                self.members.insert(name.to_owned(), Value::String(text));
                Ok(Some(self.text(name)?))
            }
            None => Ok(None),
            Some(_) => Err(self.wrong(name, "a string or null")),
        }
    }

    /// Takes a boolean out.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, Fault> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => Err(self.wrong(name, "true or false")),
        }
    }

    /// Takes an id of an object of our own out.
    pub(crate) fn id<T>(&mut self, name: &str, what: &str, unspelled: Unspelled) -> Result<T, Fault>
    where
        T: FromStr + Display,
    {
        let expected = format!("the id of a {what}, a UUID");
        let text = match self.take(name) {
            None => return Err(self.missing(name)),
            Some(Value::String(text)) => text,
            Some(_) => return Err(self.wrong(name, expected)),
        };
        if !is_uuid_like(&text) {
            return Err(self.wrong(name, expected));
        }
        if let Ok(id) = text.parse::<T>()
            && id.to_string() == text
        {
            return Ok(id);
        }
        let message = format!("{what} {text} does not exist");
        Err(match unspelled {
            Unspelled::NotFound => Fault::not_found(message),
            Unspelled::Invalid => Fault::bad_request(format!("{}.{name}: {message}", self.path)),
        })
    }

    /// Takes metadata out: an object of plain values, or null.
    pub(crate) fn metadata(
        &mut self,
        name: &str,
        leaves: Leaves,
    ) -> Result<Option<Map<String, Value>>, Fault> {
        let path = format!("{}.{name}", self.path);
        match self.take(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => metadata(value, &path, leaves).map(Some),
        }
    }

    /// Takes parameters out; `None` when they are not there.
    pub(crate) fn parameters(&mut self, leaves: Leaves) -> Result<Option<Parameters>, Fault> {
        let path = format!("{}.parameters", self.path);
        let members = match self.take("parameters") {
            None => return Ok(None),
            Some(Value::Object(members)) => members,
            Some(_) => return Err(Fault::bad_request(format!("{path} must be an object"))),
        };
        let mut checked = Map::new();
        for (key, value) in members {
            let inner = format!("{path}.{key}");
            if !is_metadata_name(&key) {
                return Err(Fault::bad_request(format!("{inner}: {METADATA_NAME}")));
            }
            if let Some((_, id)) = key.split_once('#')
                && !is_uuid_like(id)
            {
                return Err(Fault::bad_request(format!(
                    "{inner}: `{id}` is not the id of a resource, a UUID"
                )));
            }
            checked.insert(key, Value::Object(metadata(value, &inner, leaves)?));
        }
        let parameters = Parameters::parse(&Value::Object(checked));
        parameters.map(Some).map_err(|err| Fault::bad_request(format!("{path}: {err}")))
    }

    /// Takes resources out; `None` when they are not there.
    pub(crate) fn resources(&mut self) -> Result<Option<Vec<Resource>>, Fault> {
        let path = format!("{}.resources", self.path);
        let items = match self.take("resources") {
            None => return Ok(None),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(Fault::bad_request(format!("{path} must be an array"))),
        };
        let items = items.into_iter().enumerate();
        items
            .map(|(index, item)| resource(item, format!("{path}[{index}]")))
            .collect::<Result<_, _>>()
            .map(Some)
    }
}

/// Returns whether a text is some spelling of a UUID, by what the old service took for one: hyphens anywhere, any case,
/// braces, `urn:uuid:`.
pub(crate) fn is_uuid_like(text: &str) -> bool {
    let text = text.replace("urn:", "").replace("uuid:", "");
    let digits = text.trim_matches(['{', '}']).replace('-', "");
    digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Reads one resource. Members that are not known are tolerated if they are plain, as ever, and dropped.
fn resource(value: Value, path: String) -> Result<Resource, Fault> {
    let mut members = Members::open(value, path)?;
    let text = |members: &mut Members, name: &str, max: usize| match members.take(name) {
        None => Err(members.missing(name)),
        Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => {
            let text = leaf_text(&value);
            match text.chars().count() {
                0 => Err(members.wrong(name, "more than nothing")),
                count if count > max => Err(members.wrong(name, format!("at most {max} characters"))),
                _ => Ok(text),
            }
        }
        Some(_) => Err(members.wrong(name, "a string")),
    };
    let id = text(&mut members, "id", MAX_RESOURCE_ID)?;
    let kind = text(&mut members, "type", MAX_RESOURCE_TYPE)?;
    let name = match members.members.get("name") {
        Some(Value::Null) => String::new(),
        Some(Value::String(name)) if name.is_empty() => String::new(),
        _ => text(&mut members, "name", MAX_TEXT)?,
    };
    members.take("name");
    let extra_info = members.take("extra_info").unwrap_or(Value::Null);
    let structured = members.members.iter().find(|(_, value)| value.is_array() || value.is_object());
    if let Some((name, _)) = structured {
        return Err(Fault::bad_request(format!("{}.{name} is not known", members.path)));
    }
    Ok(Resource { key: ResourceKey::new(kind.as_str(), id), name, extra_info })
}

/// What is said of a name that metadata cannot have.
const METADATA_NAME: &str = "a name has 1 to 255 of letters, digits, blanks and - _ : . #";

fn is_metadata_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.# ".contains(&byte);
    (1..=MAX_TEXT).contains(&name.len()) && name.bytes().all(allowed)
}

/// Reads metadata: plain values under plain names.
fn metadata(value: Value, path: &str, leaves: Leaves) -> Result<Map<String, Value>, Fault> {
    let Value::Object(members) = value else {
        return Err(Fault::bad_request(format!("{path} must be an object")));
    };
    for (name, value) in &members {
        if !is_metadata_name(name) {
            return Err(Fault::bad_request(format!("{path}.{name}: {METADATA_NAME}")));
        }
        let fine = match value {
            Value::String(_) | Value::Bool(_) => true,
            Value::Number(number) => !number.is_f64() || leaves == Leaves::Any,
            Value::Null => leaves != Leaves::Plain,
            Value::Array(_) | Value::Object(_) => leaves == Leaves::Any,
        };
        if !fine {
            return Err(Fault::bad_request(format!(
                "{path}.{name} must be a string, a whole number or a boolean"
            )));
        }
    }
    Ok(members)
}

/// Writes a plain value as the old service stored it: as text, the way Python writes it.
pub(crate) fn leaf_text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns every plain value as text.
pub(crate) fn leaf_texts(members: &Map<String, Value>) -> BTreeMap<&str, String> {
    members.iter().map(|(name, value)| (name.as_str(), leaf_text(value))).collect()
}
