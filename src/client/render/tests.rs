//! The mock-ups of the manual, as golden texts.

use super::*;
use crate::{
    api::status::ImageStatus,
    client::{
        event::{Pushed, RunEnd, StepEnd, StepResult, Watched},
        view::{Outcome, StepInfo},
    },
};
use rstest::rstest;

mod dev;

fn step(name: &str, kind: &str, after: bool, index: usize, of: usize) -> StepInfo {
    let ports = if kind == "dockerPush" { vec!["5000/tcp".into()] } else { Vec::new() };
    StepInfo { name: name.into(), kind: kind.into(), after, index, of, ports }
}

fn steps() -> Vec<StepInfo> {
    vec![
        step("build", "script", false, 1, 3),
        step("test", "script", false, 2, 3),
        step("push", "dockerPush", false, 3, 3),
        step("tell", "script", true, 1, 1),
    ]
}

fn image() -> ImageStatus {
    ImageStatus {
        repository: "registry.example.com/team/hello".into(),
        tags: vec!["1.4.2".into(), "latest".into(), "7".into()],
        digest: format!("sha256:9f2c4e7a1b03{}", "0".repeat(52)),
        size: Some(142_000_000),
    }
}

fn at(run_ms: u64) -> At {
    At { run_ms, now_ms: run_ms, wall: "2026-11-21T13:03:07.120Z".parse().unwrap() }
}

fn created() -> Event {
    Event::RunCreated {
        run: "hello-7".into(),
        namespace: "team-a".into(),
        cluster: "prod".into(),
        pipeline: Some("hello".into()),
        steps: steps(),
    }
}

fn waiting() -> Event {
    Event::Waiting { reason: "PullingImages".into(), message: "debian:12 on node-3".into() }
}

fn prepared() -> Event {
    Event::Prepared {
        pod: "hello-7-1".into(),
        node: "node-3".into(),
        source: Some("main@3f9c2d1".into()),
        took_ms: 3_400,
    }
}

fn started(i: usize) -> Event {
    Event::StepStarted { step: steps()[i].clone() }
}

fn log(i: usize, text: &str) -> Event {
    let stamp = Some("2026-11-21T13:03:10.5Z".into());
    Event::Log { step: Some(steps()[i].name.clone()), stamp, bytes: text.into() }
}

fn finished(i: usize, result: StepResult, took_ms: Option<u64>, exit_code: Option<i32>) -> Event {
    let images = if i == 2 && result == StepResult::Succeeded { vec![image()] } else { Vec::new() };
    let reason = if result == StepResult::Failed { "ExitCode" } else { "" };
    let step = steps()[i].clone();
    Event::StepFinished(StepEnd {
        step,
        result,
        exit_code,
        reason: reason.into(),
        message: String::new(),
        took_ms,
        images,
    })
}

fn over(outcome: Outcome, reason: &str, took_ms: u64, step: Option<&str>) -> Event {
    let pushed = Pushed { image: image(), ports: vec!["5000/tcp".into(), "53/udp".into()] };
    let images = if outcome == Outcome::Succeeded { vec![pushed] } else { Vec::new() };
    let (reason, message, step) = (reason.into(), "m".into(), step.map(str::to_owned));
    Event::RunFinished(RunEnd { outcome, reason, message, took_ms, step, exit_code: None, images })
}

fn good() -> Vec<(u64, Event)> {
    vec![
        (0, created()),
        (1_100, waiting()),
        (3_400, prepared()),
        (3_400, started(0)),
        (3_500, log(0, "cc -O2 -o hello hello.c\n")),
        (15_700, finished(0, StepResult::Succeeded, Some(12_300), Some(0))),
        (15_700, started(2)),
        (32_600, Event::Image { step: "push".into(), image: image() }),
        (32_600, finished(2, StepResult::Succeeded, Some(7_100), None)),
        (32_700, started(3)),
        (32_900, finished(3, StepResult::Succeeded, Some(200), Some(0))),
        (32_900, over(Outcome::Succeeded, "Succeeded", 32_900, None)),
    ]
}

fn bad() -> Vec<(u64, Event)> {
    vec![
        (0, created()),
        (15_700, started(1)),
        (16_000, log(1, "greet_test.c:31: expected \"hello\", got \"helo\"\nmake: *** [Makefile:9: test] Error 2\n")),
        (21_000, finished(1, StepResult::Failed, Some(5_300), Some(2))),
        (21_000, finished(2, StepResult::Skipped, None, None)),
        (21_200, started(3)),
        (21_400, finished(3, StepResult::Succeeded, Some(200), Some(0))),
        (21_600, over(Outcome::Failed, "StepFailed", 21_600, Some("test"))),
    ]
}

