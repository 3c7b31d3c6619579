//! The kubeconfig: where a cluster is, and how to prove who asks. People name its files, and it names
//! others, so none of them is opened before it is known to be one that ends.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use pac_core::file;

/// How long the file system may take.
const WITHIN: Duration = Duration::from_secs(10);

/// Why a kubeconfig cannot be used. Shows no token, no key and no password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("{}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("its files {0}")]
    Late(String),
    #[error(transparent)]
    Content(#[from] KubeconfigError),
}

/// Reads the kubeconfig in a file, or else those that `KUBECONFIG` names, or else `~/.kube/config`, and
/// chooses a context of it, or its current one. May be dropped at any time.
pub(crate) async fn read(path: Option<&Path>, context: Option<&str>) -> Result<Config, Unusable> {
    let chosen = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let (path, context) = (path.map(Path::to_owned), chosen.context.clone());
    let read = file::apart(WITHIN, move || {
        let kubeconfig = merged(path)?;
        check_named(&kubeconfig, context.as_ref())?;
        Ok(kubeconfig)
    });
    let kubeconfig = read
        .await
        .unwrap_or_else(|late| Err(Unusable::Late(late)))?;
    Ok(Config::from_custom_kubeconfig(kubeconfig, &chosen).await?)
}

/// What the files say together; the first that says something counts.
fn merged(path: Option<PathBuf>) -> Result<Kubeconfig, Unusable> {
    let named = env::var_os("KUBECONFIG").unwrap_or_default();
    let named = env::split_paths(&named).filter(|path| !path.as_os_str().is_empty());
    let mut paths: Vec<_> = path.map_or_else(|| named.collect(), |path| vec![path]);
    if paths.is_empty() {
        let home = env::home_dir().ok_or(KubeconfigError::FindPath)?;
        paths.push(home.join(".kube").join("config"));
    }
    paths
        .iter()
        .try_fold(Kubeconfig::default(), |before, path| {
            check(path)?;
            Ok(before.merge(Kubeconfig::read_from(path)?)?)
        })
}

/// The library opens the files that the chosen cluster and user name later, and on any thread. One
/// that is not there is its to tell.
fn check_named(kubeconfig: &Kubeconfig, context: Option<&String>) -> Result<(), Unusable> {
    let context = context.or(kubeconfig.current_context.as_ref());
    let mut contexts = kubeconfig.contexts.iter();
    let context = contexts.find(|one| Some(&one.name) == context);
    let Some(context) = context.and_then(|one| one.context.as_ref()) else {
        return Ok(());
    };
    let mut clusters = kubeconfig.clusters.iter();
    let cluster = clusters.find(|one| one.name == context.cluster);
    let cluster = cluster.and_then(|one| one.cluster.as_ref());
    let mut users = kubeconfig.auth_infos.iter();
    let user = users.find(|one| Some(&one.name) == context.user.as_ref());
    let user = user.and_then(|one| one.auth_info.as_ref());
    let of_cluster = cluster.and_then(|cluster| cluster.certificate_authority.as_ref());
    let of_user = user.into_iter().flat_map(|user| {
        let files = [&user.client_certificate, &user.client_key, &user.token_file];
        files.into_iter().flatten()
    });
    let files = of_cluster.into_iter().chain(of_user).map(Path::new);
    files.filter(|path| path.exists()).try_for_each(check)
}

fn check(path: &Path) -> Result<(), Unusable> {
    file::check_regular(path).map_err(|reason| Unusable::File {
        path: path.to_owned(),
        reason,
    })
}

#[cfg(all(test, unix))]
mod tests {
    use std::fs;
    use std::process::Command;

    use serde_json::{Value, json};

    use super::*;
    use crate::error::with_causes;

    fn kubeconfig(user: &Value) -> Value {
        json!({
            "current-context": "here",
            "contexts": [
                {"name": "here", "context": {"cluster": "here", "user": "me"}},
                {"name": "there", "context": {"cluster": "here", "user": "other"}},
            ],
            "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:1"}}],
            "users": [{"name": "me", "user": user}, {"name": "other", "user": {}}],
        })
    }

    #[tokio::test]
    async fn what_is_no_regular_file_is_named_and_hangs_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let refused = async |path: &Path, context| {
            let read = read(Some(path), context).await;
            let told = with_causes(&read.unwrap_err());
            assert!(told.contains("must be a regular file"), "{told}");
            told
        };
        for path in [pipe.as_path(), Path::new("/dev/zero"), directory.path()] {
            let told = refused(path, None).await;
            assert!(told.contains(&path.display().to_string()), "{told}");
        }
        let file = directory.path().join("config");
        for key in ["tokenFile", "client-certificate", "client-key"] {
            fs::write(&file, kubeconfig(&json!({key: pipe})).to_string()).unwrap();
            let told = refused(&file, None).await;
            assert!(told.starts_with(&pipe.display().to_string()), "{told}");
            // That of another context is not asked for.
            read(Some(&file), Some("there")).await.unwrap();
        }
        let mut of_cluster = kubeconfig(&json!({}));
        of_cluster["clusters"][0]["cluster"]["certificate-authority"] = json!("pipe");
        fs::write(&file, of_cluster.to_string()).unwrap();
        refused(&file, Some("there")).await;
        fs::write(&file, kubeconfig(&json!({"tokenFile": "none"})).to_string()).unwrap();
        read(Some(&file), None).await.unwrap();
    }
}
