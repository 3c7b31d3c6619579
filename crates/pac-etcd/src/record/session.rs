//! The record of a session: who has opened it, and when.

use pac_core::{Error, SessionIdentity, Timestamp};
use serde::de::{IgnoredAny, SeqAccess};

use super::fields::{Fields, Record, Writer};
use super::{decode, encoded};

pub(crate) fn encode_session(
    (session_ttl, lease_ttl): (i64, i64),
    identity: &SessionIdentity,
    opened_at: Option<Timestamp>,
) -> Result<Vec<u8>, Error> {
    let write = || {
        let record = Writer::new()
            .field(&session_ttl)?
            .field(&lease_ttl)?
            .field(&identity.program())?
            .field(&identity.version().unwrap_or_default())?
            .field(&identity.host().unwrap_or_default())?
            .field(&identity.pid().unwrap_or(0))?
            .field_or_default(&opened_at.map(Timestamp::as_unix_millis))?;
        Ok(record.end())
    };
    encoded(write())
}

struct SessionRecord {
    identity: SessionIdentity,
    opened_at: Option<Timestamp>,
}

impl Record for SessionRecord {
    const NAME: &'static str = "session";
    const CURE: &'static str = "it only says who has opened the session: leave it, or repair it";

    fn read<'de, A: SeqAccess<'de>>(fields: &mut Fields<A>) -> Result<Self, A::Error> {
        // Nothing is read of what the session was granted: etcd knows that.
        fields.next::<IgnoredAny>("session TTL")?;
        fields.next::<IgnoredAny>("lease TTL")?;
        let [program, version, host]: [String; 3] = [
            fields.next_or_default()?,
            fields.next_or_default()?,
            fields.next_or_default()?,
        ];
        let pid = Some(fields.next_or_default::<u32>()?).filter(|pid| *pid != 0);
        Ok(Self {
            identity: SessionIdentity::cleaned(&program, &version, &host, pid),
            opened_at: fields
                .next_or_default::<Option<_>>()?
                .map(Timestamp::from_unix_millis),
        })
    }
}

/// Who has opened a session, and when.
pub(crate) fn decode_session(
    key: &[u8],
    value: &[u8],
) -> Result<(SessionIdentity, Option<Timestamp>), Error> {
    let record: SessionRecord = decode(key, value)?;
    Ok((record.identity, record.opened_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_says_who_has_opened_it_whatever_a_record_holds() {
        let at = Timestamp::from_unix_millis(1_796_034_501_199);
        let identity = SessionIdentity::cleaned("pac", "0.1.0", "web-0", Some(7));
        let value = encode_session((15, 3_600), &identity, Some(at)).unwrap();
        let text = std::str::from_utf8(&value).unwrap();
        assert_eq!(text, r#"[1,15,3600,"pac","0.1.0","web-0",7,1796034501199]"#);
        assert_eq!(decode_session(b"k", &value).unwrap(), (identity, Some(at)));
        let unknown = SessionIdentity::cleaned("", "", "", None);
        for (value, expected) in [
            ("[1,15,3600]", unknown),
            (
                r#"[1,15,3600,"a\u001b[2J"]"#,
                SessionIdentity::named("a__2J").unwrap(),
            ),
        ] {
            let read = decode_session(b"k", value.as_bytes());
            assert_eq!(read.unwrap(), (expected, None), "{value}");
        }
        for value in [
            "",
            "[1]",
            "[2,15]",
            "[1,15,3600,7]",
            r#"[1,1,1,"a","b","c",-1]"#,
        ] {
            assert!(decode_session(b"k", value.as_bytes()).is_err(), "{value}");
        }
    }
}