fn setting(mode: Mode) -> Setting {
    let look = Look { mode, glyphs: mode == Mode::Live, ..Look::default() };
    Setting { look, program: "windlass".into(), tail: 20, interrupt: "Ctrl-C cancels", ..Setting::default() }
}

/// Everything that was written, data and messages in order.
fn shown(setting: Setting, events: &[(u64, Event)]) -> String {
    let mut renderer = Renderer::new(setting);
    let texts = events.iter().flat_map(|(ms, event)| renderer.event(at(*ms), event));
    let text = |text: Text| match text {
        Text::Data(bytes) => String::from_utf8(bytes).expect("utf-8"),
        Text::Message(line) => line,
    };
    texts.map(text).collect()
}

#[test]
fn plain_good() {
    let digest = image().digest;
    assert_eq!(
        shown(setting(Mode::Plain), &good()),
        format!(
            "\
> run   hello-7 in namespace team-a, cluster prod
> wait  [1.1s] PullingImages: debian:12 on node-3
> ok    [3.4s] prepare 3.4s, pod hello-7-1 on node-3, source main@3f9c2d1
> step  [3.4s] 1/3 build
cc -O2 -o hello hello.c
> ok    [15.7s] 1/3 build 12.3s
> step  [15.7s] 3/3 push
> image [32.6s] registry.example.com/team/hello@{digest} 142.0 MB, tags: 1.4.2 latest 7
> ok    [32.6s] 3/3 push 7.1s
> step  [32.7s] tell (after)
> ok    [32.9s] tell 0.2s (after)
> ok    [32.9s] hello-7 succeeded in 32.9s
  docker run --rm -p 5000:5000 -p 53:53/udp registry.example.com/team/hello@{digest}
"
        )
    );
}

#[test]
fn plain_bad() {
    assert_eq!(
        shown(setting(Mode::Plain), &bad()),
        "\
> run   hello-7 in namespace team-a, cluster prod
> step  [15.7s] 2/3 test
greet_test.c:31: expected \"hello\", got \"helo\"
make: *** [Makefile:9: test] Error 2
> FAIL  [21.0s] 2/3 test 5.3s, exit code 2
> skip  [21.0s] 3/3 push
> step  [21.2s] tell (after)
> ok    [21.4s] tell 0.2s (after)
> FAIL  [21.6s] hello-7 failed in 21.6s: step test, exit code 2
  | greet_test.c:31: expected \"hello\", got \"helo\"
  | make: *** [Makefile:9: test] Error 2
hint: all of it: windlass logs hello-7 --step test
      look in:   windlass retry hello-7 --breakpoint on-failure
"
    );
}

#[test]
fn the_last_lines_are_not_repeated_when_nothing_followed_them() {
    let events: Vec<_> = bad().into_iter().filter(|(ms, _)| *ms != 21_200 && *ms != 21_400).collect();
    let text = shown(setting(Mode::Plain), &events);
    assert!(!text.contains("  | "), "{text}");
    assert!(shown(Setting { tail: 1, ..setting(Mode::Plain) }, &bad()).matches("  | ").count() == 1);
    assert!(!shown(Setting { tail: 0, ..setting(Mode::Plain) }, &bad()).contains("  | "));
}

#[test]
fn live_good() {
    assert_eq!(
        shown(setting(Mode::Live), &good()),
        format!(
            "\
run hello-7 in namespace team-a, cluster prod
✓ prepare    3.4s   pod hello-7-1 on node-3, source main@3f9c2d1
▸ 1/3 build
cc -O2 -o hello hello.c
✓ 1/3 build  12.3s
▸ 3/3 push
✓ 3/3 push   7.1s   registry.example.com/team/hello  sha256:9f2c4e7a1b03  tags 1.4.2, latest, 7
▸ tell  (after)
✓ tell       0.2s   (after)
✓ hello-7 succeeded in 32.9s
  docker run --rm -p 5000:5000 -p 53:53/udp registry.example.com/team/hello@{}
",
            image().digest
        )
    );
}

