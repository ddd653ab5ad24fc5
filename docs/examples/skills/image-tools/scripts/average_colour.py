import _png


def average(arguments):
    png = _png.Png(arguments["file"])
    red = green = blue = weight = 0
    for row in png.rows():
        for r, g, b, a in row:
            red, green, blue, weight = red + r * a, green + g * a, blue + b * a, weight + a
    pixels = png.width * png.height
    rgb = [round(total / weight, 2) if weight else 0 for total in (red, green, blue)]
    return {
        "file": arguments["file"],
        "hex": "#" + "".join(f"{round(value):02x}" for value in rgb),
        "rgb": rgb,
        "alpha": round(weight / pixels / 255, 4),
        "pixels": pixels,
    }


_png.main(average)
