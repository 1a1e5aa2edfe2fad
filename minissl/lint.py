"""The mistakes people make in nets and solvers, found before a long run is wasted on them.

Nothing here changes a file or refuses a run. Most of these mistakes are silent in the original:
a forgotten ``block_group_decay``, for example, switches structured sparsity off without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from minissl import graph
from minissl.formats import proto
from minissl.formats.fused_types import plain_layers

if TYPE_CHECKING:
    from minissl.formats.proto import LayerParameter, NetParameter, ParamSpec, SolverParameter

#: A run of this many iterations without a snapshot is worth a word.
LONG_RUN = 10_000

REGULARIZATION_TYPES = ("L1", "L2")
GROUP_LASSO_METHODS = ("subgradient", "proximal")
SOLVER_TYPES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")
#: of SkimCaffe's solver
_THRESHOLDS = (
    "prune_threshold",
    "measure_threshold",
    "max_threshold_factor",
    "winograd_adjust_threshold",
)
_WITH_BIAS = ("Convolution", "Deconvolution", "InnerProduct", "Embed", "Winograd")
_LEARNING = (*_WITH_BIAS, "Scale", "Bias", "PReLU")

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One mistake: an ``error`` would stop the run or make it pointless, a ``warning`` may not."""

    severity: Severity
    where: str
    message: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.where}: {self.message} {self.advice}"


def lint_net(
    net: NetParameter, weight_shapes: Mapping[str, tuple[int, ...]] | None = None
) -> list[Finding]:
    """Check a net.

    Parameters
    ----------
    net
        The net.
    weight_shapes
        Shape of each layer's weights, where known; tiles are compared with the R x C weight
        matrix then (R = shape[0], C = size / R).

    Returns
    -------
    list of Finding
        In the order of the layers; empty if nothing is wrong.
    """
    findings = list(_duplicate_names(net))
    trained = any(layer.type.endswith("Loss") for layer in net.layer)
    for layer in (part for written in net.layer for part in plain_layers(written)):
        findings += _type(layer)
        findings += _conv_mode(layer, trained)
        findings += _gemm_mode(layer, trained)
        findings += _dumps(layer)
        for index, spec in enumerate(layer.param):
            where = f"layer '{layer.name}', param {index}"
            shape = (weight_shapes or {}).get(layer.name) if index == 0 else None
            findings += _param_spec(layer, index, spec, where)
            findings += _tiles(spec, where, shape)
    findings += _no_way_around(net, weight_shapes or {})
    findings += _nothing_trains(net)
    return findings


def lint_solver(
    solver: SolverParameter, net: NetParameter | None = None, weights_given: bool | None = None
) -> list[Finding]:
    """Check a solver, and whether it and its net ask for the same things.

    Parameters
    ----------
    solver
        The solver.
    net
        Its net; without it only the solver's own fields are checked. The net's own mistakes are
        the business of :func:`lint_net`.
    weights_given
        Whether the run starts from trained weights; None if that is not known.

    Returns
    -------
    list of Finding
        Empty if nothing is wrong.
    """
    findings: list[Finding] = []
    for check in (_testing, _steps, _snapshots, _solver_regularization, _update_rule):
        findings += check(solver)
    if net is not None:
        findings += _lasso_in_both(solver, net)
        findings += _connectivity(solver, net, weights_given)
    return findings


# ------------------------------------------------------------------------------- the net alone


def _duplicate_names(net: NetParameter) -> Iterator[Finding]:
    """Two layers of one name are fine in different phases, as the usual pair of Data layers."""
    seen: dict[tuple[str, bool], set[int]] = {}  # by name, and whether it has weights
    for layer in net.layer:
        phases = _phases(layer)
        learns = layer.type in graph.WITH_WEIGHTS
        if seen.get((layer.name, True), set()) & phases and learns:
            yield Finding(
                "error",
                f"layer '{layer.name}'",
                "Another layer of the same phase has this name.",
                "Weights are matched by name, so give each layer its own.",
            )
        elif any(seen.get((layer.name, either), set()) & phases for either in (True, False)):
            yield Finding(
                "warning",
                f"layer '{layer.name}'",
                "Another layer of the same phase has this name.",
                "One of the two gets a name with a number; give each layer its own.",
            )
        seen[layer.name, learns] = seen.get((layer.name, learns), set()) | phases


