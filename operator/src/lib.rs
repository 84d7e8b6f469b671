//! Reconciles TrainSales into fleets that sell.
//!
//! Two loops. `reconcile` makes the objects that a sale asks for and says how it does; `fleet`
//! asks every node four times a second, and hands out shares. They meet in two channels, and
//! neither waits for the other: a fail-over of three seconds must not queue behind a roll-out.
//!
//! In reading order:
//! - [`settings`], [`names`]: what the operator is told, and what its objects are called.
//! - [`dereference`] (reads), [`validate`] (pure), [`build`] (pure), [`apply`] (writes): the
//!   four steps of a reconcile; [`founding`]: how a ledger begins; [`record`]: what is left of it; [`rollout`]: when
//!   pods are replaced.
//! - [`status`], [`pods`]: what is said of it; [`controller`]: the loop around all that.
//! - [`fleet`]: the other loop; [`probe`]: how it reaches nodes.
//! - [`lease`], [`key`]: one operator at a time, and how nodes know it; [`serve`], [`telemetry`].

pub mod apply;
pub mod build;
pub mod controller;
pub mod dereference;
pub mod fleet;
pub mod founding;
pub mod key;
pub mod lease;
pub mod names;
pub mod pods;
pub mod probe;
pub mod record;
pub mod rollout;
pub mod serve;
pub mod settings;
pub mod status;
pub mod telemetry;
pub mod validate;

use std::sync::Arc;

use futures::future;
use kube::Client;
use kube::runtime::events::{Recorder, Reporter};
use tokio::signal::unix::{SignalKind, signal};

use crate::controller::Parts;
use crate::lease::Elector;
use crate::settings::Settings;
use crate::validate::Config;

/// Why the process ends though nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something at the start.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// The API server is not known, or refused something at the start.
    #[error("the API server: {0}")]
    Kube(#[from] kube::Error),
    /// There is no key to sign with.
    #[error("{0}")]
    Key(#[from] key::KeyError),
    /// Another operator may hold the lease by now.
    #[error("the lease is lost; another operator goes on")]
    LeaseLost,
    /// The loops ended, which they never should.
    #[error("the controller ended")]
    Ended,
}

/// Runs the operator until it is told to end.
///
/// # Errors
/// [`Error`] says what ended it.
pub async fn run(settings: Settings) -> Result<(), Error> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let client = Client::try_default().await?;
    let metrics = telemetry::Metrics::new();
    let namespace = settings.pod_namespace.clone();
    let mut elector =
        Elector::new(client.clone(), &namespace, &settings.pod_name, settings.lease_seconds);
    let health = serve::Health { alive: elector.alive.subscribe(), metrics: metrics.clone() };
    serve::listen(health, settings.probe_port, settings.metrics_port).await?;
    tokio::select! {
        () = elector.acquire() => tracing::info!(name = settings.pod_name, "the lease is ours"),
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    metrics.leader.set(1);
    let key = key::load(client.clone(), &namespace, &settings.operator_key_secret).await?;
    let config = Config::new(&settings, key.public().to_string());
    let reporter = Reporter {
        controller: names::MANAGER.to_owned(),
        instance: Some(settings.pod_name.clone()),
    };
    let parts = Parts {
        recorder: Recorder::new(client.clone(), reporter),
        client,
        config,
        key: Arc::new(key),
        operator: settings.pod_name.clone(),
        metrics,
    };
    let result = tokio::select! {
        () = look_after(parts, &settings) => Err(Error::Ended),
        () = elector.hold() => return Err(Error::LeaseLost),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    // With everything stopped, and only then.
    elector.release().await;
    result
}

async fn look_after(parts: Parts, settings: &Settings) {
    let namespaces = settings.namespaces();
    if namespaces.is_empty() {
        return controller::run(parts, None).await;
    }
    let each = namespaces.into_iter().map(|n| controller::run(parts.clone(), Some(n)));
    future::join_all(each).await;
}
