#!/usr/bin/env python3
"""Compares a one-node Cairn with nginx and with webdis + redis, and one copy of each key with two, and prints the ratios.

Every server is pinned to one core and wrk to another. All servers stay up; each round measures every case once, so
that a machine which drifts drifts for all of them, and a case counts with the median of its rounds. Data lives under
target/bench, on the disk the checkout is on, because an fsync on a memory file system would compare nothing.

With `--against BINARY` it compares two builds of Cairn, case by case, and nothing else.

`make bench` calls this; RUNS, DURATION and WARMUP (seconds) come from the environment or as flags.
"""

import argparse
import http.client
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = ROOT / "target" / "bench"
SCRIPT = ROOT / "bench" / "keys.lua"
SERVER_CORE, LOAD_CORE = "0", "1"
CONNECTIONS = 32
VALUE_BYTES = 100
START_SECONDS = 30
STOP_SECONDS = 15
PRELOAD_SECONDS = 120
SETTLE_SECONDS = 10
PACKAGES = {
    "wrk": "wrk",
    "nginx": "nginx",
    "redis-server": "redis-server",
    "webdis": "webdis",
    "taskset": "util-linux",
}

# The body has the size of a cached value, so that the floor moves as many bytes as a hit does.
NGINX_CONFIG = """
worker_processes 1;
{user}
daemon off;
pid {dir}/nginx.pid;
error_log {dir}/nginx.error.log warn;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    {http}
}}
"""
NGINX_FLOOR = 'server {{ listen 127.0.0.1:{port}; location / {{ return 200 "{body}"; }} }}'
NGINX_PROXY = """
    upstream node {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://node; proxy_http_version 1.1; proxy_set_header Connection ""; }}
    }}
"""
# Snapshots and log rewriting are off: they would run in the background of whatever case comes next.
REDIS_CONFIG = """
bind 127.0.0.1
port {port}
dir {dir}
save ""
appendonly yes
appendfsync {fsync}
auto-aof-rewrite-percentage 0
"""


class BenchError(Exception):
    """What stops the comparison, in a sentence for whoever ran it."""


@dataclass
class Case:
    """One thing to measure: requests of one kind sent to one server."""

    name: str
    group: str
    port: int
    method: str = "GET"
    prefix: str = "/keys/"
    suffix: str = ""
    ours: bool = False
    runs: list = field(default_factory=list)
    server_cpu: list = field(default_factory=list)
    p50_us: list = field(default_factory=list)
    p99_us: list = field(default_factory=list)

    @property
    def rate(self):
        return statistics.median(self.runs)

    @property
    def rate_per_cpu(self):
        """Requests per second of processor time: what a core could do that neither wrk nor a neighbour held up."""
        return statistics.median(rate / cpu for rate, cpu in zip(self.runs, self.server_cpu))


@dataclass
class Ratio:
    """One line of performance.md: a case of ours over a peer's, and what it should reach."""

    name: str
    case: str
    peer: str
    target: float


GET_FLOOR, GET_WEBDIS, GET_PROXY = "nginx return 200", "webdis + redis GET", "nginx → node GET"
GET_NODE, GET_MASTER = "Cairn node GET", "Cairn master GET"
PUT_MEMORY_MASTER, PUT_MEMORY_PROXY = "Cairn master PUT memory", "nginx → node PUT memory"
PUT_DISK_NODE, PUT_DISK_MASTER = "Cairn node PUT disk", "Cairn master PUT disk"
PUT_DISK_PROXY, PUT_EVERYSEC = "nginx → node PUT disk", "webdis + redis PUT everysec"
PUT_FSYNC_NODE, PUT_FSYNC_MASTER = "Cairn node PUT fsync", "Cairn master PUT fsync"
PUT_ALWAYS = "webdis + redis PUT always"
# The same two nodes and their master, with one copy of each key and with two.
GET_ONE, GET_TWO = "Cairn GET, one copy", "Cairn GET, two copies"
PUT_MEMORY_ONE, PUT_MEMORY_TWO = "Cairn PUT memory, one copy", "Cairn PUT memory, two copies"
PUT_DISK_ONE, PUT_DISK_TWO = "Cairn PUT disk, one copy", "Cairn PUT disk, two copies"

