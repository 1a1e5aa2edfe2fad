"""Networks of ImageNet's years 2014 and 2015, as messages: GoogLeNet, VGG-16 and 19, ResNet-50.

Each is written from its paper. Layers are named as in the models that the Caffe community shares,
so that weights of those load by name. ``*_deploy`` forms take images and give probabilities of
1,000 classes; the others train on what a program hands over (MemoryData: 224 x 224 pixels, BGR, the
mean subtracted) and test on it.

``minissl/models/*.prototxt`` are these messages as text; a test compares them.
"""

from __future__ import annotations

from typing import Any

from minissl.formats import proto

CLASSES = 1000
PIXELS = 224


class Builder:
    """Writes one layer behind another into a net; ``blob`` is the one that comes next.

    Parameters
    ----------
    name : str
        Of the net.
    deploy : bool
        Whether the net begins with an Input, else with images and labels from memory.
    batch_sizes : tuple of int
        Of training and testing.
    group_lasso : bool
        Whether filters, shape fibres and 2-D kernels of each convolution are groups, as the
        program of the SSL paper adds them (``net_ssl_adder.py``).
    """

    def __init__(
        self, name: str, deploy: bool, batch_sizes: tuple[int, int], group_lasso: bool = False
    ):
        self.net = proto.NetParameter(name=name)
        self.group_lasso = group_lasso
        self.deploy = deploy
        self.blob = "data"
        size = {"channels": 3, "height": PIXELS, "width": PIXELS}
        if deploy:
            layer = self._layer("data", "Input", [], ["data"])
            layer.input_param.shape.add().dim[:] = [10, *size.values()]
            return
        for phase, batch_size in zip((proto.TRAIN, proto.TEST), batch_sizes, strict=True):
            layer = self._layer("data", "MemoryData", [], ["data", "label"])
            layer.include.add().phase = phase
            layer.memory_data_param.MergeFrom(
                proto.MemoryDataParameter(batch_size=batch_size, **size)
            )

    def _layer(self, name: str, kind: str, bottoms: list[str], tops: list[str]) -> Any:
        self.blob = tops[0] if tops else self.blob
        return self.net.layer.add(name=name, type=kind, bottom=bottoms, top=tops)

    def _learn(self, layer: Any, bias: bool) -> None:
        """Weights with decay, a bias that learns twice as fast without: Caffe's custom."""
        spec = layer.param.add(lr_mult=1, decay_mult=1)
        if self.group_lasso and layer.type == "Convolution":
            kernel = layer.convolution_param.kernel_size[0]
            spec.breadth_decay_mult = spec.kernel_shape_decay_mult = 1
            spec.block_group_lasso.add(xdimen=kernel * kernel, ydimen=1, block_decay_mult=1)
        if bias:
            layer.param.add(lr_mult=2, decay_mult=0)

    def convolution(
        self,
        name: str,
        filters: int,
        kernel: int,
        stride: int = 1,
        bottom: str | None = None,
        filler: str = "xavier",
        bias: float | None = 0.0,
        relu: str | None = None,
    ) -> str:
        """Add a convolution, padded by half of its kernel; ``relu`` names what rectifies it."""
        layer = self._layer(name, "Convolution", [bottom or self.blob], [name])
        p = layer.convolution_param
        p.num_output = filters
        p.kernel_size.append(kernel)
        if kernel > 1:
            p.pad.append(kernel // 2)
        if stride > 1:
            p.stride.append(stride)
        p.weight_filler.type = filler
        if bias is None:
            p.bias_term = False
        else:
            p.bias_filler.value = bias
        self._learn(layer, bias is not None)
        if relu:
            self.relu(relu)
        return name

    def inner_product(
        self, name: str, outputs: int, filler: proto.FillerParameter, bias: float = 0.0
    ) -> str:
        """Add a fully connected layer."""
        layer = self._layer(name, "InnerProduct", [self.blob], [name])
        layer.inner_product_param.num_output = outputs
        layer.inner_product_param.weight_filler.CopyFrom(filler)
        layer.inner_product_param.bias_filler.value = bias
        self._learn(layer, bias=True)
        return name

    def relu(self, name: str) -> None:
        """Rectify the last blob, in place."""
        self._layer(name, "ReLU", [self.blob], [self.blob])

    def dropout(self, name: str, ratio: float) -> None:
        """Drop values of the last blob, in place."""
        layer = self._layer(name, "Dropout", [self.blob], [self.blob])
        layer.dropout_param.dropout_ratio = ratio

    def pool(
        self,
        name: str,
        kernel: int,
        stride: int,
        pad: int = 0,
        method: str = "MAX",
        bottom: str | None = None,
    ) -> str:
        """Add pooling."""
        layer = self._layer(name, "Pooling", [bottom or self.blob], [name])
        p = layer.pooling_param
        p.pool = p.PoolMethod.Value(method)
        p.kernel_size, p.stride = kernel, stride
        if pad:
            p.pad = pad
        return name

    def normalize(self, name: str) -> None:
        """Add AlexNet's normalization across channels."""
        layer = self._layer(name, "LRN", [self.blob], [name])
        layer.lrn_param.MergeFrom(proto.LRNParameter(local_size=5, alpha=1e-4, beta=0.75))

    def batch_norm(self, suffix: str) -> None:
        """Normalize the last blob by its batch, and scale it by learned factors; in place."""
        self._layer(f"bn{suffix}", "BatchNorm", [self.blob], [self.blob])
        layer = self._layer(f"scale{suffix}", "Scale", [self.blob], [self.blob])
        layer.scale_param.bias_term = True

    def join(self, kind: str, name: str, blobs: list[str]) -> str:
        """Add a Concat or an Eltwise layer."""
        self._layer(name, kind, blobs, [name])
        return name

    def end(self, scores: str, loss: str = "loss", weight: float = 1.0, top_k: bool = True) -> None:
        """Add what measures scores: probabilities to deploy, else a loss and two accuracies."""
        if self.deploy:
            self._layer("prob", "Softmax", [scores], ["prob"])
            return
        layer = self._layer(loss, "SoftmaxWithLoss", [scores, "label"], [loss])
        if weight != 1:
            layer.loss_weight.append(weight)
        for k in (1, 5) if top_k else ():
            name = f"accuracy_top{k}"
            layer = self._layer(name, "Accuracy", [scores, "label"], [name])
            layer.include.add().phase = proto.TEST
            layer.accuracy_param.top_k = k


# ------------------------------------------------------------------------------------- GoogLeNet

#: how many filters a module has in its convolutions 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, and in
#: the projection of its pool
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
#: modules with a classifier of their own behind them, which pulls the gradient in while training
AUXILIARY = {"4a": "loss1", "4d": "loss2"}
_BIAS = 0.2


def googlenet(deploy: bool = False, group_lasso: bool = False) -> Any:
    """Return GoogLeNet: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, table 1.

    6,998,552 weights and biases, and 6,379,728 of the two auxiliary classifiers while training;
    1.6 billion multiply-adds an image.
    """
    net = Builder("GoogLeNet", deploy, (32, 50), group_lasso)
    net.convolution("conv1/7x7_s2", 64, 7, stride=2, bias=_BIAS, relu="conv1/relu_7x7")
    net.pool("pool1/3x3_s2", 3, 2)
    net.normalize("pool1/norm1")
    net.convolution("conv2/3x3_reduce", 64, 1, bias=_BIAS, relu="conv2/relu_3x3_reduce")
    net.convolution("conv2/3x3", 192, 3, bias=_BIAS, relu="conv2/relu_3x3")
    net.normalize("conv2/norm2")
    net.pool("pool2/3x3_s2", 3, 2)
    for module, filters in INCEPTIONS.items():
        if module in ("4a", "5a"):
            net.pool(f"pool{int(module[0]) - 1}/3x3_s2", 3, 2)
        _inception(net, f"inception_{module}", *filters)
        if module in AUXILIARY and not deploy:
            _auxiliary(net, AUXILIARY[module])
    net.pool("pool5/7x7_s1", 7, 1, method="AVE")
    net.dropout("pool5/drop_7x7_s1", 0.4)
    filler = proto.FillerParameter(type="xavier")
    net.end(net.inner_product("loss3/classifier", CLASSES, filler), "loss3/loss3")
    return net.net


def _inception(
    net: Builder, name: str, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int
) -> None:
    """Add four ways side by side: 1x1, 3x3, 5x5, and a pool, with 1x1 convolutions before or after.

    Their channels are put one after the other.
    """
    bottom = net.blob

    def convolution(way: str, filters: int, kernel: int, below: str) -> str:
        blob = net.convolution(f"{name}/{way}", filters, kernel, bottom=below, bias=_BIAS)
        net.relu(f"{name}/relu_{way}")
        return blob

    ways = [convolution("1x1", one, 1, bottom)]
    for kernel, reduced, filters in ((3, reduce3, three), (5, reduce5, five)):
        way = f"{kernel}x{kernel}"
        below = convolution(f"{way}_reduce", reduced, 1, bottom)
        ways.append(convolution(way, filters, kernel, below))
    pooled = net.pool(f"{name}/pool", 3, 1, pad=1, bottom=bottom)
    ways.append(convolution("pool_proj", pool, 1, pooled))
    net.join("Concat", f"{name}/output", ways)


def _auxiliary(net: Builder, name: str) -> None:
    """Add a small classifier to the side, whose loss counts by 0.3."""
    main = net.blob
    filler = proto.FillerParameter(type="xavier")
    net.pool(f"{name}/ave_pool", 5, 3, method="AVE")
    net.convolution(f"{name}/conv", 128, 1, bias=_BIAS, relu=f"{name}/relu_conv")
    net.inner_product(f"{name}/fc", 1024, filler, _BIAS)
    net.relu(f"{name}/relu_fc")
    net.dropout(f"{name}/drop_fc", 0.7)
    scores = net.inner_product(f"{name}/classifier", CLASSES, filler)
    net.end(scores, f"{name}/{name}", weight=0.3, top_k=False)
    net.blob = main


# ------------------------------------------------------------------------------ VGG-16 and VGG-19

#: convolutions of each stage and their filters
VGG16 = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
VGG19 = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))


