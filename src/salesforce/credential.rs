//! The credential a request carries, in all the forms Salesforce takes (facts 5.8), and the principal it stands for.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::hmac;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::soap;
use crate::call::Principal;

const SESSION_HEADER: HeaderName = HeaderName::from_static("x-sfdc-session");

/// Where a credential stood, which is where another one must be put for the same request to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: OAuth`.
    OAuth,
    /// `X-SFDC-Session`, Bulk v1.
    SessionHeader,
    /// `<sessionId>` in a SOAP header.
    Soap,
}

/// A session id, access token or gateway key. Its `Debug` output does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential<'a> {
    secret: Cow<'a, str>,
    form: Form,
}

impl Credential<'_> {
    /// The secret itself: never for a log, a metric or an error.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// Where it stood; the first place if it stood in several.
    pub fn form(&self) -> Form {
        self.form
    }
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("secret", &"(hidden)").field("form", &self.form).finish()
    }
}

/// Why the credential of a request cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CredentialError {
    /// Two different credentials: which of them counts is not documented, so neither is believed.
    #[error("the request carries two different credentials; send one")]
    TwoCredentials,
    /// A credential is empty, holds spaces or control characters, or is not ASCII.
    #[error("the credential is malformed")]
    Malformed,
    /// An `Authorization` scheme that Salesforce does not take.
    #[error("the Authorization scheme is not Bearer or OAuth")]
    UnknownScheme,
    /// The SOAP envelope that would hold it cannot be read.
    #[error("the SOAP envelope cannot be read")]
    Envelope,
}

/// The one credential of a request; `body` is given for SOAP only.
///
/// `Authorization: Basic` is how a client of the token endpoint names itself: it is no session, so it is passed over.
/// Cookies are passed over too; requests with cookies are never answered from a cache.
pub fn credentials<'a>(
    headers: &'a HeaderMap,
    body: Option<&'a [u8]>,
) -> Result<Option<Credential<'a>>, CredentialError> {
    let mut one = None;
    for value in headers.get_all(AUTHORIZATION) {
        if let Some(found) = authorization(value)? {
            add(&mut one, found)?;
        }
    }
    for value in headers.get_all(SESSION_HEADER) {
        let text = value.to_str().map_err(|_| CredentialError::Malformed)?;
        add(&mut one, Credential { secret: token(Cow::Borrowed(text.trim()))?, form: Form::SessionHeader })?;
    }
    if let Some(body) = body {
        for session in soap::sessions(body).map_err(|_| CredentialError::Envelope)? {
            add(&mut one, Credential { secret: token(session)?, form: Form::Soap })?;
        }
    }
    Ok(one)
}

fn add<'a>(one: &mut Option<Credential<'a>>, found: Credential<'a>) -> Result<(), CredentialError> {
    match one {
        None => *one = Some(found),
        Some(known) if known.secret == found.secret => {}
        Some(_) => return Err(CredentialError::TwoCredentials),
    }
    Ok(())
}

fn authorization(value: &HeaderValue) -> Result<Option<Credential<'_>>, CredentialError> {
    let text = value.to_str().map_err(|_| CredentialError::Malformed)?.trim();
    let (scheme, secret) = text.split_once([' ', '\t']).ok_or(CredentialError::Malformed)?;
    let form = if scheme.eq_ignore_ascii_case("bearer") {
        Form::Bearer
    } else if scheme.eq_ignore_ascii_case("oauth") {
        Form::OAuth
    } else if scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    } else {
        return Err(CredentialError::UnknownScheme);
    };
    Ok(Some(Credential { secret: token(Cow::Borrowed(secret.trim()))?, form }))
}

/// Session ids and tokens are visible ASCII without spaces or commas, so that no list of two passes as one.
fn token(text: Cow<'_, str>) -> Result<Cow<'_, str>, CredentialError> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',');
    if plain { Ok(text) } else { Err(CredentialError::Malformed) }
}

/// The key under which credentials are hashed: the same key makes the same principals.
#[derive(Clone)]
pub struct PrincipalKey(hmac::Key);

impl PrincipalKey {
    /// A key from secret bytes, at least 16 of them random.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The principal of a Salesforce user, by the record ids of org and user in either length.
    pub fn user(&self, org: &str, user: &str) -> Principal {
        // The last three of 18 characters are a checksum of the first 15 (facts 7.5).
        let short = |id: &str| id.get(..15).unwrap_or(id).to_owned();
        self.hash(format!("user\n{}\n{}", short(org), short(user)).as_bytes())
    }

    /// The principal of an identity of the gateway whose user is not known yet.
    pub fn identity(&self, org: &str, name: &str) -> Principal {
        self.hash(format!("identity\n{org}\n{name}").as_bytes())
    }

    /// HMAC-SHA-256, cut to 16 bytes. Tokens hold no line break, so that no token hashes like a user or an identity.
    fn hash(&self, bytes: &[u8]) -> Principal {
        let tag = hmac::sign(&self.0, bytes);
        let mut hash = [0; 16];
        for (to, from) in hash.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        Principal(hash)
    }
}

impl fmt::Debug for PrincipalKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrincipalKey(hidden)")
    }
}

