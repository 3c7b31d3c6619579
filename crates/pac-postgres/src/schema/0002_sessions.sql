-- Sessions, and whether they are alive. After a session is declared dead, no commit of it may
-- appear. So a commit takes a shared lock on every session that it depends on before it looks
-- whether they live, and keeps it until its transaction ends; and a session is declared dead under
-- the exclusive lock. The locks are advisory ones, because locks of rows would write the rows of
-- the sessions with every commit.

CREATE FUNCTION millis(moment timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN floor(extract(epoch FROM moment) * 1000)::bigint;

-- Not now(), which is the time at which the transaction started.
CREATE FUNCTION now_millis() RETURNS bigint
LANGUAGE sql VOLATILE
RETURN floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint;

-- The two halves of the key of a session's lock: this schema, and the number of the session. The
-- names in them are looked up when they are created and they have no settings of their own, so
-- PostgreSQL can inline them into the statements that call them.
CREATE FUNCTION lock_space() RETURNS integer
LANGUAGE sql STABLE
RETURN ('sessions'::regclass::oid::bigint - 2147483648)::integer;

CREATE FUNCTION lock_number(session bigint) RETURNS integer
LANGUAGE sql IMMUTABLE
RETURN (session & 2147483647)::integer;

-- Since when sessions could be renewed: the start of the server, its last recovery from the crash
-- of one of its processes (which resets its statistics), or the last fail-over, whichever is
-- latest. A fail-over that has not been noted yet counts as happening now.
CREATE FUNCTION up_since() RETURNS bigint
LANGUAGE sql VOLATILE SET search_path FROM CURRENT
AS $$
  SELECT greatest(
    millis(pg_postmaster_start_time()),
    millis((SELECT stats_reset FROM pg_stat_bgwriter)),
    CASE timeline WHEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) THEN since
      ELSE now_millis() END)
  FROM server
$$;

-- Whether a deadline has passed, and the server has been up for a whole TTL. The first condition is
-- nearly always enough, so the slower up_since() is seldom called. Can be inlined, too.
CREATE FUNCTION has_passed(deadline bigint, ttl bigint) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN CASE WHEN deadline > now_millis() THEN false ELSE up_since() + ttl <= now_millis() END;

-- Ends a session as if its session TTL had passed; its lease TTL runs on.
CREATE FUNCTION close_session(closing bigint) RETURNS void
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(lock_space(), lock_number(closing));
  UPDATE sessions s SET dead = true WHERE s.id = closing AND NOT s.dead;
  DELETE FROM sessions s WHERE s.id = closing
    AND NOT EXISTS (SELECT FROM entries e WHERE e.session = closing);
END
$$;

-- Renews a session. False, for good, when it is too late. It may hold the row of the session, so it
-- must not wait for the lock of the session: a sweep takes the lock first and then the row. If it
-- does not get the lock, a sweep declares the session dead.
CREATE FUNCTION renew_session(renewing bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
BEGIN
  UPDATE sessions s
    SET deadline = now_millis() + s.session_ttl, lease_deadline = now_millis() + s.lease_ttl
    WHERE s.id = renewing AND NOT s.dead AND NOT has_passed(s.deadline, s.session_ttl);
  IF FOUND THEN
    RETURN true;
  END IF;
  IF pg_try_advisory_xact_lock(lock_space(), lock_number(renewing)) THEN
    UPDATE sessions s SET dead = true WHERE s.id = renewing AND NOT s.dead;
  END IF;
  RETURN false;
END
$$;

-- Notes a fail-over, declares sessions dead whose session TTL has passed, forgets dead ones whose
-- lease TTL has passed and that have no entries, and returns the others that are dead: whether the
-- lease TTL of each has passed too, and whether this call declared it dead. Writes nothing when
-- there is nothing new.
CREATE FUNCTION sweep_sessions() RETURNS TABLE (session bigint, lease_passed boolean, fresh boolean)
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
AS $$
DECLARE
  v_dying bigint[];
BEGIN
  UPDATE server v SET timeline = t.now, since = now_millis()
    FROM (SELECT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)) t (now)
    WHERE v.timeline <> t.now;
  SELECT array_agg(s.id) INTO v_dying FROM sessions s
    WHERE NOT s.dead AND has_passed(s.deadline, s.session_ttl);
  IF v_dying IS NOT NULL THEN
    -- A session with a commit under way is left for the next sweep.
    SELECT array_agg(d.id) INTO v_dying FROM unnest(v_dying) d (id)
      WHERE pg_try_advisory_xact_lock(lock_space(), lock_number(d.id));
    WITH died AS (
      UPDATE sessions s SET dead = true
        WHERE s.id = ANY (v_dying) AND NOT s.dead AND has_passed(s.deadline, s.session_ttl)
        RETURNING s.id)
      SELECT array_agg(died.id) INTO v_dying FROM died;
  END IF;
  DELETE FROM sessions s
    WHERE s.dead AND has_passed(s.lease_deadline, s.lease_ttl)
      AND NOT EXISTS (SELECT FROM entries e WHERE e.session = s.id);
  RETURN QUERY SELECT s.id, has_passed(s.lease_deadline, s.lease_ttl),
      s.id = ANY (coalesce(v_dying, '{}'))
    FROM sessions s WHERE s.dead;
END
$$;
