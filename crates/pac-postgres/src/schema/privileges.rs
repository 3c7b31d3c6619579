//! The privileges that a role needs, and those that it lacks.

use pac_core::Error;
use pac_core::ErrorKind;
use pac_core::driver::Finding;

use crate::client::{Client, Effect, Type};
use crate::record::cell;

/// What a role at run time needs on the tables. `docs/deploy/postgresql.sql` grants the same. It also
/// needs to use the schema, and to execute all functions in it.
const ON_TABLES: [(&str, &[&str]); 10] = [
    ("meta", &["SELECT"]),
    ("secrets", &["SELECT"]),
    ("migrated", &["SELECT", "INSERT"]),
    ("floor", &["SELECT", "UPDATE"]),
    ("server", &["SELECT", "UPDATE"]),
    ("repositories", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("queue", &["SELECT", "INSERT", "DELETE"]),
    ("slots", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
    ("history", &["SELECT", "INSERT", "DELETE"]),
    ("sessions", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
];

/// Says which privileges the role of the connections lacks, by the catalogue, which is open to every
/// role; nothing is tried. The functions of triggers need none.
pub(crate) async fn missing_privileges(client: &Client) -> Result<Option<Finding>, Error> {
    let sql = "SELECT pg_catalog.format('USAGE ON SCHEMA %I', n.nspname) \
                 FROM pg_catalog.pg_namespace n WHERE n.nspname = $1 \
                 AND NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') \
               UNION ALL \
               SELECT pg_catalog.format('%s ON %I.%I', p.privilege, n.nspname, c.relname) \
                 FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) \
                   p (relation, privilege) \
                 JOIN pg_catalog.pg_namespace n ON n.nspname = $1 \
                 JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = p.relation \
                 WHERE NOT pg_catalog.has_table_privilege(c.oid, p.privilege) \
               UNION ALL \
               SELECT pg_catalog.format('EXECUTE ON FUNCTION %I.%I(%s)', n.nspname, f.proname, \
                   pg_catalog.pg_get_function_identity_arguments(f.oid)) \
                 FROM pg_catalog.pg_proc f \
                 JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace AND n.nspname = $1 \
                 WHERE f.prorettype <> 'trigger'::pg_catalog.regtype::pg_catalog.oid \
                   AND NOT pg_catalog.has_function_privilege(f.oid, 'EXECUTE')";
    let options = client.options();
    let (mut tables, mut privileges) = (Vec::new(), Vec::new());
    for (table, needed) in ON_TABLES {
        for privilege in needed {
            tables.push(table);
            privileges.push(*privilege);
        }
    }
    let params = [
        (&options.schema as _, Type::TEXT),
        (&tables as _, Type::TEXT_ARRAY),
        (&privileges as _, Type::TEXT_ARRAY),
    ];
    let rows = client.query("diagnose", Effect::Read, sql, &params).await?;
    let missing = rows.iter().map(|row| cell::<String>(row, 0));
    let missing = missing.collect::<Result<Vec<_>, Error>>()?;
    if missing.is_empty() {
        return Ok(None);
    }
    Ok(Some(Finding::failure(
        ErrorKind::Unauthorised,
        format!(
            "the role {:?} lacks {}",
            options.username,
            missing.join(", ")
        ),
        "grant what docs/deploy/postgresql.sql lists, as the owner of the schema",
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The grants of the guide, one privilege on one thing each.
    fn granted() -> Vec<String> {
        let guide = include_str!("../../../../docs/deploy/postgresql.sql");
        let grants = guide.lines().filter_map(|line| line.strip_prefix("GRANT "));
        let grants = grants.filter(|grant| grant.ends_with(" TO pac_runtime;"));
        let mut granted = Vec::new();
        for grant in grants {
            let (what, _) = grant.split_once(" TO ").unwrap();
            let (privileges, things) = what.split_once(" ON ").unwrap();
            for privilege in privileges.split(", ") {
                let on = things.split(", ").map(|on| format!("{privilege} ON {on}"));
                granted.extend(on);
            }
        }
        granted.sort();
        granted
    }

    #[test]
    fn the_guide_grants_what_is_needed_and_no_more() {
        let mut needed = vec![
            "USAGE ON SCHEMA pac".to_owned(),
            "EXECUTE ON ALL FUNCTIONS IN SCHEMA pac".to_owned(),
        ];
        for (table, privileges) in ON_TABLES {
            let on = privileges.iter().map(|one| format!("{one} ON pac.{table}"));
            needed.extend(on);
        }
        needed.sort();
        assert_eq!(granted(), needed);
    }
}
