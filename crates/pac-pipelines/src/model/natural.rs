//! The order in which people count: `pr2` before `pr10`.

use std::cmp::Ordering;

/// Compares two names so that numbers in them count by their value, whatever their length.
/// Names that differ only in leading zeros are compared as texts: the order is total.
///
/// ```
/// use pac_pipelines::model::natural_order;
///
/// let mut names = ["pr10", "pr2", "pr1"];
/// names.sort_by(|a, b| natural_order(a, b));
/// assert_eq!(names, ["pr1", "pr2", "pr10"]);
/// ```
#[must_use]
pub fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (first, second) = match (next_part(&mut left), next_part(&mut right)) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(first), Some(second)) => (first, second),
        };
        match compare_parts(first, second) {
            Ordering::Equal => {}
            different => return different,
        }
    }
}

/// Takes the digits, or what is not digits, off the front of a text.
fn next_part<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let digits = rest.bytes().next()?.is_ascii_digit();
    let end = rest
        .bytes()
        .position(|byte| byte.is_ascii_digit() != digits)
        .unwrap_or(rest.len());
    let (part, after) = rest.split_at_checked(end)?;
    *rest = after;
    Some(part)
}

fn compare_parts(a: &str, b: &str) -> Ordering {
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number(a) || !is_number(b) {
        return a.cmp(b);
    }
    // No integer type is long enough for what a name may hold.
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted<const N: usize>(mut names: [&str; N]) -> [&str; N] {
        names.sort_by(|a, b| natural_order(a, b));
        names
    }

    #[test]
    fn numbers_count_by_their_value() {
        assert_eq!(
            sorted(["ci/pr10", "ci/pr2", "ci/pr1-b", "ci/pr1-a10", "ci/pr1-a9"]),
            ["ci/pr1-a9", "ci/pr1-a10", "ci/pr1-b", "ci/pr2", "ci/pr10"]
        );
        let long = ["x99999999999999999999999", "x100000000000000000000000"];
        assert_eq!(sorted(long), long);
        assert_eq!(sorted(["a", "", "a1"]), ["", "a", "a1"]);
    }

    #[test]
    fn no_two_different_names_are_equal() {
        assert_eq!(natural_order("a01", "a1"), Ordering::Less);
        assert_eq!(natural_order("a1", "a01"), Ordering::Greater);
        assert_eq!(natural_order("é1", "é1"), Ordering::Equal);
    }
}