RATIOS = [
    Ratio("GET, node / nginx return 200", GET_NODE, GET_FLOOR, 0.9),
    Ratio("GET, node / webdis + redis", GET_NODE, GET_WEBDIS, 2.5),
    Ratio("GET, master / nginx → node", GET_MASTER, GET_PROXY, 1.5),
    Ratio("PUT memory, master / nginx → node", PUT_MEMORY_MASTER, PUT_MEMORY_PROXY, 1.3),
    Ratio("PUT disk, master / nginx → node", PUT_DISK_MASTER, PUT_DISK_PROXY, 1.3),
    Ratio("PUT disk, node / webdis + redis everysec", PUT_DISK_NODE, PUT_EVERYSEC, 1.0),
    Ratio("PUT fsync, node / webdis + redis always", PUT_FSYNC_NODE, PUT_ALWAYS, 1.0),
    Ratio("GET, two copies / one", GET_TWO, GET_ONE, 0.95),
    Ratio("PUT memory, two copies / one", PUT_MEMORY_TWO, PUT_MEMORY_ONE, 0.5),
    Ratio("PUT disk, two copies / one", PUT_DISK_TWO, PUT_DISK_ONE, 0.5),
]

# Before the name of each case of the other build; what counts as no slower.
OTHER, NO_SLOWER = "other build: ", 0.95


# Processes ---------------------------------------------------------------------------------------------------------


class Servers:
    """The processes of one comparison; leaving the `with` block stops every one of them."""

    def __init__(self, directory):
        self.directory = directory
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Stopping is bounded; a second Ctrl-C must not leave half of them behind.
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        for _, process in self.running:
            process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for name, process in self.running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                print(f"{name} did not stop within {STOP_SECONDS} s; killed", file=sys.stderr)
            # Each server leads a group of its own; what it left behind goes with it.
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()

    def room(self, name):
        """A directory for one server's files."""
        path = self.directory / name
        path.mkdir()
        return path

    def start(self, name, command, ready, environment=None):
        """Starts a pinned server and waits until `ready()` holds."""
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["taskset", "-c", SERVER_CORE, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | (environment or {}),
                start_new_session=True,
            )
        self.running.append((name, process))
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            if process.poll() is not None:
                raise BenchError(f"{name} stopped with status {process.returncode}:\n{tail(log)}")
            if time.monotonic() > deadline:
                raise BenchError(f"{name} was not ready within {START_SECONDS} s:\n{tail(log)}")
            time.sleep(0.05)

    def settle(self):
        """Waits until the servers have finished what the last case left them to do (checkpoints, log flushes)."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(0.25)
            if self.cpu_seconds() - before < 0.02:
                return

    def cpu_seconds(self):
        """Processor time that all servers have used so far, children included."""
        groups = {process.pid for _, process in self.running}
        ticks = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it ended between the listing and the reading
                continue
            if int(fields[2]) in groups:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def tail(log):
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


def find_program(name):
    # Debian keeps nginx where only root's PATH looks.
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path)


def check_requirements(arguments):
    missing = sorted({package for program, package in PACKAGES.items() if not find_program(program)})
    if missing:
        raise BenchError(f"missing Debian packages: {' '.join(missing)} (apt-get install {' '.join(missing)})")
    if not {int(SERVER_CORE), int(LOAD_CORE)} <= os.sched_getaffinity(0):
        raise BenchError("needs processor cores 0 and 1: one for the servers, one for the load")
    for binary in () if arguments.peers_only else filter(None, (arguments.cairn, arguments.against)):
        if not os.access(binary, os.X_OK):
            raise BenchError(f"{binary} is missing: cargo build --release, or `make bench`")


def is_free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listens(port):
    return lambda: not is_free(port)


def free_port(*offsets):
    """A free port whose neighbours at these distances are free, too."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        wanted = [first, *(first + offset for offset in offsets)]
        if max(wanted) < 65536 and all(is_free(port) for port in wanted):
            return first
    raise BenchError("found no free ports in 100 attempts")