#[test]
fn live_bad() {
    let text = shown(setting(Mode::Live), &bad());
    let end = text.split_once("✗ 2/3 test").map(|(_, end)| end).unwrap_or_default();
    assert_eq!(
        end,
        "   5.3s   exit code 2
· 3/3 push          skipped
▸ tell  (after)
✓ tell       0.2s   (after)

✗ hello-7 failed in 21.6s: step test, exit code 2
  | greet_test.c:31: expected \"hello\", got \"helo\"
  | make: *** [Makefile:9: test] Error 2
hint: all of it: windlass logs hello-7 --step test
      look in:   windlass retry hello-7 --breakpoint on-failure
"
    );
}

#[test]
fn cancelled_says_what_did_not_happen() {
    let events =
        [(0, created()), (100, started(1)), (21_600, over(Outcome::Cancelled, "Cancelled", 21_600, Some("test")))];
    let text = shown(setting(Mode::Live), &events);
    assert!(text.contains("! hello-7 cancelled after 21.6s (step test); image not pushed\n"), "{text}");
}

#[test]
fn a_failure_before_any_step_names_its_reason() {
    let mut event = over(Outcome::Failed, "PipelineNotFound", 800, None);
    if let Event::RunFinished(end) = &mut event {
        end.message = "Pipeline release does not exist in namespace team-a".into();
    }
    assert_eq!(
        shown(setting(Mode::Plain), &[(0, created()), (800, event)]).split_once('\n').unwrap().1,
        "> FAIL  [0.8s] hello-7 failed in 0.8s: PipelineNotFound: Pipeline release does not exist in namespace team-a\n\
         hint: windlass explain PipelineNotFound\n"
    );
}

#[rstest]
#[case::its_time_was_over("RunTimedOut", StepResult::Cancelled, "the run took longer than 5s; step test was running")]
#[case::a_service_died(
    "ServiceFailed",
    StepResult::Failed,
    "service db ended with exit code 3; its output: windlass logs hello-7 --service db"
)]
fn the_last_line_of_a_run_that_no_step_failed_is_its_own(
    #[case] why: &str,
    #[case] result: StepResult,
    #[case] message: &str,
) {
    let mut cut_short = finished(1, result, Some(5_000), None);
    let mut end = over(Outcome::Failed, why, 6_000, Some("test"));
    if let (Event::StepFinished(step), Event::RunFinished(end)) = (&mut cut_short, &mut end) {
        step.reason = why.into();
        end.message = message.into();
    }
    let text = shown(setting(Mode::Plain), &[(0, created()), (1_000, started(1)), (6_000, cut_short), (6_000, end)]);
    assert!(text.contains(&format!("FAIL  [6.0s] hello-7 failed in 6.0s: {why}: {message}\n")), "{text}");
}

#[test]
fn the_footer_says_where_the_run_is() {
    let mut renderer = Renderer::new(setting(Mode::Live));
    renderer.event(at(0), &created());
    renderer.event(at(300), &waiting());
    assert_eq!(
        renderer.footer(at(2_100), 95),
        [
            "⠙ hello-7  waiting  2.1s  PullingImages: debian:12 on node-3 (since 1.8s)        Ctrl-C cancels",
            "  · build  · test  · push  after: · tell"
        ]
    );
    renderer.event(at(3_400), &started(0));
    renderer.event(at(15_700), &finished(0, StepResult::Succeeded, Some(12_300), Some(0)));
    renderer.event(at(15_900), &started(1));
    assert_eq!(
        renderer.footer(at(21_000), 79),
        [
            "⠋ hello-7  2/3 test  5.1s  total 21.0s                           Ctrl-C cancels",
            "  ✓ build 12.3s  ▸ test  · push  after: · tell"
        ]
    );
    // Narrow: one row, cut in the middle, the running step still on it.
    assert_eq!(renderer.footer(at(21_000), 39), ["⠋ hello-7  2/3 test  5.1s  total 21.0s"]);
    renderer.event(at(22_000), &over(Outcome::Failed, "StepFailed", 22_000, None));
    assert_eq!(renderer.footer(at(22_000), 79), [""; 0]);
}

#[test]
fn a_thing_that_is_told_late_has_its_own_time_and_is_not_taken_for_silence() {
    let mut renderer = Renderer::new(setting(Mode::Plain));
    renderer.event(at(0), &created());
    let late = At { run_ms: 3_400, now_ms: 7_200_000, ..at(0) };
    assert_eq!(renderer.event(late, &started(0)), [Text::Message("> step  [3.4s] 1/3 build\n".into())]);
    assert_eq!(renderer.tick(At { run_ms: 7_200_100, now_ms: 7_200_100, ..at(0) }), []);
}

