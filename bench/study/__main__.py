"""``python -m bench.study [--quick] [--out FILE]``: measure what is not measured yet, and write the document."""

import argparse
import sys
from pathlib import Path

import torch

from bench.study.document import write
from bench.study.ground import Ground
from bench.study.readings import READINGS
from bench.study.settings import FULL, QUICK
from bench.study.tables import SECTIONS
from core.workspace import ROOT, room


def main() -> int:
    """Make every table in turn; the document is written anew after each."""
    parser = argparse.ArgumentParser(prog="python -m bench.study", description="The study of importance criteria on the embedded model.")
    parser.add_argument("--quick", action="store_true", help="a tiny version of everything, which shows no more than that it works")
    parser.add_argument("--out", type=Path, help="the document; docs/study-importance.md, or with --quick study/quick.md of the workspace")
    parser.add_argument("--threads", type=int, help="threads of the processor; 1 is best where others work beside")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    out = given.out or (room("study") / "quick.md" if given.quick else ROOT / "docs" / "study-importance.md")
    ground, sections = Ground(QUICK if given.quick else FULL), []
    command = "python -m bench.study" + " --quick" * given.quick
    for done, (name, make) in enumerate(SECTIONS.items(), start=1):
        print(f"{done} of {len(SECTIONS)}: {name}", file=sys.stderr, flush=True)
        sections.append(make(ground))
        write(out, ground, sections, list(SECTIONS)[done:], {} if given.quick else READINGS, command)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
