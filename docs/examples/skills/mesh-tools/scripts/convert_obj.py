import base64
import json
import os
import re
import struct

import _obj


def convert(arguments):
    source, kind = arguments["file"], arguments["format"]
    output = arguments.get("output") or os.path.splitext(source)[0] + "." + kind
    _obj.check_output(output, arguments.get("overwrite", False))
    mesh = _obj.read(source)
    text = gltf(mesh) if kind == "gltf" else usda(mesh)
    with open(output, "w", encoding="utf-8") as file:
        file.write(text)
    return {
        "output": output,
        "format": kind,
        "bytes": len(text.encode("utf-8")),
        "vertices": len(mesh.positions),
        "faces": len(mesh.faces),
        "parts": [name or "default" for name in mesh.materials()],
    }


def gltf(mesh):
    """One mesh with a primitive for each material; every corner that differs is a vertex of its own."""
    data, views, accessors, primitives = bytearray(), [], [], []

    def add(values, shape, code, component, target, **more):
        while len(data) % 4:
            data.append(0)
        flat = [value for item in values for value in item]
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": 4 * len(flat), "target": target})
        data.extend(struct.pack(f"<{len(flat)}{code}", *flat))
        accessors.append({"bufferView": len(views) - 1, "componentType": component, "count": len(values), "type": shape, **more})
        return len(accessors) - 1

    def floats(values, shape, **more):
        return add(values, shape, "f", 5126, 34962, **more)

    for slot, material in enumerate(mesh.materials()):
        corners, indices = {}, []
        for _, face in (item for item in mesh.faces if item[0] == material):
            for second in range(1, len(face) - 1):
                for corner in (face[0], face[second], face[second + 1]):
                    indices.append(corners.setdefault(corner, len(corners)))
        # glTF wants the bounds of the numbers as they are stored, which is in single precision.
        points = [[struct.unpack("<f", struct.pack("<f", value))[0] for value in mesh.positions[c[0]]] for c in corners]
        low = [min(point[axis] for point in points) for axis in range(3)]
        high = [max(point[axis] for point in points) for axis in range(3)]
        attributes = {"POSITION": floats(points, "VEC3", min=low, max=high)}
        if all(corner[2] is not None for corner in corners):
            attributes["NORMAL"] = floats([unit(mesh.normals[corner[2]]) for corner in corners], "VEC3")
        if all(corner[1] is not None for corner in corners):
            # OBJ counts v from the bottom, glTF from the top.
            attributes["TEXCOORD_0"] = floats([[mesh.uvs[c[1]][0], 1 - mesh.uvs[c[1]][1]] for c in corners], "VEC2")
        faces = add([[at] for at in indices], "SCALAR", "I", 5125, 34963)
        primitives.append({"attributes": attributes, "indices": faces, "material": slot})
    if not primitives:
        raise _obj.Failure("the file has no faces to convert")
    uri = "data:application/octet-stream;base64," + base64.b64encode(bytes(data)).decode()
    return json.dumps({
        "asset": {"version": "2.0", "generator": "mesh-tools"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": primitives}],
        "materials": [{"name": name or "default"} for name in mesh.materials()],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(data), "uri": uri}],
    })


def unit(vector):
    length = sum(value * value for value in vector) ** 0.5
    return [value / length for value in vector] if length > 0 else [0.0, 1.0, 0.0]


def usda(mesh):
    """One Mesh prim; the faces of each material are a GeomSubset, bound by name."""
    def tuples(values):
        return ", ".join("(" + ", ".join(f"{value:.9g}" for value in item) + ")" for item in values)

    corners = [corner for _, face in mesh.faces for corner in face]
    bounds = mesh.bounds()
    lines = [
        "#usda 1.0", "(", '    defaultPrim = "Mesh"', "    metersPerUnit = 0.01", '    upAxis = "Y"', ")", "",
        'def Mesh "Mesh"', "{",
        f"    float3[] extent = [{tuples([bounds['min'], bounds['max']])}]",
        f"    int[] faceVertexCounts = [{', '.join(str(len(face)) for _, face in mesh.faces)}]",
        f"    int[] faceVertexIndices = [{', '.join(str(corner[0]) for corner in corners)}]",
        f"    point3f[] points = [{tuples(mesh.positions)}]",
        '    uniform token subdivisionScheme = "none"',
    ]
    if corners and all(corner[2] is not None for corner in corners):
        lines.append(f"    normal3f[] normals = [{tuples(mesh.normals[corner[2]] for corner in corners)}] (")
        lines += ['        interpolation = "faceVarying"', "    )"]
    if corners and all(corner[1] is not None for corner in corners):
        lines.append(f"    texCoord2f[] primvars:st = [{tuples(mesh.uvs[corner[1]] for corner in corners)}] (")
        lines += ['        interpolation = "faceVarying"', "    )"]
    used = set()
    for material in filter(None, mesh.materials()):
        faces = [str(at) for at, face in enumerate(mesh.faces) if face[0] == material]
        lines += [
            "", f'    def GeomSubset "{identifier(material, used)}"', "    {",
            '        uniform token elementType = "face"', '        uniform token familyName = "materialBind"',
            f"        int[] indices = [{', '.join(faces)}]", "    }",
        ]
    return "\n".join(lines + ["}", ""])


def identifier(name, used):
    """A name of USD: letters, digits and _, no digit first, each once."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", name)
    base = name if not name[:1].isdigit() else "_" + name
    name, count = base, 1
    while name in used:
        count += 1
        name = f"{base}_{count}"
    used.add(name)
    return name


_obj.main(convert)