#[test]
fn a_long_pipeline_shows_the_running_step() {
    let many: Vec<StepInfo> = (1..=40).map(|i| step(&format!("step-{i}"), "script", false, i, 40)).collect();
    let mut renderer = Renderer::new(setting(Mode::Live));
    let Event::RunCreated { run, namespace, cluster, pipeline, .. } = created() else { unreachable!() };
    renderer.event(at(0), &Event::RunCreated { run, namespace, cluster, pipeline, steps: many.clone() });
    renderer.event(at(1), &Event::StepStarted { step: many[29].clone() });
    let footer = renderer.footer(at(2), 79);
    assert!(footer[1].contains("▸ step-30"), "{footer:?}");
    assert!(footer.iter().all(|row| row.chars().count() <= 79), "{footer:?}");
}

#[test]
fn a_wait_is_repeated_after_half_a_minute_and_a_silent_step_after_one() {
    let mut renderer = Renderer::new(setting(Mode::Plain));
    renderer.event(at(0), &created());
    renderer.event(at(1_000), &waiting());
    assert_eq!(renderer.tick(at(30_900)), []);
    let line = "> wait  [31.0s] PullingImages: debian:12 on node-3\n";
    assert_eq!(renderer.tick(at(31_000)), [Text::Message(line.into())]);
    assert_eq!(renderer.tick(at(32_000)), []);
    renderer.event(at(33_000), &started(0));
    assert_eq!(renderer.tick(at(92_900)), []);
    let line = "> run   [1m33s] 1/3 build, 1m00s, no output for 1m00s\n";
    assert_eq!(renderer.tick(at(93_000)), [Text::Message(line.into())]);
}

#[test]
fn progress_of_a_push_is_a_line_every_ten_seconds_and_its_last_word_is_not_lost() {
    let mut renderer = Renderer::new(setting(Mode::Plain));
    renderer.event(at(0), &created());
    renderer.event(at(1_000), &started(2));
    let mut lines = Vec::new();
    for second in 1..=40_u64 {
        if second % 5 == 0 && second <= 25 {
            let step = steps().remove(2);
            let message = format!("pushing: 1 of 2 layers, {second}.0 MB sent, 1.0 MB/s");
            lines.extend(renderer.event(at(second * 1_000), &Event::Progress { step, message }));
        }
        lines.extend(renderer.tick(at(second * 1_000)));
    }
    let expected = [(5, "5.0s"), (15, "15.0s"), (25, "25.0s")].map(|(sent, when)| {
        Text::Message(format!("> run   [{when}] 3/3 push: pushing: 1 of 2 layers, {sent}.0 MB sent, 1.0 MB/s\n"))
    });
    assert_eq!(lines, expected);
    let step = steps().remove(2);
    assert_eq!(renderer.event(at(41_000), &Event::Progress { step: step.clone(), message: "a".into() }).len(), 1);
    assert_eq!(renderer.event(at(42_000), &Event::Progress { step, message: "trying again in 60s".into() }), []);
    assert_eq!(renderer.tick(at(51_000)), [Text::Message("> run   [51.0s] 3/3 push: trying again in 60s\n".into())]);
}

#[test]
fn only_the_failing_step_is_shown_when_asked() {
    let mut events = bad();
    events.insert(1, (100, started(0)));
    events.insert(2, (200, log(0, "noise\n")));
    events.insert(3, (300, finished(0, StepResult::Succeeded, Some(200), Some(0))));
    let text = shown(Setting { show: Show::Failed, ..setting(Mode::Plain) }, &events);
    assert!(!text.contains("noise"), "{text}");
    assert!(text.contains("make: *** [Makefile:9: test] Error 2\n> FAIL  [21.0s] 2/3 test"), "{text}");
}

#[test]
fn quiet_leaves_output_and_the_failure() {
    let mut quiet = setting(Mode::Plain);
    quiet.look.quiet = 1;
    let digestless: String = shown(quiet.clone(), &good());
    assert_eq!(digestless, "cc -O2 -o hello hello.c\n");
    assert!(shown(quiet, &bad()).contains("\n> FAIL  [21.6s] hello-7 failed in 21.6s: step test, exit code 2\n"));
}

