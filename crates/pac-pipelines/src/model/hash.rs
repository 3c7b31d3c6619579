//! A hash that never changes.

/// The hash of some texts (FNV-1a): the same in every version of this software, for what is compared
/// across versions. Whoever chooses the texts can make two that have the same one.
#[must_use]
pub fn stable_hash(parts: &[&str]) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for part in parts {
        // 0xff is in no text: it tells where a part ends.
        for byte in part.bytes().chain([0xff]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    hash
}
