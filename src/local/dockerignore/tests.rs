use super::*;
use proptest::prelude::*;
use rstest::rstest;
use std::collections::BTreeSet;
use std::time::Instant;

/// Files of a context; what Docker's command line (29.7, its own builder) left out of it is in the table below.
const FILES: [&str; 17] = [
    ".env", "[x]", "a", "a*b", "ab", "ax/b", "b/.env", "b/a", "b/c/a", "b/c/d.md", "b/c/e.md", "b/x.md", "barfoo",
    "d/foo/f", "foo", "x.md", "é",
];

/// Those of the paths that stay out, directories with a slash behind them.
fn left_out(ignore: &mut Ignore, files: &[&str]) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for file in files {
        let slashes = file.match_indices('/').filter_map(|(at, _)| file.get(..=at));
        all.extend(slashes.chain([*file]).map(str::to_owned));
    }
    // As an archive has them: by their names, each directory before what is in it.
    let mut all: Vec<String> = all.into_iter().collect();
    all.sort_by(|one, other| one.trim_end_matches('/').split('/').cmp(other.trim_end_matches('/').split('/')));
    all.retain(|path| ignore.leaves_out(path.trim_end_matches('/').as_bytes(), path.ends_with('/')));
    all.into_iter().collect()
}

#[rstest]
#[case::star_is_no_slash("*.md", "x.md")]
#[case::stars_are("**/*.md", "b/c/d.md b/c/e.md b/x.md x.md")]
#[case::one_directory("*/*.md", "b/x.md")]
#[case::a_directory_without_itself("b/**", "b/.env b/a b/c/ b/c/a b/c/d.md b/c/e.md b/x.md")]
#[case::a_directory("b", "b/ b/.env b/a b/c/ b/c/a b/c/d.md b/c/e.md b/x.md")]
#[case::slash_behind("ax/", "ax/ ax/b")]
#[case::slash_before("/ax", "ax/ ax/b")]
#[case::a_dot("./ax/.", "ax/ ax/b")]
#[case::up_and_down("b/c/../x.md", "b/x.md")]
#[case::outside("../b", "")]
#[case::above_the_root("/../x.md", "x.md")]
#[case::the_root(".", "")]
#[case::a_slash("/", "")]
#[case::one_character("a?", "ab ax/ ax/b")]
#[case::one_character_of_two_bytes("?\n!b\n!d", "a é")]
#[case::in_the_middle("b/*/a", "b/c/a")]
#[case::any_depth("b/**/a", "b/a b/c/a")]
#[case::any_depth_without_slash("a**b", "ab ax/b")]
#[case::ends_so("**foo", "barfoo d/foo/ d/foo/f foo")]
#[case::is_so("**/foo", "d/foo/ d/foo/f foo")]
#[case::two_of_them("**/c/*.md", "b/c/d.md b/c/e.md")]
#[case::behind_a_name("b/c**/*", "b/c/ b/c/a b/c/d.md b/c/e.md")]
#[case::at_the_end("b**", "b/ b/.env b/a b/c/ b/c/a b/c/d.md b/c/e.md b/x.md barfoo")]
#[case::class("[a-c]b", "ab")]
#[case::not_class("a[^x]", "ab")]
#[case::bang_in_a_class("[!a]b", "ab")]
#[case::escaped("a\\*b", "a*b")]
#[case::escaped_brackets("\\[x\\]", "[x]")]
#[case::in_a_class("[\\[]x]", "[x]")]
#[case::braces("{a,ab}", "")]
#[case::closing_bracket("a]", "")]
#[case::hidden("**/.*", ".env b/.env")]
#[case::byte_order_mark("\u{feff}*.md", "x.md")]
#[case::comment("#x.md\n\n?b", "ab")]
#[case::no_comment(" #x\n  x.md  ", "x.md")]
#[case::line_ends_of_windows("*.md\r\n\r\n!x.md\r\n?b\r\n", "ab")]
#[case::exception_of_a_directory("b\n!b/c", "b/ b/.env b/a b/x.md")]
#[case::exception_of_a_file("b\n!b/c/d.md", "b/ b/.env b/a b/c/ b/c/a b/c/e.md b/x.md")]
#[case::exception_that_does_not_name_it("ax\n!**/b", "ax/ ax/b")]
#[case::exception_below_stars("ax/**\n!ax/**/b", "")]
#[case::the_last_one_counts("!ax\nax", "ax/ ax/b")]
#[case::again_and_again("b\n!b/c\nb/c/e.md", "b/ b/.env b/a b/c/e.md b/x.md")]
#[case::of_the_directory_and_not_of_the_file("b/x.md\n!b", "b/x.md")]
#[case::spaces_of_an_exception("b\n ! /b ", "")]
#[case::exception_behind_a_slash("a\n/!a", "")]
#[case::exception_of_the_root("a\n!.", "a")]
#[case::nothing("", "")]
fn leaves_out_what_docker_does(#[case] file: &str, #[case] expected: &str) {
    let found = left_out(&mut Ignore::read(file.as_bytes()).unwrap(), &FILES);
    assert_eq!(found, expected.split_whitespace().map(str::to_owned).collect());
}