def vgg16(deploy: bool = False, group_lasso: bool = False) -> Any:
    """Return VGG-16: Simonyan and Zisserman, ICLR 2015, table 1, column D.

    138,357,544 weights and biases, 15.5 billion multiply-adds an image.
    """
    return _vgg(Builder("VGG-16", deploy, (64, 50), group_lasso), VGG16)


def vgg19(deploy: bool = False, group_lasso: bool = False) -> Any:
    """Return VGG-19, column E of the same table: 143,667,240 weights and biases, 19.6 billion."""
    return _vgg(Builder("VGG-19", deploy, (64, 50), group_lasso), VGG19)


def _vgg(net: Builder, stages: tuple[tuple[int, int], ...]) -> Any:
    for stage, (convolutions, filters) in enumerate(stages, 1):
        for i in range(1, convolutions + 1):
            name = f"{stage}_{i}"
            net.convolution(f"conv{name}", filters, 3, filler="msra", relu=f"relu{name}")
        net.pool(f"pool{stage}", 2, 2)
    filler = proto.FillerParameter(type="gaussian", std=0.01)
    for name in ("6", "7"):
        net.inner_product(f"fc{name}", 4096, filler)
        net.relu(f"relu{name}")
        net.dropout(f"drop{name}", 0.5)
    net.end(net.inner_product("fc8", CLASSES, filler))
    return net.net


