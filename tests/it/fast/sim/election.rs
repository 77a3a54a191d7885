//! Leader election under faults: two candidates and one Lease.

use super::{
    agent::SYSTEM,
    api::{Door, Record},
    clock,
    fault::{Fault, Strike},
    store::{Key, Shared},
};
use k8s_openapi::jiff::SignedDuration;
use rstest::rstest;
use serde_json::json;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use windlass::controller::lease::Candidate;

/// How long each plan is watched.
const WATCHED: Duration = Duration::from_secs(180);
/// Longest time without a leader: a Lease's time, and some tries.
const VACANT_MAX: Duration = Duration::from_secs(30);

/// Who led, from when to when.
type Reigns = Arc<Mutex<Vec<(&'static str, SignedDuration, Option<SignedDuration>)>>>;

fn door(store: &Shared, strike: Strike) -> Door {
    let (record, crash, dead): (Arc<Mutex<Record>>, _, _) = Default::default();
    Door { store: store.clone(), shown: Arc::default(), record, strike, crash, dead }
}

/// Leads whenever it can; after a loss it starts anew, as the process does.
async fn lead(name: &'static str, door: Door, reigns: Reigns) {
    loop {
        let mut candidate = Candidate::new(door.client(), SYSTEM, "windlass-controller", name);
        candidate.acquire().await;
        let index = {
            let mut reigns = reigns.lock().unwrap();
            reigns.push((name, clock::elapsed(), None));
            reigns.len() - 1
        };
        candidate.hold().await;
        reigns.lock().unwrap()[index].2 = Some(clock::elapsed());
    }
}

/// The reigns of two candidates, the first of which is struck.
fn play(strike: Strike) -> Vec<(&'static str, SignedDuration, SignedDuration)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        clock::start();
        let (store, reigns) = (Shared::new(), Reigns::default());
        let struck = door(&store, strike);
        let first = tokio::spawn(lead("first", struck.clone(), reigns.clone()));
        tokio::time::sleep(Duration::from_millis(500)).await;
        tokio::spawn(lead("second", door(&store, Strike(Fault::None, 0)), reigns.clone()));
        tokio::select! {
            () = struck.crash.notified() => {
                first.abort();
                let mut reigns = reigns.lock().unwrap();
                reigns.iter_mut().filter(|r| r.0 == "first" && r.2.is_none()).for_each(|r| r.2 = Some(clock::elapsed()));
            }
            () = tokio::time::sleep(WATCHED) => {}
        }
        tokio::time::sleep(WATCHED.saturating_sub(clock::elapsed().try_into().unwrap())).await;
        let reigns = reigns.lock().unwrap();
        reigns.iter().map(|(name, from, to)| (*name, *from, to.unwrap_or_else(clock::elapsed))).collect()
    })
}

#[rstest]
fn at_most_one_leads_and_somebody_does(
    #[values(
        Fault::None,
        Fault::CrashBefore,
        Fault::CrashAfter,
        Fault::Refused,
        Fault::AppliedTimeout,
        Fault::Twice,
        Fault::Conflict,
        Fault::Hang
    )]
    fault: Fault,
) {
    for n in 1..=6 {
        let reigns = play(Strike(fault, n));
        let said = format!("{}: {reigns:?}", Strike(fault, n));
        let mut end = SignedDuration::ZERO;
        for (_, from, to) in &reigns {
            assert!(*from >= end, "two lead at one time: {said}");
            assert!(*from - end < VACANT_MAX.try_into().unwrap(), "nobody leads: {said}");
            end = *to;
        }
        assert_eq!(end.as_secs(), WATCHED.as_secs().cast_signed(), "nobody leads at the end: {said}");
    }
}

#[test]
fn who_steps_down_is_followed_at_once() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        clock::start();
        let store = Shared::new();
        let client = door(&store, Strike(Fault::None, 0)).client();
        let mut first = Candidate::new(client.clone(), SYSTEM, "windlass-controller", "first");
        let mut second = Candidate::new(client, SYSTEM, "windlass-controller", "second");
        first.acquire().await;
        assert!(tokio::time::timeout(Duration::from_secs(3), second.acquire()).await.is_err(), "two lead");
        first.release().await;
        tokio::time::timeout(Duration::from_secs(3), second.acquire()).await.expect("the Lease is free");
    });
}

/// When something of a leader's work acted last.
type Acts = Arc<Mutex<SignedDuration>>;

/// Work that hears of no stop, and acts ten times a second.
async fn deaf(acts: Acts) {
    loop {
        *acts.lock().unwrap() = clock::elapsed();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The Lease is taken away, or cannot be renewed from then on.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Taken,
    Silence,
    /// Likewise, and the leader was told to stop a moment before.
    SilenceAtTheEnd,
}

#[rstest]
#[case(Loss::Taken)]
#[case(Loss::Silence)]
#[case(Loss::SilenceAtTheEnd)]
fn nothing_of_a_leader_acts_once_another_may_lead(#[case] loss: Loss) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        clock::start();
        let (store, acts) = (Shared::new(), Acts::default());
        let door = door(&store, Strike(Fault::None, 0));
        let mut leader = Candidate::new(door.client(), SYSTEM, "windlass-controller", "first");
        leader.acquire().await;
        let key = Key::new("leases", SYSTEM, "windlass-controller");
        let at = Duration::from_secs(21);
        tokio::spawn({
            let (store, door) = (store.clone(), door.clone());
            async move {
                tokio::time::sleep(at).await;
                match loss {
                    Loss::Taken => {
                        _ = store.with(|s| s.edit(&key, |lease| lease["spec"]["holderIdentity"] = json!("second")));
                    }
                    Loss::Silence | Loss::SilenceAtTheEnd => *door.dead.lock().unwrap() = true,
                }
            }
        });
        let told = async {
            match loss {
                Loss::SilenceAtTheEnd => tokio::time::sleep(at + Duration::from_secs(8)).await,
                _ => std::future::pending().await,
            }
        };
        let noted = acts.clone();
        assert!(leader.lead(move |_| deaf(noted), told).await, "the Lease is lost");
        tokio::time::sleep(Duration::from_mins(2)).await;
        let last: Duration = acts.lock().unwrap().to_owned().try_into().unwrap();
        assert!(last >= at, "{last:?}");
        // The other sees the last renewal at the latest at `at`, and waits for 15 s.
        let free = at + if matches!(loss, Loss::Taken) { Duration::from_secs(3) } else { Duration::from_secs(15) };
        assert!(last < free, "acts at {last:?}, another may from {free:?} on");
    });
}

#[rstest]
#[case::ends_in_time(Duration::from_secs(8), true)]
#[case::takes_too_long(Duration::from_secs(30), false)]
fn a_leader_that_is_told_to_stop_may_end_what_it_has_begun(#[case] takes: Duration, #[case] ends: bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        clock::start();
        let store = Shared::new();
        let mut leader =
            Candidate::new(door(&store, Strike(Fault::None, 0)).client(), SYSTEM, "windlass-controller", "first");
        leader.acquire().await;
        let ended = Acts::default();
        let noted = ended.clone();
        let work = move |mut stop: tokio::sync::watch::Receiver<bool>| async move {
            stop.wait_for(|stop| *stop).await.unwrap();
            tokio::time::sleep(takes).await;
            *noted.lock().unwrap() = clock::elapsed();
        };
        let told = tokio::time::sleep(Duration::from_secs(30));
        assert!(!leader.lead(work, told).await, "the Lease is still ours");
        let took = clock::elapsed().as_secs() - 30;
        assert!(took <= 10, "{took}");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(!ended.lock().unwrap().is_zero(), ends);
    });
}
