//! `watch`: what its properties mean, and where its program is reachable.
//!
//! The controller calls [`check`] when it resolves a run; the agent calls [`addresses`].
//!
//! **Invariant:** as that of the folder. What the schema can say is not said again here.

use super::StepError;
use crate::api::{condition::reason, step::Watch};
use std::net::{IpAddr, SocketAddr};

/// Judges a watch step; `step_path` is such as `steps[2].watch`.
///
/// # Errors
/// `InvalidProperty`, for a property that would have no effect.
pub fn check(step_path: &str, watch: &Watch) -> Result<(), StepError> {
    let wrong =
        |field: &str, what: &str| StepError::new(reason::INVALID_PROPERTY, format!("{step_path}.{field}: {what}"));
    let ignore = watch.ignore.as_deref().unwrap_or_default();
    if !ignore.is_empty() && !watch.reload {
        return Err(wrong("ignore", "it counts only with reload: true; set reload or leave it out"));
    }
    for (index, pattern) in ignore.iter().enumerate() {
        let field = format!("ignore[{index}]");
        if pattern.contains(['\n', '\r', '\0']) {
            return Err(wrong(&field, "write one pattern per entry, without a line break"));
        }
        if pattern.trim().is_empty() || pattern.starts_with('#') {
            return Err(wrong(&field, &format!("{pattern:?} is a blank or a comment, which matches no file")));
        }
    }
    Ok(())
}

/// Where the program is reachable: address and port of each of `ports`.
#[must_use]
pub fn addresses(ip: IpAddr, ports: &[u16]) -> Vec<String> {
    ports.iter().map(|port| SocketAddr::new(ip, *port).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn watch(yaml: &str) -> Watch {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[rstest]
    #[case("{code: x}")]
    #[case("{code: x, ignore: []}")]
    #[case("{code: x, reload: true, ignore: ['*.log', '!keep.log', '/out/', '\\#x', ' a'], ports: [80]}")]
    fn takes(#[case] yaml: &str) {
        assert_eq!(check("steps[0].watch", &watch(yaml)), Ok(()));
    }

    #[rstest]
    #[case("{code: x, ignore: ['*.log']}", "ignore: it counts only with reload: true; set reload or leave it out")]
    #[case(
        r#"{code: x, reload: true, ignore: ["a\nb"]}"#,
        "ignore[0]: write one pattern per entry, without a line break"
    )]
    #[case(
        "{code: x, reload: true, ignore: [a, '# b']}",
        "ignore[1]: \"# b\" is a blank or a comment, which matches no file"
    )]
    #[case("{code: x, reload: true, ignore: [' ']}", "ignore[0]: \" \" is a blank or a comment, which matches no file")]
    fn refuses(#[case] yaml: &str, #[case] message: &str) {
        let error = check("steps[0].watch", &watch(yaml)).unwrap_err();
        assert_eq!((error.reason, error.message), ("InvalidProperty", format!("steps[0].watch.{message}")));
    }

    #[test]
    fn addresses_are_of_either_family() {
        assert_eq!(addresses("10.1.2.3".parse().unwrap(), &[5000, 80]), ["10.1.2.3:5000", "10.1.2.3:80"]);
        assert_eq!(addresses("fd00::7".parse().unwrap(), &[80]), ["[fd00::7]:80"]);
    }
}
