//! The sign of life: a Lease of this node in the agent's own namespace, which the controller reads.
//!
//! `mod` runs it beside the followers.
//!
//! **Invariant:** says only that the agent runs; nothing is locked by it.

use crate::api::manager;
use k8s_openapi::{api::coordination::v1::Lease, jiff::Timestamp};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::time::Duration;

/// Between two renewals. A graceful cancel waits 10 s for a sign of life: a renewal, however slow, is one.
pub(super) const RENEW: Duration = Duration::from_secs(5);
/// A Lease that is older is of an agent that is silent.
const DURATION_S: i32 = 30;
/// Longest wait for one renewal.
const TIMEOUT: Duration = Duration::from_secs(4);

/// Renews the Lease for ever. A renewal that fails is told and tried again in its turn.
pub(super) async fn renew(client: Client, namespace: String, node: String, holder: String) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let name = name(&node);
    let mut ticks = tokio::time::interval(RENEW);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let patch = Patch::Apply(body(&name, &namespace, &holder, Timestamp::now()));
        let params = PatchParams::apply(manager::AGENT).force();
        match tokio::time::timeout(TIMEOUT, leases.patch(&name, &params, &patch)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::warn!(%error, lease = name, "failed to renew the lease"),
            Err(_) => tracing::warn!(lease = name, "failed to renew the lease in time"),
        }
    }
}

/// Name of a node's Lease.
fn name(node: &str) -> String {
    format!("windlass-agent-{node}")
}

fn body(name: &str, namespace: &str, holder: &str, now: Timestamp) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": DURATION_S,
            "renewTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(now),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_as_the_api_takes_it() {
        let body = body(&name("n1"), "windlass-system", "agent-x", Timestamp::UNIX_EPOCH);
        assert_eq!(body["metadata"]["name"], "windlass-agent-n1");
        assert_eq!(body["spec"]["renewTime"], "1970-01-01T00:00:00.000000Z");
        let lease: Lease = serde_json::from_value(body).unwrap();
        assert_eq!(lease.spec.unwrap().lease_duration_seconds, Some(30));
    }
}
