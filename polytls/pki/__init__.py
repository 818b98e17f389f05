"""The root CA and the leaves minted under it: what lets a tunnel be terminated in MITM mode.

`root` holds the CA (`store` its files, `passphrase` what may unlock its key), `leaf` mints one
certificate (`template` is what all of them have in common), `cache` keeps minted ones and mints each
once, `audit` says what was minted.

Nothing is imported here: `cryptography.x509` costs some 10 MB, which passthrough mode need not pay.
"""
