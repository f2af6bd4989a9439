-- One row for each project and bank that it uses: what an administrator says of its area there. Without a quota it may
-- hold as many bytes as there is room for.
CREATE TABLE {if_absent} bank_accounts (
    project_id {name} NOT NULL,
    bank {name} NOT NULL,
    quota_bytes {int},
    created_at {int} NOT NULL,
    updated_at {int},
    PRIMARY KEY (project_id, bank)
) {table};
