//! `list`: runs, newest first, in the columns of `kubectl get plr`.
//!
//! **Invariant:** what is left out by `--limit` is said.

use super::{
    Session,
    args::{ListArgs, ListOutput},
    away::{Away, CHECK},
    connect::{Cluster, newest_first},
    exit::Exit,
    fault::{Fault, Stop, one_line, reason},
    refusal::Ask,
    signals::Signals,
    table,
    view::{RunView, millis_between},
};
use futures::StreamExt;
use jiff::Timestamp;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use std::collections::BTreeMap;

/// `list`.
///
/// # Errors
/// Whatever the cluster answered.
pub(super) async fn list(session: &mut Session, args: &ListArgs) -> Result<Exit, Stop> {
    let cluster = session.cluster().await?;
    let fields = args.pipeline.as_ref().map(|pipeline| format!("spec.pipelineRef.name={pipeline}"));
    let select =
        ListParams { label_selector: args.selector.clone(), field_selector: fields.clone(), ..ListParams::default() };
    let place = if args.all_namespaces { "-A".into() } else { format!("-n {}", cluster.namespace) };
    session.kubectl(&format!("{place} get pipelineruns"))?;
    if args.watch && args.output == Some(ListOutput::Json) {
        let fault = Fault::usage("list -w shows a line for each change; JSON has no lines");
        return Err(fault.hint(format!("kubectl {place} get pipelineruns -w -o json")).into());
    }
    let api = if args.all_namespaces { cluster.all_runs() } else { cluster.runs() };
    let mut runs = cluster.list_runs(&api, Some(select)).await?;
    if let Some(phase) = &args.status {
        runs.retain(|run| RunView::read(run).phase().eq_ignore_ascii_case(phase));
    }
    runs.sort_by_key(newest_first);
    let count = runs.len();
    if args.limit > 0 {
        runs.truncate(args.limit);
    }
    show(session, args, &runs)?;
    if runs.is_empty() && args.output.is_none() {
        let place =
            if args.all_namespaces { "this cluster".into() } else { format!("namespace {}", cluster.namespace) };
        session.screen.message(&format!("no runs in {place}"))?;
    }
    if count > runs.len() {
        session.screen.message(&format!("{} older runs are not shown; --limit 0 shows all", count - runs.len()))?;
    }
    if args.watch {
        let mut select = watcher::Config::default();
        (select.label_selector, select.field_selector) = (args.selector.clone(), fields);
        watch(session, args, (&cluster, api, select), &runs).await?;
    }
    Ok(Exit::Success)
}

/// A line for each change, below the table, until Ctrl-C.
async fn watch(
    session: &mut Session,
    args: &ListArgs,
    (cluster, api, select): (&Cluster, Api<DynamicObject>, watcher::Config),
    listed: &[DynamicObject],
) -> Result<(), Stop> {
    let wide = args.output == Some(ListOutput::Wide);
    let cells = |run: &DynamicObject| row(&RunView::read(run), wide, args.all_namespaces, Timestamp::now());
    // An age that grows is no change.
    let age = 5 + usize::from(args.all_namespaces);
    let news = |cells: &[String]| cells.iter().enumerate().filter(|(i, _)| *i != age).map(|(_, c)| c.clone()).collect();
    let key = |run: &DynamicObject| (run.metadata.namespace.clone(), run.metadata.name.clone());
    let mut shown: BTreeMap<_, Vec<String>> = listed.iter().map(|run| (key(run), news(&cells(run)))).collect();
    let mut first: Vec<Vec<String>> = vec![header(wide, args.all_namespaces)];
    first.extend(listed.iter().map(cells));
    let mut widths = table::widths(&first);
    let mut changes = watcher(api, select).default_backoff().boxed();
    // What was there already, beyond the limit, is not news.
    let mut begun = false;
    let (mut signals, mut away, mut clock) = (Signals::catch()?, Away::default(), tokio::time::interval(CHECK));
    loop {
        let change = tokio::select! {
            change = changes.next() => change,
            _ = signals.asked_to_end() => return Ok(()),
            _ = clock.tick() => {
                if let Some(message) = away.check(cluster)? {
                    session.screen.message(&message)?;
                }
                continue;
            }
        };
        match &change {
            Some(Err(error)) => away.failed(error, &Ask::runs("watch"), cluster)?,
            // Before it is asked again.
            Some(Ok(watcher::Event::Init)) | None => {}
            Some(Ok(_)) => away.is_back(),
        }
        let run = match change {
            Some(Ok(watcher::Event::Apply(run) | watcher::Event::InitApply(run))) => run,
            Some(Ok(watcher::Event::Delete(run))) => {
                shown.remove(&key(&run));
                continue;
            }
            Some(Ok(watcher::Event::InitDone)) => {
                begun = true;
                continue;
            }
            Some(Ok(watcher::Event::Init) | Err(_)) => continue,
            None => return Ok(()),
        };
        let view = RunView::read(&run);
        if args.status.as_ref().is_some_and(|phase| !view.phase().eq_ignore_ascii_case(phase)) {
            continue;
        }
        let cells = cells(&run);
        let before = shown.insert(key(&run), news(&cells));
        let told = begun || listed.iter().any(|l| key(l) == key(&run));
        if !told || before.as_ref() == Some(&news(&cells)) {
            continue;
        }
        match args.output {
            Some(ListOutput::Name) => session.screen.data(&format!("pipelinerun.windlass.dev/{}\n", view.name))?,
            _ => session.screen.data(&table::line(&cells, &mut widths))?,
        }
    }
}

