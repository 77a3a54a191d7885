//! Joins the order, the environment and the source into the runner's plan.
//!
//! Called by `mod.rs` when all of them are known.
//!
//! **Invariant:** pure and total; a variable of the user wins over one of the source.

use super::{env::Environment, source::Fetched};
use crate::wire::{Order, Plan, PlanStep, VERSION, Variable};

/// Prefix of variables of the documents.
const WERCKER: &str = "WERCKER_";
/// Prefix of their twins.
const WINDLASS: &str = "WINDLASS_";

/// The runner's plan. `source_mounted`: the box has the source already.
pub(crate) fn plan(order: &Order, environment: Environment, fetched: Fetched, source_mounted: bool) -> Plan {
    let mut env = environment.run;
    for (name, value) in fetched.variables() {
        for prefix in [WERCKER, WINDLASS] {
            let name = format!("{prefix}{name}");
            if env.iter().all(|known| known.name != name) {
                env.push(Variable { name, value: value.clone(), secret: false });
            }
        }
    }
    let steps = order.steps.iter().zip(environment.steps).map(|(step, env)| PlanStep {
        name: step.name.clone(),
        title: step.title.clone(),
        after: step.after,
        cwd: step.cwd.clone(),
        env,
        work: step.work.clone(),
        timeout_s: step.timeout_s,
        no_output_timeout_s: step.no_output_timeout_s,
        continue_on_failure: step.continue_on_failure,
        retries: step.retries,
    });
    Plan {
        version: VERSION,
        run: order.run.clone(),
        working_dir: order.working_dir.clone(),
        source_mounted,
        shell: order.shell.clone(),
        deadline_ms: order.deadline_ms,
        timeout_s: order.timeout_s,
        source_revision: fetched.revision,
        env,
        steps: steps.collect(),
        breakpoints: order.breakpoints.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{OrderStep, StepWork};

    fn variable(name: &str, value: &str) -> Variable {
        Variable { name: name.into(), value: value.into(), secret: false }
    }

    #[test]
    fn joins_the_source_below_the_users_variables() {
        let step =
            OrderStep { name: "a".into(), work: StepWork::Script("make".into()), retries: 2, ..OrderStep::default() };
        let order = Order { steps: vec![step], deadline_ms: 7, ..Order::default() };
        let environment = Environment {
            run: vec![variable("WERCKER_GIT_BRANCH", "mine")],
            steps: vec![vec![variable("B", "2")]],
            skipped: vec![],
        };
        let fetched = Fetched { revision: Some("3f9c".into()), branch: Some("main".into()), ..Fetched::default() };
        let plan = plan(&order, environment, fetched, false);
        assert_eq!(
            plan.env,
            [
                variable("WERCKER_GIT_BRANCH", "mine"),
                variable("WERCKER_GIT_COMMIT", "3f9c"),
                variable("WINDLASS_GIT_COMMIT", "3f9c"),
                variable("WINDLASS_GIT_BRANCH", "main"),
            ]
        );
        assert_eq!((plan.version, plan.deadline_ms, plan.source_revision.as_deref()), (VERSION, 7, Some("3f9c")));
        assert_eq!((plan.steps[0].env.as_slice(), plan.steps[0].retries), (&[variable("B", "2")][..], 2));
    }
}
