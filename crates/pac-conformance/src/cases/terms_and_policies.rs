//! What few runs ask and few repositories have, tested on the driver directly: a store keeps it, and
//! decides nothing by it but that what a commit grants fits by its weight.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use pac_core::driver::{
    Commit, CommitOutcome, ListFilter, RepositoryCommit, SessionTtl, Watch, WatchEvent,
};
use pac_core::protocol::Changes;
use pac_core::state::{
    Absorb, Entry, EntryState, Head, Moment, Policy, RepositoryState, RunKind, RunOutcome,
    Snapshot, Terms,
};
use pac_core::{
    Error, FencingToken, Limit, Priority, RepositoryKey, Revision, SessionId, SessionIdentity,
    SlotNames, Ticket, Version,
};

use crate::{Fixture, repository, run, uid};

/// Terms and policies come back as they were written, whatever becomes of a run, with the time of the
/// commit where they ask for it: from reads, of all and of what changed, from lists and from hints.
pub async fn terms_and_policies_are_kept_as_they_were_written(fixture: &Fixture) {
    let mut book = Book::open(fixture, "kept").await;
    let mut watch = fixture.driver().watch(SessionId::default()).await.unwrap();
    let all = r#"{"paused":null,"reason":"a \"null\" was found","owner":"pinned","max_queued":3,"beneath":{"limit":2,"owner":"announced"},"surplus":2,"needs":1}"#;
    let first = book
        .commit(
            Some(all),
            vec![
                book.waits("waits", Some(r#"{"weight":2,"group":"pull/7 ü"}"#)),
                book.runs("runs", 1, Some(r#"{"weight":3,"asked":null}"#)),
                book.ended("ended", Some(r#"{"asked":null,"group":"null"}"#)),
                book.waits("plain", None),
            ],
        )
        .await;
    let pause = first.head.pause().unwrap();
    assert!(pause.since.at().is_some(), "{pause:?}");
    for entry in &first.entries {
        let is_asked = ["runs", "ended"].iter().any(|name| entry.run == run(name));
        assert_eq!(entry.terms().asked.at().is_some(), is_asked, "{entry:?}");
    }
    book.is_as_written(None).await;
    book.is_told(&mut *watch).await;

    // A run that goes on has other terms, or none any more, and so has one that waits.
    let before = book.state.head().version();
    book.commit(
        Some(r#"{"max_queued":0,"needs":2}"#),
        vec![
            book.changed("runs", None),
            book.changed("plain", Some(r#"{"admitted_as":-7,"weight":2}"#)),
        ],
    )
    .await;
    book.is_as_written(Some(before)).await;
    book.is_told(&mut *watch).await;
    // What starts and what ends takes its terms along, and the policy stays where it was not sent.
    let before = book.state.head().version();
    let starts = book.entry("waits");
    let starts = Entry {
        state: book.slot(2),
        started: Moment::AT_COMMIT,
        ..starts
    };
    book.commit(
        Some(r#"{"max_queued":0,"needs":1,"surplus":1}"#),
        vec![starts],
    )
    .await;
    let asked = book.changed("waits", Some(r#"{"asked":null,"group":"g","weight":2}"#));
    book.commit(
        Some(r#"{"max_queued":0,"needs":1,"surplus":1}"#),
        vec![asked],
    )
    .await;
    let ends = Entry {
        state: book.end(2),
        finished: Moment::AT_COMMIT,
        ..book.entry("waits")
    };
    book.commit(Some("{}"), vec![ends]).await;
    book.is_as_written(Some(before)).await;
    book.is_as_written(None).await;
    let ended = book.entry("waits");
    assert!(ended.terms().asked.at().is_some() && ended.group().is_some());
    // Nothing has more bytes than as many names of slots as there may be, in force and beneath a pin.
    let names = (0..SlotNames::MOST).map(|n| format!(r#""{n:x>63}""#));
    let names = names.collect::<Vec<_>>().join(",");
    let long = format!(
        r#"{{"beneath":{{"owner":"announced","slots":[{names}]}},"owner":"pinned","slots":[{names}]}}"#
    );
    let before = book.state.head().version();
    book.commit(Some(&long), Vec::new()).await;
    book.is_as_written(Some(before)).await;
    book.is_as_written(None).await;
}

/// Those are listed as startable where the next run would fit by what the head says it needs, and
/// where nothing is paused.
pub async fn what_could_start_is_listed_by_its_needs(fixture: &Fixture) {
    for (n, (policy, is_listed)) in [
        (None, true),
        (Some("{}"), true),
        (Some(r#"{"paused":null}"#), false),
        (Some(r#"{"needs":1}"#), true),
        (Some(r#"{"needs":2}"#), false),
        (Some(r#"{"needs":4294967295}"#), false),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("needs-{n}");
        let mut book = Book::open(fixture, &name).await;
        // One slot of three is taken.
        let entries = vec![book.runs("runs", 1, None), book.waits("waits", None)];
        book.commit(policy, entries).await;
        let listed = fixture
            .driver()
            .list(ListFilter::Startable, None, 100)
            .await;
        let listed = listed.unwrap();
        let found = listed.iter().find(|(key, _)| *key == book.repository);
        assert_eq!(found.is_some(), is_listed, "{policy:?}");
        assert!(found.is_none_or(|(_, head)| head == book.state.head()));
        assert_eq!(book.state.head().could_start(), is_listed, "{policy:?}");
    }
    let mut heavy = Book::open(fixture, "surplus").await;
    let entries = vec![
        heavy.runs("runs", 1, Some(r#"{"weight":3}"#)),
        heavy.waits("waits", None),
    ];
    heavy.commit(Some(r#"{"surplus":2}"#), entries).await;
    let listed = fixture
        .driver()
        .list(ListFilter::Startable, None, 100)
        .await;
    assert!(
        !listed
            .unwrap()
            .iter()
            .any(|(key, _)| *key == heavy.repository)
    );
}

/// What a commit grants must not take more slots than there are, by the weights of the runs. Only runs
/// that are adopted may.
pub async fn a_run_of_another_weight_does_not_fit(fixture: &Fixture) {
    let mut book = Book::open(fixture, "heavy").await;
    // Of three slots.
    let heavy = Some(r#"{"weight":2}"#);
    let entries = vec![book.runs("first", 1, heavy)];
    book.commit(Some(r#"{"surplus":1}"#), entries).await;
    let second = book.runs("second", 2, heavy);
    let planned = |book: &Book, adopted: &[&Entry]| {
        let mut changes = book.planned(Some(r#"{"surplus":2}"#), vec![second.clone()]);
        changes.adopted = adopted.iter().map(|entry| entry.run.clone()).collect();
        changes
    };
    book.is_refused(planned(&book, &[])).await;
    book.written(planned(&book, &[&second])).await;
    let light = vec![book.runs("light", 3, None)];
    book.is_refused(book.planned(Some(r#"{"surplus":2}"#), light))
        .await;
    // With the first one gone there is one slot left.
    let ends = Entry {
        state: book.end(1),
        finished: Moment::AT_COMMIT,
        ..book.entry("first")
    };
    book.commit(Some(r#"{"surplus":1}"#), vec![ends]).await;
    let heavy = vec![book.runs("third", 3, heavy)];
    book.is_refused(book.planned(Some(r#"{"surplus":2}"#), heavy))
        .await;
    let light = vec![book.runs("light", 3, None)];
    book.commit(Some(r#"{"surplus":1}"#), light).await;
}

/// A repository with a limit of three, to which commits are made by hand.
struct Book<'a> {
    fixture: &'a Fixture,
    repository: RepositoryKey,
    session: SessionId,
    state: RepositoryState,
    /// Tickets and tokens count from here.
    floor: u64,
    tickets: Cell<u64>,
}

impl<'a> Book<'a> {
    async fn open(fixture: &'a Fixture, name: &str) -> Self {
        let lease = fixture.lease_ttl();
        let repository = repository(name);
        let loaded = fixture.driver().load(&repository, None).await.unwrap();
        let ttl = SessionTtl::new(lease, lease);
        let identity = SessionIdentity::of_this_process();
        let session = fixture.driver().open_session(ttl, &identity).await.unwrap();
        Self {
            fixture,
            session,
            state: RepositoryState::from_snapshot(&loaded).unwrap(),
            floor: loaded.head.floor_after_removal(),
            tickets: Cell::default(),
            repository,
        }
    }

    fn waits(&self, name: &str, terms: Option<&str>) -> Entry {
        let owner = Some(self.session);
        self.new_entry(name, EntryState::Queued { owner }, terms)
    }

    fn runs(&self, name: &str, token: u64, terms: Option<&str>) -> Entry {
        let entry = self.new_entry(name, self.slot(token), terms);
        Entry {
            started: Moment::AT_COMMIT,
            ..entry
        }
    }

    fn ended(&self, name: &str, terms: Option<&str>) -> Entry {
        let entry = self.new_entry(name, self.end(9), terms);
        Entry {
            started: Moment::AT_COMMIT,
            finished: Moment::AT_COMMIT,
            ..entry
        }
    }

    fn new_entry(&self, name: &str, state: EntryState, terms: Option<&str>) -> Entry {
        self.tickets.update(|last| last + 1);
        Entry {
            run: run(name),
            uid: uid(name),
            kind: RunKind::Durable,
            priority: Priority::default(),
            ticket: Ticket::new(self.floor + self.tickets.get()),
            state,
            queued: Moment::AT_COMMIT,
            started: Moment::NEVER,
            finished: Moment::NEVER,
            terms: terms.map(|terms| Box::new(Terms::from_json(terms).unwrap())),
            revision: Revision::new(0),
        }
    }

    fn slot(&self, token: u64) -> EntryState {
        EntryState::Started {
            token: FencingToken::new(self.floor + token),
            session: self.session,
            orphaned: false,
        }
    }

    fn end(&self, token: u64) -> EntryState {
        EntryState::Finished {
            outcome: RunOutcome::Completed,
            token: Some(FencingToken::new(self.floor + token)),
            abandoned: false,
        }
    }

    /// The entry as it is.
    fn entry(&self, name: &str) -> Entry {
        Entry::clone(self.state.entry(&run(name)).unwrap())
    }

    fn changed(&self, name: &str, terms: Option<&str>) -> Entry {
        Entry {
            terms: terms.map(|terms| Box::new(Terms::from_json(terms).unwrap())),
            ..self.entry(name)
        }
    }

    fn planned(&self, policy: Option<&str>, entries: Vec<Entry>) -> Changes {
        let mut after: BTreeMap<_, _> = self.state.entries().map(|e| (&e.run, &**e)).collect();
        after.extend(entries.iter().map(|entry| (&entry.run, entry)));
        let count = |is: fn(&Entry) -> bool| {
            let count = after.values().filter(|entry| is(entry)).count();
            u32::try_from(count).unwrap()
        };
        let head = Head {
            limit: Limit::new(3),
            last_ticket: Ticket::new(self.floor + 100),
            last_token: FencingToken::new(self.floor + 100),
            queued: count(Entry::is_queued),
            started: count(Entry::is_started),
            policy: policy.map(|policy| Arc::new(Policy::from_json(policy).unwrap())),
            ..self.state.head().clone()
        };
        Changes {
            expected: head.version(),
            head,
            policy_before: self.state.head().policy.clone(),
            entries: entries.into_iter().map(Arc::new).collect(),
            alive: Vec::new(),
            adopted: Vec::new(),
            remove: false,
        }
    }

    async fn commit(&mut self, policy: Option<&str>, entries: Vec<Entry>) -> Snapshot {
        self.written(self.planned(policy, entries)).await
    }

    async fn written(&mut self, changes: Changes) -> Snapshot {
        match self.send(changes).await {
            Ok(CommitOutcome::Committed(written)) => {
                let absorbed = self.state.absorb(&written, |_, _| ()).unwrap();
                assert_eq!(absorbed, Absorb::Applied);
                written
            }
            other => panic!("{other:?}"),
        }
    }

    /// A commit that the store refuses for good, of which nothing is written.
    async fn is_refused(&self, changes: Changes) {
        match self.send(changes).await {
            Ok(CommitOutcome::Refused(error)) | Err(error) => {
                assert!(!error.is_retryable(), "{error}");
            }
            other => panic!("{other:?}"),
        }
        self.is_as_written(None).await;
    }

    async fn send(&self, changes: Changes) -> Result<CommitOutcome, Error> {
        let batch = vec![RepositoryCommit {
            repository: self.repository.clone(),
            changes,
        }];
        let mut outcomes = match self.fixture.driver().commit(self.session, batch) {
            Commit::Done(outcome) => outcome?,
            Commit::Pending(answer) => answer.await?,
        };
        Ok(outcomes.pop().unwrap())
    }

    /// A read finds all that was written, or what was since.
    async fn is_as_written(&self, since: Option<Version>) {
        let driver = self.fixture.driver();
        let found = driver.load(&self.repository, since).await.unwrap();
        self.is_part_of_it(&found);
        let after = found.since.map(|since| since.revision).unwrap_or_default();
        let changed = self.state.entries().filter(|e| e.revision > after);
        assert_eq!(found.entries.len(), changed.count(), "{found:?}");
    }

    fn is_part_of_it(&self, found: &Snapshot) {
        assert_eq!(&found.head, self.state.head());
        for entry in &found.entries {
            assert_eq!(Some(entry), self.state.entry(&entry.run));
        }
    }

    /// What a hint carries of the latest commit is what was written.
    async fn is_told(&self, watch: &mut dyn Watch) {
        let at = self.state.head().revision;
        let told = async {
            loop {
                match watch.next().await.unwrap() {
                    WatchEvent::Changed {
                        repository,
                        revision,
                        startable,
                        snapshot,
                    } if repository == self.repository && revision >= at => {
                        assert!(!startable, "its head says so");
                        return snapshot;
                    }
                    _ => {}
                }
            }
        };
        if let Some(snapshot) = self.fixture.soon("a hint", told).await {
            self.is_part_of_it(&snapshot);
        }
    }
}
