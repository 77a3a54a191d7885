//! Which files of the source count for a watched step, and for `windlass dev`. Called by `watcher`.
//!
//! In this order, a later word wins: what editors leave beside a file for a moment, the `.gitignore` files above the
//! source up to the top of its repository, those of the source (one in a directory counts for what is below it), the
//! step's own patterns. `.git` never counts.
//!
//! **Invariant:** pure; paths are relative to the source. Patterns mean what they mean to git, but
//! for the index: a file that git tracks is ignored as any other. What patterns cost is bounded: those of the source are
//! written by steps, and are tried against each file.

use gix_ignore::glob::pattern::Case;
use gix_ignore::{Search, search::Ignore};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Where git keeps its own files.
pub(super) const GIT_DIR: &str = ".git";
/// Name of the files with patterns.
pub(super) const IGNORE_FILE: &str = ".gitignore";
/// What stands for the source in paths of the library; nothing is looked at there.
const ROOT: &str = "/";
/// What editors and desktops write beside the file that is edited: vim, Emacs, nano, Kate, JetBrains,
/// GNOME, macOS; and our own `receive`.
const OF_EDITORS: &str = "\
4913
*~
.*.sw?
.*.sw?x
.#*
\\#*#
.*.kate-swp
*___jb_tmp___
*___jb_old___
.goutputstream-*
.windlass-part-*
.DS_Store
";

/// Most patterns of the source, and bytes of them; more are not read.
const PATTERNS: usize = 10_000;
const PATTERN_BYTES: usize = 1024 * 1024;
/// Most `**` in a pattern: each doubles the time of a match. A pattern with more is left out.
const STARS: usize = 8;

/// The patterns.
pub(super) struct Rules {
    first: Search,
    above: Search,
    /// The source, from the top of its repository.
    place: PathBuf,
    source: Search,
    last: Search,
    /// Patterns and bytes that the source may still have.
    left: (usize, usize),
    /// What of them each directory took.
    taken: Vec<(PathBuf, usize, usize)>,
}

impl Rules {
    /// Those of a step, and none of the source yet.
    pub(super) fn new(own: &[String]) -> Self {
        let [mut first, above, source, mut last] = [(); 4].map(|()| Search::default());
        add(&mut first, Path::new(""), OF_EDITORS.as_bytes());
        add(&mut last, Path::new(""), own.join("\n").as_bytes());
        Self { first, above, place: PathBuf::new(), source, last, left: (PATTERNS, PATTERN_BYTES), taken: Vec::new() }
    }

    /// Adds the patterns of a `.gitignore` in this directory. Those of the directories above it
    /// have been added before.
    pub(super) fn add(&mut self, directory: &Path, patterns: &[u8]) {
        let (count_left, bytes_left) = self.left;
        let kept = self.bounded(patterns);
        self.taken.push((directory.to_owned(), count_left - self.left.0, bytes_left - self.left.1));
        add(&mut self.source, directory, &kept);
    }

    /// Adds the patterns of a `.gitignore` above the source: in `directory` of a repository in which the source is at
    /// `place`. Those of the directories above it have been added before.
    pub(super) fn add_above(&mut self, directory: &Path, place: &Path, patterns: &[u8]) {
        place.clone_into(&mut self.place);
        let kept = self.bounded(patterns);
        add(&mut self.above, directory, &kept);
    }

    /// As many of the patterns as may be.
    fn bounded(&mut self, patterns: &[u8]) -> Vec<u8> {
        let (mut count, mut bytes) = self.left;
        let mut kept = Vec::new();
        for line in patterns.split(|byte| *byte == b'\n') {
            let stars = line.windows(2).filter(|pair| pair == b"**").count();
            if stars > STARS || line.is_empty() {
                continue;
            }
            let (Some(one_less), Some(fewer)) = (count.checked_sub(1), bytes.checked_sub(line.len() + 1)) else {
                break;
            };
            (count, bytes) = (one_less, fewer);
            kept.extend_from_slice(line);
            kept.push(b'\n');
        }
        self.left = (count, bytes);
        kept
    }

