//! How long a call is presumed to take before anything is known of its kind.

use crate::call::{Class, Family, Length, Meaning, Operation};

/// What is presumed of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presumed {
    /// It is short: Salesforce has little to do.
    Quick,
    /// It is short, as most are.
    Short,
    /// It is long.
    Long,
}

impl Presumed {
    /// How long it is expected to run.
    pub const fn length(self) -> Length {
        match self {
            Self::Quick | Self::Short => Length::Short,
            Self::Long => Length::Long,
        }
    }
}

/// What is presumed of a call of `class`: interactive calls are short, batch calls long, standard calls long where they carry
/// the data of bulk jobs or run reports; and nobody's calls where Salesforce has little to do.
pub fn presumed(class: Class, meaning: &Meaning) -> Presumed {
    if is_quick(meaning) {
        return Presumed::Quick;
    }
    match class {
        Class::Interactive => Presumed::Short,
        Class::Standard if !is_heavy(meaning) => Presumed::Short,
        Class::Standard | Class::Batch => Presumed::Long,
    }
}

/// Whether a call takes no place among those in the air: log-ins go elsewhere, and long polls are not counted (facts 6.7).
pub fn is_weightless(meaning: &Meaning) -> bool {
    meaning.long_poll || meaning.family == Family::Oauth
}

/// Rows, lists and descriptions that are read, and steps of jobs.
fn is_quick(meaning: &Meaning) -> bool {
    match meaning.family {
        Family::Versions | Family::Oauth | Family::Cometd => true,
        Family::Rest => match meaning.operation {
            Operation::Limits | Operation::Describe => true,
            Operation::Read => !is_heavy(meaning),
            _ => false,
        },
        // A step of a job answers at once; only its data takes time.
        Family::Bulk1 | Family::Bulk2 => !carries_data(meaning),
        _ => false,
    }
}

fn is_heavy(meaning: &Meaning) -> bool {
    match meaning.family {
        Family::Bulk1 | Family::Bulk2 => carries_data(meaning),
        _ => meaning.template.contains("/analytics/reports"),
    }
}

/// Whether it uploads or downloads what a bulk job works on.
fn carries_data(meaning: &Meaning) -> bool {
    let last = meaning.template.rsplit('/').next().unwrap_or_default();
    match meaning.family {
        Family::Bulk1 => {
            (last == "batch" && meaning.method == http::Method::POST)
                || ["request", "result", "{result}"].contains(&last)
        }
        Family::Bulk2 => last == "batches" || last.to_ascii_lowercase().ends_with("results"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::salesforce::{Costs, understand};

    #[test]
    fn classes_and_families_decide_before_anything_is_known() {
        use Length::{Long, Short};
        for (method, path, [interactive, standard, batch]) in [
            ("GET", "/services/data/v62.0/sobjects/Account/001000000000001AAA", [Short, Short, Short]),
            ("GET", "/services/data/v62.0/limits", [Short, Short, Short]),
            ("GET", "/services/data/v62.0/sobjects/Account/describe", [Short, Short, Short]),
            ("GET", "/services/data/", [Short, Short, Short]),
            ("GET", "/services/data/v62.0/recent", [Short, Short, Short]),
            ("GET", "/services/data/v62.0/query?q=SELECT+Id+FROM+Account", [Short, Short, Long]),
            ("POST", "/services/data/v62.0/sobjects/Account", [Short, Short, Long]),
            ("POST", "/services/data/v62.0/composite", [Short, Short, Long]),
            ("GET", "/services/apexrest/Nightly", [Short, Short, Long]),
            ("POST", "/services/data/v62.0/jobs/ingest", [Short, Short, Short]),
            ("PUT", "/services/data/v62.0/jobs/ingest/750/batches", [Short, Long, Long]),
            ("GET", "/services/data/v62.0/jobs/query/750/results", [Short, Long, Long]),
            ("POST", "/services/async/62.0/job/750/batch", [Short, Long, Long]),
            ("GET", "/services/async/62.0/job/750/batch", [Short, Short, Short]),
            ("GET", "/services/data/v62.0/analytics/reports/00O000000000001", [Short, Long, Long]),
        ] {
            let meaning = understand(&method.parse().unwrap(), path, &Costs::default());
            let found = Class::ALL.iter().map(|class| presumed(*class, &meaning).length()).collect::<Vec<_>>();
            assert_eq!(found, [interactive, standard, batch], "{method} {path} {}", meaning.template);
        }
    }
}
