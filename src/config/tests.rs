//! Tests of the configuration as a whole: a text goes in, a configuration or its problems come out.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::call::{CallerId, Class, Family, Operation, OrgId};

mod breakers;
mod identities;
mod paces;
mod shared;
mod slots;

/// Variables and files that exist in a test only.
#[derive(Default)]
struct Fixed {
    variables: HashMap<&'static str, &'static str>,
    files: HashMap<PathBuf, Vec<u8>>,
}

impl Fixed {
    fn with_files(files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec())).collect();
        Self { files, ..Self::default() }
    }
}

impl Outside for Fixed {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|&value| value.to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

const ORG: &str = "orgs: [{name: prod, instance_url: 'https://acme.my.salesforce.com'}]\n";

fn checked(text: &str, outside: &Fixed) -> Result<Config, Problems> {
    check_text(text, Path::new("/etc/wk/weirkeeper.yaml"), outside)
}

fn good(text: &str) -> Config {
    checked(text, &Fixed::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

/// The problems as `line:column: path: reason; hint`.
fn bad_with(text: &str, outside: &Fixed) -> Vec<String> {
    checked(text, outside).unwrap_err().all().iter().map(ToString::to_string).collect()
}

fn bad(text: &str) -> Vec<String> {
    bad_with(text, &Fixed::default())
}

/// Asserts that a text has exactly one problem, which contains `what`.
fn one(text: &str, what: &str) {
    let problems = bad(text);
    assert!(problems.len() == 1 && problems[0].contains(what), "{problems:#?} is not {what:?}");
}

#[test]
fn all_mistakes_are_reported_at_once_in_the_order_of_the_text() {
    let text = "\
listeners:
  - adress: 0.0.0.0:8080
  - {address: 0.0.0.0}
limits:
  head_time: 10
  body_bytes: 1MB
  body_bytes: 2MiB
orgs:
  - name: Prod
    instance_url: http://acme.my.salesforce.com
    hosts: ['https://salesforce.acme.internal']
callers:
  - 7
  - name: storefront
    match: {key_sha256: abc}
    class: intractive
    allow: {families: [rest, qurey], operations: []}
  - match: any
  - {name: storefront, match: any}
  - {name: portal, match: {hosts: x}}
webhooks: {places: 10}
";
    let problems = checked(text, &Fixed::default()).unwrap_err();
    let shown = problems.to_string();
    let expected = r#"
2:5: listeners[0].address: this key is missing; write it like 0.0.0.0:8080
2:5: listeners[0].adress: unknown key "adress"; did you mean "address"?
3:15: listeners[1].address: "0.0.0.0" is not an IP address with a port; write it like 0.0.0.0:8080 or [::]:8080; host names are not looked up here
5:14: limits.head_time: not a duration; write whole numbers with d, h, m, s or ms, from large to small, such as 10s or 1h30m
6:15: limits.body_bytes: not a size; write a whole number with B, KiB, MiB or GiB, such as 16KiB
7:3: limits.body_bytes: this key already stands in line 6, column 3
9:11: orgs[0].name: "Prod" is not a name; use lower-case letters, digits, - and _, at most 63, beginning with a letter or digit
10:19: orgs[0].instance_url: http://acme.my.salesforce.com is not https: tokens would travel in clear; http is for loopback only
11:13: orgs[0].hosts[0]: a host has no scheme and no path; write only the host, such as salesforce.acme.internal
13:5: callers[0]: expected a map of keys, found a single value
15:25: callers[1].match.key_sha256: not 64 hexadecimal digits; `weirkeeper key` prints a key and its key_sha256
16:12: callers[1].class: unknown class "intractive"; did you mean "interactive"?
17:30: callers[1].allow.families[1]: unknown family "qurey"; did you mean "query"?
17:50: callers[1].allow.operations: an empty list allows nothing at all; leave the key out to allow everything
18:5: callers[2].name: this key is missing; give it a short name for metrics and logs
19:12: callers[3].name: the name "storefront" is taken by callers[1]
19:31: callers[3].match: callers[2].match matches the same requests; the later of the two would never be seen
20:28: callers[4].match.hosts: unknown match "hosts"; did you mean "host"?
21:1: webhooks: unknown key "webhooks"; known: listeners, trusted_proxies, admin, limits, upstream, orgs, callers, rate_limit_headers, policy, classes, cache, ladder, queue, retry, breaker, state, log, metrics, traces, runtimes, principal_key, gateway_tokens
"#
    .trim();
    for (line, wanted) in shown.lines().zip(expected.lines()) {
        let line = line.strip_prefix("/etc/wk/weirkeeper.yaml:").unwrap();
        assert_eq!(line, wanted);
    }
    assert_eq!(shown.lines().count(), expected.lines().count(), "{shown}");
}

#[test]
fn the_least_file_has_the_defaults_of_serve_org() {
    let file = good(ORG);
    let (listen, admin) = ("127.0.0.1:8080".parse().unwrap(), "127.0.0.1:9090".parse().unwrap());
    let flag = Config::for_org("https://acme.my.salesforce.com", listen, admin).unwrap();
    let mut written = file.redacted();
    written["orgs"][0]["name"] = "default".into();
    assert_eq!(written, flag.redacted());
    assert_eq!(flag.org_named("default"), Some(OrgId(0)));
    assert_eq!(flag.caller_named("anyone"), Some(CallerId(0)));
    let anyone = flag.caller(CallerId(0)).unwrap();
    assert_eq!((anyone.class, &anyone.matches, anyone.allow.is_everything()), (Class::Standard, &Match::Any, true));
    assert_eq!(flag.listeners, [Listener { address: "127.0.0.1:8080".parse().unwrap(), tls: None }]);
    assert_eq!(flag.admin.address, "127.0.0.1:9090".parse().unwrap());
    assert_eq!((flag.limits.head_bytes, flag.limits.idle), (16_384, Duration::from_mins(2)));
    assert!(flag.runtimes >= 1 && flag.path.is_none() && flag.referenced_files().is_empty());
}

#[test]
fn an_org_that_is_no_url_is_named_as_the_flag() {
    let (listen, admin) = ("127.0.0.1:8080".parse().unwrap(), "127.0.0.1:9090".parse().unwrap());
    let shown = Config::for_org("acme", listen, admin).unwrap_err().to_string();
    assert_eq!(shown, "--org:1:1: not an absolute URL; write it like https://acme.my.salesforce.com");
    let far = "0.0.0.0:9090".parse().unwrap();
    let shown = Config::for_org("https://acme.my.salesforce.com", listen, far).unwrap_err().to_string();
    assert!(shown.contains("nobody would be asked for a key"), "{shown}");
}

#[test]
fn the_annotated_example_is_a_configuration_and_says_the_defaults() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/weirkeeper.yaml");
    let example = load(&path).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(example.callers.len(), 4);
    assert_eq!(example.orgs[0].public.as_ref().unwrap().to_string(), "https://salesforce.acme.internal");
    let (mut shown, mut least) = (example.redacted(), good(ORG).redacted());
    for sections in [&mut shown, &mut least] {
        let sections = sections.as_object_mut().unwrap();
        sections.remove("orgs");
        sections.remove("callers");
    }
    assert_eq!(shown, least);
}

#[test]
fn the_examples_commented_lines_are_configuration_too() {
    let text = "\
listeners: [{address: 0.0.0.0:8443, tls: {certificate: tls.crt, key: tls.key, client_ca: /ca.crt}}]
admin: {address: 0.0.0.0:9090, key_sha256: ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad}
upstream:
  proxy: http://egress:3128
  proxy_credentials: {env: EGRESS}
  ca: tls.crt
  client_certificate: {certificate: tls.crt, key: tls.key}
  total: {rest: 60s, cometd: 120s}
orgs: [{name: prod, instance_url: 'https://ACME.my.salesforce.com:443/', hosts: [Salesforce.acme.internal]}]
callers:
  - {name: billing, match: {certificate: {common_name: billing}}}
  - {name: portal, match: {host: salesforce.ACME.internal}}
  - name: mobile
    match: {jwt: {issuer: i, audience: a, jwks: {file: keys.json}}}
  - {name: jobs, match: {jwt: {issuer: i, audience: a, subject: s, jwks: {url: 'https://login.acme.internal/keys'}}}}
principal_key: {file: secret}
";
    let outside = Fixed {
        variables: HashMap::from([("EGRESS", "user:canary")]),
        ..Fixed::with_files(&[
            ("/etc/wk/tls.crt", CERTIFICATE),
            ("/etc/wk/tls.key", KEY),
            ("/ca.crt", CERTIFICATE),
            ("/etc/wk/keys.json", r#"{"keys": []}"#),
            ("/etc/wk/secret", "canary-of-16-and-more\r\n"),
        ])
    };
    let config = checked(text, &outside).unwrap_or_else(|problems| panic!("{problems}"));
    let tls = config.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificate, Path::new("/etc/wk/tls.crt"));
    assert_eq!(tls.client_ca.as_deref(), Some(Path::new("/ca.crt")));
    assert_eq!(config.upstream.total.get(Family::Rest), Some(Duration::from_mins(1)));
    assert_eq!(config.upstream.total.get(Family::Query), None);
    let proxy = config.upstream.proxy.as_ref().unwrap();
    assert_eq!((proxy.host.as_str(), proxy.port), ("egress", 3128));
    assert_eq!(proxy.credentials.as_ref().unwrap().expose(), "user:canary");
    assert_eq!(config.principal_key.as_ref().unwrap().expose(), "canary-of-16-and-more");
    assert_eq!(config.orgs[0].instance.authority(), "acme.my.salesforce.com");
    assert_eq!(config.orgs[0].hosts, ["salesforce.acme.internal"]);
    assert_eq!(config.callers[1].matches, Match::Host("salesforce.acme.internal".into()));
    let files: Vec<_> = config.referenced_files().iter().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(files, ["/ca.crt", "/etc/wk/keys.json", "/etc/wk/secret", "/etc/wk/tls.crt", "/etc/wk/tls.key"]);
    let shown = format!("{config:?} {}", config.redacted());
    assert!(!shown.contains("canary"), "{shown}");
    assert_eq!(config.redacted()["admin"]["key_sha256"], "ba7816bf...");
}

#[test]
fn a_secret_in_place_is_refused_and_not_repeated() {
    let text = format!(
        "{ORG}upstream: {{proxy: 'http://u:canary@egress:3128', proxy_credentials: 'u:canary'}}\nprincipal_key: canary\nadmin: {{key_sha256: wk_canary}}\ncallers: [{{name: a, match: wk_canary_canary_canary_canary_canary}}]\n"
    );
    let problems = bad(&text).join("\n");
    for wanted in [
        "upstream.proxy: a URL in a configuration holds no user name or password",
        "upstream.proxy_credentials: a secret is never written into the configuration; say where it is",
        "principal_key: a secret is never written into the configuration",
        "admin.key_sha256: this is a key itself",
        "callers[0].match: unknown match; known",
    ] {
        assert!(problems.contains(wanted), "{problems}\n{wanted}");
    }
    assert!(!problems.contains("canary"), "{problems}");
}

#[test]
fn a_secret_that_cannot_be_had_is_named_by_its_reference() {
    let with = |line: &str| format!("{ORG}principal_key: {line}\n");
    one(&with("{env: NOT_SET}"), "principal_key: environment variable NOT_SET is not set");
    one(&with("{file: gone}"), "principal_key: cannot read /etc/wk/gone: entity not found");
    one(&with("{enw: X}"), "principal_key: a secret is named by exactly one of env and file");
    one(&with("{env: X, file: y}"), "principal_key: a secret is named by exactly one of env and file");
    let outside = Fixed::with_files(&[("/etc/wk/short", "canary\n"), ("/etc/wk/empty", "\n")]);
    let short = bad_with(&with("{file: short}"), &outside).join("\n");
    assert!(short.contains("shorter than 16") && !short.contains("canary"), "{short}");
    assert!(bad_with(&with("{file: empty}"), &outside)[0].contains("file empty is empty"));
}

#[test]
fn tls_files_must_be_there_and_hold_what_they_should() {
    let text =
        format!("{ORG}listeners: [{{address: 127.0.0.1:1, tls: {{certificate: c, key: k, client_ca: gone}}}}]\n");
    let problems = bad_with(&text, &Fixed::with_files(&[("/etc/wk/c", KEY), ("/etc/wk/k", CERTIFICATE)]));
    assert_eq!(problems.len(), 3, "{problems:#?}");
    assert!(problems[0].contains("listeners[0].tls.certificate: /etc/wk/c holds no PEM certificate"));
    assert!(problems[1].contains("listeners[0].tls.key: /etc/wk/k holds no PEM private key"));
    assert!(problems[2].contains("listeners[0].tls.client_ca: cannot read /etc/wk/gone"));
    let rejected = checked(&text, &Fixed::default()).unwrap_err();
    assert_eq!(rejected.referenced.len(), 3);
    let text = format!("{ORG}listeners: [{{address: 127.0.0.1:1, tls: {{client_ca_required: true}}}}]\n");
    let problems = bad(&text);
    assert_eq!(problems.len(), 3, "{problems:#?}");
}

#[test]
fn listeners_do_not_take_each_others_address() {
    let with = |listeners: &str| format!("{ORG}listeners: [{listeners}]\n");
    one(&with("{address: 0.0.0.0:81}, {address: 127.0.0.1:81}"), "listeners[1].address: 127.0.0.1:81 is taken by");
    one(&with("{address: 127.0.0.1:9090}"), "admin.address: 127.0.0.1:9090 is taken by");
    one(&with(""), "listeners: nobody can connect");
    good(&with("{address: 127.0.0.1:0}, {address: 127.0.0.1:0}, {address: '[::1]:81'}, {address: 127.0.0.1:81}"));
}

#[test]
fn the_admin_listener_is_not_open_to_the_world() {
    one(&format!("{ORG}admin: {{address: 0.0.0.0:9090}}\n"), "admin.key_sha256: 0.0.0.0:9090 can be reached");
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let with = |limits: &str| format!("{ORG}limits: {{{limits}}}\n");
    one(&with("stream_above: 200MiB"), "limits.stream_above: longer than body_bytes");
    one(&with("buffered_bytes_total: 2MiB, stream_above: 2MiB, body_bytes: 2MiB"), "never fits");
    one(&with("head_bytes: 4KiB"), "limits.head_bytes: 4KiB is out of range; 8KiB to 1MiB");
    one(&with("head_time: 0s"), "limits.head_time: this must be longer than nothing");
    one(&with("connections: 0"), "limits.connections: 0 is out of range; 1 to 1000000");
    one(&with("connections: -1"), "limits.connections: expected a whole number");
    one(&with("connections: '5'"), "limits.connections: expected a whole number, found a text in quotes");
    one(&with("connections: 1e3"), "limits.connections: expected a whole number");
    assert_eq!(good(&format!("{ORG}limits:\n")).limits.connections, 20_000);
}

#[test]
fn upstream_mistakes_are_named() {
    let with = |upstream: &str| format!("{ORG}upstream: {{{upstream}}}\n");
    one(&with("proxy: 'https://egress:3128'"), "only http proxies");
    one(&with("proxy: 'http://egress'"), "the proxy's port is missing");
    one(&with("total: {cometd: 60s}"), "upstream.total.cometd: 1m would cut long polls off");
    one(&with("total: {rst: 60s}"), r#"upstream.total.rst: unknown family "rst"; did you mean "rest"?"#);
    one(&with("roots: bundeld"), r#"unknown roots "bundeld"; did you mean "bundled"?"#);
    one(&with("http2: yes"), "upstream.http2: expected true or false");
    one(&with("read_ahead: 512MiB"), "upstream.read_ahead: more than limits.buffered_bytes_total");
    let outside = Fixed { variables: HashMap::from([("E", "canary")]), ..Fixed::default() };
    let problems = bad_with(&with("proxy_credentials: {env: E}"), &outside);
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(!problems.join("").contains("canary"));
}

#[test]
fn orgs_are_told_apart() {
    one("orgs: []\n", "orgs: no org to stand in front of");
    one("", "orgs: no org to stand in front of");
    let two = |second: &str| {
        format!(
            "orgs:\n  - {{name: a, instance_url: 'https://a.my.salesforce.com', hosts: [a.internal]}}\n  - {second}\n"
        )
    };
    one(&two("{name: b, instance_url: 'https://b.my.salesforce.com'}"), "orgs[1].hosts: with several orgs");
    one(
        &two("{name: b, instance_url: 'https://b.my.salesforce.com', hosts: [A.internal]}"),
        "leads elsewhere already, by orgs[0].hosts[0]",
    );
    one(
        &two("{name: a, instance_url: 'https://b.my.salesforce.com', hosts: [b]}"),
        r#"the name "a" is taken by orgs[0]"#,
    );
    one(&two("{name: b, instance_url: 'https://A.my.salesforce.com/', hosts: [b]}"), "is orgs[0].instance_url already");
    one(&two("{name: b, instance_url: 'https://b.my.salesforce.com', hosts: [b:443]}"), "has a port");
    one(&two("{name: b, instance_url: 'https://b.my.salesforce.com/services', hosts: [b]}"), "no path");
    one(
        &two("{name: b, instance_url: 'https://b.my.salesforce.com', hosts: [b], public_url: 'http://b'}"),
        "orgs[1].public_url: http://b is not https",
    );
    one(
        &two("{name: other, instance_url: 'http://127.0.0.1:8081', hosts: [b], public_url: 'http://localhost:1'}"),
        "other",
    );
    // What could not be read is not also reported as missing.
    one(&two("{name: b, instance_url: 'https://b.my.salesforce.com', hosts: ['-']}"), "\"-\" is not a host name");
}

#[test]
fn callers_are_told_apart() {
    let with = |callers: &str| format!("{ORG}callers: [{callers}]\n");
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let other = "ca7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    one(
        &with(&format!(
            "{{name: a, match: {{key_sha256: [{other}, {hash}]}}}}, {{name: b, match: {{key_sha256: {hash}}}}}"
        )),
        "callers[1].match: callers[0].match matches the same requests",
    );
    one(&with("{name: a, match: {network: 10.0.0.1/8}}"), "did you mean 10.0.0.0/8?");
    one(&with("{name: a, match: {certificate: {common_name: x}}}"), "no listener asks clients for a certificate");
    one(&with("{name: a, match: {any: true}}"), r#""any" takes no value; write only any"#);
    one(&with("{name: a, match: host}"), r#""host" needs a value; write {host: ...}"#);
    one(&with("{name: a, match: {host: a, network: 10.0.0.0/8}}"), "exactly one key belongs here");
    one(&with("{name: a, match: {}}"), "exactly one key belongs here");
    one(&with("{name: a, match: {jwt: {issuer: i, audience: a, jwks: {url: 'http://x/keys'}}}}"), "without TLS");
    one(&with("{name: a, match: any, allow: {objects: ['Account*']}}"), "is not an object's API name");
    one(&with("{name: a, match: any, dayly: {floor: 1}}"), r#"did you mean "daily"?"#);
    let problems = bad(&with("{name: a, match: {jwt: {}}}"));
    assert_eq!(problems.len(), 3, "{problems:#?}");
    let hosts = "orgs: [{name: a, instance_url: 'https://a.b', hosts: [salesforce.acme.internal]}]\n";
    one(
        &format!("{hosts}callers: [{{name: a, match: {{host: salesforce.acme.intern}}}}]\n"),
        r#"salesforce.acme.intern leads to no org; did you mean "salesforce.acme.internal"?"#,
    );

    // An org with a mistake still has its hosts.
    let bad_org = "orgs: [{name: A, instance_url: 'https://a.b', hosts: [h]}]\n";
    one(&format!("{bad_org}callers: [{{name: a, match: {{host: h}}}}]\n"), "\"A\" is not a name");
    let bad_host = "orgs: [{name: a, instance_url: 'https://a.b', hosts: [h, '-']}]\n";
    one(&format!("{bad_host}callers: [{{name: a, match: {{host: i}}}}]\n"), "\"-\" is not a host name");

    let config = good(&with(
        "{name: a, match: any, class: batch, deadline: 1m30s, allow: {families: [rest], operations: [read]}}",
    ));
    let caller = &config.callers[0];
    assert_eq!((caller.class, caller.deadline), (Class::Batch, Some(Duration::from_secs(90))));
    assert_eq!(caller.allow.families.as_deref(), Some([Family::Rest].as_slice()));
    assert_eq!(caller.allow.operations.as_deref(), Some([Operation::Read].as_slice()));
}

#[test]
fn a_file_of_nothing_but_mistakes_has_an_end() {
    let problems = bad(&format!("{ORG}callers: [{}]\n", "{class: x}, ".repeat(300)));
    assert_eq!(problems.len(), 201);
    assert!(problems[0].contains("more than 200 mistakes"), "{}", problems[0]);
}

#[test]
fn off_survives_yaml_1_1() {
    for off in ["off", "false", "'off'"] {
        let config = good(&format!("{ORG}policy: {{mode: {off}}}\nlog: {{access: {off}}}\n"));
        assert_eq!((config.policy, config.log.access), (PolicyMode::Off, AccessTo::Off));
    }
    one(
        &format!("{ORG}policy: {{mode: no}}\n"),
        r#"policy.mode: unknown policy mode "no"; known: off, observe, enforce"#,
    );
}

#[test]
fn what_is_no_yaml_or_no_map_is_one_problem() {
    one("orgs: [\n", "1:7: unclosed bracket");
    one("- a\n", "1:1: expected a map of keys, found a list");
    one(&format!("{ORG}\u{0}"), "");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("weirkeeper.yaml");
    assert!(load(&path).unwrap_err().to_string().contains("cannot read the file"));
    assert!(load(directory.path()).unwrap_err().to_string().contains("not a regular file"));
    std::fs::write(&path, b"a: 1\nb: \xc3\xa9\xff\n").unwrap();
    assert!(load(&path).unwrap_err().to_string().ends_with("weirkeeper.yaml:2:5: the text is not UTF-8 here"));
}

#[test]
fn budgets_bind_once_somebody_has_asked_for_them() {
    let folder = State::Folder { path: PathBuf::from("/etc/wk/data"), on_loss: OnLoss::Refuse };
    let org = |daily: &str| {
        format!("orgs: [{{name: prod, instance_url: 'https://acme.my.salesforce.com', daily: {{{daily}}}}}]\n")
    };
    let callers = |share: &str| format!("{ORG}callers: [{{name: etl, match: any, daily: {{{share}}}}}]\n");
    for (text, mode, limit) in [
        (ORG.to_owned(), DailyMode::Observe, None),
        (org("keep_free: 2.5%"), DailyMode::Observe, None),
        (org("limit: from_salesforce"), DailyMode::Enforce, None),
        (org("limit: 50000"), DailyMode::Enforce, Some(50_000)),
        (org("limit: 50000, mode: observe"), DailyMode::Observe, Some(50_000)),
        (org("mode: off"), DailyMode::Off, None),
        (callers("floor: 1"), DailyMode::Enforce, None),
        (callers("ceiling: 0"), DailyMode::Enforce, None),
        (callers("weight: 2"), DailyMode::Observe, None),
    ] {
        let config = good(&text);
        assert_eq!((config.orgs[0].daily.mode, config.orgs[0].daily.limit), (mode, limit), "{text}");
        assert_eq!(config.state, if mode == DailyMode::Enforce { folder.clone() } else { State::Memory }, "{text}");
    }
    let config = good(&format!("{ORG}state: {{path: /var/lib/wk, on_loss: continue}}"));
    assert_eq!(config.state, State::Folder { path: PathBuf::from("/var/lib/wk"), on_loss: OnLoss::Continue });
    assert_eq!(good(&format!("{}state: memory", org("limit: 5"))).state, State::Memory);
    let config = good(&callers("floor: 3, ceiling: 8, weight: 2"));
    assert_eq!(config.callers[0].daily, Share { floor: 3, ceiling: Some(8), weight: 2 });
}

#[test]
fn a_budget_that_cannot_be_kept_is_a_problem() {
    let org = |daily: &str| {
        format!("orgs: [{{name: prod, instance_url: 'https://acme.my.salesforce.com', daily: {{{daily}}}}}]\n")
    };
    one(&org("limit: some"), "daily.limit: expected from_salesforce or a number of calls");
    one(&org("limit: 0"), "daily.limit: expected from_salesforce or a number of calls");
    one(&org("limit: -1"), "daily.limit: expected from_salesforce or a number of calls");
    one(&org("keep_free: 100%"), "daily.keep_free: all of the limit is kept free");
    one(&org("keep_free: 5"), "daily.keep_free: not a share of a whole");
    one(&org("first_reading_within: 0s"), "daily.first_reading_within: this must be longer than nothing");
    one(&org("limt: 5"), "did you mean \"limit\"?");
    let floors =
        "callers: [{name: a, match: any, daily: {floor: 900}}, {name: b, match: {host: x}, daily: {floor: 60}}]";
    one(
        &format!("{}{floors}", org("limit: 1000")),
        "orgs[0].daily: the floors of all callers add up to 960 calls, and prod has 950 to give",
    );
    one(&format!("{}{floors}", org("assume: 1000")), "add up to 960 calls");
    good(&format!("{}{floors}", org("limit: 1000, keep_free: 4%")));
    good(&format!("{}{floors}", org("limit: from_salesforce")));
    one(
        &format!("{ORG}callers: [{{name: a, match: any, daily: {{floor: 9, ceiling: 8}}}}]"),
        "the ceiling of 8 is below the floor of 9",
    );
    one(&format!("{ORG}ladder: {{stop_batch: 75%}}"), "ladder.stop_batch: 75% is below pace_batch, 80%");
    one(&format!("{ORG}ladder: {{back_below: 71%}}"), "ladder.back_below: the first step would never be left again");
    one(&format!("{ORG}state: disk"), "state: expected memory, {path: ...} or {redis: ...}");
    one(&format!("{ORG}state: {{on_loss: refuse}}"), "state.path: this key is missing");
    one(&format!("{ORG}state: {{path: x, on_los: refuse}}"), "did you mean \"on_loss\"?");
}

#[test]
fn ten_thousand_callers_are_read() {
    use std::fmt::Write as _;
    let mut text = format!("{ORG}callers:\n");
    for n in 0..10_000 {
        let _ = writeln!(text, "  - {{name: c{n}, match: {{call_options_client: c{n}}}}}");
    }
    assert_eq!(good(&text).callers.len(), 10_000);
    text.push_str("  - {name: x, match: any}\n");
    one(&text, "more than 10000 callers");
}

#[test]
fn the_shipped_schema_is_the_generated_one() {
    let shipped = include_str!("../../config/weirkeeper.schema.json");
    let shipped: serde_json::Value = serde_json::from_str(shipped).unwrap();
    assert!(shipped == schema(), "run `weirkeeper schema > config/weirkeeper.schema.json`");
}

#[test]
fn the_schema_explains_every_key_and_is_draft_7() {
    let schema = schema();
    assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
    let sections = schema["definitions"].as_object().unwrap().values().chain(std::iter::once(&schema));
    let mut keys = 0;
    for section in sections {
        let Some(properties) = section["properties"].as_object() else { continue };
        assert_eq!(section["additionalProperties"], false, "{section}");
        for (key, property) in properties {
            assert!(property["description"].is_string() || property["allOf"].is_array(), "{key}: {property}");
            keys += 1;
        }
    }
    assert!(keys > 60, "{keys}");
    let required = |section: &str| schema["definitions"][section]["required"].clone();
    assert_eq!(schema["required"], serde_json::json!(["orgs"]));
    assert_eq!(required("OrgFile"), serde_json::json!(["instance_url", "name"]));
    assert_eq!(required("CallerFile"), serde_json::json!(["match", "name"]));
    assert_eq!(required("ListenerFile"), serde_json::json!(["address"]));
    assert_eq!(required("LimitsFile"), serde_json::Value::Null);
}

proptest! {
    #[test]
    fn no_text_makes_the_check_panic(text in "\\PC{0,200}") {
        let _ = checked(&text, &Fixed::default());
    }

    /// Cuts a good file into lines, drops, doubles, moves and damages some.
    #[test]
    fn no_damaged_file_makes_the_check_panic(picks in proptest::collection::vec((0_usize..200, 0_usize..60, "[ \\-:{}\\[\\]a-z0-9*&!'\"#|>?%@`,~]{0,3}"), 1..40)) {
        let lines: Vec<&str> = include_str!("../../config/weirkeeper.yaml").lines().collect();
        let mut text = String::new();
        for (line, at, insert) in picks {
            let line = lines[line % lines.len()];
            let at = (0..=at.min(line.len())).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
            text.push_str(&line[..at]);
            text.push_str(&insert);
            text.push_str(&line[at..]);
            text.push('\n');
        }
        if let Err(problems) = checked(&text, &Fixed::default()) {
            prop_assert!(!problems.all().is_empty());
            let lines = text.lines().count();
            prop_assert!(problems.all().iter().all(|problem| problem.place.line <= lines + 1));
        }
    }
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n";

#[test]
fn descriptions_are_kept_by_default_and_rows_only_where_objects_are_named() {
    let cache = good(ORG).cache.unwrap();
    assert_eq!((cache.entries.len(), cache.bytes, cache.largest), (1, 256 << 20, 1 << 20));
    assert_eq!(cache.entries[0].operations, [Operation::Describe]);
    assert_eq!((cache.entries[0].fresh, cache.session_recheck), (Duration::from_hours(1), Duration::from_mins(5)));
    assert!(good(&format!("{ORG}cache: {{mode: off}}\n")).cache.is_none());
    let entries = |entries: &str| format!("{ORG}cache: {{entries: [{entries}]}}\n");
    let named =
        "{match: {orgs: [prod], objects: [Account], operations: [read, query], families: [rest, query]}, fresh: 60s}";
    let cache = good(&entries(named)).cache.unwrap();
    assert_eq!(cache.entries[0].orgs.as_deref(), Some(&[OrgId(0)][..]));
    for (entry, what) in [
        ("{match: {operations: [read]}, fresh: 60s}", "match.objects: this key is missing"),
        ("{match: {operations: [describe]}}", "fresh: this key is missing"),
        ("{match: {objects: [Account]}, fresh: 60s}", "match.operations: this key is missing"),
        ("{match: {operations: [describe]}, fresh: 0s}", "longer than nothing"),
        ("{match: {operations: [search]}, fresh: 60s}", "answers of search are never kept"),
        ("{match: {families: [apex], operations: [describe]}, fresh: 60s}", "answers of apex are never kept"),
        ("{match: {objects: [RecentlyViewed], operations: [query]}, fresh: 60s}", "nobody can follow"),
        ("{match: {objects: [Account__x], operations: [query]}, fresh: 60s}", "nobody can follow"),
        ("{match: {operations: [limits]}, fresh: 10m}", "at most 5m"),
        ("{match: {orgs: [prd], operations: [describe]}, fresh: 60s}", "did you mean \"prod\""),
        ("{match: {callers: [nobody], operations: [describe]}, fresh: 60s}", "unknown caller"),
    ] {
        one(&entries(entry), what);
    }
    let callers = "callers: [{name: a, match: {network: 10.1.0.0/16}}, {name: b, match: {network: 10.2.0.0/16}}, {name: c, match: any}, {name: d, match: {call_options_client: d}}]\n";
    let groups = |groups: &str| format!("{ORG}{callers}cache: {{same_rights: {groups}}}\n");
    assert_eq!(good(&groups("[[a, b]]")).cache.unwrap().same_rights, [[CallerId(0), CallerId(1)]]);
    for (written, what) in [
        ("[[a]]", "fewer than two"),
        ("[[a, a]]", "once"),
        ("[[a, b], [b, a]]", "one group"),
        ("[[a, c]]", "anybody can be this caller"),
        ("[[a, d]]", "anybody can be this caller"),
        ("[[a, e]]", "unknown caller"),
    ] {
        let problems = checked(&groups(written), &Fixed::default()).unwrap_err();
        assert!(problems.to_string().contains(what), "{written}: {problems}");
    }
}
