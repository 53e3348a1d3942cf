//! The script of a simulated org: what a test makes happen.

use std::time::Duration;

use super::Sim;
use super::clock::SECOND;
use super::config::SimRows;
use super::faults::Fault;
use super::world::Maintenance;

/// A handle to make things happen; the same as the control path, in the process.
#[derive(Debug, Clone, Copy)]
pub struct SimScript<'a> {
    pub(super) sim: &'a Sim,
}

impl SimScript<'_> {
    /// Arms a fault; earlier ones win. Returns its number.
    pub fn fault(&self, fault: Fault) -> u64 {
        self.sim.world().faults.add(fault)
    }

    /// Disarms one fault.
    pub fn remove_fault(&self, id: u64) {
        self.sim.world().faults.remove(id);
    }

    /// Disarms all faults.
    pub fn clear_faults(&self) {
        self.sim.world().faults.clear();
    }

    /// Other apps spend so many calls per minute from now on, without any request.
    pub fn dark(&self, per_minute: f64) {
        let now = self.sim.clock().now();
        self.sim.world().meter.set_dark(now, per_minute);
    }

    /// Other apps spent so many calls just now.
    pub fn spend_dark(&self, calls: u64) {
        let now = self.sim.clock().now();
        self.sim.world().meter.spend_dark(now, calls);
    }

    /// Changes the daily limit.
    pub fn set_daily_limit(&self, limit: u64) {
        self.sim.world().meter.limit = limit;
    }

    /// Changes how far a soft limit may be passed; `0` makes it hard.
    pub fn set_overage(&self, calls: u64) {
        self.sim.world().meter.overage = calls;
    }

    /// The header shows the usage of so many seconds ago from now on.
    pub fn set_header_lag(&self, seconds: u64) {
        self.sim.world().lag_seconds = seconds;
    }

    /// Every call takes this long from now on, milliseconds of simulated time.
    pub fn latency(&self, latency_ms: u64, jitter_ms: u64) {
        let mut world = self.sim.world();
        world.latency_ms = latency_ms;
        world.jitter_ms = jitter_ms;
    }

    /// Moves simulated time forward. Calls that run are not woken.
    pub fn advance(&self, by: Duration) {
        self.sim.clock().advance(by);
    }

    /// Ends a session, as an administrator would.
    pub fn revoke(&self, token: &str) {
        self.sim.world().sessions.remove(token);
    }

    /// Makes a session for a user; `false` if there is no such user. `idle` is its idle time, none: it never ends.
    pub fn grant(&self, token: &str, username: &str, idle: Option<Duration>) -> bool {
        let now = self.sim.clock().now();
        let mut world = self.sim.world();
        let Some(user) = world.users.iter().position(|user| user.username == username) else { return false };
        let session = super::world::Session { user, active: now, idle: idle.map(super::clock::micros) };
        world.sessions.insert(token.to_owned(), session);
        true
    }

    /// Changes the metadata of an object, so that describes are no longer unmodified.
    pub fn touch_metadata(&self, object: &str) {
        let now = self.sim.clock().now();
        let mut world = self.sim.world();
        let Some(at) = world.schema.object(object) else { return };
        if let Some(changed) = world.metadata.get_mut(at) {
            // To the second, as HTTP dates are, and never before what was said last.
            *changed = (now / SECOND * SECOND).max(*changed + SECOND);
        }
    }

    /// Hides or shows `Object.Field` for a user; `false` if there is no such user or field.
    pub fn hide_field(&self, username: &str, path: &str, hidden: bool) -> bool {
        let mut world = self.sim.world();
        let schema = std::sync::Arc::clone(&world.schema);
        let found = path.split_once('.').and_then(|(object, field)| {
            let object = schema.object(object)?;
            Some((object, schema.objects[object].field(field)?))
        });
        let user = world.users.iter_mut().find(|user| user.username == username);
        let (Some((object, field)), Some(user)) = (found, user) else { return false };
        user.set_field_hidden(object, field, hidden);
        true
    }

    /// Changes which rows a user sees; `false` if there is no such user.
    pub fn set_rows(&self, username: &str, rows: SimRows) -> bool {
        let mut world = self.sim.world();
        let user = world.users.iter_mut().find(|user| user.username == username);
        user.map(|user| user.set_rows(rows)).is_some()
    }

    /// Forgets all query cursors.
    pub fn expire_cursors(&self) {
        self.sim.world().cursors.clear();
    }

    /// Makes a refresh token known; `false` if there is no such user.
    pub fn grant_refresh(&self, token: &str, username: &str, client_id: &str) -> bool {
        let mut world = self.sim.world();
        let Some(user) = world.user_named(username) else { return false };
        world.add_refresh(token, user, client_id);
        true
    }

    /// Publishes an event to CometD subscribers of a channel and returns its replay id.
    pub fn publish(&self, channel: &str, payload: &serde_json::Value) -> u64 {
        let now = self.sim.clock().now();
        let payload = super::json::Json::parse(payload.to_string().as_bytes()).unwrap_or_default();
        self.sim.world().cometd.publish(channel, payload, now)
    }

    /// Forgets all CometD clients: their next message is answered with `403::Unknown client`.
    pub fn forget_cometd_clients(&self) {
        self.sim.world().cometd.forget_clients();
    }

    /// Planned downtime: everything is answered with 503 and a page.
    pub fn take_down(&self) {
        self.sim.world().maintenance = Maintenance::Down;
    }

    /// Read-only mode: writes and Bulk reads are refused.
    pub fn make_read_only(&self) {
        self.sim.world().maintenance = Maintenance::ReadOnly;
    }

    /// Ends either kind of maintenance.
    pub fn end_maintenance(&self) {
        self.sim.world().maintenance = Maintenance::None;
    }
}
