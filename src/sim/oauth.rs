//! OAuth: token flows, revocation, identity (facts 5).

use std::collections::{HashMap, VecDeque};

use aws_lc_rs::{hmac, signature};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::Method;
use percent_encoding::percent_decode_str;

use super::answer::Answer;
use super::clock::{Micros, SECOND, seconds};
use super::config::{ORG_ID, SimApp};
use super::errors::ApiError;
use super::json::{Json, obj};
use super::request::Head;
use super::world::{Session, World};

/// Refresh tokens of one user and app; the oldest is revoked for a new one (facts 5.3).
const REFRESH_TOKENS: usize = 5;

/// Sessions from which idle ones are swept at a login.
const SWEEP_FROM: usize = 10_000;

/// What was granted and may be used again.
#[derive(Default)]
pub(super) struct Grants {
    /// User and app of each refresh token.
    refresh: HashMap<String, (usize, String)>,
    order: VecDeque<String>,
    /// User and app of each authorization code.
    codes: HashMap<String, (usize, String)>,
    /// Times of the logins of the last hour, by user.
    logins: HashMap<usize, VecDeque<Micros>>,
}

/// An OAuth error: code and description.
#[derive(Debug, Clone, Copy)]
struct Refused(&'static str, &'static str);

impl From<Refused> for Answer {
    /// An object, not an array (facts 5.5).
    fn from(Refused(error, description): Refused) -> Self {
        Self::json(400, obj! {"error": error, "error_description": description}).with("cache-control", "no-store")
    }
}

/// Everything under `/services/oauth2`, `/id` and the discovery document.
pub(super) fn handle(world: &mut World, head: &Head, body: &[u8], origin: &str, now: Micros) -> Answer {
    let parts: Vec<&str> = head.segments.iter().map(String::as_str).collect();
    let form = form(body, head);
    match parts.as_slice() {
        ["services", "oauth2", "token"] if head.method == Method::POST => token(world, head, &form, origin, now),
        ["services", "oauth2", "authorize"] => authorize(world, &form),
        ["services", "oauth2", "revoke"] => revoke(world, &form),
        ["services", "oauth2", "introspect"] if head.method == Method::POST => introspect(world, head, &form, now),
        ["services", "oauth2", "userinfo"] => match head.token().and_then(|token| world.authenticate(token, now)) {
            Some(user) => userinfo(world, user, origin),
            None => Answer::text(403, "text/html;charset=UTF-8", "Bad_OAuth_Token"),
        },
        ["id", org, id] => {
            let user = head.token().and_then(|token| world.authenticate(token, now));
            let known = user.and_then(|user| world.users.get(user)).is_some_and(|user| user.id == *id);
            match user {
                Some(user) if known && *org == ORG_ID => identity(world, user, origin),
                Some(_) => Answer::text(403, "text/html;charset=UTF-8", "Wrong_Org"),
                None => Answer::text(403, "text/html;charset=UTF-8", "Bad_OAuth_Token"),
            }
        }
        [".well-known", "openid-configuration"] => discovery(origin),
        _ => ApiError::not_found().into(),
    }
}

/// Parameters of a form body and of the query.
fn form(body: &[u8], head: &Head) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(body).replace('+', " ");
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decode(name), decode(value)))
        .chain(head.query.iter().cloned())
        .collect()
}

/// The app whose credentials stand in the form or in Basic authentication.
fn app(world: &World, head: &Head, form: &HashMap<String, String>) -> Option<(SimApp, bool)> {
    let basic = head.header("authorization").and_then(|value| value.strip_prefix("Basic ")).and_then(|value| {
        let text = String::from_utf8(STANDARD.decode(value.trim()).ok()?).ok()?;
        let (id, secret) = text.split_once(':')?;
        Some((id.to_owned(), secret.to_owned()))
    });
    let (id, secret) = basic.unwrap_or_else(|| {
        let get = |name: &str| form.get(name).cloned().unwrap_or_default();
        (get("client_id"), get("client_secret"))
    });
    let app = world.config.apps.iter().find(|app| app.client_id == id)?;
    Some((app.clone(), app.client_secret == secret))
}

