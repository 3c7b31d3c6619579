//! Rules for the statements that the PostgreSQL driver sends: another role can make functions of
//! every name in a database where it may, and PostgreSQL prefers those whose types fit better.

use super::{Breach, Tree};

const SOURCES: &str = "crates/pac-postgres/src/";

/// What a literal with SQL in it contains, in whichever case: PostgreSQL tells none from another.
const MARKS: [&str; 5] = [
    "select ",
    "insert into ",
    "update ",
    "delete from ",
    "pg_catalog.",
];

/// What looks like a call, and is none: the grammar of SQL has it.
const GRAMMAR: [&str; 13] = [
    "all", "any", "array", "cast", "coalesce", "exists", "extract", "greatest", "in", "least",
    "nullif", "row", "values",
];

/// Every function is called with the schema that it is in.
pub(super) fn calls_are_qualified(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.with_extension("rs") {
        if !path.starts_with(SOURCES) {
            continue;
        }
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text);
        for (start, literal) in literals(code) {
            let lower = literal.to_ascii_lowercase();
            if !MARKS.iter().any(|mark| lower.contains(mark)) {
                continue;
            }
            for (offset, name) in unqualified_calls(&lower) {
                let line = line_of(text, start + offset);
                let cure = format!("write pg_catalog.{name}(…), or the schema that it is in");
                breaches.push(Breach::new(path, line, "sql-qualified", cure));
            }
        }
    }
    breaches
}

/// Every function of the schema's own files looks names up in the schema and nowhere else: because
/// it sets the search path, or because its names are looked up when it is made.
pub(super) fn functions_are_bound(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.with_extension("sql") {
        if !path.starts_with(SOURCES) {
            continue;
        }
        for (start, _) in text.match_indices("CREATE FUNCTION ") {
            let function = text.get(start..).unwrap_or_default();
            let quoted = function.find("AS $$").unwrap_or(function.len());
            let inline = function.find("\nRETURN ").unwrap_or(function.len());
            let head = function.get(..quoted.min(inline)).unwrap_or_default();
            if quoted < inline && !head.contains("SET search_path FROM CURRENT") {
                let cure = "add SET search_path FROM CURRENT, or write its body with RETURN";
                let line = line_of(text, start);
                breaches.push(Breach::new(path, line, "sql-bound", cure));
            }
        }
    }
    breaches
}

/// The string literals of a Rust source, each with the place at which it starts.
fn literals(code: &str) -> Vec<(usize, &str)> {
    let mut literals = Vec::new();
    let bytes = code.as_bytes();
    let at = |index: usize| bytes.get(index).copied().unwrap_or_default();
    let mut index = 0;
    while index < bytes.len() {
        match at(index) {
            b'/' if at(index + 1) == b'/' => {
                while index < bytes.len() && at(index) != b'\n' {
                    index += 1;
                }
            }
            // A character, which may be a quotation mark.
            b'\'' if at(index + 1) == b'\\' && at(index + 3) == b'\'' => index += 4,
            b'\'' if at(index + 2) == b'\'' => index += 3,
            b'"' => {
                let start = index + 1;
                index = start;
                while index < bytes.len() && at(index) != b'"' {
                    index += if at(index) == b'\\' { 2 } else { 1 };
                }
                let end = index.min(bytes.len());
                literals.push((start, code.get(start..end).unwrap_or_default()));
                index += 1;
            }
            _ => index += 1,
        }
    }
    literals
}

/// The names before a parenthesis with nothing in between, with their places. The SQL is in lower case;
/// its texts are passed over.
fn unqualified_calls(sql: &str) -> Vec<(usize, &str)> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut calls = Vec::new();
    for (parenthesis, _) in sql.match_indices('(') {
        let before = sql.get(..parenthesis).unwrap_or_default();
        let rest = before.trim_end_matches(is_part);
        let name = before.get(rest.len()..).unwrap_or_default();
        let is_foreign = rest.ends_with(|c: char| c == '.' || c.is_alphanumeric());
        let is_text = before.matches('\'').count() % 2 == 1;
        if !name.is_empty() && !is_foreign && !is_text && !GRAMMAR.contains(&name) {
            calls.push((rest.len(), name));
        }
    }
    calls
}

fn line_of(text: &str, place: usize) -> usize {
    text.get(..place).unwrap_or(text).matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::super::tests::places;
    use super::*;

    #[test]
    fn a_call_without_a_schema_is_found() {
        let good = "let sql = format!(\"SELECT pg_catalog.min(x), coalesce(y, '') \\\n FROM \
                    {schema}.load(1) WHERE x IN (1, 2) AND y = ANY(ARRAY(SELECT 1)) \
                    AND PG_CATALOG.MAX(x) > 1 AND y <> '%I(x)'\"); // \"SELECT min(x)\"\n\
                    let c = '\"'; call(\"text(x)\");\n";
        let bad = "fn a() {}\nconst SQL: &str = \"SELECT 1, \\\n min(x) FROM t\";\n\
                   #[cfg(test)]\nmod tests { const X: &str = \"SELECT max(x)\"; }\n";
        let upper = "const A: &str = \"SELECT COUNT(*) FROM t\";\n\
                     const B: &str = \"update t set x = Now()\";\n";
        let files = [
            ("crates/pac-postgres/src/good.rs", good),
            ("crates/pac-postgres/src/bad.rs", bad),
            ("crates/pac-postgres/src/upper.rs", upper),
            ("crates/pac-postgres/tests/other.rs", bad),
        ];
        assert_eq!(
            places(calls_are_qualified, &files),
            [
                "crates/pac-postgres/src/bad.rs:3",
                "crates/pac-postgres/src/upper.rs:1",
                "crates/pac-postgres/src/upper.rs:2"
            ]
        );
    }

    #[test]
    fn a_function_that_looks_names_up_anywhere_is_found() {
        let sql = "CREATE FUNCTION a() RETURNS int\nLANGUAGE sql\nRETURN 1;\n\
                   CREATE FUNCTION b() RETURNS int\nLANGUAGE sql SET search_path FROM CURRENT\n\
                   AS $$ SELECT 1 $$;\n\
                   CREATE FUNCTION c() RETURNS int\nLANGUAGE sql\nAS $$ SELECT 1 $$;\n";
        let files = [("crates/pac-postgres/src/schema/1.sql", sql)];
        assert_eq!(
            places(functions_are_bound, &files),
            ["crates/pac-postgres/src/schema/1.sql:7"]
        );
    }
}
