//! Simple tokens: random, for one user, until they were not used for a while.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

/// How long a token that is not used lasts (`--auth-token-ttl`).
const TOKEN_TTL: Duration = Duration::from_secs(300);

/// The letters of a token before its dot (`defaultSimpleTokenLength`).
const LETTERS: usize = 16;

/// The tokens that were given. None of them is printed.
#[derive(Default)]
pub(super) struct Tokens {
    users: HashMap<String, (String, Duration)>,
    /// When each token ends, if it is not used again.
    ends: BTreeSet<(Duration, String)>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("number", &self.users.len())
            .finish()
    }
}

impl Tokens {
    pub(super) fn give(
        &mut self,
        user: &str,
        now: Duration,
        index: u64,
        random: &mut fastrand::Rng,
    ) -> String {
        self.end_old(now);
        let letters: String = (0..LETTERS).map(|_| random.alphabetic()).collect();
        let token = format!("{letters}.{index}");
        let end = now.saturating_add(TOKEN_TTL);
        self.users.insert(token.clone(), (user.to_owned(), end));
        self.ends.insert((end, token.clone()));
        token
    }

    /// The user of a token, which then lasts for its whole time again.
    pub(super) fn user(&mut self, token: &str, now: Duration) -> Option<String> {
        self.end_old(now);
        let (user, end) = self.users.get_mut(token)?;
        let ended = (*end, token.to_owned());
        // What has waited comes with an earlier moment.
        *end = (*end).max(now.saturating_add(TOKEN_TTL));
        self.ends.remove(&ended);
        self.ends.insert((*end, ended.1));
        Some(user.clone())
    }

    pub(super) fn end_all_of(&mut self, user: &str) {
        let ends = &mut self.ends;
        self.users.retain(|token, (owner, end)| {
            let stays = owner != user;
            if !stays {
                ends.remove(&(*end, token.clone()));
            }
            stays
        });
    }

    pub(super) fn end_all(&mut self) {
        *self = Self::default();
    }

    fn end_old(&mut self, now: Duration) {
        while let Some((end, _)) = self.ends.first()
            && *end < now
            && let Some((_, token)) = self.ends.pop_first()
        {
            self.users.remove(&token);
        }
    }
}
