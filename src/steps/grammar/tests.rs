use super::*;
use proptest::prelude::*;
use rstest::rstest;

/// `value` or `item@position: problem` of each result.
fn told<T: std::fmt::Debug>(results: Vec<Result<T, Flaw>>) -> Vec<String> {
    let flaw = |flaw: Flaw| format!("{}@{}: {}", flaw.item, flaw.position, flaw.problem);
    results.into_iter().map(|result| result.map_or_else(flaw, |value| format!("{value:?}").replace('"', ""))).collect()
}

#[rstest]
#[case("a b", &[(1, "a"), (3, "b")])]
#[case(" a,,b\t,\nc ", &[(2, "a"), (5, "b"), (9, "c")])]
#[case("é, ü", &[(1, "é"), (4, "ü")])]
#[case(" , ", &[])]
#[case("", &[])]
fn splits_entries(#[case] text: &str, #[case] expected: &[(usize, &str)]) {
    assert_eq!(entries(text).collect::<Vec<_>>(), expected);
}

#[rstest]
#[case("5000", &["[5000/tcp]"])]
#[case("5000, 8080/udp", &["[5000/tcp]", "[8080/udp]"])]
#[case("80/TCP 53/udp", &["[80/tcp]", "[53/udp]"])]
#[case("8000-8002/udp", &["[8000/udp, 8001/udp, 8002/udp]"])]
#[case("1 65535", &["[1/tcp]", "[65535/tcp]"])]
#[case("53, 80/xyz", &["[53/tcp]", "80/xyz@5: expected tcp or udp"])]
#[case("0, 70000", &["0@1: expected a port from 1 to 65535, or a range such as 8000-8010", "70000@4: expected a port from 1 to 65535, or a range such as 8000-8010"])]
#[case("90-80", &["90-80@1: expected the lower port of a range first"])]
#[case("1-65535", &["1-65535@1: expected at most 1000 ports"])]
#[case("+80", &["+80@1: expected a port from 1 to 65535, or a range such as 8000-8010"])]
#[case("80:80", &["80:80@1: expected a port from 1 to 65535, or a range such as 8000-8010"])]
#[case("80/", &["80/@1: expected tcp or udp"])]
#[case("-", &["-@1: expected a port from 1 to 65535, or a range such as 8000-8010"])]
fn reads_ports(#[case] text: &str, #[case] expected: &[&str]) {
    assert_eq!(told(ports(text)), expected);
}

#[rstest]
#[case("latest", true)]
#[case("_1.2-x", true)]
#[case(".x", false)]
#[case("-x", false)]
#[case("v1+build", false)]
#[case("é", false)]
#[case("a/b", false)]
#[case(&"a".repeat(128), true)]
#[case(&"a".repeat(129), false)]
fn reads_tags(#[case] tag: &str, #[case] valid: bool) {
    let read = tags(&format!("one,{tag}"));
    assert_eq!(read.len(), 2);
    assert_eq!(read[1].is_ok(), valid);
    if let Err(flaw) = &read[1] {
        assert_eq!((flaw.item.as_str(), flaw.position), (tag, 5));
    }
}

#[rstest]
#[case("/data", Ok("/data"))]
#[case(" //data/./x/ ", Ok("/data/x"))]
#[case("/", Ok("/"))]
#[case("/processes", Ok("/processes"))]
#[case("data", Err("absolute"))]
#[case("", Err("absolute"))]
#[case("/a/../b", Err(".."))]
#[case("/..", Err(".."))]
#[case("/proc/self/fd/8", Err("/proc"))]
#[case("//proc", Err("/proc"))]
#[case("/./sys/x", Err("/proc, /sys"))]
#[case("/dev", Err("/dev"))]
#[case("/a\nb", Err("control"))]
fn reads_directories(#[case] text: &str, #[case] expected: Result<&str, &str>) {
    match (directory(text), expected) {
        (Ok(path), Ok(expected)) => assert_eq!(path, expected),
        (Err(flaw), Err(part)) => assert!(flaw.problem.contains(part), "{flaw:?}"),
        (got, expected) => panic!("{got:?}, not {expected:?}"),
    }
}

#[test]
fn volumes_are_directories_of_the_image() {
    assert_eq!(volume("/data/").unwrap(), "/data");
    assert!(volume("/").is_err());
    assert!(volume("/host:/data").is_err());
}

#[rstest]
#[case("a b", &["a", "b"])]
#[case("  a\tb\n", &["a", "b"])]
#[case(r#"x 'y z'"#, &["x", "y z"])]
#[case(r#"sh -c "echo \"hi\" \x""#, &["sh", "-c", r#"echo "hi" \x"#])]
#[case(r#"'it'"'"'s'"#, &["it's"])]
#[case(r"a\ b", &["a b"])]
#[case(r#"a"" '' b"#, &["a", "", "b"])]
#[case("run #1", &["run", "#1"])]
#[case("a,b", &["a,b"])]
#[case("", &[])]
fn splits_words(#[case] text: &str, #[case] expected: &[&str]) {
    let read: Vec<String> = words(text, false).unwrap().into_iter().map(|word| word.text).collect();
    assert_eq!(read, expected);
}

