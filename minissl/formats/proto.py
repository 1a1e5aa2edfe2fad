"""Caffe's protobuf messages as Python classes, built from ``caffe.desc`` on first use.

``proto.NetParameter``, ``proto.SolverParameter`` and every other message of ``caffe.proto`` are
attributes of this module, and so are the values of its top-level enum, ``proto.TRAIN`` and
``proto.TEST``.

The classes come from a compiled description of the schema, not from generated code: generated
code is tied to a protobuf version. They live in a descriptor pool of their own, so that another
``caffe_pb2`` in the same process (PyTorch, OpenCV, Caffe itself) does not clash with them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.descriptor_pool import DescriptorPool
    from google.protobuf.message import Message

    class _AnyMessage(Message):
        """A message whose fields the type checker does not know."""

        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    class NetParameter(_AnyMessage): ...  # noqa: D101

    class SolverParameter(_AnyMessage): ...  # noqa: D101

    class LayerParameter(_AnyMessage): ...  # noqa: D101

    class V1LayerParameter(_AnyMessage): ...  # noqa: D101

    class ParamSpec(_AnyMessage): ...  # noqa: D101

    class NetState(_AnyMessage): ...  # noqa: D101

    class NetStateRule(_AnyMessage): ...  # noqa: D101

    class FillerParameter(_AnyMessage): ...  # noqa: D101

    class BlockGroupLassoSpec(_AnyMessage): ...  # noqa: D101

    class BlobProto(_AnyMessage): ...  # noqa: D101

    class BlobProtoVector(_AnyMessage): ...  # noqa: D101

    class BlobShape(_AnyMessage): ...  # noqa: D101

    class Datum(_AnyMessage): ...  # noqa: D101

    class SolverState(_AnyMessage): ...  # noqa: D101


SCHEMA = Path(__file__).with_name("caffe.desc")
PACKAGE = "caffe"


@cache
def pool() -> DescriptorPool:
    """Return the private descriptor pool that holds the schema."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    private = DescriptorPool()
    for file in FileDescriptorSet.FromString(SCHEMA.read_bytes()).file:
        private.AddSerializedFile(file.SerializeToString())
    return private


def descriptor(name: str) -> Descriptor:
    """Return the description of the message `name`, for example ``LayerParameter``."""
    return pool().FindMessageTypeByName(f"{PACKAGE}.{name}")


@cache
def message_names() -> tuple[str, ...]:
    """Return the names of all messages of the schema, in alphabetical order."""
    file = pool().FindFileContainingSymbol(f"{PACKAGE}.NetParameter")
    return tuple(sorted(file.message_types_by_name))


def __getattr__(name: str) -> Any:
    # Private names are asked for by the import system and by tools; they are never messages.
    if name.startswith("_"):
        raise AttributeError(name)
    from google.protobuf.message_factory import GetMessageClass

    file = pool().FindFileContainingSymbol(f"{PACKAGE}.NetParameter")
    value: Any
    if name in file.message_types_by_name:
        value = GetMessageClass(file.message_types_by_name[name])
    else:
        for enum in file.enum_types_by_name.values():
            if name in enum.values_by_name:
                value = enum.values_by_name[name].number
                break
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
