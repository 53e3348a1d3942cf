//! The objects and ways of queries, in tables and at random.

use proptest::prelude::*;

use super::soql::*;

/// FROM object, semi-joins and relationships, joined for a table.
fn read(soql: &str) -> String {
    let found = objects(soql).unwrap();
    format!("{}|{}|{}", found.from, found.semi_joins.join(","), found.relationships.join(","))
}

#[test]
fn the_objects_of_queries() {
    let table = [
        ("SELECT Id FROM Account", "Account||"),
        ("select id from account where name = 'x from Lead'", "account||"),
        (r"SELECT Id FROM Lead WHERE Name = 'O\'Neil (SELECT Id FROM Case)' LIMIT 1", "Lead||"),
        ("SELECT COUNT() FROM Group", "Group||"),
        ("SELECT Id FROM Order ORDER BY CreatedDate DESC NULLS LAST", "Order||"),
        ("SELECT a.Name, a.Owner.Name FROM Account a", "Account||Owner"),
        ("SELECT Account.Name FROM Account", "Account||"),
        ("SELECT Owner.Profile.Name FROM Account", "Account||Owner.Profile"),
        (
            "SELECT Id, (SELECT Id, Owner.Name FROM Contacts WHERE Email != null) FROM Account",
            "Account||Owner,Contacts",
        ),
        ("SELECT Id, (SELECT Id FROM a.Contacts c) FROM Account a", "Account||a.Contacts"),
        ("SELECT Id FROM Account WHERE Id IN (SELECT AccountId FROM Contact)", "Account|Contact|"),
        (
            "SELECT Id FROM Account WHERE (NOT Id NOT IN (SELECT AccountId FROM Contact)) AND Id IN (SELECT AccountId FROM Case)",
            "Account|Contact,Case|",
        ),
        (
            "SELECT Id, (SELECT Id FROM Contacts WHERE Id IN (SELECT ContactId FROM Secret__c)) FROM Account",
            "Account|Secret__c|Contacts",
        ),
        ("SELECT TYPEOF What WHEN Account THEN Phone ELSE Name END FROM Event", "Event||What"),
        ("SELECT count(c.Id) FROM Contact c, c.Account a WHERE a.Name = 'x'", "Contact||c.Account"),
        ("SELECT FIELDS(ALL) FROM Account USING SCOPE mine LIMIT 200", "Account||"),
        ("SELECT Id FROM Account WHERE CreatedDate > 2024-01-01T00:00:00+01:00 AND X__c = LAST_N_DAYS:5", "Account||"),
        ("SELECT Id FROM A__c WHERE DISTANCE(L__c, GEOLOCATION(37.7,-122.4), 'mi') < 20", "A__c||"),
        ("SELECT MAX(Amount) m FROM Opportunity GROUP BY ROLLUP(StageName) HAVING COUNT(Id) > 1", "Opportunity||"),
        ("SELECT Id FROM Contact WHERE AccountId = '@{new.id}'", "Contact||"),
        ("SELECT Id FROM Contact AS c FOR VIEW", "Contact||"),
    ];
    for (soql, expected) in table {
        assert_eq!(read(soql), expected, "{soql}");
    }
}

#[test]
fn what_is_not_understood_is_in_doubt() {
    use QueryDoubt::{Character, Clause, NotAQuery, Reference, TooMuch, Unbalanced};
    let deep = format!("SELECT Id FROM A WHERE {}", "(".repeat(40));
    let table = [
        ("", NotAQuery),
        ("FIND {x}", NotAQuery),
        ("SELECT Id", Clause),
        ("SELECT Id FROM", Clause),
        ("SELECT Id FROM Account FROM Contact", Clause),
        ("SELECT Id FROM Account, Contact", Clause),
        ("SELECT Id FROM Account WHERE SELECT Id FROM Contact", Clause),
        ("SELECT f(FROM Contact) FROM Account", Clause),
        ("SELECT Id FROM Account.Contacts", Clause),
        ("SELECT Id FROM (SELECT Id FROM Contact)", Clause),
        ("SELECT Id FROM Account WHERE Id IN (SELECT Id FROM a.b)", Clause),
        ("SELECT Id FROM Account WHERE Name = 'x", Unbalanced),
        (r"SELECT Id FROM Account WHERE Name = 'x\", Unbalanced),
        ("SELECT (Id FROM Account", Clause),
        ("SELECT Id FROM Account)", Unbalanced),
        ("SELECT Id FROM Account WHERE (Id = null", Unbalanced),
        ("SELECT Id /* FROM Lead */ FROM Account", Character),
        ("SELECT \"FROM Lead\" FROM Account", Character),
        ("SELECT Owner. Name FROM Account", Character),
        ("SELECT Owner .Name FROM Account", Character),
        ("SELECT Id FROM Accoünt", Character),
        ("SELECT Id FROM @{x.name}", Character),
        ("SELECT Id FROM Account WHERE Name = '@{x.Name}'", Reference),
        ("SELECT Id FROM Account WHERE Name = '@{x.id", Unbalanced),
        (deep.as_str(), TooMuch),
    ];
    for (soql, expected) in table {
        assert_eq!(objects(soql), Err(expected), "{soql}");
    }
}

#[test]
fn too_many_names_are_in_doubt() {
    use std::fmt::Write as _;
    let mut soql = String::from("SELECT Id");
    for at in 0..70 {
        let _ = write!(soql, ", R{at}__r.Name");
    }
    soql.push_str(" FROM Account");
    assert_eq!(objects(&soql), Err(QueryDoubt::TooMuch));
}

proptest! {
    #[test]
    fn any_text_is_survived(text in ".{0,200}") {
        let _ = objects(&text);
    }

    #[test]
    fn query_like_text_is_survived(words in proptest::collection::vec(
        proptest::sample::select(vec!["SELECT", "FROM", "(", ")", ",", "a.b", "Account", "IN", "WHERE", "'x'", "'", "\\", "TYPEOF"]), 0..40)) {
        let _ = objects(&words.join(" "));
    }

    /// A string literal can hold anything and changes nothing.
    #[test]
    fn literals_change_nothing(literal in "[^'\\\\@]{0,60}") {
        let with = format!("SELECT Id, (SELECT Id FROM Contacts) FROM Account WHERE Name = '{literal}' AND Id IN (SELECT X FROM Case)");
        prop_assert_eq!(read(&with), "Account|Case|Contacts");
    }
}
