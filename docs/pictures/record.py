#!/usr/bin/env python3
"""Records terminal sessions of the real program, and draws pictures of them.

    docs/pictures/record.py                 records build.cast and dev.cast anew, and draws the pictures
    docs/pictures/record.py --draw          only draws them of the recordings that are there
    docs/pictures/record.py --check         exit 1 if the pictures are not those of the recordings
    docs/pictures/record.py --compare DIR   exit 1 if the recordings in DIR show other lines than those here

Recordings are asciicast v2 (`asciinema play FILE`), pictures SVG. Needs Python 3.9; to record also Docker, and `windlass`
(WINDLASS, else target/release/windlass) with its runner. BOX names the image of the box, which should be there already.
"""
import argparse, fcntl, html, json, os, pathlib, pty, re, select, signal, struct, sys, tempfile, termios, time

HERE = pathlib.Path(__file__).resolve().parent
COLUMNS, ROWS = 84, 24
PATIENCE_S = 60
BOX = os.environ.get("BOX", "busybox:1.37")
CLEAR_TO_END, UP, GRAPHIC = "J", "A", "m"

PIPELINES = """\
apiVersion: windlass.dev/v1alpha1
kind: Pipeline
metadata: {name: build}
spec:
  box: {image: "%(box)s"}
  steps:
  - {name: compile, script: "echo compiling hello.c; sleep 1; echo hello > hello"}
  - {name: test, script: "echo 3 tests; sleep 0.5; echo 3 passed"}
  - {name: pack, script: "tar -cf hello.tar hello; echo packed hello.tar"}
  afterSteps:
  - {name: tell, script: 'echo "the run has $WERCKER_RESULT"'}
---
apiVersion: windlass.dev/v1alpha1
kind: Pipeline
metadata: {name: dev}
spec:
  box: {image: "%(box)s"}
  steps:
  - {name: install, script: "echo installed 12 packages"}
  - name: serve
    watch:
      code: "echo listening on :8080; exec httpd -f -p 8080"
      reload: true
""" % {"box": BOX}

# What a person does: waits for a text, saves a file, types keys, looks (the picture).
SESSIONS = {
    "build": (["build"], [("wait", "succeeded in"), ("end", 0), ("look", "build")]),
    "dev": (["dev", "--publish", "8080"], [
        ("wait", "listening on :8080"), ("pause", 1.5), ("save", "index.html"), ("wait", "starts again"),
        ("wait", "listening on :8080"), ("pause", 1.0), ("look", "dev"), ("type", "\x03"), ("wait", "succeeded in"),
        ("end", 0)]),
}


class Screen:
    """The lines of a terminal and their colours: what Windlass writes, and nothing else."""

    def __init__(self):
        self.lines, self.row, self.column, self.style, self.left = [[]], 0, 0, (), ""

    def feed(self, text):
        text, self.left = self.left + text, ""
        at = 0
        while at < len(text):
            if text[at] == "\x1b":
                found = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])").match(text, at)
                if not found:
                    self.left = text[at:]
                    return
                self.control(found[1], found[2])
                at = found.end()
                continue
            self.put(text[at])
            at += 1

    def control(self, numbers, what):
        first = int(numbers) if numbers.isdigit() else None
        if what == UP:
            self.row = max(0, self.row - (first or 1))
        elif what == CLEAR_TO_END:
            del self.lines[self.row + 1:]
            del self.lines[self.row][self.column:]
        elif what == GRAPHIC:
            codes = [int(code or 0) for code in numbers.split(";")]
            colour = [code for code in codes if 30 <= code <= 37 or code in (1, 2)]
            self.style = tuple(colour)
        else:
            raise SystemExit(f"the program writes an escape that this does not know: {numbers}{what}")

    def put(self, char):
        if char == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append([])
        elif char == "\r":
            self.column = 0
            return
        else:
            line = self.lines[self.row]
            line.extend([(" ", ())] * (self.column - len(line)))
            line[self.column:self.column + 1] = [(char, self.style)]
            self.column += 1
            return
        # A terminal goes to the first column by the carriage return that its driver adds.

    def text(self):
        return ["".join(char for char, _ in line).rstrip() for line in self.lines]


