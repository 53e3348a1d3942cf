//! Identities of a configuration, arranged for the road.

use std::sync::Arc;

use super::{Lasting, Live, LiveOrg, Unusable, connector, tokens};
use crate::config::{self, Config, Secret};
use crate::exchange::vault::{Endpoint, Flow, Hidden, Identity, Settings, SigningKey};
use crate::exchange::{Connector, Origin};
use crate::salesforce::PrincipalKey;

/// Where tokens come from, unless the configuration says otherwise.
const TOKEN_PATH: &str = "/services/oauth2/token";

/// Gives each org its identities. One that means the same as under `earlier` keeps its token.
pub(super) fn hold(
    orgs: &mut [LiveOrg],
    config: &Config,
    principal_key: &PrincipalKey,
    lasting: &Lasting,
    earlier: Option<&Live>,
) -> Result<(), Unusable> {
    if config.orgs.iter().all(|org| org.identities.is_empty()) {
        return Ok(());
    }
    // A log-in is one request on a connection of its own, by HTTP/1.
    let upstream = config::Upstream { http2: false, ..config.upstream.clone() };
    let connector = connector(&upstream, lasting.dial.as_ref())?;
    for (live, org) in orgs.iter_mut().zip(&config.orgs).filter(|(_, org)| !org.identities.is_empty()) {
        let known = earlier.and_then(|earlier| Earlier::of(earlier, config, org));
        for identity in &org.identities {
            let unusable = |why: String| Unusable(format!("orgs.{}.auth.{}: {why}", org.name, identity.name));
            let mut settings = settings(org, identity, principal_key, &connector).map_err(unusable)?;
            let (whose, Settings { flow, endpoint, .. }) = ((org.name.as_str(), identity.name.as_str()), &settings);
            settings.sharing =
                tokens::sharing(config, lasting, whose, flow, endpoint).map_err(|error| unusable(error.to_string()))?;
            live.identities.push(match known.as_ref().and_then(|known| known.identity(org, identity)) {
                Some(same) => Identity::continued(settings, same),
                None => Identity::new(settings, lasting.clock),
            });
        }
        live.facade = Some(known.and_then(|known| known.live.facade.clone()).unwrap_or_default());
        let place = |caller: &config::Caller| {
            let named = caller.act_as.as_ref()?;
            let place = org.identities.iter().position(|identity| identity.name == *named)?;
            u16::try_from(place).ok()
        };
        let poller = org.daily.poll.map(|poll| Some(poll.identity));
        live.acts_as = config.callers.iter().map(place).chain(poller).collect();
    }
    Ok(())
}

/// The same org under the configuration before.
struct Earlier<'a> {
    live: &'a LiveOrg,
    config: &'a config::Org,
    same_principals: bool,
}

impl<'a> Earlier<'a> {
    fn of(earlier: &'a Live, config: &Config, org: &config::Org) -> Option<Self> {
        let place = earlier.config.orgs.iter().position(|known| known.name == org.name)?;
        Some(Self {
            live: earlier.orgs.get(place)?,
            config: earlier.config.orgs.get(place)?,
            same_principals: earlier.config.principal_key == config.principal_key,
        })
    }

    /// The identity that means the same as `identity` of `org`.
    fn identity(&self, org: &config::Org, identity: &config::Identity) -> Option<&Identity> {
        let same_hosts = self.config.instance == org.instance && self.config.login == org.login;
        let place = self.config.identities.iter().position(|known| known == identity)?;
        self.live.identities.get(place).filter(|_| same_hosts && self.same_principals).map(Arc::as_ref)
    }
}

fn settings(
    org: &config::Org,
    identity: &config::Identity,
    principal_key: &PrincipalKey,
    connector: &Connector,
) -> Result<Settings, String> {
    let hidden = |secret: &Secret| Hidden::new(secret.expose());
    let flow = match &identity.flow {
        config::Flow::ClientCredentials { client_id, client_secret } => {
            Flow::ClientCredentials { client_id: client_id.as_str().into(), client_secret: hidden(client_secret) }
        }
        config::Flow::JwtBearer { client_id, username, audience, private_key } => Flow::JwtBearer {
            client_id: client_id.as_str().into(),
            username: username.as_str().into(),
            audience: audience.as_str().into(),
            key: Box::new(SigningKey::from_pem(private_key.expose().as_bytes()).map_err(|error| error.to_string())?),
        },
        config::Flow::RefreshToken { client_id, client_secret, refresh_token } => Flow::RefreshToken {
            client_id: client_id.as_str().into(),
            client_secret: client_secret.as_ref().map(hidden),
            refresh_token: hidden(refresh_token),
        },
    };
    let (origin, path) = match &identity.token_url {
        Some(url) => {
            let authority = url.authority().ok_or("token_url has no host")?;
            let origin = format!("{}://{authority}", url.scheme_str().unwrap_or("https"));
            (origin, url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str))
        }
        // Client credentials are taken by the org's own host only (facts 5.1).
        None if matches!(identity.flow, config::Flow::ClientCredentials { .. }) || !org.logs_in_elsewhere() => {
            (org.instance.to_string(), TOKEN_PATH)
        }
        None => (org.login.to_string(), TOKEN_PATH),
    };
    let origin = Origin::parse(&origin).map_err(|error| format!("token_url: {error}"))?;
    let path = path.parse().map_err(|_| "token_url has no path".to_owned())?;
    Ok(Settings {
        name: identity.name.clone(),
        org: org.name.clone(),
        flow,
        endpoint: Endpoint { origin, path, connector: connector.clone() },
        session: identity.session,
        principal_key: principal_key.clone(),
        sharing: None,
    })
}
