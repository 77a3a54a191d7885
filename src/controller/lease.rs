//! Leader election by a Lease: at most one controller acts at a time.
//!
//! **Invariant:** every write of the Lease names the version it was read at, so of two candidates one
//! loses. A holder that could not renew in time stops acting before another may take over: expiry is
//! measured by the own monotonic clock, from before the last good renewal, and nothing of a leader's work
//! outlives its Lease.

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use std::time::Duration;
use tokio::{sync::watch, time::Instant};

/// A Lease that is not renewed for this long may be taken (as client-go has it).
const DURATION: Duration = Duration::from_secs(15);
/// A holder that did not renew for this long stops.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two tries.
const RETRY: Duration = Duration::from_secs(2);

/// How long a leader that is told to stop may take to end what it has begun.
const STOP_MAX: Duration = Duration::from_secs(10);

/// A candidate for one Lease.
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
    /// The holder's last renewal as seen, and when that was seen.
    observed: Option<(Option<Timestamp>, Instant)>,
    /// From before the last good renewal of our own.
    renewed: Instant,
}

impl Candidate {
    /// A candidate with an identity that no other has (the pod's name).
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.into(), identity: identity.into(), observed: None, renewed: Instant::now() }
    }

    /// Waits until the Lease is ours.
    pub async fn acquire(&mut self) {
        loop {
            let began = Instant::now();
            match tokio::time::timeout(DEADLINE, self.try_take()).await {
                Ok(Ok(true)) => {
                    self.renewed = began;
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => tracing::warn!(%error, "lease not taken"),
                Err(_) => tracing::warn!("lease not taken: no answer within {}s", DEADLINE.as_secs()),
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Does the work of a leader until told to stop, or until the Lease is lost; says whether it was lost.
    ///
    /// Told to stop, `work` may end what it has begun, while the Lease is ours. In no case does any of it go on
    /// after this returns: another may lead.
    pub async fn lead<W>(
        &mut self,
        work: impl FnOnce(watch::Receiver<bool>) -> W,
        told: impl Future<Output = ()>,
    ) -> bool
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (stop, stopped) = watch::channel(false);
        let mut work = tokio::spawn(work(stopped));
        let mut lost = tokio::select! {
            () = self.hold() => true,
            () = told => false,
        };
        stop.send_replace(true);
        if !lost {
            tokio::select! {
                _ = &mut work => return false,
                () = self.hold() => lost = true,
                () = tokio::time::sleep(STOP_MAX) => tracing::warn!("work under way is given up"),
            }
        }
        work.abort();
        let _aborted = work.await;
        lost
    }

    /// Renews the Lease; returns when it is lost.
    pub async fn hold(&mut self) {
        loop {
            tokio::time::sleep(RETRY.min(self.left())).await;
            let (began, left) = (Instant::now(), self.left());
            if left.is_zero() {
                return;
            }
            match tokio::time::timeout(left, self.try_take()).await {
                Ok(Ok(true)) => self.renewed = began,
                Ok(Ok(false)) => return,
                Ok(Err(error)) => tracing::warn!(%error, "lease not renewed"),
                Err(_) => return,
            }
        }
    }

    /// How long we may lead without another renewal.
    fn left(&self) -> Duration {
        DEADLINE.saturating_sub(self.renewed.elapsed())
    }

    /// Gives the Lease back, so that another need not wait for its end.
    pub async fn release(&mut self) {
        let _late = tokio::time::timeout(RETRY, self.give_back()).await;
    }

    async fn give_back(&mut self) {
        if let Ok(Some(mut lease)) = self.api.get_opt(&self.name).await
            && lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) == Some(&self.identity)
        {
            if let Some(spec) = lease.spec.as_mut() {
                spec.holder_identity = None;
            }
            let _unheld = self.api.replace(&self.name, &PostParams::default(), &lease).await;
        }
    }

    async fn try_take(&mut self) -> kube::Result<bool> {
        let Some(found) = self.api.get_opt(&self.name).await? else {
            let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.spec(None)) };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = found.spec.clone().unwrap_or_default();
        let ours = spec.holder_identity.as_deref() == Some(self.identity.as_str());
        if !ours && spec.holder_identity.is_some() && !self.expired(spec.renew_time.as_ref().map(|t| t.0)) {
            return Ok(false);
        }
        let lease = Lease { spec: Some(self.spec(Some(&spec))), ..found };
        won(self.api.replace(&self.name, &PostParams::default(), &lease).await)
    }

    /// Whether the holder was silent for the Lease's time, by our own clock.
    fn expired(&mut self, renewed: Option<Timestamp>) -> bool {
        match self.observed {
            Some((seen, since)) if seen == renewed => since.elapsed() >= DURATION,
            _ => {
                self.observed = Some((renewed, Instant::now()));
                false
            }
        }
    }

    fn spec(&self, old: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = old.is_some_and(|o| o.holder_identity.as_deref() == Some(&self.identity));
        let transitions = old.and_then(|o| o.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(15),
            acquire_time: if ours { old.and_then(|o| o.acquire_time.clone()) } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if ours { transitions } else { transitions + 1 }),
            ..LeaseSpec::default()
        }
    }
}

/// Another was faster: not an error.
fn won(result: kube::Result<Lease>) -> kube::Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}
