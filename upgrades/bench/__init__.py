"""The benchmark: the figures of design.md section 12, measured on this machine in one run (docs/bench.md).

No figure stands here that was not measured just now; where two are compared, both are.
"""
