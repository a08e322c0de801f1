"""The pure core: what is decided about one callee. Imports `schemas` and the standard library only.

Read in this order: `state` (what is known), `inputs` (what can happen), `table` (what each phase makes of it), `step`
(one input through the table), `owed` (what the world is still owed), `sip` (what a failed dial means).
"""
