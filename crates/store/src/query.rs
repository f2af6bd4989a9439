//! Lists: filters, order and pages, worked out by the database.
//!
//! Each list has its closed set of columns. The order is always total: `created_at` and `id` are appended in the
//! direction of the first column, so that pages neither overlap nor leave anything out while rows come and go.

use std::fmt;

use karbor_types::{
    CheckpointId, Instant, OccurrenceId, OperationId, OperationLogId, PlanId, ProjectId, RestoreId,
    ScheduledOperationId, TriggerId, VerificationId,
};

/// What a list shall hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery<C, I> {
    /// Only this project's rows; `None` for all projects.
    pub project: Option<ProjectId>,
    /// All of these must hold.
    pub filters: Vec<Filter<C>>,
    /// The order; newest first when empty.
    pub sort: Vec<(C, Direction)>,
    /// At most that many rows.
    pub limit: u32,
    /// Only what comes after this row in the order.
    pub marker: Option<I>,
    /// Whether the marker may be another project's row: for those who see all projects.
    pub foreign_marker: bool,
    /// That many of them are left out first.
    pub offset: u64,
}

impl<C, I> Default for ListQuery<C, I> {
    /// The newest 1000 rows of all projects.
    fn default() -> Self {
        Self {
            project: None,
            filters: Vec::new(),
            sort: Vec::new(),
            limit: 1000,
            marker: None,
            foreign_marker: false,
            offset: 0,
        }
    }
}

/// Which way a column is ordered. Rows without a value are the smallest, on every engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Smallest first.
    Ascending,
    /// Greatest first.
    Descending,
}

/// One condition on a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter<C> {
    /// The column has that value. A number is found in a column of texts and the other way round if they are
    /// written alike; what cannot be in the column is found nowhere.
    Equals(C, FilterValue),
    /// The column has one of these values; none is found when there are none.
    OneOf(C, Vec<FilterValue>),
    /// The column has no value.
    IsNull(C),
    /// The column holds that text somewhere, capitals and small letters told apart.
    Contains(C, String),
    /// The column, of instants, is not before that.
    Since(C, Instant),
    /// The column, of instants, is before that.
    Before(C, Instant),
}

/// What a column is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilterValue {
    /// A text, also for ids and states.
    Text(String),
    /// A number; of an instant the microseconds.
    Number(i64),
}

impl From<&str> for FilterValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for FilterValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for FilterValue {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}

/// What kind of value a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnType {
    Text,
    NullableText,
    Number,
    NullableNumber,
}

/// A column by which a list can be filtered and ordered.
pub(crate) trait Column: Copy + fmt::Debug + Send + Sync + 'static {
    /// The name in the database.
    fn name(self) -> &'static str;
    /// What it holds.
    fn column_type(self) -> ColumnType;
}

macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal, $column:literal, $kind:ident;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)+
        }

        impl $name {
            /// All columns, in order.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Returns the name by which clients know the column.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// Returns the column that clients know by that name.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().find(|column| column.as_str() == name).copied()
            }
        }

        impl Column for $name {
            fn name(self) -> &'static str {
                match self { $(Self::$variant => $column,)+ }
            }

            fn column_type(self) -> ColumnType {
                match self { $(Self::$variant => ColumnType::$kind,)+ }
            }
        }
    };
}

columns!(/** Columns of plans. */ PlanColumn {
    /** The id. */ Id = "id", "id", Text;
    /** The project. */ Project = "project_id", "project_id", Text;
    /** The name. */ Name = "name", "name", Text;
    /** The description. */ Description = "description", "description", NullableText;
    /** The provider. */ Provider = "provider_id", "provider_id", Text;
    /** The status. */ Status = "status", "status", NullableText;
    /** The parameters, as JSON. */ Parameters = "parameters", "parameters", Text;
    /** When it was made. */ CreatedAt = "created_at", "created_at", Number;
    /** When it was last changed. */ UpdatedAt = "updated_at", "updated_at", NullableNumber;
});

