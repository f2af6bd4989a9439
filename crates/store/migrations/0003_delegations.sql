-- By what right work is done after its request has ended. The row is there before the right is.
-- `owner_id` is an operation's id or a scheduled operation's; `trust_id` is nothing until the trust is made;
-- `expires_at` marks the trust among others; `sealed` is a login that its user named, sealed by the master key.
CREATE TABLE {if_absent} delegations (
    owner_id {id} NOT NULL PRIMARY KEY,
    owner_kind {word} NOT NULL,
    project_id {key} NOT NULL,
    user_id {key} NOT NULL,
    trust_id {key},
    expires_at {int} NOT NULL,
    sealed {text},
    created_at {int} NOT NULL
) {table};
