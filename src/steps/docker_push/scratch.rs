//! `dockerScratchPush`: what its properties ask for beside those of `dockerPush`.
//!
//! **Invariant:** as of [`super`]. `directory` is only judged here: the runner has packed it by then.

use super::{PushPlan, reader::Reader};
use crate::{
    api::push::{DockerScratchPush, Timestamps},
    steps::StepError,
};
use std::collections::BTreeMap;

/// What a `dockerScratchPush` asks for, with all variables expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScratchPlan {
    /// Where it goes and how it runs.
    pub push: PushPlan,
    /// What becomes of its files.
    pub shape: Shape,
}

/// What changes in the files of an image from scratch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Owner and group of all files; none: as in the box.
    pub owner: Option<(u32, u32)>,
    /// Whether all times are the epoch, so that the same files give the same image.
    pub zero_times: bool,
}

/// Judges the literal values of a step; `step_path` is such as `steps[2].dockerScratchPush`.
///
/// # Errors
/// As [`super::check`].
pub fn check(step_path: &str, step: &DockerScratchPush) -> Result<(), StepError> {
    let mut reader = Reader::literal(step_path);
    read(&mut reader, step, None);
    reader.finish()
}

/// Reads a step with the environment that it sees. A `build_number` below 1 means there is none.
///
/// # Errors
/// As [`super::plan`].
pub fn plan(
    step: &DockerScratchPush,
    env: &BTreeMap<String, String>,
    build_number: i64,
) -> Result<ScratchPlan, StepError> {
    let mut reader = Reader::with_env(env);
    let build_number = (step.push.build_number_tag && build_number > 0).then_some(build_number);
    let plan = read(&mut reader, step, build_number);
    reader.finish()?;
    Ok(plan)
}

fn read(reader: &mut Reader<'_>, step: &DockerScratchPush, build_number: Option<i64>) -> ScratchPlan {
    let push = super::read(reader, &step.push, build_number);
    if let Some(directory) = &step.directory {
        // A variable that holds nothing must not turn into the whole box.
        let _ = reader.expand_non_empty("directory", directory, "a directory");
    }
    let owner = step.owner.as_deref().and_then(|written| {
        let owner = owner(written);
        if owner.is_none() {
            reader.wrong_value("owner", written, "expected numbers up to 2147483647, UID or UID:GID");
        }
        owner
    });
    ScratchPlan { push, shape: Shape { owner, zero_times: step.timestamps == Timestamps::Zero } }
}

/// `UID` or `UID:GID`; a group that is not given is the number of the user, as with `COPY --chown` in a Dockerfile.
fn owner(text: &str) -> Option<(u32, u32)> {
    let id = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<i32>().ok().filter(|_| digits).map(i32::unsigned_abs)
    };
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    Some((id(uid)?, id(gid)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{condition::reason, push::DockerPush};
    use rstest::rstest;

    fn step() -> DockerScratchPush {
        let push = DockerPush { repository: "team/app".into(), ..DockerPush::default() };
        DockerScratchPush { push, ..DockerScratchPush::default() }
    }

    #[rstest]
    #[case("0", Some((0, 0)))]
    #[case("1000", Some((1000, 1000)))]
    #[case("1000:0", Some((1000, 0)))]
    #[case("2147483647:1", Some((i32::MAX.unsigned_abs(), 1)))]
    #[case("2147483648", None)]
    #[case("1:2147483648", None)]
    #[case("app", None)]
    #[case("1:", None)]
    #[case(":1", None)]
    #[case("-1", None)]
    #[case("1:2:3", None)]
    fn owners(#[case] text: &str, #[case] expected: Option<(u32, u32)>) {
        let step = DockerScratchPush { owner: Some(text.into()), ..step() };
        let planned = plan(&step, &BTreeMap::new(), 0);
        assert_eq!(planned.as_ref().ok().and_then(|plan| plan.shape.owner), expected);
        assert_eq!(check("steps[0].dockerScratchPush", &step).is_ok(), expected.is_some());
        let refused = format!("owner: \"{text}\": expected numbers up to 2147483647, UID or UID:GID");
        assert_eq!(planned.err().map(|error| error.message), expected.is_none().then_some(refused));
    }

    #[test]
    fn the_properties_of_both_are_read() {
        let env = BTreeMap::from([("TAG".to_owned(), "1.4".to_owned()), ("NONE".into(), String::new())]);
        let mut step = DockerScratchPush { timestamps: Timestamps::Zero, ..step() };
        step.push.tag = Some("$TAG".into());
        step.push.build_number_tag = true;
        step.directory = Some("$TAG/bin".into());
        let planned = plan(&step, &env, 7).unwrap();
        assert_eq!(planned.push.tags, ["1.4", "7"]);
        assert_eq!(planned.shape, Shape { owner: None, zero_times: true });
        for (directory, expected) in [
            ("$UNSET/bin", reason::UNDEFINED_VARIABLE),
            ("$NONE", reason::INVALID_PROPERTY),
            ("${TAG", reason::INVALID_PROPERTY),
        ] {
            step.directory = Some(directory.into());
            let error = plan(&step, &env, 7).unwrap_err();
            assert_eq!(error.reason, expected, "{error}");
            assert!(error.message.starts_with("directory: "), "{error}");
        }
        step.push.stop_signal = Some(crate::api::text::IntOrText::Text("SIGFOO".into()));
        let error = check("steps[1].dockerScratchPush", &step).unwrap_err();
        assert!(error.message.contains("steps[1].dockerScratchPush.stopSignal"), "{error}");
        assert!(error.message.contains("steps[1].dockerScratchPush.directory"), "{error}");
    }
}
