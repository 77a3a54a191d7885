//! The environment of steps: what it is made of, what a step gets, what stays of a step's exports.
//! Called by the supervisor.
//!
//! ```text
//! container, then plan.env, then ours (WERCKER_*, WINDLASS_*), then exports of earlier steps   (stays)
//!   then the step's own env, then ours about this step                                         (that step only)
//! ```
//!
//! **Invariant:** pure. A value is bytes and is never evaluated; a variable of one step reaches a
//! later one only if the step exported another value than it was given.

use super::source::Places;
use crate::wire::{Plan, Variable};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Names and values, as a process gets them.
pub(super) type Vars = BTreeMap<OsString, OsString>;

/// What shells set by themselves: neither passed on nor kept.
const OF_THE_SHELL: [&str; 7] = ["_", "SHLVL", "PWD", "OLDPWD", "SHELLOPTS", "BASHOPTS", "PPID"];
/// Prefix of the names that the wrapper around a script uses.
pub(super) const WRAPPER_PREFIX: &str = "__windlass_";
/// What containers have when their image sets no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What after-steps are told about the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Whether the steps passed.
    pub(super) passed: bool,
    /// The step that failed first: its name, its title, and the message.
    pub(super) failed: Option<(String, String, String)>,
}

/// The environment so far.
pub(super) struct Session {
    /// What the next step begins with.
    vars: Vars,
    /// What the run itself defines: the plan's variables and ours.
    run: BTreeMap<String, String>,
}

impl Session {
    /// The environment of the first step.
    pub(super) fn new(
        container: impl Iterator<Item = (OsString, OsString)>,
        plan: &Plan,
        places: &Places,
        home: &str,
    ) -> Self {
        let mut vars: Vars = container.filter(|(name, _)| !of_the_shell(name)).collect();
        drop_cluster_variables(&mut vars);
        for (name, value) in [("PATH", DEFAULT_PATH), ("HOME", home), ("TERM", "xterm-256color")] {
            vars.entry(name.into()).or_insert_with(|| value.into());
        }
        let mut run: BTreeMap<String, String> =
            [("CI", "true"), ("BUILD", "true")].map(|(name, value)| (name.into(), value.into())).into();
        run.extend(plan.env.iter().map(|variable| (variable.name.clone(), variable.value.clone())));
        put_twins(&mut run, ours(plan, places));
        vars.extend(run.iter().map(|(name, value)| (name.into(), value.into())));
        Self { vars, run }
    }

    /// What a step's shell gets.
    pub(super) fn of_step(&self, own: &[Variable], name: &str, id: &str, verdict: Option<&Verdict>) -> Vars {
        let mut vars = self.vars.clone();
        vars.extend(
            step_variables(own, name, id, verdict).into_iter().map(|(name, value)| (name.into(), value.into())),
        );
        vars
    }

    /// What the agent gets to expand a step's properties: the run's own variables, and all.
    pub(super) fn of_request(
        &self,
        own: &[Variable],
        name: &str,
        id: &str,
        verdict: Option<&Verdict>,
    ) -> (BTreeMap<String, String>, BTreeMap<String, String>) {
        let of_step = step_variables(own, name, id, verdict);
        let mut run = self.run.clone();
        run.extend(of_step.clone());
        let mut all: BTreeMap<String, String> = self
            .vars
            .iter()
            .filter(|(name, _)| is_name(name.as_bytes()))
            .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
            .collect();
        all.extend(of_step);
        (run, all)
    }

    /// What one of our variables holds, by its name without `WERCKER_` or `WINDLASS_`. If steps made them
    /// differ, the one that they changed counts.
    pub(super) fn of_twins(&self, name: &str, vars: &Vars) -> Option<OsString> {
        let twins = ["WERCKER", "WINDLASS"].map(|prefix| format!("{prefix}_{name}"));
        let values = || twins.iter().filter_map(|name| Some((name, vars.get(OsStr::new(name))?)));
        let changed = values().find(|(name, value)| self.run.get(*name).map(OsStr::new) != Some(value.as_os_str()));
        changed.or_else(|| values().next()).map(|(_, value)| value.clone()).filter(|value| !value.is_empty())
    }

