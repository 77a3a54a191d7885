//! `cancel`: asks for the end of runs.
//!
//! **Invariant:** writes `spec.cancel` and nothing else, so that anyone can do the same with kubectl.

use super::{
    Session,
    args::CancelArgs,
    connect::Cluster,
    exit::Exit,
    fault::Stop,
    follow::{self, Options},
    refusal::Ask,
    signals::Signals,
    view::RunView,
};
use crate::api::manager;
use kube::api::{DynamicObject, Patch, PatchParams};
use serde_json::json;

/// Asks for a cancel. `now`: without after-steps.
///
/// # Errors
/// Whatever the cluster answered.
pub(super) async fn request(cluster: &Cluster, name: &str, now: bool) -> Result<DynamicObject, Stop> {
    let how = if now { "Immediate" } else { "Graceful" };
    // Not server-side apply: an apply with nothing but `cancel` would drop the rest of what we own.
    let params = PatchParams { field_manager: Some(manager::CLI.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"spec": {"cancel": how}}));
    cluster.ask(Ask::run("patch", name), cluster.runs().patch(name, &params, &patch)).await
}

/// `cancel`.
///
/// # Errors
/// When no cluster is reached or the output goes away. A run that cannot be cancelled is told, and the exit code is of
/// the first of them; the others are tried too.
pub(super) async fn cancel(session: &mut Session, args: &CancelArgs) -> Result<Exit, Stop> {
    let cluster = session.cluster().await?;
    let mut wrong = Vec::new();
    let mut waiting = Vec::new();
    for wanted in &args.runs {
        match one(session, &cluster, wanted, args.now).await {
            Ok(Some(run)) => waiting.push(run),
            Ok(None) => {}
            Err(Stop::Faults(faults)) => wrong.extend(faults),
            Err(Stop::ClosedPipe) => return Err(Stop::ClosedPipe),
        }
    }
    // Now, as whoever waits may leave, and should know what goes on.
    session.tell(&wrong)?;
    if args.wait {
        for run in &waiting {
            let options = Options { timeout: args.timeout, with_output: false, ..Options::watching() };
            let setting = session.setting();
            let mut signals = Signals::catch()?;
            let followed = follow::follow(&cluster, run, &mut session.screen, setting, options, &mut signals).await?;
            if matches!(followed.exit, Exit::Interrupted | Exit::Terminated) {
                return Ok(followed.exit);
            }
        }
    }
    Ok(wrong.first().map_or(Exit::Success, |fault| fault.exit))
}

async fn one(session: &mut Session, cluster: &Cluster, wanted: &str, now: bool) -> Result<Option<DynamicObject>, Stop> {
    let object = cluster.find_run(Some(wanted)).await?;
    let view = RunView::read(&object);
    let name = &view.name;
    if let Some(outcome) = view.outcome() {
        session.screen.message(&format!("{name} had ended already: {}", outcome.word()))?;
        return Ok(None);
    }
    if view.cancel.as_deref() == Some("Immediate") || (view.cancel.is_some() && !now) {
        session.screen.message(&format!("{name} is being cancelled already"))?;
        return Ok(Some(object));
    }
    if session.look.verbose > 0 {
        let how = if now { "Immediate" } else { "Graceful" };
        session.screen.message(&format!(
            "kubectl -n {} patch pipelinerun {name} --type merge -p '{{\"spec\":{{\"cancel\":\"{how}\"}}}}'",
            cluster.namespace
        ))?;
    }
    let object = request(cluster, name, now).await?;
    let step = view.status.steps.iter().find(|s| s.started_at.is_some() && !s.phase.is_final());
    let mut told: Vec<String> = step.map(|s| format!("step {}", s.name)).into_iter().collect();
    let after = view.steps.iter().any(|s| s.after);
    told.push(match (now, after) {
        (true, _) => "at once, after-steps will not run".into(),
        (false, true) => "after-steps will run".into(),
        (false, false) => "it has no after-steps".into(),
    });
    session.screen.message(&format!("{name} cancelling ({})", told.join("; ")))?;
    Ok(Some(object))
}
