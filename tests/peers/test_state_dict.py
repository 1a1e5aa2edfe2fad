"""state_dict files of PyTorch: the same network there and here."""

import json
import pickle

import numpy as np
import pytest
from click.testing import CliRunner

from minissl import Net
from minissl.cli.convert import command
from minissl.errors import WeightsError
from minissl.formats import state_dict
from minissl.formats.prototxt import parse_net
from minissl.formats.state_dict import Wanted, match, read_state_dict

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

NET = """name: "n"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv1" type: "Convolution" bottom: "x" top: "c1"
  convolution_param { num_output: 4 kernel_size: 3 bias_term: false } }
layer { name: "relu1" type: "ReLU" bottom: "c1" top: "c1" }
layer { name: "conv2" type: "Convolution" bottom: "c1" top: "c2"
  convolution_param { num_output: 6 kernel_size: 3 group: 2 } }
layer { name: "prelu" type: "PReLU" bottom: "c2" top: "c2" }
layer { name: "fc" type: "InnerProduct" bottom: "c2" top: "y"
  inner_product_param { num_output: 5 } }
"""
LAYERS = [
    Wanted("conv1", "Convolution", ((4, 3, 3, 3),)),
    Wanted("conv2", "Convolution", ((6, 2, 3, 3), (6,))),
    Wanted("prelu", "PReLU", ((6,),)),
    Wanted("fc", "InnerProduct", ((5, 96), (5,))),
]


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, bias=False),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 6, 3, groups=2),
        torch.nn.PReLU(6),
        torch.nn.Flatten(),
        torch.nn.Linear(96, 5),
    )


@pytest.fixture
def files(tmp_path):
    (tmp_path / "net.prototxt").write_text(NET)
    torch.save(model().state_dict(), tmp_path / "model.pt")
    return tmp_path


def convert(*arguments):
    return CliRunner().invoke(command, [str(one) for one in arguments], catch_exceptions=False)


def test_the_same_outputs(files):
    done = convert(files / "model.pt", files / "n.caffemodel", "--model", files / "net.prototxt")
    assert "conv2: 2" in done.output
    net = Net(parse_net(NET))
    net.load(files / "n.caffemodel")
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    expected = model()(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(net.forward({"x": x})["y"], expected, rtol=1e-4, atol=1e-5)


def test_there_and_back(files):
    convert(files / "model.pt", files / "n.safetensors", "--model", files / "net.prototxt")
    names = {"conv1": "0", "conv2": "2", "prelu": "3", "fc": "5"}
    (files / "names.json").write_text(json.dumps(names))
    arguments = "--model", files / "net.prototxt", "--names", files / "names.json"
    convert(files / "n.safetensors", files / "back.pth", *arguments)
    back, first = (torch.load(files / n, weights_only=True) for n in ("back.pth", "model.pt"))
    assert list(back) == list(first)
    for name, tensor in first.items():
        assert torch.equal(back[name], tensor)


def test_batch_norm_is_two_layers():
    norm = torch.nn.BatchNorm2d(4)
    norm(torch.randn(8, 4, 3, 3))
    tensors = {f"bn.{k}": v.numpy() for k, v in norm.state_dict().items()}
    layers = [Wanted("a", "BatchNorm", ((4,), (4,), (1,))), Wanted("b", "Scale", ((4,), (4,)))]
    weights, mapping = match(layers, tensors)
    assert mapping == {"a": "bn", "b": "bn"}
    np.testing.assert_array_equal(weights["a"][0], tensors["bn.running_mean"])
    np.testing.assert_array_equal(weights["a"][2], [1])
    np.testing.assert_array_equal(weights["b"][1], tensors["bn.bias"])
    with pytest.raises(WeightsError, match=r"bn\.bias, bn\.weight"):
        match(layers[:1], tensors)  # its scale would be lost


def test_running_sums_are_written_as_means(tmp_path):
    layers = [Wanted("a", "BatchNorm", ((2,), (2,), (1,)))]
    blobs = [np.array([2.0, 4.0]), np.array([6.0, 8.0]), np.array([2.0])]
    state_dict.write_state_dict(tmp_path / "a.pt", {"a": blobs}, layers)
    found = read_state_dict(tmp_path / "a.pt")
    assert found["a.running_mean"].tolist() == [1, 2]
    assert found["a.running_var"].tolist() == [3, 4]


def test_modules_of_a_layers_name_come_first():
    tensors = {
        "z.weight": np.zeros((4, 3, 3, 3)),
        "conv1.weight": np.ones((4, 3, 3, 3)),
    }
    layers = [Wanted("other", "Convolution", ((4, 3, 3, 3),)), LAYERS[0]]
    assert match(layers, tensors)[1] == {"other": "z", "conv1": "conv1"}


@pytest.mark.parametrize(
    "names, words",
    [
        ({"conv9": "0"}, "no layer 'conv9'"),
        ({"conv1": "7"}, "no module '7'"),
        ({"conv1": "2", "conv2": "0"}, "module '2' has"),
    ],
)
def test_wrong_names_are_refused(names, words):
    tensors = {name: t.numpy() for name, t in model().state_dict().items()}
    with pytest.raises(WeightsError, match=words):
        match(LAYERS, tensors, names)


def test_what_does_not_fit_is_refused():
    tensors = {name: t.numpy() for name, t in model().state_dict().items()}
    with pytest.raises(WeightsError, match="no layer of the net takes"):
        match(LAYERS[:3], tensors)
    with pytest.raises(WeightsError, match="no module is left"):
        match([*LAYERS, Wanted("more", "InnerProduct", ((2, 5),))], tensors)


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _evil(path):
    torch.save({"a": Evil(path.with_name("executed"))}, path)


def _wide(path):
    torch.save({"a.weight": torch.zeros(1).expand(1 << 40)}, path)


def _pickle(path):
    path.write_bytes(pickle.dumps({"a": 1}))


def _truncated(path):
    torch.save(model().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-100])


def _module(path):
    torch.save(model(), path)


def _number(path):
    torch.save({"a.weight": 3}, path)


def _nothing(path):
    torch.save({}, path)


@pytest.mark.parametrize(
    "write", [_evil, _wide, _pickle, _truncated, _module, _number, _nothing, lambda path: None]
)
def test_hostile_and_damaged_files_are_refused(tmp_path, write):
    path = tmp_path / "a.pt"
    write(path)
    with pytest.raises(WeightsError) as caught:
        read_state_dict(path)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    assert "can still be loaded" not in str(caught.value)  # torch's advice is to trust the file
    assert not (tmp_path / "executed").exists()


def test_a_whole_model_is_told_apart(tmp_path):
    _module(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=r"holds more than tensors \(torch\.nn\."):
        read_state_dict(tmp_path / "a.pt")


def test_a_checkpoint_with_more_around_it(tmp_path):
    torch.save({"epoch": 3, "state_dict": model().state_dict()}, tmp_path / "a.pt")
    assert "0.weight" in read_state_dict(tmp_path / "a.pt")


def test_names_must_be_a_mapping(tmp_path):
    (tmp_path / "n.json").write_text("[1]")
    with pytest.raises(WeightsError, match="mapping"):
        state_dict.read_names(tmp_path / "n.json")
