//! Lists, whole or in pages.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::call::{Answer, Call, Content};
use crate::failure::Failure;
use crate::object;
use crate::store::State;

/// The remainders of lists that were read in part: each page is of the moment of the first.
#[derive(Debug, Default)]
pub(crate) struct Pages {
    open: VecDeque<Page>,
    next: u64,
}

#[derive(Debug)]
struct Page {
    token: String,
    revision: u64,
    rest: Vec<Arc<Value>>,
}

/// Remainders beyond this many are forgotten, the oldest first.
const KEPT: usize = 1000;

impl State {
    /// Answers a list.
    ///
    /// # Errors
    /// 400 for a malformed parameter, 410 for an expired `continue`, 504 for a revision that is
    /// yet to come.
    pub(crate) fn list(&mut self, call: &Call) -> Result<Answer, Failure> {
        let selector = call.selector()?;
        let limit = match call.parameter("limit") {
            "" | "0" => usize::MAX,
            text => text
                .parse()
                .map_err(|_| Failure::bad_request(format!("limit must be a number: {text:?}")))?,
        };
        let token = call.parameter("continue");
        let (revision, mut items) = if token.is_empty() {
            if let Some(asked) = call.revision()?
                && asked > self.revision()
            {
                return Err(Failure::too_large(asked, self.revision()));
            }
            let items = self.select(&call.resource, &call.namespace, &selector);
            (self.revision(), items)
        } else {
            self.pages
                .take(token)
                .ok_or_else(Failure::continue_expired)?
        };
        let rest = if items.len() > limit {
            items.split_off(limit)
        } else {
            Vec::new()
        };
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if !rest.is_empty() {
            let fields = object::as_map(&mut metadata);
            if selector.is_everything() {
                fields.insert("remainingItemCount".to_owned(), json!(rest.len()));
            }
            let token = self.pages.keep(revision, rest);
            fields.insert("continue".to_owned(), json!(token));
        }
        let content = Content::List {
            resource: Arc::clone(&call.resource),
            metadata,
            items,
        };
        Ok(Answer { code: 200, content })
    }
}

impl Pages {
    fn keep(&mut self, revision: u64, rest: Vec<Arc<Value>>) -> String {
        self.next += 1;
        let token = format!("page-{}-{revision}", self.next);
        self.open.push_back(Page {
            token: token.clone(),
            revision,
            rest,
        });
        if self.open.len() > KEPT {
            self.open.pop_front();
        }
        token
    }

    /// A token may be used again, as after a lost answer.
    fn take(&self, token: &str) -> Option<(u64, Vec<Arc<Value>>)> {
        let page = self.open.iter().find(|page| page.token == token)?;
        Some((page.revision, page.rest.clone()))
    }
}
