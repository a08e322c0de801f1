"""Mutation testing of the core and the gate: small faults are put in one by one, and some test must notice each.

`python -m tests.mutants` makes the mutants (`operators`), runs the tests that cover each in a forked worker (`session`
for what stands in functions, `afresh` for what is built at import), and judges who survived (`survivors`). A library
was looked at first: mutmut 3 mutates functions only, so the tables (phases, SIP, gate) would have gone unproven, and
copies the whole tree; cosmic-ray starts a process a mutant.
"""
