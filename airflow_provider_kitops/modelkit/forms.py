"""In which forms a ModelKit can be written. Imports nothing, so that the command's help is quick."""

from __future__ import annotations

from typing import Literal

#: As kit does today, as kit 1.7 did, or as a CNCF ModelPack. All three are read.
ManifestFormat = Literal["modelkit", "modelkit-v1.7", "modelpack"]
#: A tar stream, or one file as it is.
LayerFormat = Literal["tar", "raw"]
Compression = Literal["none", "gzip", "gzip-fastest", "zstd"]
