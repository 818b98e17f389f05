"""Bytes <-> values, and nothing else: no sockets, no clocks, no randomness, no event loop (layer L1).

Every parser here has one error and the same promise: for any input it returns a value or raises that error.
"""
