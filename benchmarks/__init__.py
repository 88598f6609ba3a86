"""Measurements: one operation up a ladder of rungs, whole programs next to their peers.

``python -m benchmarks --help`` lists the commands. There are two kinds. The *ladder* takes one operation from plain Python
loops to the machine's limit, rung by rung. Every rung is compared with the float64 specification before it is timed, and a
rung that fails is not timed. *Peers* runs whole programs (training steps, tokenizers) next to other libraries. Each has
a process of its own, and the processes take turns, so that a change in the machine's speed affects all of them alike.

The test suite runs only tiny slices, which show that the machinery works.
"""
