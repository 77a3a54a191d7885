//! The simulated cluster: the real controller against an in-memory API server, a simulated node and
//! agent, and every fault at every place, each compared with the run without faults.
//!
//! ```text
//! Workload (user) ──> store <── node, agent
//!                       ^
//!                 Door (faults) <── kube::Client <── controller::lead
//! ```
//!
//! A plan is `workload/fault@n`; `WINDLASS_SIM_PLAN=script/crash-after@3` plays that one only and prints
//! what the controller did.
//!
//! **Invariant:** no time but tokio's paused time passes, no file and no socket is touched.

mod agent;
mod api;
mod apply;
mod clock;
mod election;
mod fault;
mod many;
mod node;
mod oracle;
mod store;
mod watch;
mod workload;
mod world;

use fault::{Fault, Strike};
use rstest::rstest;
use workload::Workload;
use world::{Outcome, play};

/// What is wrong with a plan's outcome, beside the run without faults.
fn faults_of(reference: &Outcome, outcome: &Outcome) -> Vec<String> {
    let mut wrong = outcome.wrong.clone();
    wrong.extend(oracle::difference("", &reference.end, &outcome.end));
    if reference.pods != outcome.pods {
        wrong.push(format!("pods were made: {:?}, without the fault {:?}", outcome.pods, reference.pods));
    }
    wrong.extend(oracle::repeated(&reference.applied, &outcome.applied));
    for (reason, count) in &outcome.news {
        if *count > reference.news.get(reason).copied().unwrap_or(0) {
            wrong.push(format!("{count} events {reason}, without the fault {:?}", reference.news));
        }
    }
    wrong
}

/// Every plan of a workload whose run without faults is `reference`.
fn plans(reference: &Outcome) -> Vec<Strike> {
    let writes = (1..=reference.writes).flat_map(|n| Fault::AT_WRITES.map(|fault| Strike(fault, n)));
    let events = (1..=reference.events).map(|n| Strike(Fault::AT_EVENT, n));
    let lasting = Fault::LASTING.map(|(fault, n)| Strike(fault, n));
    writes.chain(events).chain(lasting).collect()
}

fn explain(workload: &Workload, strike: Strike, wrong: &[String], outcome: &Outcome) -> String {
    format!(
        "{}/{strike}\n  {}\n  what the controller did:\n    {}\n",
        workload.name,
        wrong.join("\n  "),
        outcome.trace.join("\n    ")
    )
}

#[rstest]
fn a_fault_changes_nothing_in_the_end(
    #[values(
        "script",
        "agent-away",
        "push",
        "cancel-in-push",
        "cancel-graceful",
        "cancel-immediate",
        "timeout",
        "late-pipeline",
        "no-pipeline",
        "lost-pod",
        "slow-pull",
        "quota",
        "webhook-away",
        "webhook-gone",
        "delete",
        "delete-lost-node",
        "unreadable",
        "ttl"
    )]
    name: &str,
) {
    let workload = *workload::ALL.iter().find(|w| w.name == name).unwrap();
    let reference = play(workload, Strike(Fault::None, 0));
    let wrong = faults_of(&reference, &reference);
    assert!(wrong.is_empty(), "{}", explain(&workload, Strike(Fault::None, 0), &wrong, &reference));
    let only = std::env::var("WINDLASS_SIM_PLAN").ok();
    let mut failed = Vec::new();
    for strike in plans(&reference) {
        if let Some(only) = &only {
            let plan = only.strip_prefix(name).and_then(|rest| rest.strip_prefix('/'));
            if plan.map(|plan| plan.parse::<Strike>().unwrap()) != Some(strike) {
                continue;
            }
        }
        println!("{name}/{strike}");
        let outcome = play(workload, strike);
        let wrong = faults_of(&reference, &outcome);
        if only.is_some() {
            println!("{}", explain(&workload, strike, &wrong, &outcome));
        }
        if !wrong.is_empty() {
            failed.push((strike, wrong, outcome));
        }
    }
    let list: Vec<String> = failed.iter().map(|(s, wrong, _)| format!("{name}/{s}: {}", wrong.join("; "))).collect();
    if let Some((strike, wrong, outcome)) = failed.first() {
        panic!("{} plans fail:\n{}\n\n{}", failed.len(), list.join("\n"), explain(&workload, *strike, wrong, outcome));
    }
}
