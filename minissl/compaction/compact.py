"""A physically smaller network with the same outputs.

The steps, each in a module of its own:

1. BatchNorm and Scale become part of the convolution before them, if asked for
   (:mod:`~minissl.compaction.batch_norm`);
2. branches that add constants leave their sums (:mod:`~minissl.compaction.branches`);
3. what is known without looking at the input is found (:mod:`~minissl.compaction.constants`), then
   what is read (:mod:`~minissl.compaction.reading`), what may leave
   (:mod:`~minissl.compaction.plan`), and the layers are cut (:mod:`~minissl.compaction.shrink`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minissl.channels import Flow
from minissl.compaction.batch_norm import fold_batch_norm
from minissl.compaction.branches import Branches, drop_branches, look_at_branches
from minissl.compaction.draft import Draft
from minissl.compaction.plan import Plan, keep_everything, make_plan
from minissl.compaction.reasons import find_reasons
from minissl.compaction.report import Report, make_report
from minissl.compaction.shrink import shrink, stored_bytes
from minissl.errors import ConfigError
from minissl.net import Net


@dataclass
class Compacted:
    """A smaller network.

    Attributes
    ----------
    net_param : NetParameter
        With the same outputs, for both phases; ``Net(net_param)`` builds it.
    weights : dict
        {layer name: [arrays]}, for :meth:`minissl.Net.load`.
    report : Report
    layer_types : dict
        {layer name: type}, which a ``.caffemodel`` records.
    """

    net_param: Any
    weights: dict[str, list[np.ndarray]]
    report: Report
    layer_types: dict[str, str]


def compact(net: Net, fold_norms: bool = False) -> Compacted:
    """Remove what zero weights have made superfluous, so that outputs stay the same.

    * Dead filters (all weights 0) leave together with the channels of the layers that read them,
      also behind BatchNorm, Scale, Bias, Concat and Slice; filters that nothing reads leave as
      well, until nothing changes. Filters that are added up leave together or not at all.
    * What a dead filter puts out is a constant: its bias, as the layers behind it pass it on. It is
      added to the biases of its readers (which get one if they had none). Where that is not exact,
      since a padded border shows, one constant channel stays for all of them.
    * A branch of a residual network that adds constants only leaves with all of its layers. The
      constants move into a bias, or into a Bias layer in place of the sum: one number for each
      channel, or a map where a padded border shows.
    * Columns that are dead inside living channels are left out by ``kept_columns``, where that
      makes the layer smaller: the rest is stored as a packed matrix (F, kept). Such a layer serves
      inference only. A transposed InnerProduct is then stored as (F, kept), too.
    * Conv groups keep equal numbers of filters and channels, a layer that runs keeps one filter and
      one column; layers that share weights, and filters of output layers, stay as they are, and so
      does what a layer reads that mixes channels (LRN across channels, a softmax).

    A network that would not get smaller is returned unchanged.

    Parameters
    ----------
    net : Net
        Of phase TEST, with its weights; is left as it is. Of a network compacted before, nothing
        more is removed, unless a branch had stayed for its map of constants: when channels have
        left, the map may be smaller, or even.
    fold_norms : bool
        Also make BatchNorm, Scale and Bias part of the convolution or inner product before them.
        The network is faster then, and serves inference only: without BatchNorm it does not learn
        as before.

    Returns
    -------
    Compacted

    Raises
    ------
    ConfigError
        For a network of phase TRAIN.

    Notes
    -----
    Constants are computed in float64 and rounded once, to the type of the network. Source: SSL
    paper, Section 3.2 (filters, channels, depth) and 3.3 (kept columns).
    """
    if net.phase != "TEST":
        raise ConfigError(
            f"net '{net.name}' is one of phase {net.phase}; compact one of phase TEST, with its "
            "weights"
        )
    folded = fold_batch_norm(net) if fold_norms else net
    branches = drop_branches(folded, fold_norms)
    compacted = _cut(net, branches)
    if branches.net is not folded and compacted.report.bytes_after > _bytes(folded):
        return _cut(net, look_at_branches(folded))  # constants took more than what left
    return compacted


def _cut(net: Net, branches: Branches) -> Compacted:
    """Cut what is left when branches have been dropped."""
    slim, flow = branches.net, branches.flow
    constants, reading = branches.constants, branches.reading
    plan = make_plan(slim, flow, constants, reading)
    reasons = find_reasons(slim, flow, constants, reading, plan)
    draft, done = _apply(slim, flow, plan)
    for name, why in branches.stays.items():
        reasons.setdefault(name, []).extend(why)
    return Compacted(
        draft.param(),
        {name: [blob.copy() for blob in blobs] for name, blobs in draft.weights.items()},
        make_report(net, slim, flow, plan, done, reasons),
        {layer.name: layer.type_name for layer in done.layers if layer.parameters},
    )


def _apply(net: Net, flow: Flow, plan: Plan) -> tuple[Draft, Net]:
    """Return the smaller network; the same one if it would grow. The plan is changed then."""
    draft = shrink(net, flow, plan)
    done = draft.build()
    if _bytes(done) >= _bytes(net):
        unchanged = keep_everything(net, flow)
        plan.runs, plan.stay, plan.layers = unchanged.runs, unchanged.stay, unchanged.layers
        return Draft(net), net
    return draft, done


def _bytes(net: Net) -> int:
    return sum(map(stored_bytes, net.layers))
