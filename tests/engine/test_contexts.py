"""What handshakes share: what is refused when it is made, and that every built-in profile can be made."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path

import pytest

from polytls.engine import ClientContext, Credential, ServerContext, Trust, load_trust
from polytls.engine.contexts import wire_list
from polytls.engine.roots import MAX_ROOTS_BYTES, certificates_of, system_bundle
from polytls.errors import EngineError, UserError
from polytls.profiles import Catalog
from tests.peers.certificates import Authority, der_pair

BUILTIN = [spec.name for spec in Catalog.load({}, "test").specs()]


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.parametrize("verify", [True, False])
def test_every_builtin_profile(catalog: Catalog, trust: Trust, name: str, verify: bool) -> None:
    spec = catalog.require(name, source="test", key="")
    ClientContext(spec, trust if verify else None, verify_chain=verify, verify_host=verify)


def test_there_are_builtin_profiles() -> None:
    assert {"default"} < set(BUILTIN)
    assert len(BUILTIN) >= 4


def test_verification_needs_roots(catalog: Catalog) -> None:
    spec = catalog.require("chrome", source="test", key="")
    with pytest.raises(EngineError, match="trusted roots"):
        ClientContext(spec, None, verify_chain=True, verify_host=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": (0x1234,)},
        {"sigalgs": (0x1234,)},
        {"cipher_list": ("NO-SUCH-CIPHER",)},
        {"min_tls": 0x0200},
        {"cert_compression": (99,)},
        {"key_shares": (0x0019,), "groups": (0x001D,)},
    ],
    ids=str,
)
def test_what_boringssl_cannot_offer_is_named(
    catalog: Catalog, trust: Trust, wrong: dict[str, object]
) -> None:
    spec = catalog.require("default", source="test", key="")
    broken = dataclasses.replace(spec, **wrong)  # type: ignore[arg-type]
    with pytest.raises(EngineError, match=f"profile {spec.name}: .+"):
        ClientContext(broken, trust, verify_chain=True, verify_host=True)


def test_certificates_that_do_not_parse_are_left_out(authority: Authority) -> None:
    (good,) = certificates_of(authority.pem.read_bytes())
    assert Trust([]).num_roots == 0
    assert Trust([b"", b"garbage", good[:-1], good + b"\0"]).num_roots == 0
    assert Trust([b"garbage", good, b"\x30\x80"]).num_roots == 1


def test_a_credential_needs_the_key_of_its_certificate(authority: Authority, certificate: Path) -> None:
    leaf, key = der_pair(certificate)
    _, other_key = der_pair(authority.issue("other.test"))
    _, rsa_key = der_pair(authority.issue("rsa.test", use_rsa=True))
    Credential([leaf], key)
    for chain, private in (
        ([leaf], other_key),
        ([leaf], rsa_key),
        ([leaf], b""),
        ([leaf], b"garbage"),
        ([leaf], key[:-1]),
        ([], key),
        ([b"garbage"], key),
        ([leaf[:-1]], key),
    ):
        with pytest.raises(EngineError, match=r".+"):
            Credential(chain, private)


def test_nothing_shows_the_key(certificate: Path) -> None:
    leaf, key = der_pair(certificate)
    assert key.hex() not in repr(Credential([leaf], key))
    with pytest.raises(EngineError) as caught:
        Credential([leaf], key + b"\0")
    assert key.hex()[:20] not in str(caught.value)


def test_objects_may_go_in_any_order(catalog: Catalog, authority: Authority) -> None:
    trust = Trust(certificates_of(authority.pem.read_bytes()))
    context = ClientContext(
        catalog.require("safari", source="test", key=""), trust, verify_chain=True, verify_host=True
    )
    server = ServerContext()
    del trust
    gc.collect()
    del context, server
    gc.collect()


def test_protocol_names_have_1_to_255_bytes() -> None:
    assert wire_list((b"h2", b"x" * 255)) == b"\x02h2" + b"\xff" + b"x" * 255
    for name in (b"", b"x" * 256):
        with pytest.raises(ValueError, match="1 to 255"):
            wire_list((name,))


# Files of roots


def test_a_file_adds_to_the_systems_roots(authority: Authority) -> None:
    system = len(certificates_of(system_bundle().read_bytes()))
    assert load_trust(authority.pem).num_roots == load_trust(None).num_roots + 1
    assert 0 < load_trust(None).num_roots <= system


def test_a_bundle_may_say_more_than_certificates(authority: Authority) -> None:
    pem = authority.pem.read_bytes()
    (der,) = certificates_of(pem)
    assert certificates_of(b"# a comment\n\n" + pem + b"\r\ntext\r\n" + pem.replace(b"\n", b"\r\n")) == [
        der,
        der,
    ]
    assert certificates_of(b"") == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no certificate",
        b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_a_file_without_usable_certificates_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "roots.pem"
    file.write_bytes(content)
    with pytest.raises(UserError, match=str(file)):
        load_trust(file)


@pytest.mark.parametrize("cut", [1, 20, 500])
def test_a_file_that_is_still_being_written_is_refused_by_name(
    tmp_path: Path, authority: Authority, cut: int
) -> None:
    file = tmp_path / "roots.pem"
    file.write_bytes((authority.pem.read_bytes().strip() * 2)[:-cut].replace(b"-----" * 2, b"-----\n-----"))
    with pytest.raises(UserError, match=f"{file}: it ends in the middle of a certificate"):
        load_trust(file)


def test_a_file_without_end_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=f"/dev/zero: is larger than {MAX_ROOTS_BYTES} bytes"):
        load_trust(Path("/dev/zero"))


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"missing\.pem"):
        load_trust(tmp_path / "missing.pem")


def test_the_systems_bundle_can_be_named(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.pem))
    assert load_trust(None).num_roots == 1
