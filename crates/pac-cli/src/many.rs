//! The repositories that a command is for: one, those of a namespace, or all.

use futures_util::StreamExt;
use futures_util::stream::iter;
use pac_concurrency::{ConcurrencyManager, Error, RepositoryKey, RepositorySummary};

use crate::exit::{Exit, Failure};
use crate::output::note;

/// Repositories per page of the list.
const PAGE: usize = 500;
/// Repositories changed at once.
const AT_ONCE: usize = 16;

/// The arguments that name the repositories.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Which {
    /// The repository
    #[arg(value_name = "NS/NAME")]
    pub(crate) repository: Option<RepositoryKey>,

    /// All repositories of a namespace that the store knows now
    #[arg(long, value_name = "NS")]
    namespace: Option<String>,

    /// All repositories that the store knows now
    #[arg(long)]
    all: bool,
}

impl Which {
    /// What the repositories are called together, where several are meant.
    pub(crate) fn words(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("in {namespace}"),
            None => "in the store".to_owned(),
        }
    }

    /// The repositories that are there, in the order of their names, as far as `is_meant` says so.
    pub(crate) async fn list(
        &self,
        manager: &ConcurrencyManager,
        is_meant: impl Fn(&RepositorySummary) -> bool,
    ) -> Result<Vec<RepositoryKey>, Failure> {
        let mut found = Vec::new();
        let mut after = None;
        loop {
            let page = manager.list(after.as_ref(), PAGE).await?;
            let last = page.len() < PAGE;
            after = page.last().map(|last| last.repository.clone());
            let here = |one: &RepositorySummary| {
                let namespace = self.namespace.as_deref();
                namespace.is_none_or(|name| one.repository.namespace() == name) && is_meant(one)
            };
            found.extend(page.into_iter().filter(here).map(|one| one.repository));
            if last {
                return Ok(found);
            }
        }
    }
}

/// Does something to each of the repositories, some at once. One that cannot be understood does not
/// stop the others.
pub(crate) async fn each<T>(
    repositories: Vec<RepositoryKey>,
    work: impl AsyncFn(&RepositoryKey) -> Result<T, Error>,
) -> Result<(Vec<(RepositoryKey, T)>, Exit), Failure> {
    let work = &work;
    let one = |repository: RepositoryKey| async move {
        let done = work(&repository).await;
        (repository, done)
    };
    let mut working = iter(repositories).map(one).buffered(AT_ONCE);
    let mut done = Vec::new();
    let mut exit = Exit::Success;
    while let Some((repository, result)) = working.next().await {
        match result {
            Ok(result) => done.push((repository, result)),
            Err(error) if error.repository().is_some() => {
                note(&error);
                exit = Failure::from(error).exit();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((done, exit))
}
