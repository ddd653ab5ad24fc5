import os

import _obj


def transform(arguments):
    source, output = arguments["file"], arguments["output"]
    _obj.check_output(output, arguments.get("overwrite", False))
    mesh = _obj.read(source)
    scale = arguments.get("scale", 1)
    if scale <= 0:
        raise _obj.Failure("scale must be above 0: other factors flatten the mesh or turn it inside out")
    move = offset(mesh.bounds(), arguments.get("place", "keep"))
    place = lambda point: [(value + shift) * scale for value, shift in zip(point, move)]
    written = output + ".part"
    with open(source, encoding="utf-8", errors="surrogateescape") as lines, \
            open(written, "w", encoding="utf-8", errors="surrogateescape") as out:
        for line in lines:
            words = line.split()
            if words[:1] == ["v"]:
                # What follows the three coordinates (a weight, a colour) is kept.
                words[1:4] = [f"{value:.9g}" for value in place(map(float, words[1:4]))]
                line = " ".join(words) + "\n"
            out.write(line)
    os.replace(written, output)
    mesh.positions = [place(point) for point in mesh.positions]
    return {"output": output, "vertices": len(mesh.positions), "bounds": mesh.bounds()}


def offset(bounds, place):
    middle = [-(low + high) / 2 for low, high in zip(bounds["min"], bounds["max"])]
    if place == "centre":
        return middle
    if place == "ground":
        return [middle[0], -bounds["min"][1], middle[2]]
    return [0, 0, 0]


_obj.main(transform)
