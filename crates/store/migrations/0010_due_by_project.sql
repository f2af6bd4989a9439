-- What is due in the same second is handed out project by project: then its rows are neighbours wherever a project leads
-- an index.
CREATE INDEX triggers_by_next_and_project ON triggers (next_at, project_id);
DROP INDEX IF EXISTS triggers_by_next {on} triggers {of};

-- Another index does what these do, and each costs something for every checkpoint and operation.
DROP INDEX IF EXISTS checkpoints_by_plan {on} checkpoints {of};
DROP INDEX IF EXISTS scheduled_operations_by_trigger {on} scheduled_operations {of};
