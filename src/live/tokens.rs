//! The keys of a configuration, and how identities share their tokens with their like in other replicas.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::{Lasting, Unusable};
use crate::config::{Config, Secret, State};
use crate::edge::facade::token::Sealer;
use crate::exchange::vault::{Endpoint, Flow, Sharing, Shelf};
use crate::salesforce::PrincipalKey;
use crate::seal::{NoSeal, drawn};

/// Gives the place of that name, of that org, in the store that replicas share.
pub type Shelves = Arc<dyn Fn(&str, &str) -> Box<dyn Shelf> + Send + Sync>;

/// What keys that replicas have in common are drawn for.
const PRINCIPALS: &[u8] = b"principals";
const GATEWAY_TOKENS: &[u8] = b"gateway tokens";

/// Secrets that all replicas have; none if there are no others.
fn common(config: &Config) -> &[Secret] {
    match &config.state {
        State::Redis { redis, .. } => &redis.keys,
        State::Memory | State::Folder { .. } => &[],
    }
}

/// What hashes principals under `config`: the configured key, one that all replicas draw alike, or one made up for this
/// process.
pub(super) fn principal_key(config: &Config, made_up: &[u8; 32]) -> Result<PrincipalKey, Unusable> {
    Ok(match (&config.principal_key, common(config).first()) {
        (Some(key), _) => PrincipalKey::new(key.expose().as_bytes()),
        (None, Some(secret)) => {
            let key = drawn(secret.expose().as_bytes(), PRINCIPALS);
            PrincipalKey::new(key.map_err(|error| Unusable(format!("state.redis.keys: {error}")))?.as_slice())
        }
        (None, None) => PrincipalKey::new(made_up),
    })
}

/// What seals gateway tokens under `config`: the configured keys, ones that all replicas draw alike, or one made up for this
/// process.
pub(super) fn sealer(config: &Config, made_up: &[u8; 32]) -> Result<Sealer, Unusable> {
    let configured = &config.gateway_tokens.keys;
    if !configured.is_empty() {
        let sealer = Sealer::new(configured.iter().map(|key| key.expose().as_bytes()));
        return sealer.map_err(|error| Unusable(format!("gateway_tokens: {error}")));
    }
    let alike = common(config).iter().map(|secret| drawn(secret.expose().as_bytes(), GATEWAY_TOKENS));
    let alike: Vec<Zeroizing<[u8; 32]>> =
        alike.collect::<Result<_, NoSeal>>().map_err(|error| Unusable(format!("state.redis.keys: {error}")))?;
    let made_up = alike.is_empty().then_some(made_up.as_slice());
    Sealer::new(alike.iter().map(|key| key.as_slice()).chain(made_up))
        .map_err(|error| Unusable(format!("gateway_tokens: {error}")))
}

/// How the identity `name` of `org` shares its tokens; `None` if there are no other replicas.
pub(super) fn sharing(
    config: &Config,
    lasting: &Lasting,
    (org, name): (&str, &str),
    flow: &Flow,
    endpoint: &Endpoint,
) -> Result<Option<Arc<Sharing>>, NoSeal> {
    let Some(shelves) = &lasting.shelves else { return Ok(None) };
    let shelf = shelves(org, &Sharing::place(name, flow, endpoint));
    let secrets = common(config).iter().map(|secret| secret.expose().as_bytes());
    Sharing::new(shelf, secrets, (org, name), flow, endpoint).map(|sharing| Some(Arc::new(sharing)))
}

#[cfg(feature = "redis")]
pub use shared::shelves;

#[cfg(feature = "redis")]
mod shared {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::future::BoxFuture;

    use super::Shelves;
    use crate::exchange::vault::{NoAnswer, Seen, Shelf, Swapped};
    use crate::store::{self, Store};

    /// Places in `store`.
    pub fn shelves(store: Store) -> Shelves {
        Arc::new(move |org, what| Box::new(Cell { store: store.clone(), key: store.key(org, what) }))
    }