def record(name, program, project, out):
    """Runs a session in a terminal, and writes what it printed."""
    arguments, deeds = SESSIONS[name]
    command = "windlass " + " ".join(arguments)
    head = {"version": 2, "width": COLUMNS, "height": ROWS, "title": command, "env": {"TERM": "xterm-256color"}}
    events = [[0.0, "o", f"$ {command}\r\n"]]
    environment = {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8", "TZ": "UTC"}
    for unwanted in ("CI", "NO_COLOR", "KUBECONFIG", "WINDLASS_PROGRESS"):
        environment.pop(unwanted, None)
    began = time.monotonic()
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(project)
        os.execve(program, ["windlass", *arguments], environment)
    try:
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        os.kill(pid, signal.SIGWINCH)
        play(deeds, terminal, pid, events, began, project)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    lines = [json.dumps(head), *(json.dumps(event, ensure_ascii=False) for event in events)]
    (out / f"{name}.cast").write_text("\n".join(lines) + "\n")


def play(deeds, terminal, pid, events, began, project):
    seen = ""
    def read(seconds):
        """What was printed meanwhile; None once the terminal is closed."""
        if not select.select([terminal], [], [], seconds)[0]:
            return ""
        try:
            bytes_ = os.read(terminal, 65536)
        except OSError:
            return None
        while True:
            try:
                text = bytes_.decode()
                break
            except UnicodeDecodeError:
                bytes_ += os.read(terminal, 1)
        events.append([round(time.monotonic() - began, 3), "o", text])
        return text
    for what, argument in deeds:
        until = time.monotonic() + PATIENCE_S
        if what == "wait":
            while argument not in seen:
                text = read(1)
                if text is None or time.monotonic() > until:
                    raise SystemExit(f"it does not say {argument!r}: {seen}")
                seen += text
            seen = seen.split(argument, 1)[1]
        elif what == "pause":
            until = time.monotonic() + argument
            while time.monotonic() < until:
                seen += read(max(0, until - time.monotonic())) or ""
        elif what == "save":
            (project / argument).write_text("<h1>hello again</h1>\n")
        elif what == "type":
            os.write(terminal, argument.encode())
        elif what == "look":
            events.append([round(time.monotonic() - began, 3), "m", argument])
        elif what == "end":
            while read(1) is not None:
                if time.monotonic() > until:
                    raise SystemExit(f"it does not end: {seen}")
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            if code != argument:
                raise SystemExit(f"exit code {code}: {seen}")


def cast(path):
    """The events of a recording."""
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


def looks(path):
    """Each moment of a recording that has a picture: its name, and the screen."""
    screen = Screen()
    for _, kind, text in cast(path):
        if kind == "o":
            screen.feed(text)
        else:
            yield text, [list(line) for line in screen.lines]


COLOURS = {31: "#f07178", 32: "#8fd19e", 33: "#e6c06b", 36: "#6cc7d9", 2: "#8a919e"}
TEXT, PAPER, BAR = "#d7dae0", "#1d2026", "#2a2e37"
CHAR, LINE, EDGE, TOP = 8.4, 18, 14, 34


def draw(title, lines):
    """An SVG of a terminal's lines: the last of them, as many as it has rows."""
    while lines and not any(char != " " for char, _ in lines[-1]):
        lines = lines[:-1]
    lines = lines[-ROWS:]
    width, height = round(COLUMNS * CHAR + 2 * EDGE), TOP + LINE * len(lines) + EDGE
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{width}" height="{height}" rx="7" fill="{PAPER}"/>',
        f'<path d="M0 26V7a7 7 0 0 1 7-7H{width - 7}a7 7 0 0 1 7 7V26Z" fill="{BAR}"/>',
        *(f'<circle cx="{x}" cy="13" r="5" fill="{fill}"/>' for x, fill in ((16, "#f07178"), (33, "#e6c06b"), (50, "#8fd19e"))),
        f'<g font-family="ui-monospace,SFMono-Regular,Menlo,Consolas,\'DejaVu Sans Mono\',monospace" font-size="14" fill="{TEXT}" xml:space="preserve">',
    ]
    for row, line in enumerate(lines):
        y, column = TOP + LINE * row + 12, 0
        for style, text in runs(line):
            fill = next((COLOURS[code] for code in style if code in COLOURS), None)
            colour = f' fill="{fill}"' if fill else ""
            bold = ' font-weight="bold"' if 1 in style else ""
            words = text.strip()
            if words:
                # The length keeps columns below each other, whatever font there is.
                x, length = EDGE + (column + len(text) - len(text.lstrip())) * CHAR, len(words) * CHAR
                out.append(f'<text x="{x:.1f}" y="{y}" textLength="{length:.1f}"{colour}{bold}>{html.escape(words)}</text>')
            column += len(text)
    return "\n".join([*out, "</g>", "</svg>"]) + "\n"


