"""Time and memory of a trace against other counters, of whole commands against a bare start: `python -m tests.makers.bench`.

Everything in a report comes from one run. What is compared is timed side by side, in random order within each round: a
ratio is the median over rounds of (other / attnprof), or (command / its reference), taken round by round; the brackets hold
its quartiles. Tools that run the forward get fewer rounds than those that do not. Memory is what one call adds to a fresh
process: the highest resident size during the call minus the resident size just before it.
"""

from __future__ import annotations

import argparse
import compileall
import gc
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
OURS = "attnprof"
REAL = ("fvcore", "ptflops pytorch", "ptflops aten", "FlopCounterMode real")
META = ("FlopCounterMode meta",)
MODULES = ("nonlocal", "ccnet", "mhsa")
BARE_CLICK = "import click; click.command()(lambda: None)(standalone_mode=False)"
MIB = 2**20
TIME_NOTE = (
    "Module built, everything imported, one uncounted call of the same tool before each that counts. "
    "Ratio: other / attnprof, median over rounds [quartiles]."
)
MEMORY_NOTE = (
    "Growth: highest resident size during the call minus the size before it. Error: MACs found against the mechanism's formula."
)
COMMAND_NOTE = (
    "attnprof from a copy with its bytecode, as an installation has it. Wall time and highest resident size of the process "
    "(1 MB = 10^6 bytes; never read below the 20 MB of what starts them). Ratio: command / what it stands against, "
    "median over rounds [quartiles]."
)
CHILD_ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how often."""

    modules: tuple[str, ...] = MODULES
    channels: int = 512
    side: int = 97
    large: int = 1024
    n_real: int = 3
    n_meta: int = 40
    n_commands: int = 12
    n_warm: int = 1  # rounds of the commands before those that count


@dataclass(frozen=True)
class Aim:
    """A bound on a number: at least or at most."""

    bound: float
    least: bool = True

    def text(self) -> str:
        """'>= 100' or '<= 1.2'."""
        return f"{'≥' if self.least else '≤'} {self.bound:g}"

    def met(self, value: float) -> str:
        """'yes' or 'no'."""
        return "yes" if (value >= self.bound if self.least else value <= self.bound) else "no"


# In the child -----------------------------------------------------------------------------------------------------------------


def runner(tool: str, name: str, sizes: Sizes) -> Callable[[], int]:
    """A call of a tool on a module that is built already; it returns the MACs found. Raises what the tool's import raises."""
    import torch

    from attnprof import mechanisms
    from attnprof.profiling.counting.trace import trace_module
    from attnprof.records import Shape

    torch.set_num_threads(1)
    shape = Shape(1, sizes.channels, sizes.side, sizes.side)
    mechanism = mechanisms.load(name)
    specs = mechanisms.input_specs(mechanism, shape, {})
    device = "meta" if tool in (OURS, *META) else "cpu"
    with torch.device(device):
        module = mechanisms.build(mechanism, shape, {}).eval()
        x = torch.zeros(specs[0].shape)
    if tool == OURS:
        return lambda: trace_module(module, specs, "inference").macs
    if tool == "fvcore":
        return _fvcore(module, x)
    if tool.startswith("ptflops"):
        return _ptflops(module, specs[0].shape[1:], tool.removeprefix("ptflops "))
    from torch.utils.flop_counter import FlopCounterMode

    def count() -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(x)
        return int(counter.get_total_flops()) // 2

    return count


