//! What pushes hold in memory, in a process that does nothing else: as many at one time as an agent lets, again and again.
//!
//! The test starts itself once more: the parent is engine and registry, the child has the doors. They speak by lines.

use super::{
    Engine, Image, Store, Told,
    fake::{Auth, Registry},
    job,
};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};
use windlass::registry::{Client, Door, DoorJob, NamedSecret, Secret, Trust};

/// Tells the child where the registry is.
const REGISTRY: &str = "WINDLASS_TEST_DOORS_TO";
const NAME: &str = "fast::registry::memory::pushes_give_back_what_they_held";
const MALLOC: &str = "MALLOC_MMAP_THRESHOLD_";
/// What the chart tells malloc in the agent's container.
const CHART: &str = include_str!("../../../../charts/windlass/templates/_helpers.tpl");
const ROUNDS: usize = 3;
const AT_ONCE: usize = 3;
const KIB: usize = 1 << 10;
/// Most that pushes may hold at one time, and keep afterwards, in KiB. glibc on its own came to 85 and 41 MiB.
const MOST_HELD: usize = 64 * KIB;
const MOST_KEPT: usize = 32 * KIB;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_give_back_what_they_held() {
    match std::env::var(REGISTRY) {
        Ok(host) => doors(&host).await,
        Err(_) => pushes().await,
    }
}

/// Memory of this process that is no file's, in KiB: now, and at most so far.
fn memory() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let of = |name: &str| -> usize {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (of("RssAnon:"), of("VmHWM:").saturating_sub(of("RssFile:")))
}

async fn doors(host: &str) {
    let client = Client::new(Trust { insecure_hosts: vec![host.into()], ..Trust::default() }).unwrap();
    let mut go_on = std::io::stdin().lines();
    let (now, most) = memory();
    eprintln!("memory {now} {most}");
    let secret = || NamedSecret { name: "variable KEY".into(), value: Secret::new("correct-horse-battery".into()) };
    for _ in 0..ROUNDS {
        let mut open = Vec::new();
        for _ in 0..AT_ONCE {
            let job = DoorJob { secrets: vec![secret()], ..job(host, &Told::default()) };
            open.push(Door::open(client.clone(), job).await.unwrap());
            eprintln!("door {}", open.last().unwrap().target());
        }
        // The engine is done.
        go_on.next().unwrap().unwrap();
        for door in open {
            door.close().await.unwrap();
        }
        let (now, most) = memory();
        eprintln!("memory {now} {most}");
    }
}

async fn pushes() {
    let registry = Registry::start(Auth::Open).await;
    let (_, malloc) =
        CHART.split_once(&format!("{{name: {MALLOC}, value: \"")).expect("the chart tells malloc nothing");
    let malloc = malloc.split('"').next().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--nocapture"])
        .env(REGISTRY, &registry.host)
        .env(MALLOC, malloc)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let mut go_on = child.stdin.take().unwrap();
    let mut next = |word: &str| {
        let line = told.next().expect("the child ended");
        line.strip_prefix(word).unwrap_or_else(|| panic!("{line}")).trim().to_owned()
    };
    let memory = |next: &mut dyn FnMut(&str) -> String| -> (usize, usize) {
        let text = next("memory");
        let (now, most) = text.split_once(' ').unwrap();
        (now.parse().unwrap(), most.parse().unwrap())
    };
    let (before, _) = memory(&mut next);
    // Most are held in whole, some stream.
    let sizes = [3900 * KIB, 3900 * KIB, 2000 * KIB, 9000 * KIB, 6000 * KIB];
    let images: Vec<Image> = (0..AT_ONCE).map(|_| Image::new(&sizes)).collect();
    let (mut kept, mut held) = (0, 0);
    for _ in 0..ROUNDS {
        let targets: Vec<String> = (0..AT_ONCE).map(|_| next("door")).collect();
        let engines: Vec<Engine> = targets.iter().map(|target| Engine::new(target, Store::Classic)).collect();
        let pushed = engines.iter().zip(&images).map(|(engine, image)| engine.push(image));
        futures::future::join_all(pushed).await.into_iter().collect::<Result<Vec<()>, _>>().unwrap();
        // All is sent anew the next time.
        registry.state().blobs.clear();
        writeln!(go_on).unwrap();
        let (now, most) = memory(&mut next);
        (kept, held) = (now.saturating_sub(before), most.saturating_sub(before));
    }
    assert!(child.wait().unwrap().success());
    assert!(held <= MOST_HELD && kept <= MOST_KEPT, "{held} KiB were held, {kept} are kept, with {MALLOC}={malloc}");
}