def _phases(layer: LayerParameter) -> set[int]:
    """Return the phases a layer is in; rules about stages or levels say nothing about phases."""

    def bare(rules: Any) -> set[int]:
        return {
            rule.phase for rule in rules if rule.HasField("phase") and len(rule.ListFields()) == 1
        }

    both = {proto.TRAIN, proto.TEST}
    if layer.include:
        given = {rule.phase for rule in layer.include if rule.HasField("phase")}
        staged = any(len(rule.ListFields()) > rule.HasField("phase") for rule in layer.include)
        # A layer that depends on stages may never meet its namesake: count it in no phase.
        return set() if staged else given or both
    return both - bare(layer.exclude)


def _type(layer: LayerParameter) -> Iterator[Finding]:
    from minissl.layers import LAYERS, what_is_wrong_with

    if layer.type not in LAYERS:
        problem, _, advice = what_is_wrong_with(layer.type).partition("; ")
        advice = advice.replace("did you mean", "write").rstrip("?")
        where = f"layer '{layer.name}'"
        yield Finding("error", where, f"It {problem}.", f"{advice[0].upper()}{advice[1:]}.")


def _conv_mode(layer: LayerParameter, trained: bool) -> Iterator[Finding]:
    convolution = layer.convolution_param
    if convolution.conv_mode == convolution.LOWERED_GEMM:
        return
    mode = convolution.ConvMode.Name(convolution.conv_mode)
    where = f"layer '{layer.name}'"
    if trained and proto.TRAIN in _phases(layer) and convolution.conv_mode != convolution.AUTO:
        yield Finding(
            "error",
            where,
            f"conv_mode {mode} runs sparse weights forward only, but this net is trained.",
            "Train without conv_mode and set it in the net that is deployed or timed.",
        )
    if convolution.engine == convolution.CUDNN:
        yield Finding(
            "warning",
            where,
            f"engine CUDNN ignores conv_mode {mode}.",
            "Write engine: CAFFE, or leave engine out.",
        )


def _gemm_mode(layer: LayerParameter, trained: bool) -> Iterator[Finding]:
    product = layer.inner_product_param
    dense = product.gemm_mode in (product.GEMM, product.AUTO)  # AUTO trains as GEMM
    if trained and proto.TRAIN in _phases(layer) and not dense:
        yield Finding(
            "error",
            f"layer '{layer.name}'",
            f"gemm_mode {product.GemmMode.Name(product.gemm_mode)} runs sparse weights forward "
            "only, but this net is trained.",
            "Train with GEMM and set the mode in the net that is deployed or timed.",
        )


def _dumps(layer: LayerParameter) -> Iterator[Finding]:
    """SkimCaffe writes weights and activations while it runs; here a command does when asked."""
    param = layer.inner_product_param if layer.type == "InnerProduct" else layer.convolution_param
    asked = [name for name in ("dump_parameter", "dump_activation") if getattr(param, name)]
    if asked:
        yield Finding(
            "warning",
            f"layer '{layer.name}'",
            f"{' and '.join(asked)} would make SkimCaffe write files; here nothing is written.",
            "Use minissl convert to write weights as Matrix Market, and net.blobs for activations.",
        )


def _param_spec(
    layer: LayerParameter, index: int, spec: ParamSpec, where: str
) -> Iterator[Finding]:
    kind = spec.regularization_type
    if kind and kind not in REGULARIZATION_TYPES:
        yield _unknown_regularization(where, kind)
    if spec.block_group_lasso and not _asks_for_blocks(spec):
        yield Finding(
            "warning",
            where,
            "Every block_decay_mult is 0, so its blocks are counted but never shrunk.",
            "Set block_decay_mult above 0, or remove the blocks.",
        )
    if not _asks_for_lasso(spec):
        return
    if spec.lr_mult == 0:
        yield Finding(
            "warning",
            where,
            "Group lasso is configured, but lr_mult 0 keeps these weights from changing.",
            "Raise lr_mult or remove the group lasso.",
        )
    if index > 0 and layer.type in _WITH_BIAS:
        yield Finding(
            "warning",
            where,
            "Group lasso is configured for the bias, where it only shrinks the offsets.",
            "Move it to the first param of the layer, which is for the weights.",
        )


def _tiles(spec: ParamSpec, where: str, shape: tuple[int, ...] | None) -> Iterator[Finding]:
    """Compare each tile with the weight matrix: R x C must be cut into whole tiles."""
    for tile in spec.block_group_lasso:
        name = f"The block xdimen {tile.xdimen}, ydimen {tile.ydimen}"
        if tile.xdimen == 0 or tile.ydimen == 0:
            yield Finding("error", where, f"{name} is empty.", "Both must be at least 1.")
            continue
        if not shape or 0 in shape:
            continue
        rows, columns = shape[0], prod(shape[1:])
        if tile.ydimen > rows or tile.xdimen > columns:
            problem = f"{name} exceeds the weight matrix of {rows} rows and {columns} columns."
        elif rows % tile.ydimen or columns % tile.xdimen:
            problem = f"{name} does not divide the matrix of {rows} rows and {columns} columns."
        else:
            continue
        advice = f"Choose an xdimen that divides {columns} and a ydimen that divides {rows}."
        yield Finding("error", where, problem, advice)