/// The principal of a credential: HMAC-SHA-256 of its secret, cut to 16 bytes. Its form does not matter.
pub fn principal(key: &PrincipalKey, credential: &Credential<'_>) -> Principal {
    key.hash(credential.secret.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CANARY: &str = "00D000000000001!CANARY.session";

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn envelope(session: &str) -> Vec<u8> {
        format!(
            "<s:Envelope xmlns:s='x'><s:Header><u:CallOptions><u:client>c</u:client></u:CallOptions>\
             <u:SessionHeader><u:sessionId>{session}</u:sessionId></u:SessionHeader></s:Header><s:Body><q/></s:Body></s:Envelope>"
        )
        .into_bytes()
    }

    fn read(lines: &[(&'static str, &str)], body: Option<&[u8]>) -> Result<Option<(String, Form)>, CredentialError> {
        let headers = headers(lines);
        credentials(&headers, body).map(|found| found.map(|one| (one.secret().to_owned(), one.form())))
    }

    #[test]
    fn all_forms_are_read() {
        let table = [
            (("authorization", format!("Bearer {CANARY}")), Form::Bearer),
            (("authorization", format!("bEARER  {CANARY} ")), Form::Bearer),
            (("authorization", format!("OAuth {CANARY}")), Form::OAuth),
            (("x-sfdc-session", CANARY.to_owned()), Form::SessionHeader),
        ];
        for ((name, value), form) in table {
            assert_eq!(read(&[(name, &value)], None), Ok(Some((CANARY.to_owned(), form))), "{name}");
        }
        for session in [
            CANARY,
            "00D000000000001!CANARY<!-- x -->.session",
            "<![CDATA[00D000000000001!CANARY.session]]>",
            "\n 00D000000000001&#33;CANARY.session ",
        ] {
            assert_eq!(read(&[], Some(&envelope(session))), Ok(Some((CANARY.to_owned(), Form::Soap))), "{session}");
        }
    }

    #[test]
    fn no_credential_is_no_error() {
        assert_eq!(read(&[], None), Ok(None));
        assert_eq!(read(&[("authorization", "Basic YTpi")], None), Ok(None));
        assert_eq!(read(&[("cookie", "sid=x")], Some(&envelope(""))), Ok(None));
    }

    #[test]
    fn two_different_credentials_are_refused() {
        use CredentialError::TwoCredentials;
        assert_eq!(read(&[("authorization", "Bearer a"), ("x-sfdc-session", "b")], None), Err(TwoCredentials));
        assert_eq!(read(&[("authorization", "Bearer a"), ("authorization", "Bearer b")], None), Err(TwoCredentials));
        assert_eq!(read(&[("authorization", "Bearer a")], Some(&envelope("b"))), Err(TwoCredentials));
        let two = b"<Envelope><Header><SessionHeader><sessionId>a</sessionId></SessionHeader></Header><Header><SessionHeader>\
            <sessionId>b</sessionId></SessionHeader></Header><Body/></Envelope>";
        assert_eq!(read(&[], Some(two)), Err(TwoCredentials));
    }

    #[test]
    fn the_same_credential_twice_is_one() {
        assert_eq!(
            read(&[("authorization", "Bearer a"), ("x-sfdc-session", "a")], Some(&envelope("a"))),
            Ok(Some(("a".to_owned(), Form::Bearer)))
        );
    }

    #[test]
    fn malformed_credentials_are_refused() {
        for value in ["Bearer", "Bearer ", "Bearer a b", "Bearer a, Bearer b", "a", "", "Bearer a,b"] {
            assert_eq!(read(&[("authorization", value)], None), Err(CredentialError::Malformed), "{value:?}");
        }
        assert_eq!(read(&[("authorization", "Negotiate a")], None), Err(CredentialError::UnknownScheme));
        assert_eq!(read(&[("x-sfdc-session", "")], None), Err(CredentialError::Malformed));
        assert_eq!(read(&[], Some(b"<!DOCTYPE a><Envelope/>")), Err(CredentialError::Envelope));
        let mut raw = HeaderMap::new();
        raw.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert_eq!(credentials(&raw, None), Err(CredentialError::Malformed));
    }

    #[test]
    fn a_principal_depends_on_key_and_secret_only() {
        let key = PrincipalKey::new(b"0123456789abcdef");
        let (a, b) = (headers(&[("authorization", "Bearer a")]), headers(&[("x-sfdc-session", "a")]));
        let bearer = credentials(&a, None).unwrap().unwrap();
        let session = credentials(&b, None).unwrap().unwrap();
        assert_eq!(principal(&key, &bearer), principal(&key, &session));
        assert_ne!(principal(&key, &bearer), principal(&PrincipalKey::new(b"another key 1234"), &bearer));
        assert_ne!(principal(&key, &bearer), Principal::NOBODY);
    }

    #[test]
    fn a_user_is_one_principal_in_both_lengths_of_ids_and_no_identity() {
        let key = PrincipalKey::new(b"0123456789abcdef");
        let user = key.user("00D000000000001", "005000000000001");
        assert_eq!(user, key.user("00D000000000001EAA", "005000000000001AAA"));
        assert_ne!(user, key.user("00D000000000001", "005000000000002"));
        assert_ne!(user, key.identity("00D000000000001", "005000000000001"));
    }

    #[test]
    fn nothing_shows_a_secret() {
        let headers = headers(&[("authorization", &format!("Bearer {CANARY}"))]);
        let credential = credentials(&headers, None).unwrap().unwrap();
        assert!(!format!("{credential:?}").contains("CANARY"));
        assert!(!format!("{:?}", PrincipalKey::new(CANARY.as_bytes())).contains("CANARY"));
    }

    proptest! {
        #[test]
        fn any_header_is_survived(value in proptest::collection::vec(any::<u8>(), 0..80), body in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                headers.insert(AUTHORIZATION, value);
            }
            let _ = credentials(&headers, Some(&body));
        }
    }
}
