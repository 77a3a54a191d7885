use super::*;
use proptest::prelude::*;
use rstest::rstest;

fn step(name: &str, internal: bool, after: bool, retries: u32) -> StepOutline {
    StepOutline {
        name: name.into(),
        title: name.into(),
        after,
        internal,
        artifact: None,
        continues: false,
        retries,
        reloads: false,
        ports: Vec::new(),
        waits: Vec::new(),
    }
}

fn steps() -> Vec<StepOutline> {
    vec![step("build", false, false, 1), step("push", true, false, 0), step("tell", false, true, 0)]
}

fn started(step: usize) -> Record {
    Record::Started { at: 1000, step, attempt: 1 }
}

fn ended(step: usize, code: Option<i32>, reason: EndReason) -> Record {
    Record::Ended { at: 2000, step, code, reason, message: None }
}

fn noted(step: usize) -> Record {
    Record::Noted { at: 1500, step, note: Note::WatchLimit, message: "raise\nit ".into() }
}

fn finished(passed: bool) -> Record {
    Record::Finished { at: 3000, passed, reason: None, failed: None, message: None }
}

fn phases(journal: &Journal) -> Vec<StepPhase> {
    journal.steps.iter().map(|step| step.phase).collect()
}

#[test]
fn a_run_without_a_fault() {
    let ready = Record::Ready { at: 1, source_dir: "/pipeline/source".into(), revision: Some("3f9a1c".into()) };
    let journal = fold(
        [
            ready,
            started(0),
            ended(0, Some(0), EndReason::ExitCode),
            started(1),
            Record::Asked { at: 1500, step: 1 },
            ended(1, None, EndReason::ExitCode),
            started(2),
            ended(2, Some(0), EndReason::ExitCode),
            finished(true),
        ],
        &steps(),
    );
    assert_eq!(phases(&journal), [StepPhase::Succeeded; 3]);
    assert_eq!(journal.rejected, 0);
    assert_eq!(journal.revision.as_deref(), Some("3f9a1c"));
    assert!(journal.steps[1].asked);
    assert!(journal.finished.unwrap().passed);
}

#[rstest]
#[case::success_without_a_start(vec![ended(0, Some(0), EndReason::ExitCode)])]
#[case::step_out_of_range(vec![started(3)])]
#[case::later_step_first(vec![started(1)])]
#[case::huge_index(vec![started(usize::MAX)])]
#[case::a_script_asks(vec![Record::Asked { at: 1, step: 0 }])]
#[case::a_note_of_a_script(vec![started(0), noted(0)])]
#[case::the_agents_word_about_a_script(vec![started(0), ended(0, None, EndReason::Agent)])]
#[case::skipped_while_it_runs(vec![started(0), ended(0, None, EndReason::EarlierStepFailed)])]
#[case::more_attempts_than_allowed(vec![Record::Started { at: 1, step: 0, attempt: 3 }])]
#[case::the_same_attempt_again(vec![started(0), started(0)])]
#[case::a_commit_named_by_a_step(vec![started(0), Record::Ready { at: 1, source_dir: String::new(), revision: Some("f".into()) }])]
#[case::after_the_end(vec![finished(false), started(0)])]
fn what_cannot_be_true_is_left_out(#[case] mut records: Vec<Record>) {
    let last = records.pop().unwrap();
    let mut before = fold(records.clone(), &steps());
    assert_eq!(before.rejected, 0);
    records.push(last);
    let after = fold(records, &steps());
    before.rejected = 1;
    assert_eq!(after, before);
}

#[rstest]
#[case(0, Some(0), EndReason::ExitCode, StepPhase::Succeeded)]
#[case(0, Some(2), EndReason::ExitCode, StepPhase::Failed)]
#[case(0, None, EndReason::ExitCode, StepPhase::Failed)]
#[case(0, Some(137), EndReason::Signal, StepPhase::Failed)]
#[case(0, None, EndReason::TimedOut, StepPhase::Failed)]
#[case(0, None, EndReason::Cancelled, StepPhase::Cancelled)]
fn ends(#[case] index: usize, #[case] code: Option<i32>, #[case] reason: EndReason, #[case] phase: StepPhase) {
    let journal = fold([started(0), ended(index, code, reason)], &steps());
    assert_eq!(phases(&journal)[index], phase);
}