def fetch(port, path):
    """Status and body of one GET, or None as long as nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def answers(port, path):
    return lambda: (fetch(port, path) or (0,))[0] == 200


# Servers -----------------------------------------------------------------------------------------------------------


def start_nginx(servers, name, template, path, **values):
    port = free_port()
    room = servers.room(name)
    # Started by root, nginx would drop to a user who cannot enter the temporary directory.
    user = "user root;" if os.geteuid() == 0 else ""
    config = room / "nginx.conf"
    config.write_text(NGINX_CONFIG.format(dir=room, user=user, http=template.format(port=port, **values)))
    command = [find_program("nginx"), "-p", room, "-e", room / "nginx.error.log", "-c", config]
    servers.start(name, command, answers(port, path))
    return port


def start_webdis(servers, fsync):
    """A redis with an append-only file, and a webdis in front of it.

    On one core webdis is fastest with one thread and one connection: its default of 4 and 20 has half the rate, and a
    Unix socket between the two gains nothing.
    """
    room = servers.room(f"redis-{fsync}")
    config = room / "redis.conf"
    redis_port = free_port()
    config.write_text(REDIS_CONFIG.format(port=redis_port, dir=room, fsync=fsync))
    servers.start(f"redis-{fsync}", [find_program("redis-server"), config], listens(redis_port))
    port = free_port()
    settings = {
        "redis_host": "127.0.0.1",
        "redis_port": redis_port,
        "http_host": "127.0.0.1",
        "http_port": port,
        "threads": 1,
        "pool_size": 1,
        "daemonize": False,
        "database": 0,
        "verbosity": 0,
        "logfile": str(room / "webdis.log"),
    }
    config = room / "webdis.json"
    config.write_text(json.dumps(settings))
    servers.start(f"webdis-{fsync}", [find_program("webdis"), config], answers(port, "/PING"))
    return port


def start_cairn(servers, binary, name, nodes, copies):
    """Master and nodes in one process; the first node is on the port after the master's."""
    port = free_port(*range(1, nodes + 1), *range(1001, 1001 + nodes))
    room = servers.room(name)
    command = [
        binary, "dev", "--nodes", nodes, "--listen", f"127.0.0.1:{port}", "--data-dir", room, "--no-object-store",
    ]
    environment = {
        "LRU_SIZE": "1000000", "WORKERS": "1", "RATE_LIMIT": "0", "LOG_LEVEL": "warn", "REPLICATION_FACTOR": str(copies),
    }

    def ready():
        status, stats = fetch(port, "/stats") or (0, b"")
        return status == 200 and answers(port, "/health/ready")() and has_all_copies(json.loads(stats))

    servers.start(name, command, ready, environment)
    return port, port + 1


def has_all_copies(stats):
    return stats["partitions_under_replicated"] == 0


def start_peers(servers):
    body = "x" * VALUE_BYTES
    floor = start_nginx(servers, "nginx-floor", NGINX_FLOOR, "/", body=body)
    everysec = start_webdis(servers, "everysec")
    always = start_webdis(servers, "always")
    cases = [
        Case(GET_FLOOR, "GET", floor),
        # `.txt` is the value alone; webdis's JSON around it would be work that nobody else does.
        Case(GET_WEBDIS, "GET", everysec, prefix="/GET/", suffix=".txt"),
        Case(PUT_EVERYSEC, "PUT disk", everysec, "PUT", "/SET/"),
        Case(PUT_ALWAYS, "PUT fsync", always, "PUT", "/SET/"),
    ]
    return floor, cases


