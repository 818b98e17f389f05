"""Real ClientHellos, taken and judged: read out of files, off the wire, or from our own engine (layer L4).

`records` finds hellos in whatever bytes somebody has (`pcap` in packets), `clients` tells apart who sent
them, `server` is a TLS server that records who connects (`channel`, `certificates`, `http2` are its parts),
`verify` has the engine connect to it and compares what came (`expected` says what should have, `freshness`
what has to be new each time). `report` is the JSON in which all of that is told.
"""