#[test]
fn control_characters_of_the_cluster_do_not_reach_the_terminal() {
    let event = Event::Waiting { reason: "Queued\u{1b}[2J".into(), message: "a\nb\u{7}".into() };
    let text = shown(setting(Mode::Plain), &[(0, created()), (1, event)]);
    assert!(text.ends_with("> wait  [0.0s] Queued[2J: a b\n"), "{text:?}");
}

/// The footer is one row, and the commands are longer.
#[test]
fn what_a_person_is_asked_for_is_said_in_a_line() {
    let message = "step test waits; attach with: windlass shell hello-7; then: windlass retry hello-7 --step test";
    let event = Event::Waiting { reason: "WaitingForUser".into(), message: message.into() };
    let text = shown(setting(Mode::Live), &[(0, created()), (1, waiting()), (2, event.clone()), (3, event)]);
    assert_eq!(text.matches(message).count(), 1, "{text}");
    assert!(!text.contains("PullingImages"), "{text}");
}

/// A workflow has several runs, one after the other.
#[test]
fn the_numbers_of_events_go_on_in_the_next_run_of_a_command() {
    let setting = setting(Mode::Json);
    let first = Renderer::new(setting.clone()).begin(at(0), "prod");
    let mut second = Renderer::new(setting);
    let all = [first, second.begin(at(1), "prod"), second.end(at(2), Exit::Success, None)].concat();
    let numbers: Vec<serde_json::Value> = all
        .into_iter()
        .map(|text| match text {
            Text::Data(bytes) => serde_json::from_slice::<serde_json::Value>(&bytes).expect("JSON")["seq"].clone(),
            Text::Message(line) => panic!("a message in JSON: {line}"),
        })
        .collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn programs_are_told_why_a_command_failed_though_its_run_passed() {
    let fault = Fault::new("CommitFailed", Exit::Failed, "no image was made: why");
    let texts = Renderer::new(setting(Mode::Json)).end(at(2), Exit::Failed, Some(&fault));
    let [Text::Data(bytes)] = texts.as_slice() else { panic!("{texts:?}") };
    let end: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
    let told = (&end["exit"], &end["reason"], &end["message"]);
    assert_eq!(told, (&1.into(), &"CommitFailed".into(), &"no image was made: why".into()));
}

#[test]
fn json_events_are_one_object_per_line_in_sequence() {
    let mut renderer = Renderer::new(setting(Mode::Json));
    let mut texts = renderer.begin(at(0), "prod");
    for (ms, event) in good() {
        texts.extend(renderer.event(at(ms), &event));
    }
    texts.extend(renderer.end(at(33_000), Exit::Success, None));
    let lines: Vec<String> = texts
        .into_iter()
        .map(|text| match text {
            Text::Data(bytes) => String::from_utf8(bytes).expect("utf-8"),
            Text::Message(line) => panic!("a message in JSON: {line}"),
        })
        .collect();
    assert_eq!(
        lines[1],
        "{\"v\":1,\"type\":\"run.created\",\"seq\":2,\"time\":\"2026-11-21T13:03:07.120Z\",\"run\":\"hello-7\",\
         \"namespace\":\"team-a\",\"pipeline\":\"hello\",\"steps\":[\
         {\"after\":false,\"kind\":\"script\",\"name\":\"build\"},{\"after\":false,\"kind\":\"script\",\"name\":\"test\"},\
         {\"after\":false,\"kind\":\"dockerPush\",\"name\":\"push\"},{\"after\":true,\"kind\":\"script\",\"name\":\"tell\"}]}\n"
    );
    let values: Vec<serde_json::Value> = lines.iter().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    for (i, value) in values.iter().enumerate() {
        assert_eq!(value["seq"], i + 1);
        assert_eq!(value["v"], 1);
    }
    let types: Vec<_> = values.iter().filter_map(|v| v["type"].as_str()).collect();
    assert_eq!((types[0], types[types.len() - 1]), ("begin", "end"));
    assert_eq!(values[5]["text"], "cc -O2 -o hello hello.c\n");
    assert_eq!(values[6]["durationMs"], 12_300);
    let last = &values[values.len() - 1];
    assert_eq!((&last["exit"], last.get("reason")), (&serde_json::json!(0), None));
}

#[test]
fn json_output_is_cut_between_characters_and_keeps_every_byte() {
    let mut renderer = Renderer::new(setting(Mode::Json));
    let text = "ü".repeat(20_000);
    let event = Event::Log { step: Some("build".into()), stamp: None, bytes: text.clone().into_bytes() };
    let mut whole = String::new();
    for line in renderer.event(at(0), &event) {
        let Text::Data(bytes) = line else { panic!("a message") };
        assert!(bytes.len() <= 64 * 1024);
        let value: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
        assert_eq!(value["offset"], whole.len());
        assert_eq!(value["partial"], true);
        whole += value["text"].as_str().expect("text");
    }
    assert_eq!(whole, text);
    let event = Event::Log { step: None, stamp: None, bytes: vec![0xff, b'\n'] };
    let texts = renderer.event(at(0), &event);
    assert!(matches!(&texts[0], Text::Data(b) if String::from_utf8_lossy(b).contains("\"base64\":\"/wo=\"")));
}

#[test]
fn a_run_of_this_machine_names_no_cluster() {
    let here = |mode| Setting { again: Some("windlass run test".into()), ..setting(mode) };
    let created = Event::RunCreated {
        run: "test-a41".into(),
        namespace: String::new(),
        cluster: "local Docker".into(),
        pipeline: Some("test".into()),
        steps: steps(),
    };
    let prepared = |source: Option<&str>| Event::Prepared {
        pod: "test-a41-1".into(),
        node: String::new(),
        source: source.map(str::to_owned),
        took_ms: 400,
    };
    let text = |texts: Vec<Text>| -> String {
        let one = |text| match text {
            Text::Data(bytes) => String::from_utf8(bytes).expect("utf-8"),
            Text::Message(line) => line,
        };
        texts.into_iter().map(one).collect()
    };
    let mut plain = Renderer::new(here(Mode::Plain));
    assert_eq!(text(plain.event(at(0), &created)), "> run   test-a41 on local Docker\n");
    assert_eq!(text(plain.event(at(400), &prepared(Some("3f9c2d1")))), "> ok    [0.4s] prepare 0.4s, source 3f9c2d1\n");
    assert_eq!(text(plain.event(at(400), &prepared(None))), "> ok    [0.4s] prepare 0.4s\n");
    text(plain.event(at(400), &started(1)));
    text(plain.event(at(500), &finished(1, StepResult::Failed, Some(100), Some(2))));
    let end = RunEnd {
        outcome: Outcome::Failed,
        reason: "StepFailed".into(),
        message: "step test failed".into(),
        took_ms: 500,
        step: Some("test".into()),
        exit_code: Some(2),
        images: Vec::new(),
    };
    let last = text(plain.event(at(500), &Event::RunFinished(end)));
    assert!(last.ends_with("hint: look in: windlass run test --breakpoint on-failure\n"), "{last}");
    let mut json = Renderer::new(here(Mode::Json));
    let begin = text(json.begin(at(0), "local Docker"));
    assert!(begin.contains("\"mode\":\"local\"") && !begin.contains("context"), "{begin}");
    assert!(!text(json.event(at(0), &created)).contains("namespace"));
    assert!(!text(json.event(at(400), &prepared(None))).contains("pod"));
}

#[test]
fn what_moves_has_a_bar_in_the_footer() {
    let mut renderer = Renderer::new(setting(Mode::Live));
    renderer.event(at(0), &created());
    let message = "pulling debian:12: 2 of 5 layers, 12.5 of 48.5 MB".into();
    renderer.event(at(300), &Event::Waiting { reason: "PullingImages".into(), message });
    assert_eq!(
        renderer.footer(at(2_100), 110),
        [
            "⠙ hello-7  waiting  2.1s  PullingImages: pulling debian:12: 2 of 5 layers (since 1.8s)          Ctrl-C cancels",
            "  [=======>                    ]   25%  12.5/48.5 MB"
        ]
    );
    renderer.event(at(22_600), &started(2));
    let message = "pushing: 3 of 8 layers, 61.2 of 142.0 MB sent, 28.4 MB/s".into();
    renderer.event(at(23_000), &Event::Progress { step: steps().remove(2), message });
    assert_eq!(
        renderer.footer(at(26_800), 99),
        [
            "⠇ hello-7  3/3 push  4.2s  pushing: 3 of 8 layers  total 26.8s                       Ctrl-C cancels",
            "  [============>               ]   43%  61.2/142.0 MB  28.4 MB/s  eta 2s"
        ]
    );
    // Without a row to spare the words say it.
    let narrow = renderer.footer(at(26_800), 50);
    assert!(narrow.len() == 1 && narrow[0].contains("MB/s"), "{narrow:?}");
}
