"""All that needs a GPU, in under eight minutes, what matters most first; one JSON line each.

    python benchmarks/gpu/check.py                       on the first CUDA device, or what `make gpu` runs
    python benchmarks/gpu/check.py --device cpu --tiny   tries the script itself in a minute

Writes benchmarks/results/gpu_check-<device>.jsonl line by line, so that a run that is cut off leaves what it found.
"ok" is true, false or, of a measurement, null. Exit code 1 where something is false. torch, timm, torchmetrics, numpy,
pydantic and safetensors are enough, with what these bring along. Real images: $MEDMNIST_ROOT.
"""

import argparse
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
# The checkout need not be installed; and a script's own folder is not in the path where PYTHONSAFEPATH is set.
sys.path[:0] = [str(Path(__file__).parent), str(ROOT)]

from correctness import (  # noqa: E402
    environment,
    out_of_memory,
    planned_memory,
    recorded_against_eager,
    resume,
    rounded_against_exact,
)
from report import Report  # noqa: E402
from speed import against_customary, compiled_against_eager, largest_volume, whole_grid  # noqa: E402
from trials import real_trials  # noqa: E402

PARTS: tuple[Callable[[Report], None], ...] = (
    environment,
    recorded_against_eager,
    rounded_against_exact,
    out_of_memory,
    resume,
    planned_memory,
    against_customary,
    largest_volume,
    whole_grid,
    real_trials,
    compiled_against_eager,
)


def main() -> int:
    """Run the parts in order as long as there is time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.__name__ for part in PARTS]
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and images, to try the script")
    parser.add_argument("--parts", default=",".join(names), help="some of: " + ", ".join(names))
    parser.add_argument("--budget", type=float, default=420.0, help="seconds after which no further part begins")
    parser.add_argument("--out", type=Path, help="default benchmarks/results/gpu_check-<device>.jsonl")
    arguments = parser.parse_args()
    asked = arguments.parts.split(",")
    unknown = [name for name in asked if name not in names]
    if unknown:
        parser.error(f"unknown parts {', '.join(unknown)}; there are {', '.join(names)}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device; --device cpu --tiny tries the script")
    device = torch.device("cuda", 0) if arguments.device == "cuda" else torch.device("cpu")
    out = arguments.out or ROOT / "benchmarks" / "results" / f"gpu_check-{device.type}.jsonl"
    report = Report(out, device, tiny=arguments.tiny, budget=arguments.budget)
    for part in PARTS:
        if part.__name__ not in asked:
            continue
        if report.seconds > report.budget:
            report.line(part.__name__, None, skipped=f"no time left of {report.budget:g} s")
            continue
        try:
            part(report)
        except Exception as error:  # one broken part must not cost the others
            last = traceback.format_exc().strip().splitlines()[-6:]
            report.line(part.__name__, False, error=f"{type(error).__name__}: {error}"[:300], where=last)
    report.line("end", report.failures == 0, failures=report.failures, seconds=report.seconds)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
