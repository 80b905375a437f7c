"""``python -m bench NAME [--json] [--quick]``: exit code 1 if a bar is missed."""

import argparse
import importlib
import sys

from bench.harness import show

NAMES = (
    "scoring",
    "documents",
    "load",
    "dashboard",
    "streaming",
    "distill",
    "step",
    "learning",
    "trainers",
    "quality",
    "plans",
    "repair",
    "search",
)


def main() -> int:
    """Run one benchmark."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure one of the bars of docs/benchmarks.md.")
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="a first impression in under a minute; judges nothing")
    given = parser.parse_args()
    outcome = importlib.import_module(f"bench.{given.name}").measure(quick=given.quick)
    return 0 if show(given.name, outcome, as_json=given.json, quick=given.quick) else 1


if __name__ == "__main__":
    sys.exit(main())
