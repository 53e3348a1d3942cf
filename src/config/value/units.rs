//! Sizes and durations.

use std::fmt::Write as _;
use std::time::Duration;

use super::Written;
use crate::config::problem::Fault;

/// A number of bytes: `512`, `16KiB`, `1MiB`, `2GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

const SIZE_UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Written for Size {
    const NAME: &'static str = "Size";
    const DESCRIPTION: &'static str = "A number of bytes: 512B, 16KiB, 1MiB or 2GiB.";
    const PATTERN: &'static str = "^[0-9]+(B|KiB|MiB|GiB)$";

    fn read(text: &str) -> Result<Self, Fault> {
        let hint = "write a whole number with B, KiB, MiB or GiB, such as 16KiB";
        let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = match unit {
            "B" => 1,
            _ => SIZE_UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, factor)| *factor)
                .ok_or_else(|| Fault::new("not a size").hint(hint))?,
        };
        let number: u64 = digits.parse().map_err(|_| Fault::new("not a size").hint(hint))?;
        number
            .checked_mul(factor)
            .filter(|bytes| *bytes <= 1 << 50)
            .map(Self)
            .ok_or_else(|| Fault::new("this size is beyond all bounds").hint("1PiB is the most"))
    }

    fn write(&self) -> String {
        SIZE_UNITS
            .iter()
            .find(|(_, factor)| self.0 != 0 && self.0.is_multiple_of(*factor))
            .map_or_else(|| format!("{}B", self.0), |(unit, factor)| format!("{}{unit}", self.0 / factor))
    }
}

/// A length of time: `500ms`, `10s`, `1h30m`, `1d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

/// Units from large to small, in milliseconds.
const PERIOD_UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Written for Period {
    const NAME: &'static str = "Duration";
    const DESCRIPTION: &'static str = "A length of time: 500ms, 10s, 5m, 1h30m or 1d, units from large to small.";
    const PATTERN: &'static str = "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";

    fn read(text: &str) -> Result<Self, Fault> {
        let wrong = || {
            Fault::new("not a duration")
                .hint("write whole numbers with d, h, m, s or ms, from large to small, such as 10s or 1h30m")
        };
        let mut rest = text;
        let mut total = 0_u64;
        let mut units = PERIOD_UNITS.iter();
        while !rest.is_empty() {
            let (digits, tail) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?);
            let (unit, after) = tail.split_at(tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len()));
            let number: u64 = digits.parse().map_err(|_| wrong())?;
            let factor = units.by_ref().find(|(name, _)| *name == unit).map(|(_, factor)| *factor).ok_or_else(wrong)?;
            total = number.checked_mul(factor).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
            rest = after;
        }
        if text.is_empty() {
            return Err(wrong());
        }
        if total > 366 * 86_400_000 {
            return Err(Fault::new("this duration is beyond all bounds").hint("366d is the most"));
        }
        Ok(Self(Duration::from_millis(total)))
    }

    fn write(&self) -> String {
        let mut rest = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if rest == 0 {
            return "0s".to_owned();
        }
        let mut text = String::new();
        for (unit, factor) in PERIOD_UNITS {
            if rest >= factor {
                let _ = write!(text, "{}{unit}", rest / factor);
                rest %= factor;
            }
        }
        text
    }
}

/// A share of a whole in thousandths: `5%`, `2.5%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Percent(pub u16);

impl Written for Percent {
    const NAME: &'static str = "Percent";
    const DESCRIPTION: &'static str = "A share of a whole, from 0% to 100%, with at most one decimal: 5% or 2.5%.";
    const PATTERN: &'static str = "^[0-9]{1,3}([.][0-9])?%$";

    fn read(text: &str) -> Result<Self, Fault> {
        let wrong = || Fault::new("not a share of a whole").hint("write it like 5% or 2.5%, at most 100%");
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.strip_suffix('%').ok_or_else(wrong)?;
        let (whole, tenth) = number.split_once('.').unwrap_or((number, "0"));
        if !digits(whole) || whole.len() > 3 || !digits(tenth) || tenth.len() != 1 {
            return Err(wrong());
        }
        let parse = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        let thousandths = parse(whole)? * 10 + parse(tenth)?;
        if thousandths > 1_000 { Err(wrong()) } else { Ok(Self(thousandths)) }
    }

    fn write(&self) -> String {
        match (self.0 / 10, self.0 % 10) {
            (whole, 0) => format!("{whole}%"),
            (whole, tenth) => format!("{whole}.{tenth}%"),
        }
    }
}

/// A time of day, in minutes since midnight: `22:00`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeOfDay(pub u16);

impl Written for TimeOfDay {
    const NAME: &'static str = "TimeOfDay";
    const DESCRIPTION: &'static str = "A time of day in UTC, hours and minutes: 22:00.";
    const PATTERN: &'static str = "^([01][0-9]|2[0-3]):[0-5][0-9]$";

    fn read(text: &str) -> Result<Self, Fault> {
        let wrong = || Fault::new("not a time of day").hint("write it like 06:30 or 22:00, in UTC");
        let number = |text: &str, below: u16| {
            let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|number| digits && *number < below).ok_or_else(wrong)
        };
        let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
        Ok(Self(number(hours, 24)? * 60 + number(minutes, 60)?))
    }

    fn write(&self) -> String {
        format!("{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(text: &str) -> Option<u64> {
        Size::read(text).ok().map(|size| size.0)
    }

    fn millis(text: &str) -> Option<u128> {
        Period::read(text).ok().map(|period| period.0.as_millis())
    }

    #[test]
    fn times_of_day_are_two_numbers_of_two_digits() {
        assert_eq!(TimeOfDay::read("22:05").map(|time| time.0).ok(), Some(22 * 60 + 5));
        assert_eq!(TimeOfDay(6 * 60 + 7).write(), "06:07");
        for wrong in ["", "7:00", "24:00", "12:60", "12:5", "1200", "12:00:00", "+1:00", "１2:00", "noon"] {
            assert!(TimeOfDay::read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_are_whole_and_have_a_unit() {
        assert_eq!(size("16KiB"), Some(16 << 10));
        assert_eq!(size("0B"), Some(0));
        assert_eq!(size("2GiB"), Some(2 << 30));
        for wrong in
            ["", "16", "KiB", "16 KiB", "16KB", "16kib", "1.5MiB", "-1B", "+1B", "１KiB", "99999999999999999GiB"]
        {
            assert_eq!(size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn durations_go_from_large_to_small_and_have_units() {
        assert_eq!(millis("1h30m"), Some(5_400_000));
        assert_eq!(millis("1d2h3m4s5ms"), Some(93_784_005));
        assert_eq!(millis("500ms"), Some(500));
        assert_eq!(millis("0s"), Some(0));
        for wrong in
            ["", "10", "s", "10 s", "1m1h", "1s1s", "1.5s", "-1s", "1y", "367d", "99999999999999999999d", "1sx"]
        {
            assert_eq!(millis(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn shares_are_at_most_a_whole_and_have_one_decimal() {
        let share = |text: &str| Percent::read(text).ok().map(|share| share.0);
        assert_eq!(
            (share("5%"), share("2.5%"), share("0%"), share("100%")),
            (Some(50), Some(25), Some(0), Some(1_000))
        );
        for wrong in ["", "%", "5", "5 %", "-1%", "100.1%", "101%", "2.55%", ".5%", "5.%", "1000%", "٥%"] {
            assert_eq!(share(wrong), None, "{wrong:?}");
        }
        for thousandths in 0..=1_000 {
            assert_eq!(Percent::read(&Percent(thousandths).write()), Ok(Percent(thousandths)));
        }
    }
}
