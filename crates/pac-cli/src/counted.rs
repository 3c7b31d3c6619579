//! So many of something, in words.

/// `1 run`, or `3 runs`.
pub(crate) fn counted(count: usize, one: &str, many: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    }
}

/// How many run and wait, as far as any do: `1 running run and 3 queued runs`. Empty if none do.
pub(crate) fn runs(running: usize, queued: usize) -> String {
    let of = |count, one, many| (count > 0).then(|| counted(count, one, many));
    let running = of(running, "running run", "running runs");
    let queued = of(queued, "queued run", "queued runs");
    let both: Vec<_> = running.into_iter().chain(queued).collect();
    both.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_none_are_told_as_such() {
        assert_eq!(runs(1, 3), "1 running run and 3 queued runs");
        assert_eq!(runs(0, 1), "1 queued run");
        assert_eq!(runs(2, 0), "2 running runs");
        assert_eq!(runs(0, 0), "");
    }
}
