//! How many runs of a namespace may be in a section at once.

use pac_core::Limit;

use super::name::SectionName;
use crate::model::RepositoryView;
use crate::vocabulary;

/// The limit of a section that no Repository names: the safe one.
const DEFAULT: u32 = 1;

/// The limit of a section, from the Repositories of its namespace. Where several name it, the
/// lowest holds, since each counts on its own not being exceeded. A value that breaks the rule
/// counts as absent.
pub(crate) fn limit_of<'a>(
    section: &SectionName,
    repositories: impl Iterator<Item = &'a RepositoryView>,
) -> Limit {
    let limits = repositories.filter_map(|view| {
        let list = view.annotations.get(vocabulary::SECTION_LIMITS)?;
        of_list(list, section)
    });
    Limit::new(limits.min().unwrap_or(DEFAULT))
}

/// What a list such as `gpu=2, staging=1` says about a section; the lowest, where it says it twice.
fn of_list(list: &str, section: &SectionName) -> Option<u32> {
    let items = list.split(',').filter_map(item);
    let numbers = items.filter(|(name, _)| *name == section.as_str());
    numbers.map(|(_, number)| number).min()
}

/// The items of a list that break its rule, and count as absent.
pub(crate) fn broken_items(list: &str) -> impl Iterator<Item = &str> {
    let is_broken = |text: &&str| {
        let name = item(text).map(|(name, _)| name.parse::<SectionName>());
        !matches!(name, Some(Ok(_)))
    };
    list.split(',').filter(is_broken)
}

/// The section and the number of an item such as `gpu=2`.
fn item(text: &str) -> Option<(&str, u32)> {
    let (name, number) = text.split_once('=')?;
    let number = number.trim().parse().ok().filter(|number| *number > 0)?;
    Some((name.trim(), number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(lists: &[&str]) -> Option<u32> {
        let views: Vec<_> = lists
            .iter()
            .map(|list| {
                let mut view = RepositoryView::new("ci/r".parse().unwrap());
                let name = vocabulary::SECTION_LIMITS.to_owned();
                view.annotations.insert(name, (*list).to_owned());
                view
            })
            .collect();
        limit_of(&"gpu".parse().unwrap(), views.iter()).get()
    }

    #[test]
    fn one_run_is_in_a_section_that_nobody_has_named() {
        assert_eq!(limit(&[]), Some(1));
        assert_eq!(limit(&["staging=5"]), Some(1));
        for broken in [
            "gpu",
            "gpu=",
            "gpu=0",
            "gpu=-1",
            "gpu=many",
            "gpu=4294967296",
            "GPU=3",
            "",
        ] {
            assert_eq!(limit(&[broken]), Some(1), "{broken}");
            assert_eq!(broken_items(broken).collect::<Vec<_>>(), [broken]);
        }
        let broken: Vec<_> = broken_items("gpu=3, staging = 1,gpu,a=0").collect();
        assert_eq!(broken, ["gpu", "a=0"]);
    }

    #[test]
    fn the_lowest_number_holds() {
        assert_eq!(limit(&["gpu=3"]), Some(3));
        assert_eq!(limit(&[" gpu = 3 ,staging=1"]), Some(3));
        assert_eq!(limit(&["gpu=3", "gpu=2", "staging=1"]), Some(2));
        assert_eq!(limit(&["gpu=7,gpu=4,broken"]), Some(4));
    }
}
