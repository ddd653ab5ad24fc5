import _obj


def inspect(arguments):
    mesh = _obj.read(arguments["file"])
    return {
        "file": arguments["file"],
        "vertices": len(mesh.positions),
        "normals": len(mesh.normals),
        "texture_coordinates": len(mesh.uvs),
        "faces": len(mesh.faces),
        "triangles": sum(len(corners) - 2 for _, corners in mesh.faces),
        "objects": list(dict.fromkeys(mesh.objects)),
        "materials": [name for name in mesh.materials() if name],
        "material_libraries": mesh.libraries,
        "bounds": mesh.bounds(),
    }


_obj.main(inspect)
