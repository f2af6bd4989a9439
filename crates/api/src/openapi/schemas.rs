//! The shapes of what comes in and goes out, as JSON schemas.

use karbor_types::{OccurrenceReason, OccurrenceState};
use serde_json::{Map, Value, json};

/// Returns all named schemas.
pub(crate) fn all() -> Value {
    let groups = [common(), plans(), checkpoints(), runs(), schedules(), small(), operations()];
    let mut all = Map::new();
    for group in groups {
        if let Value::Object(members) = group {
            all.extend(members);
        }
    }
    Value::Object(all)
}

fn uuid() -> Value {
    json!({"type": "string", "format": "uuid"})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn maybe_text() -> Value {
    json!({"type": ["string", "null"]})
}

fn maybe_uuid() -> Value {
    json!({"type": ["string", "null"], "format": "uuid"})
}

/// A name: not empty, not only blanks.
fn name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": 255, "pattern": "\\S"})
}

fn description() -> Value {
    json!({"type": ["string", "null"], "maxLength": 255})
}

fn common() -> Value {
    let leaf = json!({"type": ["string", "boolean", "integer", "null"]});
    json!({
        "Fault": {
            "type": "object", "required": ["code", "message"],
            "properties": {
                "code": {"type": "integer"}, "message": text(),
                "retryAfter": {"type": "string", "description": "When a quota is used up"},
            },
        },
        "Link": {
            "type": "object", "required": ["rel", "href"], "additionalProperties": false,
            "properties": {"rel": {"const": "next"}, "href": text()},
        },
        "Parameters": {
            "type": "object",
            "description": "By resource type, or `<type>#<resource id>`; what is allowed is told by the provider",
            "additionalProperties": {"type": ["object", "null"], "additionalProperties": true},
        },
        "Metadata": {"type": ["object", "null"], "additionalProperties": leaf},
        "Texts": {"type": "object", "additionalProperties": text()},
        "Resource": {
            "type": "object", "required": ["id", "type", "name"],
            "properties": {"id": text(), "type": text(), "name": maybe_text(), "extra_info": {}},
        },
    })
}

fn plans() -> Value {
    let resources = json!({"type": "array", "minItems": 1, "items": {
        "type": "object", "required": ["id", "type", "name"], "additionalProperties": false,
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 255},
            "type": {"type": "string", "minLength": 1, "maxLength": 255},
            "name": {"type": ["string", "null"], "maxLength": 255}, "extra_info": {"type": ["object", "null"]},
        },
    }});
    json!({
        "Plan": {
            "type": "object", "additionalProperties": false,
            "required": ["id", "name", "description", "resources", "provider_id", "status", "parameters"],
            "properties": {
                "id": uuid(), "name": maybe_text(), "description": maybe_text(),
                "resources": {"type": "array", "items": {"$ref": "#/components/schemas/Resource"}},
                "provider_id": uuid(), "status": maybe_text(),
                "parameters": {"$ref": "#/components/schemas/Parameters"},
                "project_id": text(), "created_at": text(), "updated_at": maybe_text(),
                "rpo": {
                    "type": "object", "description": "Since microversion 1.2",
                    "required": ["last_checkpoint_at", "age_seconds", "promise_seconds", "late"],
                    "properties": {
                        "last_checkpoint_at": maybe_text(), "age_seconds": {"type": ["integer", "null"]},
                        "promise_seconds": {"type": ["integer", "null"]}, "late": {"type": "boolean"},
                    },
                },
            },
        },
        "NewPlan": {
            "type": "object", "additionalProperties": false,
            "required": ["name", "provider_id", "resources", "parameters"],
            "properties": {
                "name": name(), "description": description(), "provider_id": uuid(), "resources": resources,
                "parameters": {"$ref": "#/components/schemas/Parameters"},
            },
        },
        "PlanChange": {
            "type": "object", "additionalProperties": false, "minProperties": 1,
            "properties": {
                "name": name(), "description": description(), "resources": resources,
                "status": {"type": "string", "enum": ["suspended", "started"]},
            },
        },
    })
}

