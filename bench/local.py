#!/usr/bin/env python3
"""Measures runs on Docker, without a cluster, against `docker run`, and how long the program takes to start.

Needs Docker (DOCKER_HOST) and a release build: `make binaries`. BOX names an image that is there. What is compared is
measured in turns, in one run, as machines are never quiet. See README.md.
"""
import argparse, os, pathlib, statistics, subprocess, tempfile, time

BOX = os.environ.get("BOX", "busybox:local")
BINARIES = pathlib.Path(__file__).resolve().parent.parent / "target/image"
STEPS = 10
PIPELINE = f"""apiVersion: windlass.dev/v1alpha1
kind: Pipeline
metadata: {{name: build}}
spec:
  box: {{image: '{BOX}'}}
  steps:
""" + "".join(f"  - {{name: s{i}, script: 'true'}}\n" for i in range(STEPS))


def seconds(command, directory=None):
    """How long a command takes that has to pass."""
    began = time.monotonic()
    done = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    took = time.monotonic() - began
    assert done.returncode == 0, done.stdout
    return took


def row(what, target, measured, met, values):
    print(f"| {what} | {target} | {measured} | {'yes' if met else '**no**'} | {values} |")


def build(options, windlass):
    script = "; ".join(["true"] * STEPS)
    with tempfile.TemporaryDirectory() as project:
        (pathlib.Path(project) / "windlass.yaml").write_text(PIPELINE)
        sides = ([str(windlass), "build"], ["docker", "run", "--rm", BOX, "sh", "-c", script])
        for side in sides:
            seconds(side, project)  # not counted: what is read for the first time
        ours, dockers = zip(*[[seconds(side, project) for side in sides] for _ in range(options.rounds)])
    ratio = statistics.median(ours) / statistics.median(dockers)
    listed = lambda times: ", ".join(f"{time:.2f}" for time in times)
    row(f"`windlass build` of {STEPS} no-op steps, against `docker run --rm` of the same in one shell", "≤ 1.30 ×",
        f"{ratio:.2f} ×", ratio <= 1.3, f"{listed(ours)} s against {listed(dockers)} s")


def start(options, windlass):
    for flag in ("--version", "--help"):
        times = [seconds([str(windlass), flag]) * 1000 for _ in range(options.rounds * 5)]
        middle = statistics.median(times)
        row(f"`windlass {flag}`, median of {len(times)}", "≤ 20 ms", f"{middle:.1f} ms", middle <= 20,
            f"largest {max(times):.1f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", help="build, start; default: both")
    parser.add_argument("--rounds", type=int, default=15, help="of each side; default: 15")
    parser.add_argument("--windlass", type=pathlib.Path, default=BINARIES / "windlass", help="with its runner beside it")
    options = parser.parse_args()
    print("| what | target | measured | met | values |\n|---|---|---|---|---|")
    for measure in (build, start):
        if not options.what or measure.__name__ in options.what:
            measure(options, options.windlass.resolve())


main()
