"""`python -m tests.controls [--only WORD] [--seeds N] [--first-seed S]`: break the dialer in every way; print what notices.

Exit 1 when a variant goes unnoticed, or when the unbroken dialer breaks an invariant on the same seeds.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from tests.controls.control import Found, control, live, table
from tests.controls.variants import VARIANTS


def main() -> int:
    """Run, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.controls", description=__doc__)
    parser.add_argument("--only", default="", help="only variants whose name holds this")
    parser.add_argument("--seeds", type=int, default=0, help="at most so many seeds a variant; 0: as its row says")
    parser.add_argument("--first-seed", type=int, default=1)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="coroutine .* was never awaited")  # what a dead process had not begun
    found: list[Found] = []
    for variant in VARIANTS:
        if args.only in variant.name:
            found.append(control(variant, first_seed=args.first_seed, seeds_max=args.seeds or None))
            one = found[-1]
            said = f"{one.shown.invariant}: {one.shown.text}" if one.shown is not None else "NOT NOTICED"
            sys.stderr.write(f"{variant.name}: seed {one.seeds[-1]}: {said}\n")
    lived = sorted({(one.variant.faults, seed) for one in found for seed in one.seeds}, key=repr)
    whole = {faults: next(one.variant for one in found if one.variant.faults == faults) for faults, _ in lived}
    false_alarms = [
        f"seed {seed}: {v.invariant}: {v.text}"
        for faults, seed in lived
        for v in live(whole[faults], seed, broken=False).violations
    ]
    print(table(found))
    print(f"the unbroken dialer on the same {len(lived)} seeds: {len(false_alarms)} violations")
    for line in false_alarms:
        print("  " + line)
    return 0 if all(one.caught for one in found) and not false_alarms else 1


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # as `python -m tests.simulation`: a seed is the same in every process
        fixed = os.environ | {"PYTHONHASHSEED": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.controls", *sys.argv[1:]], fixed)
    sys.exit(main())