fn checkpoints() -> Value {
    json!({
        "Checkpoint": {
            "type": "object", "additionalProperties": false,
            "required": ["id", "project_id", "status", "protection_plan", "created_at", "extra_info"],
            "properties": {
                "id": uuid(), "project_id": text(), "status": {"type": "string", "enum": [
                    "protecting", "available", "error", "deleting", "deleted", "error-deleting", "wait_copying", "copying"]},
                "protection_plan": {
                    "type": "object", "required": ["id", "name", "resources"],
                    "properties": {
                        "id": uuid(), "name": maybe_text(), "provider_id": uuid(),
                        "resources": {"type": "array", "items": {"$ref": "#/components/schemas/Resource"}},
                    },
                },
                "resource_graph": {"type": "string", "description": "JSON as text; left out while it is not known"},
                "created_at": maybe_text(), "extra_info": {"type": "string", "description": "JSON as text"},
                "updated_at": maybe_text(), "committed_at": maybe_text(), "reason": maybe_text(),
                "operation_id": uuid(), "size": {"type": ["object", "null"], "properties": {
                    "logical_bytes": {"type": "integer"}, "stored_bytes": {"type": "integer"}, "new_bytes": {"type": "integer"}}},
                "hold": {"oneOf": [{"$ref": "#/components/schemas/Hold"}, {"type": "null"}], "description": "Since microversion 1.2"},
            },
        },
        "Hold": {
            "type": "object", "additionalProperties": false, "required": ["user_id", "reason", "created_at"],
            "properties": {"user_id": text(), "reason": maybe_text(), "created_at": text()},
        },
        "NewHold": {
            "type": "object", "additionalProperties": false,
            "properties": {"reason": {"type": ["string", "null"], "maxLength": 255}},
        },
        "NewCheckpoint": {
            "type": "object", "additionalProperties": false, "required": ["plan_id"],
            "properties": {
                "plan_id": uuid(),
                "extra-info": {"type": ["object", "null"], "additionalProperties": {"type": ["string", "boolean", "integer"]}},
                "extra_info": {"type": ["object", "null"], "additionalProperties": {"type": ["string", "boolean", "integer"]}},
            },
        },
        "Reset": {
            "type": "object", "additionalProperties": false, "required": ["state"],
            "properties": {"state": {"type": "string", "enum": ["available", "error"]}},
        },
        "Copy": {
            "type": "object", "additionalProperties": false,
            "required": ["project_id", "provider_id", "plan_id", "checkpoint_id", "parameters"],
            "properties": {
                "project_id": text(), "provider_id": uuid(), "plan_id": uuid(),
                "checkpoint_id": {"type": "array", "items": {
                    "type": "object", "required": ["checkpoint_protect_id", "checkpoint_copy_id"],
                    "properties": {"checkpoint_protect_id": uuid(), "checkpoint_copy_id": uuid()}}},
                "parameters": {"type": ["object", "null"]},
            },
        },
        "NewCopy": {
            "type": "object", "additionalProperties": false, "required": ["plan_id"],
            "properties": {
                "plan_id": uuid(), "parameters": {"$ref": "#/components/schemas/Parameters"},
                "target_provider_id": {"type": "string", "format": "uuid", "description": "Since microversion 1.1"},
            },
        },
    })
}

fn runs() -> Value {
    let run = |more: &[(&str, Value)]| {
        let mut properties = json!({
            "id": uuid(), "project_id": text(), "provider_id": maybe_uuid(), "checkpoint_id": maybe_uuid(),
            "parameters": {"$ref": "#/components/schemas/Parameters"},
            "status": {"type": "string", "enum": ["in_progress", "success", "fail"]},
            "resources_status": {"$ref": "#/components/schemas/Texts"},
            "resources_reason": {"$ref": "#/components/schemas/Texts"},
            "created_at": text(), "updated_at": maybe_text(), "reason": maybe_text(), "operation_id": uuid(),
        });
        for (name, schema) in more {
            properties[*name] = schema.clone();
        }
        json!({
            "type": "object", "additionalProperties": false, "properties": properties,
            "required": ["id", "project_id", "provider_id", "checkpoint_id", "parameters", "status",
                "resources_status", "resources_reason"],
        })
    };
    let parameters = json!({"$ref": "#/components/schemas/Parameters"});
    json!({
        "Restore": run(&[("restore_target", maybe_text()), ("dry_run", json!({"type": "boolean"}))]),
        "Verification": run(&[]),
        "NewRestore": {
            "type": "object", "additionalProperties": false,
            "required": ["provider_id", "checkpoint_id", "parameters"],
            "properties": {
                "provider_id": uuid(), "checkpoint_id": uuid(), "parameters": parameters,
                "restore_target": {"type": ["string", "null"], "maxLength": 255},
                "restore_auth": {"$ref": "#/components/schemas/Metadata"},
                "dry_run": {"type": "boolean", "description": "Since microversion 1.1"},
            },
        },
        "NewVerification": {
            "type": "object", "additionalProperties": false, "required": ["provider_id", "checkpoint_id"],
            "properties": {
                "provider_id": uuid(), "checkpoint_id": uuid(), "parameters": parameters,
                "mode": {"type": "string", "enum": ["structure", "sample", "all"], "description": "Since microversion 1.1"},
                "sample_percent": {"type": "integer", "minimum": 1, "maximum": 100},
            },
        },
    })
}

