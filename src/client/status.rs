//! `status`: shows one run.
//!
//! **Invariant:** exits 0 once it could show the run, unless the exit status was asked for.

use super::{
    Session,
    args::{ExitCodeOf, ObjectOutput, StatusArgs},
    away::{Away, CHECK},
    connect::{Cluster, run_resource},
    exit::Exit,
    fault::{Fault, Stop, one_line, reason},
    follow::{self, Options},
    hint,
    refusal::Ask,
    render::why_failed,
    signals::Signals,
    style::{Look, Mode, paint, sign_of},
    table,
    view::{RunView, is_fine, millis_between},
};
use crate::api::{
    duration,
    status::{StepPhase, StepStatus},
};
use futures::StreamExt;
use jiff::{Timestamp, tz::TimeZone};
use kube::{
    Api,
    api::DynamicObject,
    runtime::{WatchStreamExt, watcher},
};
use std::time::Duration;

/// `status`.
///
/// # Errors
/// No such run, or whatever the cluster answered.
pub(super) async fn status(session: &mut Session, args: &StatusArgs) -> Result<Exit, Stop> {
    let cluster = session.cluster().await?;
    let mut object = cluster.find_run(args.run.as_deref()).await?;
    let name = object.metadata.name.clone().unwrap_or_default();
    session.name_run(args.run.as_deref(), &name, &cluster.namespace)?;
    session.kubectl(&format!("-n {} describe pipelinerun {name}", cluster.namespace))?;
    let mut exit = Exit::Success;
    if args.watch {
        exit = watch(session, &cluster, &object, args.timeout).await?;
        let asked_for = args.wait || args.exit_status;
        return Ok(if asked_for || exit == Exit::Terminated { exit } else { Exit::Success });
    }
    if args.wait {
        let options = Options { with_output: false, timeout: args.timeout, ..Options::watching() };
        let mut setting = session.setting();
        setting.interrupt = "Ctrl-C leaves";
        // What is waited for is shown as it comes, unless stdout is for the object.
        if args.output.is_some() {
            setting.look.quiet = setting.look.quiet.max(1);
        }
        exit = follow::follow(&cluster, &object, &mut session.screen, setting, options, &mut Signals::catch()?)
            .await?
            .exit;
        object = cluster.find_run(Some(&name)).await?;
    } else if args.exit_status {
        exit = follow::result_of(&RunView::read(&object), ExitCodeOf::Windlass);
    }
    if !(args.wait && session.look.mode == Mode::Json) {
        show(session, &object, args.output.as_ref(), &cluster)?;
    }
    Ok(exit)
}

fn show(
    session: &mut Session,
    object: &DynamicObject,
    output: Option<&ObjectOutput>,
    cluster: &Cluster,
) -> Result<(), Stop> {
    let text = match output {
        Some(ObjectOutput::Json) => super::start::object_json(object)?,
        Some(ObjectOutput::Yaml) => super::start::object_yaml(object)?,
        Some(ObjectOutput::Name) => {
            format!("pipelinerun.windlass.dev/{}\n", object.metadata.name.as_deref().unwrap_or_default())
        }
        Some(ObjectOutput::JsonPath(template)) => template.fill(&super::start::as_value(object)?),
        None => {
            let view = RunView::read(object);
            let text = describe(&view, &session.look, Timestamp::now(), &session.zone());
            session.screen.data(&hint::paste(&text, &cluster.program))?;
            if let Some(hint) = next(&view, &cluster.program) {
                session.screen.message(&format!("hint: {hint}"))?;
            }
            return Ok(());
        }
    };
    Ok(session.screen.data(&text)?)
}

