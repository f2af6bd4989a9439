-- What is done of each scheduled operation at each instant at which its trigger fires.

-- `revision` grows with each change of what the trigger says. `handed_to` is how far the operations of the trigger have
-- got the occurrence `next_at`: all up to that one have. `fault` is why nobody can read when the trigger fires.
ALTER TABLE triggers ADD COLUMN {if_absent} revision {int} NOT NULL DEFAULT 0;

ALTER TABLE triggers ADD COLUMN {if_absent} handed_to {id};

ALTER TABLE triggers ADD COLUMN {if_absent} fault {text};

-- Those of which it was never worked out when they fire are due in 1970: whoever hands out occurrences works it out.
UPDATE triggers SET next_at = 0 WHERE next_at IS NULL;

ALTER TABLE scheduled_operations ADD COLUMN {if_absent} rules {text};

CREATE INDEX scheduled_operations_by_trigger_in_order ON scheduled_operations (trigger_id, id);

-- When a plan that had been started was suspended: its occurrences are skipped since.
ALTER TABLE plans ADD COLUMN {if_absent} suspended_at {int};

ALTER TABLE operations ADD COLUMN {if_absent} occurrence_id {id};

ALTER TABLE operations ADD COLUMN {if_absent} occurrence_attempt {int};

CREATE INDEX operations_by_occurrence ON operations (occurrence_id);

-- `act_at` is when somebody has to look at it next, nothing once it has ended. `turn` orders what is ready: the lower,
-- the sooner. `open_operation` is its scheduled operation while it is started: no two occurrences of one are.
CREATE TABLE {if_absent} occurrences (
    id {id} NOT NULL PRIMARY KEY,
    scheduled_operation_id {id} NOT NULL,
    operation_type {word} NOT NULL,
    trigger_id {id} NOT NULL,
    project_id {key} NOT NULL,
    provider_id {id} NOT NULL,
    occurrence_at {int} NOT NULL,
    origin {word} NOT NULL,
    state {word} NOT NULL,
    reason {word},
    detail {text},
    turn {int} NOT NULL,
    attempt {int} NOT NULL,
    act_at {int},
    until_at {int} NOT NULL,
    open_operation {id},
    checkpoint_id {id},
    retain_at {int},
    created_at {int} NOT NULL,
    started_at {int},
    ended_at {int},
    updated_at {int}
) {table};

CREATE UNIQUE INDEX occurrences_by_operation ON occurrences (scheduled_operation_id, occurrence_at);

CREATE UNIQUE INDEX occurrences_by_open_operation ON occurrences (open_operation);

CREATE INDEX occurrences_by_act ON occurrences (state, act_at);

CREATE INDEX occurrences_by_turn ON occurrences (state, provider_id, project_id, turn, occurrence_at);

CREATE INDEX occurrences_by_project ON occurrences (project_id, created_at, id);

CREATE INDEX occurrences_by_retain ON occurrences (retain_at);

CREATE INDEX occurrences_by_end ON occurrences (ended_at);

-- Whoever begins occurrences under limits changes this row first, so that one at a time counts and begins.
CREATE TABLE {if_absent} occurrence_limits (
    id {int} NOT NULL PRIMARY KEY,
    revision {int} NOT NULL
) {table};