#[rstest]
#[case("sh -c 'unclosed", "'", 7, "missing closing quote")]
#[case("é \"a\\\"", "\"", 3, "missing closing quote")]
#[case("a \\", "\\", 3, "expected a character after the backslash")]
fn refuses_open_words(#[case] text: &str, #[case] item: &str, #[case] position: usize, #[case] problem: &'static str) {
    assert_eq!(words(text, false), Err(Flaw::new(item, position, problem)));
}

#[rstest]
#[case::spaces("A=1 B=2", &[(1, "A=1"), (5, "B=2")])]
#[case::commas("A=1,B=2", &[(1, "A=1"), (5, "B=2")])]
#[case::documents(r#""A=1","B=2""#, &[(1, "A=1"), (7, "B=2")])]
#[case::documents_spaced(r#""A=1", "B=x, y""#, &[(1, "A=1"), (8, "B=x, y")])]
#[case::quoted_value(r#"A="x y",B='p,q'"#, &[(1, "A=x y"), (9, "B=p,q")])]
#[case::json(r#" ["A=1","B=x y,z"]"#, &[(2, "A=1"), (2, "B=x y,z")])]
#[case::equals("A=b=c==", &[(1, "A=b=c==")])]
#[case::stray_commas(", A=1 ,, ", &[(3, "A=1")])]
#[case::json_empty("[]", &[])]
fn splits_pairs(#[case] text: &str, #[case] expected: &[(usize, &str)]) {
    let read = pair_entries(text).unwrap();
    assert_eq!(read.iter().map(|word| (word.position, word.text.as_str())).collect::<Vec<_>>(), expected);
}

#[rstest]
#[case(r#"["A=1""#)]
#[case(r#"["A=1", 5]"#)]
#[case(r#"["A=1"] x"#)]
#[case("[A=1]")]
fn refuses_bad_json(#[case] text: &str) {
    let flaw = pair_entries(text).unwrap_err();
    assert!(flaw.position == 1 && flaw.problem.contains("JSON list"), "{flaw:?}");
}

#[rstest]
#[case("1000", true)]
#[case("1000:1000", true)]
#[case("app", true)]
#[case("app:staff-2", true)]
#[case("2147483647", true)]
#[case("2147483648", false)]
#[case("4294967296", false)]
#[case("0:4294967296", false)]
#[case("99999999999999999999999", false)]
#[case("+1", false)]
#[case("-1", false)]
#[case("a b", false)]
#[case("a:b:c", false)]
#[case(":1", false)]
#[case("1:", false)]
fn reads_users(#[case] text: &str, #[case] valid: bool) {
    assert_eq!(user(text).is_ok(), valid, "{text}");
}

#[rstest]
#[case("SIGTERM", Some("SIGTERM"))]
#[case("term", Some("SIGTERM"))]
#[case(" 15 ", Some("15"))]
#[case("09", Some("9"))]
#[case("SIGRTMIN+3", Some("SIGRTMIN+3"))]
#[case("RTMAX-14", Some("SIGRTMAX-14"))]
#[case("64", Some("64"))]
#[case("0", None)]
#[case("65", None)]
#[case("SIGFOO", None)]
#[case("SIG", None)]
#[case("", None)]
#[case("RTMIN+16", None)]
#[case("RTMIN++1", None)]
#[case("RTMIN+01", None)]
fn reads_signals(#[case] text: &str, #[case] expected: Option<&str>) {
    assert_eq!(stop_signal(text).ok().as_deref(), expected);
}

#[rstest]
#[case("containerd.io/restart.loguri", true)]
#[case("io.kubernetes.pod.uid", true)]
#[case("io.cri-containerd.kind", true)]
#[case("com.docker.compose.project", true)]
#[case("annotation.io.kubernetes.container.hash", true)]
#[case("org.opencontainers.image.source", false)]
#[case("io.k8s.display-name", false)]
fn forbids_labels(#[case] key: &str, #[case] forbidden: bool) {
    assert_eq!(forbidden_label(key).is_some(), forbidden);
}

#[test]
fn names_and_keys() {
    assert!(is_env_name("JAVA_OPTS") && is_env_name("my.var-1") && is_env_name("_"));
    assert!(!is_env_name("") && !is_env_name("1A") && !is_env_name("A B") && !is_env_name("A="));
    assert!(is_label_key("a/b.c") && is_label_key("Ü"));
    assert!(!is_label_key("") && !is_label_key("a b") && !is_label_key("a\nb"));
}

#[test]
fn the_last_value_wins_in_the_first_place() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let read = last_wins(vec![pair("A", "1"), pair("B", "2"), pair("A", "3")]);
    assert_eq!(read, [pair("A", "3"), pair("B", "2")]);
}