#[test]
fn a_step_that_a_cancel_kept_from_beginning_was_skipped() {
    let never = ended(1, None, EndReason::Cancelled);
    let journal = fold([started(0), ended(0, None, EndReason::Cancelled), never], &steps());
    assert_eq!(phases(&journal)[..2], [StepPhase::Cancelled, StepPhase::Skipped]);
    assert_eq!((journal.steps[1].finished_ms, journal.steps[1].ended), (None, Some(EndReason::Cancelled)));
}

#[test]
fn an_end_is_final() {
    let first = fold([started(0), ended(0, Some(1), EndReason::ExitCode)], &steps());
    let again =
        fold([started(0), ended(0, Some(1), EndReason::ExitCode), ended(0, Some(0), EndReason::ExitCode)], &steps());
    assert_eq!(again.steps, first.steps);
}

#[test]
fn text_of_the_box_is_tamed() {
    assert_eq!(clean(" a\nb\u{1b}[31m "), "a b [31m");
    let long = clean(&"é".repeat(5000));
    assert_eq!(long.chars().count(), 1024);
    assert!(long.ends_with('…'));
}

fn lines_of(bytes: &[u8], pieces: &[usize]) -> Journal {
    let mut journal = Journal::new(&steps());
    let (mut lines, mut offset, mut end, mut turn) = (Lines::default(), 0, 0, 0);
    while end < bytes.len() {
        // What a reader sees grows by a piece at a time and begins at what is not done with yet.
        end = (end + pieces.get(turn).copied().unwrap_or(bytes.len()).max(1)).min(bytes.len());
        turn += 1;
        loop {
            let used = lines.take(&bytes[offset..end], &mut journal);
            offset += used;
            if used == 0 {
                break;
            }
        }
    }
    journal
}

#[test]
fn a_line_that_never_ends_costs_only_itself() {
    let mut bytes = vec![b'x'; 100_000];
    bytes.push(b'\n');
    bytes.extend(serde_json::to_vec(&started(0)).unwrap());
    bytes.extend(b"\n\0\0\0");
    let journal = lines_of(&bytes, &[17_000, 20_000, 5]);
    assert_eq!(journal.rejected, 1);
    assert_eq!(journal.steps[0].phase, StepPhase::Running);
}

#[test]
fn nothing_behind_a_nul_counts() {
    let mut bytes = serde_json::to_vec(&started(0)).unwrap();
    bytes.extend(b"\n\0");
    bytes.extend(serde_json::to_vec(&finished(true)).unwrap());
    bytes.push(b'\n');
    let journal = lines_of(&bytes, &[]);
    assert_eq!(journal.steps[0].phase, StepPhase::Running);
    assert_eq!(journal.finished, None);
}

fn any_record() -> impl Strategy<Value = Record> {
    let reason = (0u8..9).prop_map(|n| EndReason::from_number(n).unwrap());
    prop_oneof![
        (any::<u64>(), proptest::option::of(".{0,200}")).prop_map(|(at, revision)| Record::Ready {
            at,
            source_dir: String::new(),
            revision
        }),
        (any::<u64>(), 0usize..4, 0u32..4).prop_map(|(at, step, attempt)| Record::Started { at, step, attempt }),
        (any::<u64>(), 0usize..4).prop_map(|(at, step)| Record::Asked { at, step }),
        (any::<u64>(), 0usize..4, proptest::option::of(0..3i32), reason, proptest::option::of(".{0,20}"))
            .prop_map(|(at, step, code, reason, message)| Record::Ended { at, step, code, reason, message }),
        (any::<u64>(), any::<bool>(), proptest::option::of(0usize..9))
            .prop_map(|(at, passed, failed)| Record::Finished { at, passed, reason: None, failed, message: None }),
    ]
}

fn rank(phase: StepPhase) -> u8 {
    match phase {
        StepPhase::Pending => 0,
        StepPhase::Running => 1,
        StepPhase::Waiting => 2,
        StepPhase::Succeeded | StepPhase::Failed | StepPhase::Skipped | StepPhase::Cancelled => 3,
    }
}

