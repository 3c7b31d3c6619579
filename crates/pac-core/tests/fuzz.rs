//! Fuzzing: no text makes a name that breaks the rules, or an error that a terminal would act on.

use std::fmt;

use pac_core::text::{LONGEST, is_plain, lines, one_line};
use pac_core::{Error, ErrorKind, InvalidValue, PipelineRunKey, RepositoryKey, Uid};

#[test]
fn fuzz_names() {
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "names", |text| {
        for parsed in [
            shown(text.parse::<RepositoryKey>()),
            shown(text.parse::<PipelineRunKey>()),
            shown(text.parse::<Uid>()),
        ] {
            match parsed {
                Ok(name) => {
                    assert_eq!(name, text);
                    assert!(name.len() <= 63 + 1 + 253 && name.is_ascii(), "{name}");
                }
                Err(error) => {
                    assert!(error.chars().all(is_plain), "{error}");
                    assert!(error.len() <= LONGEST, "{error}");
                }
            }
        }
        if let Ok(key) = text.parse::<RepositoryKey>() {
            assert_eq!(RepositoryKey::new(key.namespace(), key.name()), Ok(key));
        }
    });
}

fn shown(parsed: Result<impl fmt::Display, InvalidValue>) -> Result<String, String> {
    match parsed {
        Ok(name) => Ok(name.to_string()),
        Err(invalid) => Err(Error::from(invalid).to_string()),
    }
}

#[test]
fn fuzz_texts() {
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "texts", |text| {
        let line = one_line(text);
        assert!(
            line.chars().all(is_plain) && line.len() <= LONGEST,
            "{line}"
        );
        assert_eq!(one_line(&line), line);
        assert!(lines(text).lines().all(|line| line.chars().all(is_plain)));
        let error = Error::new(ErrorKind::Corrupt, "load", text.to_owned());
        let error = error.caused_by(text.to_owned());
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(cause, Some(line.into_owned()));
        assert!(error.to_string().chars().all(is_plain));
    });
}
