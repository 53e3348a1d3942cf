//! `/services/oauth2/token`, `/introspect` and `/revoke`: what is asked, and the answers in OAuth's own form (facts 5.1,
//! 5.2, 5.5).

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use percent_encoding::percent_decode;
use smallvec::SmallVec;
use zeroize::Zeroizing;

/// Fields of a form that are read; a log-in has about five.
const MOST_FIELDS: usize = 32;

/// A posted form, wiped from memory.
#[derive(Default)]
pub struct Form(Vec<(Box<str>, Zeroizing<String>)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`; fields that are not UTF-8 are left out.
    pub fn parse(body: &[u8]) -> Self {
        let fields = body.split(|byte| *byte == b'&').filter(|field| !field.is_empty()).take(MOST_FIELDS);
        Self(
            fields
                .filter_map(|field| {
                    let at = memchr::memchr(b'=', field).unwrap_or(field.len());
                    let (name, value) = field.split_at(at);
                    let value = value.get(1..).unwrap_or_default();
                    Some((decoded(name)?.as_str().into(), decoded(value)?))
                })
                .collect(),
        )
    }

    /// The field called `name`, unless it is absent, empty, or there twice.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(known, _)| **known == *name);
        match (values.next(), values.next()) {
            (Some((_, value)), None) if !value.is_empty() => Some(value),
            _ => None,
        }
    }
}

fn decoded(text: &[u8]) -> Option<Zeroizing<String>> {
    let mut plain = Zeroizing::new(text.to_vec());
    for byte in plain.iter_mut().filter(|byte| **byte == b'+') {
        *byte = b' ';
    }
    let bytes: Vec<u8> = percent_decode(&plain).collect();
    match String::from_utf8(bytes) {
        Ok(text) => Some(Zeroizing::new(text)),
        Err(_) => None,
    }
}

/// What is to prove who logs in.
pub enum Proof {
    /// One of these is a gateway key, or all that are belong to one caller.
    Keys(SmallVec<[Zeroizing<String>; 2]>),
    /// A token of the company's identity provider.
    Assertion(Zeroizing<String>),
}

/// How a request at the token endpoint ends when it brings no token (facts 5.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthError {
    /// The user name, password or assertion proves nothing.
    InvalidGrant,
    /// The refresh token proves nothing.
    InvalidRefresh,
    /// The client secret is nobody's.
    InvalidClient,
    /// A grant the facade does not have.
    UnsupportedGrant,
    /// The caller is known, and acts as no identity of this org.
    NoAccess,
    /// Something is missing.
    InvalidRequest,
    /// A token that is none, or no longer.
    InvalidToken,
    /// What is given back is no gateway token.
    UnsupportedToken,
}

impl OAuthError {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::InvalidGrant => ("invalid_grant", "authentication failure"),
            Self::InvalidRefresh => ("invalid_grant", "expired access/refresh token"),
            Self::InvalidClient => ("invalid_client", "invalid client credentials"),
            Self::UnsupportedGrant => ("unsupported_grant_type", "grant type not supported"),
            Self::NoAccess => ("invalid_app_access", "user is not admin approved to access this app"),
            Self::InvalidRequest => ("invalid_request", "a parameter is missing"),
            Self::InvalidToken => ("invalid_token", "invalid or expired token"),
            Self::UnsupportedToken => ("unsupported_token_type", "this token type is not supported"),
        }
    }

    /// The answer.
    pub fn answer(self) -> Response<Bytes> {
        let (error, description) = self.words();
        let body = serde_json::json!({ "error": error, "error_description": description });
        json(StatusCode::BAD_REQUEST, &body)
    }
}

/// What a request at the token endpoint offers as proof.
pub fn proof(form: &Form, headers: &HeaderMap) -> Result<Proof, OAuthError> {
    let secret = || client_secret(form, headers);
    match form.get("grant_type") {
        Some("client_credentials") => {
            Ok(Proof::Keys([secret().ok_or(OAuthError::InvalidClient)?].into_iter().collect()))
        }
        Some("password") => {
            let password = form.get("password").map(|password| Zeroizing::new(password.to_owned()));
            let keys: SmallVec<[_; 2]> = password.into_iter().chain(secret()).collect();
            if keys.is_empty() { Err(OAuthError::InvalidGrant) } else { Ok(Proof::Keys(keys)) }
        }
        // Clients that know no other grant are given the key in the place of a refresh token.
        Some("refresh_token") => {
            let token = form.get("refresh_token").ok_or(OAuthError::InvalidRefresh)?;
            Ok(Proof::Keys([Zeroizing::new(token.to_owned())].into_iter().collect()))
        }
        Some("urn:ietf:params:oauth:grant-type:jwt-bearer") => {
            let assertion = form.get("assertion").ok_or(OAuthError::InvalidGrant)?;
            Ok(Proof::Assertion(Zeroizing::new(assertion.to_owned())))
        }
        Some(_) => Err(OAuthError::UnsupportedGrant),
        None => Err(OAuthError::InvalidRequest),
    }
}

/// The client's secret, from the form or from `Authorization: Basic`.
pub fn client_secret(form: &Form, headers: &HeaderMap) -> Option<Zeroizing<String>> {
    if let Some(secret) = form.get("client_secret") {
        return Some(Zeroizing::new(secret.to_owned()));
    }
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
    let at = memchr::memchr(b':', &pair)?;
    decoded(pair.get(at + 1..)?)
}

/// What a token answer says besides the token.
#[derive(Debug, Clone, Copy)]
pub struct Granted<'a> {
    /// Where the org is, for this caller: the gateway.
    pub public: &'a str,
    /// The org's record id.
    pub org_id: &'a str,
    /// The user's record id.
    pub user_id: &'a str,
    /// Wall time, in milliseconds since the Unix epoch.
    pub issued_at_ms: u128,
}

/// The answer to a log-in: as Salesforce's, without `expires_in`. `secret` signs it, as a client secret would.
pub fn token_answer(token: &str, secret: &[u8], granted: Granted<'_>) -> Response<Bytes> {
    let Granted { public, org_id, user_id, issued_at_ms } = granted;
    let id = format!("{public}/id/{org_id}/{user_id}");
    let issued_at = issued_at_ms.to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = STANDARD.encode(hmac::sign(&key, format!("{id}{issued_at}").as_bytes()));
    let body = serde_json::json!({
        "access_token": token,
        "signature": signature,
        "scope": "api",
        "instance_url": public,
        "id": id,
        "token_type": "Bearer",
        "issued_at": issued_at,
    });
    json(StatusCode::OK, &body)
}

/// What introspection says of a token that is none of ours.
pub fn inactive() -> Response<Bytes> {
    json(StatusCode::OK, &serde_json::json!({ "active": false }))
}

/// What introspection says of a token in force: whose it is, and (in seconds since the Unix epoch) until when.
pub fn active(caller: &str, expires: Option<u64>) -> Response<Bytes> {
    let mut body = serde_json::json!({
        "active": true, "scope": "api", "client_id": caller, "username": caller, "sub": caller, "token_type": "access_token",
    });
    if let (Some(expires), Some(members)) = (expires, body.as_object_mut()) {
        members.insert("exp".to_owned(), expires.into());
    }
    json(StatusCode::OK, &body)
}

/// What giving a token back answers.
pub fn revoked() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json;charset=UTF-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(form: &str, headers: &HeaderMap) -> Result<Vec<String>, OAuthError> {
        match proof(&Form::parse(form.as_bytes()), headers)? {
            Proof::Keys(keys) => Ok(keys.iter().map(|key| key.to_string()).collect()),
            Proof::Assertion(assertion) => Ok(vec![format!("assertion {}", *assertion)]),
        }
    }

    #[test]
    fn each_grant_offers_its_proof() {
        let none = HeaderMap::new();
        assert_eq!(keys("grant_type=client_credentials&client_id=a&client_secret=wk_1", &none).unwrap(), ["wk_1"]);
        assert_eq!(
            keys("grant_type=password&username=a&password=wk_2%21+x&client_secret=s", &none).unwrap(),
            ["wk_2! x", "s"]
        );
        assert_eq!(
            keys("grant_type=refresh_token&refresh_token=wk_4&client_id=a&client_secret=s", &none).unwrap(),
            ["wk_4"]
        );
        let jwt = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=a.b.c";
        assert_eq!(keys(jwt, &none).unwrap(), ["assertion a.b.c"]);
        let basic = [(AUTHORIZATION, format!("Basic {}", STANDARD.encode("app:wk%5f3")).parse().unwrap())]
            .into_iter()
            .collect();
        assert_eq!(keys("grant_type=client_credentials", &basic).unwrap(), ["wk_3"]);
    }

    #[test]
    fn what_brings_no_token_says_why_in_the_words_of_oauth() {
        let none = HeaderMap::new();
        for (form, error) in [
            ("", OAuthError::InvalidRequest),
            ("grant_type=authorization_code&code=x", OAuthError::UnsupportedGrant),
            ("grant_type=refresh_token&client_secret=wk_1", OAuthError::InvalidRefresh),
            ("grant_type=client_credentials&client_id=a", OAuthError::InvalidClient),
            ("grant_type=client_credentials&client_secret=a&client_secret=b", OAuthError::InvalidClient),
            ("grant_type=password&username=a", OAuthError::InvalidGrant),
        ] {
            assert_eq!(keys(form, &none).unwrap_err(), error, "{form}");
        }
        let answer = OAuthError::InvalidGrant.answer();
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(&answer.body()[..], br#"{"error":"invalid_grant","error_description":"authentication failure"}"#);
    }

    #[test]
    fn a_token_answer_has_what_client_libraries_read() {
        let granted = Granted {
            public: "https://sf.acme.internal",
            org_id: "00D1",
            user_id: "0051",
            issued_at_ms: 1_800_000_000_000,
        };
        let answer = token_answer("00D!wk1.x", b"wk_1", granted);
        let body: serde_json::Value = serde_json::from_slice(answer.body()).unwrap();
        assert_eq!(body["access_token"], "00D!wk1.x");
        assert_eq!(body["instance_url"], "https://sf.acme.internal");
        assert_eq!(body["id"], "https://sf.acme.internal/id/00D1/0051");
        assert_eq!(body["issued_at"], "1800000000000");
        assert_eq!(body["token_type"], "Bearer");
        assert!(body.get("expires_in").is_none());
    }

    proptest! {
        #[test]
        fn any_form_is_survived(form in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = proof(&Form::parse(&form), &HeaderMap::new()).is_ok();
        }
    }
}
