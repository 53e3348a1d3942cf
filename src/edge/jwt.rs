//! JSON Web Tokens of the company's own identity provider, by which a caller may prove who it is.
//!
//! The issuer's public keys come from a file or a URL; fetching them is somebody else's work ([`Issuer::put`]).
//! A token must be signed by a public-key algorithm, name a configured issuer, and not have expired.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::jwk::{AlgorithmParameters, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use smol_str::SmolStr;

use crate::config::{Caller, Jwks, Match};

/// Tokens longer than this are not looked at: a head of 16 KiB could not carry much more anyway.
const LONGEST_TOKEN: usize = 8 * 1024;

/// Clocks of issuers and ours may differ by this much.
const LEEWAY: Duration = Duration::from_secs(30);

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// `iss`
    pub issuer: SmolStr,
    /// `aud`, one or several.
    pub audience: Vec<SmolStr>,
    /// `sub`, empty if absent.
    pub subject: SmolStr,
    /// When it expires, in wall time since the Unix epoch.
    pub expires: Duration,
}

#[derive(Deserialize)]
struct RawClaims {
    iss: SmolStr,
    #[serde(default)]
    aud: OneOrMany,
    #[serde(default)]
    sub: SmolStr,
    exp: u64,
    #[serde(default)]
    nbf: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(SmolStr),
    Many(Vec<SmolStr>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// The issuers that callers' rules name, with their keys once known.
#[derive(Debug, Default)]
pub struct Issuers {
    list: Vec<Issuer>,
}

/// One issuer and where its keys are.
#[derive(Debug)]
pub struct Issuer {
    /// `iss`
    pub name: SmolStr,
    /// Where its keys are published.
    pub source: Jwks,
    keys: ArcSwapOption<JwkSet>,
}

impl Issuers {
    /// The issuers that the callers' rules name, each once; without keys yet.
    pub fn new(callers: &[Caller]) -> Self {
        let mut list: Vec<Issuer> = Vec::new();
        for caller in callers {
            if let Match::Jwt(rule) = &caller.matches
                && !list.iter().any(|issuer| issuer.name == rule.issuer && issuer.source == rule.jwks)
            {
                list.push(Issuer {
                    name: rule.issuer.clone(),
                    source: rule.jwks.clone(),
                    keys: ArcSwapOption::empty(),
                });
            }
        }
        Self { list }
    }

    /// All of them.
    pub fn list(&self) -> &[Issuer] {
        &self.list
    }

    /// Takes the keys an earlier configuration had already fetched from the same places.
    pub fn adopt(&self, earlier: &Self) {
        for issuer in &self.list {
            if let Some(same) = earlier.list.iter().find(|old| old.name == issuer.name && old.source == issuer.source) {
                issuer.keys.store(same.keys.load_full());
            }
        }
    }

    /// Verifies `token` at wall time `now`. The error says what is wrong with it, without quoting it.
    pub fn verify(&self, token: &str, now: Duration) -> Result<Claims, &'static str> {
        if token.len() > LONGEST_TOKEN {
            return Err("The token is too long.");
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| "This is neither a gateway key nor a token.")?;
        if !is_public_key_algorithm(header.alg) {
            return Err("The token must be signed by a public-key algorithm.");
        }
        let mut any_keys = false;
        for issuer in &self.list {
            let Some(keys) = issuer.keys.load_full() else { continue };
            any_keys = true;
            let candidates = keys.keys.iter().filter(|key| match (&header.kid, &key.common.key_id) {
                (Some(wanted), Some(id)) => wanted == id,
                (Some(_), None) => false,
                (None, _) => keys.keys.len() == 1,
            });
            for key in candidates.filter(|key| may_verify(key)) {
                let Ok(key) = DecodingKey::from_jwk(key) else { continue };
                let mut rules = Validation::new(header.alg);
                rules.set_issuer(&[issuer.name.as_str()]);
                rules.set_required_spec_claims(&["exp", "iss"]);
                // Times are checked below, on our clock; audiences against the callers' rules.
                rules.validate_exp = false;
                rules.validate_nbf = false;
                rules.validate_aud = false;
                if let Ok(token) = jsonwebtoken::decode::<RawClaims>(token, &key, &rules) {
                    return in_time(token.claims, now);
                }
            }
        }
        if any_keys {
            Err("The token's signature or issuer is not accepted.")
        } else {
            Err("No issuer's keys are known yet.")
        }
    }
}

impl Issuer {
    /// Reads a key set and uses it from now on; an unusable one leaves the old keys in force.
    pub fn put(&self, key_set: &[u8]) -> Result<usize, String> {
        let keys: JwkSet = serde_json::from_slice(key_set)
            .map_err(|error| format!("not a JSON Web Key Set: line {}, column {}", error.line(), error.column()))?;
        let usable = keys.keys.iter().filter(|key| may_verify(key)).count();
        if usable == 0 {
            return Err("no key in it can verify signatures".to_owned());
        }
        self.keys.store(Some(Arc::new(keys)));
        Ok(usable)
    }

