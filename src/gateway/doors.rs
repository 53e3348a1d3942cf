//! The gateway's own addresses: bound once at the start, their certificates read again whenever files may have changed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::config::{self, Config};
use crate::edge::Listener;
use crate::edge::listener::ListenerCounts;
use crate::edge::tls::{ClientCertificates, Loaded, Tls, TlsError, TlsFiles};

use super::StartError;

/// One address on which callers are met.
#[derive(Debug, Clone)]
pub struct Door {
    /// As configured at the start; port 0 is any.
    configured: SocketAddr,
    /// As bound.
    pub address: SocketAddr,
    /// TLS, if it is spoken here.
    pub tls: Option<Arc<Tls>>,
    /// What the listener counts.
    pub counts: Arc<ListenerCounts>,
}

/// Binds every configured address.
pub fn open(config: &Config) -> Result<Vec<(Listener, Door)>, StartError> {
    config.listeners.iter().enumerate().map(|(place, listener)| open_one(place, listener)).collect()
}

fn open_one(place: usize, configured: &config::Listener) -> Result<(Listener, Door), StartError> {
    let tls = match &configured.tls {
        Some(tls) => Some(Arc::new(Tls::load(files(tls))?)),
        None => None,
    };
    let listener = Listener::bind(configured.address, place, tls.clone())?;
    let address = listener.address().map_err(super::system("cannot tell a listener's address"))?;
    let door = Door { configured: configured.address, address, tls, counts: Arc::clone(&listener.counts) };
    Ok((listener, door))
}

fn files(tls: &config::ServerTls) -> TlsFiles {
    TlsFiles {
        certificate: tls.certificate.clone(),
        key: tls.key.clone(),
        clients: match (&tls.client_ca, tls.client_ca_required) {
            (None, _) => ClientCertificates::NotAsked,
            (Some(ca), false) => ClientCertificates::Optional(ca.clone()),
            (Some(ca), true) => ClientCertificates::Required(ca.clone()),
        },
    }
}

/// Certificates that were read and are not in force yet.
#[derive(Debug)]
pub struct Renewal(Vec<(Arc<Tls>, Loaded)>);

impl Renewal {
    /// Reads what `config` names for each of `doors`. Listeners that it adds, moves or removes need a restart and are left
    /// as they are.
    pub fn read(doors: &[Door], config: &Config) -> Result<Self, TlsError> {
        let mut changed = Vec::new();
        for (place, door) in doors.iter().enumerate() {
            let Some(tls) = &door.tls else { continue };
            let is_it = |listener: &&config::Listener| listener.address == door.configured;
            let now = config.listeners.get(place).filter(is_it).or_else(|| config.listeners.iter().find(is_it));
            let named = now.and_then(|listener| listener.tls.as_ref()).map_or_else(|| tls.files(), files);
            if let Some(fresh) = tls.fresh(named)? {
                changed.push((Arc::clone(tls), fresh));
            }
        }
        Ok(Self(changed))
    }

    /// Puts them in force; returns the certificates that changed.
    pub fn put(self) -> Vec<PathBuf> {
        self.0
            .into_iter()
            .map(|(tls, fresh)| {
                let file = fresh.certificate().to_owned();
                tls.put(fresh);
                file
            })
            .collect()
    }
}
