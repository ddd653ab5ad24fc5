import os
import struct
import zlib

import _png


def info(arguments):
    png = _png.Png(arguments["file"])
    profile, gamma = png.data("iCCP"), png.data("gAMA")
    return {
        "file": arguments["file"],
        "width": png.width,
        "height": png.height,
        "bit_depth": png.depth,
        "colour_type": _png.COLOUR_TYPES[png.colour],
        "interlaced": png.interlaced,
        "bytes": os.path.getsize(arguments["file"]),
        "icc_profile": profile.split(b"\0")[0].decode("latin-1") if profile else None,
        "gamma": struct.unpack(">I", gamma)[0] / 100000 if gamma and len(gamma) == 4 else None,
        "text": dict(filter(None, map(text, png.chunks))),
        "chunks": [name for name, _, _ in png.chunks],
        "broken_chunks": [name for name, _, right in png.chunks if not right],
    }


def text(chunk):
    name, data, _ = chunk
    key, _, value = data.partition(b"\0")
    if name == "tEXt":
        return key.decode("latin-1"), value.decode("latin-1")
    if name == "zTXt":
        # Bounded: a text of a few bytes can unpack to gigabytes.
        try:
            return key.decode("latin-1"), zlib.decompressobj().decompress(value[1:], 65536).decode("latin-1")
        except zlib.error:
            return key.decode("latin-1"), ""
    return None


_png.main(info)