def proxy_cases(proxy):
    return [
        Case(GET_PROXY, "GET", proxy),
        Case(PUT_MEMORY_PROXY, "PUT memory", proxy, "PUT", suffix="?durability=memory"),
        Case(PUT_DISK_PROXY, "PUT disk", proxy, "PUT", suffix="?durability=disk"),
    ]


def cairn_cases(master, node):
    def put(name, port, durability):
        return Case(name, f"PUT {durability}", port, "PUT", suffix=f"?durability={durability}", ours=True)

    return [
        Case(GET_NODE, "GET", node, ours=True),
        Case(GET_MASTER, "GET", master, ours=True),
        put(PUT_MEMORY_MASTER, master, "memory"),
        put(PUT_DISK_NODE, node, "disk"),
        put(PUT_DISK_MASTER, master, "disk"),
        put(PUT_FSYNC_NODE, node, "fsync"),
        put(PUT_FSYNC_MASTER, master, "fsync"),
    ]


def copies_cases(port, get, put_memory, put_disk):
    return [
        Case(get, "GET", port, ours=True),
        Case(put_memory, "PUT memory", port, "PUT", suffix="?durability=memory", ours=True),
        Case(put_disk, "PUT disk", port, "PUT", suffix="?durability=disk", ours=True),
    ]


def start_build(servers, binary, name):
    """The three clusters of one build: its cases, and the port of the first one's node."""
    master, node = start_cairn(servers, binary, name, 1, 1)
    cases = cairn_cases(master, node)
    one, _ = start_cairn(servers, binary, f"{name}-one-copy", 2, 1)
    cases += copies_cases(one, GET_ONE, PUT_MEMORY_ONE, PUT_DISK_ONE)
    two, _ = start_cairn(servers, binary, f"{name}-two-copies", 2, 2)
    cases += copies_cases(two, GET_TWO, PUT_MEMORY_TWO, PUT_DISK_TWO)
    return cases, node


def start_all(servers, arguments):
    """Every server, and the cases in the order of a round: peers and ours, or two builds, by turns."""
    if arguments.against:
        ours, _ = start_build(servers, arguments.cairn, "cairn")
        others, _ = start_build(servers, arguments.against, "other")
        others = [replace(case, name=OTHER + case.name, ours=False) for case in others]
        return [case for pair in zip(ours, others) for case in pair]
    floor, cases = start_peers(servers)
    upstream, ready = floor, "/"
    if not arguments.peers_only:
        ours, upstream = start_build(servers, arguments.cairn, "cairn")
        cases += ours
        ready = "/health/live"
    cases += proxy_cases(start_nginx(servers, "nginx-proxy", NGINX_PROXY, ready, upstream=upstream))
    groups = ["GET", "PUT memory", "PUT disk", "PUT fsync"]
    return sorted(cases, key=lambda case: groups.index(case.group))


# Load --------------------------------------------------------------------------------------------------------------


def wrk_command(case, seconds, *mode):
    return [
        "taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(SCRIPT),
        f"http://127.0.0.1:{case.port}", "--", case.method, case.prefix, case.suffix, *mode,
    ]


def parse_result(case, output):
    lines = [line.removeprefix("RESULT ") for line in output.splitlines() if line.startswith("RESULT ")]
    if not lines:
        raise BenchError(f"{case.name}: wrk gave no result:\n{output}")
    result = json.loads(lines[0])
    if result["failed"] or not result["requests"]:
        raise BenchError(f"{case.name}: {result['failed']} of {result['requests']} requests failed")
    return result


def run_wrk(case, seconds):
    command = wrk_command(case, seconds)
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    return parse_result(case, done.stdout + done.stderr)


def preload(case):
    """Writes every key once. wrk cannot end early by itself: it says when it has been answered, and is interrupted."""
    command = wrk_command(case, PRELOAD_SECONDS, "preload")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            said = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    if said != "preloaded\n":
        raise BenchError(f"{case.name}: preloading took over {PRELOAD_SECONDS} s: {said}{errors}")
    parse_result(case, output)


