//! What `source.git.revision` may mean.
//!
//! Called by `git`.
//!
//! **Invariant:** pure; what is returned can stand in a refspec without changing its meaning.

/// What to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Revision<'a> {
    /// The branch that the remote's HEAD names.
    Default,
    /// A commit, all its digits given.
    Commit(&'a str),
    /// A ref by its full name.
    Ref(&'a str),
    /// A branch, or else a tag.
    Name(&'a str),
}

/// Reads a revision; `None` for what git would not take as a name.
pub(super) fn parse(text: Option<&str>) -> Option<Revision<'_>> {
    let Some(text) = text.filter(|text| *text != "HEAD") else { return Some(Revision::Default) };
    let is_commit = matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_commit {
        return Some(Revision::Commit(text));
    }
    if !is_ref_name(text) {
        return None;
    }
    Some(if text.starts_with("refs/") { Revision::Ref(text) } else { Revision::Name(text) })
}

/// Git's own rules for names of refs; all its operators are outside of them.
fn is_ref_name(text: &str) -> bool {
    let good_part = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.ends_with(".lock");
    let bad_char = |c: char| c.is_control() || " ~^:?*[\\".contains(c);
    !text.starts_with('-')
        && !text.ends_with('.')
        && text != "@"
        && !text.contains("..")
        && !text.contains("@{")
        && !text.contains(bad_char)
        && !text.starts_with('+')
        && text.split('/').all(good_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_names_from_commits_and_refs() {
        let commit = "3f9c2d1a".repeat(5);
        for (text, revision) in [
            (None, Revision::Default),
            (Some("HEAD"), Revision::Default),
            (Some(commit.as_str()), Revision::Commit(&commit)),
            (Some("refs/pull/7/head"), Revision::Ref("refs/pull/7/head")),
            (Some("main"), Revision::Name("main")),
            (Some("feature/é#1"), Revision::Name("feature/é#1")),
            (Some("3f9c2d1"), Revision::Name("3f9c2d1")),
            (Some("v1.4.2"), Revision::Name("v1.4.2")),
        ] {
            assert_eq!(parse(text), Some(revision));
        }
    }

    #[test]
    fn refuses_what_git_would_read_otherwise() {
        for text in [
            "",
            "-x",
            "--upload-pack=id",
            "+main",
            "a:b",
            "a..b",
            "a b",
            "a~1",
            "a^",
            "a*",
            "a?",
            "a[",
            "a\\b",
            "a//b",
            "/a",
            "a/",
            ".a",
            "a/.b",
            "a.lock",
            "a.",
            "@",
            "a@{1}",
            "a\nb",
            "a\0",
            "refs/heads/*",
        ] {
            assert_eq!(parse(Some(text)), None, "{text:?}");
        }
    }
}
