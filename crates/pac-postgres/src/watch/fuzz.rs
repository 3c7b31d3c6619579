//! Fuzzing: no notification that a process of another program sends is opened, and no text that a
//! newer version of this software may seal makes a panic.

use std::sync::Mutex;

use super::outbox::{Hint, parse};
use super::seal::{MOST, Seal};

#[test]
fn fuzz_notifications() {
    let key = [7; 32];
    let seals = Mutex::new((Seal::new(&key).unwrap(), Seal::new(&key).unwrap()));
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "notifications", move |text| {
        let (ours, theirs) = &mut *seals.lock().unwrap();
        assert_eq!(ours.open(text), None, "what nobody has sealed");
        for hint in text.split(' ') {
            if let Some(Hint::Changed(by, repository, reached)) = parse(hint) {
                let revision = reached.revision;
                let word = if reached.startable { 's' } else { 'c' };
                let same = format!("{word}{by}:{revision}:{repository}");
                assert_eq!(parse(&same), parse(hint), "{same}");
            }
        }
        if text.len() <= MOST {
            let sealed = theirs.seal(text).unwrap();
            assert_eq!(ours.open(&sealed).as_deref(), Some(text));
            assert_eq!(ours.open(&sealed), None, "it was opened before");
        }
    });
}
