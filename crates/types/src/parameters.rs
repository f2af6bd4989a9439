//! Parameters of plans, restores and verifications: `<type>` or `<type>#<resource id>` to a flat object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ResourceKey;

/// Parameters by type, or by one resource; the latter overlay the former member by member.
///
/// Members keep their JSON types. Null members are dropped when read: forms send every default, also the
/// ones that are null.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Parameters(BTreeMap<String, Map<String, Value>>);

/// What is wrong with parameters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParametersError {
    /// Not an object of objects.
    #[error("parameters must be an object of objects, and `{key}` is not one")]
    Shape {
        /// The member at fault; empty when the whole is no object.
        key: String,
    },
    /// A key that is neither `<type>` nor `<type>#<id>`.
    #[error("the parameter key `{key}` is neither <type> nor <type>#<resource id>")]
    Key {
        /// The key at fault.
        key: String,
    },
}

impl Parameters {
    /// Parses parameters from JSON, drops null members, checks the form of the keys.
    ///
    /// # Errors
    /// [`ParametersError`] names the member at fault.
    pub fn parse(value: &Value) -> Result<Self, ParametersError> {
        let outer = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(outer) => outer,
            _ => return Err(ParametersError::Shape { key: String::new() }),
        };
        let mut all = BTreeMap::new();
        for (key, inner) in outer {
            let (kind, id) = key.split_once('#').map_or((key.as_str(), None), |(kind, id)| (kind, Some(id)));
            if kind.is_empty() || id.is_some_and(|id| id.is_empty() || id.contains('#')) {
                return Err(ParametersError::Key { key: key.clone() });
            }
            let inner = match inner {
                Value::Null => Map::new(),
                Value::Object(inner) => {
                    inner.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect()
                }
                _ => return Err(ParametersError::Shape { key: key.clone() }),
            };
            all.insert(key.clone(), inner);
        }
        Ok(Self(all))
    }

    /// Returns what holds for one resource: the type's members, overlaid with its own.
    pub fn resolve(&self, resource: &ResourceKey) -> Map<String, Value> {
        let mut resolved = self.0.get(resource.kind.as_str()).cloned().unwrap_or_default();
        if let Some(own) = self.0.get(&resource.to_string()) {
            resolved.extend(own.clone());
        }
        resolved
    }

    /// Returns every key (type, and resource id where given) with its members.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Option<&str>, &Map<String, Value>)> {
        self.0.iter().map(|(key, members)| match key.split_once('#') {
            Some((kind, id)) => (kind, Some(id), members),
            None => (key.as_str(), None, members),
        })
    }

    /// Returns these parameters overlaid with others, member by member.
    pub fn overlaid(&self, over: &Self) -> Self {
        let mut all = self.clone();
        for (key, members) in &over.0 {
            all.0.entry(key.clone()).or_default().extend(members.clone());
        }
        all
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resource_overlays_its_type_and_nulls_are_dropped() {
        let parameters =
            Parameters::parse(&json!({"T": {"a": 1, "b": true, "c": null}, "T#x": {"b": false}}));
        let parameters = parameters.expect("well formed");
        assert_eq!(
            Value::Object(parameters.resolve(&ResourceKey::new("T", "x"))),
            json!({"a": 1, "b": false})
        );
        assert_eq!(
            Value::Object(parameters.resolve(&ResourceKey::new("T", "y"))),
            json!({"a": 1, "b": true})
        );
        assert!(parameters.resolve(&ResourceKey::new("U", "x")).is_empty());
    }

    #[test]
    fn malformed_parameters_name_the_member() {
        for (value, key) in
            [(json!({"T": 1}), "T"), (json!({"T": {}, "T#a#b": {}}), "T#a#b"), (json!({"#x": {}}), "#x")]
        {
            let text = Parameters::parse(&value).expect_err("refused").to_string();
            assert!(text.contains(key), "{text}");
        }
    }
}
