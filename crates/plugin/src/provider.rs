//! A provider: the protection plugins, the bank and the settings that an administrator bundled.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use karbor_types::{OperationKind, Parameters, ProviderId, ResourceKey, ResourceType};
use serde_json::{Map, Value, json};

use crate::schema::Schema;
use crate::{Description, Error, ErrorKind, KindDescription, Protection, Result};

/// What a tenant chooses for a plan: which plugin protects which type, and into which bank.
#[derive(Clone)]
pub struct Provider {
    id: ProviderId,
    name: String,
    description: String,
    bank: String,
    settings: Map<String, Value>,
    protections: BTreeMap<ResourceType, Handler>,
}

/// What handles one type.
#[derive(Clone)]
struct Handler {
    protection: Arc<dyn Protection>,
    plugin: Arc<Description>,
    kind: Arc<KindDescription>,
    schemas: BTreeMap<OperationKind, Arc<Schema>>,
}

impl Provider {
    /// Makes a provider that handles nothing yet.
    pub fn new(
        id: ProviderId,
        name: impl Into<String>,
        description: impl Into<String>,
        bank: impl Into<String>,
    ) -> Self {
        Self {
            id,
            name: name.into(),
            description: description.into(),
            bank: bank.into(),
            settings: Map::new(),
            protections: BTreeMap::new(),
        }
    }

    /// Adds the provider's settings: what the worker and the vault make of them is told there.
    #[must_use]
    pub fn with_settings(mut self, settings: Map<String, Value>) -> Self {
        self.settings = settings;
        self
    }

    /// Adds a plugin for all types that it describes. A type that is handled already is taken over: the general
    /// one first, the special ones after it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when one of its schemas is none, or uses what forms cannot show.
    pub fn with(mut self, protection: Arc<dyn Protection>) -> Result<Self> {
        let plugin = Arc::new(protection.describe());
        for kind in &plugin.kinds {
            let mut schemas = BTreeMap::new();
            for operation in [OperationKind::Protect, OperationKind::Restore, OperationKind::Verify] {
                if let Some(schema) = kind.schemas.of(operation) {
                    let compiled = Schema::compile(schema).map_err(|err| {
                        let text = format!("{}: {operation} schema of {}: {err}", plugin.name, kind.kind);
                        Error::new(ErrorKind::Invalid, text)
                    })?;
                    schemas.insert(operation, Arc::new(compiled));
                }
            }
            let handler = Handler {
                protection: Arc::clone(&protection),
                plugin: Arc::clone(&plugin),
                kind: Arc::new(kind.clone()),
                schemas,
            };
            self.protections.insert(kind.kind.clone(), handler);
        }
        Ok(self)
    }

    /// Returns the provider's id.
    pub fn id(&self) -> ProviderId {
        self.id
    }

    /// Returns the name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what it is for, for people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Returns the name of the bank that its checkpoints go to.
    pub fn bank(&self) -> &str {
        &self.bank
    }

    /// Returns the settings.
    pub fn settings(&self) -> &Map<String, Value> {
        &self.settings
    }

    /// Returns the types that are handled, in order.
    pub fn kinds(&self) -> impl Iterator<Item = &ResourceType> {
        self.protections.keys()
    }

    /// Returns the plugin that handles a type.
    pub fn protection(&self, kind: &ResourceType) -> Option<&Arc<dyn Protection>> {
        self.protections.get(kind).map(|handler| &handler.protection)
    }

    /// Returns what the plugin that handles a type does for it.
    pub fn kind(&self, kind: &ResourceType) -> Option<&KindDescription> {
        self.protections.get(kind).map(|handler| handler.kind.as_ref())
    }

    /// Returns the name and version of the plugin that handles a type, as checkpoints carry them.
    pub fn plugin(&self, kind: &ResourceType) -> Option<(&str, &str)> {
        let handler = self.protections.get(kind)?;
        Some((handler.plugin.name.as_str(), handler.plugin.version.as_str()))
    }

