"""Reading Wavefront OBJ files, and what the scripts of this skill share."""

import json
import math
import os
import sys


class Failure(Exception):
    """Something that the caller can put right."""


class Mesh:
    def __init__(self):
        self.positions = []
        self.uvs = []
        self.normals = []
        self.faces = []  # (material, [(position, uv or None, normal or None), ...])
        self.objects = []
        self.libraries = []

    def bounds(self):
        if not self.positions:
            return {"min": [0, 0, 0], "max": [0, 0, 0], "size": [0, 0, 0]}
        low = [min(point[axis] for point in self.positions) for axis in range(3)]
        high = [max(point[axis] for point in self.positions) for axis in range(3)]
        return {"min": low, "max": high, "size": [b - a for a, b in zip(low, high)]}

    def materials(self):
        """Names in the order of their first use; '' stands for none."""
        return list(dict.fromkeys(material for material, _ in self.faces))


def main(work):
    """Runs a tool: arguments from standard input, the result or a failure to standard output."""
    try:
        result = work(json.load(sys.stdin))
    except Failure as failure:
        result = {"success": False, "message": str(failure)}
    except OSError as error:
        result = {"success": False, "message": f"{error.filename}: {error.strerror}"}
    print(json.dumps(result))


def read(path):
    mesh = Mesh()
    material = ""
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            try:
                key, rest = words[0], words[1:]
                if key == "v":
                    mesh.positions.append(numbers(rest, 3))
                elif key == "vt":
                    mesh.uvs.append(numbers(rest + ["0"], 2))
                elif key == "vn":
                    mesh.normals.append(numbers(rest, 3))
                elif key == "f":
                    mesh.faces.append((material, [corner(mesh, word) for word in rest]))
                    if len(rest) < 3:
                        raise ValueError("a face needs three corners")
                elif key == "usemtl":
                    material = " ".join(rest)
                elif key in ("o", "g") and rest:
                    mesh.objects.append(" ".join(rest))
                elif key == "mtllib":
                    mesh.libraries.append(" ".join(rest))
            except (ValueError, IndexError) as error:
                raise Failure(f"{path}:{number}: {error}") from None
    if not mesh.positions:
        raise Failure(f"{path} has no vertices: is it an OBJ file?")
    return mesh


def numbers(words, count):
    if len(words) < count:
        raise ValueError(f"{count} numbers are needed")
    values = [float(word) for word in words[:count]]
    if not all(map(math.isfinite, values)):
        raise ValueError("a number is not finite")
    return values


def corner(mesh, word):
    parts = (word.split("/") + ["", ""])[:3]
    lists = (mesh.positions, mesh.uvs, mesh.normals)
    return tuple(index(part, values) for part, values in zip(parts, lists))


def index(text, values):
    """OBJ counts from 1, and from -1 backwards."""
    if not text:
        return None
    number = int(text)
    at = number - 1 if number > 0 else len(values) + number
    if not 0 <= at < len(values):
        raise ValueError(f"the index {number} points to nothing")
    return at


def check_output(path, overwrite):
    if os.path.exists(path) and not overwrite:
        raise Failure(f"{path} is there already; set overwrite to replace it")
