//! Examples of the verbs, for `--help`.
//!
//! `args` puts them into the long help. **Invariant:** each line that begins with `  windlass ` can be pasted; `cli`
//! rewrites those words for the plugin.

/// `run`.
pub(super) const RUN: &str = "\
Examples:
  windlass run -f hello.yaml                           start, follow, exit with the result
  windlass run --from pipeline/release -p version=1.4  run a Pipeline of the namespace
  windlass run test                                    on Docker: pipeline test of windlass.yaml
  DIGEST=$(windlass run -f hello.yaml -o digest)       only the pushed image on stdout";

/// `dev`.
pub(super) const DEV: &str = "\
Examples:
  windlass dev --publish 5000                  on Docker: pipeline dev, and localhost:5000
  windlass dev -f dev.yaml --publish 5000      in the cluster, which is sent each change
  windlass dev --from pipeline/dev --source app --ignore '*.log'
Ctrl-C ends the watched step, and the run goes on to its end; the second one stops it.";

/// `build`.
pub(super) const BUILD: &str = "\
Examples:
  windlass build                               pipeline build of windlass.yaml or wercker.yml
  windlass build --secret-env .env.secret      with variables that are masked
  windlass deploy --help                       flags that only a wercker.yml takes
  windlass run -f run.yaml --local             a file for a cluster, as it is";

/// `deploy`.
pub(super) const DEPLOY: &str = "\
Examples:
  windlass deploy                              pipeline deploy of windlass.yaml or wercker.yml
  windlass deploy --deploy-target staging      a target of it, in wercker.yml
  XXX_TOKEN=$TOKEN windlass deploy             with $TOKEN, masked; X_NAME is not masked
  windlass build --help                        the other flags of a run on Docker";

/// `workflow`.
pub(super) const WORKFLOW: &str = "\
Examples:
  windlass workflow release                    its pipelines in order, the first failure is the end";

/// `status`.
pub(super) const STATUS: &str = "\
Examples:
  windlass status                              the latest run: why it waits, what failed
  windlass status release#7 --wait             wait for the end, exit with the result
  windlass status hello-7 -o jsonpath='{.status.steps[*].images[0].digest}'";

/// `list`.
pub(super) const LIST: &str = "\
Examples:
  windlass list --pipeline release --status failed
  windlass list -w                             a line for each change
  windlass list -A -o json                     as kubectl get -o json";

/// `logs`.
pub(super) const LOGS: &str = "\
Examples:
  windlass logs -f                             follow the latest run, exit with its result
  windlass logs hello-7 --failed --tail 50     the last lines of what failed
  windlass logs hello-7 --service db --since 5m";

/// `cancel`.
pub(super) const CANCEL: &str = "\
Examples:
  windlass cancel hello-7                      stop the step, run the after-steps
  windlass cancel hello-7 --now                stop at once
  windlass cancel hello-7 hello-8 --wait       until they have ended";

/// `retry`.
pub(super) const RETRY: &str = "\
Examples:
  windlass retry hello-7                       the same steps and parameters, as a new run
  windlass retry @latest -d                    do not follow it
  windlass retry hello-7 --breakpoint on-failure  and wait for me where it fails
  windlass retry hello-7 --step test           repeat the step at whose failure it waits
  windlass retry release#7 -o name             the name of the new run on stdout";

/// `shell`.
pub(super) const SHELL: &str = "\
Examples:
  windlass shell hello-7                       in the step's directory, with its variables
  windlass shell hello-7 -- make test          one command, its exit code
Leaving the shell of a shell step lets the run go on; Ctrl-P Ctrl-Q detaches, and it stays as it is.";

/// `continue`.
pub(super) const CONTINUE: &str = "\
Examples:
  windlass continue hello-7                    from wherever it waits
  windlass continue hello-7 --step deploy      only if it waits at this step";

/// `check`.
pub(super) const CHECK: &str = "\
Examples:
  windlass check                               wercker.yml and windlass.yaml of this directory
  windlass check deploy/*.yaml --strict        warnings count as errors
  windlass check --json | jq 'select(.type==\"diagnostic\")'
What only the API server can judge is left to: kubectl apply --dry-run=server -f FILE";

/// `convert`.
pub(super) const CONVERT: &str = "\
Examples:
  windlass convert                             read wercker.yml, print Pipelines
  windlass convert -o windlass.yaml && kubectl apply -f windlass.yaml
  windlass convert --git https://git.example.com/team/app.git";

/// `init`.
pub(super) const INIT: &str = "\
Examples:
  windlass init                                look at this directory, write windlass.yaml
  windlass init && windlass check";

/// `explain`.
pub(super) const EXPLAIN: &str = "\
Examples:
  windlass explain StepFailed
  windlass explain                             every reason, one line each";

/// `completion`.
pub(super) const COMPLETION: &str = "\
Examples:
  source <(windlass completion bash)           in ~/.bashrc; zsh alike
  windlass completion fish > ~/.config/fish/completions/windlass.fish
  kubectl windlass completion kubectl > kubectl_complete-windlass
                                               executable, and on the PATH beside the plugin";

/// `pull`.
pub(super) const PULL: &str = "\
Examples:
  windlass pull hello-7                        into hello-7.tar, an OCI image archive
  windlass pull hello#7 --load                 into the Docker of this machine
  windlass pull hello-7 -o app.tar             the same command goes on with a file that was cut off";

/// `open`.
pub(super) const OPEN: &str = "\
Examples:
  windlass open hello-7                        a shell in what the steps left
  windlass open hello-7 --cmd 'make test'      one command, with its own exit code
  windlass open hello-7 --own-cmd --publish 8080:80";
