"""Verdicts: what a tunnel may do, and why.

Every module here is pure: values in, a verdict with a reason out; no clock, no socket, no state. A verdict
made without arguments denies, so that a rule that was forgotten fails closed. What becomes of a denied
tunnel is no question of policy: `polytls.proxy.refuse` answers it.

`hello` judges the server name and the protocols of a client's ClientHello.
"""
