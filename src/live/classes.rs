//! Which calls have a lower class than their callers.

use smol_str::SmolStr;

use crate::call::{Class, Family, Meaning};
use crate::config::ClassRule;

/// The rules of one configuration, arranged for looking up.
#[derive(Debug, Clone)]
pub struct Classes {
    by_family: [Class; Family::ALL.len()],
    by_path: Vec<(SmolStr, Class)>,
    any: bool,
}

impl Classes {
    /// What `rules` say together: the lowest class that any of them names.
    pub fn new(rules: &[ClassRule]) -> Self {
        let by_family = [Class::Interactive; Family::ALL.len()];
        let mut classes = Self { by_family, by_path: Vec::new(), any: !rules.is_empty() };
        for rule in rules {
            for family in &rule.families {
                if let Some(class) = classes.by_family.get_mut(family.index()) {
                    *class = rule.class.max(*class);
                }
            }
            classes.by_path.extend(rule.paths.iter().map(|path| (path.clone(), rule.class)));
        }
        classes
    }

    /// The class of a call to `path` by a caller of `class`.
    pub fn of(&self, class: Class, meaning: &Meaning, path: &str) -> Class {
        if !self.any {
            return class;
        }
        let by_family = self.by_family.get(meaning.family.index()).copied().unwrap_or(class);
        let by_path = self.by_path.iter().filter(|(start, _)| leads(start, path) || leads(start, meaning.template));
        by_path.map(|(_, class)| *class).fold(class.max(by_family), Class::max)
    }
}

/// Whether `path` begins with the segments of `start`, in any case.
fn leads(start: &str, path: &str) -> bool {
    let path = path.as_bytes();
    path.get(..start.len()).is_some_and(|front| front.eq_ignore_ascii_case(start.as_bytes()))
        && matches!(path.get(start.len()), None | Some(b'/' | b'?'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::salesforce::{Costs, understand};

    #[test]
    fn rules_lower_a_class_and_never_raise_it() {
        let rule = |families: &[Family], paths: &[&str], class| ClassRule {
            families: families.to_vec(),
            paths: paths.iter().map(|path| (*path).into()).collect(),
            class,
        };
        let classes = Classes::new(&[
            rule(&[Family::Bulk2], &[], Class::Batch),
            rule(&[], &["/services/data/{version}/analytics/reports"], Class::Standard),
            rule(&[], &["/services/apexrest/nightly"], Class::Batch),
        ]);
        for (path, found) in [
            ("/services/data/v62.0/jobs/query", [Class::Batch; 3]),
            ("/services/data/v62.0/analytics/reports/00O1", [Class::Standard, Class::Standard, Class::Batch]),
            ("/services/apexrest/Nightly?x=1", [Class::Batch; 3]),
            ("/services/apexrest/Nightly/run", [Class::Batch; 3]),
            ("/services/apexrest/NightlyNews", [Class::Interactive, Class::Standard, Class::Batch]),
            ("/services/data/v62.0/limits", [Class::Interactive, Class::Standard, Class::Batch]),
        ] {
            let meaning = understand(&http::Method::GET, path, &Costs::default());
            assert_eq!(
                Class::ALL.iter().map(|class| classes.of(*class, &meaning, path)).collect::<Vec<_>>(),
                found,
                "{path}"
            );
        }
    }
}