def runs(line):
    """Pieces of a line that look the same."""
    pieces = []
    for char, style in line:
        if pieces and pieces[-1][0] == style:
            pieces[-1][1] += char
        else:
            pieces.append([style, char])
    return pieces


def pictures(folder):
    for path in sorted(folder.glob("*.cast")):
        title = json.loads(path.read_text().splitlines()[0])["title"]
        for name, lines in looks(path):
            yield folder / f"{name}.svg", draw(title, lines)


# What differs from one run to the next, and what stands for it.
VARIES = [
    (r"\b(build|dev)-[a-z0-9]{5}\b", r"\1-NAME"), (r"\d\d:\d\d:\d\d", "CLOCK"), (r"(\d+h)?(\d+m)?\d+(\.\d+)?s\b", "TIME"),
    (r"[⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏]", "*"), (r" +", " ")]


def shape(path):
    """The lines that a session leaves on its terminal, without what varies."""
    screen = Screen()
    for _, kind, text in cast(path):
        if kind == "o":
            screen.feed(text)
    text = "\n".join(line for line in screen.text() if line)
    for pattern, stands in VARIES:
        text = re.sub(pattern, stands, text)
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draw", action="store_true", help="only draw the recordings that are there")
    parser.add_argument("--check", action="store_true", help="exit 1 if the pictures are not those of the recordings")
    parser.add_argument("--compare", type=pathlib.Path, metavar="DIR", help="exit 1 if DIR's recordings show other lines")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="where to; default: here")
    parser.add_argument("--port", default="8080", help="of this machine that is published; default: 8080")
    options = parser.parse_args()
    if options.check:
        stale = [path.name for path, picture in pictures(HERE) if not path.is_file() or path.read_text() != picture]
        sys.exit(f"stale, draw them anew: {', '.join(stale)}" if stale else 0)
    if options.compare:
        for name in SESSIONS:
            here, there = shape(HERE / f"{name}.cast"), shape(options.compare / f"{name}.cast")
            if here != there.replace(f"{options.port}:8080", "8080").replace(options.port, "8080"):
                sys.exit(f"{name} shows other lines than recorded; record anew.\n--- recorded\n{here}\n--- now\n{there}")
        return
    options.out.mkdir(parents=True, exist_ok=True)
    if not options.draw:
        root = HERE.parent.parent
        program = os.environ.get("WINDLASS") or str(root / "target/release/windlass")
        SESSIONS["dev"][0][2] = options.port if options.port == "8080" else f"{options.port}:8080"
        for name in SESSIONS:
            with tempfile.TemporaryDirectory() as place:
                project = pathlib.Path(place) / "hello"
                project.mkdir()
                (project / "windlass.yaml").write_text(PIPELINES)
                (project / "index.html").write_text("<h1>hello</h1>\n")
                record(name, os.path.abspath(program), project, options.out)
    for path, picture in pictures(options.out):
        path.write_text(picture)


if __name__ == "__main__":
    main()
