-- Of thousands that wait, the next one is found without a look at the others.
CREATE INDEX operations_by_urgency ON operations (priority, state, claimable_at, id);
