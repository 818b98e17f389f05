"""Turns a pinned, checksummed source distribution into BoringSSL's static libraries.

`source` fetches and unpacks, `patch` applies the numbered patches, `toolchain` finds and names the
compiler, `library` compiles and caches. `prepare.py` beside this package puts them in order. Only the
standard library is used: this runs before anything is installed.
"""
