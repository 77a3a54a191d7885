//! Tables over restarts: what changed and ended when, and what was said at which time.

use super::*;

/// Lets time pass as the loop does: it comes back when the schedule wants to, or when the code's
/// session is gone, `stop_ms` after it was told to end. Keeps what was said, with its time.
struct Stage {
    schedule: Schedule,
    said: Vec<String>,
    now: u64,
    stop_ms: u64,
    dies_at: Option<u64>,
    running: bool,
}

impl Stage {
    fn new(steps: &[PlanStep], stop_ms: u64) -> Self {
        let schedule = Schedule::new(steps.to_vec(), DEADLINE, 100, GRACE);
        let mut stage = Self { schedule, said: Vec::new(), now: 0, stop_ms, dies_at: None, running: false };
        stage.tell(Event::Begin);
        stage
    }

    fn tell(&mut self, event: Event) {
        for act in self.schedule.on(self.now, event) {
            self.said.push(format!("{} {}", self.now, shown(&act)));
            match act {
                Act::Start { .. } | Act::Restart { .. } => self.running = true,
                Act::Terminate => self.dies_at = Some(self.now + if self.running { self.stop_ms } else { 0 }),
                Act::Kill => self.dies_at = Some(self.now),
                _ => {}
            }
        }
    }

    fn until(&mut self, until: u64) {
        loop {
            if self.dies_at.is_some_and(|at| at <= self.now) {
                self.dies_at = None;
                if std::mem::take(&mut self.running) {
                    self.tell(exited(143));
                }
                self.tell(Event::SessionGone);
                continue;
            }
            let next = [self.schedule.wake(self.now), self.dies_at, Some(until)].into_iter().flatten().min().unwrap();
            if next >= until {
                self.now = until;
                return;
            }
            self.now = next.max(self.now + 1);
            self.tell(Event::Tick);
        }
    }

    fn at(mut self, at: u64, event: Event) -> Self {
        self.until(at);
        if matches!(event, Event::Exited(_) | Event::NotStarted(_)) {
            self.running = false;
        }
        self.tell(event);
        self
    }

    fn changes(self, times: &[u64]) -> Self {
        times.iter().fold(self, |stage, at| stage.at(*at, Event::Changed("main.c".into())))
    }

    /// What was said after the first start.
    #[track_caller]
    fn says(mut self, want: &[&str]) {
        self.until(60_000);
        let (begun, rest) = self.said.split_at(1);
        assert_eq!(begun, ["0 start 0 #1"]);
        assert_eq!(rest, want);
    }
}

#[test]
fn one_change_restarts_once_it_rests() {
    Stage::new(&[watch("w")], 7).changes(&[1000]).says(&["1100 term", "1107 restart 0"]);
}

#[test]
fn a_burst_restarts_once_after_its_last_change() {
    Stage::new(&[watch("w")], 7).changes(&[1000, 1020, 1099, 1150]).says(&["1250 term", "1257 restart 0"]);
}

#[test]
fn changes_that_never_rest_restart_now_and_then() {
    let times: Vec<u64> = (0..160).map(|n| 2000 + n * 50).collect();
    Stage::new(&[watch("w")], 50).changes(&times).says(&["7000 term", "10050 restart 0"]);
}

#[test]
fn changes_while_the_code_stops_are_not_lost() {
    // One that rests before the code is gone, and one that does not.
    Stage::new(&[watch("w")], 500).changes(&[1000, 1300, 3000, 3590]).says(&[
        "1100 term",
        "1600 restart 0",
        "3100 term",
        "3690 restart 0",
    ]);
}

#[test]
fn code_that_does_not_stop_is_killed() {
    Stage::new(&[watch("w")], 60_000).changes(&[1000]).says(&["1100 term", "11100 kill", "11100 restart 0"]);
}

#[test]
fn code_that_ended_waits_for_a_change() {
    Stage::new(&[watch("w"), script("next")], 7)
        .at(500, exited(1))
        .changes(&[40_000])
        .at(41_000, exited(0))
        .changes(&[50_000, 50_050])
        .says(&[
            "500 rest 0 ExitCode 1",
            "40100 term",
            "40100 restart 0",
            "41000 rest 0 ExitCode 0",
            "50150 term",
            "50150 restart 0",
        ]);
}

#[test]
fn code_that_changes_the_files_itself_is_slowed() {
    // It writes 300 ms after each start.
    let mut stage = Stage::new(&[watch("w")], 7);
    let mut starts = vec![0];
    while starts.len() < 12 {
        let before = stage.said.len();
        let started = stage.now;
        stage = stage.changes(&[started + 300]);
        while !stage.said[before..].iter().any(|line| line.contains("restart")) {
            let next = stage.now + 1;
            stage.until(next);
        }
        starts.push(stage.now);
    }
    let pauses: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) / 100).collect();
    assert_eq!(pauses, [4, 4, 4, 4, 4, 4, 4, 50, 50, 50, 50], "{:?}", stage.said);
    assert_eq!(stage.said.iter().filter(|line| line.ends_with(" slowed")).count(), 4);
    // A change that comes later is a person's.
    let now = stage.now;
    let mut stage = stage.changes(&[now + 2000]);
    stage.until(now + 2200);
    assert_eq!(stage.said.last().unwrap(), &format!("{} restart 0", now + 2107));
}