# ------------------------------------------------------------------------------------- ResNet-50

#: blocks of each stage and the filters inside of them; four times as many come out
RESNET50 = ((3, 64), (4, 128), (6, 256), (3, 512))


def resnet50(deploy: bool = False, group_lasso: bool = False) -> Any:
    """Return ResNet-50: He et al., Deep Residual Learning, CVPR 2016, table 1.

    25,557,032 weights, factors and biases, 3.9 billion multiply-adds an image. A block that halves
    the image does so in its first convolution, as in the paper.
    """
    net = Builder("ResNet-50", deploy, (32, 25), group_lasso)
    net.convolution("conv1", 64, 7, stride=2, filler="msra", bias=None)
    net.batch_norm("_conv1")
    net.relu("conv1_relu")
    net.pool("pool1", 3, 2)
    channels = 64
    for stage, (blocks, filters) in enumerate(RESNET50, 2):
        for i in range(blocks):
            stride = 2 if stage > 2 and i == 0 else 1
            _bottleneck(net, f"{stage}{'abcdef'[i]}", channels, filters, stride)
            channels = 4 * filters
    net.pool("pool5", 7, 1, method="AVE")
    filler = proto.FillerParameter(type="msra")
    net.end(net.inner_product("fc1000", CLASSES, filler))
    return net.net


def _bottleneck(net: Builder, block: str, channels: int, filters: int, stride: int) -> None:
    """Add a block: 1x1 to few channels, 3x3, 1x1 to many; plus what came in."""
    shortcut = net.blob
    kernels = ((1, filters, stride), (3, filters, 1), (1, 4 * filters, 1))
    for way, (kernel, outputs, step) in zip("abc", kernels, strict=True):
        name = f"{block}_branch2{way}"
        net.convolution(f"res{name}", outputs, kernel, step, filler="msra", bias=None)
        net.batch_norm(name)
        if way != "c":
            net.relu(f"res{name}_relu")
    residual = net.blob
    if channels != 4 * filters:
        name = f"{block}_branch1"
        shortcut = net.convolution(
            f"res{name}", 4 * filters, 1, stride, shortcut, filler="msra", bias=None
        )
        net.batch_norm(name)
    net.join("Eltwise", f"res{block}", [shortcut, residual])
    net.relu(f"res{block}_relu")


#: the prototxt files that come with minissl
FILES = {
    "googlenet.prototxt": lambda: googlenet(),
    "googlenet_deploy.prototxt": lambda: googlenet(deploy=True),
    "googlenet_ssl.prototxt": lambda: googlenet(group_lasso=True),
    "vgg16.prototxt": lambda: vgg16(),
    "vgg16_deploy.prototxt": lambda: vgg16(deploy=True),
    "vgg19_deploy.prototxt": lambda: vgg19(deploy=True),
    "resnet50.prototxt": lambda: resnet50(),
    "resnet50_deploy.prototxt": lambda: resnet50(deploy=True),
}
