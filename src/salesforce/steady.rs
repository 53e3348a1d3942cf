//! Whether the answer to a query stays as it is as long as the rows it reads do, and one spelling for all that mean the
//! same.
//!
//! A query is steady if nothing in it depends on the time, on what its user looked at last, or on the user's own settings,
//! and if running it leaves no trace (facts 7.3). What the scanner does not know is not steady.

use super::method::decode;
use super::soql::{self, Lexer, Reads, Token};

/// Words that may be put into lower case: they can be no alias, so no answer repeats their spelling (facts 7.1, 7.4).
const KEYWORDS: [&str; 20] = [
    "and", "asc", "desc", "excludes", "first", "from", "group", "having", "in", "includes", "last", "like", "limit",
    "not", "null", "nulls", "or", "select", "using", "where",
];

/// Words that make a query depend on more than rows, or leave a trace.
const UNSTEADY: [&str; 18] = [
    "today",
    "yesterday",
    "tomorrow",
    "for",
    "update",
    "tracking",
    "viewstat",
    "using",
    "with",
    "fields",
    "format",
    "tolabel",
    "convertcurrency",
    "converttimezone",
    "rows",
    "scope",
    "lastvieweddate",
    "lastreferenceddate",
];

/// Beginnings of date literals and date functions. Custom fields that begin like them end in `__c`.
const DATES: [&str; 9] = ["last_", "next_", "this_", "n_", "calendar_", "fiscal_", "day_", "week_", "hour_"];

/// One spelling of the query in `?q=`, if that is all the parameters say and the query is steady.
///
/// White space outside strings is one blank, keywords are in lower case; everything else stays as it is, because Salesforce
/// may repeat it in its answer (facts 7.4).
pub fn steady_query(parameters: &str) -> Option<String> {
    let value = parameters.strip_prefix("q=")?;
    if value.contains('&') {
        return None;
    }
    steady(&decode(value)?)
}

/// The ways that the query of `?q=` in `target` takes between objects, if that can be told.
pub fn query_reads(target: &str) -> Option<Reads> {
    let (_, parameters) = target.split_once('?')?;
    let value = parameters.strip_prefix("q=").filter(|value| !value.contains('&'))?;
    soql::reads(&decode(value)?).ok()
}

/// The id in a steady query of the form `select ... from Object where Id = '...'`, with or without a limit: its answer can
/// only be this row, or nothing. `None` for every other form.
pub fn only_row(steady: &str) -> Option<&str> {
    // Without parentheses there is no subquery, no function and no list; no string can stand before the first condition.
    if steady.contains('(') {
        return None;
    }
    let (head, condition) = steady.split_once(" where ")?;
    // An alias could stand for anything: it would have to be repeated in front of the field.
    let (_, object) = head.rsplit_once(" from ")?;
    let condition = condition.get(..2).filter(|field| field.eq_ignore_ascii_case("id")).and(condition.get(2..))?;
    let literal = condition.trim_start().strip_prefix('=')?.trim_start().strip_prefix('\'')?;
    let (id, rest) = literal.split_once('\'')?;
    let limit = rest.trim_start().strip_prefix("limit ").map_or(rest, str::trim_start);
    // A limit of nothing, or of a variable, is left to those who know it.
    let is_limit = rest.is_empty() || (limit.len() < rest.len() && is_positive(limit));
    (!object.contains([' ', ',']) && is_limit).then_some(id)
}

