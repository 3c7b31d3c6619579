-- A role for PostgreSQL that can neither create nor drop anything, in a database that is open to no
-- other role. The simplest is one role that owns the database and the schema: it creates the schema by
-- itself; then only the part at the end is needed, with that role in the place of pac_runtime.
--
-- Give this software a database of its own. Run this with psql as the owner of the schema, once the schema is there (`pac schema apply`), and
-- again after each version that changes it: what is granted already stays. The owner of the schema owns the
-- database, too, or was let create schemas in it by name (GRANT CREATE ON DATABASE ... TO ...): others are not
-- trusted with it. It needs no other privileges if the role exists; else one who may create roles does that first:
--
--   CREATE ROLE pac_runtime LOGIN PASSWORD 'a password of your own';
--
-- Replace `pac` where the schema has another name. `pac doctor` names what a role lacks.

-- What other roles may have made in this database is not used here.
SET search_path = pg_catalog, pg_temp;

DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'pac_runtime') THEN
    RAISE EXCEPTION 'there is no role pac_runtime'
      USING HINT = 'Create it first, as one who may: CREATE ROLE pac_runtime LOGIN PASSWORD ''...''';
  END IF;
END
$$;

GRANT USAGE ON SCHEMA pac TO pac_runtime;
GRANT SELECT ON pac.meta, pac.secrets TO pac_runtime;
GRANT SELECT, INSERT ON pac.migrated TO pac_runtime;
GRANT SELECT, UPDATE ON pac.floor, pac.server TO pac_runtime;
GRANT SELECT, INSERT, UPDATE, DELETE ON pac.repositories, pac.slots, pac.sessions TO pac_runtime;
GRANT SELECT, INSERT, DELETE ON pac.queue, pac.history TO pac_runtime;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA pac TO pac_runtime;

-- Every role of the server may connect to a new database, and take locks, make temporary tables and send
-- notifications there. That ends here: only pac_runtime and the owners of the database and the schema
-- come in, and superusers. Whoever else has to (a backup, a monitor) needs GRANT CONNECT. What the one
-- who runs this may not do is said, and is for one who may.
DO $$
DECLARE
  v_database pg_database;
  v_owner name := (SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'pac');
BEGIN
  SELECT * INTO v_database FROM pg_database WHERE datname = current_database();
  IF v_database.datname = 'postgres' THEN
    RAISE WARNING 'the database postgres stays open to every role: use one of your own';
  ELSIF pg_has_role(v_database.datdba, 'USAGE') THEN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO pac_runtime, %I', v_database.datname, v_owner);
    EXECUTE format('REVOKE ALL ON DATABASE %I FROM PUBLIC', v_database.datname);
  ELSE
    RAISE WARNING 'only % may close this database to other roles: REVOKE ALL ON DATABASE % FROM PUBLIC',
      pg_get_userbyid(v_database.datdba), quote_ident(v_database.datname);
  END IF;
  IF EXISTS (SELECT FROM pg_namespace n
      WHERE n.nspname = 'public' AND has_schema_privilege('public'::name, n.oid, 'CREATE')) THEN
    IF pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = 'public'), 'USAGE') THEN
      REVOKE CREATE ON SCHEMA public FROM PUBLIC;
    ELSE
      RAISE WARNING 'only the owner of the schema public may close it: REVOKE CREATE ON SCHEMA public FROM PUBLIC';
    END IF;
  END IF;
  BEGIN
    -- For people, too: no name is looked up where others may create. The driver does not depend on it.
    EXECUTE format('ALTER ROLE pac_runtime IN DATABASE %I SET search_path = pac, pg_temp',
      v_database.datname);
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE WARNING 'one who may alter pac_runtime should: ALTER ROLE pac_runtime IN DATABASE % SET %',
      quote_ident(v_database.datname), 'search_path = pac, pg_temp';
  END;
END
$$;

RESET search_path;
