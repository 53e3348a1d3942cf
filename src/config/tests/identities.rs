//! Identities, who may act as them, and the keys of gateway tokens.

use super::*;

const AUTH: &str = "\
orgs:
- name: prod
  instance_url: https://acme.my.salesforce.com
  login_url: https://test.salesforce.com
  hosts: [sf.acme.internal]
  auth:
    integration: {flow: client_credentials, client_id: app, client_secret: {env: SECRET}}
    etl: {flow: jwt_bearer, client_id: app, username: etl@acme.example, private_key: {file: etl.pem}, session: 12h}
    old: {flow: refresh_token, client_id: app, refresh_token: {env: SECRET}, token_url: 'https://login.acme.example/token?x=1'}
gateway_tokens: {keys: [{env: LONG}], lifetime: 8h}
callers:
- {name: shop, match: {key_sha256: 03f0d77d1556d45f5c3168abd65c18dea6f654814f97b4b5c82465081729362b}, act_as: integration}
";

fn outside() -> Fixed {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap().serialize_pem();
    let mut outside = Fixed::with_files(&[("/etc/wk/etl.pem", &key)]);
    outside.variables =
        [("SECRET", "CANARY"), ("LONG", "0123456789abcdef0123456789abcdef"), ("SHORT", "0123")].into_iter().collect();
    outside
}

#[test]
fn identities_say_how_they_log_in() {
    let config = checked(AUTH, &outside()).unwrap_or_else(|problems| panic!("{problems}"));
    let org = &config.orgs[0];
    let names: Vec<&str> = org.identities.iter().map(|identity| identity.name.as_str()).collect();
    assert_eq!(names, ["etl", "integration", "old"]);
    let [etl, integration, old] = &org.identities[..] else { panic!("three") };
    let Flow::JwtBearer { username, audience, .. } = &etl.flow else { panic!("{etl:?}") };
    assert_eq!((username.as_str(), audience.as_str()), ("etl@acme.example", "https://test.salesforce.com"));
    assert_eq!((etl.session, integration.session), (Duration::from_hours(12), Duration::from_hours(2)));
    assert_eq!(old.token_url.as_ref().unwrap().to_string(), "https://login.acme.example/token?x=1");
    assert_eq!(config.callers[0].act_as.as_deref(), Some("integration"));
    assert_eq!((config.gateway_tokens.keys.len(), config.gateway_tokens.lifetime), (1, Duration::from_hours(8)));
    assert!(org.logs_in_elsewhere());
    let shown = format!("{config:?} {}", config.redacted());
    assert!(!shown.contains("CANARY") && !shown.contains("0123456789abcdef0123456789abcdef"), "{shown}");
}

#[test]
fn a_simulator_on_this_machine_is_its_own_login_host() {
    let text = "orgs: [{name: prod, instance_url: 'http://127.0.0.1:8081'}]\n";
    assert!(!good(text).orgs[0].logs_in_elsewhere());
    assert!(good(ORG).orgs[0].logs_in_elsewhere());
}

#[test]
fn all_that_is_wrong_with_identities_is_told_with_its_place() {
    let text = "\
orgs:
- name: prod
  instance_url: https://acme.my.salesforce.com
  auth:
    a: {flow: client_credentials, username: x}
    b: {flow: jwt_bearer, client_id: app, private_key: {env: SECRET}}
    c: {flow: refresh, client_id: app}
    D: {flow: refresh_token, client_id: app, refresh_token: {env: SECRET}}
    e: {flow: refresh_token, client_id: app, refresh_token: secret-in-place, session: 2s}
gateway_tokens: {keys: [{env: SHORT}, {env: LONG}, {env: LONG}], lifetime: 365d}
callers:
- {name: shop, match: any, act_as: b}
";
    let problems = bad_with(text, &outside());
    let expected = [
        "orgs[0].hosts: apps that log in could not be told where to go on; give the org hosts or a public_url",
        "5:5: orgs[0].auth.a.client_id: this key is missing; write the connected app's consumer key",
        "5:5: orgs[0].auth.a.client_secret: this key is missing; say where it is: {env: NAME} or {file: PATH}",
        "5:45: orgs[0].auth.a.username: this flow does not use it; leave it out",
        "6:5: orgs[0].auth.b.username: this key is missing; write the user's name, such as integration@acme.example",
        "not an RSA private key in PEM",
        "orgs[0].auth.c.flow: unknown flow \"refresh\"; known: client_credentials, jwt_bearer, refresh_token",
        "orgs[0].auth.D: \"D\" is not a name",
        "orgs[0].auth.e.refresh_token: a secret is never written into the configuration",
        "orgs[0].auth.e.session: out of range; 10 s to 24 h",
        "gateway_tokens.keys[0]: shorter than 32 characters",
        "gateway_tokens.keys[2]: the same key stands here already",
        "gateway_tokens.lifetime: out of range; 10 s to 168 h",
        "callers[0].act_as: whoever can reach the gateway would act as this identity",
    ];
    for wanted in expected {
        assert!(problems.iter().any(|problem| problem.contains(wanted)), "{wanted}\nis not in\n{problems:#?}");
    }
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    assert!(!problems.concat().contains("secret-in-place"), "{problems:#?}");
}

#[test]
fn a_caller_acts_as_an_identity_that_some_org_has() {
    let problems = bad_with(&AUTH.replace("act_as: integration}", "act_as: integraton}"), &outside());
    assert!(
        problems.len() == 1 && problems[0].contains("unknown identity \"integraton\"; did you mean \"integration\"?"),
        "{problems:?}"
    );
    let text = format!("{ORG}callers: [{{name: shop, match: {{network: 10.0.0.0/8}}, act_as: integration}}]\n");
    one(&text, "unknown identity \"integration\"; no org has auth");
}

#[test]
fn who_asks_what_is_used_has_to_be_somebody() {
    let asks = |poll: &str| {
        let text = AUTH.replace("  auth:", &format!("  daily: {{poll: {poll}}}\n  auth:"));
        checked(&text, &outside())
    };
    let poll = |text: &str| asks(text).unwrap_or_else(|problems| panic!("{problems}")).orgs[0].daily.poll.unwrap();
    // In the order of their names.
    assert_eq!(poll("{identity: old}"), Poll { identity: 2, every: Duration::from_mins(5) });
    assert_eq!(poll("{identity: etl, every: 1h}"), Poll { identity: 0, every: Duration::from_hours(1) });
    for (text, reason) in [
        ("{}", "the org has several identities"),
        ("{identity: integratoin}", "integration"),
        ("{identity: etl, every: 10s}", "out of range"),
        ("{identity: etl, every: 2d}", "out of range"),
    ] {
        let problems = asks(text).unwrap_err().to_string();
        assert!(problems.contains(reason) && problems.contains("daily.poll"), "{text}: {problems}");
    }
    let nobody = "orgs: [{name: prod, instance_url: 'https://acme.my.salesforce.com', daily: {poll: {}}}]\n";
    let problems = checked(nobody, &outside()).unwrap_err().to_string();
    assert!(problems.contains("nobody to ask as"), "{problems}");
}