columns!(/** Columns of checkpoints. */ CheckpointColumn {
    /** The id. */ Id = "id", "id", Text;
    /** The project. */ Project = "project_id", "project_id", Text;
    /** The provider. */ Provider = "provider_id", "provider_id", Text;
    /** The plan. */ Plan = "plan_id", "plan_id", Text;
    /** The state. Deleted ones are left out of a list unless this column is filtered. */
    State = "status", "state", Text;
    /** When it was asked for. */ CreatedAt = "created_at", "created_at", Number;
    /** When it was last changed. */ UpdatedAt = "updated_at", "updated_at", NullableNumber;
    /** When it was committed. */ CommittedAt = "committed_at", "committed_at", NullableNumber;
    /** Bytes that a restore writes. */ LogicalBytes = "logical_bytes", "logical_bytes", NullableNumber;
});

columns!(/** Columns of restores. */ RestoreColumn {
    /** The id. */ Id = "id", "id", Text;
    /** The project. */ Project = "project_id", "project_id", Text;
    /** The provider. */ Provider = "provider_id", "provider_id", Text;
    /** The checkpoint. */ Checkpoint = "checkpoint_id", "checkpoint_id", Text;
    /** Where to. */ Target = "restore_target", "restore_target", NullableText;
    /** The parameters, as JSON. */ Parameters = "parameters", "parameters", Text;
    /** The state. */ State = "status", "state", Text;
    /** The status of its resources, as JSON. */ ResourcesStatus = "resources_status", "resources_status", Text;
    /** What is said of its resources, as JSON. */
    ResourcesReason = "resources_reason", "resources_reason", Text;
    /** When it was asked for. */ CreatedAt = "created_at", "created_at", Number;
    /** When it was last changed. */ UpdatedAt = "updated_at", "updated_at", NullableNumber;
});

columns!(/** Columns of verifications. */ VerificationColumn {
    /** The id. */ Id = "id", "id", Text;
    /** The project. */ Project = "project_id", "project_id", Text;
    /** The provider. */ Provider = "provider_id", "provider_id", Text;
    /** The checkpoint. */ Checkpoint = "checkpoint_id", "checkpoint_id", Text;
    /** The parameters, as JSON. */ Parameters = "parameters", "parameters", Text;
    /** The state. */ State = "status", "state", Text;
    /** The status of its resources, as JSON. */ ResourcesStatus = "resources_status", "resources_status", Text;
    /** What is said of its resources, as JSON. */
    ResourcesReason = "resources_reason", "resources_reason", Text;
    /** When it was asked for. */ CreatedAt = "created_at", "created_at", Number;
    /** When it was last changed. */ UpdatedAt = "updated_at", "updated_at", NullableNumber;
});

columns!(/** Columns of operations. */ OperationColumn {
    /** The id. */ Id = "id", "id", Text;
    /** The kind. */ Kind = "kind", "kind", Text;
    /** The project. */ Project = "project_id", "project_id", Text;
    /** Who asked for it. */ User = "user_id", "user_id", NullableText;
    /** The plan. */ Plan = "plan_id", "plan_id", NullableText;
    /** The checkpoint. */ Checkpoint = "checkpoint_id", "checkpoint_id", NullableText;
    /** The restore. */ Restore = "restore_id", "restore_id", NullableText;
    /** The verification. */ Verification = "verification_id", "verification_id", NullableText;
    /** The provider. */ Provider = "provider_id", "provider_id", NullableText;
    /** The state. */ State = "state", "state", Text;
    /** Who holds it. */ Owner = "owner", "owner", NullableText;
    /** The priority. */ Priority = "priority", "priority", Number;
    /** When it is due. */ DueAt = "due_at", "due_at", Number;
    /** When it was asked for. */ CreatedAt = "created_at", "created_at", Number;
    /** When it was first claimed. */ StartedAt = "started_at", "started_at", NullableNumber;
    /** When it ended. */ EndedAt = "ended_at", "ended_at", NullableNumber;
});

columns!(/** Columns of the operation log. */ OperationLogColumn {
    /** The id. */ Id = "id", "id", Text;
    /** The project. */ Project = "project_id", "project_id", Text;
    /** What was done. */ Kind = "operation_type", "operation_type", Text;
    /** The checkpoint. */ Checkpoint = "checkpoint_id", "checkpoint_id", NullableText;
    /** The plan. */ Plan = "plan_id", "plan_id", NullableText;
    /** The provider. */ Provider = "provider_id", "provider_id", NullableText;
    /** The restore. */ Restore = "restore_id", "restore_id", NullableText;
    /** The scheduled operation. */
    ScheduledOperation = "scheduled_operation_id", "scheduled_operation_id", NullableText;
    /** The status. */ Status = "status", "status", Text;
    /** When it was asked for. */ StartedAt = "started_at", "started_at", Number;
    /** When it ended. */ EndedAt = "ended_at", "ended_at", NullableNumber;
    /** Why it failed. */ ErrorInfo = "error_info", "error_info", NullableText;
    /** What else is told, as JSON. */ ExtraInfo = "extra_info", "extra_info", NullableText;
    /** When the record was made. */ CreatedAt = "created_at", "created_at", Number;
    /** When it was last changed. */ UpdatedAt = "updated_at", "updated_at", NullableNumber;
});

