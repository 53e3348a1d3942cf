//! Orgs whose identities the gateway does not hold: where their callers' log-ins go.

use crate::call::{Family, Meaning};
use crate::salesforce;

/// Whether a call belongs to the org's login host instead of the host of its API: log-ins by OAuth and SOAP, and what goes
/// with them. Client credentials are taken by the org's own host only (facts 5.1). `body` is the call's body, if it is
/// complete.
pub fn at_login_host(meaning: &Meaning, body: Option<&[u8]>) -> bool {
    match meaning.family {
        Family::Oauth => !body.is_some_and(asks_for_client_credentials),
        Family::Soap => salesforce::is_soap_login(meaning),
        _ => false,
    }
}

fn asks_for_client_credentials(form: &[u8]) -> bool {
    form.split(|byte| *byte == b'&').any(|field| field == b"grant_type=client_credentials")
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::salesforce::{Costs, read_body, understand};

    #[test]
    fn log_ins_go_to_the_login_host_and_calls_do_not() {
        let at = |path: &str, body: Option<&str>| {
            at_login_host(&understand(&Method::POST, path, &Costs::default()), body.map(str::as_bytes))
        };
        assert!(at("/services/oauth2/token", Some("grant_type=password&username=a")));
        assert!(at("/services/oauth2/userinfo", None));
        assert!(at("/id/00D000000000001/005000000000001", None));
        assert!(!at("/services/oauth2/token", Some("client_id=a&grant_type=client_credentials")));
        assert!(!at("/services/data/v62.0/composite", Some("grant_type=password")));
    }

    #[test]
    fn a_soap_log_in_goes_to_the_login_host_and_a_log_out_does_not() {
        let at = |operation: &str| {
            let body = format!("<Envelope><Body><{operation}/></Body></Envelope>");
            let mut meaning = understand(&Method::POST, "/services/Soap/u/62.0", &Costs::default());
            read_body(&mut meaning, body.as_bytes(), &Costs::default()).unwrap();
            at_login_host(&meaning, Some(body.as_bytes()))
        };
        assert!(at("login"));
        assert!(!at("logout") && !at("query"));
    }
}