/// Shows the run at each change until its end or Ctrl-C.
async fn watch(
    session: &mut Session,
    cluster: &Cluster,
    object: &DynamicObject,
    timeout: Option<Duration>,
) -> Result<Exit, Stop> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(cluster.client.clone(), &cluster.namespace, &run_resource());
    let select = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut changes = watcher(api, select).default_backoff().boxed();
    let deadline = tokio::time::sleep(timeout.unwrap_or(Duration::from_secs(365 * 86_400)));
    let mut deadline = std::pin::pin!(deadline);
    let mut shown = String::new();
    let (mut signals, mut away, mut clock) = (Signals::catch()?, Away::default(), tokio::time::interval(CHECK));
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            exit = signals.asked_to_end() => return Ok(exit),
            _ = clock.tick() => {
                if let Some(message) = away.check(cluster)? {
                    session.screen.message(&message)?;
                }
                continue;
            }
            () = &mut deadline => {
                let message = format!("{name} has not ended in {:?}", timeout.unwrap_or_default());
                return Err(Fault::new(reason::TIMED_OUT, Exit::TimedOut, message).into());
            }
        };
        // Init comes before it is asked again.
        if matches!(&change, Some(Ok(event)) if !matches!(event, watcher::Event::Init)) {
            away.is_back();
        }
        match change {
            Some(Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run))) => {
                let view = RunView::read(&run);
                let text = describe(&view, &session.look, Timestamp::now(), &session.zone());
                // Of what changed, what a person sees; ages alone are no news.
                let key = format!("{:?}{:?}{:?}", view.phase(), view.why(), view.status.steps);
                if key != shown {
                    session.screen.data(&hint::paste(&text, &cluster.program))?;
                    shown = key;
                }
                if view.outcome().is_some() {
                    return Ok(follow::result_of(&view, ExitCodeOf::Windlass));
                }
            }
            Some(Ok(watcher::Event::Delete(_))) => {
                let message = format!("run {name:?} was deleted");
                return Err(Fault::new(reason::NOT_FOUND, Exit::NotFound, message).into());
            }
            Some(Err(error)) => away.failed(&error, &Ask::run("watch", &name), cluster)?,
            Some(Ok(_)) => {}
            None => return Ok(Exit::Success),
        }
    }
}