def _no_way_around(
    net: NetParameter, weight_shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Finding]:
    """A layer that may die as a whole needs a shortcut, or nothing reaches the loss."""
    for layer in net.layer:
        shape = weight_shapes.get(layer.name)
        if not shape or not layer.param:
            continue
        rows, columns = shape[0], prod(shape[1:])
        whole = any(
            (tile.xdimen, tile.ydimen) == (columns, rows) and tile.block_decay_mult
            for tile in layer.param[0].block_group_lasso
        )
        if whole and rows * columns > 1 and not _reaches_loss(net, layer.name):
            yield Finding(
                "warning",
                f"layer '{layer.name}'",
                "All its weights are one group, and no shortcut leads around it.",
                "If the group dies, nothing reaches the loss: divide it, or add a shortcut.",
            )


def _reaches_loss(net: NetParameter, without: str) -> bool:
    """Whether some loss still sees the data when one layer passes nothing on."""
    reached: set[str] = set()
    losses = [layer for layer in net.layer if layer.type.endswith("Loss")]
    for layer in net.layer:
        if layer in losses and layer.bottom and layer.bottom[0] in reached:
            return True
        if layer.name == without:
            reached.difference_update(layer.top)
        elif not layer.bottom or reached.intersection(layer.bottom):
            reached.update(layer.top)
    return not losses


def _nothing_trains(net: NetParameter) -> Iterator[Finding]:
    rates = [spec.lr_mult for layer in net.layer for spec in layer.param]
    silent = [
        layer for layer in net.layer if layer.type in _LEARNING and not layer.param
    ]  # their lr_mult is 1
    if rates and not any(rates) and not silent:
        yield Finding(
            "warning",
            "net",
            "Every lr_mult is 0, so nothing would be trained.",
            "Set lr_mult above 0 where the net should learn.",
        )


# ---------------------------------------------------------------------------- the solver alone


def _testing(solver: SolverParameter) -> Iterator[Finding]:
    if solver.test_iter and not solver.test_interval:
        yield Finding(
            "warning",
            "solver",
            "test_iter is given but test_interval is not, so no test is run.",
            "Set test_interval to the number of iterations between tests.",
        )
    if solver.test_interval and not solver.test_iter:
        yield Finding(
            "error",
            "solver",
            "test_interval is given but test_iter is not, so a test has no batches.",
            "Set test_iter to the number of batches that cover the test set.",
        )


def _steps(solver: SolverParameter) -> Iterator[Finding]:
    steps = list(solver.stepvalue)
    if solver.lr_policy == "multistep" and not steps:
        yield Finding(
            "warning",
            "solver",
            "lr_policy is multistep but no stepvalue is given, so the rate stays the same.",
            "Add a stepvalue for each iteration at which the rate drops.",
        )
    if steps and solver.lr_policy != "multistep":
        yield Finding(
            "warning",
            "solver",
            f"stepvalue is given but lr_policy is '{solver.lr_policy}', which ignores it.",
            'Write lr_policy: "multistep", or remove stepvalue.',
        )
    if any(later <= earlier for earlier, later in pairwise(steps)):
        yield Finding(
            "warning",
            "solver",
            f"The stepvalues {', '.join(map(str, steps))} do not increase.",
            "Put them in increasing order, each once.",
        )
    beyond = [step for step in steps if solver.HasField("max_iter") and step >= solver.max_iter]
    if beyond:
        yield Finding(
            "warning",
            "solver",
            f"stepvalue {beyond[0]} is not reached before max_iter {solver.max_iter}.",
            "Lower the stepvalue or raise max_iter.",
        )


def _snapshots(solver: SolverParameter) -> Iterator[Finding]:
    if not solver.snapshot and solver.max_iter >= LONG_RUN:
        yield Finding(
            "warning",
            "solver",
            f"snapshot is 0 in a run of {solver.max_iter} iterations.",
            "Set snapshot, for example to a tenth of max_iter, so that a stop loses little.",
        )
    if solver.snapshot_diff:
        yield Finding(
            "warning",
            "solver",
            "snapshot_diff is ignored: snapshots hold weights, not their gradients.",
            "Remove it; debug_info prints the size of every gradient.",
        )
    given = [name for name in _THRESHOLDS if solver.HasField(name)]
    if given:
        yield Finding(
            "warning",
            "solver",
            f"{', '.join(given)} {'are' if len(given) > 1 else 'is'} SkimCaffe's and ignored: "
            "weights below 0.0001 become zero after an update, whatever their regularization.",
            "Remove it; --no-zero-out leaves small weights as they are.",
        )


