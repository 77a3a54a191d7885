use super::*;
use proptest::prelude::*;
use rstest::rstest;

fn one(text: &str) -> Node {
    let mut found = documents(text).unwrap_or_else(|faults| panic!("{}", shown(&faults, text)));
    assert_eq!(found.len(), 1, "{text}");
    found.remove(0)
}

fn shown(faults: &[Diagnostic], text: &str) -> String {
    faults.iter().map(|fault| fault.render("f.yaml", text)).collect()
}

#[test]
fn nodes_have_positions_and_text_as_written() {
    let text = "a: 1.10\nb:\n  - é: 'yes'\n    c: [x, \"y z\"]\n";
    let node = one(text);
    assert_eq!(node.get("a").unwrap().text(), Some("1.10"));
    let item = &node.get("b").unwrap().list().unwrap()[0];
    let entries = item.map().unwrap();
    assert_eq!(entries[0].key_at, Span { line: 3, column: 5, width: 1 });
    assert_eq!(entries[0].value.at, Span { line: 3, column: 8, width: 5 });
    assert_eq!(item.get("c").unwrap().list().unwrap()[1].at, Span { line: 4, column: 12, width: 5 });
    assert_eq!(node.json(), serde_json::json!({"a": 1.1, "b": [{"é": "yes", "c": ["x", "y z"]}]}));
}

#[test]
fn json_is_what_kubectl_reads() {
    let json = one("[yes, 'no', 0o7, -3, .5, ~, '', null, 1e3, -x, 2026-01-02, '1']").json();
    assert_eq!(json, serde_json::json!([true, "no", "0o7", -3, 0.5, null, "", null, 1000.0, "-x", "2026-01-02", "1"]));
}

#[test]
fn aliases_are_copied_and_merge_keys_merged() {
    let node = one("base: &b {x: 1, y: 2}\nown: {<<: *b, y: 3}\nlist: {<<: [*b, {z: 4, x: 9}]}\nsame: *b\n");
    assert_eq!(node.get("own").unwrap().json(), serde_json::json!({"y": 3, "x": 1}));
    assert_eq!(node.get("list").unwrap().json(), serde_json::json!({"x": 1, "y": 2, "z": 4}));
    assert_eq!(node.get("same"), node.get("base"));
}

#[test]
fn several_documents_and_empty_ones() {
    assert_eq!(documents("---\na: 1\n---\n\n---\nb: 2\n").unwrap().len(), 2);
    assert_eq!(documents("").unwrap(), []);
    assert_eq!(documents("# nothing\n").unwrap(), []);
}

#[rstest]
#[case("a: 1\na: 2\nb: 3\nb: 4\n", 2, "f.yaml:2:1")]
#[case("a:\n\tb: 1\n", 1, "f.yaml:2:1")]
#[case("a: \"x\nb: 1\n", 1, "a quote is not closed")]
#[case("a: [1, 2\n", 1, "f.yaml:")]
#[case("a: *nope\n", 1, "f.yaml:1:4")]
#[case("a: b: c\n", 1, "f.yaml:1:5")]
#[case("a: &x [*x]\n", 1, "f.yaml:1:8")]
#[case("a: @x\n", 1, "f.yaml:1:4")]
#[case("? [a]\n: b\n", 1, "a list is no key")]
fn what_is_no_yaml_is_told_with_its_place(#[case] text: &str, #[case] count: usize, #[case] said: &str) {
    let faults = documents(text).unwrap_err();
    let shown = shown(&faults, text);
    assert_eq!(faults.len(), count, "{shown}");
    assert!(shown.contains(said), "{shown}");
}

#[test]
fn limits_hold() {
    let told = |text: &str| shown(&documents(text).unwrap_err(), "");
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(documents(&deep(MOST_DEPTH)).is_ok());
    assert!(told(&deep(MOST_DEPTH + 1)).contains("nested deeper than 64 levels"));
    assert!(told(&deep(200_000)).contains("nested deeper"));
    assert!(told(&"x".repeat(MOST_BYTES + 1)).contains("longer than 1024 KiB"));
    // Each line holds nine of the line above.
    let mut bomb = "a0: &a0 x\n".to_owned();
    for level in 1..12 {
        let items = vec![format!("*a{}", level - 1); 9].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(told(&bomb).contains("more than 100000 values"));
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 20].join(", "));
    assert!(told(&long).contains("with what aliases repeat"));
}

#[test]
fn a_map_of_many_keys_is_read_in_time() {
    let text: String = (0..90_000).map(|i| format!("k{i}: 1\n")).take(49_000).collect();
    let before = std::time::Instant::now();
    assert_eq!(one(&text).map().unwrap().len(), 49_000);
    assert!(before.elapsed() < std::time::Duration::from_secs(5));
}

proptest! {
    #[test]
    fn any_text_is_a_tree_or_a_fault(text in "[ \\na-c:\\-\\[\\]{}&*<|>'\"#%@\\t0-9,!?~$.é]{0,200}") {
        if let Err(faults) = documents(&text) {
            prop_assert!(!faults.is_empty());
            for fault in faults {
                prop_assert!(!fault.render("f", &text).is_empty());
            }
        }
    }
}
