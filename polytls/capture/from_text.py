"""A JA3 or raw JA4 text -> a profile's hello that has it, over the profiles that there are (pure).

Theory of operation
-------------------
`polytls.fingerprint.texts` reads the text, `polytls.profiles.fill` puts it into a base: the one that was
named, or the likest that fits. What comes out is then held against the text, by writing down the hellos that
the profile describes (`polytls.capture.expected`) and taking their fingerprints. Where GREASE ECH has several
lengths and only some of them give the text (padding comes and goes with them), those are kept. What still is
not the text is said in a note, with what is sent instead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from polytls.capture.expected import HOST, hellos_of
from polytls.capture.pcap import CaptureError
from polytls.fingerprint.ja3 import ja3
from polytls.fingerprint.ja4 import ja4
from polytls.fingerprint.texts import TextError, Told, read_text
from polytls.profiles.exact import Ech, ExactHello, InexactError
from polytls.profiles.fill import UnfillableError, fill, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from polytls.profiles.spec import HelloSpec
    from polytls.wire.client_hello import ClientHello

MAX_TRIED = 12
"""Of the nearest profiles, as bases: Chrome has this many that differ in nothing a text tells but padding."""


@dataclass(frozen=True, slots=True)
class FromText:
    """A hello that has the text of `told`, filled from `base`. `notes` are sentences: who the base is, what
    was filled from it, and what is not as the text says (`exact` is False then)."""

    told: Told
    base: HelloSpec
    hello: ExactHello
    notes: tuple[str, ...]
    exact: bool


def learn_text(text: str, specs: Iterable[HelloSpec], base: HelloSpec | None = None) -> FromText:
    """The hello of a text over `base`, or over the likest of `specs`; these have what the base lacks.

    Raises `CaptureError` for a text that says nothing, or nothing that the engine could send.
    """
    try:
        told = read_text(text)
        if base is not None and base.exact is None:
            raise UnfillableError(f"{base.name} is a profile by knobs; a --base has a hello of its own")
        ranked = nearest(told, specs)
        if base is not None:
            return _over(told, base, ranked, "named")
        if not ranked:
            raise UnfillableError("there is no profile to begin from")
        return _over_the_likest(told, ranked)
    except (TextError, UnfillableError) as problem:
        raise CaptureError(str(problem)) from None
    except InexactError as problem:
        raise CaptureError(f"no hello that the engine could send has this text: {problem}") from None


def _over_the_likest(told: Told, ranked: Sequence[tuple[float, HelloSpec]]) -> FromText:
    """Over the first that fits: what pads a hello is its length, and no ranking knows that."""
    tried: list[FromText] = []
    problems: list[UnfillableError | InexactError] = []
    for _, spec in ranked[:MAX_TRIED]:
        try:
            found = _over(told, spec, ranked, _how(ranked))
        except (UnfillableError, InexactError) as problem:
            problems.append(problem)
            continue
        if found.exact:
            return found
        tried.append(found)
    if not tried:
        raise problems[0]
    return tried[0]


def _over(told: Told, base: HelloSpec, ranked: Sequence[tuple[float, HelloSpec]], how: str) -> FromText:
    learned = fill(told, base, [spec for _, spec in ranked])
    alike = next((f", {score:.0%} alike" for score, spec in ranked if spec == base), "")
    notes = [f"the base is {base.name} ({how}{alike})", *learned.notes]
    hello, exact = _held_against(told, learned.hello, notes)
    return FromText(told, base, hello, tuple(notes), exact)


def _how(ranked: Sequence[tuple[float, HelloSpec]]) -> str:
    """How a base was chosen, and how many others it could have been."""
    best = sum(score == ranked[0][0] for score, _ in ranked)
    others = f", one of {best} that are equally near; --base names another" if best > 1 else ""
    return f"the nearest of {len(ranked)}{others}"


def text_of(hello: ClientHello, form: str) -> str:
    """The text of a hello in a form of `Told.form`. Raises `HelloError`."""
    if form == "JA3":
        return ja3(hello).ja3
    forms = ja4(hello)
    return forms.ja4_r if form == "JA4_r" else forms.ja4_ro


def _held_against(told: Told, hello: ExactHello, notes: list[str]) -> tuple[ExactHello, bool]:
    """The hello, its ECH narrowed to what gives the text, and whether all that is sent has it now."""
    texts = _texts(hello, told.form)
    if texts == {told.text}:
        return hello, True
    ech = hello.ech
    if ech is not None and told.text in texts:
        kept = tuple(
            payload
            for payload in ech.payloads
            if _texts(_with_payloads(hello, ech, (payload,)), told.form) == {told.text}
        )
        dropped = ", ".join(str(payload) for payload in ech.payloads if payload not in kept)
        notes.append(f"ECH payloads of {dropped} bytes were left out: with them padding makes another text")
        return _with_payloads(hello, ech, kept), True
    sent = " or ".join(sorted(texts))
    notes.append(f"NOT EXACT: what is sent first, to a name of {len(HOST)} characters, has {sent}")
    return hello, False


def _texts(hello: ExactHello, form: str) -> set[str]:
    return {text_of(one, form) for one in hellos_of(hello, host=HOST.encode())}


def _with_payloads(hello: ExactHello, ech: Ech, payloads: tuple[int, ...]) -> ExactHello:
    entries = (
        replace(entry, body=replace(ech, payloads=payloads)) if entry.body is ech else entry
        for entry in hello.extensions
    )
    return replace(hello, extensions=tuple(entries))