/// The run as a page.
#[must_use]
pub(super) fn describe(run: &RunView, look: &Look, now: Timestamp, zone: &TimeZone) -> String {
    let mut text = first_line(run, look);
    text.push_str(&second_line(run, now, zone, look.verbose > 0));
    let width = run.steps.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
    let glyphs = look.glyphs;
    let sign_width = if glyphs { 1 } else { 4 };
    for step in &run.steps {
        let status = run.step(&step.name);
        let phase = status.map_or("Pending".to_owned(), |s| format!("{:?}", s.phase));
        let sign = sign_of(&phase);
        let word = if phase == "Pending" && !glyphs { "-" } else { look.sign(sign) };
        let took = status.and_then(took).or_else(|| so_far(status?, now)).unwrap_or_else(|| "-".to_owned());
        let mut notes = Vec::new();
        if let Some(s) = status {
            match s.phase {
                StepPhase::Failed => {
                    let why = s.reason.as_deref().unwrap_or_default();
                    notes.push(why_failed(s.exit_code, why, s.message.as_deref().unwrap_or_default()));
                }
                StepPhase::Skipped => notes.push("skipped".into()),
                StepPhase::Cancelled => notes.push(one_line(s.message.as_deref().unwrap_or("cancelled"))),
                StepPhase::Waiting => notes.push(one_line(s.message.as_deref().unwrap_or("waiting"))),
                StepPhase::Running => notes.extend(s.message.as_deref().map(one_line)),
                StepPhase::Pending | StepPhase::Succeeded => {}
            }
            notes.extend(s.addresses.iter().map(|address| one_line(address)));
            for image in s.images.iter().filter(|image| !image.tags.is_empty()) {
                notes.push(one_line(&format!("{}@{}  tags {}", image.repository, image.digest, image.tags.join(", "))));
            }
        }
        if step.after {
            notes.push("after-step".into());
        }
        let word = paint(look.color_out, sign, &format!("{word:<sign_width$}"));
        let line = format!("  {word} {:<width$}  {took:>6}  {}", step.name, notes.join("  "));
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for artifact in &run.status.artifacts {
        let digest = artifact.digest.as_deref().unwrap_or_default();
        text.push_str(&one_line(&format!("  stored {}  {digest}", artifact.name)));
        text.push('\n');
    }
    text
}

/// How long a step took. Of whole seconds, as earlier versions wrote them, a tenth would be made up.
fn took(step: &StepStatus) -> Option<String> {
    let (from, to) = (step.started_at.as_ref()?, step.finished_at.as_ref()?);
    let ms = millis_between(from.0, to.0)?;
    Some(if is_fine(from) || is_fine(to) { duration::human(Duration::from_millis(ms)) } else { whole(ms) })
}

/// How long a step has run.
fn so_far(step: &StepStatus, now: Timestamp) -> Option<String> {
    millis_between(step.started_at.as_ref()?.0, now).map(whole)
}

fn whole(ms: u64) -> String {
    match ms / 1000 {
        0 => "<1s".into(),
        s @ 1..60 => format!("{s}s"),
        s => duration::human(Duration::from_secs(s)),
    }
}

fn first_line(run: &RunView, look: &Look) -> String {
    let (why, message) = run.why();
    let phase = run.phase();
    let mut plain = format!("{}   {phase}", run.name);
    let mut shown = format!("{}   {}", run.name, paint(look.color_out, sign_of(phase), phase));
    // A reason that only repeats the phase is no reason.
    if !why.is_empty() && (why != phase || !message.is_empty()) {
        let words = if why == phase { one_line(message) } else { format!("{}: {}", one_line(why), one_line(message)) };
        plain += &format!("  {words}");
        shown += &format!("  {words}");
    }
    let number = run.status.build_number.map(|n| format!("#{n}"));
    let right = match (number, &run.pipeline) {
        (Some(number), Some(pipeline)) => format!("{number} of pipeline {pipeline}"),
        (Some(number), None) => number,
        (None, Some(pipeline)) => format!("pipeline {pipeline}"),
        (None, None) => return shown + "\n",
    };
    let used = plain.chars().count() + right.chars().count();
    let gap = look.width.map_or(3, |width| width.saturating_sub(used)).max(3);
    format!("{shown}{}{right}\n", " ".repeat(gap))
}

fn second_line(run: &RunView, now: Timestamp, zone: &TimeZone, verbose: bool) -> String {
    let started = run.status.start_time.as_ref().map(|t| t.0);
    let mut parts = Vec::new();
    match (started, run.created) {
        (Some(start), _) => {
            let ago = millis_between(start, now).map(|ms| table::age(ms / 1000)).unwrap_or_default();
            let took = run.took_ms().map(|ms| format!(", took {}", duration::human(Duration::from_millis(ms))));
            parts.push(format!("started {} ({ago} ago){}", table::clock(start, now, zone), took.unwrap_or_default()));
        }
        (None, Some(created)) => {
            let ago = millis_between(created, now).map(|ms| table::age(ms / 1000)).unwrap_or_default();
            parts.push(format!("made {} ({ago} ago), not started", table::clock(created, now, zone)));
        }
        (None, None) => {}
    }
    if let Some(node) = &run.status.node_name {
        parts.push(format!("node {node}"));
    }
    if let Some(pod) = run.status.pod_name.as_ref().filter(|_| verbose) {
        parts.push(format!("pod {pod}"));
    }
    if let Some(revision) = &run.status.source_revision {
        parts.push(format!("source {}", one_line(revision)));
    }
    if let Some(attempt) = run.status.attempt.filter(|a| *a > 1) {
        parts.push(format!("attempt {attempt}"));
    }
    if parts.is_empty() { String::new() } else { parts.join("   ") + "\n" }
}

/// What to do next.
fn next(run: &RunView, program: &str) -> Option<String> {
    let name = &run.name;
    match run.outcome() {
        Some(super::view::Outcome::Failed) => Some(match run.failed_step() {
            Some(step) => format!("{program} logs {name} --step {}", step.name),
            None => format!("{program} explain {}", one_line(run.why().0)),
        }),
        Some(_) => None,
        None => Some(format!("{program} logs -f {name}")),
    }
}

#[cfg(test)]
mod tests;
