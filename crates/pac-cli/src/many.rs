//! The repositories that a command is for: one, those of a namespace, or all.

use std::cell::Cell;
use std::fmt::Display;

use futures_util::StreamExt;
use futures_util::future::ready;
use futures_util::stream::iter;
use pac_concurrency::{
    ConcurrencyManager, Error, ErrorKind, Paused, RepositoryKey, RepositorySummary,
};

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
    #[arg(long, value_name = "NS", value_parser = namespace)]
    namespace: Option<String>,

    /// All repositories that the store knows now
    #[arg(long)]
    all: bool,
}

/// A name that a namespace can have.
fn namespace(text: &str) -> Result<String, String> {
    let some = RepositoryKey::new(text, "name").map_err(|error| error.to_string())?;
    Ok(some.namespace().to_owned())
}

impl Which {
    /// What the repositories are called together, where several are meant.
    pub(crate) fn words(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("in {namespace}"),
            None => "in the store".to_owned(),
        }
    }

    /// The repositories that are there, in the order of their names, as far as `is_meant` says so, and
    /// the pause that each was seen with.
    ///
    /// # Errors
    /// Those of the store; and if it knows nothing of a namespace.
    pub(crate) async fn list(
        &self,
        manager: &ConcurrencyManager,
        is_meant: impl Fn(&RepositorySummary) -> bool,
    ) -> Result<Vec<(RepositoryKey, Option<Paused>)>, Failure> {
        let (mut found, mut is_known) = (Vec::new(), self.namespace.is_none());
        let mut after = None;
        loop {
            let page = manager.list(after.as_ref(), PAGE).await?;
            let last = page.len() < PAGE;
            after = page.last().map(|last| last.repository.clone());
            let here = |one: &RepositorySummary| {
                let namespace = self.namespace.as_deref();
                namespace.is_none_or(|name| one.repository.namespace() == name)
            };
            let here: Vec<_> = page.into_iter().filter(here).collect();
            is_known |= !here.is_empty();
            let meant = here.into_iter().filter(|one| is_meant(one));
            found.extend(meant.map(|one| (one.repository, one.pause)));
            match (last, is_known, &self.namespace) {
                (true, false, Some(namespace)) => return Err(unknown(namespace)),
                (true, _, _) => return Ok(found),
                (false, _, _) => {}
            }
        }
    }
}

/// The store knows nothing of what was named, a repository or a namespace: the name may be mistyped.
pub(crate) fn unknown(name: impl Display) -> Failure {
    Failure::new(Exit::Negative, format!("the store knows nothing of {name}"))
}

/// What was done to many repositories.
#[derive(Debug)]
pub(crate) struct Done<T> {
    /// Those that it was done to, in the order of their names.
    pub(crate) done: Vec<(RepositoryKey, T)>,
    /// How it ended: with the error that kept it from going on, where there was one.
    pub(crate) ended: Result<Exit, Failure>,
}

/// Does something to each of the repositories, some at once, each with what was seen of it. One that
/// cannot be understood, or that others change all the time, does not stop the others; any other error
/// does, once those that are on their way have their answers.
pub(crate) async fn each<S, T>(
    repositories: Vec<(RepositoryKey, S)>,
    work: impl AsyncFn(&RepositoryKey, S) -> Result<T, Error>,
) -> Done<T> {
    let (work, goes_on) = (&work, &Cell::new(true));
    let one = |(repository, seen)| async move {
        let done = work(&repository, seen).await;
        if done.as_ref().is_err_and(|error| !is_of_one(error)) {
            goes_on.set(false);
        }
        (repository, done)
    };
    let repositories = iter(repositories).take_while(|_| ready(goes_on.get()));
    let mut working = repositories.map(one).buffered(AT_ONCE);
    let mut done = Vec::new();
    let mut ended = Ok(Exit::Success);
    while let Some((repository, result)) = working.next().await {
        match result {
            Ok(result) => done.push((repository, result)),
            Err(error) if is_of_one(&error) => {
                note(&error);
                ended = ended.map(|_| Failure::from(error).exit());
            }
            Err(error) => ended = ended.and(Err(error.into())),
        }
    }
    Done { done, ended }
}

/// Whether a failure is of one repository, so that the others may be better.
fn is_of_one(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Incompatible | ErrorKind::Contended
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn asked(kind: ErrorKind) -> (usize, Done<()>) {
        let names = (100..200).map(|at| (format!("ci/r{at}").parse().unwrap(), ()));
        let asked = Cell::new(0);
        let done = each(names.collect(), async |one: &RepositoryKey, ()| {
            asked.set(asked.get() + 1);
            tokio::task::yield_now().await;
            match one.as_str() {
                "ci/r103" | "ci/r105" => Err(Error::new(kind, "pause", "no").in_repository(one)),
                _ => Ok(()),
            }
        });
        let done = done.await;
        (asked.get(), done)
    }

    #[tokio::test]
    async fn a_store_that_goes_away_is_not_asked_for_all_the_others() {
        let (asked, done) = asked(ErrorKind::Unavailable).await;
        assert!(asked < 2 * AT_ONCE, "{asked}");
        assert_eq!(done.done.len(), asked - 2, "what was on its way is told");
        let ended = done.ended.unwrap_err();
        assert_eq!(ended.exit(), Exit::StoreUnavailable);
        assert!(ended.to_string().contains("ci/r103"), "{ended}");
    }

    #[tokio::test]
    async fn what_is_wrong_with_one_repository_does_not_stop_the_others() {
        for kind in [ErrorKind::Corrupt, ErrorKind::Contended] {
            let (asked, done) = asked(kind).await;
            assert_eq!((asked, done.done.len()), (100, 98), "{kind:?}");
            assert_ne!(done.ended.unwrap(), Exit::Success, "{kind:?}");
        }
    }
}
