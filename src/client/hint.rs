//! Commands in the words of others, as they have to be written here.
//!
//! A condition says `attach with: windlass shell hello-7`; renderers and verbs ask for what leads from this machine to
//! the same run. **Invariant:** pure; what is no command of ours stays as it is.

/// Verbs that messages of the controller, the agent and the runner name.
const VERBS: [&str; 8] = ["shell", "retry", "continue", "finish", "logs", "status", "cancel", "explain"];

/// `windlass VERB` with the flags that lead to the cluster and namespace; `program` has them.
#[must_use]
pub(super) fn paste(text: &str, program: &str) -> String {
    let mut parts = text.split("windlass ");
    let mut pasted = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let verb = part.split([' ', ',', ';']).next().unwrap_or_default();
        let whole = pasted.is_empty() || pasted.ends_with([' ', '\n', '(']);
        let ours = whole && !pasted.ends_with("kubectl ") && VERBS.contains(&verb);
        pasted += if ours { program } else { "windlass" };
        pasted.push(' ');
        pasted += part;
    }
    pasted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_lead_to_the_same_namespace() {
        let told =
            "step a waits; attach with: windlass shell b; then: windlass retry b --step a, or windlass continue b";
        let pasted = paste(told, "kubectl windlass -n x");
        assert_eq!(
            pasted,
            "step a waits; attach with: kubectl windlass -n x shell b; then: kubectl windlass -n x retry b --step a, or \
             kubectl windlass -n x continue b"
        );
        assert_eq!(paste(told, "windlass"), told);
        for other in ["windlass is a tool", "my-windlass shell", "", "windlass ", "the windlass runner"] {
            assert_eq!(paste(other, "windlass -n x"), other);
        }
    }
}
