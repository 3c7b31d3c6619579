-- Deletes finished runs. The head of a repository is locked while records of it are deleted, and
-- its column `purged` says up to which revision some may be missing. Both functions return how many
-- records they deleted.

-- Deletes runs that ended more than `p_age` ms ago, `p_most` at a time. Leaves those in a
-- repository whose head is locked for the next call.
CREATE FUNCTION purge_old(p_age bigint, p_most integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
  v_before bigint := now_millis() - p_age;
  v_heads text[];
  v_gone bigint;
BEGIN
  SELECT array_agg(h.repository::text) INTO v_heads FROM (
    SELECT r.repository FROM repositories r
      WHERE r.format = 1 AND r.repository IN (SELECT o.repository FROM (
        SELECT e.repository FROM history e
          WHERE e.finished_at < v_before
            -- Records that must stay must not take the place of records that can go.
            AND EXISTS (SELECT FROM repositories k
              WHERE k.repository = e.repository AND k.format = 1)
          ORDER BY e.finished_at LIMIT p_most) o)
      ORDER BY r.repository FOR NO KEY UPDATE SKIP LOCKED) h;
  IF v_heads IS NULL THEN
    RETURN 0;
  END IF;
  WITH gone AS (
    DELETE FROM history e
      WHERE e.ctid = ANY (ARRAY(SELECT o.ctid FROM history o
        WHERE o.finished_at < v_before AND o.repository = ANY (v_heads)
        ORDER BY o.finished_at LIMIT p_most))
      RETURNING e.repository, e.revision),
  upto AS (SELECT g.repository, max(g.revision) AS revision, count(*) AS gone
    FROM gone g GROUP BY g.repository),
  noted AS (UPDATE repositories r SET purged = greatest(r.purged, counted(u.revision, 4611686018427387904))
    FROM upto u WHERE r.repository = u.repository)
  SELECT coalesce(sum(u.gone), 0) INTO v_gone FROM upto u;
  RETURN v_gone;
END
$$;

-- Deletes finished runs but the latest `p_keep` of each repository, those that changed first at
-- first, and `p_most` of each at a time. Waits for heads that are locked, because it is repositories
-- in use that have too many.
CREATE FUNCTION purge_excess(p_repositories text[], p_keep bigint, p_most bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SET search_path FROM CURRENT
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off
AS $$
DECLARE
  v_heads text[];
  v_gone bigint;
BEGIN
  SELECT array_agg(h.repository::text) INTO v_heads FROM (
    SELECT r.repository FROM repositories r
      WHERE r.format = 1 AND r.repository = ANY (p_repositories)
      ORDER BY r.repository FOR NO KEY UPDATE) h;
  WITH cut AS (
    SELECT h.repository, l.revision, l.ticket
      FROM unnest(v_heads) h (repository), LATERAL (
        SELECT e.revision, e.ticket FROM history e
          WHERE e.repository = h.repository
          ORDER BY e.revision DESC, e.ticket DESC OFFSET p_keep LIMIT 1) l),
  gone AS (
    DELETE FROM history e
      WHERE e.ctid = ANY (ARRAY(SELECT o.place FROM cut c, LATERAL (
        SELECT k.ctid AS place FROM history k
          WHERE k.repository = c.repository AND k.revision <= c.revision
            -- One commit may have ended more of them than are to be kept.
            AND (k.revision < c.revision OR k.ticket <= c.ticket)
          ORDER BY k.revision LIMIT p_most) o))
      RETURNING 1),
  noted AS (UPDATE repositories r SET purged = greatest(r.purged, counted(c.revision, 4611686018427387904))
    FROM cut c WHERE r.repository = c.repository)
  SELECT count(*) INTO v_gone FROM gone;
  RETURN coalesce(v_gone, 0);
END
$$;
