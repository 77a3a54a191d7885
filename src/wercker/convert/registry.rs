//! Steps that Wercker fetched from its registry, which is gone: ours in their place, files that are handed in, or what
//! to write instead.
//!
//! **Invariant:** nothing is fetched. What stands in a pipeline is the whole step, so it can be read.

use super::{
    super::{
        document::{Document, Step},
        out::Out,
        shell::double_quoted,
    },
    Converter, LocalStep, step_key,
    steps::Body,
};
use crate::yaml::{Diagnostic, Entry, nearest, reason};

/// A step that we have ourselves.
pub(super) struct Shipped {
    /// Its names in Wercker.
    names: &'static [&'static str],
    /// Properties that it reads.
    properties: &'static [&'static str],
    /// Properties that have no use here.
    unused: &'static [&'static str],
    /// What it cannot do without.
    required: &'static [&'static str],
    /// The shell code.
    code: &'static str,
}

/// The steps that we have.
pub(super) const SHIPPED: [Shipped; 9] = [
    Shipped {
        names: &["install-packages"],
        properties: &["packages"],
        unused: &["clean-after-install"],
        required: &["packages"],
        code: include_str!("../steps/install-packages.sh"),
    },
    Shipped {
        names: &["npm-install"],
        properties: &["options", "package-json-dir"],
        unused: &["use-cache", "clear-cache-on-failed", "strict-ssl"],
        required: &[],
        code: include_str!("../steps/npm-install.sh"),
    },
    Shipped {
        names: &["npm-test"],
        properties: &["options"],
        unused: &[],
        required: &[],
        code: include_str!("../steps/npm-test.sh"),
    },
    Shipped {
        names: &["bundle-install"],
        properties: &["without", "jobs", "options"],
        unused: &["use-cache", "clear-cache-on-failed"],
        required: &[],
        code: include_str!("../steps/bundle-install.sh"),
    },
    Shipped {
        names: &["pip-install"],
        properties: &["requirements_file", "packages_list", "pip_command", "extra_args"],
        unused: &["auto_run_wheel", "cleanup_wheel_dir", "extra_wheel_args", "freeze_in_virtualenv"],
        required: &[],
        code: include_str!("../steps/pip-install.sh"),
    },
    Shipped {
        names: &["add-ssh-key"],
        properties: &["keyname", "host"],
        unused: &[],
        required: &["keyname"],
        code: include_str!("../steps/add-ssh-key.sh"),
    },
    Shipped {
        names: &["add-to-known_hosts", "add-to-known-hosts"],
        properties: &["hostname", "fingerprint", "port", "type"],
        unused: &["local"],
        required: &["hostname"],
        code: include_str!("../steps/add-to-known-hosts.sh"),
    },
    Shipped {
        names: &["create-file"],
        properties: &["filename", "content", "overwrite"],
        unused: &["hide-from-log"],
        required: &["filename", "content"],
        code: include_str!("../steps/create-file.sh"),
    },
    Shipped {
        names: &["slack-notifier", "slack-notify"],
        properties: &["url", "channel", "username", "notify_on", "branch"],
        unused: &["icon_url", "icon_emoji", "passed_message", "failed_message"],
        required: &["url"],
        code: include_str!("../steps/slack-notifier.sh"),
    },
];

/// Steps that we do not have, and what does the same.
const INSTEAD: [(&str, &str); 24] = [
    ("hipchat-notify", "HipChat is gone; slack-notifier, or a script step with curl"),
    ("hipchat", "HipChat is gone; slack-notifier, or a script step with curl"),
    ("heroku-deploy", "script: git push https://heroku:$HEROKU_KEY@git.heroku.com/APP.git HEAD:main"),
    ("s3sync", "a box with the AWS command line, and script: aws s3 sync DIRECTORY s3://BUCKET"),
    ("grunt", "script: npx grunt TASKS"),
    ("gulp", "script: npx gulp TASKS"),
    ("bower-install", "script: npx bower install"),
    ("jekyll", "script: bundle exec jekyll build"),
    ("middleman-build", "script: bundle exec middleman build"),
    ("hugo-build", "a box with hugo, and script: hugo"),
    ("rvm-use", "a box with the version of Ruby, such as ruby:3.4"),
    ("rbenv-rehash", "a box with the version of Ruby, such as ruby:3.4"),
    ("nvm", "a box with the version of Node.js, such as node:22"),
    ("virtualenv", "script: python3 -m venv .venv && . .venv/bin/activate; later steps read it again"),
    ("rspec", "script: bundle exec rspec"),
    ("rails-database-yml", "script steps that write config/database.yml from the link variables"),
    ("setup-go-workspace", "nothing: go modules need no workspace"),
    ("golint", "script: go vet ./..."),
    ("go-test", "script: go test ./..."),
    ("maven", "a box with maven, and script: mvn GOALS"),
    ("gradle", "script: ./gradlew TASKS"),
    ("kubectl", "a box with kubectl, and script: kubectl ARGUMENTS"),
    ("email-notify", "a script step with curl or sendmail"),
    ("bash-template", "script: envsubst < FILE.template > FILE"),
];

