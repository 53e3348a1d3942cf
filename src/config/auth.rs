//! What a configuration says about identities: how the gateway logs in to Salesforce, and the tokens it gives to apps.
//!
//! A part of [`super::file`], under the same rules.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::SecretRef;
use super::value::{Period, Phrase, Text, WebUrl};

/// A Salesforce user whose credentials the gateway holds. Which further keys it needs depends on `flow`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityFile {
    /// How it logs in.
    #[schemars(required)]
    pub flow: Option<FlowName>,
    /// Consumer key of the connected app.
    #[schemars(required)]
    pub client_id: Option<Text<Phrase>>,
    /// Consumer secret. Needed by `client_credentials`, possible with `refresh_token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
    /// The user's name. Needed by `jwt_bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<Text<Phrase>>,
    /// RSA private key in PEM, whose certificate the connected app has. Needed by `jwt_bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub private_key: Option<SecretRef>,
    /// For whom `jwt_bearer` signs. Default: the org's `login_url`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<Text<Phrase>>,
    /// The refresh token. Needed by `refresh_token`. If Salesforce rotates it, the new one is kept, sealed, in the store of
    /// `state.redis`; without it, it is known until a restart only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<SecretRef>,
    /// Where it logs in. Default: `/services/oauth2/token` at the org's `login_url`; at its `instance_url` for
    /// `client_credentials`, which is taken nowhere else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_url: Option<Text<WebUrl>>,
    /// How long its sessions live, as set in Salesforce. They are renewed after four fifths of it.
    pub session: Text<Period>,
}

impl Default for IdentityFile {
    fn default() -> Self {
        Self {
            flow: None,
            client_id: None,
            client_secret: None,
            username: None,
            private_key: None,
            audience: None,
            refresh_token: None,
            token_url: None,
            session: Text(Period(Duration::from_hours(2))),
        }
    }
}

/// How an identity logs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename = "Flow", rename_all = "snake_case")]
pub enum FlowName {
    /// As the connected app, which runs as the user set in Salesforce.
    ClientCredentials,
    /// By an assertion signed with `private_key`, as `username`.
    JwtBearer,
    /// By a refresh token that a user once granted.
    RefreshToken,
}

/// The tokens that apps get when they log in with their gateway key, for orgs with `auth`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GatewayTokensFile {
    /// Secrets of at least 32 characters. The first seals tokens, all open them, so that keys can be replaced without a
    /// gap. Replicas need the same ones. Default: drawn from `state.redis.keys`; without it, random for each process, so that
    /// apps log in again after a restart.
    pub keys: Vec<SecretRef>,
    /// How long a token is valid.
    pub lifetime: Text<Period>,
}

impl Default for GatewayTokensFile {
    fn default() -> Self {
        Self { keys: Vec::new(), lifetime: Text(Period(Duration::from_hours(2))) }
    }
}