fn token(world: &mut World, head: &Head, form: &HashMap<String, String>, origin: &str, now: Micros) -> Answer {
    let get = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let granted = match get("grant_type") {
        "client_credentials" => client_credentials(world, head, form),
        "password" => password(world, head, form),
        "refresh_token" => refresh(world, head, form),
        "authorization_code" => code(world, head, form),
        "urn:ietf:params:oauth:grant-type:jwt-bearer" => jwt_bearer(world, get("assertion"), origin, now),
        _ => Err(Refused("unsupported_grant_type", "grant type not supported")),
    };
    let granted = granted.and_then(|(user, app)| {
        world
            .log_in(user, now)
            .map(|token| (user, app, token))
            .map_err(|()| Refused("login_rate_exceeded", "Login Rate Exceeded"))
    });
    match granted {
        Ok((user, app, session)) => {
            let mut answer = success(world, &app, user, &session, origin, now);
            if get("grant_type") == "authorization_code" {
                let refresh = world.grant_refresh(user, &app.client_id);
                if let super::answer::Content::Json(body) = &mut answer.content {
                    body.push("refresh_token", refresh);
                }
            }
            answer
        }
        Err(refused) => {
            world.tally.logins_refused += 1;
            refused.into()
        }
    }
}

type Granted = Result<(usize, SimApp), Refused>;

const INVALID_CLIENT: Refused = Refused("invalid_client", "invalid client credentials");

fn invalid_grant(description: &'static str) -> Refused {
    Refused("invalid_grant", description)
}

fn client_credentials(world: &World, head: &Head, form: &HashMap<String, String>) -> Granted {
    let (app, proven) = app(world, head, form).ok_or(INVALID_CLIENT)?;
    if !proven {
        return Err(INVALID_CLIENT);
    }
    if form.contains_key("scope") {
        return Err(Refused("invalid_request", "scope parameter not supported"));
    }
    let user = app.run_as.as_ref().and_then(|name| world.user_named(name));
    let user = user.ok_or(Refused("invalid_grant", "no client credentials user enabled"))?;
    Ok((user, app))
}

fn password(world: &World, head: &Head, form: &HashMap<String, String>) -> Granted {
    let (app, proven) = app(world, head, form).ok_or(INVALID_CLIENT)?;
    if !proven {
        return Err(INVALID_CLIENT);
    }
    let get = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let user = world.password_login(get("username"), get("password"));
    user.map(|user| (user, app)).ok_or_else(|| invalid_grant("authentication failure"))
}

fn refresh(world: &World, head: &Head, form: &HashMap<String, String>) -> Granted {
    let (app, proven) = app(world, head, form).ok_or(INVALID_CLIENT)?;
    // Public clients have no secret to show.
    if !proven && form.contains_key("client_secret") {
        return Err(INVALID_CLIENT);
    }
    let grant = form.get("refresh_token").and_then(|token| world.grants.refresh.get(token));
    match grant {
        Some((user, client)) if *client == app.client_id => Ok((*user, app)),
        _ => Err(invalid_grant("expired access/refresh token")),
    }
}

fn code(world: &mut World, head: &Head, form: &HashMap<String, String>) -> Granted {
    let (app, _) = app(world, head, form).ok_or(INVALID_CLIENT)?;
    let grant = form.get("code").and_then(|code| world.grants.codes.remove(code));
    match grant {
        Some((user, client)) if client == app.client_id => Ok((user, app)),
        _ => Err(invalid_grant("expired authorization code")),
    }
}

fn jwt_bearer(world: &World, assertion: &str, origin: &str, now: Micros) -> Granted {
    let mut parts = assertion.split('.');
    let (Some(head), Some(claims), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(invalid_grant("invalid assertion"));
    };
    let read = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().and_then(|bytes| Json::parse(&bytes).ok());
    let (Some(header), Some(claims_json)) = (read(head), read(claims)) else {
        return Err(invalid_grant("invalid assertion"));
    };
    let issuer = claims_json.text("iss").unwrap_or_default();
    let app = world.config.apps.iter().find(|app| app.client_id == issuer).ok_or(INVALID_CLIENT)?;
    if let Some(pem) = &app.public_key_pem {
        let signed = format!("{head}.{claims}");
        let proven =
            URL_SAFE_NO_PAD.decode(signature).is_ok_and(|signature| verify(pem, signed.as_bytes(), &signature));
        if !proven || header.text("alg") != Some("RS256") {
            return Err(invalid_grant("invalid assertion"));
        }
    }
    let audiences = ["https://login.salesforce.com", "https://test.salesforce.com", origin];
    let audience = claims_json.text("aud").unwrap_or_default().trim_end_matches("/services/oauth2/token");
    if !audiences.contains(&audience.trim_end_matches('/')) {
        return Err(invalid_grant("Audience validation failed"));
    }
    // Clients send seconds, milliseconds or a string; anything in the future is accepted (facts 5.1).
    let expiry = claims_json.get("exp").and_then(|exp| exp.as_f64().or_else(|| exp.as_str()?.parse().ok()));
    if expiry.is_none_or(|expiry| expiry <= (now / SECOND) as f64) {
        return Err(invalid_grant("expired authorization code"));
    }
    let name = claims_json.text("prn").or_else(|| claims_json.text("sub")).unwrap_or_default();
    let user = world.user_named(name).ok_or_else(|| invalid_grant("user hasn't approved this consumer"))?;
    Ok((user, app.clone()))
}

