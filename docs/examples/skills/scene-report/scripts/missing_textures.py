"""Which textures a scene file names, and which of them are not there."""

import json
import os
import re
import sys

IMAGE = r"\.(?:png|jpe?g|tiff?|tga|exr|hdr|bmp|gif|psd|tx|webp)"
BYTES_MAX = 64 * 1024 * 1024


def references(path):
    """Paths as the file names them, with the folder that they are relative to."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(BYTES_MAX)
    ending = os.path.splitext(path)[1].lower()
    if ending == ".obj":
        libraries = re.findall(r"^\s*mtllib\s+(.+?)\s*$", text, re.M)
        beside = [os.path.join(os.path.dirname(path), name) for name in libraries]
        return [name for library in beside if os.path.exists(library) for name in references(library)]
    if ending == ".mtl":
        # Options such as `-bm 0.2` stand before the name, which is the last word.
        names = re.findall(r"^\s*(?:map_\w+|bump|disp|decal|refl|norm)\s+(?:.*\s)?(\S+?)\s*$", text, re.M | re.I)
    elif ending == ".usda":
        names = [name for name in re.findall(r"@([^@\n]+)@", text) if re.search(IMAGE + "$", name, re.I)]
    elif ending == ".gltf":
        images = json.loads(text).get("images", [])
        names = [image["uri"] for image in images if "uri" in image and not image["uri"].startswith("data:")]
    else:
        raise ValueError("only .obj, .mtl, .usda and .gltf files are read")
    return list(dict.fromkeys(names))


def main(arguments):
    path = arguments.get("file")
    if not path:
        return {"success": False, "message": 'give "file", the path of an .obj, .mtl, .usda or .gltf file'}
    try:
        names = references(path)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {"success": False, "message": f"{path}: {error}"}
    folder = os.path.dirname(path)
    missing = [name for name in names if not os.path.exists(os.path.join(folder, name.replace("\\", "/")))]
    return {"file": path, "textures": len(names), "missing": missing, "found": [name for name in names if name not in missing]}


print(json.dumps(main(json.load(sys.stdin))))
