//! Dates and times in Salesforce's spelling.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::clock::{DAY, Micros, SECOND};

/// Days since the epoch of a civil date (proleptic Gregorian).
pub(super) fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let month_index = (month + 9) % 12;
    let day_of_year = (153 * month_index + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The civil date of a day since the epoch.
pub(super) fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day a moment lies in, UTC.
pub(super) fn day_of(at: Micros) -> i64 {
    (at / DAY).cast_signed()
}

/// `2026-11-21`.
pub(super) fn date_text(days: i64) -> String {
    let (year, month, day) = civil_from_days(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-21T12:00:00.000+0000`; sorts like time.
pub(super) fn datetime_text(at: Micros) -> String {
    let second = at / SECOND;
    let (hour, minute, second_of_minute) = (second / 3_600 % 24, second / 60 % 60, second % 60);
    let milli = at / 1_000 % 1_000;
    format!("{}T{hour:02}:{minute:02}:{second_of_minute:02}.{milli:03}+0000", date_text(day_of(at)))
}

/// `Fri, 21 Nov 2026 12:00:00 GMT`.
pub(super) fn http_date(at: Micros) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_micros(at))
}

/// Reads an HTTP date, to the second.
pub(super) fn parse_http_date(text: &str) -> Option<Micros> {
    let at: SystemTime = httpdate::parse_http_date(text).ok()?;
    let since = at.duration_since(UNIX_EPOCH).ok()?;
    Some(since.as_secs() * SECOND)
}

/// Reads `YYYY-MM-DD` as a day since the epoch.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    let mut parts = text.split('-');
    let (year, month, day) = (number(parts.next()?, 4)?, number(parts.next()?, 2)?, number(parts.next()?, 2)?);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_from_civil(year, month, day);
    (civil_from_days(days) == (year, month, day) && days >= 0).then_some(days)
}

/// Reads `YYYY-MM-DDThh:mm:ss[.mmm](Z|±hh:mm|±hhmm)`, the form of SOQL, JSON bodies and query parameters.
pub(super) fn parse_datetime(text: &str) -> Option<Micros> {
    let (date, rest) = text.split_once(['T', 't'])?;
    let days = parse_date(date)?;
    let zone_at = rest.find(['Z', 'z', '+', '-', ' '])?;
    let (clock, zone) = rest.split_at(zone_at);
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = whole.split(':');
    let hour = number(parts.next()?, 2)?;
    let minute = number(parts.next()?, 2)?;
    let second = parts.next().map_or(Some(0), |part| number(part, 2))?;
    if hour > 23 || minute > 59 || second > 60 || parts.next().is_some() {
        return None;
    }
    if fraction.is_empty() || fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<6}").parse().ok()?;
    let offset_minutes = match zone {
        "Z" | "z" => 0,
        // A plus sign that was decoded as a blank in a query string is still a plus sign.
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let digits: String = zone.chars().filter(char::is_ascii_digit).collect();
            if digits.len() != 4 {
                return None;
            }
            let (hours, minutes) = digits.split_at(2);
            sign * (hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?)
        }
    };
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset_minutes * 60;
    u64::try_from(seconds * 1_000_000 + fraction).ok()
}

fn number(text: &str, width: usize) -> Option<i64> {
    (text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_go_there_and_back() {
        let at = parse_datetime("2026-11-21T12:34:56.789Z").unwrap();
        assert_eq!(datetime_text(at), "2026-11-21T12:34:56.789+0000");
        assert_eq!(parse_datetime(&datetime_text(at)), Some(at));
        assert_eq!(parse_datetime("2026-11-21T14:34:56.789+02:00"), Some(at));
        assert_eq!(parse_datetime("2026-11-21T14:34:56.789 02:00"), Some(at));
        assert_eq!(date_text(parse_date("2024-02-29").unwrap()), "2024-02-29");
        assert_eq!(parse_http_date(&http_date(at)), Some(at - at % SECOND));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["2023-02-29", "2023-13-01", "20-01-01", "2023-1-1", "2023-01-01-01"] {
            assert_eq!(parse_date(text), None, "{text}");
        }
        for text in ["2023-02-01T25:00:00Z", "2023-02-01T10:00:00", "2023-02-01T10:00:00.Z", "x"] {
            assert_eq!(parse_datetime(text), None, "{text}");
        }
    }
}
