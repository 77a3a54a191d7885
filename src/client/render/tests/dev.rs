//! What `windlass dev` shows on this machine.

use super::*;

/// A run of `windlass dev` on this machine.
fn dev() -> Vec<(u64, Event)> {
    let (install, serve) = (step("install", "script", false, 1, 2), step("serve", "watch", false, 2, 2));
    let ends = |step: &StepInfo, took_ms| {
        Event::StepFinished(StepEnd {
            step: step.clone(),
            result: StepResult::Succeeded,
            exit_code: Some(0),
            reason: String::new(),
            message: String::new(),
            took_ms: Some(took_ms),
            images: Vec::new(),
        })
    };
    let watch =
        |message: &str| Event::Watch { step: serve.clone(), news: Watched::of(message), message: message.into() };
    let created = Event::RunCreated {
        run: "dev-a41".into(),
        namespace: String::new(),
        cluster: "local Docker, . is mounted as the source".into(),
        pipeline: Some("dev".into()),
        steps: vec![install.clone(), serve.clone()],
    };
    vec![
        (0, created),
        (300, Event::Prepared { pod: "p".into(), node: String::new(), source: None, took_ms: 300 }),
        (300, Event::StepStarted { step: install.clone() }),
        (4_400, ends(&install, 4_100)),
        (4_400, Event::StepStarted { step: serve.clone() }),
        (4_400, watch("restarts when files in /pipeline/source change (212 files in 9 directories)")),
        (5_000, log(0, "listening on :5000\n")),
        (9_000, watch("server.js changed; starts again")),
        (30_000, watch("exit code 1; waits for the next change")),
        (60_000, watch("exit code 0; waits for the next change")),
        (152_000, Event::Notice { message: "finishing step serve (Ctrl-C again stops now)".into() }),
        (152_500, ends(&serve, 148_100)),
        (153_000, over_without_image()),
    ]
}

fn over_without_image() -> Event {
    let mut event = over(Outcome::Succeeded, "Succeeded", 153_000, None);
    if let Event::RunFinished(end) = &mut event {
        end.images.clear();
    }
    event
}

fn of_dev(mode: Mode) -> Setting {
    Setting { again: Some("windlass dev".into()), published: vec![5000], ..setting(mode) }
}

#[test]
fn live_dev() {
    assert_eq!(
        shown(of_dev(Mode::Live), &dev()),
        "\
run dev-a41 on local Docker, . is mounted as the source
✓ prepare      0.3s
▸ 1/2 install
✓ 1/2 install  4.1s
▸ 2/2 serve  (watch)  http://localhost:5000
· restarts when files in /pipeline/source change (212 files in 9 directories)
listening on :5000
↻ 13:03:07 server.js changed; starts again
✗ 13:03:07 exit code 1; waits for the next change
· 13:03:07 exit code 0; waits for the next change
! finishing step serve (Ctrl-C again stops now)
✓ 2/2 serve    2m28s
✓ dev-a41 succeeded in 2m33s
"
    );
}

#[test]
fn plain_dev() {
    let text = shown(of_dev(Mode::Plain), &dev());
    let from = text.split_once("> step  [4.4s]").map(|(_, rest)| rest).unwrap_or_default();
    assert_eq!(
        from,
        " 2/2 serve, http://localhost:5000
> watch [4.4s] 2/2 serve: restarts when files in /pipeline/source change (212 files in 9 directories)
listening on :5000
> watch [9.0s] 2/2 serve: server.js changed; starts again
> watch [30.0s] 2/2 serve: exit code 1; waits for the next change
> watch [1m00s] 2/2 serve: exit code 0; waits for the next change
> note  [2m32s] finishing step serve (Ctrl-C again stops now)
> ok    [2m32s] 2/2 serve 2m28s
> ok    [2m33s] dev-a41 succeeded in 2m33s
"
    );
}

#[test]
fn json_tells_of_reloads() {
    let text = shown(of_dev(Mode::Json), &dev());
    let of = |kind: &str| text.matches(&format!("\"type\":\"{kind}\"")).count();
    assert_eq!((of("reload"), of("notice")), (3, 2), "{text}");
}