proptest! {
    /// The word splitter agrees with a POSIX one where there are no comments.
    #[test]
    fn words_agree_with_a_posix_splitter(text in "[ab'\"\\\\ \n\t$é,=]{0,16}") {
        let ours = words(&text, false).ok().map(|words| words.into_iter().map(|word| word.text).collect::<Vec<_>>());
        prop_assert_eq!(ours, shlex::split(&text));
    }

    #[test]
    fn quoted_words_come_back(list in prop::collection::vec("[^\0]{0,10}", 0..5)) {
        let text = shlex::try_join(list.iter().map(String::as_str)).unwrap();
        for commas in [false, true] {
            let read: Vec<String> = words(&text, commas).unwrap().into_iter().map(|word| word.text).collect();
            // Without its own need for quotes a comma separates, so only texts without commas come back there.
            if !commas || list.iter().all(|word| !word.contains(',')) {
                prop_assert_eq!(&read, &list);
            }
        }
    }

    #[test]
    fn positions_point_at_their_entries(text in "[ab, é\t]{0,20}") {
        for (position, entry) in entries(&text) {
            let found: String = text.chars().skip(position - 1).take(entry.chars().count()).collect();
            prop_assert_eq!(found, entry);
        }
    }

    #[test]
    fn every_port_of_a_range_is_named(first in 1_u16..64000, more in 0_u16..999) {
        let last = first + more;
        let read = ports(&format!("{first}-{last}/udp")).remove(0).unwrap();
        prop_assert_eq!(read.len(), usize::from(more) + 1);
        prop_assert_eq!(&read[0], &format!("{first}/udp"));
        prop_assert_eq!(read.last().unwrap(), &format!("{last}/udp"));
    }

    #[test]
    fn directories_are_clean(text in "[/.a-cp]{0,16}|/proc[/.]{0,3}|(/\\.){0,3}/+proc/x") {
        if let Ok(path) = directory(&text) {
            prop_assert!(path.starts_with('/') && !path.contains("//"));
            prop_assert!(path.split('/').all(|part| part != ".." && part != "."));
            prop_assert!(path != "/proc" && !path.starts_with("/proc/"));
            prop_assert_eq!(directory(&path).unwrap(), path);
        }
    }

    #[test]
    fn tags_are_the_entries_of_their_text(text in "[a-z0-9_.,/ -]{0,24}") {
        let read = tags(&text);
        let written: Vec<&str> = entries(&text).map(|(_, entry)| entry).collect();
        prop_assert_eq!(read.len(), written.len());
        for (tag, written) in read.into_iter().zip(written) {
            let valid = !written.starts_with(['.', '-']) && !written.contains('/');
            prop_assert_eq!(tag.ok(), valid.then(|| written.to_owned()));
        }
    }

    #[test]
    fn users_are_numbers_that_fit(user in any::<u64>(), group in any::<u32>()) {
        let fits = |number: u64| i32::try_from(number).is_ok();
        prop_assert_eq!(super::user(&user.to_string()).is_ok(), fits(user));
        let both = format!("{user}:{group}");
        prop_assert_eq!(super::user(&both).is_ok(), fits(user) && fits(group.into()));
    }

    #[test]
    fn signals_have_one_name(text in "(SIG|sig)?[A-Za-z]{2,5}[0-9+-]{0,3}|[0-9]{1,3}") {
        if let Ok(signal) = stop_signal(&text) {
            prop_assert_eq!(stop_signal(&signal).unwrap(), signal.clone());
            prop_assert_eq!(stop_signal(&text.to_ascii_lowercase()).unwrap(), signal);
        }
    }

    /// However pairs are written, and whatever their values hold, they are read as they were meant.
    #[test]
    fn pairs_come_back(
        pairs in prop::collection::vec(("[A-Z_]{1,6}", "[^\0]{0,12}"), 0..6),
        separators in prop::collection::vec("[ ,\n\t]{1,3}", 6),
    ) {
        let written: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let texts = |words: Vec<Word>| words.into_iter().map(|word| word.text).collect::<Vec<_>>();
        let json = serde_json::to_string(&written).unwrap();
        prop_assert_eq!(&texts(pair_entries(&json).unwrap()), &written);
        // Either the whole pair in quotes, as the documents have it, or the value alone.
        let quote = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
        let whole: String = written.iter().zip(&separators).map(|(pair, s)| quote(pair) + s).collect();
        prop_assert_eq!(&texts(pair_entries(&whole).unwrap()), &written);
        let values = pairs.iter().zip(&separators).map(|((name, value), s)| format!("{name}={}{s}", quote(value)));
        prop_assert_eq!(&texts(pair_entries(&values.collect::<String>()).unwrap()), &written);
    }

    #[test]
    fn no_parser_panics_and_no_problem_repeats_the_text(text in ".{0,60}", marker in "ZQ[a-z]{6}") {
        let text = format!("{text}{marker}");
        let mut flaws: Vec<Flaw> = tags(&text).into_iter().filter_map(Result::err).collect();
        flaws.extend(ports(&text).into_iter().filter_map(Result::err));
        flaws.extend(words(&text, true).err());
        flaws.extend(pair_entries(&text).err());
        for parse in [directory, volume, user, stop_signal] {
            flaws.extend(parse(&text).err());
        }
        for flaw in flaws {
            prop_assert!(flaw.position >= 1);
            prop_assert!(!flaw.problem.contains(&marker));
        }
    }
}
