"""Negative controls: the simulation against deliberately broken dialers. A proof that cannot fail proves nothing.

`variants` breaks the production code, one small patch each; `control` lives through seeds with it until the simulation
names the invariant that had to break; `python -m tests.controls` prints the table.
"""
