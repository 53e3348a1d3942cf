//! Statements over a seeded org.

use std::sync::Arc;

use super::{parse, run};
use crate::sim::clock::DAY;
use crate::sim::config::SimConfig;
use crate::sim::json::Json;
use crate::sim::world::World;

fn world() -> World {
    World::new(Arc::new(SimConfig { records: 40, ..SimConfig::default() }), 20_000 * DAY)
}

fn ask(world: &World, text: &str) -> Result<Vec<Json>, String> {
    let context = world.context(0, 20_000 * DAY, 62).unwrap();
    let query = parse(text).map_err(|error| error.code.to_string())?;
    run(&context, &query).map(|found| found.records).map_err(|error| error.code.to_string())
}

fn texts(records: &[Json], field: &str) -> Vec<String> {
    records.iter().map(|record| record.get(field).unwrap().plain()).collect()
}

#[test]
fn conditions_agree_with_filtering_by_hand() {
    let world = world();
    let all = ask(&world, "SELECT Id, Industry, AnnualRevenue, Name FROM Account").unwrap();
    let count = |keep: &dyn Fn(&Json) -> bool| all.iter().filter(|record| keep(record)).count();
    let industry = |record: &Json| record.text("Industry").map(str::to_owned);
    let revenue = |record: &Json| record.get("AnnualRevenue").and_then(Json::as_f64);
    let cases: Vec<(&str, usize)> = vec![
        ("Industry = 'banking'", count(&|r| industry(r).as_deref() == Some("Banking"))),
        ("Industry != 'Banking'", count(&|r| industry(r).as_deref() != Some("Banking"))),
        ("Industry = null", count(&|r| industry(r).is_none())),
        ("Industry IN ('Banking', 'Energy')", count(&|r| matches!(industry(r).as_deref(), Some("Banking" | "Energy")))),
        ("Industry NOT IN ('Banking')", count(&|r| industry(r).as_deref() != Some("Banking"))),
        ("AnnualRevenue > 500000", count(&|r| revenue(r).is_some_and(|n| n > 500_000.0))),
        (
            "AnnualRevenue >= 100 AND (NOT Industry = 'Retail')",
            count(&|r| revenue(r).is_some() && industry(r).as_deref() != Some("Retail")),
        ),
        ("Name LIKE '%GmbH%'", count(&|r| r.text("Name").unwrap().contains("GmbH"))),
        ("CreatedDate < TODAY", all.len()),
        ("CreatedDate = LAST_N_DAYS:400", all.len()),
        ("CreatedDate > 2099-01-01T00:00:00Z", 0),
    ];
    for (condition, expected) in cases {
        let found = ask(&world, &format!("SELECT Id FROM Account WHERE {condition}")).unwrap();
        assert_eq!(found.len(), expected, "{condition}");
    }
}

#[test]
fn parents_children_and_semi_joins() {
    let world = world();
    let contacts = ask(&world, "SELECT c.Id, c.Account.Name, c.Account.Owner.Username FROM Contact c WHERE Account.Name != null ORDER BY Account.Name DESC, Id LIMIT 5").unwrap();
    assert_eq!(contacts.len(), 5);
    let account = contacts[0].get("Account").unwrap();
    assert_eq!(account.get("attributes").unwrap().text("type"), Some("Account"));
    assert!(account.get("Owner").unwrap().text("Username").unwrap().ends_with("@sim.example"));
    let names: Vec<String> =
        contacts.iter().map(|c| c.get("Account").unwrap().text("Name").unwrap().to_lowercase()).collect();
    assert!(names.is_sorted_by(|left, right| left >= right), "{names:?}");
    let joined = ask(&world, "SELECT Id, (SELECT Id, LastName FROM Contacts ORDER BY LastName) FROM Account WHERE Id IN (SELECT AccountId FROM Contact)").unwrap();
    let others = ask(&world, "SELECT Id FROM Account WHERE Id NOT IN (SELECT AccountId FROM Contact)").unwrap();
    assert_eq!(joined.len() + others.len(), 40);
    let children: usize =
        joined.iter().map(|record| record.get("Contacts").unwrap().get("records").unwrap().items().len()).sum();
    assert_eq!(children, ask(&world, "SELECT Id FROM Contact WHERE AccountId != null").unwrap().len());
    let tasks = ask(&world, "SELECT Who.Name, What.Name FROM Task WHERE WhoId != null LIMIT 3").unwrap();
    assert!(tasks[0].get("Who").unwrap().text("Name").is_some());
}

