-- What an administrator says of a project's area in a bank beside its quota: where it lies, when not in the bank's own
-- place; how to be let in there, sealed; and which master key wraps its key.
ALTER TABLE bank_accounts ADD COLUMN {if_absent} place {text};
ALTER TABLE bank_accounts ADD COLUMN {if_absent} credentials {text};
ALTER TABLE bank_accounts ADD COLUMN {if_absent} key_source {text};