fn schedules() -> Value {
    let properties = json!({
        "type": "object", "additionalProperties": false,
        "properties": {
            "format": {"type": "string", "enum": ["calendar", "crontab"]}, "pattern": text(),
            "start_time": text(), "end_time": text(), "window": {"type": "integer"},
            "time_zone": {"type": "string", "description": "Since microversion 1.2: a name of the IANA database"},
        },
    });
    let mut needed = properties.clone();
    needed["required"] = json!(["format", "pattern"]);
    let owned = json!({"project_id": text(), "created_at": text(), "updated_at": maybe_text()});
    let with = |mut properties: Value| {
        for (name, schema) in owned.as_object().into_iter().flatten() {
            properties[name] = schema.clone();
        }
        properties
    };
    json!({
        "Trigger": {
            "type": "object", "additionalProperties": false, "required": ["id", "name", "type", "properties"],
            "properties": with(json!({"id": uuid(), "name": text(), "type": text(), "properties": {"type": "object"}, "next_at": maybe_text(), "address": text()})),
        },
        "Preview": {
            "type": "object", "additionalProperties": false,
            "required": ["occurrences", "shortest_gap_seconds", "longest_gap_seconds", "window_seconds"],
            "properties": {
                "occurrences": {"type": "array", "items": text()}, "window_seconds": {"type": "integer"},
                "shortest_gap_seconds": {"type": ["integer", "null"]}, "longest_gap_seconds": {"type": ["integer", "null"]},
            },
        },
        "NewPreview": {
            "type": "object", "additionalProperties": false, "required": ["properties"],
            "properties": {"properties": needed, "count": {"type": "integer", "minimum": 1, "maximum": 100}},
        },
        "NewTrigger": {
            "type": "object", "additionalProperties": false, "required": ["name", "type", "properties"],
            "properties": {"name": {"type": "string", "maxLength": 255}, "type": {"enum": ["time", "event"]}, "properties": properties},
        },
        "Retention": {
            "type": "object", "additionalProperties": false, "required": ["policy", "checkpoints"],
            "properties": {
                "policy": {"type": "object"},
                "checkpoints": {"type": "array", "items": {
                    "type": "object", "required": ["id", "created_at", "status", "action", "reason"],
                    "properties": {"id": uuid(), "created_at": text(), "status": text(),
                        "action": {"enum": ["keep", "delete"]}, "reason": text()},
                }},
            },
        },
        "TriggerChange": {
            "type": "object", "additionalProperties": false,
            "properties": {"name": {"type": "string", "maxLength": 255}, "type": {"enum": ["time", "event"]}, "properties": properties},
        },
        "ScheduledOperation": {
            "type": "object", "additionalProperties": false,
            "required": ["id", "name", "description", "operation_type", "trigger_id", "operation_definition", "enabled"],
            "properties": with(json!({
                "id": uuid(), "name": text(), "description": maybe_text(), "operation_type": text(),
                "trigger_id": uuid(), "operation_definition": {"type": "object"}, "enabled": {"type": "boolean"},
                "catch_up": {"enum": ["run_once", "skip", null]}, "jitter_seconds": {"type": ["integer", "null"]},
                "retries": {"type": ["integer", "null"]}, "priority": {"type": "integer"},
            })),
        },
        "NewScheduledOperation": {
            "type": "object", "additionalProperties": false,
            "required": ["name", "operation_type", "trigger_id", "operation_definition"],
            "properties": ruled(json!({
                "name": name(), "description": description(),
                "operation_type": {"type": "string", "enum": ["protect", "retention_protect", "verify", "copy", "restore_test"]},
                "trigger_id": uuid(), "operation_definition": definition(), "enabled": {"type": "boolean"},
            })),
        },
        "ScheduledOperationChange": {
            "type": "object", "additionalProperties": false,
            "properties": ruled(json!({
                "name": name(), "description": description(), "trigger_id": uuid(),
                "operation_definition": definition(), "enabled": {"type": "boolean"},
            })),
        },
        "Run": {
            "type": "object", "additionalProperties": false,
            "required": ["id", "scheduled_operation_id", "operation_type", "trigger_id", "project_id", "provider_id",
                "occurrence", "origin", "status", "reason", "detail", "priority", "attempt", "checkpoint_id", "until",
                "created_at", "started_at", "ended_at"],
            "properties": {
                "id": uuid(), "scheduled_operation_id": uuid(), "operation_type": text(), "trigger_id": uuid(),
                "project_id": text(), "provider_id": uuid(), "occurrence": text(),
                "origin": {"type": "string", "enum": ["trigger", "manual"]},
                "status": {"type": "string", "enum": OccurrenceState::ALL},
                "reason": {"enum": OccurrenceReason::ALL.iter().map(|reason| json!(reason)).chain([json!(null)]).collect::<Vec<_>>()},
                "detail": maybe_text(), "priority": {"type": "integer"}, "attempt": {"type": "integer"},
                "checkpoint_id": maybe_uuid(), "until": text(), "created_at": text(), "started_at": maybe_text(),
                "ended_at": maybe_text(),
            },
        },
    })
}

