//! The controller's metrics, in OpenMetrics form.
//!
//! **Invariant:** labels are from closed sets; nothing that a user names is one.

use super::plan::Plan;
use crate::api::PipelineRun;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    phase: String,
    reason: String,
}

/// Counters of one controller.
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    reconciliations: Counter,
    failures: Counter,
    ended: Family<Ended, Counter>,
    start_seconds: Histogram,
}

impl Metrics {
    /// Counters at zero, registered.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a second set of counters would never be served")]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Arc::default(),
            reconciliations: Counter::default(),
            failures: Counter::default(),
            ended: Family::default(),
            start_seconds: Histogram::new(exponential_buckets(0.05, 2.0, 14)),
        };
        let mut registry = metrics.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut register = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        register("windlass_reconciliations", "Times that a run was looked at", &metrics.reconciliations);
        register(
            "windlass_reconciliation_failures",
            "Reconciliations that failed and were repeated",
            &metrics.failures,
        );
        registry.register("windlass_runs_ended", "Runs that ended, by phase and reason", metrics.ended.clone());
        registry.register(
            "windlass_run_start_seconds",
            "Seconds from a run's creation to its pod",
            metrics.start_seconds.clone(),
        );
        drop(registry);
        metrics
    }

    /// What is served at `/metrics`.
    #[must_use]
    pub fn registry(&self) -> Arc<Mutex<Registry>> {
        self.registry.clone()
    }

    /// A run was looked at.
    pub fn reconciled(&self) {
        self.reconciliations.inc();
    }

    /// A reconciliation failed.
    pub fn failed(&self) {
        self.failures.inc();
    }

    /// A plan is about to be applied: counts starts and ends.
    pub fn planned(&self, run: &PipelineRun, plan: &Plan) {
        let Some(status) = &plan.status else { return };
        let old = run.status.as_ref();
        if let (None, Some(_)) = (old.and_then(|s| s.completion_time.as_ref()), status.completion_time.as_ref()) {
            let reason = status.conditions.first().map(|c| c.reason.clone()).unwrap_or_default();
            self.ended.get_or_create(&Ended { phase: status.phase.clone().unwrap_or_default(), reason }).inc();
        }
        if let (None, Some(start)) = (old.and_then(|s| s.start_time.as_ref()), status.start_time.as_ref())
            && let Some(created) = &run.metadata.creation_timestamp
        {
            self.start_seconds.observe(super::status::elapsed(created.0, start.0).as_secs_f64());
        }
    }
}
