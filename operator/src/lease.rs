//! One operator at a time, by a Lease.
//!
//! Two at once could do no harm: every record counts by its version, every object by its field
//! manager. One at a time is only quieter. So nothing is built on the lease being true; it is
//! built on a process that has lost it ending at once, with all that it had in mind.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;

/// The Lease's name, in the operator's namespace.
pub const NAME: &str = "stationmaster-operator";

/// What a look at the Lease says. Pure: see [`judge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is ours: renew it.
    Ours,
    /// Nobody holds it, or who did has not renewed it for as long as it said: take it.
    Free,
    /// Another holds it.
    Taken,
}

/// What was seen of the Lease, and since when it has looked like that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    holder: String,
    renewed: Option<MicroTime>,
    since: Instant,
}

/// Judges a Lease by our own clock alone: a holder is gone when its renewals have not moved for
/// the time that it promised, however its clock may differ from ours.
#[must_use]
pub fn judge(spec: &LeaseSpec, me: &str, last: &mut Option<Sight>, now: Instant) -> Verdict {
    let holder = spec.holder_identity.clone().unwrap_or_default();
    if holder.is_empty() {
        return Verdict::Free;
    }
    if holder == me {
        return Verdict::Ours;
    }
    let renewed = spec.renew_time.clone();
    let same = last.as_ref().filter(|s| s.holder == holder && s.renewed == renewed);
    let since = same.map_or(now, |s| s.since);
    *last = Some(Sight { holder, renewed, since });
    let promised = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
    if now.duration_since(since) > Duration::from_secs(promised) {
        Verdict::Free
    } else {
        Verdict::Taken
    }
}

/// Holds, or waits for, the Lease.
#[derive(Debug)]
pub struct Elector {
    api: Api<Lease>,
    me: String,
    duration: Duration,
    last: Option<Sight>,
    /// When the API server last answered.
    pub alive: watch::Sender<Instant>,
}

impl Elector {
    /// For this process, by its pod's name.
    #[must_use]
    pub fn new(client: Client, namespace: &str, me: &str, seconds: u16) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            me: me.to_owned(),
            duration: Duration::from_secs(u64::from(seconds)),
            last: None,
            alive: watch::Sender::new(Instant::now()),
        }
    }

    /// A third: two renewals may fail before the lease is lost.
    fn pause(&self) -> Duration {
        self.duration / 3
    }

    /// Returns once the Lease is ours.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
                Ok(false) => (),
                Err(error) => tracing::warn!(%error, "the lease cannot be looked at"),
            }
            // More often than a holder renews, so that a lease that was given up is taken soon.
            tokio::time::sleep(self.pause() / 2).await;
        }
    }

    /// Renews for as long as it can. Returns when the Lease is another's, or could not be
    /// renewed for two thirds of its time: before another may take it.
    pub async fn hold(&mut self) {
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.pause()).await;
            let left = (self.duration * 2 / 3).saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.attempt()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "the lease was not renewed"),
                Err(_) => return,
            }
            if renewed.elapsed() >= self.duration * 2 / 3 {
                return;
            }
        }
    }

    /// Gives the Lease up, so that the next operator need not wait.
    pub async fn release(&self) {
        let Ok(mut lease) = self.api.get(NAME).await else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(self.me.as_str()) {
            return;
        }
        spec.holder_identity = None;
        if let Err(error) = self.api.replace(NAME, &PostParams::default(), &lease).await {
            tracing::warn!(%error, "the lease was not given up");
        }
    }

    /// Whether the Lease is ours now.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        let there = self.api.get_opt(NAME).await?;
        self.alive.send_replace(Instant::now());
        let Some(mut lease) = there else {
            let fresh = Lease {
                metadata: ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() },
                spec: Some(self.spec(0)),
            };
            return won(self.api.create(&PostParams::default(), &fresh).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        let transitions = spec.lease_transitions.unwrap_or(0);
        let next = match judge(&spec, &self.me, &mut self.last, Instant::now()) {
            Verdict::Taken => return Ok(false),
            Verdict::Free => self.spec(transitions + 1),
            Verdict::Ours => {
                LeaseSpec { acquire_time: spec.acquire_time, ..self.spec(transitions) }
            }
        };
        lease.spec = Some(next);
        // The resource version makes this fail if another was quicker.
        won(self.api.replace(NAME, &PostParams::default(), &lease).await)
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: Some(now.clone()),
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

fn won(result: Result<Lease, kube::Error>) -> Result<bool, kube::Error> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(by: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_holder_that_renews_keeps_the_lease_whatever_its_clock_says() {
        let (mut last, start) = (None, Instant::now());
        for second in 0..60 {
            let now = start + Duration::from_secs(u64::try_from(second).unwrap());
            let verdict = judge(&held("other", second), "me", &mut last, now);
            assert_eq!(verdict, Verdict::Taken);
        }
    }

    #[test]
    fn a_holder_that_does_not_renew_loses_it_after_the_time_that_it_promised() {
        let (mut last, start) = (None, Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let spec = held("other", 0);
        assert_eq!(judge(&spec, "me", &mut last, at(0)), Verdict::Taken);
        assert_eq!(judge(&spec, "me", &mut last, at(15)), Verdict::Taken);
        assert_eq!(judge(&spec, "me", &mut last, at(16)), Verdict::Free);
    }

    #[test]
    fn a_lease_that_was_given_up_is_free_at_once() {
        let spec = LeaseSpec { holder_identity: None, ..held("", 0) };
        assert_eq!(judge(&spec, "me", &mut None, Instant::now()), Verdict::Free);
        assert_eq!(judge(&held("me", 0), "me", &mut None, Instant::now()), Verdict::Ours);
    }
}
