//! Reads of many keys, page by page. Whatever lies under the prefix, no page is larger than an
//! answer may be, and the pages come to an end.

use crate::client::cluster::Cluster;
use crate::client::failure::Failure;
use crate::client::{Page, Range};
use crate::keys::after;

/// A range of keys that is read page by page.
pub(crate) struct Pages<'a> {
    cluster: &'a Cluster,
    /// What is left of the range; `None` after the last page. Its limit is that of the next page.
    rest: Option<Range>,
    /// Most keys of a page.
    most: usize,
}

impl<'a> Pages<'a> {
    /// The pages of a range, with at most as many keys as its limit says.
    pub(crate) fn of(cluster: &'a Cluster, range: Range) -> Self {
        Self {
            cluster,
            most: range.limit.max(1),
            rest: Some(range),
        }
    }

    /// The pages after this one, which is the first of the range.
    pub(crate) fn after(cluster: &'a Cluster, range: Range, first: &Page) -> Self {
        let mut pages = Self::of(cluster, range);
        pages.pass(first);
        pages
    }

    /// Reads the other pages as of a revision, mostly that of the first one.
    pub(crate) fn as_of(&mut self, revision: i64) {
        if let Some(rest) = &mut self.rest {
            rest.at = revision;
        }
    }

    /// Reads the next page with one request; `None` after the last. If its keys and values are more
    /// than one answer may have, with another request for half as many keys; a single value that is
    /// still too large is left empty, so that it cannot be decoded.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>, Failure> {
        let Some(rest) = &mut self.rest else {
            return Ok(None);
        };
        let page = loop {
            match self.cluster.read(rest.clone()).await {
                Ok(page) => break page,
                Err(failure) if failure.is_too_large() && rest.limit != 1 => {
                    rest.limit = (rest.limit / 2).max(1);
                }
                Err(failure) if failure.is_too_large() && !rest.keys_only => {
                    let without = Range {
                        keys_only: true,
                        ..rest.clone()
                    };
                    break self.cluster.read(without).await?;
                }
                Err(failure) => return Err(failure),
            }
        };
        // Large values mostly have others beside them: the pages grow again, but slowly.
        rest.limit = (rest.limit + rest.limit / 4 + 1).min(self.most);
        self.pass(&page);
        Ok(Some(page))
    }

    /// Goes on after a page. By the bytes of its last key: a key is not always text.
    fn pass(&mut self, page: &Page) {
        let last = page.entries.last().filter(|_| page.more);
        match (last, &mut self.rest) {
            (Some(last), Some(rest)) => rest.key = after(&last.key),
            _ => self.rest = None,
        }
    }
}
