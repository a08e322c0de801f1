"""A proof that cannot fail proves nothing: each broken dialer is noticed, by the invariant that had to notice it."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import textwrap

import pytest

from dialer import gate, legs
from dialer.callee import stopping
from tests.controls.patches import bound, rewritten
from tests.controls.variants import VARIANTS, Variant
from tests.simulation.model import LAWS
from tests.simulation.watch import INVARIANTS

PROMISES = INVARIANTS | {name: promise for promise, name, *_ in LAWS}
PROMISES |= {"a callee's sequence counts up by one": 5, "state is the fold of the log": 5}


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_a_broken_dialer_is_noticed_by_the_invariant_that_had_to(variant: Variant) -> None:
    """Within its seeds; and the unbroken dialer breaks nothing on the same."""
    command = [sys.executable, "-m", "tests.controls", "--only", variant.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


def test_every_variant_expects_invariants_that_there_are() -> None:
    """A name that nobody says would be waited for in vain."""
    for variant in VARIANTS:
        assert variant.expected
        assert set(variant.expected) <= set(PROMISES), variant.name
        assert variant.promise in {PROMISES[name] for name in variant.expected}, variant.name


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.name)
def test_a_variant_breaks_the_production_and_takes_it_back(variant: Variant) -> None:
    """What it patches is still there to be patched, and afterwards as before."""
    before = _production()
    with variant.enter():
        assert _production() != before, "nothing was broken"
    assert _production() == before


def _production() -> dict[str, object]:
    """Return every function's code and every table of the dialer and the simulation, by name."""
    found: dict[str, object] = {}
    for name, module in sys.modules.items():
        if name.startswith(("dialer.", "schemas.values", "tests.simulation.kafka")):
            for key, value in vars(module).items():
                found[f"{name}.{key}"] = getattr(value, "__code__", None) or id(value)
                if inspect.isclass(value) and value.__module__ == name:
                    found |= {f"{name}.{key}.{k}": getattr(v, "__code__", id(v)) for k, v in vars(value).items()}
    return found


def test_a_patch_that_does_not_fit_any_more_says_so() -> None:
    """The production changed: the control must be looked at, and not pass for want of a fault."""
    with pytest.raises(AssertionError, match="0 times"), rewritten(legs.dial, ("no such text", "")):
        pass
    with pytest.raises(AssertionError, match="nobody has"), bound(object(), None):
        pass


def test_a_rewritten_function_behaves_as_written_and_then_as_before() -> None:
    """Who imported it has the change, too."""
    source = textwrap.dedent(inspect.getsource(stopping.cancelled_early))
    assert isinstance(ast.parse(source).body[0], ast.FunctionDef)
    held = gate.wall_age_s
    with rewritten(gate.wall_age_s, ("return _FAR", "return 7")):
        assert held(None, None) == 7  # type: ignore[arg-type]
    assert held(None, None) > 1e6  # type: ignore[arg-type]
