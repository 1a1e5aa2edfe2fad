"""ONNX: networks from and for everybody else's tools.

=================  ==========================================================================
``files``          models as files, read and written safely; tensors as arrays
``graph``          a model as a list of nodes with plain attributes, checked
``patterns``       several nodes that stand for one layer, such as PyTorch's LRN
``translation``    from a graph to prototxt and weights; ``operators`` holds one function per
                   ONNX operator
``export``         from a net and its weights to a model
``arrays``         operators as functions of NumPy arrays: constants are folded with them, and
                   the backend runs what no layer computes
``backend``        :class:`onnx.backend.base.Backend` on top of all that
=================  ==========================================================================

The library ``onnx`` is an extra, ``pip install 'minissl[onnx]'``, and imported on first use.
"""
