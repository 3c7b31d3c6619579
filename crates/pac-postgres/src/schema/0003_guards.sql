-- The limit is enforced here a second time: no writer, however broken, can start a run beyond it.
-- Only runs that the head's latest commit has adopted may be beyond it.
--
-- A guard locks the heads first and counts in a later statement, which sees what was committed
-- before the guard had the lock. That is so at READ COMMITTED alone, so the guard refuses all else.

-- Checks the limits of repositories, which are named once each.
CREATE FUNCTION guard_limits(starting text[]) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
  v_heads bigint;
  v_over text;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'runs are started at READ COMMITTED only'
      USING ERRCODE = 'PAC03';
  END IF;
  SELECT count(*) INTO v_heads FROM (
    SELECT FROM repositories r WHERE r.repository = ANY (starting)
      ORDER BY r.repository FOR NO KEY UPDATE) heads;
  IF v_heads < cardinality(starting) THEN
    RAISE EXCEPTION 'a run was to be started in a repository that does not exist'
      USING ERRCODE = 'PAC01';
  END IF;
  SELECT r.repository INTO v_over FROM repositories r
    WHERE r.repository = ANY (starting) AND r.run_limit > 0
      AND r.run_limit < (SELECT count(*) FROM entries e
        WHERE e.repository = r.repository AND e.state = 1
          AND NOT (e.adopted AND e.revision = r.revision))
    LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'more runs were to be started in % than its limit admits', v_over
      USING ERRCODE = 'PAC01';
  END IF;
END
$$;

CREATE FUNCTION guard_inserted() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
DECLARE
  v_starting text[];
BEGIN
  SELECT array_agg(DISTINCT n.repository) INTO v_starting FROM new_entries n
    WHERE n.state = 1 AND NOT n.adopted;
  IF v_starting IS NOT NULL THEN
    PERFORM guard_limits(v_starting);
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION guard_updated() RETURNS trigger
LANGUAGE plpgsql SET search_path FROM CURRENT
AS $$
DECLARE
  v_starting text[];
BEGIN
  SELECT array_agg(DISTINCT n.repository) INTO v_starting FROM new_entries n
    WHERE n.state = 1 AND NOT n.adopted AND NOT EXISTS (SELECT FROM old_entries o
      WHERE o.repository = n.repository AND o.run = n.run AND o.state = 1);
  IF v_starting IS NOT NULL THEN
    PERFORM guard_limits(v_starting);
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
