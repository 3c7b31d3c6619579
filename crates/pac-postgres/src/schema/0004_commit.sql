-- Commits to many repositories in one transaction and one round trip, each on its own condition
-- and with its own outcome. Locks first, reads later: every statement of this function sees
-- what was committed before it began.
--
-- Sessions and heads are locked in the order of their keys, and a head that somebody else holds
-- is a conflict rather than a wait; nothing that waits holds what another waits for. The plan
-- settings: arrays of unknown length are no reason to read a table from end to end, nor to plan
-- anew for each; where only that is possible, as for the one row of the floor, it then counts as
-- so expensive that a server would compile it first, for 10 ms. A condition with a query of its
-- own is kept for when it matters: it costs as much as a statement. What is an expression and no
-- query costs next to nothing.

-- What comes of the commit to one repository: 0 committed, at `moment`, and with the new floor in
-- `about` if it was removed; 1 conflict; 2 the session `about` is dead.
CREATE FUNCTION commit_batch(
  p_session bigint,
  -- One each per repository.
  p_repository text[], p_expected bigint[], p_remove boolean[], p_limit bigint[],
  p_limit_version bigint[], p_last_ticket bigint[], p_last_token bigint[], p_queued bigint[],
  p_started bigint[],
  -- One each per session that has to live, with the number of its repository.
  p_alive_of integer[], p_alive bigint[],
  -- One each per entry, with the number of its repository. The smallest time is "now".
  p_of integer[], p_run text[], p_uid text[], p_kind smallint[], p_priority integer[],
  p_ticket bigint[], p_state smallint[], p_token bigint[], p_owner bigint[],
  p_orphaned boolean[], p_outcome smallint[], p_abandoned boolean[], p_adopted boolean[],
  p_queued_at bigint[], p_started_at bigint[], p_finished_at bigint[]
) RETURNS TABLE (number integer, outcome smallint, moment bigint, about bigint)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
  c_now CONSTANT bigint := -9223372036854775808;
  c_locks CONSTANT integer := lock_space();
  v_sessions bigint[] := ARRAY[p_session];
  v_session bigint;
  v_locked text;
  v_dead bigint[];
  -- Those of which a session is dead, and those whose heads are ours as they were expected.
  v_bereaved integer[] := '{}';
  v_held integer[];
  -- Whether that is all of them: to search an array for each row takes a copy of it each time.
  v_all boolean;
  v_removes boolean := false;
  v_missing boolean := false;
  v_floor bigint;
  v_moment bigint;
  v_written bigint;
