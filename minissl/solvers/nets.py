"""The networks a solver trains and tests, from the many ways a solver prototxt can name them."""

from __future__ import annotations

from typing import Any

from minissl.errors import ConfigError
from minissl.net import Net


def train_net(solver: Any, solver_path: str, **options: Any) -> Net:
    """Build the network of ``net``, ``train_net``, ``net_param`` or ``train_net_param``.

    Raises
    ------
    ConfigError
        When none of them, or more than one, is given.
    """
    given = [
        name
        for name in ("net", "net_param", "train_net", "train_net_param")
        if solver.HasField(name)
    ]
    if len(given) != 1:
        raise ConfigError(
            f"a solver names its training net once; this one has {', '.join(given) or 'no net'}"
        )
    state = solver.train_state
    return Net(
        _read(solver, given[0], solver_path),
        phase="TRAIN",
        level=state.level,
        stages=tuple(state.stage),
        **options,
    )


def test_nets(solver: Any, solver_path: str, share: Net, **options: Any) -> list[Net]:
    """Build the networks that are tested: those of ``test_net``, else the ``net`` itself.

    There is one for each ``test_iter``; all share the parameters of the training net.
    """
    sources: list[Any] = []
    for message in solver.test_net_param:
        sources.append(message)
    for path in solver.test_net:
        sources.append(_read_path(path, solver_path))
    generic = "net_param" if solver.HasField("net_param") else "net"
    remaining = len(solver.test_iter) - len(sources)
    if remaining > 0:
        if not solver.HasField(generic):
            raise ConfigError(
                f"{len(solver.test_iter)} test_iter are given but only {len(sources)} test nets; "
                "name a test_net for each"
            )
        sources.extend([_read(solver, generic, solver_path)] * remaining)
    if len(sources) > len(solver.test_iter):
        raise ConfigError(
            f"{len(sources)} test nets are given but only {len(solver.test_iter)} test_iter; "
            "say for each how many batches it takes"
        )
    if sources and not solver.test_interval:
        raise ConfigError("test_iter is given without test_interval; say how often to test")
    nets = []
    for number, source in enumerate(sources):
        state = solver.test_state[number] if number < len(solver.test_state) else None
        nets.append(
            Net(
                source,
                phase="TEST",
                level=state.level if state else 0,
                stages=tuple(state.stage) if state else (),
                share=share,
                **options,
            )
        )
    return nets


def _read(solver: Any, field: str, solver_path: str) -> Any:
    """Return the NetParameter of one of the solver's fields."""
    value = getattr(solver, field)
    return value if field.endswith("_param") else _read_path(value, solver_path)


def _read_path(path: str, solver_path: str) -> Any:
    from minissl.formats import proto
    from minissl.formats.prototxt import read_net, resolve_net_path

    return read_net(resolve_net_path(proto.SolverParameter(net=path), solver_path))
