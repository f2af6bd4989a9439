-- Most occurrences have none of these; where an engine can leave them out of an index, each change costs less.
{partial} DROP INDEX occurrences_by_open_operation;
{partial} CREATE UNIQUE INDEX occurrences_by_open_operation ON occurrences (open_operation) WHERE open_operation IS NOT NULL;
{partial} DROP INDEX occurrences_by_retain;
{partial} CREATE INDEX occurrences_by_retain ON occurrences (retain_at) WHERE retain_at IS NOT NULL;
{partial} DROP INDEX occurrences_by_end;
{partial} CREATE INDEX occurrences_by_end ON occurrences (ended_at) WHERE ended_at IS NOT NULL;
