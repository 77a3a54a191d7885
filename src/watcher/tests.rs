//! When the tree is walked, and by which rules.

use super::*;

#[test]
fn the_whole_tree_is_not_walked_again_and_again() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let mut watcher = Watcher::open(0, dir.path(), &[]);
    write(IGNORE_FILE, "a");
    assert_eq!(watcher.look(10), Some(IGNORE_FILE.into()));
    write("a", "");
    assert_eq!((watcher.look(20), watcher.wake()), (None, None), "the new rules hold");
    write(IGNORE_FILE, "b");
    assert_eq!(watcher.look(30), Some(IGNORE_FILE.into()));
    let at = watcher.wake().unwrap();
    assert!(at >= 10 + LOOK_MS, "{at}");
    write("c", "");
    assert_eq!(watcher.look(40), Some("c".into()), "meanwhile it goes on");
    assert_eq!(watcher.look(at - 1), None);
    assert_eq!(watcher.look(at), Some(PathBuf::new()), "what counts by the new rules may have changed");
    write("b", "");
    assert_eq!((watcher.look(at + 1), watcher.wake()), (None, None));
    write("a", "");
    assert_eq!(watcher.look(at + 2), Some("a".into()));
}

#[test]
fn events_that_are_too_many_are_a_change_of_the_source() {
    let dir = tempfile::tempdir().unwrap();
    // Other programs of this machine, and tests beside this one, may hold all instances for a moment.
    let until = Instant::now() + std::time::Duration::from_secs(60);
    let mut watcher = Watcher::open(0, dir.path(), &[]);
    while watcher.limit() == Some(Limit::Instances) && Instant::now() < until {
        std::thread::yield_now();
        watcher = Watcher::open(0, dir.path(), &[]);
    }
    assert_eq!(watcher.limit(), None, "the kernel gives no watcher");
    let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    // Two names by turns: the kernel makes one of two that are the same.
    for n in 0..most.trim().parse::<usize>().unwrap() {
        fs::write(dir.path().join(if n % 2 == 0 { "a" } else { "b" }), "").unwrap();
    }
    let mut turns = 0;
    while watcher.earliest == 0 {
        assert!(watcher.look(turns).is_some() && turns < 10_000, "{turns}");
        turns += 1;
    }
    assert_eq!(watcher.look(turns), None, "it begins anew");
    // Between two watchers somebody else may take the instance.
    assert!(matches!(watcher.limit(), None | Some(Limit::Instances)), "{:?}", watcher.limit());
}

#[test]
fn a_directory_that_is_watched_again_has_its_rules_once() {
    let dir = tempfile::tempdir().unwrap();
    let rules = |name: &str, text: &str| {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join(IGNORE_FILE), text).unwrap();
    };
    // Twice as many are more than may be.
    rules("sub", &"x\n".repeat(6000));
    let mut tree = Tree::new(dir.path(), &[]);
    let mut kernel = Kernel::open(&mut tree).unwrap();
    kernel.add(&mut tree, Path::new("sub")).unwrap();
    rules("new", "z");
    kernel.add(&mut tree, Path::new("new")).unwrap();
    assert!(tree.rules.ignores(Path::new("sub/x"), false) && tree.rules.ignores(Path::new("new/z"), false));
}
