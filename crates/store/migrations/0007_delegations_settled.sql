-- How far a right of a scheduled operation has come: 0 when it is new, 1 when its owner was seen, 2 when its owner is
-- gone. Who looks for rights to be taken back passes over those whose owners are there, however many they are.
ALTER TABLE delegations ADD COLUMN {if_absent} standing {int} NOT NULL DEFAULT 0;

CREATE INDEX delegations_by_standing ON delegations (owner_kind, standing, created_at);

CREATE INDEX operation_logs_by_scheduled_operation ON operation_logs (scheduled_operation_id);