proptest! {
    #[test]
    fn rubbish_gives_a_state(bytes in proptest::collection::vec(any::<u8>(), 0..4000)) {
        let journal = lines_of(&bytes, &[]);
        prop_assert_eq!(journal.steps.len(), 3);
    }

    #[test]
    fn states_only_go_forward(records in proptest::collection::vec(any_record(), 0..40)) {
        let mut journal = Journal::new(&steps());
        for record in records {
            let before = journal.clone();
            journal.accept(record);
            for (old, new) in before.steps.iter().zip(&journal.steps) {
                prop_assert!(rank(new.phase) >= rank(old.phase) || old.attempts < new.attempts);
                prop_assert!(!old.phase.is_final() || old == new);
            }
            prop_assert!(before.finished.is_none() || before.finished == journal.finished);
            let open = journal.steps.iter().filter(|s| matches!(s.phase, StepPhase::Running | StepPhase::Waiting)).count();
            prop_assert!(open <= 1, "the runner takes one step at a time");
        }
    }

    #[test]
    fn pieces_do_not_matter(
        records in proptest::collection::vec(any_record(), 0..12),
        pieces in proptest::collection::vec(1usize..300, 0..40),
    ) {
        let mut bytes = Vec::new();
        for record in &records {
            bytes.extend(serde_json::to_vec(record).unwrap());
            bytes.push(b'\n');
        }
        bytes.extend([0; 64]);
        prop_assert_eq!(lines_of(&bytes, &pieces), fold(records, &steps()));
    }
}

fn waiting(step: usize, why: Wait) -> Record {
    Record::Waiting { at: 1500, step, why, code: None }
}

/// `build` may wait for all it can, `tell` for nothing.
fn steps_that_wait() -> Vec<StepOutline> {
    let mut steps = steps();
    steps[0].waits = vec![Wait::Before, Wait::Failed];
    steps[1].waits = vec![Wait::Failed];
    steps
}

#[test]
fn a_step_waits_begins_fails_waits_and_is_repeated() {
    let begun = |attempt| Record::Started { at: 1600, step: 0, attempt };
    let mut journal = Journal::new(&steps_that_wait());
    for (record, phase, waits) in [
        (waiting(0, Wait::Before), StepPhase::Waiting, Some((Wait::Before, None))),
        (begun(1), StepPhase::Running, None),
        (waiting(0, Wait::Failed), StepPhase::Waiting, Some((Wait::Failed, None))),
        (begun(9), StepPhase::Running, None),
        (ended(0, Some(0), EndReason::ExitCode), StepPhase::Succeeded, None),
    ] {
        journal.accept(record);
        assert_eq!((journal.steps[0].phase, journal.steps[0].waits), (phase, waits));
    }
    assert_eq!((journal.rejected, journal.steps[0].attempts, journal.steps[0].started_ms), (0, 9, Some(1500)));
}

#[rstest]
#[case::a_step_without_a_breakpoint(vec![started(0), waiting(0, Wait::Shell)])]
#[case::before_a_step_that_has_begun(vec![started(0), waiting(0, Wait::Before)])]
#[case::after_a_failure_of_a_step_that_has_not_begun(vec![waiting(0, Wait::Failed)])]
#[case::out_of_range(vec![waiting(9, Wait::Before)])]
#[case::not_its_turn(vec![waiting(1, Wait::Failed)])]
#[case::repeated_too_often(vec![Record::Started { at: 1, step: 0, attempt: MAX_REPEATS + 3 }])]
fn waits_that_the_run_does_not_allow_are_left_out(#[case] records: Vec<Record>) {
    let journal = fold(records, &steps_that_wait());
    assert_eq!(journal.rejected, 1, "{journal:?}");
}

#[test]
fn what_may_wait_follows_from_the_pipeline_and_the_breakpoints() {
    let spec = serde_json::json!({
        "box": {"image": "a"},
        "steps": [
            {"name": "lint", "script": "x", "onFailure": "Continue"},
            {"name": "look", "shell": {}},
            {"name": "push", "dockerPush": {"repository": "h.io/a"}},
        ],
        "afterSteps": [{"name": "tell", "script": "x"}],
    });
    let spec: PipelineSpec = serde_json::from_value(spec).unwrap();
    let waits = |breakpoint: Option<&Breakpoint>| -> Vec<Vec<Wait>> {
        outline(&spec, breakpoint).into_iter().map(|step| step.waits).collect()
    };
    assert_eq!(waits(None), [vec![], vec![Wait::Shell], vec![], vec![]]);
    let all = Breakpoint { at_failure: true, before: vec!["lint".into(), "tell".into()] };
    assert_eq!(waits(Some(&all)), [vec![Wait::Before], vec![Wait::Shell, Wait::Failed], vec![Wait::Failed], vec![]]);
}