fn verify(pem: &str, message: &[u8], signed: &[u8]) -> bool {
    let text: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let Ok(der) = STANDARD.decode(text) else { return false };
    signature::UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, der).verify(message, signed).is_ok()
}

fn success(world: &World, app: &SimApp, user: usize, token: &str, origin: &str, now: Micros) -> Answer {
    let id = format!("{origin}/id/{ORG_ID}/{}", user_id(world, user));
    let issued = (now / 1_000).to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, app.client_secret.as_bytes());
    let signature = STANDARD.encode(hmac::sign(&key, format!("{id}{issued}").as_bytes()));
    // No `expires_in`: callers learn from a 401 that a session has ended (facts 5.2).
    Answer::ok(obj! {
        "access_token": token,
        "signature": signature,
        "scope": "api refresh_token",
        "instance_url": origin,
        "id": id,
        "token_type": "Bearer",
        "issued_at": issued,
    })
    .with("cache-control", "no-store")
}

fn user_id(world: &World, user: usize) -> String {
    world.users.get(user).map(|user| user.id.to_string()).unwrap_or_default()
}

/// The code flow without a page: whoever is named in `login_hint` has agreed.
fn authorize(world: &mut World, form: &HashMap<String, String>) -> Answer {
    let get = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let (target, client) = (get("redirect_uri"), get("client_id").to_owned());
    let known = world.config.apps.iter().any(|app| app.client_id == client);
    if !known || target.is_empty() || get("response_type") != "code" {
        return INVALID_CLIENT.into();
    }
    let separator = if target.contains('?') { '&' } else { '?' };
    let state = if get("state").is_empty() { String::new() } else { format!("&state={}", encode(get("state"))) };
    let Some(user) = world.user_named(get("login_hint")) else {
        let denied =
            format!("{target}{separator}error=access_denied&error_description=end-user%20denied%20authorization");
        return Answer::empty(302).with("location", denied + &state);
    };
    let code = world.random_text("aPrx", 40);
    if world.grants.codes.len() < SWEEP_FROM {
        world.grants.codes.insert(code.clone(), (user, client));
    }
    Answer::empty(302).with("location", format!("{target}{separator}code={code}{state}"))
}

