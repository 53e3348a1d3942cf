//! Date literals relative to now, in UTC (facts 7.3).

use crate::sim::clock::{DAY, Micros};
use crate::sim::dates::{civil_from_days, day_of, days_from_civil};

/// The first moment of the literal's range and the first one after it; `None` if there is no such literal.
pub(super) fn range(literal: &str, now: Micros) -> Option<(Micros, Micros)> {
    let today = day_of(now);
    let upper = literal.to_ascii_uppercase();
    let (name, count) = match upper.split_once(':') {
        Some((name, count)) => (name, Some(count.parse::<i64>().ok().filter(|count| *count <= 100_000)?)),
        None => (upper.as_str(), None),
    };
    let (year, month, _) = civil_from_days(today);
    let month_start = |offset: i64| {
        let months = year * 12 + month - 1 + offset;
        days_from_civil(months.div_euclid(12), months.rem_euclid(12) + 1, 1)
    };
    let year_start = |offset: i64| days_from_civil(year + offset, 1, 1);
    // 1970-01-01 was a Thursday; weeks begin on Sunday as in the default locale.
    let week_start = |offset: i64| today - (today + 4).rem_euclid(7) + offset * 7;
    let (from, to) = match (name, count) {
        ("YESTERDAY", None) => (today - 1, today),
        ("TODAY", None) => (today, today + 1),
        ("TOMORROW", None) => (today + 1, today + 2),
        ("LAST_WEEK", None) => (week_start(-1), week_start(0)),
        ("THIS_WEEK", None) => (week_start(0), week_start(1)),
        ("NEXT_WEEK", None) => (week_start(1), week_start(2)),
        ("LAST_MONTH", None) => (month_start(-1), month_start(0)),
        ("THIS_MONTH", None) => (month_start(0), month_start(1)),
        ("NEXT_MONTH", None) => (month_start(1), month_start(2)),
        ("LAST_YEAR", None) => (year_start(-1), year_start(0)),
        ("THIS_YEAR", None) => (year_start(0), year_start(1)),
        ("NEXT_YEAR", None) => (year_start(1), year_start(2)),
        ("LAST_90_DAYS", None) => (today - 90, today + 1),
        ("NEXT_90_DAYS", None) => (today + 1, today + 91),
        ("LAST_N_DAYS", Some(days)) => (today - days, today + 1),
        ("NEXT_N_DAYS", Some(days)) => (today + 1, today + 1 + days),
        ("N_DAYS_AGO", Some(days)) => (today - days, today - days + 1),
        ("LAST_N_MONTHS", Some(months)) => (month_start(-months), month_start(0)),
        ("LAST_N_YEARS", Some(years)) => (year_start(-years), year_start(0)),
        _ => return None,
    };
    let at = |days: i64| u64::try_from(days).unwrap_or(0) * DAY;
    Some((at(from), at(to)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::dates::{date_text, parse_datetime};

    #[test]
    fn ranges_begin_and_end_at_midnight() {
        let now = parse_datetime("2026-11-21T12:00:00Z").unwrap();
        let shown = |literal: &str| {
            let (from, to) = range(literal, now).unwrap();
            format!("{} {}", date_text(day_of(from)), date_text(day_of(to)))
        };
        assert_eq!(shown("today"), "2026-11-21 2026-11-22");
        assert_eq!(shown("THIS_WEEK"), "2026-11-15 2026-11-22");
        assert_eq!(shown("NEXT_MONTH"), "2026-12-01 2027-01-01");
        assert_eq!(shown("LAST_N_DAYS:3"), "2026-11-18 2026-11-22");
        assert_eq!(range("SOMEDAY", now), None);
        assert_eq!(range("LAST_N_DAYS:x", now), None);
    }
}
