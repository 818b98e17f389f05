"""A stand-in that shadows setuptools while the source distribution is downloaded; see build_meta."""
