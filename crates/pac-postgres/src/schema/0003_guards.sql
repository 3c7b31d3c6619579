-- The limit is enforced here a second time: no writer, however broken, can start a run beyond it.
-- Only runs that the head's latest commit has adopted may be beyond it.
--
-- A guard locks the heads first and counts in a later statement, which sees what was committed
-- before the guard had the lock. That is so at READ COMMITTED alone, so the guard refuses all else.

-- Checks the limits of repositories, which are named once each, where runs were started by commits of
-- revisions from `lowest` on, one for each of them.
--
-- Counts from the column `slots_from` on: while a transaction elsewhere in the database keeps an old
-- snapshot, a record of every run that has had a slot meanwhile is still in the index. The setting
-- `pac.heads` says where the commit has put the heads. Where this transaction has written all of
-- them it holds their locks, so they are counted at once, and not searched for by key.
CREATE FUNCTION guard_limits(starting text[], lowest bigint[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  -- How many revisions `slots_from` may be behind before it is set anew, which costs a write.
  c_behind CONSTANT bigint := 100;
  v_places tid[] := nullif(current_setting('pac.heads', true), '')::tid[];
  v_own xid := pg_current_xact_id()::xid;
  v_found integer := 0;
  v_head record;
  v_moved tid;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'runs are started at READ COMMITTED only'
      USING ERRCODE = 'PAC03';
  END IF;
  LOOP
    -- IS TRUE keeps the planner from a search by key.
    FOR v_head IN
      SELECT r.repository, r.run_limit, r.slots_from, r.ctid AS place, slots.held, slots.earliest
        FROM repositories r, LATERAL (SELECT min(e.revision) AS earliest,
            count(*) FILTER (WHERE NOT (e.adopted AND e.revision = r.revision)) AS held
          FROM entries e WHERE e.repository = r.repository AND e.state = 1
            AND e.revision >= r.slots_from) slots
        WHERE r.ctid = ANY (v_places) AND (r.repository = ANY (starting)) IS TRUE
          AND (v_own IS NULL OR r.xmin = v_own)
    LOOP
      v_found := v_found + 1;
      IF v_head.slots_from > lowest[array_position(starting, v_head.repository)] THEN
        RAISE EXCEPTION 'a run was to be started in % at a revision of the past', v_head.repository
          USING ERRCODE = 'PAC01';
      END IF;
      IF v_head.run_limit > 0 AND v_head.held > v_head.run_limit THEN
        RAISE EXCEPTION 'more runs were to be started in % than its limit admits',
          v_head.repository USING ERRCODE = 'PAC01';
      END IF;
      IF v_head.earliest > v_head.slots_from + c_behind THEN
        UPDATE repositories r SET slots_from = v_head.earliest WHERE r.ctid = v_head.place
          RETURNING r.ctid INTO v_moved;
        -- The commit is told where the head has moved.
        PERFORM set_config('pac.heads', replace(current_setting('pac.heads', true),
          v_head.place::text, v_moved::text), true);
      END IF;
    END LOOP;
    EXIT WHEN v_found = cardinality(starting);
    IF v_own IS NULL THEN
      RAISE EXCEPTION 'a run was to be started in a repository that does not exist'
        USING ERRCODE = 'PAC01';
    END IF;
    -- Not, or not only, the commit of a batch: the heads are locked here.
    SELECT array_agg(heads.place) INTO v_places FROM (
      SELECT r.ctid AS place FROM repositories r WHERE r.repository = ANY (starting)
        ORDER BY r.repository FOR NO KEY UPDATE) heads;
    v_own := NULL;
    v_found := 0;
  END LOOP;
END
$$;

CREATE FUNCTION guard_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
DECLARE
  v_starting text[];
  v_lowest bigint[];
BEGIN
  SELECT array_agg(s.repository::text), array_agg(s.lowest) INTO v_starting, v_lowest
    FROM (SELECT n.repository, min(n.revision) AS lowest FROM new_entries n
      WHERE n.state = 1 AND NOT n.adopted GROUP BY n.repository) s;
  IF v_starting IS NOT NULL THEN
    PERFORM guard_limits(v_starting, v_lowest);
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION guard_updated() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
DECLARE
  v_starting text[];
  v_lowest bigint[];
BEGIN
  SELECT array_agg(s.repository::text), array_agg(s.lowest) INTO v_starting, v_lowest
    FROM (SELECT n.repository, min(n.revision) AS lowest FROM new_entries n
      WHERE n.state = 1 AND NOT n.adopted AND NOT EXISTS (SELECT FROM old_entries o
        WHERE o.repository = n.repository AND o.run = n.run AND o.state = 1
          AND o.revision <= n.revision)
      GROUP BY n.repository) s;
  IF v_starting IS NOT NULL THEN
    PERFORM guard_limits(v_starting, v_lowest);
  END IF;
  RETURN NULL;
END
$$;

CREATE TRIGGER guard_inserted AFTER INSERT ON entries
  REFERENCING NEW TABLE AS new_entries
  FOR EACH STATEMENT EXECUTE FUNCTION guard_inserted();

CREATE TRIGGER guard_updated AFTER UPDATE ON entries
  REFERENCING OLD TABLE AS old_entries NEW TABLE AS new_entries
  FOR EACH STATEMENT EXECUTE FUNCTION guard_updated();
