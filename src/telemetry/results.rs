//! How things ended, as values of labels: part of [`super::metrics`].

use std::borrow::Cow;

use super::metrics::LabelValue;
use crate::outcome::FailureKind;

/// How a log-in of an identity ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefreshResult {
    /// With a token.
    Ok,
    /// Without; it may work later.
    Failed,
    /// Without, for good.
    Refused,
}

impl LabelValue for RefreshResult {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Refused => "refused",
        })
    }
}

/// What came of sharing an identity's tokens with other replicas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ShareResult {
    /// A token was taken from another replica.
    Adopted,
    /// One was given to the others.
    Published,
    /// One was there that could not be opened.
    Unreadable,
    /// The store did not answer, and the identity logged in for itself.
    StoreDown,
}

impl LabelValue for ShareResult {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Adopted => "adopted",
            Self::Published => "published",
            Self::Unreadable => "unreadable",
            Self::StoreDown => "store_down",
        })
    }
}

/// How a log-in of an app ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LoginResult {
    /// With a gateway token.
    Granted,
    /// Its key, password or assertion proved nothing.
    Denied,
    /// There were too many.
    Limited,
}

impl LabelValue for LoginResult {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Limited => "limited",
        })
    }
}

/// What a connection to Salesforce is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectionState {
    /// Open and unused.
    Idle,
    /// Carrying a call.
    Busy,
    /// Being opened.
    Connecting,
}

impl LabelValue for ConnectionState {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Connecting => "connecting",
        })
    }
}

/// How an attempt to connect to Salesforce went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConnectResult {
    /// The connection stands.
    Ok,
    /// What failed.
    Failed(FailureKind),
}

impl LabelValue for ConnectResult {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Ok => Cow::Borrowed("ok"),
            Self::Failed(kind) => kind.text(),
        }
    }
}

/// How an attempt to load the configuration went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReloadResult {
    /// It is in force.
    Ok,
    /// The one before stays in force.
    Failed,
}

impl LabelValue for ReloadResult {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        })
    }
}
