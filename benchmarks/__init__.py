"""Measurements: one operation up a ladder of rungs, whole programs next to their peers.

``python -m benchmarks --help`` is the way in. There are two kinds. The *ladder* takes one operation from plain Python loops
to the machine's limit, rung by rung: every rung is compared with the float64 specification before it is timed, and a rung
that fails is not timed. *Peers* runs whole programs (training steps, tokenizers) next to the libraries people would
otherwise use, each in a process of its own, in turn, so that a change in the machine's speed hits all of them alike.

Nothing here runs in the test suite except tiny slices that show the machinery works.
"""
