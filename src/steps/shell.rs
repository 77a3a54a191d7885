//! What the properties of a `shell` step mean. The controller reads them when it resolves a run, and
//! again when it writes the order for the box.
//!
//! **Invariant:** as the others'. Nothing is expanded: what runs in the box is a shell, which does that.

use super::{StepError, grammar};
use crate::api::{condition::reason, step::Shell, text::Words};

/// The program and its arguments; empty: bash, else sh. `path` is that of the step's kind.
///
/// # Errors
/// `InvalidProperty`, if `cmd` is no list of words.
pub fn words(path: &str, shell: &Shell) -> Result<Vec<String>, StepError> {
    let wrong = |message: String| StepError::new(reason::INVALID_PROPERTY, format!("{path}.cmd: {message}"));
    let words = match &shell.cmd {
        None | Some(Words::Empty(_)) => Vec::new(),
        Some(Words::List(words)) => words.clone(),
        Some(Words::Text(text)) => {
            let words = grammar::words(text, false)
                .map_err(|flaw| wrong(format!("{:?} at position {}: {}", flaw.item, flaw.position, flaw.problem)))?;
            words.into_iter().map(|word| word.text).collect()
        }
    };
    if words.first().is_some_and(String::is_empty) {
        return Err(wrong("the program's name is empty; leave cmd out for bash, else sh".into()));
    }
    if words.iter().chain(&shell.code).any(|word| word.contains('\0')) {
        return Err(wrong("cmd and code may not hold a NUL character".into()));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn read(yaml: &str) -> Result<Vec<String>, String> {
        words("steps[0].shell", &serde_yaml::from_str(yaml).unwrap()).map_err(|error| error.message)
    }

    #[rstest]
    #[case("{}", &[])]
    #[case("{cmd: ''}", &[])]
    #[case("{cmd: []}", &[])]
    #[case("{cmd: {}}", &[])]
    #[case("{cmd: /bin/sh}", &["/bin/sh"])]
    #[case("{cmd: 'bash -c \"echo $HOME; exec bash\"'}", &["bash", "-c", "echo $HOME; exec bash"])]
    #[case("{cmd: [python3, -i, 'a b']}", &["python3", "-i", "a b"])]
    fn a_command_is_words(#[case] yaml: &str, #[case] expected: &[&str]) {
        assert_eq!(read(yaml).unwrap(), expected);
    }

    #[rstest]
    #[case("{cmd: 'bash \"-c'}", "steps[0].shell.cmd: ")]
    #[case("{cmd: ['', x]}", "steps[0].shell.cmd: the program's name is empty; leave cmd out for bash, else sh")]
    #[case("{code: \"a\\0b\"}", "steps[0].shell.cmd: cmd and code may not hold a NUL character")]
    fn what_is_no_command_is_refused(#[case] yaml: &str, #[case] message: &str) {
        let refused = read(yaml).unwrap_err();
        assert!(refused.starts_with(message), "{refused}");
    }
}