    /// Returns the plugin that handles a type, or says that the provider does not, or not this operation.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`].
    pub fn require(&self, kind: &ResourceType, operation: OperationKind) -> Result<&Arc<dyn Protection>> {
        let handler = self.handler(kind)?;
        if !handler.kind.operations.contains(&operation) {
            let text =
                format!("the plugin {} does not {operation} resources of type {kind}", handler.plugin.name);
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        Ok(&handler.protection)
    }

    /// Returns the schemas of all types, as the API shows them.
    pub fn extended_info_schema(&self) -> Value {
        let map = |pick: fn(&KindDescription) -> &Value| -> Value {
            let rows = self.protections.iter();
            rows.map(|(kind, handler)| (kind.0.clone(), pick(&handler.kind).clone()))
                .collect::<Map<_, _>>()
                .into()
        };
        json!({
            "options_schema": map(|kind| &kind.schemas.options),
            "restore_schema": map(|kind| &kind.schemas.restore),
            "verify_schema": map(|kind| &kind.schemas.verify),
            "saved_info_schema": map(|kind| &kind.schemas.saved_info),
        })
    }

    /// Checks the parameters of a plan, restore or verification as they come in, and returns them with texts
    /// turned into the numbers and booleans that the schemas want.
    ///
    /// What is checked is every member that is given. That all *required* ones are there is seen only for one
    /// resource, by [`Provider::resolve_parameters`].
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the key, the member, and what is allowed.
    pub fn check_parameters(&self, operation: OperationKind, parameters: &Parameters) -> Result<Parameters> {
        let mut checked = Map::new();
        for (kind, id, members) in parameters.entries() {
            let key = id.map_or_else(|| kind.to_owned(), |id| format!("{kind}#{id}"));
            let schema = self.schema(&ResourceType::from(kind), operation)?;
            let members = match schema {
                Some(schema) => schema.check_given(members).map_err(|err| invalid(&key, &err))?,
                None if members.is_empty() => Map::new(),
                None => {
                    return Err(Error::new(
                        ErrorKind::Invalid,
                        format!("parameters of `{key}`: {operation} takes none"),
                    ));
                }
            };
            checked.insert(key, Value::Object(members));
        }
        Parameters::parse(&Value::Object(checked))
            .map_err(|err| Error::new(ErrorKind::Invalid, err.to_string()).with_source(err))
    }

    /// Returns one resource's parameters: the type's overlaid with its own, checked wholly, defaults filled in.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] with the resource, the member, and what is allowed.
    pub fn resolve_parameters(
        &self,
        operation: OperationKind,
        parameters: &Parameters,
        resource: &ResourceKey,
    ) -> Result<Map<String, Value>> {
        match self.schema(&resource.kind, operation)? {
            Some(schema) => schema
                .check(&parameters.resolve(resource))
                .map_err(|err| invalid(&resource.to_string(), &err)),
            None => Ok(Map::new()),
        }
    }

    fn schema(&self, kind: &ResourceType, operation: OperationKind) -> Result<Option<&Arc<Schema>>> {
        Ok(self.handler(kind)?.schemas.get(&operation))
    }

    fn handler(&self, kind: &ResourceType) -> Result<&Handler> {
        self.protections.get(kind).ok_or_else(|| {
            let known: Vec<&str> = self.protections.keys().map(ResourceType::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let text = format!(
                "provider {} does not handle resources of type {kind}; it handles: {known}",
                self.name
            );
            Error::new(ErrorKind::Unsupported, text)
        })
    }
}

fn invalid(key: &str, err: &crate::schema::Violation) -> Error {
    Error::new(ErrorKind::Invalid, format!("parameters of `{key}`: {err}"))
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: BTreeSet<&ResourceType> = self.protections.keys().collect();
        f.debug_struct("Provider")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("bank", &self.bank)
            .field("kinds", &kinds)
            .finish_non_exhaustive()
    }
}
