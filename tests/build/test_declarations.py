"""The C declarations: what is taken from `native.h`, what is refused, and that nothing has drifted."""

from __future__ import annotations

from pathlib import Path

import pytest
from cffi import FFI

from declarations import BEGIN, END, DeclarationError, extract, main

FFI_DIRECTORY = Path(__file__).parents[2] / "native" / "ffi"


def header(part: str) -> str:
    return f'#include <stdint.h>\nextern "C" {{\n{BEGIN}\n{part}\n{END}\n}}\n'


def test_the_committed_declarations_are_those_of_the_header() -> None:
    assert main(["--check"]) == 0


def test_cffi_reads_the_committed_declarations() -> None:
    builder = FFI()
    builder.cdef((FFI_DIRECTORY / "declarations.txt").read_text(encoding="utf-8"))
    builder.cdef((FFI_DIRECTORY / "callbacks.txt").read_text(encoding="utf-8"))


def test_takes_declarations_without_their_prose() -> None:
    part = """
    /* ptl_x does
     * #include nothing. */
    typedef struct { int a; /* bytes */ } ptl_x;  // trailing


    int ptl_f(ptl_x *x);
    """
    assert extract(header(part)) == "typedef struct { int a;   } ptl_x;\n\n    int ptl_f(ptl_x *x);\n"


@pytest.mark.parametrize("value", ["1", "-1", "(-1)", "0x1F", "1u", "(1UL)", "1 /* why */", "1 // why"])
def test_leaves_the_value_of_a_constant_to_the_compiler(value: str) -> None:
    assert extract(header(f"#define PTL_N {value}")) == "#define PTL_N ...\n"


@pytest.mark.parametrize(
    "line",
    [
        "#if X",
        "#include <a.h>",
        '#define PTL_S "s"',
        "#define PTL_F(x) x",
        "#define PTL_E 1 + 1",
        "#define PTL_E",
    ],
)
def test_refuses_what_it_would_have_to_drop(line: str) -> None:
    with pytest.raises(DeclarationError, match="is no integer constant; move it out"):
        extract(header(line))


@pytest.mark.parametrize("text", ["", BEGIN, END, f"{END}\n{BEGIN}", header(BEGIN)])
def test_refuses_missing_and_repeated_markers(text: str) -> None:
    with pytest.raises(DeclarationError, match="must hold the line"):
        extract(text)


def test_refuses_linkage_inside_the_part() -> None:
    with pytest.raises(DeclarationError, match="must open before the marked part"):
        extract(header('extern "C" { int f(void); }'))


def test_check_fails_on_drift_and_write_mends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    native, committed = tmp_path / "native.h", tmp_path / "declarations.txt"
    files = ["--header", str(native), "--declarations", str(committed)]
    native.write_text(header("int f(void);"), encoding="utf-8")
    assert main(["--check", *files]) == 1
    assert main(["--write", *files]) == 0
    assert main(["--check", *files]) == 0
    native.write_text(header("int f(int);"), encoding="utf-8")
    capsys.readouterr()
    assert main(["--check", *files]) == 1
    shown = capsys.readouterr().err
    assert "-int f(void);" in shown
    assert "+int f(int);" in shown
    assert "run `make declarations`" in shown
