"""What minissl writes, read by OpenCV's Caffe importer: the same outputs there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minissl import Net, models
from minissl.formats.prototxt import parse_net, read_net, write_prototxt

cv2 = pytest.importorskip(
    "cv2", reason="OpenCV is not installed: pip install opencv-python-headless"
)
if not hasattr(cv2.dnn, "readNetFromCaffe"):
    pytest.skip(
        "OpenCV 5 has no Caffe importer: pip install 'opencv-python-headless<5'",
        allow_module_level=True,
    )

SMALL = """
name: "small"
layer { name: "input" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 4 dim: 11 dim: 9 } } }
layer { name: "a/conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 stride: 2 group: 2
    weight_filler { type: "gaussian" std: 0.5 } bias_filler { type: "uniform" min: -1 max: 1 } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "norm" type: "LRN" bottom: "conv" top: "norm"
  lrn_param { local_size: 3 alpha: 0.9 beta: 0.6 } }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool"
  pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
  inner_product_param { num_output: 7 weight_filler { type: "xavier" }
    bias_filler { type: "uniform" min: -1 max: 1 } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""


def opencv_output(folder: Path, net: Net, images: np.ndarray) -> np.ndarray:
    net.save(folder / "w.caffemodel")
    write_prototxt(net.param, folder / "net.prototxt")
    theirs = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "w.caffemodel"))
    theirs.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
    theirs.setInput(images)
    return theirs.forward()


def test_small_net(tmp_path: Path) -> None:
    net = Net(parse_net(SMALL), backend="numpy", seed=3)
    images = np.random.default_rng(0).normal(size=(2, 4, 11, 9)).astype(np.float32)
    ours = net.forward({"data": images})["prob"]
    np.testing.assert_allclose(opencv_output(tmp_path, net, images), ours, atol=2e-6)
    assert np.ptp(ours) > 0.1


def test_caffenet(tmp_path: Path) -> None:
    param = read_net(models.path("caffenet_deploy.prototxt"))
    net = Net(param, data={"batch_size": 1}, seed=1)
    for parameter in net.parameters:  # its fillers would give all classes the same score
        parameter.data = net.kernels.xp.asarray(parameter.data * (3 if parameter.role == "weight"
                                                                  else 1))  # fmt: skip
    net.prepare()
    images = np.random.default_rng(0).uniform(-120, 130, (1, 3, 227, 227)).astype(np.float32)
    ours = net.forward({"data": images})["prob"].copy()
    np.testing.assert_allclose(opencv_output(tmp_path, net, images), ours, rtol=1e-3, atol=1e-6)
    assert np.ptp(ours) > 1e-3


def test_mean_and_old_nets_read_alike(tmp_path: Path) -> None:
    """The importer upgrades V1 nets too; both programs must come to the same network."""
    v1 = """
    input: "data" input_dim: 1 input_dim: 2 input_dim: 5 input_dim: 5
    layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1
      convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
    layers { name: "t" type: TANH bottom: "c" top: "t" }
    """
    net = Net(parse_net(v1), backend="numpy", seed=2)
    net.save(tmp_path / "w.caffemodel")
    (tmp_path / "old.prototxt").write_text(v1)
    theirs = cv2.dnn.readNetFromCaffe(
        str(tmp_path / "old.prototxt"), str(tmp_path / "w.caffemodel")
    )
    images = np.random.default_rng(0).normal(size=(1, 2, 5, 5)).astype(np.float32)
    theirs.setInput(images)
    ours = net.forward({"data": images})["t"]
    np.testing.assert_allclose(theirs.forward(), ours, atol=1e-6)
