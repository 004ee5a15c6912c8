"""An independent checker of runs: standard library only, nothing of the application.

It reads what a walk wrote down: the stored events of each run as text, the procedures as JSON, what the simulated
servers truly logged, and who tried what with which outcome. From these it works out anew what had to happen.
"""
