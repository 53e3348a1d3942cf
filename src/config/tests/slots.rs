//! Slots, the queue and class rules: defaults, and what cannot be meant.

use super::*;

fn org(long_running: &str) -> String {
    format!(
        "orgs: [{{name: prod, instance_url: 'https://acme.my.salesforce.com', long_running: {{{long_running}}}}}]\n"
    )
}

#[test]
fn slots_and_the_queue_have_defaults_that_fit_each_other() {
    let config = good(ORG);
    let (long, queue) = (config.orgs[0].long_running, config.queue);
    assert_eq!((long.mode, long.slots, long.batch_at_most, long.reserve), (SlotMode::Enforce, 25, 15, 5));
    assert_eq!(long.after, Duration::from_secs(20));
    assert_eq!((queue.places, queue.interactive, queue.batch), (1_000, Duration::from_secs(5), Duration::from_mins(1)));
    let small = good(&org("slots: 5")).orgs[0].long_running;
    assert_eq!((small.batch_at_most, small.reserve), (3, 1));
    let least = good(&org("slots: 2, mode: observe")).orgs[0].long_running;
    assert_eq!((least.mode, least.batch_at_most, least.reserve), (SlotMode::Observe, 1, 0));
    assert_eq!(good(&org("batch_at_most: 20, reserve: 2")).orgs[0].long_running.batch_at_most, 20);
    let apex = good(&org("apex: {slots: 20}")).orgs[0].long_running.apex.unwrap();
    assert_eq!((apex.slots, apex.after, apex.batch_at_most, apex.reserve), (20, Duration::from_secs(5), 12, 4));
    assert!(good(ORG).orgs[0].long_running.apex.is_none());
    let bounded = good(&format!("{ORG}callers: [{{name: a, match: any, in_flight: 7}}]"));
    assert_eq!((bounded.callers[0].in_flight, bounded.orgs[0].in_flight), (Some(7), None));
}

#[test]
fn slots_that_cannot_be_meant_are_problems() {
    one(&org("slots: 1"), "long_running.slots");
    one(&org("slots: 5, batch_at_most: 5"), "batch_at_most: batch could hold all of the 5 slots");
    one(&org("slots: 5, reserve: 5"), "reserve: nothing would be left of 5 slots");
    one(&org("apex: {slots: 5, batch_at_most: 5}"), "apex.batch_at_most: batch could hold all of the 5 slots");
    one(&org("after: 0s"), "long_running.after: this must be longer than nothing");
    one(&org("mode: on"), "unknown slot mode \"on\"");
    one(&format!("{ORG}queue: {{wait: {{batch: 0s}}}}"), "queue.wait.batch: this must be longer than nothing");
    one(&format!("{ORG}queue: {{places: 0}}"), "queue.places");
    one(&format!("{ORG}queue: {{plces: 5}}"), "did you mean \"places\"?");
}

#[test]
fn parts_may_differ_by_the_time_of_day() {
    let night = "hours: [{from: '22:00', to: '06:30', batch_at_most: 22, reserve: 2}, {from: '12:00', to: '13:00', batch_at_most: 18}]";
    let hours = good(&org(night)).orgs[0].long_running.hours;
    let expected = Hours { from: 22 * 60, to: 6 * 60 + 30, batch_at_most: 22, reserve: 2 };
    assert_eq!(hours[0], Some(expected));
    assert_eq!(hours[1].map(|hours| (hours.batch_at_most, hours.reserve)), Some((18, 5)));
    assert_eq!(hours[2..], [None, None]);
    one(&org("hours: [{from: '25:00', to: '06:00', batch_at_most: 9}]"), "hours[0].from: not a time of day");
    one(&org("hours: [{from: '06:00', to: '06:00', batch_at_most: 9}]"), "hours[0].to: this is when it begins");
    one(&org("hours: [{from: '06:00', to: '07:00'}]"), "hours[0].batch_at_most: this key is missing");
    one(&org("hours: [{to: '07:00', batch_at_most: 9}]"), "hours[0].from: this key is missing");
    one(&org("hours: [{from: '06:00', to: '07:00', batch_at_most: 25}]"), "hours[0].batch_at_most: batch could hold");
    let often = ["{from: '06:00', to: '07:00', batch_at_most: 9}"; 5].join(", ");
    one(&org(&format!("hours: [{often}]")), "long_running.hours: no more than 4 times of day");
}

#[test]
fn class_rules_are_read_and_checked() {
    let config = good(&format!(
        "{ORG}classes: [{{families: [bulk1, bulk2], class: batch}}, {{paths: [/services/apexrest/Nightly/], class: batch}}]"
    ));
    assert_eq!(config.classes[0].families, [Family::Bulk1, Family::Bulk2]);
    assert_eq!(
        (config.classes[1].paths[0].as_str(), config.classes[1].class),
        ("/services/apexrest/nightly", Class::Batch)
    );
    one(&format!("{ORG}classes: [{{class: batch}}]"), "classes[0]: this rule matches nothing");
    one(&format!("{ORG}classes: [{{families: [bulk2]}}]"), "classes[0].class: this key is missing");
    one(&format!("{ORG}classes: [{{paths: [apexrest], class: batch}}]"), "a path begins with a slash");
}