    /// Whether keys are known.
    pub fn has_keys(&self) -> bool {
        self.keys.load().is_some()
    }
}

/// A shared secret in a published key set must never verify anything: everybody knows it.
fn may_verify(key: &jsonwebtoken::jwk::Jwk) -> bool {
    !matches!(key.algorithm, AlgorithmParameters::OctetKey(_))
        && !matches!(key.common.public_key_use, Some(PublicKeyUse::Encryption))
}

fn is_public_key_algorithm(algorithm: Algorithm) -> bool {
    !matches!(algorithm, Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512)
}

fn in_time(claims: RawClaims, now: Duration) -> Result<Claims, &'static str> {
    let expires = Duration::from_secs(claims.exp);
    if now > expires.saturating_add(LEEWAY) {
        return Err("The token has expired.");
    }
    if Duration::from_secs(claims.nbf) > now + LEEWAY {
        return Err("The token is not valid yet.");
    }
    let audience = match claims.aud {
        OneOrMany::One(audience) => vec![audience],
        OneOrMany::Many(audience) => audience,
    };
    Ok(Claims { issuer: claims.iss, audience, subject: claims.sub, expires })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::JwtMatch;
    use jsonwebtoken::jwk::Jwk;
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::json;

    const NOW: Duration = Duration::from_hours(500_000);

    fn issuers() -> (Issuers, EncodingKey) {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let signer = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        let mut public = Jwk::from_encoding_key(&signer, Algorithm::ES256).unwrap();
        public.common.key_id = Some("one".to_owned());
        let caller = crate::config::Config::for_org(
            "https://acme.my.salesforce.com",
            ([127, 0, 0, 1], 8080).into(),
            ([127, 0, 0, 1], 9090).into(),
        )
        .unwrap()
        .callers
        .into_iter()
        .next()
        .map(|mut caller| {
            caller.matches = Match::Jwt(JwtMatch {
                issuer: "https://id.example".into(),
                audience: "weirkeeper".into(),
                subject: None,
                jwks: Jwks::File("keys.json".into()),
            });
            caller
        })
        .unwrap();
        let issuers = Issuers::new(&[caller]);
        issuers.list()[0].put(&serde_json::to_vec(&JwkSet { keys: vec![public] }).unwrap()).unwrap();
        (issuers, signer)
    }

    fn token(signer: &EncodingKey, algorithm: Algorithm, claims: &serde_json::Value) -> String {
        let mut header = Header::new(algorithm);
        header.kid = Some("one".to_owned());
        jsonwebtoken::encode(&header, claims, signer).unwrap()
    }

    fn good() -> serde_json::Value {
        json!({"iss": "https://id.example", "aud": ["weirkeeper"], "sub": "billing", "exp": NOW.as_secs() + 60})
    }

    #[test]
    fn a_good_token_yields_its_claims() {
        let (issuers, signer) = issuers();
        let claims = issuers.verify(&token(&signer, Algorithm::ES256, &good()), NOW).unwrap();
        assert_eq!((claims.subject.as_str(), claims.audience[0].as_str()), ("billing", "weirkeeper"));
    }

    #[test]
    fn an_expired_early_foreign_or_altered_token_is_refused() {
        let (issuers, signer) = issuers();
        let mut expired = good();
        expired["exp"] = json!(NOW.as_secs() - 31);
        let mut early = good();
        early["nbf"] = json!(NOW.as_secs() + 31);
        let mut foreign = good();
        foreign["iss"] = json!("https://elsewhere.example");
        for claims in [expired, early, foreign] {
            assert!(issuers.verify(&token(&signer, Algorithm::ES256, &claims), NOW).is_err());
        }
        let whole = token(&signer, Algorithm::ES256, &good());
        assert!(issuers.verify(&whole[..whole.len() - 4], NOW).is_err());
        let (_, stranger) = self::issuers();
        assert!(issuers.verify(&token(&stranger, Algorithm::ES256, &good()), NOW).is_err());
    }

    #[test]
    fn a_token_signed_with_a_shared_secret_is_refused() {
        let (issuers, _) = issuers();
        let secret = EncodingKey::from_secret(b"anything");
        assert!(issuers.verify(&token(&secret, Algorithm::HS256, &good()), NOW).unwrap_err().contains("public-key"));
    }

    #[test]
    fn garbage_is_refused_without_a_panic() {
        let (issuers, _) = issuers();
        for garbage in ["", ".", "..", "a.b.c", "eyJhbGciOiJub25lIn0..", &"x".repeat(20_000)] {
            assert!(issuers.verify(garbage, NOW).is_err());
        }
    }
}
