#!/usr/bin/env python3
"""Measures Windlass against a bare pod and against `docker commit && docker push`.

Needs a cluster with Windlass in it (KUBECONFIG), kubectl, and for pushes the node's own Docker Engine and
a registry (DOCKER_HOST, WINDLASS_REGISTRY). `writes` reads the API server's audit log (WINDLASS_CLUSTER_LOGS).
What is compared is measured in turns, in one run, as machines are never quiet. See README.md.
"""
import argparse, contextlib, http.client, json, os, pathlib, re, secrets, shutil, statistics, subprocess, sys, time

GROUP = "/apis/windlass.dev/v1alpha1"
BOX = "busybox:local"
MIB = 1 << 20
PATIENCE_S = 900
SETTLE_S = 2
rows = []


class Cluster:
    """The API server behind `kubectl proxy`, and a namespace that goes with the measurement."""

    def __enter__(self):
        self.proxy = subprocess.Popen(["kubectl", "proxy", "--port=0"], stdout=subprocess.PIPE, text=True)
        self.port = int(re.search(r":(\d+)", self.proxy.stdout.readline())[1])
        self.namespace = f"bench-{secrets.token_hex(3)}"
        self.send("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        account = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default"
        wait_until("the namespace has a service account", lambda: self.ask("GET", account)[0] == 200)
        return self

    def __exit__(self, *_):
        self.ask("DELETE", f"/api/v1/namespaces/{self.namespace}")
        self.proxy.terminate()

    def ask(self, method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def send(self, method, path, body=None):
        status, answer = self.ask(method, path, body)
        assert status < 300, f"{method} {path}: {status} {answer[:500]}"
        return json.loads(answer)

    def path(self, kind):
        return f"{'/api/v1' if kind == 'pods' else GROUP}/namespaces/{self.namespace}/{kind}"

    def until(self, kind, name, made, ended):
        """Creates an object and waits until `ended`, on a watch opened before. Gives it and the seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        connection.request("GET", f"{self.path(kind)}?watch=1&fieldSelector=metadata.name={name}")
        # The answer's head comes with the first event only.
        began = time.monotonic()
        self.send("POST", self.path(kind), made)
        for line in connection.getresponse():
            found = json.loads(line)["object"]
            if ended(found):
                return found, time.monotonic() - began
        raise SystemExit(f"{kind}/{name} did not end")

    def forget(self, kind, name, pod):
        """Deletes an object, and waits until its pod is gone: it must not slow the next one down."""
        self.send("DELETE", f"{self.path(kind)}/{name}?gracePeriodSeconds=0")
        wait_until(f"pod {pod} is gone", lambda: self.ask("GET", f"{self.path('pods')}/{pod}")[0] == 404)

    def pod(self, name, script):
        container = {"name": "c", "image": BOX, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script]}
        spec = {"restartPolicy": "Never", "containers": [container]}
        pod = {"metadata": {"name": name}, "spec": spec}
        found, seconds = self.until(
            "pods", name, pod, lambda p: p.get("status", {}).get("phase") in ("Succeeded", "Failed"))
        assert found["status"]["phase"] == "Succeeded", found["status"]
        return seconds

    def run(self, name, pipeline):
        """Runs a pipeline to its end. Gives the status and the seconds."""
        run = {"apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
               "metadata": {"name": name}, "spec": {"pipelineSpec": pipeline}}
        found, seconds = self.until("pipelineruns", name, run, lambda r: outcome(r) in ("True", "False"))
        assert outcome(found) == "True", json.dumps(found["status"].get("conditions"), indent=1)
        return found["status"], seconds

    def journal(self, run):
        """The runner's own records, which the run's last step printed: times in milliseconds."""
        path = f"{self.path('pods')}/{run}-1/log?container=box"
        wait_until("there is a log", lambda: self.ask("GET", path)[0] == 200)
        # Records are JSON objects; what the runner says for people is not.
        lines = self.ask("GET", path)[1].decode(errors="replace").splitlines()
        records = [json.loads(at[0]) for line in lines if (at := re.search(r'\{"e":.*\}', line))]
        times = {(r["e"], r["step"]): r["at"] for r in records if "step" in r}
        assert times, lines
        return times


def outcome(run):
    conditions = run.get("status", {}).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == "Succeeded"), "Unknown")


def wait_until(what, met):
    end = time.monotonic() + PATIENCE_S
    while not met():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.05)


def steps(count, script="true"):
    return [{"name": f"s{i}", "script": script} for i in range(1, count + 1)]


SHOW = {"name": "show", "script": "cat /dev/windlass/out/journal"}


def row(what, target, measured, met, values=""):
    rows.append(f"| {what} | {target} | {measured} | {'yes' if met else '**no**'} | {values} |")
    print(rows[-1], flush=True)


def listed(values, digits=2):
    return ", ".join(f"{value:.{digits}f}" for value in values)


def latency(options):
    """Ten steps that do nothing, from create to the terminal condition, against a pod that does the same."""
    bare, ours = [], []
    with Cluster() as cluster:
        for i in range(options.rounds + 1):
            seconds = cluster.pod(f"bare-{i}", "\n".join(["true"] * 10))
            cluster.forget("pods", f"bare-{i}", f"bare-{i}")
            status, mine = cluster.run(f"ten-{i}", {"box": {"image": BOX}, "steps": steps(10)})
            cluster.forget("pipelineruns", f"ten-{i}", status["podName"])
            # The first of each warms up.
            if i:
                bare.append(seconds)
                ours.append(mine)
    ratio = statistics.median(ours) / statistics.median(bare)
    row("ten no-op steps, create to terminal condition, against a bare pod", "≤ 0.70 ×", f"{ratio:.2f} ×",
        ratio <= 0.7, f"{listed(ours)} s against {listed(bare)} s")


def handover(_options):
    """From the end of a step to the start of the next, and from start to start, by the runner's records."""
    with Cluster() as cluster:
        cluster.run("fifty", {"box": {"image": BOX}, "steps": [*steps(50), SHOW]})
        at = cluster.journal("fifty")
    gaps = [at["started", i + 1] - at["ended", i] for i in range(50)]
    whole = [at["started", i + 1] - at["started", i] for i in range(50)]
    row("hand-over between steps, end to start, median of 50", "≤ 10 ms", f"{statistics.median(gaps):.0f} ms",
        statistics.median(gaps) <= 10, f"largest {max(gaps)} ms")
    row("a whole step that does nothing, start to start, median of 50", "(≤ 10 ms)",
        f"{statistics.median(whole):.0f} ms", statistics.median(whole) <= 10, f"largest {max(whole)} ms")


# What a person does at an editor: five files saved, one after another, every two seconds. Within a second of each start
# it would look as if the code changed them, and it would be started less often.
EDITOR = """
(for round in $(seq 21); do
  sleep 2
  for file in a b c d e; do echo $round > $WERCKER_SOURCE_DIR/$file; done
  echo "changed $(cut -d' ' -f1 /proc/uptime)"
done; sleep 1; echo all changed) &
"""


def reload(_options):
    """From the last change of a burst to the start of the watched code, by the box's own clock."""
    with Cluster() as cluster:
        serve = {"code": "echo \"began $(cut -d' ' -f1 /proc/uptime)\"; exec sleep 1000", "reload": True}
        watched = [{"name": "edit", "script": EDITOR}, {"name": "serve", "watch": serve}]
        cluster.send("POST", cluster.path("pipelineruns"), {
            "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun", "metadata": {"name": "watch"},
            "spec": {"pipelineSpec": {"box": {"image": BOX}, "steps": watched}}})
        log = lambda: cluster.ask("GET", f"{cluster.path('pods')}/watch-1/log?container=box")[1].decode()
        wait_until("all is changed", lambda: "all changed" in log())
        said = re.findall(r"^(changed|began) ([0-9.]+)$", log(), re.M)
        cluster.forget("pipelineruns", "watch", "watch-1")
    pairs = zip(said, said[1:])
    took = [1000 * (float(then) - float(at)) for (what, at), (next, then) in pairs if (what, next) == ("changed", "began")]
    assert len(took) == 21, said
    row("last change of a burst to the restart of watched code, median of 21", "≤ 300 ms",
        f"{statistics.median(took):.0f} ms", statistics.median(took) <= 300, f"largest {max(took):.0f} ms")


def writes(options):
    """Writes to the API server for a run with ten steps and a push, by who made them."""
    log = pathlib.Path(os.environ["WINDLASS_CLUSTER_LOGS"], "audit.jsonl")
    with Cluster() as cluster:
        size = log.stat().st_size
        cluster.pod("bare", "\n".join(["true"] * 10))
        time.sleep(5)
        bare = count(log, size, cluster.namespace)
        size = log.stat().st_size
        push = {"name": "push", "dockerPush": {"repository": f"{options.registry}/{cluster.namespace}/writes"}}
        cluster.run("writes", {"box": {"image": BOX}, "steps": [*steps(10), push]})
        # What the kubelet writes once it has noticed the end counts too.
        time.sleep(5)
        ours = count(log, size, cluster.namespace)
    own = sum(n for (user, _), n in ours.items() if user in ("windlass-agent", "windlass-controller"))
    total = sum(ours.values())
    detail = ", ".join(f"{user} {what} {n}" for (user, what), n in sorted(ours.items()))
    row("API writes of a run with ten steps and a push, by Windlass", "≤ 16", own, own <= 16)
    row("the same, by all", "≤ 32", total, total <= 32, f"bare pod: {sum(bare.values())}; {detail}")


def count(log, offset, namespace):
    found = {}
    with log.open() as lines:
        lines.seek(offset)
        for line in lines:
            event = json.loads(line)
            about = event.get("objectRef", {})
            if namespace not in (about.get("namespace"), about.get("name", "").removeprefix("build-numbers-")):
                continue
            what = "/".join(filter(None, [about["resource"], about.get("subresource")]))
            if what == "leases":
                continue
            key = event["user"]["username"].split(":")[-1], f"{event['verb']} {what}"
            found[key] = found.get(key, 0) + 1
    return found


def large(options):
    """A push of one large layer against docker itself."""
    with Cluster() as cluster, contextlib.ExitStack() as stack:
        compare(cluster, options, stack, f"a layer of {options.mib} MiB", BOX, options.mib)


def small(options):
    """A push of a small layer on a large base, which the registry has already, against docker itself."""
    base = f"{options.registry}/bench/base:{secrets.token_hex(3)}"
    with Cluster() as cluster, contextlib.ExitStack() as stack:
        stack.callback(forget_blobs, base.rsplit(":", 1)[0])
        raw_push(BOX, options.mib, base, stack.enter_context)
        compare(cluster, options, stack, f"1 MiB on a base of {options.mib} MiB", base, 1)


def memory(options):
    """The agent's peak memory for one very large file and for very many small ones, with the search for secrets."""
    contents = {f"one file of {2 * options.mib} MiB": fill(2 * options.mib), "100,000 small files": many(100_000)}
    with Cluster() as cluster:
        add_secret(cluster)
        for i, (what, script) in enumerate(contents.items()):
            repository = f"{options.registry}/{cluster.namespace}/memory-{i}"
            seconds, peak = our_push(cluster, f"memory-{i}", BOX, script, repository, "Deny")
            forget_blobs(repository)
            assert peak, "the agent is not in /proc"
            row(f"the agent's peak memory (VmHWM) in a push of {what}", "≤ 64 MiB", f"{peak / 1024:.0f} MiB",
                peak <= 64 * 1024, f"the push took {seconds:.1f} s")


def many(count):
    """A layer of many small files, a thousand in each folder."""
    write = 'BEGIN { for (i = 0; i < n; i++) { f = "/bench-files/" int(i / 1000) "/" i; print i > f; close(f) } }'
    folders = f"for d in $(seq 0 {count // 1000 - 1}); do mkdir -p /bench-files/$d; done"
    return f"{folders}; awk -v n={count} '{write}'; sync"


def add_secret(cluster):
    """Something to look for in layers."""
    secret = {"metadata": {"name": "keys"}, "stringData": {"key": secrets.token_hex(20)}}
    cluster.send("POST", f"/api/v1/namespaces/{cluster.namespace}/secrets", secret)


def compare(cluster, options, pushed, what, box, mib):
    """Pushes in turns: docker's own, ours without and with the search for secrets."""
    add_secret(cluster)
    took, peak = {"raw": [], "Allow": [], "Deny": []}, 0
    for i in range(options.rounds):
        kinds = list(took)
        # Each follows each other one equally often, on an engine that has tidied up after the one before.
        for kind in kinds[i % 3:] + kinds[:i % 3]:
            time.sleep(SETTLE_S)
            repository = f"{options.registry}/{cluster.namespace}/{kind.lower()}-{i}"
            if kind == "raw":
                with contextlib.ExitStack() as gone:
                    seconds = raw_push(box, mib, f"{repository}:1", gone.enter_context)
            else:
                seconds, memory = our_push(cluster, f"{kind.lower()}-{i}", box, fill(mib), repository, kind)
                peak = max(peak, memory)
            took[kind].append(seconds)
            if mib > 1:
                forget_blobs(repository)
            else:
                # Docker takes the base over from where it pushed it last: that must be there still.
                pushed.callback(forget_blobs, repository)
            print(f"  {what}, {kind}: {seconds:.2f} s", file=sys.stderr, flush=True)
    raw = statistics.median(took["raw"])
    for kind, limit in [("Allow", 1.15), ("Deny", 1.4)]:
        ratio = statistics.median(took[kind]) / raw
        row(f"push of {what}, `secretsInImage: {kind}`, against docker", f"≤ {limit} ×", f"{ratio:.2f} ×",
            ratio <= limit, f"{listed(took[kind])} s against {listed(took['raw'])} s")
    if peak:
        row("the agent's peak memory (VmHWM) meanwhile", "≤ 64 MiB", f"{peak / 1024:.0f} MiB", peak <= 64 * 1024)


def fill(mib):
    """A layer that cannot be packed; written out, so that neither side pays for the other's dirty pages."""
    return f"head -c {mib * MIB} /dev/urandom > /bench-data; sync"


@contextlib.contextmanager
def removed(*command):
    try:
        yield
    finally:
        subprocess.run(["docker", *command], stdout=subprocess.DEVNULL)


def raw_push(image, mib, target, keep):
    """Seconds of `docker commit && docker push` of a running container."""
    script = f"{fill(mib)}; echo filled; sleep 86400"
    container = tool("docker", "run", "-d", image, "sh", "-c", script)
    keep(removed("rmi", "-f", target))
    keep(removed("rm", "-f", container))
    wait_until("the container is filled", lambda: "filled" in tool("docker", "logs", container))
    began = time.monotonic()
    tool("docker", "commit", container, target)
    tool("docker", "push", "-q", target)
    return time.monotonic() - began


def our_push(cluster, name, image, script, repository, policy):
    """Seconds of the push step by the runner's records, and the agent's peak memory in KiB (0: not known)."""
    agent = agent_process()
    if agent:
        (agent / "clear_refs").write_text("5")
    step = {"name": "push", "dockerPush": {"repository": repository, "tag": "1", "buildNumberTag": False,
                                           "secretsInImage": policy}}
    env = [{"name": "KEY", "secretKeyRef": {"name": "keys", "key": "key"}}]
    pipeline = {"box": {"image": image, "imagePullPolicy": "IfNotPresent"}, "env": env,
                "steps": [{"name": "fill", "script": script}, step, SHOW]}
    status, _ = cluster.run(name, pipeline)
    at = cluster.journal(name)
    cluster.forget("pipelineruns", name, status["podName"])
    assert agent == agent_process(), "the agent was replaced in the middle of a push"
    peak = re.search(r"VmHWM:\s+(\d+)", (agent / "status").read_text())[1] if agent else 0
    return (at["ended", 1] - at["started", 1]) / 1000, int(peak)


def agent_process():
    """The agent in /proc, if the node is this machine."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cmdline").read_bytes().split(b"\0")[:2] == [b"/usr/local/bin/windlass", b"agent"]:
                return process
    return None


def forget_blobs(repository):
    """Takes what was pushed out of the test cluster's registry, which keeps it in files. Elsewhere it stays."""
    host, path = repository.split("/", 1)
    data = pathlib.Path(os.environ.get("WINDLASS_CLUSTER_LOGS", "/none")).parent / "registry/docker/registry/v2"
    for link in data.glob(f"repositories/{path}/_layers/sha256/*"):
        blob = data / f"blobs/sha256/{link.name[:2]}/{link.name}/data"
        shared = list(data.glob(f"repositories/*/**/_layers/sha256/{link.name}"))
        if blob.exists() and shared == [link]:
            shutil.rmtree(blob.parent)
    shutil.rmtree(data / "repositories" / path, ignore_errors=True)


def tool(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help="latency, handover, reload, writes, small, large, memory; default: all")
    parser.add_argument("--rounds", type=int, help="of each side; default: 7, for large 3")
    parser.add_argument("--mib", type=int, default=1024, help="of the large layer, twice that for memory; default: 1024")
    parser.add_argument("--registry", default=os.environ.get("WINDLASS_REGISTRY"), help="open, as the node names it")
    options = parser.parse_args()
    rounds = options.rounds
    for measure in (latency, handover, reload, writes, small, large, memory):
        if not options.what or measure.__name__ in options.what:
            options.rounds = rounds or (3 if measure is large else 7)
            measure(options)
    print("\n| what | target | measured | met | values |\n|---|---|---|---|---|", *rows, sep="\n")


main()
