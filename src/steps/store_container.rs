//! `storeContainer`: what its properties ask for.
//!
//! The controller calls [`check`] and [`check_names`] when a run is resolved; the agent calls [`plan`] when the step's turn
//! comes.
//!
//! **Invariant:** as that of the folder. An artifact's name is fixed when the run begins.

use super::{
    StepError,
    docker_push::{ImageChanges, free_text, reader::Reader},
};
use crate::api::{Step, condition::reason, step::StoreContainer};
use std::collections::{BTreeMap, BTreeSet};

/// Longest comment, as in the schema.
const MAX_MESSAGE: usize = 2048;

/// The name of the artifact that a step stores; `None` for a step that stores none.
#[must_use]
pub fn artifact(step: &Step) -> Option<&str> {
    step.store_container.as_ref().map(|store| store.name.as_deref().unwrap_or(&step.name))
}

/// Judges the literal values of a step; `step_path` is such as `steps[2].storeContainer`.
///
/// # Errors
/// `InvalidProperty`, with what is wrong.
pub fn check(step_path: &str, store: &StoreContainer) -> Result<(), StepError> {
    let mut reader = Reader::literal(step_path);
    free_text(&mut reader, "message", store.message.as_deref(), MAX_MESSAGE);
    reader.finish()
}

/// Two steps cannot store under one name. `steps` come with their paths.
///
/// # Errors
/// `InvalidProperty`, with the second of them.
pub fn check_names<'a>(steps: impl Iterator<Item = (String, &'a Step)>) -> Result<(), StepError> {
    let mut names = BTreeSet::new();
    for (path, step) in steps {
        let Some(name) = artifact(step) else { continue };
        if !names.insert(name) {
            let text = format!("{path}.storeContainer.name: an earlier step stores {name}; choose another name");
            return Err(StepError::new(reason::INVALID_PROPERTY, text));
        }
    }
    Ok(())
}

/// What changes in the box image's config, by the environment that the step sees.
///
/// # Errors
/// As [`check`], and `UndefinedVariable`.
pub fn plan(store: &StoreContainer, env: &BTreeMap<String, String>) -> Result<ImageChanges, StepError> {
    let mut reader = Reader::with_env(env);
    let message = free_text(&mut reader, "message", store.message.as_deref(), MAX_MESSAGE);
    reader.finish()?;
    Ok(ImageChanges { message, ..ImageChanges::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn step(yaml: &str) -> Step {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[rstest]
    #[case("{name: keep, storeContainer: {}}", Some("keep"))]
    #[case("{name: keep, storeContainer: {name: app}}", Some("app"))]
    #[case("{name: keep, script: x}", None)]
    fn names(#[case] yaml: &str, #[case] expected: Option<&str>) {
        assert_eq!(artifact(&step(yaml)), expected);
    }

    #[test]
    fn a_name_is_taken_once() {
        let both = |second: &str| {
            let steps = [step("{name: a, storeContainer: {}}"), step(second)];
            let paths = steps.iter().enumerate().map(|(i, step)| (format!("steps[{i}]"), step));
            check_names(paths).map_err(|error| error.message)
        };
        assert_eq!(both("{name: b, storeContainer: {}}"), Ok(()));
        assert_eq!(
            both("{name: b, storeContainer: {name: a}}"),
            Err("steps[1].storeContainer.name: an earlier step stores a; choose another name".into())
        );
    }

    #[rstest]
    #[case(Some("of $BRANCH"), Ok(Some("of main")))]
    #[case(Some("$$5"), Ok(Some("$5")))]
    #[case(None, Ok(None))]
    #[case(Some("$NONE"), Err(reason::UNDEFINED_VARIABLE))]
    fn the_message(#[case] written: Option<&str>, #[case] expected: Result<Option<&str>, &str>) {
        let store = StoreContainer { message: written.map(str::to_owned), name: None };
        assert_eq!(check("steps[0].storeContainer", &store), Ok(()));
        let env = BTreeMap::from([("BRANCH".to_owned(), "main".to_owned())]);
        let planned = plan(&store, &env).map(|changes| changes.message).map_err(|error| error.reason);
        assert_eq!(planned, expected.map(|text| text.map(str::to_owned)));
    }

    #[test]
    fn a_message_that_is_too_long() {
        let store = StoreContainer { message: Some("x".repeat(2049)), name: None };
        let error = check("steps[0].storeContainer", &store).unwrap_err();
        assert!(error.message.starts_with("steps[0].storeContainer.message: "), "{}", error.message);
    }
}
