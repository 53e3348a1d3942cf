//! How an identity asks for a token: the body of the request to the token endpoint (facts 5.1).

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Serialize;
use zeroize::{Zeroize as _, Zeroizing};

/// How far ahead an assertion expires. Salesforce takes at most three minutes (facts 5.1); this leaves room for clocks that
/// differ by a minute either way.
const ASSERTION_LIFE: Duration = Duration::from_mins(2);

/// A secret that is wiped from memory and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(Zeroizing<String>);

impl Hidden {
    /// Takes a copy of `text`.
    pub fn new(text: &str) -> Self {
        Self(Zeroizing::new(text.to_owned()))
    }

    /// Takes `text` over.
    pub(super) fn of(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hidden")
    }
}

/// An RSA key that signs assertions. It lives in the cryptographic library's memory, which wipes it.
pub struct SigningKey(KeyPair);

impl SigningKey {
    /// Reads a PEM private key, PKCS#8 or PKCS#1, of at least 2048 bits.
    pub fn from_pem(pem: &[u8]) -> Result<Self, BadKey> {
        let mut der = PrivateKeyDer::from_pem_slice(pem).map_err(|_| BadKey)?;
        let pair = match &der {
            PrivateKeyDer::Pkcs8(der) => KeyPair::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| BadKey),
            PrivateKeyDer::Pkcs1(der) => KeyPair::from_der(der.secret_pkcs1_der()).map_err(|_| BadKey),
            _ => Err(BadKey),
        };
        der.zeroize();
        pair.map(Self)
    }

    /// What tells it from other keys.
    fn public(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, BadKey> {
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).map_err(|_| BadKey)?;
        Ok(signature)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

/// What was given is no RSA private key that can sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RSA private key in PEM")]
pub struct BadKey;

/// How an identity proves itself to the token endpoint.
#[derive(Debug)]
pub enum Flow {
    /// As the connected app itself, which runs as one user.
    ClientCredentials {
        /// Consumer key.
        client_id: Box<str>,
        /// Consumer secret.
        client_secret: Hidden,
    },
    /// By a signed assertion for a user.
    JwtBearer {
        /// Consumer key.
        client_id: Box<str>,
        /// The user's name.
        username: Box<str>,
        /// Where the assertion is for.
        audience: Box<str>,
        /// The key whose certificate the app has.
        key: Box<SigningKey>,
    },
    /// By a refresh token a user once granted.
    RefreshToken {
        /// Consumer key.
        client_id: Box<str>,
        /// Consumer secret, if the app has one.
        client_secret: Option<Hidden>,
        /// The refresh token.
        refresh_token: Hidden,
    },
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    exp: u64,
}

impl Flow {
    /// The form to post at wall time `wall` (Salesforce's, as far as known). `rotated` is the refresh token that replaced the
    /// configured one.
    pub(super) fn form(&self, wall: Duration, rotated: Option<&Hidden>) -> Result<Zeroizing<Vec<u8>>, BadKey> {
        let mut form = Form::default();
        match self {
            Self::ClientCredentials { client_id, client_secret } => {
                form.add("grant_type", "client_credentials");
                form.add("client_id", client_id);
                form.add("client_secret", client_secret.expose());
            }
            Self::JwtBearer { client_id, username, audience, key } => {
                form.add("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
                let exp = (wall + ASSERTION_LIFE).as_secs();
                let claims = Claims { iss: client_id, sub: username, aud: audience, exp };
                form.add("assertion", &assertion(&claims, key)?);
            }
            Self::RefreshToken { client_id, client_secret, refresh_token } => {
                form.add("grant_type", "refresh_token");
                form.add("client_id", client_id);
                if let Some(secret) = client_secret {
                    form.add("client_secret", secret.expose());
                }
                form.add("refresh_token", rotated.unwrap_or(refresh_token).expose());
            }
        }
        Ok(form.0)
    }

    /// What says as whom it logs in, without secrets.
    pub(super) fn open_parts(&self) -> Vec<&str> {
        match self {
            Self::ClientCredentials { client_id, .. } => vec!["client_credentials", client_id],
            Self::JwtBearer { client_id, username, audience, .. } => vec!["jwt_bearer", client_id, username, audience],
            Self::RefreshToken { client_id, .. } => vec!["refresh_token", client_id],
        }
    }

    /// What proves that, for a fingerprint.
    pub(super) fn hidden_parts(&self) -> Vec<&[u8]> {
        match self {
            Self::ClientCredentials { client_secret, .. } => vec![client_secret.expose().as_bytes()],
            Self::JwtBearer { key, .. } => vec![key.public()],
            Self::RefreshToken { client_secret, refresh_token, .. } => {
                let secret = client_secret.as_ref().map_or("", Hidden::expose);
                vec![secret.as_bytes(), refresh_token.expose().as_bytes()]
            }
        }
    }

    /// Whether the log-in depends on what time it is.
    pub(super) fn tells_time(&self) -> bool {
        matches!(self, Self::JwtBearer { .. })
    }
}

fn assertion(claims: &Claims<'_>, key: &SigningKey) -> Result<Zeroizing<String>, BadKey> {
    let claims = serde_json::to_vec(claims).map_err(|_| BadKey)?;
    let mut token = Zeroizing::new(String::with_capacity(1_024));
    URL_SAFE_NO_PAD.encode_string(r#"{"alg":"RS256","typ":"JWT"}"#, &mut token);
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(claims, &mut token);
    let signature = key.sign(token.as_bytes())?;
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

/// `application/x-www-form-urlencoded`, wiped from memory. It has room enough never to move.
struct Form(Zeroizing<Vec<u8>>);

impl Default for Form {
    fn default() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(8 * 1_024)))
    }
}

impl Form {
    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(b'&');
        }
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'=');
        for byte in value.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                self.0.push(byte);
            } else {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                let [high, low] = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
                self.0.extend_from_slice(&[b'%', high, low]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::encoding::Pkcs8V1Der;
    use aws_lc_rs::rsa::KeySize;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};

    use super::*;

    pub(crate) fn key_pem() -> (String, KeyPair) {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        (format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n")), pair)
    }

    #[test]
    fn client_credentials_are_sent_as_a_form() {
        let flow = Flow::ClientCredentials { client_id: "3MVG9.a".into(), client_secret: Hidden::new("s&=+ ü") };
        assert_eq!(
            &**flow.form(Duration::ZERO, None).unwrap(),
            b"grant_type=client_credentials&client_id=3MVG9.a&client_secret=s%26%3D%2B%20%C3%BC"
        );
    }

    #[test]
    fn a_rotated_refresh_token_replaces_the_configured_one() {
        let flow =
            Flow::RefreshToken { client_id: "a".into(), client_secret: None, refresh_token: Hidden::new("first") };
        let form = |rotated| String::from_utf8(flow.form(Duration::ZERO, rotated).unwrap().to_vec()).unwrap();
        assert_eq!(form(None), "grant_type=refresh_token&client_id=a&refresh_token=first");
        assert_eq!(form(Some(&Hidden::new("second"))), "grant_type=refresh_token&client_id=a&refresh_token=second");
    }

    #[test]
    fn an_assertion_verifies_with_the_public_key_and_expires_within_three_minutes() {
        let (pem, pair) = key_pem();
        let flow = Flow::JwtBearer {
            client_id: "app".into(),
            username: "integration@acme.example".into(),
            audience: "https://login.salesforce.com".into(),
            key: Box::new(SigningKey::from_pem(pem.as_bytes()).unwrap()),
        };
        let form = flow.form(Duration::from_hours(500_000), None).unwrap();
        let form = std::str::from_utf8(&form).unwrap();
        let token = form.split("assertion=").nth(1).unwrap();
        let public = pair.public_key();
        let key = DecodingKey::from_rsa_raw_components(
            public.modulus().big_endian_without_leading_zero(),
            public.exponent().big_endian_without_leading_zero(),
        );
        let mut rules = Validation::new(Algorithm::RS256);
        rules.set_audience(&["https://login.salesforce.com"]);
        rules.validate_exp = false;
        let claims = jsonwebtoken::decode::<serde_json::Value>(token, &key, &rules).unwrap().claims;
        assert_eq!(claims["iss"], "app");
        assert_eq!(claims["sub"], "integration@acme.example");
        assert_eq!(claims["exp"], 1_800_000_120);
    }

    #[test]
    fn no_flow_shows_its_secrets() {
        let (pem, _) = key_pem();
        let shown = format!(
            "{:?} {:?} {:?}",
            Flow::ClientCredentials { client_id: "a".into(), client_secret: Hidden::new("CANARY") },
            Flow::RefreshToken {
                client_id: "a".into(),
                client_secret: Some(Hidden::new("CANARY")),
                refresh_token: Hidden::new("CANARY"),
            },
            Flow::JwtBearer {
                client_id: "a".into(),
                username: "u".into(),
                audience: "x".into(),
                key: Box::new(SigningKey::from_pem(pem.as_bytes()).unwrap()),
            },
        );
        assert!(!shown.contains("CANARY") && shown.len() < 400, "{shown}");
    }

    #[test]
    fn what_is_no_rsa_key_is_refused() {
        assert!(SigningKey::from_pem(b"").is_err());
        assert!(SigningKey::from_pem(b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").is_err());
        let ec = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_pem();
        assert!(SigningKey::from_pem(ec.as_bytes()).is_err());
    }
}
