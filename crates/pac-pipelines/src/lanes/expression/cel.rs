//! The only file that talks to the library for expressions.
//!
//! The library knows no cost and no deadline, so what could take long is refused before anything
//! is evaluated: with no repetition in it, an expression takes a step per operator over texts that
//! are short.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::thread;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, operators};
use cel::{Context, Env, Value};

use super::{Input, LENGTH, Output, Scope};
use crate::model::RunView;
use crate::vocabulary;

pub(super) use cel::Program;

/// How deeply an expression is nested at most; `a + b + c` is nested twice.
const DEPTH: usize = 32;

/// Brackets within brackets, as the parser is given them at most.
const BRACKETS: usize = 16;

/// What the parser has for its stack: enough for whatever is as long as [`LENGTH`].
const STACK: usize = 16 << 20;

/// The functions that an expression may call: each takes a step for every byte that it reads.
const FUNCTIONS: [&str; 24] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::IN,
    "contains",
    "startsWith",
    "endsWith",
    "size",
    "string",
    "int",
];

static ENV: LazyLock<Arc<Env>> =
    LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

pub(super) fn parse(source: &str, scope: Scope) -> Result<Program, String> {
    if source.len() > LENGTH {
        return Err(format!("must be an expression of at most {LENGTH} bytes"));
    }
    if brackets(source) > BRACKETS {
        return Err(format!(
            "must have at most {BRACKETS} brackets within each other"
        ));
    }
    let source = source.to_owned();
    // On a stack of its own: the parser calls itself for every part of an expression, and only
    // what it gives can be looked at.
    let parser = thread::Builder::new().stack_size(STACK).spawn(move || {
        let program = ENV.compile(&source).map_err(|errors| {
            let told: String = errors.to_string().chars().take(200).collect();
            format!("must be a CEL expression: {}", told.replace('\n', "; "))
        })?;
        look(program.expression(), scope, DEPTH)?;
        Ok(program)
    });
    match parser.map(thread::JoinHandle::join) {
        Ok(Ok(program)) => program,
        Ok(Err(_)) => Err("must be a CEL expression: the parser cannot cope with it".to_owned()),
        Err(error) => Err(format!(
            "cannot be understood for want of a thread: {error}"
        )),
    }
}

pub(super) fn evaluate(program: &Program, input: Input<'_>) -> Result<Output, String> {
    let evaluated = catch_unwind(AssertUnwindSafe(|| {
        let mut context = Context::with_env(Arc::clone(&ENV));
        match input {
            Input::Object(run) => context.add_variable_from_value("object", object(run)),
            Input::Lane(lane) => {
                context.add_variable_from_value("lane", lane.text());
                context.add_variable_from_value("labels", map(lane.labels()));
            }
        }
        program.execute(&context)
    }));
    let evaluated = evaluated.map_err(|_| "cannot be evaluated: the library failed".to_owned())?;
    let value = evaluated.map_err(|error| {
        let told: String = error.to_string().chars().take(200).collect();
        format!("cannot be evaluated: {told}")
    })?;
    Ok(match value {
        Value::String(text) => Output::Text(text.as_str().to_owned()),
        Value::Int(number) => Output::Number(number),
        Value::UInt(number) => Output::Number(i64::try_from(number).unwrap_or(i64::MAX)),
        Value::Bool(_) => Output::Other("true or false"),
        Value::Null => Output::Other("null"),
        Value::Float(_) => Output::Other("a number with a fraction"),
        Value::List(_) => Output::Other("a list"),
        Value::Map(_) => Output::Other("a map"),
        _ => Output::Other("something else"),
    })
}

/// How many brackets stand within each other; those in texts count too.
fn brackets(source: &str) -> usize {
    let mut depth = 0_usize;
    let mut deepest = 0;
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

/// Refuses what could take long, and what reads something that is not there.
fn look(expression: &IdedExpr, scope: Scope, depth: usize) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!(
            "must be nested at most {DEPTH} deep; a chain of operators counts"
        ));
    };
    let look = |inner: &IdedExpr| look(inner, scope, depth);
    match &expression.expr {
        Expr::Literal(_) => Ok(()),
        Expr::Ident(name) => {
            let known: &[&str] = match scope {
                Scope::Object => &["object"],
                Scope::Lane => &["lane", "labels"],
            };
            if known.contains(&name.as_str()) {
                return Ok(());
            }
            let shown: String = name.chars().take(40).collect();
            let known = known.join(" and ");
            Err(format!(
                "must be an expression over {known}, which {shown:?} is not"
            ))
        }
        Expr::Call(call) => {
            if !FUNCTIONS.contains(&call.func_name.as_str()) {
                let shown: String = call.func_name.chars().take(40).collect();
                return Err(format!(
                    "must not use {shown:?}; there are operators, has, size, contains, startsWith, \
                     endsWith, string and int"
                ));
            }
            let parts = call.target.as_deref().into_iter().chain(&call.args);
            parts.into_iter().try_for_each(look)
        }
        Expr::Select(select) => look(&select.operand),
        Expr::List(list) => list.elements.iter().try_for_each(look),
        Expr::Map(map) => map.entries.iter().try_for_each(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => look(&entry.key).and_then(|()| look(&entry.value)),
            EntryExpr::StructField(field) => look(&field.value),
        }),
        Expr::Comprehension(_) => Err("must not repeat anything: all, exists, exists_one, filter \
                                       and map are not to be had"
            .to_owned()),
        Expr::Struct(_) | Expr::Unspecified => {
            Err("must be made of texts, numbers, lists, maps and operators".to_owned())
        }
    }
}

/// What an expression sees of a run. What this software writes on it is left out: a run must not
/// change its lane because it has started.
fn object(run: &RunView) -> Value {
    let labels = run.labels.iter().chain(&run.other_labels);
    let annotations = run.annotations.iter().chain(&run.other_annotations);
    let written = [vocabulary::TOKEN, vocabulary::POSITION, vocabulary::HELD];
    let annotations = annotations.filter(|(name, _)| !written.contains(&name.as_str()));
    let text = |text: &str| Value::from(text);
    let metadata: HashMap<&str, Value> = HashMap::from([
        ("name", text(run.key.name())),
        ("namespace", text(run.key.namespace())),
        (
            "generateName",
            text(run.generate_name.as_deref().unwrap_or_default()),
        ),
        ("labels", map(labels)),
        ("annotations", map(annotations)),
    ]);
    Value::from(HashMap::from([("metadata", Value::from(metadata))]))
}

fn map<'a>(entries: impl IntoIterator<Item = (&'a String, &'a String)>) -> Value {
    let entries = entries.into_iter();
    let map: HashMap<&str, &str> = entries
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    Value::from(map)
}