fn show(session: &mut Session, args: &ListArgs, runs: &[DynamicObject]) -> Result<(), Stop> {
    match args.output {
        Some(ListOutput::Name) => {
            for run in runs {
                let name = run.metadata.name.as_deref().unwrap_or_default();
                session.screen.data(&format!("pipelinerun.windlass.dev/{name}\n"))?;
            }
        }
        Some(ListOutput::Json) => {
            let items = runs.iter().map(super::start::as_value).collect::<Result<Vec<_>, _>>()?;
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            session.screen.data(&format!("{list:#}\n"))?;
        }
        None if session.look.mode == super::style::Mode::Json => {
            let fault =
                Fault::new(reason::USAGE, Exit::Usage, "list has no events; --json is for verbs that follow a run");
            return Err(fault.hint(format!("{} list -o json", session.program)).into());
        }
        Some(ListOutput::Wide) | None => {
            let wide = args.output == Some(ListOutput::Wide);
            let mut rows: Vec<Vec<String>> = Vec::new();
            if !session.look.no_headers && !runs.is_empty() {
                rows.push(header(wide, args.all_namespaces));
            }
            let now = Timestamp::now();
            rows.extend(runs.iter().map(|run| row(&RunView::read(run), wide, args.all_namespaces, now)));
            session.screen.data(&table::columns(&rows))?;
        }
    }
    Ok(())
}

fn header(wide: bool, namespaces: bool) -> Vec<String> {
    let mut names = vec!["NAME", "STATUS", "STEP", "DURATION", "DIGEST", "AGE"];
    if namespaces {
        names.insert(0, "NAMESPACE");
    }
    if wide {
        names.extend(["REASON", "BUILD", "PIPELINE", "NODE", "POD"]);
    }
    names.into_iter().map(str::to_owned).collect()
}

fn row(run: &RunView, wide: bool, namespaces: bool, now: Timestamp) -> Vec<String> {
    let summary = run.status.summary.clone().unwrap_or_default();
    let digest = summary.digest.filter(|d| !d.is_empty());
    let digest = digest.map(|d| if d.starts_with("sha256:") { d } else { format!("sha256:{d}") });
    let age = run.created.and_then(|created| millis_between(created, now)).unwrap_or_default();
    let mut cells = vec![
        run.name.clone(),
        run.phase().to_owned(),
        summary.steps.unwrap_or_default(),
        summary.duration.unwrap_or_default(),
        digest.unwrap_or_default(),
        table::age(age / 1000),
    ];
    if namespaces {
        cells.insert(0, run.namespace.clone());
    }
    if wide {
        let status = &run.status;
        cells.push(run.why().0.to_owned());
        cells.push(status.build_number.map(|n| n.to_string()).unwrap_or_default());
        cells.push(run.pipeline.clone().unwrap_or_default());
        cells.push(status.node_name.clone().unwrap_or_default());
        cells.push(status.pod_name.clone().unwrap_or_default());
    }
    cells.iter().map(|cell| one_line(cell)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::view::tests::a_run;

    #[test]
    fn the_columns_are_those_of_kubectl_get() {
        let now: Timestamp = "2026-11-21T13:03:48Z".parse().unwrap();
        let run = |name: &str, created: &str, status: &str| {
            a_run(&format!(
                "{{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun, metadata: {{name: {name}, namespace: team-a, \
                 creationTimestamp: \"{created}\"}}, spec: {{pipelineRef: {{name: test}}}}, status: {status}}}"
            ))
        };
        let runs = [
            run("hello-7", "2026-11-21T13:03:07Z", "{phase: Running, summary: {steps: 4/10}}"),
            run(
                "release-x7k2p",
                "2026-11-21T12:51:48Z",
                "{phase: Succeeded, summary: {steps: 2/2, duration: 2m31s, digest: 3f9a1c0b7d2e}}",
            ),
            run(
                "test-31",
                "2026-11-21T12:43:48Z",
                "{phase: Failed, buildNumber: 31, nodeName: node-a, podName: test-31-1, conditions: [{type: Succeeded, \
                 status: \"False\", reason: StepFailed, message: m, lastTransitionTime: \"2026-11-21T12:43:48Z\"}], \
                 summary: {steps: 3/10, duration: 48s}}",
            ),
        ];
        let table = |wide: bool| {
            let mut rows = vec![header(wide, false)];
            rows.extend(runs.iter().map(|r| row(r, wide, false, now)));
            table::columns(&rows)
        };
        assert_eq!(
            table(false),
            "\
NAME           STATUS     STEP  DURATION  DIGEST               AGE
hello-7        Running    4/10                                 41s
release-x7k2p  Succeeded  2/2   2m31s     sha256:3f9a1c0b7d2e  12m
test-31        Failed     3/10  48s                            20m
"
        );
        let last = table(true).lines().last().map(str::to_owned).unwrap_or_default();
        assert!(last.ends_with("20m  StepFailed  31     test      node-a  test-31-1"), "{last}");
    }
}
