-- What is held is not deleted: by whom, since when, and why.
ALTER TABLE checkpoints ADD COLUMN {if_absent} held_at {int};

ALTER TABLE checkpoints ADD COLUMN {if_absent} held_by {key};

ALTER TABLE checkpoints ADD COLUMN {if_absent} hold_reason {text};

CREATE INDEX checkpoints_by_plan_in_state ON checkpoints (plan_id, state, created_at);

-- The addresses at which triggers are called. What is stored tells whether an address is right, and not what it is.
CREATE TABLE {if_absent} trigger_addresses (
    trigger_id {id} NOT NULL PRIMARY KEY,
    verifier {key} NOT NULL,
    created_at {int} NOT NULL,
    FOREIGN KEY (trigger_id) REFERENCES triggers (id) ON DELETE CASCADE
) {table};

-- Calls that named a key, so that a call that is sent again fires nothing.
CREATE TABLE {if_absent} trigger_calls (
    trigger_id {id} NOT NULL,
    call_key {name} NOT NULL,
    occurrence_at {int} NOT NULL,
    created_at {int} NOT NULL,
    PRIMARY KEY (trigger_id, call_key),
    FOREIGN KEY (trigger_id) REFERENCES triggers (id) ON DELETE CASCADE
) {table};