/// Our step of this name.
pub(super) fn shipped(id: &str) -> Option<&'static Shipped> {
    SHIPPED.iter().find(|shipped| shipped.names.contains(&id))
}

/// `WERCKER_STEP_PROPERTY="value"`: a shell expands what variables the value names, as in Wercker.
pub(super) fn assignment(step: &str, property: &str, value: &str) -> String {
    let name = format!("WERCKER_{step}_{property}").to_ascii_uppercase();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    format!("{name}={}", double_quoted(value))
}

/// What is said of a step that nobody has.
fn missing(step: &Step) -> Diagnostic {
    let id = step.full_id();
    let (message, hint) = match &step.url {
        Some(url) if url.starts_with("file://") => (
            format!("step {id}: {url} is not there or has no run.sh"),
            "the address is a directory with a run.sh of at most 64 KiB".to_owned(),
        ),
        Some(url) => (
            format!("step {id}: {url} is not fetched"),
            "unpack it below .wercker/steps and leave the address out".to_owned(),
        ),
        None => {
            let instead = INSTEAD.iter().find(|(known, _)| *known == step.id).map(|(_, instead)| (*instead).to_owned());
            let near = nearest(&step.id, SHIPPED.iter().flat_map(|shipped| shipped.names).copied().chain(["script"]));
            let near = near.map(|near| format!("did you mean {near}?"));
            let general =
                format!("write what it did as a script step, or put its run.sh into .wercker/steps/{}", step.id);
            (format!("step {id} came from Wercker's registry, which is gone"), near.or(instead).unwrap_or(general))
        }
    };
    Diagnostic::error(reason::STEP_GONE, message).at(step.at, "").hint(hint)
}

/// The steps of a file that nobody has: `has` says whether the files of one are there.
pub fn gone(document: &Document, has: impl Fn(&str) -> bool) -> Vec<Diagnostic> {
    super::wanted(document).filter(|step| !has(&step_key(step))).map(missing).collect()
}

/// The step as a script.
pub(super) fn body(converter: &mut Converter<'_>, step: &Step) -> Body {
    let options = converter.options;
    if let Some(local) = options.local.get(&step_key(step)) {
        return of_files(converter, step, local);
    }
    match shipped(&step.id).filter(|_| step.url.is_none()) {
        Some(shipped) => ours(converter, step, shipped),
        None => {
            converter.findings.push(missing(step));
            Body::default()
        }
    }
}