def check_hit(case):
    """A GET that is fast because it finds nothing would be no hit."""
    for key in ("key:000000", "key:050000", "key:099999"):
        found = fetch(case.port, f"{case.prefix}{key}{case.suffix}")
        if found is None or found[0] != 200 or len(found[1]) != VALUE_BYTES:
            raise BenchError(f"{case.name}: {key} should be a value of {VALUE_BYTES} bytes, is {found}")


def measure(servers, cases, arguments):
    by_name = {case.name: case for case in cases}
    for name in (PUT_EVERYSEC, PUT_ALWAYS, PUT_DISK_NODE, PUT_DISK_ONE, PUT_DISK_TWO):
        for case in (by_name.get(name), by_name.get(OTHER + name)):
            if case:
                preload(case)
    for case in cases:
        if case.method == "GET":
            check_hit(case)
    for run in range(1, arguments.runs + 1):
        for case in cases:
            servers.settle()
            run_wrk(case, arguments.warmup)
            cpu_before = servers.cpu_seconds()
            result = run_wrk(case, arguments.duration)
            seconds = result["duration_us"] / 1e6
            case.runs.append(result["requests"] / seconds)
            case.server_cpu.append((servers.cpu_seconds() - cpu_before) / seconds)
            case.p50_us.append(result["p50_us"])
            case.p99_us.append(result["p99_us"])
            progress = f"  run {run}/{arguments.runs}  {case.name:<28} {case.runs[-1]:>9,.0f}/s"
            print(progress, file=sys.stderr, flush=True)


# Report ------------------------------------------------------------------------------------------------------------


RATIO_HEADER = ("ratio", "measured", "target", "verdict", "per CPU second")
CASE_HEADER = ("group", "case", "requests/s", "p50 ms", "p99 ms", "server CPU", "lowest–highest run")


def ratio_rows(cases):
    by_name = {case.name: case for case in cases}
    rows = []
    builds = [Ratio(f"{name}, this build / other", name, OTHER + name, NO_SLOWER) for name in by_name]
    for ratio in RATIOS + builds:
        if ratio.case in by_name and ratio.peer in by_name:
            ours, peer = by_name[ratio.case], by_name[ratio.peer]
            value, per_cpu = ours.rate / peer.rate, ours.rate_per_cpu / peer.rate_per_cpu
            verdict = "met" if value >= ratio.target else "missed"
            rows.append((ratio.name, f"{value:.2f}", f"≥ {ratio.target:g}", verdict, f"{per_cpu:.2f}"))
    return rows


def case_rows(cases):
    def milliseconds(samples):
        return f"{statistics.median(samples) / 1000:.2f}"

    return [
        (
            case.group,
            case.name,
            f"{case.rate:,.0f}",
            milliseconds(case.p50_us),
            milliseconds(case.p99_us),
            f"{statistics.median(case.server_cpu):.0%}",
            f"{min(case.runs):,.0f}–{max(case.runs):,.0f}",
        )
        for case in cases
    ]


