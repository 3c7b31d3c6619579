-- What is there, to be read with SQL by people, dashboards and reports. The three last views stay as they
-- are from version to version, but for columns that are added at the end; the tables do not. Reading
-- them holds nothing up. A role needs SELECT on the views alone, and to use the schema.
--
-- What is a number of milliseconds in a table is a time here. A moment out of the range that times have
-- (see the domain) is none.
CREATE FUNCTION at_time(moment bigint) RETURNS timestamptz
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN moment BETWEEN 0 AND 253402300799999
  THEN 'epoch'::timestamptz + moment * interval '1 millisecond' END;

-- For the views below. A view of its own, and no function: a role that reads those needs no privilege
-- for it.
CREATE VIEW holders AS
  SELECT s.id, s.program::text AS program, s.host::text AS host,
      s.program::text || coalesce('@' || s.host::text, '') || coalesce('#' || s.pid::text, '')
        AS process
    FROM sessions s;

-- The runs that hold a slot.
CREATE VIEW running AS
  SELECT t.repository::text AS repository, t.run::text AS run, t.uid::text AS uid,
      t.token::bigint AS token, t.session::bigint AS session,
      at_time(t.queued_at) AS queued_at, at_time(t.started_at) AS started_at,
      t.orphaned AS orphaned, t.priority AS priority,
      CASE t.kind WHEN 0 THEN 'durable' WHEN 1 THEN 'ephemeral' END AS kind,
      nullif(r.run_limit::bigint, 0) AS run_limit,
      CASE t.terms WHEN '' THEN 1 ELSE coalesce(number_in(t.terms, 'weight'), 1) END AS weight,
      CASE t.terms WHEN '' THEN NULL ELSE text_in(t.terms, 'group') END AS run_group,
      CASE t.terms WHEN '' THEN NULL ELSE at_time(number_in(t.terms, 'asked')) END AS asked_at,
      s.program AS program, s.host AS host, s.process AS process
    FROM slots t LEFT JOIN repositories r ON r.repository = t.repository
      LEFT JOIN holders s ON s.id = t.session;
COMMENT ON VIEW running IS
  'the runs that hold slots; run_limit is null where there is none, asked_at for those that were not asked to end';

-- The runs that wait, each with its position in the queue of its repository, from 1 on.
CREATE VIEW waiting AS
  SELECT q.repository::text AS repository, q.run::text AS run, q.uid::text AS uid,
      -- By the column as it is shown: then a condition on it is looked up in the index first.
      row_number() OVER (PARTITION BY q.repository::text ORDER BY q.priority DESC, q.ticket) AS position,
      q.session::bigint AS session, at_time(q.queued_at) AS queued_at, q.priority AS priority,
      CASE q.kind WHEN 0 THEN 'durable' WHEN 1 THEN 'ephemeral' END AS kind,
      CASE q.terms WHEN '' THEN 1 ELSE coalesce(number_in(q.terms, 'weight'), 1) END AS weight,
      CASE q.terms WHEN '' THEN NULL ELSE text_in(q.terms, 'group') END AS run_group,
      s.program AS program, s.host AS host, s.process AS process
    FROM queue q LEFT JOIN holders s ON s.id = q.session;
COMMENT ON VIEW waiting IS 'the runs that wait, and their position in the queue of their repository';

-- The ends of runs that are still remembered (see the settings for retention).
CREATE VIEW ended AS
  SELECT k.repository::text AS repository, k.run::text AS run, k.uid::text AS uid,
      CASE k.outcome WHEN 0 THEN 'completed' WHEN 1 THEN 'failed' WHEN 2 THEN 'cancelled'
        WHEN 3 THEN 'lease-lost' WHEN 4 THEN 'superseded' WHEN 5 THEN 'timed-out'
        WHEN 6 THEN 'queue-full' END AS outcome,
      k.token::bigint AS token, at_time(k.queued_at) AS queued_at,
      at_time(k.started_at) AS started_at, at_time(k.finished_at) AS finished_at,
      k.priority AS priority,
      CASE k.kind WHEN 0 THEN 'durable' WHEN 1 THEN 'ephemeral' END AS kind,
      CASE k.terms WHEN '' THEN 1 ELSE coalesce(number_in(k.terms, 'weight'), 1) END AS weight,
      CASE k.terms WHEN '' THEN NULL ELSE text_in(k.terms, 'group') END AS run_group,
      CASE k.terms WHEN '' THEN NULL ELSE at_time(number_in(k.terms, 'asked')) END AS asked_at
    FROM history k;
COMMENT ON VIEW ended IS 'how runs ended; token is null for those that never had a slot';