/// What a scheduled operation does, with what.
fn definition() -> Value {
    let number = json!({"type": ["integer", "string"]});
    json!({
        "type": ["object", "string"], "required": ["provider_id", "plan_id"],
        "properties": {
            "provider_id": uuid(), "plan_id": uuid(), "max_backups": number, "retention_duration": number,
            "read": {"type": ["integer", "string"]}, "target_provider_id": uuid(),
        },
    })
}

/// Adds how occurrences are run, since microversion 1.2.
fn ruled(mut members: Value) -> Value {
    members["catch_up"] = json!({"enum": ["run_once", "skip", null]});
    members["jitter_seconds"] = json!({"type": ["integer", "null"], "minimum": 0, "maximum": 86400});
    members["retries"] = json!({"type": ["integer", "null"], "minimum": 0, "maximum": 100});
    members["priority"] = json!({"type": "integer", "minimum": -1000, "maximum": 1000});
    members
}

fn small() -> Value {
    let limit = json!({"type": "integer", "minimum": -1});
    let usage = json!({
        "type": "object", "required": ["limit", "in_use", "reserved"],
        "properties": {"limit": limit, "in_use": {"type": "integer"}, "reserved": {"type": "integer"}},
    });
    let maps = json!({"type": "object", "additionalProperties": {"type": "object"}});
    let limits = json!({
        "type": "object", "additionalProperties": false,
        "properties": {"plans": {"type": ["integer", "string"]}, "checkpoints": {"type": ["integer", "string"]}},
    });
    let instance = json!({
        "type": "object", "required": ["id", "type", "name", "extra_info", "dependent_resources"],
        "properties": {
            "id": text(), "type": text(), "name": maybe_text(), "extra_info": {},
            "dependent_resources": {"type": "array", "items": {"$ref": "#/components/schemas/Resource"}},
        },
    });
    json!({
        "Provider": {
            "type": "object", "required": ["id", "name", "description", "extended_info_schema"],
            "properties": {
                "id": uuid(), "name": text(), "description": text(),
                "extended_info_schema": {
                    "type": "object", "required": ["options_schema", "restore_schema", "saved_info_schema"],
                    "properties": {"options_schema": maps, "restore_schema": maps, "saved_info_schema": maps, "verify_schema": maps},
                },
            },
        },
        "ProtectableType": {
            "type": "object", "required": ["name", "dependent_types"],
            "properties": {"name": text(), "dependent_types": {"type": "array", "items": text()}},
        },
        "Instance": instance,
        "OperationLog": {
            "type": "object", "additionalProperties": false,
            "required": ["id", "operation_type", "checkpoint_id", "plan_id", "provider_id", "restore_id",
                "scheduled_operation_id", "status", "started_at", "ended_at", "error_info", "extra_info"],
            "properties": {
                "id": uuid(), "operation_type": text(), "checkpoint_id": maybe_uuid(), "plan_id": maybe_uuid(),
                "provider_id": maybe_uuid(), "restore_id": maybe_uuid(), "scheduled_operation_id": maybe_uuid(),
                "status": text(), "started_at": maybe_text(), "ended_at": maybe_text(), "error_info": maybe_text(),
                "extra_info": maybe_text(), "project_id": text(), "operation_id": maybe_uuid(),
            },
        },
        "Service": {
            "type": "object", "additionalProperties": false,
            "required": ["id", "binary", "host", "status", "state", "updated_at", "disabled_reason"],
            "properties": {
                "id": {"type": "integer"}, "binary": text(), "host": text(),
                "status": {"type": "string", "enum": ["enabled", "disabled"]}, "state": {"type": "string", "enum": ["up", "down"]},
                "updated_at": maybe_text(), "disabled_reason": maybe_text(),
            },
        },
        "ServiceChange": {
            "type": "object", "additionalProperties": false, "required": ["status"],
            "properties": {"status": {"type": "string", "enum": ["enabled", "disabled"]},
                "disabled_reason": {"type": ["string", "null"], "maxLength": 255}},
        },
        "Quota": {
            "type": "object", "additionalProperties": false, "required": ["plans", "checkpoints"],
            "properties": {"plans": limit, "checkpoints": limit, "id": text()},
        },
        "QuotaUsage": {
            "type": "object", "additionalProperties": false, "required": ["plans", "checkpoints", "id"],
            "properties": {"plans": usage, "checkpoints": usage, "id": text()},
        },
        "Limits": limits,
        "Nothing": {"type": "object", "additionalProperties": false},
        "OperationAction": {
            "type": "object", "additionalProperties": false, "minProperties": 1, "maxProperties": 1,
            "properties": {
                "cancel": {"$ref": "#/components/schemas/Nothing"},
                "resume": {"$ref": "#/components/schemas/Reopening"},
                "undo": {"$ref": "#/components/schemas/Reopening"},
            },
        },
        "Reopening": {
            "type": "object", "additionalProperties": false, "description": "Since microversion 1.2",
            "properties": {"restore_auth": {"$ref": "#/components/schemas/Metadata"}},
        },
    })
}

