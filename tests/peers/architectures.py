"""Networks of the field as small PyTorch modules, with random weights, for export to ONNX.

Written from the papers' tables; `width` divides the numbers of channels, so that tests are quick.
"""

from __future__ import annotations

import torch
from torch import nn


class AlexNet(nn.Sequential):
    """Krizhevsky 2014 (one tower); images of 224 pixels, or 63 for a 1x1 map before fc6."""

    def __init__(self, width=1, size=224, classes=1000):
        a, b, c, d, e = (n // width for n in (64, 192, 384, 256, 256))
        side = (((size + 4 - 11) // 4 + 1 - 3) // 2 + 1 - 3) // 2 + 1
        side = (side - 3) // 2 + 1
        super().__init__(
            *(nn.Conv2d(3, a, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(a, b, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(b, c, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(c, d, 3, padding=1), nn.ReLU(inplace=True)),
            *(nn.Conv2d(d, e, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
            *(nn.AdaptiveAvgPool2d(side), nn.Flatten()),
            *(nn.Dropout(), nn.Linear(e * side * side, 4096 // width), nn.ReLU(inplace=True)),
            *(nn.Dropout(), nn.Linear(4096 // width, 4096 // width), nn.ReLU(inplace=True)),
            nn.Linear(4096 // width, classes),
        )


class VGG(nn.Module):
    """Simonyan and Zisserman 2014, configuration D (16 layers) or A (11), with BatchNorm or not."""

    DEPTHS = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3)}

    def __init__(self, depth=16, width=1, size=224, classes=1000, batch_norm=False):
        super().__init__()
        layers, c = [], 3
        for filters, repeats in zip((64, 128, 256, 512, 512), self.DEPTHS[depth], strict=True):
            for _ in range(repeats):
                layers.append(nn.Conv2d(c, filters // width, 3, padding=1))
                c = filters // width
                layers += [nn.BatchNorm2d(c)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        hidden = 4096 // width
        self.classifier = nn.Sequential(
            *(nn.Linear(c * (size // 32) ** 2, hidden), nn.ReLU(True), nn.Dropout()),
            *(nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(), nn.Linear(hidden, classes)),
        )

    def forward(self, x):
        x = self.features(x)
        return self.classifier(x.view(x.size(0), -1))


def conv_bn(c, filters, kernel, stride=1, padding=0):
    return nn.Sequential(
        nn.Conv2d(c, filters, kernel, stride, padding, bias=False), nn.BatchNorm2d(filters)
    )


class Residual(nn.Module):
    """y = relu(F(x) + shortcut(x)); the shortcut is a 1x1 convolution where shapes differ."""

    def __init__(self, c, filters, stride, bottleneck):
        super().__init__()
        if bottleneck:
            out = 4 * filters
            self.body = nn.Sequential(
                *(conv_bn(c, filters, 1), nn.ReLU(True)),
                *(conv_bn(filters, filters, 3, stride, 1), nn.ReLU(True)),
                conv_bn(filters, out, 1),
            )
        else:
            out = filters
            self.body = nn.Sequential(
                *(conv_bn(c, filters, 3, stride, 1), nn.ReLU(True)),
                conv_bn(filters, filters, 3, 1, 1),
            )
        same = stride == 1 and c == out
        self.shortcut = nn.Identity() if same else conv_bn(c, out, 1, stride)

    def forward(self, x):
        return torch.relu(self.body(x) + self.shortcut(x))


def stages(c, filters, repeats, bottleneck, first_stride=1):
    blocks = []
    for stage, (f, n) in enumerate(zip(filters, repeats, strict=True)):
        for i in range(n):
            stride = 1 if i else (2 if stage else first_stride)
            blocks.append(Residual(c, f, stride, bottleneck))
            c = 4 * f if bottleneck else f
    return blocks, c


class ResNet(nn.Module):
    """He et al. 2015 for ImageNet: 18 or 50 layers."""

    def __init__(self, depth=50, width=1, classes=1000):
        super().__init__()
        bottleneck, repeats = {18: (False, (2, 2, 2, 2)), 50: (True, (3, 4, 6, 3))}[depth]
        c = 64 // width
        self.stem = nn.Sequential(
            conv_bn(3, c, 7, 2, 3), nn.ReLU(True), nn.MaxPool2d(3, 2, padding=1)
        )
        blocks, c = stages(c, [c, 2 * c, 4 * c, 8 * c], repeats, bottleneck)
        self.blocks = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.blocks(self.stem(x))), 1))


class CifarResNet(nn.Module):
    """He et al. 2015 for CIFAR-10: 6n + 2 layers."""

    def __init__(self, n=3, classes=10):
        super().__init__()
        blocks, c = stages(16, (16, 32, 64), (n, n, n), bottleneck=False)
        self.body = nn.Sequential(conv_bn(3, 16, 3, 1, 1), nn.ReLU(True), *blocks)
        self.fc = nn.Linear(c, classes)

    def forward(self, x):
        return self.fc(self.body(x).mean(dim=(2, 3)))


class Inception(nn.Module):
    def __init__(self, c, one, three_in, three, five_in, five, pool):
        super().__init__()

        def conv(*args):
            return nn.Sequential(nn.Conv2d(*args), nn.ReLU(True))

        self.branches = nn.ModuleList(
            [
                conv(c, one, 1),
                nn.Sequential(conv(c, three_in, 1), conv(three_in, three, 3, 1, 1)),
                nn.Sequential(conv(c, five_in, 1), conv(five_in, five, 5, 1, 2)),
                nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), conv(c, pool, 1)),
            ]
        )

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class GoogLeNet(nn.Module):
    """Szegedy et al. 2014, Table 1, with its two local response normalizations."""

    TABLE = (
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
        None,
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
        None,
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    )

    def __init__(self, width=1, classes=1000):
        super().__init__()
        c = 64 // width
        layers = [
            *(nn.Conv2d(3, c, 7, 2, 3), nn.ReLU(True), nn.MaxPool2d(3, 2, ceil_mode=True)),
            *(nn.LocalResponseNorm(5), nn.Conv2d(c, c, 1), nn.ReLU(True)),
            *(nn.Conv2d(c, 3 * c, 3, padding=1), nn.ReLU(True), nn.LocalResponseNorm(5)),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        ]
        c *= 3
        for row in self.TABLE:
            if row is None:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            one, three_in, three, five_in, five, pool = (max(1, n // width) for n in row)
            layers.append(Inception(c, one, three_in, three, five_in, five, pool))
            c = one + three + five + pool
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(c, classes)
        )

    def forward(self, x):
        return self.head(self.features(x))


class Fire(nn.Module):
    def __init__(self, c, squeeze, expand):
        super().__init__()
        self.squeeze = nn.Conv2d(c, squeeze, 1)
        self.one = nn.Conv2d(squeeze, expand, 1)
        self.three = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        return torch.cat([torch.relu(self.one(x)), torch.relu(self.three(x))], 1)


class SqueezeNet(nn.Module):
    """Iandola et al. 2016, version 1.1."""

    def __init__(self, width=1, classes=1000):
        super().__init__()
        c = 64 // width
        layers = [nn.Conv2d(3, c, 3, 2), nn.ReLU(True), nn.MaxPool2d(3, 2, ceil_mode=True)]
        table = ((16, 64), (16, 64), None, (32, 128), (32, 128), None)
        for row in (*table, (48, 192), (48, 192), (64, 256), (64, 256)):
            if row is None:
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
                continue
            squeeze, expand = (n // width for n in row)
            layers.append(Fire(c, squeeze, expand))
            c = 2 * expand
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(c, classes, 1), nn.ReLU(True), nn.AdaptiveAvgPool2d(1)
        )

    def forward(self, x):
        return torch.flatten(self.classifier(self.features(x)), 1)


#: name -> (module, image size), small and as published
SMALL = {
    "alexnet": (lambda: AlexNet(16, 95, 10), 95),
    "vgg16": (lambda: VGG(16, 16, 32, 10), 32),
    "vgg11_bn": (lambda: VGG(11, 16, 32, 10, batch_norm=True), 32),
    "resnet18": (lambda: ResNet(18, 8, 10), 66),
    "resnet50": (lambda: ResNet(50, 8, 10), 64),
    "resnet20": (lambda: CifarResNet(3), 32),
    "googlenet": (lambda: GoogLeNet(8, 10), 64),
    "squeezenet": (lambda: SqueezeNet(8, 10), 66),
}
FULL = {
    "alexnet": (AlexNet, 224),
    "vgg16": (VGG, 224),
    "resnet50": (ResNet, 224),
    "googlenet": (GoogLeNet, 224),
    "squeezenet": (SqueezeNet, 224),
}


def build(name, table=None):
    """Return the module in eval mode, with weights that keep the image visible to the end.

    PyTorch's own initial weights let it fade, so that only the last bias would be left to compare.
    Statistics of BatchNorm are not 0 and 1.
    """
    torch.manual_seed(0)
    module = (table or SMALL)[name][0]().eval()
    for part in module.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.2, 0.2)
            part.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.2, 0.2)
    return module