def _fvcore(module: Any, x: Any) -> Callable[[], int]:
    from fvcore.nn import FlopCountAnalysis

    def count() -> int:
        analysis = FlopCountAnalysis(module, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return int(analysis.total())

    return count


def _ptflops(module: Any, shape: tuple[int, ...], backend: str) -> Callable[[], int]:
    from ptflops import get_model_complexity_info

    def count() -> int:
        found, _ = get_model_complexity_info(
            module, tuple(shape), backend=backend, as_strings=False, print_per_layer_stat=False, verbose=False
        )
        if found is None:
            raise RuntimeError("no result")
        return int(found)

    return count


def time_tools(sizes: Sizes) -> dict[str, Any]:
    """{'real': {module: {tool: seconds}}, 'meta': ..., 'failed': {module: {tool: reason}}}, every list in order of rounds."""
    runners: dict[str, dict[str, Callable[[], int]]] = {name: {} for name in sizes.modules}
    failed: dict[str, dict[str, str]] = {name: {} for name in sizes.modules}
    for name in sizes.modules:
        for tool in (OURS, *REAL, *META):
            try:
                runners[name][tool] = call = runner(tool, name, sizes)
                call()
            except Exception as error:  # noqa: BLE001 a tool that does not work here is a row of the report
                runners[name].pop(tool, None)
                failed[name][tool] = f"{type(error).__name__}: {error}".split("\n", 1)[0]
    real = _rounds(runners, (OURS, *REAL), sizes.n_real)
    return {"real": real, "meta": _rounds(runners, (OURS, *META), sizes.n_meta), "failed": failed}


def _rounds(
    runners: dict[str, dict[str, Callable[[], int]]], tools: Iterable[str], rounds: int
) -> dict[str, dict[str, list[float]]]:
    wanted = [(name, tool) for name, calls in runners.items() for tool in tools if tool in calls]
    taken: dict[str, dict[str, list[float]]] = {name: {} for name in runners}
    for _ in range(rounds):
        for name, tool in random.sample(wanted, len(wanted)):
            gc.collect()
            runners[name][tool]()  # warm: the call before was another tool's, with other memory in the caches
            began = time.perf_counter()
            runners[name][tool]()
            taken[name].setdefault(tool, []).append(time.perf_counter() - began)
    return taken


def grow(tool: str, name: str, sizes: Sizes) -> dict[str, int]:
    """What the first call of a tool adds to this process, in bytes, and the MACs that it found and the formula gives."""
    from attnprof import mechanisms
    from attnprof.records import Shape

    call = runner(tool, name, sizes)
    formula = mechanisms.load(name).macs
    assert formula is not None
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the highest size so far is forgotten
    before = _status("VmRSS")
    macs = call()
    truth = formula(Shape(1, sizes.channels, sizes.side, sizes.side))
    return {"bytes": _status("VmHWM") - before, "macs": macs, "formula": truth}


def _status(field: str) -> int:
    """A size of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


# In the parent ----------------------------------------------------------------------------------------------------------------


def child(sizes: Sizes, *task: str) -> dict[str, Any]:
    """Run a task in a fresh process; {'failed': reason} where it ends badly."""
    command = [sys.executable, "-m", "tests.makers.bench", "--child", *task, *_options(sizes)]
    environment = {**CHILD_ENV, "MALLOC_MMAP_THRESHOLD_": "65536"} if task[0] == "grow" else CHILD_ENV
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _options(sizes: Sizes) -> list[str]:
    pairs = {name: ",".join(value) if isinstance(value, tuple) else str(value) for name, value in vars(sizes).items()}
    return [text for name, value in pairs.items() for text in (f"--{name.replace('_', '-')}", value)]


def commands(sizes: Sizes) -> dict[str, list[str]]:
    """What users start, and what it is held against."""
    script = Path(sys.executable).parent / "attnprof"
    ours = [str(script)] if script.exists() else [sys.executable, "-m", "attnprof"]
    compare = [*ours, "compare", "nonlocal", "ccnet", "--channels", str(sizes.channels), "--device", "none", "--hw"]
    return {
        "import torch": [sys.executable, "-c", "import torch"],
        "compare": [*compare, f"{sizes.side}x{sizes.side}"],
        "compare large": [*compare, f"{sizes.large}x{sizes.large}"],
        "bare click": [sys.executable, "-c", BARE_CLICK],
        "help": [*ours, "--help"],
        "list": [*ours, "list"],
    }


def time_commands(sizes: Sizes) -> dict[str, list[tuple[float, int]]]:
    """{command: [(wall seconds, peak bytes), ...]} in order of rounds; the first `n_warm` are left out.

    The package is used as it is once installed: from a copy with its bytecode.
    """
    wanted = commands(sizes)
    taken: dict[str, list[tuple[float, int]]] = {name: [] for name in wanted}
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "attnprof", Path(folder) / "attnprof", ignore=shutil.ignore_patterns("__pycache__"))
        compileall.compile_dir(folder, quiet=2)
        for round_ in range(sizes.n_warm + sizes.n_commands):
            for name in random.sample(list(wanted), len(wanted)):
                measured = _start(wanted[name], folder)
                if round_ >= sizes.n_warm:
                    taken[name].append(measured)
    return taken


def _start(command: list[str], folder: str) -> tuple[float, int]:
    environment, nowhere = {**CHILD_ENV, "PYTHONPATH": folder}, subprocess.DEVNULL
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=nowhere, stderr=nowhere)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: exit status {process.returncode}")
    return wall, usage.ru_maxrss * 1024


# The report -------------------------------------------------------------------------------------------------------------------


def ratios(other: Sequence[float], reference: Sequence[float]) -> list[float]:
    """other / reference, round by round."""
    return [a / b for a, b in zip(other, reference, strict=True)]


def _spread(values: Sequence[float]) -> str:
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 2 else (min(values), 0, max(values))
    return f"{statistics.median(values):.3g} [{low:.3g}, {high:.3g}]"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)] + [""]


def time_rows(times: dict[str, Any], name: str) -> list[list[str]]:
    """One row per tool for a module."""
    meta = times["meta"][name]
    rows = [[name, OURS, str(len(meta[OURS])), f"{1e3 * statistics.median(meta[OURS]):.2f}", "1", "", ""]]
    for tool in (*REAL, *META):
        group = times["real" if tool in REAL else "meta"][name]
        if tool not in group:
            rows.append([name, tool, "0", f"not available: {times['failed'][name].get(tool, '')}", "", "", ""])
            continue
        aim = Aim(2) if tool in META else Aim(80 if name == "ccnet" else 100)
        pairs = ratios(group[tool], group[OURS])
        met = aim.met(statistics.median(pairs))
        median = f"{1e3 * statistics.median(group[tool]):.2f}"
        rows.append([name, tool, str(len(pairs)), median, _spread(pairs), aim.text(), met])
    return rows


def memory_rows(found: dict[str, dict[str, Any]], name: str) -> list[list[str]]:
    """One row per tool for a module: growth, and MACs against the mechanism's formula."""
    rows, aim = [], Aim(10)
    own = found[OURS].get("bytes", 0)
    for tool, answer in found.items():
        if "failed" in answer:
            rows.append([name, tool, f"not available: {answer['failed']}", "", "", "", "", ""])
            continue
        error = f"{100 * (answer['macs'] / answer['formula'] - 1):+.2f} %" if answer["macs"] != answer["formula"] else "0"
        ratio = answer["bytes"] / max(own, os.sysconf("SC_PAGE_SIZE"))
        verdict = ["1", "", ""] if tool == OURS else [f"{ratio:.3g}", aim.text(), aim.met(ratio)]
        rows.append([name, tool, f"{answer['bytes'] / MIB:.1f}", *verdict, f"{answer['macs']:,}", error])
    return rows


def command_rows(taken: dict[str, list[tuple[float, int]]], sizes: Sizes) -> list[list[str]]:
    """One row per command: wall time and peak memory against its reference."""
    compare, large = f"{sizes.side}x{sizes.side}", f"{sizes.large}x{sizes.large}"
    plan = (
        ("import torch", 'python -c "import torch"', "", None, None),
        ("compare", f"attnprof compare nonlocal ccnet --hw {compare} --device none", "import torch", Aim(1.2, False), None),
        ("compare large", f"the same at {large}", "compare", Aim(1.1, False), Aim(350, False)),
        ("bare click", "a bare click program", "", None, None),
        ("help", "attnprof --help", "bare click", Aim(2.5, False), None),
        ("list", "attnprof list", "bare click", Aim(2.5, False), None),
    )
    rows = []
    for key, text, reference, time_aim, memory_aim in plan:
        walls, peaks = [wall for wall, _ in taken[key]], [peak / 1e6 for _, peak in taken[key]]
        peak = statistics.median(peaks)
        row = [text, str(len(walls)), f"{statistics.median(walls):.3f}", f"{peak:.0f}", reference]
        if time_aim is None:
            rows.append([*row, "", "", "", "", "", ""])
            continue
        pairs = ratios(walls, [wall for wall, _ in taken[reference]])
        ratio = statistics.median(peaks) / (statistics.median(peak for _, peak in taken[reference]) / 1e6)
        bound = [memory_aim.text() + " MB", memory_aim.met(peak)] if memory_aim else ["", ""]
        verdict = time_aim.met(statistics.median(pairs))
        rows.append([*row, _spread(pairs), time_aim.text(), verdict, f"{ratio:.2f}", *bound])
    return rows


def report(sizes: Sizes) -> str:
    """Measure everything and write it down."""
    load = os.getloadavg()[0]
    times = child(sizes, "times")
    if "meta" not in times:
        raise RuntimeError(times["failed"])
    memory = {name: {tool: child(sizes, "grow", tool, name) for tool in (OURS, *REAL, *META)} for name in sizes.modules}
    taken = time_commands(sizes)
    shape = f"1x{sizes.channels}x{sizes.side}x{sizes.side}"
    time_head = ("module", "tool", "n", "median ms", "ratio to attnprof", "aim", "met")
    memory_head = ("module", "tool", "growth MiB", "ratio to attnprof", "aim", "met", "MACs", "error")
    command_head = ("command", "n", "median s", "peak MB", "against", "time ratio", "aim", "met", "peak ratio", "aim", "met")
    made = (
        f"Made by `python -m tests.makers.bench`. torch {version('torch')}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, one thread; load average {load:.1f} at the start, {os.getloadavg()[0]:.1f} at the end."
    )
    lines = [
        *("# Time and memory of attnprof against other counters", "", made, ""),
        *(f"## A warm trace at {shape}, inference", "", TIME_NOTE, ""),
        *_table(time_head, (row for name in sizes.modules for row in time_rows(times, name))),
        *("## Memory and multiply-accumulates of one call in a fresh process", "", MEMORY_NOTE, ""),
        *_table(memory_head, (row for name in sizes.modules for row in memory_rows(memory[name], name))),
        *("## Whole commands", "", COMMAND_NOTE, ""),
        *_table(command_head, command_rows(taken, sizes)),
    ]
    return "\n".join(lines).rstrip("\n") + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point; `--child` is for this program's own processes."""
    parser = argparse.ArgumentParser(prog="python -m tests.makers.bench", description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    for name, default in vars(Sizes()).items():
        kind: Callable[[str], Any] = int if isinstance(default, int) else lambda text: tuple(text.split(","))
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=default)
    given = vars(parser.parse_args(arguments))
    out, task = given.pop("out"), given.pop("child")
    sizes = Sizes(**given)
    if task:
        answer = time_tools(sizes) if task[0] == "times" else grow(task[1], task[2], sizes)
        print("\n" + json.dumps(answer))
        return
    text = report(sizes)
    if out is None:
        print(text, end="")
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
