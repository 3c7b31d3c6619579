-- Run by a role that has nothing but CONNECT, and CREATE in the schema public as every role.

CREATE SEQUENCE public.trapped;
GRANT ALL ON SEQUENCE public.trapped TO PUBLIC;

-- Makes, for each of these names that is one of a function of PostgreSQL, functions for all types that
-- this software uses, but for those for which PostgreSQL has one; and the same for operators. Returns
-- how many. Each counts its calls, and fails.
CREATE FUNCTION public.make_traps(names text[]) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $make$
DECLARE
  c_types CONSTANT text[] := '{bool,"\"char\"",name,int2,int4,int8,oid,text,tid,numeric,float8,interval,
    timestamptz,regclass,regtype,text[],name[],int2[],int4[],int8[],bool[],tid[]}';
  -- Where there are three or four parameters.
  c_few CONSTANT text[] := '{text,name,int4,int8,bool,oid,text[]}';
  c_body CONSTANT text := $body$LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM pg_catalog.nextval('public.trapped');
      RAISE EXCEPTION 'trapped by %s';
    END $$ $body$;
  v_made bigint := 0;
  v record;
BEGIN
  FOR v IN
    WITH wanted AS (
      SELECT DISTINCT p.proname::text AS name, p.pronargs AS parameters, p.proretset AS many,
          CASE WHEN t.typtype = 'p' THEN 'text' ELSE format_type(t.oid, NULL) END AS result
        FROM pg_proc p JOIN pg_type t ON t.oid = p.prorettype
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (names)
          AND t.typname NOT IN ('trigger', 'event_trigger', 'internal', 'void')
          AND p.pronargs BETWEEN 1 AND 3),
    signatures AS (
      SELECT DISTINCT ON (w.name, s.list) w.name, s.list, w.many, w.result
        FROM wanted w, LATERAL (
          SELECT a FROM unnest(c_types) a WHERE w.parameters = 1
          UNION ALL
          SELECT a || ',' || b FROM unnest(c_types) a, unnest(c_types) b WHERE w.parameters = 2
          UNION ALL
          SELECT a || ',' || b || ',' || c
            FROM unnest(c_few) a, unnest(c_few) b, unnest(c_few) c WHERE w.parameters = 3) s (list)
        ORDER BY w.name, s.list, w.many, w.result)
    SELECT * FROM signatures s
      WHERE to_regprocedure(format('pg_catalog.%I(%s)', s.name, s.list)) IS NULL
  LOOP
    EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s %s %s', v.name, v.list,
      CASE WHEN v.many THEN 'SETOF' ELSE '' END, v.result, format(c_body, v.name));
    v_made := v_made + 1;
  END LOOP;
  FOR v IN
    SELECT o.name, a, b, o.result FROM (VALUES
        ('=', 'bool'), ('<>', 'bool'), ('<', 'bool'), ('>', 'bool'), ('<=', 'bool'), ('>=', 'bool'),
        ('||', 'text'), ('+', 'int8'), ('-', 'int8'), ('*', 'int8'), ('/', 'int8'), ('<<', 'int8'),
        ('>>', 'int8'), ('&', 'int8'), ('|', 'int8')) o (name, result),
      unnest(c_types) a, unnest(c_types) b
      WHERE to_regoperator(format('pg_catalog.%s(%s,%s)', o.name, a, b)) IS NULL
  LOOP
    IF to_regprocedure(format('public.trap_%s(%s,%s)', v.result, v.a, v.b)) IS NULL THEN
      EXECUTE format('CREATE FUNCTION public.trap_%s(%s,%s) RETURNS %s %s', v.result, v.a, v.b,
        v.result, format(c_body, 'an operator'));
    END IF;
    EXECUTE format('CREATE OPERATOR public.%s (FUNCTION = public.trap_%s, LEFTARG = %s, RIGHTARG = %s)',
      v.name, v.result, v.a, v.b);
    v_made := v_made + 1;
  END LOOP;
  RETURN v_made;
END
$make$;
