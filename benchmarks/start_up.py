"""From the shell to the answer: wall time and peak memory of whole processes, cold Python each time.

    python benchmarks/start_up.py --runs 9

Every run is a new process; the files it reads are in the system's cache after the first, untimed one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from timing import Spread, machine, report

PROMPT = "a smiling cat with sunglasses"


@dataclass(frozen=True)
class Arguments:
    """Time `diorama generate`, `--help`, `systems` and `show` from start to exit."""

    runs: int = 9
    system: str = "default"  # what to generate with: a name or a folder
    json: Path | None = None


def diorama() -> list[str]:
    """The installed command, or the same entry point where only the source tree is on the path."""
    script = Path(sys.executable).with_name("diorama")
    return [str(script)] if script.is_file() else [sys.executable, "-m", "diorama.apps.cli"]


# Run by a Python without site-packages: a process is charged its parent's peak memory until it begins, and this one has torch.
LAUNCHER = """
import json, os, sys, time
null = os.open(os.devnull, os.O_WRONLY)
start = time.perf_counter()
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], dict(os.environ), file_actions=[(os.POSIX_SPAWN_DUP2, null, 1)])
_, status, usage = os.wait4(pid, 0)
print(json.dumps([os.waitstatus_to_exitcode(status), time.perf_counter() - start, usage.ru_maxrss]))
"""


def whole_process(command: list[str]) -> tuple[float, float]:
    """Seconds from spawn to exit, and peak resident memory in MiB. Raises SystemExit where the command fails."""
    told = subprocess.run([sys.executable, "-I", "-S", "-c", LAUNCHER, *command], stdout=subprocess.PIPE, check=True)
    code, elapsed, peak = json.loads(told.stdout)
    if code:
        raise SystemExit(f"{' '.join(command)} ended with exit code {code}")
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts bytes there, KiB elsewhere
    return elapsed, peak * unit / 2**20


def main() -> None:
    arguments = tyro.cli(Arguments)
    about = machine()
    with tempfile.TemporaryDirectory() as folder:
        picture = str(Path(folder) / "cat.png")
        commands = {
            "generate": ["generate", PROMPT, "-o", picture, "--system", arguments.system],
            "--help": ["--help"],
            "systems": ["systems"],
            "show flow": ["show", "flow"],
        }
        measured: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for run in range(arguments.runs + 1):
            for name, words in commands.items():
                Path(picture).unlink(missing_ok=True)
                result = whole_process([*diorama(), *words])
                if run:  # the first fills the system's file cache
                    measured[name].append(result)
    rows = [
        {
            "command": f"diorama {name}",
            "seconds": Spread.of([t for t, _ in values]),
            "peak MiB": Spread.of([m for _, m in values]),
            "runs": len(values),
        }
        for name, values in measured.items()
    ]
    report("Whole process, shell to exit: median (quartiles)", rows, about, arguments.json)


if __name__ == "__main__":
    main()
