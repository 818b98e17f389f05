"""The proxy itself: from an accepted connection to one record of what became of it.

`session` is the life of one tunnel, `server` accepts, counts and drains them, `tracker` knows the living,
`resolve` finds addresses, `refuse` is the one table of what a client is shown for a failure, `snapshot` is
what of the configuration a tunnel sees.
"""
