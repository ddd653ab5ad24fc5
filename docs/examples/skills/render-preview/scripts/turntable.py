import math
import os
import struct
import zlib

import _talk


class Failure(Exception):
    """Something that the caller can put right."""


def read_edges(path):
    """The corners of an OBJ file, and its edges as pairs of them."""
    corners, edges = [], set()
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            words = line.split()
            try:
                if words[:1] == ["v"]:
                    corners.append(tuple(float(word) for word in words[1:4]))
                elif words[:1] == ["f"]:
                    face = [int(word.split("/")[0]) for word in words[1:]]
                    face = [index - 1 if index > 0 else index + len(corners) for index in face]
                    edges.update(tuple(sorted(pair)) for pair in zip(face, face[1:] + face[:1]))
            except ValueError:
                raise Failure(f"{path}:{number}: this line is not understood") from None
    if not edges or min(edges)[0] < 0 or max(max(edge) for edge in edges) >= len(corners):
        raise Failure(f"{path} has no faces, or one whose corners are not there")
    return corners, edges


def draw(corners, edges, angle, size):
    """A frame: rows of grey pixels."""
    low = [min(corner[axis] for corner in corners) for axis in range(3)]
    high = [max(corner[axis] for corner in corners) for axis in range(3)]
    centre = [(a + b) / 2 for a, b in zip(low, high)]
    scale = size * 0.45 / (math.dist(low, high) / 2 or 1)
    pixels = [bytearray(b"\xf0" * size) for _ in range(size)]
    points = []
    for corner in corners:
        x, y, z = (value - middle for value, middle in zip(corner, centre))
        x, z = x * math.cos(angle) + z * math.sin(angle), z * math.cos(angle) - x * math.sin(angle)
        y = y * math.cos(0.4) - z * math.sin(0.4)
        points.append((size / 2 + x * scale, size / 2 - y * scale))
    for start, end in edges:
        (x1, y1), (x2, y2) = points[start], points[end]
        steps = max(1, math.ceil(max(abs(x2 - x1), abs(y2 - y1))))
        for step in range(steps + 1):
            x, y = x1 + (x2 - x1) * step / steps, y1 + (y2 - y1) * step / steps
            pixels[min(size - 1, int(y))][min(size - 1, int(x))] = 0x20
    return pixels


def write_png(path, pixels):
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", len(pixels[0]), len(pixels), 8, 0, 0, 0, 0)
    rows = b"".join(b"\0" + bytes(row) for row in pixels)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def may_replace(paths, overwrite):
    """Whether the frames may be written: nothing is there, or the caller or the user says so."""
    present = sum(os.path.exists(path) for path in paths)
    if not present or overwrite:
        return True
    try:
        return _talk.confirm(f"Replace {present} frames in {os.path.dirname(paths[0])}?")
    except _talk.Refused as refused:
        raise Failure(f"{present} frames are there already, and the user was not asked ({refused}); set overwrite") from None


def turntable(arguments):
    count, size = arguments.get("frames", 8), arguments.get("size", 96)
    if not 1 <= count <= 360 or not 16 <= size <= 1024:
        raise Failure("frames must be 1 to 360, size 16 to 1024")
    corners, edges = read_edges(arguments["file"])
    folder = arguments["folder"]
    paths = [os.path.join(folder, f"frame.{number:04}.png") for number in range(1, count + 1)]
    if not may_replace(paths, arguments.get("overwrite", False)):
        raise Failure("the frames that are there were kept")
    os.makedirs(folder, exist_ok=True)
    _talk.log("info", f"{len(edges)} edges, {count} frames", logger="turntable")
    for number, path in enumerate(paths):
        write_png(path, draw(corners, edges, 2 * math.pi * number / count, size))
        _talk.progress(number + 1, count, os.path.basename(path))
    return {"folder": folder, "frames": [os.path.basename(path) for path in paths]}


try:
    _talk.result(turntable(_talk.arguments()))
except (Failure, OSError) as failure:
    _talk.result({"success": False, "message": str(failure)})
