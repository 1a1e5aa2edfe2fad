"""Files: prototxt, caffemodel, solver states, LMDB, HDF5, safetensors, npz and Matrix Market.

Every reader turns any sequence of bytes into a result or a :class:`minissl.errors.MinisslError`;
every writer replaces the old file only when the new one is complete on disk.
"""