fn ours(converter: &mut Converter<'_>, step: &Step, shipped: &Shipped) -> Body {
    let mut code = String::new();
    let mut notes = vec![format!("step {} of Wercker's registry, written anew", step.full_id())];
    for property in &step.properties {
        let name = property.name.value.as_str();
        if shipped.unused.contains(&name) {
            notes.push(format!("its {name} has no use here and is left out"));
        } else if !shipped.properties.contains(&name) {
            let message = format!("step {}: no such property: {name}", step.full_id());
            let label = nearest(name, shipped.properties.iter().copied())
                .map_or_else(String::new, |near| format!("did you mean {near}?"));
            let hint = format!("it takes {}", shipped.properties.join(", "));
            converter
                .findings
                .push(Diagnostic::error(reason::UNKNOWN_KEY, message).at(property.name.at, label).hint(hint));
        } else if let Some(text) = property.value.text() {
            // All names of a step read the same variables.
            let id = shipped.names.first().copied().unwrap_or_default();
            // What it calls had them in Wercker; in a Pipeline of the user's own they need not stand out.
            let export = if converter.is_here() { "export " } else { "" };
            code.push_str(&format!("{export}{}\n", assignment(id, name, text)));
        } else if !property.value.is_null() {
            let message = format!("step {}: {name} is {}", step.full_id(), property.value.kind());
            converter
                .findings
                .push(Diagnostic::error(reason::WRONG_TYPE, message).at(property.value.at, "expected text"));
        }
    }
    for required in shipped.required {
        if step.text(required).is_none_or(|text| text.value.is_empty()) {
            let message = format!("step {} has no {required}", step.full_id());
            converter.findings.push(Diagnostic::error(reason::INVALID_STEP, message).at(step.at, "it needs one"));
        }
    }
    code.push_str(shipped.code);
    // The key is in a variable whose name is a property.
    let key = step.text("keyname").filter(|_| shipped.names.contains(&"add-ssh-key"));
    let texts = key.map(|key| format!("${}_PRIVATE", key.value)).into_iter().collect();
    Body { kind: Some(("script", Out::Text(code.clone()))), notes, code, texts, ..Body::default() }
}

/// A step whose files are there: what they do, in one script.
fn of_files(converter: &mut Converter<'_>, step: &Step, local: &LocalStep) -> Body {
    let id = step.full_id();
    let needs_files =
        [Some(&local.run), local.init.as_ref()].into_iter().flatten().any(|code| code.contains("WERCKER_STEP_ROOT"));
    let mut lines: Vec<String> = Vec::new();
    if converter.is_here() {
        let place = converter.step_files(&local.directory);
        lines.push(format!("export WERCKER_STEP_ROOT={place} WERCKER_STEP_OWNER={}", double_quoted(&step.owner)));
    } else if needs_files {
        let others = if local.others.is_empty() { "its directory".to_owned() } else { local.others.join(", ") };
        let message = format!("step {id} reads files of its own ($WERCKER_STEP_ROOT): {others}");
        let hint = "put the step's directory into the source and call it from a script step";
        converter.refuse(reason::NOT_IN_CLUSTER, step.at, &message, hint);
    }
    let given: Vec<&str> = step.properties.iter().map(|property| property.name.value.as_str()).collect();
    for (name, default) in defaults(local).into_iter().filter(|(name, _)| !given.contains(&name.as_str())) {
        lines.push(format!("export {}", assignment(&step.id, &name, &default)));
    }
    for property in &step.properties {
        match property.value.text() {
            Some(text) => lines.push(format!("export {}", assignment(&step.id, &property.name.value, text))),
            None if property.value.is_null() => {}
            None => {
                let message = format!("step {id}: {} is {}", property.name.value, property.value.kind());
                converter
                    .findings
                    .push(Diagnostic::error(reason::WRONG_TYPE, message).at(property.value.at, "expected text"));
            }
        }
    }
    lines.extend(local.init.clone());
    lines.push(local.run.clone());
    let code = lines.join("\n");
    let notes = vec![format!("the run.sh of step {id}, as it was found")];
    let goes_on = Some(super::scripts::OF_FILES);
    Body { kind: Some(("script", Out::Text(code.clone()))), notes, code, goes_on, ..Body::default() }
}

/// Properties with a default, by the step's manifest: a list with names, or a map by name.
fn defaults(local: &LocalStep) -> Vec<(String, String)> {
    let documents = local.manifest.as_deref().and_then(|text| crate::yaml::documents(text).ok()).unwrap_or_default();
    let Some(properties) = documents.first().and_then(|manifest| manifest.get("properties")) else { return Vec::new() };
    let default =
        |name: &str, node: &crate::yaml::Node| Some((name.to_owned(), node.get("default")?.text()?.to_owned()));
    let of_list =
        properties.list().unwrap_or_default().iter().filter_map(|item| default(item.get("name")?.text()?, item));
    let of_map = properties.map().unwrap_or_default().iter();
    of_list.chain(of_map.filter_map(|Entry { key, value, .. }| default(key, value))).collect()
}

#[cfg(test)]
mod tests;
