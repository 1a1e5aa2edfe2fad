"""Every CUDA source compiles for every kind of GPU that is served; that needs no GPU."""

import pytest

pytest.importorskip("cupy", reason="CuPy is not installed; pip install '.[nvrtc]'")
nvrtc = pytest.importorskip(
    "cupy_backends.cuda.libs.nvrtc", reason="NVRTC, the compiler of CUDA, is not installed"
)

from cupy.cuda.compiler import _NVRTCProgram  # noqa: E402

from minissl.kernels.gpu import raw  # noqa: E402


@pytest.mark.parametrize("architecture", [70, 80, 90])
@pytest.mark.parametrize("real", sorted(raw.REAL))
@pytest.mark.parametrize("name", raw.names())
def test_a_source_compiles(name, real, architecture):
    text = raw.source(name, real)
    columns = sorted(raw.COLUMN) if "column_t*" in text else ["int32"]
    for column in columns:
        program = _NVRTCProgram(raw.source(name, real, column), f"{name}.cu")
        code, _ = program.compile(("-std=c++14", f"-arch=sm_{architecture}"))
        assert f".target sm_{architecture}" in (code if isinstance(code, str) else code.decode())


def test_a_mistake_does_not_compile():
    """The test above could fail."""
    text = raw.source("elements", "float32").replace("d_x[i] =", "d_z[i] =")
    with pytest.raises(Exception, match="d_z"):
        _NVRTCProgram(text, "elements.cu").compile(("-std=c++14", "-arch=sm_80"))