    /// Takes what a step's shell exported at its end, as `NAME=VALUE` with NUL between; `given` is
    /// what it began with.
    pub(super) fn keep(&mut self, given: &Vars, exported: &[u8]) {
        let exported: BTreeMap<&OsStr, &OsStr> = exported
            .split(|byte| *byte == 0)
            .filter_map(|entry| {
                let at = entry.iter().position(|byte| *byte == b'=')?;
                let (name, value) = (entry.get(..at)?, entry.get(at + 1..)?);
                Some((OsStr::from_bytes(name), OsStr::from_bytes(value)))
            })
            .filter(|(name, _)| !name.is_empty() && !of_the_shell(name))
            .collect();
        for (name, value) in &exported {
            if given.get(*name).map(OsString::as_os_str) != Some(*value) {
                self.vars.insert((*name).to_owned(), (*value).to_owned());
            }
        }
        // Unset by the step. Names that no shell accepts get lost on their way through dash.
        for (name, value) in given {
            let unset = !exported.contains_key(name.as_os_str()) && is_name(name.as_bytes());
            if unset && self.vars.get(name) == Some(value) {
                self.vars.remove(name);
            }
        }
    }

    /// Expands `$NAME`, `${NAME}` and `$$` in a directory's name.
    pub(super) fn expand(text: &str, vars: &Vars) -> Result<OsString, String> {
        let mut out = Vec::new();
        let mut rest = text;
        while let Some((plain, tail)) = rest.split_once('$') {
            out.extend_from_slice(plain.as_bytes());
            if let Some(tail) = tail.strip_prefix('$') {
                out.push(b'$');
                rest = tail;
                continue;
            }
            let (name, tail) = match tail.strip_prefix('{') {
                Some(braced) => braced.split_once('}').ok_or_else(|| format!("{text}: a '}}' is missing"))?,
                None => {
                    let end = tail.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(tail.len());
                    tail.split_at(end)
                }
            };
            if !is_name(name.as_bytes()) {
                return Err(format!("{text}: a variable's name must follow '$'"));
            }
            let value = vars.get(OsStr::new(name)).ok_or_else(|| format!("{text}: ${name} is not set"))?;
            out.extend_from_slice(value.as_bytes());
            rest = tail;
        }
        out.extend_from_slice(rest.as_bytes());
        Ok(OsString::from_vec(out))
    }
}

/// Whether a shell takes this as a variable's name.
fn is_name(name: &[u8]) -> bool {
    name.first().is_some_and(|first| !first.is_ascii_digit())
        && name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_')
}

fn of_the_shell(name: &OsStr) -> bool {
    OF_THE_SHELL.iter().any(|known| *known == name) || name.as_bytes().starts_with(WRAPPER_PREFIX.as_bytes())
}

/// Takes away what the cluster puts into every container: the API server's address and the link
/// variables of the namespace's services. An image may have variables that look alike, so a family
/// goes only if its members fit each other.
fn drop_cluster_variables(vars: &mut Vars) {
    let families: Vec<String> = vars
        .iter()
        .filter_map(|(name, host)| {
            let family = name.to_str()?.strip_suffix("_SERVICE_HOST")?.to_owned();
            let port = vars.get(OsStr::new(&format!("{family}_PORT")))?.to_str()?;
            (port.split_once("://")?.1.rsplit_once(':')?.0 == host).then_some(family)
        })
        .collect();
    vars.retain(|name, _| {
        let Some(name) = name.to_str() else { return true };
        let linked = families.iter().any(|family| {
            name.strip_prefix(family.as_str()).is_some_and(|rest| {
                rest == "_PORT" || ["_PORT_", "_SERVICE_HOST", "_SERVICE_PORT"].iter().any(|p| rest.starts_with(p))
            })
        });
        !linked && !name.starts_with("KUBERNETES_") && !name.starts_with("WINDLASS_")
    });
}

/// What every step is told, without its `WERCKER_` or `WINDLASS_`.
fn ours(plan: &Plan, places: &Places) -> Vec<(&'static str, String)> {
    let (pipeline, cache) = (&places.pipeline, places.cache.as_deref());
    let path = |path: &std::path::Path| path.to_string_lossy().into_owned();
    let mut list = vec![
        ("ROOT", path(&places.source)),
        ("SOURCE_DIR", path(&places.source)),
        ("PIPELINE_DIR", path(pipeline)),
        ("OUTPUT_DIR", path(&pipeline.join("output"))),
        ("CACHE_DIR", path(cache.unwrap_or(&pipeline.join("cache")))),
        ("REPORT_DIR", path(&pipeline.join("report"))),
        ("RUN_ID", plan.run.uid.clone()),
        ("RUN_NAME", plan.run.name.clone()),
        ("RUN_NAMESPACE", plan.run.namespace.clone()),
        ("BUILD_NUMBER", plan.run.build_number.to_string()),
    ];
    list.extend(plan.source_revision.iter().map(|commit| ("GIT_COMMIT", commit.clone())));
    list
}

