"""`python -m benchmarks NAME [--json]`: run one benchmark; every one is a module here with `run(options, rest) -> dict`."""

import argparse
import importlib
import json
import pkgutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
HELPERS = {"__main__", "measure", "peers", "source"}


def main() -> None:
    """Find the benchmark, run it, print its figures."""
    names = sorted(m.name for m in pkgutil.iter_modules([str(HERE)]) if m.name not in HELPERS)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=names)
    parser.add_argument("--json", action="store_true", help="print one JSON object, last, on stdout")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size: for a trial, not for quoted figures")
    parser.add_argument("--plot", type=Path, default=Path("build/benchmarks"), help="folder for plots (build/benchmarks)")
    parser.add_argument("--beside", type=Path, help="another checkout with its own .venv, measured in turn with this one")
    options, rest = parser.parse_known_args()
    options.plot.mkdir(parents=True, exist_ok=True)
    figures = importlib.import_module(f"benchmarks.{options.name}").run(options, rest)
    if options.json:
        print(json.dumps(figures))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