#[rstest]
#[case("b", "b/")]
#[case("**", "a ax/ b/ ax/b")]
#[case("b\n!b/x.md", "b/")]
fn what_is_kept_goes_along(#[case] file: &str, #[case] out: &str) {
    let mut ignore = Ignore::read(file.as_bytes()).unwrap();
    ignore.keep(b"b/c/[x]*");
    let found = left_out(&mut ignore, &["a", "ax/b", "b/x.md", "b/c/[x]*"]);
    assert!(!found.contains("b/c/[x]*"), "{found:?}");
    for path in out.split_whitespace() {
        assert!(found.contains(path), "{path} of {found:?}");
    }
}

#[rstest]
#[case(b"a\n[b", ".dockerignore, line 2: pattern [b: a [ without its ]")]
#[case(b"x*[", ".dockerignore, line 1: pattern x*[: a [ without its ]")]
#[case(b"[^", ".dockerignore, line 1: pattern [^: a [ without its ]")]
#[case(b"[a-", ".dockerignore, line 1: pattern [a-: a [ without its ]")]
#[case(
    b"[]a]",
    ".dockerignore, line 1: pattern []a]: a [ ] that holds nothing, or a range without an end; \\] is the character"
)]
#[case(
    b"[a-]",
    ".dockerignore, line 1: pattern [a-]: a [ ] that holds nothing, or a range without an end; \\] is the character"
)]
#[case(b"[-a]", ".dockerignore, line 1: pattern [-a]: a range in [ ] without an end; \\- is the character")]
#[case(b"[z-a]", ".dockerignore, line 1: pattern [z-a]: a range in [ ] ends before it begins")]
#[case(b"#\n\na\\", ".dockerignore, line 3: pattern a\\: a \\ with nothing after it")]
#[case(b" ! \r\n", ".dockerignore, line 1: pattern !: this is an exception that names nothing")]
#[case(b"!/", ".dockerignore, line 1: pattern !/: this is an exception that names nothing")]
#[case(b"# \xe9\n\xe9", ".dockerignore, line 2: pattern \u{fffd}: this is not UTF-8")]
fn what_is_broken_is_named_with_its_line(#[case] file: &[u8], #[case] message: &str) {
    assert_eq!(Ignore::read(file).err().unwrap().to_string(), message);
}

#[test]
fn there_is_an_end_to_patterns() {
    let most = "a\n".repeat(MAX_PATTERNS);
    assert!(Ignore::read(most.as_bytes()).is_ok());
    let error = Ignore::read((most + "b").as_bytes()).err().unwrap().to_string();
    assert_eq!(
        error,
        format!(".dockerignore, line 10001: pattern b: this is one pattern too many; {MAX_PATTERNS} are the most")
    );
}

#[test]
fn names_need_not_be_utf_8() {
    let mut ignore = Ignore::read("a?c".as_bytes()).unwrap();
    assert!(ignore.leaves_out(b"a\xffc", false) && !ignore.leaves_out(b"a\xff\xffc", false));
}

/// Patterns of which a matcher that goes back and forth would try every part of the path at every place.
#[rstest]
#[case("*a".repeat(200))]
#[case("**a".repeat(200))]
#[case("**/*".repeat(200) + "b")]
#[case("*".repeat(1_000_000) + "b")]
fn hostile_patterns_end_soon(#[case] pattern: String) {
    let began = Instant::now();
    let mut ignore = Ignore::read(pattern.as_bytes()).unwrap();
    let path = "a/aaaaaa".repeat(350);
    assert!(!ignore.leaves_out((path + "c").as_bytes(), false));
    assert!(began.elapsed().as_secs() < 20, "{:?}", began.elapsed());
}

proptest! {
    #[test]
    fn any_bytes_are_read_and_any_path_is_judged(
        file in proptest::collection::vec(prop_oneof![
            proptest::sample::select(b"ab!*?[]^-\\/.# \r\n".as_slice()), any::<u8>(),
        ], 0..200),
        path in "[ab/\\[\\]*.é-]{0,30}",
    ) {
        if let Ok(mut ignore) = Ignore::read(&file) {
            ignore.leaves_out(path.as_bytes(), true);
            ignore.leaves_out(format!("{path}/a").as_bytes(), false);
        }
    }

    /// A path is matched as a regular expression of the same meaning would; exceptions and directories apart.
    #[test]
    fn a_pattern_of_one_name_is_what_it_says(pattern in "[ab*?]{1,8}", name in "[ab]{1,8}") {
        fn plainly(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern, name) {
                ([], []) => true,
                ([b'*', rest @ ..], _) => (0..=name.len()).any(|from| plainly(rest, &name[from..])),
                ([b'?', rest @ ..], [_, others @ ..]) => plainly(rest, others),
                ([one, rest @ ..], [other, others @ ..]) => one == other && plainly(rest, others),
                _ => false,
            }
        }
        prop_assume!(!pattern.contains("**"));
        let found = Ignore::read(pattern.as_bytes()).unwrap().leaves_out(name.as_bytes(), false);
        prop_assert_eq!(found, plainly(pattern.as_bytes(), name.as_bytes()));
    }
}
