//! What a step asks for, and what the controller answers: the values of the two annotations.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use pac_core::{FencingToken, Timestamp, Uid};

use super::name::SectionHolder;

/// How many holders a request has at most.
const HOLDERS: usize = 8;

/// How long the part of an id is at most that tells apart what was asked in one millisecond.
const SALT: usize = 16;

/// What an answer says in place of a token.
const CANCELLED: &str = "cancelled";

/// A request for a section: when it was made, what tells it apart from all others of the run, and
/// the holders. As text: `1795939201000-k3v9x run`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionRequest {
    asked: Timestamp,
    salt: String,
    holders: BTreeSet<SectionHolder>,
}

/// A text is no request or no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

impl SectionRequest {
    /// A request that is made now by one holder. `chance` tells it apart from others of the same
    /// instant.
    #[must_use]
    pub fn new(now: Timestamp, chance: u32, holder: SectionHolder) -> Self {
        Self {
            asked: now,
            salt: format!("{chance:x}"),
            holders: BTreeSet::from([holder]),
        }
    }

    /// When it was made, by the clock of the step: it orders what a controller sees at once.
    #[must_use]
    pub fn asked(&self) -> Timestamp {
        self.asked
    }

    /// What tells it apart from all other requests of its run.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}-{}", self.asked.as_unix_millis(), self.salt)
    }

    /// Those that hold the section together.
    #[must_use]
    pub fn holders(&self) -> &BTreeSet<SectionHolder> {
        &self.holders
    }

    /// Which run of its name this request is in the store; `None` where the uid of the run leaves
    /// no room for the id.
    pub(crate) fn uid(&self, run: &Uid) -> Option<Uid> {
        format!("{run}:{}", self.id()).parse().ok()
    }

    /// With one more holder; `None` when that is one too many.
    pub(super) fn joined_by(&self, holder: &SectionHolder) -> Option<Self> {
        let mut joined = self.clone();
        joined.holders.insert(holder.clone());
        (joined.holders.len() <= HOLDERS).then_some(joined)
    }

    /// Without a holder; `None` when none is left.
    pub(super) fn left_by(&self, holder: &SectionHolder) -> Option<Self> {
        let mut left = self.clone();
        left.holders.remove(holder);
        (!left.holders.is_empty()).then_some(left)
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut words = text.split(' ');
        let id = words.next().unwrap_or_default();
        let (millis, salt) = id.split_once('-').ok_or(Unreadable)?;
        let holders = words.map(SectionHolder::from_str);
        let holders: BTreeSet<_> = holders.collect::<Result<_, _>>().map_err(|_| Unreadable)?;
        let is_salt = (1..=SALT).contains(&salt.len())
            && salt
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let millis = millis.parse::<i64>().ok().filter(|millis| *millis >= 0);
        if !is_salt || !(1..=HOLDERS).contains(&holders.len()) {
            return Err(Unreadable);
        }
        Ok(Self {
            asked: Timestamp::from_unix_millis(millis.ok_or(Unreadable)?),
            salt: salt.to_owned(),
            holders,
        })
    }
}

impl fmt::Display for SectionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id())?;
        self.holders
            .iter()
            .try_for_each(|holder| write!(f, " {holder}"))
    }
}

/// What the controller says to a request. As text: `1795939201000-k3v9x 41`, or `cancelled` in
/// place of the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionAnswer {
    id: String,
    token: Option<FencingToken>,
}

impl SectionAnswer {
    /// The run is in the section, with this token.
    #[must_use]
    pub fn granted(request: &SectionRequest, token: FencingToken) -> Self {
        Self {
            id: request.id(),
            token: Some(token),
        }
    }

    /// The request was ended in the store, by an operator.
    #[must_use]
    pub fn cancelled(request: &SectionRequest) -> Self {
        Self {
            id: request.id(),
            token: None,
        }
    }

    /// Whether it is the answer to this request, and to no earlier one of the run.
    #[must_use]
    pub fn answers(&self, request: &SectionRequest) -> bool {
        self.id == request.id()
    }

    /// The token; `None` when the request was cancelled.
    #[must_use]
    pub fn token(&self) -> Option<FencingToken> {
        self.token
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Unreadable> {
        let (id, said) = text.split_once(' ').ok_or(Unreadable)?;
        let token = match said {
            CANCELLED => None,
            number => Some(FencingToken::new(number.parse().map_err(|_| Unreadable)?)),
        };
        Ok(Self {
            id: id.to_owned(),
            token,
        })
    }
}

impl fmt::Display for SectionAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.token {
            Some(token) => write!(f, "{} {token}", self.id),
            None => write!(f, "{} {CANCELLED}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(name: &str) -> SectionHolder {
        name.parse().unwrap()
    }

    fn request() -> SectionRequest {
        let asked = Timestamp::from_unix_millis(1_795_939_201_000);
        SectionRequest::new(asked, 0xbeef, holder("run"))
    }

    #[test]
    fn a_request_is_read_as_it_is_written() {
        let joined = request().joined_by(&holder("e2e")).unwrap();
        assert_eq!(joined.to_string(), "1795939201000-beef e2e run");
        assert_eq!(
            SectionRequest::parse(&joined.to_string()),
            Ok(joined.clone())
        );
        assert_eq!(joined.id(), request().id());
        let left = joined.left_by(&holder("run")).unwrap();
        assert_eq!(left.to_string(), "1795939201000-beef e2e");
        assert_eq!(left.left_by(&holder("e2e")), None);
        let uid = joined.uid(&"u-1".parse().unwrap()).unwrap();
        assert_eq!(uid.as_str(), "u-1:1795939201000-beef");
    }

    #[test]
    fn what_people_write_by_hand_is_no_request() {
        for bad in [
            "",
            "requested",
            "true",
            "5-a",
            "5 run",
            "-5-a run",
            "5- run",
            "5-A run",
            "5-a RUN",
            "5-a  run",
            "5-a a b c d e f g h i",
            "5-aaaaaaaaaaaaaaaaa run",
        ] {
            assert_eq!(SectionRequest::parse(bad), Err(Unreadable), "{bad}");
        }
    }

    #[test]
    fn holders_are_bounded() {
        let mut all = request();
        for number in 1..HOLDERS {
            all = all.joined_by(&holder(&format!("h{number}"))).unwrap();
        }
        assert_eq!(all.joined_by(&holder("one-more")), None);
        assert_eq!(all.joined_by(&holder("h1")).as_ref(), Some(&all));
        assert!(all.to_string().len() <= super::super::LONGEST);
    }

    #[test]
    fn an_answer_is_that_to_its_request_alone() {
        let granted = SectionAnswer::granted(&request(), FencingToken::new(41));
        assert_eq!(granted.to_string(), "1795939201000-beef 41");
        assert_eq!(
            SectionAnswer::parse(&granted.to_string()),
            Ok(granted.clone())
        );
        let cancelled = SectionAnswer::cancelled(&request());
        assert_eq!(SectionAnswer::parse(&cancelled.to_string()), Ok(cancelled));
        assert!(granted.answers(&request()));
        let later = Timestamp::from_unix_millis(1_795_939_201_001);
        assert!(!granted.answers(&SectionRequest::new(later, 0xbeef, holder("run"))));
        for bad in ["", "41", "a b", "a -1"] {
            assert_eq!(SectionAnswer::parse(bad), Err(Unreadable), "{bad}");
        }
    }
}
