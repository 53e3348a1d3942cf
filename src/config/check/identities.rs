//! The identities of orgs, who may act as them, and the keys of gateway tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{At, Check};
use crate::config::auth::{FlowName, GatewayTokensFile, IdentityFile};
use crate::config::file::{ConfigFile, MatchFile};
use crate::config::model::{Flow, GatewayTokens, Identity, Origin};
use crate::config::problem::Fault;
use crate::config::secret::Secret;
use crate::config::value::{Name, Text};
use crate::exchange::vault::SigningKey;

/// Shorter secrets could be guessed.
const LEAST_TOKEN_KEY: usize = 32;
/// Sessions of Salesforce live between 15 minutes and a day (facts 5.3); this leaves room for tests.
const SESSIONS: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(24);
/// A token that is lost should not be good for long, and one that ends at once is none.
const LIFETIMES: std::ops::RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_hours(24 * 7);
/// More than any org has integration users that one gateway needs.
const MAX_IDENTITIES: usize = 100;

impl Check<'_> {
    pub(super) fn identities(
        &mut self,
        at: &At,
        written: Option<&BTreeMap<Text<Name>, IdentityFile>>,
        login: &Origin,
    ) -> Vec<Identity> {
        let Some(written) = written else { return Vec::new() };
        if written.is_empty() {
            let fault = Fault::new("no identity to act as");
            self.wrong(at, fault.hint("leave the key out if callers bring their own tokens"));
        }
        if written.len() > MAX_IDENTITIES {
            self.wrong(at, Fault::new(format!("more than {MAX_IDENTITIES} identities")));
            return Vec::new();
        }
        let mut identities = Vec::with_capacity(written.len());
        for (Text(Name(name)), identity) in written {
            let at = at.name(name);
            let session = self.between(&at.key("session"), identity.session.0.0, &SESSIONS);
            if let Some(flow) = self.flow(&at, identity, login) {
                let token_url = identity.token_url.as_ref().map(|url| url.0.0.clone());
                identities.push(Identity { name: name.clone(), flow, token_url, session });
            }
        }
        identities
    }

    fn flow(&mut self, at: &At, written: &IdentityFile, login: &Origin) -> Option<Flow> {
        let client_id = written.client_id.as_ref().map(|id| id.0.0.clone());
        if client_id.is_none() {
            self.missing(&at.key("client_id"), "write the connected app's consumer key");
        }
        let Some(flow) = written.flow else {
            self.missing(&at.key("flow"), "client_credentials, jwt_bearer or refresh_token");
            return None;
        };
        self.no_foreign_keys(at, flow, written);
        match flow {
            FlowName::ClientCredentials => {
                let secret = self.needed_secret(at, "client_secret", written.client_secret.as_ref());
                Some(Flow::ClientCredentials { client_id: client_id?, client_secret: secret? })
            }
            FlowName::JwtBearer => {
                if written.username.is_none() {
                    self.missing(&at.key("username"), "write the user's name, such as integration@acme.example");
                }
                let key = self.needed_secret(at, "private_key", written.private_key.as_ref());
                if let Some(key) = &key
                    && SigningKey::from_pem(key.expose().as_bytes()).is_err()
                {
                    let fault = Fault::new("not an RSA private key in PEM, of at least 2048 bits");
                    self.wrong(&at.key("private_key"), fault.hint("it begins with -----BEGIN PRIVATE KEY-----"));
                }
                let audience = written.audience.as_ref().map_or_else(|| login.to_string().into(), |to| to.0.0.clone());
                let username = written.username.as_ref().map(|name| name.0.0.clone());
                Some(Flow::JwtBearer { client_id: client_id?, username: username?, audience, private_key: key? })
            }
            FlowName::RefreshToken => {
                let token = self.needed_secret(at, "refresh_token", written.refresh_token.as_ref());
                let secret_at = at.key("client_secret");
                let secret = written.client_secret.as_ref().and_then(|secret| self.secret(&secret_at, secret));
                Some(Flow::RefreshToken { client_id: client_id?, client_secret: secret, refresh_token: token? })
            }
        }
    }

    /// A key of another flow shows that something else was meant.
    fn no_foreign_keys(&mut self, at: &At, flow: FlowName, written: &IdentityFile) {
        use FlowName::{ClientCredentials, JwtBearer, RefreshToken};
        for (key, given, flows) in [
            ("client_secret", written.client_secret.is_some(), &[ClientCredentials, RefreshToken][..]),
            ("username", written.username.is_some(), &[JwtBearer]),
            ("private_key", written.private_key.is_some(), &[JwtBearer]),
            ("audience", written.audience.is_some(), &[JwtBearer]),
            ("refresh_token", written.refresh_token.is_some(), &[RefreshToken]),
        ] {
            if given && !flows.contains(&flow) {
                self.wrong(&at.key(key), Fault::new("this flow does not use it").hint("leave it out"));
            }
        }
    }

    fn needed_secret(
        &mut self,
        at: &At,
        key: &'static str,
        reference: Option<&crate::config::secret::SecretRef>,
    ) -> Option<Secret> {
        let at = at.key(key);
        if reference.is_none() {
            self.missing(&at, "say where it is: {env: NAME} or {file: PATH}");
        }
        self.secret(&at, reference?)
    }

    pub(super) fn between(
        &mut self,
        at: &At,
        period: Duration,
        range: &std::ops::RangeInclusive<Duration>,
    ) -> Duration {
        if !range.contains(&period) {
            let hint = format!("{} s to {} h", range.start().as_secs(), range.end().as_secs() / 3_600);
            self.wrong(at, Fault::new("out of range").hint(hint));
        }
        period
    }

    pub(super) fn gateway_tokens(&mut self, at: &At, written: &GatewayTokensFile) -> GatewayTokens {
        let keys_at = at.key("keys");
        let mut keys: Vec<Secret> = Vec::with_capacity(written.keys.len());
        for (index, reference) in written.keys.iter().enumerate() {
            let at = keys_at.index(index);
            let Some(key) = self.secret(&at, reference) else { continue };
            if key.expose().len() < LEAST_TOKEN_KEY {
                let fault = Fault::new(format!("shorter than {LEAST_TOKEN_KEY} characters"));
                self.wrong(&at, fault.hint("make one with `openssl rand -base64 32`"));
            }
            if keys.contains(&key) {
                self.wrong(&at, Fault::new("the same key stands here already"));
            }
            keys.push(key);
        }
        GatewayTokens { keys, lifetime: self.between(&at.key("lifetime"), written.lifetime.0.0, &LIFETIMES) }
    }

    /// Whether a caller may act as the identity it names: some org has it, and nobody is taken for the caller who proves
    /// nothing.
    pub(super) fn act_as(&mut self, at: &At, identity: &Name, way: Option<&MatchFile>, file: &ConfigFile) {
        if self.was_read("orgs") {
            let named = file.orgs.iter().filter_map(|org| org.auth.as_ref()).flat_map(BTreeMap::keys);
            let known: Vec<&str> = named.map(|name| name.0.0.as_str()).collect();
            if !known.contains(&identity.0.as_str()) {
                let fault = Fault::unknown("identity", &identity.0, &known);
                self.wrong(at, if known.is_empty() { fault.hint("no org has auth") } else { fault });
            }
        }
        if let Some(MatchFile::Any | MatchFile::Host(_) | MatchFile::CallOptionsClient(_)) = way {
            let fault = Fault::new("whoever can reach the gateway would act as this identity");
            self.wrong(at, fault.hint("match a key, certificate, token or network"));
        }
    }
}