def _solver_regularization(solver: SolverParameter) -> Iterator[Finding]:
    if solver.regularization_type not in REGULARIZATION_TYPES:
        yield _unknown_regularization("solver", solver.regularization_type)
    if solver.group_lasso_method not in GROUP_LASSO_METHODS:
        yield Finding(
            "error",
            "solver",
            f"group_lasso_method '{solver.group_lasso_method}' is unknown.",
            f"Write one of {', '.join(GROUP_LASSO_METHODS)}.",
        )


def _update_rule(solver: SolverParameter) -> Iterator[Finding]:
    if solver.type in ("AdaGrad", "RMSProp") and solver.momentum:
        yield Finding(
            "error",
            "solver",
            f"Type {solver.type} has no momentum, but momentum is {solver.momentum:g}.",
            'Remove momentum, or write type: "Adam".',
        )
    if solver.type not in SOLVER_TYPES:
        yield Finding(
            "error",
            "solver",
            f"Type '{solver.type}' is unknown.",
            f"Write one of {', '.join(SOLVER_TYPES)}.",
        )


# ---------------------------------------------------------------------------- solver with net


def _asks_for_blocks(spec: ParamSpec) -> bool:
    return any(tile.block_decay_mult for tile in spec.block_group_lasso)


# Per kind of group: the solver's decay, the field in the net, whether a param asks for it.
_KINDS: list[tuple[str, str, Callable[[Any], bool]]] = [
    ("block_group_decay", "block_group_lasso", _asks_for_blocks),
    ("breadth_decay", "breadth_decay_mult", lambda spec: bool(spec.breadth_decay_mult)),
    (
        "kernel_shape_decay",
        "kernel_shape_decay_mult",
        lambda spec: bool(spec.kernel_shape_decay_mult),
    ),
]


def _asks_for_lasso(spec: ParamSpec) -> bool:
    return any(asks(spec) for _, _, asks in _KINDS)


def _lasso_in_both(solver: SolverParameter, net: NetParameter) -> Iterator[Finding]:
    """A group lasso needs the solver's decay and a multiplier or block in the net."""
    for decay, field, asks in _KINDS:
        layers = [layer.name for layer in net.layer if any(map(asks, layer.param))]
        if layers and not getattr(solver, decay):
            yield Finding(
                "warning",
                "solver",
                f"{decay} is 0, so the {field} of {_named(layers)} has no effect.",
                f"Set {decay} in the solver, or remove {field} from the net.",
            )
        if getattr(solver, decay) and not layers:
            yield Finding(
                "warning",
                "solver",
                f"{decay} is set, but no layer asks for it, so it has no effect.",
                f"Add {field} to the param of the layers that should become sparse.",
            )


def _connectivity(
    solver: SolverParameter, net: NetParameter, weights_given: bool | None
) -> Iterator[Finding]:
    """Zeros are frozen to fine-tune after sparsification, from weights that have zeros."""
    decays = [decay for decay, _, _ in _KINDS if getattr(solver, decay)]
    for layer in net.layer:
        if layer.connectivity_mode == layer.CONNECTED:
            continue
        mode = layer.ConnectivityMode.Name(layer.connectivity_mode)
        where = f"layer '{layer.name}'"
        active = [
            decay for decay, _, asks in _KINDS if decay in decays and any(map(asks, layer.param))
        ]
        if active:
            yield Finding(
                "warning",
                where,
                f"{mode} freezes zeros while {active[0]} still makes new ones.",
                "Sparsify with CONNECTED first, then freeze and set the decay to 0 to fine-tune.",
            )
        if weights_given is False:
            yield Finding(
                "warning",
                where,
                f"{mode} freezes the zeros of loaded weights, but the run starts from none.",
                "Start it with --weights, or remove connectivity_mode.",
            )


def _unknown_regularization(where: str, kind: str) -> Finding:
    return Finding(
        "error",
        where,
        f"regularization_type '{kind}' is unknown.",
        f"Write one of {', '.join(REGULARIZATION_TYPES)}.",
    )


def _named(layers: list[str], most: int = 3) -> str:
    named = ", ".join(layers[:most])
    return named if len(layers) <= most else f"{named} and {len(layers) - most} more"
