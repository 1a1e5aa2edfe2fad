"""Which vectors are chosen, and what happens when the wrong ones are asked for."""

from __future__ import annotations

import pytest

from minissl.errors import ConfigError
from minissl.kernels.cpu.micro import isa
from tests.conftest import needs_compiler


@needs_compiler
def test_the_widest_is_chosen(monkeypatch):
    monkeypatch.delenv(isa.VARIABLE, raising=False)
    available = isa.available()
    assert isa.chosen() == (available[0] if available else None)
    assert [one.lanes for one in available] == sorted((o.lanes for o in available), reverse=True)


@needs_compiler
def test_any_available_one_may_be_forced(monkeypatch):
    for one in isa.available():
        monkeypatch.setenv(isa.VARIABLE, one.name.upper())
        assert isa.chosen() == one


def test_generic_switches_off(monkeypatch):
    monkeypatch.setenv(isa.VARIABLE, "generic")
    assert isa.chosen() is None


def test_unknown_names_are_refused(monkeypatch):
    monkeypatch.setenv(isa.VARIABLE, "sse9")
    with pytest.raises(ConfigError, match=r"MINISSL_ISA=sse9 is unknown; .*generic, avx2, avx512"):
        isa.chosen()


@needs_compiler
def test_what_the_cpu_lacks_is_refused(monkeypatch):
    monkeypatch.setenv(isa.VARIABLE, "avx512")
    monkeypatch.setattr(isa, "available", lambda: (isa.AVX2,))
    with pytest.raises(
        ConfigError, match=r"avx512 is not possible here.* has generic, avx2; unset"
    ):
        isa.chosen()
