"""`python -m tests.controls [--only WORD] [--seeds N] [--first-seed S]`: break the dialer in every way; print what notices.

Exit 1 when a variant goes unnoticed, or when the unbroken dialer breaks an invariant on the same seeds.
"""

from __future__ import annotations

import argparse
import sys

from tests.controls.control import Found, control, table
from tests.controls.variants import VARIANTS
from tests.simulation.run import simulate


def main() -> int:
    """Run, print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.controls", description=__doc__)
    parser.add_argument("--only", default="", help="only variants whose name holds this")
    parser.add_argument("--seeds", type=int, default=0, help="at most so many seeds a variant; 0: as its row says")
    parser.add_argument("--first-seed", type=int, default=1)
    args = parser.parse_args()
    found: list[Found] = []
    for variant in VARIANTS:
        if args.only in variant.name:
            found.append(control(variant, first_seed=args.first_seed, seeds_max=args.seeds or None))
            one = found[-1]
            said = f"{one.invariant}: {one.text}" if one.caught else "NOT CAUGHT"
            sys.stderr.write(f"{variant.name}: seed {one.seeds[-1]}: {said}\n")
    seeds = sorted({seed for one in found for seed in one.seeds})
    false_alarms = [f"seed {seed}: {v.invariant}: {v.text}" for seed in seeds for v in simulate(seed).violations]
    print(table(found))
    print(f"the unbroken dialer on seeds {seeds[0]} to {seeds[-1]}: {len(false_alarms)} violations")
    for line in false_alarms:
        print("  " + line)
    return 0 if all(one.caught for one in found) and not false_alarms else 1


if __name__ == "__main__":
    sys.exit(main())