fn operations() -> Value {
    let progress = json!({
        "type": "object", "required": ["bytes_done", "bytes_total", "bytes_stored"],
        "properties": {
            "bytes_done": {"type": "integer"}, "bytes_total": {"type": ["integer", "null"]},
            "bytes_stored": {"type": "integer"}, "steps": {"type": "object", "additionalProperties": {"type": "integer"}},
        },
    });
    json!({
        "Operation": {
            "type": "object", "additionalProperties": false,
            "required": ["id", "kind", "state", "project_id", "plan_id", "checkpoint_id", "restore_id", "verification_id",
                "provider_id", "cancel_requested", "attempt", "reason", "result", "created_at", "started_at", "ended_at"],
            "properties": {
                "id": uuid(), "kind": text(),
                "state": {"type": "string", "enum": ["queued", "running", "succeeded", "failed", "cancelled"]},
                "project_id": text(), "plan_id": maybe_uuid(), "checkpoint_id": maybe_uuid(), "restore_id": maybe_uuid(),
                "verification_id": maybe_uuid(), "provider_id": maybe_uuid(), "cancel_requested": {"type": "boolean"},
                "attempt": {"type": "integer"}, "reason": maybe_text(), "result": {}, "created_at": text(),
                "started_at": maybe_text(), "ended_at": maybe_text(), "progress": progress,
            },
        },
        "BankAccount": {
            "type": "object", "additionalProperties": false,
            "required": ["bank", "project_id", "provider_ids", "place", "key_source", "quota_bytes", "created_at", "updated_at"],
            "properties": {
                "bank": text(), "project_id": text(), "provider_ids": {"type": "array", "items": uuid()},
                "place": maybe_text(), "key_source": text(),
                "has_credentials": {"type": "boolean", "description": "Since microversion 1.2"},
                "quota_bytes": {"type": ["integer", "null"]}, "created_at": text(), "updated_at": maybe_text(),
                "usage": {
                    "type": "object",
                    "required": ["checkpoints", "logical_bytes", "stored_bytes", "deduplicated_bytes", "dead_bytes", "total_bytes"],
                    "additionalProperties": {"type": "integer"},
                },
            },
        },
        "BankAccountChange": {
            "type": "object", "additionalProperties": false,
            "properties": {
                "quota_bytes": {"type": ["integer", "null"], "minimum": 0},
                "place": {"type": ["string", "null"], "description": "Since microversion 1.2"},
                "credentials": {
                    "type": ["object", "null"], "additionalProperties": {"type": "string"}, "writeOnly": true,
                    "description": "Since microversion 1.2",
                },
                "key_source": {"type": ["string", "null"], "description": "Since microversion 1.2"},
            },
        },
        "ResourceResult": {
            "type": "object", "required": ["type", "id", "status", "reason", "progress", "steps"],
            "properties": {
                "type": text(), "id": text(), "status": text(), "reason": maybe_text(), "progress": progress,
                "steps": {"type": "array", "items": {"type": "object"}},
            },
        },
    })
}