#[test]
fn a_person_who_changes_many_files_is_not_slowed() {
    let mut stage = Stage::new(&[watch("w")], 7);
    for n in 1..20 {
        stage = stage.at(n * 300, Event::Changed(format!("file{n}").into()));
    }
    stage.until(60_000);
    assert_eq!(stage.said.len(), 1 + 2 * 19, "{:?}", stage.said);
    assert!(!stage.said.iter().any(|line| line.ends_with(" slowed")));
}

#[test]
fn the_file_that_changed_first_is_named() {
    let mut stage = Stage::new(&[watch("w")], 500);
    for (at, file) in [(1000, "a"), (1010, "b"), (1200, "c")] {
        stage = stage.at(at, Event::Changed(file.into()));
    }
    stage.until(1600);
    let acts = stage.schedule.on(1600, Event::Exited(Exit { code: 143, signalled: true, ..Exit::default() }));
    assert_eq!(acts, []);
    let acts = stage.schedule.on(1601, Event::SessionGone);
    assert_eq!(acts, [Act::Restart { step: 0, file: "a".into(), slowed: false }]);
}

#[test]
fn a_watched_step_ends_by_its_limit_whatever_its_code_does() {
    let limited = PlanStep { timeout_s: Some(10), ..watch("w") };
    let timed_out = "StepTimedOut Some(0): step w ran longer than 10s; raise its timeout";
    // The limit is the step's, not that of each start.
    Stage::new(std::slice::from_ref(&limited), 7).changes(&[6000]).says(&[
        "6100 term",
        "6107 restart 0",
        "10000 term",
        "10007 end 0 TimedOut 143",
        &format!("10007 {timed_out}"),
    ]);
    // It waits for a change when its time is over.
    Stage::new(&[limited], 7).at(300, exited(0)).says(&[
        "300 rest 0 ExitCode 0",
        "10000 term",
        "10000 end 0 TimedOut 0",
        &format!("10000 {timed_out}"),
    ]);
}

#[test]
fn a_watched_step_is_cancelled_whatever_its_code_does() {
    let cancelled = format!("{CANCELLED} None: cancelled (Graceful) at step w");
    Stage::new(&[watch("w"), after("x")], 500).changes(&[1000]).at(1200, Event::Cancel).at(2000, exited(0)).says(&[
        "1100 term",
        "1600 end 0 Cancelled 143",
        "1600 start 1 #1",
        "2000 end 1 ExitCode 0",
        &format!("2000 {cancelled}"),
    ]);
    Stage::new(&[watch("w")], 500).at(300, exited(0)).at(1200, Event::Cancel).says(&[
        "300 rest 0 ExitCode 0",
        "1200 term",
        "1200 end 0 Cancelled 0",
        &format!("1200 {cancelled}"),
    ]);
    Stage::new(&[watch("w")], 500).changes(&[1000]).at(1200, Event::Stop(15)).says(&[
        "1100 term",
        "1600 end 0 Cancelled 143",
        "1600 leave 143",
    ]);
}

#[test]
fn a_watched_step_is_finished_whatever_its_code_does() {
    let finish = || Event::Asked(Verb::Finish);
    Stage::new(&[watch("w"), script("x")], 500).at(1000, finish()).at(2000, exited(0)).says(&[
        "1000 term",
        "1500 end 0 ExitCode 0",
        "1500 start 1 #1",
        "2000 end 1 ExitCode 0",
        "2000 passed true",
    ]);
    // While it waits for a change, and while it is stopped for a restart.
    Stage::new(&[watch("w")], 500).at(300, exited(1)).at(1000, finish()).says(&[
        "300 rest 0 ExitCode 1",
        "1000 term",
        "1000 end 0 ExitCode 0",
        "1000 passed true",
    ]);
    Stage::new(&[watch("w")], 500).changes(&[1000]).at(1200, finish()).says(&[
        "1100 term",
        "1600 end 0 ExitCode 0",
        "1600 passed true",
    ]);
}

#[test]
fn code_that_cannot_start_ends_the_step_only_the_first_time() {
    let lost = || Event::NotStarted("cwd /x: gone".into());
    let failed = format!("0 {STEP_FAILED} Some(0): step w (1 of 1) could not start: cwd /x: gone");
    Stage::new(&[watch("w")], 7).at(0, lost()).says(&["0 end 0 NotStarted", &failed]);
    Stage::new(&[watch("w")], 7).changes(&[1000]).at(1108, lost()).changes(&[4000]).says(&[
        "1100 term",
        "1107 restart 0",
        "1108 rest 0 NotStarted",
        "4100 term",
        "4100 restart 0",
    ]);
}

#[test]
fn without_reload_it_runs_once_and_changes_are_nothing() {
    let work = WatchWork { code: "serve".into(), ..WatchWork::default() };
    let once = PlanStep { work: StepWork::Watch(work), ..script("w") };
    check(
        &[once, script("next")],
        &[(1000, Event::Changed("x".into())), (2000, exited(0)), (3000, exited(0))],
        &["start 0 #1", "end 0 ExitCode 0", "start 1 #1", "end 1 ExitCode 0", "passed true"],
    );
}