def table(header, rows, numeric):
    """A Markdown table that is aligned in plain text too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row):
        cells = [cell.rjust(w) if i in numeric else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths))]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * (w + 1) + ":" if i in numeric else "-" * (w + 2) for i, w in enumerate(widths)]
    return "\n".join([line(header), f"|{'|'.join(rule)}|", *map(line, rows)])


def conditions(arguments):
    return (
        f"{CONNECTIONS} connections, {VALUE_BYTES}-byte values, 100,000 keys; servers on core {SERVER_CORE}, "
        f"wrk on core {LOAD_CORE}; median of {arguments.runs} runs of {arguments.duration} s.\n"
        "Latencies are those at the full rate. Where the server CPU is well below 100 %, wrk, the disk or\n"
        "another process was the limit, and the ratio per CPU second of the servers says more."
    )


def markdown(cases, arguments):
    parts = [conditions(arguments)]
    rows = ratio_rows(cases)
    if rows:
        parts.append(table(RATIO_HEADER, rows, {1, 2, 4}))
    parts.append(table(CASE_HEADER, case_rows(cases), {2, 3, 4, 5, 6}))
    return "\n\n".join(parts) + "\n"


def results(cases, arguments):
    return {
        "machine": {"processor": processor_name(), "cores": os.cpu_count(), "kernel": platform.release()},
        "runs": arguments.runs,
        "duration_seconds": arguments.duration,
        "cases": [asdict(case) | {"median": case.rate, "per_cpu": case.rate_per_cpu} for case in cases],
        "ratios": [dict(zip(RATIO_HEADER, row)) for row in ratio_rows(cases)],
    }


def processor_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def svg(cases, arguments):
    """Horizontal bars, ours in colour, with a gap between the groups."""
    left, width, bar, gap = 240, 900, 20, 14
    scale = (width - left - 90) / max(case.rate for case in cases)
    y, group, shapes = 56, None, []
    for case in cases:
        if case.group != group:
            y += gap if group else 0
            group = case.group
        colour = "#c2571a" if case.ours else "#8a94a3"
        length = case.rate * scale
        shapes += [
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(case.name)}</text>',
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{bar - 4}" rx="2" fill="{colour}"/>',
            f'<text x="{left + length + 6:.1f}" y="{y + 14}" fill="#555">{case.rate:,.0f}</text>',
        ]
        y += bar
    caption = f"{CONNECTIONS} connections, {VALUE_BYTES}-byte values, one server core, median of {arguments.runs} runs"
    size = f'viewBox="0 0 {width} {y + 16}"'
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{y + 16}" fill="#fff"/>',
        '<text x="16" y="24" font-size="16" font-weight="bold">Requests per second</text>',
        f'<text x="16" y="42" fill="#555">{escape(caption)}</text>',
        *shapes,
        "</svg>",
        "",
    ])


def report(cases, arguments):
    text = markdown(cases, arguments)
    (OUTPUT / "results.md").write_text(text)
    (OUTPUT / "results.json").write_text(json.dumps(results(cases, arguments), indent=2) + "\n")
    (OUTPUT / "results.svg").write_text(svg(cases, arguments))
    print(text)
    print(f"written to {OUTPUT.relative_to(ROOT)}/results.md, .json, .svg")


# Command -----------------------------------------------------------------------------------------------------------


SETTINGS = [
    ("runs", "3", "rounds"),
    ("duration", "5", "seconds measured, of each case in each round"),
    ("warmup", "1", "seconds before them that do not count"),
]
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def parse_arguments():
    def at_least_one(text):
        number = int(text)
        if number < 1:
            raise argparse.ArgumentTypeError("must be 1 or more")
        return number

    parser = argparse.ArgumentParser(description="Compares Cairn with nginx and with webdis + redis.")
    for name, default, meaning in SETTINGS:
        chosen = os.environ.get(name.upper(), default)
        text = f"{meaning} (or {name.upper()} in the environment, default {default})"
        parser.add_argument(f"--{name}", type=at_least_one, default=chosen, help=text)
    parser.add_argument("--cairn", type=Path, default=ROOT / "target/release/cairn", help="the binary to measure")
    parser.add_argument("--against", type=Path, metavar="BINARY", help="another build, to compare it with instead of peers")
    parser.add_argument("--peers-only", action="store_true", help="without Cairn; nginx forwards to nginx")
    return parser.parse_args()


def stop_on_signal(number, _frame):
    # As an exception, so that the servers are stopped on the way out.
    raise SystemExit(128 + number)


def main():
    arguments = parse_arguments()
    for number in SIGNALS:
        signal.signal(number, stop_on_signal)
    try:
        check_requirements(arguments)
        OUTPUT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="data-", dir=OUTPUT) as directory:
            with Servers(Path(directory)) as servers:
                cases = start_all(servers, arguments)
                measure(servers, cases, arguments)
        report(cases, arguments)
    except BenchError as error:
        sys.exit(f"bench: {error}")


if __name__ == "__main__":
    main()