    /// Forgets the patterns of `.gitignore` files in this directory and below it; others may take their place.
    pub(super) fn forget(&mut self, directory: &Path) {
        let Self { left, taken, .. } = self;
        taken.retain(|(place, count, bytes)| {
            let stays = !place.starts_with(directory);
            if !stays {
                *left = (left.0 + count, left.1 + bytes);
            }
            stays
        });
        let stays = |list: &gix_ignore::glob::search::pattern::List<Ignore>| {
            let below = list.source.as_deref().and_then(|file| file.strip_prefix(ROOT).ok()?.parent());
            !below.is_some_and(|below| below.starts_with(directory))
        };
        self.source.patterns.retain(stays);
    }

    /// Whether a file does not count. Whether the directories above it count was asked before.
    pub(super) fn ignores(&self, path: &Path, is_dir: bool) -> bool {
        if path.file_name().is_some_and(|name| name == GIT_DIR) {
            return true;
        }
        let matched = |search: &Search, path: &Path| {
            let bytes = path.as_os_str().as_bytes();
            let found = search.pattern_matching_relative_path(bytes.into(), Some(is_dir), Case::Sensitive)?;
            Some(!found.pattern.is_negative())
        };
        let above = || (!self.above.patterns.is_empty()).then(|| matched(&self.above, &self.place.join(path)))?;
        let own = || [&self.last, &self.source].into_iter().find_map(|search| matched(search, path));
        own().or_else(above).or_else(|| matched(&self.first, path)).unwrap_or(false)
    }
}

