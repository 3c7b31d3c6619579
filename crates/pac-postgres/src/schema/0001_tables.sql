-- Runs once, in one transaction, with the search path set to the schema alone.
--
-- Domains say what a column may hold. The CHECK of a table would be parsed and planned anew by each
-- statement that writes rows of it; a connection keeps the rules of a domain.

-- A revision, a ticket or a token. None is counted as far as 2^62: what is beyond is no count, and
-- must not be where another one goes on from.
CREATE DOMAIN counter AS bigint CHECK (VALUE BETWEEN 0 AND 4611686018427387904);
-- Of a session; see new_session().
CREATE DOMAIN session_number AS bigint CHECK (VALUE > 0);
-- Of a commit; see new_stamp().
CREATE DOMAIN commit_stamp AS bigint CHECK (VALUE >= 0);
-- A number of runs: 32 bits without a sign.
CREATE DOMAIN run_count AS bigint CHECK (VALUE BETWEEN 0 AND 4294967295);
-- Milliseconds since 1970 by this server's clock, until the year 9999.
CREATE DOMAIN moment AS bigint CHECK (VALUE BETWEEN 0 AND 253402300799999);
-- In milliseconds, 366 days at most.
CREATE DOMAIN ttl AS bigint CHECK (VALUE BETWEEN 1 AND 31622400000);
-- The version of a record: software that knows only older versions refuses to read it and does not
-- change it.
CREATE DOMAIN record_format AS smallint CHECK (VALUE > 0);
-- The key of a repository or a run: a namespace of 63 bytes at most, a slash, a name of 253.
CREATE DOMAIN namespaced_name AS text COLLATE "C" CHECK (octet_length(VALUE) BETWEEN 3 AND 317);
CREATE DOMAIN run_uid AS text CHECK (octet_length(VALUE) BETWEEN 1 AND 128);
-- 0 durable, 1 ephemeral.
CREATE DOMAIN run_kind AS smallint CHECK (VALUE BETWEEN 0 AND 1);
-- 0 completed, 1 failed, 2 cancelled, 3 lease lost, 4 superseded, 5 timed out, 6 queue full.
CREATE DOMAIN run_outcome AS smallint CHECK (VALUE BETWEEN 0 AND 6);
-- Whether a field of an object is missing, or a whole number in digits: 2.0 and 2e0 are the number 2, but
-- no reader takes them. So the field is json, which keeps the text as it was written.
CREATE FUNCTION is_whole(field json, lowest bigint, highest bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN field IS NULL OR CASE WHEN field::text ~ '^(0|[1-9][0-9]{0,9})$'
  THEN field::text::bigint BETWEEN lowest AND highest ELSE false END;
-- What a run asks beside a slot: a JSON object as the core writes it, or '' for nothing, which takes one
-- byte where a null would take eight in each row. A guard adds up the weights: a number of slots from 1
-- to 65535, and 1 where there is none. The rule is a function that cannot be inlined: each statement
-- that writes such a column makes the rule's expression ready, and most have nothing to check.
CREATE FUNCTION are_terms(part text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
  v_part json := part::json;
BEGIN
  -- Not all json is jsonb, as which others read it.
  RETURN jsonb_typeof(part::jsonb) = 'object' AND is_whole(v_part -> 'weight', 1, 65535);
END
$$;
CREATE DOMAIN run_terms AS text COLLATE "C" CHECK (VALUE = '' OR are_terms(VALUE));
-- What a repository has beside a limit, in the same way.
CREATE FUNCTION is_policy(part text) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE SET search_path FROM CURRENT
AS $$
DECLARE
  v_part json := part::json;
BEGIN
  RETURN jsonb_typeof(part::jsonb) = 'object' AND is_whole(v_part -> 'surplus', 0, 4294967295)
    AND is_whole(v_part -> 'needs', 0, 4294967295) AND is_whole(v_part -> 'timed', 0, 4294967295);
END
$$;
CREATE DOMAIN repository_policy AS text COLLATE "C" CHECK (VALUE = '' OR is_policy(VALUE));
-- Of who has opened a session; see open_session().
CREATE DOMAIN process_number AS bigint CHECK (VALUE BETWEEN 0 AND 4294967295);
CREATE DOMAIN identity_part AS text COLLATE "C" CHECK (octet_length(VALUE) BETWEEN 1 AND 63);
-- Who may use a domain may make an operator for it, which would fit better than the one that is meant.
REVOKE USAGE ON DOMAIN counter, session_number, commit_stamp, run_count, moment, ttl, record_format,
  namespaced_name, run_uid, run_kind, run_outcome, run_terms, repository_policy, process_number,
  identity_part FROM PUBLIC;

CREATE TABLE meta (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version integer NOT NULL CHECK (version >= 0)
);
INSERT INTO meta (version) VALUES (0);

-- The key that hints are sealed with. Any role that may connect can send and hear notifications, so
-- what was not sealed with it counts for nothing. Roles that may not read this table can neither
-- read hints nor forge any.
CREATE TABLE secrets (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  hints bytea NOT NULL CHECK (octet_length(hints) = 32)
);
REVOKE ALL ON secrets FROM PUBLIC;
-- 244 of its 256 bits are random, and come from the generator for cryptographic use.
INSERT INTO secrets (hints)
  SELECT decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex');

-- The highest revision, ticket or token of any repository that was ever removed: new ones count on
-- from there. What is no count (see the domain) is left out.
CREATE TABLE floor (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  value counter NOT NULL
);
INSERT INTO floor (value) VALUES (0);

-- What was noted of this server and its clock, by the processes that use it.
CREATE TABLE server (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  -- The timeline that it was on. One that has changed means a fail-over.
  timeline text NOT NULL CHECK (octet_length(timeline) = 8),
  -- The last time at which sessions could not be renewed: a fail-over, a time in which nobody could
  -- reach the server, a step of its clock.
  since moment NOT NULL,
  -- When it was last seen at work. Written seldom.
  seen moment NOT NULL,
  -- How much later it has to be seen again, in ms, or else nobody could reach it.
  gap ttl NOT NULL,
  -- How many times in a row it was seen later than that.
  late smallint NOT NULL CHECK (late BETWEEN 0 AND 3)
) WITH (fillfactor = 50);
INSERT INTO server (timeline, since, seen, gap, late)
  SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 0,
    floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint, 2000, 0;

-- The older layouts whose state was brought along.
CREATE TABLE migrated (
  layout text COLLATE "C" PRIMARY KEY CHECK (octet_length(layout) BETWEEN 1 AND 63),
  since timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Every commit to a repository replaces its head. Free room on the page, and no index on the
-- columns that change, let PostgreSQL write the new version of the row on the page of the old one.
-- The columns that every commit changes come last and beside each other: the write-ahead log holds
-- what lies between the first and the last byte that changed.
CREATE TABLE repositories (
  repository namespaced_name PRIMARY KEY,
  format record_format NOT NULL,
  -- 0: none.
  run_limit run_count NOT NULL,
  -- All 64 bits of an unsigned number; never compared here.
  limit_version bigint,
  -- Runs whose end was recorded up to this revision may be missing in the history: a reader that knows
  -- only an earlier revision has to read everything.
  purged counter NOT NULL,
  -- No slot is of a revision before this one: nobody need look further back. Kept by the guards
  -- alone, and not with every commit.
  slots_from counter NOT NULL DEFAULT 0,
  revision counter NOT NULL,
  -- The stamp of the commit that made this revision; see new_stamp().
  stamp commit_stamp NOT NULL,
  last_ticket counter NOT NULL,
  last_token counter NOT NULL,
  queued run_count NOT NULL,
  started run_count NOT NULL,
  -- Most repositories have none; one that has it keeps it.
  policy repository_policy NOT NULL DEFAULT ''
) WITH (fillfactor = 50);

-- A run is a row of one table at a time: of `queue` while it waits, of `slots` while it holds a slot;
-- its end is a row of `history`. Where it goes on, the row is deleted here and inserted there. A row
-- is found by its repository and by the revision that wrote it, which whoever changes it knows: while
-- a transaction elsewhere in the database keeps an old snapshot, a search by anything else would go
-- through all rows that were there since. So one index serves those who change a row, those who read
-- what changed, and those who count; each further index costs a commit as much as the row.
--
-- No foreign key to the head: it would look up and lock the head for every row, although each
-- commit has locked it already. The guards make sure that a slot belongs to a head.

-- The runs that wait.
CREATE TABLE queue (
  ticket counter NOT NULL,
  revision counter NOT NULL,
  -- The session that owns the run.
  session session_number,
  queued_at moment,
  priority integer NOT NULL,
  format record_format NOT NULL,
  kind run_kind NOT NULL,
  -- Most runs have none, in all three tables.
  terms run_terms NOT NULL DEFAULT '',
  repository namespaced_name NOT NULL,
  run namespaced_name NOT NULL,
  uid run_uid NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX queue_changed ON queue (repository, revision);
CREATE INDEX queue_session ON queue (session) WHERE session IS NOT NULL;

-- The runs that hold a slot.
CREATE TABLE slots (
  ticket counter NOT NULL,
  token counter NOT NULL,
  revision counter NOT NULL,
  -- The session that holds the slot.
  session session_number NOT NULL,
  queued_at moment,
  started_at moment,
  -- Where the commit has put the head: the guards look for it there first. Its 6 bytes and the 2 of the
  -- format fill a word.
  head tid,
  format record_format NOT NULL,
  priority integer NOT NULL,
  kind run_kind NOT NULL,
  -- Its session has given it up, and it is still running.
  orphaned boolean NOT NULL,
  -- The commit of `revision` recorded a slot that was taken already, not granted.
  adopted boolean NOT NULL,
  -- The guards read it, so it comes before the texts that are longer.
  terms run_terms NOT NULL DEFAULT '',
  repository namespaced_name NOT NULL,
  run namespaced_name NOT NULL,
  uid run_uid NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
CREATE INDEX slots_changed ON slots (repository, revision);
CREATE INDEX slots_session ON slots (session);

-- The ends of runs. Never updated. A run whose name is used again may have several; the latest counts,
-- and none of them while there is a row in the queue or a slot. What is too old is found by the second
-- index, which grows at its end. (One by ranges of pages would be smaller, but a range that was used
-- again after a deletion keeps its oldest time for ever.)
CREATE TABLE history (
  ticket counter NOT NULL,
  revision counter NOT NULL,
  token counter,
  queued_at moment,
  started_at moment,
  finished_at moment,
  priority integer NOT NULL,
  format record_format NOT NULL,
  kind run_kind NOT NULL,
  outcome run_outcome NOT NULL,
  abandoned boolean NOT NULL,
  terms run_terms NOT NULL DEFAULT '',
  repository namespaced_name NOT NULL,
  run namespaced_name NOT NULL,
  uid run_uid NOT NULL
);
CREATE INDEX history_changed ON history (repository, revision);
CREATE INDEX history_ended ON history (finished_at);

-- A number for a session: the time in seconds, and 31 random bits. A sequence would give the same
-- numbers out again after the database was restored from an older copy, while processes of before
-- still renew their sessions. Below 2^63 until the year 2106.
CREATE FUNCTION new_session() RETURNS bigint
LANGUAGE sql VOLATILE
RETURN floor(extract(epoch FROM clock_timestamp()))::bigint << 31
  | floor(random() * 2147483648)::bigint;

CREATE TABLE sessions (
  id session_number PRIMARY KEY DEFAULT new_session(),
  session_ttl ttl NOT NULL,
  lease_ttl ttl NOT NULL,
  -- When it was opened, and by whom, for people to read. Renewals write none of it into the write-ahead
  -- log: what they change comes behind it.
  opened_at moment NOT NULL,
  pid process_number,
  program identity_part NOT NULL,
  version identity_part,
  host identity_part,
  deadline moment NOT NULL,
  lease_deadline moment NOT NULL,
  -- Set once, and never taken back.
  dead boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