#[test]
fn groups_add_up() {
    let world = world();
    let groups = ask(
        &world,
        "SELECT StageName, COUNT(Id), SUM(Amount) total FROM Opportunity GROUP BY StageName ORDER BY COUNT(Id) DESC",
    )
    .unwrap();
    let sum: f64 = groups.iter().map(|group| group.get("expr0").unwrap().as_f64().unwrap()).sum();
    assert!((sum - 40.0).abs() < f64::EPSILON);
    assert!(groups[0].get("total").unwrap().as_f64().is_some());
    let big = ask(&world, "SELECT StageName FROM Opportunity GROUP BY StageName HAVING COUNT(Id) > 100").unwrap();
    assert!(big.is_empty());
    let one =
        ask(&world, "SELECT COUNT_DISTINCT(StageName), MAX(Amount), AVG(Amount) FROM Opportunity WHERE Amount != null")
            .unwrap();
    assert_eq!(one.len(), 1);
    assert!(one[0].get("expr1").unwrap().as_f64() >= one[0].get("expr2").unwrap().as_f64());
}

#[test]
fn order_limit_and_offset() {
    let world = world();
    let all = texts(&ask(&world, "SELECT Id FROM Lead ORDER BY LastName, Id").unwrap(), "Id");
    let some =
        texts(&ask(&world, "SELECT Id FROM Lead ORDER BY LastName ASC NULLS LAST, Id LIMIT 7 OFFSET 5").unwrap(), "Id");
    assert_eq!(some, all[5..12]);
    let wide = ask(&world, "SELECT FIELDS(STANDARD) FROM Lead LIMIT 1").unwrap();
    assert!(wide[0].get("Company").is_some());
}

#[test]
fn mistakes_have_their_codes() {
    let world = world();
    for (text, code) in [
        ("SELECT", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Name = 'x", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Name = 'x\\q'", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE Name='a' AND Name='b' OR Name='c'", "MALFORMED_QUERY"),
        ("SELECT Id, Id FROM Account", "INVALID_FIELD"),
        ("SELECT Nope FROM Account", "INVALID_FIELD"),
        ("SELECT Nope.Name FROM Account", "INVALID_FIELD"),
        ("SELECT Id FROM Accout", "INVALID_TYPE"),
        ("SELECT Id, (SELECT Id FROM Nope) FROM Account", "INVALID_TYPE"),
        ("SELECT Id FROM Account WHERE Name = 5", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE Description = 'x'", "INVALID_FIELD"),
        ("SELECT Id FROM Account WHERE Id = 'x'", "INVALID_QUERY_FILTER_OPERATOR"),
        ("SELECT Id FROM Account OFFSET 2001", "NUMBER_OUTSIDE_VALID_RANGE"),
        ("SELECT Name, COUNT(Id) FROM Account", "MALFORMED_QUERY"),
        ("SELECT FIELDS(ALL) FROM Account", "MALFORMED_QUERY"),
        ("SELECT Id FROM Account WHERE CreatedDate = SOMEDAY", "MALFORMED_QUERY"),
    ] {
        assert_eq!(ask(&world, text).unwrap_err(), code, "{text}");
    }
    let deep = format!("SELECT Id FROM Account WHERE {}Name = 'x'{}", "(".repeat(200), ")".repeat(200));
    assert_eq!(ask(&world, &deep).unwrap_err(), "QUERY_TOO_COMPLICATED");
}

static WORLD: std::sync::LazyLock<World> = std::sync::LazyLock::new(world);

proptest::proptest! {
    /// Nothing a caller sends as a statement can make the parser panic.
    #[test]
    fn any_text_is_parsed_or_refused(text in "(SELECT|FROM|WHERE|Id|Name|Account|\\(|\\)|,|'|=|<|NOT|IN|LIKE|AND|[0-9a-z\\\\ é:.-]){0,40}") {
        let _result = ask(&WORLD, &text);
    }
}