/// What one step is told.
fn step_variables(own: &[Variable], name: &str, id: &str, verdict: Option<&Verdict>) -> BTreeMap<String, String> {
    let mut vars: BTreeMap<String, String> =
        own.iter().map(|variable| (variable.name.clone(), variable.value.clone())).collect();
    let mut list = vec![("STEP_NAME", name.to_owned()), ("STEP_ID", id.to_owned())];
    if let Some(verdict) = verdict {
        list.push(("RESULT", if verdict.passed { "passed" } else { "failed" }.to_owned()));
        if let Some((name, title, message)) = &verdict.failed {
            list.push(("FAILED_STEP_NAME", name.clone()));
            list.push(("FAILED_STEP_DISPLAY_NAME", title.clone()));
            list.push(("FAILED_STEP_MESSAGE", message.clone()));
        }
    }
    put_twins(&mut vars, list);
    vars
}

/// Puts each variable in twice: as Wercker's documents call it, and under our own name.
fn put_twins(vars: &mut BTreeMap<String, String>, list: Vec<(&'static str, String)>) {
    for prefix in ["WERCKER", "WINDLASS"] {
        vars.insert(prefix.into(), "true".into());
        vars.extend(list.iter().map(|(name, value)| (format!("{prefix}_{name}"), value.clone())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn variable(name: &str, value: &str) -> Variable {
        Variable { name: name.into(), value: value.into(), secret: false }
    }

    fn vars(list: &[(&str, &str)]) -> Vars {
        list.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn session(container: &[(&str, &str)], env: &[(&str, &str)]) -> Session {
        let plan = Plan {
            env: env.iter().map(|(name, value)| variable(name, value)).collect(),
            source_revision: Some("f00".into()),
            ..Plan::default()
        };
        let places =
            Places { source: PathBuf::from("/pipeline/source"), pipeline: PathBuf::from("/pipeline"), cache: None };
        Session::new(vars(container).into_iter(), &plan, &places, "/root")
    }

    fn get<'a>(vars: &'a Vars, name: &str) -> Option<&'a str> {
        vars.get(OsStr::new(name)).and_then(|value| value.to_str())
    }

    #[test]
    fn layers_are_in_order() {
        let session = session(
            &[("A", "container"), ("B", "container"), ("PATH", "/x"), ("PWD", "/"), ("WINDLASS_ORDER_0", "x")],
            &[("B", "plan"), ("CI", "no"), ("WERCKER_ROOT", "/etc"), ("C", "$A")],
        );
        let step = session.of_step(&[variable("C", "step")], "test", "u-1", None);
        for (name, value) in [
            ("A", Some("container")),
            ("B", Some("plan")),
            ("C", Some("step")),
            ("CI", Some("no")),
            ("BUILD", Some("true")),
            ("PATH", Some("/x")),
            ("HOME", Some("/root")),
            ("WERCKER_ROOT", Some("/pipeline/source")),
            ("WINDLASS_OUTPUT_DIR", Some("/pipeline/output")),
            ("WERCKER_GIT_COMMIT", Some("f00")),
            ("WINDLASS", Some("true")),
            ("WINDLASS_STEP_NAME", Some("test")),
            ("PWD", None),
            ("WINDLASS_ORDER_0", None),
            ("WERCKER_RESULT", None),
        ] {
            assert_eq!(get(&step, name), value, "{name}");
        }
    }

    #[test]
    fn each_variable_has_its_twin() {
        let verdict = Verdict { passed: false, failed: Some(("a".into(), "A".into(), "exit code 2".into())) };
        let step = session(&[], &[]).of_step(&[], "tell", "u-2", Some(&verdict));
        let of = |prefix: &str| -> Vec<(String, OsString)> {
            let named = |(name, value): (&OsString, &OsString)| {
                Some((name.to_str()?.strip_prefix(prefix)?.to_owned(), value.clone()))
            };
            step.iter().filter_map(named).collect()
        };
        assert_eq!(of("WERCKER"), of("WINDLASS"));
        assert_eq!(get(&step, "WERCKER_RESULT"), Some("failed"));
        assert_eq!(get(&step, "WERCKER_FAILED_STEP_DISPLAY_NAME"), Some("A"));
        assert_eq!(get(&step, "WERCKER_FAILED_STEP_MESSAGE"), Some("exit code 2"));
    }

    #[test]
    fn cluster_variables_go_and_lookalikes_stay() {
        let session = session(
            &[
                ("KUBERNETES_SERVICE_HOST", "10.0.0.1"),
                ("DB_SERVICE_HOST", "10.0.0.7"),
                ("DB_PORT", "tcp://10.0.0.7:5432"),
                ("DB_PORT_5432_TCP_ADDR", "10.0.0.7"),
                ("DB_SERVICE_PORT_SQL", "5432"),
                ("DB_USER", "me"),
                ("WEB_SERVICE_HOST", "web.example.com"),
                ("WEB_PORT", "80"),
            ],
            &[],
        );
        let left: Vec<&str> = session
            .vars
            .keys()
            .filter_map(|name| name.to_str())
            .filter(|name| ["KUB", "DB_", "WEB"].iter().any(|p| name.starts_with(p)))
            .collect();
        assert_eq!(left, ["DB_USER", "WEB_PORT", "WEB_SERVICE_HOST"]);
    }

    #[test]
    fn of_two_twins_the_changed_one_counts() {
        let session = session(&[], &[]);
        let step = session.of_step(&[], "s", "u", None);
        let of = |changes: &[(&str, &str)]| {
            let mut vars = step.clone();
            vars.extend(changes.iter().map(|(name, value)| (name.into(), value.into())));
            session.of_twins("ROOT", &vars).map(|value| value.into_string().unwrap())
        };
        for (changes, expected) in [
            (&[][..], Some("/pipeline/source")),
            (&[("WERCKER_ROOT", "/a")], Some("/a")),
            (&[("WINDLASS_ROOT", "/b")], Some("/b")),
            (&[("WERCKER_ROOT", "/a"), ("WINDLASS_ROOT", "/b")], Some("/a")),
            (&[("WERCKER_ROOT", "")], None),
        ] {
            assert_eq!(of(changes).as_deref(), expected, "{changes:?}");
        }
        assert_eq!(session.of_twins("ROOT", &Vars::new()), None);
    }

    #[test]
    fn exports_stay_and_step_variables_go() {
        let mut session = session(&[("OLD", "1"), ("GONE", "1")], &[("P", "plan")]);
        let own = [variable("ONLY", "here"), variable("P", "step"), variable("CHANGED", "a")];
        let given = session.of_step(&own, "s", "u", None);
        let mut after = given.clone();
        after.remove(OsStr::new("GONE"));
        after.insert("NEW".into(), "q'\"`$x\n\u{e9}".into());
        after.insert("CHANGED".into(), "b".into());
        after.insert("SHLVL".into(), "3".into());
        after.insert("__windlass_code".into(), "0".into());
        let dump: Vec<u8> =
            after.iter().flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat()).collect();
        session.keep(&given, &dump);
        let next = session.of_step(&[], "t", "u", None);
        for (name, value) in [
            ("NEW", Some("q'\"`$x\n\u{e9}")),
            ("CHANGED", Some("b")),
            ("OLD", Some("1")),
            ("P", Some("plan")),
            ("GONE", None),
            ("ONLY", None),
            ("SHLVL", None),
            ("__windlass_code", None),
            ("WERCKER_STEP_NAME", Some("t")),
        ] {
            assert_eq!(get(&next, name), value, "{name}");
        }
        let (run, all) = session.of_request(&[variable("X", "y")], "push", "u", None);
        assert_eq!(run.get("P").map(String::as_str), Some("plan"));
        assert_eq!((run.get("NEW"), run.get("OLD")), (None, None));
        assert_eq!(all.get("CHANGED").map(String::as_str), Some("b"));
        assert_eq!(all.get("X").map(String::as_str), Some("y"));
    }

    #[test]
    fn expands_directories() {
        let vars = vars(&[("A", "x y"), ("B_1", "/b")]);
        for (text, want) in [
            ("$A/c", Ok("x y/c")),
            ("${B_1}c$$", Ok("/bc$")),
            ("plain", Ok("plain")),
            ("$NOPE", Err("$NOPE: $NOPE is not set")),
            ("a$", Err("a$: a variable's name must follow '$'")),
            ("${A", Err("${A: a '}' is missing")),
        ] {
            let got = Session::expand(text, &vars);
            assert_eq!(got, want.map(OsString::from).map_err(String::from), "{text}");
        }
    }
}
