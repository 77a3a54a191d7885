//! The templates of `-o jsonpath=…`, as kubectl has them, without ranges and functions.
//!
//! `{.status.phase}`, `{.status.steps[*].images[0].digest}`, `{.status.conditions[?(@.type=="Succeeded")].reason}`,
//! `{.metadata.labels['a.b/c']}`, `{"\n"}`, text beside them. `status` uses it.
//!
//! **Invariant:** pure; what is not understood is refused before the cluster is asked. A path that finds nothing
//! prints nothing.

use serde_json::Value;
use std::str::FromStr;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Path(Vec<Step>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    /// Negative: from the end.
    Index(i64),
    All,
    /// `?(@.type=="Succeeded")`.
    Where(Vec<String>, Value),
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        // kubectl takes a bare path, too.
        if !text.contains('{') {
            return Ok(Self(vec![Part::Path(path(text)?)]));
        }
        while let Some((before, after)) = rest.split_once('{') {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let (inside, tail) = split_at_brace(after).ok_or_else(|| format!("{text:?}: a {{ is not closed"))?;
            let inside = inside.trim();
            parts.push(match inside.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
                Some(_) => Part::Text(serde_json::from_str(inside).map_err(|_| format!("{inside} is not a text"))?),
                None if inside.starts_with("range") || inside == "end" => {
                    return Err("ranges are not understood; take -o json and jq".into());
                }
                None => Part::Path(path(inside)?),
            });
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(parts))
    }
}

/// At the brace that closes, which none in quotes does.
fn split_at_brace(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '}') => return Some((text.get(..at)?, text.get(at + 1..)?)),
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            _ => {}
        }
    }
    None
}

fn path(text: &str) -> Result<Vec<Step>, String> {
    let wrong = || format!("{text:?} is not a path such as .status.phase");
    let mut steps = Vec::new();
    let mut rest = text.strip_prefix('$').unwrap_or(text);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (inside, tail) = after.split_once(']').ok_or_else(wrong)?;
            steps.push(bracket(inside).ok_or_else(wrong)?);
            rest = tail;
        } else {
            let after = rest.strip_prefix('.').ok_or_else(wrong)?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (name, tail) = after.split_at(end);
            match name {
                "*" => steps.push(Step::All),
                "" if tail.is_empty() && steps.is_empty() => {}
                "" => return Err(wrong()),
                name => steps.push(Step::Field(name.to_owned())),
            }
            rest = tail;
        }
    }
    if text.is_empty() { Err(wrong()) } else { Ok(steps) }
}

fn bracket(inside: &str) -> Option<Step> {
    if inside == "*" {
        return Some(Step::All);
    }
    if let Some(name) = unquoted(inside) {
        return Some(Step::Field(name.to_owned()));
    }
    if let Some(condition) = inside.strip_prefix("?(@.").and_then(|c| c.strip_suffix(')')) {
        let (field, value) = condition.split_once("==")?;
        let value = match unquoted(value.trim()) {
            Some(text) => Value::from(text),
            None => serde_json::from_str(value.trim()).ok()?,
        };
        return Some(Step::Where(field.trim().split('.').map(str::to_owned).collect(), value));
    }
    inside.parse().ok().map(Step::Index)
}

fn unquoted(text: &str) -> Option<&str> {
    let inner = |quote| text.strip_prefix(quote).and_then(|t: &str| t.strip_suffix(quote));
    inner('"').or_else(|| inner('\''))
}

impl Template {
    /// What the template finds, several values with a space between.
    #[must_use]
    pub(super) fn fill(&self, object: &Value) -> String {
        let part = |part: &Part| match part {
            Part::Text(text) => text.clone(),
            Part::Path(steps) => find(steps, object).into_iter().map(print).collect::<Vec<_>>().join(" "),
        };
        self.0.iter().map(part).collect()
    }
}

fn find<'v>(steps: &[Step], object: &'v Value) -> Vec<&'v Value> {
    steps.iter().fold(vec![object], |found, step| found.into_iter().flat_map(|value| walk(step, value)).collect())
}

fn walk<'v>(step: &Step, value: &'v Value) -> Vec<&'v Value> {
    let all = || match value {
        Value::Array(list) => list.iter().collect::<Vec<_>>(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    };
    match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::All => all(),
        Step::Index(index) => {
            let length = value.as_array().map_or(0, Vec::len);
            let from_end = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
            let at = if *index < 0 { length.checked_sub(from_end) } else { Some(from_end) };
            at.and_then(|at| value.get(at)).into_iter().collect()
        }
        Step::Where(field, wanted) => {
            let fits = |v: &&Value| field.iter().try_fold(*v, |v, name| v.get(name)) == Some(wanted);
            all().into_iter().filter(fits).collect()
        }
    }
}

fn print(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("{.status.phase}", "Failed")]
    #[case(".status.phase", "Failed")]
    #[case("{$.status.steps[*].name}", "build push")]
    #[case("{.status.steps[-1].images[0].digest}", "sha256:9f2c")]
    #[case("{.status.steps[?(@.name==\"push\")].exitCode}", "0")]
    #[case("{.status.steps[?(@.exitCode==2)].name}", "build")]
    #[case("{.metadata.labels['a.b/c']}{\"\\n\"}", "yes\n")]
    #[case("run {.metadata.name}: {.status.phase}!", "run hello-7: Failed!")]
    #[case("{.status.nothing.here}", "")]
    #[case("{.status.steps[0].images}", "[]")]
    fn finds_what_kubectl_finds(#[case] template: &str, #[case] found: &str) {
        let object = json!({
            "metadata": {"name": "hello-7", "labels": {"a.b/c": "yes"}},
            "status": {"phase": "Failed", "steps": [
                {"name": "build", "exitCode": 2, "images": []},
                {"name": "push", "exitCode": 0, "images": [{"digest": "sha256:9f2c"}]},
            ]},
        });
        assert_eq!(template.parse::<Template>().map(|t| t.fill(&object)), Ok(found.into()));
    }

    #[rstest]
    #[case("")]
    #[case("{.a")]
    #[case("{.a[}")]
    #[case("{a b}")]
    #[case("{.a..b}")]
    #[case("{.a[x]}")]
    #[case("{range .items[*]}{.a}{end}")]
    fn refuses_what_it_does_not_understand(#[case] template: &str) {
        assert!(template.parse::<Template>().is_err());
    }
}