BEGIN
  -- Nearly always it is one.
  IF p_alive <> '{}' THEN
    v_sessions := ARRAY(SELECT p_session UNION SELECT unnest(p_alive) ORDER BY 1);
  END IF;
  -- Assigned, so that it is no query; what comes next is one, and sees what was done before.
  FOREACH v_session IN ARRAY v_sessions LOOP
    v_locked := pg_advisory_xact_lock_shared(c_locks, lock_number(v_session))::text;
  END LOOP;
  SELECT array_agg(s.id) INTO v_dead FROM unnest(v_sessions) s (id)
    WHERE NOT EXISTS (SELECT FROM sessions k
      WHERE k.id = s.id AND NOT k.dead AND NOT has_passed(k.deadline, k.session_ttl));
  IF v_dead IS NOT NULL THEN
    IF p_session = ANY (v_dead) THEN
      RETURN QUERY SELECT 0, 2::smallint, NULL::bigint, p_session;
      RETURN;
    END IF;
    SELECT array_agg(DISTINCT a.number) INTO v_bereaved
      FROM unnest(p_alive_of, p_alive) a (number, id) WHERE a.id = ANY (v_dead);
  END IF;

  SELECT coalesce(array_agg(h.number), '{}') INTO v_held FROM (
    SELECT t.number::integer FROM unnest(p_repository, p_expected)
        WITH ORDINALITY t (repository, expected, number)
      JOIN repositories r ON r.repository = t.repository
      WHERE r.revision = t.expected AND r.format = 1 AND t.number <> ALL (v_bereaved)
      ORDER BY r.repository
      FOR NO KEY UPDATE OF r SKIP LOCKED) h (number);
  IF true = ANY (p_remove) THEN
    v_removes := EXISTS (SELECT FROM unnest(v_held) h (number) WHERE p_remove[h.number]);
  END IF;

  -- The floor is locked once, in the mode that all of the batch needs.
  IF v_removes THEN
    SELECT f.value INTO v_floor FROM floor f FOR UPDATE;
  END IF;
  IF cardinality(v_held) < cardinality(p_repository) - cardinality(v_bereaved) THEN
    v_missing := EXISTS (SELECT FROM unnest(p_repository) t (repository)
      WHERE NOT EXISTS (SELECT FROM repositories r WHERE r.repository = t.repository));
  END IF;
  IF v_missing THEN
    IF NOT v_removes THEN
      SELECT f.value INTO v_floor FROM floor f FOR SHARE;
    END IF;
    WITH created AS (
      INSERT INTO repositories (repository, format, revision, purged, run_limit, last_ticket,
          last_token, queued, started)
        SELECT t.repository, 1, t.expected, t.expected, 0, 0, 0, 0, 0
          FROM unnest(p_repository, p_expected, p_remove)
            WITH ORDINALITY t (repository, expected, remove, number)
          WHERE t.expected = v_floor AND NOT t.remove AND t.number <> ALL (v_bereaved)
            AND NOT EXISTS (SELECT FROM repositories r WHERE r.repository = t.repository)
          ORDER BY t.repository
        ON CONFLICT DO NOTHING
        RETURNING repository)
      SELECT v_held || coalesce(array_agg(t.number::integer), '{}') INTO v_held
        FROM unnest(p_repository) WITH ORDINALITY t (repository, number)
        JOIN created c ON c.repository = t.repository;
  END IF;

  v_all := cardinality(v_held) = cardinality(p_repository);
  v_moment := now_millis();
  UPDATE repositories r SET revision = t.expected + 1, run_limit = t.run_limit,
      limit_version = t.limit_version, last_ticket = t.last_ticket, last_token = t.last_token,
      queued = t.queued, started = t.started
    FROM unnest(p_repository, p_expected, p_remove, p_limit, p_limit_version, p_last_ticket,
        p_last_token, p_queued, p_started)
      WITH ORDINALITY t (repository, expected, remove, run_limit, limit_version, last_ticket,
        last_token, queued, started, number)
    WHERE r.repository = t.repository AND NOT t.remove
      AND (v_all OR t.number = ANY (v_held));

  INSERT INTO entries AS k (repository, run, format, uid, kind, priority, ticket, state, token,
      session, orphaned, outcome, abandoned, adopted, queued_at, started_at, finished_at,
      revision)
    SELECT p_repository[e.number], e.run, 1, e.uid, e.kind, e.priority, e.ticket, e.state,
        e.token, e.owner, e.orphaned, e.outcome, e.abandoned, e.adopted,
        CASE e.queued_at WHEN c_now THEN v_moment ELSE e.queued_at END,
        CASE e.started_at WHEN c_now THEN v_moment ELSE e.started_at END,
        CASE e.finished_at WHEN c_now THEN v_moment ELSE e.finished_at END,
        p_expected[e.number] + 1
      FROM unnest(p_of, p_run, p_uid, p_kind, p_priority, p_ticket, p_state, p_token, p_owner,
          p_orphaned, p_outcome, p_abandoned, p_adopted, p_queued_at, p_started_at,
          p_finished_at)
        e (number, run, uid, kind, priority, ticket, state, token, owner, orphaned, outcome,
          abandoned, adopted, queued_at, started_at, finished_at)
      WHERE v_all OR e.number = ANY (v_held)
    ON CONFLICT (run, repository) DO UPDATE SET format = excluded.format, uid = excluded.uid,
      kind = excluded.kind, priority = excluded.priority, ticket = excluded.ticket,
      state = excluded.state, token = excluded.token, session = excluded.session,
      orphaned = excluded.orphaned, outcome = excluded.outcome,
      abandoned = excluded.abandoned, adopted = excluded.adopted,
      queued_at = excluded.queued_at, started_at = excluded.started_at,
      finished_at = excluded.finished_at, revision = excluded.revision
      WHERE k.format = 1;
  GET DIAGNOSTICS v_written = ROW_COUNT;
  IF v_written < cardinality(p_of) THEN
    IF v_written < (SELECT count(*) FROM unnest(p_of) o WHERE o = ANY (v_held)) THEN
      RAISE EXCEPTION 'a record of a newer version was to be overwritten'
        USING ERRCODE = 'PAC02';
    END IF;
  END IF;

  IF v_removes THEN
    DELETE FROM entries e USING unnest(v_held) h (number)
      WHERE p_remove[h.number] AND e.repository = p_repository[h.number];
    WITH gone AS (
      DELETE FROM repositories r USING unnest(v_held) h (number)
        WHERE p_remove[h.number] AND r.repository = p_repository[h.number]
        RETURNING greatest(r.revision + 1, r.last_ticket, r.last_token) AS after)
      SELECT greatest(v_floor, max(gone.after)) INTO v_floor FROM gone;
    UPDATE floor f SET value = v_floor;
  END IF;

  IF v_all THEN
    RETURN QUERY SELECT n, 0::smallint, v_moment, v_floor
      FROM generate_series(1, cardinality(p_repository)) n;
    RETURN;
  END IF;
  -- What is removed and was not there is as it should be.
  RETURN QUERY SELECT t.number::integer,
      CASE
        WHEN t.number = ANY (v_held) OR t.remove AND t.expected = v_floor AND NOT v_removes
          AND NOT EXISTS (SELECT FROM repositories r WHERE r.repository = t.repository)
          THEN 0
        WHEN t.number = ANY (v_bereaved) THEN 2
        ELSE 1
      END::smallint,
      v_moment,
      CASE
        WHEN t.number = ANY (v_bereaved) THEN (SELECT min(a.id)
          FROM unnest(p_alive_of, p_alive) a (number, id)
          WHERE a.number = t.number AND a.id = ANY (v_dead))
        ELSE v_floor
      END
    FROM unnest(p_repository, p_expected, p_remove)
      WITH ORDINALITY t (repository, expected, remove, number);
END
$$;