    struct Cell {
        store: Store,
        key: String,
    }

    fn seen(store::Seen { value, version, now, run }: store::Seen) -> Seen {
        Seen { value, version, run, now }
    }

    impl Shelf for Cell {
        fn replica(&self) -> &str {
            self.store.replica()
        }

        fn look(&self) -> BoxFuture<'_, Result<Seen, NoAnswer>> {
            Box::pin(async { self.store.look(&self.key).await.map(seen).map_err(|_| NoAnswer) })
        }

        fn swap(&self, before: Seen, value: Vec<u8>, keep: Duration) -> BoxFuture<'_, Result<Swapped, NoAnswer>> {
            Box::pin(async move {
                let Seen { value: _, version, run, now } = before;
                let before = store::Seen { value: None, version, now, run };
                match self.store.swap(&self.key, &before, &value, keep).await {
                    Ok(store::Swap::Done(there)) => Ok(Swapped::Done(seen(there))),
                    Ok(store::Swap::Lost(there)) => Ok(Swapped::Lost(seen(there))),
                    Err(_) => Err(NoAnswer),
                }
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::config::{Outside, check_text};
    use crate::edge::facade::token::Pass;

    struct Variables;

    impl Outside for Variables {
        fn variable(&self, name: &str) -> Option<String> {
            (name == "REDIS").then(|| "redis://redis".to_owned()).or_else(|| Some(format!("{name:-<32}")))
        }

        fn read(&self, _: &Path) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::NotFound.into())
        }
    }

    fn config(more: &str) -> Config {
        let text = format!("orgs: [{{name: prod, instance_url: 'https://acme.my.salesforce.com'}}]\n{more}\n");
        check_text(&text, Path::new("/etc/wk/wk.yaml"), &Variables).unwrap()
    }

    fn redis(keys: &str) -> String {
        format!("state: {{redis: {{url: {{env: REDIS}}, keys: [{keys}]}}}}")
    }

    fn principal(config: &Config, made_up: u8) -> crate::call::Principal {
        principal_key(config, &[made_up; 32]).unwrap().identity("prod", "integration")
    }

    /// Whether a token that was made under `from` is good under `to`, in another process.
    fn passes(from: &Config, to: &Config) -> bool {
        let pass = Pass {
            org: "prod".into(),
            caller: "shop".into(),
            identity: "integration".into(),
            expires: Duration::from_hours(1),
        };
        let token = sealer(from, &[1; 32]).unwrap().seal(&pass, "00D000000000001").unwrap();
        sealer(to, &[2; 32]).unwrap().open(&token, Duration::ZERO).is_ok()
    }

    #[test]
    fn replicas_draw_the_same_keys_from_what_they_have_in_common() {
        let (shared, again, other) =
            (config(&redis("{env: A}")), config(&redis("{env: A}")), config(&redis("{env: B}")));
        assert_eq!(principal(&shared, 1), principal(&again, 2));
        assert_ne!(principal(&shared, 1), principal(&other, 1));
        assert!(passes(&shared, &again) && !passes(&shared, &other));
        let between = config(&redis("{env: B}, {env: A}"));
        assert!(passes(&shared, &between) && passes(&between, &other), "keys are replaced without a gap");
    }

    #[test]
    fn what_is_configured_counts_and_alone_keys_are_made_up() {
        let own = "principal_key: {env: P}\ngateway_tokens: {keys: [{env: G}]}";
        let (alone, shared) = (config(own), config(&format!("{}\n{own}", redis("{env: A}"))));
        assert_eq!(principal(&alone, 1), principal(&shared, 2));
        assert!(passes(&alone, &shared));
        let nothing = config("");
        assert_ne!(principal(&nothing, 1), principal(&nothing, 2));
        assert!(!passes(&nothing, &nothing));
    }
}
