//! Reading what the store has of all repositories.

use pac_core::manager::RepositorySummary;
use pac_core::{Error, RepositoryKey};
use pac_pipelines::PipelinesController;

/// How many repositories of the store are read in one page.
const PAGE: usize = 1_000;

/// Passes every repository that has state in the store to `each`, in the order of their keys.
///
/// # Errors
/// Those of reading from the store; what came before was passed on.
pub(super) async fn each_repository(
    controller: &PipelinesController,
    mut each: impl FnMut(RepositorySummary),
) -> Result<(), Error> {
    let mut after: Option<RepositoryKey> = None;
    loop {
        let page = controller.manager().list(after.as_ref(), PAGE).await?;
        let is_last = page.len() < PAGE;
        after = page.last().map(|summary| summary.repository.clone());
        page.into_iter().for_each(&mut each);
        if is_last {
            return Ok(());
        }
    }
}
