//! ConfigMaps and Secrets as Kubernetes mounts them: a directory with a file for each key.

use std::fs;
use std::io;
use std::path::Path;

use pac_core::file;

use super::found::{Findings, Found, FoundValue};
use super::key::Key;
use super::problem::{Place, Source};

/// The largest ConfigMap that Kubernetes accepts.
const MAX_BYTES: u64 = 1024 * 1024;

/// Reads the settings in a directory. Its files do not tell whether it is a ConfigMap or a
/// Secret, so a directory with a password counts as a Secret.
///
/// Names that begin with `..` are skipped: Kubernetes uses them to swap a new version in.
pub(super) fn read(directory: &Path, findings: &mut Findings) {
    let names = match names(directory) {
        Ok(names) => names,
        Err(error) => {
            let source = Source::ConfigMap(Place::new(directory, None));
            return findings.problem(source, None, format!("cannot be read: {error}"));
        }
    };
    let is_secret = names
        .iter()
        .any(|name| Key::named(name).is_some_and(Key::is_secret));
    let source = |place| match is_secret {
        true => Source::Secret(place),
        false => Source::ConfigMap(place),
    };
    let mut useful = false;
    for name in names {
        let path = directory.join(&name);
        let source = source(Place::new(&path, None));
        let Some(key) = findings.key(&name, &source) else {
            continue;
        };
        useful = true;
        let value = if key.is_secret() {
            password(&path)
        } else {
            file::read(&path, MAX_BYTES).map(FoundValue::Text)
        };
        match value {
            Ok(value) => findings.found.push(Found { key, value, source }),
            Err(reason) => findings.problem(source, Some(&name), reason),
        }
    }
    if !useful {
        let message = "has no file that is named like a setting; is it the right directory?";
        findings.problem(source(Place::new(directory, None)), None, message);
    }
}

fn names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| !name.starts_with("..")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn password(path: &Path) -> Result<FoundValue, String> {
    let empty = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0);
    if empty {
        return Ok(FoundValue::Text(String::new()));
    }
    file::read_password(path)?;
    Ok(FoundValue::Password(path.to_owned()))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::settings::Secret;

    /// Creates a directory as the kubelet lays it out.
    fn mount(directory: &Path, version: &str, entries: &[(&str, &str)]) {
        let data = directory.join(version);
        fs::create_dir(&data).unwrap();
        for (name, content) in entries {
            fs::write(data.join(name), content).unwrap();
            let link = directory.join(name);
            if !link.is_symlink() {
                symlink(Path::new("..data").join(name), link).unwrap();
            }
        }
        let next = directory.join("..data_tmp");
        symlink(version, &next).unwrap();
        fs::rename(next, directory.join("..data")).unwrap();
    }

    fn read(directory: &Path) -> Findings {
        let mut findings = Findings::default();
        super::read(directory, &mut findings);
        findings
    }

    #[test]
    fn a_mounted_config_map_is_read_through_its_links() {
        let directory = tempfile::tempdir().unwrap();
        let entries = [("etcd-mode", "etcd\n"), ("application-name", "CI")];
        mount(directory.path(), "..2026_1", &entries);
        let findings = read(directory.path());
        assert_eq!(findings.problems, []);
        let [found] = findings.found.as_slice() else {
            panic!("only one key is ours");
        };
        let FoundValue::Text(text) = &found.value else {
            panic!("no password");
        };
        assert_eq!(text, "etcd\n");
        assert!(matches!(found.source, Source::ConfigMap(_)));
    }

    #[test]
    fn a_new_version_of_a_mounted_secret_is_read_at_the_next_connection() {
        let directory = tempfile::tempdir().unwrap();
        let entries = [("postgresql-password", "old"), ("postgresql-username", "u")];
        mount(directory.path(), "..2026_1", &entries);
        let findings = read(directory.path());
        assert_eq!(findings.problems, []);
        assert!(
            findings
                .found
                .iter()
                .all(|f| matches!(f.source, Source::Secret(_)))
        );
        let FoundValue::Password(path) = &findings.found[0].value else {
            panic!("a password");
        };
        let password = crate::settings::Password::in_file(path);
        assert_eq!(password.read().unwrap(), Some(Secret::new("old")));
        mount(
            directory.path(),
            "..2026_2",
            &[("postgresql-password", "new")],
        );
        assert_eq!(password.read().unwrap(), Some(Secret::new("new")));
    }

    #[test]
    fn a_wrong_directory_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let problem = |findings: Findings| findings.problems[0].to_string();
        assert!(problem(read(directory.path())).contains("right directory?"));
        let gone = directory.path().join("gone");
        assert!(problem(read(&gone)).contains("cannot be read"));
        fs::write(directory.path().join("etcd-password"), "a\nb\n").unwrap();
        assert!(problem(read(directory.path())).contains("more than one line"));
        fs::write(directory.path().join("etcd-password"), "").unwrap();
        assert!(read(directory.path()).found[0].is_empty());
    }
}