fn encode(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

fn revoke(world: &mut World, form: &HashMap<String, String>) -> Answer {
    let token = form.get("token").map(String::as_str).unwrap_or_default();
    let known = world.sessions.remove(token).is_some() | world.grants.refresh.remove(token).is_some();
    if known { Answer::empty(200) } else { Refused("invalid_token", "invalid token").into() }
}

fn introspect(world: &mut World, head: &Head, form: &HashMap<String, String>, now: Micros) -> Answer {
    let Some((app, true)) = app(world, head, form) else {
        return Answer::json(401, obj! {"error": "invalid_client", "error_description": "invalid client credentials"});
    };
    let token = form.get("token").map(String::as_str).unwrap_or_default();
    let session = world.sessions.get(token).cloned();
    let live = session.filter(|session| session.idle.is_none_or(|idle| now < session.active + idle));
    let Some(session) = live else { return Answer::ok(obj! {"active": false}) };
    let until = session.active + session.idle.unwrap_or(super::clock::DAY);
    Answer::ok(obj! {
        "active": true,
        "scope": "api refresh_token",
        "client_id": app.client_id,
        "username": world.username(Some(session.user)),
        "sub": format!("https://login.salesforce.com/id/{ORG_ID}/{}", user_id(world, session.user)),
        "token_type": "access_token",
        "exp": until / SECOND,
        "iat": session.active / SECOND,
        "nbf": session.active / SECOND,
    })
}

fn urls(origin: &str, user: &str) -> Json {
    let mut urls = obj! {};
    for (name, path) in [
        ("enterprise", "/services/Soap/c/{version}/"),
        ("metadata", "/services/Soap/m/{version}/"),
        ("partner", "/services/Soap/u/{version}/"),
        ("rest", "/services/data/v{version}/"),
        ("sobjects", "/services/data/v{version}/sobjects/"),
        ("search", "/services/data/v{version}/search/"),
        ("query", "/services/data/v{version}/query/"),
        ("recent", "/services/data/v{version}/recent/"),
        ("tooling_rest", "/services/data/v{version}/tooling/"),
        ("feeds", "/services/data/v{version}/chatter/feeds"),
    ] {
        // Absolute, and a client that follows one goes past a gateway unless it is rewritten (facts 11, hazard 2).
        urls.push(name, format!("{origin}{path}"));
    }
    urls.push("profile", format!("{origin}/{user}"));
    urls
}

fn userinfo(world: &World, user: usize, origin: &str) -> Answer {
    let (id, name) = (user_id(world, user), world.username(Some(user)));
    Answer::ok(obj! {
        "sub": format!("{origin}/id/{ORG_ID}/{id}"),
        "user_id": id.clone(),
        "organization_id": ORG_ID,
        "preferred_username": name.clone(),
        "name": name.split('@').next().unwrap_or_default(),
        "email": name,
        "email_verified": true,
        "zoneinfo": "Europe/Berlin",
        "profile": format!("{origin}/{id}"),
        "urls": urls(origin, &id),
        "active": true,
        "user_type": "STANDARD",
        "language": "en_US",
        "locale": "en_US",
    })
}

fn identity(world: &World, user: usize, origin: &str) -> Answer {
    let (id, name) = (user_id(world, user), world.username(Some(user)));
    Answer::ok(obj! {
        "id": format!("{origin}/id/{ORG_ID}/{id}"),
        "asserted_user": true,
        "user_id": id.clone(),
        "organization_id": ORG_ID,
        "username": name.clone(),
        "display_name": name.split('@').next().unwrap_or_default(),
        "email": name,
        "active": true,
        "user_type": "STANDARD",
        "urls": urls(origin, &id),
    })
}

fn discovery(origin: &str) -> Answer {
    let mut body = obj! {"issuer": origin};
    for (name, path) in [
        ("authorization_endpoint", "authorize"),
        ("token_endpoint", "token"),
        ("revocation_endpoint", "revoke"),
        ("userinfo_endpoint", "userinfo"),
        ("introspection_endpoint", "introspect"),
    ] {
        body.push(name, format!("{origin}/services/oauth2/{path}"));
    }
    body.push("jwks_uri", format!("{origin}/id/keys"));
    Answer::ok(body)
}

impl World {
    pub(super) fn user_named(&self, name: &str) -> Option<usize> {
        self.users.iter().position(|user| user.username.eq_ignore_ascii_case(name))
    }

    /// The user with this name and password. A security token behind the password is not looked at.
    pub(super) fn password_login(&self, name: &str, password: &str) -> Option<usize> {
        let at = self.user_named(name)?;
        let known = &self.users.get(at)?.password;
        (!known.is_empty() && password.starts_with(known.as_str())).then_some(at)
    }

    /// Makes a session, unless the user logged in too often within an hour (facts 1.5).
    pub(super) fn log_in(&mut self, user: usize, now: Micros) -> Result<String, ()> {
        let limits = self.config.sessions.clone();
        let times = self.grants.logins.entry(user).or_default();
        while times.front().is_some_and(|at| now.saturating_sub(*at) >= 3_600 * SECOND) {
            times.pop_front();
        }
        if times.len() >= limits.logins_per_hour {
            return Err(());
        }
        times.push_back(now);
        self.tally.logins += 1;
        if self.sessions.len() > SWEEP_FROM {
            self.sessions.retain(|_, session| session.idle.is_none_or(|idle| now < session.active + idle));
        }
        let token = self.random_text(&format!("{}!AQ", &ORG_ID[..15]), 60);
        let idle = Some(seconds(limits.idle_seconds));
        self.sessions.insert(token.clone(), Session { user, active: now, idle });
        Ok(token)
    }

    /// Makes a refresh token; the user's oldest one for the app ends if there are too many.
    pub(super) fn grant_refresh(&mut self, user: usize, client: &str) -> String {
        let token = self.random_text("5Aep", 60);
        self.add_refresh(&token, user, client);
        token
    }

    /// Makes a refresh token known.
    pub(super) fn add_refresh(&mut self, token: &str, user: usize, client: &str) {
        let grants = &mut self.grants;
        grants.order.retain(|known| grants.refresh.contains_key(known));
        let own = |known: &&String| grants.refresh.get(*known).is_some_and(|(u, c)| *u == user && c == client);
        if grants.order.iter().filter(own).count() >= REFRESH_TOKENS
            && let Some(oldest) = grants.order.iter().find(own).cloned()
        {
            grants.refresh.remove(&oldest);
        }
        grants.refresh.insert(token.to_owned(), (user, client.to_owned()));
        grants.order.push_back(token.to_owned());
    }

    pub(super) fn random_text(&mut self, prefix: &str, length: usize) -> String {
        let mut text = prefix.to_owned();
        text.extend((0..length).map(|_| self.rng.alphanumeric()));
        text
    }
}