fn is_positive(number: &str) -> bool {
    !number.starts_with('0') && !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn steady(soql: &str) -> Option<String> {
    let mut lexer = Lexer::new(soql);
    let mut spelt = String::with_capacity(soql.len());
    let mut before = 0;
    while let Some(token) = lexer.next().ok()? {
        let piece = soql.get(before..lexer.at())?;
        before = lexer.at();
        let text = piece.trim_ascii_start();
        if text.len() < piece.len() && !spelt.is_empty() {
            spelt.push(' ');
        }
        match token {
            Token::Word(word) => {
                let lower = word.to_ascii_lowercase();
                if !is_steady(&lower) {
                    return None;
                }
                spelt.push_str(if KEYWORDS.contains(&lower.as_str()) { &lower } else { word });
            }
            Token::Open | Token::Close | Token::Comma | Token::Other => spelt.push_str(text),
        }
    }
    Some(spelt)
}

/// Whether a word in lower case is one that changes nothing.
fn is_steady(word: &str) -> bool {
    let last = word.rsplit_once('.').map_or(word, |(_, last)| last);
    if UNSTEADY.contains(&last) {
        return false;
    }
    let custom = last.ends_with("__c") || last.ends_with("__pc") || last.ends_with("__r");
    custom || !DATES.iter().any(|date| last.starts_with(date))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_spelling_for_what_means_the_same() {
        let wanted = Some("select Id, Name from Account where Name = 'A  and  B' limit 5".to_owned());
        for spelling in [
            "q=SELECT+Id,+Name+FROM+Account+WHERE+Name+=+'A++and++B'+LIMIT+5",
            "q=select%20Id,%20Name%0A%20from%09Account%20Where%20Name%20=%20'A%20%20and%20%20B'%20limit%205%20",
        ] {
            assert_eq!(steady_query(spelling), wanted, "{spelling}");
        }
    }

    #[test]
    fn what_an_answer_may_repeat_keeps_its_spelling() {
        assert_eq!(
            steady("SELECT NAME n FROM ACCOUNT ORDER BY Name"),
            Some("select NAME n from ACCOUNT ORDER BY Name".into())
        );
        assert_ne!(steady("SELECT Id, Name FROM Account"), steady("SELECT Name, Id FROM Account"));
        assert_ne!(
            steady("SELECT Id FROM Account WHERE Name = 'a'"),
            steady("SELECT Id FROM Account WHERE Name = 'A'")
        );
    }

    #[test]
    fn what_depends_on_more_than_rows_is_not_steady() {
        for unsteady in [
            "SELECT Id FROM Account WHERE CreatedDate = TODAY",
            "SELECT Id FROM Account WHERE CreatedDate > Last_N_Days:5",
            "SELECT Id FROM Account WHERE CreatedDate > LAST_90_DAYS",
            "SELECT Id FROM Account WHERE CreatedDate = N_DAYS_AGO:3",
            "SELECT Id FROM Account FOR VIEW",
            "SELECT Id FROM Account for Reference",
            "SELECT Id FROM Account UPDATE VIEWSTAT",
            "SELECT Id FROM Account USING SCOPE mine",
            "SELECT Id FROM Account WITH DATA CATEGORY x AT y",
            "SELECT FIELDS(ALL) FROM Account LIMIT 200",
            "SELECT FORMAT(Amount) FROM Opportunity",
            "SELECT toLabel(Status) FROM Lead",
            "SELECT convertCurrency(Amount) FROM Opportunity",
            "SELECT CALENDAR_YEAR(CreatedDate), COUNT(Id) FROM Lead GROUP BY CALENDAR_YEAR(CreatedDate)",
            "SELECT LastViewedDate FROM Account",
            "SELECT a.LastReferencedDate FROM Account a",
            "SELECT Id FROM Account WHERE Name = 'open",
            "SELECT Id /* x */ FROM Account",
        ] {
            assert_eq!(steady(unsteady), None, "{unsteady}");
        }
        for good in [
            "SELECT Last_Order__c, Next_Step__c FROM Account WHERE Name = 'TODAY'",
            "SELECT Id FROM Account WHERE CreatedDate > 2024-01-01T00:00:00Z ORDER BY LastModifiedDate DESC NULLS LAST",
            "SELECT COUNT() FROM Account WHERE Id IN (SELECT AccountId FROM Contact)",
        ] {
            assert!(steady(good).is_some(), "{good}");
        }
    }

    #[test]
    fn a_query_for_one_id_is_about_that_row() {
        let row = |soql: &str| steady(soql).and_then(|steady| only_row(&steady).map(str::to_owned));
        for one in [
            "SELECT Id, Name FROM Account WHERE Id = '001D000000IqhSL'",
            "SELECT Name FROM Account WHERE ID='001D000000IqhSL'",
            "select name from account where id= '001D000000IqhSL' Limit 1",
            "SELECT Name FROM Account\nWHERE\tId ='001D000000IqhSL'  LIMIT  10 ",
        ] {
            assert_eq!(row(one).as_deref(), Some("001D000000IqhSL"), "{one}");
        }
        for other in [
            "SELECT Id FROM Account",
            "SELECT Id FROM Account WHERE Id != '001D000000IqhSL'",
            "SELECT Id FROM Account WHERE Id > '001D000000IqhSL'",
            "SELECT Id FROM Account WHERE NOT Id = '001D000000IqhSL'",
            "SELECT Id FROM Account WHERE AccountId = '001D000000IqhSL'",
            "SELECT Id FROM Account WHERE IdX = '001D000000IqhSL'",
            "SELECT Id FROM Account WHERE Id = '001D000000IqhSL' OR Name = 'a'",
            "SELECT Id FROM Account WHERE Id = '001D000000IqhSL' AND Name = 'a'",
            "SELECT Id FROM Account WHERE Id = '001D000000IqhSL' ALL ROWS",
            "SELECT Id FROM Account WHERE Id = '001D000000IqhSL' LIMIT 0",
            "SELECT Id FROM Account WHERE Id = '001D000000IqhSL' LIMIT 1 OFFSET 1",
            "SELECT Id FROM Account WHERE Id = '001D000000IqhSL' ORDER BY Name",
            "SELECT Id FROM Account WHERE Id = '001D000000IqhSL'limit 1x",
            "SELECT Id FROM Account a WHERE Id = '001D000000IqhSL'",
            "SELECT Id FROM Account a, a.Contacts c WHERE Id = '001D000000IqhSL'",
            "SELECT Id FROM Account WHERE Id IN ('001D000000IqhSL')",
            "SELECT Id, (SELECT Id FROM Contacts) FROM Account WHERE Id = '001D000000IqhSL'",
            "SELECT COUNT() FROM Account WHERE Id = '001D000000IqhSL'",
            "SELECT Id FROM Account WHERE Name = ' where Id = ' AND Id = '001D000000IqhSL'",
        ] {
            assert_eq!(row(other), None, "{other}");
        }
    }

    #[test]
    fn other_parameters_leave_the_query_in_doubt() {
        for parameters in ["q=SELECT+Id+FROM+A&x=1", "explain=SELECT+Id+FROM+A", "", "Q=SELECT+Id+FROM+A", "q=%ff"] {
            assert_eq!(steady_query(parameters), None, "{parameters}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived_and_a_spelling_is_its_own(text in ".{0,120}") {
            if let Some(spelt) = steady(&text) {
                prop_assert_eq!(steady(&spelt), Some(spelt));
            }
        }

        /// Blanks and the case of keywords change nothing; the text of a literal changes everything.
        #[test]
        fn spellings_meet_and_literals_part(blanks in "[ \t\n]{1,4}", upper: bool, one in "[a-z ]{0,8}", other in "[a-z ]{0,8}") {
            let word = |word: &str| if upper { word.to_uppercase() } else { word.to_owned() };
            let write = |literal: &str| format!("{}{blanks}Id{blanks}{}{blanks}Account {} Name = '{literal}'",
                word("select"), word("from"), word("where"));
            let plain = |literal: &str| format!("select Id from Account where Name = '{literal}'");
            prop_assert_eq!(steady(&write(&one)), steady(&plain(&one)));
            prop_assert_eq!(steady(&write(&one)) == steady(&plain(&other)), one == other);
        }
    }
}
