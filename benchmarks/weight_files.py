"""Read CaffeNet's weights (244 MB) beside reading the bare bytes.

    python benchmarks/weight_files.py [--rounds 9] [--json]

Times are interleaved medians from one process with the file in the page cache. Memory is what a
fresh process needs beyond what it had before the call, as a multiple of the file's size.
``protobuf`` parses the same file with the protobuf library and takes the arrays from it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from minissl.formats.caffemodel import read_caffemodel, write_caffemodel

SHAPES = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
    "fc8": (1000, 4096),
}

MEMORY = """
import resource, sys
from pathlib import Path
from minissl.formats.caffemodel import read_caffemodel
from minissl.formats import proto
proto.NetParameter
with open('/proc/self/clear_refs', 'w') as file:
    file.write('5')
def peak():
    lines = Path('/proc/self/status').read_text().splitlines()
    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) * 1024
before = peak()
{call}
print(peak() - before)
"""


def write_weights(path: Path) -> None:
    rng = np.random.default_rng(0)
    layers = []
    for name, shape in SHAPES.items():
        blobs = [rng.standard_normal(shape, np.float32), np.ones(shape[0], np.float32)]
        layers.append((name, "Convolution" if len(shape) == 4 else "InnerProduct", blobs))
    write_caffemodel(path, "CaffeNet", layers)


def by_protobuf(path: Path) -> dict[str, list[np.ndarray]]:
    from minissl.formats import proto

    net = proto.NetParameter.FromString(path.read_bytes())
    return {
        layer.name: [np.array(b.data, np.float32).reshape(b.shape.dim) for b in layer.blobs]
        for layer in net.layer
    }


def seconds(call, *arguments) -> float:
    start = time.perf_counter()
    result = call(*arguments)
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def memory_of(call: str, path: Path) -> int:
    program = MEMORY.format(call=f"result = {call}".replace("PATH", repr(str(path))))
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return int(found.stdout)


def measure(rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "caffenet.caffemodel"
        write_weights(path)
        size = path.stat().st_size
        calls = {"bytes": Path.read_bytes, "minissl": read_caffemodel}
        times: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                times[name].append(seconds(call, path))
        times["protobuf"] = [seconds(by_protobuf, path)]
        read = {name: median(values) for name, values in times.items()}
        used = memory_of("read_caffemodel(PATH)", path)
    return {
        "megabytes": size / 1e6,
        **{f"{name}_ms": 1e3 * value for name, value in read.items()},
        "time_ratio": read["minissl"] / read["bytes"],
        "memory_ratio": used / size,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    result = measure(options.rounds)
    if options.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:14} {value:10.3f}")


if __name__ == "__main__":
    main()
