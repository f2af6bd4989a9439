//! `OS::Keystone::Project`: a project as a whole, which is what its members hang on.

use std::sync::Arc;

use async_trait::async_trait;
use karbor_plugin::{
    Context, Description, Error, ErrorKind, Hook, InstancePage, LedgerEntry, OperationKind, Outcome, Page,
    Protectable, Protection, Resource, ResourceKey, ResourceType, Result, Schemas, Task,
};
use serde_json::{Map, Value, json};

use crate::{Shared, frame, kinds};

/// The plugin's name.
pub(crate) const NAME: &str = "karbor-project-protection-plugin";

/// The context's own project.
#[derive(Debug)]
pub(crate) struct ProjectProtectable;

fn own(ctx: &Context) -> Resource {
    let id = ctx.project.as_str().to_owned();
    Resource { key: ResourceKey::new(kinds::PROJECT, id.clone()), name: id, extra_info: Value::Null }
}

#[async_trait]
impl Protectable for ProjectProtectable {
    fn kind(&self) -> ResourceType {
        ResourceType::from(kinds::PROJECT)
    }

    fn parents(&self) -> Vec<ResourceType> {
        Vec::new()
    }

    async fn list(&self, ctx: &Context, page: &Page) -> Result<InstancePage> {
        let instances = if page.after.is_some() { Vec::new() } else { vec![own(ctx)] };
        Ok(InstancePage { instances, next: None })
    }

    async fn show(&self, ctx: &Context, id: &str, parameters: &Map<String, Value>) -> Result<Resource> {
        if id != ctx.project.as_str() {
            let text = format!("there is no project {id} that you may protect; your own is {}", ctx.project);
            return Err(Error::new(ErrorKind::NotFound, text));
        }
        let mut shown = own(ctx);
        if let Some(Value::String(name)) = parameters.get("name") {
            shown.name.clone_from(name);
        }
        Ok(shown)
    }

    async fn dependents(&self, _ctx: &Context, _parent: &Resource) -> Result<Vec<Resource>> {
        Ok(Vec::new())
    }
}

/// Stores nothing of the project itself: what is in it is stored by its own plugins.
#[derive(Debug)]
struct ProjectProtection;

/// Makes the plugin. It has no settings.
pub(crate) fn make(_shared: &Arc<Shared>, settings: &Map<String, Value>) -> Result<Arc<dyn Protection>> {
    frame::no_settings(NAME, settings)?;
    Ok(Arc::new(ProjectProtection))
}

#[async_trait]
impl Protection for ProjectProtection {
    fn describe(&self) -> Description {
        use OperationKind as Op;
        let none = |title: &str| frame::schema(title, json!({}));
        let schemas = Schemas {
            options: none("Project Protection Options"),
            restore: none("Project Protection Restore"),
            verify: none("Project Protection Verify"),
            saved_info: json!({}),
        };
        let operations = [Op::Protect, Op::Restore, Op::Verify, Op::Copy, Op::Delete];
        let hooks: Vec<(Op, &[Hook])> =
            operations.into_iter().map(|operation| (operation, &[][..])).collect();
        frame::describe(NAME, ResourceType::from(kinds::PROJECT), schemas, &hooks)
    }

    async fn run(&self, _hook: Hook, task: &Task) -> Result<Outcome> {
        task.check_cancelled()?;
        frame::require_kind(task, kinds::PROJECT)?;
        Ok(Outcome::default())
    }

    async fn clean_up(&self, _task: &Task, _entry: &LedgerEntry) -> Result<()> {
        Ok(())
    }
}
