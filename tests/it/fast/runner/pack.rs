//! Steps that pack files before they ask the agent, by the real runner.

use super::test_box::{Ran, Running, a_box, after, script, variable};
use std::fs::{self, File};
use windlass::archive::Reader;
use windlass::wire::{
    Answer, EndReason, PackFault, Packed, PlanStep, Record, Request, StepWork, VERSION, answer_file, archive_file,
    request_file,
};

fn pack(directory: Option<&str>) -> PlanStep {
    let work = StepWork::Pack { directory: directory.map(str::to_owned), disable_sync: false };
    PlanStep { work, ..script("push", "") }
}

/// The request of step 1, and the paths in its archive.
fn asked(running: &mut Running) -> (Request, Vec<String>) {
    let request: Request = running.wait_for("request", |running| {
        running.records().iter().find(|record| matches!(record, Record::Asked { step: 1, .. }))?;
        serde_json::from_slice(&fs::read(running.path("out").join(request_file(1))).ok()?).ok()
    });
    let mut paths = Vec::new();
    if let Ok(file) = File::open(running.path("disk").join(archive_file(1))) {
        let mut reader = Reader::new(file);
        while let Ok(Some(entry)) = reader.next_entry() {
            paths.push(String::from_utf8(entry.path).unwrap());
        }
    }
    (request, paths)
}

fn answered(running: Running) -> Ran {
    let answer = Answer { version: VERSION, passed: true, log: vec!["pushed".into()], message: None };
    let unfinished = running.path("in/answer.new");
    fs::write(&unfinished, serde_json::to_vec(&answer).unwrap()).unwrap();
    fs::rename(&unfinished, running.path("in").join(answer_file(1))).unwrap();
    running.end()
}

/// What a step that packs does after this script.
fn packed(code: &str, step: PlanStep) -> (Packed, Vec<String>, Ran) {
    let mut running = a_box(&[script("make", code), step]).start();
    let (request, paths) = asked(&mut running);
    (request.packed.unwrap(), paths, answered(running))
}

#[test]
fn the_output_directory_is_packed_then_the_agent_is_asked() {
    let (report, paths, ran) =
        packed("mkdir $WERCKER_OUTPUT_DIR/d; echo hi > $WERCKER_OUTPUT_DIR/d/app; echo src > main", pack(None));
    assert_eq!((report, paths), (Packed::Archive, vec!["d".to_owned(), "d/app".into()]));
    ran.passed();
    assert_eq!(ran.ends()[1], (EndReason::ExitCode, None));
    let log = ran.log("push");
    assert!(log.starts_with("packed 1 file, 3 B of /") && log.ends_with("/box/pipeline/output\npushed\n"), "{log}");
    let started = ran.records.iter().filter(|record| matches!(record, Record::Started { step: 1, .. })).count();
    assert_eq!(started, 1);
    for left in ["disk/packed-1.tar", "out/request-1.json", "out/packed"] {
        assert!(!ran.dir.path().join(left).exists(), "{left} stays");
    }
}

#[test]
fn without_output_the_root_is_packed_that_a_step_may_name() {
    let all = ["main"].map(str::to_owned).to_vec();
    for (code, directory, expected) in [
        ("echo src > main", None, all.clone()),
        ("mkdir sub; echo x > sub/main; export WERCKER_ROOT=$PWD/sub", None, all.clone()),
        ("mkdir sub; echo x > sub/main; export WINDLASS_ROOT=$PWD/sub", None, all.clone()),
        ("mkdir sub; echo x > sub/main; echo y > $WERCKER_OUTPUT_DIR/other; export SUB=sub", Some("$SUB"), all.clone()),
        ("mkdir -p a/b; echo x > a/b/main", Some("${WERCKER_SOURCE_DIR}/a/b"), all),
    ] {
        let (report, paths, ran) = packed(code, pack(directory));
        assert_eq!((report, paths), (Packed::Archive, expected), "{code}: {}", ran.stdout);
    }
}

#[test]
fn what_cannot_be_packed_is_told_to_the_agent_and_masked() {
    let refused = |packed: Packed| match packed {
        Packed::Archive => panic!("it was packed"),
        Packed::Refused { fault, message } => (fault, message),
    };
    let (report, _, _) = packed("mkfifo $WERCKER_OUTPUT_DIR/pipe", pack(None));
    assert_eq!(refused(report), (PackFault::Unsafe, "/pipe is a FIFO".into()));
    let (report, _, _) = packed("true", pack(Some("nowhere")));
    assert_eq!(
        refused(report),
        (PackFault::Empty, "nowhere is no directory; put there what the image is to hold".into())
    );
    let (report, paths, _) = packed("true", pack(Some("$UNSET/x")));
    assert_eq!(refused(report), (PackFault::Failed, "directory $UNSET/x: $UNSET is not set".into()));
    assert!(paths.is_empty());
    let mut running = a_box(&[script("make", "mkfifo $WERCKER_OUTPUT_DIR/of-hunter2-"), pack(None)])
        .with(|plan| {
            plan.env = vec![windlass::wire::Variable { secret: true, ..variable("KEY", "hunter2") }];
        })
        .start();
    let (request, _) = asked(&mut running);
    assert_eq!(refused(request.packed.unwrap()), (PackFault::Unsafe, "/of-***- is a FIFO".into()));
    answered(running);
    // A long path is cut; what is to be masked must not be cut before that.
    let secret = "hunter2-hunter2-hunter2";
    let below = "d".repeat(190);
    let code = format!("mkdir $WERCKER_OUTPUT_DIR/{below}; mkfifo $WERCKER_OUTPUT_DIR/{below}/$KEY");
    let mut running = a_box(&[script("make", &code), pack(None)])
        .with(|plan| plan.env = vec![windlass::wire::Variable { secret: true, ..variable("KEY", secret) }])
        .start();
    let (request, _) = asked(&mut running);
    assert_eq!(refused(request.packed.unwrap()), (PackFault::Unsafe, format!("/{below}/*** is a FIFO")));
    answered(running);
}

#[test]
fn disable_sync_does_not_see_exports() {
    let work = StepWork::Pack { directory: None, disable_sync: true };
    let code = "mkdir sub; echo x > sub/f; echo y > main; export WERCKER_ROOT=$PWD/sub";
    let (report, paths, _) = packed(code, PlanStep { work, ..script("push", "") });
    assert_eq!((report, paths), (Packed::Archive, ["main", "sub", "sub/f"].map(str::to_owned).to_vec()));
}

#[test]
fn packing_is_cancelled_like_a_script() {
    // Holes that an image can take: it takes a while to write them.
    let many = "cd $WERCKER_OUTPUT_DIR; for i in $(seq 150); do truncate -s 60M $i; done";
    let mut running = a_box(&[script("make", many), pack(None), after("tell", "echo bye")]).start();
    running.wait_for("archive", |running| running.path("disk").join(archive_file(1)).exists().then_some(()));
    running.cancel();
    let ran = running.end();
    ran.failed("Cancelled", None, "cancelled (Graceful) at step push");
    assert_eq!((ran.ends()[1].0, ran.log("tell").as_str()), (EndReason::Cancelled, "bye\n"));
    assert!(!ran.dir.path().join("disk").join(archive_file(1)).exists(), "the archive does not stay");
}
