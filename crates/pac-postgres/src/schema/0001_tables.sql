-- Runs once, in one transaction, with the search path set to the schema alone.
--
-- Counters are below 2^63, which no clock will see: revisions, tickets, tokens, sessions. Times
-- are milliseconds since 1970 by this server's clock. `format` is the version of a record: a
-- reader leaves alone what is newer than it knows.

CREATE TABLE meta (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version integer NOT NULL
);
INSERT INTO meta (version) VALUES (0);

-- The highest revision, ticket or token of any repository ever removed: counting goes on from there.
CREATE TABLE floor (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  value bigint NOT NULL
);
INSERT INTO floor (value) VALUES (0);

-- Since when this server writes: a change of the timeline is a fail-over.
CREATE TABLE server (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  timeline text NOT NULL,
  since bigint NOT NULL
);
INSERT INTO server (timeline, since)
  SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 0;

-- Every commit to a repository replaces its head: room on the page and no index on what changes
-- let the new version stay where the old one was.
CREATE TABLE repositories (
  repository text COLLATE "C" PRIMARY KEY,
  format smallint NOT NULL,
  revision bigint NOT NULL,
  -- Records of runs that changed up to this revision may be gone: whoever knows less than
  -- this reads all.
  purged bigint NOT NULL,
  -- 0: none.
  run_limit bigint NOT NULL,
  -- All 64 bits of an unsigned number; never compared here.
  limit_version bigint,
  last_ticket bigint NOT NULL,
  last_token bigint NOT NULL,
  queued bigint NOT NULL,
  started bigint NOT NULL
) WITH (fillfactor = 50);

-- No foreign key to the head: it would lock and look up the head for every row, which each
-- commit has locked already. The guards below see to it that a slot belongs to a head.
CREATE TABLE entries (
  repository text COLLATE "C" NOT NULL,
  run text COLLATE "C" NOT NULL,
  format smallint NOT NULL,
  uid text NOT NULL,
  -- 0 durable, 1 ephemeral.
  kind smallint NOT NULL,
  priority integer NOT NULL,
  ticket bigint NOT NULL,
  -- 0 queued, 1 started, 2 finished.
  state smallint NOT NULL,
  token bigint,
  -- Who owns a queued run, or holds or held a started one.
  session bigint,
  orphaned boolean NOT NULL,
  -- 0 completed, 1 failed, 2 cancelled, 3 expired.
  outcome smallint,
  abandoned boolean NOT NULL,
  -- The commit of `revision` recorded a slot that was taken already, not granted.
  adopted boolean NOT NULL,
  queued_at bigint,
  started_at bigint,
  finished_at bigint,
  revision bigint NOT NULL,
  -- In this order it is of no use to anything but a search for one run: no plan can take it for
  -- the index below and read all of a repository.
  PRIMARY KEY (run, repository)
) WITH (autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05);
-- What changed since, how many hold a slot, and which ended last, in a repository. One index for
-- all of it: what a commit costs is for the most part the indexes that its rows go into.
CREATE INDEX entries_state ON entries (repository, state, revision);
-- In which repositories anybody waits.
CREATE INDEX entries_queued ON entries (repository) WHERE state = 0;
-- In which repositories a session has entries.
CREATE INDEX entries_session ON entries (session, repository) WHERE session IS NOT NULL;
-- Which ended long ago.
CREATE INDEX entries_ended ON entries (finished_at) WHERE state = 2;

CREATE TABLE sessions (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  session_ttl bigint NOT NULL,
  lease_ttl bigint NOT NULL,
  deadline bigint NOT NULL,
  lease_deadline bigint NOT NULL,
  -- Set once, and never taken back.
  dead boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);
