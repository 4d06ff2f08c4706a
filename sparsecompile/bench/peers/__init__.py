"""`bench peers`: whole models in other runtimes and in this one, side by side.

It is for a checkout: the wheel leaves this package out.

Every contestant is a process of its own; the parent lets them run in turns, one at a time. A
workload is a file in `workloads`, a peer a file in `contestants`: modules with `COMPONENTS`, which
`--add` and the entry-point group `sparsecompile.bench` bring too.
"""