columns!(/** Columns of triggers. */ TriggerColumn {
    /** The id. */ Id = "id", "id", Text;
    /** The name. */ Name = "name", "name", Text;
    /** The project. */ Project = "project_id", "project_id", Text;
    /** The type. */ Kind = "type", "kind", Text;
    /** The properties, as JSON. */ Properties = "properties", "properties", Text;
    /** When it is due next. */ NextAt = "next_at", "next_at", NullableNumber;
    /** When it was made. */ CreatedAt = "created_at", "created_at", Number;
    /** When it was last changed. */ UpdatedAt = "updated_at", "updated_at", NullableNumber;
});

columns!(/** Columns of scheduled operations. */ ScheduledOperationColumn {
    /** The id. */ Id = "id", "id", Text;
    /** The name. */ Name = "name", "name", Text;
    /** The description. */ Description = "description", "description", NullableText;
    /** The type. */ OperationType = "operation_type", "operation_type", Text;
    /** Who made it. */ User = "user_id", "user_id", Text;
    /** The project. */ Project = "project_id", "project_id", Text;
    /** The trigger. */ Trigger = "trigger_id", "trigger_id", Text;
    /** The definition, as JSON. */ Definition = "operation_definition", "operation_definition", Text;
    /** Whether it is done, 0 or 1. */ Enabled = "enabled", "enabled", Number;
    /** When it was made. */ CreatedAt = "created_at", "created_at", Number;
    /** When it was last changed. */ UpdatedAt = "updated_at", "updated_at", NullableNumber;
});

columns!(/** Columns of occurrences. */ OccurrenceColumn {
    /** The id. */ Id = "id", "id", Text;
    /** The scheduled operation. */ Operation = "scheduled_operation_id", "scheduled_operation_id", Text;
    /** What the scheduled operation does. */ OperationType = "operation_type", "operation_type", Text;
    /** The trigger. */ Trigger = "trigger_id", "trigger_id", Text;
    /** The project. */ Project = "project_id", "project_id", Text;
    /** The provider. */ Provider = "provider_id", "provider_id", Text;
    /** The instant at which it is due. */ At = "occurrence_at", "occurrence_at", Number;
    /** Where it comes from. */ Origin = "origin", "origin", Text;
    /** The state. */ State = "status", "state", Text;
    /** Why it was skipped or failed. */ Reason = "reason", "reason", NullableText;
    /** The checkpoint that it made. */ Checkpoint = "checkpoint_id", "checkpoint_id", NullableText;
    /** When it was handed out. */ CreatedAt = "created_at", "created_at", Number;
    /** When it was first started. */ StartedAt = "started_at", "started_at", NullableNumber;
    /** When it ended. */ EndedAt = "ended_at", "ended_at", NullableNumber;
});

/// A list of plans.
pub type PlanQuery = ListQuery<PlanColumn, PlanId>;
/// A list of checkpoints.
pub type CheckpointQuery = ListQuery<CheckpointColumn, CheckpointId>;
/// A list of restores.
pub type RestoreQuery = ListQuery<RestoreColumn, RestoreId>;
/// A list of verifications.
pub type VerificationQuery = ListQuery<VerificationColumn, VerificationId>;
/// A list of operations.
pub type OperationQuery = ListQuery<OperationColumn, OperationId>;
/// A list of the operation log.
pub type OperationLogQuery = ListQuery<OperationLogColumn, OperationLogId>;
/// A list of occurrences.
pub type OccurrenceQuery = ListQuery<OccurrenceColumn, OccurrenceId>;
/// A list of triggers.
pub type TriggerQuery = ListQuery<TriggerColumn, TriggerId>;
/// A list of scheduled operations.
pub type ScheduledOperationQuery = ListQuery<ScheduledOperationColumn, ScheduledOperationId>;
