//! Medians, quantiles and spread.

/// The median; 0 without values.
pub(super) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value closest to the quantile `part`; 0 without values.
pub(super) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let at = (last as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

/// The interquartile range, as a fraction of the median.
pub(super) fn spread(values: &[f64]) -> f64 {
    let median = median(values);
    if median == 0.0 {
        return 0.0;
    }
    (quantile(values, 0.75) - quantile(values, 0.25)) / median
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_many_of_one_and_of_nothing() {
        let values: Vec<f64> = (1..=101).rev().map(f64::from).collect();
        assert_eq!(median(&values), 51.0);
        assert_eq!(quantile(&values, 0.99), 100.0);
        assert_eq!(spread(&values), 50.0 / 51.0);
        assert_eq!((median(&[7.0]), quantile(&[7.0], 0.99)), (7.0, 7.0));
        assert_eq!((median(&[]), spread(&[])), (0.0, 0.0));
    }
}
