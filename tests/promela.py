"""The model of the hand-over, docs/handover.pml, checked by spin: `make model`.

As it is, no run may break the claim. With a part left out spin must find a run that does; the shortest is printed. spin is taken from
PATH, else from Debian's package, unpacked into the cache folder.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from cdc.errors import SandboxUnavailable
from cdc.sandbox.packages import unpack_suite

MODEL = Path(__file__).parents[1] / "docs" / "handover.pml"
PARTS = {
    "": "nothing",
    "WITHOUT_WAIT": "the wait for gtid_executed",
    "WITHOUT_TOUCHED": "the record of touched keys",
    "HIGH_FROM_GTIDS": "the binlog's end as high (gtid_executed instead)",
}
"""What each variant leaves out, by the macro that does."""
MEGABYTES = 1_500
"""The most that a search may take; the model as it is needs a fifth of it."""


@dataclass(frozen=True, slots=True)
class Search:
    """spin's result for a variant."""

    states: int
    claim_broken: bool
    complete: bool
    """Whether every state was looked at, and every statement of the model reached."""
    run: tuple[str, ...]
    """The steps that lead to where the claim is broken."""
    printed: str


def spin() -> list[str]:
    """The command line that begins with spin; raises SandboxUnavailable, or OSError, when spin or gcc is missing."""
    if shutil.which("gcc") is None:
        raise SandboxUnavailable("there is no gcc on PATH, with which spin's searches are compiled")
    if found := shutil.which("spin"):
        return [found]
    return unpack_suite("spin", "bookworm", ["spin"], lambda text: print(text, file=sys.stderr)).command("spin")


def search(leave_out: str) -> Search:
    """Search the states of the model with one part left out, or complete ("")."""
    tool, defined = spin(), [f"-D{leave_out}"] if leave_out else []
    shortest = ["-DBFS"] if leave_out else []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy2(MODEL, folder)  # with its time: spin wants it to be older than the run it replays

        def output(*command: str) -> str:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            return done.stdout + done.stderr

        made = output(*tool, *defined, "-a", MODEL.name)
        built = output("gcc", "-O1", "-w", "-DSAFETY", f"-DMEMLIM={MEGABYTES}", *shortest, "-o", "pan", "pan.c")
        printed = output("./pan") if Path(folder, "pan").exists() else made + built
        run = output(*tool, *defined, "-t", MODEL.name) if leave_out else ""
    unreached = [line for line in printed.splitlines() if f"{MODEL.name}:" in line and '"-end-"' not in line]  # the stream has no end
    states = re.search(r"(\d+) states, stored", printed)
    return Search(
        int(states[1]) if states else 0,
        "assertion violated" in printed,
        "errors: 0" in printed and "Search not completed" not in printed and not unreached,
        tuple(re.findall(r"^ +((?:transaction|chunk) \d .+)$", run, re.MULTILINE)),
        printed,
    )


def as_expected(leave_out: str, found: Search) -> bool:
    """Whether the claim holds in every state of the complete model, and a run breaks it without any one part."""
    return found.claim_broken and bool(found.run) if leave_out else found.complete


def main() -> None:
    """Print a table of the variants and the shortest runs that break the claim; exit with 1 unless all is as expected."""
    print(f"{'left out':<50}{'states':>10}  the claim")
    failed, runs = [], []
    for leave_out, part in PARTS.items():
        found = search(leave_out)
        says = "holds" if found.complete else f"broken after {len(found.run)} steps" if found.claim_broken else "not checked"
        print(f"{part:<50}{found.states:>10,}  {says}", flush=True)
        if not as_expected(leave_out, found):
            failed.append(f"Not as expected: left out {part}.\n{found.printed}")
        elif leave_out:
            runs.append("\n    ".join([f"\nWithout {part}:", *found.run]))
    print("\n".join(runs))
    if failed:
        sys.exit("\n" + "\n".join(failed))


if __name__ == "__main__":
    try:
        main()
    except (SandboxUnavailable, OSError) as error:
        sys.exit(f"The model cannot be checked, neither by spin on PATH nor by Debian's package: {error}.")