/// Adds patterns that count below a directory.
fn add(search: &mut Search, directory: &Path, patterns: &[u8]) {
    let (root, file) = (Path::new(ROOT), Path::new(ROOT).join(directory).join(IGNORE_FILE));
    // It only fails for a file without a directory.
    let _ = search.add_patterns_buffer(patterns, file, Some(root), Ignore::default());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `path` is ignored, asking for each directory above it first; a `/` at its end makes
    /// it a directory.
    fn ignored(rules: &Rules, path: &str) -> bool {
        let is_dir = path.ends_with('/');
        let path = Path::new(path.trim_end_matches('/'));
        let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()).collect();
        above.reverse();
        above.iter().any(|dir| rules.ignores(dir, true)) || rules.ignores(path, is_dir)
    }

    #[test]
    fn patterns_of_the_source_cost_little() {
        let mut rules = Rules::new(&[]);
        rules.add(Path::new(""), ["**/a/".repeat(STARS + 1), "b\n".repeat(PATTERNS)].join("\n").as_bytes());
        assert_eq!(rules.left.0, 0);
        rules.add(Path::new(""), b"c");
        assert!(ignored(&rules, "b") && !ignored(&rules, "c") && !ignored(&rules, &"a/".repeat(60)));
        let mut rules = Rules::new(&[]);
        rules.add(Path::new(""), &vec![b'x'; PATTERN_BYTES]);
        assert_eq!(rules.left, (PATTERNS, PATTERN_BYTES), "too long to be read");
    }

    #[test]
    fn patterns_that_are_forgotten_leave_their_place() {
        let mut rules = Rules::new(&[]);
        for _ in 0..3 {
            rules.add(Path::new("web"), "b\n".repeat(PATTERNS - 1).as_bytes());
            assert!(ignored(&rules, "web/b"));
            rules.forget(Path::new("web"));
            assert!(!ignored(&rules, "web/b"));
        }
        rules.add(Path::new("api"), b"c");
        rules.forget(Path::new("web"));
        assert!(ignored(&rules, "api/c"), "what is elsewhere stays");
        assert_eq!(rules.left, (PATTERNS - 1, PATTERN_BYTES - 2));
    }

    #[test]
    fn patterns_mean_what_they_mean_to_git() {
        // Pattern, then paths; those with `!` before them count.
        for (pattern, paths) in [
            ("*.log", "a.log x/a.log !a.logs !log"),
            ("/out", "out out/x !x/out"),
            ("out/", "out/ out/x x/out/y !out"),
            ("a/b", "a/b !x/a/b !a/c"),
            ("**/b", "b a/b a/x/b !ab"),
            ("a/**", "a/x a/x/y !a/"),
            ("a/**/z", "a/z a/x/z a/x/y/z !z"),
            ("a*z", "az abz !a/z"),
            ("?.txt", "a.txt !ab.txt"),
            ("[a-c].o", "b.o !d.o"),
            ("[!a].o", "b.o !a.o"),
            ("\\#x", "#x"),
            ("#x", "!#x"),
            ("\\!x", "!!x"),
            ("tmp/\n!tmp/keep", "tmp/ tmp/keep"),
            ("*\n!*.c\n!src/", "x.o !x.c !src/"),
            ("\u{e9}*", "\u{e9}t\u{e9} !ete"),
            ("[", "!x"),
        ] {
            let mut rules = Rules::new(&[]);
            rules.add(Path::new(""), pattern.as_bytes());
            for path in paths.split(' ') {
                let (path, want) = match path.strip_prefix('!') {
                    // The name itself begins with it.
                    Some(rest) if rest.starts_with('!') => (rest, true),
                    Some(rest) => (rest, false),
                    None => (path, true),
                };
                assert_eq!(ignored(&rules, path), want, "{pattern:?} {path}");
            }
        }
    }

    #[test]
    fn a_directorys_patterns_count_below_it_and_win() {
        let mut rules = Rules::new(&[]);
        rules.add(Path::new(""), b"*.log\n/build\n");
        rules.add(Path::new("web"), b"!keep.log\n/dist\n");
        for (path, want) in [
            ("a.log", true),
            ("web/a.log", true),
            ("web/keep.log", false),
            ("web/x/keep.log", false),
            ("keep.log", true),
            ("web/dist", true),
            ("dist", false),
            ("build", true),
            ("web/build", false),
        ] {
            assert_eq!(ignored(&rules, path), want, "{path}");
        }
    }

    #[test]
    fn the_steps_own_patterns_win_over_those_of_the_source_and_git_never_counts() {
        let mut rules = Rules::new(&["*.tmp".into(), "!kept.log".into(), "!*.swp".into(), "!.git".into()]);
        rules.add(Path::new(""), b"*.log\n!x.tmp\n");
        for (path, want) in [
            ("x.tmp", true),
            ("kept.log", false),
            ("lost.log", true),
            (".a.swp", false),
            (".git/", true),
            (".git", true),
            ("sub/.git/HEAD", true),
            (".gitignore", false),
        ] {
            assert_eq!(ignored(&rules, path), want, "{path}");
        }
    }

    #[test]
    fn what_editors_leave_for_a_moment_does_not_count() {
        let rules = Rules::new(&[]);
        for path in ["4913", "main.c~", ".main.c.swp", ".main.c.swpx", ".#main.c", "#main.c#", "x/a.js___jb_tmp___"] {
            assert!(rules.ignores(Path::new(path), false), "{path}");
        }
        for path in ["main.c", "a#b", "swp", ".env", "x.swp", "Makefile"] {
            assert!(!rules.ignores(Path::new(path), false), "{path}");
        }
    }

    #[test]
    fn names_that_are_no_text_are_matched_by_their_bytes() {
        let rules = Rules::new(&["*.o".into()]);
        assert!(rules.ignores(Path::new(std::ffi::OsStr::from_bytes(b"\xff\xfe.o")), false));
        assert!(!rules.ignores(Path::new(std::ffi::OsStr::from_bytes(b"\xff\xfe")), false));
    }
}
