import os

import _png

BACKGROUND = (32, 32, 32)


def sheet(arguments):
    files, output = arguments["files"], arguments["output"]
    size, columns = arguments.get("size", 128), arguments.get("columns", 4)
    if not files or not 1 <= size <= 1024 or not 1 <= columns <= 32 or len(files) > 400:
        raise _png.Failure("give 1 to 400 files, a size of 1 to 1024 and 1 to 32 columns")
    if os.path.exists(output) and not arguments.get("overwrite", False):
        raise _png.Failure(f"{output} is there already; set overwrite to replace it")
    columns = min(columns, len(files))
    lines = -(-len(files) // columns)
    canvas = [bytearray(bytes(BACKGROUND) * (columns * size)) for _ in range(lines * size)]
    for at, path in enumerate(files):
        paste(canvas, thumbnail(_png.Png(path), size), at % columns * size, at // columns * size, size)
    _png.write(output, columns * size, canvas)
    return {"output": output, "width": columns * size, "height": lines * size, "images": len(files)}


def thumbnail(png, size):
    """Nearest pixels, so that the image fits into a square of this size; on the background where it is transparent."""
    factor = min(size / png.width, size / png.height)
    width, height = max(1, int(png.width * factor)), max(1, int(png.height * factor))
    wanted = {}
    for y in range(height):
        wanted.setdefault(y * png.height // height, []).append(y)
    rows = [None] * height
    for line, row in enumerate(png.rows()):
        for y in wanted.get(line, ()):
            rows[y] = [blend(row[x * png.width // width]) for x in range(width)]
    return rows


def blend(pixel):
    alpha = pixel[3]
    return [(value * alpha + under * (255 - alpha)) // 255 for value, under in zip(pixel, BACKGROUND)]


def paste(canvas, rows, left, top, size):
    top += (size - len(rows)) // 2
    left += (size - len(rows[0])) // 2
    for y, row in enumerate(rows):
        canvas[top + y][3 * left:3 * (left + len(row))] = bytes(value for pixel in row for value in pixel)


_png.main(sheet)
